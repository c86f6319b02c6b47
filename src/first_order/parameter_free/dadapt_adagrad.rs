use crate::error::Result;
use crate::first_order::arithmetic::ratio;
use crate::first_order::parameter_free::distance::{D_LARGEST, grown, same_lr};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::capped;
use crate::optim::{Apply, Rule, Slot, WeightDecay};
use crate::state::SlotInit;
use std::ops::Range;

/// D-Adaptation of Adagrad: dual averaging that finds its own learning rate.
///
/// *Use it when* Adagrad suits the problem, as with sparse gradients, and you do not want to tune its learning rate: leave
/// `lr` at 1. *Not when* you train a deep network: use [`DAdaptAdam`](crate::first_order::DAdaptAdam) or
/// [`Prodigy`](crate::first_order::Prodigy).
///
/// ```text
/// γ_d = d·γ
/// g ← g + λp
/// α ← α + g²                                    1e-6 at first
/// s ← s + γ_d·g
/// q ← q + γ_d²·Σ g²/(√α + ε)                    over all tensors
/// d̂ = (Σ s²/(√α + ε) − q)/Σ ‖s‖₁                over all tensors, also those without a gradient
/// d ← max(d, min(d̂, growth_rate·d))
/// z = x₀ − s/(√α + ε)                           x₀: the parameter before its first step
/// p ← p + (1 − μ)·(z − p)
/// ```
/// While every `s` is zero, nothing moves.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | paper; a factor on the estimate |
/// | `momentum` μ | 0 | dadaptation |
/// | `eps` ε | 1e-6 | dadaptation |
/// | `weight_decay` λ | 0 | dadaptation |
/// | `d0` | 1e-6 | paper; the first `d` |
/// | `growth_rate` | ∞ | dadaptation |
///
/// State: `alphak` (α), `sk` (s) and `x0` (x₀), 12 bytes per `f32` parameter; `x0` is an iterate and stays in full precision
/// when other slots are coded. One pass over memory more. Of the whole group: `d`, `sksq_weighted` (Σ s²/(√α + ε)),
/// `gsq_weighted` (q), `skl1` (Σ ‖s‖₁), `k`.
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
/// let mut opt = DAdaptAdagrad { d0: 1e-2, ..DAdaptAdagrad::default() }.build()?; // no learning rate
/// for _ in 0..500 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w[0].abs() < 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As dadaptation 3.2 on dense gradients, and as `pytorch_optimizer.DAdaptAdaGrad`, whose ε is 0 and whose sums are in
/// `f32`. The sums over all tensors follow from how they change at every step, there as here, so that tensors without a
/// gradient count; here in `f64`. A group whose `lr` is 0 stands still.
///
/// # Source
/// A. Defazio, K. Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", ICML 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct DAdaptAdagrad {
    /// Factor `γ >= 0` on the estimated learning rate.
    pub lr: f64,
    /// Momentum `μ` in `[0, 1)`: how much of the way to `z` is left.
    pub momentum: f64,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// First estimate `> 0`; one that is too small costs only a few steps.
    pub d0: f64,
    /// Largest factor, at least 1, by which the estimate may grow in a step.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub growth_rate: f64,
}
crate::config_file::named_fields!(DAdaptAdagrad);

impl Default for DAdaptAdagrad {
    fn default() -> Self {
        Self {
            lr: 1.0,
            momentum: 0.0,
            eps: 1e-6,
            weight_decay: 0.0,
            d0: 1e-6,
            growth_rate: f64::INFINITY,
        }
    }
}

crate::hyperparameters!(DAdaptAdagrad, "DAdaptAdagrad", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "d0": Positive = d0;
    "growth_rate": FromOne = growth_rate;
});

/// What D-Adaptation of Adagrad knows of all tensors together; the same in every group.
#[derive(Clone, Debug, Default)]
pub struct DAdaptAdagradGroupState {
    /// The estimate `d`; 0 before the first step.
    pub d: f64,
    /// `Σ s²/(√α + ε)`.
    pub sksq_weighted: f64,
    /// `q`: what the gradients alone contribute to it.
    pub gsq_weighted: f64,
    /// `Σ ‖s‖₁`.
    pub skl1: f64,
    /// Number of steps that moved.
    pub k: u64,
    /// Step size `γ_d` of this step.
    step_size: f64,
}
crate::group_state!(common DAdaptAdagradGroupState { d, sksq_weighted, gsq_weighted, skl1, k });

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct DAdaptAdagradCoefficients<R> {
    /// `γ_d`.
    step: R,
    /// 1, or 0 for a group that is frozen and leaves its state alone.
    share: R,
    eps: R,
    /// `1 − μ`, or 0 while nothing moves.
    way: R,
}

impl<R: Real> DAdaptAdagradCoefficients<R> {
    /// The sums of squares and of gradients after this step.
    #[inline(always)]
    fn sums(&self, g: R, squares: R, sum: R) -> (R, R) {
        // an estimate that grows for ever, on a loss without a minimum, ends at the largest numbers
        let sum = capped(sum + self.step * g, R::max_value());
        (squares + self.share * g * g, sum)
    }

    #[inline(always)]
    fn scaled(&self, x: R, squares: R) -> R {
        ratio(x, squares.sqrt() + self.eps)
    }
}

impl Rule for DAdaptAdagrad {
    type Coefficients<R: Real> = DAdaptAdagradCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = DAdaptAdagradGroupState;
    const SLOTS: &'static [Slot] =
        &[Slot::unsigned("alphak"), Slot::signed("sk"), Slot::iterate("x0")];

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &DAdaptAdagradGroupState,
    ) -> DAdaptAdagradCoefficients<R> {
        let moves = scalars.step_size > 0.0;
        DAdaptAdagradCoefficients {
            step: R::of(scalars.step_size),
            share: R::of(f64::from(u8::from(moves))),
            eps: R::of(self.eps),
            way: R::of(if moves { 1.0 - self.momentum } else { 0.0 }),
        }
    }

    /// The way from the new point back to the old one.
    #[inline(always)]
    fn direction<R: Real>(
        c: &DAdaptAdagradCoefficients<R>,
        p: R,
        g: R,
        [squares, sum, start]: [R; 3],
    ) -> (R, [R; 3]) {
        let (squares, sum) = c.sums(g, squares, sum);
        let z = start - c.scaled(sum, squares);
        (c.way * (p - z), [squares, sum, start])
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &DAdaptAdagradCoefficients<R>,
        _: &Apply<R>,
        p: R,
        g: R,
        s: [R; 3],
    ) -> (R, [R; 3]) {
        let (u, s) = Self::direction(c, p, g, s);
        (p - u, s)
    }

    /// The step size of the old estimate; 0 while nothing moves.
    fn step_size(&self, _: u64, scalars: &DAdaptAdagradGroupState) -> f64 {
        scalars.step_size
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        match slot {
            0 => SlotInit::Value(1e-6),
            2 => SlotInit::Parameter,
            _ => SlotInit::Value(0.0),
        }
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut DAdaptAdagradGroupState) {
        if scalars.d == 0.0 {
            scalars.d = self.d0;
        }
        scalars.step_size = scalars.d * self.lr;
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// How `Σ s²/(√α + ε)` and `Σ ‖s‖₁` change, and the term of `q`.
    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &DAdaptAdagradCoefficients<R>,
        _p: R,
        g: R,
        [squares, sum, _]: [R; 3],
    ) -> Sums {
        let (new_squares, new_sum) = c.sums(g, squares, sum);
        let weighted = |sum: R, squares: R| sum.widen() * c.scaled(sum, squares).widen();
        let step = c.step.widen();
        let gradient = step * step * (g.widen() * c.scaled(g, new_squares).widen());
        let change = weighted(new_sum, new_squares) - weighted(sum, squares);
        [change, new_sum.abs().widen() - sum.abs().widen(), gradient, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut DAdaptAdagradGroupState) {
        let [weighted, norm, gradient, _] = *total;
        scalars.sksq_weighted += weighted;
        scalars.skl1 += norm;
        if scalars.skl1 <= 0.0 {
            scalars.step_size = 0.0;
            return;
        }
        scalars.gsq_weighted += gradient;
        let estimate = (scalars.sksq_weighted - scalars.gsq_weighted) / scalars.skl1;
        scalars.d = grown(scalars.d, estimate, (self.growth_rate, D_LARGEST));
        scalars.k += 1;
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        same_lr::<Self>(self.lr, first.lr)
    }
}
