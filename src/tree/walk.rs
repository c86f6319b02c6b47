//! Several leaves, read side by side.

use super::read::ReadLeaf;
use crate::numeric::Real;
use std::array::from_fn;
use std::ops::Range;

/// Elements that are read at once if they have to be copied: so few that they stay in the first-level cache,
/// and a multiple of the lanes of a sum.
const PIECE: usize = 1024;

/// Calls `f(start, len, slices)` for the elements `range` of the leaves: once if all can be read in place,
/// else piece by piece.
pub(super) fn walk<R: Real, const N: usize>(
    leaves: [&dyn ReadLeaf<R>; N],
    range: Range<usize>,
    mut f: impl FnMut(usize, usize, [&[R]; N]),
) {
    let whole = leaves.map(|leaf| leaf.in_place(range.start, range.len()));
    if whole.iter().all(Option::is_some) {
        return f(range.start, range.len(), whole.map(Option::unwrap_or_default));
    }
    let mut buffers = [[R::zero(); PIECE]; N];
    for start in range.clone().step_by(PIECE) {
        let len = PIECE.min(range.end - start);
        let in_place = leaves.map(|leaf| leaf.in_place(start, len));
        for (k, buffer) in buffers.iter_mut().enumerate() {
            if let (Some(leaf), Some(None)) = (leaves.get(k), in_place.get(k)) {
                leaf.load(start, buffer.get_mut(..len).unwrap_or_default());
            }
        }
        let slice = |k: usize| {
            let buffer = buffers.get(k).and_then(|buffer| buffer.get(..len));
            in_place.get(k).copied().flatten().or(buffer).unwrap_or_default()
        };
        f(start, len, from_fn(slice));
    }
}
