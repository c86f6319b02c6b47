//! Active sets: the coordinates that take part in a step.

use crate::error::{Error, Result};
use crate::optim::{Layout, Segment};
use crate::zeroth_order::directions::check_names;
use crate::zeroth_order::estimator::{Philox, Purpose, RngStream};
use std::collections::BTreeMap;

/// The coordinates that take part in a step of [`Coordinate`](crate::zeroth_order::Coordinate).
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ActiveSet {
    /// All coordinates of all tensors.
    #[default]
    All,
    /// Row-major indices by name of the tensor; all coordinates of tensors that are not named.
    Indices(BTreeMap<String, Vec<usize>>),
    /// A random share of every named tensor: `d − round(ratio·d)` of its d coordinates, where halves are
    /// rounded to even; all coordinates of tensors that are not named. [`redraw`] draws another share.
    ///
    /// [`redraw`]: crate::zeroth_order::CoordinateEstimator::redraw
    Pruned(BTreeMap<String, f64>),
}

impl ActiveSet {
    /// Checks what can be checked without the tensors.
    pub(super) fn validate(&self) -> Result<()> {
        match self {
            Self::Pruned(ratios) => match ratios.iter().find(|(_, r)| !(0.0..=1.0).contains(*r)) {
                Some((name, ratio)) => Err(invalid("in [0, 1]", format!("{ratio} for `{name}`"))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The active coordinates: pairs of tensor and index in ascending order.
    pub(super) fn coordinates(
        &self,
        layout: &Layout,
        seed: u64,
        draw: u64,
    ) -> Result<Vec<(u32, usize)>> {
        let segments = layout.segments();
        if let Self::Indices(by_name) = self {
            check_names(by_name.keys(), layout)?;
        }
        if let Self::Pruned(by_name) = self {
            check_names(by_name.keys(), layout)?;
        }
        let mut coordinates = Vec::new();
        // there are fewer than 2^32 tensors, since each has a name in memory
        for (tensor, segment) in (0u32..).zip(segments) {
            let indices = match self {
                Self::All => None,
                Self::Indices(indices) => match indices.get(&segment.name) {
                    Some(indices) => Some(checked(indices, segment)?),
                    None => None,
                },
                Self::Pruned(ratios) => match ratios.get(&segment.name) {
                    Some(&ratio) => Some(share(ratio, segment.numel(), seed, draw, tensor)?),
                    None => None,
                },
            };
            match indices {
                Some(indices) => coordinates.extend(indices.into_iter().map(|i| (tensor, i))),
                None => coordinates.extend((0..segment.numel()).map(|i| (tensor, i))),
            }
        }
        if coordinates.is_empty() {
            return Err(invalid("a set with at least one coordinate", "an empty one".into()));
        }
        Ok(coordinates)
    }
}

fn invalid(expected: &str, found: String) -> Error {
    Error::invalid("Coordinate", "active", expected, found)
}

/// The indices in ascending order, each once.
fn checked(indices: &[usize], segment: &Segment) -> Result<Vec<usize>> {
    if let Some(index) = indices.iter().find(|&&index| index >= segment.numel()) {
        let (name, numel) = (&segment.name, segment.numel());
        return Err(invalid("indices of its tensors", format!("{index} of {numel} in `{name}`")));
    }
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}

/// A random share without replacement: the coordinates with the smallest random numbers. Of equal numbers,
/// that of the lower index counts as smaller.
fn share(ratio: f64, numel: usize, seed: u64, draw: u64, tensor: u32) -> Result<Vec<usize>> {
    RngStream::check(draw, 1, numel)?;
    let pruned = (ratio * numel as f64).round_ties_even() as usize;
    let kept = numel.saturating_sub(pruned);
    let stream = RngStream { step: draw, query: 0, tensor, purpose: Purpose::Coordinates };
    let mut words = vec![0; numel];
    Philox::new(seed).words(&stream, 0, &mut words);
    let mut keys: Vec<(u32, usize)> = words.into_iter().zip(0..).collect();
    if kept < numel && kept > 0 {
        keys.select_nth_unstable(kept - 1);
    }
    let mut indices: Vec<usize> = keys.into_iter().take(kept).map(|(_, index)| index).collect();
    indices.sort_unstable();
    Ok(indices)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even() {
        // 2.5 pruned of 5: 2, and 3 stay
        let kept = share(0.5, 5, 1, 0, 0).unwrap();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept, share(0.5, 5, 1, 0, 0).unwrap());
        assert!(share(1.0, 5, 1, 0, 0).unwrap().is_empty());
        assert_eq!(share(0.0, 3, 1, 0, 0).unwrap(), [0, 1, 2]);
        assert!(share(0.5, 100, 1, 0, 0).unwrap() != share(0.5, 100, 1, 1, 0).unwrap());
    }
}
