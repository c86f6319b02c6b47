//! The loops of a rule: all that is compiled once per rule.

use super::rule::{Apply, Rule, Slot};
use crate::kernel::Isa;
use crate::kernel::sweep::{
    Chunk, ElementMeasure, ElementTerm, ElementUpdate, Slots, Sums, each_term, measure_chunk,
};
use crate::numeric::Real;
use crate::optim::method::Mode;
use std::any::Any;
use std::fmt::Debug;

/// A rule at one step of one tensor, with its coefficients, whatever its type.
pub trait ElementKernel<R: Real>: Any + Debug + Send + Sync {
    /// [`Rule::update`] of every element of a chunk.
    fn update(&self, isa: Isa, apply: &Apply<R>, chunk: Chunk<'_, R>);

    /// [`Rule::switch`] of every element of a chunk.
    fn switch(&self, isa: Isa, to: Mode, chunk: Chunk<'_, R>);

    /// [`Rule::measure`], summed over parameters, gradients and slots of equal length.
    fn measure(
        &self,
        isa: Isa,
        pass: usize,
        coupled: R,
        values: (&[R], &[R]),
        slots: &[&[R]],
    ) -> Sums;

    /// [`Rule::factor_term`] of a slot for every element, under coupled decay.
    fn terms(
        &self,
        isa: Isa,
        slot: (usize, R),
        values: (&[R], &[R]),
        slots: &[&[R]],
        out: &mut [f64],
    );
}

/// Whether a rule has slots that are means over rows and columns.
#[expect(clippy::indexing_slicing, reason = "runs while the crate is compiled, not in a program")]
const fn any_factored(slots: &[Slot]) -> bool {
    let mut k = 0;
    while k < slots.len() {
        if slots[k].factors.is_some() {
            return true;
        }
        k += 1;
    }
    false
}

/// How many slots every configuration uses.
const fn always_used(slots: &[Slot]) -> usize {
    let (mut rest, mut used) = (slots, 0);
    while let [slot, others @ ..] = rest {
        if slot.optional {
            return used;
        }
        (rest, used) = (others, used + 1);
    }
    used
}

/// The coefficients of the rule `U`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleKernel<U: Rule, R: Real>(pub U::Coefficients<R>);

impl<U: Rule, R: Real> ElementKernel<R> for RuleKernel<U, R> {
    fn update(&self, isa: Isa, apply: &Apply<R>, chunk: Chunk<'_, R>) {
        if apply.coupled == R::zero() {
            U::State::<R>::sweep(isa, Update::<U, R, false>(self.0, *apply), chunk);
        } else {
            U::State::<R>::sweep(isa, Update::<U, R, true>(self.0, *apply), chunk);
        }
    }

    fn switch(&self, isa: Isa, to: Mode, chunk: Chunk<'_, R>) {
        // decided by the compiler: most rules have no second point, and get no loops for it
        if const { U::HAS_EVAL_MODE } {
            U::State::<R>::sweep(isa, Switch::<U, R>(to, self.0), chunk);
        }
    }

    fn measure(
        &self,
        isa: Isa,
        pass: usize,
        coupled: R,
        (p, g): (&[R], &[R]),
        slots: &[&[R]],
    ) -> Sums {
        let measure = Measure::<U, R>(pass, self.0, coupled);
        measure_chunk::<_, U::State<R>, _>(isa, measure, (p, g), slots)
    }

    fn terms(
        &self,
        isa: Isa,
        (slot, coupled): (usize, R),
        values: (&[R], &[R]),
        slots: &[&[R]],
        out: &mut [f64],
    ) {
        // decided by the compiler: most rules have no such slots, and get no loops for them
        if const { any_factored(U::SLOTS) } {
            let term = Term::<U, R>(slot, self.0, coupled);
            each_term::<_, U::State<R>, _>(isa, term, values, slots, out);
        }
    }
}

/// [`Rule::update`] as a function of one element.
///
/// Without coupled decay the term is left out, not multiplied by zero: registers are scarce, and
/// zero times an infinite parameter is NaN.
struct Update<U: Rule, R: Real, const COUPLED: bool>(U::Coefficients<R>, Apply<R>);
impl<U: Rule, R: Real, const COUPLED: bool> Copy for Update<U, R, COUPLED> {}
impl<U: Rule, R: Real, const COUPLED: bool> Clone for Update<U, R, COUPLED> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<U: Rule, R: Real, const COUPLED: bool> ElementUpdate<R, U::State<R>>
    for Update<U, R, COUPLED>
{
    const LEAST: usize = always_used(U::SLOTS);

    #[inline(always)]
    fn update(&self, p: R, g: R, s: U::State<R>) -> (R, U::State<R>) {
        let Self(coefficients, apply) = self;
        let g = if COUPLED { g + apply.coupled * p } else { g };
        U::update(coefficients, apply, p, g, s)
    }
}

/// [`Rule::measure`] as a function of one element.
struct Measure<U: Rule, R: Real>(usize, U::Coefficients<R>, R);
impl<U: Rule, R: Real> Copy for Measure<U, R> {}
impl<U: Rule, R: Real> Clone for Measure<U, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<U: Rule, R: Real> ElementMeasure<R, U::State<R>> for Measure<U, R> {
    #[inline(always)]
    fn measure(&self, p: R, g: R, s: U::State<R>) -> Sums {
        let Self(pass, coefficients, coupled) = self;
        let g = if *coupled == R::zero() { g } else { g + *coupled * p };
        U::measure(*pass, coefficients, p, g, s)
    }
}

/// [`Rule::factor_term`] as a function of one element.
struct Term<U: Rule, R: Real>(usize, U::Coefficients<R>, R);
impl<U: Rule, R: Real> Copy for Term<U, R> {}
impl<U: Rule, R: Real> Clone for Term<U, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<U: Rule, R: Real> ElementTerm<R, U::State<R>> for Term<U, R> {
    #[inline(always)]
    fn term(&self, p: R, g: R, s: U::State<R>) -> R {
        let Self(slot, coefficients, coupled) = self;
        let g = if *coupled == R::zero() { g } else { g + *coupled * p };
        U::factor_term(*slot, coefficients, p, g, s)
    }
}

/// [`Rule::switch`] as a function of one element.
struct Switch<U: Rule, R: Real>(Mode, U::Coefficients<R>);
impl<U: Rule, R: Real> Copy for Switch<U, R> {}
impl<U: Rule, R: Real> Clone for Switch<U, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<U: Rule, R: Real> ElementUpdate<R, U::State<R>> for Switch<U, R> {
    const LEAST: usize = always_used(U::SLOTS);

    #[inline(always)]
    fn update(&self, p: R, _: R, s: U::State<R>) -> (R, U::State<R>) {
        (U::switch(&self.1, self.0, p, s), s)
    }
}
