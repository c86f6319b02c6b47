//! Leaves of parameters cut into pieces of work.

use crate::kernel::parallel;
use crate::kernel::scratch::with_kept;
use crate::numeric::Element;
use crate::params::{ParamLeaf, recycle};
use ndarray::Axis;
use std::mem::take;

/// A piece of one leaf.
pub(super) struct Unit<'l, T> {
    /// Number of the leaf.
    pub leaf: usize,
    /// Where the piece begins, counted row-major.
    pub offset: usize,
    pub memory: ParamLeaf<'l, T>,
}

impl<T> Unit<'_, T> {
    pub fn len(&self) -> usize {
        match &self.memory {
            ParamLeaf::Slice(data) => data.len(),
            ParamLeaf::Strided(view) => view.len(),
        }
    }
}

/// Cuts the leaves into pieces of about `piece` elements, in order.
///
/// A strided leaf is cut along its first dimension; a piece is longer where one row is.
pub(super) fn cut<'l, T>(
    leaves: &'l mut [ParamLeaf<'_, T>],
    piece: usize,
    mut push: impl FnMut(Unit<'l, T>),
) {
    for (leaf, memory) in leaves.iter_mut().enumerate() {
        match memory {
            ParamLeaf::Slice(data) => {
                for (i, part) in data.chunks_mut(piece).enumerate() {
                    push(Unit { leaf, offset: i * piece, memory: ParamLeaf::Slice(part) });
                }
            }
            ParamLeaf::Strided(view) => {
                // dimensions of one index do not change the order of the elements
                let axis = view.shape().iter().position(|&dim| dim > 1).unwrap_or(0);
                let rows = view.shape().get(axis).copied().unwrap_or(1).max(1);
                let width = (view.len() / rows).max(1);
                let rows = (piece / width).max(1);
                for (i, part) in view.axis_chunks_iter_mut(Axis(axis), rows).enumerate() {
                    let offset = i * rows * width;
                    push(Unit { leaf, offset, memory: ParamLeaf::Strided(part) });
                }
            }
        }
    }
}

/// Calls `f` for every piece of the leaves, on all threads.
pub(super) fn for_each<T: Element>(
    leaves: &mut [ParamLeaf<'_, T>],
    piece: usize,
    f: impl Fn(&mut Unit<'_, T>) + Sync + Send,
) {
    with_kept(|kept: &mut Kept<T>| {
        let mut units = recycle(take(&mut kept.0));
        let mut elements = 0;
        cut(leaves, piece, |unit| {
            elements += unit.len();
            units.push(unit);
        });
        parallel::for_each(&mut units, elements, f);
        kept.0 = recycle(units);
    });
}

/// The list of pieces of an earlier call.
struct Kept<T: 'static>(Vec<Unit<'static, T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
