//! A rate that goes up and down between two bounds.

use super::per_group::PerGroup;
use super::rate::{At, Schedule, table_of};
use crate::error::Result;
use crate::hyper::{Hyperparameters, Range};

/// How the height of the cycles changes.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum CyclicMode {
    /// It does not.
    #[default]
    Triangular,
    /// Each cycle is half as high as the one before.
    Triangular2,
    /// `gamma^e` at step e.
    ExpRange {
        /// Factor per step.
        gamma: f64,
    },
    /// Any function of the cycle's number, which starts at 1.
    #[cfg_attr(feature = "serde", serde(skip))]
    PerCycle(fn(f64) -> f64),
    /// Any function of the step number.
    #[cfg_attr(feature = "serde", serde(skip))]
    PerStep(fn(f64) -> f64),
}

impl CyclicMode {
    fn scale(self, cycle: f64, epoch: f64) -> f64 {
        match self {
            CyclicMode::Triangular => 1.0,
            CyclicMode::Triangular2 => 1.0 / 2f64.powf(cycle - 1.0),
            CyclicMode::ExpRange { gamma } => gamma.powf(epoch),
            CyclicMode::PerCycle(scale) => scale(cycle),
            CyclicMode::PerStep(scale) => scale(epoch),
        }
    }

    /// Number of the variant, and `gamma`.
    fn code(self) -> (f64, f64) {
        match self {
            CyclicMode::Triangular => (0.0, 1.0),
            CyclicMode::Triangular2 => (1.0, 1.0),
            CyclicMode::ExpRange { gamma } => (2.0, gamma),
            CyclicMode::PerCycle(_) => (3.0, 1.0),
            CyclicMode::PerStep(_) => (4.0, 1.0),
        }
    }
}

/// Moves the rate in triangles between `base_lr` and `max_lr`, and momentum the other way: PyTorch's
/// `CyclicLR`.
///
/// ```text
/// S = up + down,  c = ⌊1 + e/S⌋,  x = 1 + e/S − c,  r = up/S
/// k = x/r  if x ≤ r, else (x−1)/(r−1)
/// η        = base_lr + (max_lr − base_lr)·k·scale
/// momentum = max_momentum − (max_momentum − base_momentum)·k·scale
/// ```
/// | field | default | |
/// |---|---|---|
/// | `base_lr`, `max_lr` | 1e-3, 1e-2 | bounds, for all groups or for each; ours, PyTorch has none |
/// | `step_size_up` | 2000 | ≥ 1; PyTorch's |
/// | `step_size_down` | `None` | as `step_size_up`; PyTorch's |
/// | `mode` | `Triangular` | PyTorch's; its `gamma` is part of `ExpRange` |
/// | `cycle_momentum` | true | PyTorch's |
/// | `base_momentum`, `max_momentum` | 0.8, 0.9 | PyTorch's |
///
/// Momentum is written into `betas.0` or `momentum`, whichever the optimizer has. The learning rate
/// that the optimizer was built with is not used. Functions of the mode are not saved.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let cycle = schedule::Cyclic { step_size_up: 2, ..Default::default() };
/// let mut scheduler = LrScheduler::new(cycle, &mut opt)?;
/// assert_eq!((opt.lr(0), opt.option(0, "betas.0")), (1e-3, Some(0.9)));
/// scheduler.step(&mut opt)?;
/// assert!((opt.lr(0) - 5.5e-3).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Cyclic {
    /// Lower bound of the rate.
    pub base_lr: PerGroup,
    /// Upper bound of the rate.
    pub max_lr: PerGroup,
    /// Steps from the lower to the upper bound.
    pub step_size_up: u64,
    /// Steps back; `None` means as many as up.
    pub step_size_down: Option<u64>,
    /// How the height of the cycles changes.
    pub mode: CyclicMode,
    /// Whether momentum moves, too.
    pub cycle_momentum: bool,
    /// Momentum at the upper bound of the rate.
    pub base_momentum: PerGroup,
    /// Momentum at the lower bound of the rate.
    pub max_momentum: PerGroup,
}
crate::config_file::named_fields!(Cyclic);

impl Default for Cyclic {
    fn default() -> Self {
        Self {
            base_lr: PerGroup::All(1e-3),
            max_lr: PerGroup::All(1e-2),
            step_size_up: 2000,
            step_size_down: None,
            mode: CyclicMode::Triangular,
            cycle_momentum: true,
            base_momentum: PerGroup::All(0.8),
            max_momentum: PerGroup::All(0.9),
        }
    }
}

crate::hyperparameters!(Cyclic, "Cyclic", {
    "step_size_up": CountFrom(1) = step_size_up;
    "cycle_momentum": Flag = cycle_momentum;
});

impl Cyclic {
    fn down(&self) -> f64 {
        self.step_size_down.unwrap_or(self.step_size_up) as f64
    }

    /// How far from `base` towards `max`, times the height of this cycle.
    fn height(&self, epoch: f64) -> f64 {
        let up = self.step_size_up as f64;
        let total = up + self.down();
        let cycle = (1.0 + epoch / total).floor();
        let x = 1.0 + epoch / total - cycle;
        let ratio = up / total;
        let k = if x <= ratio { x / ratio } else { (x - 1.0) / (ratio - 1.0) };
        k * self.mode.scale(cycle, epoch)
    }

    fn lists(&self) -> [(&'static str, &PerGroup, Range); 4] {
        [
            ("base_lr", &self.base_lr, Range::NonNegative),
            ("max_lr", &self.max_lr, Range::NonNegative),
            ("base_momentum", &self.base_momentum, Range::UnitHalfOpen),
            ("max_momentum", &self.max_momentum, Range::UnitHalfOpen),
        ]
    }
}

impl Schedule for Cyclic {
    fn name(&self) -> &'static str {
        "Cyclic"
    }
    fn next(&self, at: At) -> f64 {
        let (base, max) = (self.base_lr.get(at.group), self.max_lr.get(at.group));
        base + (max - base) * self.height(at.epoch)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
    fn momentum(&self, at: At) -> Option<f64> {
        let (base, max) = (self.base_momentum.get(at.group), self.max_momentum.get(at.group));
        self.cycle_momentum.then(|| max - (max - base) * self.height(at.epoch))
    }
    fn check(&self, groups: usize) -> Result<()> {
        Hyperparameters::validate(self)?;
        let gamma = self.mode.code().1;
        if !Range::NonNegative.contains(gamma) {
            let expected = Range::NonNegative.describe();
            return Err(Self::invalid("mode.gamma", expected, gamma.to_string()));
        }
        let mut lists = self.lists().into_iter();
        lists.try_for_each(|(field, values, range)| values.check("Cyclic", field, groups, range))
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = table_of(self);
        let (mode, gamma) = self.mode.code();
        options.push(("step_size_down".into(), self.down()));
        options.push(("mode".into(), mode));
        options.push(("mode.gamma".into(), gamma));
        self.lists().into_iter().for_each(|(name, values, _)| values.list(name, &mut options));
        options
    }
}
