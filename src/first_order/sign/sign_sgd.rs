use crate::first_order::arithmetic::lerp;
use crate::numeric::{Real, sign};
use crate::optim::{Rule, Slot, WeightDecay};

/// SignSGD, and Signum with momentum: every element moves by `lr`, along the sign of its gradient.
///
/// *Use it when* only the sign of a gradient can be trusted, as with estimates from losses, or when workers
/// send nothing but signs. *Not when* small gradients should make small steps: a schedule has to bring `lr`
/// to 0.
///
/// ```text
/// p ← p·(1 − γλ)
/// m ← m + (1 − β)·(g − m)              m = g if β = 0
/// p ← p − γ·sign(m)                    sign(0) = 0
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-4 | paper |
/// | `momentum` β | 0; Signum: 0.9 | paper |
/// | `weight_decay` λ | 0 | – |
/// | `maximize` | false | PyTorch |
///
/// State: none; `momentum_buffer` (m) with momentum, 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0 and `momentum` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0, 1.0];
/// let mut opt = SignSgd { lr: 0.25, ..SignSgd::default() }.build()?;
/// opt.step(&mut w, &array![100.0, -0.001, 0.0])?;
/// assert_eq!(w, array![0.75, 1.25, 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: Compressed Optimisation for
/// Non-Convex Problems", ICML 2018.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SignSgd {
    /// Learning rate `γ >= 0`: the size of every step.
    pub lr: f64,
    /// Decay rate `β` of the momentum, in `[0, 1)`.
    pub momentum: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(SignSgd);

impl Default for SignSgd {
    fn default() -> Self {
        Self { lr: 1e-4, momentum: 0.0, weight_decay: 0.0, maximize: false }
    }
}

crate::hyperparameters!(SignSgd, "SignSgd", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
});

impl Rule for SignSgd {
    /// `1 − β`.
    type Coefficients<R: Real> = R;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("momentum_buffer").optional()];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> R {
        R::of(1.0 - self.momentum)
    }

    #[inline(always)]
    fn direction<R: Real>(&newest: &R, _p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = if newest == R::one() { g } else { lerp(m, g, newest) };
        (sign(m), [m])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Decoupled(self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, _: usize) -> bool {
        self.momentum != 0.0
    }
}
