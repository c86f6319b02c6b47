use crate::first_order::arithmetic::{lerp, ratio};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorSums, WeightDecay};
use std::ops::Range;

/// StableAdamW: AdamW with Adafactor's clipping: no tensor takes a step for which its second moment is out of date.
///
/// *Use it when* the loss has spikes, as in large vision and language models in low precision: it needs no clipping of
/// gradients. *Not when* training is smooth: then it is AdamW, at the price of one more pass over memory.
///
/// ```text
/// β̂ᵢ = (βᵢᵗ − βᵢ)/(βᵢᵗ − 1)               bias corrections inside the averages
/// m ← m + (1 − β̂₁)·(g − m)
/// v ← β̂₂·v + (1 − β̂₂)·g²
/// η = γ/max(1, √(mean of g²/max(v, ε²)))  one number per tensor
/// p ← p·(1 − ηλ) − η·m/(√v + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | optimi |
/// | `betas` β₁, β₂ | (0.9, 0.99) | optimi |
/// | `eps` ε | 1e-8 | pytorch_optimizer; paper 1e-6 |
/// | `weight_decay` λ | 1e-2 | optimi |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let mut opt = StableAdamW { lr: 0.1, weight_decay: 0.0, ..StableAdamW::default() }.build()?;
/// for _ in 0..100 {
///     opt.step(&mut w, &array![1e-3])?;
/// }
/// let before = w[0];
/// opt.step(&mut w, &array![1.0])?; // a gradient a thousand times as large
/// assert!((w[0] - before).abs() < 0.1);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `optimi.StableAdamW` and `pytorch_optimizer.StableAdamW`, which counts steps per group. The mean is summed in `f64`.
/// `bf16` parameters with Kahan summation are [`Rounding::Kahan`](crate::state::Rounding). The decay is part of the
/// direction, so that it is divided with it. With `eps = 0`, an element that has seen no gradient only decays.
///
/// # Source
/// M. Wortsman and others, "Stable and low-precision training for large-scale vision-language models", NeurIPS 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct StableAdamW {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, with the clipped learning rate.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(StableAdamW);

impl Default for StableAdamW {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.99), eps: 1e-8, weight_decay: 1e-2, maximize: false }
    }
}

crate::hyperparameters!(StableAdamW, "StableAdamW", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step and tensor.
#[derive(Clone, Copy, Debug)]
pub struct StableAdamWCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    eps: R,
    weight_decay: R,
    /// `ε²`.
    least: f64,
    /// `η/γ`, known after the measuring pass.
    clip: R,
}

impl<R: Real> StableAdamWCoefficients<R> {
    #[inline(always)]
    fn second(&self, g: R, v: R) -> R {
        self.beta2 * v + self.one_minus_beta2 * g * g
    }
}

impl Rule for StableAdamW {
    type Coefficients<R: Real> = StableAdamWCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> StableAdamWCoefficients<R> {
        let debiased = |beta: f64| (beta.powf(t as f64) - beta) / (beta.powf(t as f64) - 1.0);
        let (beta1, beta2) = (debiased(self.betas.0), debiased(self.betas.1));
        StableAdamWCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            eps: R::of(self.eps),
            weight_decay: R::of(self.weight_decay),
            least: self.eps * self.eps,
            clip: R::one(),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &StableAdamWCoefficients<R>,
        p: R,
        g: R,
        [m, v]: [R; 2],
    ) -> (R, [R; 2]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.second(g, v);
        let u = ratio(m, v.sqrt() + c.eps) + c.weight_decay * p;
        (u * c.clip, [m, v])
    }

    /// The decay is part of the equations.
    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    #[inline(always)]
    fn measure<R: Real>(
        _: usize,
        c: &StableAdamWCoefficients<R>,
        _p: R,
        g: R,
        [_, v]: [R; 2],
    ) -> Sums {
        let (v, g) = (c.second(g, v).widen(), g.widen());
        let v = if v < c.least { c.least } else { v };
        [ratio(g * g, v), 0.0, 0.0, 0.0]
    }

    fn refine<R: Real>(&self, _: usize, measured: &TensorSums, c: &mut StableAdamWCoefficients<R>) {
        let ([sum, ..], numel) = (measured.sums, measured.numel as f64);
        if sum > numel {
            c.clip = R::of((numel / sum).sqrt());
        }
    }
}
