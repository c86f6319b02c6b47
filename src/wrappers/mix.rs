//! Weighted means of trees, exact at both ends.

use crate::error::{Error, Result};
use crate::numeric::{Element, Real};
use crate::params::Parameters;
use crate::tree::{Source, TreeVec, zip_map};

/// `y` moved towards `x` by the share `w` of the way; see [`between`].
pub(super) fn mix<S, T, P>(w: f64, x: impl Source<S>, y: &mut P) -> Result<()>
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
pub(super) fn between<R: Real>(w: f64) -> impl Fn(R, R) -> R + Sync + Send + Copy {
    let (near, rest, first) = (R::of(w), R::of(1.0 - w), w < 0.5);
    move |x, y| {
        if w == 1.0 {
            x
        } else if w == 0.0 || x == y {
            y
        } else if first {
            y + near * (x - y)
        } else {
            x - rest * (x - y)
        }
    }
}

/// The leaves of two trees, one behind the other.
pub(super) fn joined<T: Element>(one: &TreeVec<T>, other: &TreeVec<T>) -> Result<TreeVec<T>> {
    let mut layout = one.layout().clone();
    for segment in other.layout().segments() {
        if layout.get(&segment.name).is_some() {
            return Err(Error::DuplicateName { name: segment.name.clone() });
        }
        layout.push(&segment.name, &segment.shape);
    }
    let mut joined = TreeVec::zeros(layout);
    let values = one.values().iter().chain(other.values());
    joined.values_mut().iter_mut().zip(values).for_each(|(to, from)| *to = *from);
    Ok(joined)
}
