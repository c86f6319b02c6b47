//! What every estimator keeps within a step and from step to step.

use super::estimate::{Estimate, LeafPool, Report, Slices};
use super::saved::{ESTIMATOR, OPTIONS};
use super::snapshot::ParamSnapshot;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::{Layout, NonFinite};
use crate::state::{Record, Scalar, StateBytes, StateDict, save_options};
use std::mem::swap;

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zeroth_order) enum Stage {
    /// Before it; the last one can no longer be taken back.
    Ready,
    /// Planned: the losses have not been told yet.
    Asked,
    /// Over. It can be taken back.
    Told,
}

/// The tensors, the step, the report, and memory that is reused, so that a steady loop allocates nothing.
#[derive(Debug)]
pub struct EstimatorState<T: Element> {
    pub(in crate::zeroth_order) snapshot: ParamSnapshot<T>,
    /// The number of the next step.
    pub(in crate::zeroth_order) step: u64,
    pub(in crate::zeroth_order) stage: Stage,
    /// Whether the tensors were not known before the step.
    pub(in crate::zeroth_order) first: bool,
    pub(in crate::zeroth_order) report: Report,
    /// What becomes the report when the step ends. Afterwards it is the report of the step before.
    pub(in crate::zeroth_order) draft: Report,
    /// A buffer for the losses of a step.
    pub(in crate::zeroth_order) losses: Vec<f64>,
    pool: LeafPool<T>,
}

impl<T: Element> EstimatorState<T> {
    pub(in crate::zeroth_order) fn new(method: &'static str) -> Result<Self> {
        Ok(Self {
            snapshot: ParamSnapshot::new(method)?,
            step: 0,
            stage: Stage::Ready,
            first: false,
            report: Report::default(),
            draft: Report::default(),
            losses: Vec::new(),
            pool: LeafPool::default(),
        })
    }

    /// Refuses a call that is not allowed between `ask` and `tell`.
    pub(in crate::zeroth_order) fn refuse_if_asked(&self, what: &'static str) -> Result<()> {
        let problem = "the losses of the step that was asked for have to be told first";
        match self.stage {
            Stage::Asked => Err(Error::OutOfOrder { what, problem }),
            Stage::Ready | Stage::Told => Ok(()),
        }
    }

    /// Refuses losses from which no estimate can be made.
    pub(in crate::zeroth_order) fn check(
        &self,
        method: &'static str,
        (policy, expected): (NonFinite, usize),
        losses: &[f64],
    ) -> Result<()> {
        let (found, bad) = (losses.len(), losses.iter().find(|loss| !loss.is_finite()));
        match (policy, bad) {
            _ if self.stage != Stage::Asked => {
                let problem = "the parameters have to be asked about first";
                Err(Error::OutOfOrder { what: method, problem })
            }
            _ if found != expected => Err(Error::LossCount { method, expected, found }),
            (NonFinite::Error, Some(&loss)) => Err(Error::NonFiniteLoss(loss)),
            _ => Ok(()),
        }
    }

    /// Ends the step whose report, up to the losses, is the draft. `centre` is the loss at the unperturbed
    /// parameters, if it was evaluated.
    pub(in crate::zeroth_order) fn end_step(&mut self, centre: Option<f64>) {
        let finite = self.losses.iter().filter(|loss| loss.is_finite());
        self.draft.loss =
            centre.unwrap_or_else(|| finite.clone().sum::<f64>() / finite.count().max(1) as f64);
        swap(&mut self.draft.losses, &mut self.losses);
        self.draft.step = self.step;
        swap(&mut self.report, &mut self.draft);
        (self.stage, self.step) = (Stage::Told, self.step + 1);
    }

    /// Forgets the step that was asked for or told: step, report and tensors are as before it.
    pub(in crate::zeroth_order) fn take_back(&mut self) {
        if self.stage == Stage::Told {
            swap(&mut self.report, &mut self.draft);
            self.step -= 1;
        }
        if std::mem::take(&mut self.first) {
            self.snapshot.layout = Layout::new();
        }
        self.stage = Stage::Ready;
    }

    /// The estimate of the step that has ended.
    pub(in crate::zeroth_order) fn estimate<'e>(
        &'e self,
        slices: &'e dyn Slices<T::Compute>,
    ) -> Estimate<'e, T> {
        Estimate::new(&self.report, slices, &self.snapshot, &self.pool)
    }

    /// The number of parameters, and the bytes of their copy.
    pub(in crate::zeroth_order) fn count(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        bytes.add_parameters(self.snapshot.layout.numel());
        bytes.add("copy", self.snapshot.bytes());
        bytes
    }

    /// A state dict with the options, the seed, the step and the tensors.
    pub(in crate::zeroth_order) fn save<C: Hyperparameters>(
        &self,
        options: &C,
        seed: u64,
    ) -> StateDict {
        let mut dict = StateDict::new(C::NAME);
        save_options(&mut options.clone(), &mut Record::new(OPTIONS, &mut dict));
        let mut record = Record::new(ESTIMATOR, &mut dict);
        // all 64 bits survive
        record.scalar("seed", Scalar::Int(seed as i64));
        record.scalar("step", Scalar::Int(self.step as i64));
        self.snapshot.layout.save(&mut Record::new("tensors", &mut dict));
        dict
    }

    /// Continues at a saved step with its tensors.
    pub(in crate::zeroth_order) fn resume(&mut self, step: u64, layout: Layout) {
        (self.snapshot.layout, self.step, self.stage) = (layout, step, Stage::Ready);
        self.first = false;
    }
}
