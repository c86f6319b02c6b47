//! The shapes of parameters that get more rows while training.

use super::tracked::Tracked;
use crate::error::{Error, Result, check_shape};
use std::collections::BTreeMap;

/// The number of rows that parameters have from the next step on, by name.
#[derive(Clone, Debug, Default)]
pub(in crate::optim) struct Growth(BTreeMap<String, usize>);

impl Growth {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The announced number of rows.
    pub fn rows(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    pub fn announce(&mut self, name: &str, rows: usize) {
        self.0.insert(name.to_owned(), rows);
    }

    pub fn withdraw(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// What was announced for `from` holds for `to`.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(rows) = self.0.remove(from) {
            self.announce(to, rows);
        }
    }
}

/// The shape of a parameter with another number of rows.
pub(super) fn with_rows(shape: &[usize], rows: usize) -> Vec<usize> {
    let rest = shape.iter().skip(1).copied();
    shape.first().map(|_| rows).into_iter().chain(rest).collect()
}

/// The shapes of the parameters of which there is state. `tracked` has the rows of a parameter one after
/// another.
pub(super) fn known_shapes<S>(tracked: &[Tracked<S>]) -> impl Iterator<Item = (&str, Vec<usize>)> {
    let mut first = tracked.iter().filter(|tracked| tracked.row == 0);
    std::iter::from_fn(move || {
        let found = first.next()?;
        let own = tracked.iter().filter(|other| other.row > 0 && other.name == found.name);
        let rows = own
            .filter_map(|other| other.shape.first())
            .fold(0, |sum: usize, rows| sum.saturating_add(*rows));
        let known = found.shape.first().map_or(0, |first| first.saturating_add(rows));
        Some((found.name.as_str(), with_rows(&found.shape, known)))
    })
}

/// Checks that the parameters have the shapes of their states, but for rows that were announced.
pub(in crate::optim) fn check_rows<'l, S>(
    tracked: &[Tracked<S>],
    growth: &Growth,
    shape_of: &dyn Fn(&str) -> Option<&'l [usize]>,
) -> Result<()> {
    let grown = tracked.iter().any(|tracked| tracked.row > 0);
    if !grown && growth.is_empty() {
        return tracked.iter().try_for_each(|known| match shape_of(&known.name) {
            Some(found) => check(&known.name, &known.shape, found),
            None => Ok(()),
        });
    }
    for (name, known) in known_shapes(tracked) {
        let expected =
            growth.rows(name).map_or_else(|| known.clone(), |rows| with_rows(&known, rows));
        if let Some(found) = shape_of(name) {
            check(name, &expected, found)?;
        }
    }
    Ok(())
}

/// Refuses another shape. The error for added rows says what to do.
fn check(name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
    let added = match (expected, found) {
        ([known, rest @ ..], [rows, others @ ..]) => rest == others && rows > known,
        _ => false,
    };
    if !added {
        return check_shape(name, expected, found);
    }
    let (expected, found) = (expected.to_vec(), found.to_vec());
    Err(Error::AddedRows { name: name.to_owned(), expected, found })
}
