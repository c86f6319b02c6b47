//! The elements of a gradient as the update sees them, block by block: scaled, clamped, in the
//! arithmetic type, whatever the gradient's form.

use crate::error::Result;
use crate::numeric::Element;
use crate::params::{
    GradBuffers, GradVisitor, GradientKind, GradientLeaf, Gradients, Manifest, RowGradient,
    generate,
};
use std::ops::Range;

/// Elements per block: small enough for the first-level cache, a multiple of the lanes of a sum.
const BLOCK: usize = 1024;

/// All leaves of a tree of gradients.
pub(super) fn collect<'g, T: Element, G: Gradients<T> + ?Sized>(
    grads: &'g G,
) -> Result<GradVisitor<'g, T>> {
    let mut visitor = GradVisitor::new(GradBuffers::default(), Manifest::default());
    visitor.collect(grads)?;
    Ok(visitor)
}

/// Number of elements of a leaf.
pub(super) fn numel(manifest: &Manifest, leaf: usize) -> usize {
    manifest.shape(leaf).iter().product()
}

/// Whether any range of the leaf can be asked for.
pub(super) fn is_divisible<T>(leaf: &GradientLeaf<'_, T>) -> bool {
    matches!(leaf.kind, GradientKind::Slice(_) | GradientKind::Generated(_))
}

/// Calls `visit(offset, block)` for the elements `range`, ascending.
///
/// Leaves that are not divisible are visited whole. Of a gradient of rows only the rows given are
/// visited, duplicates added up; all other elements are zero.
pub(super) fn visit<T: Element>(
    leaf: &GradientLeaf<'_, T>,
    range: Range<usize>,
    mut visit: impl FnMut(usize, &[T::Compute]),
) {
    match &leaf.kind {
        GradientKind::Slice(data) => {
            let data = data.get(range.clone()).unwrap_or_default();
            match T::as_compute(data).filter(|_| leaf.is_plain()) {
                Some(data) => visit(range.start, data),
                None => copied(leaf, range.start, data.iter().copied(), visit),
            }
        }
        GradientKind::Strided(array) => copied(leaf, 0, array.iter().copied(), visit),
        GradientKind::Rows(rows) => merged(leaf, rows, visit),
        GradientKind::Generated(generator) => {
            let mut raw = [T::default(); BLOCK];
            for start in range.clone().step_by(BLOCK) {
                let len = BLOCK.min(range.end - start);
                let raw = raw.get_mut(..len).unwrap_or_default();
                generate(*generator, start, raw);
                copied(leaf, start, raw.iter().copied(), &mut visit);
            }
        }
    }
}

/// Passes the elements on through a buffer.
fn copied<T: Element>(
    leaf: &GradientLeaf<'_, T>,
    start: usize,
    elements: impl Iterator<Item = T>,
    mut visit: impl FnMut(usize, &[T::Compute]),
) {
    let mut buffer = [T::Compute::default(); BLOCK];
    let mut elements = elements.map(T::load).fuse();
    let mut offset = start;
    loop {
        let mut len = 0;
        for (slot, x) in buffer.iter_mut().zip(elements.by_ref()) {
            *slot = x;
            len += 1;
        }
        let block = buffer.get_mut(..len).unwrap_or_default();
        if block.is_empty() {
            return;
        }
        leaf.apply(block);
        visit(offset, block);
        offset += len;
    }
}

/// Passes the rows on, ascending, rows given twice added up.
fn merged<T: Element>(
    leaf: &GradientLeaf<'_, T>,
    gradient: &RowGradient<T>,
    mut visit: impl FnMut(usize, &[T::Compute]),
) {
    if gradient.values().is_empty() {
        // no element of a row whose width is only claimed
        return;
    }
    let shape = gradient.shape();
    let width: usize = shape.iter().skip(1).product();
    let mut sum = vec![T::Compute::default(); width];
    let mut current = None;
    let mut flush = |row: Option<usize>, sum: &mut [T::Compute]| {
        if let Some(row) = row {
            leaf.apply(sum);
            visit(row * width, sum);
            sum.fill(T::Compute::default());
        }
    };
    gradient.scatter(0, shape.iter().product(), |i, x| {
        let row = Some(i / width);
        if row != current {
            flush(current, &mut sum);
            current = row;
        }
        if let Some(slot) = sum.get_mut(i % width) {
            *slot += x.load();
        }
    });
    flush(current, &mut sum);
}
