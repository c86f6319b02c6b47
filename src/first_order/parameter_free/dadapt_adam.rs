use crate::error::Result;
use crate::first_order::arithmetic::ratio;
use crate::first_order::parameter_free::distance::{grown, largest, same_lr};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::{capped, finite_of};
use crate::optim::{Rule, Slot, WeightDecay};
use std::ops::Range;

/// D-Adaptation of Adam: Adam that finds its own learning rate.
///
/// *Use it when* you do not want to tune a learning rate: leave `lr` at 1, and put a schedule on it if you have one. *Not
/// when* you begin anew: [`Prodigy`](crate::first_order::Prodigy), by the same authors, finds larger rates sooner.
///
/// ```text
/// γ_d = d·γ                  · √(1 − β₂ᵏ⁺¹)/(1 − β₁ᵏ⁺¹) with use_bias_correction
/// a = γ_d · Σ g·s/(√v + ε)                      over all tensors; v and s before this step
/// m ← β₁·m + γ_d·(1 − β₁)·g
/// v ← β₂·v + (1 − β₂)·g²
/// s ← β₃·s + γ_d·(1 − β₃)·g                     β₃ = √β₂
/// r ← β₃·r + (1 − β₃)·a
/// d̂ = r/((1 − β₃)·Σ ‖s‖₁)                       over all tensors
/// d ← max(d, min(d̂, growth_rate·d))
/// p ← p − λ·γ_d·p                               decoupled; else g ← g + λp at the start
/// p ← p − m/(√v + ε)
/// ```
/// While every `s` is zero, nothing moves.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | paper; a factor on the estimate |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | dadaptation |
/// | `weight_decay` λ | 0 | dadaptation |
/// | `decoupled_weight_decay` | false | dadaptation (`decouple`) |
/// | `use_bias_correction` | false | dadaptation |
/// | `d0` | 1e-6 | paper; the first `d` |
/// | `growth_rate` | ∞ | dadaptation |
///
/// State: `exp_avg` (m), `exp_avg_sq` (v) and `s`, 12 bytes per `f32` parameter; one pass over memory more. Of the whole
/// group: `d`, `numerator_weighted` (r), `k`.
///
/// # Errors
/// `build` refuses options out of range; `step` refuses groups whose `lr` differs from group 0's and is not 0 (frozen).
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![10.0f64];
/// let mut opt = DAdaptAdam { d0: 1e-3, ..DAdaptAdam::default() }.build()?; // no learning rate
/// for _ in 0..500 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w[0].abs() < 2.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As dadaptation 3.2, which computes the inner products in the parameter's precision; here they are summed in `f64` in a
/// fixed order. Its factor per group on the step (`layer_scale`) is not here. A group whose `lr` is 0 stands still; there it
/// goes on along what `exp_avg` holds. `pytorch_optimizer.DAdaptAdam` keeps its sums in `f32`. With `eps = 0`, an element
/// that has seen no gradient stands still.
///
/// # Source
/// A. Defazio, K. Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", ICML 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct DAdaptAdam {
    /// Factor `γ >= 0` on the estimated learning rate.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Correct the moments for their start at zero.
    pub use_bias_correction: bool,
    /// First estimate `> 0`; one that is too small costs only a few steps.
    pub d0: f64,
    /// Largest factor, at least 1, by which the estimate may grow in a step.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub growth_rate: f64,
}
crate::config_file::named_fields!(DAdaptAdam);

impl Default for DAdaptAdam {
    fn default() -> Self {
        Self {
            lr: 1.0,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            use_bias_correction: false,
            d0: 1e-6,
            growth_rate: f64::INFINITY,
        }
    }
}

crate::hyperparameters!(DAdaptAdam, "DAdaptAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "use_bias_correction": Flag = use_bias_correction;
    "d0": Positive = d0;
    "growth_rate": FromOne = growth_rate;
});

/// What D-Adaptation knows of all tensors together; the same in every group.
#[derive(Clone, Debug, Default)]
pub struct DAdaptGroupState {
    /// The estimate `d`; 0 before the first step.
    pub d: f64,
    /// Numerator `r` of the estimate.
    pub numerator_weighted: f64,
    /// Number of steps that moved.
    pub k: u64,
    /// Step size `γ_d` of this step.
    step_size: f64,
}
crate::group_state!(common DAdaptGroupState { d, numerator_weighted, k });

impl DAdaptGroupState {
    /// Begins a step of a group whose learning rate is `lr` times the estimate.
    pub(super) fn begin(&mut self, d0: f64, lr: f64) {
        if self.d == 0.0 {
            self.d = d0;
        }
        self.step_size = self.d * lr;
    }

    /// The step size `γ_d`, from the estimate before this step.
    pub(super) fn step_size(&self) -> f64 {
        self.step_size
    }

    /// Takes in the sums of this step, within the limits of the estimate, unless all gradients so far are zero; says whether it did.
    pub(super) fn combine(
        &mut self,
        [growth, norm]: [f64; 2],
        beta3: f64,
        limits: (f64, f64),
    ) -> bool {
        if norm == 0.0 {
            return false;
        }
        self.numerator_weighted = beta3 * self.numerator_weighted + (1.0 - beta3) * growth;
        let estimate = self.numerator_weighted / ((1.0 - beta3) * norm);
        self.d = grown(self.d, estimate, limits);
        self.k += 1;
        true
    }
}

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct DAdaptAdamCoefficients<R> {
    beta1: R,
    /// `γ_d·(1 − β₁)`.
    first: R,
    beta2: R,
    one_minus_beta2: R,
    beta3: R,
    /// `γ_d·(1 − β₃)`.
    third: R,
    eps: R,
    /// `γ_d`, in the sums.
    inner: f64,
    /// 1, or 0 for a group that is frozen and does not count.
    share: f64,
    /// `1/γ_d`, or 0: `m` holds learning rates already.
    inverse: R,
}

impl<R: Real> DAdaptAdamCoefficients<R> {
    #[inline(always)]
    fn sum(&self, g: R, s: R) -> R {
        capped(self.beta3 * s + self.third * g, R::max_value())
    }
}

impl Rule for DAdaptAdam {
    type Coefficients<R: Real> = DAdaptAdamCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = DAdaptGroupState;
    const SLOTS: &'static [Slot] =
        &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq"), Slot::signed("s")];

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &DAdaptGroupState,
    ) -> DAdaptAdamCoefficients<R> {
        let ((beta1, beta2), step) = (self.betas, scalars.step_size());
        let (beta3, moves) = (beta2.sqrt(), self.lr > 0.0);
        // a frozen group leaves its state alone
        let beta = |beta: f64| R::of(if moves { beta } else { 1.0 });
        let rest = |beta: f64, factor: f64| R::of(if moves { factor * (1.0 - beta) } else { 0.0 });
        DAdaptAdamCoefficients {
            beta1: beta(beta1),
            first: rest(beta1, step),
            beta2: beta(beta2),
            one_minus_beta2: rest(beta2, 1.0),
            beta3: beta(beta3),
            third: rest(beta3, step),
            eps: R::of(self.eps),
            inner: step,
            share: f64::from(u8::from(moves)),
            inverse: finite_of(if step > 0.0 { 1.0 / step } else { 0.0 }),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &DAdaptAdamCoefficients<R>,
        _p: R,
        g: R,
        [m, v, s]: [R; 3],
    ) -> (R, [R; 3]) {
        // an estimate that grows for ever, on a loss without a minimum, ends at the largest numbers
        let m = capped(c.beta1 * m + c.first * g, R::max_value());
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        (c.inverse * ratio(m, v.sqrt() + c.eps), [m, v, c.sum(g, s)])
    }

    /// The step size of the old estimate; 0 while nothing moves.
    fn step_size(&self, _: u64, scalars: &DAdaptGroupState) -> f64 {
        scalars.step_size()
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut DAdaptGroupState) {
        let (beta1, beta2) = self.betas;
        let steps = (scalars.k + 1) as f64;
        let correction = if self.use_bias_correction {
            (1.0 - beta2.powf(steps)).sqrt() / (1.0 - beta1.powf(steps))
        } else {
            1.0
        };
        scalars.begin(self.d0, self.lr * correction);
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// Terms of `a` and of `‖s‖₁`.
    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &DAdaptAdamCoefficients<R>,
        _p: R,
        g: R,
        [_, v, s]: [R; 3],
    ) -> Sums {
        let scaled = ratio(s, v.sqrt() + c.eps);
        let sum = c.sum(g, s).abs().widen();
        [c.inner * (g.widen() * scaled.widen()), c.share * sum, 0.0, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut DAdaptGroupState) {
        let [growth, norm, ..] = *total;
        let decay = if self.decoupled_weight_decay { self.weight_decay } else { 0.0 };
        let limits = (self.growth_rate, largest(self.lr, decay));
        if !scalars.combine([growth, norm], self.betas.1.sqrt(), limits) {
            scalars.step_size = 0.0;
        }
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        same_lr::<Self>(self.lr, first.lr)
    }
}
