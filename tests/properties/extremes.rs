//! Gradients of zero, and of the smallest and largest numbers: parameters stay finite, `eps = 0` or not.

use crate::inputs::{Inputs, reads_curvature};
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;

/// Steps with these gradients, in `f32`, with no check of how large they are; the parameters after them.
fn after<U: Rule>(config: &U, steps: &[[f32; 4]]) -> [f32; 4] {
    let opt = config.clone().build::<f32>().unwrap();
    let mut opt = opt.with_non_finite(NonFinite::Propagate);
    let mut w = [1.0f32, -1.0, 0.5, 0.0];
    for g in steps {
        let grads = Flat::new(g, &[4]);
        let inputs = Inputs::new(&grads, 1.5, reads_curvature::<U>());
        opt.step(&mut FlatMut::new(&mut w, &[4]), &inputs).unwrap();
    }
    w
}

fn stays_finite<U: Rule>(config: U) {
    let (zero, tiny, huge) = ([0.0f32; 4], [1e-45, 1e-42, 0.0, -1e-45], [8e37, 1e-45, 0.0, -8e37]);
    let start = after(&config, &[]);
    assert_eq!(after(&config, &[zero; 3]), start, "{config:?} moves without a gradient");
    let runs = [
        vec![tiny; 3],
        vec![zero, tiny, zero],
        vec![huge; 3],
        vec![zero, huge, zero],
        vec![tiny, huge, tiny, zero],
    ];
    for run in runs {
        let w = after(&config, &run);
        assert!(w.iter().all(|w| w.is_finite()), "{config:?} after {run:?}: {w:?}");
    }
}

#[test]
fn extreme_gradients_give_finite_steps() {
    for eps in [0.0, 1e-8] {
        stays_finite(NAdam { eps, ..NAdam::default() });
        stays_finite(RAdam { eps, ..RAdam::default() });
        stays_finite(Adamax { eps, ..Adamax::default() });
        stays_finite(SparseAdam { eps, ..SparseAdam::default() });
        stays_finite(Adadelta { eps, ..Adadelta::default() });
        stays_finite(RmsPropTf { eps, momentum: 0.9, ..RmsPropTf::default() });
        stays_finite(Lars { eps, ..Lars::larc() });
        stays_finite(Came { eps: (eps, eps), ..Came::default() });
        stays_finite(NovoGrad { eps, ..NovoGrad::default() });
        stays_finite(AdaHessian { eps, ..AdaHessian::default() });
        stays_finite(AdaHessian { eps, hessian_power: 0.5, ..AdaHessian::default() });
        stays_finite(Sophia { eps, weight_decay: 0.0, ..Sophia::default() });
        stays_finite(Sophia { eps, weight_decay: 0.0, ..Sophia::hutchinson() });
        stays_finite(SpsMax { eps, ..SpsMax::default() });
        stays_finite(MomoAdam { eps, ..MomoAdam::default() });
        stays_finite(AdaBelief { eps, ..AdaBelief::default() });
        stays_finite(AdaBelief { eps, rectify: true, ..AdaBelief::default() });
        stays_finite(Yogi { eps, initial_accumulator: 0.0, ..Yogi::default() });
        stays_finite(Adopt { eps, ..Adopt::default() });
        stays_finite(LaProp { eps, ..LaProp::default() });
        stays_finite(AdaBound { eps, ..AdaBound::default() });
        stays_finite(AdaMod { eps, ..AdaMod::default() });
        stays_finite(StableAdamW { eps, weight_decay: 0.0, ..StableAdamW::default() });
        stays_finite(AdEmaMix { eps, ..AdEmaMix::default() });
        stays_finite(Adan { eps, ..Adan::default() });
        stays_finite(DiffGrad { eps, ..DiffGrad::default() });
        stays_finite(Mars { eps, optimize_1d: true, ..Mars::default() });
        stays_finite(Amos { eps, ..Amos::default() });
        let sgld = Sgld { eps, temperature: 0.0, ..Sgld::default() };
        stays_finite(Sgld { preconditioned: true, ..sgld });
    }
    stays_finite(Rprop::default());
    stays_finite(Ftrl::default());
    stays_finite(Lars::default());
    stays_finite(Asgd { lambd: 0.0, ..Asgd::default() });
    stays_finite(Momo::default());
    stays_finite(Momo { bias_correction: true, use_fstar: true, ..Momo::default() });
}

/// A norm beyond the largest number of the type is still a norm.
#[test]
fn novograd_divides_by_any_norm() {
    let lr = 0.1;
    let first = |scale: f32| {
        let g = [3.0f32, 4.0, 0.0, 0.0].map(|g| g * scale);
        after(&NovoGrad { lr, eps: 0.0, ..NovoGrad::default() }, &[g])
    };
    for scale in [1.0, 1e-30, 8e37] {
        let w = first(scale);
        assert!((w[0] - 0.94).abs() < 1e-6 && (w[1] + 1.08).abs() < 1e-6, "{scale}: {w:?}");
    }
}
