//! Cosine waves of which each may be longer and lower than the one before.

use super::rate::{At, Schedule};
use std::f64::consts::PI;

/// Cosine waves of which each may be longer and lower than the one before, after a warm-up: timm's
/// `CosineLRScheduler`.
///
/// ```text
/// e < w:   l_w + e·(b − l_w)/w
/// i, t:    number of the wave, and the step in it;  Tᵢ = T·mulⁱ
/// i < c:   l + ½(b·decayⁱ − l)(1 + cos π(t/Tᵢ)ᵏ)
/// else:    l
/// ```
/// | field | default | |
/// |---|---|---|
/// | `t_initial` | 1000 | T ≥ 1, steps of the first wave; ours, timm has none |
/// | `lr_min` | 0 | l ≥ 0, lowest rate |
/// | `cycle_mul` | 1 | mul ≥ 1: each wave is so many times as long as the one before |
/// | `cycle_decay` | 1 | decay, in [0, 1]: each wave begins so many times as high |
/// | `cycle_limit` | 1 | c ≥ 1, number of waves |
/// | `warmup` | 0 | w |
/// | `warmup_lr_init` | 0 | l_w ≥ 0, rate at the beginning of the warm-up |
/// | `warmup_prefix` | false | whether waves are counted from the end of the warm-up; else the warm-up takes the place of the first wave's beginning |
/// | `k_decay` | 1 | k > 0; more: the rate stays high for longer |
///
/// Defaults not named otherwise are timm's. [`Noisy`](super::Noisy) adds its noise.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let waves = schedule::CosineCycles {
///     t_initial: 2,
///     cycle_decay: 0.5,
///     cycle_limit: 2,
///     ..Default::default()
/// };
/// let mut scheduler = LrScheduler::new(waves, &mut opt)?;
/// for expected in [0.5e-2, 0.5e-2, 0.25e-2, 0.0] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-15);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017; T. Zhang, W. Li,
/// "k-decay: A New Method for Learning Rate Schedule", 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct CosineCycles {
    /// Steps of the first wave.
    pub t_initial: u64,
    /// Lowest rate.
    pub lr_min: f64,
    /// Each wave is this many times as long as the one before.
    pub cycle_mul: f64,
    /// Each wave begins this many times as high as the one before.
    pub cycle_decay: f64,
    /// Number of waves.
    pub cycle_limit: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Rate at the beginning of the warm-up.
    pub warmup_lr_init: f64,
    /// Whether waves are counted from the end of the warm-up.
    pub warmup_prefix: bool,
    /// Exponent of the progress in a wave.
    pub k_decay: f64,
}
crate::config_file::named_fields!(CosineCycles);

impl Default for CosineCycles {
    fn default() -> Self {
        Self {
            t_initial: 1000,
            lr_min: 0.0,
            cycle_mul: 1.0,
            cycle_decay: 1.0,
            cycle_limit: 1,
            warmup: 0,
            warmup_lr_init: 0.0,
            warmup_prefix: false,
            k_decay: 1.0,
        }
    }
}

crate::hyperparameters!(CosineCycles, "CosineCycles", {
    "t_initial": CountFrom(1) = t_initial;
    "lr_min": NonNegative = lr_min;
    "cycle_mul": FromOne = cycle_mul;
    "cycle_decay": Unit = cycle_decay;
    "cycle_limit": CountFrom(1) = cycle_limit;
    "warmup": CountFrom(0) = warmup;
    "warmup_lr_init": NonNegative = warmup_lr_init;
    "warmup_prefix": Flag = warmup_prefix;
    "k_decay": Positive = k_decay;
});

impl CosineCycles {
    /// The step at which wave number `i` begins.
    fn begin(&self, i: f64) -> f64 {
        let first = self.t_initial as f64;
        if self.cycle_mul == 1.0 {
            return first * i;
        }
        first * (self.cycle_mul.powf(i) - 1.0) / (self.cycle_mul - 1.0)
    }

    /// Number and length of the wave of a step, and the step in it.
    fn wave(&self, since: f64) -> (f64, f64, f64) {
        let (mul, waves) = (self.cycle_mul, since / self.t_initial as f64);
        let about = if mul == 1.0 { waves } else { (waves * (mul - 1.0)).ln_1p() / mul.ln() };
        // where a wave begins exactly, the logarithm may be a hair too small or too large
        let near = [about.floor() + 1.0, about.floor(), about.floor() - 1.0];
        let number = near.into_iter().find(|&i| self.begin(i) <= since).unwrap_or(0.0).max(0.0);
        (number, self.t_initial as f64 * mul.powf(number), since - self.begin(number))
    }
}

impl Schedule for CosineCycles {
    from_table!();
    fn next(&self, at: At) -> f64 {
        let warmup = self.warmup as f64;
        if at.epoch < warmup {
            return self.warmup_lr_init + at.epoch * (at.base_lr - self.warmup_lr_init) / warmup;
        }
        let since = if self.warmup_prefix { at.epoch - warmup } else { at.epoch };
        let (number, length, since) = self.wave(since);
        if number >= self.cycle_limit as f64 {
            return self.lr_min;
        }
        let highest = at.base_lr * self.cycle_decay.powf(number);
        let progress = (since / length).powf(self.k_decay);
        self.lr_min + (highest - self.lr_min) * (1.0 + (PI * progress).cos()) / 2.0
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
}
