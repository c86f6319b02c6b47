use crate::first_order::arithmetic::{lerp, ratio};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorStep};

/// QHAdam: Adam with quasi-hyperbolic moments, each a weighted mean of what is new and of its average.
///
/// *Use it when* Adam is unstable early and you want two more numbers to tune: `nus` (0.7, 1) with a β₁ of 0.995 is
/// the paper's choice. *Not when* you do not tune them: with the default (1, 1) it is Adam.
///
/// ```text
/// g ← g + λp                              or, decoupled, p ← p·(1 − γλ)
/// wᵢ ← βᵢ·wᵢ + 1                          two numbers per tensor
/// m ← m + (g − m)/w₁
/// v ← v + (g² − v)/w₂
/// p ← p − γ · ((1 − ν₁)·g + ν₁·m)/(√((1 − ν₂)·g² + ν₂·v) + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | authors' code |
/// | `betas` β₁, β₂ | (0.9, 0.999) | authors' code |
/// | `nus` ν₁, ν₂ | (1, 1) | authors' code |
/// | `eps` ε | 1e-8 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `decoupled_weight_decay` | false | authors' code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter; `beta1_weight` and `beta2_weight` (w), 16 bytes
/// per tensor.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0, `betas` outside `[0, 1)` and `nus` outside `[0, 1]`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![2.0f64, -3.0];
/// let mut opt = QhAdam { lr: 0.05, nus: (0.7, 1.0), ..QhAdam::default() }.build()?;
/// for _ in 0..500 {
///     let grad = &w * 2.0; // of ‖w‖²
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-2));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code, and as `pytorch_optimizer.QHAdam`, which keeps the weights in `f32`. The moments are unbiased by
/// their weights, so that ε is added to the unbiased root, as in Adam. With `eps = 0`, an element that has seen no
/// gradient stands still.
///
/// # Source
/// J. Ma, D. Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct QhAdam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Shares of the averages in the first and second moment, each in `[0, 1]`.
    pub nus: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Weight decay `λ >= 0`, coupled unless `decoupled_weight_decay`.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(QhAdam);

impl Default for QhAdam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            nus: (1.0, 1.0),
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(QhAdam, "QhAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "nus.0": Unit = nus.0;
    "nus.1": Unit = nus.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct QhAdamCoefficients<R> {
    /// `1/w₁` and `1/w₂`.
    newest: R,
    newest_square: R,
    nu1: R,
    one_minus_nu1: R,
    nu2: R,
    one_minus_nu2: R,
    eps: R,
}

impl Rule for QhAdam {
    type Coefficients<R: Real> = QhAdamCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];
    const TENSOR_SLOTS: &'static [(&'static str, f64)] =
        &[("beta1_weight", 0.0), ("beta2_weight", 0.0)];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> QhAdamCoefficients<R> {
        let (nu1, nu2) = self.nus;
        QhAdamCoefficients {
            newest: R::one(),
            newest_square: R::one(),
            nu1: R::of(nu1),
            one_minus_nu1: R::of(1.0 - nu1),
            nu2: R::of(nu2),
            one_minus_nu2: R::of(1.0 - nu2),
            eps: R::of(self.eps),
        }
    }

    fn begin_tensor(&self, _: &TensorStep<'_>, numbers: &mut [f64]) {
        if let [first, second] = numbers {
            *first = self.betas.0 * *first + 1.0;
            *second = self.betas.1 * *second + 1.0;
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        _: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut QhAdamCoefficients<R>,
    ) {
        if let [first, second] = *numbers {
            c.newest = R::of(1.0 / first);
            c.newest_square = R::of(1.0 / second);
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &QhAdamCoefficients<R>, _p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let square = g * g;
        let m = lerp(m, g, c.newest);
        let v = lerp(v, square, c.newest_square);
        let root = (c.one_minus_nu2 * square + c.nu2 * v).sqrt() + c.eps;
        (ratio(c.one_minus_nu1 * g + c.nu1 * m, root), [m, v])
    }
}
