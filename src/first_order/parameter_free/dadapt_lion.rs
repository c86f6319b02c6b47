use crate::error::Result;
use crate::first_order::parameter_free::dadapt_adam::DAdaptGroupState;
use crate::first_order::parameter_free::distance::{largest, same_lr};
use crate::kernel::Sums;
use crate::numeric::range::capped;
use crate::numeric::{Real, sign};
use crate::optim::{Rule, Slot, WeightDecay};
use std::ops::Range;

/// D-Adaptation of Lion: steps along signs, whose size is found.
///
/// *Use it when* you want [`Lion`](crate::first_order::Lion), do not know its learning rate, and have a schedule that brings
/// `lr` to 0: every step is as long as the estimate, also near the minimum. *Not when* the sign of the newest gradient says
/// little: while the estimate is small, the momentum hardly counts (see the differences).
///
/// ```text
/// γ_d = d·γ
/// p ← p·(1 − γ_d·λ)
/// u = sign(β₁·m + (1 − β₁)·g)                   sign(0) = 0
/// p ← p − γ_d·u
/// m ← β₂·m + γ_d·(1 − β₂)·g
/// a = γ_d · Σ u·s                               over all tensors; s before this step
/// s ← β₃·s + γ_d·(1 − β₃)·u                     β₃ = √β₂
/// r ← β₃·r + (1 − β₃)·a
/// d ← max(d, r/((1 − β₃)·Σ ‖s‖₁))               over all tensors
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | dadaptation; a factor on the estimate |
/// | `betas` β₁, β₂ | (0.9, 0.99) | Lion's paper |
/// | `weight_decay` λ | 0 | dadaptation |
/// | `d0` | 1e-6 | dadaptation; the first `d` |
///
/// State: `exp_avg` (m) and `s`, 8 bytes per `f32` parameter; one pass over memory more. Of the whole group: `d`,
/// `numerator_weighted` (r), `k`.
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
/// let mut opt = DAdaptLion { d0: 1e-3, ..DAdaptLion::default() }.build()?; // no learning rate
/// for _ in 0..500 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w[0].abs() < 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As dadaptation 3.2 and `pytorch_optimizer.DAdaptLion`: `m` is scaled by the learning rate, the gradient beside it in the
/// sign is not. In [`Lion`](crate::first_order::Lion) both have the same scale. The sums are in `f64`; in the second of these
/// packages they are in `f32`.
///
/// # Source
/// A. Defazio, K. Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", ICML 2023, and its package for the combination
/// with Lion: X. Chen and others, "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct DAdaptLion {
    /// Factor `γ >= 0` on the estimated learning rate.
    pub lr: f64,
    /// Weight of the momentum in the direction, and decay rate of the momentum, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// First estimate `> 0`; one that is too small costs only a few steps.
    pub d0: f64,
}
crate::config_file::named_fields!(DAdaptLion);

impl Default for DAdaptLion {
    fn default() -> Self {
        Self { lr: 1.0, betas: (0.9, 0.99), weight_decay: 0.0, d0: 1e-6 }
    }
}

crate::hyperparameters!(DAdaptLion, "DAdaptLion", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "weight_decay": NonNegative = weight_decay;
    "d0": Positive = d0;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct DAdaptLionCoefficients<R> {
    beta1: R,
    one_minus_beta1: R,
    beta2: R,
    /// `γ_d·(1 − β₂)`.
    second: R,
    beta3: R,
    /// `γ_d·(1 − β₃)`.
    third: R,
    /// `γ_d`, in the sums.
    inner: f64,
    /// 1, or 0 for a group that is frozen and does not count.
    share: f64,
}

impl<R: Real> DAdaptLionCoefficients<R> {
    #[inline(always)]
    fn signs(&self, g: R, m: R) -> R {
        sign(self.beta1 * m + self.one_minus_beta1 * g)
    }

    #[inline(always)]
    fn sum(&self, u: R, s: R) -> R {
        self.beta3 * s + self.third * u
    }
}

impl Rule for DAdaptLion {
    type Coefficients<R: Real> = DAdaptLionCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = DAdaptGroupState;
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::signed("s")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &DAdaptGroupState,
    ) -> DAdaptLionCoefficients<R> {
        let ((beta1, beta2), step) = (self.betas, scalars.step_size());
        let (beta3, moves) = (beta2.sqrt(), self.lr > 0.0);
        // a frozen group leaves its state alone
        let beta = |beta: f64| R::of(if moves { beta } else { 1.0 });
        DAdaptLionCoefficients {
            beta1: R::of(beta1),
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: beta(beta2),
            second: R::of(step * (1.0 - beta2)),
            beta3: beta(beta3),
            third: R::of(step * (1.0 - beta3)),
            inner: step,
            share: f64::from(u8::from(moves)),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &DAdaptLionCoefficients<R>,
        _p: R,
        g: R,
        [m, s]: [R; 2],
    ) -> (R, [R; 2]) {
        let u = c.signs(g, m);
        // an estimate that grows for ever, on a loss without a minimum, ends at the largest numbers
        (u, [capped(c.beta2 * m + c.second * g, R::max_value()), c.sum(u, s)])
    }

    /// The step size of the old estimate.
    fn step_size(&self, _: u64, scalars: &DAdaptGroupState) -> f64 {
        scalars.step_size()
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Decoupled(self.weight_decay)
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut DAdaptGroupState) {
        scalars.begin(self.d0, self.lr);
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// Terms of `a` and of `‖s‖₁`.
    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &DAdaptLionCoefficients<R>,
        _p: R,
        g: R,
        [m, s]: [R; 2],
    ) -> Sums {
        let u = c.signs(g, m);
        let sum = c.sum(u, s).abs().widen();
        [c.inner * (u.widen() * s.widen()), c.share * sum, 0.0, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut DAdaptGroupState) {
        let [growth, norm, ..] = *total;
        let limits = (f64::INFINITY, largest(self.lr, self.weight_decay));
        scalars.combine([growth, norm], self.betas.1.sqrt(), limits);
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        same_lr::<Self>(self.lr, first.lr)
    }
}
