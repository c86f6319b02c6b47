//! A linear warm-up, then cosine waves that start again.

use super::anneal::half_cosine;
use super::rate::{At, Schedule};
use super::warmup::{closed_factor, warm};

/// Linear warm-up, then half cosine waves of equal length, each from the base rate down to `min_ratio`:
/// `get_cosine_with_hard_restarts_schedule_with_warmup` of Hugging Face's transformers.
///
/// ```text
/// e < w:  b·e/w
/// else:   b·(m + (1−m)·½(1 + cos π(c·x mod 1))),   x = (e−w)/(T−w);   x ≥ 1: b·m
/// ```
/// | field | default | |
/// |---|---|---|
/// | `warmup` | 0 | w |
/// | `total` | 1000 | T ≥ 1, warm-up included; ours, theirs has none |
/// | `cycles` | 1 | c ≥ 1, number of waves; transformers |
/// | `min_ratio` | 0 | m, in [0, 1]; transformers has no other |
/// | `warmup_from_one` | false | (e+1)/w instead of e/w: the first step is not lost |
///
/// With one cycle it is [`WarmupCosine`](super::WarmupCosine). [`CosineRestarts`](super::CosineRestarts) has no
/// warm-up, no end, and waves that may become longer.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let waves =
///     schedule::WarmupCosineRestarts { warmup: 1, total: 5, cycles: 2, ..Default::default() };
/// let mut scheduler = LrScheduler::new(waves, &mut opt)?;
/// for expected in [1e-2, 0.5e-2, 1e-2, 0.5e-2, 0.0] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-15);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct WarmupCosineRestarts {
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps until the end of the last wave, warm-up included.
    pub total: u64,
    /// Number of waves.
    pub cycles: u64,
    /// Lowest rate over base rate.
    pub min_ratio: f64,
    /// Whether the warm-up starts at 1/`warmup` instead of 0.
    pub warmup_from_one: bool,
}
crate::config_file::named_fields!(WarmupCosineRestarts);

impl Default for WarmupCosineRestarts {
    fn default() -> Self {
        Self { warmup: 0, total: 1000, cycles: 1, min_ratio: 0.0, warmup_from_one: false }
    }
}

crate::hyperparameters!(WarmupCosineRestarts, "WarmupCosineRestarts", {
    "warmup": CountFrom(0) = warmup;
    "total": CountFrom(1) = total;
    "cycles": CountFrom(1) = cycles;
    "min_ratio": Unit = min_ratio;
    "warmup_from_one": Flag = warmup_from_one;
});

impl WarmupCosineRestarts {
    fn factor(&self, epoch: f64) -> f64 {
        if let Some(factor) = warm(epoch, self.warmup, self.warmup_from_one) {
            return factor;
        }
        let (warmup, total) = (self.warmup as f64, self.total as f64);
        let x = (epoch - warmup) / (total - warmup).max(1.0);
        if x >= 1.0 {
            return self.min_ratio;
        }
        self.min_ratio + (1.0 - self.min_ratio) * half_cosine((self.cycles as f64 * x) % 1.0)
    }
}

impl Schedule for WarmupCosineRestarts {
    from_table!();
    closed_factor!();
}
