use super::model::{ModelOptions, MomoGroupState};
use crate::first_order::arithmetic::lerp;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// MoMo: gradient descent with momentum whose learning rate a model of the loss limits.
///
/// *Use it when* you would take [`Sgd`](crate::first_order::Sgd) with momentum, and do not want to tune its
/// learning rate: `lr: 1.0` is the authors' choice for nearly everything. *Not when* the loss is not at hand.
///
/// ```text
/// f̄ ← f  in the first step, then  β·f̄ + (1 − β)·f            with bias_correction it begins at 0,
/// d ← g  in the first step, then  d + (1 − β)·(g − d)         as do the other two
/// γ ← ⟨g, p⟩ in the first step, then  γ + (1 − β)·(⟨g, p⟩ − γ)      one number per tensor
/// ρ = 1                                                      1 − βᵏ with bias_correction, in step k
/// h = (1 + αλ)·(f̄ − ρ·f*) + Σ ⟨d, p⟩ − (1 + αλ)·Σ γ           over all tensors
/// τ = min(α/ρ, max(h, 0)/Σ ‖d‖²)
/// p ← (p − τ·d)/(1 + αλ)
/// ```
/// `f̄ + ⟨d, x⟩ − γ` is an average of the tangents seen so far; the step does not go further than to where
/// it reaches `f*`.
///
/// With `use_fstar` the lower bound is estimated, and `lower_bound` bounds the estimate: where
/// `(1 + αλ)·f̄ + Σ⟨d, p⟩ − (1 + αλ)·Σγ < (1 + αλ)·ρ·f*` it is first reset to half the left side over
/// `(1 + αλ)·ρ`, and after `τ` is known `f* ← max((f̄ + Σ⟨d, p⟩ − Σγ − τ·Σ‖d‖²/2)/ρ, lower_bound)`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` α | 1 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `beta` β | 0.9 | paper |
/// | `lower_bound` f* | 0 | paper (`lb`) |
/// | `bias_correction` | false | authors' code |
/// | `use_fstar` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// With `maximize` loss and gradient are negated first, and `lower_bound` is that of the negated loss.
///
/// State: `exp_avg` (d), 4 bytes per `f32` parameter; `grad_dot_w` (γ), 8 bytes per tensor; per group
/// [`MomoGroupState`].
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0, `beta` outside `[0, 1)` and `lower_bound` that is not
/// finite. A step without a loss is [`Error::MissingInput`](crate::Error::MissingInput), one with a loss that
/// is not finite [`Error::NonFiniteLoss`](crate::Error::NonFiniteLoss).
///
/// # Gradients must not be rescaled
/// The model of the loss is made of losses and of *their* gradients. One that a view has shortened, such as
/// [`clip_grad_norm`](crate::gradient::clip_grad_norm), says that the loss falls more slowly than it does: where
/// `lr` is not the smaller bound, steps get longer for it. Training usually survives that, since the average is
/// of the shortened gradients, too, but `τ` no longer means what the equations say: let `lr` bound the step
/// instead. [`GradScaler`](crate::gradient::GradScaler) may be used, since the gradient is unscaled again before
/// the step: the loss that goes with it ([`with_loss`](crate::gradient::with_loss)) is the *unscaled* one. With
/// the mean of an [`Accumulator`](crate::gradient::Accumulator) goes the mean of the micro-batches' losses.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_loss, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![30.0f64, -4.0];
/// let mut opt = Momo::default().build()?; // lr is 1: 100 times what gradient descent bears here
/// for _ in 0..400 {
///     let (grad, loss) = (&w * 200.0, 100.0 * w.dot(&w));
///     opt.step(&mut w, &with_loss(&grad, loss))?;
/// }
/// assert!(w.dot(&w) < 1e-6);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' package momo-opt 0.1.0 with one group. With several, every group has its own average of
/// losses, its own lower bound and its own `τ`, from the sums of all groups. Sums are taken in `f64`. A tensor
/// without a gradient takes no part in a step.
///
/// # Source
/// F. Schaipp, R. Ohana, M. Eickenberg, A. Defazio, R. M. Gower, "MoMo: Momentum Models for Adaptive Learning
/// Rates", ICML 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Momo {
    /// Largest learning rate `α >= 0`.
    pub lr: f64,
    /// Weight decay `λ >= 0`, as a division by `1 + αλ`.
    pub weight_decay: f64,
    /// Decay rate `β` of all averages, in `[0, 1)`.
    pub beta: f64,
    /// Lower bound `f*` of the loss.
    pub lower_bound: f64,
    /// Let averages begin at 0, and correct for it.
    pub bias_correction: bool,
    /// Estimate the lower bound.
    pub use_fstar: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Momo);

impl Default for Momo {
    fn default() -> Self {
        Self {
            lr: 1.0,
            weight_decay: 0.0,
            beta: 0.9,
            lower_bound: 0.0,
            bias_correction: false,
            use_fstar: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Momo, "Momo", {
    "lr": NonNegative = lr;
    "weight_decay": NonNegative = weight_decay;
    "beta": UnitHalfOpen = beta;
    "lower_bound": Finite = lower_bound;
    "bias_correction": Flag = bias_correction;
    "use_fstar": Flag = use_fstar;
    "maximize": Flag = maximize;
});

impl Momo {
    fn model(&self) -> ModelOptions {
        let Self { lr, weight_decay, beta, lower_bound, bias_correction, use_fstar, .. } = *self;
        ModelOptions { lr, weight_decay, beta, lower_bound, bias_correction, use_fstar }
    }
}

impl Rule for Momo {
    /// Weight of the gradient in its average.
    type Coefficients<R: Real> = R;
    type State<R: Real> = [R; 1];
    type GroupState = MomoGroupState;
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg")];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("grad_dot_w", 0.0)];

    fn coefficients<R: Real>(&self, t: u64, _: &MomoGroupState) -> R {
        R::of(self.model().weight(t))
    }

    #[inline(always)]
    fn direction<R: Real>(&weight: &R, _p: R, g: R, [d]: [R; 1]) -> (R, [R; 1]) {
        let d = lerp(d, g, weight);
        (d, [d])
    }

    fn step_size(&self, _: u64, scalars: &MomoGroupState) -> f64 {
        scalars.step_size * (1.0 - self.model().proximal_decay())
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Independent(self.model().proximal_decay())
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

    /// `⟨d, p⟩`, `‖d‖²` and `⟨g, p⟩`.
    #[inline(always)]
    fn measure<R: Real>(_: usize, &weight: &R, p: R, g: R, [d]: [R; 1]) -> Sums {
        let d = lerp(d, g, weight).widen();
        [d * p.widen(), d * d, g.widen() * p.widen(), 0.0]
    }

    fn absorb(&self, _: usize, measured: &TensorSums, step: &TensorStep<'_>, numbers: &mut [f64]) {
        let [_, _, dot, _] = measured.sums;
        if let [average] = numbers {
            *average += self.model().weight(step.t) * (dot - *average);
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
