use crate::first_order::arithmetic::{lerp, ratio};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};
use std::ops::Range;

/// Adan: Adam with Nesterov's momentum, estimated from the change of the gradient.
///
/// *Use it when* you train vision models or large language models and can spend 16 bytes per parameter: it bears
/// larger learning rates than AdamW. *Not when* memory is scarce, or gradients are so noisy that their changes say
/// nothing.
///
/// ```text
/// g ← g · min(1, c/(‖g‖ + ε))             over all tensors, if max_grad_norm c > 0
/// d = g − g′                              g′: the gradient of the step before; d = 0 at first
/// m ← m + (1 − β₁)·(g − m)
/// δ ← δ + (1 − β₂)·(d − δ)
/// v ← β₃·v + (1 − β₃)·(g + β₂·d)²
/// D = √v/√(1 − β₃ᵗ) + ε
/// p ← (p − γ·(m/(1 − β₁ᵗ) + β₂·δ/(1 − β₂ᵗ))/D) / (1 + γλ)
/// p ← p·(1 − γλ) − γ·(…)/D                in place of the last line, with no_prox
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | authors' code |
/// | `betas` β₁, β₂, β₃ | (0.98, 0.92, 0.99) | paper, which writes 1 − β |
/// | `eps` ε | 1e-8 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `no_prox` | false | paper |
/// | `max_grad_norm` c | 0 (off) | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), `exp_avg_sq` (v), `exp_avg_diff` (δ) and `neg_pre_grad` (−g′), 16 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses negative options and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = Adan { lr: 0.1, ..Adan::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code, and as `pytorch_optimizer.Adan`, which calls `no_prox` `weight_decouple` and `neg_pre_grad`
/// `previous_grad`, and counts steps per group. With `eps = 0`, an element that has seen no gradient stands still.
///
/// # Source
/// X. Xie, P. Zhou, H. Li, Z. Lin, S. Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
/// Models", 2022.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adan {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the gradient, of its change and of the second moment, each in `[0, 1)`.
    pub betas: (f64, f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Decay the weights before the step, as AdamW does, instead of dividing them after it.
    pub no_prox: bool,
    /// Largest norm of all gradients together; 0 for no limit.
    pub max_grad_norm: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adan);

impl Default for Adan {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.98, 0.92, 0.99),
            eps: 1e-8,
            weight_decay: 0.0,
            no_prox: false,
            max_grad_norm: 0.0,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Adan, "Adan", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "betas.2": UnitHalfOpen = betas.2;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "no_prox": Flag = no_prox;
    "max_grad_norm": NonNegative = max_grad_norm;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdanCoefficients<R> {
    clip: R,
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    beta3: R,
    one_minus_beta3: R,
    /// `1/(1 − β₁ᵗ)`.
    first: R,
    /// `β₂/(1 − β₂ᵗ)`.
    second: R,
    /// `1/√(1 − β₃ᵗ)`.
    third: R,
    eps: R,
    /// Whether there is no gradient to look back at.
    starts: bool,
}

/// What a step knows of all gradients together.
#[derive(Clone, Debug, Default)]
pub struct AdanGroupState {
    /// Factor that clips the gradients of this step.
    clip: f64,
}
crate::group_state!(AdanGroupState {});

impl Rule for Adan {
    type Coefficients<R: Real> = AdanCoefficients<R>;
    type State<R: Real> = [R; 4];
    type GroupState = AdanGroupState;
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_sq"),
        Slot::signed("exp_avg_diff"),
        Slot::signed("neg_pre_grad"),
    ];

    fn coefficients<R: Real>(&self, t: u64, scalars: &AdanGroupState) -> AdanCoefficients<R> {
        let (beta1, beta2, beta3) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        AdanCoefficients {
            clip: R::of(scalars.clip),
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            beta3: R::of(beta3),
            one_minus_beta3: R::of(1.0 - beta3),
            first: R::of(1.0 / bias(beta1)),
            second: R::of(beta2 / bias(beta2)),
            third: R::of(1.0 / bias(beta3).sqrt()),
            eps: R::of(self.eps),
            starts: t == 1,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdanCoefficients<R>,
        _p: R,
        g: R,
        [m, v, diff, before]: [R; 4],
    ) -> (R, [R; 4]) {
        let g = g * c.clip;
        let change = if c.starts { R::zero() } else { g + before };
        let m = lerp(m, g, c.one_minus_beta1);
        let diff = lerp(diff, change, c.one_minus_beta2);
        let ahead = g + c.beta2 * change;
        let v = c.beta3 * v + c.one_minus_beta3 * ahead * ahead;
        let u = ratio(m * c.first + diff * c.second, v.sqrt() * c.third + c.eps);
        (u, [m, v, diff, -g])
    }

    /// `γ/(1 + γλ)`: the division of the step.
    fn step_size(&self, _: u64, _: &AdanGroupState) -> f64 {
        if self.no_prox { self.lr } else { self.lr / (1.0 + self.lr * self.weight_decay) }
    }

    /// `1 − γλ/(1 + γλ) = 1/(1 + γλ)`: the division of the parameter.
    fn decay(&self) -> WeightDecay {
        let decay = self.lr * self.weight_decay;
        if self.no_prox {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Independent(decay / (1.0 + decay))
        }
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut AdanGroupState) {
        scalars.clip = 1.0;
    }

    fn passes(&self) -> Range<usize> {
        if self.max_grad_norm > 0.0 { 0..1 } else { 0..0 }
    }

    #[inline(always)]
    fn measure<R: Real>(_: usize, _: &AdanCoefficients<R>, _p: R, g: R, _: [R; 4]) -> Sums {
        [g.widen() * g.widen(), 0.0, 0.0, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut AdanGroupState) {
        let [squares, ..] = *total;
        let norm = squares.sqrt() + self.eps;
        if norm > self.max_grad_norm {
            scalars.clip = self.max_grad_norm / norm;
        }
    }
}
