//! One leaf of a tree, read piece by piece in the arithmetic type, whatever its form in memory.

use crate::numeric::{Element, Real};
use crate::params::{Generate, GradientKind, GradientLeaf, ParamLeaf, RowGradient};
use ndarray::{ArrayView, ArrayViewD, Axis, Dimension, Slice};

/// A leaf that any thread can read, from any place on.
pub(crate) trait ReadLeaf<R>: Sync {
    /// The elements `offset .. offset + len`, if they lie in memory as they count.
    fn in_place(&self, offset: usize, len: usize) -> Option<&[R]>;
    /// Writes the elements `offset .. offset + out.len()`, counted row-major.
    fn load(&self, offset: usize, out: &mut [R]);
}

/// A leaf that is not there.
pub(super) struct Zeros;

impl<R: Real> ReadLeaf<R> for Zeros {
    fn in_place(&self, _: usize, _: usize) -> Option<&[R]> {
        None
    }
    fn load(&self, _: usize, out: &mut [R]) {
        out.fill(R::zero());
    }
}

impl<T: Element> ReadLeaf<T::Compute> for ParamLeaf<'_, T> {
    fn in_place(&self, offset: usize, len: usize) -> Option<&[T::Compute]> {
        match self {
            Self::Slice(data) => T::as_compute(data.get(offset..offset + len)?),
            Self::Strided(_) => None,
        }
    }
    fn load(&self, offset: usize, out: &mut [T::Compute]) {
        match self {
            Self::Slice(data) => load_slice(data, offset, out),
            Self::Strided(view) => load_strided(&view.view(), offset, out),
        }
    }
}

impl<T: Element> ReadLeaf<T::Compute> for GradientLeaf<'_, T> {
    fn in_place(&self, offset: usize, len: usize) -> Option<&[T::Compute]> {
        match self.kind {
            GradientKind::Slice(data) if self.is_plain() => {
                T::as_compute(data.get(offset..offset + len)?)
            }
            _ => None,
        }
    }
    fn load(&self, offset: usize, out: &mut [T::Compute]) {
        match &self.kind {
            GradientKind::Slice(data) => load_slice(data, offset, out),
            GradientKind::Strided(view) => load_strided(view, offset, out),
            GradientKind::Rows(rows) => load_rows(rows, offset, out),
            GradientKind::Generated(generator) => load_generated(*generator, offset, out),
        }
        self.apply(out);
    }
}

fn load_slice<T: Element>(data: &[T], offset: usize, out: &mut [T::Compute]) {
    for (to, from) in out.iter_mut().zip(data.get(offset..).unwrap_or_default()) {
        *to = from.load();
    }
}

/// Rows that are not given are zero; a row given twice counts twice.
fn load_rows<T: Element>(rows: &RowGradient<T>, offset: usize, out: &mut [T::Compute]) {
    out.fill(T::Compute::of(0.0));
    rows.scatter(offset, out.len(), |i, x| {
        if let Some(sum) = out.get_mut(i) {
            *sum += x.load();
        }
    });
}

fn load_generated<T: Element>(generator: &dyn Generate<T>, offset: usize, out: &mut [T::Compute]) {
    if let Some(out) = T::from_compute_mut(out) {
        return generator.fill(offset, out);
    }
    let mut block = [T::default(); 256];
    for (part, out) in out.chunks_mut(block.len()).enumerate() {
        let block = block.get_mut(..out.len()).unwrap_or_default();
        generator.fill(offset + part * 256, block);
        out.iter_mut().zip(block).for_each(|(to, from)| *to = from.load());
    }
}

/// Rows of at most so many elements are read from the beginning of one to the end of another; longer ones
/// are divided.
const NARROW: usize = 1024;

fn load_strided<T: Element>(view: &ArrayViewD<'_, T>, offset: usize, out: &mut [T::Compute]) {
    let width: usize = view.shape().iter().skip(1).product();
    if view.ndim() == 0 || out.is_empty() || width == 0 {
        return load_all(view, 0, out);
    }
    let (first, skip, end) = (offset / width, offset % width, offset + out.len());
    if width <= NARROW {
        let rows = Slice::from(first..end.div_ceil(width));
        return load_all(&view.slice_axis(Axis(0), rows), skip, out);
    }
    let (mut rest, mut skip) = (out, skip);
    for row in view.axis_iter(Axis(0)).skip(first) {
        let (out, later) = rest.split_at_mut(rest.len().min(width - skip));
        load_strided(&row, skip, out);
        (rest, skip) = (later, 0);
        if rest.is_empty() {
            return;
        }
    }
}

/// Writes the elements of a view from the one number `skip` on.
fn load_all<T: Element, D: Dimension>(
    view: &ArrayView<'_, T, D>,
    skip: usize,
    out: &mut [T::Compute],
) {
    let mut out = out.iter_mut();
    // not `zip`: `for_each` runs over whole lanes at once
    view.iter().skip(skip).for_each(|x| {
        if let Some(to) = out.next() {
            *to = x.load();
        }
    });
}
