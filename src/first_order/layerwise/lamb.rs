use crate::first_order::arithmetic::{lerp, ratio};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorSums, WeightDecay};
use std::ops::Range;

/// LAMB: Adam's direction, scaled per tensor to the norm of the weights.
///
/// *Use it when* batches are very large (BERT in 76 minutes). *Not when* they are small: the trust ratio
/// then gains nothing, and costs a second pass over memory.
///
/// ```text
/// g ← g · min(1, c/(‖g‖ + 1e-6))          over all tensors, if max_grad_norm c > 0
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// r = m̂/(√v̂ + ε) + λp                     m̂, v̂ bias-corrected unless switched off
/// p ← p − γ · ‖p‖/‖r‖ · r                  ratio 1 if either norm is 0
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | NVIDIA |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-6 | paper |
/// | `weight_decay` λ | 0 | optax |
/// | `bias_correction` | true | paper |
/// | `max_grad_norm` c | 0 (off) | optax; NVIDIA clips at 1 |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` and `exp_avg_sq`, 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses negative options and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![3.0f64, 4.0]; // norm 5
/// let mut opt = Lamb { lr: 0.1, ..Lamb::default() }.build()?;
/// opt.step(&mut w, &array![1.0, 1000.0])?;
/// // the step has a tenth of the norm of the weights
/// let step = &w - &array![3.0, 4.0];
/// assert!((step.dot(&step).sqrt() - 0.5).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `optax.lamb` and the paper's Algorithm 2. NVIDIA's code also clips gradients and
/// pytorch_optimizer clamps the weight norm to 10; neither is in the paper.
///
/// # Source
/// Y. You and others, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
/// ICLR 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Lamb {
    /// Learning rate `γ >= 0`: the step's share of the weight norm.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, inside the trust ratio.
    pub weight_decay: f64,
    /// Correct both moments for their start at zero.
    pub bias_correction: bool,
    /// Largest norm of all gradients together; 0 for no limit.
    pub max_grad_norm: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Lamb);

impl Default for Lamb {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-6,
            weight_decay: 0.0,
            bias_correction: true,
            max_grad_norm: 0.0,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Lamb, "Lamb", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "bias_correction": Flag = bias_correction;
    "max_grad_norm": NonNegative = max_grad_norm;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct LambCoefficients<R> {
    clip: R,
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    correction1: R,
    correction2: R,
    eps: R,
    weight_decay: R,
    /// The trust ratio, known after the measuring pass.
    ratio: R,
}

/// What a step knows of all gradients together.
#[derive(Clone, Debug, Default)]
pub struct LambGroupState {
    /// Factor that clips the gradients of this step.
    clip: f64,
}
crate::group_state!(LambGroupState {});

const GRADIENT_NORM: usize = 0;
const TRUST_RATIO: usize = 1;

impl<R: Real> LambCoefficients<R> {
    /// `r` before the trust ratio.
    #[inline(always)]
    fn step(&self, p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let g = g * self.clip;
        let m = lerp(m, g, self.one_minus_beta1);
        let v = self.beta2 * v + self.one_minus_beta2 * g * g;
        let r = ratio(m * self.correction1, v.sqrt() * self.correction2 + self.eps);
        (r + self.weight_decay * p, [m, v])
    }
}

impl Rule for Lamb {
    type Coefficients<R: Real> = LambCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = LambGroupState;
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];

    fn coefficients<R: Real>(&self, t: u64, scalars: &LambGroupState) -> LambCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = |beta: f64| if self.bias_correction { 1.0 - beta.powf(t as f64) } else { 1.0 };
        LambCoefficients {
            clip: R::of(scalars.clip),
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction1: R::of(1.0 / bias(beta1)),
            correction2: R::of(1.0 / bias(beta2).sqrt()),
            eps: R::of(self.eps),
            weight_decay: R::of(self.weight_decay),
            ratio: R::one(),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &LambCoefficients<R>, p: R, g: R, s: [R; 2]) -> (R, [R; 2]) {
        let (r, s) = c.step(p, g, s);
        (c.ratio * r, s)
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn step_size(&self, _: u64, _: &LambGroupState) -> f64 {
        self.lr
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut LambGroupState) {
        scalars.clip = 1.0;
    }

    fn passes(&self) -> Range<usize> {
        if self.max_grad_norm > 0.0 { GRADIENT_NORM..2 } else { TRUST_RATIO..2 }
    }

    #[inline(always)]
    fn measure<R: Real>(pass: usize, c: &LambCoefficients<R>, p: R, g: R, s: [R; 2]) -> Sums {
        let square = |x: R| x.widen() * x.widen();
        if pass == GRADIENT_NORM {
            return [square(g), 0.0, 0.0, 0.0];
        }
        let (r, _) = c.step(p, g, s);
        [square(p), square(r), 0.0, 0.0]
    }

    fn combine(&self, pass: usize, total: &Sums, scalars: &mut LambGroupState) {
        let [squares, ..] = *total;
        if pass == GRADIENT_NORM {
            scalars.clip = (self.max_grad_norm / (squares.sqrt() + 1e-6)).min(1.0);
        }
    }

    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut LambCoefficients<R>) {
        let [weights, step, ..] = measured.sums;
        if pass == TRUST_RATIO && weights > 0.0 && step > 0.0 {
            c.ratio = R::of((weights / step).sqrt());
        }
    }
}
