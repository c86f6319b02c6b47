use crate::first_order::arithmetic::{larger, lerp};
use crate::hyper::OptionValue;
use crate::kernel::Sums;
use crate::numeric::{Real, sign};
use crate::optim::{Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// MARS: AdamW or Lion on gradients whose noise is reduced by the change of the gradient.
///
/// *Use it when* you train large models from scratch and the noise of the gradients, not their curvature, limits the
/// learning rate. *Not when* most parameters are vectors: these are trained by AdamW, unless `optimize_1d`.
///
/// For tensors of two and more dimensions, and with `optimize_1d` for all:
/// ```text
/// c = g + γ_m·β₁/(1 − β₁)·(g − g′)        g′: the gradient of the step before, 0 at first
/// c ← c/‖c‖                               over the tensor, if ‖c‖ > 1
/// m ← m + (1 − β₁)·(c − m)
/// v ← β₂·v + (1 − β₂)·c²                  not for Lion
/// V = max over all steps of v, with amsgrad; else v
/// u = m/(1 − β₁ᵗ) / ((√(V + 1e-15) + ε)/√(1 − β₂ᵗ))       mars_type = AdamW
/// u = sign(m)                                             mars_type = Lion
/// p ← p − γ·(u + λp)
/// ```
/// For vectors and scalars `c = g`, the betas are `betas_1d`, `u` is that of AdamW, and with `f = lr_1d_factor`:
/// ```text
/// p ← p − f·γ·(u + λ₁p)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 3e-3 | authors' code |
/// | `betas` β₁, β₂ | (0.95, 0.99) | paper |
/// | `gamma` γ_m | 0.025 | paper |
/// | `mars_type` | `AdamW` | authors' code |
/// | `eps` ε | 1e-8 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `amsgrad` | false | authors' code |
/// | `optimize_1d` | false | authors' code |
/// | `lr_1d_factor` f | 1 | authors' code: `lr_1d`/`lr` |
/// | `betas_1d` | (0.9, 0.95) | authors' code |
/// | `weight_decay_1d` λ₁ | 0.1 | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), `last_grad` (g′) and `exp_avg_sq` (v), 12 bytes per `f32` parameter; with `amsgrad` also
/// `max_exp_avg_sq`, 16 bytes; for Lion with `optimize_1d` 8 bytes. One more pass over memory.
///
/// # Errors
/// `build` refuses negative options and betas outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![[2.0f64, -3.0]];
/// let mut opt = Mars { lr: 0.05, ..Mars::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.MARS`, which counts steps per group and takes `lr_1d` in place of its ratio to `lr`. This is the
/// approximate form: the exact one evaluates the gradient of the new batch at the old point, too. MARS-Shampoo is
/// [`Muon`](crate::second_order::Muon) on such gradients. The decay is part of the direction.
///
/// # Source
/// H. Yuan, Y. Liu, S. Wu, X. Zhou, Q. Gu, "MARS: Unleashing the Power of Variance Reduction for Training Large
/// Models", ICML 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Mars {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// How much of the change of the gradient is added, `γ_m >= 0`.
    pub gamma: f64,
    /// The rule that gets the gradients.
    pub mars_type: MarsType,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0` of tensors of two and more dimensions.
    pub weight_decay: f64,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Treat vectors and scalars as all others.
    pub optimize_1d: bool,
    /// Learning rate of vectors and scalars in units of `lr`, at least 0.
    pub lr_1d_factor: f64,
    /// Decay rates of the moments of vectors and scalars, each in `[0, 1)`.
    pub betas_1d: (f64, f64),
    /// Weight decay `λ₁ >= 0` of vectors and scalars.
    pub weight_decay_1d: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Mars);

impl Default for Mars {
    fn default() -> Self {
        Self {
            lr: 3e-3,
            betas: (0.95, 0.99),
            gamma: 0.025,
            mars_type: MarsType::AdamW,
            eps: 1e-8,
            weight_decay: 0.0,
            amsgrad: false,
            optimize_1d: false,
            lr_1d_factor: 1.0,
            betas_1d: (0.9, 0.95),
            weight_decay_1d: 0.1,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Mars, "Mars", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "gamma": NonNegative = gamma;
    "mars_type": Choice(&["AdamW", "Lion"]) = mars_type;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "amsgrad": Flag = amsgrad;
    "optimize_1d": Flag = optimize_1d;
    "lr_1d_factor": NonNegative = lr_1d_factor;
    "betas_1d.0": UnitHalfOpen = betas_1d.0;
    "betas_1d.1": UnitHalfOpen = betas_1d.1;
    "weight_decay_1d": NonNegative = weight_decay_1d;
    "maximize": Flag = maximize;
});

/// The rule that [`Mars`] gives its gradients to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MarsType {
    /// Moments, as in AdamW.
    #[default]
    AdamW,
    /// The sign of the average.
    Lion,
}

impl OptionValue for MarsType {
    fn get(&self) -> f64 {
        f64::from(*self as u8)
    }
    fn set(&mut self, value: f64) {
        *self = if value as u8 == 0 { Self::AdamW } else { Self::Lion };
    }
}

/// Scalars of one step and tensor.
#[derive(Clone, Copy, Debug)]
pub struct MarsCoefficients<R> {
    /// `γ_m·β₁/(1 − β₁)`; 0 for vectors.
    change: R,
    /// `1/‖c‖`, or 1.
    scale: R,
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    /// `1/(1 − β₁ᵗ)`.
    first: R,
    /// `1/√(1 − β₂ᵗ)`.
    second: R,
    eps: R,
    /// Factor on the whole step.
    lr: R,
    decay: R,
    signs: bool,
    /// Whether the tensor is one that AdamW trains.
    vector: bool,
}

impl<R: Real> MarsCoefficients<R> {
    fn new((beta1, beta2): (f64, f64), t: u64) -> Self {
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        Self {
            change: R::zero(),
            scale: R::one(),
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            first: R::of(1.0 / bias(beta1)),
            second: R::of(1.0 / bias(beta2).sqrt()),
            eps: R::zero(),
            lr: R::one(),
            decay: R::zero(),
            signs: false,
            vector: false,
        }
    }

    /// The gradient with its change.
    #[inline(always)]
    fn corrected(&self, g: R, before: R) -> R {
        g + self.change * (g - before)
    }
}

impl Rule for Mars {
    type Coefficients<R: Real> = MarsCoefficients<R>;
    type State<R: Real> = [R; 4];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::signed("last_grad"),
        Slot::unsigned("exp_avg_sq").optional(),
        Slot::unsigned("max_exp_avg_sq").optional(),
    ];
    const PER_TENSOR: bool = true;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> MarsCoefficients<R> {
        let beta1 = self.betas.0;
        MarsCoefficients {
            change: R::of(self.gamma * beta1 / (1.0 - beta1)),
            eps: R::of(self.eps),
            decay: R::of(self.weight_decay),
            signs: self.mars_type == MarsType::Lion,
            ..MarsCoefficients::new(self.betas, t)
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        _: &[f64],
        c: &mut MarsCoefficients<R>,
    ) {
        if step.shape.len() < 2 && !self.optimize_1d {
            *c = MarsCoefficients {
                eps: c.eps,
                lr: R::of(self.lr_1d_factor),
                decay: R::of(self.weight_decay_1d),
                vector: true,
                ..MarsCoefficients::new(self.betas_1d, step.t)
            };
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &MarsCoefficients<R>,
        p: R,
        g: R,
        [m, before, v, largest]: [R; 4],
    ) -> (R, [R; 4]) {
        let corrected = c.corrected(g, before) * c.scale;
        let m = lerp(m, corrected, c.one_minus_beta1);
        let new = c.beta2 * v + c.one_minus_beta2 * corrected * corrected;
        let v = if c.signs { v } else { new };
        // without amsgrad the slot is off and reads as 0
        let largest = larger(largest, v);
        let root = ((largest + R::of(1e-15)).sqrt() + c.eps) * c.second;
        let u = if c.signs { sign(m) } else { m * c.first / root };
        (c.lr * (u + c.decay * p), [m, g, v, largest])
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn uses_slot(&self, slot: usize) -> bool {
        let moments = self.mars_type == MarsType::AdamW || !self.optimize_1d;
        match slot {
            2 => moments,
            3 => moments && self.amsgrad,
            _ => true,
        }
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &MarsCoefficients<R>,
        _p: R,
        g: R,
        [_, before, ..]: [R; 4],
    ) -> Sums {
        let corrected = c.corrected(g, before).widen();
        [corrected * corrected, 0.0, 0.0, 0.0]
    }

    fn refine<R: Real>(&self, _: usize, measured: &TensorSums, c: &mut MarsCoefficients<R>) {
        let [squares, ..] = measured.sums;
        if squares > 1.0 && !c.vector {
            c.scale = R::of(1.0 / squares.sqrt());
        }
    }
}
