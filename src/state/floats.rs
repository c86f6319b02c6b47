//! Floating-point tensors of a state dict as numbers of another type.

use super::dict::{Dtype, StateTensor};
use crate::numeric::{Element, Real};

/// The elements of a tensor whose bytes fit its shape, each as the nearest number of type `T`. The error says
/// what is wrong.
pub(super) fn floats<T: Element>(tensor: &StateTensor) -> Result<Vec<T>, String> {
    let bytes = &tensor.bytes;
    if tensor.dtype == Dtype::of::<T>() {
        return Ok(T::read_le(bytes));
    }
    let words = || {
        let (words, _) = bytes.as_chunks();
        words.iter().map(|&word| u16::from_le_bytes(word))
    };
    match tensor.dtype {
        Dtype::F64 => nearest(f64::read_le(bytes).into_iter()),
        Dtype::F32 => nearest(f32::read_le(bytes).into_iter().map(f64::from)),
        Dtype::Bf16 => nearest(words().map(|word| f32::from_bits(u32::from(word) << 16).into())),
        Dtype::F16 => nearest(words().map(from_f16)),
        found => Err(format!("expected floating-point numbers, found {found:?}")),
    }
}

/// The nearest numbers of type `T`. What is finite stays finite.
fn nearest<T: Element>(values: impl Iterator<Item = f64>) -> Result<Vec<T>, String> {
    let convert = |x: f64| {
        let near = T::store(T::Compute::of(x));
        match x.is_finite() && !near.load().widen().is_finite() {
            true => Err(format!("{x:e} is beyond the range of {}", T::NAME)),
            false => Ok(near),
        }
    };
    values.map(convert).collect()
}

/// The number of the 16 bits of an IEEE half.
fn from_f16(word: u16) -> f64 {
    let sign = if word >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(word >> 10 & 31), f64::from(word & 1023));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::from_f16;

    #[test]
    fn halves_are_read_exactly() {
        let cases = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2f64.powi(-24)),
            (0x0400, 2f64.powi(-14)),
            (0x7c00, f64::INFINITY),
        ];
        for (word, value) in cases {
            assert_eq!(from_f16(word), value);
        }
        assert!(from_f16(0x7e00).is_nan());
    }
}
