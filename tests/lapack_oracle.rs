//! LAPACK as judge: the other backends must find what it finds.
//!
//! Needs a feature `lapack-…`. With OpenBLAS set `OPENBLAS_NUM_THREADS=1`: its threads and those
//! of the test runner get in each other's way.
#![cfg(feature = "lapack")]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod linalg_checks;

use eigenstep::linalg::{Backend, Triangle};
use eigenstep::numeric::Real;
use linalg_checks::*;
use ndarray::{Array1, Array2};

fn judged() -> impl Iterator<Item = Backend> {
    assert!(Backend::available().contains(&Backend::Lapack));
    Backend::available().iter().copied().filter(|&backend| backend != Backend::Lapack)
}

fn sizes() -> [usize; 8] {
    [1, 2, 3, 7, 32, 65, 128, 161]
}

/// max |x − y| ≤ BOUND·n·ε·scale
fn close<R: Real>(found: &Array1<R>, expected: &Array1<R>, scale: f64) -> bool {
    let unit = epsilon::<R>() * found.len() as f64 * scale;
    found.iter().zip(expected).all(|(&x, &y)| (x - y).abs().widen() <= BOUND * unit)
}

fn spectra<R: Real>(n: usize) -> Vec<Array2<R>> {
    let condition = if R::NAME == "f64" { 1e12 } else { 1e5 };
    let noise = random::<R>(n, n, 1);
    vec![
        &noise + &noise.t(),
        symmetric(&log_spaced(n, condition), 2),
        symmetric(&(0..n).map(|i| (i % 3) as f64 - 1.0).collect::<Vec<_>>(), 3),
        Backend::Native.gram_left(&random::<R>(n, n.div_ceil(3), 4)),
        Array2::eye(n),
        Array2::zeros((n, n)),
    ]
}

#[test]
fn eigenvalues_and_singular_values() {
    fn check<R: Real>() {
        for a in sizes().into_iter().flat_map(spectra::<R>) {
            let scale = norm(&wide(&a));
            let values = Backend::Lapack.eigh(&a).unwrap().0;
            let singular = Backend::Lapack.svd(&a).unwrap().1;
            for backend in judged() {
                let n = a.nrows();
                assert!(close(&backend.eigh(&a).unwrap().0, &values, scale), "{backend:?} {n}");
                assert!(close(&backend.svd(&a).unwrap().1, &singular, scale), "{backend:?} {n}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn singular_values_of_oblong_matrices() {
    for (m, n) in [(1, 9), (9, 1), (40, 13), (13, 40), (130, 140)] {
        let a = random::<f64>(m, n, 11);
        let expected = Backend::Lapack.svd(&a).unwrap().1;
        for backend in judged() {
            assert!(close(&backend.svd(&a).unwrap().1, &expected, expected[0]), "{backend:?}");
        }
    }
}

/// Differences of factors are measured against the condition of the matrix, about 100 here.
#[test]
fn unique_factors() {
    fn check<R: Real>(n: usize) {
        let a = symmetric::<R>(&log_spaced(n, 100.0), 5);
        let b = random::<R>(n, 4, 6);
        let bound = 100.0 * BOUND;
        let judge = Backend::Lapack;
        let (q, r) = judge.qr(&a).unwrap();
        let l = judge.cholesky(&a).unwrap();
        let x = judge.solve_triangular(&l, Triangle::Lower, true, &b).unwrap();
        for backend in judged() {
            let close = |what: &str, found: &Array2<R>, expected: &Array2<R>| {
                let expected = wide(expected);
                let units = units::<R>(&wide(found), &expected, norm(&expected));
                assert!(units <= bound, "{backend:?} {what} of order {n}: {units} units");
            };
            let (q1, r1) = backend.qr(&a).unwrap();
            close("Q", &q1, &q);
            close("R", &r1, &r);
            close("Cholesky", &backend.cholesky(&a).unwrap(), &l);
            let x1 = backend.solve_triangular(&l, Triangle::Lower, true, &b).unwrap();
            close("solution", &x1, &x);
        }
    }
    for n in sizes() {
        check::<f32>(n);
        check::<f64>(n);
    }
}

/// The backend makes R positive, so LAPACK is asked directly.
#[test]
fn signs_of_qr() {
    use eigenstep::linalg::{QrSigns, qr_with};
    use ndarray_linalg::QR;
    for (m, n) in [(1, 1), (2, 2), (9, 4), (4, 9), (33, 33), (130, 65)] {
        for seed in 0..5 {
            let a = random::<f64>(m, n, seed);
            let (q, r) = a.qr().unwrap();
            let (found_q, found_r) = qr_with(&a, QrSigns::Lapack).unwrap();
            let close = |x: &Array2<f64>, y: &Array2<f64>| norm(&(x - y)) <= 1e-9 * norm(y);
            assert!(close(&found_q, &q) && close(&found_r, &r), "{m} x {n}, seed {seed}");
        }
    }
}

/// Eigenvectors of separated eigenvalues, signs included.
#[test]
fn eigenvectors() {
    for n in sizes() {
        let values: Vec<f64> = (1..=n).map(|i| i as f64).collect();
        let a = symmetric::<f64>(&values, 8);
        let expected = Backend::Lapack.eigh(&a).unwrap().1;
        for backend in judged() {
            let found = backend.eigh(&a).unwrap().1;
            // the gap is 1 and the norm n: perturbations grow n-fold
            let units = units::<f64>(&found, &expected, n as f64);
            assert!(units <= BOUND, "{backend:?} of order {n}: {units} units");
        }
    }
}

#[test]
fn all_refuse_what_is_not_positive_definite() {
    for n in [2, 33, 130] {
        let mut values = log_spaced(n, 10.0);
        values[n / 2] = -0.01;
        let a = symmetric::<f64>(&values, 12);
        for &backend in Backend::available() {
            let message = backend.cholesky(&a).unwrap_err().to_string();
            assert!(message.ends_with("not positive definite"), "{backend:?}: {message}");
        }
    }
}
