//! Promises of the schedules, besides the golden numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use eigenstep::schedule::*;
use eigenstep::state::Scalar;
use eigenstep::{Error, optim::Optimizer};
use support::Mock;

type Build = fn() -> Box<dyn Schedule>;

/// Every schedule, with options that make something happen within 40 steps.
fn all() -> Vec<Build> {
    vec![
        || Box::new(Constant { factor: 0.25, total_iters: 9 }),
        || Box::new(Linear { start_factor: 0.1, end_factor: 0.9, total_iters: 20 }),
        || Box::new(Polynomial { total_iters: 30, power: 2.0 }),
        || Box::new(Step { step_size: 7, gamma: 0.5 }),
        || Box::new(MultiStep { milestones: vec![5, 12, 12, 33], gamma: 0.3 }),
        || Box::new(Exponential { gamma: 0.93 }),
        || Box::new(CosineAnnealing { t_max: 15, eta_min: 0.001 }),
        || Box::new(CosineRestarts { t_0: 5, t_mult: 2, eta_min: 0.001 }),
        || {
            let mode = CyclicMode::ExpRange { gamma: 0.98 };
            Box::new(Cyclic { step_size_up: 4, step_size_down: Some(3), mode, ..Cyclic::default() })
        },
        || Box::new(OneCycle { total_steps: 60, three_phase: true, ..OneCycle::default() }),
        || Box::new(Lambda::new(|e| 1.0 / (1 + e) as f64)),
        || Box::new(Multiplicative::new(|e| if e % 5 == 0 { 0.9 } else { 1.0 })),
        || Box::new(SwaLr { swa_lr: [0.02, 0.05].into(), ..SwaLr::default() }),
        || Box::new(Wsd { warmup: 5, stable: 10, decay: 10, ..Wsd::default() }),
        || Box::new(WarmupCosine { warmup: 5, total: 30, ..WarmupCosine::default() }),
        || Box::new(WarmupLinear { warmup: 5, total: 30, ..WarmupLinear::default() }),
        || Box::new(InverseSqrt { warmup: 5, timescale: Some(7), ..InverseSqrt::default() }),
        || Box::new(Noam { d_model: 64, warmup: 10 }),
        || Box::new(Rex { total: 35, min_ratio: 0.1 }),
        || {
            let warmup = Linear { start_factor: 0.1, end_factor: 1.0, total_iters: 10 };
            let end = Exponential { gamma: 0.9 };
            let cosine = CosineAnnealing { t_max: 12, eta_min: 0.0 };
            Box::new(Sequential::new(warmup).then(10, cosine).then(25, end))
        },
        || {
            let gentle = Constant { factor: 0.1, total_iters: 6 };
            Box::new(Chained::new(gentle).and(Exponential { gamma: 0.97 }))
        },
        || {
            let body = CosineAnnealing { t_max: 12, eta_min: 0.0 };
            Box::new(Groupwise::new(body).and(Step { step_size: 4, gamma: 0.5 }))
        },
    ]
}

fn scheduler(build: Build) -> (Mock, LrScheduler) {
    let mut opt = Mock::adam(&[0.1, 0.03]);
    let scheduler = LrScheduler::new(build(), &mut opt).unwrap();
    (opt, scheduler)
}

#[test]
fn recursion_is_the_closed_form() {
    for build in all() {
        let (mut opt, mut scheduler) = scheduler(build);
        let name = scheduler.schedule().name();
        let last = if name == "OneCycle" { 60 } else { 200 };
        for e in 1..=last {
            scheduler.step(&mut opt).unwrap();
            for (group, &base_lr) in [0.1, 0.03].iter().enumerate() {
                let at = At { group, epoch: f64::from(e), base_lr, lr: f64::NAN };
                let Some(expected) = scheduler.schedule().closed_form(at) else { continue };
                let error = (opt.lr(group) - expected).abs();
                // relative to the base: near the zero of a cosine the recursion keeps its rounding
                assert!(error <= 1e-12 * base_lr, "{name} at {e}: {} {expected}", opt.lr(group));
            }
        }
    }
}

#[test]
fn reload_continues_bit_for_bit() {
    for build in all() {
        let (mut opt, mut first) = scheduler(build);
        (0..13).for_each(|_| first.step(&mut opt).unwrap());
        let (_, mut second) = scheduler(build);
        second.load_state_dict(&first.state_dict()).unwrap();
        let mut other = opt.clone();
        for _ in 0..25 {
            first.step(&mut opt).unwrap();
            second.step(&mut other).unwrap();
            assert_eq!(opt, other, "{}", first.schedule().name());
        }
        assert_eq!(first.state_dict(), second.state_dict());
        assert_eq!(first.last_lrs(), opt.lrs());
    }
}

#[test]
fn every_state_dict_key_is_needed_and_no_other_is_taken() {
    for build in all() {
        let (mut opt, mut scheduler) = scheduler(build);
        scheduler.step(&mut opt).unwrap();
        let state = scheduler.state_dict();
        for key in state.scalars.keys() {
            let mut short = state.clone();
            short.scalars.remove(key);
            let error = scheduler.load_state_dict(&short).unwrap_err();
            assert_eq!(error.to_string(), format!("state dict: `{key}`: missing"));
            if key.starts_with("options.") {
                let mut changed = state.clone();
                changed.scalars.insert(key.clone(), Scalar::Float(0.123));
                let error = scheduler.load_state_dict(&changed).unwrap_err().to_string();
                assert!(error.contains(key) && error.ends_with("found 0.123"), "{error}");
            }
        }
        let mut long = state.clone();
        long.scalars.insert("base_lrs.7".into(), Scalar::Float(0.1));
        let error = scheduler.load_state_dict(&long).unwrap_err().to_string();
        assert_eq!(error, "state dict: `base_lrs.7`: unknown key");
        assert_eq!(scheduler.state_dict(), state);
    }
}

#[test]
fn chainable_schedules_keep_changes_by_hand() {
    for (build, keeps) in [
        ((|| Box::new(Step { step_size: 7, gamma: 0.5 })) as Build, true),
        (|| Box::new(Exponential { gamma: 0.93 }), true),
        (|| Box::new(Linear { start_factor: 0.1, end_factor: 1.0, total_iters: 20 }), true),
        (|| Box::new(Lambda::new(|e| 1.0 / (1 + e) as f64)), false),
        (|| Box::new(CosineRestarts { t_0: 10, t_mult: 1, eta_min: 0.0 }), false),
    ] {
        let (mut plain, mut a) = scheduler(build);
        let (mut changed, mut b) = scheduler(build);
        let halved = changed.lr(0) / 2.0;
        changed.set_lr(0, halved).unwrap();
        for _ in 0..30 {
            a.step(&mut plain).unwrap();
            b.step(&mut changed).unwrap();
        }
        let ratio = changed.lr(0) / plain.lr(0);
        assert!((ratio - if keeps { 0.5 } else { 1.0 }).abs() < 1e-12, "{ratio}");
        assert_eq!(changed.lr(1), plain.lr(1));
    }
}

#[test]
fn one_cycle_endpoints() {
    for (three_phase, anneal) in [(false, Anneal::Cos), (true, Anneal::Linear)] {
        let cycle = OneCycle {
            max_lr: [0.1, 0.3].into(),
            total_steps: 100,
            three_phase,
            anneal,
            ..OneCycle::default()
        };
        let mut opt = Mock::adam(&[0.5, 0.5]);
        let mut scheduler = LrScheduler::new(cycle, &mut opt).unwrap();
        let near = |x: f64, y: f64| assert!((x - y).abs() < 1e-15, "{x} {y}");
        near(opt.lr(1), 0.3 / 25.0);
        near(opt.options("betas.0")[0], 0.95);
        for e in 1..100 {
            scheduler.step(&mut opt).unwrap();
            if e == 29 {
                near(opt.lr(1), 0.3);
                near(opt.options("betas.0")[0], 0.85);
            }
        }
        near(opt.lr(0), 0.1 / 25.0 / 1e4);
        near(opt.options("betas.0")[1], 0.95);
        scheduler.step(&mut opt).unwrap();
        let before = opt.clone();
        let error = scheduler.step(&mut opt).unwrap_err().to_string();
        assert_eq!(error, "OneCycle: step 101 lies past `total_steps` = 100");
        assert_eq!((opt, scheduler.epoch()), (before, 100.0));
    }
}

#[test]
fn warm_up_from_one_does_not_lose_the_first_step() {
    let warm =
        |warmup_from_one| WarmupLinear { warmup: 4, total: 8, warmup_from_one, min_ratio: 0.0 };
    assert_eq!(curve(&warm(false), 1.0, 5), [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(curve(&warm(true), 1.0, 5), [0.25, 0.5, 0.75, 1.0, 1.0]);
}

#[test]
fn sequences_nest() {
    let tail = Sequential::new(Constant { factor: 0.5, total_iters: 2 })
        .then(3, Exponential { gamma: 0.5 });
    let all = Sequential::new(Exponential { gamma: 0.9 }).then(2, tail);
    let chain = Chained::new(Constant { factor: 0.5, total_iters: 2 });
    assert_eq!(curve(&all, 1.0, 7), [1.0, 0.9, 0.5, 0.5, 1.0, 1.0, 0.5]);
    let all =
        Sequential::new(Exponential { gamma: 0.9 }).then(1, chain.and(Exponential { gamma: 0.5 }));
    assert_eq!(curve(&all, 1.0, 4), [1.0, 0.5, 0.25, 0.25]);
}

#[test]
fn a_group_added_later_joins_with_its_rate() {
    let mut opt = Mock::sgd(&[0.1]);
    let mut scheduler = LrScheduler::new(Step { step_size: 2, gamma: 0.5 }, &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    opt.groups.push(Mock::sgd(&[0.8]).groups.remove(0));
    scheduler.step(&mut opt).unwrap();
    assert_eq!((opt.lrs(), scheduler.base_lrs()), (vec![0.05, 0.4], &[0.1, 0.8][..]));

    let swa = SwaLr { swa_lr: [0.02, 0.05].into(), ..SwaLr::default() };
    let mut scheduler = LrScheduler::new(swa, &mut opt).unwrap();
    opt.groups.push(Mock::sgd(&[0.8]).groups.remove(0));
    let error = scheduler.step(&mut opt).unwrap_err().to_string();
    assert_eq!(error, "SwaLr: `swa_lr` has 2 values, the optimizer has 3 parameter groups");
}

#[test]
fn trait_objects_and_resuming() {
    let mut boxed: Box<dyn Optimizer<f32>> = Box::new(Mock::sgd(&[0.1]));
    let cosine = |t_max| CosineAnnealing { t_max, eta_min: 0.0 };
    let mut scheduler = LrScheduler::new(cosine(10), &mut boxed).unwrap();
    scheduler.step(&mut boxed).unwrap();
    let opt: &mut dyn Optimizer<f32> = &mut *boxed;
    scheduler.step(opt).unwrap();
    let (base_lrs, epoch) = (scheduler.base_lrs().to_vec(), scheduler.epoch());
    let mut longer = LrScheduler::resume(cosine(20), base_lrs, epoch, opt).unwrap();
    longer.step_to(10.0, opt).unwrap();
    assert!((opt.lr(0) - 0.05).abs() < 1e-15);
}

#[test]
fn a_failed_step_changes_nothing() {
    let mut opt = Mock::sgd(&[0.1, 0.2]);
    let factors: Vec<Box<dyn Fn(u64) -> f64 + Send + Sync>> =
        vec![Box::new(|_| 0.5), Box::new(|e| if e < 2 { 1.0 } else { -1.0 })];
    let mut scheduler = LrScheduler::new(Lambda::per_group(factors), &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    let (before, state) = (opt.clone(), scheduler.state_dict());
    let error = scheduler.step(&mut opt).unwrap_err();
    assert_eq!(error.to_string(), "Mock: `lr` must be in range, got -0.2");
    assert_eq!((&opt, scheduler.state_dict()), (&before, state));

    let mut scheduler = LrScheduler::new(Multiplicative::new(|_| f64::NAN), &mut opt).unwrap();
    let error = scheduler.step(&mut opt).unwrap_err();
    assert_eq!(error.to_string(), "the scheduled learning rate is not finite: NaN");
    assert_eq!(scheduler.epoch(), 0.0);
}

#[test]
fn plateau() {
    let config = ReduceOnPlateau { patience: 2, factor: 0.5, cooldown: 1, ..Default::default() };
    let mut opt = Mock::sgd(&[0.1]);
    let mut scheduler = PlateauScheduler::new(config.clone(), &opt).unwrap();
    for metric in [1.0, 1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(opt.lr(0), 0.1);
        scheduler.step(metric, &mut opt).unwrap();
    }
    assert_eq!((opt.lr(0), scheduler.best(), scheduler.cooldown_counter()), (0.05, 1.0, 1));

    let mut second = PlateauScheduler::new(config.clone(), &opt).unwrap();
    second.load_state_dict(&scheduler.state_dict()).unwrap();
    let mut other = opt.clone();
    for metric in [1.1, 1.2, 1.3, 1.4, 0.5] {
        scheduler.step(metric, &mut opt).unwrap();
        second.step(metric, &mut other).unwrap();
        assert_eq!((&opt, &scheduler), (&other, &second));
    }
    assert_eq!(opt.lr(0), 0.025);

    let patient = ReduceOnPlateau { patience: 9, ..config.clone() };
    let mut third = PlateauScheduler::new(patient, &opt).unwrap();
    let error = third.load_state_dict(&scheduler.state_dict()).unwrap_err().to_string();
    assert_eq!(error, "state dict: `options.patience`: expected 9, found 2");
    let wrong = ReduceOnPlateau { min_lr: [0.1, 0.1].into(), ..config };
    let error = PlateauScheduler::new(wrong, &opt).unwrap_err().to_string();
    assert_eq!(
        error,
        "ReduceOnPlateau: `min_lr` has 2 values, the optimizer has 1 parameter groups"
    );
}

#[test]
fn wrong_options_are_errors_with_a_name() {
    let refused: Vec<(Box<dyn Schedule>, &str)> = vec![
        (
            Box::new(Step { step_size: 0, gamma: 0.1 }),
            "Step: `step_size` must be an integer >= 1, got 0",
        ),
        (
            Box::new(CosineAnnealing { t_max: 0, eta_min: 0.0 }),
            "CosineAnnealing: `t_max` must be an integer >= 1, got 0",
        ),
        (
            Box::new(OneCycle { total_steps: 0, ..OneCycle::default() }),
            "OneCycle: `total_steps` must be an integer >= 1, got 0",
        ),
        (
            Box::new(OneCycle { max_lr: vec![].into(), ..OneCycle::default() }),
            "OneCycle: `max_lr` has 0 values, the optimizer has 1 parameter groups",
        ),
        (
            Box::new(OneCycle { max_lr: f64::NAN.into(), ..OneCycle::default() }),
            "OneCycle: `max_lr` must be finite and >= 0, got NaN",
        ),
        (
            Box::new(Linear { start_factor: 0.0, ..Linear::default() }),
            "Linear: `start_factor` must be in (0, 1], got 0",
        ),
        (
            Box::new(Exponential { gamma: f64::NAN }),
            "Exponential: `gamma` must be finite and >= 0, got NaN",
        ),
        (
            Box::new(InverseSqrt { warmup: 0, ..InverseSqrt::default() }),
            "InverseSqrt: `timescale` must be an integer >= 1 (where there is no warm-up), got 0",
        ),
        (
            Box::new(
                Sequential::new(Rex::default()).then(3, Rex::default()).then(3, Rex::default()),
            ),
            "Sequential: `milestones` must be strictly ascending, from 1 on, got [3, 3]",
        ),
        (
            Box::new(Chained::new(Rex { total: 0, min_ratio: 0.0 })),
            "Rex: `total` must be an integer >= 1, got 0",
        ),
        (
            Box::new(Groupwise::new(Rex::default()).and(Rex::default())),
            "Groupwise: `schedules` has 2 values, the optimizer has 1 parameter groups",
        ),
    ];
    for (schedule, message) in refused {
        let mut opt = Mock::sgd(&[0.1]);
        let error = LrScheduler::new(schedule, &mut opt).unwrap_err();
        assert_eq!((error.to_string().as_str(), opt.lr(0)), (message, 0.1));
    }

    let mut plain = Mock::new(&[0.1], None);
    let error = LrScheduler::new(OneCycle::default(), &mut plain).unwrap_err();
    let message =
        "OneCycle: `cycle_momentum` must be false for Mock, which has no momentum, got true";
    assert_eq!(error.to_string(), message);
    let quiet = OneCycle { cycle_momentum: false, ..OneCycle::default() };
    assert!(LrScheduler::new(quiet, &mut plain).is_ok());

    let mut scheduler = LrScheduler::new(SwaLr::default(), &mut plain).unwrap();
    let error = scheduler.step_to(3.0, &mut plain).unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { .. }));
    let error = scheduler.step_to(f64::NAN, &mut plain).unwrap_err();
    assert_eq!(error.to_string(), "SwaLr: `epoch` must be finite and >= 0, got NaN");
    let other = LrScheduler::new(Rex::default(), &mut plain).unwrap().state_dict();
    let error = scheduler.load_state_dict(&other).unwrap_err();
    assert_eq!(error.to_string(), "state dict: `optimizer`: expected `SwaLr`, found `Rex`");
}

#[test]
fn extreme_options_do_not_panic() {
    let schedules: Vec<Box<dyn Schedule>> = vec![
        Box::new(OneCycle { total_steps: 1, pct_start: 1.0, ..OneCycle::default() }),
        Box::new(OneCycle { total_steps: u64::MAX >> 12, ..OneCycle::default() }),
        Box::new(Cyclic { step_size_down: Some(0), step_size_up: 1, ..Cyclic::default() }),
        Box::new(CosineRestarts { t_0: 1, t_mult: 3, eta_min: 0.0 }),
        Box::new(Wsd { warmup: 0, stable: 0, decay: 0, ..Wsd::default() }),
        Box::new(WarmupCosine { warmup: 5, total: 1, ..WarmupCosine::default() }),
        Box::new(SwaLr { anneal_epochs: 0, ..SwaLr::default() }),
        Box::new(Constant { factor: 0.0, total_iters: 2 }),
        Box::new(Noam { d_model: 1, warmup: 0 }),
    ];
    for schedule in schedules {
        let mut opt = Mock::sgd(&[0.1]);
        let mut scheduler = LrScheduler::new(schedule, &mut opt).unwrap();
        for _ in 0..5 {
            let _ = scheduler.step(&mut opt);
            assert!(opt.lr(0).is_finite(), "{scheduler:?}");
        }
    }
}
