//! A loss that is not finite: one rule for everything that steps with a closure.

use crate::inner::{Boxed, Model, evaluate, model};
use crate::model::all_bits;
use eigenstep::Error;
use eigenstep::optim::{ClosureOptimizer, NonFinite};
use eigenstep::prelude::*;

/// Optimizers with a policy: those that read no loss, one that does, and one in few bits.
const INNERS: [fn(NonFinite) -> Boxed; 4] = [
    |policy| {
        let sgd = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
        Box::new(sgd.build().unwrap().with_non_finite(policy))
    },
    |policy| {
        let adamw = AdamW::default().build().unwrap().with_non_finite(policy);
        Box::new(adamw.with_state_precision(Precision::INT8_LINEAR).unwrap())
    },
    |policy| Box::new(Muon::default().build().unwrap().with_non_finite(policy)),
    |policy| Box::new(Momo::default().build().unwrap().with_non_finite(policy)),
];

type Closed = Box<dyn ClosureOptimizer<f64>>;
type Wrap = fn(NonFinite, fn(NonFinite) -> Boxed) -> (Closed, usize);

/// Everything that steps with a closure, with the number of evaluations in a step.
const WRAPS: [(&str, Wrap); 7] = [
    ("the optimizer", |policy, inner| (Box::new(inner(policy)), 1)),
    ("a box of a box", |policy, inner| {
        let boxed: Boxed = Box::new(inner(policy));
        (Box::new(boxed), 1)
    }),
    ("Partitioned", |policy, inner| {
        let parts = Partitioned::new(inner(policy)).with(Select::ndim(2..=2), inner(policy));
        (Box::new(parts.frozen(Select::ndim(3..))), 1)
    }),
    ("Lookahead", |policy, inner| (Box::new(Lookahead::new(inner(policy))), 1)),
    ("Sam", |policy, inner| (Box::new(Sam::new(inner(policy))), 2)),
    ("Sam around Lookahead around Partitioned", |policy, inner| {
        let parts = Partitioned::new(inner(policy)).with(Select::ndim(2..=2), inner(policy));
        (Box::new(Sam::new(Lookahead::new(parts))), 2)
    }),
    ("Ignite", |policy, inner| (Box::new(Ignite::new(inner(policy))), 2)),
];

/// One step whose evaluation number `at` has this loss; its outcome, and the calls.
fn step(
    opt: &mut dyn ClosureOptimizer<f64>,
    params: &mut Model,
    (at, bad): (usize, f64),
) -> (eigenstep::Result<f64>, usize) {
    let mut calls = 0;
    let evaluate = |model: &mut Model| {
        calls += 1;
        let (loss, grads) = evaluate(model);
        (if calls == at { bad } else { loss }, grads)
    };
    let mut problem = eigenstep::optim::Closure { model: params, evaluate };
    let outcome = opt.step_problem(&mut problem);
    (outcome, calls)
}

#[test]
fn is_handled_as_the_policy_says_by_all_of_them() {
    for (name, wrap) in WRAPS {
        for (number, inner) in INNERS.into_iter().enumerate() {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for at in 1..=wrap(NonFinite::Error, inner).1 {
                    let what = format!("{name} around {number}, {bad} at {at}");
                    for policy in [NonFinite::Error, NonFinite::Skip] {
                        let (mut opt, mut params) = (wrap(policy, inner).0, model());
                        step(&mut *opt, &mut params, (0, 0.0)).0.unwrap();
                        let before = all_bits(&params);
                        let (outcome, calls) = step(&mut *opt, &mut params, (at, bad));
                        assert_eq!(calls, at, "{what}");
                        assert!(all_bits(&params) == before, "{what}");
                        match (policy, outcome) {
                            (NonFinite::Error, Err(Error::NonFiniteLoss(found))) => {
                                assert_eq!(found.to_bits(), bad.to_bits(), "{what}");
                            }
                            // the loss at the parameters, as always
                            (NonFinite::Skip, Ok(loss)) => assert_eq!(loss.is_finite(), at > 1),
                            (_, other) => panic!("{what}: {policy:?} {other:?}"),
                        }
                        // as if the step had never been asked for
                        let (mut twin, mut fresh) = (wrap(policy, inner).0, model());
                        for _ in 0..2 {
                            step(&mut *twin, &mut fresh, (0, 0.0)).0.unwrap();
                        }
                        step(&mut *opt, &mut params, (0, 0.0)).0.unwrap();
                        assert!(all_bits(&params) == all_bits(&fresh), "{what}");
                    }
                    // what a rule makes of a loss that it reads is its own affair
                    if number == 3 {
                        continue;
                    }
                    let (mut opt, mut params) = (wrap(NonFinite::Propagate, inner).0, model());
                    let before = all_bits(&params);
                    let (outcome, _) = step(&mut *opt, &mut params, (at, bad));
                    assert!(outcome.is_ok(), "{what}: {outcome:?}");
                    assert!(all_bits(&params) != before, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_skipped_step_is_counted_at_either_evaluation() {
    let sgd =
        || Sgd { lr: 0.1, ..Sgd::default() }.build().unwrap().with_non_finite(NonFinite::Skip);
    let (mut sam, mut ignite, mut params) = (Sam::new(sgd()), Ignite::new(sgd()), model());
    let mut parts = Partitioned::new(sgd()).with(Select::ndim(2..=2), sgd());
    for at in 1..=2 {
        assert!(step(&mut sam, &mut params, (at, f64::NAN)).0.is_ok());
        assert!(step(&mut ignite, &mut params, (at, f64::NAN)).0.is_ok());
        assert!(step(&mut parts, &mut params, (1, f64::NAN)).0.is_ok());
        assert_eq!(
            (sam.inner().skipped_steps(), ignite.inner().skipped_steps()),
            (at as u64, at as u64)
        );
        assert_eq!(parts.skipped_steps(), at as u64);
    }
}

#[test]
fn a_surrogate_that_is_not_finite_is_one_of_the_losses() {
    for policy in [NonFinite::Error, NonFinite::Skip] {
        for at in 1..=2 {
            let sgd = Sgd { lr: 0.1, ..Sgd::default() }.build().unwrap();
            let mut opt = Ignite::new(sgd.with_non_finite(policy));
            let (mut params, mut calls) = (model(), 0);
            let surrogate = |model: &mut Model| {
                calls += 1;
                let (h, grads) = evaluate(model);
                (if calls == at { f64::NAN } else { h }, grads)
            };
            let outcome = opt.step_with_surrogate(&mut params, evaluate, surrogate);
            assert!(all_bits(&params) == all_bits(&model()) && calls == at);
            match policy {
                NonFinite::Skip => assert!(outcome.unwrap().is_finite()),
                _ => assert!(matches!(outcome, Err(Error::NonFiniteLoss(_)))),
            }
            assert_eq!(opt.inner().skipped_steps(), u64::from(policy == NonFinite::Skip));
        }
    }
}
