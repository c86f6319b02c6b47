//! The errors of an exchange.

use crate::error::{Error, Result};

/// The error of an exchange.
pub(super) fn problem(text: impl Into<String>) -> Error {
    Error::Exchange { problem: text.into() }
}

/// The name of this worker's gradient in an error.
pub(super) const GRADIENT: &str = "a gradient to exchange";

pub(super) fn check_length(expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(problem(format!("expected {expected} elements, found {found}")))
}
