//! Laws of the relatives of Adam and of momentum: what they become with options switched off, scale laws, and
//! closed forms for constant gradients.

use crate::first_order::{Opt, close, few, minus, number, path, run, slot, step};
use eigenstep::prelude::*;
use proptest::prelude::*;

/// Paths of two rules that are the same but for rounding.
#[track_caller]
fn meet<A: Rule, B: Rule>(a: &A, b: &B, (w, grads): &(Vec<f64>, Vec<Vec<f64>>), tolerance: f64) {
    for (a, b) in path(a, w, grads).iter().zip(path(b, w, grads)) {
        close(a, &b, tolerance);
    }
}

/// The steps of a rule under a gradient that stays the same.
fn steps<U: Rule>(rule: &U, g: f64, count: usize) -> Vec<f64> {
    let mut points = vec![vec![0.0]];
    points.extend(path(rule, &[0.0], &vec![vec![g]; count]));
    points.windows(2).map(|pair| minus(&pair[0], &pair[1])[0]).collect()
}

fn scaled(grads: &[Vec<f64>], factor: f64) -> Vec<Vec<f64>> {
    grads.iter().map(|g| g.iter().map(|g| g * factor).collect()).collect()
}

proptest! {
    #![proptest_config(few())]

    /// Each method without what is new in it.
    #[test]
    fn methods_reduce_to_those_they_come_from(run in run(), l in 0.0f64..0.3) {
        let adamw = AdamW { lr: 0.1, weight_decay: l, ..AdamW::default() };
        let mixed = AdEmaMix { lr: 0.1, alpha: 0.0, weight_decay: l, ..AdEmaMix::default() };
        meet(&mixed, &adamw, &run, 1e-12);
        let adam = Adam { lr: 0.1, weight_decay: l, ..Adam::default() };
        meet(&QhAdam { lr: 0.1, weight_decay: l, ..QhAdam::default() }, &adam, &run, 1e-11);
        let hat = Adam { lr: 0.1, eps_hat: true, ..Adam::default() };
        let free = AdaMod { lr: 0.1, betas: (0.9, 0.999, 0.0), ..AdaMod::default() };
        meet(&free, &hat, &run, 1e-11);
        let wide = AdaBound { lr: 0.1, gamma: 0.0, final_lr: 1e9, ..AdaBound::default() };
        meet(&wide, &hat, &run, 1e-5); // 1e-15 under the root
        // bounds that are closed from the start
        let closed = AdaBound { lr: 1e-3, gamma: 1e18, final_lr: 0.1, ..AdaBound::default() };
        meet(&closed, &Qhm { lr: 0.1, momentum: 0.9, nu: 1.0, ..Qhm::default() }, &run, 1e-11);
    }

    #[test]
    fn momenta_reduce_to_sgd(run in run(), b in 0.0f64..0.99, l in 0.0f64..0.3) {
        let (w, grads) = &run;
        let sgd = Sgd { lr: 0.1, weight_decay: l, ..Sgd::default() };
        let qhm = Qhm { lr: 0.1, weight_decay: l, momentum: b, nu: 0.0, ..Qhm::default() };
        prop_assert_eq!(path(&qhm, w, grads), path(&sgd, w, grads));
        let pid = Pid { lr: 0.1, weight_decay: l, momentum: 0.0, ..Pid::default() };
        prop_assert_eq!(path(&pid, w, grads), path(&sgd, w, grads));
        let bare = Pid { lr: 0.1, weight_decay: l, integral: 0.0, derivative: 0.0, ..Pid::default() };
        prop_assert_eq!(path(&bare, w, grads), path(&sgd, w, grads));
        let heavy = Sgd { momentum: b, ..sgd };
        let one = AggMo { lr: 0.1, betas: vec![b], weight_decay: l, ..AggMo::default() };
        prop_assert_eq!(path(&one, w, grads), path(&heavy, w, grads));
        let twice = AggMo { betas: vec![b, b], ..one };
        prop_assert_eq!(path(&twice, w, grads), path(&heavy, w, grads));
    }

    #[test]
    fn tiger_is_signum_and_lion_with_one_beta(run in run(), b in 0.1f64..0.99, l in 0.0f64..0.3) {
        let (w, grads) = &run;
        let tiger = Tiger { lr: 0.1, beta: b, weight_decay: l, ..Tiger::default() };
        let signum = SignSgd { lr: 0.1, momentum: b, weight_decay: l, ..SignSgd::default() };
        prop_assert_eq!(path(&tiger, w, grads), path(&signum, w, grads));
        let lion = Lion { lr: 0.1, betas: (b, b), weight_decay: l, ..Lion::default() };
        prop_assert_eq!(path(&tiger, w, grads), path(&lion, w, grads));
    }

    /// Powers of two scale without rounding, so the laws are exact.
    #[test]
    fn adaptive_steps_do_not_depend_on_the_scale((w, grads) in run(), k in -20i32..20) {
        let large = scaled(&grads, 2f64.powi(k));
        macro_rules! check {
            ($($rule:expr),*) => {
                $(prop_assert_eq!(path(&$rule, &w, &grads), path(&$rule, &w, &large));)*
            };
        }
        check!(
            AdaBelief { eps: 0.0, ..AdaBelief::default() },
            Yogi { eps: 0.0, initial_accumulator: 0.0, ..Yogi::default() },
            Adopt { eps: 0.0, ..Adopt::default() },
            AdaMod { eps: 0.0, ..AdaMod::default() },
            StableAdamW { eps: 0.0, ..StableAdamW::default() },
            AdEmaMix { eps: 0.0, t_alpha_beta3: Some(9.0), ..AdEmaMix::default() },
            QhAdam { eps: 0.0, nus: (0.7, 0.9), ..QhAdam::default() },
            Adan { eps: 0.0, weight_decay: 0.1, ..Adan::default() },
            Tiger::default(),
            Amos { lr: 0.1, eps: 0.0, momentum: 0.5, ..Amos::default() }
        );
    }

    /// Adai adapts the inertia, not the steps: they are as large as the gradients.
    #[test]
    fn adai_is_linear_in_the_scale((w, grads) in run(), k in -10i32..10) {
        let (adai, zeros) = (Adai { lr: 0.1, ..Adai::default() }, vec![0.0; w.len()]);
        let factor = 2f64.powi(k);
        let expected = scaled(&path(&adai, &zeros, &grads), factor);
        prop_assert_eq!(path(&adai, &zeros, &scaled(&grads, factor)), expected);
    }

    #[test]
    fn steps_under_a_constant_gradient(g in number(), count in 2usize..12) {
        let sign = g.signum();
        // one learning rate along the sign
        for step in [
            steps(&QhAdam { lr: 0.1, eps: 0.0, ..QhAdam::default() }, g, count),
            steps(&Adan { lr: 0.1, eps: 0.0, ..Adan::default() }, g, count),
            steps(&StableAdamW { lr: 0.1, eps: 0.0, weight_decay: 0.0, ..StableAdamW::default() }, g, count),
        ] {
            close(&step, &vec![0.1 * sign; count], 1e-12);
        }
        close(&steps(&LaProp { lr: 0.1, ..LaProp::default() }, g, count), &vec![0.1 * sign; count], 1e-8);
        close(&steps(&Adai { lr: 0.1, ..Adai::default() }, g, count), &vec![0.1 * g; count], 1e-12);
        let pieces = |step: &dyn Fn(i32) -> f64| -> Vec<f64> { (1..).take(count).map(step).collect() };
        let adopt = steps(&Adopt { lr: 0.1, ..Adopt::default() }, g, count);
        close(&adopt, &pieces(&|t| 0.1 * sign * (1.0 - 0.9f64.powi(t - 1))), 1e-12);
        let momentum = |t: i32| 1.0 - 0.9f64.powi(t);
        let qhm = Qhm { lr: 0.1, momentum: 0.9, nu: 0.7, ..Qhm::default() };
        close(&steps(&qhm, g, count), &pieces(&|t| 0.1 * g * (0.3 + 0.7 * momentum(t))), 1e-12);
        // m and s are sums of powers
        let belief = steps(&AdaBelief { lr: 0.1, eps: 0.0, ..AdaBelief::default() }, g, count);
        let mut spread = 0.0;
        let expected = pieces(&|t| f64::from(t));
        for (t, step) in expected.into_iter().zip(belief) {
            spread = 0.999 * spread + 0.001 * 0.81f64.powf(t);
            let root = (spread / (1.0 - 0.999f64.powf(t))).sqrt();
            close(&[step], &[0.1 * sign / root], 1e-9);
        }
        // the second moment grows by the same amount until it is g²
        let yogi = Yogi { lr: 0.1, eps: 0.0, initial_accumulator: 0.0, ..Yogi::default() };
        let growth = |t: i32| 0.001 * f64::from(t) / (1.0 - 0.999f64.powi(t));
        close(&steps(&yogi, g, count), &pieces(&|t| 0.1 * sign / growth(t).sqrt()), 1e-9);
        // friction 1/2 from the second step on
        let slow = steps(&DiffGrad { lr: 0.1, ..DiffGrad::default() }, g, count);
        close(&slow[1..], &vec![0.05 * sign; count - 1], 1e-5);
        close(&slow[..1], &[0.1 * sign / (1.0 + (-g.abs()).exp())], 1e-5);
        let pid = Pid { lr: 0.1, momentum: 0.5, ..Pid::default() };
        close(&steps(&pid, g, count), &pieces(&|t| 0.1 * g * (1.0 + 10.0 * (1.0 - 0.5f64.powi(t)))), 1e-12);
    }

    /// The starting point that is not stored is the one that would be.
    #[test]
    fn madgrad_without_momentum_counts_from_the_start((w, grads) in run(), l in 0.0f64..0.1) {
        let rule = MadGrad { lr: 0.1, momentum: 0.0, weight_decay: l, ..MadGrad::default() };
        let (mut squares, mut sums) = (vec![0.0; w.len()], vec![0.0; w.len()]);
        let (mut p, rate) = (w.clone(), 0.1 + 1e-6);
        for (found, (t, g)) in path(&rule, &w, &grads).iter().zip((1..).zip(&grads)) {
            let weight = rate * f64::from(t).sqrt();
            for i in 0..w.len() {
                let g = g[i] + l * p[i];
                squares[i] += weight * g * g;
                sums[i] += weight * g;
                p[i] = w[i] - sums[i] / (f64::cbrt(squares[i]) + 1e-6);
            }
            close(found, &p, 1e-10);
        }
    }

    /// The clip is of all gradients together, and the decay a division.
    #[test]
    fn adan_clips_and_divides((w, grads) in run(), c in 0.1f64..2.0, l in 0.0f64..0.5) {
        let adan = Adan { lr: 0.1, eps: 0.0, max_grad_norm: c, weight_decay: l, ..Adan::default() };
        let clipped: Vec<Vec<f64>> = grads
            .iter()
            .map(|g| {
                let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
                g.iter().map(|x| x * (c / norm).min(1.0)).collect()
            })
            .collect();
        let free = Adan { max_grad_norm: 0.0, ..adan };
        for (a, b) in path(&adan, &w, &grads).iter().zip(path(&free, &w, &clipped)) {
            close(a, &b, 1e-9);
        }
        let zero = vec![vec![0.0; w.len()]];
        let expected: Vec<f64> = w.iter().map(|w| w / (1.0 + 0.1 * l)).collect();
        close(&path(&adan, &w, &zero)[0], &expected, 1e-14);
    }
}

/// The first learning rate above 0 sets the scale of the bounds, and a checkpoint keeps it.
#[test]
fn ada_bound_remembers_its_first_learning_rate() {
    let mut opt: Opt<AdaBound> = AdaBound { lr: 0.0, ..AdaBound::default() }.build().unwrap();
    let (mut w, base) = ([1.0], |opt: &Opt<AdaBound>| opt.group_state(0).unwrap().base_lr);
    for (lr, expected) in [(0.0, 0.0), (0.1, 0.1), (0.01, 0.1)] {
        opt.set_lr(0, lr).unwrap();
        step(&mut opt, &mut w, &[1.0]);
        assert_eq!(base(&opt), expected);
    }
    let mut again: Opt<AdaBound> = AdaBound::default().build().unwrap();
    again.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!(base(&again), 0.1);
}

/// A sudden gradient makes a step of at most the learning rate.
#[test]
fn stable_adamw_clips_its_steps() {
    let rule = StableAdamW { lr: 0.1, weight_decay: 0.0, ..StableAdamW::default() };
    let mut grads = vec![vec![1e-3; 8]; 50];
    grads.push(vec![1.0; 8]);
    let points = path(&rule, &[0.0; 8], &grads);
    let last = minus(&points[50], &points[49]);
    assert!(last.iter().all(|x| x.abs() < 0.1), "{last:?}");
    let adamw = AdamW { lr: 0.1, betas: (0.9, 0.99), weight_decay: 0.0, ..AdamW::default() };
    let points = path(&adamw, &[0.0; 8], &grads);
    assert!(minus(&points[50], &points[49]).iter().all(|x| x.abs() > 0.05));
}

/// Adai's inertia is `1 − β₀` where all squares are equal, and its product is kept.
#[test]
fn adai_keeps_the_product_of_its_inertia() {
    let (mut opt, mut w): (Opt<Adai>, _) = (Adai::default().build().unwrap(), [0.0; 3]);
    for _ in 0..4 {
        step(&mut opt, &mut w, &[1.0, -1.0, 1.0]);
    }
    close(&slot(&opt, "beta1_prod"), &[0.9f64.powi(4); 3], 1e-14);
}
