use crate::first_order::arithmetic::power;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, TensorSums};
use std::ops::Range;

/// Which form of CLASSP to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ClasspVariant {
    /// As the paper states it.
    #[default]
    Paper,
    /// As the published code computes it: the threshold is passed by the whole tensor if any element
    /// passes it, and the sum takes `|g|` whatever the power.
    AsPublished,
}

impl crate::hyper::OptionValue for ClasspVariant {
    fn get(&self) -> f64 {
        match self {
            ClasspVariant::Paper => 0.0,
            ClasspVariant::AsPublished => 1.0,
        }
    }
    fn set(&mut self, value: f64) {
        *self = if value == 0.0 { ClasspVariant::Paper } else { ClasspVariant::AsPublished };
    }
}

/// CLASSP: a generalised Adagrad that does not change weights with a small gradient.
///
/// *Use it when* a model must learn one task after another without replaying the old data: weights that
/// mattered for the first task have a large sum and move little, the others can still change. *Not when*
/// there is only one task: it is then slower than [`Adagrad`](crate::first_order::Adagrad).
///
/// ```text
/// where g² > θ:   A ← A + |g|^q
///                 p ← p − γ·g/(ε + A)^(1/q)
/// elsewhere nothing changes
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 0.2 | published code |
/// | `threshold` θ | 0.5 | published code; on the squared gradient |
/// | `eps` ε | 1e-5 | published code (`epsilon`) |
/// | `power` q | 1 | published code |
/// | `scaling` | true | published code (`apply_scaling`): divide by the sum |
/// | `variant` | `Paper` | – |
/// | `maximize` | false | PyTorch |
///
/// Both `threshold` and `lr` may change from step to step (`set_option`), as the paper's experiments
/// do between phases. State: `grad_sum` (A), 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `threshold` or `eps` below 0 and `power` not above 0.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0];
/// let mut opt = Classp { lr: 0.1, threshold: 0.5, eps: 0.0, ..Classp::default() }.build()?;
/// opt.step(&mut w, &array![0.5, 2.0])?; // 0.25 is below the threshold
/// assert_eq!(w, array![1.0, 0.9]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The paper and its code differ in three ways. `variant` chooses between two of them; the third, options
/// that leak from one parameter group into the next, is not offered. With power 2 and threshold 0 the rule
/// is Adagrad with `ε` inside the root. With powers other than 1 and 2, roots are computed by `powf`, whose
/// last bit may differ between platforms.
///
/// # Source
/// O. Ludwig, "CLASSP: a Biologically-Inspired Approach to Continual Learning through Adjustment
/// Suppression and Sparsity Promotion", 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Classp {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Threshold `θ >= 0` on the squared gradient; strict.
    pub threshold: f64,
    /// Stabiliser `ε >= 0`, added to the sum before the root.
    pub eps: f64,
    /// Power `q > 0`.
    pub power: f64,
    /// Divide by the root of the sum; else plain gradient descent above the threshold.
    pub scaling: bool,
    /// The paper's form, or the published code's.
    pub variant: ClasspVariant,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Classp);

impl Default for Classp {
    fn default() -> Self {
        Self {
            lr: 0.2,
            threshold: 0.5,
            eps: 1e-5,
            power: 1.0,
            scaling: true,
            variant: ClasspVariant::Paper,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Classp, "Classp", {
    "lr": NonNegative = lr;
    "threshold": NonNegative = threshold;
    "eps": NonNegative = eps;
    "power": Positive = power;
    "scaling": Flag = scaling;
    "variant": Choice(&["Paper", "AsPublished"]) = variant;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct ClasspCoefficients<R> {
    threshold: R,
    eps: R,
    inverse_power: R,
    scaling: bool,
    /// Power of `|g|` in the sum: the code's is always 1.
    term_power: R,
    /// Whether the tensor's largest gradient decides for all elements.
    everywhere: bool,
}

impl Rule for Classp {
    type Coefficients<R: Real> = ClasspCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::unsigned("grad_sum")];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> ClasspCoefficients<R> {
        let published = self.variant == ClasspVariant::AsPublished;
        ClasspCoefficients {
            threshold: R::of(self.threshold),
            eps: R::of(self.eps),
            inverse_power: R::of(1.0 / self.power),
            scaling: self.scaling,
            term_power: R::of(if published { 1.0 } else { self.power }),
            everywhere: false,
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &ClasspCoefficients<R>, _p: R, g: R, [sum]: [R; 1]) -> (R, [R; 1]) {
        let passes = c.everywhere || g * g > c.threshold;
        let new_sum = sum + power(g.abs(), c.term_power);
        let divisor = if c.scaling { power(c.eps + new_sum, c.inverse_power) } else { R::one() };
        // a NaN is not above the threshold, but must not be hidden
        if passes || g.is_nan() { (g / divisor, [new_sum]) } else { (R::zero(), [sum]) }
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn passes(&self) -> Range<usize> {
        if self.variant == ClasspVariant::AsPublished { 0..1 } else { 0..0 }
    }

    /// Counts the elements above the threshold.
    #[inline(always)]
    fn measure<R: Real>(_: usize, c: &ClasspCoefficients<R>, _p: R, g: R, _: [R; 1]) -> Sums {
        [if g * g > c.threshold { 1.0 } else { 0.0 }, 0.0, 0.0, 0.0]
    }

    fn refine<R: Real>(&self, _: usize, measured: &TensorSums, c: &mut ClasspCoefficients<R>) {
        let [above, ..] = measured.sums;
        c.everywhere = above > 0.0;
        if !c.everywhere {
            c.threshold = R::infinity();
        }
    }
}
