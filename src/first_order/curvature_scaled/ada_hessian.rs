use crate::first_order::arithmetic::lerp;
use crate::first_order::arithmetic::{power, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep};
use crate::state::Input;

/// AdaHessian: Adam with the second moment of the Hessian's diagonal in the place of the gradient's.
///
/// *Use it when* Hessian-vector products are at hand, for one more backward pass each. *Not when* they are
/// not, or batches are so small that they are noise: [`AdamW`](crate::first_order::AdamW).
///
/// ```text
/// d = |h|                        h = Hz, the curvature that comes with the gradient, zᵢ = ±1 at random;
///                                in tensors of 4 dimensions the mean of |h| over the last two
/// p ← p·(1 − γλ)
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·d²         n ← n + 1      only in steps with a curvature
/// p ← p − γ · m/(1 − β₁ᵗ) / ((√v/√(1 − β₂ⁿ))^k + ε)      no step where the divisor is 0
/// ```
/// `|z ⊙ Hz|` is the same as `|Hz|`, so either may be given.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 0.15 | authors' code |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-4 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `hessian_power` k | 1 | paper |
/// | `update_every` | 1 | paper |
/// | `maximize` | false | PyTorch |
///
/// A curvature is due in step 1 of a parameter and every `update_every` steps from there; in between it is
/// used if it comes. The paper finds little loss with one curvature in up to ten steps.
///
/// State: `exp_avg` (m) and `exp_hessian_diag_sq` (v), 8 bytes per `f32` parameter; `hessian_steps` (n),
/// 8 bytes per tensor.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0, `betas` outside `[0, 1)`, `hessian_power` outside
/// `[0, 1]` and `update_every` below 1. A step in which a curvature is due and missing is
/// [`Error::MissingInput`](crate::Error::MissingInput), and changes nothing.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_curvature, prelude::*};
/// use ndarray::array;
///
/// // (100·x² + y²)/2, whose Hessian is diagonal
/// let hessian = array![100.0f64, 1.0];
/// let mut w = array![1.0f64, 1.0];
/// let mut opt = AdaHessian { lr: 0.1, eps: 0.0, ..AdaHessian::default() }.build()?;
/// let grad = &hessian * &w;
/// opt.step(&mut w, &with_curvature(&grad, &hessian))?;
/// // a tenth of Newton's step, in the flat direction as in the steep one
/// assert!(w.iter().all(|x| (x - 0.9).abs() < 1e-12));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code for PyTorch, which has no `update_every`; its random vectors are drawn here by the
/// caller. Weight decay is decoupled, as there.
///
/// # Source
/// Z. Yao, A. Gholami, S. Shen, M. Mustafa, K. Keutzer, M. W. Mahoney, "ADAHESSIAN: An Adaptive Second
/// Order Optimizer for Machine Learning", AAAI 2021.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdaHessian {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the two averages, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the power of the root.
    pub eps: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Power `k` in `[0, 1]` of the curvature: 1 is Newton's, 0 is momentum alone.
    pub hessian_power: f64,
    /// A curvature is due every so many steps; at least 1.
    pub update_every: u64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(AdaHessian);

impl Default for AdaHessian {
    fn default() -> Self {
        Self {
            lr: 0.15,
            betas: (0.9, 0.999),
            eps: 1e-4,
            weight_decay: 0.0,
            hessian_power: 1.0,
            update_every: 1,
            maximize: false,
        }
    }
}

crate::hyperparameters!(AdaHessian, "AdaHessian", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "hessian_power": Unit = hessian_power;
    "update_every": CountFrom(1) = update_every;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdaHessianCoefficients<R> {
    one_minus_beta1: R,
    /// Weights of `v` and of the squared curvature: 1 and 0 in a step without.
    keep: R,
    weight: R,
    /// `1/(1 − β₁ᵗ)`.
    correction1: R,
    /// `1/√(1 − β₂ⁿ)`.
    correction2: R,
    power: R,
    eps: R,
}

impl Rule for AdaHessian {
    type Coefficients<R: Real> = AdaHessianCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_hessian_diag_sq"),
        Slot::input("hessian", Input::CurvatureMagnitude),
    ];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("hessian_steps", 0.0)];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdaHessianCoefficients<R> {
        let beta1 = self.betas.0;
        AdaHessianCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            keep: R::one(),
            weight: R::zero(),
            correction1: R::of(1.0 / (1.0 - beta1.powf(t as f64))),
            correction2: R::one(),
            power: R::of(self.hessian_power),
            eps: R::of(self.eps),
        }
    }

    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]) {
        if let ([count], true) = (numbers, step.curvature) {
            *count += 1.0;
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut AdaHessianCoefficients<R>,
    ) {
        let beta2 = self.betas.1;
        if step.curvature {
            (c.keep, c.weight) = (R::of(beta2), R::of(1.0 - beta2));
        }
        if let [count] = *numbers {
            c.correction2 = R::of(1.0 / (1.0 - beta2.powf(count.max(1.0))).sqrt());
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdaHessianCoefficients<R>,
        _p: R,
        g: R,
        [m, v, d]: [R; 3],
    ) -> (R, [R; 3]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.keep * v + c.weight * d * d;
        let root = power(v.sqrt() * c.correction2, c.power) + c.eps;
        (ratio(m * c.correction1, root), [m, v, d])
    }

    fn needs_curvature(&self, t: u64) -> bool {
        t.saturating_sub(1).is_multiple_of(self.update_every.max(1))
    }
}
