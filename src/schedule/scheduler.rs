//! The scheduler: counts steps, keeps base rates, writes into the optimizer.

use super::rate::{At, Schedule};
use crate::error::{Error, Result};
use crate::hyper::Range;
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::state::{Scalar, StateDict, StateReader};
use std::fmt;

/// Applies a [`Schedule`] to an optimizer, group by group.
///
/// Each group has its own base rate: its learning rate when the scheduler was built. A group added
/// later joins with its rate at that moment as its base.
///
/// # Differences from PyTorch
/// * The base rates live in the scheduler, not in the optimizer. A second scheduler built on an
///   optimizer that is already scheduled takes the *current* rates as its base; give it the original
///   ones with [`LrScheduler::with_base_lrs`], or put both schedules into one
///   [`Chained`](super::Chained).
/// * A step that fails changes nothing: neither a rate nor the step count.
/// * The state dict holds the options of the schedule to *check* them. To go on with other options,
///   use [`LrScheduler::resume`].
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let mut scheduler = LrScheduler::new(CosineAnnealing { t_max: 4, eta_min: 0.0 }, &mut opt)?;
/// for expected in [0.853553e-2, 0.5e-2, 0.146447e-2, 0.0] {
///     // opt.step(&mut model, &grads)?;
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-8);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub struct LrScheduler {
    schedule: Box<dyn Schedule>,
    epoch: f64,
    base_lrs: Vec<f64>,
    last_lrs: Vec<f64>,
}

/// How to ask a schedule for its value.
pub(super) type Form = fn(&dyn Schedule, At) -> Option<f64>;

impl LrScheduler {
    /// A scheduler at epoch 0, based on the current learning rates. Many schedules change the rates
    /// already here (warm-up, one-cycle, …).
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] or [`Error::GroupValues`] from the schedule's options; or
    /// what the optimizer says about a learning rate outside its range.
    pub fn new<T: Element, O: Optimizer<T> + ?Sized>(
        schedule: impl Schedule + 'static,
        opt: &mut O,
    ) -> Result<Self> {
        let base_lrs = (0..opt.num_groups()).map(|group| opt.lr(group)).collect();
        Self::with_base_lrs(schedule, base_lrs, opt)
    }

    /// A scheduler at epoch 0, based on the learning rates given: for an optimizer that another
    /// scheduler has already changed.
    ///
    /// # Errors
    /// As [`LrScheduler::new`]; [`Error::GroupValues`] if there is not one rate per group.
    pub fn with_base_lrs<T: Element, O: Optimizer<T> + ?Sized>(
        schedule: impl Schedule + 'static,
        base_lrs: Vec<f64>,
        opt: &mut O,
    ) -> Result<Self> {
        let mut scheduler = Self::resume(schedule, base_lrs, 0.0, opt)?;
        scheduler.advance(opt, 0.0, |schedule, at| Some(schedule.start(at)))?;
        Ok(scheduler)
    }

    /// A scheduler in the middle of a run: the next step is `epoch + 1`. Does not touch the
    /// optimizer.
    ///
    /// # Errors
    /// As [`LrScheduler::with_base_lrs`].
    pub fn resume<T: Element, O: Optimizer<T> + ?Sized>(
        schedule: impl Schedule + 'static,
        base_lrs: Vec<f64>,
        epoch: f64,
        opt: &O,
    ) -> Result<Self> {
        let groups = opt.num_groups();
        if base_lrs.len() != groups {
            let (schedule, found) = (schedule.name(), base_lrs.len());
            return Err(Error::GroupValues { schedule, field: "base_lrs", groups, found });
        }
        schedule.check(groups)?;
        check_epoch(&schedule, epoch)?;
        let last_lrs = (0..groups).map(|group| opt.lr(group)).collect();
        Ok(Self { schedule: Box::new(schedule), epoch, base_lrs, last_lrs })
    }

    /// Goes one step on. Call it after the optimizer's step.
    ///
    /// # Errors
    /// [`Error::ScheduleEnded`]; [`Error::NonFinite`] if the schedule gives NaN or an infinity;
    /// [`Error::InvalidHyperparameter`] if the optimizer refuses a value. Then nothing has changed.
    pub fn step<T: Element, O: Optimizer<T> + ?Sized>(&mut self, opt: &mut O) -> Result<()> {
        self.advance(opt, self.epoch + 1.0, |schedule, at| Some(schedule.next(at)))
    }

    /// Goes to any epoch, also back, also to a fraction of one, by the closed form: PyTorch's
    /// `step(epoch)`.
    ///
    /// # Errors
    /// As [`LrScheduler::step`]; [`Error::OutOfOrder`] if the schedule has no closed form.
    pub fn step_to<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        epoch: f64,
        opt: &mut O,
    ) -> Result<()> {
        self.advance(opt, epoch, |schedule, at| schedule.closed_form(at))
    }

    /// Number of steps so far.
    pub fn epoch(&self) -> f64 {
        self.epoch
    }

    /// The base rate of every group.
    pub fn base_lrs(&self) -> &[f64] {
        &self.base_lrs
    }

    /// The rates written last.
    pub fn last_lrs(&self) -> &[f64] {
        &self.last_lrs
    }

    /// The schedule.
    pub fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    /// Position, base rates and options. The learning rates themselves are in the optimizer's state
    /// dict: save both. Closures are not saved.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new(self.schedule.name());
        let mut put = |key: String, x| state.scalars.insert(key, Scalar::Float(x));
        put("last_epoch".into(), self.epoch);
        for (i, &lr) in self.base_lrs.iter().enumerate() {
            put(format!("base_lrs.{i}"), lr);
        }
        for (i, &lr) in self.last_lrs.iter().enumerate() {
            put(format!("last_lrs.{i}"), lr);
        }
        save_options(self.schedule.options(), &mut state);
        state
    }

    /// Goes on from a saved state. Does not touch the optimizer: load its state, too, and after
    /// building the scheduler, which may change learning rates.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the first key that does not fit, options included; the scheduler
    /// stays as it was.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let mut reader = StateReader::new(state, self.schedule.name())?;
        let epoch = reader.number("last_epoch", Range::NonNegative)?;
        let rates = |reader: &mut StateReader, name: &str| -> Result<Vec<f64>> {
            let key = |i| format!("{name}.{i}");
            (0..self.base_lrs.len()).map(|i| reader.number(&key(i), Range::Finite)).collect()
        };
        let base_lrs = rates(&mut reader, "base_lrs")?;
        let last_lrs = rates(&mut reader, "last_lrs")?;
        check_options(self.schedule.options(), &mut reader)?;
        reader.finish()?;
        (self.epoch, self.base_lrs, self.last_lrs) = (epoch, base_lrs, last_lrs);
        Ok(())
    }

    /// Computes every value first, then writes them all, or none.
    fn advance<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        opt: &mut O,
        epoch: f64,
        form: Form,
    ) -> Result<()> {
        let groups = opt.num_groups();
        if groups != self.base_lrs.len() {
            self.schedule.check(groups)?;
        }
        check_epoch(&self.schedule, epoch)?;
        let mut base_lrs = self.base_lrs.clone();
        base_lrs.extend((base_lrs.len()..groups).map(|group| opt.lr(group)));
        let (mut writes, mut last_lrs) = (Vec::new(), Vec::new());
        for (group, &base_lr) in base_lrs.iter().enumerate().take(groups) {
            let at = At { group, epoch, base_lr, lr: opt.lr(group) };
            let next = closed_form_of(form(&*self.schedule, at), "LrScheduler::step_to")?;
            let lr = finite("the scheduled learning rate", next)?;
            writes.push((group, "lr", lr));
            last_lrs.push(lr);
            if let Some(momentum) = self.schedule.momentum(at) {
                let name = momentum_option(self.schedule.name(), opt, group)?;
                writes.push((group, name, finite("the scheduled momentum", momentum)?));
            }
        }
        write_all(opt, &writes)?;
        (self.epoch, self.base_lrs, self.last_lrs) = (epoch, base_lrs, last_lrs);
        Ok(())
    }
}

impl fmt::Debug for LrScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LrScheduler")
            .field("schedule", &self.schedule.name())
            .field("options", &self.schedule.options())
            .field("epoch", &self.epoch)
            .field("base_lrs", &self.base_lrs)
            .field("last_lrs", &self.last_lrs)
            .finish()
    }
}

/// The learning rates of `steps` optimizer steps, without an optimizer: to print or to plot.
///
/// # Examples
/// ```
/// use eigenstep::schedule::{Step, curve};
///
/// let lrs = curve(&Step { step_size: 2, gamma: 0.5 }, 1.0, 5);
/// assert_eq!(lrs, [1.0, 1.0, 0.5, 0.5, 0.25]);
/// ```
pub fn curve(schedule: &dyn Schedule, base_lr: f64, steps: usize) -> Vec<f64> {
    let mut lr = base_lr;
    let mut value = |i: usize| {
        let at = At { group: 0, epoch: i as f64, base_lr, lr };
        lr = if i == 0 { schedule.start(at) } else { schedule.next(at) };
        lr
    };
    (0..steps).map(&mut value).collect()
}

/// The value of a closed form, if there is one.
pub(super) fn closed_form_of(value: Option<f64>, what: &'static str) -> Result<f64> {
    let problem = "the schedule has no closed form; it can only `step`";
    value.ok_or(Error::OutOfOrder { what, problem })
}

pub(super) fn check_epoch<S: Schedule + ?Sized>(schedule: &S, epoch: f64) -> Result<()> {
    if !Range::NonNegative.contains(epoch) {
        return Err(Error::InvalidHyperparameter {
            optimizer: schedule.name(),
            field: "epoch",
            expected: Range::NonNegative.describe(),
            found: epoch.to_string(),
        });
    }
    schedule.check_epoch(epoch)
}

pub(super) fn finite(what: &'static str, value: f64) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(Error::NonFinite { what, value }) }
}

/// The option that plays the part of momentum.
fn momentum_option<T: Element, O: Optimizer<T> + ?Sized>(
    schedule: &'static str,
    opt: &O,
    group: usize,
) -> Result<&'static str> {
    let known = ["betas.0", "momentum", "beta1"];
    known.into_iter().find(|name| opt.option(group, name).is_some()).ok_or_else(|| {
        Error::InvalidHyperparameter {
            optimizer: schedule,
            field: "cycle_momentum",
            expected: format!("false for {}, which has no momentum", opt.name()),
            found: "true".into(),
        }
    })
}

/// Writes the options of a schedule into a state dict.
pub(super) fn save_options(options: Vec<(String, f64)>, state: &mut StateDict) {
    for (name, value) in options {
        state.scalars.insert(format!("options.{name}"), Scalar::Float(value));
    }
}

/// Compares the options of a schedule with those saved.
pub(super) fn check_options(
    options: Vec<(String, f64)>,
    reader: &mut StateReader<'_>,
) -> Result<()> {
    options.iter().try_for_each(|(name, value)| reader.same(&format!("options.{name}"), *value))
}

/// Writes all options, or puts back those already written.
pub(super) fn write_all<T: Element, O: Optimizer<T> + ?Sized>(
    opt: &mut O,
    writes: &[(usize, &str, f64)],
) -> Result<()> {
    let mut undo = Vec::with_capacity(writes.len());
    for &(group, name, value) in writes {
        let old = opt.option(group, name);
        if let Err(error) = opt.set_option(group, name, value) {
            for (group, name, old) in undo.into_iter().rev() {
                // the value was there before, so the optimizer takes it back
                let _ = opt.set_option(group, name, old);
            }
            return Err(error);
        }
        undo.extend(old.map(|old| (group, name, old)));
    }
    Ok(())
}
