//! A step that is taken only if it helps.

use super::estimate::Estimate;
use super::snapshot::VisitBuffers;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::IntoLoss;
use crate::params::Parameters;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Where a conservative step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConservativeChoice {
    /// Against the estimate.
    Down,
    /// Along the estimate.
    Up,
    /// Nowhere.
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

/// Leaves the model at the best of three points. A loss that is not finite is never the best.
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
    let mut buffers = VisitBuffers::default();
    let mut best = (f64::INFINITY, ConservativeChoice::Stay);
    if !estimate.report().skipped {
        let mut evaluate = |model: &mut M| {
            for pick in [ConservativeChoice::Down, ConservativeChoice::Up, ConservativeChoice::Stay]
            {
                estimate.write_moved(&mut buffers, pick.scale(lr), model)?;
                let found = loss(model).into_loss()?;
                if found.is_finite() && found < best.0 {
                    best = (found, pick);
                }
            }
            Ok(())
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| evaluate(model)));
        if !matches!(outcome, Ok(Ok(()))) {
            estimate.write_moved(&mut buffers, 0.0, model)?;
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    }
    estimate.write_moved(&mut buffers, best.1.scale(lr), model)?;
    Ok(best.1)
}
