use crate::first_order::arithmetic::lerp;
use crate::numeric::Real;
use crate::optim::{Rule, Slot};

/// QHM, quasi-hyperbolic momentum: a weighted mean of the gradient and of its average.
///
/// *Use it when* you would use SGD with momentum, and want a long memory without its sluggishness: the gradient itself
/// keeps a share. *Not when* the parameters need learning rates of their own: [`QhAdam`](crate::first_order::QhAdam).
///
/// ```text
/// g ← g + λp                              or, decoupled, p ← p·(1 − γλ)
/// m ← m + (1 − β)·(g − m)
/// p ← p − γ·((1 − ν)·g + ν·m)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer; the paper begins with 1 |
/// | `momentum` β | 0.999 | paper |
/// | `nu` ν | 0.7 | paper |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// `m` is an average, not a sum: SGD with momentum β is `nu = 1` with a learning rate `1/(1 − β)` times as large.
/// With `nu = 0` it is gradient descent.
///
/// State: `momentum_buffer` (m), 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0, `momentum` outside `[0, 1)` and `nu` outside `[0, 1]`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64];
/// let mut opt = Qhm { lr: 1.0, momentum: 0.5, nu: 0.5, ..Qhm::default() }.build()?;
/// opt.step(&mut w, &array![1.0])?; // 0.5·1 + 0.5·0.5
/// assert_eq!(w[0], 1.25);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code, and as `pytorch_optimizer.QHM`, whose defaults β = 0, ν = 1 are gradient descent. Nesterov's
/// momentum is `nu` = `momentum`.
///
/// # Source
/// J. Ma, D. Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Qhm {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rate `β` of the average, in `[0, 1)`.
    pub momentum: f64,
    /// Share `ν` of the average in the step, in `[0, 1]`.
    pub nu: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Qhm);

impl Default for Qhm {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.999,
            nu: 0.7,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Qhm, "Qhm", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "nu": Unit = nu;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct QhmCoefficients<R> {
    one_minus_beta: R,
    one_minus_nu: R,
    nu: R,
}

impl Rule for Qhm {
    type Coefficients<R: Real> = QhmCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("momentum_buffer")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> QhmCoefficients<R> {
        QhmCoefficients {
            one_minus_beta: R::of(1.0 - self.momentum),
            one_minus_nu: R::of(1.0 - self.nu),
            nu: R::of(self.nu),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &QhmCoefficients<R>, _p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = lerp(m, g, c.one_minus_beta);
        (c.one_minus_nu * g + c.nu * m, [m])
    }
}
