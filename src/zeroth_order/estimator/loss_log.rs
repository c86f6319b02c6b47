//! The losses of a run, from which the run can be replayed.

use super::backup::Backup;
use super::estimate::Report;
use super::snapshot::ParamSnapshot;
use super::traits::Estimator;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::params::Parameters;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The losses and learning rates of a run. Together with the initial parameters, the seed and the
/// configurations they determine the whole run: [`LossLog::replay`] gives the same parameters, bit for
/// bit, without a single evaluation.
///
/// A step of MeZO takes 40 bytes: its number, two counts, two losses and one learning rate. Workers that
/// exchange losses instead of gradients train the same model.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, LossLog, Spsa, ZerothOrder}};
/// use ndarray::array;
///
/// let pair = || -> eigenstep::Result<_> {
///     let optimizer = AdamW { lr: 0.1, ..AdamW::default() }.build()?;
///     Ok(ZerothOrder::new(Spsa::default().build::<f32>()?, optimizer))
/// };
/// let (mut w, mut log, mut run) = (array![1.0f32, -1.0], LossLog::default(), pair()?);
/// for _ in 0..20 {
///     let report = run.step(&mut w, |w| w.mapv(|x| x * x).sum())?.clone();
///     log.record(&report, &run.optimizer);
/// }
/// let (mut again, mut fresh) = (array![1.0f32, -1.0], pair()?);
/// let log = LossLog::from_bytes(&log.to_bytes())?;
/// log.replay(&mut fresh.estimator, &mut fresh.optimizer, &mut again)?;
/// assert_eq!(again, w);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", 2023, section 2.1.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossLog {
    steps: Vec<Entry>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Entry {
    step: u64,
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::numbers"))]
    losses: Vec<f64>,
    /// The learning rate of every group.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::numbers"))]
    lrs: Vec<f64>,
}

impl LossLog {
    /// Adds a step, with the learning rates that the optimizer has now.
    pub fn record<T: Element>(&mut self, report: &Report, optimizer: &dyn Optimizer<T>) {
        let lrs = (0..optimizer.num_groups()).map(|group| optimizer.lr(group)).collect();
        self.steps.push(Entry { step: report.step, losses: report.losses.clone(), lrs });
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes all recorded steps again, or none of them: a copy of the parameters and the state dicts of estimator
    /// and optimizer are kept meanwhile.
    ///
    /// # Errors
    /// [`Error::LossLog`] if the next step of the estimator is not the next one of the log, or if the
    /// optimizer has another number of groups; [`Error::LossCount`] if the estimator has another number
    /// of probes; [`Error::OutOfOrder`] between [`ask`](Estimator::ask) and [`tell`](Estimator::tell); those of
    /// the estimator and of the optimizer. Parameters, estimator and optimizer are unchanged then, whichever
    /// step has failed, and after a panic, too.
    pub fn replay<T: Element>(
        &self,
        estimator: &mut impl Estimator<T>,
        optimizer: &mut dyn Optimizer<T>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        let name = estimator.name();
        let mut snapshot = ParamSnapshot::<T>::new(name)?;
        snapshot.read(name, params, true)?;
        let before = (Backup::of(estimator, "LossLog::replay")?, optimizer.state_dict());
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.replay_all(estimator, optimizer, params)));
        if !matches!(outcome, Ok(Ok(()))) {
            snapshot.restore(name, params)?;
            before.0.restore(estimator)?;
            optimizer.load_state_dict(&before.1)?;
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn replay_all<T: Element>(
        &self,
        estimator: &mut impl Estimator<T>,
        optimizer: &mut dyn Optimizer<T>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        for Entry { step, losses, lrs } in &self.steps {
            let wrong = |problem: String| Err(Error::LossLog { problem });
            if estimator.steps() != *step {
                return wrong(format!(
                    "the next step is {step}, the estimator's {}",
                    estimator.steps()
                ));
            }
            if lrs.len() != optimizer.num_groups() {
                return wrong(format!("{} groups, expected {}", optimizer.num_groups(), lrs.len()));
            }
            for (group, &lr) in lrs.iter().enumerate().filter(|(_, lr)| lr.is_finite()) {
                optimizer.set_lr(group, lr)?;
            }
            estimator.ask(params)?;
            let estimate = estimator.tell(losses)?;
            optimizer.step(params, &estimate)?;
        }
        Ok(())
    }

    /// All steps as little-endian bytes: the step, the number of losses, the number of groups, the
    /// losses, the learning rates.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Entry { step, losses, lrs } in &self.steps {
            bytes.extend(step.to_le_bytes());
            // both fit: a step has fewer than 2^32 probes in memory
            bytes.extend((losses.len() as u32).to_le_bytes());
            bytes.extend((lrs.len() as u32).to_le_bytes());
            bytes.extend(losses.iter().chain(lrs).flat_map(|x| x.to_le_bytes()));
        }
        bytes
    }

    /// Reads what [`LossLog::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::LossLog`] if the bytes end within a step.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let short = || Error::LossLog { problem: "the bytes end within a step".into() };
        let mut steps = Vec::new();
        while !bytes.is_empty() {
            let (step, rest) = bytes.split_first_chunk().ok_or_else(short)?;
            let (losses, rest) = rest.split_first_chunk().ok_or_else(short)?;
            let (lrs, rest) = rest.split_first_chunk().ok_or_else(short)?;
            let counts = [losses, lrs].map(|&count| u32::from_le_bytes(count) as usize);
            let [losses, lrs] = counts;
            let len = losses.checked_add(lrs).and_then(|n| n.checked_mul(8)).ok_or_else(short)?;
            let (numbers, rest) = rest.split_at_checked(len).ok_or_else(short)?;
            let mut numbers = numbers.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x));
            steps.push(Entry {
                step: u64::from_le_bytes(*step),
                losses: numbers.by_ref().take(losses).collect(),
                lrs: numbers.collect(),
            });
            bytes = rest;
        }
        Ok(Self { steps })
    }
}
