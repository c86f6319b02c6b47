//! Decay by a factor at certain steps: `Step`, `MultiStep`, `Exponential`.

use super::rate::{At, Schedule};

/// Multiplies the rate by `gamma` every `step_size` steps: PyTorch's `StepLR`.
///
/// ```text
/// η ← η·γ  if e mod step_size = 0
/// closed:  b·γ^⌊e / step_size⌋
/// ```
/// | field | default | |
/// |---|---|---|
/// | `step_size` | 30 | steps between two decays, ≥ 1; ours, PyTorch has none |
/// | `gamma` | 0.1 | factor, ≥ 0; PyTorch's |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let mut scheduler = LrScheduler::new(schedule::Step { step_size: 2, gamma: 0.5 }, &mut opt)?;
/// for expected in [1e-2, 0.5e-2, 0.5e-2, 0.25e-2] {
///     scheduler.step(&mut opt)?;
///     assert_eq!(opt.lr(0), expected);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Step {
    /// Steps between two decays.
    pub step_size: u64,
    /// Factor of one decay.
    pub gamma: f64,
}
crate::config_file::named_fields!(Step);

impl Default for Step {
    fn default() -> Self {
        Self { step_size: 30, gamma: 0.1 }
    }
}

crate::hyperparameters!(Step, "Step", {
    "step_size": CountFrom(1) = step_size;
    "gamma": NonNegative = gamma;
});

impl Schedule for Step {
    from_table!();
    fn start(&self, at: At) -> f64 {
        at.lr
    }
    fn next(&self, at: At) -> f64 {
        if at.epoch % self.step_size as f64 == 0.0 && at.epoch > 0.0 {
            at.lr * self.gamma
        } else {
            at.lr
        }
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(at.base_lr * self.gamma.powf((at.epoch / self.step_size as f64).floor()))
    }
}

/// Multiplies the rate by `gamma` at every milestone: PyTorch's `MultiStepLR`.
///
/// ```text
/// η ← η·γ^k  where k milestones equal e
/// closed:  b·γ^k  where k milestones are ≤ e
/// ```
/// | field | default | |
/// |---|---|---|
/// | `milestones` | empty | step numbers; one named twice counts twice |
/// | `gamma` | 0.1 | factor, ≥ 0; PyTorch's |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let decay = schedule::MultiStep { milestones: vec![1, 3], gamma: 0.5 };
/// let mut scheduler = LrScheduler::new(decay, &mut opt)?;
/// for expected in [0.5e-2, 0.5e-2, 0.25e-2] {
///     scheduler.step(&mut opt)?;
///     assert_eq!(opt.lr(0), expected);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct MultiStep {
    /// Steps at which the rate decays, in any order.
    pub milestones: Vec<u64>,
    /// Factor of one decay.
    pub gamma: f64,
}
crate::config_file::named_fields!(MultiStep);

impl Default for MultiStep {
    fn default() -> Self {
        Self { milestones: Vec::new(), gamma: 0.1 }
    }
}

crate::hyperparameters!(MultiStep, "MultiStep", {
    "gamma": NonNegative = gamma;
});

impl MultiStep {
    /// `γ` to the number of milestones of which `counts` holds.
    fn factor(&self, counts: impl Fn(f64) -> bool) -> f64 {
        let count = self.milestones.iter().filter(|&&milestone| counts(milestone as f64)).count();
        self.gamma.powf(count as f64)
    }
}

impl Schedule for MultiStep {
    fn name(&self) -> &'static str {
        "MultiStep"
    }
    fn check(&self, _: usize) -> crate::Result<()> {
        crate::hyper::Hyperparameters::validate(self)
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = super::rate::table_of(self);
        let milestones = self.milestones.iter().enumerate();
        options.extend(milestones.map(|(i, &m)| (format!("milestones.{i}"), m as f64)));
        options
    }
    fn next(&self, at: At) -> f64 {
        at.lr * self.factor(|milestone| milestone == at.epoch)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(at.base_lr * self.factor(|milestone| milestone <= at.epoch))
    }
}

/// Multiplies the rate by `gamma` at every step: PyTorch's `ExponentialLR`.
///
/// ```text
/// η ← η·γ
/// closed:  b·γ^e
/// ```
/// | field | default | |
/// |---|---|---|
/// | `gamma` | 0.99 | factor, ≥ 0; ours, PyTorch has none |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let mut scheduler = LrScheduler::new(schedule::Exponential { gamma: 0.5 }, &mut opt)?;
/// scheduler.step(&mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert_eq!(opt.lr(0), 0.25e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Exponential {
    /// Factor of every step.
    pub gamma: f64,
}
crate::config_file::named_fields!(Exponential);

impl Default for Exponential {
    fn default() -> Self {
        Self { gamma: 0.99 }
    }
}

crate::hyperparameters!(Exponential, "Exponential", {
    "gamma": NonNegative = gamma;
});

impl Schedule for Exponential {
    from_table!();
    fn start(&self, at: At) -> f64 {
        at.lr
    }
    fn next(&self, at: At) -> f64 {
        at.lr * self.gamma
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(at.base_lr * self.gamma.powf(at.epoch))
    }
}
