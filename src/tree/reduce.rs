//! Numbers of whole trees. Work is cut by shapes alone, and partial sums are added in order.

use super::matching::{MISSING, Places, match_leaves};
use super::read::ReadLeaf;
use super::source::{Leaves, Source};
use super::walk::walk;
use crate::error::Result;
use crate::kernel::scratch::with_kept;
use crate::kernel::{Isa, parallel, zip};
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};

/// Elements per partial sum. A constant, so that sums depend on shapes alone.
const CHUNK: usize = 1 << 16;

/// `Σ x·y` over all leaves, in `f64`.
///
/// Both trees must have the same leaves, in whatever order; see [`or_zero`](super::or_zero) for gradients that
/// are absent. The sum depends neither on threads nor on the order of elements in memory. Leaves are added in
/// the order of `x`.
///
/// # Errors
/// [`Error::MissingParameter`](crate::Error::MissingParameter),
/// [`Error::UnknownLeaf`](crate::Error::UnknownLeaf),
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch),
/// [`Error::DuplicateName`](crate::Error::DuplicateName),
/// [`Error::LengthMismatch`](crate::Error::LengthMismatch); each names the leaf.
///
/// # Examples
/// ```
/// use eigenstep::tree::dot;
/// use ndarray::array;
///
/// let (gradient, direction) = ((array![1.0f32, 2.0], array![3.0f32]), (array![4.0f32, 5.0], array![-6.0f32]));
/// assert_eq!(dot(&gradient, &direction)?, -4.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn dot<A, B>(x: impl Source<A>, y: impl Source<B>) -> Result<f64>
where
    A: Element,
    B: Element<Compute = A::Compute>,
{
    both(x, y, &mut |pairs| pairs.sum(&|x: A::Compute, y| x.widen() * y.widen()))
}

/// The Euclidean norm `√Σ x²` of all leaves together, in `f64`.
///
/// Squares that would overflow or vanish are taken of scaled elements, so the norm is right wherever it can
/// be represented. A NaN makes it NaN, an infinity infinite. Of dense gradients it is
/// [`total_norm`](crate::gradient::total_norm) to the bit, which does not scale: only where the sum of squares
/// neither overflows nor loses one that counts.
///
/// # Errors
/// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit its shape.
///
/// # Examples
/// ```
/// use eigenstep::tree::norm;
/// use ndarray::array;
///
/// assert_eq!(norm(&(array![3.0f32], array![[0.0f32, -4.0]]))?, 5.0);
/// assert!((norm(&array![3e200, 4e200])? / 5e200 - 1.0).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn norm<T: Element>(x: impl Source<T>) -> Result<f64> {
    alone(x, &mut |pairs| euclidean(pairs, &|x: T::Compute, _| x))
}

/// The sum of magnitudes `Σ |x|` of all leaves, in `f64`.
///
/// # Errors
/// As [`norm`].
///
/// # Examples
/// ```
/// assert_eq!(eigenstep::tree::norm1(&ndarray::array![3.0f32, -4.0])?, 7.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn norm1<T: Element>(x: impl Source<T>) -> Result<f64> {
    alone(x, &mut |pairs| pairs.sum(&|x: T::Compute, _| x.widen().abs()))
}

/// The largest magnitude `max |x|` of all leaves; 0 without any element. A NaN makes it NaN.
///
/// # Errors
/// As [`norm`].
///
/// # Examples
/// ```
/// assert_eq!(eigenstep::tree::norm_max(&ndarray::array![3.0f32, -4.0])?, 4.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn norm_max<T: Element>(x: impl Source<T>) -> Result<f64> {
    alone(x, &mut |pairs| pairs.max(&|x: T::Compute, _| x))
}

/// The distance `‖x − y‖₂`: the [`norm`] of the difference, which is not stored.
///
/// # Errors
/// As [`dot`].
///
/// # Examples
/// ```
/// use eigenstep::tree::distance;
/// use ndarray::array;
///
/// assert_eq!(distance(&array![1.0f32, 5.0], &array![4.0f32, 1.0])?, 5.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn distance<A, B>(x: impl Source<A>, y: impl Source<B>) -> Result<f64>
where
    A: Element,
    B: Element<Compute = A::Compute>,
{
    both(x, y, &mut |pairs| euclidean(pairs, &|x: A::Compute, y| x - y))
}

/// Sums between these bounds have neither overflowed nor lost a square that counts: squares that vanish are
/// below `2⁻¹⁰⁷⁴`, and even 2⁶⁰ of them are far below the last bit of such a sum.
const SAFE: std::ops::Range<f64> = 1e-271..f64::MAX;

/// `√Σ f(x, y)²`.
fn euclidean<R: Real>(pairs: &Pairs<'_, R>, f: &(impl Fn(R, R) -> R + Sync)) -> f64 {
    let squares = pairs.sum(&|x, y| {
        let x = f(x, y).widen();
        x * x
    });
    if SAFE.contains(&squares) {
        return squares.sqrt();
    }
    let max = pairs.max(f);
    if max == 0.0 || !max.is_finite() {
        return max;
    }
    let scale = inverse_power_of_two(max);
    let squares = pairs.sum(&|x, y| {
        let x = f(x, y).widen() * scale;
        x * x
    });
    squares.sqrt() / scale
}

/// The power of two `s` for which `s·x` lies in `[1, 2)`, or the largest one.
fn inverse_power_of_two(x: f64) -> f64 {
    let exponent = (x.to_bits() >> 52) & 0x7ff;
    // 2^(1023 − exponent) of the biased exponent; the power 2⁻¹⁰²³ is subnormal
    match 2046u64.saturating_sub(exponent.max(1)) {
        0 => f64::from_bits(1 << 51),
        biased => f64::from_bits(biased << 52),
    }
}

fn alone<T: Element>(
    x: impl Source<T>,
    f: &mut dyn FnMut(&Pairs<'_, T::Compute>) -> f64,
) -> Result<f64> {
    let mut found = 0.0;
    x.read(&mut |x| {
        with_units(|units| {
            (0..x.manifest.len()).for_each(|leaf| units.cut((leaf, leaf), x.numel(leaf)));
            found = f(&Pairs { x: *x, y: None, units });
        });
        Ok(())
    })?;
    Ok(found)
}

fn both<A, B>(
    x: impl Source<A>,
    y: impl Source<B>,
    f: &mut dyn FnMut(&Pairs<'_, A::Compute>) -> f64,
) -> Result<f64>
where
    A: Element,
    B: Element<Compute = A::Compute>,
{
    let (mut found, mut y) = (0.0, Some(y));
    x.read(&mut |x| {
        // a tree is read once
        let Some(y) = y.take() else { return Ok(()) };
        y.read(&mut |y| {
            with_kept(|places: &mut Places| {
                match_leaves(x.manifest, y, x.or_zero, places)?;
                with_units(|units| {
                    for (leaf, &of) in places.of.iter().enumerate() {
                        units.cut((leaf, of), x.numel(leaf));
                    }
                    for &leaf in &places.unknown {
                        units.cut((MISSING, leaf), y.numel(leaf));
                    }
                    found = f(&Pairs { x: *x, y: Some(*y), units });
                });
                Ok(())
            })
        })
    })?;
    Ok(found)
}

/// Trees whose elements are looked at in pairs; without a second one those of the first with themselves.
struct Pairs<'a, R> {
    x: Leaves<'a, R>,
    y: Option<Leaves<'a, R>>,
    units: &'a Units,
}

impl<R: Real> Pairs<'_, R> {
    /// `Σ f(x, y)`: by chunk, then by leaf, then over all leaves.
    fn sum(&self, f: &(impl Fn(R, R) -> f64 + Sync)) -> f64 {
        let isa = Isa::detect();
        let of_unit = |unit: &Unit| {
            let mut lanes = LaneSum::default();
            self.walk(unit, |pair| zip::sum(isa, &mut lanes, pair, f));
            lanes.total()
        };
        let (mut total, mut of_leaf) = (0.0, 0.0);
        self.units.each(&of_unit, |unit, sum| {
            if unit.start == 0 {
                total += of_leaf;
                of_leaf = 0.0;
            }
            of_leaf += sum;
        });
        total + of_leaf
    }

    /// `max |f(x, y)|`.
    fn max(&self, f: &(impl Fn(R, R) -> R + Sync)) -> f64 {
        let isa = Isa::detect();
        let larger = |a: f64, b: f64| if a >= b || a.is_nan() { a } else { b };
        let of_unit = |unit: &Unit| {
            let mut max = 0.0;
            self.walk(unit, |pair| max = larger(max, zip::max(isa, pair, f).widen()));
            max
        };
        let mut max = 0.0;
        self.units.each(&of_unit, |_, of_unit| max = larger(max, of_unit));
        max
    }

    fn walk(&self, unit: &Unit, mut f: impl FnMut([&[R]; 2])) {
        let range = unit.start..unit.start + unit.len;
        let x: &dyn ReadLeaf<R> = self.x.leaf(unit.leaves.0);
        match self.y {
            Some(y) => walk([x, y.leaf(unit.leaves.1)], range, |_, _, pair| f(pair)),
            None => walk([x], range, |_, _, [x]| f([x, x])),
        }
    }
}

/// A chunk of a pair of leaves.
#[derive(Clone, Copy)]
struct Unit {
    leaves: (usize, usize),
    start: usize,
    len: usize,
}

/// All chunks, and what was found out about each; kept for its memory.
#[derive(Default)]
struct Units {
    units: Vec<Unit>,
    elements: usize,
}

impl Units {
    fn cut(&mut self, leaves: (usize, usize), numel: usize) {
        let unit = |start| Unit { leaves, start, len: CHUNK.min(numel - start) };
        self.units.extend((0..numel).step_by(CHUNK).map(unit));
        self.elements += numel;
    }

    /// Calls `measure` for every chunk, on all threads, and then `collect` in order.
    fn each(&self, measure: &(dyn Fn(&Unit) -> f64 + Sync), mut collect: impl FnMut(&Unit, f64)) {
        with_kept(|results: &mut Vec<(usize, f64)>| {
            results.clear();
            results.extend((0..self.units.len()).map(|i| (i, 0.0)));
            parallel::for_each(results, self.elements, |(i, result)| {
                *result = self.units.get(*i).map_or(0.0, measure);
            });
            for (unit, (_, result)) in self.units.iter().zip(results) {
                collect(unit, *result);
            }
        });
    }
}

fn with_units(f: impl FnOnce(&mut Units)) {
    with_kept(|units: &mut Units| {
        units.units.clear();
        units.elements = 0;
        f(units);
    });
}

#[cfg(test)]
mod tests {
    use super::inverse_power_of_two;

    #[test]
    fn powers_of_two() {
        let largest = f64::from_bits(0x7fd0_0000_0000_0000);
        for (x, expected) in [(1.0, 1.0), (3.9, 0.5), (0.3, 4.0), (5e-324, largest)] {
            assert_eq!(inverse_power_of_two(x), expected, "{x}");
        }
        for x in [f64::MAX, f64::MIN_POSITIVE, 1e300, 1e-300] {
            assert!((1.0..2.0).contains(&(inverse_power_of_two(x) * x)), "{x}");
        }
    }
}
