//! The number types: those that updates compute with ([`Real`]), and those that parameters are stored in
//! ([`Element`]).
//!
//! | parameters | state and updates | feature |
//! |---|---|---|
//! | `f32` | `f32` | – |
//! | `f64` | `f64` | – |
//! | `bf16`, `f16` | `f32` | `half` |

// Floor 0.

use num_traits::{Float, FromPrimitive, NumAssign, PrimInt};
use std::fmt::Debug;
use std::iter::Sum;

pub(crate) mod limits;
pub mod random;
pub(crate) mod range;
pub mod reduce;

#[cfg(feature = "half")]
mod half;
#[cfg(feature = "half")]
pub use ::half::{bf16, f16};

/// Calls `$macro!(Type)` for the elements that the feature `half` adds: none.
#[cfg(not(feature = "half"))]
#[doc(hidden)]
#[macro_export]
macro_rules! half_elements {
    ($macro:ident) => {};
}

/// Arithmetic type of every update: `f32` or `f64`.
///
/// Methods are written once, generic over `Real`; scalars (learning rate, bias corrections) are
/// computed in `f64` and rounded to `Self` once, with [`Real::of`].
pub trait Real:
    Float
    + NumAssign
    + FromPrimitive
    + Default
    + Sum
    + Send
    + Sync
    + Debug
    + Element<Compute = Self>
    + 'static
{
    /// Rounds an `f64` to this type.
    fn of(x: f64) -> Self;
    /// Widens to `f64`; exact.
    fn widen(self) -> f64;
    /// `|x|` as an unsigned integer that orders like the number; NaN orders above infinity.
    fn magnitude_bits(self) -> Self::Bits;
    /// Unsigned integer of the same width.
    type Bits: PrimInt + Default + Send + Sync + Debug + 'static;
    /// Undoes [`Real::magnitude_bits`].
    fn from_magnitude_bits(bits: Self::Bits) -> Self;
    /// Takes the `f32` or the `f64` arm of `choice`.
    fn choose<C: ByReal>(choice: C) -> C::Output<Self>;
}

/// What generic code needs once per arithmetic type and cannot write generically.
///
/// The arms are not generic, so whatever they instantiate is compiled in the crate and module that
/// hold them and not again in every caller; matrix decompositions rely on this.
pub trait ByReal {
    /// What both arms return.
    type Output<R: Real>;
    /// The arm for `f32`.
    fn f32(self) -> Self::Output<f32>;
    /// The arm for `f64`.
    fn f64(self) -> Self::Output<f64>;
}

/// Storage type of a parameter: `f32`, `f64`, and with the feature `half` also `bf16` and `f16`.
pub trait Element: Copy + Default + PartialEq + Send + Sync + Debug + 'static {
    /// Type that updates of such parameters are computed in.
    type Compute: Real;
    /// Name as in state dicts: `f32`, `f64`, `bf16`, `f16`.
    const NAME: &'static str;
    /// Widens one element; exact.
    fn load(self) -> Self::Compute;
    /// Rounds to nearest, ties to even.
    fn store(x: Self::Compute) -> Self;
    /// The slice itself when storage and arithmetic type are the same.
    fn as_compute(slice: &[Self]) -> Option<&[Self::Compute]>;
    /// The slice itself when storage and arithmetic type are the same.
    fn as_compute_mut(slice: &mut [Self]) -> Option<&mut [Self::Compute]>;
    /// The inverse of [`Element::as_compute_mut`]: the slice itself when both types are the same.
    fn from_compute_mut(slice: &mut [Self::Compute]) -> Option<&mut [Self]> {
        let _ = slice;
        None
    }
    /// Rounds up or down at random so that the expectation is `x`; `random` holds 32 uniform bits.
    ///
    /// For types that store their arithmetic type this is the identity.
    fn store_stochastic(x: Self::Compute, random: u32) -> Self {
        let _ = random;
        Self::store(x)
    }
    /// Little-endian bytes appended to `out`.
    fn write_le(slice: &[Self], out: &mut Vec<u8>);
    /// Elements from little-endian bytes; left-over bytes at the end are ignored.
    fn read_le(bytes: &[u8]) -> Vec<Self>;
}

/// −1, 0 or 1; a NaN stays, lest it become a step of zero.
#[inline(always)]
pub fn sign<R: Real>(x: R) -> R {
    let negative = if x < R::zero() { -R::one() } else { x };
    if x > R::zero() { R::one() } else { negative }
}

macro_rules! real {
    ($type:ident, $bits:ident) => {
        impl Element for $type {
            type Compute = $type;
            const NAME: &'static str = stringify!($type);
            #[inline(always)]
            fn load(self) -> $type {
                self
            }
            #[inline(always)]
            fn store(x: $type) -> $type {
                x
            }
            #[inline(always)]
            fn as_compute(slice: &[Self]) -> Option<&[$type]> {
                Some(slice)
            }
            #[inline(always)]
            fn as_compute_mut(slice: &mut [Self]) -> Option<&mut [$type]> {
                Some(slice)
            }
            #[inline(always)]
            fn from_compute_mut(slice: &mut [$type]) -> Option<&mut [Self]> {
                Some(slice)
            }
            fn write_le(slice: &[Self], out: &mut Vec<u8>) {
                out.extend(slice.iter().flat_map(|x| x.to_le_bytes()));
            }
            fn read_le(bytes: &[u8]) -> Vec<Self> {
                let (words, _) = bytes.as_chunks();
                words.iter().map(|&word| $type::from_le_bytes(word)).collect()
            }
        }
        impl Real for $type {
            type Bits = $bits;
            #[inline(always)]
            fn of(x: f64) -> $type {
                x as $type
            }
            #[inline(always)]
            fn widen(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn magnitude_bits(self) -> $bits {
                self.to_bits() & ($bits::MAX >> 1)
            }
            #[inline(always)]
            fn from_magnitude_bits(bits: $bits) -> $type {
                $type::from_bits(bits)
            }
            fn choose<C: ByReal>(choice: C) -> C::Output<$type> {
                choice.$type()
            }
        }
    };
}
real!(f32, u32);
real!(f64, u64);
