//! Half a cosine wave, once or with restarts.

use super::anneal::{Anneal, half_cosine};
use super::rate::{At, Schedule};
use std::f64::consts::PI;

/// Lets the rate fall to `eta_min` along half a cosine wave: PyTorch's `CosineAnnealingLR`.
///
/// Use it when the number of steps is known. Not when training may take longer: after `t_max` the rate
/// rises again, with period `2·t_max`. Every group goes to `eta_min`, also one whose base rate is 0.
///
/// ```text
/// (e−1−T) mod 2T = 0: η ← η + (b−η_min)·(1 − cos(π/T))/2
/// else:               η ← (1 + cos(πe/T)) / (1 + cos(π(e−1)/T))·(η−η_min) + η_min
/// closed:             η_min + (b−η_min)·(1 + cos(πe/T))/2
/// ```
/// | field | default | |
/// |---|---|---|
/// | `t_max` | 1000 | T ≥ 1; ours, PyTorch has none |
/// | `eta_min` | 0 | lowest rate, ≥ 0; PyTorch's |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let cosine = schedule::CosineAnnealing { t_max: 4, eta_min: 0.0 };
/// let mut scheduler = LrScheduler::new(cosine, &mut opt)?;
/// scheduler.step(&mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert!((opt.lr(0) - 0.5e-2).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct CosineAnnealing {
    /// Steps from the base rate to `eta_min`.
    pub t_max: u64,
    /// Lowest rate.
    pub eta_min: f64,
}
crate::config_file::named_fields!(CosineAnnealing);

impl Default for CosineAnnealing {
    fn default() -> Self {
        Self { t_max: 1000, eta_min: 0.0 }
    }
}

crate::hyperparameters!(CosineAnnealing, "CosineAnnealing", {
    "t_max": CountFrom(1) = t_max;
    "eta_min": NonNegative = eta_min;
});

impl CosineAnnealing {
    /// From 2 at the base rate to 0 at `eta_min`.
    fn wave(&self, epoch: f64) -> f64 {
        1.0 + (PI * epoch / self.t_max as f64).cos()
    }
}

impl Schedule for CosineAnnealing {
    from_table!();
    fn start(&self, at: At) -> f64 {
        at.lr
    }
    fn next(&self, At { epoch, base_lr, lr, .. }: At) -> f64 {
        let (total, before) = (self.t_max as f64, self.wave(epoch - 1.0));
        // the next step divides by the wave of this one: computed in the same way, their rounding
        // errors cancel. Long waves are 0 also next to their end.
        if (epoch - 1.0 - total) % (2.0 * total) == 0.0 || before == 0.0 {
            return lr + (base_lr - self.eta_min) * (self.wave(epoch) - before) / 2.0;
        }
        self.wave(epoch) / before * (lr - self.eta_min) + self.eta_min
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.eta_min + (at.base_lr - self.eta_min) * self.wave(at.epoch) / 2.0)
    }
}

/// Cosine annealing that starts again from the base rate, each time `t_mult` times as long:
/// PyTorch's `CosineAnnealingWarmRestarts`.
///
/// ```text
/// T_cur = steps since the last restart,  T_i = T_0·T_mult^(number of restarts)
/// η = η_min + (b−η_min)·(1 + cos(π·T_cur/T_i))/2
/// ```
/// | field | default | |
/// |---|---|---|
/// | `t_0` | 10 | steps until the first restart, ≥ 1; ours, PyTorch has none |
/// | `t_mult` | 1 | ≥ 1; PyTorch's |
/// | `eta_min` | 0 | lowest rate, ≥ 0; PyTorch's |
///
/// Fractions of an epoch work: `scheduler.step_to(epoch + i / batches, &mut opt)`.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let cosine = schedule::CosineRestarts { t_0: 2, t_mult: 2, eta_min: 0.0 };
/// let mut scheduler = LrScheduler::new(cosine, &mut opt)?;
/// for expected in [0.5e-2, 1e-2] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-15);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct CosineRestarts {
    /// Steps until the first restart.
    pub t_0: u64,
    /// Each period is this many times as long as the one before.
    pub t_mult: u64,
    /// Lowest rate.
    pub eta_min: f64,
}
crate::config_file::named_fields!(CosineRestarts);

impl Default for CosineRestarts {
    fn default() -> Self {
        Self { t_0: 10, t_mult: 1, eta_min: 0.0 }
    }
}

crate::hyperparameters!(CosineRestarts, "CosineRestarts", {
    "t_0": CountFrom(1) = t_0;
    "t_mult": CountFrom(1) = t_mult;
    "eta_min": NonNegative = eta_min;
});

impl CosineRestarts {
    /// `T_cur` and `T_i`.
    fn period(&self, epoch: f64) -> (f64, f64) {
        let (mut since, mut period) = (epoch, self.t_0 as f64);
        if self.t_mult == 1 {
            return (since % period, period);
        }
        while since >= period {
            since -= period;
            period *= self.t_mult as f64;
        }
        (since, period)
    }
}

impl Schedule for CosineRestarts {
    from_table!();
    fn next(&self, at: At) -> f64 {
        let (since, period) = self.period(at.epoch);
        self.eta_min + (at.base_lr - self.eta_min) * (1.0 + (PI * since / period).cos()) / 2.0
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
}

impl Anneal {
    /// From `start` at 0 to `end` at 1.
    pub(super) fn between(self, start: f64, end: f64, x: f64) -> f64 {
        match self {
            Anneal::Cos => end + (start - end) * half_cosine(x),
            Anneal::Linear => (end - start) * x + start,
        }
    }
}
