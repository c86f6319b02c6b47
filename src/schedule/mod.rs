//! Floor 4: learning rates that change during training.
//!
//! A [`Schedule`] is mathematics: from the step number, the base rate and the current rate of a
//! group it computes the next rate, and remembers nothing. An [`LrScheduler`] counts the steps,
//! keeps the base rates and writes into the optimizer. Call `optimizer.step()` first, then
//! `scheduler.step()`.
//!
//! *Chainable* schedules compute the next rate from the current one, as in PyTorch: rates changed by
//! hand and other schedulers compose with them. *Closed* ones compute it from the base rate, and
//! undo such changes. The recursion of a chainable schedule agrees with its closed form up to
//! rounding.
//!
//! | schedule | in PyTorch | form |
//! |---|---|---|
//! | [`Constant`], [`Linear`], [`Polynomial`] | `ConstantLR`, `LinearLR`, `PolynomialLR` | chainable |
//! | [`Step`], [`MultiStep`], [`Exponential`] | `StepLR`, `MultiStepLR`, `ExponentialLR` | chainable |
//! | [`CosineAnnealing`] | `CosineAnnealingLR` | chainable |
//! | [`CosineRestarts`] | `CosineAnnealingWarmRestarts` | closed |
//! | [`Cyclic`], [`OneCycle`] | `CyclicLR`, `OneCycleLR` | closed, with momentum |
//! | [`Lambda`], [`Multiplicative`] | `LambdaLR`, `MultiplicativeLR` | closed, chainable |
//! | [`Sequential`], [`Chained`], [`Groupwise`] | `SequentialLR`, `ChainedScheduler`, – | of their parts |
//! | [`SwaLr`] | `SWALR` | chainable |
//! | [`ReduceOnPlateau`] with [`PlateauScheduler`] | `ReduceLROnPlateau` | from a metric |
//! | [`Wsd`], [`WarmupCosine`], [`WarmupLinear`] | – | closed |
//! | [`InverseSqrt`], [`Noam`], [`Rex`] | – | closed |

use crate::error::{Error, Result};
use crate::hyper::{Hyperparameters, OptionValue, Range};

/// The part of [`Schedule`] that a table of [`hyperparameters!`](crate::hyperparameters) answers.
macro_rules! from_table {
    () => {
        fn name(&self) -> &'static str {
            <Self as $crate::hyper::Hyperparameters>::NAME
        }
        fn check(&self, _: usize) -> $crate::Result<()> {
            $crate::hyper::Hyperparameters::validate(self)
        }
        fn options(&self) -> Vec<(String, f64)> {
            $crate::schedule::table_of(self)
        }
    };
}

mod constant;
mod cosine;
mod cyclic;
mod decay;
mod lambda;
mod layerwise;
mod one_cycle;
mod plateau;
mod scheduler;
mod sequential;
mod step;
mod swa;
mod warmup;

pub use constant::{Constant, Linear, Polynomial};
pub use cosine::{CosineAnnealing, CosineRestarts};
pub use cyclic::{Cyclic, CyclicMode};
pub use decay::{InverseSqrt, Noam, Rex};
pub use lambda::{Lambda, Multiplicative};
pub use layerwise::LayerwiseLr;
pub use one_cycle::OneCycle;
pub use plateau::{PlateauMode, PlateauScheduler, ReduceOnPlateau, ThresholdMode};
pub use scheduler::{LrScheduler, curve};
pub use sequential::{Chained, Groupwise, Sequential};
pub use step::{Exponential, MultiStep, Step};
pub use swa::SwaLr;
pub use warmup::{Cooldown, WarmupCosine, WarmupLinear, Wsd};

/// What a schedule is asked: the rate of which group, at which step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// Number of the parameter group.
    pub group: usize,
    /// Number of calls of [`LrScheduler::step`] so far, this one included; 0 at construction.
    ///
    /// Only [`LrScheduler::step_to`] makes it a fraction.
    pub epoch: f64,
    /// Learning rate of the group before the first scheduler touched it.
    pub base_lr: f64,
    /// Current learning rate of the group.
    pub lr: f64,
}

/// The mathematics of one schedule; object safe, so that schedules can be parts of schedules.
///
/// Everything but `name` and `next` has a default that is right for a closed form
/// `lr = base_lr · f(epoch)`. A chainable schedule overrides `start`, and `closed_form` if there is
/// one.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule::{At, Schedule}};
///
/// /// One over the square root of the step.
/// struct Slow;
/// impl Schedule for Slow {
///     fn name(&self) -> &'static str {
///         "Slow"
///     }
///     fn next(&self, at: At) -> f64 {
///         at.base_lr / (1.0 + at.epoch).sqrt()
///     }
/// }
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let mut scheduler = LrScheduler::new(Slow, &mut opt)?;
/// for _ in 0..3 {
///     scheduler.step(&mut opt)?;
/// }
/// assert_eq!(opt.lr(0), 0.5e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Schedule: Send + Sync {
    /// Name of the schedule, as in error messages and state dicts.
    fn name(&self) -> &'static str;

    /// The rate at `at.epoch >= 1`.
    fn next(&self, at: At) -> f64;

    /// The rate at construction, where `at.epoch` is 0.
    fn start(&self, at: At) -> f64 {
        self.next(at)
    }

    /// The rate as a function of the epoch and the base rate alone; `None` if there is no such form.
    fn closed_form(&self, at: At) -> Option<f64> {
        let _ = at;
        None
    }

    /// The first rate as a later part of a [`Sequential`], where `at.epoch` is 0: the closed form if
    /// there is one.
    fn enter(&self, at: At) -> f64 {
        self.closed_form(at).unwrap_or_else(|| self.next(at))
    }

    /// What to write into `betas.0` or `momentum`, whichever the optimizer has.
    fn momentum(&self, at: At) -> Option<f64> {
        let _ = at;
        None
    }

    /// Checks the options for an optimizer of `groups` parameter groups.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`], or [`Error::GroupValues`] for a list of the wrong length.
    fn check(&self, groups: usize) -> Result<()> {
        let _ = groups;
        Ok(())
    }

    /// Checks whether the schedule reaches as far as `epoch`.
    ///
    /// # Errors
    /// [`Error::ScheduleEnded`].
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        let _ = epoch;
        Ok(())
    }

    /// Options by name, for the state dict.
    fn options(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

impl<S: Schedule + ?Sized> Schedule for Box<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn next(&self, at: At) -> f64 {
        (**self).next(at)
    }
    fn start(&self, at: At) -> f64 {
        (**self).start(at)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        (**self).closed_form(at)
    }
    fn enter(&self, at: At) -> f64 {
        (**self).enter(at)
    }
    fn momentum(&self, at: At) -> Option<f64> {
        (**self).momentum(at)
    }
    fn check(&self, groups: usize) -> Result<()> {
        (**self).check(groups)
    }
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        (**self).check_epoch(epoch)
    }
    fn options(&self) -> Vec<(String, f64)> {
        (**self).options()
    }
}

/// One number for all parameter groups, or one for each.
///
/// # Examples
/// ```
/// use eigenstep::schedule::PerGroup;
///
/// let (all, each): (PerGroup, PerGroup) = (0.1.into(), [0.1, 0.3].into());
/// assert_eq!((all.get(1), each.get(1)), (0.1, 0.3));
/// assert!(each.get(2).is_nan());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum PerGroup {
    /// The same number for every group.
    All(f64),
    /// One number per group, in the order of the groups.
    Each(Vec<f64>),
}

impl PerGroup {
    /// The number of a group; NaN if the list is too short.
    pub fn get(&self, group: usize) -> f64 {
        match self {
            PerGroup::All(value) => *value,
            PerGroup::Each(values) => values.get(group).copied().unwrap_or(f64::NAN),
        }
    }

    /// Every number given.
    fn values(&self) -> &[f64] {
        match self {
            PerGroup::All(value) => std::slice::from_ref(value),
            PerGroup::Each(values) => values,
        }
    }

    /// Checks the length of a list, and every number against `range`.
    fn check(
        &self,
        schedule: &'static str,
        field: &'static str,
        groups: usize,
        range: Range,
    ) -> Result<()> {
        if let PerGroup::Each(values) = self {
            let found = values.len();
            if found != groups {
                return Err(Error::GroupValues { schedule, field, groups, found });
            }
        }
        match self.values().iter().find(|&&value| !range.contains(value)) {
            Some(value) => Err(Error::InvalidHyperparameter {
                optimizer: schedule,
                field,
                expected: range.describe(),
                found: value.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// The numbers as options `name`, or `name.0`, `name.1`, …
    fn list(&self, name: &str, out: &mut Vec<(String, f64)>) {
        match self {
            PerGroup::All(value) => out.push((name.to_owned(), *value)),
            PerGroup::Each(values) => {
                out.extend(values.iter().enumerate().map(|(i, &x)| (format!("{name}.{i}"), x)));
            }
        }
    }
}

impl From<f64> for PerGroup {
    fn from(value: f64) -> Self {
        PerGroup::All(value)
    }
}

impl From<Vec<f64>> for PerGroup {
    fn from(values: Vec<f64>) -> Self {
        PerGroup::Each(values)
    }
}

impl<const N: usize> From<[f64; N]> for PerGroup {
    fn from(values: [f64; N]) -> Self {
        PerGroup::Each(values.to_vec())
    }
}

/// How a rate moves between two values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine wave.
    #[default]
    Cos,
    /// A straight line.
    Linear,
}

impl Anneal {
    const NAMES: &'static [&'static str] = &["cos", "linear"];
}

impl OptionValue for Anneal {
    fn get(&self) -> f64 {
        f64::from(u8::from(*self == Anneal::Linear))
    }
    fn set(&mut self, value: f64) {
        *self = if value == 0.0 { Anneal::Cos } else { Anneal::Linear };
    }
}

/// The options of a table, by name.
fn table_of<H: Hyperparameters>(schedule: &H) -> Vec<(String, f64)> {
    let mut options = Vec::new();
    schedule.clone().visit_options(&mut |option| {
        options.push((option.name.to_owned(), option.value.get()));
    });
    options
}

/// `½ (1 + cos(π x))`: from 1 at 0 down to 0 at 1.
fn half_cosine(x: f64) -> f64 {
    (1.0 + (std::f64::consts::PI * x).cos()) / 2.0
}
