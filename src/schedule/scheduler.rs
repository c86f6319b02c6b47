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
/// later has the base rate of group 0, whose options it was copied from; if it was given another rate,
/// then that one.
///
/// State of scheduler and optimizer can be loaded in any order, and before or after the scheduler is
/// built. Where the rate of the optimizer is not the one that belongs to the scheduler's state, and the
/// next rate depends on it, the next step is an error.
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
    /// Whether rates were changed by others since the scheduler was built.
    shared: bool,
    /// From loading to the next step: the rates that this scheduler had written, or met, before.
    loaded: Option<Vec<f64>>,
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
        let schedule = Box::new(schedule);
        Ok(Self { schedule, epoch, base_lrs, last_lrs, shared: false, loaded: None })
    }

    /// Goes one step on. Call it after the optimizer's step.
    ///
    /// # Errors
    /// [`Error::ScheduleEnded`]; [`Error::NonFinite`] if the schedule gives NaN or an infinity;
    /// [`Error::InvalidHyperparameter`] if the optimizer refuses a value; [`Error::OtherRate`] in the first
    /// step after loading if the optimizer's state is not that of the same moment. Then nothing has changed.
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
        state.scalars.insert(SHARED.into(), Scalar::Bool(self.shared));
        save_options(self.schedule.options(), &mut state);
        state
    }

    /// Goes on from a saved state. Does not touch the optimizer: load its state, too, before or after.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the first key that does not fit, options included; the scheduler
    /// stays as it was.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let mut reader = StateReader::new(state, self.schedule.name())?;
        let epoch = reader.number("last_epoch", Range::NonNegative)?;
        let groups = saved_groups(state, &["base_lrs", "last_lrs"]);
        let rates = |reader: &mut StateReader, name: &str| -> Result<Vec<f64>> {
            let key = |i| format!("{name}.{i}");
            (0..groups).map(|i| reader.number(&key(i), Range::Finite)).collect()
        };
        let base_lrs = rates(&mut reader, "base_lrs")?;
        let last_lrs = rates(&mut reader, "last_lrs")?;
        // older states do not say: then others may have
        let shared = !state.scalars.contains_key(SHARED) || reader.any_number(SHARED)? != 0.0;
        check_options(self.schedule.options(), &mut reader)?;
        reader.finish()?;
        let before = std::mem::replace(&mut self.last_lrs, last_lrs);
        (self.epoch, self.base_lrs, self.shared) = (epoch, base_lrs, shared);
        self.loaded = Some(self.loaded.take().unwrap_or(before));
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
        check_groups(&*self.schedule, "base_lrs", self.base_lrs.len(), groups)?;
        check_epoch(&self.schedule, epoch)?;
        let (mut writes, mut base_lrs, mut last_lrs) = (Vec::new(), Vec::new(), Vec::new());
        for group in 0..groups {
            let base_lr = self.base_lr(group, opt);
            let at = At { group, epoch, base_lr, lr: opt.lr(group) };
            let next = self.next_lr(at, form)?;
            let next = closed_form_of(next, "LrScheduler::step_to")?;
            let lr = finite("the scheduled learning rate", next)?;
            let lr = settled(opt, (group, "lr"), lr, base_lr);
            writes.push((group, "lr", lr));
            base_lrs.push(base_lr);
            last_lrs.push(lr);
            if let Some(momentum) = self.schedule.momentum(at) {
                let name = momentum_option(self.schedule.name(), opt, group)?;
                let momentum = finite("the scheduled momentum", momentum)?;
                writes.push((group, name, settled(opt, (group, name), momentum, momentum)));
            }
        }
        let same = |(group, lr): (usize, &f64)| opt.lr(group).to_bits() == lr.to_bits();
        let shared =
            self.shared || self.loaded.is_none() && !self.last_lrs.iter().enumerate().all(same);
        write_all(opt, &writes)?;
        (self.epoch, self.base_lrs, self.last_lrs) = (epoch, base_lrs, last_lrs);
        (self.shared, self.loaded) = (shared, None);
        Ok(())
    }

    /// The base rate of a group, also of one that was added after the last step.
    fn base_lr<T: Element, O: Optimizer<T> + ?Sized>(&self, group: usize, opt: &O) -> f64 {
        let known = self.base_lrs.get(group).copied();
        known.unwrap_or_else(|| {
            let first = self.base_lrs.first().copied().zip(self.last_lrs.first().copied());
            inherited(opt.lr(group), opt.lr(0), first)
        })
    }

    /// The next rate. After loading, the current one is the saved one if the optimizer has not been
    /// loaded since the scheduler was built; any other must be the saved one if it counts.
    fn next_lr(&self, at: At, form: Form) -> Result<Option<f64>> {
        let next = form(&*self.schedule, at);
        let (Some(before), Some(&saved)) = (&self.loaded, self.last_lrs.get(at.group)) else {
            return Ok(next);
        };
        let from_saved = form(&*self.schedule, At { lr: saved, ..at });
        if at.lr == saved || next.map(f64::to_bits) == from_saved.map(f64::to_bits) {
            return Ok(next);
        }
        let untouched = before.get(at.group) == Some(&at.lr);
        match (self.shared, untouched) {
            (false, true) => Ok(from_saved),
            (true, false) => Ok(next),
            _ => {
                let (schedule, group) = (self.schedule.name(), at.group);
                Err(Error::OtherRate { schedule, group, saved, found: at.lr })
            }
        }
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

/// The key that says whether rates were changed by others, too.
const SHARED: &str = "shared";

/// The base of a group that was added after the last step: that of group 0, `first` with the value written
/// there last, whose options it was copied from; unless its own value is another one.
pub(super) fn inherited(own: f64, of_first: f64, first: Option<(f64, f64)>) -> f64 {
    let copied = first.filter(|&(_, last)| own == of_first || own == last);
    copied.map_or(own, |(base, _)| base)
}

/// The number of groups whose values a state has under `names`; at least one.
pub(super) fn saved_groups(state: &StateDict, names: &[&str]) -> usize {
    let count = |name: &&str| {
        let saved = |group: &usize| state.scalars.contains_key(&format!("{name}.{group}"));
        (0..).take_while(saved).count()
    };
    names.iter().map(count).max().unwrap_or(0).max(1)
}

/// Refuses an optimizer with fewer groups than the scheduler knows, and a schedule that does not fit the
/// groups that were added.
pub(super) fn check_groups(
    schedule: &dyn Schedule,
    field: &'static str,
    found: usize,
    groups: usize,
) -> Result<()> {
    if found > groups {
        return Err(Error::GroupValues { schedule: schedule.name(), field, groups, found });
    }
    if found < groups { schedule.check(groups) } else { Ok(()) }
}

/// A value as the option takes it: what is out of its range by rounding alone, within.
pub(super) fn settled<T: Element, O: Optimizer<T> + ?Sized>(
    opt: &O,
    (group, option): (usize, &str),
    value: f64,
    base: f64,
) -> f64 {
    opt.option_range(group, option).map_or(value, |range| range.settled(value, base))
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
