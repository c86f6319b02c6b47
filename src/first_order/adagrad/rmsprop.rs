use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// RMSprop: steps divided by a running root mean square of the gradient.
///
/// *Use it when* you train recurrent networks or reinforcement learning agents that were tuned for it. *Not
/// when* you start a new project: [`AdamW`](crate::first_order::AdamW) adds momentum and bias correction.
///
/// ```text
/// g ← g + λp
/// s ← α·s + (1 − α)·g²
/// ḡ ← ḡ + (1 − α)·(g − ḡ)                      centered
/// d = √max(s − ḡ², 0) + ε  if centered, else √s + ε
/// b ← μ·b + g/d
/// p ← p − γ·b              with momentum, else p − γ·g/d
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | PyTorch |
/// | `alpha` α | 0.99 | PyTorch |
/// | `eps` ε | 1e-8 | PyTorch |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `momentum` μ | 0 | PyTorch |
/// | `centered` | false | PyTorch |
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
/// let mut opt = RmsProp { lr: 0.1, alpha: 0.75, ..RmsProp::default() }.build()?;
/// opt.step(&mut w, &array![3.0])?; // s = 0.25·9, so 1 − 0.1·3/1.5
/// assert!((w[0] - 0.8).abs() < 1e-7);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.RMSprop`, except that the centered variance is never below 0: where rounding
/// makes it negative, PyTorch returns NaN. TensorFlow adds `ε` inside the root.
///
/// # Source
/// T. Tieleman, G. Hinton, "Lecture 6.5: RMSprop", Coursera 2012; centered: A. Graves, "Generating
/// Sequences With Recurrent Neural Networks", 2013.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct RmsProp {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rate `α` of the mean square, in `[0, 1)`.
    pub alpha: f64,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Momentum `μ >= 0` of the scaled gradient.
    pub momentum: f64,
    /// Divide by the standard deviation instead of the root mean square.
    pub centered: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(RmsProp);

impl Default for RmsProp {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            alpha: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(RmsProp, "RmsProp", {
    "lr": NonNegative = lr;
    "alpha": UnitHalfOpen = alpha;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "momentum": NonNegative = momentum;
    "centered": Flag = centered;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct RmsPropCoefficients<R> {
    alpha: R,
    one_minus_alpha: R,
    eps: R,
    momentum: R,
    /// 1 if centered, else 0: what the square of the mean counts.
    centered: R,
}

impl Rule for RmsProp {
    type Coefficients<R: Real> = RmsPropCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::unsigned("square_avg"),
        Slot::signed("momentum_buffer").optional(),
        Slot::signed("grad_avg").optional(),
    ];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> RmsPropCoefficients<R> {
        RmsPropCoefficients {
            alpha: R::of(self.alpha),
            one_minus_alpha: R::of(1.0 - self.alpha),
            eps: R::of(self.eps),
            momentum: R::of(self.momentum),
            centered: R::of(if self.centered { 1.0 } else { 0.0 }),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &RmsPropCoefficients<R>,
        _p: R,
        g: R,
        [square, buffer, mean]: [R; 3],
    ) -> (R, [R; 3]) {
        let square = c.alpha * square + c.one_minus_alpha * g * g;
        let mean = lerp(mean, g, c.one_minus_alpha);
        let variance = square - c.centered * mean * mean;
        // constant gradients can leave a tiny negative number; a NaN stays a NaN
        let variance = if variance < R::zero() { R::zero() } else { variance };
        let buffer = c.momentum * buffer + ratio(g, variance.sqrt() + c.eps);
        (buffer, [square, buffer, mean])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
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
}
