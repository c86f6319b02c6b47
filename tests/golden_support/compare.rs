//! Tolerances, and comparisons that say where numbers differ.

use super::{Outcome, fail};
use eigenstep::numeric::{Element, Real};

/// `|found − expected| <= rtol·|expected| + atol`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Relative to the expected number.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
}

impl Tolerance {
    /// Trajectories computed in `R`: about 5000 (64) units in the last place over ten steps.
    pub fn of<R: Real>() -> Self {
        match R::NAME {
            "f64" => Self { rtol: 1e-12, atol: 1e-13 },
            _ => Self { rtol: 4e-6, atol: 1e-7 },
        }
    }

    /// The same with `atol` larger by `extra`.
    pub fn plus(self, extra: f64) -> Self {
        Self { atol: self.atol + extra, ..self }
    }

    /// Whether two numbers are close enough; NaN equals NaN.
    pub fn allows(self, found: f64, expected: f64) -> bool {
        if expected.is_nan() {
            return found.is_nan();
        }
        found == expected || (found - expected).abs() <= self.rtol * expected.abs() + self.atol
    }

    /// Compares two numbers.
    pub fn number(self, what: &str, found: f64, expected: f64) -> Outcome {
        if self.allows(found, expected) {
            return Ok(());
        }
        let error = (found - expected).abs();
        let Tolerance { rtol, atol } = self;
        Err(fail(format!(
            "{what}: expected {expected:e}, got {found:e} (off by {error:.1e}, allowed {rtol:e} \
             relative + {atol:.1e})"
        )))
    }

    /// Compares flat tensors; says which element is the first to differ, and how many do.
    pub fn slice(self, what: &str, found: &[f64], expected: &[f64]) -> Outcome {
        self.slice_with(what, found, expected, &[])
    }

    /// As [`Tolerance::slice`], with an absolute tolerance on top for every element; none where
    /// `extra` is too short.
    pub fn slice_with(self, what: &str, found: &[f64], expected: &[f64], extra: &[f64]) -> Outcome {
        same_length(what, found.len(), expected.len())?;
        let extra = |index: usize| extra.get(index).copied().unwrap_or(0.0);
        let wrong = |(index, (found, expected)): &(usize, (&f64, &f64))| {
            !self.plus(extra(*index)).allows(**found, **expected)
        };
        let pairs = || found.iter().zip(expected).enumerate();
        let count = pairs().filter(wrong).count();
        match pairs().find(wrong) {
            None => Ok(()),
            Some((index, (&found, &expected))) => {
                let place = format!("{what}, element {index} ({count} wrong)");
                self.plus(extra(index)).number(&place, found, expected)
            }
        }
    }
}

/// Checks that two tensors have as many elements.
pub fn same_length(what: &str, found: usize, expected: usize) -> Outcome {
    if found == expected {
        return Ok(());
    }
    Err(fail(format!("{what}: expected {expected} elements, got {found}")))
}

/// Compares integers, bit patterns and other things that have to be equal.
pub fn equal<X: PartialEq + std::fmt::Debug>(what: &str, found: &[X], expected: &[X]) -> Outcome {
    same_length(what, found.len(), expected.len())?;
    match found.iter().zip(expected).enumerate().find(|(_, (found, expected))| found != expected) {
        None => Ok(()),
        Some((index, (found, expected))) => {
            Err(fail(format!("{what}, element {index}: expected {expected:?}, got {found:?}")))
        }
    }
}

/// Bit patterns, so that `-0` is not `0`.
pub fn bits<T: Element>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    T::write_le(values, &mut bytes);
    bytes
}

/// Checks that two slices have the same bits.
pub fn identical<T: Element>(what: &str, found: &[T], expected: &[T]) -> Outcome {
    same_length(what, found.len(), expected.len())?;
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        if bits(&[*found]) != bits(&[*expected]) {
            return Err(fail(format!(
                "{what}, element {index}: expected exactly {expected:?}, got {found:?}"
            )));
        }
    }
    Ok(())
}
