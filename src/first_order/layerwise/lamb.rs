use crate::first_order::arithmetic::{lerp, ratio};
use crate::hyper::OptionValue;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::finite_of;
use crate::optim::{Rule, Slot, TensorSums, WeightDecay};
use std::ops::Range;

/// How moments are corrected for their start at zero in [`Lamb`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LambForm {
    /// The paper's: both moments are corrected before the trust ratio is taken.
    #[default]
    Paper,
    /// That of pytorch-lamb and pytorch_optimizer: the learning rate is divided by `1 − β₁ᵗ` after the trust ratio
    /// was taken, and the second moment stays as it is.
    StepCorrected,
}

impl OptionValue for LambForm {
    fn get(&self) -> f64 {
        f64::from(*self as u8)
    }
    fn set(&mut self, value: f64) {
        *self = if value == 0.0 { Self::Paper } else { Self::StepCorrected };
    }
}

/// LAMB: Adam's direction, scaled per tensor to the norm of the weights.
///
/// *Use it when* batches are very large (BERT in 76 minutes). *Not when* they are small: the trust ratio
/// then gains nothing, and costs a second pass over memory.
///
/// ```text
/// g ← g · min(1, c/(‖g‖ + 1e-6))          over all tensors, if max_grad_norm c > 0
/// p ← p·(1 − γλ)                           decoupled_weight_decay only
/// m ← m + (1 − β₁)·(g − m)                 without grad_averaging β₁·m + g
/// v ← β₂·v + (1 − β₂)·g²
/// r = m̂/(√v̂ + ε) + λp                     m̂, v̂ bias-corrected unless switched off; decoupled: without λp
/// s = min(min(‖p‖, w)/‖r‖, c)              1 if either norm is 0, and with adam; w: max_weight_norm, c: max_trust_ratio
/// p ← p − γ·s·r
/// ```
/// `StepCorrected`: r = m/(√v + ε) + λp, s = min(min(‖p‖, w)/(‖r‖ + ε), c), p ← p − γ/(1 − β₁ᵗ)·s·r.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | NVIDIA |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-6 | paper |
/// | `weight_decay` λ | 0 | optax |
/// | `decoupled_weight_decay` | false | paper |
/// | `bias_correction` | true | paper |
/// | `grad_averaging` | true | paper |
/// | `adam` | false | pytorch_optimizer |
/// | `max_weight_norm` | 0 (off) | optax; pytorch_optimizer: 10 |
/// | `max_trust_ratio` | 0 (off) | optax; 1 with `trust_clip` of timm |
/// | `max_grad_norm` c | 0 (off) | optax; NVIDIA clips at 1 |
/// | `form` | `Paper` | paper |
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
/// As `optax.lamb` and the paper's Algorithm 2, whose `φ` is the identity up to `max_weight_norm`. NVIDIA's code also
/// clips gradients. [`Lamb::step_corrected`] is `pytorch_optimizer.Lamb`, with its decay outside of the trust ratio;
/// that package counts steps per group.
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
    /// Weight decay `λ >= 0`, inside the trust ratio unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Correct both moments for their start at zero; the learning rate alone with [`LambForm::StepCorrected`].
    pub bias_correction: bool,
    /// Average gradients instead of adding them up.
    pub grad_averaging: bool,
    /// Leave the trust ratio out: it is 1.
    pub adam: bool,
    /// Largest weight norm that the trust ratio counts, `>= 0`; 0 for no limit.
    pub max_weight_norm: f64,
    /// Largest trust ratio, `>= 0`; 0 for no limit.
    pub max_trust_ratio: f64,
    /// Largest norm of all gradients together; 0 for no limit.
    pub max_grad_norm: f64,
    /// How the moments' start at zero is corrected.
    pub form: LambForm,
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
            decoupled_weight_decay: false,
            bias_correction: true,
            grad_averaging: true,
            adam: false,
            max_weight_norm: 0.0,
            max_trust_ratio: 0.0,
            max_grad_norm: 0.0,
            form: LambForm::Paper,
            maximize: false,
        }
    }
}

impl Lamb {
    /// LAMB as pytorch_optimizer has it.
    pub fn step_corrected() -> Self {
        let form = LambForm::StepCorrected;
        Self { form, decoupled_weight_decay: true, max_weight_norm: 10.0, ..Self::default() }
    }
}

crate::hyperparameters!(Lamb, "Lamb", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "bias_correction": Flag = bias_correction;
    "grad_averaging": Flag = grad_averaging;
    "adam": Flag = adam;
    "max_weight_norm": NonNegative = max_weight_norm;
    "max_trust_ratio": NonNegative = max_trust_ratio;
    "max_grad_norm": NonNegative = max_grad_norm;
    "form": Choice(&["Paper", "StepCorrected"]) = form;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct LambCoefficients<R> {
    clip: R,
    one_minus_beta1: R,
    /// `β₁`, and whether gradients are averaged with it or added.
    beta1: R,
    grad_averaging: bool,
    beta2: R,
    one_minus_beta2: R,
    correction1: R,
    correction2: R,
    eps: R,
    /// Decay inside the trust ratio.
    weight_decay: R,
    /// `1 − γλ` if the decay is decoupled.
    shrink: R,
    /// The trust ratio, known after the measuring pass, times `1/(1 − β₁ᵗ)` if the step is corrected.
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

impl Lamb {
    /// The trust ratio of a tensor, from the squared norms of its weights and of `r`, neither of them 0.
    fn trust_ratio(&self, weights: f64, step: f64) -> f64 {
        let limit = |limit: f64| if limit > 0.0 { limit } else { f64::INFINITY };
        let largest = limit(self.max_weight_norm);
        let ratio = match self.form {
            LambForm::Paper if weights <= largest * largest => (weights / step).sqrt(),
            LambForm::Paper => largest / step.sqrt(),
            LambForm::StepCorrected => weights.sqrt().min(largest) / (step.sqrt() + self.eps),
        };
        ratio.min(limit(self.max_trust_ratio))
    }
}

impl<R: Real> LambCoefficients<R> {
    /// `r` before the trust ratio.
    #[inline(always)]
    fn step(&self, p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let g = g * self.clip;
        let average = lerp(m, g, self.one_minus_beta1);
        let m = if self.grad_averaging { average } else { self.beta1 * m + g };
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
        let (first, second) = (1.0 / bias(beta1), 1.0 / bias(beta2).sqrt());
        let (first, second, step) = match self.form {
            LambForm::Paper => (first, second, 1.0),
            LambForm::StepCorrected => (1.0, 1.0, first),
        };
        let (inside, outside) = match self.decoupled_weight_decay {
            true => (0.0, self.lr * self.weight_decay),
            false => (self.weight_decay, 0.0),
        };
        LambCoefficients {
            clip: R::of(scalars.clip),
            one_minus_beta1: R::of(1.0 - beta1),
            beta1: R::of(beta1),
            grad_averaging: self.grad_averaging,
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction1: R::of(first),
            correction2: R::of(second),
            eps: R::of(self.eps),
            weight_decay: R::of(inside),
            shrink: R::of(1.0 - outside),
            ratio: R::of(step),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &LambCoefficients<R>, p: R, g: R, s: [R; 2]) -> (R, [R; 2]) {
        let (r, s) = c.step(p, g, s);
        (c.ratio * r, s)
    }

    /// The decay is part of the equations, unless it is decoupled.
    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::None
        }
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
        [square(p * c.shrink), square(r), 0.0, 0.0]
    }

    fn combine(&self, pass: usize, total: &Sums, scalars: &mut LambGroupState) {
        let [squares, ..] = *total;
        if pass == GRADIENT_NORM {
            scalars.clip = (self.max_grad_norm / (squares.sqrt() + 1e-6)).min(1.0);
        }
    }

    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut LambCoefficients<R>) {
        let [weights, step, ..] = measured.sums;
        if pass == TRUST_RATIO && weights > 0.0 && step > 0.0 && !self.adam {
            // steps that vanish have ratios beyond the range
            c.ratio = finite_of(c.ratio.widen() * self.trust_ratio(weights, step));
        }
    }
}
