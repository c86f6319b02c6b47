use crate::first_order::arithmetic::{larger, lerp, ratio};
use crate::first_order::rectification::rectification;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// AdaBelief: Adam whose steps are large where the gradient is as its average foretells, and small where
/// it is not.
///
/// *Use it when* you would use Adam and training is noisy or unstable, as with GANs: a gradient that stays the
/// same is trusted, however small it is. *Not when* gradients are exactly constant over many steps: then only
/// `eps` limits the step.
///
/// ```text
/// p ← p·(1 − γλ)                          (1 − λ) with fixed_decay; coupled: g ← g + λp
/// m ← m + (1 − β₁)·(g − m)
/// s ← β₂·s + (1 − β₂)·(g − m)² + ε        ε is added to the state, at every step
/// S = max over all steps of s, with amsgrad; else s
/// p ← p − γ · m/(1 − β₁ᵗ) / (√S/√(1 − β₂ᵗ) + ε)
/// ```
/// With `rectify`, as in RAdam, with the length `ρ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ)` of the average, `ρ∞ = 2/(1 − β₂) − 1`:
/// ```text
/// p ← p − γ·r · m/(1 − β₁ᵗ) / (√S + ε)    ρ ≥ 5,  r² = (1 − β₂ᵗ)·(ρ − 4)(ρ − 2)ρ∞/((ρ∞ − 4)(ρ∞ − 2)ρ)
/// p ← p − γ · m/(1 − β₁ᵗ)                 ρ < 5, with degenerated_to_sgd; else no step
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-16 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | true | authors' code |
/// | `fixed_decay` | false | authors' code |
/// | `rectify` | false | pytorch_optimizer; the authors' code: true |
/// | `degenerated_to_sgd` | true | authors' code |
/// | `amsgrad` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_var` (s), 8 bytes per `f32` parameter; with `amsgrad` also
/// `max_exp_avg_var`, 12 bytes.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = AdaBelief { lr: 0.05, ..AdaBelief::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.AdaBelief`, which counts steps per group. optax adds the two ε under names of their own. The
/// first step is `γ/β₁` long, as in the authors' code: `g − m` is taken with the new average. With `eps = 0`, an
/// element whose gradient has not changed stands still.
///
/// # Source
/// J. Zhuang and others, "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
/// NeurIPS 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdaBelief {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the variance at every step, and to its root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Decoupled decay by `λ` instead of `γλ`, whatever the learning rate.
    pub fixed_decay: bool,
    /// Correct the learning rate for the variance of early steps, as RAdam does.
    pub rectify: bool,
    /// With `rectify`: steps along the momentum while the variance is not known; else none.
    pub degenerated_to_sgd: bool,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(AdaBelief);

impl Default for AdaBelief {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-16,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            fixed_decay: false,
            rectify: false,
            degenerated_to_sgd: true,
            amsgrad: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(AdaBelief, "AdaBelief", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "fixed_decay": Flag = fixed_decay;
    "rectify": Flag = rectify;
    "degenerated_to_sgd": Flag = degenerated_to_sgd;
    "amsgrad": Flag = amsgrad;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdaBeliefCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    eps: R,
    /// Factor on the average.
    first: R,
    /// Factor on the root of the variance.
    second: R,
    /// Whether the step is along the momentum alone.
    plain: bool,
}

impl Rule for AdaBelief {
    type Coefficients<R: Real> = AdaBeliefCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_var"),
        Slot::unsigned("max_exp_avg_var").optional(),
    ];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdaBeliefCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        let (length, rectified) = rectification(beta2, t);
        let (factor, second, plain) = match (self.rectify, length >= 5.0) {
            (false, _) => (1.0, 1.0 / bias(beta2).sqrt(), false),
            (true, true) => (rectified * bias(beta2).sqrt(), 1.0, false),
            (true, false) => (f64::from(u8::from(self.degenerated_to_sgd)), 1.0, true),
        };
        AdaBeliefCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            eps: R::of(self.eps),
            first: R::of(factor / bias(beta1)),
            second: R::of(second),
            plain,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdaBeliefCoefficients<R>,
        _p: R,
        g: R,
        [m, s, largest]: [R; 3],
    ) -> (R, [R; 3]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let surprise = g - m;
        let s = c.beta2 * s + c.one_minus_beta2 * surprise * surprise + c.eps;
        // without amsgrad the slot is off and reads as 0
        let largest = larger(largest, s);
        let root = if c.plain { R::one() } else { largest.sqrt() * c.second + c.eps };
        (ratio(m * c.first, root), [m, s, largest])
    }

    fn decay(&self) -> WeightDecay {
        match (self.decoupled_weight_decay, self.fixed_decay) {
            (false, _) => WeightDecay::Coupled(self.weight_decay),
            (true, false) => WeightDecay::Decoupled(self.weight_decay),
            (true, true) => WeightDecay::Independent(self.weight_decay),
        }
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 2 || self.amsgrad
    }
}
