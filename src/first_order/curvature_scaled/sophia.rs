use crate::first_order::arithmetic::lerp;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep};
use crate::state::Input;

/// What the curvature of [`Sophia`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SophiaEstimator {
    /// Sophia-G: the mean gradient over the batch, at labels drawn from the model's own predictions. Its
    /// square estimates the diagonal of the Gauss-Newton matrix (Gauss-Newton-Bartlett).
    #[default]
    GaussNewtonBartlett,
    /// Sophia-H: `z ⊙ Hz` for a random vector `z` of mean 0 and variance 1 (Hutchinson).
    Hutchinson,
}

impl crate::hyper::OptionValue for SophiaEstimator {
    fn get(&self) -> f64 {
        match self {
            SophiaEstimator::GaussNewtonBartlett => 0.0,
            SophiaEstimator::Hutchinson => 1.0,
        }
    }
    fn set(&mut self, value: f64) {
        *self = if value == 0.0 { Self::GaussNewtonBartlett } else { Self::Hutchinson };
    }
}

/// Sophia: momentum divided by the Hessian's diagonal, every element clipped to a sign step.
///
/// *Use it when* you train language models and can afford a curvature every ten steps, about 5 % of the
/// time. *Not when* you cannot: [`Lion`](crate::first_order::Lion) takes sign steps without.
///
/// ```text
/// q = h²  with GaussNewtonBartlett,  h  with Hutchinson      h: the curvature that comes with the gradient
/// H ← β₂·H + (1 − β₂)·q                                      only in steps with a curvature
/// p ← p·(1 − γλ)
/// m ← m + (1 − β₁)·(g − m)
/// p ← p − γ·clip(m/(ρ·B·max(H, 0) + ε), −1, 1)               sign(m) where H <= 0 and |m| >= ε; 0 where m = 0
/// ```
/// No element moves by more than `γ`, besides its decay.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-4 | authors' code |
/// | `betas` β₁, β₂ | (0.965, 0.99) | authors' code |
/// | `rho` ρ | 0.04; `hutchinson()` 0.01 | authors' code; paper (its γ) |
/// | `weight_decay` λ | 0.1 | authors' code |
/// | `bs` B | 5120; `hutchinson()` 1 | authors' code |
/// | `eps` ε | 1e-15 | authors' code |
/// | `update_every` | 10 | paper |
/// | `estimator` | `GaussNewtonBartlett`; `hutchinson()` `Hutchinson` | authors' code |
/// | `maximize` | false | PyTorch |
///
/// `B` is the number of examples (of tokens, in language models) that the mean gradient of Sophia-G was taken over: the square
/// of a mean is too small by this factor. Choose `ρ` such that 10 to 50 % of the elements are not clipped.
///
/// A curvature is due in step 1 of a parameter and every `update_every` steps from there; in between it is
/// used if it comes. Steps are counted per parameter. If gradients are absent now and then, set
/// `update_every` high, and bring a curvature whenever you have one.
///
/// State: `exp_avg` (m) and `hessian` (H), 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `rho`, `weight_decay` or `eps` below 0, `betas` outside `[0, 1)`, `bs` not above 0
/// and `update_every` below 1. A step in which a curvature is due and missing is
/// [`Error::MissingInput`](crate::Error::MissingInput), and changes nothing.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_curvature, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0, 1.0];
/// let sophia = Sophia { lr: 0.1, betas: (0.0, 0.0), rho: 1.0, ..Sophia::hutchinson() };
/// let mut opt = Sophia { weight_decay: 0.0, ..sophia }.build()?;
/// let (grad, hessian) = (array![0.5, 0.5, 0.5], array![2.0, 0.1, -3.0]);
/// opt.step(&mut w, &with_curvature(&grad, &hessian))?;
/// // a Newton step of 1/4; clipped; a sign step where the curvature is negative
/// assert!((w[0] - 0.975).abs() < 1e-12 && w[1] == 0.9 && w[2] == 0.9);
/// opt.step(&mut w, &grad)?; // no curvature is due
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code, which has Sophia-G alone. There the curvature has a method of its own
/// (`update_hessian`); here it comes with the gradient of the same step, and is used before it. With
/// `eps = 0`, an element whose momentum is 0 stands still, where the code gives NaN.
///
/// # Source
/// H. Liu, Z. Li, D. Hall, P. Liang, T. Ma, "Sophia: A Scalable Stochastic Second-order Optimizer for
/// Language Model Pre-training", ICLR 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Sophia {
    /// Learning rate `γ >= 0`: the largest step of an element.
    pub lr: f64,
    /// Decay rates of momentum and curvature, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Factor `ρ >= 0` on the curvature; the larger, the fewer elements are clipped.
    pub rho: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Factor `B > 0` on the curvature: the size of the batch that Sophia-G's gradient is a mean over.
    pub bs: f64,
    /// Stabiliser `ε >= 0`, added to the curvature.
    pub eps: f64,
    /// A curvature is due every so many steps; at least 1.
    pub update_every: u64,
    /// What the curvature is.
    pub estimator: SophiaEstimator,
    /// Ascend instead of descend; gradients and curvature are those of the function to maximise.
    pub maximize: bool,
}
crate::config_file::named_fields!(Sophia);

impl Default for Sophia {
    /// Sophia-G.
    fn default() -> Self {
        Self {
            lr: 1e-4,
            betas: (0.965, 0.99),
            rho: 0.04,
            weight_decay: 0.1,
            bs: 5120.0,
            eps: 1e-15,
            update_every: 10,
            estimator: SophiaEstimator::GaussNewtonBartlett,
            maximize: false,
        }
    }
}

impl Sophia {
    /// Sophia-H: the curvature is `z ⊙ Hz`.
    pub fn hutchinson() -> Self {
        Self { rho: 0.01, bs: 1.0, estimator: SophiaEstimator::Hutchinson, ..Self::default() }
    }
}

crate::hyperparameters!(Sophia, "Sophia", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "rho": NonNegative = rho;
    "weight_decay": NonNegative = weight_decay;
    "bs": Positive = bs;
    "eps": NonNegative = eps;
    "update_every": CountFrom(1) = update_every;
    "estimator": Choice(&["GaussNewtonBartlett", "Hutchinson"]) = estimator;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct SophiaCoefficients<R> {
    one_minus_beta1: R,
    /// Weights of `H` and of the new curvature: 1 and 0 in a step without.
    keep: R,
    weight: R,
    /// `ρ·B`.
    scale: R,
    eps: R,
    /// Whether the curvature is a gradient, to be squared.
    squared: bool,
}

impl Rule for Sophia {
    type Coefficients<R: Real> = SophiaCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    // Hutchinson's estimate has both signs
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::signed("hessian"),
        Slot::input("curvature", Input::Curvature),
    ];
    const PER_TENSOR: bool = true;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> SophiaCoefficients<R> {
        SophiaCoefficients {
            one_minus_beta1: R::of(1.0 - self.betas.0),
            keep: R::one(),
            weight: R::zero(),
            scale: R::of(self.rho * self.bs),
            eps: R::of(self.eps),
            squared: self.estimator == SophiaEstimator::GaussNewtonBartlett,
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        _: &[f64],
        c: &mut SophiaCoefficients<R>,
    ) {
        if step.curvature {
            let beta2 = self.betas.1;
            // the opposite of a function has the opposite Hessian
            let sign = if self.maximize && !c.squared { -1.0 } else { 1.0 };
            (c.keep, c.weight) = (R::of(beta2), R::of(sign * (1.0 - beta2)));
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &SophiaCoefficients<R>,
        _p: R,
        g: R,
        [m, h, curvature]: [R; 3],
    ) -> (R, [R; 3]) {
        let (zero, one) = (R::zero(), R::one());
        let m = lerp(m, g, c.one_minus_beta1);
        let q = if c.squared { curvature * curvature } else { curvature };
        let h = c.keep * h + c.weight * q;
        let positive = if h < zero { zero } else { h };
        // comparisons let NaN through
        let u = m / (c.scale * positive + c.eps);
        let u = if u > one { one } else { u };
        let u = if u < -one { -one } else { u };
        (if m == zero { zero } else { u }, [m, h, curvature])
    }

    fn needs_curvature(&self, t: u64) -> bool {
        t.saturating_sub(1).is_multiple_of(self.update_every.max(1))
    }
}
