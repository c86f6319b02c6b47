use crate::first_order::arithmetic::ratio;
use crate::first_order::averaged::points::{ScheduleFreeStep, share};
use crate::numeric::Real;
use crate::optim::{Apply, Mode, Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// Schedule-Free AdamW: averaging instead of a learning-rate schedule.
///
/// *Use it when* you do not know in advance how long you will train: the average is at any time as good as
/// at the end of a schedule. *Not when* the model has batch normalisation, unless you recompute its
/// statistics at the evaluation point.
///
/// Gradients are taken at `y`, where the parameters stand while training; the model to use is the
/// average `x`. Call [`eval`](crate::optim::Optimizer::eval) before evaluating or saving the model, and
/// [`train`](crate::optim::Optimizer::train) before going on; a `step` in between is an error.
///
/// ```text
/// γ = lr · min(1, (k + 1)/warmup_steps)
/// w = (k + 1)^r · (largest γ so far)^weight_lr_power;   c = w / Σw
/// v ← β₂·v + (1 − β₂)·g²
/// u = g/(√(v/(1 − β₂ᵏ⁺¹)) + ε) + λ·y
/// y ← y + c·(z − y)
/// y ← y + γ·(β₁·(1 − c) − 1)·u
/// z ← z − γ·u
/// eval:  x = y + (1 − 1/β₁)·(z − y)        train: y = x + (1 − β₁)·(z − x)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` | 2.5e-3 | schedulefree |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | schedulefree |
/// | `weight_decay` λ | 0 | schedulefree; decay at y |
/// | `warmup_steps` | 0 | schedulefree |
/// | `r` | 0 | schedulefree |
/// | `weight_lr_power` | 2 | schedulefree |
///
/// State: `exp_avg_sq` (v) and `z`, 8 bytes per `f32` parameter; `z` is an iterate and stays in full
/// precision when other slots are coded. Of the group: `k`, `weight_sum`, `lr_max`.
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
/// let mut opt = ScheduleFreeAdamW { lr: 0.05, ..ScheduleFreeAdamW::default() }.build()?;
/// for _ in 0..300 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// opt.eval(&mut w)?; // w is the average now
/// assert!(w[0].abs() < 0.1);
/// assert!(opt.step(&mut w, &array![0.0]).is_err());
/// opt.train(&mut w)?;
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As schedulefree 1.4.1. While the learning rate has been 0, a negative `weight_lr_power` gives a step no weight, where the
/// package divides by zero.
///
/// # Source
/// A. Defazio and others, "The Road Less Scheduled", NeurIPS 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ScheduleFreeAdamW {
    /// Learning rate `>= 0`.
    pub lr: f64,
    /// Interpolation between `z` and `x`, in `(0, 1)`, and decay rate of the second moment, in
    /// `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, taken at `y`.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly.
    pub warmup_steps: u64,
    /// Power of the step number in the weight of the average.
    pub r: f64,
    /// Power of the learning rate in the weight of the average.
    pub weight_lr_power: f64,
}
crate::config_file::named_fields!(ScheduleFreeAdamW);

impl Default for ScheduleFreeAdamW {
    fn default() -> Self {
        Self {
            lr: 2.5e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            warmup_steps: 0,
            r: 0.0,
            weight_lr_power: 2.0,
        }
    }
}

crate::hyperparameters!(ScheduleFreeAdamW, "ScheduleFreeAdamW", {
    "lr": NonNegative = lr;
    "betas.0": UnitOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "warmup_steps": CountFrom(0) = warmup_steps;
    "r": Finite = r;
    "weight_lr_power": Finite = weight_lr_power;
});

/// State of the average that a group has in common.
#[derive(Clone, Debug, Default)]
pub struct ScheduleFreeGroupState {
    /// Number of steps.
    pub k: u64,
    /// Sum of the weights so far.
    pub weight_sum: f64,
    /// Largest learning rate so far.
    pub lr_max: f64,
    /// Learning rate of the last step, after warm-up.
    pub scheduled_lr: f64,
    /// Share of `z` in the average of this step.
    c: f64,
}
crate::group_state!(ScheduleFreeGroupState { k, weight_sum, lr_max, scheduled_lr });

impl ScheduleFreeGroupState {
    /// Factor on the learning rate of the next step, for a linear warm-up.
    pub(super) fn warmed_up(&self, warmup_steps: u64) -> f64 {
        let (steps, warmup) = ((self.k + 1) as f64, warmup_steps as f64);
        if steps <= warmup { steps / warmup } else { 1.0 }
    }

    /// Begins a step with the learning rate `lr`: what share of the average it has.
    pub(super) fn advance(&mut self, lr: f64, r: f64, weight_lr_power: f64) {
        let steps = (self.k + 1) as f64;
        self.scheduled_lr = lr;
        self.lr_max = self.lr_max.max(lr);
        // a point that has not moved has no weight
        let resting = self.lr_max == 0.0 && weight_lr_power < 0.0;
        let grown = |x: f64, power: f64| x.powf(power).min(f64::MAX);
        let weight = grown(steps, r) * grown(self.lr_max, weight_lr_power);
        self.c = share(if resting { 0.0 } else { weight }, &mut self.weight_sum);
        self.k += 1;
    }

    /// The step that was begun.
    pub(super) fn step<R: Real>(&self, beta: f64) -> ScheduleFreeStep<R> {
        ScheduleFreeStep::new(self.scheduled_lr, self.c, beta)
    }
}

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleFreeCoefficients<R> {
    beta2: R,
    one_minus_beta2: R,
    correction2: R,
    eps: R,
    weight_decay: R,
    step: ScheduleFreeStep<R>,
}

impl Rule for ScheduleFreeAdamW {
    type Coefficients<R: Real> = ScheduleFreeCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ScheduleFreeGroupState;
    const SLOTS: &'static [Slot] = &[Slot::unsigned("exp_avg_sq"), Slot::iterate("z")];
    const HAS_EVAL_MODE: bool = true;

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &ScheduleFreeGroupState,
    ) -> ScheduleFreeCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = 1.0 - beta2.powf(scalars.k as f64);
        ScheduleFreeCoefficients {
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction2: R::of(1.0 / bias.sqrt()),
            eps: R::of(self.eps),
            weight_decay: R::of(self.weight_decay),
            step: scalars.step(beta1),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &ScheduleFreeCoefficients<R>,
        y: R,
        g: R,
        [v, z]: [R; 2],
    ) -> (R, [R; 2]) {
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        let u = ratio(g, v.sqrt() * c.correction2 + c.eps) + c.weight_decay * y;
        (u, [v, z])
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &ScheduleFreeCoefficients<R>,
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
        let lr = self.lr * scalars.warmed_up(self.warmup_steps);
        scalars.advance(lr, self.r, self.weight_lr_power);
    }

    #[inline(always)]
    fn switch<R: Real>(c: &ScheduleFreeCoefficients<R>, to: Mode, p: R, [_, z]: [R; 2]) -> R {
        c.step.points.moved(to, p, z)
    }
}
