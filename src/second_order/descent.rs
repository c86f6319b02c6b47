use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// The plainest rule: a step along the direction, with decoupled weight decay.
///
/// ```text
/// p ← p·(1 − γλ) − γ·u
/// ```
/// *Use it when* a matrix method has done all the work, as in [`Muon`](super::Muon). *Not when* a
/// momentum is wanted: take [`Sgd`](crate::first_order::Sgd), whose decay is coupled.
///
/// | field | default | whose |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch's SGD |
/// | `weight_decay` λ | 0 | – |
///
/// State: none.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, second_order::Descent};
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// Descent { lr: 0.5, weight_decay: 0.5 }.build()?.step(&mut w, &array![1.0])?;
/// assert_eq!(w[0], 1.0 * (1.0 - 0.25) - 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Decay: I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Descent {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
}

impl Default for Descent {
    fn default() -> Self {
        Self { lr: 1e-3, weight_decay: 0.0 }
    }
}

crate::hyperparameters!(Descent, "Descent", {
    "lr": NonNegative = lr;
    "weight_decay": NonNegative = weight_decay;
});

impl Rule for Descent {
    type Coefficients<R: Real> = ();
    type State<R: Real> = [R; 0];
    type Scalars = ();
    const SLOTS: &'static [Slot] = &[];

    fn coefficients<R: Real>(&self, _: u64, _: &()) {}

    #[inline(always)]
    fn direction<R: Real>(_: &(), _p: R, u: R, s: [R; 0]) -> (R, [R; 0]) {
        (u, s)
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Decoupled(self.weight_decay)
    }
}
