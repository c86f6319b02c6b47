use crate::first_order::averaged::points::ScheduleFreeStep;
use crate::first_order::averaged::schedule_free::ScheduleFreeGroupState;
use crate::numeric::Real;
use crate::optim::{Apply, Mode, Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// Schedule-Free SGD: averaging instead of momentum and a learning-rate schedule.
///
/// *Use it when* you would train with SGD and momentum, and do not know in advance how long: the average is at any time as
/// good as at the end of a schedule. *Not when* gradients of different layers differ in size: use
/// [`ScheduleFreeAdamW`](crate::first_order::ScheduleFreeAdamW).
///
/// Gradients are taken at `y`, where the parameters stand while training; the model to use is the average `x`. Call
/// [`eval`](crate::optim::Optimizer::eval) before evaluating or saving the model, and
/// [`train`](crate::optim::Optimizer::train) before going on; a `step` in between is an error.
///
/// ```text
/// γ = lr · min(1, (k + 1)/warmup_steps)
/// w = (k + 1)^r · (largest γ so far)^weight_lr_power;   c = w / Σw
/// g ← g + λ·y
/// y ← y + c·(z − y) + γ·(μ·(1 − c) − 1)·g
/// z ← z − γ·g
/// eval:  x = y + (1 − 1/μ)·(z − y)        train: y = x + (1 − μ)·(z − x)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` | 1 | schedulefree |
/// | `momentum` μ | 0.9 | paper |
/// | `weight_decay` λ | 0 | schedulefree; decay at y |
/// | `warmup_steps` | 0 | schedulefree |
/// | `r` | 0 | schedulefree |
/// | `weight_lr_power` | 2 | schedulefree |
///
/// State: `z`, 4 bytes per `f32` parameter; it is an iterate and stays in full precision when other slots are coded. Of the
/// group: `k`, `weight_sum`, `lr_max`.
///
/// # Errors
/// `build` refuses options out of range, and `momentum = 0`, from which `x` could not be recovered.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = ScheduleFreeSgd::default().build()?;
/// for _ in 0..100 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// opt.eval(&mut w)?; // w is the average now
/// assert!(w[0].abs() < 0.05);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As schedulefree 1.4.1. [`PrimalAveraging`](crate::first_order::PrimalAveraging) has the same averages with other weights,
/// and its decay acts on z.
///
/// # Source
/// A. Defazio and others, "The Road Less Scheduled", NeurIPS 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ScheduleFreeSgd {
    /// Learning rate `>= 0`; far larger than that of SGD with momentum, often 1 to 10.
    pub lr: f64,
    /// Interpolation `μ` between `z` and `x`, in `(0, 1)`: where gradients are taken.
    pub momentum: f64,
    /// Weight decay `λ >= 0`, taken at `y`.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly.
    pub warmup_steps: u64,
    /// Power of the step number in the weight of the average.
    pub r: f64,
    /// Power of the learning rate in the weight of the average.
    pub weight_lr_power: f64,
}
crate::config_file::named_fields!(ScheduleFreeSgd);

impl Default for ScheduleFreeSgd {
    fn default() -> Self {
        Self {
            lr: 1.0,
            momentum: 0.9,
            weight_decay: 0.0,
            warmup_steps: 0,
            r: 0.0,
            weight_lr_power: 2.0,
        }
    }
}

crate::hyperparameters!(ScheduleFreeSgd, "ScheduleFreeSgd", {
    "lr": NonNegative = lr;
    "momentum": UnitOpen = momentum;
    "weight_decay": NonNegative = weight_decay;
    "warmup_steps": CountFrom(0) = warmup_steps;
    "r": Finite = r;
    "weight_lr_power": Finite = weight_lr_power;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleFreeSgdCoefficients<R> {
    weight_decay: R,
    step: ScheduleFreeStep<R>,
}

impl Rule for ScheduleFreeSgd {
    type Coefficients<R: Real> = ScheduleFreeSgdCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ScheduleFreeGroupState;
    const SLOTS: &'static [Slot] = &[Slot::iterate("z")];
    const GRADIENT_POWER: u32 = 1;
    const HAS_EVAL_MODE: bool = true;

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &ScheduleFreeGroupState,
    ) -> ScheduleFreeSgdCoefficients<R> {
        ScheduleFreeSgdCoefficients {
            weight_decay: R::of(self.weight_decay),
            step: scalars.step(self.momentum),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &ScheduleFreeSgdCoefficients<R>,
        y: R,
        g: R,
        z: [R; 1],
    ) -> (R, [R; 1]) {
        (g + c.weight_decay * y, z)
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &ScheduleFreeSgdCoefficients<R>,
        a: &Apply<R>,
        y: R,
        g: R,
        s: [R; 1],
    ) -> (R, [R; 1]) {
        let (u, [z]) = Self::direction(c, y, g, s);
        let (y, z) = c.step.along(a.lr, u, y, z);
        (y, [z])
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn step_size(&self, _: u64, scalars: &ScheduleFreeGroupState) -> f64 {
        scalars.scheduled_lr
    }

    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Parameter
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut ScheduleFreeGroupState) {
        let lr = self.lr * scalars.warmed_up(self.warmup_steps);
        scalars.advance(lr, self.r, self.weight_lr_power);
    }

    #[inline(always)]
    fn switch<R: Real>(c: &ScheduleFreeSgdCoefficients<R>, to: Mode, p: R, [z]: [R; 1]) -> R {
        c.step.points.moved(to, p, z)
    }
}
