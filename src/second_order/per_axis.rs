//! Work on all dimensions of one block, in parallel.

use crate::error::Result;
use crate::hyper::{Hyperparameters, Range};
use crate::kernel::parallel::for_each;

/// The default of `max_aspect`: beyond it a factor takes more than 100 times the bytes of its matrix.
pub(super) const MAX_ASPECT: f64 = 64.0;

/// Whether dimension `axis` of a block is at most `limit` times as long as the product of the others; a block
/// of one dimension has no others, and is.
pub(super) fn within_aspect(shape: &[usize], axis: usize, limit: Option<f64>) -> bool {
    let Some(limit) = limit.filter(|_| shape.len() > 1) else { return true };
    let length = |chosen: bool| {
        let lengths = shape.iter().enumerate().filter(move |(i, _)| (*i == axis) == chosen);
        lengths.map(|(_, &n)| n as f64).product::<f64>()
    };
    length(true) <= limit * length(false)
}

/// Refuses a `max_aspect` that some matrix has no side within.
pub(super) fn check_aspect<C: Hyperparameters>(limit: Option<f64>) -> Result<()> {
    match limit {
        Some(limit) if !Range::FromOne.contains(limit) => {
            Err(C::invalid("max_aspect", Range::FromOne.describe(), limit.to_string()))
        }
        _ => Ok(()),
    }
}

/// Calls `change` for every dimension of a block of this shape, each on a thread of its own if threads are
/// free. All of them are tried; the error is that of the first dimension that fails.
pub(super) fn each_axis<T: Send>(
    held: &mut [Option<T>],
    shape: &[usize],
    change: impl Fn(usize, &mut T) -> Result<()> + Sync + Send,
) -> Result<()> {
    let squares: usize = shape.iter().map(|n| n * n).sum();
    let with_outcome = |(axis, held): (usize, _)| (axis, held, Ok(()));
    let mut work: Vec<_> = held.iter_mut().enumerate().map(with_outcome).collect();
    for_each(&mut work, squares, |(axis, held, outcome)| {
        if let Some(held) = held {
            *outcome = change(*axis, held);
        }
    });
    work.into_iter().try_for_each(|(_, _, outcome)| outcome)
}
