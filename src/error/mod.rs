//! The one error type of the crate: what was wrong, where, what was expected and what was found.

mod checks;
mod constructors;
mod kinds;
mod texts;

pub(crate) use checks::{check_finite, check_length, check_shape};
pub use kinds::{BoxError, Error, Result};
#[cfg(feature = "serde")]
pub(crate) use texts::nearest;
