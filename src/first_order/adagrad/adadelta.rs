use crate::first_order::arithmetic::ratio;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// Adadelta: steps in the units of the parameters, without a learning rate to tune.
///
/// *Use it when* you reproduce results made with it, or have parameters in units of their own and no time to tune.
/// *Not when* you can tune a learning rate: the first steps have the size `√ε`, whatever the problem, and
/// [`AdamW`](crate::first_order::AdamW) is faster.
///
/// ```text
/// g ← g + λp
/// s ← ρ·s + (1 − ρ)·g²
/// d = √(a + ε)/√(s + ε) · g                0 where s + ε = 0
/// a ← ρ·a + (1 − ρ)·d²
/// p ← p − γ·d
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | paper, which has none |
/// | `rho` ρ | 0.9 | PyTorch |
/// | `eps` ε | 1e-6 | paper |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// State: `square_avg` (s) and `acc_delta` (a), 8 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0 and `rho` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = Adadelta { rho: 0.75, eps: 0.01, ..Adadelta::default() }.build()?;
/// opt.step(&mut w, &array![4.0])?; // s = 0.25·16, so 1 − √0.01/√4.01·4
/// assert!((w[0] - (1.0 - 0.4 / 4.01f64.sqrt())).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.Adadelta`, which allows ρ = 1. The average of steps leaves the learning rate out. With
/// `eps = 0` nothing ever moves: the size of the first step is `√ε`.
///
/// # Source
/// M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adadelta {
    /// Factor `γ >= 0` on the steps.
    pub lr: f64,
    /// Decay rate `ρ` of both averages, in `[0, 1)`.
    pub rho: f64,
    /// Stabiliser `ε >= 0` inside both roots; its root is the size of the first steps.
    pub eps: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adadelta);

impl Default for Adadelta {
    fn default() -> Self {
        Self { lr: 1.0, rho: 0.9, eps: 1e-6, weight_decay: 0.0, maximize: false }
    }
}

crate::hyperparameters!(Adadelta, "Adadelta", {
    "lr": NonNegative = lr;
    "rho": UnitHalfOpen = rho;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdadeltaCoefficients<R> {
    rho: R,
    one_minus_rho: R,
    eps: R,
}

impl Rule for Adadelta {
    type Coefficients<R: Real> = AdadeltaCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::unsigned("square_avg"), Slot::unsigned("acc_delta")];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> AdadeltaCoefficients<R> {
        AdadeltaCoefficients {
            rho: R::of(self.rho),
            one_minus_rho: R::of(1.0 - self.rho),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AdadeltaCoefficients<R>, _p: R, g: R, [s, a]: [R; 2]) -> (R, [R; 2]) {
        let s = c.rho * s + c.one_minus_rho * g * g;
        let d = ratio((a + c.eps).sqrt(), (s + c.eps).sqrt()) * g;
        let a = c.rho * a + c.one_minus_rho * d * d;
        (d, [s, a])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }
}
