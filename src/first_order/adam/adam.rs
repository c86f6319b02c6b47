use super::coefficients::{AdamCoefficients, Correction};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// Adam: adaptive moments.
///
/// *Use it when* you reproduce results made with it. *Not when* you want weight decay: coupled decay is
/// divided by the second moment like any gradient. [`AdamW`](crate::first_order::AdamW) decays all weights
/// by the same factor.
///
/// ```text
/// g ← g + λp                      or, decoupled, p ← p·(1 − γλ)
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// V = max over all steps of v, with amsgrad; else v
/// p ← p − γ · m/(1 − β₁ᵗ) / (√V/√(1 − β₂ᵗ) + ε)       eps_hat: − γ·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√V + ε)
/// ```
/// Without `bias_correction` `βᵗ` is 0 in both corrections.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | paper |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `decoupled_weight_decay` | false | PyTorch |
/// | `amsgrad` | false | PyTorch |
/// | `maximize` | false | PyTorch |
/// | `bias_correction` | true | paper |
/// | `eps_hat` | false | PyTorch; true: TensorFlow, and the paper's remark in section 2 |
///
/// `bias_correction` and `eps_hat` are fixed: `set_option`, schedules and state dicts do not know them.
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter; with `amsgrad` also
/// `max_exp_avg_sq`, 12 bytes.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, -1.0];
/// let mut opt = Adam { lr: 0.1, eps: 0.0, ..Adam::default() }.build()?;
/// opt.step(&mut w, &array![0.001, 1000.0])?;
/// // the first step is the sign of the gradient, whatever its size
/// assert!((w[0] - 0.9).abs() < 1e-12 && (w[1] + 1.1).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.Adam`: `ε` is added after the bias correction of the root, and amsgrad takes the
/// maximum of the uncorrected second moment.
///
/// # Source
/// D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root of the corrected second moment.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
    /// Correct the moments for their start at zero.
    pub bias_correction: bool,
    /// Add `ε` to the root of the *uncorrected* second moment (the paper's ε̂).
    pub eps_hat: bool,
}
crate::config_file::named_fields!(Adam);

impl Default for Adam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            amsgrad: false,
            maximize: false,
            bias_correction: true,
            eps_hat: false,
        }
    }
}

crate::hyperparameters!(Adam, "Adam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "amsgrad": Flag = amsgrad;
    "maximize": Flag = maximize;
});

impl Rule for Adam {
    type Coefficients<R: Real> = AdamCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &AdamCoefficients::SLOTS;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdamCoefficients<R> {
        let Self { bias_correction, eps_hat, .. } = *self;
        let correction = Correction { bias_correction, eps_hat };
        AdamCoefficients::new(self.betas, self.eps, correction, t)
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AdamCoefficients<R>, _p: R, g: R, s: [R; 3]) -> (R, [R; 3]) {
        c.direction(g, s)
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 2 || self.amsgrad
    }
}
