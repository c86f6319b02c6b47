use crate::first_order::arithmetic::larger;
use crate::numeric::Real;
use crate::numeric::range::finite_of;
use crate::optim::{Rule, Slot, TensorStep, WeightDecay};

/// LaProp: Adam with momentum and scale apart: gradients are divided by the root of the second moment first, and
/// then averaged.
///
/// *Use it when* Adam is unstable at a small β₂ or a large β₁, or the scale of gradients changes fast: every term of
/// the momentum is scaled as of its own time. *Not when* you want to reproduce results of Adam: the two differ early.
///
/// ```text
/// v ← β₂·v + (1 − β₂)·g²
/// V = max over all steps of v, with amsgrad; else v
/// D = (√(V + 1e-15) + ε)/√(1 − β₂ᵗ)
/// m ← β₁·m + (1 − β₁)·γ·g/D
/// l ← β₁·l + (1 − β₁)·γ                   one number per tensor
/// p ← p − γ·m/l
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp at the start
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 4e-4 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-15 | paper |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | true | authors' code |
/// | `amsgrad` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter; with `amsgrad` also `max_exp_avg_sq`, 12 bytes;
/// `exp_avg_lr_1` (l), 8 bytes per tensor.
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
/// let mut opt = LaProp { lr: 0.05, ..LaProp::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.LaProp`, which counts steps per group, rounds the step size to `f32`, and has a second number per
/// tensor, `exp_avg_lr_2`, of which it makes no use. Its coupled decay comes too late to act; here it comes first. The
/// authors' option `centered` is left out.
///
/// # Source
/// L. Ziyin, Z. T. Wang, M. Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct LaProp {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(LaProp);

impl Default for LaProp {
    fn default() -> Self {
        Self {
            lr: 4e-4,
            betas: (0.9, 0.999),
            eps: 1e-15,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            amsgrad: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(LaProp, "LaProp", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "amsgrad": Flag = amsgrad;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct LaPropCoefficients<R> {
    beta1: R,
    /// `(1 − β₁)·γ·√(1 − β₂ᵗ)`.
    gain: R,
    beta2: R,
    one_minus_beta2: R,
    eps: R,
    /// `1/l`.
    inverse: R,
}

impl Rule for LaProp {
    type Coefficients<R: Real> = LaPropCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_sq"),
        Slot::unsigned("max_exp_avg_sq").optional(),
    ];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("exp_avg_lr_1", 0.0)];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> LaPropCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = 1.0 - beta2.powf(t as f64);
        LaPropCoefficients {
            beta1: R::of(beta1),
            gain: R::of((1.0 - beta1) * self.lr * bias.sqrt()),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            eps: R::of(self.eps),
            inverse: R::zero(),
        }
    }

    fn begin_tensor(&self, _: &TensorStep<'_>, numbers: &mut [f64]) {
        if let [average] = numbers {
            *average = self.betas.0 * *average + (1.0 - self.betas.0) * self.lr;
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        _: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut LaPropCoefficients<R>,
    ) {
        if let [average] = *numbers
            && average > 0.0
        {
            // after a schedule has ended at 0, the moment is gone before its share of the rate is
            c.inverse = finite_of(1.0 / average);
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &LaPropCoefficients<R>,
        _p: R,
        g: R,
        [m, v, largest]: [R; 3],
    ) -> (R, [R; 3]) {
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        // without amsgrad the slot is off and reads as 0
        let largest = larger(largest, v);
        let root = (largest + R::of(1e-15)).sqrt() + c.eps;
        let m = c.beta1 * m + c.gain * g / root;
        (m * c.inverse, [m, v, largest])
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::DecoupledAfter(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 2 || self.amsgrad
    }
}
