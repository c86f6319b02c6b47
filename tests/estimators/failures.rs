//! A step that fails has changed nothing: a run with failed steps is, bit for bit, the run without them.

use crate::subjects::{Fault, Model, Place, Subject, Twins, each_subject, loss, model};
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    Coordinate, Hizoo, LossLog, Lozo, Random, ReplayedMomentum, Report, Sparse, Spsa, SubZero,
    ZerothOrder,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What can go wrong at an evaluation of the loss.
const AT_AN_EVALUATION: [Fault; 7] = [
    Fault::Loss(f64::NAN),
    Fault::Loss(f64::INFINITY),
    Fault::Loss(1e42),
    Fault::Loss(-1e42),
    Fault::Loss(f64::MAX),
    Fault::Error,
    Fault::Panic,
];

/// The number of evaluations of one step.
fn evaluations(twins: &Twins) -> usize {
    let (mut subject, mut at, mut count) = ((twins.build)(), model(), 0);
    let counted = subject.step(&mut at, &mut |m: &Model| {
        count += 1;
        Ok(loss(m))
    });
    counted.unwrap();
    count
}

/// Takes `before` steps, then one with a fault, then three more. Returns whether the fault was an error.
fn fails_without_a_trace(twins: &Twins, before: usize, place: Place) -> bool {
    let (mut a, mut b) = ((twins.build)(), (twins.build)());
    let (mut x, mut y) = (model(), model());
    let what = || format!("{}, {before} steps before {place:?}", twins.name);
    for _ in 0..before {
        a.step(&mut x, &mut |m: &Model| Ok(loss(m))).unwrap();
        b.step(&mut y, &mut |m: &Model| Ok(loss(m))).unwrap();
    }
    let outcome = place.step(&mut *a, &mut x);
    if outcome.is_ok() {
        // nothing that is not finite was taken in
        assert!(x.bits_are_finite(), "{}", what());
        a.reload(&what());
        return false;
    }
    assert_eq!(x.bits(), y.bits(), "{}", what());
    assert_eq!(a.state(), b.state(), "{}", what());
    for after in 0..3 {
        a.step(&mut x, &mut |m: &Model| Ok(loss(m))).unwrap();
        b.step(&mut y, &mut |m: &Model| Ok(loss(m))).unwrap();
        assert_eq!(x.bits(), y.bits(), "{}, {after} after", what());
        assert_eq!(a.state(), b.state(), "{}, {after} after", what());
    }
    a.reload(&what());
    true
}

#[test]
fn a_step_that_failed_has_changed_nothing() {
    let (mut failed, mut subjects) = (0, 0);
    each_subject(&mut |twins| {
        subjects += 1;
        let last = evaluations(&twins) - 1;
        // right factors and subspaces change after two steps
        for before in 0..3 {
            for fault in AT_AN_EVALUATION {
                for at in if last > 12 { vec![0, 1, last] } else { (0..=last).collect() } {
                    failed += usize::from(fails_without_a_trace(
                        &twins,
                        before,
                        Place::Evaluation { at, fault },
                    ));
                }
                // some fail in every evaluation
                failed += usize::from(fails_without_a_trace(&twins, before, Place::All { fault }));
            }
            for panics in [false, true] {
                let refused = Place::Optimizer { panics };
                failed += usize::from(fails_without_a_trace(&twins, before, refused));
            }
        }
    });
    assert!(subjects > 40 && failed > 4000, "{failed} failures of {subjects} subjects");
}

/// Losses that were recorded, one of which is wrong.
fn spoilt(
    log: &[Report],
    at: usize,
    change: impl Fn(&mut Report),
    lrs: &dyn Optimizer<f32>,
) -> LossLog {
    let mut spoilt = LossLog::default();
    for (i, report) in log.iter().enumerate() {
        let mut report = report.clone();
        if i == at {
            change(&mut report);
        }
        spoilt.record(&report, lrs);
    }
    spoilt
}

fn replays_are_all_or_nothing<E: Estimator<f32>>(name: &str, build: impl Fn() -> E) {
    let pair = || {
        let adam = AdamW { lr: 1e-3, ..AdamW::default() };
        ZerothOrder::new(build(), crate::subjects::Refusing::new(adam.build::<f32>().unwrap()))
    };
    for before in [0, 3] {
        let (mut source, mut w) = (pair(), model());
        let mut log = Vec::new();
        for step in 0..before + 5 {
            let report = source.step(&mut w, |m: &mut Model| loss(m)).unwrap().clone();
            log.extend((step >= before).then_some(report));
        }
        let (mut a, mut b, mut x, mut y) = (pair(), pair(), model(), model());
        for _ in 0..before {
            a.step(&mut x, |m: &mut Model| loss(m)).unwrap();
            b.step(&mut y, |m: &mut Model| loss(m)).unwrap();
        }
        for at in [0, 2, 4] {
            type Change = Box<dyn Fn(&mut Report)>;
            let changes: [Change; 5] = [
                Box::new(|r| r.losses[0] = f64::NAN),
                Box::new(|r| r.losses[1] = 1e42),
                Box::new(|r| r.losses.truncate(1)),
                Box::new(|r| r.step += 1),
                // the optimizer refuses, or panics
                Box::new(|_| ()),
            ];
            for (i, change) in changes.iter().enumerate() {
                for panics in [false, true] {
                    if i == 4 {
                        a.optimizer.refuse_after(at, panics);
                    }
                    let spoilt = spoilt(&log, at, change, &a.optimizer);
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        spoilt.replay(&mut a.estimator, &mut a.optimizer, &mut x)
                    }));
                    let what = format!("{name}: {before} before, entry {at}, change {i}");
                    a.optimizer.accept();
                    assert!(!matches!(outcome, Ok(Ok(()))), "{what}");
                    assert_eq!(x.bits(), y.bits(), "{what}");
                    assert_eq!(a.state(), b.state(), "{what}");
                }
            }
        }
        // the right log gives the run; both go on together
        spoilt(&log, 9, |_| (), &b.optimizer)
            .replay(&mut a.estimator, &mut a.optimizer, &mut x)
            .unwrap();
        assert_eq!(x.bits(), w.bits(), "{name}");
        assert_eq!(a.state(), source.state(), "{name}");
        a.step(&mut x, |m: &mut Model| loss(m)).unwrap();
        source.step(&mut w, |m: &mut Model| loss(m)).unwrap();
        assert_eq!(x.bits(), w.bits(), "{name}");
    }
}

#[test]
fn a_replay_that_failed_half_way_has_changed_nothing() {
    macro_rules! samplers {
        ($($sampler:expr),* $(,)?) => {
            $(replays_are_all_or_nothing(stringify!($sampler), || {
                Spsa::with_sampler($sampler).build::<f32>().unwrap()
            });)*
        };
    }
    samplers!(
        Random::Gaussian,
        Random::Sphere,
        Sparse::default(),
        Lozo { momentum: 0.9, interval: 2, ..Lozo::default() },
        SubZero { rank: 2, interval: 2, ..SubZero::default() },
        Hizoo { alpha: 0.1, centered: true },
        ReplayedMomentum { momentum: 0.5, floor: 0.2, ..ReplayedMomentum::default() },
    );
    replays_are_all_or_nothing("Coordinate", || Coordinate::default().build::<f32>().unwrap());
    // a step that is still asked for is not thrown away
    let (mut estimator, mut w) = (Spsa::default().build::<f32>().unwrap(), model());
    estimator.ask(&mut w).unwrap();
    let mut sgd = Sgd::default().build::<f32>().unwrap();
    let outcome = LossLog::default().replay(&mut estimator, &mut sgd, &mut w);
    assert!(matches!(outcome, Err(eigenstep::Error::OutOfOrder { .. })));
    estimator.tell(&[1.0, 2.0]).unwrap();
}

/// What is beyond the type of the parameters is left out like what is not finite, if that is the policy.
#[test]
fn derivatives_beyond_the_type_are_refused_or_skipped() {
    let mut w = model();
    for non_finite in [NonFinite::Error, NonFinite::Skip] {
        let config = Spsa { num_samples: 2, non_finite, ..Spsa::default() };
        let mut estimator = config.build::<f32>().unwrap();
        estimator.ask(&mut w).unwrap();
        match (non_finite, estimator.tell(&[1e42, 1.0, 2.0, 1.0])) {
            (NonFinite::Error, Err(eigenstep::Error::NonFinite { what, value })) => {
                assert_eq!(what, "the derivative along a direction");
                assert!(value > 1e44);
            }
            (NonFinite::Skip, Ok(estimate)) => {
                let report = estimate.report();
                assert_eq!((report.skipped, report.coefficients[0]), (false, 0.0));
                assert!(report.coefficients[1] > 0.0);
            }
            (policy, other) => panic!("{policy:?}: {other:?}"),
        }
        let config = Coordinate { non_finite, ..Coordinate::default() };
        let mut estimator = config.build::<f32>().unwrap();
        let mut losses = vec![1.0; estimator.ask(&mut w).unwrap()];
        losses[2] = 1e42;
        let outcome = estimator.tell(&losses);
        assert_eq!(outcome.is_err(), non_finite == NonFinite::Error);
        assert!(outcome.is_err() || outcome.unwrap().report().coefficients[1] == 0.0);
    }
    // in f64 there is room for it
    let mut w = ndarray::array![1.0f64];
    let mut estimator = Spsa::default().build::<f64>().unwrap();
    estimator.ask(&mut w).unwrap();
    assert!(estimator.tell(&[1e42, 1.0]).is_ok());
}
