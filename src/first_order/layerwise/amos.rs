use crate::first_order::arithmetic::lerp;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// Amos: normalised gradients with a weight decay and a learning-rate decay that adapt to the scale of the weights.
///
/// *Use it when* you pre-train language models and want neither schedule nor weight decay to tune, and the least state:
/// two numbers per tensor. *Not when* weights of one tensor have to become of very different size: `eta` is one scale
/// for all.
///
/// ```text
/// q = mean of g² over the tensor
/// v ← v + (1 − β)·(q − v)                 one number per tensor
/// r = (1 − βᵗ)/(v + ε)
/// c = 1/√(1 + c_coef·√γ·b)                b: one number per tensor, 0 at first
/// d = 1/(1 + d_coef·√(γη)·b)
/// κ = c·γ²·r·q
/// u = d·(γη·√r·g + κ/2·p)
/// b ← b·(1 + κ) + κ
/// m ← m + (1 − μ)·(u − m)                 with momentum; else m = u
/// p ← p − m
/// ```
/// `η` is the size that weights should have in the end: `eta`, or by shape 1/2 for vectors, `√(2/n)` for matrices with n columns
/// and `√(1/n)` for tensors of more dimensions, the second of which is n.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer; paper: 1/√(number of batches) |
/// | `beta` β | 0.999 | paper |
/// | `momentum` μ | 0 | paper |
/// | `eta` η | by shape | pytorch_optimizer; in the paper a choice of the model's author |
/// | `c_coef`, `d_coef` | 0.25 | paper |
/// | `eps` ε | 1e-18 | pytorch_optimizer |
/// | `maximize` | false | PyTorch |
///
/// State: nothing per element, with `momentum` `exp_avg` (m), 4 bytes per `f32` parameter; `exp_avg_sq` (v), `decay` (b) and
/// `previous_decay` (b of the step before), 24 bytes per tensor. One more pass over memory.
///
/// # Errors
/// `build` refuses negative options, `eta` not above 0, and `beta` or `momentum` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = Amos { lr: 0.1, ..Amos::default() }.build()?;
/// for _ in 0..1000 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.Amos`, which counts steps per group; its option `extra_l2` is left out: it lets weights grow, and the
/// authors' code has none. The authors' code takes the larger of v and ε, and can hold v and b by rows or columns. The mean is
/// summed in `f64`.
///
/// # Source
/// R. Tian, A. P. Parikh, "Amos: An Adam-style Optimizer with Adaptive Weight Decay towards Model-Oriented Scale", 2022.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Amos {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rate `β` of the mean square, in `[0, 1)`.
    pub beta: f64,
    /// Decay rate `μ` of an average of the steps, in `[0, 1)`; 0 for none.
    pub momentum: f64,
    /// Size `η > 0` that weights should have in the end; `None` for one by shape.
    pub eta: Option<f64>,
    /// How fast the weight decay falls, at least 0.
    pub c_coef: f64,
    /// How fast the steps shorten, at least 0.
    pub d_coef: f64,
    /// Stabiliser `ε >= 0`, added to the mean square.
    pub eps: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Amos);

impl Default for Amos {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta: 0.999,
            momentum: 0.0,
            eta: None,
            c_coef: 0.25,
            d_coef: 0.25,
            eps: 1e-18,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Amos, "Amos", {
    "lr": NonNegative = lr;
    "beta": UnitHalfOpen = beta;
    "momentum": UnitHalfOpen = momentum;
    "eta": OptionalPositive = eta;
    "c_coef": NonNegative = c_coef;
    "d_coef": NonNegative = d_coef;
    "eps": NonNegative = eps;
    "maximize": Flag = maximize;
});

/// Scalars of one step and tensor.
#[derive(Clone, Copy, Debug)]
pub struct AmosCoefficients<R> {
    /// `d·γη·√r` and `d·κ/2`, known after the measuring pass.
    gradient: R,
    weight: R,
    one_minus_momentum: R,
    /// What the measuring pass needs.
    tensor: AmosTensor,
}

/// The numbers of a tensor.
#[derive(Clone, Copy, Debug, Default)]
struct AmosTensor {
    /// `η`.
    eta: f64,
    /// `r`.
    inverse: f64,
    /// `b` before the step.
    decay: f64,
}

/// `q`.
fn mean_square(measured: &TensorSums) -> f64 {
    let [sum, ..] = measured.sums;
    sum / measured.numel.max(1) as f64
}

/// `d` and `κ` of a step.
struct AmosDecay {
    shorter: f64,
    growth: f64,
}

impl Amos {
    fn eta(&self, shape: &[usize]) -> f64 {
        let by_shape = |columns: usize| match shape.len() {
            2 => (2.0 / columns as f64).sqrt(),
            _ => (1.0 / columns as f64).sqrt(),
        };
        self.eta.unwrap_or_else(|| shape.get(1).map_or(0.5, |&columns| by_shape(columns)))
    }

    fn inverse(&self, t: u64, average: f64) -> f64 {
        let square = average + self.eps;
        if square > 0.0 { (1.0 - self.beta.powf(t as f64)) / square } else { 0.0 }
    }

    fn decays(&self, tensor: &AmosTensor, mean: f64) -> AmosDecay {
        let slower = 1.0 / (1.0 + self.c_coef * self.lr.sqrt() * tensor.decay).sqrt();
        let shorter = 1.0 / (1.0 + self.d_coef * (self.lr * tensor.eta).sqrt() * tensor.decay);
        AmosDecay { shorter, growth: slower * self.lr * self.lr * tensor.inverse * mean }
    }
}

impl Rule for Amos {
    type Coefficients<R: Real> = AmosCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg").optional()];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] =
        &[("exp_avg_sq", 0.0), ("decay", 0.0), ("previous_decay", 0.0)];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> AmosCoefficients<R> {
        AmosCoefficients {
            gradient: R::zero(),
            weight: R::zero(),
            one_minus_momentum: R::of(1.0 - self.momentum),
            tensor: AmosTensor::default(),
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut AmosCoefficients<R>,
    ) {
        if let [average, _, decay] = *numbers {
            let (eta, inverse) = (self.eta(step.shape), self.inverse(step.t, average));
            c.tensor = AmosTensor { eta, inverse, decay };
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AmosCoefficients<R>, p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let u = c.gradient * g + c.weight * p;
        // without momentum the slot is off and reads as 0
        let m = lerp(m, u, c.one_minus_momentum);
        (m, [m])
    }

    /// The learning rate is inside the direction.
    fn step_size(&self, _: u64, _: &()) -> f64 {
        1.0
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn uses_slot(&self, _: usize) -> bool {
        self.momentum > 0.0
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    #[inline(always)]
    fn measure<R: Real>(_: usize, _: &AmosCoefficients<R>, _p: R, g: R, _: [R; 1]) -> Sums {
        [g.widen() * g.widen(), 0.0, 0.0, 0.0]
    }

    fn absorb(&self, _: usize, measured: &TensorSums, step: &TensorStep<'_>, numbers: &mut [f64]) {
        if let [average, decay, previous] = numbers {
            let mean = mean_square(measured);
            *average += (1.0 - self.beta) * (mean - *average);
            *previous = *decay;
            let (eta, inverse) = (self.eta(step.shape), self.inverse(step.t, *average));
            let tensor = AmosTensor { eta, inverse, decay: *decay };
            let growth = self.decays(&tensor, mean).growth;
            *decay += growth * (1.0 + *decay);
        }
    }

    fn refine<R: Real>(&self, _: usize, measured: &TensorSums, c: &mut AmosCoefficients<R>) {
        let tensor = c.tensor;
        let AmosDecay { shorter, growth } = self.decays(&tensor, mean_square(measured));
        // a gradient that is nearly 0 times a number that is infinite in `f32` would be NaN
        let gradient = shorter * self.lr * tensor.eta * tensor.inverse.sqrt();
        c.gradient = R::of(gradient.min(1e37));
        c.weight = R::of(0.5 * shorter * growth);
    }
}
