//! One rise, then one longer fall.

use super::anneal::Anneal;
use super::per_group::PerGroup;
use super::rate::{At, Schedule, table_of};
use crate::error::{Error, Result};
use crate::hyper::{Hyperparameters, Range};

/// One cycle over the whole training: up to `max_lr`, then down far below the start; momentum the
/// other way: PyTorch's `OneCycleLR`.
///
/// Use it when the number of steps is fixed.
///
/// ```text
/// initial = max_lr/div_factor,  min = initial/final_div_factor,  T = total_steps
/// two phases:    initial → max  until pct·T − 1,  → min  until T − 1
/// three phases:  initial → max  until pct·T − 1,  → initial  until 2·pct·T − 2,  → min  until T − 1
/// cos:     end + (start − end)/2·(1 + cos(π·x))      x: how far within the phase
/// linear:  (end − start)·x + start
/// momentum: max → base → max (→ max)
/// ```
/// | field | default | |
/// |---|---|---|
/// | `max_lr` | 1e-2 | for all groups or for each; ours, PyTorch has none |
/// | `total_steps` | 1000 | ≥ 1, with the first; ours, PyTorch has none. `epochs × steps_per_epoch` |
/// | `pct_start` | 0.3 | share of the rise; PyTorch's |
/// | `anneal` | `Cos` | PyTorch's `anneal_strategy` |
/// | `cycle_momentum` | true | PyTorch's |
/// | `base_momentum`, `max_momentum` | 0.85, 0.95 | PyTorch's |
/// | `div_factor`, `final_div_factor` | 25, 1e4 | PyTorch's |
/// | `three_phase` | false | PyTorch's |
///
/// Momentum is written into `betas.0` or `momentum`, whichever the optimizer has. The learning rate
/// that the optimizer was built with plays no part.
///
/// The call number `total_steps`, after the last step of the optimizer, keeps the last rate; PyTorch
/// extrapolates there, with `Linear` to a negative rate. One call more is an error in both.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let cycle = schedule::OneCycle { max_lr: 0.1.into(), total_steps: 10, ..Default::default() };
/// let mut scheduler = LrScheduler::new(cycle, &mut opt)?;
/// let mut highest = 0.0f64;
/// for _ in 1..10 {
///     scheduler.step(&mut opt)?;
///     highest = highest.max(opt.lr(0));
/// }
/// assert_eq!(highest, 0.1);
/// assert!((opt.lr(0) - 0.1 / 25.0 / 1e4).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: L. N. Smith, N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using
/// Large Learning Rates", 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct OneCycle {
    /// Highest rate.
    pub max_lr: PerGroup,
    /// Number of optimizer steps, the first one included.
    pub total_steps: u64,
    /// Share of the steps in which the rate rises.
    pub pct_start: f64,
    /// Shape of rise and fall.
    pub anneal: Anneal,
    /// Whether momentum moves, too.
    pub cycle_momentum: bool,
    /// Momentum at the highest rate.
    pub base_momentum: PerGroup,
    /// Momentum at the start and at the end.
    pub max_momentum: PerGroup,
    /// `max_lr` over the first rate.
    pub div_factor: f64,
    /// First rate over the last rate.
    pub final_div_factor: f64,
    /// Whether the fall first mirrors the rise, as in the paper.
    pub three_phase: bool,
}
crate::config_file::named_fields!(OneCycle);

impl Default for OneCycle {
    fn default() -> Self {
        Self {
            max_lr: PerGroup::All(1e-2),
            total_steps: 1000,
            pct_start: 0.3,
            anneal: Anneal::Cos,
            cycle_momentum: true,
            base_momentum: PerGroup::All(0.85),
            max_momentum: PerGroup::All(0.95),
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }
}

crate::hyperparameters!(OneCycle, "OneCycle", {
    "total_steps": CountFrom(1) = total_steps;
    "pct_start": Unit = pct_start;
    "anneal": Choice(Anneal::NAMES) = anneal;
    "cycle_momentum": Flag = cycle_momentum;
    "div_factor": Positive = div_factor;
    "final_div_factor": Positive = final_div_factor;
    "three_phase": Flag = three_phase;
});

impl OneCycle {
    /// Number of the phase, and how far within it.
    fn phase(&self, epoch: f64) -> (usize, f64) {
        let total = self.total_steps as f64;
        let rise = self.pct_start * total - 1.0;
        // 2·pct first, as PyTorch: the product rounds differently
        let mirror = 2.0 * self.pct_start * total - 2.0;
        let ends = [rise, if self.three_phase { mirror } else { rise }];
        let mut start = 0.0;
        for (phase, end) in ends.into_iter().enumerate().take(1 + usize::from(self.three_phase)) {
            if epoch <= end {
                return (phase, share(epoch - start, end - start));
            }
            start = end;
        }
        (2, share(epoch - start, total - 1.0 - start))
    }

    /// Moves through the phases: low → high → low (→ last).
    fn anneal(&self, epoch: f64, low: f64, high: f64, last: f64) -> f64 {
        let (phase, x) = self.phase(epoch);
        let (start, end) = match phase {
            0 => (low, high),
            1 => (high, low),
            _ => (if self.three_phase { low } else { high }, last),
        };
        self.anneal.between(start, end, x)
    }

    fn lists(&self) -> [(&'static str, &PerGroup, Range); 3] {
        [
            ("max_lr", &self.max_lr, Range::NonNegative),
            ("base_momentum", &self.base_momentum, Range::UnitHalfOpen),
            ("max_momentum", &self.max_momentum, Range::UnitHalfOpen),
        ]
    }
}

/// `part / whole`, at most 1; a phase without length is at its end.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 1.0 } else { (part / whole).min(1.0) }
}

impl Schedule for OneCycle {
    fn name(&self) -> &'static str {
        "OneCycle"
    }
    fn next(&self, at: At) -> f64 {
        let high = self.max_lr.get(at.group);
        let low = high / self.div_factor;
        self.anneal(at.epoch, low, high, low / self.final_div_factor)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
    fn momentum(&self, at: At) -> Option<f64> {
        let (base, max) = (self.base_momentum.get(at.group), self.max_momentum.get(at.group));
        self.cycle_momentum.then(|| self.anneal(at.epoch, max, base, max))
    }
    fn check(&self, groups: usize) -> Result<()> {
        Hyperparameters::validate(self)?;
        let mut lists = self.lists().into_iter();
        lists.try_for_each(|(field, values, range)| values.check("OneCycle", field, groups, range))
    }
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        if epoch > self.total_steps as f64 {
            let (schedule, total_steps) = ("OneCycle", self.total_steps);
            return Err(Error::ScheduleEnded { schedule, total_steps, epoch });
        }
        Ok(())
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = table_of(self);
        self.lists().into_iter().for_each(|(name, values, _)| values.list(name, &mut options));
        options
    }
}
