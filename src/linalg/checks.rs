//! What the options of an inverse root must be.

use super::coupled::Fraction;
use super::{CoupledNewton, Damping, InverseRoot};
use crate::error::{Error, Result};

impl InverseRoot {
    /// Checks the options.
    pub(crate) fn validate(&self) -> Result<()> {
        let damping = |Damping { relative, absolute }| {
            not_negative("damping.relative", relative)?;
            not_negative("damping.absolute", absolute)
        };
        match *self {
            Self::Eigh { damping: d, .. } => damping(d),
            Self::CoupledNewton { damping: d, limits } => {
                let CoupledNewton { tolerance, max_growth, accept, retry, .. } = limits;
                damping(d)?;
                not_negative("tolerance", tolerance)?;
                not_negative("max_growth", max_growth.unwrap_or(0.0))?;
                not_negative("accept", accept.unwrap_or(0.0))?;
                match retry.and_then(|retry| retry.wrong()) {
                    Some((field, expected, found)) => Err(invalid(field, expected, found)),
                    None => Ok(()),
                }
            }
            Self::CoupledHigherOrder { damping: d, order, tolerance, accept, .. } => {
                damping(d)?;
                not_negative("tolerance", tolerance)?;
                not_negative("accept", accept.unwrap_or(0.0))?;
                if order < 2 { Err(invalid("order", "at least 2", order)) } else { Ok(()) }
            }
            Self::PseudoInverse { rtol, atol } => {
                not_negative("rtol", rtol.unwrap_or(0.0))?;
                not_negative("atol", atol)
            }
        }
    }

    /// Whether the method can take the root with this exponent > 0.
    pub(crate) fn takes(&self, exponent: f64) -> bool {
        match self {
            Self::CoupledNewton { .. } | Self::CoupledHigherOrder { .. } => {
                Fraction::of(exponent).is_ok()
            }
            Self::Eigh { .. } | Self::PseudoInverse { .. } => true,
        }
    }
}

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

fn not_negative(field: &'static str, x: f64) -> Result<()> {
    if x >= 0.0 { Ok(()) } else { Err(invalid(field, ">= 0", x)) }
}
