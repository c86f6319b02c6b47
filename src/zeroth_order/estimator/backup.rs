//! The state of an estimator before several steps that are one call.

use super::estimate::Report;
use super::traits::Estimator;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::Layout;
use crate::state::StateDict;

/// The state of an estimator before several steps that are one call: [`Estimator::undo`] takes back only one.
#[derive(Debug)]
pub(in crate::zeroth_order) struct Backup {
    dict: StateDict,
    report: Report,
}

impl Backup {
    /// Copies the state, unless a step has been asked for. `what` is the call in errors.
    pub fn of<T: Element>(estimator: &impl Estimator<T>, what: &'static str) -> Result<Self> {
        estimator.state().refuse_if_asked(what)?;
        Ok(Self { dict: estimator.state_dict(), report: estimator.report().clone() })
    }

    /// Returns to the copy.
    pub fn restore<T: Element>(self, estimator: &mut impl Estimator<T>) -> Result<()> {
        // tensors that the steps have learnt of are forgotten
        estimator.state_mut().snapshot.layout = Layout::new();
        estimator.load_state_dict(&self.dict)?;
        estimator.state_mut().report = self.report;
        Ok(())
    }
}
