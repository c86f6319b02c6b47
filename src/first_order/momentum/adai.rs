use crate::first_order::arithmetic::ratio;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot};
use crate::state::SlotInit;
use std::ops::Range;

/// Adai: momentum whose inertia is adapted element by element, with one learning rate for all.
///
/// *Use it when* you want flat minima, as SGD with momentum finds, and faster ways out of saddle points. *Not when*
/// elements need learning rates of their own, as in transformers: it scales the inertia, not the steps.
///
/// ```text
/// g ← g + λp                              or, decoupled, p ← p·(1 − γλ)
/// v ← β₂·v + (1 − β₂)·g²
/// v̂ = v/(1 − β₂ᵗ)
/// v̄ = mean of v̂ over all elements of all tensors
/// β₁ = 1 − β₀·v̂/v̄, clamped to [0, 1 − ε]
/// m ← β₁·m + (1 − β₁)·g
/// Π ← Π·β₁                                1 at first
/// p ← p − γ·m/(1 − Π)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer; the paper takes that of SGD with momentum |
/// | `betas` β₀, β₂ | (0.1, 0.99) | paper |
/// | `eps` ε | 1e-3 | paper |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code; true is AdaiW |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), `exp_avg_sq` (v) and `beta1_prod` (Π), 12 bytes per `f32` parameter. One more pass over memory.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0, a β₀ below 0, and β₂ or `eps` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = Adai { lr: 0.2, ..Adai::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code. `pytorch_optimizer.Adai` also keeps v̄ above ε, so that small gradients have more inertia; here
/// only their ratios count, as in the paper. It counts steps per group. The mean is summed in `f64`, over the parameters
/// that have a gradient.
///
/// # Source
/// Z. Xie, X. Wang, H. Zhang, I. Sato, M. Sugiyama, "Adaptive Inertia: Disentangling the Effects of Adaptive Learning
/// Rate and Momentum", ICML 2022.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adai {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Strength `β₀ >= 0` of the adaptation, and decay rate of the second moment, in `[0, 1)`.
    pub betas: (f64, f64),
    /// Least part `ε` of the gradient in its average, in `[0, 1)`.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adai);

impl Default for Adai {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.1, 0.99),
            eps: 1e-3,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Adai, "Adai", {
    "lr": NonNegative = lr;
    "betas.0": NonNegative = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": UnitHalfOpen = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdaiCoefficients<R> {
    beta2: R,
    one_minus_beta2: R,
    /// `1/(1 − β₂ᵗ)`.
    correction: R,
    /// `β₀/(1 − β₂ᵗ)`.
    strength: R,
    /// `v̄`.
    mean: R,
    /// `1 − ε`.
    most: R,
}

/// What a step knows of all gradients together.
#[derive(Clone, Debug, Default)]
pub struct AdaiGroupState {
    /// `v̄` of this step.
    mean: f64,
}
crate::group_state!(AdaiGroupState {});

impl<R: Real> AdaiCoefficients<R> {
    #[inline(always)]
    fn second(&self, g: R, v: R) -> R {
        self.beta2 * v + self.one_minus_beta2 * g * g
    }
}

impl Rule for Adai {
    type Coefficients<R: Real> = AdaiCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = AdaiGroupState;
    const SLOTS: &'static [Slot] =
        &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq"), Slot::unsigned("beta1_prod")];

    fn coefficients<R: Real>(&self, t: u64, scalars: &AdaiGroupState) -> AdaiCoefficients<R> {
        let (beta0, beta2) = self.betas;
        let bias = 1.0 - beta2.powf(t as f64);
        AdaiCoefficients {
            beta2: R::of(beta2),
            one_minus_beta2: R::of(1.0 - beta2),
            correction: R::of(1.0 / bias),
            strength: R::of(beta0 / bias),
            mean: R::of(scalars.mean),
            most: R::of(1.0 - self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdaiCoefficients<R>,
        _p: R,
        g: R,
        [m, v, product]: [R; 3],
    ) -> (R, [R; 3]) {
        let v = c.second(g, v);
        let beta = R::one() - ratio(c.strength * v, c.mean);
        let beta = if beta < R::zero() { R::zero() } else { beta };
        let beta = if beta > c.most { c.most } else { beta };
        let m = beta * m + (R::one() - beta) * g;
        let product = product * beta;
        (ratio(m, R::one() - product), [m, v, product])
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        SlotInit::Value(if slot == 2 { 1.0 } else { 0.0 })
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    /// `v̂`, and the number of elements.
    #[inline(always)]
    fn measure<R: Real>(_: usize, c: &AdaiCoefficients<R>, _p: R, g: R, [_, v, _]: [R; 3]) -> Sums {
        [(c.second(g, v) * c.correction).widen(), 1.0, 0.0, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut AdaiGroupState) {
        let [sum, elements, ..] = *total;
        scalars.mean = if elements > 0.0 { sum / elements } else { 0.0 };
    }
}
