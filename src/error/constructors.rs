//! Errors that are made in several places.

use super::Error;

impl Error {
    /// A group that selects none of these parameters.
    pub(crate) fn empty_group<'n>(
        group: usize,
        select: &str,
        parameters: impl Iterator<Item = &'n str>,
    ) -> Self {
        let parameters = parameters.map(str::to_owned).collect();
        Self::EmptyGroup { group, select: select.to_owned(), parameters }
    }

    /// A gradient that belongs to none of these parameters.
    pub(crate) fn unknown_gradient<'n>(
        name: &str,
        parameters: impl Iterator<Item = &'n str>,
    ) -> Self {
        let parameters = parameters.map(str::to_owned).collect();
        Self::UnknownGradient { name: name.to_owned(), parameters }
    }

    /// A parameter without state, where there is state of `known`.
    pub(crate) fn unknown_parameter<'n>(
        optimizer: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let known = known.into_iter().map(str::to_owned).collect();
        Self::UnknownParameter { optimizer, name: name.to_owned(), known }
    }

    /// An option that is out of range.
    pub(crate) fn invalid(
        optimizer: &'static str,
        field: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        let (expected, found) = (expected.into(), found.to_string());
        Self::InvalidHyperparameter { optimizer, field, expected, found }
    }
}
