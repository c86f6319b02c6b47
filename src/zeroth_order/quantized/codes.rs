//! Slices of numbers as codes.

use super::format::Format;
use crate::error::{Result, check_length};
use crate::numeric::Real;
use crate::quant::{pack_nibbles, unpack_nibbles};

/// Packs two 4-bit codes into a byte, the first one in the low half.
///
/// Codes are two's complement, and only their four low bits are kept. If the number of codes is odd, a 0 is
/// appended.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{pack_int4, unpack_int4};
///
/// let bytes = pack_int4(&[1, -2, 7]);
/// assert_eq!(bytes, [0xe1, 0x07]);
/// assert_eq!(unpack_int4(&bytes, 3)?, [1, -2, 7]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn pack_int4(codes: &[i8]) -> Vec<u8> {
    let nibbles: Vec<u8> = codes.iter().map(|&code| code as u8 & 15).collect();
    let mut bytes = vec![0; codes.len().div_ceil(2)];
    pack_nibbles(&nibbles, &mut bytes);
    // `pack_nibbles` puts the first one in the high half
    bytes.iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
    bytes
}

/// Unpacks `numel` codes that [`pack_int4`] has packed.
///
/// # Errors
/// [`LengthMismatch`](crate::Error::LengthMismatch) if the number of bytes does not fit `numel`.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::unpack_int4;
///
/// assert_eq!(unpack_int4(&[0x8f], 2)?, [-1, -8]);
/// assert!(unpack_int4(&[0x8f], 3).is_err());
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn unpack_int4(bytes: &[u8], numel: usize) -> Result<Vec<i8>> {
    check_length("bytes", &[numel], numel.div_ceil(2), bytes.len())?;
    let swapped: Vec<u8> = bytes.iter().map(|byte| byte.rotate_left(4)).collect();
    let mut nibbles = vec![0; numel];
    unpack_nibbles(&swapped, &mut nibbles);
    // the shift to the right extends the sign
    Ok(nibbles.into_iter().map(|nibble| (nibble << 4) as i8 >> 4).collect())
}

/// The codes of a slice, which [`Format::encode`] returns.
///
/// Integers of up to four bits take ½ byte: two are in a byte, the first in the low half. All others take 1
/// byte. Integer codes are two's complement.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::Format;
///
/// let x = [0.7f32, -0.2, 0.1];
/// let codes = Format::INT4.encode(&x, Format::INT4.scale(&x), |_| 0.5)?;
/// assert_eq!((codes.bytes(), codes.saturated()), (&[0xe7u8, 0x01][..], 0));
/// let mut y = [0.0f32; 3];
/// codes.decode_into(&mut y)?;
/// assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-6));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    format: Format,
    scale: f64,
    numel: usize,
    bytes: Vec<u8>,
    saturated: usize,
}

impl Codes {
    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The factor of the codes.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.numel
    }

    /// The codes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many elements were outside the range and were rounded to an end of it.
    pub fn saturated(&self) -> usize {
        self.saturated
    }

    /// Writes `scale·code` for every element.
    ///
    /// # Errors
    /// [`LengthMismatch`](crate::Error::LengthMismatch) if `out` does not have [`Codes::numel`] elements.
    pub fn decode_into<R: Real>(&self, out: &mut [R]) -> Result<()> {
        check_length("out", &[self.numel], self.numel, out.len())?;
        let write = |(out, code): (&mut R, u8)| {
            *out = R::of(self.format.decode(code, self.scale));
        };
        if self.format.is_packed() {
            let codes = unpack_int4(&self.bytes, self.numel)?;
            out.iter_mut().zip(codes.into_iter().map(|code| code as u8)).for_each(write);
        } else {
            out.iter_mut().zip(self.bytes.iter().copied()).for_each(write);
        }
        Ok(())
    }
}

impl Format {
    /// The codes of a slice, rounded stochastically as by [`Format::round_slice`].
    ///
    /// # Errors
    /// As [`Format::round_slice`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Format;
    ///
    /// let codes = Format::E4M3.encode(&[1.0f32, -2.0], 1.0, |_| 0.5)?;
    /// assert_eq!(codes.bytes(), [0x38, 0xc0]);
    /// assert!(Format::INT4.encode(&[f32::NAN], 1.0, |_| 0.5).is_err());
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn encode<R: Real>(
        self,
        x: &[R],
        scale: f64,
        mut uniform: impl FnMut(usize) -> f64,
    ) -> Result<Codes> {
        let saturated = self.check(x, scale)?;
        let code = |(index, x): (usize, &R)| self.code(x.widen(), scale, uniform(index));
        let mut bytes: Vec<u8> = x.iter().enumerate().map(code).collect();
        if self.is_packed() {
            let codes: Vec<i8> = bytes.iter().map(|&code| code as i8).collect();
            bytes = pack_int4(&codes);
        }
        Ok(Codes { format: self, scale, numel: x.len(), bytes, saturated })
    }
}
