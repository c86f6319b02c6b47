//! The check for gradients that are not finite, or too large for the arithmetic of the optimizer: one read,
//! before anything changes.

use crate::error::{Error, Result};
use crate::kernel::finite::max_magnitude;
use crate::kernel::{Isa, parallel};
use crate::numeric::{Element, Real};
use crate::optim::method::{GradSlice, GradSource};
use crate::params::{Generate, GradVisitor, GradientKind, GradientLeaf, generate};
use num_traits::Float;

/// Elements per piece of the check.
const PIECE: usize = 65_536;

/// The largest magnitude that an optimizer of this name takes.
#[derive(Clone, Copy)]
pub(in crate::optim) struct Limit<R> {
    pub largest: R,
    pub optimizer: &'static str,
}

/// Finds out whether every scaled gradient is finite, and at most `limit`.
pub(in crate::optim) fn check<T: Element>(
    isa: Isa,
    grads: &GradVisitor<'_, T>,
    limit: Limit<T::Compute>,
) -> Result<()> {
    let good = |leaf: &GradientLeaf<'_, T>| leaf.finite || is_good(isa, leaf, limit.largest);
    let elements = grads.leaves.iter().map(|leaf| match &leaf.kind {
        GradientKind::Slice(slice) => slice.len(),
        _ => 0,
    });
    // threads are woken once for all leaves, not once per leaf
    if parallel::all(&grads.leaves, elements.sum(), good) {
        return check_curvature(isa, grads, limit);
    }
    let leaves = grads.leaves.iter().enumerate().filter(|(_, leaf)| !leaf.finite);
    let named = leaves.map(|(index, leaf)| (grads.manifest.name(index).to_owned(), leaf));
    Err(first_bad(named, limit))
}

fn check_curvature<T: Element>(
    isa: Isa,
    grads: &GradVisitor<'_, T>,
    limit: Limit<T::Compute>,
) -> Result<()> {
    let mut leaves = grads.curvature.iter().enumerate();
    match leaves.find(|(_, leaf)| !is_good(isa, leaf, limit.largest)) {
        Some((leaf, curvature)) => {
            let name = format!("curvature of {}", grads.curvature_manifest.name(leaf));
            Err(first_bad([(name, curvature)].into_iter(), limit))
        }
        None => Ok(()),
    }
}

fn is_good<T: Element>(isa: Isa, gradient: &GradientLeaf<'_, T>, limit: T::Compute) -> bool {
    // scaling is monotone: if the largest magnitude stays below the limit, every one does
    let scale = T::Compute::of(gradient.scale);
    let good = |largest: T::Compute| fits(gradient, largest * scale, limit);
    match &gradient.kind {
        GradientKind::Slice(slice) => slice_is_good(isa, slice, good),
        GradientKind::Strided(view) => view.iter().all(|x| good(x.load())),
        GradientKind::Rows(rows) => {
            slice_is_good(isa, rows.values(), good)
                && rows.repeated().all(|values| sums_are_good(values, rows.width(), good))
        }
        GradientKind::Generated(generator) => generated_is_good(*generator, good),
    }
}

fn slice_is_good<T: Element>(
    isa: Isa,
    slice: &[T],
    good: impl Fn(T::Compute) -> bool + Sync + Send,
) -> bool {
    parallel::all_chunks(slice, PIECE, |piece| good(max_magnitude(isa, piece)))
}

/// Whether the sum of rows of `width` elements is good: a row given twice counts twice.
fn sums_are_good<T: Element>(
    values: &[T],
    width: usize,
    good: impl Fn(T::Compute) -> bool,
) -> bool {
    (0..width).all(|column| {
        let elements = values.iter().skip(column).step_by(width);
        good(elements.map(|x| x.load()).sum())
    })
}

fn generated_is_good<T: Element>(
    generator: &dyn Generate<T>,
    good: impl Fn(T::Compute) -> bool,
) -> bool {
    // the bound is one on magnitudes: nothing has to be generated
    if generator.bound().is_some_and(|bound| good(T::store(T::Compute::of(bound)).load())) {
        return true;
    }
    let numel: usize = generator.shape().iter().product();
    let mut block = [T::default(); 256];
    (0..numel).step_by(block.len()).all(|offset| {
        let block = block.get_mut(..256.min(numel - offset)).unwrap_or_default();
        generate(generator, offset, block);
        block.iter().all(|x| good(x.load()))
    })
}

/// Whether a scaled element is at most `limit`, and not NaN. A clamp turns infinities into numbers, but
/// not NaN.
fn fits<T, F: Float>(gradient: &GradientLeaf<'_, T>, scaled: F, limit: F) -> bool {
    let clamped = F::from(gradient.bound).filter(|bound| *bound <= limit);
    scaled.abs() <= limit || !scaled.is_nan() && clamped.is_some()
}

/// The error for gradients of which one is known not to be good.
fn first_bad<'g, 'a: 'g, T: Element>(
    leaves: impl Iterator<Item = (String, &'g GradientLeaf<'a, T>)> + Clone,
    Limit { largest, optimizer }: Limit<T::Compute>,
) -> Error {
    let first = |limit: f64| {
        let mut leaves = leaves.clone();
        leaves.find_map(|(name, leaf)| first_above(leaf, limit).map(|found| (name, found)))
    };
    // what is no number at all is the graver fault, wherever it is
    let found = first(f64::MAX).or_else(|| first(largest.widen()));
    let (name, (index, value)) = found.unwrap_or_else(|| (String::new(), (0, f64::NAN)));
    if !value.is_finite() {
        return Error::NonFiniteGradient { name, index, value };
    }
    Error::GradientTooLarge { optimizer, name, index, value, limit: largest.widen() }
}

/// The first element whose magnitude is above `limit`, or which is NaN.
fn first_above<T: Element>(gradient: &GradientLeaf<'_, T>, limit: f64) -> Option<(usize, f64)> {
    let scale = T::Compute::of(gradient.scale);
    // a clip makes the factor 0 for an infinity, which is to be named as what it is
    let scaled = |x: T| match (x.load() * scale, x.load()) {
        (product, x) if product.is_nan() && x.is_infinite() => x.widen(),
        (product, _) => product.widen(),
    };
    let bad = |(_, value): &(usize, f64)| !fits(gradient, *value, limit);
    match &gradient.kind {
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
    }
}
