use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// PID: gradient descent as a controller, from the gradient (P), its sum (I) and its change (D).
///
/// *Use it when* SGD with momentum overshoots: the third term is a brake where the gradient falls. *Not when* gradients
/// are noisy: their changes are mostly noise, and `derivative` amplifies it.
///
/// ```text
/// g ← g + λp                              or, decoupled, p ← p·(1 − γλ)
/// i ← μ·i + (1 − τ)·g
/// d ← μ·d + (1 − μ)·(g − g′)              g′: the gradient of the step before; d = 0 at first
/// p ← p − γ·(g + K_i·i + K_d·d)           p ← p − γ·g without momentum
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer |
/// | `momentum` μ | 0.9 | paper |
/// | `dampening` τ | 0 | authors' code |
/// | `integral` K_i | 5 | authors' code |
/// | `derivative` K_d | 10 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// With the defaults a constant gradient moves a parameter by `51·γ` times itself per step: choose `lr` accordingly.
///
/// State: `i_buffer` (i), `d_buffer` (d) and `grad_buffer` (g′), 12 bytes per `f32` parameter; 4 with `derivative = 0`, 0 with
/// `momentum = 0`.
///
/// # Errors
/// `build` refuses `lr`, `dampening`, `integral`, `derivative` or `weight_decay` below 0 and `momentum` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let mut opt = Pid { lr: 1.0, momentum: 0.5, ..Pid::default() }.build()?;
/// opt.step(&mut w, &array![1.0])?; // 1 + 5·1
/// opt.step(&mut w, &array![0.0])?; // 5·0.5 − 10·0.5
/// assert_eq!(w[0], -6.0 + 2.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.PID`, whose default `momentum = 0` is gradient descent.
///
/// # Source
/// W. An and others, "A PID Controller Approach for Stochastic Optimization of Deep Networks", CVPR 2018.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Pid {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rate `μ` of the sum and of the change, in `[0, 1)`; 0 for gradient descent.
    pub momentum: f64,
    /// Dampening `τ >= 0` of the gradient in the sum.
    pub dampening: f64,
    /// Weight `K_i >= 0` of the sum.
    pub integral: f64,
    /// Weight `K_d >= 0` of the change.
    pub derivative: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Pid);

impl Default for Pid {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.9,
            dampening: 0.0,
            integral: 5.0,
            derivative: 10.0,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Pid, "Pid", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "dampening": NonNegative = dampening;
    "integral": NonNegative = integral;
    "derivative": NonNegative = derivative;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct PidCoefficients<R> {
    momentum: R,
    gain: R,
    one_minus_momentum: R,
    /// Weights of sum and change; 0 without momentum.
    integral: R,
    derivative: R,
    /// Whether there is no gradient to look back at.
    starts: bool,
}

impl Rule for Pid {
    type Coefficients<R: Real> = PidCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("i_buffer").optional(),
        Slot::signed("d_buffer").optional(),
        Slot::signed("grad_buffer").optional(),
    ];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> PidCoefficients<R> {
        let on = f64::from(u8::from(self.momentum > 0.0));
        PidCoefficients {
            momentum: R::of(self.momentum),
            gain: R::of(1.0 - self.dampening),
            one_minus_momentum: R::of(1.0 - self.momentum),
            integral: R::of(on * self.integral),
            derivative: R::of(on * self.derivative),
            starts: t == 1,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &PidCoefficients<R>,
        _p: R,
        g: R,
        [sum, change, before]: [R; 3],
    ) -> (R, [R; 3]) {
        let sum = c.momentum * sum + c.gain * g;
        let new = if c.starts { R::zero() } else { g - before };
        let change = c.momentum * change + c.one_minus_momentum * new;
        (g + c.integral * sum + c.derivative * change, [sum, change, g])
    }

    fn uses_slot(&self, slot: usize) -> bool {
        self.momentum > 0.0 && (slot == 0 || self.derivative > 0.0)
    }
}
