use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// Adamax: Adam with the largest gradient of late in place of the root mean square.
///
/// *Use it when* gradients are sparse or have rare large elements, as those of embeddings: one outlier bounds
/// the steps after it, but does not enter them squared. *Not when* you have no reason to:
/// [`AdamW`](crate::first_order::AdamW) is tried far more often.
///
/// ```text
/// g ← g + λp
/// m ← m + (1 − β₁)·(g − m)
/// u ← max(β₂·u, |g| + ε)
/// p ← p − γ/(1 − β₁ᵗ) · m/u                no step where u = 0
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 2e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | PyTorch |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_inf` (u), 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0];
/// let mut opt = Adamax { lr: 0.1, eps: 0.0, ..Adamax::default() }.build()?;
/// for _ in 0..3 {
///     opt.step(&mut w, &array![1000.0, -0.001])?; // a constant gradient: steps of the length `lr`
/// }
/// assert!((w[0] - 0.7).abs() < 1e-12 && (w[1] - 1.3).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.Adamax`: `ε` is added inside the maximum, so that `u` is never below it. The paper has no
/// `ε`. With `eps = 0`, an element that has seen no gradient stands still; PyTorch makes it NaN. Second moments
/// need no bias correction: a maximum is not drawn to its start at zero.
///
/// # Source
/// D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, section 7.1.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adamax {
    /// Learning rate `γ >= 0`: the size of a step while the gradient stays the same.
    pub lr: f64,
    /// Decay rates of the first moment and of the maximum, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the size of the gradient.
    pub eps: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adamax);

impl Default for Adamax {
    fn default() -> Self {
        Self { lr: 2e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false }
    }
}

crate::hyperparameters!(Adamax, "Adamax", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamaxCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    /// `1/(1 − β₁ᵗ)`.
    correction: R,
    eps: R,
}

impl Rule for Adamax {
    type Coefficients<R: Real> = AdamaxCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_inf")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdamaxCoefficients<R> {
        let (beta1, beta2) = self.betas;
        AdamaxCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            correction: R::of(1.0 / (1.0 - beta1.powf(t as f64))),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AdamaxCoefficients<R>, _p: R, g: R, [m, u]: [R; 2]) -> (R, [R; 2]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let (old, new) = (c.beta2 * u, g.abs() + c.eps);
        let u = if old > new { old } else { new };
        (ratio(m, u) * c.correction, [m, u])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }
}
