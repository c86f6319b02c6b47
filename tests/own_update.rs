//! What a rule does in its own `update` is never lost: methods and wrappers that use only its direction refuse it,
//! also if the rule forgets to say so; the others obey.
// a test that fails says so by panicking
#![allow(clippy::unwrap_used, clippy::panic)]

use eigenstep_instances as _;

use eigenstep::Result;
use eigenstep::constrained::Projected;
use eigenstep::numeric::Real;
use eigenstep::optim::{Apply, Optimizer, RuleAround, Slot};
use eigenstep::prelude::*;
use ndarray::{Array2, array};

/// A rule that shrinks the parameter behind its step, as Adan does, and forgets to say that `update` is its own.
#[derive(Clone, Debug, Default)]
struct Proximal {
    lr: f64,
    strength: f64,
}
eigenstep::hyperparameters!(Proximal, "Proximal", {
    "lr": NonNegative = lr;
    "strength": NonNegative = strength;
});
impl Rule for Proximal {
    type Coefficients<R: Real> = R;
    type State<R: Real> = [R; 0];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[];
    fn coefficients<R: Real>(&self, _: u64, _: &()) -> R {
        R::of(1.0 / (1.0 + self.lr * self.strength))
    }
    #[inline(always)]
    fn direction<R: Real>(_: &R, _p: R, g: R, s: [R; 0]) -> (R, [R; 0]) {
        (g, s)
    }
    #[inline(always)]
    fn update<R: Real>(&shrink: &R, a: &Apply<R>, p: R, g: R, s: [R; 0]) -> (R, [R; 0]) {
        ((p - a.lr * g) * shrink, s)
    }
}

/// A wrapper that changes nothing, and does not hand `update` on.
#[derive(Clone, Debug, Default)]
struct Forgetful<U> {
    inner: U,
}
impl<U: Rule> eigenstep::hyper::Hyperparameters for Forgetful<U> {
    const NAME: &'static str = "Forgetful";
    fn visit_options(&mut self, visitor: &mut dyn FnMut(eigenstep::hyper::Hyper<'_>)) {
        self.inner.visit_options(visitor);
    }
}
impl<U: Rule> RuleAround for Forgetful<U> {
    type Inner = U;
    type Coefficients<R: Real> = U::Coefficients<R>;
    type State<R: Real> = U::State<R>;
    fn inner(&self) -> &U {
        &self.inner
    }
    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> U::Coefficients<R> {
        self.inner.coefficients(t, group)
    }
    fn inner_coefficients<R: Real>(c: &U::Coefficients<R>) -> &U::Coefficients<R> {
        c
    }
    fn inner_coefficients_mut<R: Real>(c: &mut U::Coefficients<R>) -> &mut U::Coefficients<R> {
        c
    }
    fn inner_state<R: Real>(s: U::State<R>) -> U::State<R> {
        s
    }
    fn with_inner_state<R: Real>(_: U::State<R>, inner: U::State<R>) -> U::State<R> {
        inner
    }
}
eigenstep::rule_around!(Forgetful);

fn proximal() -> Proximal {
    Proximal { lr: 0.5, strength: 0.5 }
}

/// Steps of gradient 0: only the shrinking acts.
fn shrunk(mut opt: impl Optimizer<f64>) -> f64 {
    let mut w = Array2::<f64>::ones((8, 8));
    let zero = Array2::zeros((8, 8));
    (0..2).for_each(|_| opt.step(&mut w, &zero).unwrap());
    *w.first().unwrap()
}

#[test]
fn some_obey() {
    let expected = 0.8 * 0.8;
    assert_eq!(shrunk(proximal().build().unwrap()), expected);
    assert_eq!(shrunk(Shampoo::with_inner(proximal()).build().unwrap()), expected);
    assert_eq!(shrunk(WithDecay::with_inner(proximal()).build().unwrap()), expected);
    assert_eq!(shrunk(Projected::with_inner(proximal()).build().unwrap()), expected);
}

#[test]
fn the_others_refuse() {
    let step = "a rule whose step is its direction times the learning rate, got Proximal";
    let says = |what: &str| format!("{what}: `inner` must be {step}");
    let refused = |found: Result<f64>| found.unwrap_err().to_string();
    assert_eq!(refused(Soap::with_inner(proximal()).build().map(shrunk)), says("Soap"));
    assert_eq!(refused(GaLore::with_inner(proximal()).build().map(shrunk)), says("GaLore"));
    assert_eq!(refused(Cautious::with_inner(proximal()).build().map(shrunk)), says("Cautious"));
    assert_eq!(refused(Grams::with_inner(proximal()).build().map(shrunk)), says("Grams"));
    let forgetful = || Forgetful { inner: proximal() };
    assert_eq!(refused(forgetful().build().map(shrunk)), says("Forgetful"));
    // wherever it is
    let inside = Shampoo::with_inner(forgetful()).build().map(shrunk);
    assert_eq!(refused(inside), says("Forgetful"));
    let around = WithDecay::with_inner(forgetful()).build().map(shrunk);
    assert_eq!(refused(around), says("Forgetful"));
    // around a rule that only has a direction it is none
    let mut w = array![1.0];
    Forgetful { inner: Sgd { lr: 0.5, ..Sgd::default() } }
        .build()
        .unwrap()
        .step(&mut w, &array![1.0])
        .unwrap();
    assert_eq!(w, array![0.5]);
}

/// A direction that depends on the parameter, which is 0 everywhere in another basis.
#[derive(Clone, Debug, Default)]
struct Towards {
    lr: f64,
    centre: f64,
}
eigenstep::hyperparameters!(Towards, "Towards", { "lr": NonNegative = lr; "centre": Finite = centre; });
impl Rule for Towards {
    type Coefficients<R: Real> = R;
    type State<R: Real> = [R; 0];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[];
    fn coefficients<R: Real>(&self, _: u64, _: &()) -> R {
        R::of(self.centre)
    }
    #[inline(always)]
    fn direction<R: Real>(&centre: &R, p: R, g: R, s: [R; 0]) -> (R, [R; 0]) {
        (g + p - centre, s)
    }
}

#[test]
fn a_rule_that_needs_the_parameter_is_refused_where_there_is_none() {
    let towards = || Towards { lr: 0.5, centre: 1.0 };
    let error = Soap::with_inner(towards()).build().map(shrunk).unwrap_err().to_string();
    let expected = "a rule whose direction does not depend on the parameter, got Towards";
    assert_eq!(error, format!("Soap: `inner` must be {expected}"));
    assert_eq!(shrunk(Shampoo::with_inner(towards()).build().unwrap()), 1.0);
}
