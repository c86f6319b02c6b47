//! What the estimates of a distance have in common.

use crate::error::Result;
use crate::hyper::Hyperparameters;

/// Largest estimate: beyond it a distance is none, and the loss has no minimum.
pub(super) const D_LARGEST: f64 = 1e15;

/// The largest estimate where weights decay: steps of `lr` times a larger one would throw them beyond zero, farther
/// each time.
pub(super) fn largest(lr: f64, weight_decay: f64) -> f64 {
    // where nothing decays 1/0 is no limit
    (1.0 / (lr * weight_decay)).min(D_LARGEST)
}

/// The estimate `d` after a step that found `estimate`, growing by at most `growth_rate`, up to `largest`.
pub(super) fn grown(d: f64, estimate: f64, (growth_rate, largest): (f64, f64)) -> f64 {
    // a NaN is no estimate
    d.max(estimate).min(d * growth_rate).min(largest)
}

/// Refuses a learning rate other than that of group 0, unless one of both is frozen.
pub(super) fn same_lr<C: Hyperparameters>(lr: f64, first: f64) -> Result<()> {
    if lr == first || lr == 0.0 || first == 0.0 {
        return Ok(());
    }
    let expected = format!("0 or {first} as in group 0");
    Err(C::invalid("lr", expected, lr.to_string()))
}
