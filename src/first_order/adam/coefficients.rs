//! What the rules of the Adam family share: slots, the scalars of one step, and the direction.

use crate::first_order::arithmetic::{larger, lerp, ratio};
use crate::numeric::Real;
use crate::optim::Slot;

/// Whether and where the moments' start at zero is corrected for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correction {
    pub bias_correction: bool,
    pub eps_hat: bool,
}

/// Scalars of Adam's direction at one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamCoefficients<R> {
    /// `1 − β₁`.
    pub one_minus_beta1: R,
    /// `β₂`.
    pub beta2: R,
    /// `1 − β₂`.
    pub one_minus_beta2: R,
    /// `1 / (1 − β₁ᵗ)`; with `eps_hat` times `√(1 − β₂ᵗ)`.
    pub correction1: R,
    /// `1 / √(1 − β₂ᵗ)`; with `eps_hat` 1.
    pub correction2: R,
    /// `ε`.
    pub eps: R,
}

impl AdamCoefficients<()> {
    /// The slots of [`AdamCoefficients::direction`].
    pub const SLOTS: [Slot; 3] = [
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_sq"),
        Slot::unsigned("max_exp_avg_sq").optional(),
    ];
}

impl<R: Real> AdamCoefficients<R> {
    /// Scalars of step `t`, computed in `f64` and rounded once.
    pub(super) fn new(betas: (f64, f64), eps: f64, correction: Correction, t: u64) -> Self {
        let (beta1, beta2) = betas;
        let Correction { bias_correction, eps_hat } = correction;
        let bias = |beta: f64| if bias_correction { 1.0 - beta.powf(t as f64) } else { 1.0 };
        let (correction1, correction2) = if eps_hat {
            (bias(beta2).sqrt() / bias(beta1), 1.0)
        } else {
            (1.0 / bias(beta1), 1.0 / bias(beta2).sqrt())
        };
        Self {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction1: R::of(correction1),
            correction2: R::of(correction2),
            eps: R::of(eps),
        }
    }

    /// `m̂ / (√v̂ + ε)` with the moments updated; the third slot is the largest `v` so far.
    ///
    /// Without amsgrad that slot is off and reads as 0: the largest is then `v` itself.
    #[inline(always)]
    pub fn direction(&self, g: R, [m, v, largest]: [R; 3]) -> (R, [R; 3]) {
        let m = lerp(m, g, self.one_minus_beta1);
        let v = self.beta2 * v + self.one_minus_beta2 * g * g;
        let largest = larger(largest, v);
        // one division per element: the corrections are reciprocals
        let u = ratio(m * self.correction1, largest.sqrt() * self.correction2 + self.eps);
        (u, [m, v, largest])
    }
}
