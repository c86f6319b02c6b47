//! K-FAC and AdaBK: what the factors of one layer do to its gradients.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/noise.rs"]
mod noise;

#[path = "support/says.rs"]
mod says;

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "support/factors.rs"]
mod factors;

use eigenstep::curvature::LayerPreconditioner;
use eigenstep::linalg::{CoupledNewton, Damping, eigh};
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use eigenstep::second_order::Exponents;
use eigenstep::second_order::factor::RootSolver;
use eigenstep::state::{Lookup, Record, Scalar};
use factors::{NAIVE4, close, eager, norm};
use ndarray::{Array1, Array2, Axis, array, concatenate};
use noise::noise;
use proptest::prelude::*;
use says::says;
use std::cell::RefCell;

const STORAGES: [FactorStorage; 6] = [
    FactorStorage::Dense,
    NAIVE4,
    FactorStorage::Eigen,
    FactorStorage::EIGEN4,
    FactorStorage::EIGEN4_UNRECTIFIED,
    FactorStorage::CHOLESKY4,
];

/// The direction for `g` after one observation.
fn direction(
    method: &LayerFactors,
    x: &Array2<f64>,
    y: &Array2<f64>,
    g: &Array2<f64>,
) -> Array2<f64> {
    let mut layer = method.clone().build(g.dim()).unwrap();
    layer.observe(x, y).unwrap();
    preconditioned(&layer, g)
}

fn preconditioned(layer: &LayerPreconditioner<f64>, g: &Array2<f64>) -> Array2<f64> {
    let mut direction = g.clone();
    layer.precondition(&mut direction).unwrap();
    direction
}

/// XᵀX/samples.
fn mean_gram(x: &Array2<f64>) -> Array2<f64> {
    x.t().dot(x) / x.nrows() as f64
}

/// Orders and samples, and a seed.
fn layers() -> impl Strategy<Value = (usize, usize, usize, u64)> {
    (1..9_usize, 1..9_usize, 1..20_usize, any::<u64>())
}

proptest! {
    #![proptest_config(cases::cases(48))]

    /// `(L + εI) ⊗ (R + εI) vec D = vec G`.
    #[test]
    fn kfac_solves_the_damped_kronecker_system(
        (m, n, samples, seed) in layers(), epsilon in 0.01..1.0, relative in any::<bool>(),
    ) {
        let (x, y) = (noise(samples, n, seed), noise(samples, m, seed ^ 1));
        let g = noise(m, n, seed ^ 2);
        let damping =
            if relative { Damping::relative(epsilon) } else { Damping::absolute(epsilon) };
        let d = direction(&LayerFactors { damping, ..eager(LayerFactors::kfac()) }, &x, &y, &g);
        let damped = |a: Array2<f64>| {
            let largest = *eigh(&a).unwrap().0.last().unwrap();
            &a + &(damping.ridge(largest) * Array2::eye(a.nrows()))
        };
        close(&damped(mean_gram(&y)).dot(&d).dot(&damped(mean_gram(&x))), &g, 1e-9);
    }

    /// Half the exponent, twice.
    #[test]
    fn adabk_twice_is_kfac((m, n, samples, seed) in layers()) {
        let (x, y) = (noise(samples, n, seed), noise(samples, m, seed ^ 1));
        let g = noise(m, n, seed ^ 2);
        let kfac = eager(LayerFactors::kfac());
        let half = LayerFactors { exponent: 0.5, ..kfac.clone() };
        let twice = direction(&half, &x, &y, &direction(&half, &x, &y, &g));
        close(&twice, &direction(&kfac, &x, &y, &g), 1e-10);
    }

    /// Of one sample both factors are of rank one: they shorten one direction.
    #[test]
    fn one_sample_has_a_closed_form((m, n, _, seed) in layers(), exponent in 0.2..2.0) {
        let (x, y) = (noise(1, n, seed), noise(1, m, seed ^ 1));
        let (g, epsilon) = (noise(m, n, seed ^ 2), 0.3);
        let damping = Damping::absolute(epsilon);
        let method = LayerFactors { exponent, damping, ..eager(LayerFactors::kfac()) };
        let root = |x: &Array2<f64>| {
            let square = x.mapv(|x| x * x).sum();
            let along = x.t().dot(x) / square;
            let power = |x: f64| x.powf(-exponent);
            power(epsilon) * (Array2::eye(x.ncols()) - &along) + power(square + epsilon) * &along
        };
        close(&direction(&method, &x, &y, &g), &root(&y).dot(&g).dot(&root(&x)), 1e-10);
    }

    /// Samples told twice are no more than told once, and sizes go where they belong.
    #[test]
    fn scales((m, n, samples, seed) in layers(), a in 0.01..100.0_f64, b in 0.01..100.0_f64) {
        let (x, y) = (noise(samples, n, seed), noise(samples, m, seed ^ 1));
        let g = noise(m, n, seed ^ 2);
        for method in [LayerFactors::kfac(), LayerFactors::adabk()] {
            let method = eager(method);
            let d = direction(&method, &x, &y, &g);
            let twice = |x: &Array2<f64>| concatenate(Axis(0), &[x.view(), x.view()]).unwrap();
            close(&direction(&method, &twice(&x), &twice(&y), &g), &d, 1e-9);
            let (x, y) = (a * &x, b * &y);
            let shrink = (a * b).powf(-2.0 * method.exponent);
            close(&direction(&method, &x, &y, &g), &(shrink * &d), 1e-9);
            let kept = LayerFactors { keep_norm: true, ..method };
            close(&direction(&kept, &x, &y, &g), &(norm(&g) / norm(&d) * &d), 1e-9);
        }
    }

    /// A direction is never uphill.
    #[test]
    fn directions_descend((m, n, samples, seed) in layers()) {
        let (x, y) = (noise(samples, n, seed), noise(samples, m, seed ^ 1));
        let g = noise(m, n, seed ^ 2);
        for storage in [FactorStorage::Dense, FactorStorage::Eigen] {
            let method = LayerFactors { storage, ..eager(LayerFactors::kfac()) };
            prop_assert!((direction(&method, &x, &y, &g) * &g).sum() > 0.0);
        }
    }
}

#[test]
fn before_the_first_root_gradients_are_as_they_were() {
    for storage in STORAGES {
        let method = LayerFactors { storage, min_numel: 0, ..LayerFactors::adabk() };
        let mut layer = method.build((9, 70)).unwrap();
        layer.observe(&noise(5, 70, 0), &noise(5, 9, 1)).unwrap();
        let g = noise(9, 70, 2);
        assert_eq!(preconditioned(&layer, &g), g);
    }
}

/// With L from G and R from Gᵀ, and Shampoo's exponent, the direction is Shampoo's.
#[test]
fn shampoo_is_a_special_case() {
    for (m, n) in [(8, 8), (7, 5), (3, 11)] {
        // of a singular statistic, rounding alone decides the rest of a stored basis
        let full_rank = (m == n).then_some(FactorStorage::Eigen);
        // as many samples on both sides: rows of zeros add nothing
        let padded = |g: &Array2<f64>| {
            let zeros = Array2::zeros((m.max(n) - g.nrows(), g.ncols()));
            concatenate(Axis(0), &[g.view(), zeros.view()]).unwrap()
        };
        for storage in [FactorStorage::Dense].into_iter().chain(full_rank) {
            let (damping, beta) = (Damping::relative(1e-4), 0.9);
            let shampoo = Shampoo {
                inner: Sgd { lr: 1.0, ..Sgd::default() },
                storage,
                damping,
                factor_beta: beta,
                exponents: Exponents::Same(0.5),
                initial: 0.0,
                update_factors_every: 1,
                update_roots_every: 1,
                ..Shampoo::default()
            };
            let mut opt = shampoo.build().unwrap();
            let adabk = LayerFactors {
                storage,
                damping,
                factor_beta: beta,
                iterations: 1,
                keep_norm: true,
                ..eager(LayerFactors::adabk())
            };
            let mut layer = adabk.build((m, n)).unwrap();
            let (mut w, mut v) = (Array2::zeros((m, n)), Array2::zeros((m, n)));
            for step in 0..5 {
                let mut g = noise(m, n, step);
                opt.step(&mut w, &g).unwrap();
                layer.observe(&padded(&g), &padded(&g.t().to_owned())).unwrap();
                layer.precondition(&mut g).unwrap();
                v -= &g;
                close(&v, &w, 1e-7);
            }
        }
    }
}

/// Statistics and roots are renewed at their multiples, and otherwise nothing is read.
#[test]
fn observations_are_taken_in_when_they_are_due() {
    let base =
        LayerFactors { update_factors_every: 2, update_roots_every: 3, ..LayerFactors::kfac() };
    let mut layer = base.clone().build((4, 3)).unwrap();
    let mut by_hand = base.build((4, 3)).unwrap();
    let g = noise(4, 3, 99);
    for t in 1..=12 {
        let (x, mut y) = (noise(6, 3, t), noise(6, 4, t + 100));
        if t % 2 != 0 {
            y[(0, 0)] = f64::NAN;
        }
        layer.observe(&x, &y).unwrap();
        if t % 2 == 0 {
            by_hand.update(&x, &y).unwrap();
        }
        if t % 3 == 0 {
            by_hand.refresh().unwrap();
        }
        assert_eq!(preconditioned(&layer, &g), preconditioned(&by_hand, &g), "at {t}");
    }
    assert_eq!(layer.observations(), 12);
}

/// Two layers in one dict, and one in its own.
#[test]
fn reload_continues_bit_for_bit() {
    for storage in STORAGES {
        let method = LayerFactors {
            storage,
            update_factors_every: 2,
            update_roots_every: 3,
            min_numel: 0,
            ..LayerFactors::adabk()
        };
        let step = |layer: &mut LayerPreconditioner<f64>, t: u64| {
            layer.observe(&noise(8, 9, t), &noise(8, 7, t + 50)).unwrap();
            preconditioned(layer, &noise(7, 9, t + 90))
        };
        for stop in 0..8 {
            let mut layer = method.clone().build((7, 9)).unwrap();
            (0..stop).for_each(|t| drop(step(&mut layer, t)));
            let mut again = method.clone().build((7, 9)).unwrap();
            again.load_state_dict(&layer.state_dict()).unwrap();
            let mut dict = StateDict::new("network");
            layer.save(&mut Record::new("first", &mut dict));
            again.save(&mut Record::new("second", &mut dict));
            let used = RefCell::default();
            let mut third = method.clone().build((7, 9)).unwrap();
            third.load(&Lookup::new("second", &dict, &used)).unwrap();
            for t in stop..9 {
                let expected = step(&mut layer, t);
                assert_eq!(step(&mut again, t), expected, "{storage:?}, stopped after {stop}");
                assert_eq!(step(&mut third, t), expected);
            }
            assert_eq!(again.state_dict(), layer.state_dict());
        }
    }
}

#[test]
fn options_out_of_range() {
    let kfac = LayerFactors::kfac;
    let build = |method: LayerFactors| method.build::<f64>((2, 3));
    says(
        build(LayerFactors { exponent: 0.0, ..kfac() }),
        "LayerFactors: `exponent` must be finite and > 0, got 0",
    );
    let root = RootSolver::CoupledNewton(CoupledNewton::SCALABLE);
    says(
        build(LayerFactors { exponent: 0.31415, root, ..kfac() }),
        "LayerFactors: `exponent` must be a fraction q/p with q <= 64, p <= 1024 for a coupled \
         iteration, got 0.31415",
    );
    says(
        build(LayerFactors { damping: Damping::relative(-1.0), ..kfac() }),
        "LayerFactors: `damping.relative` must be finite and >= 0, got -1",
    );
    says(
        build(LayerFactors { damping: Damping::absolute(f64::NAN), ..kfac() }),
        "LayerFactors: `damping.absolute` must be finite and >= 0, got NaN",
    );
    says(
        build(LayerFactors { iterations: 0, ..kfac() }),
        "LayerFactors: `iterations` must be an integer >= 1 and <= 10000, got 0",
    );
    says(
        build(LayerFactors { factor_beta: 1.5, ..kfac() }),
        "LayerFactors: `factor_beta` must be in [0, 1], got 1.5",
    );
    says(
        build(LayerFactors { initial: -1.0, ..kfac() }),
        "LayerFactors: `initial` must be finite and >= 0, got -1",
    );
    says(
        build(LayerFactors { update_factors_every: 0, ..kfac() }),
        "LayerFactors: `update_factors_every` must be an integer >= 1, got 0",
    );
    says(
        build(LayerFactors { update_roots_every: 0, ..kfac() }),
        "LayerFactors: `update_roots_every` must be an integer >= 1, got 0",
    );
    let codec = MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 };
    let storage = FactorStorage::Cholesky { codec, error_beta: Some(1.0) };
    says(
        build(LayerFactors { storage, ..kfac() }),
        "FactorStorage: `error_beta` must be in [0, 1), got 1",
    );
    let root = RootSolver::PseudoInverse { rtol: None, atol: -1.0 };
    let error = build(LayerFactors { root, ..kfac() }).unwrap_err().to_string();
    assert!(error.contains("`atol`"), "{error}");
    let root = RootSolver::Qr { tolerance: 0.0, max_iterations: 1 };
    says(
        build(LayerFactors { root, storage: FactorStorage::CHOLESKY4, ..kfac() }),
        "LayerFactors: `root` must be another solver for Double and Cholesky storage, got Qr",
    );
}

/// Whatever is wrong with what is told is said, and nothing has changed.
#[test]
fn bad_input_changes_nothing() {
    let mut layer = eager(LayerFactors::kfac()).build((2, 3)).unwrap();
    let (x, y) = (noise(4, 3, 0), noise(4, 2, 1));
    layer.observe(&x, &y).unwrap();
    let before = layer.state_dict();
    let with = |a: &Array2<f64>, value| {
        let mut a = a.clone();
        a[(1, 1)] = value;
        a
    };
    let (nan, infinite) = (with(&x, f64::NAN), with(&y, f64::INFINITY));
    let wrong = [
        (noise(4, 4, 0), y.clone(), "parameter `inputs`: expected shape [4, 3], found [4, 4]"),
        (
            x.clone(),
            noise(4, 3, 0),
            "parameter `output_gradients`: expected shape [4, 2], found [4, 3]",
        ),
        (
            x.clone(),
            noise(5, 2, 0),
            "parameter `output_gradients`: expected shape [4, 2], found [5, 2]",
        ),
        (
            noise(0, 3, 0),
            noise(0, 2, 0),
            "LayerFactors: `inputs` must be a row per sample, at least one, got none",
        ),
        (nan, y.clone(), "an input is not finite: NaN"),
        (x.clone(), infinite, "an output gradient is not finite: inf"),
    ];
    for (x, y, text) in wrong {
        says(layer.observe(&x, &y), text);
        says(layer.update(&x, &y), text);
        assert_eq!(layer.state_dict(), before);
    }
    let mut g = with(&noise(2, 3, 2), f64::NEG_INFINITY);
    let copy = g.clone();
    says(layer.precondition(&mut g), "a gradient is not finite: -inf");
    assert_eq!(g, copy);
    let mut g = noise(3, 2, 2);
    says(layer.precondition(&mut g), "parameter `gradient`: expected shape [2, 3], found [3, 2]");
    assert_eq!(g, noise(3, 2, 2));
    // damping as small as this makes a root that takes a gradient out of range
    let damping = Damping::absolute(1e-200);
    let mut steep = LayerFactors { damping, ..eager(LayerFactors::kfac()) }.build((2, 3)).unwrap();
    steep.observe(&array![[1.0, 0.0, 0.0]], &array![[1.0, 0.0]]).unwrap();
    let mut g = Array2::ones((2, 3));
    says(steep.precondition(&mut g), "a preconditioned gradient is not finite: inf");
    assert_eq!(g, Array2::<f64>::ones((2, 3)));
}

/// A singular factor without damping has no root: that is tolerated three times, here once.
#[test]
fn failures_are_tolerated_and_then_reported() {
    let method = LayerFactors {
        damping: Damping::default(),
        tolerated_failures: 1,
        ..eager(LayerFactors::kfac())
    };
    let mut layer = method.build((2, 2)).unwrap();
    let good = noise(2, 2, 0);
    let flat = array![[1.0, 0.0]];
    layer.update(&flat, &flat).unwrap();
    let before = layer.state_dict();
    let problem = "it is not positive definite, damping included";
    let decomposition = layer.refresh().unwrap_err();
    assert!(decomposition.to_string().ends_with(problem), "{decomposition}");
    assert_eq!(layer.state_dict(), before);
    for _ in 0..2 {
        layer.observe(&flat, &flat).unwrap();
        assert_eq!(preconditioned(&layer, &good), good, "the last good root");
    }
    let before = layer.state_dict();
    let text = format!("parameter `weight`, block 0: 2 failures in a row, the last: {problem}");
    says(layer.observe(&good, &good), &text);
    assert_eq!(layer.state_dict(), before);
    // a failure is remembered in a dict, its reason is not
    let mut again = LayerFactors { tolerated_failures: 1, ..eager(LayerFactors::kfac()) };
    again.damping = Damping::default();
    let mut again = again.build::<f64>((2, 2)).unwrap();
    again.load_state_dict(&before).unwrap();
    says(
        again.observe(&good, &good),
        "parameter `weight`, block 0: 2 failures in a row, the last: \
         a decomposition failed before the state was saved",
    );
    // better samples, and all is well
    layer.update(&good, &good).unwrap();
    layer.refresh().unwrap();
    layer.observe(&good, &good).unwrap();
}

/// Squares that overflow leave the factors in use; asked for by name they are an error.
#[test]
fn overflow_leaves_the_last_good_factors() {
    for storage in STORAGES {
        let method = LayerFactors { storage, ..eager(LayerFactors::kfac()) };
        let mut layer = method.build::<f32>((3, 3)).unwrap();
        let x = noise(5, 3, 0).mapv(|x| x as f32);
        layer.observe(&x, &x).unwrap();
        let good = layer.state_dict();
        let huge = x.mapv(|x| 1e25 * x);
        assert!(layer.update(&huge, &x).is_err() && layer.update(&x, &huge).is_err());
        assert_eq!(layer.state_dict(), good);
        layer.observe(&huge, &x).unwrap();
        assert_eq!(layer.state_dict().tensors, good.tensors, "{storage:?}");
        assert_eq!(layer.state_dict().scalars["layer.failures"], Scalar::Int(1));
        layer.observe(&x, &x).unwrap();
        assert_eq!(layer.state_dict().scalars["layer.failures"], Scalar::Int(0));
    }
}

/// A layer whose units are all dead gives zeros, for ever; its gradients are zero, too.
#[test]
fn zeros_are_no_failure() {
    for storage in STORAGES {
        let method = LayerFactors { storage, ..eager(LayerFactors::kfac()) };
        let mut layer = method.build((4, 3)).unwrap();
        for t in 0..9 {
            layer.observe(&noise(5, 3, t), &Array2::zeros((5, 4))).unwrap();
            layer.observe(&Array2::zeros((5, 3)), &Array2::zeros((5, 4))).unwrap();
        }
        let zero = Array2::zeros((4, 3));
        assert_eq!(preconditioned(&layer, &zero), zero);
        layer.observe(&noise(5, 3, 10), &noise(5, 4, 11)).unwrap();
        assert!(preconditioned(&layer, &noise(4, 3, 12)).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn every_order_has_a_direction() {
    for storage in STORAGES {
        for (m, n) in [(0, 0), (0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (5, 3), (33, 17)] {
            let method = LayerFactors { storage, ..eager(LayerFactors::kfac()) };
            let mut layer = method.clone().build((m, n)).unwrap();
            for t in 0..3 {
                layer.observe(&noise(4, n, t), &noise(4, m, t + 9)).unwrap();
            }
            let d = preconditioned(&layer, &noise(m, n, 5));
            assert!(d.dim() == (m, n) && d.iter().all(|x| x.is_finite()));
            let mut again = method.build((m, n)).unwrap();
            again.load_state_dict(&layer.state_dict()).unwrap();
            assert_eq!(preconditioned(&again, &noise(m, n, 5)), d);
        }
    }
    // order one is arithmetic
    let kfac = LayerFactors { damping: Damping::absolute(0.5), ..eager(LayerFactors::kfac()) };
    let d = direction(&kfac, &array![[1.0], [3.0]], &array![[2.0], [0.0]], &array![[7.0]]);
    close(&d, &array![[7.0 / (2.5 * 5.5)]], 1e-14);
}

/// Any layout of what is told and of the gradient.
#[test]
fn layouts_do_not_matter() {
    let (x, y, g) = (noise(6, 5, 0), noise(6, 4, 1), noise(4, 5, 2));
    let method = eager(LayerFactors::adabk());
    let expected = direction(&method, &x, &y, &g);
    let mut layer = method.build((4, 5)).unwrap();
    let (xt, yt) =
        (x.t().as_standard_layout().into_owned(), y.t().as_standard_layout().into_owned());
    layer.observe(&xt.t(), &yt.t()).unwrap();
    let mut gt = g.t().as_standard_layout().into_owned();
    let mut view = gt.view_mut().reversed_axes();
    layer.precondition(&mut view).unwrap();
    close(&gt.t().to_owned(), &expected, 1e-14);
}

/// Rounding to four bits moves the direction, by as much as is usual.
#[test]
fn four_bits_stay_close_to_full_precision() {
    let (m, n, samples) = (96, 64, 200);
    // inputs and gradients with eigenvalues over two orders of magnitude
    let spread = |n: usize| Array1::from_shape_fn(n, |i| 10_f64.powf(-(i as f64) / n as f64));
    let (qx, qy) = (noise(n, n, 1), noise(m, m, 2));
    let mix = |q: &Array2<f64>, t: u64| {
        (noise(samples, q.nrows(), t) * &spread(q.nrows()))
            .dot(&eigenstep::linalg::qr(q).unwrap().0)
    };
    let g = noise(m, n, 3);
    let direction = |method: LayerFactors, storage| {
        let mut layer = LayerFactors { storage, ..method }.build((m, n)).unwrap();
        (0..20).for_each(|t| layer.observe(&mix(&qx, t + 10), &mix(&qy, t + 90)).unwrap());
        preconditioned(&layer, &g)
    };
    for method in [LayerFactors::kfac(), LayerFactors::adabk()] {
        let method = LayerFactors { keep_norm: true, ..eager(method) };
        let exact = direction(method.clone(), FactorStorage::Dense);
        let error = |storage| norm(&(direction(method.clone(), storage) - &exact)) / norm(&exact);
        let (full, eigen) = (error(FactorStorage::Eigen), error(FactorStorage::EIGEN4));
        let plain = error(FactorStorage::EIGEN4_UNRECTIFIED);
        let cholesky = error(FactorStorage::CHOLESKY4);
        println!(
            "full {full:.3}, 4 bits {eigen:.3}, unrectified {plain:.3}, Cholesky {cholesky:.3}"
        );
        assert!(full < 0.1 && eigen < 0.25 && plain < 0.45 && cholesky < 0.5);
    }
}

#[test]
fn bytes_are_what_the_formula_says() {
    let (m, n) = (320, 257);
    let bytes = |storage| {
        let method = LayerFactors { storage, ..LayerFactors::kfac() };
        method.build::<f32>((m, n)).unwrap().state_bytes()
    };
    let codes = |n: usize| n * n.div_ceil(2) + 4 * n * n.div_ceil(64);
    for storage in [FactorStorage::Dense, FactorStorage::Eigen] {
        let diagonal = if storage == FactorStorage::Eigen { 4 * (m + n) } else { 0 };
        assert_eq!(bytes(storage).total(), 8 * (m * m + n * n) + diagonal);
    }
    let coded = bytes(FactorStorage::EIGEN4_UNRECTIFIED);
    assert_eq!(coded.total(), 2 * (codes(m) + codes(n)) + 8 * (m + n));
    assert_eq!(coded.parameters(), m * n);
    assert_eq!(coded.slot("eigenvalues"), 4 * (m + n));
    let triangle =
        |n: usize| (0..n).map(|i| i.div_ceil(2) + 4 * i.div_ceil(64)).sum::<usize>() + 4 * n;
    let cholesky = 2 * (triangle(m) + triangle(n)) + codes(m) + codes(n) + 4 * (m + n);
    assert_eq!(bytes(FactorStorage::CHOLESKY4).total(), cholesky);
}

#[test]
fn dicts_that_do_not_fit_are_refused() {
    let method = eager(LayerFactors::kfac());
    let mut layer = method.clone().build((2, 3)).unwrap();
    layer.observe(&noise(4, 3, 0), &noise(4, 2, 1)).unwrap();
    let before = layer.state_dict();
    let mut refuses = |change: &dyn Fn(&mut StateDict), text: &str| {
        let mut dict = before.clone();
        change(&mut dict);
        says(layer.load_state_dict(&dict), text);
        assert_eq!(layer.state_dict(), before);
    };
    refuses(
        &|dict| dict.optimizer = "Shampoo".into(),
        "state dict: `optimizer`: expected `LayerFactors`, found `Shampoo`",
    );
    refuses(
        &|dict| drop(dict.scalars.remove("layer.updates")),
        "state dict: `layer.updates`: is not a count",
    );
    refuses(
        &|dict| drop(dict.tensors.remove("layer.factor1.root")),
        "state dict: `layer.factor1.root`: is missing",
    );
    refuses(
        &|dict| drop(dict.scalars.insert("layer.extra".into(), Scalar::Int(1))),
        "state dict: `layer.extra`: unknown key",
    );
    let mut other = method.build::<f64>((2, 4)).unwrap();
    let error = other.load_state_dict(&before).unwrap_err().to_string();
    assert!(error.starts_with("state dict: `layer.factor1.statistic`: "), "{error}");
}

/// The directions of gpauloski/kfac-pytorch: factors begin at I, both are damped by the whole ε, and the
/// length is found by clipping, which is not ours.
#[test]
fn kfac_pytorch_has_the_same_directions() {
    let text = include_str!("fixtures/kfac/inverse.json");
    let case: serde_json::Value = serde_json::from_str(text).unwrap();
    let method = LayerFactors {
        damping: Damping::absolute(0.03),
        factor_beta: 0.9,
        initial: 1.0,
        bias_correction: false,
        ..eager(LayerFactors::kfac())
    };
    let shapes = [(4, 5), (3, 4)];
    let mut layers = shapes.map(|(m, n)| method.clone().build((m, n + 1)).unwrap());
    for step in case["steps"].as_array().unwrap() {
        let mut found = Vec::new();
        for ((layer, case), (m, n)) in layers.iter_mut().zip(step.as_array().unwrap()).zip(shapes) {
            let matrix = |name: &str, columns: usize| {
                let numbers = case[name].as_array().unwrap();
                let numbers: Vec<f64> = numbers.iter().map(|x| x.as_f64().unwrap()).collect();
                Array2::from_shape_vec((numbers.len() / columns, columns), numbers).unwrap()
            };
            let (x, y) = (matrix("inputs", n), matrix("output_gradients", m));
            let x = concatenate(Axis(1), &[x.view(), Array2::ones((8, 1)).view()]).unwrap();
            layer.observe(&x, &y).unwrap();
            let g = y.t().dot(&x);
            let d = preconditioned(layer, &g);
            found.push((g, d, matrix("preconditioned", n + 1)));
        }
        let (lr, limit) = (0.1, 0.01);
        let change: f64 = found.iter().map(|(g, d, _)| (g * d).sum() * lr * lr).sum();
        let clip = (limit / change).sqrt().min(1.0);
        for (_, d, expected) in &found {
            close(&(clip * d), expected, 1e-5);
        }
    }
}
