//! Laws of SOAP.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/threads.rs"]
mod threads;

use eigenstep_instances as _;

use eigenstep::Error;
use eigenstep::linalg::qr;
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use eigenstep::second_order::soap::{BasisSolver, BasisStorage, Sides, SoapOrder};
use ndarray::{Array1, Array2, ArrayD, IxDyn, array};
use threads::on_threads;

const FIRST_USED: SoapOrder = SoapOrder::Published { skip_first: false };
const DISTRIBUTED: SoapOrder =
    SoapOrder::Distributed { start: 2, epsilon: 1e-12, bias_correction: true };
const CODED: BasisStorage = BasisStorage::Quantized {
    codec: MatrixCodec { bits: 8, block_size: 16, map: MatrixMap::Linear2 },
    rectify: 1,
};

/// SOAP that renews its basis often, also of small matrices.
fn eager() -> Soap {
    Soap { update_basis_every: 3, min_numel: 0, ..Soap::default() }
}

fn variants() -> Vec<Soap> {
    let mut variants = Vec::new();
    for order in [SoapOrder::default(), FIRST_USED, DISTRIBUTED] {
        for storage in [BasisStorage::Full, CODED, BasisStorage::FOUR_BIT] {
            variants.push(Soap { order, storage, ..eager() });
        }
        let qr = BasisSolver::Qr { max_iterations: 2, tolerance: 1e-3 };
        for solver in [BasisSolver::Eigh, qr] {
            variants.push(Soap { order, solver, ..eager() });
        }
    }
    variants
}

/// Numbers without pattern in [-1, 1), that depend on `seed` and shape alone.
fn waves(seed: usize, shape: &[usize]) -> ArrayD<f64> {
    let numel: usize = shape.iter().product();
    let number = |i: usize| ((i * 7919 + seed * 104_729 + 17) as f64).sin() * 43_758.545_312_3;
    let values = (0..numel).map(|i| 2.0 * number(i).rem_euclid(1.0) - 1.0).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
}

fn matrix(seed: usize, rows: usize, columns: usize) -> Array2<f64> {
    waves(seed, &[rows, columns]).into_dimensionality().unwrap()
}

fn norm(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    let off = norm(&(a - b)) / norm(b).max(1e-300);
    assert!(off <= tolerance, "off by {off:e}");
}

/// The parameter after steps along `gradient(0)`, `gradient(1)` …
fn path<M: MatrixMethod>(
    method: M,
    steps: usize,
    start: &Array2<f64>,
    gradient: impl Fn(usize) -> Array2<f64>,
) -> Array2<f64> {
    let (mut opt, mut w) = (method.build().unwrap(), start.clone());
    for step in 0..steps {
        opt.step(&mut w, &gradient(step)).unwrap();
    }
    w
}

#[test]
fn the_first_step_makes_the_basis_and_nothing_else() {
    let mut opt = eager().build::<f64>().unwrap();
    let mut w = (matrix(1, 6, 4), Array1::<f64>::ones(5));
    let before = w.clone();
    opt.step(&mut w, &(matrix(2, 6, 4), Array1::<f64>::ones(5))).unwrap();
    assert_eq!(w, before);
    let dict = opt.state_dict();
    for key in ["state.0.block0.exp_avg", "state.0.block0.exp_avg_sq", "state.1.exp_avg"] {
        assert!(dict.tensors[key].bytes.iter().all(|&byte| byte == 0), "{key}");
    }
    assert!(dict.tensors["state.0.block0.side0.statistic"].bytes.iter().any(|&byte| byte != 0));
}

/// In the basis of the identity it is the rule inside, bit for bit.
#[test]
fn without_a_basis_it_is_its_inner_rule() {
    let inner = AdamW { lr: 0.1, ..Soap::default().inner };
    let mut plain = inner.clone().build::<f64>().unwrap();
    let mut expected = matrix(0, 7, 5);
    for step in 0..6 {
        plain.step(&mut expected, &matrix(step, 7, 5)).unwrap();
    }
    let order = SoapOrder::Distributed { start: 1000, epsilon: 0.0, bias_correction: true };
    let rotated = Soap { order, ..Soap::with_inner(inner.clone()) };
    assert_eq!(path(rotated, 6, &matrix(0, 7, 5), |step| matrix(step, 7, 5)), expected);
    // in the published order one step later; decay acts after the update there
    let inner = AdamW { weight_decay: 0.0, ..inner };
    let mut plain = inner.clone().build::<f64>().unwrap();
    let mut expected = matrix(0, 7, 5);
    for step in 0..5 {
        plain.step(&mut expected, &matrix(step, 7, 5)).unwrap();
    }
    let plain = Soap { max_dim: 4, ..Soap::with_inner(inner) };
    let late = |step: usize| matrix(step.saturating_sub(1), 7, 5);
    assert_eq!(path(plain, 6, &matrix(0, 7, 5), late), expected);
}

/// A linear rule does not see in which basis it runs, if its slots are rotated with it.
#[test]
fn to_a_linear_rule_all_bases_are_the_same() {
    let inner = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let mut plain = inner.clone().build::<f64>().unwrap();
    let mut expected = matrix(0, 7, 5);
    for step in 0..7 {
        plain.step(&mut expected, &matrix(step, 7, 5)).unwrap();
    }
    let qr = |max_iterations| BasisSolver::Qr { max_iterations, tolerance: 1e-3 };
    for order in [SoapOrder::default(), FIRST_USED, DISTRIBUTED] {
        for solver in [BasisSolver::OrthogonalIteration, BasisSolver::Eigh, qr(0), qr(1), qr(3)] {
            // the first step only makes the basis
            let skips = usize::from(order == SoapOrder::default());
            let gradient = |step: usize| matrix(step.saturating_sub(skips), 7, 5);
            let method = Soap {
                order,
                solver,
                update_basis_every: 2,
                min_numel: 0,
                ..Soap::with_inner(inner.clone())
            };
            let found = path(method, 7 + skips, &matrix(0, 7, 5), gradient);
            close(&found, &expected, 1e-12);
        }
    }
}

/// Rotated problems have rotated paths: nothing depends on axes, nor on the signs of eigenvectors.
#[test]
fn rotated_problems_have_rotated_paths() {
    let (left, _) = qr(&matrix(50, 8, 8)).unwrap();
    let (right, _) = qr(&matrix(51, 7, 7)).unwrap();
    // all statistics of full rank
    let gradient = |step: usize| {
        let stretch =
            Array2::from_shape_fn((8, 7), |(i, j)| if i == j { 3.0 + i as f64 } else { 0.0 });
        matrix(step, 8, 7) + stretch
    };
    let rotate = |w: &Array2<f64>| left.dot(w).dot(&right.t());
    let renewed = |order, solver| Soap { order, solver, sides: Sides::Last, ..eager() };
    for method in [
        renewed(SoapOrder::default(), BasisSolver::OrthogonalIteration),
        renewed(FIRST_USED, BasisSolver::Eigh),
        Soap { sides: Sides::All, ..renewed(SoapOrder::default(), BasisSolver::Eigh) },
    ] {
        // one-sided, only the side with a basis may be rotated
        let rotate = |w: &Array2<f64>| match method.sides {
            Sides::Last => w.dot(&right.t()),
            _ => rotate(w),
        };
        let start = matrix(9, 8, 7);
        let straight = path(method.clone(), 8, &start, gradient);
        let rotated = path(method.clone(), 8, &rotate(&start), |step| rotate(&gradient(step)));
        assert!(norm(&(&straight - &start)) > 0.01);
        // eight rows and seven columns: L has one direction that is determined late
        let tolerance = if method.sides == Sides::All { 1e-2 } else { 1e-7 };
        close(&rotated, &rotate(&straight), tolerance);
    }
}

#[test]
fn one_side_of_a_transposed_matrix_is_the_other() {
    let method = |sides| Soap { sides, ..eager() };
    let rows = path(method(Sides::First), 9, &matrix(0, 5, 8), |step| matrix(step, 5, 8));
    let start = matrix(0, 5, 8).t().to_owned();
    let columns = path(method(Sides::Last), 9, &start, |step| matrix(step, 5, 8).t().to_owned());
    close(&columns.t().to_owned(), &rows, 1e-9);
    let shorter = path(method(Sides::Shorter), 9, &matrix(0, 5, 8), |step| matrix(step, 5, 8));
    assert_eq!(shorter, rows);
}

#[test]
fn bytes_are_those_of_the_formula() {
    let (m, n) = (320, 257);
    let bytes = |storage| {
        let mut opt = Soap { storage, ..Soap::default() }.build().unwrap();
        opt.step(&mut Array2::<f32>::zeros((m, n)), &matrix(0, m, n).mapv(|x| x as f32)).unwrap();
        opt.state_bytes()
    };
    let full = bytes(BasisStorage::Full);
    assert_eq!(
        (full.slot("statistic"), full.slot("basis")),
        (4 * (m * m + n * n), 4 * (m * m + n * n))
    );
    assert_eq!(full.total(), 8 * (m * m + n * n) + 12 * m * n);
    let coded = bytes(BasisStorage::FOUR_BIT);
    let codes = |n: usize| n * n.div_ceil(2) + 4 * n * n.div_ceil(64);
    assert_eq!(coded.slot("eigenvectors"), codes(m) + codes(n));
    assert_eq!(coded.total(), codes(m) + codes(n) + 4 * (m + n) + 12 * m * n);
}

/// Also between two renewals of the basis, and with slots as codes.
#[test]
fn reload_continues_bit_for_bit() {
    for method in variants() {
        for precision in [Precision::Full, Precision::INT8_LINEAR, Precision::INT4_LPMM] {
            let build = || {
                let opt = method.clone().build::<f64>().unwrap();
                let policy =
                    eigenstep::quant::StatePolicy { precision, min_numel: 0, whole_blocks: false };
                opt.with_state_policy(policy).unwrap()
            };
            for stop in 1..5 {
                let (mut opt, mut w) = (build(), waves(0, &[6, 3, 5]));
                (0..stop).for_each(|i| opt.step(&mut w, &waves(i, &[6, 3, 5])).unwrap());
                let mut again = build();
                again.load_state_dict(&opt.state_dict()).unwrap();
                assert_eq!(again.state_dict(), opt.state_dict());
                let mut copy = w.clone();
                for i in stop..9 {
                    opt.step(&mut w, &waves(i, &[6, 3, 5])).unwrap();
                    again.step(&mut copy, &waves(i, &[6, 3, 5])).unwrap();
                }
                assert_eq!(w, copy, "{method:?}, {precision:?}, stopped after {stop}");
            }
        }
    }
}

/// A badly scaled quadratic, not along the axes, whose gradients are noisy where they are large.
#[test]
fn codes_of_bases_and_slots_lead_to_the_minimum() {
    let hessian = |seed, n: usize| {
        let (a, _) = qr(&matrix(seed, n, n)).unwrap();
        let scales = Array1::from_shape_fn(n, |i| 10f64.powf(-(i as f64) / 32.0));
        (&a * &scales).dot(&a.t())
    };
    let (left, right, target) = (hessian(3, 64), hessian(5, 66), matrix(4, 64, 66));
    let distance = |w: &Array2<f64>| {
        let off = w - &target;
        (&left.dot(&off).dot(&right) * &off).sum()
    };
    let inner = AdamW { weight_decay: 0.0, ..Soap::default().inner };
    let run = |mut opt: Box<dyn Optimizer<f64>>| {
        let mut w = Array2::zeros((64, 66));
        for step in 0..200 {
            opt.set_lr(0, 0.05 * (1.0 - step as f64 / 200.0)).unwrap();
            let off = &w - &target + matrix(step + 100, 64, 66) * 0.3;
            let gradient = left.dot(&off).dot(&right);
            opt.step(&mut w, &gradient).unwrap();
        }
        distance(&w)
    };
    let soap = |storage, precision| {
        let method = Soap { storage, min_numel: 0, ..Soap::with_inner(inner.clone()) };
        run(Box::new(method.build().unwrap().with_state_precision(precision).unwrap()))
    };
    let full = soap(BasisStorage::Full, Precision::Full);
    let adamw = run(Box::new(inner.clone().build().unwrap()));
    assert!(full < 0.5 * adamw, "{full:e}, not below {adamw:e}");
    for (storage, precision, limit) in [
        (BasisStorage::EIGHT_BIT, Precision::Full, 1.5 * full),
        (BasisStorage::FOUR_BIT, Precision::Full, adamw),
        (BasisStorage::Full, Precision::INT8_DYNAMIC, 1.5 * full),
    ] {
        let found = soap(storage, precision);
        assert!(found < limit, "{storage:?}, {precision:?}: {found:e}, not {limit:e}");
    }
}

#[test]
fn hard_gradients_give_finite_parameters() {
    let shapes: [&[usize]; 9] =
        [&[], &[1], &[0], &[0, 5], &[1, 1], &[7, 1], &[9, 8], &[2, 3, 4], &[3, 2, 0, 2]];
    for method in variants() {
        for shape in shapes {
            for size in [0.0, 1.0, 1e30, 1e-40, 1e-20] {
                let method = Soap { precondition_1d: true, ..method.clone() };
                let mut opt = method.clone().build::<f32>().unwrap();
                let mut w = ArrayD::<f32>::ones(IxDyn(shape));
                for step in 0..7 {
                    // constant, of rank one; then with one entry far above the others
                    let mut g = ArrayD::from_elem(IxDyn(shape), (size * 1e-3) as f32);
                    if let (true, Some(first)) = (step > 2, g.first_mut()) {
                        *first = size as f32;
                    }
                    match opt.step(&mut w, &g) {
                        Ok(()) => {}
                        // its squares are no f32: refused before anything changes
                        Err(Error::GradientTooLarge { .. }) if size == 1e30 => {}
                        Err(error) => panic!("{method:?}, {shape:?}, {size:e}: {error}"),
                    }
                }
                assert!(w.iter().all(|x| x.is_finite()), "{method:?}, {shape:?}, {size:e}: {w:?}");
            }
        }
    }
}

#[test]
fn failures_are_counted_and_named() {
    let method = Soap { tolerated_failures: 2, ..eager() };
    let mut opt = method.build::<f64>().unwrap().with_non_finite(NonFinite::Propagate);
    let mut w = Array2::zeros((3, 3));
    opt.step(&mut w, &matrix(0, 3, 3)).unwrap();
    let good = opt.state_dict();
    for _ in 0..3 {
        opt.step(&mut w, &Array2::from_elem((3, 3), f64::NAN)).unwrap();
    }
    // statistics and bases are still the good ones
    for (key, tensor) in good.tensors.iter().filter(|(key, _)| key.contains("side")) {
        assert_eq!(Some(tensor), opt.state_dict().tensors.get(key), "{key}");
    }
    let error = opt.step(&mut w, &matrix(1, 3, 3)).unwrap_err();
    assert!(matches!(error, Error::RepeatedFailure { failures: 3, block: 0, .. }), "{error}");
}

/// A sum of squares that leaves the numbers is found by the decomposition of it.
#[test]
fn sides_that_cannot_be_renewed_are_counted() {
    let method =
        Soap { shampoo_beta: 1.0, update_basis_every: 1, tolerated_failures: 1, ..eager() };
    let mut opt = method.build::<f32>().unwrap().with_non_finite(NonFinite::Propagate);
    let mut w = Array2::zeros((2, 2));
    let mut outcomes = (0..12).map(|_| opt.step(&mut w, &Array2::from_elem((2, 2), 8e18)));
    let error = outcomes.find_map(|outcome| outcome.err()).unwrap();
    assert!(matches!(error, Error::RepeatedFailure { failures: 2, block: 0, .. }), "{error}");
}

#[test]
fn impossible_rules_and_options_are_named() {
    let inner = Classp { variant: ClasspVariant::AsPublished, ..Classp::default() };
    let message = Soap::with_inner(inner).build::<f32>().unwrap_err().to_string();
    assert_eq!(message, "Soap: `inner` must be a rule that takes no sums over tensors, got Classp");
    let inner = Sgd { weight_decay: 0.5, ..Sgd::default() };
    let message = Soap::with_inner(inner).build::<f32>().unwrap_err().to_string();
    assert_eq!(
        message,
        "Soap: `weight_decay` must be 0 unless the inner rule decouples its decay, got 0.5"
    );
    let order = SoapOrder::Distributed { start: 0, epsilon: 0.0, bias_correction: true };
    let message = Soap { order, ..eager() }.build::<f32>().unwrap_err().to_string();
    assert_eq!(message, "Soap: `order.start` must be an integer >= 1, got 0");
    let codec = MatrixCodec { bits: 5, ..MatrixCodec::default() };
    let storage = BasisStorage::Quantized { codec, rectify: 1 };
    let message = Soap { storage, ..eager() }.build::<f32>().unwrap_err().to_string();
    assert!(message.contains("`bits` must be"), "{message}");
}

/// Every rule that may stand inside, and a slot that is switched on in mid-run.
#[test]
fn other_rules_and_late_slots() {
    fn descends<U: Rule<GroupState = ()>>(inner: U) {
        let mut opt = Soap::with_inner(inner).build::<f64>().unwrap();
        let mut w = matrix(0, 9, 6);
        for _ in 0..50 {
            let g = w.clone();
            opt.step(&mut w, &g).unwrap();
        }
        assert!(norm(&w) < 0.9 * norm(&matrix(0, 9, 6)), "{}", U::NAME);
    }
    descends(Sgd { lr: 0.05, momentum: 0.9, ..Sgd::default() });
    descends(Lion { lr: 0.01, ..Lion::default() });
    descends(Adagrad { lr: 0.1, ..Adagrad::default() });
    descends(RmsProp { momentum: 0.5, centered: true, ..RmsProp::default() });

    let mut opt = eager().build::<f64>().unwrap();
    let mut w = matrix(0, 5, 4);
    opt.step(&mut w, &matrix(1, 5, 4)).unwrap();
    opt.set_option(0, "amsgrad", 1.0).unwrap();
    opt.step(&mut w, &matrix(2, 5, 4)).unwrap();
    assert_eq!(opt.state_bytes().slot("max_exp_avg_sq"), 5 * 4 * 8);
    let mut again = eager().build::<f64>().unwrap();
    again.load_state_dict(&opt.state_dict()).unwrap();
    assert!(matches!(opt.set_option(0, "sides", 1.0), Err(Error::AlreadyStarted { .. })));
}

/// `ε̂ = ε·√(1 − β₂ᵗ)` turns one form of Adam into the other.
#[test]
fn both_places_of_eps_and_no_correction() {
    let adam = AdamW { lr: 0.1, weight_decay: 0.0, ..AdamW::default() };
    let step = |adam: AdamW| {
        let mut w = array![0.0f64, 0.0];
        adam.build().unwrap().step(&mut w, &array![1e-3, -2.0]).unwrap();
        w
    };
    let eps_hat = step(AdamW { eps: 1e-3 * 0.001f64.sqrt(), eps_hat: true, ..adam.clone() });
    let eps = step(AdamW { eps: 1e-3, ..adam.clone() });
    assert!((&eps - &eps_hat).iter().all(|x| x.abs() < 1e-15));
    assert!((eps[0] + 0.05).abs() < 1e-12);
    // 0.1·g/√(0.001·g²)
    let raw = step(AdamW { bias_correction: false, eps: 0.0, ..adam });
    assert!((raw[1] - 0.1 * 0.1 / 0.001f64.sqrt()).abs() < 1e-12, "{raw}");
}

/// A gradient that a coded statistic takes in stands for all steps until the next one: the sum of the
/// eigenvalues, which is the trace, forgets as fast as that of a statistic in full precision.
#[test]
fn coded_statistics_forget_as_fast_as_others() {
    let method = Soap {
        storage: BasisStorage::EIGHT_BIT,
        shampoo_beta: 0.9,
        update_basis_every: 3,
        ..Soap::default()
    };
    let mut opt = method.build::<f64>().unwrap();
    let mut w = Array2::zeros((64, 64));
    // the first and the fourth gradient are seen
    for size in [1.0, 50.0, 50.0, 2.0] {
        opt.step(&mut w, &(matrix(1, 64, 64) * size)).unwrap();
    }
    let squares: f64 = matrix(1, 64, 64).iter().map(|x| x * x).sum();
    let old = 0.9_f64.powi(3);
    let expected = (old * (1.0 - old) + (1.0 - old) * 4.0) * squares;
    let dict = opt.state_dict();
    let values = dict.tensors.iter().filter(|(key, _)| key.ends_with("eigenvalues"));
    let mut sides = 0;
    for (key, tensor) in values {
        let (numbers, _) = tensor.bytes.as_chunks();
        let trace: f64 = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).sum();
        assert!((trace / expected - 1.0).abs() < 0.01, "{key}: {trace} {expected}");
        sides += 1;
    }
    assert_eq!(sides, 2);
}

/// Sides are renewed at once where there are threads for it.
#[test]
fn threads_inside_a_block_do_not_change_bits() {
    for storage in [BasisStorage::Full, BasisStorage::FOUR_BIT] {
        let method = Soap { storage, update_basis_every: 2, max_dim: 600, ..eager() };
        let (start, gradient) = (matrix(1, 513, 300), |step| matrix(step + 2, 513, 300));
        let run = |threads| on_threads(threads, || path(method.clone(), 3, &start, gradient));
        let expected = run(1);
        assert!([2, 7].iter().all(|&threads| run(threads) == expected), "{storage:?}");
    }
}
