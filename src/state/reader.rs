//! Reading a state dict key by key: the first key that does not fit is the error.

use super::StateDict;
use super::dict::{Scalar, problem};
use crate::error::Result;
use crate::hyper::Range;
use crate::numeric::limits::MOST_COUNT;
use std::collections::BTreeSet;

/// Reads the scalars of a state dict and remembers which were read, so that keys nobody asked for
/// are found.
#[derive(Debug)]
pub(crate) struct StateReader<'s> {
    state: &'s StateDict,
    read: BTreeSet<String>,
}

impl<'s> StateReader<'s> {
    /// A reader of a dict that `owner` wrote.
    pub fn new(state: &'s StateDict, owner: &str) -> Result<Self> {
        state.check_header(owner)?;
        Ok(Self { state, read: BTreeSet::new() })
    }

    fn scalar(&mut self, key: &str) -> Result<&'s Scalar> {
        self.read.insert(key.to_owned());
        self.state.scalars.get(key).ok_or_else(|| problem(key, "missing"))
    }

    /// Whether there is such a scalar.
    pub fn has(&self, key: &str) -> bool {
        self.state.scalars.contains_key(key)
    }

    /// Any number.
    pub fn any_number(&mut self, key: &str) -> Result<f64> {
        let scalar = self.scalar(key)?;
        scalar.as_f64().ok_or_else(|| problem(key, "expected a number"))
    }

    /// A number of a range.
    pub fn number(&mut self, key: &str, range: Range) -> Result<f64> {
        let value = self.any_number(key)?;
        if range.contains(value) {
            return Ok(value);
        }
        Err(problem(key, format!("expected a number that is {}, found {value}", range.describe())))
    }

    /// A count.
    pub fn count(&mut self, key: &str) -> Result<u64> {
        let scalar = self.scalar(key)?;
        let count = scalar.as_u64().filter(|&count| count <= MOST_COUNT);
        count.ok_or_else(|| problem(key, "expected an integer >= 0 and <= 2^53"))
    }

    /// A word that has to be `expected`.
    pub fn word(&mut self, key: &str, expected: &str) -> Result<()> {
        match self.scalar(key)?.as_text() {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(problem(key, format!("expected `{expected}`, found `{found}`"))),
            None => Err(problem(key, "expected a word")),
        }
    }

    /// A number that has to be `expected`, NaN included.
    pub fn same(&mut self, key: &str, expected: f64) -> Result<()> {
        let found = self.any_number(key)?;
        if found == expected || found.is_nan() && expected.is_nan() {
            return Ok(());
        }
        Err(problem(key, format!("expected {expected}, found {found}")))
    }

    /// Refuses keys that were not read.
    pub fn finish(self) -> Result<()> {
        let unread = self.state.scalars.keys().find(|&key| !self.read.contains(key));
        match unread.or(self.state.tensors.keys().next()) {
            Some(key) => Err(problem(key, "unknown key")),
            None => Ok(()),
        }
    }
}
