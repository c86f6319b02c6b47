//! The domain of one entry of a vector, and the random numbers that change it.

use crate::error::{Error, Result};
use crate::numeric::random::{normal_pair, uniform};
use crate::zeroth_order::{Philox, Purpose, RngStream};

/// The domain of one entry.
///
/// | domain | first generation | mutation |
/// |---|---|---|
/// | `Integer` | uniform in `low..=high` | a new uniform number |
/// | `Real` | uniform in `[low, high]` | `x + sigma·normal`, clamped |
///
/// # Errors
/// [`Gene::validate`] refuses `low > high`, integers beyond ±2⁵³, bounds that are not finite, and a
/// `sigma` that is not finite or below 0.
///
/// # Examples
/// ```
/// use eigenstep::discrete::genetic::Gene;
///
/// let bits = Gene::Integer { low: 2, high: 8 };
/// assert!(bits.contains(8.0) && !bits.contains(2.5) && !bits.contains(9.0));
/// assert!(Gene::Real { low: 0.0, high: 1.0, sigma: -0.1 }.validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Gene {
    /// An integer.
    Integer {
        /// The smallest value.
        low: i64,
        /// The largest value.
        high: i64,
    },
    /// A real number in an interval.
    Real {
        /// The smallest value.
        low: f64,
        /// The largest value.
        high: f64,
        /// The standard deviation of a mutation.
        sigma: f64,
    },
}

/// The largest magnitude up to which an `f64` holds every integer.
const EXACT: i64 = 1 << 53;

/// The random numbers of one candidate. Block 0 selects the parents; blocks `2j + 1` and `2j + 2` belong
/// to gene `j`.
#[derive(Clone, Copy)]
pub(super) struct Draws {
    pub seed: u64,
    pub generation: u32,
    pub child: u32,
}

impl Draws {
    fn block(self, block: u32) -> [u32; 4] {
        let step = u64::from(self.generation);
        let stream = RngStream { step, query: self.child, tensor: 0, purpose: Purpose::Genetic };
        Philox::new(self.seed).block(&stream, block)
    }

    /// Two random numbers below `count`.
    pub(super) fn parents(self, count: usize) -> [usize; 2] {
        let [a, b, _, _] = self.block(0);
        [a, b].map(|word| ((u128::from(word) * count as u128) >> 32) as usize)
    }

    /// The random numbers of gene `j`.
    pub(super) fn gene(self, j: usize) -> GeneDraws {
        let block = (j as u32).wrapping_mul(2).wrapping_add(1);
        let [crossover, mutation, high, low] = self.block(block);
        GeneDraws {
            crossover: uniform(crossover),
            mutation: uniform(mutation),
            value: u64::from(high) << 32 | u64::from(low),
            normal: (self, block.wrapping_add(1)),
        }
    }
}

/// The random numbers of one gene.
pub(super) struct GeneDraws {
    /// In `[0, 1)`.
    pub crossover: f64,
    /// In `[0, 1)`.
    pub mutation: f64,
    value: u64,
    /// Where to find the normal number, which few genes need.
    normal: (Draws, u32),
}

impl Gene {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names `low`, `high` or `sigma`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::Gene;
    ///
    /// assert!(Gene::Integer { low: 3, high: 2 }.validate().is_err());
    /// ```
    pub fn validate(self) -> Result<()> {
        let invalid = |field, expected: &str, found: &dyn ToString| {
            Err(Error::invalid("Gene", field, expected, found.to_string()))
        };
        match self {
            Self::Integer { low, .. } if !(-EXACT..=EXACT).contains(&low) => {
                invalid("low", "in -2^53..=2^53", &low)
            }
            Self::Integer { low, high } if !(low..=EXACT).contains(&high) => {
                invalid("high", "in `low`..=2^53", &high)
            }
            Self::Real { low, .. } if !low.is_finite() => invalid("low", "finite", &low),
            Self::Real { low, high, .. } if !(high.is_finite() && high >= low) => {
                invalid("high", "finite and at least `low`", &high)
            }
            Self::Real { sigma, .. } if !(sigma.is_finite() && sigma >= 0.0) => {
                invalid("sigma", "finite and >= 0", &sigma)
            }
            _ => Ok(()),
        }
    }

    /// Whether `x` belongs to the domain.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::discrete::genetic::Gene;
    ///
    /// assert!(!Gene::Real { low: 0.0, high: 1.0, sigma: 0.1 }.contains(f64::NAN));
    /// ```
    pub fn contains(self, x: f64) -> bool {
        match self {
            Self::Integer { low, high } => x.fract() == 0.0 && x >= low as f64 && x <= high as f64,
            Self::Real { low, high, .. } => x >= low && x <= high,
        }
    }

    /// A uniform number of the domain. With 2⁵³ integers, their probabilities differ by up to 2⁻¹⁰.
    pub(super) fn draw(self, draws: &GeneDraws) -> f64 {
        match self {
            Self::Integer { low, high } => {
                let count = high.saturating_sub(low).saturating_add(1).max(1) as u128;
                let offset = ((u128::from(draws.value) * count) >> 64) as i64;
                low.saturating_add(offset) as f64
            }
            Self::Real { low, high, .. } => {
                let unit = (draws.value >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
                // a difference of the bounds may overflow
                (low * (1.0 - unit) + high * unit).max(low).min(high)
            }
        }
    }

    /// The mutation of `x`.
    pub(super) fn mutate(self, x: f64, draws: &GeneDraws) -> f64 {
        match self {
            Self::Integer { .. } => self.draw(draws),
            Self::Real { low, high, sigma } => {
                let (draws, block) = draws.normal;
                let [normal, _] = normal_pair(draws.block(block));
                (x + sigma * normal).max(low).min(high)
            }
        }
    }
}
