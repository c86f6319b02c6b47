use crate::first_order::arithmetic::{larger, lerp};
use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// AdaBound: Adam whose learning rates are kept within bounds that close around that of SGD.
///
/// *Use it when* you want Adam's fast start and the generalisation of SGD with momentum, and know the learning rate of
/// the latter. *Not when* you do not: `final_lr` is what the method ends with, whatever `lr` is.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// V = max over all steps of v, with amsgrad; else v
/// f = final_lr·γ/γ₀                       γ₀ = base_lr, or the first learning rate above 0
/// lo = f·(1 − 1/(γ_b·t + 1))              hi = f·(1 + 1/(γ_b·t))
/// η = γ·√(1 − β₂ᵗ)/(1 − β₁ᵗ) / (√(V + 1e-15) + ε), clamped to [lo, hi]
/// p ← p − η·m
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.999) | paper |
/// | `final_lr` | 0.1 | paper |
/// | `gamma` γ_b | 1e-3 | authors' code |
/// | `base_lr` γ₀ | none | authors' code: the learning rate at construction |
/// | `eps` ε | 1e-8 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | true | pytorch_optimizer; the authors' code is coupled |
/// | `amsgrad` | false | authors' code (AMSBound) |
/// | `maximize` | false | PyTorch |
///
/// A schedule of `lr` moves the bounds with it. If it begins with a warm-up, give `base_lr`.
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter; with `amsgrad` also `max_exp_avg_sq`, 12 bytes.
/// The group remembers γ₀.
///
/// # Errors
/// `build` refuses negative options, `base_lr` not above 0, and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = AdaBound { lr: 0.05, ..AdaBound::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.AdaBound`, which counts steps per group, adds 1e-15 under the root, and takes γ₀ at construction;
/// here it is taken at the first step, as `lr` may be set until then.
///
/// # Source
/// L. Luo, Y. Xiong, Y. Liu, X. Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate", ICLR 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdaBound {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Learning rate at the end, at least 0: that of SGD.
    pub final_lr: f64,
    /// How fast the bounds close, `γ_b >= 0`.
    pub gamma: f64,
    /// The learning rate `γ₀ > 0` that `final_lr` goes with; `None` for that of the first step.
    pub base_lr: Option<f64>,
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
crate::config_file::named_fields!(AdaBound);

impl Default for AdaBound {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            final_lr: 0.1,
            gamma: 1e-3,
            base_lr: None,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            amsgrad: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(AdaBound, "AdaBound", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "final_lr": NonNegative = final_lr;
    "gamma": NonNegative = gamma;
    "base_lr": OptionalPositive = base_lr;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "amsgrad": Flag = amsgrad;
    "maximize": Flag = maximize;
});

/// What a group remembers.
#[derive(Clone, Debug, Default)]
pub struct AdaBoundGroupState {
    /// The first learning rate above 0; 0 before.
    pub base_lr: f64,
}
crate::group_state!(AdaBoundGroupState { base_lr });

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdaBoundCoefficients<R> {
    one_minus_beta1: R,
    beta2: R,
    one_minus_beta2: R,
    /// `√(1 − β₂ᵗ)/(1 − β₁ᵗ)`.
    correction: R,
    eps: R,
    /// The bounds, in units of the learning rate.
    least: R,
    most: R,
}

impl Rule for AdaBound {
    type Coefficients<R: Real> = AdaBoundCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = AdaBoundGroupState;
    const SLOTS: &'static [Slot] = &[
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_sq"),
        Slot::unsigned("max_exp_avg_sq").optional(),
    ];

    fn coefficients<R: Real>(
        &self,
        t: u64,
        scalars: &AdaBoundGroupState,
    ) -> AdaBoundCoefficients<R> {
        let ((beta1, beta2), steps) = (self.betas, t as f64);
        let bias = |beta: f64| 1.0 - beta.powf(steps);
        let base = self.base_lr.unwrap_or(scalars.base_lr);
        let last = if base > 0.0 { self.final_lr / base } else { 0.0 };
        let widest = if self.gamma > 0.0 { 1.0 + 1.0 / (self.gamma * steps) } else { f64::MAX };
        AdaBoundCoefficients {
            one_minus_beta1: R::of(1.0 - beta1),
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction: R::of(bias(beta2).sqrt() / bias(beta1)),
            eps: R::of(self.eps),
            least: R::of(last * (1.0 - 1.0 / (self.gamma * steps + 1.0))),
            most: R::of(last * widest),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdaBoundCoefficients<R>,
        _p: R,
        g: R,
        [m, v, largest]: [R; 3],
    ) -> (R, [R; 3]) {
        let m = lerp(m, g, c.one_minus_beta1);
        let v = c.beta2 * v + c.one_minus_beta2 * g * g;
        // without amsgrad the slot is off and reads as 0
        let largest = larger(largest, v);
        let rate = c.correction / ((largest + R::of(1e-15)).sqrt() + c.eps);
        let rate = if rate > c.most { c.most } else { rate };
        let rate = if rate < c.least { c.least } else { rate };
        (rate * m, [m, v, largest])
    }

    fn begin(&self, _loss: Option<f64>, scalars: &mut AdaBoundGroupState) {
        if scalars.base_lr == 0.0 {
            scalars.base_lr = self.lr;
        }
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 2 || self.amsgrad
    }
}
