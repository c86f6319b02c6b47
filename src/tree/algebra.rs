//! What is computed element by element, in place.

use super::matching::{MISSING, Places, match_leaves};
use super::read::ReadLeaf;
use super::source::{Leaves, Source, visit};
use super::strided;
use super::units::{self, Unit};
use super::walk::walk;
use crate::error::Result;
use crate::kernel::scratch::{with_kept, with_scratch};
use crate::kernel::{CHUNK, Isa, zip};
use crate::numeric::range::flushed;
use crate::numeric::{Element, Real};
use crate::params::{Manifest, ParamLeaf, Parameters};

/// `y ← value`, for every element.
///
/// # Errors
/// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit its shape. Nothing
/// has changed then.
///
/// # Examples
/// ```
/// let mut y = (ndarray::array![1.0f32, 2.0], ndarray::array![3.0f32]);
/// eigenstep::tree::fill(0.5, &mut y)?;
/// assert_eq!(y, (ndarray::array![0.5, 0.5], ndarray::array![0.5]));
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn fill<T: Element, P: Parameters<T> + ?Sized>(value: f64, y: &mut P) -> Result<()> {
    let value = T::Compute::of(value);
    map(y, move |_| value)
}

/// `y ← α·y`.
///
/// # Errors
/// As [`fill`].
///
/// # Examples
/// ```
/// let mut y = ndarray::array![1.0f32, -2.0];
/// eigenstep::tree::scale(2.0, &mut y)?;
/// assert_eq!(y, ndarray::array![2.0, -4.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn scale<T: Element, P: Parameters<T> + ?Sized>(alpha: f64, y: &mut P) -> Result<()> {
    let alpha = T::Compute::of(alpha);
    map(y, move |y| alpha * y)
}

/// `y ← f(y)`, for every element.
///
/// # Errors
/// As [`fill`].
///
/// # Examples
/// ```
/// let mut y = ndarray::array![1.0f32, -2.0];
/// eigenstep::tree::map(&mut y, |y| y.abs())?;
/// assert_eq!(y, ndarray::array![1.0, 2.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn map<T, P, F>(y: &mut P, f: F) -> Result<()>
where
    T: Element,
    P: Parameters<T> + ?Sized,
    F: Fn(T::Compute) -> T::Compute + Sync + Send,
{
    update([], y, &|[], y| f(y))
}

/// `y ← x`, rounded to the elements of `y`.
///
/// Both trees must have the same leaves, in whatever order; see [`or_zero`](super::or_zero) for gradients that
/// are absent. For a copy that keeps every bit, also of a NaN, see [`Snapshot`](super::Snapshot).
///
/// # Errors
/// [`Error::MissingParameter`](crate::Error::MissingParameter): a leaf of `y` that `x` does not have;
/// [`Error::UnknownLeaf`](crate::Error::UnknownLeaf): one of `x` that `y` does not have;
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch),
/// [`Error::DuplicateName`](crate::Error::DuplicateName),
/// [`Error::LengthMismatch`](crate::Error::LengthMismatch). Nothing has changed then.
///
/// # Examples
/// ```
/// let mut y = ndarray::array![1.0f32, -2.0];
/// eigenstep::tree::copy(&ndarray::array![3.0f32, 4.0], &mut y)?;
/// assert_eq!(y, ndarray::array![3.0, 4.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn copy<S, T, P>(x: impl Source<S>, y: &mut P) -> Result<()>
where
    S: Element<Compute = T::Compute>,
    T: Element,
    P: Parameters<T> + ?Sized,
{
    zip_map(x, y, |x, _| x)
}

/// `y ← y + α·x`.
///
/// # Errors
/// As [`copy`].
///
/// # Examples
/// ```
/// use ndarray::array;
///
/// let (mut model, direction) = (array![1.0f32, 2.0], array![10.0f32, -10.0]);
/// eigenstep::tree::axpy(0.5, &direction, &mut model)?;
/// assert_eq!(model, array![6.0, -3.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn axpy<S, T, P>(alpha: f64, x: impl Source<S>, y: &mut P) -> Result<()>
where
    S: Element<Compute = T::Compute>,
    T: Element,
    P: Parameters<T> + ?Sized,
{
    let alpha = T::Compute::of(alpha);
    zip_map(x, y, move |x, y| y + alpha * x)
}

/// `y` moved towards `x` by the share `w` of the way: linear interpolation.
///
/// ```text
/// w < ½:  y ← y + w·(x − y)
/// else    y ← x − (1 − w)·(x − y)
/// ```
/// So `w = 0` leaves `y` and `w = 1` gives `x`, to the bit; where `x` and `y` are equal, `y` stays. What has
/// decayed to nothing on the way, below 1024 times the smallest normal number, becomes 0.
///
/// # Errors
/// As [`copy`].
///
/// # Examples
/// An average of weights:
/// ```
/// use eigenstep::tree::{TreeVec, lerp};
/// use ndarray::array;
///
/// let mut average = TreeVec::<f32>::new();
/// for (t, model) in [array![1.0f32], array![2.0], array![6.0]].iter().enumerate() {
///     match t {
///         0 => average.assign(model)?,
///         _ => lerp(1.0 / (t + 1) as f64, model, &mut average)?,
///     }
/// }
/// assert_eq!(average.values(), [3.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn lerp<S, T, P>(w: f64, x: impl Source<S>, y: &mut P) -> Result<()>
where
    S: Element<Compute = T::Compute>,
    T: Element,
    P: Parameters<T> + ?Sized,
{
    zip_map(x, y, between(w))
}

/// What lies the share `w` of the way from `y` to `x`, as a function of both.
///
/// To the bit, 0 is `y`, 1 is `x`, and between equal numbers lies nothing else.
pub(crate) fn between<R: Real>(w: f64) -> impl Fn(R, R) -> R + Sync + Send + Copy {
    let (near, rest, first) = (R::of(w), R::of(1.0 - w), w < 0.5);
    move |x, y| {
        if w == 1.0 {
            x
        } else if w == 0.0 || x == y {
            y
        } else if !(x - y).is_finite() {
            // the difference of large numbers may be beyond the range when what lies between is not
            rest * y + near * x
        } else if first {
            flushed(y + near * (x - y))
        } else {
            flushed(x - rest * (x - y))
        }
    }
}

/// `y ← a − b`.
///
/// # Errors
/// As [`copy`], for both `a` and `b`.
///
/// # Examples
/// ```
/// use eigenstep::tree::{TreeVec, difference};
/// use ndarray::array;
///
/// let (new, old) = (array![3.0f32, 4.0], array![1.0f32, 1.0]);
/// let mut y = TreeVec::<f32>::zeros_like(&new)?;
/// difference(&new, &old, &mut y)?;
/// assert_eq!(y.values(), [2.0, 3.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn difference<A, B, T, P>(a: impl Source<A>, b: impl Source<B>, y: &mut P) -> Result<()>
where
    A: Element<Compute = T::Compute>,
    B: Element<Compute = T::Compute>,
    T: Element,
    P: Parameters<T> + ?Sized,
{
    zip_map3(a, b, y, |a, b, _| a - b)
}

/// `y ← f(x, y)`, for every element.
///
/// The function sees the elements in their arithmetic type, `f32` or `f64`; the result is rounded to the
/// elements of `y`. It is called on all threads, in any order.
///
/// # Errors
/// As [`copy`].
///
/// # Examples
/// Conjugate directions, `d ← −r + βd`:
/// ```
/// use ndarray::array;
///
/// let (residual, mut direction) = (array![1.0f32, 2.0], array![4.0f32, 4.0]);
/// let beta = 0.5;
/// eigenstep::tree::zip_map(&residual, &mut direction, |r, d| beta * d - r)?;
/// assert_eq!(direction, array![1.0, 0.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn zip_map<S, T, P, F>(x: impl Source<S>, y: &mut P, f: F) -> Result<()>
where
    S: Element<Compute = T::Compute>,
    T: Element,
    P: Parameters<T> + ?Sized,
    F: Fn(T::Compute, T::Compute) -> T::Compute + Sync + Send,
{
    x.read(&mut |x| update([x], y, &|[x], y| f(x, y)))
}

/// `y ← f(a, b, y)`, for every element; see [`zip_map`].
///
/// # Errors
/// As [`copy`], for both `a` and `b`.
///
/// # Examples
/// ```
/// use ndarray::array;
///
/// let (g, h, mut p) = (array![1.0f32, 9.0], array![2.0f32, 3.0], array![0.0f32, 0.0]);
/// eigenstep::tree::zip_map3(&g, &h, &mut p, |g, h, p| p - g / h)?;
/// assert_eq!(p, array![-0.5, -3.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn zip_map3<A, B, T, P, F>(a: impl Source<A>, b: impl Source<B>, y: &mut P, f: F) -> Result<()>
where
    A: Element<Compute = T::Compute>,
    B: Element<Compute = T::Compute>,
    T: Element,
    P: Parameters<T> + ?Sized,
    F: Fn(T::Compute, T::Compute, T::Compute) -> T::Compute + Sync + Send,
{
    let mut b = Some(b);
    a.read(&mut |a| {
        // a tree is read once
        let Some(b) = b.take() else { return Ok(()) };
        b.read(&mut |b| update([a, b], y, &|[a, b], y| f(a, b, y)))
    })
}

/// `y ← f(sources, y)`, for every element, after all checks.
pub(super) fn update<T, P, F, const N: usize>(
    sources: [&Leaves<'_, T::Compute>; N],
    y: &mut P,
    f: &F,
) -> Result<()>
where
    T: Element,
    P: Parameters<T> + ?Sized,
    F: Fn([T::Compute; N], T::Compute) -> T::Compute + Sync + Send,
{
    visit(y, &mut |manifest, leaves| update_leaves(sources, (manifest, &mut *leaves), f))
}

/// Apart from [`update`], so that it is compiled once and not for every type of tree.
fn update_leaves<T, F, const N: usize>(
    sources: [&Leaves<'_, T::Compute>; N],
    (manifest, leaves): (&Manifest, &mut [ParamLeaf<'_, T>]),
    f: &F,
) -> Result<()>
where
    T: Element,
    F: Fn([T::Compute; N], T::Compute) -> T::Compute + Sync + Send,
{
    with_places(sources, manifest, |places| {
        let isa = Isa::detect();
        units::for_each(leaves, CHUNK, |unit| {
            let mut places = places.iter();
            let sources = sources.map(|source| {
                let place = places.next().and_then(|places| places.of.get(unit.leaf));
                source.leaf(place.copied().unwrap_or(MISSING))
            });
            update_unit(isa, unit, sources, f);
        });
    })
}

/// Calls `f` with the places of the leaves of every source, if they all fit the leaves of a tree.
fn with_places<R: Real, const N: usize>(
    sources: [&Leaves<'_, R>; N],
    manifest: &Manifest,
    f: impl FnOnce(&[Places]),
) -> Result<()> {
    with_kept(|kept: &mut Vec<Places>| {
        kept.resize_with(kept.len().max(N), Places::default);
        for (source, places) in sources.iter().zip(&mut *kept) {
            match_leaves(manifest, source, false, places)?;
        }
        f(kept.get(..N).unwrap_or_default());
        Ok(())
    })
}

fn update_unit<T, F, const N: usize>(
    isa: Isa,
    Unit { offset, memory, .. }: &mut Unit<'_, T>,
    sources: [&dyn ReadLeaf<T::Compute>; N],
    f: &F,
) where
    T: Element,
    F: Fn([T::Compute; N], T::Compute) -> T::Compute,
{
    // in the arithmetic type, row-major
    let update = |y: &mut [T::Compute]| {
        walk(sources, *offset..*offset + y.len(), |start, len, xs| {
            let start = start - *offset;
            zip::map(isa, xs, y.get_mut(start..start + len).unwrap_or_default(), f);
        });
    };
    match memory {
        ParamLeaf::Slice(y) => match T::as_compute_mut(y) {
            Some(y) => update(y),
            None => with_scratch(y.len(), |wide| {
                wide.iter_mut().zip(&**y).for_each(|(wide, y)| *wide = y.load());
                update(wide);
                y.iter_mut().zip(wide).for_each(|(y, wide)| *y = T::store(*wide));
            }),
        },
        ParamLeaf::Strided(y) => with_scratch(y.len(), |wide| {
            strided::read(&y.view(), 0, wide, T::load);
            update(wide);
            strided::write(y, wide, T::store);
        }),
    }
}
