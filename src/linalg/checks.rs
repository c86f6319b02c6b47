//! Errors of an inverse root's options.

use crate::error::{Error, Result};
use crate::numeric::limits::MOST_ITERATIONS;

pub(super) fn invalid(field: &'static str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::InvalidHyperparameter {
        optimizer: "InverseRoot",
        field,
        expected: expected.into(),
        found: found.to_string(),
    }
}

pub(super) fn positive(field: &'static str, x: f64) -> Result<()> {
    if x > 0.0 && x.is_finite() { Ok(()) } else { Err(invalid(field, "finite and > 0", x)) }
}

/// A number of iterations that ends.
pub(super) fn few(field: &'static str, n: usize) -> Result<()> {
    let expected = format!("at most {MOST_ITERATIONS}");
    if n as u64 <= MOST_ITERATIONS { Ok(()) } else { Err(invalid(field, &expected, n)) }
}

pub(super) fn not_negative(field: &'static str, x: f64) -> Result<()> {
    if x >= 0.0 { Ok(()) } else { Err(invalid(field, ">= 0", x)) }
}
