//! Laws of Distributed Shampoo's pipeline, and of the rules and directions that go with it.

use super::{close, matrix, norm, waves};
use eigenstep::first_order::{Averaging, PrimalAveraging};
use eigenstep::linalg::{CoupledNewton, Damping, InverseRoot, mode_gram, mode_product};
use eigenstep::prelude::*;
use eigenstep::second_order::factor::RootSolver;
use eigenstep::second_order::{
    Combination, Descent, Exponent, Exponents, Graft, GraftMoment, LrAdjustment, Norm,
    Orthogonalization, Pipeline, Reshape, Statistic,
};
use ndarray::{Array1, Array2, ArrayD, IxDyn};

type Distributed = Shampoo<Descent>;

/// Steps of length 0.5·direction, averages of gradients' products, no filter.
fn plain() -> Distributed {
    Shampoo {
        inner: Descent { lr: 0.5, ..Descent::default() },
        factor_beta: 0.9,
        bias_correction: false,
        damping: Damping::absolute(1e-3),
        filter_beta: 0.0,
        min_numel: 0,
        ..Shampoo::distributed()
    }
}

/// Parameters after every step from zero.
fn paths<C: MatrixMethod>(method: &C, shape: &[usize], steps: usize) -> Vec<ArrayD<f64>> {
    let mut opt = method.clone().build().unwrap();
    let mut w = ArrayD::zeros(IxDyn(shape));
    let mut step = |i| {
        opt.step(&mut w, &waves(i, shape)).unwrap();
        w.clone()
    };
    (0..steps).map(&mut step).collect()
}

fn path<C: MatrixMethod>(method: &C, shape: &[usize], steps: usize) -> ArrayD<f64> {
    paths(method, shape, steps).pop().unwrap()
}

fn near(a: &ArrayD<f64>, b: &ArrayD<f64>, tolerance: f64) {
    let size = |a: &ArrayD<f64>| a.iter().map(|x| x * x).sum::<f64>().sqrt();
    let off = size(&(a - b)) / size(b).max(1e-300);
    assert!(off <= tolerance, "off by {off:e}");
}

/// Blocks of one element have scalar factors: `g/√(v + ε)` for a matrix and for a vector.
#[test]
fn blocks_of_one_element_are_rmsprop() {
    for shape in [&[5, 4][..], &[7], &[2, 3, 4]] {
        let order = shape.len() as f64;
        let pipeline = Pipeline { reshape: Reshape::AsIs, ..Pipeline::DISTRIBUTED };
        let found = path(&Shampoo { max_dim: 1, pipeline, ..plain() }, shape, 6);
        let (mut w, mut v) = (ArrayD::<f64>::zeros(IxDyn(shape)), ArrayD::zeros(IxDyn(shape)));
        for i in 0..6 {
            let g = waves(i, shape);
            v = 0.9 * &v + 0.1 * &g * &g;
            // k factors to the power −1/(2k)
            w = w - 0.5 * &g * v.mapv(|v: f64| (v + 1e-3).powf(-0.5 / order).powf(order));
        }
        near(&found, &w, 1e-12);
    }
}

/// A scalar as it is has no dimension and so no factor; merged, it is a vector of one element.
#[test]
fn a_scalar_as_it_is_goes_along_its_gradient() {
    let as_is = Pipeline { reshape: Reshape::AsIs, ..Pipeline::DISTRIBUTED };
    let sum: f64 = (0..5).map(|i| waves(i, &[]).sum()).sum();
    let found = path(&Shampoo { pipeline: as_is, ..plain() }, &[], 5);
    near(&found, &ArrayD::from_elem(IxDyn(&[]), -0.5 * sum), 1e-12);
    let merged = path(&plain(), &[], 5);
    near(&merged, &path(&plain(), &[1], 5).into_shape_with_order(IxDyn(&[])).unwrap(), 0.0);
    assert!((&merged - &found).sum().abs() > 1e-3);
}

#[test]
fn a_vector_has_the_full_matrix() {
    let method = Shampoo { factor_beta: 1.0, ..plain() };
    let found = path(&method, &[6], 5);
    let (mut w, mut sum) = (Array1::<f64>::zeros(6), Array2::<f64>::zeros((6, 6)));
    for i in 0..5 {
        let g: Array1<f64> = waves(i, &[6]).into_dimensionality().unwrap();
        let column = g.view().insert_axis(ndarray::Axis(1));
        sum = sum + column.dot(&column.t());
        let root = InverseRoot::eigh(Damping::absolute(1e-3)).root(&sum, 0.5).unwrap();
        w = w - 0.5 * root.dot(&g);
    }
    near(&found, &w.into_dyn(), 1e-9);
}

/// `L ×₀ M ×₁ N …` by hand, for tensors of three dimensions and cuts in all of them.
#[test]
fn tensors_have_a_factor_per_dimension() {
    let shape = [3, 4, 5];
    let pipeline = Pipeline { reshape: Reshape::AsIs, ..Pipeline::DISTRIBUTED };
    let method = Shampoo { pipeline, ..plain() };
    let g = waves(0, &shape);
    let mut d = g.clone();
    for axis in 0..3 {
        let gram = 0.1 * mode_gram(&g.view(), axis).unwrap();
        let root = InverseRoot::eigh(Damping::absolute(1e-3)).root(&gram, 1.0 / 6.0).unwrap();
        d = mode_product(&root, axis, &d.view());
    }
    near(&path(&method, &shape, 1), &(-0.5 * d), 1e-12);
    // a block of its own is what it would be alone
    let cut = path(&Shampoo { max_dim: 2, ..method.clone() }, &shape, 1);
    let corner = ndarray::s![2.., 2.., 4..];
    let alone = {
        let mut w = ArrayD::zeros(IxDyn(&[1, 2, 1]));
        let g = g.slice(corner).to_owned().into_dyn();
        method.build().unwrap().step(&mut w, &g).unwrap();
        w
    };
    near(&cut.slice(corner).to_owned().into_dyn(), &alone, 1e-12);
}

#[test]
fn before_the_start_it_is_what_is_grafted() {
    // gradient descent with an average of gradients, corrected
    let method = Shampoo {
        graft: Graft::Gradient,
        filter_beta: 0.8,
        bias_correction: true,
        start: 10,
        ..plain()
    };
    let (mut w, mut m) = (Array2::<f64>::zeros((4, 3)), Array2::<f64>::zeros((4, 3)));
    for i in 0..6 {
        m = 0.8 * m + 0.2 * matrix(i, 4, 3);
        w = w - 0.5 * &m / (1.0 - 0.8f64.powi(i as i32 + 1));
    }
    near(&path(&method, &[4, 3], 6), &w.into_dyn(), 1e-12);
    // the diagonal methods, which have no first moment
    let lr = 0.5;
    let adam = AdamW { lr, betas: (0.0, 0.999), weight_decay: 0.0, ..AdamW::default() };
    let rmsprop = RmsProp { lr, ..RmsProp::default() };
    let adagrad = Adagrad { lr, ..Adagrad::default() };
    let late = |graft| path(&Shampoo { graft, start: 10, ..plain() }, &[4, 3], 5);
    let rule = |mut opt: Box<dyn Optimizer<f64>>| {
        let mut w = Array2::<f64>::zeros((4, 3));
        (0..5).for_each(|i| opt.step(&mut w, &matrix(i, 4, 3)).unwrap());
        w.into_dyn()
    };
    near(&late(Graft::ADAM), &rule(Box::new(adam.build().unwrap())), 1e-12);
    near(&late(Graft::RMSPROP), &rule(Box::new(rmsprop.build().unwrap())), 1e-12);
    near(&late(Graft::ADAGRAD), &rule(Box::new(adagrad.build().unwrap())), 1e-12);
}

/// A step of every block, or of the whole tensor, is as long as that of the grafted method.
#[test]
fn grafted_steps_have_the_grafted_length() {
    let normalized = Graft::Moment(GraftMoment {
        beta: 1.0,
        bias_correction: false,
        eps: 1e-10,
        normalized: true,
    });
    for graft in [Graft::ADAM, Graft::ADAGRAD, Graft::RMSPROP, Graft::Sign, normalized] {
        for pipeline in [Pipeline::DISTRIBUTED, Pipeline::SCALABLE] {
            let method = Shampoo { graft, pipeline, max_dim: 4, ..plain() };
            let late = Shampoo { start: 10, ..method.clone() };
            let (found, wanted) = (paths(&method, &[8, 5], 4), paths(&late, &[8, 5], 4));
            let last = |all: &[ArrayD<f64>]| &all[3] - &all[2];
            let (found, wanted) = (last(&found), last(&wanted));
            let whole = pipeline == Pipeline::SCALABLE;
            let part = if whole { ndarray::s![.., ..] } else { ndarray::s![..4, ..4] };
            let size = |a: &ArrayD<f64>| norm(&a.slice(part).to_owned());
            assert!((size(&found) / size(&wanted) - 1.0).abs() < 1e-9, "{graft:?}, {pipeline:?}");
            assert_ne!(found, wanted);
        }
    }
    let sign = path(&Shampoo { graft: Graft::Sign, start: 2, ..plain() }, &[5, 5], 1);
    assert!((norm(&sign.into_dimensionality().unwrap()) - 0.5 * 5.0).abs() < 1e-12);
}

/// Decay in the gradient is a gradient with decay in it, to the bit, also upwards.
#[test]
fn gradient_decay_is_part_of_the_gradient() {
    let method = Shampoo { l2: 0.25, filter_beta: 0.9, graft: Graft::ADAM, ..plain() };
    let without = Shampoo { l2: 0.0, ..method.clone() };
    let (mut opt, mut by_hand) = (method.build::<f64>().unwrap(), without.build::<f64>().unwrap());
    let (mut w, mut v) = (matrix(9, 6, 5), matrix(9, 6, 5));
    for i in 0..5 {
        let g = matrix(i, 6, 5);
        opt.step(&mut w, &g).unwrap();
        let g = g + 0.25 * &v;
        by_hand.step(&mut v, &g).unwrap();
        assert_eq!(w, v);
    }
    let upwards = |l2, sign: f64, maximize| {
        let inner = AdamW { maximize, ..AdamW::default() };
        let mut opt = Shampoo { inner, l2, update_roots_every: 1, ..Shampoo::default() }
            .build::<f64>()
            .unwrap();
        let mut w = matrix(9, 6, 5);
        (0..4).for_each(|i| opt.step(&mut w, &(sign * matrix(i, 6, 5))).unwrap());
        w
    };
    close(&upwards(0.1, -1.0, true), &upwards(0.1, 1.0, false), 1e-12);
}

#[test]
fn without_other_factors_kl_is_the_gradient() {
    let one_sided = Exponents::Table(vec![Exponent { order: 2, dim: Some(1), exponent: 0.0 }]);
    let method = |statistic| Shampoo { statistic, exponents: one_sided.clone(), ..plain() };
    let kl = Statistic::KullbackLeibler;
    let shape = [6, 5];
    assert_eq!(path(&method(kl), &shape, 5), path(&method(Statistic::Gradient), &shape, 5));
    let both = Shampoo { statistic: kl, ..plain() };
    assert_ne!(path(&both, &shape, 5), path(&plain(), &shape, 5));
}

/// For one dimension CASPR is the product squared, and the sum of two equal factors four times it.
#[test]
fn caspr_sums() {
    let caspr = Shampoo { combination: Combination::Caspr, ..plain() };
    let g: Array1<f64> = waves(0, &[5]).into_dimensionality().unwrap();
    let column = g.view().insert_axis(ndarray::Axis(1));
    let gram = 0.1 * column.dot(&column.t());
    let root = InverseRoot::eigh(Damping::absolute(1e-3)).root(&gram, 0.5).unwrap();
    near(&path(&caspr, &[5], 1), &(-0.5 * root.dot(&root.dot(&g))).into_dyn(), 1e-10);
}

/// All solvers find the same roots where they are well defined; improved bases come close.
#[test]
fn solvers_agree() {
    let method = |root| Shampoo { root, factor_beta: 1.0, initial: 1.0, ..plain() };
    let expected = path(&method(RootSolver::DampedEigen), &[6, 6], 5);
    for (root, tolerance) in [
        (RootSolver::Eigen, 1e-9),
        (
            RootSolver::CoupledNewton(CoupledNewton {
                tolerance: 1e-12,
                accept: None,
                ..CoupledNewton::DISTRIBUTED
            }),
            1e-7,
        ),
        (RootSolver::CoupledHigherOrder { order: 3, tolerance: 1e-12, max_iterations: 100 }, 1e-7),
        (RootSolver::CoupledNewton(CoupledNewton::SCALABLE), 1e-5),
        (RootSolver::Qr { tolerance: 1e-9, max_iterations: 2000 }, 1e-6),
        (RootSolver::Qr { tolerance: 0.0, max_iterations: 1 }, 0.5),
        // leaves the ridge out
        (RootSolver::PseudoInverse { rtol: None, atol: 0.0 }, 1e-3),
    ] {
        near(&path(&method(root), &[6, 6], 5), &expected, tolerance);
    }
}

/// With everything on, in every storage: stopped and continued it is the same to the bit, and
/// 8-bit moments stay close.
#[test]
fn all_options_go_together() {
    for storage in super::STORAGES {
        for (root, exponents) in [
            (RootSolver::Eigen, Exponents::Standard),
            (RootSolver::Qr { tolerance: 0.01, max_iterations: 3 }, Exponents::Same(0.5)),
        ] {
            // these keep no eigenvectors that the QR algorithm could start from
            let keeps_none =
                matches!(storage, FactorStorage::Double | FactorStorage::Cholesky { .. });
            if keeps_none && matches!(root, RootSolver::Qr { .. }) {
                continue;
            }
            let inner = Descent { lr: 0.1, momentum: 0.9, nesterov: true, ..Descent::default() };
            let method = Shampoo {
                inner,
                storage,
                root,
                exponents,
                statistic: Statistic::KullbackLeibler,
                graft: Graft::ADAM,
                filter_beta: 0.9,
                filter_weight: Some(0.81),
                l2: 0.01,
                trace_scaling: 0.5,
                bias_correction: true,
                start: 2,
                update_roots_every: 2,
                max_dim: 5,
                pipeline: Pipeline { reshape: Reshape::AsIs, ..Pipeline::DISTRIBUTED },
                ..plain()
            };
            let build = |precision| {
                let opt = method.clone().build::<f64>().unwrap();
                opt.with_state_precision(precision).unwrap()
            };
            let shape = [7, 3, 6];
            let grads = |i: usize| waves(i, &shape);
            let mut ends = Vec::new();
            for precision in [Precision::Full, Precision::INT8_LINEAR] {
                let mut opt = build(precision);
                let mut w = ArrayD::<f64>::zeros(IxDyn(&shape));
                (0..3).for_each(|i| opt.step(&mut w, &grads(i)).unwrap());
                let mut again = build(precision);
                again.load_state_dict(&opt.state_dict()).unwrap();
                let mut copy = w.clone();
                for i in 3..7 {
                    opt.step(&mut w, &grads(i)).unwrap();
                    again.step(&mut copy, &grads(i)).unwrap();
                }
                assert_eq!(w, copy, "{storage:?}");
                assert!(w.iter().all(|x| x.is_finite()));
                ends.push(w);
            }
            near(&ends[1], &ends[0], 0.1);
        }
    }
}

#[test]
fn averaging_that_forgets_at_once_is_descent() {
    let lr = 0.1;
    let averaging = Averaging::Constant(0.0);
    let mut opt = PrimalAveraging { lr, averaging, ..PrimalAveraging::default() }.build().unwrap();
    let mut sgd = Sgd { lr, ..Sgd::default() }.build::<f64>().unwrap();
    let (mut w, mut v) = (matrix(0, 3, 4), matrix(0, 3, 4));
    for i in 0..10 {
        opt.step(&mut w, &matrix(i, 3, 4)).unwrap();
        sgd.step(&mut v, &matrix(i, 3, 4)).unwrap();
    }
    close(&w, &v, 1e-14);
}

/// Under a constant learning rate the Schedule-Free average is the mean of all `z`.
#[test]
fn schedule_free_is_the_mean() {
    let averaging = Averaging::ScheduleFree { lr_power: 2.0 };
    let method = PrimalAveraging { lr: 0.1, averaging, ..PrimalAveraging::default() };
    let mut opt = method.build::<f64>().unwrap();
    let start = matrix(7, 3, 4);
    let (mut w, mut z, mut sum) = (start.clone(), start, Array2::<f64>::zeros((3, 4)));
    for i in 0..8 {
        let g = matrix(i, 3, 4);
        opt.step(&mut w, &g).unwrap();
        z = z - 0.1 * &g;
        sum += &z;
    }
    opt.eval(&mut w).unwrap();
    close(&w, &(sum / 8.0), 1e-12);
}

#[test]
fn spectral_descent_with_momentum_is_muon() {
    let (lr, weight_decay) = (0.1, 0.01);
    let muon = Muon { lr, weight_decay, ..Muon::default() };
    let steepest = SteepestDescent {
        inner: Descent { lr, weight_decay, ..Descent::default() },
        norm: Norm::Spectral {
            orthogonalization: Orthogonalization::Quintic,
            steps: 5,
            eps: 1e-7,
            adjust_lr: LrAdjustment::Original,
        },
        filter_beta: 0.95,
        filter_weight: Some(0.95 * 0.95),
        bias_correction: false,
        l2: 0.0,
        batch_dims: 0,
    };
    assert_eq!(path(&steepest, &[7, 4], 5), path(&muon, &[7, 4], 5));
}

#[test]
fn decay_follows_the_learning_rate_as_it_says() {
    use eigenstep::optim::DecaySchedule::{Corrected, Independent, WithLr};
    for (decay, lost) in [
        (WithLr, 0.05 * 0.5),
        (Corrected { peak_lr: 0.1 }, 0.05 * 0.5 * 0.5),
        (Independent { peak_lr: 0.1 }, 0.5 * 0.5),
    ] {
        for momentum in [0.0, 0.5] {
            let inner =
                Descent { lr: 0.1, weight_decay: 0.5, momentum, decay, ..Descent::default() };
            let mut opt = inner.build::<f64>().unwrap();
            opt.set_lr(0, 0.05).unwrap();
            let mut w = Array1::ones(1);
            opt.step(&mut w, &Array1::zeros(1)).unwrap();
            assert!((1.0 - w[0] - lost).abs() < 1e-15, "{decay:?}: {w}");
        }
    }
}

#[test]
fn contradictions_are_named() {
    let refused = |method: Distributed| method.build::<f32>().unwrap_err().to_string();
    let exponents = Exponents::Same(-1.0);
    let message = refused(Shampoo { exponents, ..plain() });
    assert_eq!(message, "Shampoo: `exponents` must be finite and >= 0, got -1");
    let moment = GraftMoment { beta: 1.5, bias_correction: false, eps: 0.0, normalized: false };
    let message = refused(Shampoo { graft: Graft::Moment(moment), ..plain() });
    assert_eq!(message, "Shampoo: `graft.beta` must be in [0, 1], got 1.5");
    let root = RootSolver::CoupledHigherOrder { order: 1, tolerance: 0.0, max_iterations: 1 };
    assert!(refused(Shampoo { root, ..plain() }).contains("`order` must be at least 2"));
    // found when it is built, not when the first root is due
    let root = RootSolver::CoupledNewton(CoupledNewton::SCALABLE);
    for exponents in [
        Exponents::Same(0.31415),
        Exponents::Table(vec![Exponent { order: 3, dim: Some(1), exponent: 0.31415 }]),
    ] {
        let message = refused(Shampoo { root, exponents, ..plain() });
        assert!(message.starts_with("Shampoo: `exponents` must be a fraction q/p"), "{message}");
    }
    assert!(Shampoo { root, exponents: Exponents::Same(0.375), ..plain() }.build::<f32>().is_ok());
    let pipeline = Pipeline { reshape: Reshape::Merged { dims: 0 }, ..Pipeline::DISTRIBUTED };
    assert!(refused(Shampoo { pipeline, ..plain() }).contains("`pipeline.reshape.dims`"));
    let decay = eigenstep::optim::DecaySchedule::Corrected { peak_lr: 0.0 };
    let inner = Descent { decay, ..Descent::default() };
    assert!(refused(Shampoo { inner, ..plain() }).contains("`decay.peak_lr`"));
    // nothing is ignored in silence
    let method = Shampoo { filter_beta: 0.0, filter_weight: Some(0.5), ..plain() };
    assert_eq!(
        refused(method.clone()),
        "Shampoo: `filter_weight` must be unset without filter_beta, got 0.5"
    );
    assert!(Shampoo { filter_weight: Some(0.0), ..method }.build::<f32>().is_ok());
    let root = RootSolver::Qr { tolerance: 0.0, max_iterations: 1 };
    for storage in [FactorStorage::Double, FactorStorage::CHOLESKY4] {
        assert_eq!(
            refused(Shampoo { root, storage, ..plain() }),
            "Shampoo: `root` must be another solver for Double and Cholesky storage, got Qr"
        );
    }
    let steepest = SteepestDescent {
        filter_beta: 0.0,
        filter_weight: Some(0.5),
        ..SteepestDescent::<Descent>::default()
    };
    assert_eq!(
        steepest.build::<f32>().unwrap_err().to_string(),
        "SteepestDescent: `filter_weight` must be unset without filter_beta, got 0.5"
    );
}

/// Factors in `f32` that are nearly singular: roots keep the small eigenvalues as far as rounding of the
/// factors has left them. Roots in `f32` are off by 0.5 and by 4 here.
#[test]
fn nearly_singular_factors_in_single_precision_have_good_roots() {
    let (rows, columns) = (150, 160);
    let (basis, _) = eigenstep::linalg::qr(&matrix(7, rows, rows)).unwrap();
    for decades in [2.0, 2.5] {
        let size = |i: usize| 10f64.powf(-decades * i as f64 / (rows - 1) as f64);
        let sizes = Array1::from_shape_fn(rows, size);
        // every gradient has the same directions with the same sizes
        let gradient =
            |step| (&basis * &sizes).dot(&matrix(step, rows, columns)).mapv(|x| x as f32);
        let mut single = Shampoo::distributed().build::<f32>().unwrap();
        let mut double = Shampoo::distributed().build::<f64>().unwrap();
        let mut w = Array2::<f32>::zeros((rows, columns));
        let mut expected = w.mapv(f64::from);
        for step in 0..4 {
            single.step(&mut w, &gradient(step)).unwrap();
            double.step(&mut expected, &gradient(step).mapv(f64::from)).unwrap();
        }
        let off = norm(&(w.mapv(f64::from) - &expected)) / norm(&expected);
        assert!(off < 0.05, "{decades} decades: off by {off:e}");
    }
}
