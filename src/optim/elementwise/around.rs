//! Rules around rules: a wrapper changes what it is there for, everything else is the inner rule's.

use super::rule::{Apply, Factoring, Rule, Slot, WeightDecay};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::sweep::{MAX_SLOTS, Slots, Sums};
use crate::numeric::Real;
use crate::optim::method::{Mode, TensorStep, TensorSums};
use crate::state::SlotInit;
use std::fmt::Debug;
use std::ops::Range;

/// A rule around another one.
///
/// The methods are those of [`Rule`]; each calls the inner rule's: a wrapper overrides
/// what it changes, and can forget nothing. [`rule_around!`](crate::rule_around) makes a [`Rule`] of it.
///
/// A wrapper that remembers something of its own has a [`Pair`](crate::optim::Pair) as its state, its own numbers
/// first, and
/// names its slots in [`RuleAround::OWN_SLOTS`].
///
/// # Examples
/// Steps of half the size:
/// ```
/// use eigenstep::hyper::{Hyper, Hyperparameters};
/// use eigenstep::{numeric::Real, optim::RuleAround, prelude::*, rule_around};
///
/// #[derive(Clone, Debug)]
/// struct Half<U> { inner: U }
///
/// impl<U: Rule> Hyperparameters for Half<U> {
///     const NAME: &'static str = "Half";
///     fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
///         self.inner.visit_options(visitor);
///     }
/// }
/// impl<U: Rule> RuleAround for Half<U> {
///     type Inner = U;
///     type Coefficients<R: Real> = U::Coefficients<R>;
///     type State<R: Real> = U::State<R>;
///     fn inner(&self) -> &U {
///         &self.inner
///     }
///     fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> U::Coefficients<R> {
///         self.inner.coefficients(t, group)
///     }
///     fn inner_coefficients<R: Real>(c: &U::Coefficients<R>) -> &U::Coefficients<R> {
///         c
///     }
///     fn inner_coefficients_mut<R: Real>(c: &mut U::Coefficients<R>) -> &mut U::Coefficients<R> {
///         c
///     }
///     fn inner_state<R: Real>(s: U::State<R>) -> U::State<R> {
///         s
///     }
///     fn with_inner_state<R: Real>(_: U::State<R>, s: U::State<R>) -> U::State<R> {
///         s
///     }
///     fn step_size(&self, t: u64, group: &U::GroupState) -> f64 {
///         0.5 * self.inner.step_size(t, group)
///     }
/// }
/// rule_around!(Half);
///
/// let mut w = ndarray::array![1.0f64];
/// let sgd = Sgd { lr: 1.0, momentum: 0.9, ..Sgd::default() };
/// Half { inner: sgd }.build()?.step(&mut w, &ndarray::array![1.0])?;
/// assert_eq!(w[0], 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait RuleAround: Hyperparameters {
    /// The inner rule.
    type Inner: Rule;
    /// Coefficients of a step, those of the inner rule among them.
    type Coefficients<R: Real>: Copy + Send + Sync + Debug + 'static;
    /// State of one element: that of the inner rule, or a [`Pair`](crate::optim::Pair) with it.
    type State<R: Real>: Slots<R>;
    /// Slots of the wrapper itself, which come before those of the inner rule.
    const OWN_SLOTS: &'static [Slot] = &[];
    /// Slots of both, and copies of the last one.
    #[doc(hidden)]
    const ALL_SLOTS: [Slot; MAX_SLOTS] = joined(Self::OWN_SLOTS, <Self::Inner as Rule>::SLOTS);

    /// The inner rule.
    fn inner(&self) -> &Self::Inner;

    /// [`Rule::coefficients`].
    fn coefficients<R: Real>(
        &self,
        t: u64,
        group: &<Self::Inner as Rule>::GroupState,
    ) -> Self::Coefficients<R>;

    /// The inner rule's coefficients.
    fn inner_coefficients<R: Real>(
        c: &Self::Coefficients<R>,
    ) -> &<Self::Inner as Rule>::Coefficients<R>;

    /// The inner rule's coefficients.
    fn inner_coefficients_mut<R: Real>(
        c: &mut Self::Coefficients<R>,
    ) -> &mut <Self::Inner as Rule>::Coefficients<R>;

    /// The inner rule's state.
    fn inner_state<R: Real>(s: Self::State<R>) -> <Self::Inner as Rule>::State<R>;

    /// The state `s` with another inner one.
    fn with_inner_state<R: Real>(
        s: Self::State<R>,
        inner: <Self::Inner as Rule>::State<R>,
    ) -> Self::State<R>;

    /// [`Rule::direction`].
    #[inline(always)]
    fn direction<R: Real>(
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> (R, Self::State<R>) {
        let (u, inner) = <Self::Inner as Rule>::direction(
            Self::inner_coefficients(c),
            p,
            g,
            Self::inner_state(s),
        );
        (u, Self::with_inner_state(s, inner))
    }

    /// [`Rule::update`].
    #[inline(always)]
    fn update<R: Real>(
        c: &Self::Coefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> (R, Self::State<R>) {
        let (u, s) = <Self as RuleAround>::direction(c, p, g, s);
        (p * a.shrink - a.lr * u, s)
    }

    /// [`Rule::has_own_update`].
    fn has_own_update(&self) -> bool {
        self.inner().has_own_update()
    }

    /// [`Rule::step_size`].
    fn step_size(&self, t: u64, group: &<Self::Inner as Rule>::GroupState) -> f64 {
        self.inner().step_size(t, group)
    }

    /// [`Rule::decay`].
    fn decay(&self) -> WeightDecay {
        self.inner().decay()
    }

    /// [`Rule::maximize`].
    fn maximize(&self) -> bool {
        self.inner().maximize()
    }

    /// [`Rule::uses_slot`].
    fn uses_slot(&self, slot: usize) -> bool {
        match slot.checked_sub(Self::OWN_SLOTS.len()) {
            Some(slot) => self.inner().uses_slot(slot),
            None => true,
        }
    }

    /// [`Rule::slot_init`].
    fn slot_init(&self, slot: usize) -> SlotInit {
        match slot.checked_sub(Self::OWN_SLOTS.len()) {
            Some(slot) => self.inner().slot_init(slot),
            None => SlotInit::Value(0.0),
        }
    }

    /// [`Rule::slot_stride`].
    fn slot_stride(&self, slot: usize) -> usize {
        match slot.checked_sub(Self::OWN_SLOTS.len()) {
            Some(slot) => self.inner().slot_stride(slot),
            None => 1,
        }
    }

    /// [`Rule::begin`].
    fn begin(&self, loss: Option<f64>, group: &mut <Self::Inner as Rule>::GroupState) {
        self.inner().begin(loss, group);
    }

    /// [`Rule::begin_tensor`].
    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]) {
        self.inner().begin_tensor(step, numbers);
    }

    /// [`Rule::absorb`].
    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        numbers: &mut [f64],
    ) {
        self.inner().absorb(pass, measured, step, numbers);
    }

    /// [`Rule::contribute`].
    fn contribute(&self, pass: usize, numbers: &[f64], sums: &mut Sums) {
        self.inner().contribute(pass, numbers, sums);
    }

    /// [`Rule::tensor_coefficients`].
    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut Self::Coefficients<R>,
    ) {
        self.inner().tensor_coefficients(step, numbers, Self::inner_coefficients_mut(c));
    }

    /// [`Rule::needs_loss`].
    fn needs_loss(&self) -> bool {
        self.inner().needs_loss()
    }

    /// [`Rule::needs_curvature`].
    fn needs_curvature(&self, t: u64) -> bool {
        self.inner().needs_curvature(t)
    }

    /// [`Rule::seed`].
    fn seed(&self) -> u64 {
        self.inner().seed()
    }

    /// [`Rule::passes`].
    fn passes(&self) -> Range<usize> {
        self.inner().passes()
    }

    /// [`Rule::measure`].
    #[inline(always)]
    fn measure<R: Real>(
        pass: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> Sums {
        let (c, s) = (Self::inner_coefficients(c), Self::inner_state(s));
        <Self::Inner as Rule>::measure(pass, c, p, g, s)
    }

    /// [`Rule::factoring`].
    fn factoring<R: Real>(&self, slot: usize, t: u64) -> Factoring {
        self.inner().factoring::<R>(slot.saturating_sub(Self::OWN_SLOTS.len()), t)
    }

    /// [`Rule::factor_term`].
    #[inline(always)]
    fn factor_term<R: Real>(
        slot: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: Self::State<R>,
    ) -> R {
        let (c, s) = (Self::inner_coefficients(c), Self::inner_state(s));
        <Self::Inner as Rule>::factor_term(slot.saturating_sub(Self::OWN_SLOTS.len()), c, p, g, s)
    }

    /// [`Rule::measure_stride`].
    fn measure_stride(&self) -> usize {
        self.inner().measure_stride()
    }

    /// [`Rule::combine`].
    fn combine(&self, pass: usize, total: &Sums, group: &mut <Self::Inner as Rule>::GroupState) {
        self.inner().combine(pass, total, group);
    }

    /// [`Rule::refine`].
    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut Self::Coefficients<R>) {
        self.inner().refine(pass, measured, Self::inner_coefficients_mut(c));
    }

    /// [`Rule::switch`].
    #[inline(always)]
    fn switch<R: Real>(c: &Self::Coefficients<R>, to: Mode, p: R, s: Self::State<R>) -> R {
        let (c, s) = (Self::inner_coefficients(c), Self::inner_state(s));
        <Self::Inner as Rule>::switch(c, to, p, s)
    }

    /// [`Rule::check_group`].
    ///
    /// # Errors
    /// Those of the inner rule.
    fn check_group(&self, first: &Self) -> Result<()> {
        self.inner().check_group(first.inner())
    }
}

/// The slots `own`, then those of `inner`, then copies of one that nobody looks at.
#[expect(clippy::indexing_slicing, reason = "runs while the crate is compiled, not in a program")]
const fn joined(own: &[Slot], inner: &[Slot]) -> [Slot; MAX_SLOTS] {
    assert!(
        own.len() + inner.len() <= MAX_SLOTS,
        "a rule and its wrappers have at most `MAX_SLOTS` slots together"
    );
    let mut all = [Slot::signed(""); MAX_SLOTS];
    let mut k = 0;
    while k < own.len() + inner.len() {
        all[k] = if k < own.len() { own[k] } else { inner[k - own.len()] };
        k += 1;
    }
    all
}

/// The slots of a wrapper and its inner rule, without the copies behind them.
#[doc(hidden)]
pub const fn first_slots<W: RuleAround>(all: &'static [Slot; MAX_SLOTS]) -> &'static [Slot] {
    all.split_at(W::OWN_SLOTS.len() + <W::Inner as Rule>::SLOTS.len()).0
}

/// Makes a [`Rule`](crate::optim::Rule) of a type `W<U>` that implements
/// [`RuleAround`](crate::optim::RuleAround) for every rule `U`.
#[macro_export]
macro_rules! rule_around {
    ($wrapper:ident) => {
        impl<U: $crate::optim::Rule> $crate::optim::Rule for $wrapper<U> {
            type Coefficients<R: $crate::numeric::Real> =
                <Self as $crate::optim::RuleAround>::Coefficients<R>;
            type State<R: $crate::numeric::Real> = <Self as $crate::optim::RuleAround>::State<R>;
            type GroupState = U::GroupState;
            const SLOTS: &'static [$crate::optim::Slot] =
                $crate::optim::first_slots::<Self>(&<Self as $crate::optim::RuleAround>::ALL_SLOTS);
            const TENSOR_SLOTS: &'static [(&'static str, f64)] = U::TENSOR_SLOTS;
            const GRADIENT_POWER: u32 = U::GRADIENT_POWER;
            const PER_TENSOR: bool = U::PER_TENSOR;
            const HAS_EVAL_MODE: bool = U::HAS_EVAL_MODE;
            fn coefficients<R: $crate::numeric::Real>(
                &self,
                t: u64,
                group: &Self::GroupState,
            ) -> Self::Coefficients<R> {
                <Self as $crate::optim::RuleAround>::coefficients(self, t, group)
            }
            #[inline(always)]
            fn direction<R: $crate::numeric::Real>(
                c: &Self::Coefficients<R>,
                p: R,
                g: R,
                s: Self::State<R>,
            ) -> (R, Self::State<R>) {
                <Self as $crate::optim::RuleAround>::direction(c, p, g, s)
            }
            #[inline(always)]
            fn update<R: $crate::numeric::Real>(
                c: &Self::Coefficients<R>,
                a: &$crate::optim::Apply<R>,
                p: R,
                g: R,
                s: Self::State<R>,
            ) -> (R, Self::State<R>) {
                <Self as $crate::optim::RuleAround>::update(c, a, p, g, s)
            }
            fn has_own_update(&self) -> bool {
                <Self as $crate::optim::RuleAround>::has_own_update(self)
            }
            fn check_composition(&self) -> $crate::Result<()> {
                let inner = <Self as $crate::optim::RuleAround>::inner(self);
                $crate::optim::check_inner_update(self, inner)
            }
            fn step_size(&self, t: u64, group: &Self::GroupState) -> f64 {
                <Self as $crate::optim::RuleAround>::step_size(self, t, group)
            }
            fn decay(&self) -> $crate::optim::WeightDecay {
                <Self as $crate::optim::RuleAround>::decay(self)
            }
            fn maximize(&self) -> bool {
                <Self as $crate::optim::RuleAround>::maximize(self)
            }
            fn uses_slot(&self, slot: usize) -> bool {
                <Self as $crate::optim::RuleAround>::uses_slot(self, slot)
            }
            fn slot_init(&self, slot: usize) -> $crate::state::SlotInit {
                <Self as $crate::optim::RuleAround>::slot_init(self, slot)
            }
            fn slot_stride(&self, slot: usize) -> usize {
                <Self as $crate::optim::RuleAround>::slot_stride(self, slot)
            }
            fn begin(&self, loss: Option<f64>, group: &mut Self::GroupState) {
                <Self as $crate::optim::RuleAround>::begin(self, loss, group)
            }
            fn begin_tensor(&self, step: &$crate::optim::TensorStep<'_>, numbers: &mut [f64]) {
                <Self as $crate::optim::RuleAround>::begin_tensor(self, step, numbers)
            }
            fn absorb(
                &self,
                pass: usize,
                measured: &$crate::optim::TensorSums,
                step: &$crate::optim::TensorStep<'_>,
                numbers: &mut [f64],
            ) {
                <Self as $crate::optim::RuleAround>::absorb(self, pass, measured, step, numbers)
            }
            fn contribute(&self, pass: usize, numbers: &[f64], sums: &mut $crate::kernel::Sums) {
                <Self as $crate::optim::RuleAround>::contribute(self, pass, numbers, sums)
            }
            fn tensor_coefficients<R: $crate::numeric::Real>(
                &self,
                step: &$crate::optim::TensorStep<'_>,
                numbers: &[f64],
                c: &mut Self::Coefficients<R>,
            ) {
                <Self as $crate::optim::RuleAround>::tensor_coefficients(self, step, numbers, c)
            }
            fn needs_loss(&self) -> bool {
                <Self as $crate::optim::RuleAround>::needs_loss(self)
            }
            fn needs_curvature(&self, t: u64) -> bool {
                <Self as $crate::optim::RuleAround>::needs_curvature(self, t)
            }
            fn seed(&self) -> u64 {
                <Self as $crate::optim::RuleAround>::seed(self)
            }
            fn passes(&self) -> ::std::ops::Range<usize> {
                <Self as $crate::optim::RuleAround>::passes(self)
            }
            #[inline(always)]
            fn measure<R: $crate::numeric::Real>(
                pass: usize,
                c: &Self::Coefficients<R>,
                p: R,
                g: R,
                s: Self::State<R>,
            ) -> $crate::kernel::Sums {
                <Self as $crate::optim::RuleAround>::measure(pass, c, p, g, s)
            }
            fn factoring<R: $crate::numeric::Real>(
                &self,
                slot: usize,
                t: u64,
            ) -> $crate::optim::Factoring {
                <Self as $crate::optim::RuleAround>::factoring::<R>(self, slot, t)
            }
            #[inline(always)]
            fn factor_term<R: $crate::numeric::Real>(
                slot: usize,
                c: &Self::Coefficients<R>,
                p: R,
                g: R,
                s: Self::State<R>,
            ) -> R {
                <Self as $crate::optim::RuleAround>::factor_term(slot, c, p, g, s)
            }
            fn measure_stride(&self) -> usize {
                <Self as $crate::optim::RuleAround>::measure_stride(self)
            }
            fn combine(
                &self,
                pass: usize,
                total: &$crate::kernel::Sums,
                group: &mut Self::GroupState,
            ) {
                <Self as $crate::optim::RuleAround>::combine(self, pass, total, group)
            }
            fn refine<R: $crate::numeric::Real>(
                &self,
                pass: usize,
                measured: &$crate::optim::TensorSums,
                c: &mut Self::Coefficients<R>,
            ) {
                <Self as $crate::optim::RuleAround>::refine(self, pass, measured, c)
            }
            #[inline(always)]
            fn switch<R: $crate::numeric::Real>(
                c: &Self::Coefficients<R>,
                to: $crate::optim::Mode,
                p: R,
                s: Self::State<R>,
            ) -> R {
                <Self as $crate::optim::RuleAround>::switch(c, to, p, s)
            }
            fn check_group(&self, first: &Self) -> $crate::Result<()> {
                <Self as $crate::optim::RuleAround>::check_group(self, first)
            }
        }
    };
}
