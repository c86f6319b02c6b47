//! Factors by themselves: what their storage costs in accuracy.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/cases.rs"]
mod cases;

#[path = "support/noise.rs"]
mod noise;

use eigenstep::linalg::{Damping, QrSigns, eigh, gram_left, mode_gram, qr};
use eigenstep::numeric::Real;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use eigenstep::second_order::factor::{Factor, FactorOptions, FactorStorage, RootSolver};
use ndarray::{Array1, Array2, ArrayD};
use noise::noise;
use proptest::prelude::*;

fn options(storage: FactorStorage) -> FactorOptions {
    FactorOptions {
        storage,
        min_numel: 0,
        beta: 0.95,
        weight: 0.05,
        initial: 1e-6,
        bias: 1.0,
        trace_scaling: 0.0,
        damping: Damping::relative(1e-6),
        root: RootSolver::Eigen,
        double_roots: true,
        exponent: 0.25,
        iterations: 1,
        qr_signs: QrSigns::Positive,
        eigenpairs: false,
    }
}

fn cholesky(bits: u8, error_beta: Option<f64>) -> FactorStorage {
    let codec = MatrixCodec { bits, ..MatrixCodec::default() };
    FactorStorage::Cholesky { codec, error_beta }
}

fn norm(a: &Array2<f64>) -> f64 {
    a.mapv(|x| x * x).sum().sqrt()
}

/// A statistic of which 60 % of the eigenvalues are a thousand times the others.
fn statistic(n: usize, seed: u64) -> Array2<f64> {
    let (u, _) = qr(&noise(n, n, seed)).unwrap();
    let large = (0.6 * n as f64).round() as usize;
    let values = Array1::from_shape_fn(n, |i| if i < large { 1000.0 } else { 1.0 });
    (&u * &values).dot(&u.t())
}

/// Nothing that was ever accumulated makes an eigenvalue negative.
fn stays_positive<R: Real>(storage: FactorStorage, n: usize, rank: usize, size: f64, seed: u64) {
    let options = options(storage);
    let mut factor = Factor::<R>::new(n, &options);
    for step in 0..5 {
        let g = noise(n, rank, seed.wrapping_add(step)).mapv(|x| R::of(size * x));
        factor.accumulate(&gram_left(&g), &options).unwrap();
        let a = factor.statistic().mapv(Real::widen);
        assert_eq!(a, a.t(), "not symmetric");
        let (values, _) = eigh(&a).unwrap();
        let (low, high) = (values[0], values[n - 1]);
        // what rounding to the type of the parameters, and eigh itself, may make of a zero
        let slack = 4.0 * n as f64 * R::epsilon().widen() * high;
        assert!(low >= -slack && high > 0.0, "{storage:?}, order {n}: {low:e} .. {high:e}");
        factor.refresh_root(&options).unwrap();
        assert!(factor.root().iter().all(|x| x.is_finite()));
    }
}

proptest! {
    #![proptest_config(cases::cases(12))]

    #[test]
    fn cholesky_factors_stay_positive_semidefinite(
        n in 1..40_usize, rank in 1..12_usize, power in -12..12_i32, seed in any::<u64>(),
    ) {
        for bits in [3, 4, 8] {
            for error_beta in [None, Some(0.0), Some(0.95)] {
                let (storage, size) = (cholesky(bits, error_beta), 10_f64.powi(power));
                stays_positive::<f64>(storage, n, rank, size, seed);
                stays_positive::<f32>(storage, n, rank, size, seed);
            }
        }
    }
}

/// Of a statistic that stands still, factors with error feedback are right on the average.
#[test]
fn error_feedback_averages_the_error_out() {
    let n = 64;
    let a = statistic(n, 3);
    let exact = eigenstep::linalg::cholesky(&a).unwrap();
    let error = |error_beta| {
        let still = FactorOptions {
            beta: 0.0,
            weight: 1.0,
            damping: Damping::default(),
            ..options(cholesky(4, error_beta))
        };
        let mut factor = Factor::<f64>::new(n, &still);
        let steps = 200;
        let mut sum = Array2::zeros((n, n));
        for _ in 0..steps {
            factor.accumulate(&a, &still).unwrap();
            sum += &eigenstep::linalg::cholesky(&factor.statistic()).unwrap();
        }
        norm(&(sum / f64::from(steps) - &exact)) / norm(&exact)
    };
    let (without, with, average) = (error(None), error(Some(0.0)), error(Some(0.5)));
    println!("without {without:.4}, with {with:.4}, with an average {average:.4}");
    assert!(with < 0.1 * without && average < 0.2 * without, "{with} {average} {without}");
}

/// And they follow one that moves: updates smaller than a gap between codes are not lost.
#[test]
fn error_feedback_keeps_up_with_a_moving_statistic() {
    let (n, rank) = (64, 24);
    let root = qr(&noise(n, n, 9)).unwrap().0
        * Array1::from_shape_fn(n, |i| if i < 38 { 1000_f64.sqrt() } else { 1.0 });
    let error = |storage| {
        let (coded, dense) = (options(storage), options(FactorStorage::Dense));
        let (mut factor, mut exact) = (Factor::new(n, &coded), Factor::new(n, &dense));
        for step in 0..100 {
            let gram = gram_left(&root.dot(&noise(n, rank, 100 + step)));
            factor.accumulate(&gram, &coded).unwrap();
            exact.accumulate(&gram, &dense).unwrap();
        }
        norm(&(factor.statistic() - exact.statistic())) / norm(&exact.statistic())
    };
    let (without, with) = (error(cholesky(4, None)), error(FactorStorage::CHOLESKY4));
    println!("without {without:.3}, with {with:.3}");
    assert!(with < 0.6 * without, "{with} {without}");
}

/// How the storages compare where rounding hurts: a root whose small eigenvalues matter.
#[test]
fn roots_of_cholesky_factors_lie_between_naive_and_eigen() {
    let n = 128;
    let a = statistic(n, 5);
    let exact = {
        let (values, vectors) = eigh(&a).unwrap();
        (&vectors * &values.mapv(|x| x.powf(-0.25))).dot(&vectors.t())
    };
    let error = |storage| {
        let options = FactorOptions { beta: 0.0, weight: 1.0, ..options(storage) };
        let mut factor = Factor::<f64>::new(n, &options);
        (0..20).for_each(|_| factor.accumulate(&a, &options).unwrap());
        factor.refresh_root(&options).unwrap();
        norm(&(&factor.root() - &exact)) / norm(&exact)
    };
    let codec = MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 };
    let naive = error(FactorStorage::Naive(codec));
    let (plain, fed_back) = (error(cholesky(4, None)), error(FactorStorage::CHOLESKY4));
    let eigen = error(FactorStorage::EIGEN4);
    println!("naive {naive:.3}, Cholesky {plain:.3}, fed back {fed_back:.3}, eigen {eigen:.3}");
    assert!(plain < 0.5 * naive && eigen < plain);
}

/// Below `min_numel` nothing is coded.
#[test]
fn small_cholesky_factors_are_dense() {
    let (coded, dense) = (options(FactorStorage::CHOLESKY4), options(FactorStorage::Dense));
    let coded = FactorOptions { min_numel: 64 * 64, ..coded };
    let g = noise(63, 9, 1);
    let (mut a, mut b) = (Factor::<f64>::new(63, &coded), Factor::<f64>::new(63, &dense));
    a.accumulate(&gram_left(&g), &coded).unwrap();
    b.accumulate(&gram_left(&g), &dense).unwrap();
    a.refresh_root(&coded).unwrap();
    b.refresh_root(&dense).unwrap();
    assert_eq!((a.statistic(), a.root()), (b.statistic(), b.root()));
    assert!(matches!(Factor::<f64>::new(64, &coded), Factor::Cholesky(_)));
}

/// A dimension of a gradient counts as the Gram matrix that one can make of it.
#[test]
fn dimensions_of_a_gradient_are_added_as_their_gram_matrices() {
    let codec = MatrixCodec::default();
    let storages = [
        FactorStorage::Dense,
        FactorStorage::Double,
        FactorStorage::Eigen,
        FactorStorage::EIGEN4,
        FactorStorage::Naive(codec),
        FactorStorage::CHOLESKY4,
    ];
    let x = noise(6, 70, 3).into_shape_with_order((6, 7, 10)).unwrap().into_dyn();
    for (storage, axis) in storages.into_iter().flat_map(|s| [(s, 0), (s, 1), (s, 2)]) {
        let (options, n) = (options(storage), x.shape()[axis]);
        let (mut whole, mut grams) = (Factor::new(n, &options), Factor::new(n, &options));
        for factor in 1..4 {
            let x = &x * f64::from(factor);
            whole.accumulate_mode(&x.view(), axis, &options).unwrap();
            grams.accumulate(&mode_gram(&x.view(), axis).unwrap(), &options).unwrap();
        }
        let difference = norm(&(whole.statistic() - grams.statistic()));
        assert!(
            difference <= 1e-13 * norm(&grams.statistic()),
            "{storage:?}, {axis}: {difference}"
        );
    }
}

/// In `f64` statistics of `f32` gradients are those that the same numbers have in `f64`.
#[test]
fn double_statistics_are_those_of_double_gradients() {
    let (double, own) = (options(FactorStorage::Double), options(FactorStorage::Dense));
    let (mut factor, mut exact) = (Factor::<f32>::new(20, &double), Factor::<f64>::new(20, &own));
    for seed in 0..5 {
        let x = noise(20, 30, seed).mapv(|x| x as f32).into_dyn();
        factor.accumulate_mode(&x.view(), 0, &double).unwrap();
        exact.accumulate_mode(&x.mapv(f64::from).view(), 0, &own).unwrap();
    }
    factor.refresh_root(&double).unwrap();
    exact.refresh_root(&own).unwrap();
    assert_eq!(factor.statistic(), exact.statistic().mapv(|x| x as f32));
    assert_eq!(factor.root().into_owned(), exact.root().mapv(|x| x as f32));
}

/// What overflows is refused, and nothing has changed; what only might is added.
#[test]
fn statistics_stay_finite() {
    let column = |x: f32| ArrayD::from_elem(vec![2, 1], x);
    let options = options(FactorStorage::Dense);
    let mut factor = Factor::<f32>::new(2, &options);
    factor.accumulate_mode(&column(3.0).view(), 0, &options).unwrap();
    let before = factor.statistic();
    for x in [2e19, 1e30, f32::INFINITY, f32::NAN] {
        let error = factor.accumulate_mode(&column(x).view(), 0, &options).unwrap_err();
        assert!(error.to_string().contains("a factor"), "{error}");
        assert_eq!(factor.statistic(), before);
    }
    factor.accumulate_mode(&column(1.5e19).view(), 0, &options).unwrap();
    let (entry, expected) = (factor.statistic()[(0, 1)], 0.05 * 2.25e38);
    assert!((entry / expected - 1.0).abs() < 1e-6, "{entry:e}");

    // each term is small enough, and so is the sum of two
    let sum = FactorOptions { beta: 1.0, weight: 1.0, initial: 0.0, ..options };
    let (mut factor, term) = (Factor::<f32>::new(1, &sum), ArrayD::from_elem(vec![1, 1], 1.2e19));
    factor.accumulate_mode(&term.view(), 0, &sum).unwrap();
    factor.accumulate_mode(&term.view(), 0, &sum).unwrap();
    let before = factor.statistic();
    assert!(before[(0, 0)] > 2.8e38 && before[(0, 0)].is_finite());
    factor.accumulate_mode(&term.view(), 0, &sum).unwrap_err();
    assert_eq!(factor.statistic(), before);

    let double = FactorOptions { storage: FactorStorage::Double, ..options };
    let mut factor = Factor::<f32>::new(2, &double);
    factor.accumulate_mode(&column(1e30).view(), 0, &double).unwrap();
    factor.refresh_root(&double).unwrap();
    assert!(factor.root().iter().all(|x| x.is_finite() && x.abs() < 1e-11));
}

/// Each further iteration brings stored eigenvectors closer to those of the statistic.
#[test]
fn more_iterations_find_better_eigenvectors() {
    let n = 48;
    let a = statistic(n, 11);
    let errors = [0, 1, 2, 3].map(|iterations| {
        let eigen = options(FactorStorage::Eigen);
        let options = FactorOptions { beta: 0.0, weight: 1.0, iterations, ..eigen };
        let mut factor = Factor::<f64>::new(n, &options);
        factor.accumulate(&a, &options).unwrap();
        norm(&(factor.statistic() - &a)) / norm(&a)
    });
    println!("{errors:?}");
    assert!(errors.is_sorted_by(|a, b| a > b) && errors[2] < 1e-2 * errors[1], "{errors:?}");
}
