//! The options of top-k selection.

use super::density::share;
use super::top_k::{block_top_k, select_top_k};
use crate::error::{Error, Result};
use crate::numeric::Real;

/// Which elements of a vector are kept: those of largest magnitude. Of equal magnitudes the first are
/// kept.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Selection {
    /// `max(1, ⌊density·d⌋)` of all `d` elements.
    TopK {
        /// Share of the elements that is kept, in `(0, 1]`.
        density: f64,
    },
    /// A fixed number of all elements.
    Count {
        /// How many elements, at least 1.
        k: usize,
    },
    /// `⌈density·b⌉` of every block of `b` elements; the last block may be shorter.
    BlockTopK {
        /// Share of the elements that is kept, in `(0, 1]`.
        density: f64,
        /// Length `b` of a block, at least 1.
        block: usize,
    },
}

impl Selection {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `density`, `k` or `block`.
    pub fn validate(&self, optimizer: &'static str) -> Result<()> {
        let wrong = |field, expected: &str, found: String| {
            Err(Error::InvalidHyperparameter { optimizer, field, expected: expected.into(), found })
        };
        match *self {
            Self::TopK { density } | Self::BlockTopK { density, .. }
                if !(density > 0.0 && density <= 1.0) =>
            {
                wrong("density", "in (0, 1]", density.to_string())
            }
            Self::Count { k: 0 } => wrong("k", "at least 1", "0".into()),
            Self::BlockTopK { block: 0, .. } => wrong("block", "at least 1", "0".into()),
            _ => Ok(()),
        }
    }

    /// Checks that a vector has at least as many elements as are kept, and fewer than 2³².
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `k` or `selection`.
    pub fn check_numel(&self, optimizer: &'static str, numel: usize) -> Result<()> {
        let (field, expected, found) = match *self {
            Self::Count { k } if k > numel => {
                ("k", format!("at most the vector's {numel} elements"), k.to_string())
            }
            _ if u32::try_from(numel).is_err() => {
                let expected = "for a vector of less than 2^32 elements".into();
                ("selection", expected, format!("one of {numel}"))
            }
            _ => return Ok(()),
        };
        Err(Error::InvalidHyperparameter { optimizer, field, expected, found })
    }

    /// Length of a block; `None` if the selection is from all elements.
    pub fn block(&self) -> Option<usize> {
        match self {
            Self::BlockTopK { block, .. } => Some((*block).max(1)),
            _ => None,
        }
    }

    /// How many elements of `numel` are kept.
    ///
    /// A density counts as the decimal fraction that it is written as: 0.07 keeps 7 of 100.
    pub fn count(&self, numel: usize) -> usize {
        match *self {
            Self::TopK { density } => share(density, numel, false).max(1).min(numel),
            Self::Count { k } => k.min(numel),
            Self::BlockTopK { density, block } => {
                let block = block.max(1);
                numel / block * share(density, block, true) + share(density, numel % block, true)
            }
        }
    }

    /// Writes the indices of the kept elements into `indices`, ascending.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::error_feedback::Selection;
    ///
    /// let mut kept = Vec::new();
    /// Selection::Count { k: 2 }.select(&[1.0f32, -3.0, 3.0, 3.0], &mut kept);
    /// assert_eq!(kept, [1, 2]);
    /// Selection::BlockTopK { density: 0.5, block: 2 }.select(&[1.0f32, -3.0, 3.0, 3.0], &mut kept);
    /// assert_eq!(kept, [1, 2]);
    /// ```
    pub fn select<R: Real>(&self, a: &[R], indices: &mut Vec<u32>) {
        match *self {
            Self::BlockTopK { density, block } => block_top_k(a, density, block, indices),
            _ => select_top_k(a, self.count(a.len()), indices),
        }
    }
}
