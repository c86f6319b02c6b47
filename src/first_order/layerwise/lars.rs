use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::finite_of;
use crate::optim::{Rule, Slot, TensorSums, WeightDecay};
use std::ops::Range;

/// LARS: momentum whose steps are as long, tensor by tensor, as the weights allow; with `clip` LARC.
///
/// *Use it when* you train convolutional networks with very large batches. *Not when* batches are small, or for
/// transformers: [`Lamb`](crate::first_order::Lamb) does the same for Adam's direction.
///
/// ```text
/// s = η·‖p‖/(‖g‖ + λ·‖p‖ + ε)              1 if ‖p‖ or the denominator is 0
/// s ← min(s/γ, 1)                          with clip
/// d = s·(g + λp)                           d = g for vectors and scalars, unless adapt_vectors
/// b ← μ·b + (1 − τ)·d
/// u = d + μ·b with nesterov, b with momentum, d without
/// p ← p − γ·u
/// ```
///
/// | field | default | source of the default | `larc()` |
/// |---|---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer | 1e-3 |
/// | `momentum` μ | 0.9 | paper | 0.9 |
/// | `dampening` τ | 0 | pytorch_optimizer | 0 |
/// | `trust_coefficient` η | 1e-3 | paper | 0.02, NVIDIA apex |
/// | `weight_decay` λ | 0 | pytorch_optimizer | 0 |
/// | `nesterov` | false | paper | false |
/// | `eps` ε | 0 | paper | 1e-8, NVIDIA apex |
/// | `clip` | false | paper | true |
/// | `adapt_vectors` | false | pytorch_optimizer | true, NVIDIA apex |
/// | `maximize` | false | PyTorch | false |
///
/// With LARC the step is never longer than that of [`Sgd`](crate::first_order::Sgd) with the same `lr`, so that no
/// warm-up is needed.
///
/// State: `momentum_buffer` (b), 4 bytes per `f32` parameter; nothing without momentum.
///
/// # Errors
/// `build` refuses negative options, and `momentum` outside `[0, 1)` or `dampening` above 1.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![[3.0f64, 4.0]]; // norm 5
/// let mut opt = Lars { lr: 1.0, trust_coefficient: 0.1, ..Lars::default() }.build()?;
/// opt.step(&mut w, &array![[0.0, 1000.0]])?;
/// // a step of the length lr·η·‖w‖, whatever the gradient
/// assert!((w[[0, 1]] - 3.5).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.LARS`, for which vectors and scalars (biases, norms) have neither a trust ratio nor decay, and
/// which has no `eps` and no `clip`. Dampening acts at the first step, too, other than in `Sgd`. `larc()` is NVIDIA
/// apex's `LARC` around `torch.optim.SGD`, except that apex leaves decay out where a gradient is 0.
///
/// # Source
/// Y. You, I. Gitman, B. Ginsburg, "Large Batch Training of Convolutional Networks", 2017; LARC: NVIDIA apex.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Lars {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Momentum `μ`, in `[0, 1)`.
    pub momentum: f64,
    /// Dampening `τ` of the gradient in the momentum, in `[0, 1]`.
    pub dampening: f64,
    /// Trust coefficient `η >= 0`: the step's share of the weight norm, times `lr`.
    pub trust_coefficient: f64,
    /// Weight decay `λ >= 0`, inside the trust ratio.
    pub weight_decay: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// Stabiliser `ε >= 0`, added to the denominator.
    pub eps: f64,
    /// Let no step be longer than without the trust ratio (LARC).
    pub clip: bool,
    /// Give vectors and scalars a trust ratio and decay, too.
    pub adapt_vectors: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Lars);

impl Default for Lars {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.9,
            dampening: 0.0,
            trust_coefficient: 1e-3,
            weight_decay: 0.0,
            nesterov: false,
            eps: 0.0,
            clip: false,
            adapt_vectors: false,
            maximize: false,
        }
    }
}

impl Lars {
    /// LARC as NVIDIA apex has it.
    pub fn larc() -> Self {
        let (clip, adapt_vectors) = (true, true);
        Self { trust_coefficient: 0.02, eps: 1e-8, clip, adapt_vectors, ..Self::default() }
    }
}

crate::hyperparameters!(Lars, "Lars", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "dampening": Unit = dampening;
    "trust_coefficient": NonNegative = trust_coefficient;
    "weight_decay": NonNegative = weight_decay;
    "nesterov": Flag = nesterov;
    "eps": NonNegative = eps;
    "clip": Flag = clip;
    "adapt_vectors": Flag = adapt_vectors;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct LarsCoefficients<R> {
    /// The trust ratio, known after the measuring pass.
    ratio: R,
    decay: R,
    momentum: R,
    /// `1 − τ`.
    gain: R,
    /// `u = take_d·d + take_b·b`.
    take_d: R,
    take_b: R,
}

impl Rule for Lars {
    type Coefficients<R: Real> = LarsCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("momentum_buffer").optional()];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> LarsCoefficients<R> {
        let (take_d, take_b) = match (self.momentum == 0.0, self.nesterov) {
            (true, _) => (1.0, 0.0),
            (false, true) => (1.0, self.momentum),
            (false, false) => (0.0, 1.0),
        };
        LarsCoefficients {
            ratio: R::one(),
            decay: R::of(self.weight_decay),
            momentum: R::of(self.momentum),
            gain: R::of(1.0 - self.dampening),
            take_d: R::of(take_d),
            take_b: R::of(take_b),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &LarsCoefficients<R>, p: R, g: R, [b]: [R; 1]) -> (R, [R; 1]) {
        let d = c.ratio * (g + c.decay * p);
        let b = c.momentum * b + c.gain * d;
        (c.take_d * d + c.take_b * b, [b])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, _: usize) -> bool {
        self.momentum != 0.0
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    #[inline(always)]
    fn measure<R: Real>(_: usize, _: &LarsCoefficients<R>, p: R, g: R, _: [R; 1]) -> Sums {
        [p.widen() * p.widen(), g.widen() * g.widen(), 0.0, 0.0]
    }

    fn refine<R: Real>(&self, _: usize, measured: &TensorSums, c: &mut LarsCoefficients<R>) {
        if measured.ndim < 2 && !self.adapt_vectors {
            c.decay = R::zero();
            return;
        }
        let [weights, gradient, ..] = measured.sums.map(f64::sqrt);
        let denominator = gradient + self.weight_decay * weights + self.eps;
        let trusted = weights > 0.0 && denominator != 0.0;
        let ratio = if trusted { self.trust_coefficient * weights / denominator } else { 1.0 };
        let ratio = if self.clip && trusted { (ratio / self.lr).min(1.0) } else { ratio };
        // gradients that vanish have ratios beyond the range
        c.ratio = finite_of(ratio);
    }
}
