//! What rules around rules refuse, and the comparison that masks share.

use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Real;
use crate::optim::{Rule, updates_itself};

/// Whether the step of `inner` is its direction times the learning rate, so that the wrapper `W` may
/// change the direction.
pub(super) fn check_direction<W: Hyperparameters, U: Rule>(inner: &U) -> Result<()> {
    if updates_itself(inner) {
        let expected = "a rule whose step is its direction times the learning rate";
        return Err(W::invalid("inner", expected, U::NAME));
    }
    Ok(())
}

/// Whether two numbers are both above or both below zero. Their product could underflow.
#[inline(always)]
pub(super) fn same_sign<R: Real>(a: R, b: R) -> bool {
    let zero = R::zero();
    (a > zero && b > zero) || (a < zero && b < zero)
}
