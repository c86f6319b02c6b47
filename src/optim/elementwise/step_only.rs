//! A rule in disguise: for what a matrix method does with a direction that its inner rule has made, and
//! with tensors that are no matrices.

use super::rule::{Apply, Rule, Slot, WeightDecay};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;
use crate::state::SlotInit;

/// The step of the rule `U` along a direction that it has already made: its learning rate and decay,
/// and no state.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOnly<U>(pub U);

impl<U: Rule<GroupState = ()>> Hyperparameters for StepOnly<U> {
    const NAME: &'static str = U::NAME;

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.0.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.0.validate_together()
    }
}

impl<U: Rule<GroupState = ()>> Rule for StepOnly<U> {
    type Coefficients<R: Real> = ();
    type State<R: Real> = [R; 0];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[];

    fn coefficients<R: Real>(&self, _: u64, _: &()) {}

    #[inline(always)]
    fn direction<R: Real>(_: &(), _p: R, u: R, s: [R; 0]) -> (R, [R; 0]) {
        (u, s)
    }

    fn step_size(&self, t: u64, _: &()) -> f64 {
        self.0.step_size(t, &())
    }

    fn decay(&self) -> WeightDecay {
        self.0.decay()
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        self.0.check_group(&first.0)
    }
}

/// A rule that may stand still at its first step, and decay after its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipFirst<U> {
    /// The rule.
    pub rule: U,
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
}

impl<U: Rule<GroupState = ()>> Hyperparameters for SkipFirst<U> {
    const NAME: &'static str = U::NAME;

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.rule.visit_options(visitor);
    }

    fn validate_together(&self) -> Result<()> {
        self.rule.validate_together()
    }
}

impl<U: Rule<GroupState = ()>> Rule for SkipFirst<U> {
    /// The rule's, and whether this step stands still.
    type Coefficients<R: Real> = (U::Coefficients<R>, bool);
    type State<R: Real> = U::State<R>;
    type GroupState = ();
    const SLOTS: &'static [Slot] = U::SLOTS;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> (U::Coefficients<R>, bool) {
        let count = self.count(t);
        (self.rule.coefficients(count.max(1), &()), count == 0)
    }

    #[inline(always)]
    fn direction<R: Real>(
        (c, _): &(U::Coefficients<R>, bool),
        p: R,
        g: R,
        s: U::State<R>,
    ) -> (R, U::State<R>) {
        U::direction(c, p, g, s)
    }

    fn step_size(&self, t: u64, _: &()) -> f64 {
        self.rule.step_size(self.count(t).max(1), &())
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
        match self.rule.decay() {
            WeightDecay::Decoupled(decay) if self.decay_after => WeightDecay::DecoupledAfter(decay),
            decay => decay,
        }
    }

    fn maximize(&self) -> bool {
        self.rule.maximize()
    }

    fn uses_slot(&self, slot: usize) -> bool {
        self.rule.uses_slot(slot)
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        self.rule.slot_init(slot)
    }

    fn slot_stride(&self, slot: usize) -> usize {
        self.rule.slot_stride(slot)
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        self.rule.check_group(&first.rule)
    }
}
