use crate::first_order::arithmetic::{cube_root, ratio};
use crate::numeric::Real;
use crate::optim::{Apply, Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// MADGRAD: dual averaging with momentum: Adagrad with a cube root, counted from the starting point.
///
/// *Use it when* Adam generalises worse than SGD, or gradients are sparse: it has done well in vision, MRI and language.
/// *Not when* you rely on weight decay tuned for another method: here it needs to be much smaller.
///
/// ```text
/// g ← g + λp                              decoupled: p ← p·(1 − (γ + ε)·λ), in place of it
/// w = (γ + ε)·√t                          0 if γ = 0
/// S ← S + w·g²
/// s ← s + w·g
/// z = x₀ − s/(∛S + ε)                     x₀: the parameter before the first step
/// p ← p + (1 − μ)·(z − p)                 p: before the decay, in z − p
/// ```
/// With `momentum = 0`, `x₀` is not stored, but found from `p` and the old sums: `x₀ = p + s/(∛S + ε)`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | authors' code |
/// | `momentum` μ | 0.9 | authors' code |
/// | `eps` ε | 1e-6 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `grad_sum_sq` (S), `s` and `x0`, 12 bytes per `f32` parameter; without momentum 8 bytes.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `momentum` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = MadGrad { lr: 0.5, ..MadGrad::default() }.build()?;
/// for _ in 0..1000 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code, and as `pytorch_optimizer.MADGRAD`: both add ε to the learning rate, and count steps for the whole
/// optimizer; here every parameter counts its own. The cube root is computed by square roots and divisions alone, to a few
/// units in the last place, so that it is the same on every machine. With `eps = 0`, an element that has seen no gradient
/// stands still.
///
/// # Source
/// A. Defazio, S. Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient Method for
/// Stochastic Optimization", JMLR 23, 2022.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct MadGrad {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Momentum `μ` in `[0, 1)`: how much of the way to `z` is left.
    pub momentum: f64,
    /// Stabiliser `ε >= 0`, added to the cube root and to the learning rate.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(MadGrad);

impl Default for MadGrad {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            momentum: 0.9,
            eps: 1e-6,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(MadGrad, "MadGrad", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct MadGradCoefficients<R> {
    /// `w`.
    weight: R,
    eps: R,
    one_minus_momentum: R,
    /// Whether the starting point is found from the sums.
    unstored: bool,
}

impl MadGrad {
    /// `γ + ε`, as the authors have it.
    fn rate(&self) -> f64 {
        if self.lr > 0.0 { self.lr + self.eps } else { 0.0 }
    }
}

impl Rule for MadGrad {
    type Coefficients<R: Real> = MadGradCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] =
        &[Slot::unsigned("grad_sum_sq"), Slot::signed("s"), Slot::iterate("x0").optional()];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> MadGradCoefficients<R> {
        MadGradCoefficients {
            weight: R::of(self.rate() * (t as f64).sqrt()),
            eps: R::of(self.eps),
            one_minus_momentum: R::of(1.0 - self.momentum),
            unstored: self.momentum == 0.0,
        }
    }

    /// The way from the new point back to the old one.
    #[inline(always)]
    fn direction<R: Real>(
        c: &MadGradCoefficients<R>,
        p: R,
        g: R,
        [squares, sum, start]: [R; 3],
    ) -> (R, [R; 3]) {
        let far = |squares: R, sum: R| ratio(sum, cube_root(squares) + c.eps);
        let start = if c.unstored { p + far(squares, sum) } else { start };
        let squares = squares + c.weight * g * g;
        let sum = sum + c.weight * g;
        let z = start - far(squares, sum);
        (c.one_minus_momentum * (p - z), [squares, sum, start])
    }

    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &MadGradCoefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: [R; 3],
    ) -> (R, [R; 3]) {
        let (u, s) = Self::direction(c, p, g, s);
        (p * a.shrink - u, s)
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Independent(self.rate() * self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 2 || self.momentum > 0.0
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot == 2 { SlotInit::Parameter } else { SlotInit::Value(0.0) }
    }
}
