//! Laws of the matrix methods, and what they do with input that is hard to decompose.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "second_order/distributed.rs"]
mod distributed;
#[path = "second_order/initial.rs"]
mod initial;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::Error;
use eigenstep::linalg::{CoupledNewton, Damping};
use eigenstep::optim::MatrixMethod;
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use eigenstep::second_order::factor::RootSolver;
use eigenstep::second_order::{Combination, Graft};
use ndarray::{Array1, Array2, Array4, ArrayD, IxDyn};
use threads::on_threads;

type Method = Shampoo<Sgd>;

/// Gradient descent behind factors and roots that are renewed at every step.
fn eager(storage: FactorStorage) -> Method {
    Shampoo {
        inner: Sgd { lr: 0.5, ..Sgd::default() },
        storage,
        damping: Damping::relative(1e-3),
        update_factors_every: 1,
        update_roots_every: 1,
        min_numel: 0,
        ..Shampoo::default()
    }
}

const NAIVE4: FactorStorage =
    FactorStorage::Naive(MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 });
const CHOLESKY4_PLAIN: FactorStorage = FactorStorage::Cholesky {
    codec: MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 },
    error_beta: None,
};
const STORAGES: [FactorStorage; 7] = [
    FactorStorage::Dense,
    FactorStorage::Double,
    NAIVE4,
    FactorStorage::Eigen,
    FactorStorage::EIGEN4,
    FactorStorage::CHOLESKY4,
    CHOLESKY4_PLAIN,
];

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

/// The parameters after `steps` steps from zero.
fn path(method: &Method, shape: (usize, usize), steps: usize) -> Array2<f64> {
    let mut opt = method.clone().build().unwrap();
    let mut w = Array2::zeros(shape);
    for step in 0..steps {
        opt.step(&mut w, &matrix(step, shape.0, shape.1)).unwrap();
    }
    w
}

fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    let off = norm(&(a - b)) / norm(b).max(1e-300);
    assert!(off <= tolerance, "off by {off:e}");
}

#[test]
fn four_bits_hold_what_the_formula_says() {
    let (m, n) = (320, 257);
    let mut w = Array2::<f32>::zeros((m, n));
    let g = matrix(0, m, n).mapv(|x| x as f32);
    let bytes = |storage, w: &mut Array2<f32>| {
        let inner = Sgd::default();
        let mut opt = Shampoo { inner, storage, ..Shampoo::default() }.build().unwrap();
        opt.step(w, &g).unwrap();
        opt.state_bytes()
    };
    let coded = bytes(FactorStorage::EIGEN4, &mut w);
    let codes = |n: usize| n * n.div_ceil(2) + 4 * n * n.div_ceil(64);
    assert_eq!(coded.slot("eigenvalues"), 4 * (m + n));
    assert_eq!(coded.slot("eigenvectors"), codes(m) + codes(n));
    assert_eq!(coded.slot("root"), codes(m) + codes(n) + 4 * (m + n));
    let cholesky = bytes(FactorStorage::CHOLESKY4, &mut w);
    let triangle =
        |n: usize| (0..n).map(|i| i.div_ceil(2) + 4 * i.div_ceil(64)).sum::<usize>() + 4 * n;
    assert_eq!(cholesky.slot("cholesky"), triangle(m) + triangle(n));
    assert_eq!(cholesky.slot("error"), triangle(m) + triangle(n));
    assert_eq!(cholesky.slot("root"), coded.slot("root"));
    assert_eq!(bytes(CHOLESKY4_PLAIN, &mut w).slot("error"), 0);
    let factors = |bytes: &eigenstep::state::StateBytes| bytes.total() - bytes.slot("direction");
    let dense = bytes(FactorStorage::Dense, &mut w);
    assert_eq!(factors(&dense), 8 * (m * m + n * n));
    // from order 448 on, the eigenvalues and the diagonal weigh little enough
    let (dense, coded) = (8 * 512 * 512, 2 * codes(512) + 8 * 512);
    assert!(f64::from(dense) >= 7.0 * coded as f64);
}

#[test]
fn threads_and_blocks_do_not_change_bits() {
    for storage in STORAGES {
        let method = Shampoo { max_dim: 48, ..eager(storage) };
        let expected = path(&method, (130, 70), 3);
        for threads in [1, 2, 7] {
            let found = on_threads(threads, || path(&method, (130, 70), 3));
            assert_eq!(found, expected, "{storage:?}, {threads} threads");
        }
    }
}

/// Products and factors of one block that is worth several threads.
#[test]
fn threads_inside_a_block_do_not_change_bits() {
    for storage in [FactorStorage::Dense, FactorStorage::EIGEN4] {
        let method = Shampoo { max_dim: 600, ..eager(storage) };
        let run = |threads| on_threads(threads, || path(&method, (513, 600), 2));
        let expected = run(1);
        assert!([2, 7].iter().all(|&threads| run(threads) == expected), "{storage:?}");
    }
}

/// A root that fails stays as it was, and does not keep the other one from being renewed.
#[test]
fn factors_fail_one_by_one() {
    for (rows, columns, failing) in [(5, 3, 0), (3, 5, 1)] {
        // without a ridge the larger statistic is singular
        let root = RootSolver::CoupledNewton(CoupledNewton::DISTRIBUTED);
        let damping = Damping::default();
        let method =
            Shampoo { root, damping, initial: 0.0, max_dim: 8, ..eager(FactorStorage::Dense) };
        let mut opt = method.build::<f64>().unwrap();
        opt.step(&mut Array2::zeros((rows, columns)), &matrix(1, rows, columns)).unwrap();
        let dict = opt.state_dict();
        let root =
            |axis: usize| &dict.tensors[&format!("state.param.block0.factor{axis}.root")].bytes;
        let identity = |n: usize| -> Vec<u8> {
            Array2::<f64>::eye(n).iter().flat_map(|x| x.to_le_bytes()).collect()
        };
        assert_eq!(*root(failing), identity(5), "{rows}x{columns}");
        assert_ne!(*root(1 - failing), identity(3), "{rows}x{columns}");
    }
}

/// Also between two updates of the factors.
#[test]
fn reload_continues_bit_for_bit() {
    for storage in STORAGES {
        let inner = AdamW { lr: 0.1, ..AdamW::default() };
        let intervals = (2, 3);
        let method = Shampoo {
            inner,
            storage,
            update_factors_every: intervals.0,
            update_roots_every: intervals.1,
            min_numel: 0,
            max_dim: 20,
            ..Shampoo::default()
        };
        for stop in 1..7 {
            let mut opt = method.clone().build::<f64>().unwrap();
            let mut w = Array2::zeros((33, 17));
            let step = |opt: &mut dyn Optimizer<f64>, w: &mut Array2<f64>, step| {
                opt.step(w, &matrix(step, 33, 17)).unwrap();
            };
            (0..stop).for_each(|i| step(&mut opt, &mut w, i));
            let mut again = method.clone().build::<f64>().unwrap();
            again.load_state_dict(&opt.state_dict()).unwrap();
            assert_eq!(again.state_dict(), opt.state_dict());
            let mut copy = w.clone();
            for i in stop..8 {
                step(&mut opt, &mut w, i);
                step(&mut again, &mut copy, i);
            }
            assert_eq!(w, copy, "{storage:?}, stopped after {stop}");
        }
    }
}

#[test]
fn another_storage_is_refused_by_key() {
    let mut opt = eager(FactorStorage::EIGEN4).build::<f64>().unwrap();
    let mut w = Array2::zeros((5, 4));
    opt.step(&mut w, &matrix(0, 5, 4)).unwrap();
    let saved = opt.state_dict();
    let refused = |storage| {
        let mut other = eager(storage).build::<f64>().unwrap();
        other.load_state_dict(&saved).unwrap_err().to_string()
    };
    assert_eq!(
        refused(FactorStorage::Eigen),
        "state dict: `groups.0.config.storage`: expected `Eigen`, found `QuantizedEigen`; build the optimizer as it \
         was built when this was saved"
    );
    let codec = MatrixCodec { bits: 8, block_size: 64, map: MatrixMap::Linear2 };
    assert_eq!(
        refused(FactorStorage::QuantizedEigen { codec, rectify_update: 1, rectify_root: 4 }),
        "state dict: `groups.0.config.storage.codec.bits`: expected `8`, found `4`; build the optimizer as it was \
         built when this was saved"
    );
}

/// A state dict that claims an enormous shape is refused, not believed: neither memory nor time is
/// spent on it, and no product overflows.
#[test]
fn claimed_shapes_cost_no_memory() {
    fn refusal<M: MatrixMethod>(method: &M, shape: &str) -> String {
        let mut opt = method.clone().build::<f64>().unwrap();
        opt.step(&mut Array2::zeros((3, 2)), &matrix(0, 3, 2)).unwrap();
        let mut dict = opt.state_dict();
        let claimed = eigenstep::state::Scalar::Text(shape.into());
        dict.scalars.insert("state.param.shape".into(), claimed);
        let error = method.clone().build::<f64>().unwrap().load_state_dict(&dict).unwrap_err();
        error.to_string()
    }
    for shape in ["1000000000,1000000", "2,500000000000000000", "1000000000000000000,2"] {
        let refused = refusal(&Muon::default(), shape);
        let begins =
            ["state dict: `state.param.momentum_buffer`", "state dict: `state.param.shape`"];
        assert!(begins.iter().any(|begins| refused.starts_with(begins)), "{refused}");
        for storage in STORAGES {
            for max_dim in [1, 48, 1 << 52] {
                let refused = refusal(&Shampoo { max_dim, ..eager(storage) }, shape);
                // with blocks of one element the six that were saved are all right
                let block = if max_dim == 1 { "block6" } else { "block0" };
                let begins =
                    [format!("state.param.{block}.factor"), "state.param.shape".to_owned()];
                let named =
                    |begins: &String| refused.starts_with(&format!("state dict: `{begins}"));
                assert!(begins.iter().any(named), "{storage:?}, {max_dim}: {refused}");
            }
        }
    }
    // more elements than there are addresses; and none, along an endless dimension
    let shapes =
        ["4294967295,4294967295,4294967295", "18446744073709551615,2", "0,900000000000000000"];
    for shape in shapes {
        for storage in STORAGES {
            let refused = refusal(&Shampoo { max_dim: 1, ..eager(storage) }, shape);
            assert!(refused.starts_with("state dict: `state.param."), "{refused}");
        }
    }
}

/// Without roots of its own it is the inner optimizer, on gradients as long as they were.
#[test]
fn until_the_first_root_it_is_its_base() {
    let inner = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let mut opt = Shampoo { inner: inner.clone(), ..Shampoo::default() }.build::<f64>().unwrap();
    let mut plain = inner.build::<f64>().unwrap();
    let (mut w, mut v) = (Array2::zeros((6, 5)), Array2::zeros((6, 5)));
    for step in 0..20 {
        opt.step(&mut w, &matrix(step, 6, 5)).unwrap();
        plain.step(&mut v, &matrix(step, 6, 5)).unwrap();
    }
    close(&w, &v, 1e-11);
}

#[test]
fn a_grafted_direction_is_as_long_as_the_gradient() {
    for storage in STORAGES {
        for combination in [Combination::Product, Combination::Caspr] {
            let inner = Sgd { lr: 1.0, ..Sgd::default() };
            let mut opt = Shampoo { inner, combination, max_dim: 16, ..eager(storage) };
            let mut built = opt.clone().build::<f64>().unwrap();
            let mut w = Array2::zeros((40, 24));
            for step in 0..4 {
                let (before, g) = (w.clone(), matrix(step, 40, 24));
                built.step(&mut w, &g).unwrap();
                let ratio = norm(&(&w - before)) / norm(&g);
                assert!((ratio - 1.0).abs() < 1e-9, "{storage:?}: {ratio}");
            }
            opt.graft = Graft::None;
            assert!((norm(&path(&opt, (40, 24), 1)) / norm(&matrix(0, 40, 24)) - 1.0).abs() > 0.1);
        }
    }
}

#[test]
fn transposed_problems_have_transposed_paths() {
    for storage in [FactorStorage::Dense, FactorStorage::Eigen] {
        let (mut opt, mut transposed) =
            (eager(storage).build::<f64>().unwrap(), eager(storage).build::<f64>().unwrap());
        let (mut w, mut v) = (Array2::zeros((12, 12)), Array2::zeros((12, 12)));
        for step in 0..5 {
            let g = matrix(step, 12, 12);
            opt.step(&mut w, &g).unwrap();
            transposed.step(&mut v, &g.t()).unwrap();
        }
        close(&v.t().to_owned(), &w, 1e-8);
    }
}

#[test]
fn blocks_no_smaller_than_the_matrix_are_the_matrix() {
    for storage in STORAGES {
        let whole = path(&eager(storage), (30, 20), 4);
        assert_eq!(path(&Shampoo { max_dim: 30, ..eager(storage) }, (30, 20), 4), whole);
        assert_ne!(path(&Shampoo { max_dim: 29, ..eager(storage) }, (30, 20), 4), whole);
    }
}

/// The first step is the polar factor of the gradient, up to length: `L^(−1/4) G R^(−1/4)` with
/// `L = G Gᵀ` has all singular values alike.
#[test]
fn the_first_step_of_the_dense_method_whitens() {
    let method = Shampoo {
        inner: Sgd { lr: 1.0, ..Sgd::default() },
        initial: 0.0,
        damping: Damping::absolute(1e-12),
        ..eager(FactorStorage::Dense)
    };
    let step = path(&method, (6, 6), 1);
    let (_, singular, _) = eigenstep::linalg::svd(&step).unwrap();
    assert!(singular[0] / singular[5] < 1.0 + 1e-4, "{singular}");
}

/// Matrices that are hard to decompose are tolerated: no panic, no NaN.
#[test]
fn hard_gradients_give_finite_parameters() {
    let shapes: [&[usize]; 9] =
        [&[], &[1], &[0], &[0, 5], &[5, 0], &[1, 1], &[7, 1], &[2, 3, 4], &[3, 2, 0, 2]];
    let sizes = [0.0, 1.0, 1e30, 1e-40, 1e-20];
    for storage in STORAGES {
        for shape in shapes.into_iter().chain([&[9, 8][..]]) {
            for size in sizes {
                let mut opt = eager(storage).build::<f32>().unwrap();
                let mut muon = Muon::default().build::<f32>().unwrap();
                let mut w = ArrayD::<f32>::ones(IxDyn(shape));
                let mut v = w.clone();
                for step in 0..5 {
                    // constant, of rank one; then with one entry far above the others
                    let mut g = ArrayD::from_elem(IxDyn(shape), (size * 1e-3) as f32);
                    if let (true, Some(first)) = (step > 2, g.first_mut()) {
                        *first = size as f32;
                    }
                    match muon.step(&mut v, &g) {
                        Ok(()) => {}
                        // its squares are no f32: refused before anything changes
                        Err(Error::GradientTooLarge { .. }) if size == 1e30 => {}
                        Err(error) => panic!("{shape:?}, {size:e}: {error}"),
                    }
                    match opt.step(&mut w, &g) {
                        Ok(()) => {}
                        Err(Error::GradientTooLarge { .. }) if size == 1e30 => {}
                        Err(error) => panic!("{storage:?}, {shape:?}, {size:e}: {error}"),
                    }
                }
                let finite = w.iter().chain(&v).all(|x| x.is_finite());
                assert!(finite, "{storage:?}, {shape:?}, {size:e}: {w:?} {v:?}");
            }
        }
    }
}

/// Statistics that go on in between do not hide roots that fail one after the other.
#[test]
fn roots_that_fail_are_counted_over_updates_of_the_factors() {
    let root = RootSolver::CoupledHigherOrder { order: 2, tolerance: 0.0, max_iterations: 1 };
    let method = Shampoo { root, update_roots_every: 2, ..eager(FactorStorage::Dense) };
    let mut opt = method.build::<f64>().unwrap();
    let mut w = Array2::zeros((5, 5));
    for step in 0..8 {
        opt.step(&mut w, &matrix(step, 5, 5)).unwrap();
    }
    let error = opt.step(&mut w, &matrix(8, 5, 5)).unwrap_err();
    assert!(matches!(error, Error::RepeatedFailure { failures: 4, .. }), "{error}");
}

#[test]
fn convolutions_are_matrices_of_their_filters() {
    let mut opt = eager(FactorStorage::Dense).build::<f64>().unwrap();
    let mut flat = eager(FactorStorage::Dense).build::<f64>().unwrap();
    let (mut w, mut v) = (Array4::<f64>::zeros((4, 3, 2, 2)), Array2::<f64>::zeros((4, 12)));
    for step in 0..3 {
        opt.step(&mut w, &waves(step, &[4, 3, 2, 2])).unwrap();
        flat.step(&mut v, &matrix(step, 4, 12)).unwrap();
    }
    assert!(w.iter().eq(&v));
}

#[test]
fn failures_are_counted_and_named() {
    let method = Shampoo { tolerated_failures: 2, ..eager(FactorStorage::Eigen) };
    let mut opt = method.build::<f64>().unwrap().with_non_finite(NonFinite::Propagate);
    let mut w = Array2::zeros((3, 3));
    opt.step(&mut w, &matrix(0, 3, 3)).unwrap();
    let good = opt.state_dict();
    let nan = Array2::from_elem((3, 3), f64::NAN);
    for _ in 0..3 {
        opt.step(&mut w, &nan).unwrap();
    }
    // the factors are still the good ones
    for (key, tensor) in good.tensors.iter().filter(|(key, _)| key.contains("block0")) {
        assert_eq!(Some(tensor), opt.state_dict().tensors.get(key));
    }
    let error = opt.step(&mut w, &matrix(1, 3, 3)).unwrap_err();
    assert!(matches!(error, Error::RepeatedFailure { failures: 3, block: 0, .. }), "{error}");
    assert!(error.to_string().starts_with("parameter `param`, block 0: 3 failures in a row"));
}

#[test]
fn impossible_options_are_named() {
    let refused = |method: Method| method.build::<f32>().unwrap_err().to_string();
    let codec = MatrixCodec { bits: 5, ..MatrixCodec::default() };
    let message = refused(eager(FactorStorage::Naive(codec)));
    assert!(message.contains("`bits` must be") && message.ends_with("got 5"), "{message}");
    let codec = MatrixCodec { block_size: 0, ..MatrixCodec::default() };
    assert!(refused(eager(FactorStorage::Naive(codec))).contains("`block_size`"));
    let codec = MatrixCodec::default();
    for beta in [1.0, -0.1, f64::NAN] {
        let message = refused(eager(FactorStorage::Cholesky { codec, error_beta: Some(beta) }));
        assert!(message.starts_with("FactorStorage: `error_beta` must be in [0, 1)"), "{message}");
    }
    let message = refused(Shampoo { update_roots_every: 0, ..eager(FactorStorage::Dense) });
    assert_eq!(message, "Shampoo: `update_roots_every` must be an integer >= 1, got 0");
    let inner = Sgd { nesterov: true, ..Sgd::default() };
    let message = refused(Shampoo { inner, ..Shampoo::default() });
    assert!(message.contains("nesterov"), "{message}");
    // what decides the layout of state stays as it is
    let mut opt = eager(FactorStorage::Dense).build::<f64>().unwrap();
    opt.step(&mut Array2::zeros((3, 3)), &matrix(0, 3, 3)).unwrap();
    assert!(matches!(opt.set_option(0, "max_dim", 2.0), Err(Error::AlreadyStarted { .. })));
    opt.set_option(0, "factor_beta", 1.0).unwrap();
}

#[test]
fn muon_leaves_vectors_and_chosen_matrices_to_adamw() {
    let muon = Muon { lr: 0.02, fallback_lr_ratio: 0.5, ..Muon::default() };
    let adamw = AdamW { lr: 0.01, ..AdamW::default() };
    let mut opt = muon
        .build::<f64>()
        .unwrap()
        .with_group(Select::name("1"), |group| group.orthogonalize = false)
        .unwrap();
    let mut plain = adamw.build::<f64>().unwrap();
    let tree = || (matrix(1, 6, 4), matrix(2, 6, 4), Array1::<f64>::ones(5));
    let (mut w, mut v) = (tree(), tree());
    for step in 0..5 {
        let vector: Array1<f64> = waves(step, &[5]).into_dimensionality().unwrap();
        let grads = (matrix(step, 6, 4), matrix(step + 9, 6, 4), vector);
        opt.step(&mut w, &grads).unwrap();
        plain.step(&mut v, &grads).unwrap();
    }
    assert_ne!(w.0, v.0);
    assert_eq!((w.1, w.2), (v.1, v.2));
    assert_eq!(opt.state_bytes().slot("momentum_buffer"), 6 * 4 * 8);
}

#[test]
fn muon_reads_options_under_their_former_names() {
    let method = || Muon { fallback_lr_ratio: 0.5, ..Muon::default() };
    let mut opt = method().build::<f64>().unwrap();
    let (mut w, grad) = (matrix(1, 4, 3), matrix(2, 4, 3));
    opt.step(&mut w, &grad).unwrap();
    let saved = opt.state_dict();
    let mut former = saved.clone();
    former.version = 1;
    former.scalars =
        saved.scalars.iter().map(|(k, v)| (k.replace("fallback_", "rest_"), v.clone())).collect();
    assert_eq!(former.scalars.keys().filter(|key| key.contains(".rest_")).count(), 5);
    let mut read = Muon::default().build::<f64>().unwrap();
    read.load_state_dict(&former).unwrap();
    assert_eq!(read.state_dict(), saved);
}

/// The step of a matrix does not depend on the size of its gradients.
#[test]
fn muon_steps_have_one_size() {
    let step = |scale: f64| {
        let muon = Muon { lr: 1.0, weight_decay: 0.0, ..Muon::default() };
        let mut w = Array2::zeros((8, 5));
        muon.build().unwrap().step(&mut w, &(matrix(3, 8, 5) * scale)).unwrap();
        w
    };
    close(&step(1e6), &step(1.0), 1e-12);
    let (_, singular, _) = eigenstep::linalg::svd(&step(1.0)).unwrap();
    // s = √(8/5) and the range of five steps of the quintic
    let s = (8.0f64 / 5.0).sqrt();
    assert!(singular.iter().all(|x| (0.68 * s..=1.14 * s).contains(x)), "{singular}");
}

/// In 8 and 4 bits the momentum still leads to the minimum.
#[test]
fn muon_works_with_coded_momentum() {
    let target = matrix(5, 80, 64);
    for (precision, bytes, limit) in [
        (Precision::Full, 8.0, 0.02),
        (Precision::INT8_LINEAR, 1.04, 0.02),
        // all singular values of the rounding grow to 1, too: it stays further away
        (Precision::INT4, 0.57, 0.5),
    ] {
        let muon = Muon { lr: 0.05, weight_decay: 0.0, ..Muon::default() };
        let mut opt = muon.build::<f64>().unwrap().with_state_precision(precision).unwrap();
        let mut w = Array2::zeros((80, 64));
        for _ in 0..300 {
            let g = &w - &target;
            opt.step(&mut w, &g).unwrap();
        }
        let off = norm(&(&w - &target)) / norm(&target);
        assert!(off < limit, "{precision:?}: {off}");
        let held = opt.state_bytes().slot("momentum_buffer") as f64 / (80.0 * 64.0);
        assert!(held <= bytes, "{held}");
    }
}
