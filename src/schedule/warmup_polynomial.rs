//! A linear warm-up, then a power of the steps that are left.

use super::rate::{At, Schedule};
use super::warmup::warm;

/// Linear warm-up, then a power of the steps that are left, down to the rate `lr_end`:
/// `get_polynomial_decay_schedule_with_warmup` of Hugging Face's transformers.
///
/// ```text
/// e < w:   b·e/w
/// e ≤ T:   (b − end)·(1 − (e−w)/(T−w))^power + end
/// then:    end
/// ```
/// | field | default | |
/// |---|---|---|
/// | `warmup` | 0 | w |
/// | `total` | 1000 | T ≥ 1, warm-up included; ours, theirs has none |
/// | `lr_end` | 1e-7 | end ≥ 0, a rate and no factor; transformers |
/// | `power` | 1 | ≥ 0; transformers |
/// | `warmup_from_one` | false | (e+1)/w instead of e/w: the first step is not lost |
///
/// The end is the same rate for every group, whatever its base rate. Transformers refuses an end above the base
/// rate; here the rate then rises.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let decay = schedule::WarmupPolynomial {
///     warmup: 2,
///     total: 4,
///     power: 2.0,
///     lr_end: 2e-3,
///     ..Default::default()
/// };
/// let mut scheduler = LrScheduler::new(decay, &mut opt)?;
/// for expected in [0.5e-2, 1e-2, 0.4e-2, 2e-3, 2e-3] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-15);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct WarmupPolynomial {
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps until the rate is `lr_end`, warm-up included.
    pub total: u64,
    /// Last rate.
    pub lr_end: f64,
    /// Exponent of the decay.
    pub power: f64,
    /// Whether the warm-up starts at 1/`warmup` instead of 0.
    pub warmup_from_one: bool,
}
crate::config_file::named_fields!(WarmupPolynomial);

impl Default for WarmupPolynomial {
    fn default() -> Self {
        Self { warmup: 0, total: 1000, lr_end: 1e-7, power: 1.0, warmup_from_one: false }
    }
}

crate::hyperparameters!(WarmupPolynomial, "WarmupPolynomial", {
    "warmup": CountFrom(0) = warmup;
    "total": CountFrom(1) = total;
    "lr_end": NonNegative = lr_end;
    "power": NonNegative = power;
    "warmup_from_one": Flag = warmup_from_one;
});

impl Schedule for WarmupPolynomial {
    from_table!();
    fn next(&self, at: At) -> f64 {
        if let Some(factor) = warm(at.epoch, self.warmup, self.warmup_from_one) {
            return at.base_lr * factor;
        }
        let (warmup, total) = (self.warmup as f64, self.total as f64);
        let left = 1.0 - (at.epoch - warmup) / (total - warmup).max(1.0);
        if left <= 0.0 {
            return self.lr_end;
        }
        (at.base_lr - self.lr_end) * left.powf(self.power) + self.lr_end
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
}
