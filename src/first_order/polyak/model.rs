//! The model of the loss that MoMo takes its step size from.

/// The smaller of two numbers; NaN stays NaN.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a > b { b } else { a }
}

/// What [`Momo`](super::Momo) and [`MomoAdam`](super::MomoAdam) know of their group.
#[derive(Clone, Debug, Default)]
pub struct MomoGroupState {
    /// Number of steps.
    pub k: u64,
    /// Average of the losses.
    pub loss_avg: f64,
    /// Lower bound of the loss: the option's, or its estimate.
    pub lower_bound: f64,
    /// Factor `τ` on the direction in the last step.
    pub step_size: f64,
}
crate::group_state!(common MomoGroupState { k, loss_avg, lower_bound, step_size });

/// Options of a step, under one name for both methods.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelOptions {
    pub lr: f64,
    pub weight_decay: f64,
    pub beta: f64,
    pub lower_bound: f64,
    pub bias_correction: bool,
    pub use_fstar: bool,
}

impl ModelOptions {
    /// `1 − βᵏ` with bias correction, else 1.
    fn rho(&self, k: u64) -> f64 {
        if self.bias_correction { 1.0 - self.beta.powf(k as f64) } else { 1.0 }
    }

    /// Weight of what is new in averages at step `t`: everything at first, without bias correction.
    pub fn weight(&self, t: u64) -> f64 {
        if t == 1 && !self.bias_correction { 1.0 } else { 1.0 - self.beta }
    }

    /// Takes the loss of a step into its average.
    pub fn begin(&self, loss: f64, state: &mut MomoGroupState) {
        state.k += 1;
        state.loss_avg += self.weight(state.k) * (loss - state.loss_avg);
        if state.k == 1 || !self.use_fstar {
            state.lower_bound = self.lower_bound;
        }
    }

    /// Step size and lower bound from `⟨d, x⟩`, `‖d‖²` in the norm of the step, and the average of
    /// `⟨g, x⟩`.
    pub fn combine(&self, (dot, square, gamma): (f64, f64, f64), state: &mut MomoGroupState) {
        let (rho, grown) = (self.rho(state.k), 1.0 + self.lr * self.weight_decay);
        let model = grown * state.loss_avg + dot - grown * gamma;
        if self.use_fstar && model < grown * rho * state.lower_bound {
            state.lower_bound = (model / (2.0 * grown * rho)).max(self.lower_bound);
        }
        let gap = grown * (state.loss_avg - rho * state.lower_bound) + dot - grown * gamma;
        // comparisons let NaN through
        let polyak = if gap <= 0.0 || square == 0.0 { 0.0 } else { gap / square };
        state.step_size = smaller(polyak, self.lr / rho);
        if self.use_fstar {
            let model = state.loss_avg + dot - gamma;
            let least = (model - 0.5 * state.step_size * square) / rho;
            state.lower_bound = least.max(self.lower_bound);
        }
    }

    /// Share that `p ← p/(1 + αλ)` takes from a parameter.
    pub fn proximal_decay(&self) -> f64 {
        let decay = self.lr * self.weight_decay;
        decay / (1.0 + decay)
    }
}
