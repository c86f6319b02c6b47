use crate::first_order::arithmetic::ratio;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// Adagrad: the step of each coordinate is divided by the root of the sum of its squared gradients.
///
/// *Use it when* gradients are sparse (embeddings, linear models on words). *Not when* training is long or
/// not convex: the sum only grows, and steps become too small. *Not with 8- or 4-bit state* in long runs:
/// once the sum is much larger than a new square, adding it no longer changes the code.
///
/// ```text
/// g ← g + λp
/// S ← S + g²
/// p ← p − γ/(1 + (t − 1)·η) · g/(√S + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | PyTorch |
/// | `lr_decay` η | 0 | PyTorch |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `initial_accumulator_value` | 0 | PyTorch |
/// | `eps` ε | 1e-10 | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// State: `sum` (S), 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses negative options.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = Adagrad { lr: 0.5, ..Adagrad::default() }.build()?;
/// opt.step(&mut w, &array![4.0])?; // 1 − 0.5·4/√16
/// assert!((w[0] - 0.5).abs() < 1e-9);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.Adagrad`, which refuses weight decay with sparse gradients. Here the decay acts on all
/// rows, as it would with a dense gradient; without decay, rows that a
/// [`RowGradient`](crate::params::RowGradient) lacks are not even read.
///
/// # Source
/// J. Duchi, E. Hazan, Y. Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
/// Optimization", JMLR 2011.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adagrad {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay `η >= 0` of the learning rate with the step number.
    pub lr_decay: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// What `sum` holds before the first step, `>= 0`.
    pub initial_accumulator_value: f64,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adagrad);

impl Default for Adagrad {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            lr_decay: 0.0,
            weight_decay: 0.0,
            initial_accumulator_value: 0.0,
            eps: 1e-10,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Adagrad, "Adagrad", {
    "lr": NonNegative = lr;
    "lr_decay": NonNegative = lr_decay;
    "weight_decay": NonNegative = weight_decay;
    "initial_accumulator_value": NonNegative = initial_accumulator_value;
    "eps": NonNegative = eps;
    "maximize": Flag = maximize;
});

impl Rule for Adagrad {
    /// `ε`.
    type Coefficients<R: Real> = R;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::unsigned("sum")];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> R {
        R::of(self.eps)
    }

    #[inline(always)]
    fn direction<R: Real>(&eps: &R, _p: R, g: R, [sum]: [R; 1]) -> (R, [R; 1]) {
        let sum = sum + g * g;
        (ratio(g, sum.sqrt() + eps), [sum])
    }

    fn step_size(&self, t: u64, _: &()) -> f64 {
        self.lr / (1.0 + t.saturating_sub(1) as f64 * self.lr_decay)
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    /// A gradient of 0 changes nothing.
    fn lazy(&self) -> bool {
        true
    }

    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Value(self.initial_accumulator_value)
    }
}
