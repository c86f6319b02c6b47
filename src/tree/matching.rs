//! Which leaf of one tree belongs to which leaf of another.

use super::source::Leaves;
use crate::error::{Error, Result, check_shape};
use crate::numeric::Real;
use crate::params::Manifest;

/// The place of a leaf that is not there.
pub(super) const MISSING: usize = usize::MAX;

/// The leaves of a source by those of another tree; kept for its memory.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// For every leaf of the other tree the leaf of the source, or [`MISSING`].
    pub of: Vec<usize>,
    /// Leaves of the source that the other tree does not have.
    pub unknown: Vec<usize>,
    /// Leaves of the other tree, by name.
    by_name: Vec<usize>,
}

/// Finds the leaf of `source` for every leaf of `other`; `accept_unknown`: the source may have more.
pub(super) fn match_leaves<R: Real>(
    other: &Manifest,
    source: &Leaves<'_, R>,
    accept_unknown: bool,
    places: &mut Places,
) -> Result<()> {
    let Places { of, unknown, by_name } = places;
    of.clear();
    unknown.clear();
    // trees of one program hand out the same leaves in the same order
    if other == source.manifest {
        of.extend(0..other.len());
        return Ok(());
    }
    of.resize(other.len(), MISSING);
    by_name.clear();
    by_name.extend(0..other.len());
    by_name.sort_unstable_by_key(|&leaf| other.name(leaf));
    let twice = by_name.windows(2).find_map(|pair| match pair {
        &[a, b] if other.name(a) == other.name(b) => Some(other.name(a)),
        _ => None,
    });
    if let Some(name) = twice {
        return Err(Error::DuplicateName { name: name.to_owned() });
    }
    for leaf in 0..source.manifest.len() {
        let (name, shape) = (source.manifest.name(leaf), source.manifest.shape(leaf));
        let found = by_name.binary_search_by_key(&name, |&leaf| other.name(leaf));
        let Some(&at) = found.ok().and_then(|index| by_name.get(index)) else {
            match accept_unknown {
                true => unknown.push(leaf),
                false => return Err(Error::UnknownLeaf { name: name.to_owned() }),
            }
            continue;
        };
        check_shape(name, other.shape(at), shape)?;
        match of.get_mut(at) {
            Some(place) if *place == MISSING => *place = leaf,
            _ => return Err(Error::DuplicateName { name: name.to_owned() }),
        }
    }
    match of.iter().position(|&place| place == MISSING) {
        Some(leaf) if !source.or_zero => {
            Err(Error::MissingParameter { name: other.name(leaf).to_owned() })
        }
        _ => Ok(()),
    }
}
