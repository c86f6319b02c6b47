use crate::first_order::arithmetic::{lerp, ratio};
use crate::first_order::rectification::rectification;
use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// RAdam: Adam that does not divide by its second moment before it has seen enough gradients.
///
/// *Use it when* Adam needs a warm-up of the learning rate and you do not want to tune one. *Not when* you have
/// a schedule with a warm-up: [`AdamW`](crate::first_order::AdamW) then does the same.
///
/// ```text
/// g ← g + λp                      or, decoupled, p ← p·(1 − γλ)
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// m̂ = m/(1 − β₁ᵗ)
/// ρ∞ = 2/(1 − β₂) − 1             ρ = ρ∞ − 2t·β₂ᵗ/(1 − β₂ᵗ)
/// r = √((ρ − 4)·(ρ − 2)·ρ∞/((ρ∞ − 4)·(ρ∞ − 2)·ρ))
/// p ← p − γ·r·√(1 − β₂ᵗ)·m̂/(√v + ε)       if ρ > 5; no step where √v + ε = 0
/// p ← p − γ·m̂                             otherwise
/// ```
/// With β₂ = 0.999 the first five steps are those of momentum; with β₂ ≤ 0.6 all are.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | PyTorch |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `decoupled_weight_decay` | false | PyTorch |
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
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = RAdam { lr: 0.05, ..RAdam::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.RAdam`: the bound of ρ is 5, as in the authors' code, where the paper has 4; `ε` is added before
/// the factor √(1 − β₂ᵗ), not after it as in [`Adam`](crate::first_order::Adam). Some packages take no step, or one
/// upwards, while ρ is small. With `eps = 0`, an element that has seen no gradient stands still; PyTorch makes it
/// NaN.
///
/// # Source
/// L. Liu and others, "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct RAdam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root of the uncorrected second moment.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(RAdam);

impl Default for RAdam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(RAdam, "RAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct RAdamCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    eps: R,
    /// Factor on the first moment: `r·√(1 − β₂ᵗ)/(1 − β₁ᵗ)`, or `1/(1 − β₁ᵗ)`.
    scale: R,
    /// Whether the step is divided by the root of the second moment.
    adaptive: bool,
}

impl Rule for RAdam {
    type Coefficients<R: Real> = RAdamCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> RAdamCoefficients<R> {
        let (beta1, beta2) = self.betas;
        let bias = |beta: f64| 1.0 - beta.powf(t as f64);
        let (length, factor) = rectification(beta2, t);
        // else the second moment is not to be trusted yet
        let rectified = (length > 5.0).then(|| factor * bias(beta2).sqrt());
        RAdamCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            eps: R::of(self.eps),
            scale: R::of(rectified.unwrap_or(1.0) / bias(beta1)),
            adaptive: rectified.is_some(),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &RAdamCoefficients<R>, _p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        let root = if c.adaptive { v.sqrt() + c.eps } else { R::one() };
        (ratio(m * c.scale, root), [m, v])
    }
}
