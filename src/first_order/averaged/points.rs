//! The points of methods that average their iterates: `z`, which steps, `x`, the average of all `z`, and `y` between
//! both, where gradients are taken.

use crate::numeric::Real;
use crate::optim::Mode;

/// How far `x` and `y = z + β·(x − z)` lie apart, as shares of the way to `z`.
#[derive(Clone, Copy, Debug)]
pub struct Points<R> {
    /// `1 − β`: how far `y` lies from `x` towards `z`.
    to_train: R,
    /// `1 − 1/β`: how far `x` lies from `y` towards `z`.
    to_eval: R,
}

impl<R: Real> Points<R> {
    pub(super) fn new(beta: f64) -> Self {
        Self { to_train: R::of(1.0 - beta), to_eval: R::of(1.0 - 1.0 / beta) }
    }

    /// The parameter at the other point.
    #[inline(always)]
    pub(super) fn moved(&self, to: Mode, p: R, z: R) -> R {
        let weight = match to {
            Mode::Train => self.to_train,
            Mode::Eval => self.to_eval,
        };
        p + weight * (z - p)
    }
}

/// The step of a Schedule-Free method along any direction.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleFreeStep<R> {
    /// Share of `z` in the average.
    c: R,
    /// `γ·(β·(1 − c) − 1)`.
    pull: R,
    pub(super) points: Points<R>,
}

impl<R: Real> ScheduleFreeStep<R> {
    /// The step of a learning rate, after which `z` has the share `c` of the average.
    pub(super) fn new(lr: f64, c: f64, beta: f64) -> Self {
        let pull = R::of(lr * (beta * (1.0 - c) - 1.0));
        Self { c: R::of(c), pull, points: Points::new(beta) }
    }

    /// `y` and `z` after a step of length `lr` along `u`.
    #[inline(always)]
    pub(super) fn along(&self, lr: R, u: R, y: R, z: R) -> (R, R) {
        (y + self.c * (z - y) + self.pull * u, z - lr * u)
    }
}

/// The share of the newest iterate in a weighted average; `sum` is that of all weights.
pub(super) fn share(weight: f64, sum: &mut f64) -> f64 {
    // beyond the range only the newest weight counts
    let weight = weight.min(f64::MAX);
    *sum = (*sum + weight).min(f64::MAX);
    if *sum == 0.0 { 0.0 } else { weight / *sum }
}
