//! The trait of all schedules: the rate of a group at one step.

use crate::error::Result;
use crate::hyper::Hyperparameters;

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
            $crate::schedule::rate::table_of(self)
        }
    };
}

/// The input of a schedule: which group, at which step, with which rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// Number of the parameter group.
    pub group: usize,
    /// Number of calls of [`LrScheduler::step`](super::LrScheduler::step) or
    /// [`OptionScheduler::step`](super::OptionScheduler::step) so far, this one included; 0 at construction.
    ///
    /// A fraction after `step_to` or `resume` with one.
    pub epoch: f64,
    /// Learning rate of the group, or its value of the scheduled option, before the first scheduler touched it.
    pub base_lr: f64,
    /// Current learning rate of the group, or value of the option.
    pub lr: f64,
}

/// One schedule; object safe, so that schedules can be parts of schedules.
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

    /// Whether there is a closed form for every group and step.
    fn has_closed_form(&self) -> bool {
        let at = At { group: 0, epoch: 0.0, base_lr: 1.0, lr: 1.0 };
        self.closed_form(at).is_some()
    }

    /// The first rate as a later part of a [`Sequential`](super::Sequential), where `at.epoch` is 0: the closed form if
    /// there is one.
    fn enter(&self, at: At) -> f64 {
        self.closed_form(at).unwrap_or_else(|| self.next(at))
    }

    /// What to write into `betas.0`, `momentum` or `beta1`: the first that the optimizer has.
    fn momentum(&self, at: At) -> Option<f64> {
        let _ = at;
        None
    }

    /// Checks the options for an optimizer of `groups` parameter groups.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter), or [`Error::GroupValues`](crate::Error::GroupValues) for a list of the wrong length.
    fn check(&self, groups: usize) -> Result<()> {
        let _ = groups;
        Ok(())
    }

    /// Checks whether the schedule reaches as far as `epoch`.
    ///
    /// # Errors
    /// [`Error::ScheduleEnded`](crate::Error::ScheduleEnded).
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
    fn has_closed_form(&self) -> bool {
        (**self).has_closed_form()
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

/// The last step of a factor that moves from `before` to `end`: on the closed form, if the rate is where the
/// closed form was a step ago. A rate that others have changed, too, moves in the same proportion.
///
/// Up to here rounding errors of every step have added up; a factor that ends at 0 would end a little below.
pub(super) fn land(at: At, before: f64, end: f64) -> f64 {
    let known = at.base_lr * before;
    if (at.lr - known).abs() <= 1e-9 * known.abs() {
        at.base_lr * end
    } else if before > 0.0 {
        at.lr * (end / before)
    } else {
        at.lr * end
    }
}

/// The options of a table, by name.
pub(super) fn table_of<H: Hyperparameters>(schedule: &H) -> Vec<(String, f64)> {
    let mut options = Vec::new();
    schedule.clone().visit_options(&mut |option| {
        options.push((option.name.to_owned(), option.value.get()));
    });
    options
}
