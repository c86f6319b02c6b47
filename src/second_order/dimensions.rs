//! Work on all dimensions of one block at once.

use crate::error::Result;
use crate::kernel::parallel::try_for_each;

/// Changes what every dimension of a block of this shape has, each on a thread of its own if there are any
/// to spare. All are tried; the error is that of the first dimension that has one.
pub(super) fn each_dimension<T: Send>(
    held: &mut [Option<T>],
    shape: &[usize],
    change: impl Fn(usize, &mut T) -> Result<()> + Sync + Send,
) -> Result<()> {
    let squares: usize = shape.iter().map(|n| n * n).sum();
    let held = held.iter_mut().enumerate();
    let mut held: Vec<_> = held.filter_map(|(axis, held)| Some((axis, held.as_mut()?))).collect();
    try_for_each(&mut held, squares, |(axis, held)| change(*axis, held))
}
