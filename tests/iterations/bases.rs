use crate::linalg_checks::{in_other_memory, log_spaced, norm, orthogonal, random, symmetric};
use crate::{cases, close, message};
use eigenstep::linalg::{
    eigenbasis_error, eigh, gram_left, orthogonal_iteration, qr_algorithm, rayleigh_quotients,
};
use ndarray::{Array2, array, s};
use proptest::prelude::*;

proptest! {
    #![proptest_config(cases::cases(48))]

    #[test]
    fn an_orthogonal_iteration(n in 1usize..16, k in 1usize..16, count in 0usize..4, seed: u64) {
        let k = k.min(n);
        let a = symmetric::<f64>(&log_spaced(n, 1e4), seed);
        let start = orthogonal(n, !seed).slice(s![.., ..k]).to_owned();
        let (values, p) = orthogonal_iteration(&a, &start, count).unwrap();
        close(&p.t().dot(&p), &Array2::eye(k), 1e-13);
        prop_assert_eq!(&values, &rayleigh_quotients(&a, &p).unwrap());
        // majorised by the spectrum, and the trace for a full basis
        let mut found = values.to_vec();
        found.sort_by(|x, y| y.total_cmp(x));
        let (mut sum, mut bound) = (0.0, 0.0);
        for (x, y) in found.iter().zip(eigh(&a).unwrap().0.iter().rev()) {
            (sum, bound) = (sum + x, bound + y);
            prop_assert!(sum <= bound + 1e-13);
        }
        prop_assert!(k < n || (sum - a.diag().sum()).abs() <= 1e-13 * n as f64);
        // columns keep their sign: R has a diagonal ≥ 0
        let (_, once) = orthogonal_iteration(&a, &start, 1).unwrap();
        let r = once.t().dot(&a.dot(&start));
        prop_assert!(r.diag().iter().all(|&x| x >= -1e-14));
        let (_, single) = orthogonal_iteration(&a.mapv(|x| x as f32), &start.mapv(|x| x as f32), 1).unwrap();
        let gram = single.t().dot(&single).mapv(f64::from);
        close(&gram, &Array2::eye(k), 1e-5);
    }

    #[test]
    fn both_iterations_converge(n in 1usize..9, seed: u64) {
        let spectrum: Vec<f64> = (0..n).map(|i| 0.4_f64.powi(i as i32)).collect();
        let a = symmetric::<f64>(&spectrum, seed);
        let start = orthogonal(n, !seed);
        let (values, p) = orthogonal_iteration(&a, &start, 80).unwrap();
        for (found, expected) in values.iter().zip(&spectrum) {
            prop_assert!((found - expected).abs() <= 1e-13);
        }
        close(&(&p * &values).dot(&p.t()), &a, 1e-12);
        let (values, q) = qr_algorithm(&a, &start, 1e-14, 200).unwrap();
        for (found, expected) in values.iter().zip(spectrum.iter().rev()) {
            prop_assert!((found - expected).abs() <= 1e-13);
        }
        close(&(&q * &values).dot(&q.t()), &a, 1e-12);
        prop_assert!(eigenbasis_error(&a, &q).unwrap() <= 1e-12);
    }

    #[test]
    fn the_criterion_is_the_error_of_the_approximation(n in 1usize..10, seed: u64) {
        let a = symmetric::<f64>(&log_spaced(n, 100.0), seed);
        let q = orthogonal(n, !seed);
        let b = rayleigh_quotients(&a, &q).unwrap();
        let error = norm(&((&q * &b).dot(&q.t()) - &a)) / norm(&a);
        prop_assert!((eigenbasis_error(&a, &q).unwrap() - error).abs() <= 1e-13);
        // nothing to do: only sorted
        let (values, same) = qr_algorithm(&a, &q, 1.0, 50).unwrap();
        prop_assert!(values.windows(2).into_iter().all(|pair| pair[0] <= pair[1]));
        prop_assert!(same.columns().into_iter().all(|c| q.columns().into_iter().any(|d| c == d)));
        // iterations make it better in the end, and keep it orthogonal
        // however far it has got, the values are the quotients of the basis
        for iterations in 0..3 {
            let (values, basis) = qr_algorithm(&a, &q, 0.0, iterations).unwrap();
            let quotients = rayleigh_quotients(&a, &basis).unwrap();
            let size = values.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
            let off = (&values - &quotients).mapv(f64::abs).fold(0.0, |m: f64, &x| m.max(x));
            assert!(off <= 1e-12 * size, "{iterations}: {off:e} of {size:e}");
        }
        let (_, better) = qr_algorithm(&a, &q, 0.0, 40).unwrap();
        prop_assert!(eigenbasis_error(&a, &better).unwrap() <= error + 1e-13);
        close(&better.t().dot(&better), &Array2::eye(n), 1e-13);
    }

    #[test]
    fn rank_deficient_matrices_keep_a_basis(n in 2usize..12, seed: u64) {
        let a = gram_left(&random::<f64>(n, 1, seed));
        let (values, p) = orthogonal_iteration(&a, &Array2::eye(n), 3).unwrap();
        close(&p.t().dot(&p), &Array2::eye(n), 1e-13);
        close(&(&p * &values).dot(&p.t()), &a, 1e-12);
    }
}

/// Of a matrix whose products are cut into parts: the values are the quotients of the new basis, which
/// is closer to the eigenvectors.
#[test]
fn large_matrices() {
    let a = symmetric::<f64>(&log_spaced(520, 1e6), 1);
    let start = orthogonal(520, 2);
    let (values, basis) = qr_algorithm(&a, &start, 0.0, 1).unwrap();
    let off = (&values - &rayleigh_quotients(&a, &basis).unwrap()).mapv(f64::abs);
    assert!(off.iter().all(|off| *off <= 1e-12 * norm(&a)));
    let error = |q: &Array2<f64>| {
        let b = q.t().dot(&a).dot(q);
        norm(&(&b - &Array2::from_diag(&b.diag()))) / norm(&b)
    };
    assert!((eigenbasis_error(&a, &start).unwrap() - error(&start)).abs() <= 1e-13);
    assert!(error(&basis) < error(&start));
}

#[test]
fn special_and_wrong_input() {
    let zero = Array2::<f32>::zeros((3, 3));
    let eye = Array2::eye(3);
    let (values, p) = orthogonal_iteration(&zero, &eye, 2).unwrap();
    assert!(values.iter().all(|&x| x == 0.0) && p.iter().all(|x| x.is_finite()));
    assert_eq!(eigenbasis_error(&zero, &eye).unwrap(), 0.0);
    assert_eq!(qr_algorithm(&zero, &eye, 0.0, 5).unwrap().1, eye);
    let none = Array2::<f64>::zeros((0, 0));
    assert_eq!(orthogonal_iteration(&none, &none, 1).unwrap().1, none);
    assert_eq!(qr_algorithm(&none, &none, 0.0, 1).unwrap().1, none);
    let one = orthogonal_iteration(&array![[4.0]], &array![[-1.0]], 1).unwrap();
    assert_eq!(one, (array![4.0], array![[-1.0]]));

    let a = Array2::<f64>::eye(2);
    let oblong = Array2::<f64>::ones((2, 3));
    let nan = array![[1.0, f64::NAN], [0.0, 1.0]];
    let found = message(orthogonal_iteration(&oblong, &a, 1));
    assert_eq!(found, "orthogonal iteration of a 2 x 3 matrix: it must be square");
    assert!(message(orthogonal_iteration(&nan, &a, 1)).ends_with("it holds a NaN or an infinity"));
    assert!(message(qr_algorithm(&a, &nan, 0.0, 1)).contains("the basis holds a NaN"));
    assert!(message(rayleigh_quotients(&a, &oblong)).contains("not more columns"));
    assert!(message(qr_algorithm(&a, &array![[1.0], [0.0]], 0.0, 1)).contains("must be square"));
    let huge = Array2::from_elem((2, 2), f64::MAX);
    assert!(message(orthogonal_iteration(&huge, &huge, 1)).contains("NaN or an infinity"));
    assert!(message(eigenbasis_error(&huge, &huge)).contains("too large"));
}

#[test]
fn the_same_bits_in_any_memory() {
    let a = symmetric::<f64>(&log_spaced(9, 100.0), 4);
    let p = orthogonal(9, 1);
    let run = |a: &ndarray::ArrayRef2<f64>, p: &ndarray::ArrayRef2<f64>| {
        let iterated = orthogonal_iteration(a, p, 2).unwrap();
        (iterated, qr_algorithm(a, p, 0.0, 2).unwrap(), eigenbasis_error(a, p).unwrap())
    };
    let expected = run(&a, &p);
    in_other_memory(&a, |name, view| assert!(run(view, &p) == expected, "a: {name}"));
    in_other_memory(&p, |name, view| assert!(run(&a, view) == expected, "p: {name}"));
}
