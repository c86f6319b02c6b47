//! Norms of whole trees of gradients, with the same bits for any number of threads.

use super::blocks::{collect, is_divisible, numel, visit};
use crate::error::{Error, Result};
use crate::kernel::{Isa, Kernel, parallel};
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};
use crate::params::{GradVisitor, GradientLeaf, Gradients, Manifest};
use std::ops::Range;

/// Elements per partial sum. A constant, so that sums depend on shapes alone.
const CHUNK: usize = 1 << 16;

/// The norm of all gradients together, seen as one vector: PyTorch's `get_total_norm`.
///
/// ```text
/// p finite, not 0:  (Σ |g|^p)^(1/p)
/// p = ∞, −∞:        max |g|, min |g|
/// p = 0:            number of tensors that have a non-zero element
/// ```
/// Sums are made in `f64`, in an order that depends on shapes alone; where powers leave its range, of
/// gradients over the largest of them, in a second pass. Without any gradient the norm is 0. A NaN makes
/// it NaN.
///
/// # Errors
/// [`Error::InvalidHyperparameter`] if `norm_type` is NaN; [`Error::LengthMismatch`] for a buffer
/// that does not fit its shape.
///
/// # Examples
/// ```
/// use eigenstep::gradient::total_norm;
/// use ndarray::array;
///
/// let grads = (array![3.0f32, 0.0], array![[-4.0f32]]);
/// assert_eq!(total_norm(&grads, 2.0)?, 5.0);
/// assert_eq!(total_norm(&grads, 1.0)?, 7.0);
/// assert_eq!(total_norm(&grads, f64::INFINITY)?, 4.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn total_norm<T: Element, G: Gradients<T> + ?Sized>(grads: &G, norm_type: f64) -> Result<f64> {
    if norm_type.is_nan() {
        return Err(Error::InvalidHyperparameter {
            optimizer: "total_norm",
            field: "norm_type",
            expected: "a number".into(),
            found: "NaN".into(),
        });
    }
    Ok(norm_of(&collect(grads)?, norm_type))
}

/// Apart from [`total_norm`], so that its loops are compiled once and not for every type of tree.
fn norm_of<T: Element>(tree: &GradVisitor<'_, T>, norm_type: f64) -> f64 {
    if norm_type == 2.0 {
        in_range(tree, |x| x * x, f64::sqrt)
    } else if norm_type == 1.0 {
        sum(tree, f64::abs)
    } else if norm_type == 3.0 {
        in_range(tree, |x| (x * x * x).abs(), |sum| sum.powf(1.0 / 3.0))
    } else if norm_type == 0.5 {
        let root = sum(tree, |x| x.abs().sqrt());
        root * root
    } else if norm_type == 0.0 {
        let nonzero = Sum(|x: f64| f64::from(u8::from(x != 0.0)));
        leaves(tree, nonzero).filter(|&count| count > 0.0).count() as f64
    } else if norm_type.is_infinite() {
        let (min, max) = extremes(tree);
        // a NaN is the maximum, and makes the minimum NaN, too
        if norm_type > 0.0 || max.is_nan() { max } else { min }
    } else {
        in_range(tree, move |x| x.abs().powf(norm_type), move |sum| sum.powf(1.0 / norm_type))
    }
}

/// `root(Σ power(g))`, for gradients over the largest of them where the plain sum has left the range of
/// `f64`, or is so small that some of its terms may have.
fn in_range<T: Element>(
    tree: &GradVisitor<'_, T>,
    power: impl Fn(f64) -> f64 + Copy + Send + Sync,
    root: impl Fn(f64) -> f64,
) -> f64 {
    let plain = sum(tree, power);
    let exact =
        plain.is_nan() || (f64::MIN_POSITIVE / f64::EPSILON..f64::INFINITY).contains(&plain);
    let largest = if exact { 0.0 } else { extremes(tree).1 };
    if largest == 0.0 || !largest.is_finite() {
        return root(plain);
    }
    largest * root(sum(tree, move |x| power(x / largest)))
}

/// Smallest and largest magnitude; 0 without gradients.
fn extremes<T: Element>(tree: &GradVisitor<'_, T>) -> (f64, f64) {
    let all = leaves(tree, Extremes).reduce(|a, b| Extremes.join(a, b));
    all.filter(|&(min, max)| min <= max || max.is_nan()).unwrap_or_default()
}

/// `Σ f(g)`; 0 without gradients.
fn sum<T: Element>(tree: &GradVisitor<'_, T>, f: impl Fn(f64) -> f64 + Copy + Send + Sync) -> f64 {
    leaves(tree, Sum(f)).sum()
}

/// Something to find out about many elements, in parts.
trait Measure: Copy + Send + Sync {
    /// State within a chunk.
    type Running: Copy;
    /// Result of a chunk, a leaf, a tree.
    type Total: Copy + Send;
    fn start(self) -> Self::Running;
    fn extend<R: Real>(self, running: &mut Self::Running, xs: &[R]);
    fn total(self, running: Self::Running) -> Self::Total;
    fn join(self, a: Self::Total, b: Self::Total) -> Self::Total;
}

/// `Σ f(x)`.
#[derive(Clone, Copy)]
struct Sum<F>(F);

impl<F: Fn(f64) -> f64 + Copy + Send + Sync> Measure for Sum<F> {
    type Running = LaneSum;
    type Total = f64;
    fn start(self) -> LaneSum {
        LaneSum::default()
    }
    #[inline(always)]
    fn extend<R: Real>(self, running: &mut LaneSum, xs: &[R]) {
        running.extend(xs, |x| (self.0)(x.widen()));
    }
    fn total(self, running: LaneSum) -> f64 {
        running.total()
    }
    fn join(self, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// Smallest and largest `|x|`; NaN counts as largest.
#[derive(Clone, Copy)]
struct Extremes;

impl Measure for Extremes {
    type Running = (f64, f64);
    type Total = (f64, f64);
    fn start(self) -> (f64, f64) {
        (f64::INFINITY, 0.0)
    }
    #[inline(always)]
    fn extend<R: Real>(self, running: &mut (f64, f64), xs: &[R]) {
        // as integers, so that the loop vectorises and NaN orders above infinity
        let mut min = R::infinity().magnitude_bits();
        let mut max = R::zero().magnitude_bits();
        for x in xs {
            let bits = x.magnitude_bits();
            min = min.min(bits);
            max = max.max(bits);
        }
        let widen = |bits| R::from_magnitude_bits(bits).widen();
        *running = self.join(*running, (widen(min), widen(max)));
    }
    fn total(self, running: (f64, f64)) -> (f64, f64) {
        running
    }
    fn join(self, a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
        // `max` would drop a NaN
        (a.0.min(b.0), if a.1 >= b.1 || a.1.is_nan() { a.1 } else { b.1 })
    }
}

/// One loop over one block.
struct Extend<'a, M: Measure, R>(M, &'a mut M::Running, &'a [R]);

impl<M: Measure, R: Real> Kernel for Extend<'_, M, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        // a copy stays in registers; what a reference leads to is written after every block
        let mut running = *self.1;
        self.0.extend(&mut running, self.2);
        *self.1 = running;
    }
}

/// Measures the elements `range` of a leaf, chunk by chunk.
fn measure<T: Element, M: Measure>(
    leaf: &GradientLeaf<'_, T>,
    range: Range<usize>,
    measure: M,
) -> M::Total {
    let isa = Isa::detect();
    let len = range.len();
    let (mut total, mut running, mut in_chunk, mut seen) = (None, measure.start(), 0, 0);
    let close = |total: Option<M::Total>, running| {
        let chunk = measure.total(running);
        Some(total.map_or(chunk, |total| measure.join(total, chunk)))
    };
    visit(leaf, range, |_, block| {
        isa.run(Extend(measure, &mut running, block));
        seen += block.len();
        in_chunk += block.len();
        if in_chunk >= CHUNK {
            total = close(total, running);
            (running, in_chunk) = (measure.start(), 0);
        }
    });
    if seen < len {
        // the rows that are not there: one zero stands for all, as f(0) is 0 or infinite
        isa.run(Extend(measure, &mut running, &[T::Compute::default()]));
        in_chunk += 1;
    }
    if in_chunk > 0 || total.is_none() { close(total, running) } else { total }
        .unwrap_or_else(|| measure.total(measure.start()))
}

/// A part of the work: a chunk of a divisible leaf, or another leaf whole.
struct Unit<M: Measure> {
    leaf: usize,
    range: Range<usize>,
    total: Option<M::Total>,
}

fn units<T, M: Measure>(manifest: &Manifest, leaves: &[GradientLeaf<'_, T>]) -> Vec<Unit<M>> {
    let mut units = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        let numel = numel(manifest, i);
        let step = if is_divisible(leaf) { CHUNK } else { numel.max(1) };
        let starts = (0..numel).step_by(step);
        let unit = |start| Unit { leaf: i, range: start..numel.min(start + step), total: None };
        units.extend(starts.map(unit));
    }
    units
}

/// Measures every leaf that has elements, in order.
fn leaves<T: Element, M: Measure>(
    tree: &GradVisitor<'_, T>,
    by: M,
) -> impl Iterator<Item = M::Total> {
    let mut units = units::<T, M>(&tree.manifest, &tree.leaves);
    let elements = units.iter().map(|unit| unit.range.len()).sum();
    parallel::for_each(&mut units, elements, |unit| {
        unit.total = tree.leaves.get(unit.leaf).map(|leaf| measure(leaf, unit.range.clone(), by));
    });
    let mut totals: Vec<(usize, M::Total)> = Vec::new();
    for (leaf, part) in units.iter().filter_map(|unit| Some((unit.leaf, unit.total?))) {
        match totals.last_mut().filter(|(last, _)| *last == leaf) {
            Some((_, total)) => *total = by.join(*total, part),
            None => totals.push((leaf, part)),
        }
    }
    totals.into_iter().map(|(_, total)| total)
}
