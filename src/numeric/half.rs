//! `bf16` and `f16` as parameter storage; updates of such parameters compute in `f32`.

use super::Element;
use ::half::{bf16, f16};

/// Calls `$macro!(Type)` for the elements that the feature `half` adds.
#[doc(hidden)]
#[macro_export]
macro_rules! half_elements {
    ($macro:ident) => {
        $macro!($crate::numeric::bf16);
        $macro!($crate::numeric::f16);
    };
}

macro_rules! half {
    ($type:ident, $stochastic:expr) => {
        impl Element for $type {
            type Compute = f32;
            const NAME: &'static str = stringify!($type);
            #[inline(always)]
            fn load(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn store(x: f32) -> $type {
                $type::from_f32(x)
            }
            #[inline(always)]
            fn as_compute(_: &[Self]) -> Option<&[f32]> {
                None
            }
            #[inline(always)]
            fn as_compute_mut(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }
            #[inline]
            fn store_stochastic(x: f32, random: u32) -> $type {
                let round: fn(f32, u32) -> $type = $stochastic;
                round(x, random)
            }
            fn write_le(slice: &[Self], out: &mut Vec<u8>) {
                out.extend(slice.iter().flat_map(|x| x.to_le_bytes()));
            }
            fn read_le(bytes: &[u8]) -> Vec<Self> {
                let (words, _) = bytes.as_chunks();
                words.iter().map(|&word| $type::from_le_bytes(word)).collect()
            }
        }
    };
}
half!(bf16, bf16_stochastic);
half!(f16, f16_stochastic);

/// Adds one unit of the 16 kept bits with probability (16 dropped bits) / 2^16, in magnitude.
fn bf16_stochastic(x: f32, random: u32) -> bf16 {
    // the addition would turn a NaN's payload or an infinity into something else
    if !x.is_finite() {
        return bf16::from_f32(x);
    }
    let bits = x.to_bits();
    let up = u16::from((random & 0xffff) < (bits & 0xffff));
    bf16::from_bits(((bits >> 16) as u16).wrapping_add(up))
}

/// The two `f16` neighbours of `x`, chosen with probability proportional to closeness.
fn f16_stochastic(x: f32, random: u32) -> f16 {
    let nearest = f16::from_f32(x);
    let value = nearest.to_f32();
    if !value.is_finite() || value == x {
        return nearest;
    }
    // step from the neighbour below in magnitude to the one above it
    let below = if value.abs() > x.abs() { f16::from_bits(nearest.to_bits() - 1) } else { nearest };
    let above = f16::from_bits(below.to_bits() + 1);
    let (low, high) = (below.to_f32(), above.to_f32());
    let share = (x - low) / (high - low);
    if ((random >> 8) as f32) < share * 16_777_216.0 { above } else { below }
}
