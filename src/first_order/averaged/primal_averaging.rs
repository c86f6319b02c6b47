use crate::first_order::averaged::points::{Points, share};
use crate::numeric::Real;
use crate::optim::{Apply, DecaySchedule, Mode, Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// Descent with averaging instead of momentum and schedule: generalised primal averaging, and
/// Schedule-Free SGD.
///
/// *Use it when* a direction needs no moments: on plain gradients, or as the inner rule of
/// [`Shampoo`](crate::second_order::Shampoo). *Not when* gradients of different layers differ in
/// size: use [`ScheduleFreeAdamW`](crate::first_order::ScheduleFreeAdamW).
///
/// Gradients are taken at `y`, where the parameters stand while training; the model to use is the
/// average `x`. Call [`eval`](crate::optim::Optimizer::eval) before evaluating or saving the model,
/// and [`train`](crate::optim::Optimizer::train) before going on.
///
/// ```text
/// z ← z·(1 − γα)                                       α: see DecaySchedule
/// y ← y + (1 − μx)·(z − y) − (1 − μx·μy)·γ·g
/// z ← z − γ·g
/// eval:  x = y + (1 − 1/μy)·(z − y)        train: y = x + (1 − μy)·(z − x)
/// ```
/// μx is constant (GPA), or `1 − γʳ/Σγʳ` over all steps so far (Schedule-Free).
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch's SGD |
/// | `averaging` | `Constant(0.9)` μx | GPA |
/// | `train_interp` μy | 0.8 | GPA, Distributed Shampoo |
/// | `weight_decay` λ | 0 | – |
/// | `decay` | `WithLr` | Distributed Shampoo |
/// | `maximize` | false | PyTorch |
///
/// State: `z`, 4 bytes per `f32` parameter; an iterate, in full precision when other slots are coded.
/// Of the group: `weight_sum`.
///
/// # Errors
/// `build` refuses options out of range.
///
/// # Examples
/// ```
/// use eigenstep::{first_order::PrimalAveraging, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = PrimalAveraging { lr: 0.1, ..PrimalAveraging::default() }.build()?;
/// for _ in 0..200 {
///     let grad = w.clone(); // of w²/2
///     opt.step(&mut w, &grad)?;
/// }
/// opt.eval(&mut w)?; // w is the average now
/// assert!(w[0].abs() < 1e-3);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As in Distributed Shampoo, whose coefficients are rounded to 32 bits.
///
/// # Source
/// A. Defazio and others, "The Road Less Scheduled", NeurIPS 2024; A. Defazio, K. Mishchenko and
/// others, "Smoothing DiLoCo with Primal Averaging for Faster Training of LLMs", 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct PrimalAveraging {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Weight of the old average.
    pub averaging: Averaging,
    /// `μy` in `(0, 1)`: how close to the average `x` gradients are evaluated.
    pub train_interp: f64,
    /// Weight decay `λ >= 0`, of `z`.
    pub weight_decay: f64,
    /// How decay depends on the learning rate.
    pub decay: DecaySchedule,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(PrimalAveraging);

/// The weight `μx` of the old average.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Averaging {
    /// This, in `[0, 1)`: an exponential average.
    Constant(f64),
    /// `1 − γʳ/Σγʳ`: all steps weigh the same while the learning rate does not move.
    ScheduleFree {
        /// `r >= 0`.
        lr_power: f64,
    },
}

impl Default for PrimalAveraging {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            averaging: Averaging::Constant(0.9),
            train_interp: 0.8,
            weight_decay: 0.0,
            decay: DecaySchedule::default(),
            maximize: false,
        }
    }
}

crate::hyperparameters!(PrimalAveraging, "PrimalAveraging", {
    "lr": NonNegative = lr;
    "train_interp": UnitOpen = train_interp;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
}, |config| {
    let invalid = PrimalAveraging::invalid;
    match config.averaging {
        Averaging::Constant(x) if !(0.0..1.0).contains(&x) => {
            return Err(invalid("averaging", "in [0, 1)", x.to_string()));
        }
        Averaging::ScheduleFree { lr_power: r } if !(r >= 0.0 && r.is_finite()) => {
            return Err(invalid("averaging.lr_power", "finite and >= 0", r.to_string()));
        }
        _ => {}
    }
    match config.decay.wrong() {
        Some(lr) => Err(invalid("decay.peak_lr", "finite and > 0", lr.to_string())),
        None => Ok(()),
    }
});

/// State of the average that a group has in common.
#[derive(Clone, Debug, Default)]
pub struct PrimalAveragingGroupState {
    /// Sum of the weights so far.
    pub weight_sum: f64,
    /// Share of `z` in the average of this step.
    c: f64,
}
crate::group_state!(PrimalAveragingGroupState { weight_sum });

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct PrimalAveragingCoefficients<R> {
    /// `1 − γα`.
    shrink: R,
    /// `1 − μx`.
    c: R,
    /// `γ·(1 − μx·μy)`.
    step: R,
    points: Points<R>,
}

impl Rule for PrimalAveraging {
    type Coefficients<R: Real> = PrimalAveragingCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = PrimalAveragingGroupState;
    const SLOTS: &'static [Slot] = &[Slot::iterate("z")];
    const HAS_EVAL_MODE: bool = true;

    fn coefficients<R: Real>(
        &self,
        _: u64,
        scalars: &PrimalAveragingGroupState,
    ) -> PrimalAveragingCoefficients<R> {
        let alpha = self.decay.factor(self.weight_decay, self.lr);
        PrimalAveragingCoefficients {
            shrink: R::of(1.0 - self.lr * alpha),
            c: R::of(scalars.c),
            step: R::of(self.lr * (1.0 - (1.0 - scalars.c) * self.train_interp)),
            points: Points::new(self.train_interp),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        _: &PrimalAveragingCoefficients<R>,
        _y: R,
        g: R,
        z: [R; 1],
    ) -> (R, [R; 1]) {
        (g, z)
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &PrimalAveragingCoefficients<R>,
        a: &Apply<R>,
        y: R,
        g: R,
        [z]: [R; 1],
    ) -> (R, [R; 1]) {
        let z = z * c.shrink;
        (y + c.c * (z - y) - c.step * g, [z - a.lr * g])
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn step_size(&self, _: u64, _: &PrimalAveragingGroupState) -> f64 {
        self.lr
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Parameter
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut PrimalAveragingGroupState) {
        scalars.c = match self.averaging {
            Averaging::Constant(old) => 1.0 - old,
            Averaging::ScheduleFree { lr_power } => {
                share(self.lr.powf(lr_power), &mut scalars.weight_sum)
            }
        };
    }

    #[inline(always)]
    fn switch<R: Real>(c: &PrimalAveragingCoefficients<R>, to: Mode, p: R, [z]: [R; 1]) -> R {
        c.points.moved(to, p, z)
    }
}
