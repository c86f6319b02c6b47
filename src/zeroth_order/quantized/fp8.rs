//! 8-bit floating-point numbers.

/// 8-bit floating-point numbers.
///
/// ```text
/// code = sign, exponent e, fraction f of m bits
/// e = 0:   ± f·2^(1 − bias − m)                 subnormal
/// e > 0:   ± (2^m + f)·2^(e − bias − m)
/// ```
///
/// | | exponent, fraction | bias | largest | smallest normal | smallest | not finite |
/// |---|---|---|---|---|---|---|
/// | `E4M3` | 4, 3 bits | 7 | 448 | 2⁻⁶ | 2⁻⁹ | NaN, all ones; no infinities |
/// | `E5M2` | 5, 2 bits | 15 | 57344 | 2⁻¹⁴ | 2⁻¹⁶ | infinities, and NaN |
///
/// Rounding saturates and never returns an infinity. NaN stays NaN, and −0 becomes +0.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::Fp8;
///
/// assert_eq!(Fp8::E4M3.decode(0x7e), 448.0);
/// assert_eq!(Fp8::E5M2.nearest(1.1), 1.0);
/// assert_eq!(Fp8::E5M2.round(1.1, 0.3), 1.25);
/// ```
///
/// # Source
/// P. Micikevicius et al., "FP8 Formats for Deep Learning", 2022.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Fp8 {
    /// Four bits of exponent, three of fraction.
    E4M3,
    /// Five bits of exponent, two of fraction.
    E5M2,
}

/// The bit of the sign.
const SIGN: u8 = 0x80;
/// NaN in both formats.
const NAN: u8 = 0x7f;
/// Bits of the fraction of an `f64`, and the exponent of 1.
const FRACTION: u32 = 52;
const BIAS: u32 = 1023;

impl Fp8 {
    /// Bits of the fraction, and the exponent of 1.
    fn layout(self) -> (u32, u32) {
        match self {
            Self::E4M3 => (3, 7),
            Self::E5M2 => (2, 15),
        }
    }

    /// The code of the largest finite number. Codes of larger magnitude are not finite.
    fn last(self) -> u8 {
        match self {
            Self::E4M3 => 0x7e,
            Self::E5M2 => 0x7b,
        }
    }

    /// The largest finite number.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Fp8;
    ///
    /// assert_eq!((Fp8::E4M3.largest(), Fp8::E5M2.largest()), (448.0, 57344.0));
    /// ```
    pub fn largest(self) -> f64 {
        self.decode(self.last())
    }

    /// The number that a code stands for, for all 256 codes.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Fp8;
    ///
    /// assert_eq!(Fp8::E4M3.decode(0x01), 2f64.powi(-9));
    /// assert_eq!(Fp8::E5M2.decode(0xfc), f64::NEG_INFINITY);
    /// assert!(Fp8::E4M3.decode(0x7f).is_nan());
    /// ```
    pub fn decode(self, code: u8) -> f64 {
        let (fraction_bits, bias) = self.layout();
        let size = code & !SIGN;
        let value = if size > self.last() {
            match (self, size) {
                (Self::E5M2, 0x7c) => f64::INFINITY,
                _ => f64::NAN,
            }
        } else {
            let (exponent, fraction) = (size >> fraction_bits, size & ((1 << fraction_bits) - 1));
            let whole = if exponent == 0 { fraction } else { fraction | 1 << fraction_bits };
            let power = i32::from(exponent.max(1)) - (bias + fraction_bits) as i32;
            f64::from(whole) * 2f64.powi(power)
        };
        if code & SIGN == 0 { value } else { -value }
    }

    /// The code of the largest number up to `size`, which must not exceed the largest finite number.
    fn below(self, size: f64) -> u8 {
        let (fraction_bits, bias) = self.layout();
        let smallest_normal = 2f64.powi(1 - bias as i32);
        if size < smallest_normal {
            return (size / smallest_normal * f64::from(1u8 << fraction_bits)) as u8;
        }
        // an `f64` has the same fields in the same order, with another bias
        let shifted = size.to_bits() >> (FRACTION - fraction_bits);
        shifted.saturating_sub(u64::from(BIAS - bias) << fraction_bits) as u8
    }

    /// The codes and the numbers next to the magnitude `size`, below and above; twice the last one at the
    /// end of the range.
    fn around(self, size: f64) -> [(u8, f64); 2] {
        let last = self.last();
        let low = if size >= self.largest() { last } else { self.below(size).min(last) };
        let value = self.decode(low);
        let high = if value == size { low } else { last.min(low + 1) };
        [(low, value), (high, self.decode(high))]
    }

    /// A code with a sign; there is one zero.
    fn signed(size: u8, negative: bool) -> u8 {
        if negative && size > 0 { size | SIGN } else { size }
    }

    /// The code that [`Fp8::nearest`] chooses.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Fp8;
    ///
    /// // ties go to the even code
    /// assert_eq!(Fp8::E4M3.encode_nearest(1.0625), Fp8::E4M3.encode_nearest(1.0));
    /// assert_eq!(Fp8::E4M3.encode_nearest(-0.0), 0);
    /// ```
    pub fn encode_nearest(self, x: f64) -> u8 {
        if x.is_nan() {
            return NAN;
        }
        let size = x.abs();
        let [(low, below), (high, above)] = self.around(size);
        let (down, up) = (size - below, above - size);
        let even = if low & 1 == 0 { low } else { high };
        let code = match down.partial_cmp(&up) {
            // the same code twice: at the end of the range, or exactly on a number
            _ if low == high => low,
            Some(std::cmp::Ordering::Less) => low,
            Some(std::cmp::Ordering::Greater) => high,
            _ => even,
        };
        Self::signed(code, x < 0.0)
    }

    /// The code that [`Fp8::round`] chooses.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Fp8;
    ///
    /// let codes = [0.49, 0.5].map(|u| Fp8::E4M3.encode(1.0625, u));
    /// assert_eq!(codes.map(|code| Fp8::E4M3.decode(code)), [1.125, 1.0]);
    /// ```
    pub fn encode(self, x: f64, u: f64) -> u8 {
        if x.is_nan() {
            return NAN;
        }
        let negative = x < 0.0;
        let size = x.abs();
        let [(low, below), (high, above)] = self.around(size);
        let gap = above - below;
        let code = if low == high {
            low
        } else if negative {
            // rounding up is rounding towards zero
            if u < (above - size) / gap { low } else { high }
        } else if u < (size - below) / gap {
            high
        } else {
            low
        };
        Self::signed(code, negative)
    }

    /// Rounds to the nearest number, ties to the even code.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Fp8;
    ///
    /// assert_eq!(Fp8::E4M3.nearest(-500.0), -448.0);
    /// assert!(Fp8::E4M3.nearest(f64::NAN).is_nan());
    /// ```
    pub fn nearest(self, x: f64) -> f64 {
        self.decode(self.encode_nearest(x))
    }

    /// Rounds stochastically: up or down at random, with the exact mean.
    ///
    /// ```text
    /// lo, hi: the finite numbers around x;   hi if u < (x − lo)/(hi − lo), else lo
    /// ```
    /// Numbers of the format do not change. Numbers beyond the largest are rounded to it.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Fp8;
    ///
    /// assert_eq!([0.0, 0.3, 0.6].map(|u| Fp8::E4M3.round(-1.0625, u)), [-1.0, -1.0, -1.125]);
    /// assert_eq!(Fp8::E4M3.round(f64::INFINITY, 0.0), 448.0);
    /// ```
    pub fn round(self, x: f64, u: f64) -> f64 {
        self.decode(self.encode(x, u))
    }
}
