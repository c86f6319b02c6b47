use crate::kernel::Sums;
use crate::numeric::Real;
use crate::numeric::range::finite_of;
use crate::optim::{Apply, Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// Fromage: every step is as long as a share of the weights, tensor by tensor, and their growth is undone.
///
/// *Use it when* one learning rate is to do for all layers and models: it is the relative change of every tensor per
/// step. *Not when* weights have to grow far from their start, as embeddings do.
///
/// ```text
/// s = ‖p‖/‖g‖                              1 if either norm is 0
/// p ← (p − γ·s·g)/√(1 + γ²)
/// p ← p·min(1, P/‖p‖)                      with p_bound; P = p_bound·‖p‖ before the first step
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | paper |
/// | `p_bound` | `None` | paper |
/// | `maximize` | false | PyTorch |
///
/// State: `max` (P), 8 bytes per tensor. One pass more over memory per step, two with `p_bound`.
///
/// # Errors
/// `build` refuses `lr` or `p_bound` below 0.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![3.0f64, 4.0]; // norm 5
/// let mut opt = Fromage { lr: 0.75, ..Fromage::default() }.build()?;
/// opt.step(&mut w, &array![-40.0, 30.0])?; // at a right angle: the norm stays
/// assert!((w[0] - 4.8).abs() < 1e-12 && (w[1] - 1.4).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.Fromage` and the authors' code: where a norm is 0, the step is that of gradient descent. A
/// `p_bound` that is set later counts from the weights at that time.
///
/// # Source
/// J. Bernstein, A. Vahdat, Y. Yue, M.-Y. Liu, "On the distance between two neural networks and the stability of
/// learning", NeurIPS 2020.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Fromage {
    /// Learning rate `γ >= 0`: the relative change of a tensor per step.
    pub lr: f64,
    /// Largest norm of a tensor as a multiple `>= 0` of its first one; `None` for no limit.
    pub p_bound: Option<f64>,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Fromage);

impl Default for Fromage {
    fn default() -> Self {
        Self { lr: 1e-2, p_bound: None, maximize: false }
    }
}

crate::hyperparameters!(Fromage, "Fromage", {
    "lr": NonNegative = lr;
    "p_bound": OptionalNonNegative = p_bound;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct FromageCoefficients<R> {
    /// `‖p‖/‖g‖`, known after the first pass.
    ratio: R,
    lr: R,
    /// `1/√(1 + γ²)`; times the factor that keeps the norm within its bound after the second pass.
    shrink: R,
    /// Largest norm, or infinity.
    largest: f64,
}

const NORMS: usize = 0;
const BOUND: usize = 1;

impl Rule for Fromage {
    type Coefficients<R: Real> = FromageCoefficients<R>;
    type State<R: Real> = [R; 0];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[];
    /// Below 0 before there is a bound.
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[("max", -1.0)];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> FromageCoefficients<R> {
        FromageCoefficients {
            ratio: R::one(),
            lr: R::of(self.lr),
            shrink: R::of(1.0 / (1.0 + self.lr * self.lr).sqrt()),
            largest: f64::INFINITY,
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        _: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut FromageCoefficients<R>,
    ) {
        if let [largest] = *numbers
            && largest >= 0.0
        {
            c.largest = largest;
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &FromageCoefficients<R>, _p: R, g: R, s: [R; 0]) -> (R, [R; 0]) {
        (c.ratio * g, s)
    }

    /// The step shrinks the parameter.
    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &FromageCoefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: [R; 0],
    ) -> (R, [R; 0]) {
        let (u, s) = Self::direction(c, p, g, s);
        ((p * a.shrink - a.lr * u) * c.shrink, s)
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn passes(&self) -> Range<usize> {
        if self.p_bound.is_some() { NORMS..BOUND + 1 } else { NORMS..NORMS + 1 }
    }

    #[inline(always)]
    fn measure<R: Real>(pass: usize, c: &FromageCoefficients<R>, p: R, g: R, _: [R; 0]) -> Sums {
        let square = |x: R| x.widen() * x.widen();
        if pass == NORMS {
            return [square(p), square(g), 0.0, 0.0];
        }
        [square((p - c.lr * (c.ratio * g)) * c.shrink), 0.0, 0.0, 0.0]
    }

    fn absorb(&self, pass: usize, measured: &TensorSums, _: &TensorStep<'_>, numbers: &mut [f64]) {
        let ([squares, ..], [largest]) = (measured.sums, numbers) else { return };
        if let Some(bound) = self.p_bound.filter(|_| pass == NORMS && *largest < 0.0) {
            *largest = bound * squares.sqrt();
        }
    }

    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut FromageCoefficients<R>) {
        let [first, second, ..] = measured.sums.map(f64::sqrt);
        if pass == NORMS {
            if first > 0.0 && second > 0.0 {
                // gradients that vanish have ratios beyond the range
                c.ratio = finite_of(first / second);
            }
        } else if first > c.largest {
            c.shrink *= R::of(c.largest / first);
        }
    }
}
