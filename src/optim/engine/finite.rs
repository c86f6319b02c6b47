//! The check for gradients that are not finite: one read, before anything changes.

use crate::error::{Error, Result};
use crate::kernel::finite::max_magnitude;
use crate::kernel::{Isa, parallel};
use crate::numeric::{Element, Real};
use crate::optim::method::{GradSlice, GradSource};
use crate::params::{Generate, GradVisitor, GradientKind, GradientLeaf, generate};
use num_traits::Float;

/// Elements per piece of the check.
const PIECE: usize = 65_536;

/// Finds out whether every scaled gradient is finite.
pub(in crate::optim) fn check<T: Element>(isa: Isa, grads: &GradVisitor<'_, T>) -> Result<()> {
    let good = |leaf: &GradientLeaf<'_, T>| leaf.finite || is_finite(isa, leaf);
    let elements = grads.leaves.iter().map(|leaf| match &leaf.kind {
        GradientKind::Slice(slice) => slice.len(),
        _ => 0,
    });
    // threads are woken once for all leaves, not once per leaf
    if parallel::all(&grads.leaves, elements.sum(), good) {
        return check_curvature(isa, grads);
    }
    match grads.leaves.iter().enumerate().find(|(_, leaf)| !good(leaf)) {
        Some((leaf, gradient)) => Err(first_non_finite(grads.manifest.name(leaf), gradient)),
        None => Ok(()),
    }
}

fn check_curvature<T: Element>(isa: Isa, grads: &GradVisitor<'_, T>) -> Result<()> {
    let mut leaves = grads.curvature.iter().enumerate();
    match leaves.find(|(_, leaf)| !is_finite(isa, leaf)) {
        Some((leaf, curvature)) => {
            let name = format!("curvature of {}", grads.curvature_manifest.name(leaf));
            Err(first_non_finite(&name, curvature))
        }
        None => Ok(()),
    }
}

fn is_finite<T: Element>(isa: Isa, gradient: &GradientLeaf<'_, T>) -> bool {
    // scaling is monotone: if the largest magnitude stays finite, every one does
    let scale = T::Compute::of(gradient.scale);
    let finite = |largest: T::Compute| is_good(gradient, largest * scale);
    match &gradient.kind {
        GradientKind::Slice(slice) => slice_is_finite(isa, slice, finite),
        GradientKind::Strided(view) => view.iter().all(|x| finite(x.load())),
        GradientKind::Rows(rows) => {
            slice_is_finite(isa, rows.values(), finite)
                && rows.repeated().all(|values| sums_are_finite(values, rows.width(), finite))
        }
        GradientKind::Generated(generator) => {
            generator.is_known_finite() && scale.is_finite()
                || generated_is_finite(*generator, finite)
        }
    }
}

fn slice_is_finite<T: Element>(
    isa: Isa,
    slice: &[T],
    finite: impl Fn(T::Compute) -> bool + Sync + Send,
) -> bool {
    parallel::all_chunks(slice, PIECE, |piece| finite(max_magnitude(isa, piece)))
}

/// Whether the sum of rows of `width` elements is finite: a row given twice counts twice.
fn sums_are_finite<T: Element>(
    values: &[T],
    width: usize,
    finite: impl Fn(T::Compute) -> bool,
) -> bool {
    (0..width).all(|column| {
        let elements = values.iter().skip(column).step_by(width);
        finite(elements.map(|x| x.load()).sum())
    })
}

fn generated_is_finite<T: Element>(
    generator: &dyn Generate<T>,
    finite: impl Fn(T::Compute) -> bool,
) -> bool {
    let numel: usize = generator.shape().iter().product();
    let mut block = [T::default(); 256];
    (0..numel).step_by(block.len()).all(|offset| {
        let block = block.get_mut(..256.min(numel - offset)).unwrap_or_default();
        generate(generator, offset, block);
        block.iter().all(|x| finite(x.load()))
    })
}

/// A clamp turns infinities into numbers, but not NaN.
fn is_good<T, F: Float>(gradient: &GradientLeaf<'_, T>, scaled: F) -> bool {
    scaled.is_finite() || !scaled.is_nan() && gradient.bound.is_finite()
}

/// The error for a gradient that is known not to be finite.
fn first_non_finite<T: Element>(name: &str, gradient: &GradientLeaf<'_, T>) -> Error {
    let scale = T::Compute::of(gradient.scale);
    let scaled = |x: T| (x.load() * scale).widen();
    let bad = |(_, value): &(usize, f64)| !is_good(gradient, *value);
    let found = match &gradient.kind {
        GradientKind::Slice(slice) => slice.iter().copied().map(scaled).enumerate().find(bad),
        GradientKind::Strided(view) => view.iter().copied().map(scaled).enumerate().find(bad),
        GradientKind::Rows(rows) => {
            let source = GradSource::Rows(rows);
            let dense = GradSlice { scale: gradient.scale, bound: f64::INFINITY, start: 0, source };
            let numel: usize = rows.shape().iter().product();
            let mut block = [T::Compute::of(0.0); 256];
            (0..numel).step_by(block.len()).find_map(|offset| {
                let block = block.get_mut(..256.min(numel - offset)).unwrap_or_default();
                dense.load(offset, block);
                (offset..).zip(block.iter().map(|x| x.widen())).find(bad)
            })
        }
        GradientKind::Generated(generator) => {
            let numel: usize = generator.shape().iter().product();
            let mut element = [T::default()];
            let mut value = |index| {
                generate(*generator, index, &mut element);
                element.map(scaled).into_iter().next().map(|value| (index, value))
            };
            (0..numel).filter_map(&mut value).find(bad)
        }
    };
    let (index, value) = found.unwrap_or((0, f64::NAN));
    Error::NonFiniteGradient { name: name.to_owned(), index, value }
}
