use crate::error::Result;
use crate::first_order::parameter_free::distance::{grown, largest, same_lr};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::capped;
use crate::optim::{Apply, Rule, Slot, WeightDecay};
use crate::state::SlotInit;
use std::ops::Range;

/// D-Adaptation of SGD: descent that finds its own learning rate.
///
/// *Use it when* SGD does well on the problem and you do not want to tune its learning rate: leave `lr` at 1, and put a
/// schedule on it. *Not when* gradients of different layers differ in size: use
/// [`DAdaptAdam`](crate::first_order::DAdaptAdam) or [`Prodigy`](crate::first_order::Prodigy).
///
/// ```text
/// G = ‖g‖ of all tensors together at the first step; without λp
/// γ_d = d·γ/G
/// g ← g + λp
/// r ← r + γ_d·Σ g·s                             over all tensors; s before this step
/// s ← s + γ_d·g
/// d̂ = 2r/√(Σ s²)                                over all tensors
/// d ← max(d, min(d̂, growth_rate·d))
/// z = x₀ − s                                    x₀: the parameter before its first step
/// p ← p + (1 − μ)·(z − p)
/// ```
/// While every `s` is zero, nothing moves.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | paper; a factor on the estimate |
/// | `momentum` μ | 0 | dadaptation |
/// | `weight_decay` λ | 0 | dadaptation |
/// | `d0` | 1e-6 | paper; the first `d` |
/// | `growth_rate` | ∞ | dadaptation |
///
/// State: `s` and `x0` (x₀), 8 bytes per `f32` parameter; `x0` is an iterate and stays in full precision when other slots
/// are coded. One pass over memory more. Of the whole group: `d`, `numerator_weighted` (r), `g0_norm` (G), `k`.
///
/// # Errors
/// `build` refuses options out of range; `step` refuses groups whose `lr` differs from group 0's and is not 0 (frozen).
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = DAdaptSgd { d0: 1e-2, ..DAdaptSgd::default() }.build()?; // no learning rate
/// for _ in 0..500 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w[0].abs() < 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As dadaptation 3.2, which also keeps `z` and leaves λp out of `G`; `pytorch_optimizer.DAdaptSGD` has momentum 0.9 and its
/// sums in `f32`. Here they are in `f64`, and Σ s² after the step follows from sums taken before it. If the first gradients
/// are all zero, `G` is taken at the next step. A group whose `lr` is 0 stands still.
///
/// # Source
/// A. Defazio, K. Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", ICML 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct DAdaptSgd {
    /// Factor `γ >= 0` on the estimated learning rate.
    pub lr: f64,
    /// Momentum `μ` in `[0, 1)`: how much of the way to `z` is left.
    pub momentum: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// First estimate `> 0` of the distance to the solution; one that is too small costs only a few steps.
    pub d0: f64,
    /// Largest factor, at least 1, by which the estimate may grow in a step.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub growth_rate: f64,
}
crate::config_file::named_fields!(DAdaptSgd);

impl Default for DAdaptSgd {
    fn default() -> Self {
        Self { lr: 1.0, momentum: 0.0, weight_decay: 0.0, d0: 1e-6, growth_rate: f64::INFINITY }
    }
}

crate::hyperparameters!(DAdaptSgd, "DAdaptSgd", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "weight_decay": NonNegative = weight_decay;
    "d0": Positive = d0;
    "growth_rate": FromOne = growth_rate;
});

/// Largest magnitude of an element of `s`, so that all squares together are a number.
const S_LARGEST: f64 = 1e140;

/// What D-Adaptation of SGD knows of all tensors together; the same in every group.
#[derive(Clone, Debug, Default)]
pub struct DAdaptSgdGroupState {
    /// The estimate `d`; 0 before the first step.
    pub d: f64,
    /// Numerator `r` of the estimate.
    pub numerator_weighted: f64,
    /// Norm `G` of the first gradient; 0 before.
    pub g0_norm: f64,
    /// Number of steps that moved.
    pub k: u64,
    /// Step size `γ_d` of this step.
    step_size: f64,
}
crate::group_state!(common DAdaptSgdGroupState { d, numerator_weighted, g0_norm, k });

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct DAdaptSgdCoefficients<R> {
    /// `γ_d`.
    step: R,
    weight_decay: R,
    /// `1 − μ`, or 0 while nothing moves.
    way: R,
    /// Largest magnitude of a sum, whose square is still a number.
    largest: R,
    /// `γ`, in the sums.
    lr: f64,
    /// 1, or 0 for a group that is frozen and does not count.
    share: f64,
}

impl Rule for DAdaptSgd {
    type Coefficients<R: Real> = DAdaptSgdCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = DAdaptSgdGroupState;
    const SLOTS: &'static [Slot] = &[Slot::signed("s"), Slot::iterate("x0")];

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &DAdaptSgdGroupState,
    ) -> DAdaptSgdCoefficients<R> {
        let moves = scalars.step_size > 0.0;
        DAdaptSgdCoefficients {
            step: R::of(scalars.step_size),
            weight_decay: R::of(self.weight_decay),
            way: R::of(if moves { 1.0 - self.momentum } else { 0.0 }),
            largest: R::of(R::max_value().widen().min(S_LARGEST)),
            lr: self.lr,
            share: f64::from(u8::from(self.lr > 0.0)),
        }
    }

    /// The way from the new point back to the old one.
    #[inline(always)]
    fn direction<R: Real>(
        c: &DAdaptSgdCoefficients<R>,
        p: R,
        g: R,
        [s, start]: [R; 2],
    ) -> (R, [R; 2]) {
        let g = g + c.weight_decay * p;
        // an estimate that grows for ever, on a loss without a minimum, ends at the largest numbers
        let s = capped(s + c.step * g, c.largest);
        (c.way * (p - (start - s)), [s, start])
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &DAdaptSgdCoefficients<R>,
        _: &Apply<R>,
        p: R,
        g: R,
        s: [R; 2],
    ) -> (R, [R; 2]) {
        let (u, s) = Self::direction(c, p, g, s);
        (p - u, s)
    }

    /// The step size of the old estimate; 0 while nothing moves.
    fn step_size(&self, _: u64, scalars: &DAdaptSgdGroupState) -> f64 {
        scalars.step_size
    }

    /// The decay is part of the equations: the first norm is without it.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot == 1 { SlotInit::Parameter } else { SlotInit::Value(0.0) }
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut DAdaptSgdGroupState) {
        if scalars.d == 0.0 {
            scalars.d = self.d0;
        }
        scalars.step_size = 0.0;
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// Terms of `γ·⟨g, s⟩`, of `‖s‖²` and `γ²·‖g‖²`, and of `‖g‖²` without decay.
    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &DAdaptSgdCoefficients<R>,
        p: R,
        g: R,
        [s, _]: [R; 2],
    ) -> Sums {
        let decayed = c.lr * (g + c.weight_decay * p).widen();
        let (s, g) = (c.share * s.widen(), c.share * g.widen());
        [decayed * s, s * s, decayed * decayed, g * g]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut DAdaptSgdGroupState) {
        let [inner, old, new, gradient] = *total;
        if scalars.g0_norm == 0.0 {
            scalars.g0_norm = gradient.sqrt();
        }
        if scalars.g0_norm == 0.0 {
            return;
        }
        let unit = scalars.d / scalars.g0_norm;
        let square = old + 2.0 * unit * inner + unit * unit * new;
        if square <= 0.0 {
            return;
        }
        scalars.step_size = unit * self.lr;
        let numerator = scalars.numerator_weighted + unit * inner;
        scalars.numerator_weighted = numerator.clamp(-f64::MAX, f64::MAX);
        let limit = largest(self.lr / scalars.g0_norm, self.weight_decay);
        let estimate = 2.0 * scalars.numerator_weighted / square.sqrt();
        scalars.d = grown(scalars.d, estimate, (self.growth_rate, limit));
        scalars.k += 1;
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        same_lr::<Self>(self.lr, first.lr)
    }
}
