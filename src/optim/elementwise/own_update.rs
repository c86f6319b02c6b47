//! Whether the step of a rule is its direction times the learning rate: found by trying, not by asking alone.

use super::rule::{Apply, Rule};
use crate::error::Result;
use crate::kernel::sweep::Slots;

/// Whether [`Rule::update`] does more than subtract the direction times the learning rate. Methods that use only
/// the direction of an inner rule refuse it: what the rule does besides would be lost in silence.
///
/// A rule says so in [`Rule::has_own_update`]. One that overrides `update` and forgets to say it is found out: both
/// are computed for a few elements.
pub(crate) fn updates_itself<U: Rule>(rule: &U) -> bool {
    rule.has_own_update() || (1..=3).any(|t| differs(rule, t))
}

/// Whether the direction depends on the parameter, which an inner rule of another method does not see.
pub(crate) fn reads_parameter<U: Rule>(rule: &U) -> bool {
    (1..=3).any(|t| {
        let coefficients = rule.coefficients::<f64>(t, &U::GroupState::default());
        PROBES.iter().any(|&(p, g)| {
            let at = |p: f64| U::direction(&coefficients, p, g, state::<U>());
            let ((own, after), (zero, from_zero)) = (at(p), at(0.0));
            !same(own, zero) || !same_state(&after, &from_zero)
        })
    })
}

fn differs<U: Rule>(rule: &U, t: u64) -> bool {
    let coefficients = rule.coefficients::<f64>(t, &U::GroupState::default());
    let apply = Apply { lr: 0.25, coupled: 0.0, shrink: 0.75 };
    PROBES.iter().any(|&(p, g)| {
        let (u, after) = U::direction(&coefficients, p, g, state::<U>());
        let (q, updated) = U::update(&coefficients, &apply, p, g, state::<U>());
        !same(q, p * apply.shrink - apply.lr * u) || !same_state(&after, &updated)
    })
}

/// Parameters and gradients to try.
const PROBES: [(f64, f64); 5] =
    [(1.0, 0.5), (-0.5, 0.125), (0.25, -2.0), (-1.5, -0.75), (0.5, 0.0)];

/// A state of which no slot is like another.
fn state<U: Rule>() -> U::State<f64> {
    U::State::<f64>::from_fn(|slot| 0.0625 * (slot + 1) as f64)
}

fn same(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

fn same_state<S: Slots<f64>>(a: &S, b: &S) -> bool {
    (0..S::N).all(|k| same(a.get(k), b.get(k)))
}

/// Refuses a wrapper that computes the step from the direction of an inner rule whose `update` does more. A wrapper
/// that hands `update` on, or has one of its own, is not asked.
///
/// # Errors
/// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
#[doc(hidden)]
pub fn check_inner_update<W: Rule, U: Rule>(wrapper: &W, inner: &U) -> Result<()> {
    inner.check_composition()?;
    if (1..=3).any(|t| differs(inner, t)) && !(1..=3).any(|t| differs(wrapper, t)) {
        let expected = "a rule whose step is its direction times the learning rate";
        return Err(W::invalid("inner", expected, U::NAME));
    }
    Ok(())
}
