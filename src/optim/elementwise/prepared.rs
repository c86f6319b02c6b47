//! What one step of one tensor needs of its rule.

use super::rule::Apply;

/// Scalars of one step of one tensor.
#[derive(Debug)]
pub struct Prepared<C, R> {
    pub(in crate::optim) coefficients: C,
    pub(in crate::optim) apply: Apply<R>,
}

impl<C: Copy, R: Copy> Copy for Prepared<C, R> {}
impl<C: Copy, R: Copy> Clone for Prepared<C, R> {
    fn clone(&self) -> Self {
        *self
    }
}
