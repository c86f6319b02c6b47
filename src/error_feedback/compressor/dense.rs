//! Compressors that keep every element: as it is, or in 16 bits.

use super::half::power;
use super::{Compressor, HalfPrecision, Message};
use crate::numeric::Real;

/// No compression: `C(x) = x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity;

impl<R: Real> Compressor<R> for Identity {
    fn compress(&mut self, _: u64, x: &[R]) -> Message<R> {
        Message::Dense(x.to_vec())
    }

    fn contraction(&self, _: usize) -> f64 {
        1.0
    }

    fn variance(&self, _: usize) -> Option<f64> {
        Some(0.0)
    }
}

impl<R: Real> Compressor<R> for HalfPrecision {
    fn compress(&mut self, _: u64, x: &[R]) -> Message<R> {
        Message::Half { format: *self, codes: self.encode(x) }
    }

    fn contraction(&self, _: usize) -> f64 {
        1.0 - power(match self {
            Self::Bf16 => -16,
            Self::F16 => -22,
        })
    }
}
