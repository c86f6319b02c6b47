//! Laws of the rule with noise: SGLD.

use crate::first_order::{Opt, close, few, path, run, step};
use eigenstep::prelude::*;
use ndarray::{Array1, array};
use proptest::prelude::*;

/// Mean, variance and fourth moment over the square of the variance.
fn moments(x: &Array1<f64>) -> (f64, f64, f64) {
    let n = x.len() as f64;
    let mean = x.sum() / n;
    let central = |k: i32| x.iter().map(|x| (x - mean).powi(k)).sum::<f64>() / n;
    (mean, central(2), central(4) / central(2).powi(2))
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn at_temperature_zero_it_is_gradient_descent((w, grads) in run(), l in 0.0f64..0.3, maximize: bool) {
        let sgld = Sgld { lr: 0.1, temperature: 0.0, weight_decay: l, maximize, ..Sgld::default() };
        let sgd = Sgd { lr: 0.1, weight_decay: l, maximize, ..Sgd::default() };
        prop_assert_eq!(path(&sgld, &w, &grads), path(&sgd, &w, &grads));
        // preconditioned, RMSprop
        let sgld = Sgld { preconditioned: true, alpha: 0.9, ..sgld };
        let rms = RmsProp {
            lr: 0.1, alpha: 0.9, eps: 1e-5, weight_decay: l, maximize, ..RmsProp::default()
        };
        close(&path(&sgld, &w, &grads).concat(), &path(&rms, &w, &grads).concat(), 1e-11);
    }

    /// What a step adds to descent is normal, of variance `2·γ·T·G`.
    #[test]
    fn noise_has_its_moments(
        lr in 1e-4f64..0.5, temperature in 0.1f64..4.0, preconditioned: bool, seed in 0u64..1000, g in 0.1f64..3.0,
    ) {
        let n = 40_000;
        let config = Sgld { lr, temperature, preconditioned, eps: 0.0, seed, ..Sgld::default() };
        let (mut opt, mut w): (Opt<Sgld>, _) = (config.build().unwrap(), Array1::zeros(n));
        opt.step(&mut w, &Array1::from_elem(n, g)).unwrap();
        let scale = if preconditioned { 1.0 / (0.01 * g * g).sqrt() } else { 1.0 };
        let noise = (w + lr * scale * g) / (2.0 * lr * temperature * scale).sqrt();
        let (mean, variance, kurtosis) = moments(&noise);
        // five standard errors of 40 000 numbers
        prop_assert!(mean.abs() < 0.025, "mean {}", mean);
        prop_assert!((variance - 1.0).abs() < 0.036, "variance {}", variance);
        prop_assert!((kurtosis - 3.0).abs() < 0.13, "kurtosis {}", kurtosis);
    }
}

/// Chains on `f = (w − μ)²/(2σ²)` end with mean μ and variance `T·σ²/(1 − γ/(2σ²))`: that of the posterior, and
/// a little more for the length of the steps.
#[test]
fn a_normal_posterior_has_its_variance() {
    for (sigma2, temperature, lr) in [(1.0, 1.0, 0.1), (0.25, 1.0, 0.02), (4.0, 0.5, 0.4)] {
        let n = 20_000;
        let mut w = Array1::<f64>::from_elem(n, 1.0);
        let mut opt = Sgld { lr, temperature, ..Sgld::default() }.build::<f64>().unwrap();
        for _ in 0..120 {
            let grad = w.mapv(|w| (w - 3.0) / sigma2);
            opt.step(&mut w, &grad).unwrap();
        }
        let (mean, variance, kurtosis) = moments(&w);
        let expected = temperature * sigma2 / (1.0 - lr / (2.0 * sigma2));
        assert!((mean - 3.0).abs() < 6.0 * (expected / n as f64).sqrt(), "mean {mean}");
        assert!((variance / expected - 1.0).abs() < 0.06, "variance {variance}, not {expected}");
        assert!((kurtosis - 3.0).abs() < 0.2, "kurtosis {kurtosis}");
    }
}

/// A prior is a decay: with no data but it, samples have its variance.
#[test]
fn weight_decay_is_a_normal_prior() {
    let (n, lr, precision) = (20_000, 0.05, 2.0);
    let mut w = Array1::<f64>::zeros(n);
    let mut opt = Sgld { lr, weight_decay: precision, ..Sgld::default() }.build::<f64>().unwrap();
    let nothing = Array1::zeros(n);
    (0..150).for_each(|_| opt.step(&mut w, &nothing).unwrap());
    let expected = 1.0 / precision / (1.0 - lr * precision / 2.0);
    assert!((moments(&w).1 / expected - 1.0).abs() < 0.06);
}

#[test]
fn noise_belongs_to_seed_name_and_step() {
    let after = |seed: u64, steps: usize| {
        let mut opt = Sgld { seed, ..Sgld::default() }.build::<f64>().unwrap();
        let (mut w, grads) =
            ((array![0.0, 0.0], array![0.0, 0.0]), (array![0.0, 0.0], array![0.0, 0.0]));
        (0..steps).for_each(|_| opt.step(&mut w, &grads).unwrap());
        w
    };
    let first = after(1, 1);
    assert_eq!(first, after(1, 1));
    assert_ne!(first, after(2, 1));
    assert_ne!(first, after(1 << 40, 1));
    assert_ne!(first.0, first.1);
    let both = after(1, 2);
    assert_ne!(&both.0 - &first.0, first.0);
}

/// Nothing moves at a rate of zero, however small the arithmetic makes it.
#[test]
fn no_rate_no_noise() {
    for lr in [0.0, 1e-60] {
        let mut w = array![1.0f32, -2.0];
        let mut opt = Sgld { lr, ..Sgld::default() }.build::<f32>().unwrap();
        opt.step(&mut w, &array![1.0, 1.0]).unwrap();
        assert_eq!(w, array![1.0, -2.0]);
    }
    let (mut opt, mut w): (Opt<Sgld>, _) =
        (Sgld { lr: 0.0, ..Sgld::default() }.build().unwrap(), [1.0]);
    step(&mut opt, &mut w, &[5.0]);
    assert_eq!(w, [1.0]);
}
