//! Errors of an inverse root's options.

use crate::error::{Error, Result};

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

pub(super) fn not_negative(field: &'static str, x: f64) -> Result<()> {
    if x >= 0.0 { Ok(()) } else { Err(invalid(field, ">= 0", x)) }
}
