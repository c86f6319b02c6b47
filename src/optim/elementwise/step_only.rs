//! What is left of a rule once a matrix method has made its direction: the step.

use super::rule::{Rule, Slot, WeightDecay};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::numeric::Real;

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
        if self.0.maximize() {
            let expected = "false: the direction is the inner rule's, which ascends or not";
            return Err(Self::invalid("maximize", expected, "true"));
        }
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

    fn maximize(&self) -> bool {
        // whoever made the direction has turned its sign already
        false
    }

    fn check_composition(&self) -> Result<()> {
        self.0.check_composition()
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        self.0.check_group(&first.0)
    }
}
