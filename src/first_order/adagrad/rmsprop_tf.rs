use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Apply, Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// RMSprop as TensorFlow has it: mean squares that start at 1, `ε` inside the root, the learning rate inside the
/// momentum.
///
/// *Use it when* you reproduce results made with it: MobileNets, EfficientNets, Inception. *Not when* you start a new
/// project: [`AdamW`](crate::first_order::AdamW) adds bias correction.
///
/// ```text
/// g ← g + λp                                   or, decoupled, p ← p·(1 − γλ)
/// s ← α·s + (1 − α)·g²                         s = 1 at first
/// ḡ ← ḡ + (1 − α)·(g − ḡ)                      centered
/// d = √(max(s − ḡ², 0) + ε)  if centered, else √(s + ε)
/// b ← μ·b + γ·g/d,  p ← p − b                  with momentum and lr_in_momentum
/// b ← μ·b + g/d,    p ← p − γ·b                with momentum, without lr_in_momentum
/// p ← p − γ·g/d                                without momentum
/// ```
/// 0 for g/d where d = 0.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | timm |
/// | `alpha` α | 0.9 | TensorFlow |
/// | `eps` ε | 1e-10 | TensorFlow |
/// | `weight_decay` λ | 0 | timm |
/// | `momentum` μ | 0 | TensorFlow |
/// | `centered` | false | TensorFlow |
/// | `decoupled_weight_decay` | false | timm |
/// | `lr_in_momentum` | true | TensorFlow |
/// | `maximize` | false | PyTorch |
///
/// State: `square_avg` (s), with momentum `momentum_buffer` (b), centered `grad_avg` (ḡ): 4 to 12
/// bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses negative options and `alpha` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = RmsPropTf { lr: 0.1, alpha: 0.5, eps: 0.0, ..RmsPropTf::default() }.build()?;
/// opt.step(&mut w, &array![7f64.sqrt()])?; // s = 0.5·1 + 0.5·7, so 1 − 0.1·√7/2
/// assert!((w[0] - (1.0 - 0.05 * 7f64.sqrt())).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `timm.optim.RMSpropTF`, except that the centered variance is never below 0. [`RmsProp`](crate::first_order::RmsProp)
/// is PyTorch's: its first steps are longer, because its mean squares start at 0, and those of elements with small
/// gradients much longer, because its `ε` is outside of the root. With `lr_in_momentum` a new learning rate acts only on
/// new gradients, and a rate of 0 does not stop the momentum.
///
/// # Source
/// T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera 2012; TensorFlow, `tf.compat.v1.train.RMSPropOptimizer`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct RmsPropTf {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rate `α` of the mean square, in `[0, 1)`.
    pub alpha: f64,
    /// Stabiliser `ε >= 0` inside the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Momentum `μ >= 0` of the scaled gradient.
    pub momentum: f64,
    /// Divide by the standard deviation instead of the root mean square.
    pub centered: bool,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Multiply by the learning rate before the momentum, not after it.
    pub lr_in_momentum: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(RmsPropTf);

impl Default for RmsPropTf {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            alpha: 0.9,
            eps: 1e-10,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
            decoupled_weight_decay: false,
            lr_in_momentum: true,
            maximize: false,
        }
    }
}

crate::hyperparameters!(RmsPropTf, "RmsPropTf", {
    "lr": NonNegative = lr;
    "alpha": UnitHalfOpen = alpha;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "momentum": NonNegative = momentum;
    "centered": Flag = centered;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "lr_in_momentum": Flag = lr_in_momentum;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct RmsPropTfCoefficients<R> {
    alpha: R,
    one_minus_alpha: R,
    eps: R,
    momentum: R,
    /// 1 if centered, else 0: what the square of the mean counts.
    centered: R,
    /// Whether the buffer holds steps, and not directions.
    lr_in_momentum: bool,
}

impl RmsPropTf {
    /// Whether the buffer holds steps.
    fn keeps_steps(&self) -> bool {
        self.lr_in_momentum && self.momentum != 0.0
    }

    /// The gradient over its root mean square, with the averages updated.
    #[inline(always)]
    fn normalised<R: Real>(
        c: &RmsPropTfCoefficients<R>,
        g: R,
        [square, buffer, mean]: [R; 3],
    ) -> (R, [R; 3]) {
        let square = c.alpha * square + c.one_minus_alpha * g * g;
        let mean = lerp(mean, g, c.one_minus_alpha);
        let variance = square - c.centered * mean * mean;
        // constant gradients can leave a tiny negative number; a NaN stays a NaN
        let variance = if variance < R::zero() { R::zero() } else { variance };
        (ratio(g, (variance + c.eps).sqrt()), [square, buffer, mean])
    }
}

impl Rule for RmsPropTf {
    type Coefficients<R: Real> = RmsPropTfCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::unsigned("square_avg"),
        Slot::signed("momentum_buffer").optional(),
        Slot::signed("grad_avg").optional(),
    ];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> RmsPropTfCoefficients<R> {
        RmsPropTfCoefficients {
            alpha: R::of(self.alpha),
            one_minus_alpha: R::of(1.0 - self.alpha),
            eps: R::of(self.eps),
            momentum: R::of(self.momentum),
            centered: R::of(if self.centered { 1.0 } else { 0.0 }),
            lr_in_momentum: self.keeps_steps(),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &RmsPropTfCoefficients<R>, _p: R, g: R, s: [R; 3]) -> (R, [R; 3]) {
        let (u, [square, buffer, mean]) = Self::normalised(c, g, s);
        let buffer = c.momentum * buffer + u;
        (buffer, [square, buffer, mean])
    }

    fn has_own_update(&self) -> bool {
        self.keeps_steps()
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &RmsPropTfCoefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: [R; 3],
    ) -> (R, [R; 3]) {
        if c.lr_in_momentum {
            let (u, [square, buffer, mean]) = Self::normalised(c, g, s);
            let buffer = c.momentum * buffer + a.lr * u;
            return (p * a.shrink - buffer, [square, buffer, mean]);
        }
        let (u, s) = Self::direction(c, p, g, s);
        (p * a.shrink - a.lr * u, s)
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, slot: usize) -> bool {
        match slot {
            1 => self.momentum != 0.0,
            2 => self.centered,
            _ => true,
        }
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        SlotInit::Value(if slot == 0 { 1.0 } else { 0.0 })
    }
}
