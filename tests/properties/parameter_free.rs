//! Laws of methods that find their learning rate, and of those that average instead of a schedule.

use crate::cases::cases;
use crate::first_order::{Opt, minus, norm, path, run, slot, step};
use eigenstep::params::FlatMut;
use eigenstep::prelude::*;
use proptest::prelude::*;

fn scaled(grads: &[Vec<f64>], factor: f64) -> Vec<Vec<f64>> {
    grads.iter().map(|g| g.iter().map(|g| g * factor).collect()).collect()
}

fn near(found: &[Vec<f64>], expected: &[Vec<f64>], share: f64) {
    for (found, expected) in found.iter().zip(expected) {
        let apart = norm(&minus(found, expected));
        assert!(apart <= share * (1.0 + norm(expected)), "{found:?}, not {expected:?}");
    }
}

/// The estimates `d` on a quadratic with these curvatures, and the distance from the start to its minimum,
/// as a root of squares and as the largest element.
fn estimates<U: Rule>(config: U, start: &[f64], curvature: &[f64]) -> (Vec<f64>, f64, f64) {
    let mut opt: Opt<U> = config.build().unwrap();
    let mut w = start.to_vec();
    let mut found = Vec::new();
    for _ in 0..200 {
        let g: Vec<f64> = w.iter().zip(curvature).map(|(w, c)| c * w).collect();
        step(&mut opt, &mut w, &g);
        let dict = opt.state_dict();
        found.push(dict.scalars["groups.0.scalars.d"].as_f64().unwrap());
    }
    let largest = start.iter().fold(0.0, |largest: f64, w| largest.max(w.abs()));
    (found, norm(start), largest)
}

proptest! {
    #![proptest_config(cases(64))]

    /// An estimate that may not grow is a learning rate.
    #[test]
    fn d_adaptation_without_growth_is_the_method((w, grads) in run(), d0 in 1e-3f64..0.1, l in 0.0f64..0.1) {
        let adapted = DAdaptAdam {
            d0, growth_rate: 1.0, weight_decay: l, decoupled_weight_decay: true, ..DAdaptAdam::default()
        };
        let adam = AdamW { lr: d0, weight_decay: l, bias_correction: false, ..AdamW::default() };
        near(&path(&adapted, &w, &grads), &path(&adam, &w, &grads), 1e-12);
        let first = norm(&grads[0]);
        if first > 0.0 {
            let adapted = DAdaptSgd { d0, growth_rate: 1.0, weight_decay: l, ..DAdaptSgd::default() };
            let sgd = Sgd { lr: d0 / first, weight_decay: l, ..Sgd::default() };
            near(&path(&adapted, &w, &grads), &path(&sgd, &w, &grads), 1e-11);
        }
    }

    /// Powers of two scale without rounding, so the laws are exact.
    #[test]
    fn d_adaptation_does_not_depend_on_the_scale_of_gradients((w, grads) in run(), k in -20i32..20) {
        let large = scaled(&grads, 2f64.powi(k));
        let adam = DAdaptAdam { d0: 1e-2, eps: 0.0, ..DAdaptAdam::default() };
        prop_assert_eq!(path(&adam, &w, &grads), path(&adam, &w, &large));
        let lion = DAdaptLion { d0: 1e-2, weight_decay: 0.1, ..DAdaptLion::default() };
        prop_assert_eq!(path(&lion, &w, &grads), path(&lion, &w, &large));
        let sgd = DAdaptSgd { d0: 1e-2, momentum: 0.9, ..DAdaptSgd::default() };
        prop_assert_eq!(path(&sgd, &w, &grads), path(&sgd, &w, &large));
    }

    /// On a convex loss the theory's estimate is a lower bound of the distance; the methods use twice as much.
    #[test]
    fn estimates_grow_and_stay_below_twice_the_distance(
        start in prop::collection::vec(-5.0f64..5.0, 1..6), k in -8i32..8,
    ) {
        prop_assume!(norm(&start) > 0.1);
        let scale = 2f64.powi(k);
        let curvature: Vec<f64> = (0..start.len()).map(|i| scale / (1.0 + i as f64)).collect();
        let (found, distance, _) = estimates(DAdaptSgd { d0: 1e-4, ..DAdaptSgd::default() }, &start, &curvature);
        prop_assert!(found.is_sorted() && found[199] <= 2.0 * distance * (1.0 + 1e-9), "{found:?}");
        prop_assert!(found[199] > 1e-2 * distance, "{found:?}");
        let adagrad = DAdaptAdagrad { d0: 1e-4, ..DAdaptAdagrad::default() };
        let (found, _, largest) = estimates(adagrad, &start, &curvature);
        prop_assert!(found.is_sorted() && found[199] <= 2.0 * largest * (1.0 + 1e-9), "{found:?}");
    }

    /// The point to use is the average of all `z`.
    #[test]
    fn schedule_free_sgd_averages_its_iterates((w, grads) in run(), weight_decay in 0.0f64..0.2) {
        let config = ScheduleFreeSgd { lr: 0.1, weight_decay, ..ScheduleFreeSgd::default() };
        let mut opt: Opt<ScheduleFreeSgd> = config.build().unwrap();
        let (mut w, mut sum) = (w.clone(), vec![0.0; w.len()]);
        for (n, g) in (1..).zip(&grads) {
            step(&mut opt, &mut w, g);
            slot(&opt, "z").iter().zip(&mut sum).for_each(|(z, sum)| *sum += z);
            let (mut x, shape) = (w.clone(), [w.len()]);
            opt.eval(&mut FlatMut::new(&mut x, &shape)).unwrap();
            let average: Vec<f64> = sum.iter().map(|sum| sum / f64::from(n)).collect();
            near(&[x.clone()], &[average], 1e-11);
            opt.train(&mut FlatMut::new(&mut x, &shape)).unwrap();
            near(&[x], &[w.clone()], 1e-13);
        }
    }

    #[test]
    fn schedule_free_sgd_is_primal_averaging((w, grads) in run(), momentum in 0.1f64..0.99) {
        let free = ScheduleFreeSgd { lr: 0.1, momentum, ..ScheduleFreeSgd::default() };
        let primal = PrimalAveraging {
            lr: 0.1,
            train_interp: momentum,
            averaging: Averaging::ScheduleFree { lr_power: 2.0 },
            ..PrimalAveraging::default()
        };
        near(&path(&free, &w, &grads), &path(&primal, &w, &grads), 1e-11);
    }

    /// With a short second moment RAdam never trusts it.
    #[test]
    fn schedule_free_radam_begins_as_sgd((w, grads) in run(), beta1 in 0.1f64..0.99, beta2 in 0.0f64..0.6) {
        let radam = ScheduleFreeRAdam {
            lr: 0.1, betas: (beta1, beta2), weight_decay: 0.1, silent_sgd_phase: false,
            ..ScheduleFreeRAdam::default()
        };
        let sgd = ScheduleFreeSgd {
            lr: 0.1, momentum: beta1, weight_decay: 0.1, ..ScheduleFreeSgd::default()
        };
        prop_assert_eq!(path(&radam, &w, &grads), path(&sgd, &w, &grads));
        let silent = ScheduleFreeRAdam { silent_sgd_phase: true, ..radam };
        prop_assert!(path(&silent, &w, &grads).iter().all(|p| *p == w));
    }
}
