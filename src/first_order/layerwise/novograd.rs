use crate::first_order::arithmetic::ratio;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// NovoGrad: momentum of gradients that are normalised tensor by tensor.
///
/// *Use it when* layers have gradients of very different size, as in speech models, and memory is scarce:
/// the second moment is one number per tensor. *Not when* elements of one tensor need steps of their own,
/// as in embeddings: [`AdamW`](crate::first_order::AdamW) scales each of them.
///
/// ```text
/// v ← ‖g‖²  in the first step, then  v + (1 − β₂)·(‖g‖² − v)      one number per tensor
/// ĝ = g/(√v + ε) + λp                    0 for the quotient where √v + ε = 0;
///                                        decoupled: without λp, but p ← p·(1 − γλ) at the start
/// m ← ĝ  in the first step, then  β₁·m + ĝ      (1 − β₁)·ĝ with grad_averaging
/// p ← p − γ·m                            γ·√(1 − β₂ᵗ) with adam_debias
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer |
/// | `betas` β₁, β₂ | (0.95, 0.98) | paper |
/// | `eps` ε | 1e-8 | paper's code |
/// | `weight_decay` λ | 0 | pytorch_optimizer |
/// | `decoupled_weight_decay` | false | paper |
/// | `grad_averaging` | false | paper |
/// | `adam_debias` | false | pytorch_optimizer |
/// | `maximize` | false | PyTorch |
///
/// Because `m` sums gradients of length 1, the step is about `γ/(1 − β₁)` long per tensor; with
/// `grad_averaging` it is `γ`.
///
/// State: `exp_avg` (m), 4 bytes per `f32` parameter; `exp_avg_sq` (v), 8 bytes per tensor.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = (array![0.0f64, 0.0], array![0.0]);
/// let mut opt = NovoGrad { lr: 0.1, eps: 0.0, ..NovoGrad::default() }.build()?;
/// opt.step(&mut w, &(array![3.0, 4.0], array![-1e6]))?;
/// // the first step is as long in every tensor, whatever the gradient
/// assert!((w.0[0] + 0.06).abs() < 1e-15 && (w.0[1] + 0.08).abs() < 1e-15);
/// assert_eq!(w.1, array![0.1]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.NovoGrad`, which counts steps per group; here every parameter counts its own, which
/// matters for `adam_debias` alone. The norm is summed in `f64`.
///
/// # Source
/// B. Ginsburg and others, "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of
/// Deep Networks", 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct NovoGrad {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the momentum and of the squared norm, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the norm.
    pub eps: f64,
    /// Weight decay `λ >= 0`, added to the normalised gradient unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Average the normalised gradients instead of adding them up.
    pub grad_averaging: bool,
    /// Warm the learning rate up by `√(1 − β₂ᵗ)`.
    pub adam_debias: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(NovoGrad);

impl Default for NovoGrad {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.95, 0.98),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            grad_averaging: false,
            adam_debias: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(NovoGrad, "NovoGrad", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "grad_averaging": Flag = grad_averaging;
    "adam_debias": Flag = adam_debias;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct NovoGradCoefficients<R> {
    /// Weight of the momentum; 0 in the first step.
    keep: R,
    /// Weight of the normalised gradient.
    weight: R,
    /// `√v + ε`, times `scale`.
    norm: R,
    /// 1, or less where the norm of finite gradients would be infinite.
    scale: R,
    /// Coupled decay.
    decay: R,
}

impl Rule for NovoGrad {
    type Coefficients<R: Real> = NovoGradCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg")];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("exp_avg_sq", 0.0)];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> NovoGradCoefficients<R> {
        let (beta1, first) = (self.betas.0, t == 1);
        let decay = if self.decoupled_weight_decay { 0.0 } else { self.weight_decay };
        let weight = if self.grad_averaging && !first { 1.0 - beta1 } else { 1.0 };
        NovoGradCoefficients {
            keep: R::of(if first { 0.0 } else { beta1 }),
            weight: R::of(weight),
            norm: R::one(),
            scale: R::one(),
            decay: R::of(decay),
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        _: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut NovoGradCoefficients<R>,
    ) {
        if let [square] = *numbers {
            let norm = square.sqrt() + self.eps;
            let scale = if norm > 1e30 { 2f64.powi(-64) } else { 1.0 };
            (c.norm, c.scale) = (R::of(norm * scale), R::of(scale));
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &NovoGradCoefficients<R>, p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = c.keep * m + c.weight * (ratio(g * c.scale, c.norm) + c.decay * p);
        (m, [m])
    }

    fn step_size(&self, t: u64, _: &()) -> f64 {
        let warm_up = (1.0 - self.betas.1.powf(t as f64)).sqrt();
        if self.adam_debias { self.lr * warm_up } else { self.lr }
    }

    fn decay(&self) -> WeightDecay {
        // of the learning rate before `adam_debias`
        let decay = if self.decoupled_weight_decay { self.lr * self.weight_decay } else { 0.0 };
        WeightDecay::Independent(decay)
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    #[inline(always)]
    fn measure<R: Real>(_: usize, _: &NovoGradCoefficients<R>, _p: R, g: R, _: [R; 1]) -> Sums {
        [g.widen() * g.widen(), 0.0, 0.0, 0.0]
    }

    fn absorb(&self, _: usize, measured: &TensorSums, step: &TensorStep<'_>, numbers: &mut [f64]) {
        let [square, ..] = measured.sums;
        if let [average] = numbers {
            let weight = if step.t == 1 { 1.0 } else { 1.0 - self.betas.1 };
            *average += weight * (square - *average);
        }
    }
}
