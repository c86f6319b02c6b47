use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot};
use crate::state::SlotInit;

/// Yogi: Adam whose second moment changes slowly, by an amount that the gradient alone decides.
///
/// *Use it when* gradients are sparse or rare and large, so that Adam forgets them too fast: after a large gradient
/// Yogi's learning rate comes back little by little. *Not when* gradients shrink by orders of magnitude during
/// training: the second moment follows them only slowly.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// m ← m + (1 − β₁)·(g − m)                m, v are v₀ at first
/// v ← v − (1 − β₂)·sign(v − g²)·g²
/// p ← p − γ · m/(1 − β₁ᵗ) / (√v/√(1 − β₂ᵗ) + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-3 | paper |
/// | `initial_accumulator` v₀ | 1e-6 | paper |
/// | `weight_decay` λ | 0 | pytorch_optimizer |
/// | `decoupled_weight_decay` | true | pytorch_optimizer |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `eps`, `initial_accumulator` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = Yogi { lr: 0.1, ..Yogi::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.Yogi`, which counts steps per group, and as `optax.yogi`: both moments start at v₀, in the
/// paper only the second. An element that has seen no gradient therefore moves a little, by `v₀` at most in the
/// numerator; with `initial_accumulator = 0` it stands still.
///
/// # Source
/// M. Zaheer, S. J. Reddi, D. Sachan, S. Kale, S. Kumar, "Adaptive Methods for Nonconvex Optimization",
/// NeurIPS 2018.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Yogi {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// First value `v₀ >= 0` of both moments.
    pub initial_accumulator: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Yogi);

impl Default for Yogi {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            betas: (0.9, 0.999),
            eps: 1e-3,
            initial_accumulator: 1e-6,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Yogi, "Yogi", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "initial_accumulator": NonNegative = initial_accumulator;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct YogiCoefficients<R> {
    one_minus_beta1: R,
    one_minus_beta2: R,
    correction1: R,
    correction2: R,
    eps: R,
}

impl Rule for Yogi {
    type Coefficients<R: Real> = YogiCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> YogiCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        YogiCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            one_minus_beta2: R::of(1.0 - beta2),
            correction1: R::of(1.0 / bias(beta1)),
            correction2: R::of(1.0 / bias(beta2).sqrt()),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &YogiCoefficients<R>, _p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let square = g * g;
        // v − (1 − β₂)·sign(v − g²)·g², also where both are infinite
        let change = c.one_minus_beta2 * square;
        let grown = if v == square { v } else { v + change };
        let v = if v > square { v - change } else { grown };
        (ratio(m * c.correction1, v.sqrt() * c.correction2 + c.eps), [m, v])
    }

    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Value(self.initial_accumulator)
    }
}
