use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// ADOPT: Adam that converges with any β₂: the gradient is divided by the second moment of the steps *before*,
/// and only then averaged.
///
/// *Use it when* Adam fails to converge, or depends on β₂ more than you like. *Not when* gradients grow by orders of
/// magnitude at the start: the first one sets the scale, and `clip_exponent` only bounds the rest.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// v ← g²                                  at the first step, and no more
/// n = g/max(√v, ε), clamped to ±t^q       q: clip_exponent
/// m ← m + (1 − β₁)·(n − m)
/// p ← p − γ·m
/// v ← β₂·v + (1 − β₂)·g²
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.9999) | paper |
/// | `eps` ε | 1e-6 | paper |
/// | `clip_exponent` q | 0.25 | paper; none: no clamp |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `eps`, `clip_exponent` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = Adopt { lr: 0.05, ..Adopt::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.ADOPT`, which counts steps per group: the second step clamps to `2^q`. The authors' code counts
/// from there, so that the second step clamps to 1, and it has no decoupled decay in the first step. With `eps = 0`, an
/// element stands still until the step after its first gradient.
///
/// # Source
/// S. Taniguchi and others, "ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate", NeurIPS 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adopt {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Least value `ε >= 0` of the root.
    pub eps: f64,
    /// Exponent `q >= 0` of the bound `t^q` on the normalised gradient; `None` for no bound.
    pub clip_exponent: Option<f64>,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adopt);

impl Default for Adopt {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.9999),
            eps: 1e-6,
            clip_exponent: Some(0.25),
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Adopt, "Adopt", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "clip_exponent": OptionalNonNegative = clip_exponent;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdoptCoefficients<R> {
    one_minus_beta1: R,
    /// Weights of the old and the new square.
    keep: R,
    take: R,
    eps: R,
    bound: R,
    /// Whether the step only measures.
    first: bool,
}

impl Rule for Adopt {
    type Coefficients<R: Real> = AdoptCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdoptCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let first = t == 1;
        let bound = |q: f64| R::of((t as f64).powf(q));
        AdoptCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            keep: R::of(if first { 0.0 } else { beta2 }),
            take: R::of(if first { 1.0 } else { 1.0 - beta2 }),
            eps: R::of(self.eps),
            bound: self.clip_exponent.map_or(R::infinity(), bound),
            first,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AdoptCoefficients<R>, _p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let root = v.sqrt();
        let root = if root < c.eps { c.eps } else { root };
        let n = ratio(g, root);
        let n = if n > c.bound { c.bound } else { n };
        let n = if n < -c.bound { -c.bound } else { n };
        // 0, but a NaN stays visible
        let n = if c.first { g * R::zero() } else { n };
        let m = lerp(m, n, c.one_minus_beta1);
        (m, [m, c.keep * v + c.take * g * g])
    }
}
