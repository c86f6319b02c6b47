use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// AdEMAMix: AdamW with two averages of the gradient, a fast one and one over tens of thousands of steps.
///
/// *Use it when* you train a large model for long: old gradients stay useful for tens of thousands of steps. *Not when*
/// training is short, a few times `1/(1 − β₃)` steps at least, or memory is scarce.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// αₜ = min(t·α/T, α)                      α and β₃ themselves without T
/// β₃ₜ = min(e^(1/((1 − x)/ln β₁ + x/ln β₃)), β₃)          x = t/T
/// m₁ ← m₁ + (1 − β₁)·(g − m₁)
/// m₂ ← m₂ + (1 − β₃ₜ)·(g − m₂)
/// v ← β₂·v + (1 − β₂)·g²
/// p ← p − γ · (m₁/(1 − β₁ᵗ) + αₜ·m₂)/(√v/√(1 − β₂ᵗ) + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer |
/// | `betas` β₁, β₂, β₃ | (0.9, 0.999, 0.9999) | paper |
/// | `alpha` α | 5 | paper |
/// | `t_alpha_beta3` T | none | pytorch_optimizer; the paper takes all steps of training |
/// | `eps` ε | 1e-8 | paper |
/// | `weight_decay` λ | 0 | pytorch_optimizer |
/// | `decoupled_weight_decay` | true | paper |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m₁), `exp_avg_sq` (v) and `exp_avg_slow` (m₂), 12 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses negative options, `t_alpha_beta3` not above 0, and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let betas = (0.9, 0.999, 0.99);
/// let mut opt = AdEmaMix { lr: 0.01, betas, t_alpha_beta3: Some(1000.0), ..AdEmaMix::default() }.build()?;
/// for _ in 0..2000 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.AdEMAMix`, which counts steps per group and couples the decay by default. The authors' code has
/// two lengths of warm-up, for α and for β₃. The slow average is not corrected for its start at zero. With `eps = 0`, an
/// element that has seen no gradient stands still.
///
/// # Source
/// M. Pagliardini, P. Ablin, D. Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdEmaMix {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the fast average, of the second moment and of the slow average, each in `[0, 1)`.
    pub betas: (f64, f64, f64),
    /// Weight `α >= 0` of the slow average in the step.
    pub alpha: f64,
    /// Steps `T > 0` over which `α` and `β₃` rise to their values; `None` for no warm-up.
    pub t_alpha_beta3: Option<f64>,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(AdEmaMix);

impl Default for AdEmaMix {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999, 0.9999),
            alpha: 5.0,
            t_alpha_beta3: None,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            maximize: false,
        }
    }
}

crate::hyperparameters!(AdEmaMix, "AdEmaMix", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "betas.2": UnitHalfOpen = betas.2;
    "alpha": NonNegative = alpha;
    "t_alpha_beta3": OptionalPositive = t_alpha_beta3;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdEmaMixCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    one_minus_beta3: R,
    correction1: R,
    correction2: R,
    alpha: R,
    eps: R,
}

impl AdEmaMix {
    /// The weight `αₜ` of the slow average at step `t`, counted from 1.
    pub fn alpha_at(&self, t: u64) -> f64 {
        let share = self.t_alpha_beta3.map_or(1.0, |length| t as f64 / length);
        self.alpha * share.min(1.0)
    }

    /// The decay rate `β₃ₜ` of the slow average at step `t`: from β₁ to β₃, so that the number of steps it
    /// remembers grows linearly.
    pub fn beta3_at(&self, t: u64) -> f64 {
        let (beta1, _, beta3) = self.betas;
        let share = self.t_alpha_beta3.map_or(1.0, |length| t as f64 / length);
        if share >= 1.0 {
            return beta3;
        }
        let inverse = (1.0 - share) / beta1.ln() + share / beta3.ln();
        (1.0 / inverse).exp().min(beta3)
    }
}

impl Rule for AdEmaMix {
    type Coefficients<R: Real> = AdEmaMixCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] =
        &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq"), Slot::signed("exp_avg_slow")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdEmaMixCoefficients<R> {
        let (beta1, beta2, _) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        AdEmaMixCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            one_minus_beta3: R::of(1.0 - self.beta3_at(t)),
            correction1: R::of(1.0 / bias(beta1)),
            correction2: R::of(1.0 / bias(beta2).sqrt()),
            alpha: R::of(self.alpha_at(t)),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdEmaMixCoefficients<R>,
        _p: R,
        g: R,
        [fast, v, slow]: [R; 3],
    ) -> (R, [R; 3]) {
        let fast = lerp(fast, g, c.one_minus_beta1);
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        let slow = lerp(slow, g, c.one_minus_beta3);
        let both = fast * c.correction1 + c.alpha * slow;
        (ratio(both, v.sqrt() * c.correction2 + c.eps), [fast, v, slow])
    }
}
