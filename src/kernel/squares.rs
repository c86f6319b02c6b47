//! Sums of squares of whole tensors.

use super::isa::{Isa, Kernel};
use crate::numeric::Real;
use crate::numeric::reduce;

/// `Σ x²`, the bits of [`reduce::sum_of_squares`].
pub(crate) fn sum_of_squares<R: Real>(xs: &[R]) -> f64 {
    Isa::detect().run(Squares(xs))
}

struct Squares<'a, R>(&'a [R]);

impl<R: Real> Kernel for Squares<'_, R> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        reduce::sum_of_squares(self.0)
    }
}
