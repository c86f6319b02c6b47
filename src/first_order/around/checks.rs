//! What rules around rules refuse.

use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::optim::Rule;

/// Whether the step of `inner` is its direction times the learning rate, so that the wrapper `W` may
/// change the direction.
pub(super) fn check_direction<W: Hyperparameters, U: Rule>(inner: &U) -> Result<()> {
    if inner.has_own_update() {
        let expected = "a rule whose step is its direction times the learning rate";
        return Err(W::invalid("inner", expected, U::NAME));
    }
    Ok(())
}
