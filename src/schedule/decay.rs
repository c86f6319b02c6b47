//! Decays in closed form: inverse square root, Noam, REX.

use super::rate::{At, Schedule, table_of};
use super::warmup::{closed_factor, warm};
use crate::error::Result;
use crate::hyper::Hyperparameters;

/// Linear warm-up, then one over the square root of the step: no end needs to be known.
///
/// ```text
/// e < w:  b·e/w
/// else:   b/√((e + ts − w)/ts)
/// ```
/// | field | default | |
/// |---|---|---|
/// | `warmup` | 1000 | w |
/// | `timescale` | `None` | ts ≥ 1; `None` means w |
/// | `warmup_from_one` | false | (e+1)/w instead of e/w: the first step is not lost |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let decay = schedule::InverseSqrt { warmup: 1, ..Default::default() };
/// let mut scheduler = LrScheduler::new(decay, &mut opt)?;
/// for _ in 0..4 {
///     scheduler.step(&mut opt)?;
/// }
/// assert_eq!(opt.lr(0), 0.5e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct InverseSqrt {
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps over which the rate falls by 1/√2 first; `None` means as many as the warm-up.
    pub timescale: Option<u64>,
    /// Whether the warm-up starts at 1/`warmup` instead of 0.
    pub warmup_from_one: bool,
}
crate::config_file::named_fields!(InverseSqrt);

impl Default for InverseSqrt {
    fn default() -> Self {
        Self { warmup: 1000, timescale: None, warmup_from_one: false }
    }
}

crate::hyperparameters!(InverseSqrt, "InverseSqrt", {
    "warmup": CountFrom(0) = warmup;
    "warmup_from_one": Flag = warmup_from_one;
});

impl InverseSqrt {
    fn timescale(&self) -> u64 {
        self.timescale.unwrap_or(self.warmup)
    }

    fn factor(&self, epoch: f64) -> f64 {
        let timescale = self.timescale() as f64;
        warm(epoch, self.warmup, self.warmup_from_one)
            .unwrap_or_else(|| 1.0 / ((epoch + timescale - self.warmup as f64) / timescale).sqrt())
    }
}

impl Schedule for InverseSqrt {
    fn name(&self) -> &'static str {
        "InverseSqrt"
    }
    closed_factor!();
    fn check(&self, _: usize) -> Result<()> {
        Hyperparameters::validate(self)?;
        if self.timescale() == 0 {
            let expected = "an integer >= 1 (where there is no warm-up)";
            return Err(Self::invalid("timescale", expected, "0"));
        }
        Ok(())
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = table_of(self);
        options.push(("timescale".into(), self.timescale() as f64));
        options
    }
}

/// The schedule of the first transformer: warm-up, then the inverse square root, scaled by the
/// width. The base rate is a factor, usually 1.
///
/// ```text
/// s = max(1, e):  b·d_model^−½·min(s^−½, s·warmup^−1.5)
/// ```
/// | field | default | |
/// |---|---|---|
/// | `d_model` | 512 | ≥ 1; the paper's |
/// | `warmup` | 4000 | the paper's |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1.0, ..AdamW::default() }.build::<f32>()?;
/// let mut scheduler = LrScheduler::new(schedule::Noam { d_model: 64, warmup: 4 }, &mut opt)?;
/// for _ in 0..4 {
///     scheduler.step(&mut opt)?;
/// }
/// assert_eq!(opt.lr(0), 0.0625); // 64^-0.5 · 4^-0.5, the peak
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: A. Vaswani et al., "Attention Is All You Need", 2017, eq. 3.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Noam {
    /// Width of the model.
    pub d_model: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
}
crate::config_file::named_fields!(Noam);

impl Default for Noam {
    fn default() -> Self {
        Self { d_model: 512, warmup: 4000 }
    }
}

crate::hyperparameters!(Noam, "Noam", {
    "d_model": CountFrom(1) = d_model;
    "warmup": CountFrom(0) = warmup;
});

impl Noam {
    fn factor(&self, epoch: f64) -> f64 {
        let s = epoch.max(1.0);
        let width = (self.d_model as f64).powf(-0.5);
        width * s.powf(-0.5).min(s * (self.warmup as f64).powf(-1.5))
    }
}

impl Schedule for Noam {
    from_table!();
    closed_factor!();
}

/// A decay that stays high for long and falls at the end ("reflected exponential").
///
/// ```text
/// z = 1 − e/T (0 behind T):  b·(m + (1−m)·z/(½ + ½z))
/// ```
/// | field | default | |
/// |---|---|---|
/// | `total` | 1000 | T ≥ 1 |
/// | `min_ratio` | 0 | m, in [0, 1] |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let rex = schedule::Rex { total: 2, min_ratio: 0.0 };
/// let mut scheduler = LrScheduler::new(rex, &mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert!((opt.lr(0) - 1e-2 * 2.0 / 3.0).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: J. Chen, C. Wolfe, A. Kyrillidis, "REX: Revisiting Budgeted Training with an Improved
/// Schedule", 2022.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Rex {
    /// Step at which the rate is lowest.
    pub total: u64,
    /// Lowest rate over base rate.
    pub min_ratio: f64,
}
crate::config_file::named_fields!(Rex);

impl Default for Rex {
    fn default() -> Self {
        Self { total: 1000, min_ratio: 0.0 }
    }
}

crate::hyperparameters!(Rex, "Rex", {
    "total": CountFrom(1) = total;
    "min_ratio": Unit = min_ratio;
});

impl Rex {
    fn factor(&self, epoch: f64) -> f64 {
        let z = (1.0 - epoch / self.total as f64).max(0.0);
        self.min_ratio + (1.0 - self.min_ratio) * (z / (0.5 + 0.5 * z))
    }
}

impl Schedule for Rex {
    from_table!();
    closed_factor!();
}
