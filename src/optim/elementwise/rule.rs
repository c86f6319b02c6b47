//! The trait for element-wise rules: the mathematics of one element.

use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::sweep::{Slots, Sums};
use crate::numeric::{Element, Real};
use crate::optim::engine::Optim;
use crate::optim::method::{GroupState, Mode, TensorStep, TensorSums};
use crate::state::factors::Averaging;
use crate::state::{Factors, Input, SlotInit, SlotKind};
use std::fmt::Debug;
use std::ops::Range;

/// One state slot of a rule: its name, as in state dicts, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Name, as PyTorch calls it where PyTorch has it: `exp_avg`, `momentum_buffer`.
    pub name: &'static str,
    /// What it holds.
    pub kind: SlotKind,
    /// Means over rows and columns that tensors of two and more dimensions hold in its place.
    pub factors: Option<Factors>,
    /// Whether options can switch it off: [`Rule::uses_slot`] is asked.
    pub optional: bool,
}

/// How a slot with [`Slot::factors`] is averaged at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factoring {
    /// The measuring pass that sums [`Rule::factor_term`] over rows and columns; the slot is known after
    /// it, and reads as 0 in it.
    pub pass: usize,
    /// Weight of the new means in the average, `x ← x + weight·(new − x)`.
    pub weight: f64,
    /// Least value of the mean over a matrix, by which the product of the two means is divided.
    pub floor: f64,
}

impl Factoring {
    pub(super) fn averaging(&self) -> Averaging {
        Averaging { weight: self.weight, floor: self.floor }
    }
}

impl Slot {
    /// A slot of numbers of both signs.
    pub const fn signed(name: &'static str) -> Self {
        Self { name, kind: SlotKind::Signed, factors: None, optional: false }
    }

    /// A slot of numbers `>= 0`.
    pub const fn unsigned(name: &'static str) -> Self {
        Self { name, kind: SlotKind::Unsigned, factors: None, optional: false }
    }

    /// An input of the step that the rule reads like a slot, such as the curvature; always optional.
    pub const fn input(name: &'static str, input: Input) -> Self {
        Self { name, kind: SlotKind::Input(input), factors: None, optional: true }
    }

    /// A slot of numbers `>= 0` that tensors of two and more dimensions hold as means over the rows and
    /// columns of their last two dimensions, as if it were the product of a row and a column.
    ///
    /// There it reads as the root of that product, `√(row·column/mean)`, and what the rule writes is
    /// forgotten. See [`Rule::factoring`].
    pub const fn factored(name: &'static str, rows: &'static str, columns: &'static str) -> Self {
        let factors = Some(Factors { rows, columns });
        Self { name, kind: SlotKind::Unsigned, factors, optional: false }
    }

    /// A point in parameter space. It stays in full precision unless a precision is set for it by name.
    pub const fn iterate(name: &'static str) -> Self {
        Self { name, kind: SlotKind::Iterate, factors: None, optional: false }
    }

    /// The same slot, for options to switch off: [`Rule::uses_slot`] says when. Loops are compiled for each
    /// number of slots that can be in use, so only what can be off should be optional.
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// How weight decay `λ` acts, for the learning rate `γ` of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum WeightDecay {
    /// None, or inside the rule.
    None,
    /// `g ← g + λp`, before the rule sees the gradient: L2 regularisation.
    Coupled(f64),
    /// `p ← p·(1 − γλ)`, before the update.
    Decoupled(f64),
    /// `p ← p·(1 − γλ)`, after the update: `(p − γu)·(1 − γλ)`.
    DecoupledAfter(f64),
    /// `p ← p·(1 − λ)`, before the update, whatever the learning rate.
    Independent(f64),
    /// `p ← p·(1 − γλ·γ/γmax)`, before the update.
    Corrected {
        /// `λ`.
        decay: f64,
        /// The highest learning rate `γmax` of the schedule.
        peak_lr: f64,
    },
}

impl WeightDecay {
    /// `λ`.
    pub fn amount(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Coupled(decay)
            | Self::Decoupled(decay)
            | Self::DecoupledAfter(decay)
            | Self::Independent(decay)
            | Self::Corrected { decay, .. } => decay,
        }
    }
}

/// How a direction becomes a new parameter: the same for every rule.
#[derive(Clone, Copy, Debug)]
pub struct Apply<R> {
    /// The step size `γ`.
    pub lr: R,
    /// Coupled weight decay: `g ← g + coupled·p`.
    pub coupled: R,
    /// Factor `1 − γλ` on the parameter.
    pub shrink: R,
}

impl<R: Real> Apply<R> {
    /// Multiplies the step size, but not the learning rate in the decay.
    pub(in crate::optim) fn scale_lr(&mut self, factor: f64) {
        if factor != 1.0 {
            self.lr *= R::of(factor);
        }
    }
}

/// An element-wise update rule.
///
/// A rule knows nothing of arrays, threads, precisions, groups or files: they are the engine's. A rule has
/// a table of options ([`hyperparameters!`](crate::hyperparameters)), its slots, the coefficients of a step
/// ([`Rule::coefficients`]) and the direction of one element ([`Rule::direction`]). Everything else has a
/// default that suits most rules: the options `lr`, `weight_decay`, `decoupled_weight_decay` and
/// `maximize`, where a rule has them, mean what they say.
///
/// A step of one element computes, in this order:
/// ```text
/// g ← −g                         if maximize
/// g ← g + λp                     if decay is coupled
/// u, s ← direction(p, g, s)
/// p ← (1 − γλ)·p − γ·u           γ = step_size; λ = 0 unless decay is decoupled
/// ```
///
/// To stay vectorised and reproducible: mark `direction` `#[inline(always)]`; use `+ − × ÷`, `sqrt`
/// and comparisons; put powers and exponentials into `coefficients`; select with `if a > b`, and let
/// decide by coefficients what depends on options.
///
/// # Examples
/// Descent by the sign of the gradient, written outside the crate; `docs/extending.md` builds Lion.
/// ```
/// use eigenstep::{hyperparameters, numeric::Real, optim::Slot, prelude::*};
///
/// #[derive(Clone, Debug)]
/// struct Sign { lr: f64 }
/// hyperparameters!(Sign, "Sign", { "lr": NonNegative = lr; });
///
/// impl Rule for Sign {
///     type Coefficients<R: Real> = ();
///     type State<R: Real> = [R; 0];
///     type GroupState = ();
///     const SLOTS: &'static [Slot] = &[];
///     fn coefficients<R: Real>(&self, _: u64, _: &()) {}
///     #[inline(always)]
///     fn direction<R: Real>(_: &(), _p: R, g: R, s: [R; 0]) -> (R, [R; 0]) {
///         (if g == R::zero() { g } else { g.signum() }, s)
///     }
/// }
///
/// let mut w = ndarray::array![1.0f32, 1.0, 1.0];
/// Sign { lr: 0.5 }.build()?.step(&mut w, &ndarray::array![7.0, -0.1, 0.0])?;
/// assert_eq!(w, ndarray::array![0.5, 1.5, 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Rule: Hyperparameters {
    /// The coefficients of a step, rounded once to the arithmetic type.
    type Coefficients<R: Real>: Copy + Send + Sync + Debug + 'static;
    /// The state of one element: `[R; N]`, in the order of [`Rule::SLOTS`].
    type State<R: Real>: Slots<R>;
    /// Numbers that a whole group remembers from step to step; `()` for most.
    type GroupState: GroupState;
    /// The state slots. Those that an option can switch off come last, and are [`Slot::optional`].
    const SLOTS: &'static [Slot];
    /// Numbers that are remembered per tensor, with their first values: NAdam's product, NovoGrad's norm.
    const TENSOR_SLOTS: &'static [(&'static str, f64)] = &[];
    /// Whether [`Rule::tensor_coefficients`] does anything. Rules with [`Rule::TENSOR_SLOTS`] have it.
    const PER_TENSOR: bool = !Self::TENSOR_SLOTS.is_empty();
    /// The highest power of a gradient that the rule computes or sums in its arithmetic type. Gradients
    /// beyond the range of that power are refused as infinite ones are
    /// ([`Error::GradientTooLarge`](crate::Error::GradientTooLarge)): in `f32` above `2^50 ≈ 1.1e15` for
    /// squares, and above `2^100 ≈ 1.3e30` for sums. 0 if every finite gradient gives finite numbers.
    const GRADIENT_POWER: u32 = 2;
    /// Whether training and evaluation happen at different points ([`Rule::switch`]).
    const HAS_EVAL_MODE: bool = false;

    /// Coefficients of the step with number `t`, counted per parameter from 1; computed in `f64`.
    fn coefficients<R: Real>(&self, t: u64, group: &Self::GroupState) -> Self::Coefficients<R>;

    /// The direction `u` of one element, and its new state.
    ///
    /// Loops work on whole vectors. The last vector of a tensor is filled up with elements that are zero
    /// everywhere, whose results are not used.
    fn direction<R: Real>(
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> (R, Self::State<R>);

    /// The step size `γ` of the step with number `t`: the option `lr`, or 1 for a rule without it.
    fn step_size(&self, t: u64, group: &Self::GroupState) -> f64 {
        let _ = (t, group);
        self.option("lr").unwrap_or(1.0)
    }

    /// The new parameter and state of one element, coupled decay already added to `g`. Override it
    /// only if the method is not of the form `p − γ·u`.
    #[inline(always)]
    fn update<R: Real>(
        c: &Self::Coefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> (R, Self::State<R>) {
        let (u, s) = Self::direction(c, p, g, s);
        (p * a.shrink - a.lr * u, s)
    }

    /// Whether [`Rule::update`] is overridden, so that the step is not the direction times the learning
    /// rate. Methods that use only the direction of an inner rule refuse it; they also refuse a rule that
    /// overrides `update` without saying so here.
    fn has_own_update(&self) -> bool {
        false
    }

    /// Whether a wrapper keeps what the rule inside does; runs once, at `build`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    #[doc(hidden)]
    fn check_composition(&self) -> Result<()> {
        Ok(())
    }

    /// How weight decay acts: by the option `weight_decay`, decoupled unless the option
    /// `decoupled_weight_decay` is false. A rule that applies its decay itself returns
    /// [`WeightDecay::None`].
    fn decay(&self) -> WeightDecay {
        match (self.option("weight_decay"), self.option("decoupled_weight_decay")) {
            (None, _) => WeightDecay::None,
            (Some(decay), Some(0.0)) => WeightDecay::Coupled(decay),
            (Some(decay), _) => WeightDecay::Decoupled(decay),
        }
    }

    /// Whether to ascend: the sign of the gradient is changed before everything else. The option
    /// `maximize`.
    fn maximize(&self) -> bool {
        self.option("maximize").is_some_and(|maximize| maximize != 0.0)
    }

    /// Whether this configuration needs slot number `slot`, one that is [optional](Slot::optional); a slot that
    /// is off costs no memory.
    fn uses_slot(&self, slot: usize) -> bool {
        let _ = slot;
        true
    }

    /// What slot number `slot` holds before the first step.
    fn slot_init(&self, slot: usize) -> SlotInit {
        let _ = slot;
        SlotInit::Value(0.0)
    }

    /// Slot number `slot` keeps every `n`-th element of the flattened tensor; the others read as 0.
    fn slot_stride(&self, slot: usize) -> usize {
        let _ = slot;
        1
    }

    /// Runs once per step and group, before everything else: advances the state of the group. `loss` is
    /// that of [`with_loss`](crate::gradient::with_loss), or of the closure.
    fn begin(&self, loss: Option<f64>, group: &mut Self::GroupState) {
        let _ = (loss, group);
    }

    /// Runs once per step and tensor, before anything is measured: advances the tensor's numbers, which
    /// are in the order of [`Rule::TENSOR_SLOTS`].
    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]) {
        let _ = (step, numbers);
    }

    /// Updates the numbers of a tensor with the sums of pass number `pass`; runs once per step.
    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        numbers: &mut [f64],
    ) {
        let _ = (pass, measured, step, numbers);
    }

    /// Adds what a tensor's numbers contribute to the sums of pass number `pass` over all tensors, after
    /// [`Rule::absorb`] and before [`Rule::combine`].
    fn contribute(&self, pass: usize, numbers: &[f64], sums: &mut Sums) {
        let _ = (pass, numbers, sums);
    }

    /// Completes the coefficients with what belongs to one tensor: its numbers, its shape, whether a
    /// curvature came with its gradient. Called if [`Rule::PER_TENSOR`].
    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut Self::Coefficients<R>,
    ) {
        let _ = (step, numbers, c);
    }

    /// Whether a step needs the loss; without it, it is an error.
    fn needs_loss(&self) -> bool {
        false
    }

    /// Whether step number `t` of a tensor needs the curvature; without it, it is an error.
    fn needs_curvature(&self, t: u64) -> bool {
        let _ = t;
        false
    }

    /// Whether rows that a [`RowGradient`](crate::params::RowGradient) lacks are left alone with their state, and not
    /// even read. True for rules for which a gradient of 0 is no step, and for those that are meant to be lazy. All rows
    /// take part while there is weight decay, and where another rule is around this one.
    fn lazy(&self) -> bool {
        false
    }

    /// Key of the random numbers of [`Input::Noise`].
    fn seed(&self) -> u64 {
        0
    }

    /// The passes that measure before the update; none for most rules.
    ///
    /// A measuring pass reads everything and writes nothing. Norms of one tensor (LAMB) and sums
    /// over all tensors (Prodigy) are of this kind.
    fn passes(&self) -> Range<usize> {
        0..0
    }

    /// Terms of one element to the sums of pass number `pass`; arguments as in
    /// [`Rule::direction`].
    #[inline(always)]
    fn measure<R: Real>(
        pass: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> Sums {
        let _ = (pass, c, p, g, s);
        Sums::default()
    }

    /// How slot number `slot`, one with [`Slot::factors`], is averaged at step `t` in tensors of two and
    /// more dimensions.
    fn factoring<R: Real>(&self, slot: usize, t: u64) -> Factoring {
        let _ = (slot, t);
        Factoring { pass: 0, weight: 1.0, floor: 0.0 }
    }

    /// Term of one element to the means over rows and columns of slot number `slot`; arguments as in
    /// [`Rule::direction`].
    #[inline(always)]
    fn factor_term<R: Real>(
        slot: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> R {
        let _ = (slot, c, p, s);
        g * g
    }

    /// Measuring passes look at every `n`-th element of the flattened tensor.
    fn measure_stride(&self) -> usize {
        1
    }

    /// Runs once per measuring pass and group, with the sums over all tensors of all groups.
    fn combine(&self, pass: usize, total: &Sums, group: &mut Self::GroupState) {
        let _ = (pass, total, group);
    }

    /// Completes the coefficients of a tensor with the sums of pass number `pass`.
    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut Self::Coefficients<R>) {
        let _ = (pass, measured, c);
    }

    /// The parameter of one element at the other point, for methods with [`Rule::HAS_EVAL_MODE`].
    fn switch<R: Real>(c: &Self::Coefficients<R>, to: Mode, p: R, s: Self::State<R>) -> R {
        let _ = (c, to, s);
        p
    }

    /// Checks options that must agree between the groups; `first` is group 0.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    fn check_group(&self, first: &Self) -> Result<()> {
        let _ = first;
        Ok(())
    }

    /// An optimizer of this rule, for parameters of element type `T`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is
    /// out of range.
    fn build<T: Element>(self) -> Result<Optim<Elementwise<Self>, T>> {
        Optim::new(Elementwise(self))
    }
}

/// A rule with its options, run by the engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Elementwise<U>(pub U);
