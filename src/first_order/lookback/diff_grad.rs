use crate::first_order::arithmetic::{larger, lerp, sigmoid};
use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// DiffGrad: Adam that slows down where the gradient does not change.
///
/// *Use it when* Adam overshoots near a minimum: there the gradient changes little from step to step, and the step
/// is halved. *Not when* gradients are much smaller than 1 everywhere: then every step is about half of Adam's, and
/// nothing else changes.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// V = max over all steps of v, with amsgrad; else v
/// ξ = 1/(1 + e^(−|g′ − g|))               g′: the gradient of the step before, 0 at first
/// p ← p − γ·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · ξ·m/(√(V + 1e-15) + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | paper |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | true | pytorch_optimizer; the authors' code is coupled |
/// | `amsgrad` | false | pytorch_optimizer |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), `exp_avg_sq` (v) and `previous_grad` (g′), 12 bytes per `f32` parameter; with `amsgrad` also
/// `max_exp_avg_sq`, 16 bytes.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = DiffGrad { lr: 0.05, ..DiffGrad::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.DiffGrad`, which counts steps per group, and adds 1e-15 under the root. The function ξ is
/// computed to a few units in the last place by multiplications alone, so that it is the same on every machine. Its
/// argument has the unit of the gradient, so that scaled gradients give other steps.
///
/// # Source
/// S. R. Dubey and others, "diffGrad: An Optimization Method for Convolutional Neural Networks", IEEE Transactions on
/// Neural Networks and Learning Systems 31, 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct DiffGrad {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(DiffGrad);

impl Default for DiffGrad {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            amsgrad: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(DiffGrad, "DiffGrad", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "amsgrad": Flag = amsgrad;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct DiffGradCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    /// `√(1 − β₂ᵗ)/(1 − β₁ᵗ)`.
    correction: R,
    eps: R,
}

impl Rule for DiffGrad {
    type Coefficients<R: Real> = DiffGradCoefficients<R>;
    type State<R: Real> = [R; 4];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_sq"),
        Slot::signed("previous_grad"),
        Slot::unsigned("max_exp_avg_sq").optional(),
    ];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> DiffGradCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        DiffGradCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction: R::of(bias(beta2).sqrt() / bias(beta1)),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &DiffGradCoefficients<R>,
        _p: R,
        g: R,
        [m, v, before, largest]: [R; 4],
    ) -> (R, [R; 4]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        // without amsgrad the slot is off and reads as 0
        let largest = larger(largest, v);
        let friction = sigmoid((before - g).abs());
        let root = (largest + R::of(1e-15)).sqrt() + c.eps;
        (friction * m * c.correction / root, [m, v, g, largest])
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 3 || self.amsgrad
    }
}
