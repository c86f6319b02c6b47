//! Schedules made of schedules: one after the other, several at once, one per group.

use super::rate::{At, Schedule};
use crate::error::{Error, Result};
use std::fmt;

/// Checks every part; there has to be one.
fn check_parts(name: &'static str, parts: &[Box<dyn Schedule>], groups: usize) -> Result<()> {
    if parts.is_empty() {
        return Err(Error::InvalidHyperparameter {
            optimizer: name,
            field: "schedules",
            expected: "at least one schedule".into(),
            found: "none".into(),
        });
    }
    parts.iter().try_for_each(|part| part.check(groups))
}

/// The parts' names and options; the name of part `i` is the key `i.Name`.
fn options_of(parts: &[Box<dyn Schedule>]) -> Vec<(String, f64)> {
    let mut options = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let prefix = format!("{i}.{}", part.name());
        options.push((prefix.clone(), i as f64));
        let inner = part.options().into_iter();
        options.extend(inner.map(|(name, value)| (format!("{prefix}.{name}"), value)));
    }
    options
}

macro_rules! debug_parts {
    ($type:ident) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map().entries(Schedule::options(self)).finish()
            }
        }
    };
}

/// One schedule after the other: PyTorch's `SequentialLR`.
///
/// ```text
/// part i runs from milestone i−1 on, and counts its steps from there
/// at the milestone: the part's closed form at 0, if it has one; else its step number 0
/// ```
/// The closed form starts from the *base* rate: the next part does not go on from where the last
/// part left the rate, it starts afresh.
///
/// Differences from PyTorch: parts that bring their own rates ([`OneCycle`](super::OneCycle),
/// [`Cyclic`](super::Cyclic)) do not change the base of the others; a `Sequential` or a [`Chained`]
/// may be a later part (PyTorch: `NotImplementedError`), and as a first part counts its milestones
/// right (PyTorch: one too early).
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let warmup = schedule::Linear { start_factor: 0.5, total_iters: 2, ..Default::default() };
/// let decay = schedule::CosineAnnealing { t_max: 4, eta_min: 0.0 };
/// let mut scheduler =
///     LrScheduler::new(schedule::Sequential::new(warmup).then(2, decay), &mut opt)?;
/// for expected in [0.75e-2, 1e-2, 0.853553e-2, 0.5e-2] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-8);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub struct Sequential {
    parts: Vec<Box<dyn Schedule>>,
    milestones: Vec<u64>,
}
debug_parts!(Sequential);

impl Sequential {
    /// A sequence that begins with `first`.
    pub fn new(first: impl Schedule + 'static) -> Self {
        Self { parts: vec![Box::new(first)], milestones: Vec::new() }
    }

    /// From step `milestone` on, `next`. Milestones ascend, and start at 1.
    pub fn then(mut self, milestone: u64, next: impl Schedule + 'static) -> Self {
        self.milestones.push(milestone);
        self.parts.push(Box::new(next));
        self
    }

    /// Asks the part in charge at this step, in its own count; `None` without parts.
    fn part<A>(&self, at: At, ask: impl FnOnce(&dyn Schedule, At, bool) -> A) -> Option<A> {
        let index = self.milestones.partition_point(|&milestone| milestone as f64 <= at.epoch);
        let begin = index.checked_sub(1).and_then(|i| self.milestones.get(i));
        let local = At { epoch: at.epoch - begin.map_or(0.0, |&milestone| milestone as f64), ..at };
        let entering = begin.is_some() && local.epoch == 0.0;
        self.parts.get(index).map(|part| ask(part, local, entering))
    }
}

impl Schedule for Sequential {
    fn name(&self) -> &'static str {
        "Sequential"
    }
    fn start(&self, at: At) -> f64 {
        let at = At { lr: at.base_lr, ..at };
        self.part(at, |part, at, _| part.start(at)).unwrap_or(at.lr)
    }
    fn next(&self, at: At) -> f64 {
        let ask = |part: &dyn Schedule, at, entering| {
            if entering { part.enter(at) } else { part.next(at) }
        };
        self.part(at, ask).unwrap_or(at.lr)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        self.part(at, |part, at, _| part.closed_form(at)).flatten()
    }
    fn enter(&self, at: At) -> f64 {
        self.start(at)
    }
    fn has_closed_form(&self) -> bool {
        self.parts.iter().all(|part| part.has_closed_form())
    }
    fn momentum(&self, at: At) -> Option<f64> {
        self.part(at, |part, at, _| part.momentum(at)).flatten()
    }
    fn check(&self, groups: usize) -> Result<()> {
        let before = std::iter::once(&0).chain(&self.milestones);
        if before.zip(&self.milestones).any(|(before, milestone)| before >= milestone) {
            return Err(Error::InvalidHyperparameter {
                optimizer: "Sequential",
                field: "milestones",
                expected: "strictly ascending, from 1 on".into(),
                found: format!("{:?}", self.milestones),
            });
        }
        check_parts("Sequential", &self.parts, groups)
    }
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        let at = At { group: 0, epoch, base_lr: 0.0, lr: 0.0 };
        self.part(at, |part, at, _| part.check_epoch(at.epoch)).unwrap_or(Ok(()))
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = options_of(&self.parts);
        let milestones = self.milestones.iter().enumerate();
        options.extend(milestones.map(|(i, &m)| (format!("milestones.{i}"), m as f64)));
        options
    }
}

/// Several schedules at every step, each on the result of the one before: PyTorch's
/// `ChainedScheduler`.
///
/// Chain chainable schedules; a closed one overwrites what came before it. The order of chainable
/// schedules matters for rounding only.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let gentle = schedule::Constant { factor: 0.5, total_iters: 2 };
/// let decay = schedule::Exponential { gamma: 0.5 };
/// let mut scheduler = LrScheduler::new(schedule::Chained::new(gentle).and(decay), &mut opt)?;
/// for expected in [0.25e-2, 0.25e-2, 0.125e-2] {
///     scheduler.step(&mut opt)?;
///     assert_eq!(opt.lr(0), expected);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub struct Chained {
    parts: Vec<Box<dyn Schedule>>,
}
debug_parts!(Chained);

impl Chained {
    /// A chain that begins with `first`.
    pub fn new(first: impl Schedule + 'static) -> Self {
        Self { parts: vec![Box::new(first)] }
    }

    /// Behind the others, `next`.
    pub fn and(mut self, next: impl Schedule + 'static) -> Self {
        self.parts.push(Box::new(next));
        self
    }

    fn fold(&self, at: At, ask: impl Fn(&dyn Schedule, At) -> f64) -> f64 {
        self.parts.iter().fold(at.lr, |lr, part| ask(part, At { lr, ..at }))
    }
}

impl Schedule for Chained {
    fn name(&self) -> &'static str {
        "Chained"
    }
    fn start(&self, at: At) -> f64 {
        self.fold(at, |part, at| part.start(at))
    }
    fn next(&self, at: At) -> f64 {
        self.fold(at, |part, at| part.next(at))
    }
    fn enter(&self, at: At) -> f64 {
        self.start(At { lr: at.base_lr, ..at })
    }
    fn momentum(&self, at: At) -> Option<f64> {
        self.parts.iter().rev().find_map(|part| part.momentum(at))
    }
    fn check(&self, groups: usize) -> Result<()> {
        check_parts("Chained", &self.parts, groups)
    }
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.check_epoch(epoch))
    }
    fn options(&self) -> Vec<(String, f64)> {
        options_of(&self.parts)
    }
}

/// One schedule per parameter group, in the order of the groups.
///
/// # Examples
/// ```
/// use eigenstep::{params::Select, prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }
///     .build::<f32>()?
///     .with_group(Select::name("head.*"), |group| group.lr = 0.1)?;
/// let body = schedule::CosineAnnealing { t_max: 2, eta_min: 0.0 };
/// let head = schedule::Exponential { gamma: 0.5 };
/// let mut scheduler = LrScheduler::new(schedule::Groupwise::new(body).and(head), &mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert!((opt.lr(0) - 0.5e-2).abs() < 1e-15 && opt.lr(1) == 0.05);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub struct Groupwise {
    parts: Vec<Box<dyn Schedule>>,
}
debug_parts!(Groupwise);

impl Groupwise {
    /// The schedule of group 0.
    pub fn new(first: impl Schedule + 'static) -> Self {
        Self { parts: vec![Box::new(first)] }
    }

    /// The schedule of the next group.
    pub fn and(mut self, next: impl Schedule + 'static) -> Self {
        self.parts.push(Box::new(next));
        self
    }

    /// NaN, which the scheduler refuses, if there is no schedule for the group.
    fn part(&self, at: At, ask: impl FnOnce(&dyn Schedule) -> f64) -> f64 {
        self.parts.get(at.group).map_or(f64::NAN, |part| ask(part))
    }
}

impl Schedule for Groupwise {
    fn name(&self) -> &'static str {
        "Groupwise"
    }
    fn start(&self, at: At) -> f64 {
        self.part(at, |part| part.start(at))
    }
    fn next(&self, at: At) -> f64 {
        self.part(at, |part| part.next(at))
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        self.parts.get(at.group).and_then(|part| part.closed_form(at))
    }
    fn enter(&self, at: At) -> f64 {
        self.part(at, |part| part.enter(at))
    }
    fn has_closed_form(&self) -> bool {
        self.parts.iter().all(|part| part.has_closed_form())
    }
    fn momentum(&self, at: At) -> Option<f64> {
        self.parts.get(at.group).and_then(|part| part.momentum(at))
    }
    fn check(&self, groups: usize) -> Result<()> {
        let (schedule, found) = ("Groupwise", self.parts.len());
        if found != groups {
            return Err(Error::GroupValues { schedule, field: "schedules", groups, found });
        }
        check_parts(schedule, &self.parts, groups)
    }
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.check_epoch(epoch))
    }
    fn options(&self) -> Vec<(String, f64)> {
        options_of(&self.parts)
    }
}
