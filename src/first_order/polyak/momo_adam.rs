use super::model::{ModelOptions, MomoGroupState};
use crate::first_order::arithmetic::lerp;
use crate::first_order::arithmetic::ratio;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// MoMo-Adam: Adam whose learning rate a model of the loss limits.
///
/// *Use it when* you would take [`AdamW`](crate::first_order::AdamW), the loss is at hand, and its learning
/// rate is not tuned: one that is too large is cut down. *Not when* it is tuned, with a schedule: both then
/// do nearly the same, for one pass more over memory.
///
/// ```text
/// f̄ ← β₁·f̄ + (1 − β₁)·f
/// d ← d + (1 − β₁)·(g − d)
/// v ← β₂·v + (1 − β₂)·g²
/// D = √(v/(1 − β₂ᵗ)) + ε
/// γ ← γ + (1 − β₁)·(⟨g, p⟩ − γ)                      one number per tensor
/// ρ = 1 − β₁ᵏ
/// h = (1 + αλ)·(f̄ − ρ·f*) + Σ ⟨d, p⟩ − (1 + αλ)·Σ γ   over all tensors
/// τ = min(α/ρ, max(h, 0)/Σ ⟨d, d/D⟩)
/// p ← (p − τ·d/D)/(1 + αλ)                           p·(1 − αλ) − τ·d/D without divide; d/D = 0 where D = 0
/// ```
/// While the bound `α/ρ` is the smaller one, this is Adam with its bias corrections. `use_fstar` estimates the
/// lower bound as in [`Momo`](crate::first_order::Momo), with `Σ ⟨d, d/D⟩` in the place of `Σ ‖d‖²`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` α | 1e-2 | authors' code |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | paper |
/// | `weight_decay` λ | 0 | authors' code |
/// | `lower_bound` f* | 0 | paper (`lb`) |
/// | `divide` | true | paper |
/// | `use_fstar` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// With `maximize` loss and gradient are negated first, and `lower_bound` is that of the negated loss.
///
/// State: `exp_avg` (d) and `exp_avg_sq` (v), 8 bytes per `f32` parameter; `grad_dot_w` (γ), 8 bytes per
/// tensor; per group [`MomoGroupState`].
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0, `betas` outside `[0, 1)` and `lower_bound` that is
/// not finite. A step without a loss is [`Error::MissingInput`](crate::Error::MissingInput), one with a loss
/// that is not finite [`Error::NonFiniteLoss`](crate::Error::NonFiniteLoss).
///
/// # Gradients must not be rescaled
/// As for [`Momo`](crate::first_order::Momo#gradients-must-not-be-rescaled): the model of the loss is made of
/// losses and of *their* gradients, and clipped ones make steps longer.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_loss, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, -0.5];
/// let mut opt = MomoAdam { lr: 10.0, ..MomoAdam::default() }.build()?; // far too large
/// for _ in 0..300 {
///     let (grad, loss) = (&w * 2.0, w.dot(&w));
///     opt.step(&mut w, &with_loss(&grad, loss))?;
/// }
/// assert!(w.dot(&w) < 1e-3);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' package momo-opt 0.1.0 with one group whose tensors all have a gradient in every step. The
/// package corrects `v` by the tensor's own step in `τ`, and by the number of all steps in the update; here both
/// are the tensor's. Groups and sums are as in [`Momo`](crate::first_order::Momo).
///
/// # Source
/// F. Schaipp, R. Ohana, M. Eickenberg, A. Defazio, R. M. Gower, "MoMo: Momentum Models for Adaptive Learning
/// Rates", ICML 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct MomoAdam {
    /// Largest learning rate `α >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root of the corrected second moment.
    pub eps: f64,
    /// Weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Lower bound `f*` of the loss.
    pub lower_bound: f64,
    /// Decay by a division by `1 + αλ` after the update; else by `1 − αλ` before it, as AdamW does.
    pub divide: bool,
    /// Estimate the lower bound.
    pub use_fstar: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(MomoAdam);

impl Default for MomoAdam {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            lower_bound: 0.0,
            divide: true,
            use_fstar: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(MomoAdam, "MomoAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "lower_bound": Finite = lower_bound;
    "divide": Flag = divide;
    "use_fstar": Flag = use_fstar;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct MomoAdamCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    /// `1/(1 − β₂ᵗ)`.
    correction: R,
    eps: R,
}

impl<R: Real> MomoAdamCoefficients<R> {
    /// `d/D`, and the new `d` and `v`.
    #[inline(always)]
    fn step(&self, g: R, [d, v]: [R; 2]) -> (R, [R; 2]) {
        let d = lerp(d, g, self.one_minus_beta1);
        let v = self.beta2 * v + self.one_minus_beta2 * g * g;
        let root = (v * self.correction).sqrt() + self.eps;
        (ratio(d, root), [d, v])
    }
}

impl MomoAdam {
    fn model(&self) -> ModelOptions {
        let Self { lr, betas, weight_decay, lower_bound, use_fstar, .. } = *self;
        let (beta, bias_correction) = (betas.0, true);
        ModelOptions { lr, weight_decay, beta, lower_bound, bias_correction, use_fstar }
    }
}

impl Rule for MomoAdam {
    type Coefficients<R: Real> = MomoAdamCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = MomoGroupState;
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("grad_dot_w", 0.0)];

    fn coefficients<R: Real>(&self, t: u64, _: &MomoGroupState) -> MomoAdamCoefficients<R> {
        let (beta1, beta2) = self.betas;
        MomoAdamCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction: R::of(1.0 / (1.0 - beta2.powf(t as f64))),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &MomoAdamCoefficients<R>, _p: R, g: R, s: [R; 2]) -> (R, [R; 2]) {
        c.step(g, s)
    }

    fn step_size(&self, _: u64, scalars: &MomoGroupState) -> f64 {
        let kept = if self.divide { 1.0 - self.model().proximal_decay() } else { 1.0 };
        scalars.step_size * kept
    }

    fn decay(&self) -> WeightDecay {
        let proximal = self.model().proximal_decay();
        let decay = if self.divide { proximal } else { self.lr * self.weight_decay };
        WeightDecay::Independent(decay)
    }

    fn needs_loss(&self) -> bool {
        true
    }

    fn begin(&self, loss: Option<f64>, scalars: &mut MomoGroupState) {
        // a step without a loss has been refused
        let loss = loss.unwrap_or(f64::NAN);
        self.model().begin(if self.maximize { -loss } else { loss }, scalars);
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// `⟨d, p⟩`, `⟨d, d/D⟩` and `⟨g, p⟩`.
    #[inline(always)]
    fn measure<R: Real>(_: usize, c: &MomoAdamCoefficients<R>, p: R, g: R, s: [R; 2]) -> Sums {
        let (u, [d, _]) = c.step(g, s);
        let (p, d) = (p.widen(), d.widen());
        [d * p, d * u.widen(), g.widen() * p, 0.0]
    }

    fn absorb(&self, _: usize, measured: &TensorSums, _: &TensorStep<'_>, numbers: &mut [f64]) {
        let [_, _, dot, _] = measured.sums;
        if let [average] = numbers {
            *average += (1.0 - self.betas.0) * (dot - *average);
        }
    }

    fn contribute(&self, _: usize, numbers: &[f64], sums: &mut Sums) {
        if let ([average], [.., gamma]) = (numbers, sums) {
            *gamma += average;
        }
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut MomoGroupState) {
        let [dot, square, _, gamma] = *total;
        self.model().combine((dot, square, gamma), scalars);
    }
}
