use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// Whether weight decay scales with the learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Shrinkage {
    /// `p ← p·(1 − γλ)`.
    #[default]
    WithLr,
    /// `p ← p·(1 − λ)`, for any learning rate.
    Raw,
}

/// SGD with momentum for a preconditioned direction. Weight decay does not pass through the momentum.
///
/// ```text
/// v ← μ·v + (1 − τ)·u
/// p ← p·(1 − γλ) − γ·v           without momentum: u instead of v
/// ```
/// *Use it when* a preconditioner such as [`MFac`](super::MFac) computes the direction: it is the
/// default inner optimizer there. *Not when* gradients are not preconditioned: take
/// [`Sgd`](crate::first_order::Sgd).
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | M-FAC's code |
/// | `momentum` μ | 0 | M-FAC's code |
/// | `dampening` τ | 0: heavy ball; τ = μ is the moving average of M-FAC's code | EFCP |
/// | `weight_decay` λ | 0 | – |
/// | `shrinkage` | `WithLr` | ISTA-DASLab-Optimizers; `Raw` is EFCP's |
/// | `maximize` | false | – |
///
/// State: `momentum` (v) with momentum, 4 bytes per `f32` parameter; else none.
///
/// # Errors
/// `build` refuses options out of range.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::Momentum;
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = Momentum { lr: 0.5, momentum: 0.5, ..Momentum::default() }.build()?;
/// opt.step(&mut w, &array![1.0])?;
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w[0], 1.0 - 0.5 - 0.5 * 1.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// In [`Descent`](crate::second_order::Descent) the decay passes through the momentum.
///
/// # Source
/// B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; decay: I.
/// Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Momentum {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Momentum `μ` in `[0, 1)`.
    pub momentum: f64,
    /// Dampening `τ` in `[0, 1)`: the direction enters the momentum with the weight `1 − τ`.
    pub dampening: f64,
    /// Weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Whether weight decay scales with the learning rate.
    pub shrinkage: Shrinkage,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Momentum);

impl Default for Momentum {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            shrinkage: Shrinkage::WithLr,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Momentum, "Momentum", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "dampening": UnitHalfOpen = dampening;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct MomentumCoefficients<R> {
    momentum: R,
    /// `1 − τ`.
    gain: R,
    /// 1 with momentum, else 0.
    with_momentum: bool,
}

impl Rule for Momentum {
    type Coefficients<R: Real> = MomentumCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("momentum_buffer").optional()];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> MomentumCoefficients<R> {
        MomentumCoefficients {
            momentum: R::of(self.momentum),
            gain: R::of(1.0 - self.dampening),
            with_momentum: self.momentum != 0.0,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &MomentumCoefficients<R>, _: R, u: R, [v]: [R; 1]) -> (R, [R; 1]) {
        let v = c.momentum * v + c.gain * u;
        (if c.with_momentum { v } else { u }, [v])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        match self.shrinkage {
            Shrinkage::WithLr => WeightDecay::Decoupled(self.weight_decay),
            Shrinkage::Raw => WeightDecay::Independent(self.weight_decay),
        }
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, _: usize) -> bool {
        self.momentum != 0.0
    }
}
