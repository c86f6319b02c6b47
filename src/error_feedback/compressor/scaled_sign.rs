//! Signs and one magnitude.

use super::bits::pack;
use super::draws::{euclidean_norm, mean_magnitude};
use super::{Compressor, Message};
use crate::numeric::Real;

/// The sign of every element and the mean magnitude of all elements.
///
/// ```text
/// C(x) = (‖x‖₁/d)·sign(x),  sign(0) = 1           δ = ‖x‖₁²/(d‖x‖₂²), between 1/d and 1
/// ```
/// It takes one bit per element and one number: d/8 + 4 bytes in `f32`. A zero vector stays zero.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Compressor, ScaledSign};
///
/// let mut y = [0.0f32; 3];
/// ScaledSign.compress(1, &[1.0f32, -2.0, 0.0]).decompress_into(&mut y);
/// assert_eq!(y, [1.0, -1.0, 1.0]);
/// ```
///
/// # Source
/// S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error Feedback Fixes SignSGD and other
/// Gradient Compression Schemes", ICML 2019.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScaledSign;

impl ScaledSign {
    /// The exact `δ` of a vector; 1 if the vector is zero.
    pub fn contraction_of<R: Real>(x: &[R]) -> f64 {
        let norm = euclidean_norm(x);
        if norm > 0.0 { (mean_magnitude(x) / norm).powi(2) * x.len() as f64 } else { 1.0 }
    }
}

impl<R: Real> Compressor<R> for ScaledSign {
    fn compress(&mut self, _: u64, x: &[R]) -> Message<R> {
        let signs = pack(x.iter().map(|&x| u32::from(x < R::zero())), 1);
        Message::Signs { numel: x.len(), scale: R::of(mean_magnitude(x)), signs }
    }

    /// `1/d`, the constant of a vector with one element that is not zero.
    fn contraction(&self, numel: usize) -> f64 {
        1.0 / numel.max(1) as f64
    }
}
