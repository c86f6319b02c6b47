//! Grids of numbers, with stochastic and nearest rounding.

use super::fp8::Fp8;
use super::integer_format::{IntegerFormat, nearest_int, stochastic_round_int};
use crate::error::{Error, Result, check_length};
use crate::numeric::Real;

/// A grid of numbers of few bits, integer or floating-point, times a scale.
///
/// ```text
/// lo, hi: the grid's numbers around x/scale, hi the larger one
/// round     scale·hi if u < (x/scale − lo)/(hi − lo), else scale·lo       u: uniform in [0, 1)
/// nearest   scale·(the nearer one), ties to even
/// ```
/// Inside the range, the mean of `round` over `u` is `x`, and the variance is
/// `(x − scale·lo)·(scale·hi − x)`. Numbers outside the range saturate: they are rounded to the nearer end,
/// which biases the result, and functions on slices count them. Numbers on the grid do not change, −0
/// becomes +0, and infinities become the ends. NaN stays NaN; functions on slices refuse it in an integer
/// format. Everything is computed in `f64`.
///
/// Use every `u` for one element only. Elements that share a `u` have correlated errors.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::Format;
///
/// let int4 = Format::INT4; // −7..=7
/// assert_eq!([0.1, 0.9].map(|u| int4.round(0.8, 0.5, u)), [1.0, 0.5]);
/// assert_eq!(int4.nearest(-0.8, 0.5), -1.0);
/// assert!(int4.saturates(3.6, 0.5));
///
/// let x = [0.3f32, -1.4, 0.2];
/// let mut y = [0.0f32; 3];
/// let saturated = Format::INT8.round_slice(&x, Format::INT8.scale(&x), |i| [0.1, 0.5, 0.9][i], &mut y)?;
/// assert_eq!((y[1], saturated), (-1.4, 0));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Gupta, A. Agrawal, K. Gopalakrishnan, P. Narayanan, "Deep Learning with Limited Numerical
/// Precision", ICML 2015; P. Micikevicius et al., "FP8 Formats for Deep Learning", 2022.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self"))]
#[non_exhaustive]
pub enum Format {
    /// Integers.
    Int(IntegerFormat),
    /// Floating-point numbers: [`Fp8::E4M3`].
    E4M3,
    /// Floating-point numbers: [`Fp8::E5M2`].
    E5M2,
}
crate::config_file::presets!(Format, [INT2, INT4, INT8]);

/// The factor by which a quotient may exceed the range because of rounding.
const SLACK: f64 = 1.0 + 1.0 / (1u64 << 50) as f64;

impl Format {
    /// Integers in `−1..=1`.
    pub const INT2: Self = Self::Int(IntegerFormat { bits: 2, full: false });
    /// Integers in `−7..=7`.
    pub const INT4: Self = Self::Int(IntegerFormat { bits: 4, full: false });
    /// Integers in `−127..=127`.
    pub const INT8: Self = Self::Int(IntegerFormat { bits: 8, full: false });

    /// The format as a floating-point format, if it is one.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Format, Fp8};
    ///
    /// assert_eq!((Format::E4M3.fp8(), Format::INT8.fp8()), (Some(Fp8::E4M3), None));
    /// ```
    pub fn fp8(self) -> Option<Fp8> {
        match self {
            Self::Int(_) => None,
            Self::E4M3 => Some(Fp8::E4M3),
            Self::E5M2 => Some(Fp8::E5M2),
        }
    }

    /// Checks the number of bits.
    ///
    /// # Errors
    /// As [`IntegerFormat::validate`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Format, IntegerFormat};
    ///
    /// assert!(Format::E4M3.validate().is_ok());
    /// assert!(Format::Int(IntegerFormat { bits: 16, full: false }).validate().is_err());
    /// ```
    pub fn validate(self) -> Result<()> {
        match self {
            Self::Int(format) => format.validate(),
            _ => Ok(()),
        }
    }

    /// The smallest and the largest finite number at scale 1.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!(Format::INT4.range(), (-7.0, 7.0));
    /// assert_eq!(Format::E4M3.range(), (-448.0, 448.0));
    /// ```
    pub fn range(self) -> (f64, f64) {
        match (self, self.fp8()) {
            (Self::Int(format), _) => (f64::from(format.qmin()), f64::from(format.qmax())),
            (_, fp8) => {
                let largest = fp8.map_or(0.0, Fp8::largest);
                (-largest, largest)
            }
        }
    }

    /// `max |x| / largest`, the smallest scale at which nothing saturates; 0 if all elements are 0.
    ///
    /// Only finite elements count: with an infinite scale, all others would become 0.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!(Format::INT4.scale(&[0.5f32, -3.5, f32::INFINITY]), 0.5);
    /// assert_eq!(Format::INT4.scale(&[0.0f32]), 0.0);
    /// ```
    pub fn scale<R: Real>(self, x: &[R]) -> f64 {
        let sizes = x.iter().filter(|x| x.is_finite()).map(|x| x.widen().abs());
        sizes.fold(0.0, f64::max) / self.range().1
    }

    /// An element in units of the scale; 0 if the scale is 0.
    fn units(x: f64, scale: f64) -> f64 {
        if scale == 0.0 && !x.is_nan() { 0.0 } else { x / scale }
    }

    /// Rounds stochastically; see [`Format`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!([0.2, 0.3].map(|u| Format::INT8.round(-7.75, 1.0, u)), [-7.0, -8.0]);
    /// ```
    pub fn round(self, x: f64, scale: f64, u: f64) -> f64 {
        if x.is_nan() { x } else { self.decode(self.code(x, scale, u), scale) }
    }

    /// Rounds to the nearest number of the grid; see [`Format`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!(Format::E5M2.nearest(11.0, 2.0), 12.0);
    /// ```
    pub fn nearest(self, x: f64, scale: f64) -> f64 {
        if x.is_nan() { x } else { self.decode(self.nearest_code(x, scale), scale) }
    }

    /// Whether `x` lies outside the range by more than a rounding error.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!([7.0, -7.5].map(|x| Format::INT4.saturates(x, 1.0)), [false, true]);
    /// ```
    pub fn saturates(self, x: f64, scale: f64) -> bool {
        let (smallest, largest) = self.range();
        let y = Self::units(x, scale);
        y > largest * SLACK || y < smallest * SLACK
    }

    /// The code that [`Format::round`] chooses: two's complement, or the bits of a floating-point number.
    /// In an integer format, NaN counts as 0.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!(Format::INT4.code(-2.0, 1.0, 0.5) as i8, -2);
    /// ```
    pub fn code(self, x: f64, scale: f64, u: f64) -> u8 {
        let y = Self::units(x, scale);
        match (self, self.fp8()) {
            (Self::Int(format), _) => {
                stochastic_round_int(y, u, format.qmin(), format.qmax()) as u8
            }
            (_, fp8) => fp8.map_or(0, |fp8| fp8.encode(y, u)),
        }
    }

    /// The code that [`Format::nearest`] chooses.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!(Format::INT4.nearest_code(2.6, 1.0), 3);
    /// ```
    pub fn nearest_code(self, x: f64, scale: f64) -> u8 {
        let y = Self::units(x, scale);
        match (self, self.fp8()) {
            (Self::Int(format), _) => nearest_int(y, format.qmin(), format.qmax()) as u8,
            (_, fp8) => fp8.map_or(0, |fp8| fp8.encode_nearest(y)),
        }
    }

    /// The number that a code stands for.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// assert_eq!(Format::INT8.decode(0xff, 0.5), -0.5);
    /// ```
    pub fn decode(self, code: u8, scale: f64) -> f64 {
        self.fp8().map_or_else(|| f64::from(code as i8), |fp8| fp8.decode(code)) * scale
    }

    /// Whether two codes share a byte.
    pub(super) fn is_packed(self) -> bool {
        matches!(self, Self::Int(format) if format.bits <= 4)
    }

    /// Refuses what cannot be rounded, and counts the elements that saturate.
    pub(super) fn check<R: Real>(self, x: &[R], scale: f64) -> Result<usize> {
        self.validate()?;
        if !(scale.is_finite() && scale >= 0.0) {
            return Err(Error::invalid("Format", "scale", "finite and >= 0", scale));
        }
        if matches!(self, Self::Int(_)) && x.iter().any(|x| x.is_nan()) {
            return Err(Error::NonFinite {
                what: "an element of an integer format",
                value: f64::NAN,
            });
        }
        Ok(x.iter().filter(|x| self.saturates(x.widen(), scale)).count())
    }

    /// Rounds every element stochastically, with the uniform number that `uniform` returns for its index.
    /// Returns how many saturated.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] if a number of bits or `scale` is out of range,
    /// [`Error::LengthMismatch`] if `out` does not have the length of `x`, [`Error::NonFinite`] if an
    /// integer format meets NaN. Nothing is written then.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// let mut y = [0.0f64; 3];
    /// assert_eq!(Format::INT4.round_slice(&[0.25, -9.0, 3.0], 1.0, |_| 0.2, &mut y)?, 1);
    /// assert_eq!(y, [1.0, -7.0, 3.0]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn round_slice<R: Real>(
        self,
        x: &[R],
        scale: f64,
        mut uniform: impl FnMut(usize) -> f64,
        out: &mut [R],
    ) -> Result<usize> {
        check_length("out", &[x.len()], x.len(), out.len())?;
        let saturated = self.check(x, scale)?;
        for (index, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = R::of(self.round(x.widen(), scale, uniform(index)));
        }
        Ok(saturated)
    }

    /// Rounds every element to the nearest number of the grid. Returns how many saturated.
    ///
    /// # Errors
    /// As [`Format::round_slice`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// let mut y = [0.0f64; 2];
    /// Format::INT4.nearest_slice(&[0.25, 2.75], 1.0, &mut y)?;
    /// assert_eq!(y, [0.0, 3.0]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn nearest_slice<R: Real>(self, x: &[R], scale: f64, out: &mut [R]) -> Result<usize> {
        check_length("out", &[x.len()], x.len(), out.len())?;
        let saturated = self.check(x, scale)?;
        for (out, x) in out.iter_mut().zip(x) {
            *out = R::of(self.nearest(x.widen(), scale));
        }
        Ok(saturated)
    }
}
