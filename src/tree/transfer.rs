//! Bits of parameters into one flat buffer, and back.

use super::strided;
use super::units::{self, Unit};
use crate::kernel::scratch::{with_kept, with_scratch};
use crate::kernel::{parallel, stream};
use crate::numeric::Element;
use crate::params::{ParamLeaf, recycle};
use std::mem::take;

/// Elements that are computed at once: so few that they stay in the first-level cache.
const PIECE: usize = 1024;

/// Elements that one thread writes past the cache before it waits for them: a multiple of [`PIECE`].
const STREAMED: usize = 1 << 16;

/// Elements of a unit of work, and whether there are so many in all that they have left the cache before they
/// are read again.
fn unit_size<T>(elements: &[T]) -> (usize, bool) {
    match size_of_val(elements) >= stream::BEYOND_CACHE {
        true => (STREAMED, true),
        // what is computed for an element may be expensive: enough units for all threads
        false => (4 * PIECE, false),
    }
}

/// Copies the chosen leaves, row-major, one after another.
pub(crate) fn gather<T: Element>(
    leaves: &mut [ParamLeaf<'_, T>],
    chosen: impl Fn(usize) -> bool,
    to: &mut [T],
) {
    let (size, beyond) = unit_size(to);
    with_kept(|kept: &mut Kept<T>| {
        let mut copies = recycle(take(&mut kept.0));
        let (elements, mut rest) = (to.len(), to);
        units::cut(leaves, size, |unit| {
            if chosen(unit.leaf) {
                let (to, later) = take(&mut rest).split_at_mut(unit.len().min(elements));
                rest = later;
                copies.push(Copied { unit, to });
            }
        });
        parallel::for_each(&mut copies, elements, |Copied { unit, to }| match &unit.memory {
            ParamLeaf::Slice(from) if beyond => stream::copy(from, to),
            ParamLeaf::Slice(from) => to.copy_from_slice(from),
            ParamLeaf::Strided(from) => strided::read(&from.view(), 0, to, |x| x),
        });
        kept.0 = recycle(copies);
    });
}

/// A piece of a leaf, and where it is copied to.
struct Copied<'l, T> {
    unit: Unit<'l, T>,
    to: &'l mut [T],
}

struct Kept<T: 'static>(Vec<Copied<'static, T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Writes leaves from where `place` says that their elements begin in `from`.
pub(crate) fn scatter<T: Element>(
    leaves: &mut [ParamLeaf<'_, T>],
    from: &[T],
    place: impl Fn(usize) -> Option<usize> + Sync + Send,
) {
    let (size, beyond) = unit_size(from);
    units::for_each(leaves, size, |unit| {
        let Some(from) = part(from, place(unit.leaf), unit) else { return };
        match &mut unit.memory {
            ParamLeaf::Slice(to) if beyond => stream::copy(from, to),
            ParamLeaf::Slice(to) => to.copy_from_slice(from),
            ParamLeaf::Strided(to) => strided::write(to, from, |x| x),
        }
    });
}

/// Writes leaves with what `f(leaf, offset, from, out)` makes of pieces of `from`.
pub(crate) fn scatter_with<T: Element>(
    leaves: &mut [ParamLeaf<'_, T>],
    from: &[T],
    place: impl Fn(usize) -> Option<usize> + Sync + Send,
    f: impl Fn(usize, usize, &[T], &mut [T]) + Sync + Send,
) {
    let (size, beyond) = unit_size(from);
    units::for_each(leaves, size, |unit| {
        let Some(from) = part(from, place(unit.leaf), unit) else { return };
        let Unit { leaf, offset, memory } = unit;
        let piece = |start: usize, out: &mut [T]| {
            f(*leaf, *offset + start, from.get(start..start + out.len()).unwrap_or_default(), out);
        };
        match memory {
            ParamLeaf::Slice(out) if beyond => stream::fill(out, PIECE, piece),
            ParamLeaf::Slice(out) => {
                for (i, out) in out.chunks_mut(PIECE).enumerate() {
                    piece(i * PIECE, out);
                }
            }
            ParamLeaf::Strided(view) => with_scratch(view.len(), |values| {
                piece(0, values);
                strided::write(view, values, |x| x);
            }),
        }
    });
}

/// The elements of a piece of a leaf that begins at `start`.
fn part<'f, T>(from: &'f [T], start: Option<usize>, unit: &Unit<'_, T>) -> Option<&'f [T]> {
    let start = start? + unit.offset;
    from.get(start..start + unit.len())
}
