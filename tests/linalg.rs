//! Decompositions and products: what every backend promises, and that they agree.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

#[path = "support/cases.rs"]
mod cases;
mod linalg_checks;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::Error;
use eigenstep::linalg::{self, Backend, Triangle};
use eigenstep::numeric::Real;
use linalg_checks::*;
use ndarray::{Array1, Array2, array, s};
use proptest::prelude::*;
use threads::on_threads;

proptest! {
    #![proptest_config(cases::cases(96))]

    #[test]
    fn random_matrices(rows in 1usize..48, cols in 1usize..48, seed: u64) {
        check_all::<f32>(rows, cols, seed);
        check_all::<f64>(rows, cols, seed);
    }

    #[test]
    fn repeated_eigenvalues_and_missing_ranks(
        levels in prop::collection::vec((1usize..12, -2i8..4), 1..6),
        seed: u64,
    ) {
        let values: Vec<f64> =
            levels.iter().flat_map(|&(count, x)| vec![f64::from(x); count]).collect();
        spectrum_is_found::<f32>(&values, seed);
        spectrum_is_found::<f64>(&values, seed);
    }

    #[test]
    fn finite_numbers_of_any_size_never_give_nan(
        (cols, xs) in (1usize..6).prop_flat_map(|n| {
            let finite = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
            (Just(n), prop::collection::vec(finite, n..=6 * n))
        }),
        (cols64, xs64) in (1usize..6).prop_flat_map(|n| {
            let finite = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
            (Just(n), prop::collection::vec(finite, n..=6 * n))
        }),
    ) {
        finite_or_error(&xs, cols);
        finite_or_error(&xs64, cols64);
    }

    #[test]
    fn products(m in 0usize..20, k in 0usize..20, n in 0usize..20, seed: u64) {
        let (a, b) = (random::<f64>(m, k, seed), random::<f64>(k, n, !seed));
        let expected = Array2::from_shape_fn((m, n), |(i, j)| {
            (0..k).map(|l| a[(i, l)] * b[(l, j)]).sum::<f64>()
        });
        let close = |found: &Array2<f64>, expected: &Array2<f64>| {
            found.iter().zip(expected).all(|(x, y)| (x - y).abs() <= 1e-13)
        };
        prop_assert!(close(&linalg::matmul(&a, &b).unwrap(), &expected));
        // with β = 0 the destination may hold anything
        let mut c = Array2::from_elem((m, n), f64::NAN);
        linalg::matmul_into(2.0, &a, &b, 0.0, &mut c).unwrap();
        prop_assert!(close(&c, &(2.0 * &expected)));
        linalg::matmul_into(-1.0, &a, &b, 0.5, &mut c).unwrap();
        prop_assert!(close(&c, &Array2::zeros((m, n))));
    }
}

fn spectrum_is_found<R: Real>(values: &[f64], seed: u64) {
    let a = symmetric::<R>(values, seed);
    let mut expected = values.to_vec();
    expected.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    for &backend in Backend::available() {
        let check = Check::new(backend);
        check.eigh(&a);
        check.svd(&a);
        check.qr(&a);
        let (found, _) = backend.eigh(&a).unwrap();
        for (&found, &expected) in found.iter().zip(&expected) {
            let units = (found.widen() - expected).abs() / (n.max(4.0) * epsilon::<R>() * size);
            assert!(size == 0.0 || units <= BOUND, "{backend:?}: {found:?} for {expected}");
        }
    }
}

fn finite_or_error<R: Real>(xs: &[R], cols: usize) {
    let rows = xs.len() / cols;
    let a = Array2::from_shape_vec((rows, cols), xs[..rows * cols].to_vec()).unwrap();
    let square = a.slice(s![..rows.min(cols), ..rows.min(cols)]);
    let lower = |(i, j)| square[if i < j { (j, i) } else { (i, j) }];
    let symmetric = Array2::from_shape_fn(square.dim(), lower);
    // beyond this the residual itself overflows
    let measurable = a.iter().all(|x| x.abs().widen() < 1e300);
    let only_overflow = |error: Error| assert!(error.to_string().contains("too large"), "{error}");
    for &backend in Backend::available() {
        let check = Check(backend, WILD_BOUND);
        match backend.eigh(&symmetric) {
            Ok(_) if measurable => check.eigh(&symmetric),
            Ok((values, vectors)) => assert!(values.iter().chain(&vectors).all(|x| x.is_finite())),
            Err(error) => only_overflow(error),
        }
        match backend.qr(&a) {
            Ok(_) if measurable => check.qr(&a),
            Ok((q, r)) => assert!(q.iter().chain(&r).all(|x| x.is_finite())),
            Err(error) => only_overflow(error),
        }
        match backend.svd(&a) {
            Ok(_) if measurable => check.svd(&a),
            Ok((u, s, vt)) => assert!(u.iter().chain(&s).chain(&vt).all(|x| x.is_finite())),
            Err(error) => only_overflow(error),
        }
        if let Ok(l) = backend.cholesky(&symmetric) {
            assert!(l.iter().all(|x| x.is_finite()));
        }
        if let Ok(x) = backend.solve_triangular(&square, Triangle::Lower, false, &square) {
            assert!(x.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn odd_and_larger_sizes() {
    // 128 is where faer turns to divide and conquer
    for (rows, cols) in [(127, 127), (129, 64), (64, 131), (200, 201)] {
        check_all::<f32>(rows, cols, 5);
        check_all::<f64>(rows, cols, 5);
    }
}

#[test]
fn eigenvalues_that_divide_and_conquer_must_merge() {
    fn check<R: Real>(a: &Array2<R>) {
        for &backend in Backend::available() {
            let check = Check::new(backend);
            check.eigh(a);
            check.svd(a);
        }
    }
    fn all<R: Real>() {
        let n = 161;
        // statistics after few steps: far fewer gradients than rows
        for steps in [1, 7, n / 3, n - 1] {
            check(&Backend::Native.gram_left(&random::<R>(n, steps, 1)));
        }
        check(&symmetric::<R>(&vec![1.0; n], 2));
        check(&symmetric::<R>(&(0..n).map(|i| (i % 3) as f64 - 1.0).collect::<Vec<_>>(), 3));
        check(&symmetric::<R>(&log_spaced(n, 1e30), 4));
        check::<R>(&Array2::eye(n));
        check::<R>(&Array2::ones((n, n)));
        let tridiagonal = |(i, j): (usize, usize)| R::of([2.0, -1.0, 0.0][i.abs_diff(j).min(2)]);
        check(&Array2::from_shape_fn((n, n), tridiagonal));
    }
    all::<f32>();
    all::<f64>();
}

#[test]
fn ill_conditioned() {
    for n in [2, 17, 60, 140] {
        let a = symmetric::<f64>(&log_spaced(n, 1e12), 9);
        let single = symmetric::<f32>(&log_spaced(n, 1e5), 9);
        for &backend in Backend::available() {
            let check = Check::new(backend);
            check.eigh(&a);
            check.cholesky(&a);
            check.qr(&a);
            check.svd(&a);
            check.eigh(&single);
            check.cholesky(&single);
            check.qr(&single);
            check.svd(&single);
        }
        backends_agree(&a);
        backends_agree(&single);
    }
}

/// All backends against the native one, for a symmetric positive definite matrix.
fn backends_agree<R: Real>(a: &Array2<R>) {
    let native = Backend::Native;
    let values = native.eigh(a).unwrap().0;
    let singular = native.svd(a).unwrap().1;
    let scale = epsilon::<R>() * a.nrows() as f64 * singular[0].widen();
    for &backend in Backend::available() {
        let close = |x: &Array1<R>, y: &Array1<R>| {
            let worst = x.iter().zip(y).map(|(&x, &y)| (x - y).abs().widen() / scale);
            worst.fold(0.0, f64::max) <= BOUND
        };
        assert!(close(&backend.eigh(a).unwrap().0, &values), "{backend:?} eigh");
        assert!(close(&backend.svd(a).unwrap().1, &singular), "{backend:?} svd");
    }
}

#[test]
fn unique_factors_agree_entry_by_entry() {
    // well-conditioned, separated eigenvalues: every factor is determined, signs included
    let n = 23;
    let values: Vec<f64> = (1..=n).map(|i| i as f64).collect();
    let a = symmetric::<f64>(&values, 3);
    let native = Backend::Native;
    for &backend in Backend::available() {
        let close = |x: &Array2<f64>, y: &Array2<f64>| norm(&(x - y)) <= 1e-12 * norm(y);
        assert!(close(&backend.eigh(&a).unwrap().1, &native.eigh(&a).unwrap().1));
        let ((q, r), (q0, r0)) = (backend.qr(&a).unwrap(), native.qr(&a).unwrap());
        assert!(close(&q, &q0) && close(&r, &r0));
        assert!(close(&backend.cholesky(&a).unwrap(), &native.cholesky(&a).unwrap()));
        let ((u, _, vt), (u0, _, vt0)) = (backend.svd(&a).unwrap(), native.svd(&a).unwrap());
        assert!(close(&u, &u0) && close(&vt, &vt0));
    }
}

#[test]
fn matrices_of_the_textbooks() {
    let hilbert = Array2::from_shape_fn((12, 12), |(i, j)| 1.0 / (i + j + 1) as f64);
    let wilkinson = Array2::from_shape_fn((21, 21), |(i, j)| match i.abs_diff(j) {
        0 => (i as f64 - 10.0).abs(),
        1 => 1.0,
        _ => 0.0,
    });
    let graded = Array2::from_shape_fn((9, 9), |(i, j)| 10f64.powi(-3 * (i + j) as i32));
    let swap = array![[0.0, 1.0], [1.0, 0.0]];
    let spike = Array2::from_shape_fn((6, 6), |(i, j)| if i * j == 5 { 1e-200 } else { 0.0 });
    for a in [
        hilbert,
        wilkinson,
        graded,
        swap,
        spike,
        Array2::zeros((7, 7)),
        Array2::eye(7),
        Array2::ones((7, 7)),
        Array2::from_diag(&array![0.0, -1.0, 3.0, 3.0, 1e-300]),
    ] {
        let single = a.mapv(|x| x as f32);
        let single = (&single + &single.t()) * 0.5;
        for &backend in Backend::available() {
            let check = Check::new(backend);
            check.eigh(&a);
            check.qr(&a);
            check.svd(&a);
            check.eigh(&single);
            check.qr(&single);
            check.svd(&single);
        }
    }
}

#[test]
fn only_the_promised_entries_are_read() {
    let nan = f64::NAN;
    let a = array![[4.0, nan], [2.0, 5.0]];
    for &backend in Backend::available() {
        assert_eq!(backend.cholesky(&a).unwrap(), array![[2.0, 0.0], [1.0, 2.0]]);
        let b = array![[4.0], [12.0]];
        let x = backend.solve_triangular(&a, Triangle::Lower, false, &b).unwrap();
        assert!(norm(&(x - array![[1.0], [2.0]])) < 1e-15);
        // symmetrised: neither triangle wins
        let (values, _) = backend.eigh(&array![[0.0_f64, 3.0], [1.0, 0.0]]).unwrap();
        assert!((values[0] + 2.0).abs() < 1e-14 && (values[1] - 2.0).abs() < 1e-14);
    }
}

/// A Householder sweep as `geqrf` does it, with the signs of `larfg`: which Rⱼⱼ are negative.
fn householder_signs(a: &Array2<f64>) -> Vec<bool> {
    let (rows, cols) = a.dim();
    let mut a = a.clone();
    (0..rows.min(cols))
        .map(|j| {
            let x = a.slice(s![j.., j]).to_owned();
            if x.iter().skip(1).all(|&x| x == 0.0) {
                return x[0].is_sign_negative();
            }
            let beta = -norm(&x.clone().insert_axis(ndarray::Axis(1))).copysign(x[0]);
            let mut v = x;
            v[0] -= beta;
            let tau = 2.0 / v.dot(&v);
            let mut rest = a.slice_mut(s![j.., j..]);
            let projection = v.dot(&rest) * tau;
            for (i, mut row) in rest.rows_mut().into_iter().enumerate() {
                row.scaled_add(-v[i], &projection);
            }
            beta < 0.0
        })
        .collect()
}

#[test]
fn signs_of_lapack_are_those_of_its_reflectors() {
    let upper = Array2::from_shape_fn((6, 6), |(i, j)| match (i <= j, (i + j) % 3) {
        (true, 0) => -1.0 - j as f64,
        (true, _) => 2.0 + i as f64,
        _ => 0.0,
    });
    let mut blocks = Array2::zeros((7, 7));
    blocks.slice_mut(s![..3, ..3]).assign(&random::<f64>(3, 3, 4));
    blocks.slice_mut(s![3.., 3..]).assign(&random::<f64>(4, 4, 5));
    let shapes = [(1, 1), (2, 2), (5, 5), (9, 4), (4, 9), (40, 40), (65, 33)];
    let random = shapes.into_iter().flat_map(|(m, n)| (0..6).map(move |seed| random(m, n, seed)));
    let special = [Array2::eye(4), -Array2::<f64>::eye(4), upper, blocks, Array2::zeros((3, 3))];
    for a in random.chain(special) {
        let (q, r) = linalg::qr_with(&a, linalg::QrSigns::Lapack).unwrap();
        let (q0, r0) = linalg::qr_with(&a, linalg::QrSigns::Positive).unwrap();
        assert_eq!((q0.mapv(f64::abs), r0.mapv(f64::abs)), (q.mapv(f64::abs), r.mapv(f64::abs)));
        assert_eq!((&q0, &r0), (&linalg::qr(&a).unwrap().0, &linalg::qr(&a).unwrap().1));
        assert!(norm(&(q.dot(&r) - &a)) <= 1e-13 * norm(&a));
        let signs: Vec<bool> = r.diag().iter().map(|x| x.is_sign_negative()).collect();
        let expected = householder_signs(&a);
        let zero: Vec<bool> = r.diag().iter().map(|x| *x == 0.0).collect();
        for j in (0..signs.len()).filter(|&j| !zero[j]) {
            assert_eq!(signs[j], expected[j], "column {j} of {a:?}");
        }
    }
}

#[test]
fn entries_that_span_more_than_the_digits() {
    // faer's own iteration gives up on this one
    let mut a = Array2::<f32>::zeros((4, 4));
    for (i, j, x) in [(1, 0, 3.358_446e-5), (3, 1, 17_510_648.0), (3, 2, 1.266_022_8e25)] {
        a[(i, j)] = x;
        a[(j, i)] = x;
    }
    for &backend in Backend::available() {
        let check = Check::new(backend);
        check.eigh(&a);
    }
}

#[test]
fn single_numbers() {
    for &backend in Backend::available() {
        let a = array![[-3.0_f32]];
        assert_eq!(backend.eigh(&a).unwrap(), (array![-3.0], array![[1.0]]));
        assert_eq!(backend.qr(&a).unwrap(), (array![[-1.0]], array![[3.0]]));
        assert_eq!(backend.svd(&a).unwrap(), (array![[1.0]], array![3.0], array![[-1.0]]));
        assert_eq!(backend.cholesky(&array![[9.0_f32]]).unwrap(), array![[3.0]]);
        assert_eq!(backend.gram_left(&a), array![[9.0]]);
        let x = backend.solve_triangular(&a, Triangle::Upper, true, &array![[6.0]]).unwrap();
        assert_eq!(x, array![[-2.0]]);
    }
}

#[test]
fn empty_matrices_have_empty_factors() {
    let empty = |m, n| Array2::<f64>::zeros((m, n));
    for &backend in Backend::available() {
        assert_eq!(backend.eigh(&empty(0, 0)).unwrap(), (Array1::zeros(0), empty(0, 0)));
        assert_eq!(backend.cholesky(&empty(0, 0)).unwrap(), empty(0, 0));
        for (m, n) in [(0, 0), (0, 3), (3, 0)] {
            assert_eq!(backend.qr(&empty(m, n)).unwrap(), (empty(m, 0), empty(0, n)));
            let svd = backend.svd(&empty(m, n)).unwrap();
            assert_eq!(svd, (empty(m, 0), Array1::zeros(0), empty(0, n)));
            assert_eq!(backend.gram_left(&empty(m, n)), empty(m, m));
            assert_eq!(backend.gram_right(&empty(m, n)), empty(n, n));
            let t = Array2::eye(m);
            let x = backend.solve_triangular(&t, Triangle::Lower, false, &empty(m, n)).unwrap();
            assert_eq!(x, empty(m, n));
        }
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Decomposition { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn every_failure_says_what_is_wrong() {
    let (oblong, eye) = (Array2::<f64>::ones((2, 3)), Array2::<f64>::eye(2));
    let lower = Triangle::Lower;
    for &backend in Backend::available() {
        let square = "of a 2 x 3 matrix: it must be square";
        assert_eq!(message(backend.eigh(&oblong)), format!("eigh {square}"));
        assert_eq!(message(backend.cholesky(&oblong)), format!("Cholesky factorisation {square}"));
        let solve = |a: &Array2<f64>, b: &Array2<f64>| {
            message(backend.solve_triangular(a, lower, false, b))
        };
        assert_eq!(solve(&oblong, &eye), format!("triangular solve {square}"));
        assert!(solve(&eye, &Array2::ones((3, 1))).ends_with("must have as many rows"));
        assert!(solve(&array![[1.0, 0.0], [1.0, 0.0]], &eye).contains("is singular"));
        assert!(solve(&array![[1e-200, 0.0], [0.0, 1.0]], &(1e200 * &eye)).contains("too large"));
        for indefinite in [array![[1.0, 2.0], [2.0, 1.0]], -&eye, Array2::zeros((2, 2))] {
            let message = message(backend.cholesky(&indefinite));
            assert!(message.ends_with("the matrix is not positive definite"), "{message}");
        }
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let a = array![[1.0, 0.0], [x, 1.0]];
            let bad = "of a 2 x 2 matrix: it holds a NaN or an infinity";
            assert_eq!(message(backend.eigh(&a)), format!("eigh {bad}"));
            assert_eq!(message(backend.qr(&a)), format!("QR {bad}"));
            assert_eq!(message(backend.svd(&a)), format!("SVD {bad}"));
            assert_eq!(message(backend.cholesky(&a)), format!("Cholesky factorisation {bad}"));
            assert_eq!(solve(&a, &eye), format!("triangular solve {bad}"));
            assert!(solve(&eye, &a).contains("right-hand side holds"));
        }
        let huge = Array2::from_elem((3, 3), f64::MAX);
        assert!(message(backend.eigh(&huge)).contains("too large"));
        assert!(message(backend.qr(&huge)).contains("too large"));
        assert!(message(backend.svd(&huge)).contains("too large"));
    }
    assert!(message(linalg::matmul(&oblong, &eye)).contains("as many rows as the left"));
    let mut c = array![[7.0]];
    let result = linalg::matmul_into(1.0, &eye, &oblong, 0.0, &mut c);
    assert!(message(result).contains("destination"));
    assert_eq!(c, array![[7.0]]);
}

#[test]
fn non_finite_products_stay_non_finite() {
    let g = array![[1.0, f64::NAN], [2.0, 3.0]];
    for &backend in Backend::available() {
        let gram = backend.gram_left(&g);
        assert!(gram[(0, 0)].is_nan() && gram[(0, 1)].is_nan() && gram[(1, 0)].is_nan());
        assert_eq!(gram[(1, 1)], 13.0);
    }
    assert!(linalg::matmul(&g, &g).unwrap()[(0, 0)].is_nan());
}

/// Products large enough to be cut: right, and the same on any number of threads.
#[test]
fn large_products() {
    fn check<R: Real>(m: usize, k: usize, n: usize) {
        let (a, b) = (random::<R>(m, k, 1), random::<R>(k, n, 2));
        let (start, old) = (random::<R>(m, n, 3), linalg::gram_left(&random::<R>(n, 20, 4)));
        let run = |threads| {
            on_threads(threads, || {
                let mut c = start.clone();
                linalg::matmul_into(R::of(2.0), &a, &b, R::of(0.5), &mut c).unwrap();
                let mut gram = old.clone();
                linalg::add_gram_right(&b, (R::of(3.0), R::of(0.5)), &mut gram).unwrap();
                let grams = [linalg::gram_left(&b.t()), linalg::symmetric_from_lower(&gram)];
                (c, grams)
            })
        };
        let found = run(1);
        let (product, [left, mixed]) = &found;
        let (wide_a, wide_b) = (wide(&a), wide(&b));
        let square = wide_b.t().dot(&wide_b);
        let expected = 2.0 * wide_a.dot(&wide_b) + 0.5 * wide(&start);
        let close = |found: &Array2<R>, expected: &Array2<f64>| {
            let off = norm(&(wide(found) - expected)) / norm(expected);
            assert!(off <= 4.0 * epsilon::<R>(), "{m}x{k}x{n}: {off:e}");
        };
        close(product, &expected);
        close(left, &square);
        close(mixed, &(3.0 * wide(&old) + 0.5 * square));
        assert!([2, 3].iter().all(|&threads| run(threads) == found));
    }
    // one cut, two and four, of unequal parts
    for (m, k, n) in [(33, 1000, 515), (129, 300, 1030), (40, 600, 1999)] {
        check::<f32>(m, k, n);
        check::<f64>(m, k, n);
    }
}

/// Bits of all results for one matrix.
fn fingerprint<R: Real>(backend: Backend, a: &ndarray::ArrayRef2<R>) -> Vec<R::Bits> {
    let n = a.nrows().min(a.ncols());
    let square = a.slice(s![..n, ..n]);
    let mut shifted = square.to_owned();
    shifted.diag_mut().mapv_inplace(|x| x + R::of(9.0 * n as f64));
    let (values, vectors) = backend.eigh(&square).unwrap();
    let (q, r) = backend.qr(a).unwrap();
    let (u, singular, vt) = backend.svd(a).unwrap();
    let l = backend.cholesky(&shifted).unwrap();
    let x = backend.solve_triangular(&square, Triangle::Lower, false, &a.slice(s![..n, ..]));
    let product = linalg::matmul(a, &a.t()).unwrap();
    let arrays = [vectors, q, r, u, vt, l, product, backend.gram_left(a), backend.gram_right(a)];
    let matrices = arrays.iter().flatten();
    let rest = values.iter().chain(&singular);
    let solved = x.iter().flatten();
    matrices.chain(rest).chain(solved).map(|x| x.magnitude_bits()).collect()
}

#[test]
fn the_same_numbers_give_the_same_bits_wherever_they_lie() {
    fn check<R: Real>(rows: usize, cols: usize) {
        let a = random::<R>(rows, cols, 77);
        for &backend in Backend::available() {
            // the order of an external BLAS's sums is its own affair
            #[cfg(feature = "lapack")]
            if backend == Backend::Lapack {
                continue;
            }
            let expected = fingerprint(backend, &a);
            in_other_memory(&a, |name, view| {
                assert!(fingerprint(backend, view) == expected, "{backend:?} {rows}x{cols} {name}");
            });
        }
    }
    for (rows, cols) in [(1, 1), (3, 5), (13, 13), (40, 33), (70, 101)] {
        check::<f32>(rows, cols);
        check::<f64>(rows, cols);
    }
}

#[test]
fn the_free_functions_are_the_default_backend() {
    let backend = Backend::default();
    assert!(Backend::available().contains(&backend));
    assert_eq!(backend == Backend::Native, !cfg!(feature = "faer"));
    let a = symmetric::<f32>(&[1.0, 2.0, 4.0], 1);
    assert_eq!(linalg::eigh(&a).unwrap(), backend.eigh(&a).unwrap());
    assert_eq!(linalg::qr(&a).unwrap(), backend.qr(&a).unwrap());
    assert_eq!(linalg::svd(&a).unwrap(), backend.svd(&a).unwrap());
    assert_eq!(linalg::cholesky(&a).unwrap(), backend.cholesky(&a).unwrap());
    assert_eq!(linalg::gram_left(&a), backend.gram_left(&a));
    assert_eq!(linalg::gram_right(&a), backend.gram_right(&a));
    let solve = |solver: fn(&_, _, _, &_) -> _| solver(&a, Triangle::Upper, false, &a);
    assert_eq!(
        solve(|a, t, tr, b| linalg::solve_triangular::<f32>(a, t, tr, b).unwrap()),
        backend.solve_triangular(&a, Triangle::Upper, false, &a).unwrap()
    );
}
