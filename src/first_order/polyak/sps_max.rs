use super::model::smaller;
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, Slot};
use std::ops::Range;

/// SPS_max: gradient descent with the stochastic Polyak step size, at most `lr` long.
///
/// *Use it when* the smallest value of the loss is known, such as 0 for a model that can fit its data: the
/// step size then needs no tuning. *Not when* it is not, or the loss of a batch has a floor that the model
/// cannot reach: steps become too long near the minimum, up to `lr`.
///
/// ```text
/// η = (f − f*)/(c·‖g‖² + ε)      ‖g‖ over all tensors; 0 where f <= f* or g = 0
/// η ← min(η, γ)
/// η ← min(η, growth_rate·η′)     η′: the last step size that was not 0, init_step_size at first
/// p ← p − η·g
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1 | optax (`max_learning_rate`); the paper's γ_b |
/// | `c` | 0.5 | paper |
/// | `lower_bound` f* | 0 | paper |
/// | `growth_rate` | ∞ (off) | – |
/// | `init_step_size` | 1 | authors' code |
/// | `eps` ε | 1e-8 | authors' code |
/// | `maximize` | false | PyTorch |
///
/// `growth_rate` smooths the step size; the authors take `2^(b/n)` for `n/b` steps per epoch, and then no
/// bound `lr`: set it high. With `maximize` loss and gradient are negated first, and `lower_bound` is that
/// of the negated loss.
///
/// State: none per parameter. Per group, the step size ([`SpsMaxGroupState`]).
///
/// # Errors
/// `build` refuses `lr` or `eps` below 0, `c` or `init_step_size` not above 0, `lower_bound` that is not finite, and
/// `growth_rate` below 1. A step without a loss is [`Error::MissingInput`](crate::Error::MissingInput), one
/// with a loss that is not finite [`Error::NonFiniteLoss`](crate::Error::NonFiniteLoss).
///
/// # Gradients must not be rescaled
/// The step size divides the gap `f − f*` by the squared norm of the gradient *of `f`*. A gradient that a view
/// has shortened by a factor `s < 1` makes the step `1/s` times as long as it should be: with
/// [`clip_grad_norm`](crate::gradient::clip_grad_norm) the method diverges. `lr` bounds the step instead.
/// [`GradScaler`](crate::gradient::GradScaler) may be used, since the gradient is unscaled again before the step:
/// the loss that goes with it ([`with_loss`](crate::gradient::with_loss)) is the *unscaled* one. With the mean
/// of an [`Accumulator`](crate::gradient::Accumulator) goes the mean of the micro-batches' losses.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::with_loss, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![3.0f64, -4.0];
/// let mut opt = SpsMax { lr: 100.0, eps: 0.0, ..SpsMax::default() }.build()?;
/// let loss = w.dot(&w) / 2.0; // 12.5, with the gradient w
/// let grad = w.clone();
/// opt.step(&mut w, &with_loss(&grad, loss))?;
/// // (12.5 − 0)/(0.5·25) = 1: Newton's step
/// assert_eq!(w, array![0.0, 0.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the authors' code. There a step of gradient 0 sets the smoothed step size to 0, where it stays; here the
/// bound is the last one above 0. With several groups, every group has its own step size, from its own
/// options and the gradients of all groups.
///
/// # Source
/// N. Loizou, S. Vaswani, I. Laradji, S. Lacoste-Julien, "Stochastic Polyak Step-size for SGD: An Adaptive
/// Learning Rate for Fast Convergence", AISTATS 2021.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SpsMax {
    /// Largest step size `γ >= 0`.
    pub lr: f64,
    /// Factor `c > 0` on the squared norm.
    pub c: f64,
    /// Lower bound `f*` of the loss.
    pub lower_bound: f64,
    /// Largest factor, at least 1, between two step sizes.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub growth_rate: f64,
    /// The step size before the first step, `> 0`; `growth_rate` counts from it.
    pub init_step_size: f64,
    /// Stabiliser `ε >= 0`, added to the squared norm.
    pub eps: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(SpsMax);

impl Default for SpsMax {
    fn default() -> Self {
        Self {
            lr: 1.0,
            c: 0.5,
            lower_bound: 0.0,
            growth_rate: f64::INFINITY,
            init_step_size: 1.0,
            eps: 1e-8,
            maximize: false,
        }
    }
}

crate::hyperparameters!(SpsMax, "SpsMax", {
    "lr": NonNegative = lr;
    "c": Positive = c;
    "lower_bound": Finite = lower_bound;
    "growth_rate": FromOne = growth_rate;
    "init_step_size": Positive = init_step_size;
    "eps": NonNegative = eps;
    "maximize": Flag = maximize;
});

/// What [`SpsMax`] knows of its group.
#[derive(Clone, Debug, Default)]
pub struct SpsMaxGroupState {
    /// The last step size that was not 0; 0 before there is one.
    pub step_size: f64,
    /// The step size of this step.
    current: f64,
    /// The loss of this step.
    loss: f64,
}
crate::group_state!(common SpsMaxGroupState { step_size });

impl Rule for SpsMax {
    type Coefficients<R: Real> = ();
    type State<R: Real> = [R; 0];
    type GroupState = SpsMaxGroupState;
    const SLOTS: &'static [Slot] = &[];

    fn coefficients<R: Real>(&self, _: u64, _: &SpsMaxGroupState) {}

    #[inline(always)]
    fn direction<R: Real>(_: &(), _p: R, g: R, s: [R; 0]) -> (R, [R; 0]) {
        (g, s)
    }

    fn step_size(&self, _: u64, scalars: &SpsMaxGroupState) -> f64 {
        scalars.current
    }

    fn needs_loss(&self) -> bool {
        true
    }

    fn begin(&self, loss: Option<f64>, scalars: &mut SpsMaxGroupState) {
        // a step without a loss has been refused
        let loss = loss.unwrap_or(f64::NAN);
        scalars.loss = if self.maximize { -loss } else { loss };
    }

    fn passes(&self) -> Range<usize> {
        0..1
    }

    #[inline(always)]
    fn measure<R: Real>(_: usize, _: &(), _p: R, g: R, _: [R; 0]) -> Sums {
        [g.widen() * g.widen(), 0.0, 0.0, 0.0]
    }

    fn combine(&self, _: usize, total: &Sums, scalars: &mut SpsMaxGroupState) {
        let [square, ..] = *total;
        let gap = scalars.loss - self.lower_bound;
        let still = gap <= 0.0 || square == 0.0;
        let polyak = if still { 0.0 } else { gap / (self.c * square + self.eps) };
        let before = if scalars.step_size > 0.0 { scalars.step_size } else { self.init_step_size };
        scalars.current = smaller(smaller(polyak, self.lr), self.growth_rate * before);
        if scalars.current > 0.0 {
            scalars.step_size = scalars.current;
        }
    }
}
