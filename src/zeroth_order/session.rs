//! What every estimator keeps, from step to step and within one.

use super::estimate::{Estimate, Home, Report, Slices};
use super::space::{Space, Visit};
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::optim::{Layout, NonFinite};
use crate::params::Parameters;
use crate::state::{Lookup, Record, Scalar, StateBytes, StateDict};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem::replace;

/// Tensors, step, report, and memory that is kept: a steady loop allocates nothing.
#[derive(Debug)]
pub struct Session<T: Element> {
    pub(super) space: Space<T>,
    /// The step to come.
    pub(super) step: u64,
    /// Whether losses are waited for.
    pub(super) asked: bool,
    pub(super) report: Report,
    pub(super) visit: Visit<T>,
    /// Room for the losses of a step.
    pub(super) losses: Vec<f64>,
    home: Home<T>,
}

/// What an estimator adds to a [`Session`]; only this crate can.
pub trait Core<T: Element> {
    /// The session.
    fn session(&self) -> &Session<T>;

    /// The session.
    fn session_mut(&mut self) -> &mut Session<T>;

    /// What happens to losses that are NaN or infinite.
    fn non_finite(&self) -> NonFinite;

    /// Number of probes of the step that was asked for.
    fn num_probes(&self) -> usize;

    /// Prepares the step to come.
    fn plan(&mut self, params: &mut dyn Parameters<T>) -> Result<()>;

    /// The estimate from losses that have been checked; the step is over.
    fn conclude(&mut self, losses: Vec<f64>) -> Estimate<'_, T>;
}

impl<T: Element> Session<T> {
    pub(super) fn new(method: &'static str) -> Result<Self> {
        Ok(Self {
            space: Space::new(method)?,
            step: 0,
            asked: false,
            report: Report::default(),
            visit: Visit::default(),
            losses: Vec::new(),
            home: Home::default(),
        })
    }

    /// Refuses what may not happen between [`ask`](super::Estimator::ask) and
    /// [`tell`](super::Estimator::tell).
    pub(super) fn refuse_if_asked(&self, what: &'static str) -> Result<()> {
        let problem = "the losses of the step that was asked for have to be told first";
        if self.asked { Err(Error::OutOfOrder { what, problem }) } else { Ok(()) }
    }

    /// Refuses losses that no estimate can be made of.
    pub(super) fn check(
        &self,
        method: &'static str,
        (policy, expected): (NonFinite, usize),
        losses: &[f64],
    ) -> Result<()> {
        let (found, bad) = (losses.len(), losses.iter().find(|loss| !loss.is_finite()));
        match (policy, bad) {
            _ if !self.asked => {
                let problem = "the parameters have to be asked about first";
                Err(Error::OutOfOrder { what: method, problem })
            }
            _ if found != expected => Err(Error::LossCount { method, expected, found }),
            (NonFinite::Error, Some(&loss)) => Err(Error::NonFiniteLoss(loss)),
            _ => Ok(()),
        }
    }

    /// Ends the step: its losses, of which `centre` is that of the unperturbed parameters, go into the
    /// report.
    pub(super) fn end_step(&mut self, losses: Vec<f64>, centre: Option<f64>) {
        let finite = losses.iter().filter(|loss| loss.is_finite());
        self.report.loss =
            centre.unwrap_or_else(|| finite.clone().sum::<f64>() / finite.count().max(1) as f64);
        self.losses = replace(&mut self.report.losses, losses);
        self.report.step = self.step;
        (self.asked, self.step) = (false, self.step + 1);
    }

    /// The estimate of the step that has ended.
    pub(super) fn estimate<'e>(&'e self, slices: &'e dyn Slices<T::Compute>) -> Estimate<'e, T> {
        Estimate::new(&self.report, slices, &self.space, &self.home)
    }

    /// Bytes of the copy of the parameters, beside their number.
    pub(super) fn count(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        bytes.add_parameters(self.space.layout.numel());
        bytes.add("copy", self.space.base.bytes());
        bytes
    }

    /// A state dict with seed, step and tensors.
    pub(super) fn save(&self, method: &'static str, seed: u64) -> StateDict {
        let mut dict = StateDict::new(method);
        let mut record = Record::new(ESTIMATOR, &mut dict);
        // all 64 bits survive
        record.scalar("seed", Scalar::Int(seed as i64));
        record.scalar("step", Scalar::Int(self.step as i64));
        self.space.save(&mut Record::new("tensors", &mut dict));
        dict
    }

    /// Goes on at a saved step, with its tensors.
    pub(super) fn resume(&mut self, step: u64, layout: Layout) {
        (self.space.layout, self.step, self.asked) = (layout, step, false);
    }
}

/// The prefix of what is no tensor's.
pub(super) const ESTIMATOR: &str = "estimator";

/// A state dict that is being read.
pub(super) struct Saved<'d> {
    dict: &'d StateDict,
    used: RefCell<BTreeSet<String>>,
}

impl<'d> Saved<'d> {
    /// A dict that `method` wrote.
    pub fn open(method: &'static str, dict: &'d StateDict) -> Result<Self> {
        dict.check_header(method)?;
        Ok(Self { dict, used: RefCell::default() })
    }

    /// The keys under a prefix.
    pub fn lookup(&self, prefix: &str) -> Lookup<'_> {
        Lookup::new(prefix, self.dict, &self.used)
    }

    /// An integer of 64 bits.
    pub fn integer(&self, name: &str) -> Result<u64> {
        let lookup = self.lookup(ESTIMATOR);
        match lookup.scalar(name) {
            Some(&Scalar::Int(value)) => Ok(value as u64),
            _ => Err(lookup.problem(name, "is missing, or not an integer")),
        }
    }

    /// The tensors, which have to be those of `space` if it has any.
    pub fn layout<T: Element>(&self, space: &Space<T>) -> Result<Layout> {
        space.load(&self.lookup("tensors"))
    }

    /// Refuses keys that nobody has asked for.
    pub fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        let mut keys = self.dict.scalars.keys().chain(self.dict.tensors.keys());
        match keys.find(|key| !used.contains(*key)) {
            Some(key) => Err(Error::StateDict { key: key.clone(), problem: "is not known".into() }),
            None => Ok(()),
        }
    }
}
