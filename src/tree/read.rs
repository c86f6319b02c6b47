//! One leaf of a tree, read piece by piece in the arithmetic type, whatever its form in memory.

use super::strided;
use crate::numeric::{Element, Real};
use crate::params::{Generate, GradientKind, GradientLeaf, ParamLeaf, RowGradient, generate};

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
            Self::Strided(view) => strided::read(&view.view(), offset, out, T::load),
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
            GradientKind::Strided(view) => strided::read(view, offset, out, T::load),
            GradientKind::Rows(rows) => load_rows(rows, offset, out),
            GradientKind::Generated(generator) => load_generated(*generator, offset, out),
        }
        self.apply(out);
    }
}

#[inline]
pub(crate) fn load_slice<T: Element>(data: &[T], offset: usize, out: &mut [T::Compute]) {
    for (to, from) in out.iter_mut().zip(data.get(offset..).unwrap_or_default()) {
        *to = from.load();
    }
}

/// Rows that are not given are zero; a row given twice counts twice.
pub(crate) fn load_rows<T: Element>(rows: &RowGradient<T>, offset: usize, out: &mut [T::Compute]) {
    out.fill(T::Compute::of(0.0));
    rows.scatter(offset, out.len(), |i, x| {
        if let Some(sum) = out.get_mut(i) {
            *sum += x.load();
        }
    });
}

pub(crate) fn load_generated<T: Element>(
    generator: &dyn Generate<T>,
    offset: usize,
    out: &mut [T::Compute],
) {
    if let Some(out) = T::from_compute_mut(out) {
        return generate(generator, offset, out);
    }
    let mut block = [T::default(); 256];
    for (part, out) in out.chunks_mut(block.len()).enumerate() {
        let block = block.get_mut(..out.len()).unwrap_or_default();
        generate(generator, offset + part * 256, block);
        out.iter_mut().zip(block).for_each(|(to, from)| *to = from.load());
    }
}
