//! Laws of the rules whose step size comes from the loss: SPS_max, MoMo, MoMo-Adam.

use crate::first_order::{Opt, close, few, minus, norm, number, path, run, slot, step_at};
use eigenstep::Error;
use eigenstep::gradient::with_loss;
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;
use ndarray::array;
use proptest::prelude::*;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Parameters after every step, at these losses.
fn path_at<U: Rule>(config: &U, w: &[f64], grads: &[Vec<f64>], losses: &[f64]) -> Vec<Vec<f64>> {
    let (mut opt, mut w): (Opt<U>, _) = (config.clone().build().unwrap(), w.to_vec());
    let steps = grads.iter().zip(losses);
    steps
        .map(|(g, loss)| {
            step_at(&mut opt, &mut w, g, *loss);
            w.clone()
        })
        .collect()
}

/// Parameters and gradients of a run, and a loss for every step of it.
type RunWithLosses = ((Vec<f64>, Vec<Vec<f64>>), Vec<f64>);

fn run_with_losses() -> impl Strategy<Value = RunWithLosses> {
    (run(), prop::collection::vec(-0.5f64..3.0, 6))
}

proptest! {
    #![proptest_config(few())]

    /// On a quadratic: the step to where a parabola of the same height and slope has its minimum, and
    /// never away from the minimum.
    #[test]
    fn sps_takes_the_exact_polyak_step(
        start in prop::collection::vec(number(), 4), c in 0.5f64..2.0, floor in -3.0f64..3.0,
    ) {
        let curvature = [1.0, 0.5, 0.1, 7.0];
        let loss = |w: &[f64]| -> f64 {
            floor + w.iter().zip(curvature).map(|(w, a)| a * w * w / 2.0).sum::<f64>()
        };
        let config = SpsMax { lr: 1e9, c, lower_bound: floor, eps: 0.0, ..SpsMax::default() };
        let (mut opt, mut w): (Opt<SpsMax>, _) = (config.build().unwrap(), start);
        for _ in 0..20 {
            let g: Vec<f64> = w.iter().zip(curvature).map(|(w, a)| a * w).collect();
            let (before, now) = (w.clone(), loss(&w));
            step_at(&mut opt, &mut w, &g, now);
            let eta = (now - floor) / (c * dot(&g, &g));
            if now - floor > 1e-6 {
                let expected: Vec<f64> = before.iter().zip(&g).map(|(w, g)| w - eta * g).collect();
                close(&w, &expected, 1e-13);
                prop_assert!((opt.group_state(0).unwrap().step_size - eta).abs() <= 1e-12 * eta);
            }
            prop_assert!(norm(&w) <= norm(&before) * (1.0 + 1e-12));
        }
    }

    #[test]
    fn sps(
        ((w, grads), losses) in run_with_losses(), lr in 0.01f64..2.0, growth in 1.0f64..2.0,
        smooth: bool, maximize: bool,
    ) {
        let growth_rate = if smooth { growth } else { f64::INFINITY };
        let config = SpsMax {
            lr, growth_rate, init_step_size: 0.1, lower_bound: 0.1, maximize, ..SpsMax::default()
        };
        let found = path_at(&config, &w, &grads, &losses);
        let (mut p, mut bound, mut before) = (w.clone(), 0.1, w.clone());
        for ((g, loss), found) in grads.iter().zip(&losses).zip(&found) {
            let sign = if maximize { -1.0 } else { 1.0 };
            let gap = sign * loss - 0.1;
            let eta = (gap.max(0.0) / (0.5 * dot(g, g) + 1e-8)).min(lr);
            let eta = if smooth { eta.min(growth * bound) } else { eta };
            bound = if eta > 0.0 { eta } else { bound };
            p.iter_mut().zip(g).for_each(|(p, g)| *p -= sign * eta * g);
            close(found, &p, 1e-12);
            // never more than the learning rate
            prop_assert!(norm(&minus(found, &before)) <= lr * norm(g) * (1.0 + 1e-12));
            before.clone_from(found);
        }
    }

    /// Without momentum MoMo is the stochastic Polyak step.
    #[test]
    fn momo_without_momentum_is_sps(((w, grads), losses) in run_with_losses(), lr in 0.01f64..2.0) {
        let momo = Momo { lr, beta: 0.0, ..Momo::default() };
        let sps = SpsMax { lr, c: 1.0, eps: 0.0, ..SpsMax::default() };
        let (found, expected) = (path_at(&momo, &w, &grads, &losses), path_at(&sps, &w, &grads, &losses));
        close(&found.concat(), &expected.concat(), 1e-11);
    }

    #[test]
    fn momo(
        ((w, grads), losses) in run_with_losses(), lr in 0.01f64..2.0, beta in 0.0f64..0.95,
        l in 0.0f64..0.3, correct: bool, estimate: bool,
    ) {
        let config = Momo {
            lr, beta, weight_decay: l, lower_bound: -0.2, bias_correction: correct, use_fstar: estimate,
            ..Momo::default()
        };
        let (mut opt, mut found): (Opt<Momo>, _) = (config.build().unwrap(), w.clone());
        let (mut p, mut d, grown) = (w.clone(), vec![0.0; w.len()], 1.0 + lr * l);
        let (mut average, mut gamma, mut lower) = (0.0, 0.0, -0.2f64);
        for (k, (g, &loss)) in (1..).zip(grads.iter().zip(&losses)) {
            let keep = if k == 1 && !correct { 0.0 } else { beta };
            average = keep * average + (1.0 - keep) * loss;
            gamma = keep * gamma + (1.0 - keep) * dot(g, &p);
            d.iter_mut().zip(g).for_each(|(d, g)| *d = keep * *d + (1.0 - keep) * g);
            let rho = if correct { 1.0 - beta.powi(k) } else { 1.0 };
            let (inner, square) = (dot(&d, &p), dot(&d, &d));
            let model = grown * (average - gamma) + inner;
            if estimate && model < grown * rho * lower {
                lower = (model / (2.0 * grown * rho)).max(-0.2);
            }
            let tau = ((model - grown * rho * lower).max(0.0) / square).min(lr / rho);
            if estimate {
                lower = ((average + inner - gamma - 0.5 * tau * square) / rho).max(-0.2);
            }
            p.iter_mut().zip(&d).for_each(|(p, d)| *p = (*p - tau * d) / grown);
            step_at(&mut opt, &mut found, g, loss);
            close(&found, &p, 1e-9);
            let state = opt.group_state(0).unwrap();
            close(&[state.step_size, state.lower_bound, state.loss_avg], &[tau, lower, average], 1e-9);
            // never above its cap
            prop_assert!(state.step_size >= 0.0 && state.step_size <= lr / rho * (1.0 + 1e-12));
        }
    }

    /// While the loss is far above its bound, the cap decides: MoMo-Adam is AdamW without decay ...
    #[test]
    fn momo_adam_of_a_large_loss_is_adam((w, grads) in run(), lr in 0.001f64..0.5, eps in 0.0f64..0.1) {
        let losses = vec![1e9; grads.len()];
        let momo = MomoAdam { lr, eps, ..MomoAdam::default() };
        let adam = Adam { lr, eps, ..Adam::default() };
        close(&path_at(&momo, &w, &grads, &losses).concat(), &path(&adam, &w, &grads).concat(), 1e-11);
        // ... and with the decay of AdamW
        let momo = MomoAdam { divide: false, weight_decay: 0.1, ..momo };
        let adam = AdamW { lr, eps, weight_decay: 0.1, ..AdamW::default() };
        close(&path_at(&momo, &w, &grads, &losses).concat(), &path(&adam, &w, &grads).concat(), 1e-11);
    }

    #[test]
    fn momo_adam(((w, grads), losses) in run_with_losses(), lr in 0.01f64..5.0, l in 0.0f64..0.3) {
        let config = MomoAdam { lr, weight_decay: l, betas: (0.8, 0.95), ..MomoAdam::default() };
        let n = w.len();
        let (mut p, mut d, mut v, grown) = (w.clone(), vec![0.0; n], vec![0.0; n], 1.0 + lr * l);
        let (mut average, mut gamma) = (0.0, 0.0);
        let found = path_at(&config, &w, &grads, &losses);
        for (k, ((g, &loss), found)) in (1..).zip(grads.iter().zip(&losses).zip(&found)) {
            average = 0.8 * average + 0.2 * loss;
            gamma = 0.8 * gamma + 0.2 * dot(g, &p);
            let mut u = vec![0.0; n];
            for i in 0..n {
                d[i] = 0.8 * d[i] + 0.2 * g[i];
                v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
                u[i] = d[i] / (f64::sqrt(v[i] / (1.0 - 0.95f64.powi(k))) + 1e-8);
            }
            let h = grown * (average - gamma) + dot(&d, &p);
            let tau = (h.max(0.0) / dot(&d, &u)).min(lr / (1.0 - 0.8f64.powi(k)));
            p.iter_mut().zip(&u).for_each(|(p, u)| *p = (*p - tau * u) / grown);
            close(found, &p, 1e-9);
        }
    }

    /// A tensor without a gradient takes no part in the model: its inner products are not in the sums.
    #[test]
    fn momo_counts_the_tensors_that_are_there(
        a in prop::collection::vec(number(), 8), losses in prop::collection::vec(0.5f64..3.0, 4),
    ) {
        let mut opt = Momo { lr: 1e9, beta: 0.5, ..Momo::default() }.build::<f64>().unwrap();
        let mut w = (array![1.0, -1.0], array![2.0]);
        let (mut d, mut gamma, mut average) = ([0.0, 0.0, 0.0], [0.0, 0.0], 0.0);
        for (k, loss) in losses.iter().enumerate() {
            let g = [a[2 * k], a[2 * k + 1], a[(3 * k + 1) % 8]];
            let second = k != 2;
            let keep = if k == 0 { 0.0 } else { 0.5 };
            average = keep * average + (1.0 - keep) * loss;
            let p = [w.0[0], w.0[1], w.1[0]];
            let used = if second { 3 } else { 2 };
            for i in 0..used {
                d[i] = keep * d[i] + (1.0 - keep) * g[i];
            }
            gamma[0] = keep * gamma[0] + (1.0 - keep) * (g[0] * p[0] + g[1] * p[1]);
            if second {
                gamma[1] = keep * gamma[1] + (1.0 - keep) * g[2] * p[2];
            }
            let sum = gamma[0] + if second { gamma[1] } else { 0.0 };
            let h = average + dot(&d[..used], &p[..used]) - sum;
            let tau = h.max(0.0) / dot(&d[..used], &d[..used]);
            let grads = (array![g[0], g[1]], second.then(|| array![g[2]]));
            opt.step(&mut w, &with_loss(&grads, *loss)).unwrap();
            let expected: Vec<f64> =
                (0..3).map(|i| if i < used { p[i] - tau * d[i] } else { p[i] }).collect();
            close(&[w.0[0], w.0[1], w.1[0]], &expected, 1e-10);
        }
    }
}

/// Every group has a cap of its own, and the norm is that of all tensors.
#[test]
fn groups_share_the_norm() {
    let build =
        || SpsMax { lr: 1e9, c: 1.0, eps: 0.0, ..SpsMax::default() }.build::<f64>().unwrap();
    let mut opt = build().with_group(Select::name("1"), |group| group.lr = 0.01).unwrap();
    let mut w = (array![0.0], array![0.0]);
    opt.step(&mut w, &with_loss(&(array![3.0], array![4.0]), 50.0)).unwrap();
    assert_eq!(w, (array![-6.0], array![-0.04])); // 50/25 = 2, and at most 0.01
    assert_eq!(opt.group_state(0).map(|state| state.step_size), Some(2.0));
    assert_eq!(opt.group_state(1).map(|state| state.step_size), Some(0.01));
}

/// A step of gradient zero is no reason for the smoothed step size to vanish.
#[test]
fn smoothing_goes_on_after_a_zero_gradient() {
    let config = SpsMax { growth_rate: 2.0, init_step_size: 0.25, ..SpsMax::default() };
    let (mut opt, mut w): (Opt<SpsMax>, _) = (config.build().unwrap(), [1.0]);
    let mut size = |g: f64, loss: f64| {
        let before = w[0];
        step_at(&mut opt, &mut w, &[g], loss);
        before - w[0]
    };
    assert_eq!(size(1.0, 9.0), 0.5);
    assert_eq!(size(0.0, 9.0), 0.0);
    assert_eq!(size(1.0, -1.0), 0.0);
    assert_eq!(size(0.5, 9.0), 0.5); // 1.0 · 0.5
}

fn wants_a_loss<U: Rule + Default>() {
    let (mut opt, mut w): (Opt<U>, _) = (U::default().build().unwrap(), [1.0, -2.0]);
    step_at(&mut opt, &mut w, &[0.5, 0.5], 1.0);
    let (before, state) = (w, opt.state_dict());
    let grads = [0.25, 0.5];
    let grads = Flat::new(&grads, &[2]);
    let error = opt.step(&mut FlatMut::new(&mut w, &[2]), &grads).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} needs the loss in this step; see `with_loss`", U::NAME)
    );
    assert!(matches!(error, Error::MissingInput { input: "the loss", .. }));
    for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let with = with_loss(&grads, loss);
        let error = opt.step(&mut FlatMut::new(&mut w, &[2]), &with).unwrap_err();
        assert!(matches!(error, Error::NonFiniteLoss(_)), "{error}");
        assert_eq!((w, opt.state_dict()), (before, state.clone()));
    }
    let mut skipping = U::default().build().unwrap().with_non_finite(NonFinite::Skip);
    let with = with_loss(&grads, f64::NAN);
    skipping.step(&mut FlatMut::new(&mut w, &[2]), &with).unwrap();
    assert_eq!((w, skipping.skipped_steps()), (before, 1));
    let mut propagating = U::default().build().unwrap().with_non_finite(NonFinite::Propagate);
    propagating.step(&mut FlatMut::new(&mut w, &[2]), &with).unwrap();
    assert!(w.iter().all(|w| w.is_nan()), "{w:?}");
}

#[test]
fn the_loss_must_come_and_be_finite() {
    wants_a_loss::<SpsMax>();
    wants_a_loss::<Momo>();
    wants_a_loss::<MomoAdam>();
    // the policy is the same for who does not read it: the gradients of such a loss mean nothing
    let sgd = || Sgd { lr: 0.5, ..Sgd::default() }.build::<f64>().unwrap();
    let step = |mut opt: Opt<Sgd>| {
        let mut w = array![1.0];
        let outcome = opt.step(&mut w, &with_loss(&array![1.0], f64::NAN));
        (outcome.is_ok(), w[0], opt.skipped_steps())
    };
    assert_eq!(step(sgd()), (false, 1.0, 0));
    assert_eq!(step(sgd().with_non_finite(NonFinite::Skip)), (true, 1.0, 1));
    assert_eq!(step(sgd().with_non_finite(NonFinite::Propagate)), (true, 0.5, 0));
}

/// A closure brings its loss along.
#[test]
fn step_with_brings_the_loss() {
    let mut w = array![3.0f64, -4.0];
    let mut opt = SpsMax { lr: 100.0, eps: 0.0, ..SpsMax::default() }.build().unwrap();
    let loss = opt.step_with(&mut w, |w| (w.dot(w) / 2.0, w.clone())).unwrap();
    assert_eq!((loss, w), (12.5, array![0.0, 0.0]));
}

/// The lower bound is found where it is not known.
#[test]
fn momo_estimates_the_lower_bound() {
    let config = Momo { use_fstar: true, lower_bound: -100.0, ..Momo::default() };
    let (mut opt, mut w): (Opt<Momo>, _) = (config.build().unwrap(), [3.0, -2.0]);
    for _ in 0..500 {
        let (g, loss) = ([2.0 * w[0], 20.0 * w[1]], 7.0 + w[0] * w[0] + 10.0 * w[1] * w[1]);
        step_at(&mut opt, &mut w, &g, loss);
    }
    let bound = opt.group_state(0).unwrap().lower_bound;
    assert!((bound - 7.0).abs() < 0.05 && norm(&w) < 0.05, "{bound} at {w:?}");
    assert_eq!(slot(&opt, "exp_avg").len(), 2);
}
