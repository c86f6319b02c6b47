//! Factors that reach their end after `total_iters` steps: `Constant`, `Linear`, `Polynomial`.

use super::rate::{At, Schedule, land};

/// Multiplies the rate by `factor` for `total_iters` steps: PyTorch's `ConstantLR`.
///
/// ```text
/// e = 0: η ← η·f      e = T: η ← η·(1/f)
/// closed:  b·f  if e < T, else b
/// ```
/// | field | default | |
/// |---|---|---|
/// | `factor` | 1/3 | in [0, 1]; PyTorch's |
/// | `total_iters` | 5 | T ≥ 1; PyTorch's |
///
/// With `factor = 0` the rate returns to its base at T; PyTorch divides by zero there.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let gentle = schedule::Constant { factor: 0.25, total_iters: 2 };
/// let mut scheduler = LrScheduler::new(gentle, &mut opt)?;
/// assert_eq!(opt.lr(0), 0.25e-2);
/// scheduler.step(&mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert_eq!(opt.lr(0), 1e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Constant {
    /// Factor until then.
    pub factor: f64,
    /// Step at which the factor is taken back.
    pub total_iters: u64,
}
crate::config_file::named_fields!(Constant);

impl Default for Constant {
    fn default() -> Self {
        Self { factor: 1.0 / 3.0, total_iters: 5 }
    }
}

crate::hyperparameters!(Constant, "Constant", {
    "factor": Unit = factor;
    "total_iters": CountFrom(1) = total_iters;
});

impl Schedule for Constant {
    from_table!();
    fn start(&self, at: At) -> f64 {
        at.lr * self.factor
    }
    fn next(&self, at: At) -> f64 {
        let total = self.total_iters as f64;
        let ends = at.epoch >= total && at.epoch - 1.0 < total;
        if ends { land(at, self.factor, 1.0) } else { at.lr }
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        let ended = at.epoch >= self.total_iters as f64;
        Some(at.base_lr * if ended { 1.0 } else { self.factor })
    }
}

/// Moves the factor from `start_factor` to `end_factor` in a straight line: PyTorch's `LinearLR`,
/// the usual warm-up.
///
/// ```text
/// e = 0: η ← η·s      1 ≤ e ≤ T: η ← η·(1 + (end−s) / (T·s + (e−1)·(end−s)))
/// closed:  b·(s + (end−s)·min(e, T)/T)
/// ```
/// | field | default | |
/// |---|---|---|
/// | `start_factor` | 1/3 | s, in (0, 1]; PyTorch's |
/// | `end_factor` | 1 | in [0, 1]; PyTorch's |
/// | `total_iters` | 5 | T ≥ 1; PyTorch's |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let warmup = schedule::Linear { start_factor: 0.5, total_iters: 2, ..Default::default() };
/// let mut scheduler = LrScheduler::new(warmup, &mut opt)?;
/// assert_eq!(opt.lr(0), 0.5e-2);
/// scheduler.step(&mut opt)?;
/// assert!((opt.lr(0) - 0.75e-2).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Linear {
    /// Factor at construction.
    pub start_factor: f64,
    /// Factor from step `total_iters` on.
    pub end_factor: f64,
    /// Number of steps from one to the other.
    pub total_iters: u64,
}
crate::config_file::named_fields!(Linear);

impl Default for Linear {
    fn default() -> Self {
        Self { start_factor: 1.0 / 3.0, end_factor: 1.0, total_iters: 5 }
    }
}

crate::hyperparameters!(Linear, "Linear", {
    "start_factor": Unit = start_factor;
    "end_factor": Unit = end_factor;
    "total_iters": CountFrom(1) = total_iters;
}, |this| {
    if this.start_factor > 0.0 {
        return Ok(());
    }
    Err(Self::invalid("start_factor", "in (0, 1]", this.start_factor.to_string()))
});

impl Linear {
    fn factor(&self, epoch: f64) -> f64 {
        let total = self.total_iters as f64;
        let rise = self.end_factor - self.start_factor;
        self.start_factor + rise * total.min(epoch) / total
    }
}

impl Schedule for Linear {
    from_table!();
    fn start(&self, at: At) -> f64 {
        at.lr * self.start_factor
    }
    fn next(&self, at: At) -> f64 {
        let total = self.total_iters as f64;
        if at.epoch - 1.0 >= total {
            return at.lr;
        }
        if at.epoch >= total {
            return land(at, self.factor(at.epoch - 1.0), self.factor(at.epoch));
        }
        let rise = self.end_factor - self.start_factor;
        at.lr * (1.0 + rise / (total * self.start_factor + (at.epoch - 1.0) * rise))
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(at.base_lr * self.factor(at.epoch))
    }
}

/// Lets the rate fall to zero like a power of the steps that remain: PyTorch's `PolynomialLR`.
///
/// ```text
/// 1 ≤ e ≤ T: η ← η·((1 − e/T) / (1 − (e−1)/T))^power
/// closed:  b·(1 − min(e, T)/T)^power
/// ```
/// | field | default | |
/// |---|---|---|
/// | `total_iters` | 5 | T ≥ 1; PyTorch's |
/// | `power` | 1 | ≥ 0; PyTorch's |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let decay = schedule::Polynomial { total_iters: 4, power: 2.0 };
/// let mut scheduler = LrScheduler::new(decay, &mut opt)?;
/// scheduler.step(&mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert!((opt.lr(0) - 0.25e-2).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Polynomial {
    /// Step at which the rate is zero.
    pub total_iters: u64,
    /// Exponent.
    pub power: f64,
}
crate::config_file::named_fields!(Polynomial);

impl Default for Polynomial {
    fn default() -> Self {
        Self { total_iters: 5, power: 1.0 }
    }
}

crate::hyperparameters!(Polynomial, "Polynomial", {
    "total_iters": CountFrom(1) = total_iters;
    "power": NonNegative = power;
});

impl Polynomial {
    fn factor(&self, epoch: f64) -> f64 {
        let total = self.total_iters as f64;
        (1.0 - total.min(epoch) / total).powf(self.power)
    }
}

impl Schedule for Polynomial {
    from_table!();
    fn start(&self, at: At) -> f64 {
        at.lr
    }
    fn next(&self, at: At) -> f64 {
        let total = self.total_iters as f64;
        if at.epoch - 1.0 >= total {
            return at.lr;
        }
        if at.epoch >= total {
            return land(at, self.factor(at.epoch - 1.0), self.factor(at.epoch));
        }
        let ratio = (1.0 - at.epoch / total) / (1.0 - (at.epoch - 1.0) / total);
        at.lr * ratio.powf(self.power)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(at.base_lr * self.factor(at.epoch))
    }
}
