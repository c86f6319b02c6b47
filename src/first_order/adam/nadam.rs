use crate::first_order::arithmetic::lerp;
use crate::first_order::arithmetic::ratio;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep};

/// NAdam: Adam with Nesterov's momentum.
///
/// *Use it when* Adam works and you want its momentum to look one step ahead; early steps weigh the
/// gradient more. *Not when* a schedule or weight decay is still untuned:
/// [`AdamW`](crate::first_order::AdamW) with a tuned decay gains more.
///
/// ```text
/// g ← g + λp                      or, decoupled, p ← p·(1 − γλ)
/// μ = β₁·(1 − 0.96^(t·ψ)/2)       μ⁺ = β₁·(1 − 0.96^((t + 1)·ψ)/2)
/// Π ← Π·μ                         one number per tensor, 1 at first
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// D = √(v/(1 − β₂ᵗ)) + ε
/// p ← p − γ·((1 − μ)/(1 − Π)·g + μ⁺/(1 − Π·μ⁺)·m)/D       no step where D = 0
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 2e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | PyTorch |
/// | `eps` ε | 1e-8 | paper |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `momentum_decay` ψ | 4e-3 | paper |
/// | `decoupled_weight_decay` | false | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter; `mu_product` (Π), 8 bytes
/// per tensor.
///
/// # Errors
/// `build` refuses `lr`, `eps`, `weight_decay` or `momentum_decay` below 0 and `betas` outside
/// `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = NAdam { lr: 0.05, ..NAdam::default() }.build()?;
/// for _ in 0..300 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.NAdam`, which keeps `Π` in `f32` even for `f64` parameters: its `f64` numbers differ by
/// about 1e-9 after ten steps. The paper decays `μ` over 250 times as many steps: `0.96^(t/250)` is
/// `ψ = 4e-3`. With `eps = 0`, an element that has seen no gradient stands still; PyTorch makes it NaN.
///
/// # Source
/// T. Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct NAdam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root of the corrected second moment.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// How fast the momentum grows to its full size, `ψ >= 0`; with 0 it stays at half of it.
    pub momentum_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(NAdam);

impl Default for NAdam {
    fn default() -> Self {
        Self {
            lr: 2e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 4e-3,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(NAdam, "NAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "momentum_decay": NonNegative = momentum_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct NAdamCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    /// `1/(1 − β₂ᵗ)`.
    correction: R,
    eps: R,
    /// Weights of the gradient and of its average.
    gradient: R,
    momentum: R,
}

impl NAdam {
    /// The momentum `μ` of step `t`.
    fn mu(&self, t: u64) -> f64 {
        self.betas.0 * (1.0 - 0.5 * 0.96f64.powf(t as f64 * self.momentum_decay))
    }
}

impl Rule for NAdam {
    type Coefficients<R: Real> = NAdamCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("mu_product", 1.0)];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> NAdamCoefficients<R> {
        let (beta1, beta2) = self.betas;
        NAdamCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction: R::of(1.0 / (1.0 - beta2.powf(t as f64))),
            eps: R::of(self.eps),
            gradient: R::one(),
            momentum: R::zero(),
        }
    }

    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]) {
        if let [product] = numbers {
            *product *= self.mu(step.t);
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut NAdamCoefficients<R>,
    ) {
        if let [product] = *numbers {
            let (now, next) = (self.mu(step.t), self.mu(step.t + 1));
            c.gradient = R::of((1.0 - now) / (1.0 - product));
            c.momentum = R::of(next / (1.0 - product * next));
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &NAdamCoefficients<R>, _p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        let root = (v * c.correction).sqrt() + c.eps;
        (ratio(c.gradient * g + c.momentum * m, root), [m, v])
    }
}
