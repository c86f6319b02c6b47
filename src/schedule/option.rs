//! A scheduler for any option, by its name.

use super::rate::{At, Schedule};
use super::scheduler::{
    Form, check_epoch, check_groups, check_options, closed_form_of, finite, inherited,
    save_options, settled, write_all,
};
use crate::error::{Error, Result};
use crate::hyper::Range;
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::state::{Scalar, StateDict, StateReader};
use std::fmt;

/// Applies a [`Schedule`] to an option of an optimizer, group by group: weight decay, `betas.0`, `eps`, or
/// any other by the name that [`set_option`](Optimizer::set_option) knows.
///
/// *Use it when* an option other than the learning rate follows a curve: weight decay that falls with a
/// cosine, momentum that warms up, a window that shrinks. *Not when* the option is `lr`:
/// [`LrScheduler`](super::LrScheduler) also moves momentum where a schedule asks for it, and keeps rates
/// that were changed by hand.
///
/// ```text
/// b = value of the option when the scheduler was built, group by group
/// x = schedule(e, b)          closed form if there is one, else from the value of the step before
/// option ← x                  a count: the integer that is nearest
/// ```
/// A schedule that goes to a value, such as `eta_min` of a cosine, takes *every* group there, also one whose base
/// is 0: with `eta_min` 0.01, biases without weight decay end at 0.01. Schedules that multiply keep 0. After
/// `t_max` a cosine climbs back, with period `2·t_max`: end the run there, stop calling `step`, or let a
/// constant follow ([`Sequential`](super::Sequential)).
///
/// What schedules call a rate (`base_lr`, `eta_min`, `max_lr`) is the option here. Their momentum is not
/// used. A group added later joins where the others are on the curve, with the base of group 0, whose options
/// it was copied from; if it was given another value, then with that one. Groups without the option, which optimizers of several methods may have, are left alone.
///
/// Values that are outside of the option's range by rounding alone become the end of the range. Changes
/// of the option by hand are overwritten at the next step.
///
/// # Errors
/// [`Error::UnknownOption`] if no group has the option, with the names of those there are. A step whose
/// value the optimizer refuses changes nothing.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule::Linear};
///
/// let mut opt = AdamW { weight_decay: 0.1, ..AdamW::default() }.build::<f32>()?;
/// let cosine = CosineAnnealing { t_max: 100, eta_min: 0.01 };
/// let mut decay = OptionScheduler::new("weight_decay", cosine, &mut opt)?;
/// let warmup = Linear { start_factor: 0.5, end_factor: 1.0, total_iters: 100 };
/// let mut beta = OptionScheduler::new("betas.0", warmup, &mut opt)?;
/// for _ in 0..100 {
///     // opt.step(&mut model, &grads)?;
///     decay.step(&mut opt)?;
///     beta.step(&mut opt)?;
/// }
/// assert_eq!((opt.option(0, "weight_decay"), opt.option(0, "betas.0")), (Some(0.01), Some(0.9)));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences from PyTorch
/// PyTorch's schedulers write `lr` and momentum. This one computes closed forms, so that no rounding
/// errors add up, and its state does not depend on the optimizer's: load both in any order.
pub struct OptionScheduler {
    option: String,
    schedule: Box<dyn Schedule>,
    epoch: f64,
    /// `None`: the group does not have the option.
    base_values: Vec<Option<f64>>,
    last_values: Vec<Option<f64>>,
}

impl OptionScheduler {
    /// A scheduler at epoch 0, based on the current values. Many schedules change the values already
    /// here (warm-up, one-cycle, …).
    ///
    /// # Errors
    /// [`Error::UnknownOption`]; [`Error::InvalidHyperparameter`] or [`Error::GroupValues`] from the
    /// schedule's options; or what the optimizer says about a value outside its range.
    pub fn new<T: Element, O: Optimizer<T> + ?Sized>(
        option: &str,
        schedule: impl Schedule + 'static,
        opt: &mut O,
    ) -> Result<Self> {
        let mut scheduler = Self::at_epoch(option, schedule, 0.0, opt)?;
        scheduler.advance(opt, 0.0, |schedule, at| Some(schedule.start(at)))?;
        Ok(scheduler)
    }

    /// A scheduler in the middle of a run: the next step is `epoch + 1`, and the bases are the values
    /// given, one per group. Does not touch the optimizer.
    ///
    /// # Errors
    /// As [`OptionScheduler::new`]; [`Error::GroupValues`] if there is not one value per group.
    pub fn resume<T: Element, O: Optimizer<T> + ?Sized>(
        option: &str,
        schedule: impl Schedule + 'static,
        (base_values, epoch): (Vec<f64>, f64),
        opt: &mut O,
    ) -> Result<Self> {
        let (groups, found) = (opt.num_groups(), base_values.len());
        if found != groups {
            let (schedule, field) = (schedule.name(), "base_values");
            return Err(Error::GroupValues { schedule, field, groups, found });
        }
        let mut scheduler = Self::at_epoch(option, schedule, epoch, opt)?;
        for (base, given) in scheduler.base_values.iter_mut().zip(base_values) {
            *base = base.map(|_| given);
        }
        Ok(scheduler)
    }

    fn at_epoch<T: Element, O: Optimizer<T> + ?Sized>(
        option: &str,
        schedule: impl Schedule + 'static,
        epoch: f64,
        opt: &mut O,
    ) -> Result<Self> {
        let groups = opt.num_groups();
        let values: Vec<_> = (0..groups).map(|group| opt.option(group, option)).collect();
        if values.iter().all(Option::is_none) {
            return Err(unknown(option, opt));
        }
        schedule.check(groups)?;
        check_epoch(&schedule, epoch)?;
        let (option, schedule) = (option.to_owned(), Box::new(schedule));
        Ok(Self { option, schedule, epoch, base_values: values.clone(), last_values: values })
    }

    /// Goes one step on. Call it after the optimizer's step.
    ///
    /// # Errors
    /// [`Error::ScheduleEnded`]; [`Error::NonFinite`] if the schedule gives NaN or an infinity;
    /// [`Error::InvalidHyperparameter`] if the optimizer refuses a value. Then nothing has changed.
    pub fn step<T: Element, O: Optimizer<T> + ?Sized>(&mut self, opt: &mut O) -> Result<()> {
        let form: Form =
            |schedule, at| Some(schedule.closed_form(at).unwrap_or_else(|| schedule.next(at)));
        self.advance(opt, self.epoch + 1.0, form)
    }

    /// Goes to any epoch, also back, also to a fraction of one, by the closed form.
    ///
    /// # Errors
    /// As [`OptionScheduler::step`]; [`Error::OutOfOrder`] if the schedule has no closed form.
    pub fn step_to<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        epoch: f64,
        opt: &mut O,
    ) -> Result<()> {
        self.advance(opt, epoch, |schedule, at| schedule.closed_form(at))
    }

    /// Name of the option.
    pub fn option(&self) -> &str {
        &self.option
    }

    /// Number of steps so far.
    pub fn epoch(&self) -> f64 {
        self.epoch
    }

    /// The base of every group; `None` where the group does not have the option.
    pub fn base_values(&self) -> &[Option<f64>] {
        &self.base_values
    }

    /// The values of the last step, before they were rounded to counts.
    pub fn last_values(&self) -> &[Option<f64>] {
        &self.last_values
    }

    /// The schedule.
    pub fn schedule(&self) -> &dyn Schedule {
        &*self.schedule
    }

    /// Position, values and options of the schedule. Closures are not saved.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new(self.schedule.name());
        state.scalars.insert("option".into(), Scalar::Text(self.option.clone()));
        let mut put = |key: String, x| state.scalars.insert(key, Scalar::Float(x));
        put("last_epoch".into(), self.epoch);
        for (name, values) in
            [("base_values", &self.base_values), ("last_values", &self.last_values)]
        {
            for (group, value) in values.iter().enumerate() {
                value.map(|value| put(format!("{name}.{group}"), value));
            }
        }
        save_options(self.schedule.options(), &mut state);
        state
    }

    /// Goes on from a saved state, and writes its values into the optimizer: before or after the
    /// optimizer's own state is loaded.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the first key that does not fit, options of the schedule included; or
    /// what the optimizer says about a value. Then nothing has changed.
    pub fn load_state_dict<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        state: &StateDict,
        opt: &mut O,
    ) -> Result<()> {
        let mut reader = StateReader::new(state, self.schedule.name())?;
        reader.word("option", &self.option)?;
        let epoch = reader.number("last_epoch", Range::NonNegative)?;
        // groups that the state does not have join at the next step
        let saved = |name: &str, group: usize| format!("{name}.{group}");
        let has = |name, group: usize| state.scalars.contains_key(&saved(name, group));
        let has_group = |&group: &usize| has("base_values", group) || has("last_values", group);
        let most = opt.num_groups().max(self.base_values.len());
        let groups = (0..most).rev().find(has_group).map_or(0, |last| last + 1);
        let values = |reader: &mut StateReader<'_>, name: &str| -> Result<Vec<Option<f64>>> {
            let value = |group: usize| {
                let known = self.base_values.get(group).copied().flatten().is_some();
                let read = || reader.number(&saved(name, group), Range::Number);
                (known || has_group(&group)).then(read).transpose()
            };
            (0..groups).map(value).collect()
        };
        let base_values = values(&mut reader, "base_values")?;
        let last_values = values(&mut reader, "last_values")?;
        check_options(self.schedule.options(), &mut reader)?;
        reader.finish()?;
        self.write(opt, &base_values, &last_values)?;
        (self.epoch, self.base_values, self.last_values) = (epoch, base_values, last_values);
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
        let known = self.base_values.len();
        check_groups(&*self.schedule, "base_values", known, groups)?;
        check_epoch(&self.schedule, epoch)?;
        let (mut bases, mut values) = (self.base_values.clone(), self.last_values.clone());
        let added = |group| opt.option(group, &self.option);
        bases.extend((known..groups).map(|group| Some(self.inherited(added(group)?, opt))));
        values.extend((known..groups).map(added));
        for (group, (base, value)) in bases.iter().zip(&mut values).enumerate() {
            if let (Some(base_lr), Some(value)) = (*base, value.as_mut()) {
                let at = At { group, epoch, base_lr, lr: *value };
                let next = closed_form_of(form(&*self.schedule, at), "OptionScheduler::step_to")?;
                *value = finite("the scheduled value of an option", next)?;
            }
        }
        self.write(opt, &bases, &values)?;
        (self.epoch, self.base_values, self.last_values) = (epoch, bases, values);
        Ok(())
    }

    /// The base of a group that was added after the last step, with the value `own`.
    fn inherited<T: Element, O: Optimizer<T> + ?Sized>(&self, own: f64, opt: &O) -> f64 {
        let base = self.base_values.first().copied().flatten();
        let last = self.last_values.first().copied().flatten();
        let written =
            base.zip(last).map(|(base, last)| (base, settled(opt, (0, &self.option), last, base)));
        inherited(own, opt.option(0, &self.option).unwrap_or(f64::NAN), written)
    }

    /// Writes the values, or none.
    fn write<T: Element, O: Optimizer<T> + ?Sized>(
        &self,
        opt: &mut O,
        bases: &[Option<f64>],
        values: &[Option<f64>],
    ) -> Result<()> {
        let write = |(group, (base, value)): (usize, (&Option<f64>, &Option<f64>))| {
            let (base, value) = ((*base)?, (*value)?);
            let option = self.option.as_str();
            Some((group, option, settled(opt, (group, option), value, base)))
        };
        let pairs = bases.iter().zip(values).enumerate().take(opt.num_groups());
        let writes: Vec<_> = pairs.filter_map(write).collect();
        write_all(opt, &writes)
    }
}

/// What the optimizer says about an option that no group has.
fn unknown<T: Element, O: Optimizer<T> + ?Sized>(option: &str, opt: &mut O) -> Error {
    // nothing changes: there is nothing of this name
    let refused = (0..opt.num_groups()).find_map(|group| {
        let error = opt.set_option(group, option, 0.0).err()?;
        matches!(error, Error::UnknownOption { .. }).then_some(error)
    });
    refused.unwrap_or_else(|| {
        let (name, known) = (option.to_owned(), String::new());
        Error::UnknownOption { optimizer: opt.name(), name, known }
    })
}

impl fmt::Debug for OptionScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptionScheduler")
            .field("option", &self.option)
            .field("schedule", &self.schedule.name())
            .field("options", &self.schedule.options())
            .field("epoch", &self.epoch)
            .field("base_values", &self.base_values)
            .field("last_values", &self.last_values)
            .finish()
    }
}
