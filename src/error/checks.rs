//! Checks that end in an error.

use super::kinds::{Error, Result};
use num_traits::Float;

/// Refuses a buffer of another length.
pub(crate) fn check_length(
    name: &str,
    shape: &[usize],
    expected: usize,
    found: usize,
) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::LengthMismatch { name: name.to_owned(), shape: shape.to_vec(), expected, found })
}

/// Refuses another shape.
pub(crate) fn check_shape(name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (expected.to_vec(), found.to_vec());
    Err(Error::ShapeMismatch { name: name.to_owned(), expected, found })
}

/// Refuses a NaN or an infinity, and names the first.
pub(crate) fn check_finite<'x, F: Float + 'x>(
    what: &'static str,
    numbers: impl IntoIterator<Item = &'x F>,
) -> Result<()> {
    match numbers.into_iter().find(|x| !x.is_finite()) {
        Some(x) => Err(Error::NonFinite { what, value: x.to_f64().unwrap_or(f64::NAN) }),
        None => Ok(()),
    }
}
