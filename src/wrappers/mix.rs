//! Two trees as one.

use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::tree::TreeVec;

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
