//! Work on all dimensions of one block, in parallel.

use crate::error::Result;
use crate::kernel::parallel::for_each;

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
