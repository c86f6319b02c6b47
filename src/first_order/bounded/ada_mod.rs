use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::numeric::range::{capped, finite_of};
use crate::optim::{Rule, Slot};

/// AdaMod: Adam whose learning rates are kept below their own long-term average.
///
/// *Use it when* Adam needs a warm-up to start without breaking, as transformers do: here the average of the learning
/// rates begins at 0, and takes its place. *Not when* training is short: the warm-up lasts about `1/(1 − β₃)` steps.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// η = γ·√(1 − β₂ᵗ)/(1 − β₁ᵗ) / (√v + ε)
/// e ← e + (1 − β₃)·(η − e)
/// p ← p − min(η, e)·m
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | paper |
/// | `betas` β₁, β₂, β₃ | (0.9, 0.99, 0.9999) | pytorch_optimizer; authors' code: (0.9, 0.999, 0.999) |
/// | `eps` ε | 1e-8 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | true | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), `exp_avg_sq` (v) and `exp_avg_lr` (e), 12 bytes per `f32` parameter; e stays in full precision
/// unless a precision is set for it by name.
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
/// let mut opt = AdaMod { lr: 0.1, betas: (0.9, 0.99, 0.99), ..AdaMod::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.AdaMod`, which counts steps per group. The average is that of the learning rates as they were,
/// so that a schedule shows in it late. With `eps = 0`, an element that has seen no gradient stands still.
///
/// # Source
/// J. Ding, X. Ren, R. Luo, X. Sun, "An Adaptive and Momental Bound Method for Stochastic Learning", 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdaMod {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first moment, of the second and of the learning rates, each in `[0, 1)`.
    pub betas: (f64, f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(AdaMod);

impl Default for AdaMod {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.99, 0.9999),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            maximize: false,
        }
    }
}

crate::hyperparameters!(AdaMod, "AdaMod", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "betas.2": UnitHalfOpen = betas.2;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdaModCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    one_minus_beta3: R,
    /// `γ·√(1 − β₂ᵗ)/(1 − β₁ᵗ)`.
    rate: R,
    /// `1/γ`, or 0 for a learning rate of 0.
    inverse: R,
    eps: R,
}

impl Rule for AdaMod {
    type Coefficients<R: Real> = AdaModCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    // the average changes by a ten-thousandth per step, which few bits would not see
    const SLOTS: &'static [Slot] =
        &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq"), Slot::iterate("exp_avg_lr")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdaModCoefficients<R> {
        let (beta1, beta2, beta3) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        AdaModCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            one_minus_beta3: R::of(1.0 - beta3),
            rate: R::of(self.lr * bias(beta2).sqrt() / bias(beta1)),
            inverse: finite_of(if self.lr > 0.0 { 1.0 / self.lr } else { 0.0 }),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdaModCoefficients<R>,
        _p: R,
        g: R,
        [m, v, average]: [R; 3],
    ) -> (R, [R; 3]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        // over a subnormal `eps` alone it would be infinite
        let rate = capped(ratio(c.rate, v.sqrt() + c.eps), R::max_value());
        let average = lerp(average, rate, c.one_minus_beta3);
        let rate = if rate > average { average } else { rate };
        (rate * m * c.inverse, [m, v, average])
    }
}
