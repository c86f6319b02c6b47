//! Integer formats, with stochastic and nearest rounding.

use crate::error::{Error, Result};
use crate::numeric::random::round_at_random;

/// Signed integers of a few bits.
///
/// ```text
/// symmetric   −(2^(bits−1) − 1) ..= 2^(bits−1) − 1
/// full        −2^(bits−1)       ..= 2^(bits−1) − 1
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `bits` | 8 | the largest number |
/// | `full` | false | symmetric grids have no bias towards negative numbers |
///
/// # Errors
/// [`IntegerFormat::validate`] refuses `bits` outside `2..=8`.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::IntegerFormat;
///
/// let int4 = IntegerFormat { bits: 4, full: false };
/// assert_eq!((int4.qmin(), int4.qmax()), (-7, 7));
/// assert_eq!(IntegerFormat { full: true, ..int4 }.qmin(), -8);
/// assert!(IntegerFormat { bits: 9, full: false }.validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct IntegerFormat {
    /// The number of bits, `2..=8`.
    pub bits: u8,
    /// Whether the most negative number is used, too, which has no positive counterpart.
    pub full: bool,
}
crate::config_file::named_fields!(IntegerFormat);

impl Default for IntegerFormat {
    fn default() -> Self {
        Self { bits: 8, full: false }
    }
}

impl IntegerFormat {
    /// Checks the number of bits.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names `bits`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::IntegerFormat;
    ///
    /// assert!(IntegerFormat { bits: 1, full: true }.validate().is_err());
    /// ```
    pub fn validate(self) -> Result<()> {
        if (2..=8).contains(&self.bits) {
            return Ok(());
        }
        Err(Error::invalid("IntegerFormat", "bits", "an integer in 2..=8", self.bits))
    }

    /// The largest code. An invalid number of bits counts as the nearest valid one.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::IntegerFormat;
    ///
    /// assert_eq!(IntegerFormat::default().qmax(), 127);
    /// ```
    pub fn qmax(self) -> i32 {
        (1 << (self.bits.clamp(2, 8) - 1)) - 1
    }

    /// The smallest code.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::IntegerFormat;
    ///
    /// assert_eq!(IntegerFormat { bits: 8, full: true }.qmin(), -128);
    /// ```
    pub fn qmin(self) -> i32 {
        -self.qmax() - i32::from(self.full)
    }
}

/// Limits a whole number to the range; NaN counts as 0.
fn limit(whole: f64, qmin: i32, qmax: i32) -> i32 {
    // `as` saturates, and `clamp` would panic on an empty range
    (whole as i32).max(qmin).min(qmax)
}

/// Rounds stochastically: up or down at random, with the exact mean.
///
/// ```text
/// clamp(⌊y⌋ + [u < y − ⌊y⌋], qmin, qmax)            u: uniform in [0, 1)
/// ```
/// Inside the range, the mean over `u` is `y`, and the variance is `(y − ⌊y⌋)·(⌈y⌉ − y)`. Whole numbers
/// do not change. The result for `−y` need not be the negative of the result for `y` with the same `u`.
/// Infinities become the ends of the range, and NaN counts as 0; functions on slices refuse NaN
/// ([`Format::round_slice`](crate::zeroth_order::Format::round_slice)).
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::stochastic_round_int;
///
/// assert_eq!(stochastic_round_int(-2.5, 0.4, -7, 7), -2);
/// assert_eq!(stochastic_round_int(-2.5, 0.5, -7, 7), -3);
/// assert_eq!(stochastic_round_int(9.3, 0.0, -7, 7), 7);
/// ```
///
/// # Source
/// S. Gupta, A. Agrawal, K. Gopalakrishnan, P. Narayanan, "Deep Learning with Limited Numerical
/// Precision", ICML 2015.
pub fn stochastic_round_int(y: f64, u: f64, qmin: i32, qmax: i32) -> i32 {
    limit(round_at_random(y, u), qmin, qmax)
}

/// Rounds to the nearest whole number of the range, ties to even.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::nearest_int;
///
/// assert_eq!([0.5, 1.5, -2.5, 99.0].map(|y| nearest_int(y, -7, 7)), [0, 2, -2, 7]);
/// ```
pub fn nearest_int(y: f64, qmin: i32, qmax: i32) -> i32 {
    limit(y.round_ties_even(), qmin, qmax)
}
