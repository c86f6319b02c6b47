use crate::numeric::Real;
use crate::optim::{DecaySchedule, Rule, Slot, WeightDecay};

/// A step along the direction of a matrix method, with weight decay and momentum.
///
/// ```text
/// u ← u + α·p                                   α: see below
/// m ← μ·m + (1 − τ)·u
/// u = (1 − τ)·u + μ·m with nesterov, m with momentum, u without
/// p ← p − γ·u
/// ```
/// | `decay` | α | |
/// |---|---|---|
/// | `WithLr` | λ | decay falls with the learning rate |
/// | `Corrected` | λ·γ/γ₀ | decay falls with its square: the norm of weights stays where it is |
/// | `Independent` | λ/γ₀ | λ is the share that a step at the highest learning rate γ₀ removes |
///
/// *Use it when* the matrix method needs no moments behind it, as in [`Muon`](super::Muon) and
/// [`Shampoo::distributed`](super::Shampoo::distributed). *Not when* decay must act before the direction
/// is computed: on plain gradients [`Sgd`](crate::first_order::Sgd) does that.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch's SGD |
/// | `momentum` μ | 0 | Distributed Shampoo: none, or 0.5 |
/// | `dampening` τ | 0 | Distributed Shampoo |
/// | `nesterov` | false | Distributed Shampoo |
/// | `weight_decay` λ | 0 | – |
/// | `decay` | `WithLr` | Distributed Shampoo |
///
/// State: `momentum` (m) with momentum, 4 bytes per `f32` parameter; else none.
///
/// # Errors
/// `build` refuses options out of range, and a `peak_lr` that is not above 0.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, second_order::Descent};
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = Descent { lr: 0.5, weight_decay: 0.5, ..Descent::default() }.build()?;
/// opt.step(&mut w, &array![1.0])?;
/// assert_eq!(w[0], 1.0 * (1.0 - 0.25) - 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// From [`Sgd`](crate::first_order::Sgd) and PyTorch's: dampening acts from the first step on, and on
/// the direction in Nesterov's form.
///
/// # Source
/// Decay: I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; corrected: A.
/// Defazio, "Why Gradients Rapidly Increase Near the End of Training", 2025. The order of decay and
/// momentum is that of Distributed Shampoo.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Descent {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Momentum `μ` in `[0, 1)`.
    pub momentum: f64,
    /// Dampening `τ` in `[0, 1)` of the direction in the momentum.
    pub dampening: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// Weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// How decay depends on the learning rate.
    pub decay: DecaySchedule,
}
crate::config_file::named_fields!(Descent);

impl Default for Descent {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            decay: DecaySchedule::default(),
        }
    }
}

crate::hyperparameters!(Descent, "Descent", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "dampening": UnitHalfOpen = dampening;
    "nesterov": Flag = nesterov;
    "weight_decay": NonNegative = weight_decay;
}, |config| {
    match config.decay.wrong() {
        Some(lr) => Err(Descent::invalid("decay.peak_lr", "finite and > 0", lr.to_string())),
        None => Ok(()),
    }
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct DescentCoefficients<R> {
    /// `μ`.
    momentum: R,
    /// `1 − τ`.
    gain: R,
    /// `u = take_u·u + take_m·m`.
    take_u: R,
    take_m: R,
}

impl Rule for Descent {
    type Coefficients<R: Real> = DescentCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("momentum").optional()];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> DescentCoefficients<R> {
        let gain = 1.0 - self.dampening;
        let (take_u, take_m) = match (self.momentum == 0.0, self.nesterov) {
            (true, _) => (1.0, 0.0),
            (false, true) => (gain, self.momentum),
            (false, false) => (0.0, 1.0),
        };
        DescentCoefficients {
            momentum: R::of(self.momentum),
            gain: R::of(gain),
            take_u: R::of(take_u),
            take_m: R::of(take_m),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &DescentCoefficients<R>, _p: R, u: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = c.momentum * m + c.gain * u;
        (c.take_u * u + c.take_m * m, [m])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    /// With momentum, decay is part of the direction; without, it is a factor, which rounds once.
    fn decay(&self) -> WeightDecay {
        let factor = self.decay.factor(self.weight_decay, self.lr);
        if self.momentum == 0.0 {
            WeightDecay::Decoupled(factor)
        } else {
            WeightDecay::Coupled(factor)
        }
    }

    fn uses_slot(&self, _: usize) -> bool {
        self.momentum != 0.0
    }
}
