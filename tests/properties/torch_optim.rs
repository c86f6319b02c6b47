//! Laws of further rules of `torch.optim`: closed forms for constant gradients, scale laws, reductions.

use crate::cases::cases;
use crate::first_order::{Opt, close, minus, number, path, run, slot, step};
use eigenstep::prelude::*;
use proptest::prelude::*;

fn scaled(grads: &[Vec<f64>], factor: f64) -> Vec<Vec<f64>> {
    grads.iter().map(|g| g.iter().map(|g| g * factor).collect()).collect()
}

proptest! {
    #![proptest_config(cases(48))]

    /// Powers of two scale without rounding, so the laws are exact.
    #[test]
    fn steps_do_not_depend_on_the_scale((w, grads) in run(), k in -20i32..20) {
        let large = scaled(&grads, 2f64.powi(k));
        let adamax = Adamax { eps: 0.0, ..Adamax::default() };
        prop_assert_eq!(path(&adamax, &w, &grads), path(&adamax, &w, &large));
        let rprop = Rprop::default();
        prop_assert_eq!(path(&rprop, &w, &grads), path(&rprop, &w, &large));
        // the second moment is in use from the first step that is divided by it
        let radam = RAdam { eps: 0.0, betas: (0.9, 0.9), ..RAdam::default() };
        let zeros = vec![vec![0.0; w.len()]; 5];
        let after = |grads: &[Vec<f64>]| path(&radam, &w, &[zeros.clone(), grads.to_vec()].concat());
        prop_assert_eq!(after(&grads), after(&large));
    }

    /// Adadelta's steps have the unit of its gradients if the unit of `ε` is that of their squares.
    #[test]
    fn adadelta_has_units((w, grads) in run(), k in -20i32..20) {
        let factor = 2f64.powi(k);
        let zero = vec![0.0; w.len()];
        let config = |eps: f64| Adadelta { eps, ..Adadelta::default() };
        let small = path(&config(1e-3), &zero, &grads);
        let large = path(&config(1e-3 * factor * factor), &zero, &scaled(&grads, factor));
        let expected: Vec<Vec<f64>> = scaled(&small, factor);
        prop_assert_eq!(large, expected);
    }

    #[test]
    fn adamax_has_a_closed_form(g in number(), beta1 in 0.0f64..0.99, n in 1usize..50) {
        let config = Adamax { lr: 0.1, betas: (beta1, 0.999), eps: 0.0, ..Adamax::default() };
        let way = path(&config, &[0.0], &vec![vec![g]; n]);
        close(way.last().unwrap(), &[-0.1 * n as f64 * g.signum()], 1e-11);
    }

    /// A constant gradient: steps of momentum first, then `r` times those of Adam without `ε`.
    #[test]
    fn radam_has_a_closed_form(g in number(), beta1 in 0.0f64..0.99, beta2 in 0.5f64..0.999, n in 1usize..40) {
        let config = RAdam { lr: 0.1, betas: (beta1, beta2), eps: 0.0, ..RAdam::default() };
        let way = path(&config, &[0.0], &vec![vec![g]; n]);
        let mut expected = 0.0;
        for t in 1..=n {
            let power = beta2.powi(t as i32);
            let longest = 2.0 / (1.0 - beta2) - 1.0;
            let length = longest - 2.0 * t as f64 * power / (1.0 - power);
            expected -= 0.1 * if length > 5.0 {
                let above = (length - 4.0) * (length - 2.0) * longest;
                (above / ((longest - 4.0) * (longest - 2.0) * length)).sqrt() * g.signum()
            } else {
                g
            };
        }
        close(way.last().unwrap(), &[expected], 1e-10);
    }

    #[test]
    fn radam_without_decay_has_one_form((w, grads) in run(), weight_decay in 0.01f64..0.5) {
        let plain = RAdam { lr: 0.1, ..RAdam::default() };
        let decoupled = RAdam { decoupled_weight_decay: true, ..plain.clone() };
        prop_assert_eq!(path(&plain, &w, &grads), path(&decoupled, &w, &grads));
        // without gradients, decoupled decay is a geometric sequence
        let decoupled = RAdam { weight_decay, ..decoupled };
        let zeros = vec![vec![0.0; w.len()]; grads.len()];
        let factor = (1.0 - 0.1 * weight_decay).powi(grads.len() as i32);
        let expected: Vec<f64> = w.iter().map(|w| w * factor).collect();
        close(path(&decoupled, &w, &zeros).last().unwrap(), &expected, 1e-12);
    }

    /// Any odd, increasing map of the gradients gives the same steps, within the bounds of their sizes.
    #[test]
    fn rprop_sees_signs((w, grads) in run()) {
        let config = Rprop { lr: 0.1, step_sizes: (0.07, 0.13), ..Rprop::default() };
        let cubes: Vec<Vec<f64>> =
            grads.iter().map(|g| g.iter().map(|g| g * g * g).collect()).collect();
        let way = path(&config, &w, &grads);
        prop_assert_eq!(&way, &path(&config, &w, &cubes));
        let mut before = &w;
        for after in &way {
            let steps = minus(after, before);
            prop_assert!(steps.iter().all(|d| *d == 0.0 || (0.0699..0.1301).contains(&d.abs())));
            before = after;
        }
    }

    /// Step sizes grow geometrically while the sign stays; where it changes the element stands still once.
    #[test]
    fn rprop_has_a_closed_form(g in number(), grow in 1.01f64..2.0, shrink in 0.1f64..0.9, n in 1i32..20) {
        let config = Rprop { lr: 0.5, etas: (shrink, grow), step_sizes: (0.0, 1e9), ..Rprop::default() };
        let mut opt: Opt<Rprop> = config.build().unwrap();
        let mut w = [0.0];
        (0..n).for_each(|_| step(&mut opt, &mut w, &[g]));
        let expected = -g.signum() * 0.5 * (grow.powi(n) - 1.0) / (grow - 1.0);
        close(&w, &[expected], 1e-11);
        let before = w;
        step(&mut opt, &mut w, &[-g]);
        prop_assert_eq!(w, before);
        let size = 0.5 * grow.powi(n - 1) * shrink;
        close(&slot(&opt, "step_size"), &[size], 1e-11);
        step(&mut opt, &mut w, &[-g]);
        close(&minus(&w, &before), &[g.signum() * size], 1e-11);
    }

    /// Without decay it is gradient descent, and the average that of the iterates.
    #[test]
    fn asgd_averages_gradient_descent((w, grads) in run(), t0 in 0u8..4) {
        let config = Asgd { lr: 0.1, lambd: 0.0, t0: f64::from(t0), ..Asgd::default() };
        let way = path(&Sgd { lr: 0.1, ..Sgd::default() }, &w, &grads);
        prop_assert_eq!(&path(&config, &w, &grads), &way);
        let mut opt: Opt<Asgd> = config.build().unwrap();
        let mut w = w.clone();
        grads.iter().for_each(|g| step(&mut opt, &mut w, g));
        // the first step after t0, and all behind it; the last one if there is none
        let first = (usize::from(t0) + 1).min(way.len() - 1);
        let kept = &way[first..];
        let mean = |k: usize| kept.iter().map(|w| w[k]).sum::<f64>() / kept.len() as f64;
        let expected: Vec<f64> = (0..w.len()).map(mean).collect();
        close(&slot(&opt, "ax"), &expected, 1e-12);
    }

    /// Gradients of zero leave the decay alone, with the rate of each step.
    #[test]
    fn asgd_decays_with_its_rate(start in number(), lambd in 0.001f64..0.5, alpha in 0.0f64..1.0, n in 1usize..20) {
        let lr = 0.3;
        let config = Asgd { lr, lambd, alpha, ..Asgd::default() };
        let way = path(&config, &[start], &vec![vec![0.0]; n]);
        let rate = |k: usize| lr / (1.0 + lambd * lr * k as f64).powf(alpha);
        let expected = (0..n).fold(start, |p, k| p * (1.0 - lambd * rate(k)));
        close(way.last().unwrap(), &[expected], 1e-12);
    }
}
