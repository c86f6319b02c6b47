//! A step that is taken only if it lowers the loss.

use super::estimate::Estimate;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::IntoLoss;
use crate::params::Parameters;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The point that a conservative step has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConservativeChoice {
    /// A step against the estimate.
    Down,
    /// A step along the estimate.
    Up,
    /// The parameters before the step.
    Stay,
}

impl ConservativeChoice {
    fn scale(self, lr: f64) -> f64 {
        match self {
            Self::Down => -lr,
            Self::Up => lr,
            Self::Stay => 0.0,
        }
    }
}

/// Leaves the model at the point of three with the least loss. A loss that is not finite is never chosen.
pub(in crate::zeroth_order) fn choose<T, M, V>(
    estimate: &Estimate<'_, T>,
    lr: f64,
    model: &mut M,
    loss: &mut impl FnMut(&mut M) -> V,
) -> Result<ConservativeChoice>
where
    T: Element,
    M: Parameters<T>,
    V: IntoLoss,
{
    let mut best = (f64::INFINITY, ConservativeChoice::Stay);
    if !estimate.report().skipped {
        let mut evaluate = |model: &mut M| {
            for choice in
                [ConservativeChoice::Down, ConservativeChoice::Up, ConservativeChoice::Stay]
            {
                estimate.write_moved(choice.scale(lr), model)?;
                let found = loss(model).into_loss()?;
                if found.is_finite() && found < best.0 {
                    best = (found, choice);
                }
            }
            Ok(())
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| evaluate(model)));
        if !matches!(outcome, Ok(Ok(()))) {
            estimate.write_moved(0.0, model)?;
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    }
    estimate.write_moved(best.1.scale(lr), model)?;
    Ok(best.1)
}
