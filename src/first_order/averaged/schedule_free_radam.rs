use crate::first_order::arithmetic::ratio;
use crate::first_order::averaged::points::ScheduleFreeStep;
use crate::first_order::averaged::schedule_free::ScheduleFreeGroupState;
use crate::first_order::rectification::rectification;
use crate::numeric::Real;
use crate::optim::{Apply, Mode, Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// Schedule-Free RAdam: averaging instead of a learning-rate schedule, and no warm-up to tune.
///
/// *Use it when* [`ScheduleFreeAdamW`](crate::first_order::ScheduleFreeAdamW) needs a warm-up and you do not want to choose
/// its length. *Not when* the model has batch normalisation, unless you recompute its statistics at the evaluation point.
///
/// Gradients are taken at `y`, where the parameters stand while training; the model to use is the average `x`. Call
/// [`eval`](crate::optim::Optimizer::eval) before evaluating or saving the model, and
/// [`train`](crate::optim::Optimizer::train) before going on; a `step` in between is an error.
///
/// ```text
/// t = k + 1
/// ρ∞ = 2/(1 − β₂) − 1             ρ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ)
/// γ = lr·√((ρ − 4)·(ρ − 2)·ρ∞/((ρ∞ − 4)·(ρ∞ − 2)·ρ))       if ρ > 4
/// γ = 0 with silent_sgd_phase, else lr                      otherwise
/// w = tʳ · (largest γ so far)^weight_lr_power;   c = w / Σw
/// v ← β₂·v + (1 − β₂)·g²
/// u = g/(√(v/(1 − β₂ᵗ)) + ε) + λ·y                           if ρ > 4
/// u = g + λ·y                                               otherwise
/// y ← y + c·(z − y) + γ·(β₁·(1 − c) − 1)·u
/// z ← z − γ·u
/// eval:  x = y + (1 − 1/β₁)·(z − y)        train: y = x + (1 − β₁)·(z − x)
/// ```
/// With β₂ = 0.999, ρ passes 4 at the fifth step; with β₂ ≤ 0.6 it never does, and with `silent_sgd_phase` nothing
/// moves.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` | 2.5e-3 | schedulefree |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | schedulefree |
/// | `weight_decay` λ | 0 | schedulefree; decay at y |
/// | `r` | 0 | schedulefree |
/// | `weight_lr_power` | 2 | schedulefree |
/// | `silent_sgd_phase` | true | schedulefree |
///
/// State: `exp_avg_sq` (v) and `z`, 8 bytes per `f32` parameter; `z` is an iterate and stays in full precision when other
/// slots are coded. Of the group: `k`, `weight_sum`, `lr_max`.
///
/// # Errors
/// `build` refuses options out of range, and `betas.0 = 0`, from which `x` could not be recovered.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = ScheduleFreeRAdam { lr: 0.05, ..ScheduleFreeRAdam::default() }.build()?;
/// for _ in 0..300 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// opt.eval(&mut w)?; // w is the average now
/// assert!(w[0].abs() < 0.1);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As schedulefree 1.4.1: the bound of ρ is 4, as in RAdam's paper, where [`RAdam`](crate::first_order::RAdam) has 5. With
/// `eps = 0`, an element that has seen no gradient stands still. While nothing has moved, a negative `weight_lr_power` gives
/// a step no weight, where the package divides by zero.
///
/// # Source
/// A. Defazio and others, "The Road Less Scheduled", NeurIPS 2024; L. Liu and others, "On the Variance of the Adaptive
/// Learning Rate and Beyond", ICLR 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ScheduleFreeRAdam {
    /// Learning rate `>= 0`.
    pub lr: f64,
    /// Interpolation between `z` and `x`, in `(0, 1)`, and decay rate of the second moment, in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, taken at `y`.
    pub weight_decay: f64,
    /// Power of the step number in the weight of the average.
    pub r: f64,
    /// Power of the learning rate in the weight of the average.
    pub weight_lr_power: f64,
    /// Stand still while the second moment is not to be trusted; else make steps of SGD.
    pub silent_sgd_phase: bool,
}
crate::config_file::named_fields!(ScheduleFreeRAdam);

impl Default for ScheduleFreeRAdam {
    fn default() -> Self {
        Self {
            lr: 2.5e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            r: 0.0,
            weight_lr_power: 2.0,
            silent_sgd_phase: true,
        }
    }
}

crate::hyperparameters!(ScheduleFreeRAdam, "ScheduleFreeRAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "r": Finite = r;
    "weight_lr_power": Finite = weight_lr_power;
    "silent_sgd_phase": Flag = silent_sgd_phase;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleFreeRAdamCoefficients<R> {
    beta2: R,
    one_minus_beta2: R,
    correction2: R,
    eps: R,
    weight_decay: R,
    /// Whether the gradient is divided by the root of the second moment.
    adaptive: bool,
    step: ScheduleFreeStep<R>,
}

impl ScheduleFreeRAdam {
    /// RAdam's factor on the learning rate at step `t`; `None` while the second moment is not to be trusted.
    fn rectification(&self, t: u64) -> Option<f64> {
        let (length, factor) = rectification(self.betas.1, t);
        (length > 4.0).then_some(factor)
    }
}

impl Rule for ScheduleFreeRAdam {
    type Coefficients<R: Real> = ScheduleFreeRAdamCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ScheduleFreeGroupState;
    const SLOTS: &'static [Slot] = &[Slot::unsigned("exp_avg_sq"), Slot::iterate("z")];
    const HAS_EVAL_MODE: bool = true;

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &ScheduleFreeGroupState,
    ) -> ScheduleFreeRAdamCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = 1.0 - beta2.powf(scalars.k as f64);
        ScheduleFreeRAdamCoefficients {
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction2: R::of(1.0 / bias.sqrt()),
            eps: R::of(self.eps),
            weight_decay: R::of(self.weight_decay),
            adaptive: self.rectification(scalars.k).is_some(),
            step: scalars.step(beta1),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &ScheduleFreeRAdamCoefficients<R>,
        y: R,
        g: R,
        [v, z]: [R; 2],
    ) -> (R, [R; 2]) {
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        let root = if c.adaptive { v.sqrt() * c.correction2 + c.eps } else { R::one() };
        (ratio(g, root) + c.weight_decay * y, [v, z])
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &ScheduleFreeRAdamCoefficients<R>,
        a: &Apply<R>,
        y: R,
        g: R,
        s: [R; 2],
    ) -> (R, [R; 2]) {
        let (u, [v, z]) = Self::direction(c, y, g, s);
        let (y, z) = c.step.along(a.lr, u, y, z);
        (y, [v, z])
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn step_size(&self, _: u64, scalars: &ScheduleFreeGroupState) -> f64 {
        scalars.scheduled_lr
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot == 1 { SlotInit::Parameter } else { SlotInit::Value(0.0) }
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut ScheduleFreeGroupState) {
        let plain = if self.silent_sgd_phase { 0.0 } else { 1.0 };
        let factor = self.rectification(scalars.k + 1).unwrap_or(plain);
        scalars.advance(self.lr * factor, self.r, self.weight_lr_power);
    }

    #[inline(always)]
    fn switch<R: Real>(c: &ScheduleFreeRAdamCoefficients<R>, to: Mode, p: R, [_, z]: [R; 2]) -> R {
        c.step.points.moved(to, p, z)
    }
}
