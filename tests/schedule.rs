//! Promises of the schedules, besides the golden numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use eigenstep_instances as _;

#[path = "schedule/ends.rs"]
mod ends;
#[path = "schedule/packages.rs"]
mod packages;
#[path = "schedule/resuming.rs"]
mod resuming;
mod support;

use eigenstep::hyper::Range;
use eigenstep::optim::{Elementwise, Optim};
use eigenstep::prelude::{Adafactor, AdamW, MatrixMethod, Muon, Partitioned, Rule, Select, Sgd};
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
        || {
            let waves =
                WarmupCosineRestarts { warmup: 5, total: 30, cycles: 3, ..Default::default() };
            Box::new(waves)
        },
        || {
            let decay = WarmupPolynomial { warmup: 5, total: 30, power: 2.0, ..Default::default() };
            Box::new(decay)
        },
        || {
            let (cycle_mul, cycle_decay, cycle_limit) = (1.5, 0.5, 3);
            let waves = CosineCycles {
                t_initial: 8,
                cycle_mul,
                cycle_decay,
                cycle_limit,
                ..Default::default()
            };
            Box::new(waves)
        },
        || {
            let points = vec![(0, 0.1), (5, 1.0), (9, 1.0), (20, 0.3)];
            Box::new(Piecewise { points, interpolation: Interpolation::Cosine })
        },
        || {
            let cosine = WarmupCosine { warmup: 5, total: 40, ..WarmupCosine::default() };
            Box::new(Noisy::new(cosine, RateNoise { pct: 0.2, from: 7, ..RateNoise::default() }))
        },
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
        // older states do not say whether others change the rate, too
        for key in state.scalars.keys().filter(|key| *key != "shared") {
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

/// Two groups with weight decay 0.1 and 0.03.
fn decaying() -> Optim<Elementwise<AdamW>, f32> {
    let adamw = AdamW { weight_decay: 0.1, ..AdamW::default() };
    adamw.build().unwrap().with_group(Select::name("b"), |group| group.weight_decay = 0.03).unwrap()
}

fn decays<O: Optimizer<f32>>(opt: &O) -> Vec<f64> {
    (0..opt.num_groups()).filter_map(|group| opt.option(group, "weight_decay")).collect()
}

#[test]
fn an_option_follows_the_curve_of_a_rate() {
    for build in all() {
        let (mut rates, mut lrs) = scheduler(build);
        let mut opt = decaying();
        let mut options = OptionScheduler::new("weight_decay", build(), &mut opt).unwrap();
        for step in 0..60 {
            let name = options.schedule().name();
            for (found, expected) in decays(&opt).into_iter().zip(rates.lrs()) {
                // closed forms here, recursions there
                assert!((found - expected).abs() <= 1e-12, "{name} at {step}: {found} {expected}");
            }
            assert_eq!((opt.lr(0), opt.option(0, "betas.0")), (1e-3, Some(0.9)), "{name}");
            lrs.step(&mut rates).unwrap();
            options.step(&mut opt).unwrap();
        }
        assert_eq!((options.epoch(), options.option()), (60.0, "weight_decay"));
        assert_eq!(options.base_values(), [Some(0.1), Some(0.03)]);
        let last: Vec<f64> = options.last_values().iter().flatten().copied().collect();
        assert_eq!(last, decays(&opt));
    }
}

#[test]
fn an_option_goes_on_whichever_state_is_loaded_first() {
    for build in all() {
        let start = || {
            let mut opt = decaying();
            let scheduler = OptionScheduler::new("weight_decay", build(), &mut opt).unwrap();
            (opt, scheduler)
        };
        let (mut opt, mut first) = start();
        (0..13).for_each(|_| first.step(&mut opt).unwrap());
        let (state, saved) = (first.state_dict(), opt.state_dict());
        let (mut before, mut second) = start();
        before.load_state_dict(&saved).unwrap();
        second.load_state_dict(&state, &mut before).unwrap();
        let (mut after, mut third) = start();
        third.load_state_dict(&state, &mut after).unwrap();
        assert_eq!(decays(&after), decays(&opt));
        after.load_state_dict(&saved).unwrap();
        // built on an optimizer in mid-run
        let mut late = decaying();
        late.load_state_dict(&saved).unwrap();
        let mut fourth = OptionScheduler::new("weight_decay", build(), &mut late).unwrap();
        fourth.load_state_dict(&state, &mut late).unwrap();
        assert_eq!(decays(&late), decays(&opt));
        for _ in 0..25 {
            first.step(&mut opt).unwrap();
            for (other, scheduler) in
                [(&mut before, &mut second), (&mut after, &mut third), (&mut late, &mut fourth)]
            {
                scheduler.step(other).unwrap();
                assert_eq!(decays(other), decays(&opt), "{}", first.schedule().name());
                assert_eq!(scheduler.state_dict(), first.state_dict());
            }
        }
    }
}

#[test]
fn every_key_of_an_option_is_needed_and_no_other_is_taken() {
    for build in all() {
        let mut opt = decaying();
        let mut scheduler = OptionScheduler::new("weight_decay", build(), &mut opt).unwrap();
        scheduler.step(&mut opt).unwrap();
        let (state, before) = (scheduler.state_dict(), decays(&opt));
        let mut refused = |key: &str, value: Option<Scalar>, problem: &str| {
            let mut changed = state.clone();
            changed.scalars.remove(key);
            changed.scalars.extend(value.map(|value| (key.to_owned(), value)));
            let error = scheduler.load_state_dict(&changed, &mut opt).unwrap_err().to_string();
            assert_eq!(error, format!("state dict: `{key}`: {problem}"));
            assert_eq!((scheduler.state_dict(), decays(&opt)), (state.clone(), before.clone()));
        };
        for key in state.scalars.keys() {
            refused(key, None, "missing");
        }
        refused("base_values.2", Some(Scalar::Float(0.1)), "unknown key");
        let other = Some(Scalar::Text("eps".into()));
        refused("option", other, "expected `weight_decay`, found `eps`");
        refused("option", Some(Scalar::Float(1.0)), "expected a word");
    }
}

#[test]
fn an_unknown_option_is_named_with_those_there_are() {
    let mut opt = decaying();
    let error = OptionScheduler::new("decay", Rex::default(), &mut opt).unwrap_err().to_string();
    let known = "lr, betas.0, betas.1, eps, weight_decay, amsgrad, maximize";
    assert!(error.starts_with(&format!("AdamW has no option `decay`; it has {known}")), "{error}");
    let wrong = Rex { total: 0, min_ratio: 0.0 };
    let error = OptionScheduler::new("eps", wrong, &mut opt).unwrap_err().to_string();
    assert_eq!(error, "Rex: `total` must be an integer >= 1, got 0");
    let resumed = OptionScheduler::resume("eps", Rex::default(), (vec![1e-8], 3.0), &mut opt);
    assert_eq!(
        resumed.unwrap_err().to_string(),
        "Rex: `base_values` has 1 values, the optimizer has 2 parameter groups"
    );
    let resumed =
        OptionScheduler::resume("eps", Rex::default(), (vec![1e-8; 2], f64::NAN), &mut opt);
    assert_eq!(resumed.unwrap_err().to_string(), "Rex: `epoch` must be finite and >= 0, got NaN");
    let mut swa = OptionScheduler::new("weight_decay", SwaLr::default(), &mut opt).unwrap();
    let error = swa.step_to(3.0, &mut opt).unwrap_err().to_string();
    assert!(
        error.contains("OptionScheduler::step_to") && error.contains("no closed form"),
        "{error}"
    );
}

#[test]
fn a_resumed_option_is_where_it_would_be() {
    let cosine = || CosineAnnealing { t_max: 17, eta_min: 0.003 };
    let mut opt = decaying();
    let mut whole = OptionScheduler::new("weight_decay", cosine(), &mut opt).unwrap();
    (0..9).for_each(|_| whole.step(&mut opt).unwrap());
    let mut other = decaying();
    let mut resumed =
        OptionScheduler::resume("weight_decay", cosine(), (vec![0.1, 0.03], 8.0), &mut other)
            .unwrap();
    assert_eq!(decays(&other), [0.1, 0.03]);
    resumed.step(&mut other).unwrap();
    assert_eq!(decays(&other), decays(&opt));
    resumed.step_to(17.0, &mut other).unwrap();
    assert_eq!(decays(&other), [0.003, 0.003]);
}

/// Ends of ranges are reached exactly; what lies beyond them is refused, and nothing has changed.
#[test]
fn rounding_does_not_leave_the_range() {
    // `beta2_cap` may be 1, `beta1` may not
    let adafactor = Adafactor { beta1: 0.9, beta2_cap: 0.7, ..Adafactor::default() };
    let mut opt = adafactor.build::<f32>().unwrap();
    let rise = |to: f64| Lambda::new(move |e| if e == 0 { 1.0 } else { to });
    for (option, base, to, expected) in [
        ("beta2_cap", 0.7, (1.0 + 1e-15) / 0.7, 1.0),
        ("beta2_cap", 0.7, -1e-17, 0.0),
        ("beta1", 0.9, -1e-14, 0.0),
        ("weight_decay", 0.5, -1e-16, 0.0),
        ("d", 2.0, 0.5 - 1e-16, 1.0),
        ("beta2_decay", -0.8, -1e-16, 0.0),
    ] {
        opt.set_option(0, option, base).unwrap();
        let mut scheduler = OptionScheduler::new(option, rise(to), &mut opt).unwrap();
        scheduler.step(&mut opt).unwrap();
        assert_eq!(opt.option(0, option), Some(expected), "{option}");
        opt.set_option(0, option, base).unwrap();
    }
    for (option, to, message) in [
        ("beta2_cap", 1.5, "Adafactor: `beta2_cap` must be in [0, 1], got 1.0499999999999998"),
        ("beta1", 1.0 / 0.9, "Adafactor: `beta1` must be in [0, 1), got 1"),
        (
            "weight_decay",
            -1e-9,
            "Adafactor: `weight_decay` must be finite and >= 0, got -0.0000000005",
        ),
        ("d", f64::NAN, "the scheduled value of an option is not finite: NaN"),
    ] {
        let mut scheduler = OptionScheduler::new(option, rise(to), &mut opt).unwrap();
        let (before, state) = (opt.option(0, option), scheduler.state_dict());
        let error = scheduler.step(&mut opt).unwrap_err().to_string();
        assert_eq!(error, message);
        assert_eq!((opt.option(0, option), scheduler.state_dict()), (before, state));
    }
    // curves that end at the end of the range, of lengths that no power of two divides
    for total in [3, 7, 10, 30, 49, 77, 1001] {
        let schedules: [Box<dyn Schedule>; 4] = [
            Box::new(CosineAnnealing { t_max: total, eta_min: 0.0 }),
            Box::new(Linear { start_factor: 1.0, end_factor: 0.0, total_iters: total }),
            Box::new(Polynomial { total_iters: total, power: 1.0 }),
            Box::new(Rex { total, min_ratio: 0.0 }),
        ];
        for schedule in schedules {
            let mut opt = decaying();
            let mut scheduler = OptionScheduler::new("weight_decay", schedule, &mut opt).unwrap();
            (0..total).for_each(|_| scheduler.step(&mut opt).unwrap());
            assert_eq!(decays(&opt), [0.0, 0.0], "{scheduler:?}");
        }
    }
}

#[test]
fn counts_are_whole_numbers() {
    let mut opt = Muon { ns_steps: 9, ..Muon::default() }.build::<f32>().unwrap();
    let fall = Linear { start_factor: 1.0, end_factor: 1.0 / 9.0, total_iters: 12 };
    let mut scheduler = OptionScheduler::new("ns_steps", fall, &mut opt).unwrap();
    let mut found = Vec::new();
    for _ in 0..12 {
        scheduler.step(&mut opt).unwrap();
        found.push(opt.option(0, "ns_steps").unwrap());
    }
    // 9 − 2e/3
    assert_eq!(found, [8.0, 8.0, 7.0, 6.0, 6.0, 5.0, 4.0, 4.0, 3.0, 2.0, 2.0, 1.0]);
    let mut flag =
        OptionScheduler::new("nesterov", Lambda::new(|e| (e % 2) as f64), &mut opt).unwrap();
    assert_eq!(opt.option(0, "nesterov"), Some(0.0));
    flag.step(&mut opt).unwrap();
    assert_eq!(opt.option(0, "nesterov"), Some(1.0));
}

#[test]
fn groups_without_the_option_are_left_alone_and_later_ones_join() {
    let sgd = Sgd { lr: 0.1, momentum: 0.8, ..Sgd::default() };
    let mut opt = Partitioned::<f32>::new(AdamW::default().build().unwrap())
        .with(Select::name("w"), sgd.build().unwrap());
    let half = Step { step_size: 1, gamma: 0.5 };
    let mut scheduler = OptionScheduler::new("momentum", half.clone(), &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    assert_eq!((opt.option(0, "momentum"), opt.option(1, "momentum")), (None, Some(0.4)));
    assert_eq!(scheduler.base_values(), [None, Some(0.8)]);
    let boxed: Box<dyn Optimizer<f32>> = Box::new(opt);
    assert_eq!(boxed.option_range(1, "momentum"), Some(Range::NonNegative));
    assert_eq!((boxed.option_range(0, "momentum"), boxed.option_range(7, "lr")), (None, None));
    let mut opt = boxed;
    scheduler.load_state_dict(&scheduler.state_dict(), &mut opt).unwrap();
    let error = OptionScheduler::new("temperature", half.clone(), &mut opt).unwrap_err();
    assert!(error.to_string().starts_with("AdamW has no option `temperature`; it has lr, "));

    let mut opt = decaying();
    let mut scheduler = OptionScheduler::new("weight_decay", half, &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    opt.add_group(Select::name("c"), |group| group.weight_decay = 0.8).unwrap();
    scheduler.step(&mut opt).unwrap();
    // where the others are on the curve
    assert_eq!(decays(&opt), [0.025, 0.0075, 0.2]);
}

/// A scheduled option is one that was set by hand before every step.
#[test]
fn a_scheduled_option_acts() {
    let build = || AdamW { lr: 0.1, ..AdamW::default() }.build::<f64>().unwrap();
    let (mut opt, mut by_hand, mut constant) = (build(), build(), build());
    let cosine = CosineAnnealing { t_max: 5, eta_min: 0.0 };
    let mut scheduler = OptionScheduler::new("betas.0", cosine.clone(), &mut opt).unwrap();
    let start = ndarray::array![1.0, -2.0];
    let (mut w, mut v, mut u) = (start.clone(), start.clone(), start);
    for e in 0..5u32 {
        let at = At { group: 0, epoch: f64::from(e), base_lr: 0.9, lr: 0.9 };
        by_hand.set_option(0, "betas.0", cosine.closed_form(at).unwrap()).unwrap();
        let grads = ndarray::array![f64::from(e).cos(), f64::from(e).sin()];
        opt.step(&mut w, &grads).unwrap();
        by_hand.step(&mut v, &grads).unwrap();
        constant.step(&mut u, &grads).unwrap();
        scheduler.step(&mut opt).unwrap();
    }
    assert_eq!(w, v);
    assert_ne!(w, u);
}
