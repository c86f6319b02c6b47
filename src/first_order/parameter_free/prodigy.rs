use crate::error::Result;
use crate::first_order::arithmetic::ratio;
use crate::first_order::parameter_free::distance::{D_LARGEST, same_lr};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::capped;
use crate::optim::{Rule, Slot, WeightDecay};
use crate::state::SlotInit;
use std::ops::Range;

/// Prodigy: Adam that finds its own learning rate.
///
/// *Use it when* you do not want to tune a learning rate: leave `lr` at 1 and let the distance estimate `d`
/// grow. A cosine schedule on `lr` works well. *Not when* parameter groups need different learning rates,
/// or memory is scarce: it keeps four slots.
///
/// ```text
/// γ_d = d·γ                  · √(1 − β₂ᵏ⁺¹)/(1 − β₁ᵏ⁺¹) with use_bias_correction
/// m ← β₁·m + d·(1 − β₁)·g
/// v ← β₂·v + d²·(1 − β₂)·g²
/// s ← β₃·s + (d/d₀)·γ_d·g    d instead of γ_d with safeguard_warmup
/// r ← β₃·r + Σ (d/d₀)·γ_d·⟨g, p₀ − p⟩           over all tensors
/// d̂ = c·r / Σ ‖s‖₁                               over all tensors
/// d⁺ = max(d, d̂), growing by at most growth_rate
/// p ← p − λ·γ_d·p            decoupled; else g ← g + λp at the start
/// p ← p − γ_d · m/(√v + d⁺·ε)
/// ```
/// While every `s` is zero, nothing moves. `p₀` is the parameter at its first step.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | paper; a factor on the estimate |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `beta3` β₃ | none: √β₂ | paper |
/// | `eps` ε | 1e-8 | prodigyopt |
/// | `weight_decay` λ | 0 | prodigyopt |
/// | `decoupled_weight_decay` | true | prodigyopt (`decouple`) |
/// | `use_bias_correction` | false | prodigyopt |
/// | `safeguard_warmup` | false | prodigyopt |
/// | `d0` d₀ | 1e-6 | paper |
/// | `d_coef` c | 1 | prodigyopt |
/// | `growth_rate` | ∞ | prodigyopt |
/// | `slice_p` | 1 | prodigyopt |
///
/// State: `exp_avg` (m; off when β₁ = 0), `exp_avg_sq` (v), `s` and `p0`: 16 bytes per `f32`
/// parameter. With `slice_p = k`, `s` and `p0` keep every k-th element of the flattened tensor, and
/// both sums run over those: `8 + 8/k` bytes, at a slightly noisier estimate. `p0` is an iterate and
/// stays in full precision when other slots are coded. Of the whole group: `d`, `d_max`,
/// `d_numerator` (r), `k`.
///
/// # Errors
/// `build` refuses options out of range; `step` refuses groups whose `lr` differs from group 0's
/// and is not 0 (frozen).
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![10.0f64];
/// let mut opt = Prodigy::default().build()?; // no learning rate
/// for _ in 0..300 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w[0].abs() < 1.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As prodigyopt 1.1.2, which computes the inner products in the parameter's precision; here they
/// are summed in `f64` in a fixed order.
///
/// # Source
/// K. Mishchenko, A. Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML
/// 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Prodigy {
    /// Factor `γ >= 0` on the estimated learning rate.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Decay rate of the estimate's sums, in `[0, 1)`; `None` for `√β₂`.
    pub beta3: Option<f64>,
    /// Stabiliser `ε >= 0`.
    pub eps: f64,
    /// Weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Decay the weights directly; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Correct the moments for their start at zero.
    pub use_bias_correction: bool,
    /// Keep a learning-rate warm-up from inflating the estimate.
    pub safeguard_warmup: bool,
    /// First estimate `d₀ > 0`; one that is too small costs only a few steps.
    pub d0: f64,
    /// Factor `c > 0` on the estimate.
    pub d_coef: f64,
    /// Largest factor, at least 1, by which the estimate may grow in a step.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub growth_rate: f64,
    /// Estimate `d` from every `slice_p`-th element; at least 1.
    pub slice_p: usize,
}
crate::config_file::named_fields!(Prodigy);

impl Default for Prodigy {
    fn default() -> Self {
        Self {
            lr: 1.0,
            betas: (0.9, 0.999),
            beta3: None,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            use_bias_correction: false,
            safeguard_warmup: false,
            d0: 1e-6,
            d_coef: 1.0,
            growth_rate: f64::INFINITY,
            slice_p: 1,
        }
    }
}

crate::hyperparameters!(Prodigy, "Prodigy", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "beta3": OptionalUnitHalfOpen = beta3;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "use_bias_correction": Flag = use_bias_correction;
    "safeguard_warmup": Flag = safeguard_warmup;
    "d0": Positive = d0;
    "d_coef": Positive = d_coef;
    "growth_rate": FromOne = growth_rate;
    "slice_p": CountFrom(1) = slice_p;
});

/// What Prodigy knows of all tensors together; the same in every group.
#[derive(Clone, Debug, Default)]
pub struct ProdigyGroupState {
    /// The estimate `d`; 0 before the first step.
    pub d: f64,
    /// Largest estimate so far.
    pub d_max: f64,
    /// Numerator `r` of the estimate.
    pub d_numerator: f64,
    /// Number of steps that moved.
    pub k: u64,
    /// `d` before this step.
    d_before: f64,
    /// Step size `γ_d` of this step.
    step_size: f64,
}
crate::group_state!(common ProdigyGroupState { d, d_max, d_numerator, k });

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct ProdigyCoefficients<R> {
    beta1: R,
    first: R,
    beta2: R,
    second: R,
    beta3: R,
    third: R,
    eps: R,
    /// `(d/d₀)·γ_d`: weight of `⟨g, p₀ − p⟩`.
    inner: f64,
    /// Whether the direction is the bare gradient: `β₁ = 0`.
    bare: bool,
    d_before: R,
}

impl Prodigy {
    fn beta3(&self) -> f64 {
        self.beta3.unwrap_or(self.betas.1.sqrt())
    }
}

impl Rule for Prodigy {
    type Coefficients<R: Real> = ProdigyCoefficients<R>;
    type State<R: Real> = [R; 4];
    type GroupState = ProdigyGroupState;
    const SLOTS: &'static [Slot] = &[
        Slot::unsigned("exp_avg_sq"),
        Slot::signed("s"),
        Slot::iterate("p0"),
        Slot::signed("exp_avg").optional(),
    ];

    fn coefficients<R: Real>(&self, _: u64, scalars: &ProdigyGroupState) -> ProdigyCoefficients<R> {
        let ((beta1, beta2), d) = (self.betas, scalars.d_before);
        let third = if self.safeguard_warmup { d } else { scalars.step_size };
        ProdigyCoefficients {
            beta1: R::of(beta1),
            first: R::of(d * (1.0 - beta1)),
            beta2: R::of(beta2),
            second: R::of(d * d * (1.0 - beta2)),
            beta3: R::of(self.beta3()),
            // a frozen group leaves the estimate alone
            third: R::of(if self.lr > 0.0 { d / self.d0 * third } else { 0.0 }),
            eps: R::of(scalars.d * self.eps),
            inner: d / self.d0 * scalars.step_size,
            bare: beta1 == 0.0,
            d_before: R::of(d),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &ProdigyCoefficients<R>,
        _p: R,
        g: R,
        [v, s, p0, m]: [R; 4],
    ) -> (R, [R; 4]) {
        // an estimate that grows for ever, on a loss without a minimum, ends at the largest numbers
        let m = capped(c.beta1 * m + c.first * g, R::max_value());
        let v = capped(c.beta2 * v + c.second * g * g, R::max_value());
        let s = capped(c.beta3 * s + c.third * g, R::max_value());
        let numerator = if c.bare { c.d_before * g } else { m };
        (ratio(numerator, v.sqrt() + c.eps), [v, s, p0, m])
    }

    /// The step size of the old estimate; 0 while nothing moves.
    fn step_size(&self, _: u64, scalars: &ProdigyGroupState) -> f64 {
        scalars.step_size
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 3 || self.betas.0 > 0.0
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot == 2 { SlotInit::Parameter } else { SlotInit::Value(0.0) }
    }

    fn slot_stride(&self, slot: usize) -> usize {
        if slot == 1 || slot == 2 { self.slice_p } else { 1 }
    }

    fn measure_stride(&self) -> usize {
        self.slice_p
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut ProdigyGroupState) {
        if scalars.d == 0.0 {
            scalars.d = self.d0;
            scalars.d_max = self.d0;
        }
        let (beta1, beta2) = self.betas;
        let steps = (scalars.k + 1) as f64;
        let correction = if self.use_bias_correction {
            (1.0 - beta2.powf(steps)).sqrt() / (1.0 - beta1.powf(steps))
        } else {
            1.0
        };
        scalars.d_before = scalars.d;
        scalars.step_size = scalars.d * self.lr * correction;
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// Terms of the new numerator and of `‖s‖₁`.
    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &ProdigyCoefficients<R>,
        p: R,
        g: R,
        [_, s, p0, _]: [R; 4],
    ) -> Sums {
        let s = capped(c.beta3 * s + c.third * g, R::max_value());
        [c.inner * (g.widen() * (p0 - p).widen()), s.abs().widen(), 0.0, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut ProdigyGroupState) {
        let [growth, norm, ..] = *total;
        if norm == 0.0 {
            scalars.step_size = 0.0;
            return;
        }
        scalars.d_numerator = self.beta3() * scalars.d_numerator + growth;
        let estimate = self.d_coef * scalars.d_numerator / norm;
        if scalars.d == self.d0 {
            scalars.d = scalars.d.max(estimate).min(D_LARGEST);
        }
        scalars.d_max = scalars.d_max.max(estimate);
        scalars.d_max = scalars.d_max.min(D_LARGEST);
        scalars.d = scalars.d_max.min(scalars.d * self.growth_rate);
        scalars.k += 1;
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        same_lr::<Self>(self.lr, first.lr)
    }
}
