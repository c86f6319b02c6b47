use crate::first_order::arithmetic::lerp;
use crate::kernel::Sums;
use crate::numeric::{Real, sign};
use crate::optim::{Rule, Slot, TensorSums, WeightDecay};
use std::ops::Range;

/// Lion: the sign of an interpolation between momentum and gradient.
///
/// *Use it when* memory is scarce: it keeps one slot, and 8-bit and 4-bit state hurt it least of all rules,
/// since only signs of the momentum reach the weights. *Not when* batches are small. Take AdamW's learning
/// rate divided by 3 to 10, and its weight decay multiplied by the same factor.
///
/// ```text
/// p ← p·(1 − γλ)
/// u = sign(m + (1 − β₁)·(g − m))          sign(0) = 0
/// u ← u·[u·g > 0] · n/(Σ[u·g > 0] + 1)    cautious; n elements in the tensor
/// m ← m + (1 − β₂)·(g − m)
/// p ← p − γ·u
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-4 | paper |
/// | `betas` β₁, β₂ | (0.9, 0.99) | paper |
/// | `weight_decay` λ | 0 | paper's code |
/// | `decoupled_weight_decay` | true | paper |
/// | `cautious` | false | paper |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0, 1.0];
/// let mut opt = Lion { lr: 0.25, ..Lion::default() }.build()?;
/// opt.step(&mut w, &array![100.0, -0.001, 0.0])?; // only signs count
/// assert_eq!(w, array![0.75, 1.25, 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code. `cautious` needs one more pass over the tensor, for the count.
///
/// # Source
/// X. Chen and others, "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023; cautious: K.
/// Liang, L. Chen, B. Liu, Q. Liu, "Cautious Optimizers: Improving Training with One Line of Code",
/// 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Lion {
    /// Learning rate `γ >= 0`: the size of every step.
    pub lr: f64,
    /// Weights of the momentum in the update and in its own average, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Weight decay `λ >= 0`, decoupled by default.
    pub weight_decay: f64,
    /// Decay the weights directly; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Leave out steps that go against the current gradient.
    pub cautious: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Lion);

impl Default for Lion {
    fn default() -> Self {
        Self {
            lr: 1e-4,
            betas: (0.9, 0.99),
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            cautious: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Lion, "Lion", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "cautious": Flag = cautious;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct LionCoefficients<R> {
    one_minus_beta1: R,
    one_minus_beta2: R,
    /// Factor on steps that agree with the gradient; the others are left out.
    agree: R,
    cautious: bool,
}

impl<R: Real> LionCoefficients<R> {
    #[inline(always)]
    fn sign(&self, g: R, m: R) -> R {
        sign(lerp(m, g, self.one_minus_beta1))
    }
}

impl Rule for Lion {
    type Coefficients<R: Real> = LionCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> LionCoefficients<R> {
        LionCoefficients {
            one_minus_beta1: R::of(1.0 - self.betas.0),
            one_minus_beta2: R::of(1.0 - self.betas.1),
            agree: R::one(),
            cautious: self.cautious,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &LionCoefficients<R>, _p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let u = c.sign(g, m);
        let m = lerp(m, g, c.one_minus_beta2);
        if !c.cautious {
            return (u, [m]);
        }
        let agrees = u * g > R::zero();
        (if agrees || u.is_nan() { u * c.agree } else { R::zero() }, [m])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn passes(&self) -> Range<usize> {
        if self.cautious { 0..1 } else { 0..0 }
    }

    /// Counts the elements whose step agrees with the gradient.
    #[inline(always)]
    fn measure<R: Real>(_: usize, c: &LionCoefficients<R>, _p: R, g: R, [m]: [R; 1]) -> Sums {
        let agrees = if c.sign(g, m) * g > R::zero() { 1.0 } else { 0.0 };
        [agrees, 0.0, 0.0, 0.0]
    }

    fn refine<R: Real>(&self, _: usize, measured: &TensorSums, c: &mut LionCoefficients<R>) {
        let [agreeing, ..] = measured.sums;
        c.agree = R::of(measured.numel as f64 / (agreeing + 1.0));
    }
}
