//! A rule that begins one step late.

use super::around::RuleAround;
use super::rule::{Apply, Factoring, Rule, WeightDecay};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;
use crate::optim::method::{TensorStep, TensorSums};

/// A rule that may stand still at its first step, and decay after its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipFirst<U> {
    /// The rule.
    pub inner: U,
    /// Whether the first step changes nothing, not even slots; the second is then the rule's first.
    pub skip_first: bool,
    /// Whether decoupled decay comes after the update.
    pub decay_after: bool,
}

impl<U> SkipFirst<U> {
    /// The rule's own number of step `t`; 0 where it stands still.
    fn count(&self, t: u64) -> u64 {
        t.saturating_sub(u64::from(self.skip_first))
    }

    /// The rule's own step; `None` where it stands still.
    fn own<'s>(&self, step: &TensorStep<'s>) -> Option<TensorStep<'s>> {
        let t = self.count(step.t);
        (t > 0).then_some(TensorStep { t, ..*step })
    }
}

impl<U: Rule> Hyperparameters for SkipFirst<U> {
    const NAME: &'static str = U::NAME;

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()
    }
}

impl<U: Rule> RuleAround for SkipFirst<U> {
    type Inner = U;
    /// The rule's, and whether this step stands still.
    type Coefficients<R: Real> = (U::Coefficients<R>, bool);
    type State<R: Real> = U::State<R>;

    fn inner(&self) -> &U {
        &self.inner
    }

    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> Self::Coefficients<R> {
        let count = self.count(t);
        (self.inner.coefficients(count.max(1), group), count == 0)
    }

    fn inner_coefficients<R: Real>(c: &Self::Coefficients<R>) -> &U::Coefficients<R> {
        &c.0
    }

    fn inner_coefficients_mut<R: Real>(c: &mut Self::Coefficients<R>) -> &mut U::Coefficients<R> {
        &mut c.0
    }

    fn inner_state<R: Real>(s: U::State<R>) -> U::State<R> {
        s
    }

    fn with_inner_state<R: Real>(_: U::State<R>, inner: U::State<R>) -> U::State<R> {
        inner
    }

    fn step_size(&self, t: u64, group: &U::GroupState) -> f64 {
        self.inner.step_size(self.count(t).max(1), group)
    }

    #[inline(always)]
    fn update<R: Real>(
        (c, still): &(U::Coefficients<R>, bool),
        a: &Apply<R>,
        p: R,
        g: R,
        s: U::State<R>,
    ) -> (R, U::State<R>) {
        if *still { (p, s) } else { U::update(c, a, p, g, s) }
    }

    fn decay(&self) -> WeightDecay {
        match self.inner.decay() {
            WeightDecay::Decoupled(decay) if self.decay_after => WeightDecay::DecoupledAfter(decay),
            decay => decay,
        }
    }

    fn needs_curvature(&self, t: u64) -> bool {
        let count = self.count(t);
        count > 0 && self.inner.needs_curvature(count)
    }

    fn factoring<R: Real>(&self, slot: usize, t: u64) -> Factoring {
        let count = self.count(t);
        let factoring = self.inner.factoring::<R>(slot, count.max(1));
        if count == 0 { Factoring { weight: 0.0, ..factoring } } else { factoring }
    }

    fn begin_tensor(&self, step: &TensorStep<'_>, numbers: &mut [f64]) {
        if let Some(step) = self.own(step) {
            self.inner.begin_tensor(&step, numbers);
        }
    }

    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        numbers: &mut [f64],
    ) {
        if let Some(step) = self.own(step) {
            self.inner.absorb(pass, measured, &step, numbers);
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        numbers: &[f64],
        c: &mut Self::Coefficients<R>,
    ) {
        if let Some(step) = self.own(step) {
            self.inner.tensor_coefficients(&step, numbers, &mut c.0);
        }
    }
}
crate::rule_around!(SkipFirst);
