//! A smaller rate whenever a metric stops improving.

use super::per_group::PerGroup;
use super::scheduler::{check_options, save_options, write_all};
use crate::error::Result;
use crate::hyper::{Hyperparameters, OptionValue, Range};
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::state::{Scalar, StateDict, StateReader};

/// Whether the metric should fall or rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PlateauMode {
    /// To fall: a loss.
    #[default]
    Min,
    /// To rise: an accuracy.
    Max,
}

/// What `threshold` is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ThresholdMode {
    /// The best value so far.
    #[default]
    Rel,
    /// Nothing.
    Abs,
}

macro_rules! two_way {
    ($type:ident, $first:ident $second:ident, $names:expr) => {
        impl $type {
            const NAMES: &'static [&'static str] = &$names;
        }
        impl OptionValue for $type {
            fn get(&self) -> f64 {
                f64::from(u8::from(*self == Self::$second))
            }
            fn set(&mut self, value: f64) {
                *self = if value == 0.0 { Self::$first } else { Self::$second };
            }
        }
    };
}
two_way!(PlateauMode, Min Max, ["min", "max"]);
two_way!(ThresholdMode, Rel Abs, ["rel", "abs"]);

/// Reduces the rate when a metric has not got better for `patience` steps: PyTorch's
/// `ReduceLROnPlateau`. Run it with a [`PlateauScheduler`].
///
/// ```text
/// better: m < best·(1−th) | m < best−th | m > best·(1+th) | m > best+th; a NaN never is
/// better: best = m, bad = 0;  else bad += 1
/// in cooldown: cooldown −= 1, bad = 0
/// bad > patience: η ← max(η·factor, min_lr)  if that lowers it by more than eps
///                 begin cooldown, bad = 0
/// ```
/// | field | default, PyTorch's | |
/// |---|---|---|
/// | `mode` | `Min` | whether the metric should fall or rise |
/// | `factor` | 0.1 | in [0, 1) |
/// | `patience` | 10 | steps without getting better that are forgiven |
/// | `threshold`, `threshold_mode` | 1e-4, `Rel` | how much counts as better |
/// | `cooldown` | 0 | steps after a reduction in which nothing is counted |
/// | `min_lr` | 0 | for all groups or for each |
/// | `eps` | 1e-8 | smaller reductions are left out |
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ReduceOnPlateau {
    /// Whether the metric should fall or rise.
    pub mode: PlateauMode,
    /// Factor of one reduction.
    pub factor: f64,
    /// Steps without getting better that are forgiven.
    pub patience: u64,
    /// How much counts as better.
    pub threshold: f64,
    /// What `threshold` is measured against.
    pub threshold_mode: ThresholdMode,
    /// Steps after a reduction in which nothing is counted.
    pub cooldown: u64,
    /// Lowest rate.
    pub min_lr: PerGroup,
    /// Smallest reduction that is worth it.
    pub eps: f64,
}
crate::config_file::named_fields!(ReduceOnPlateau);

impl Default for ReduceOnPlateau {
    fn default() -> Self {
        Self {
            mode: PlateauMode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: PerGroup::All(0.0),
            eps: 1e-8,
        }
    }
}

crate::hyperparameters!(ReduceOnPlateau, "ReduceOnPlateau", {
    "mode": Choice(PlateauMode::NAMES) = mode;
    "factor": UnitHalfOpen = factor;
    "patience": CountFrom(0) = patience;
    "threshold": NonNegative = threshold;
    "threshold_mode": Choice(ThresholdMode::NAMES) = threshold_mode;
    "cooldown": CountFrom(0) = cooldown;
    "eps": NonNegative = eps;
});

impl ReduceOnPlateau {
    fn check(&self, groups: usize) -> Result<()> {
        self.validate()?;
        self.min_lr.check("ReduceOnPlateau", "min_lr", groups, Range::NonNegative)
    }

    fn options(&self) -> Vec<(String, f64)> {
        let mut options = super::rate::table_of(self);
        self.min_lr.list("min_lr", &mut options);
        options
    }

    fn is_better(&self, metric: f64, best: f64) -> bool {
        match (self.mode, self.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Rel) => metric < best * (1.0 - self.threshold),
            (PlateauMode::Min, ThresholdMode::Abs) => metric < best - self.threshold,
            (PlateauMode::Max, ThresholdMode::Rel) => metric > best * (1.0 + self.threshold),
            (PlateauMode::Max, ThresholdMode::Abs) => metric > best + self.threshold,
        }
    }

    fn worst(&self) -> f64 {
        match self.mode {
            PlateauMode::Min => f64::INFINITY,
            PlateauMode::Max => f64::NEG_INFINITY,
        }
    }
}

/// Watches a metric and lowers the learning rates; see [`ReduceOnPlateau`].
///
/// It is not a [`Schedule`](super::Schedule): it cannot be a part of a
/// [`Sequential`](super::Sequential), as in PyTorch.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule::{PlateauScheduler, ReduceOnPlateau}};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let plateau = ReduceOnPlateau { factor: 0.5, patience: 1, ..Default::default() };
/// let mut scheduler = PlateauScheduler::new(plateau, &opt)?;
/// for loss in [1.0, 0.8, 0.8, 0.8] {
///     scheduler.step(loss, &mut opt)?;
/// }
/// assert_eq!(opt.lr(0), 0.5e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PlateauScheduler {
    config: ReduceOnPlateau,
    epoch: u64,
    watch: Watch,
}

/// What changes with every metric.
#[derive(Clone, Debug, PartialEq)]
struct Watch {
    best: f64,
    num_bad_epochs: u64,
    cooldown_counter: u64,
}

impl Watch {
    /// Whether it is time to reduce.
    fn observe(&mut self, metric: f64, config: &ReduceOnPlateau) -> bool {
        if config.is_better(metric, self.best) {
            self.best = metric;
            self.num_bad_epochs = 0;
        } else {
            self.num_bad_epochs += 1;
        }
        if self.cooldown_counter > 0 {
            self.cooldown_counter -= 1;
            self.num_bad_epochs = 0;
        }
        let reduce = self.num_bad_epochs > config.patience;
        if reduce {
            self.cooldown_counter = config.cooldown;
            self.num_bad_epochs = 0;
        }
        reduce
    }
}

impl PlateauScheduler {
    /// A scheduler that has seen no metric; it changes nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) or
    /// [`Error::GroupValues`](crate::Error::GroupValues).
    pub fn new<T: Element, O: Optimizer<T> + ?Sized>(
        config: ReduceOnPlateau,
        opt: &O,
    ) -> Result<Self> {
        config.check(opt.num_groups())?;
        let watch = Watch { best: config.worst(), num_bad_epochs: 0, cooldown_counter: 0 };
        Ok(Self { config, epoch: 0, watch })
    }

    /// A scheduler in the middle of a run, with other options than those that the state was saved with: counters
    /// and best metric are those of the state. Does not touch the optimizer.
    ///
    /// # Errors
    /// As [`PlateauScheduler::new`]; [`Error::StateDict`](crate::Error::StateDict) names the first key that does
    /// not fit. The `mode` must be the one saved, or the best metric would be the worst.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{prelude::*, schedule::{PlateauScheduler, ReduceOnPlateau}};
    ///
    /// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
    /// let mut first = PlateauScheduler::new(ReduceOnPlateau::default(), &opt)?;
    /// first.step(0.7, &mut opt)?;
    /// let patient = ReduceOnPlateau { patience: 20, ..ReduceOnPlateau::default() };
    /// let second = PlateauScheduler::resume(patient, &first.state_dict(), &opt)?;
    /// assert_eq!((second.best(), second.epoch()), (0.7, 1));
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn resume<T: Element, O: Optimizer<T> + ?Sized>(
        config: ReduceOnPlateau,
        state: &StateDict,
        opt: &O,
    ) -> Result<Self> {
        let mut scheduler = Self::new(config, opt)?;
        let mut reader = StateReader::new(state, "ReduceOnPlateau")?;
        let mode = scheduler.config.mode;
        reader.same("options.mode", mode.get())?;
        (scheduler.epoch, scheduler.watch) = position(&mut reader)?;
        Ok(scheduler)
    }

    /// Takes the metric of one more epoch, and lowers the learning rates if it is time.
    ///
    /// # Errors
    /// [`Error::GroupValues`](crate::Error::GroupValues) if the list `min_lr` no longer has one
    /// number per group. Then nothing has changed.
    pub fn step<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        metric: f64,
        opt: &mut O,
    ) -> Result<()> {
        let groups = opt.num_groups();
        self.config.check(groups)?;
        let mut watch = self.watch.clone();
        if watch.observe(metric, &self.config) {
            let lower = |group: usize| {
                let old = opt.lr(group);
                let new = (old * self.config.factor).max(self.config.min_lr.get(group));
                (old - new > self.config.eps).then_some((group, "lr", new))
            };
            let writes: Vec<_> = (0..groups).filter_map(lower).collect();
            write_all(opt, &writes)?;
        }
        self.watch = watch;
        self.epoch += 1;
        Ok(())
    }

    /// Best metric so far; infinite before the first.
    pub fn best(&self) -> f64 {
        self.watch.best
    }

    /// Steps since the metric got better, or since the last reduction.
    pub fn num_bad_epochs(&self) -> u64 {
        self.watch.num_bad_epochs
    }

    /// Steps of the cooldown that remain.
    pub fn cooldown_counter(&self) -> u64 {
        self.watch.cooldown_counter
    }

    /// Number of metrics so far.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Counters, best metric and options. The learning rates are in the optimizer's state dict.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new("ReduceOnPlateau");
        let mut put = |key: &str, value| state.scalars.insert(key.to_owned(), value);
        put("last_epoch", Scalar::Int(self.epoch as i64));
        put("best", Scalar::Float(self.watch.best));
        put("num_bad_epochs", Scalar::Int(self.watch.num_bad_epochs as i64));
        put("cooldown_counter", Scalar::Int(self.watch.cooldown_counter as i64));
        save_options(self.config.options(), &mut state);
        state
    }

    /// Goes on from a saved state. The options must be those saved; [`PlateauScheduler::resume`] goes on
    /// with others.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the first key that does not fit, options
    /// included; the scheduler stays as it was.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let mut reader = StateReader::new(state, "ReduceOnPlateau")?;
        let (epoch, watch) = position(&mut reader)?;
        check_options(self.config.options(), &mut reader)?;
        reader.finish()?;
        (self.epoch, self.watch) = (epoch, watch);
        Ok(())
    }
}

/// The number of metrics, and what was seen of them.
fn position(reader: &mut StateReader<'_>) -> Result<(u64, Watch)> {
    let epoch = reader.count("last_epoch")?;
    let watch = Watch {
        best: reader.any_number("best")?,
        num_bad_epochs: reader.count("num_bad_epochs")?,
        cooldown_counter: reader.count("cooldown_counter")?,
    };
    Ok((epoch, watch))
}
