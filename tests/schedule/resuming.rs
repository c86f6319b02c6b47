//! Groups that join, and states that are loaded in any order.

use eigenstep::optim::Optimizer;
use eigenstep::prelude::{AdamW, Rule, Select, StateDict};
use eigenstep::schedule::*;

type Opt = eigenstep::optim::Optim<eigenstep::optim::Elementwise<AdamW>, f32>;

fn adam() -> Opt {
    AdamW { lr: 0.1, ..AdamW::default() }.build().unwrap()
}

fn schedules() -> Vec<fn() -> Box<dyn Schedule>> {
    let mut all = super::all();
    // with one option per group, or one part: their lists have a length
    all.retain(|build| !matches!(build().name(), "SwaLr" | "Groupwise"));
    all.push(|| Box::new(SwaLr::default()));
    all.push(|| {
        let zero = Linear { start_factor: 1e-9, end_factor: 1.0, total_iters: 5 };
        Box::new(Sequential::new(zero).then(6, WarmupLinear { warmup: 5, ..Default::default() }))
    });
    all
}

/// As from the start on, for every schedule and every moment of joining.
#[test]
fn a_group_that_changes_no_rate_has_the_rates_of_the_others() {
    for build in schedules() {
        for joins in 0..20 {
            let mut opt = adam();
            let mut scheduler = LrScheduler::new(build(), &mut opt).unwrap();
            let mut decay = OptionScheduler::new("weight_decay", build(), &mut opt).unwrap();
            for e in 0..25 {
                if e == joins {
                    opt.add_group(Select::name("b"), |group| group.eps = 1e-6).unwrap();
                    opt.add_group(Select::name("c"), |group| group.lr = 0.7).unwrap();
                }
                scheduler.step(&mut opt).unwrap();
                decay.step(&mut opt).unwrap();
                if e >= joins {
                    let name = scheduler.schedule().name();
                    assert_eq!(opt.lr(0).to_bits(), opt.lr(1).to_bits(), "{name} {joins} {e}");
                    let decay = |group| opt.option(group, "weight_decay");
                    assert_eq!((decay(0), decay(0)), (decay(1), decay(2)), "{name} {joins} {e}");
                    assert_eq!(scheduler.base_lrs(), [0.1, 0.1, 0.7]);
                }
            }
        }
    }
}

struct Saved {
    opt: StateDict,
    scheduler: StateDict,
    /// The rates that follow.
    next: Vec<f64>,
}

fn saved(build: fn() -> Box<dyn Schedule>, steps: usize) -> Saved {
    let mut opt = adam();
    let mut scheduler = LrScheduler::new(build(), &mut opt).unwrap();
    (0..steps).for_each(|_| scheduler.step(&mut opt).unwrap());
    let (dict, scheduler_dict) = (opt.state_dict(), scheduler.state_dict());
    let next = rates(&mut opt, &mut scheduler);
    Saved { opt: dict, scheduler: scheduler_dict, next }
}

fn rates(opt: &mut Opt, scheduler: &mut LrScheduler) -> Vec<f64> {
    let step = |_| {
        scheduler.step(opt).unwrap();
        opt.lr(0)
    };
    (0..12).map(step).collect()
}

#[test]
fn any_order_of_loading_gives_the_same_rates() {
    for build in schedules() {
        for steps in [0, 1, 4, 13] {
            let saved = saved(build, steps);
            for order in 0..4 {
                let mut opt = adam();
                if order == 2 {
                    opt.load_state_dict(&saved.opt).unwrap();
                }
                let mut scheduler = LrScheduler::new(build(), &mut opt).unwrap();
                if order == 0 {
                    opt.load_state_dict(&saved.opt).unwrap();
                }
                scheduler.load_state_dict(&saved.scheduler).unwrap();
                if order == 1 {
                    opt.load_state_dict(&saved.opt).unwrap();
                }
                if order == 3 {
                    // twice does no harm, and the optimizer only comes then
                    scheduler.load_state_dict(&saved.scheduler).unwrap();
                    opt.load_state_dict(&saved.opt).unwrap();
                }
                let found = rates(&mut opt, &mut scheduler);
                assert_eq!(found, saved.next, "{} {steps} {order}", scheduler.schedule().name());
            }
        }
    }
}

#[test]
fn an_optimizer_of_another_moment_is_an_error_of_the_next_step() {
    for build in schedules() {
        let (saved, other) = (saved(build, 13), saved(build, 3));
        let mut opt = adam();
        let mut scheduler = LrScheduler::new(build(), &mut opt).unwrap();
        scheduler.load_state_dict(&saved.scheduler).unwrap();
        opt.load_state_dict(&other.opt).unwrap();
        opt.set_lr(0, 0.0123).unwrap();
        let before = (scheduler.state_dict(), opt.state_dict());
        match scheduler.step(&mut opt) {
            // the rate does not depend on the one before
            Ok(()) => assert_eq!(opt.lr(0), saved.next[0]),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("group 0") && text.contains("0.0123"), "{text}");
                assert!(text.contains("`LrScheduler::resume`"), "{text}");
                assert_eq!((scheduler.state_dict(), opt.state_dict()), before);
                // with the right one it goes on
                opt.load_state_dict(&saved.opt).unwrap();
                scheduler.step(&mut opt).unwrap();
                assert_eq!(opt.lr(0), saved.next[0]);
            }
        }
    }
    // and the error is there for the chainable ones
    let build: fn() -> Box<dyn Schedule> = || Box::new(Exponential { gamma: 0.9 });
    let saved = saved(build, 3);
    let mut opt = adam();
    let mut scheduler = LrScheduler::new(build(), &mut opt).unwrap();
    scheduler.load_state_dict(&saved.scheduler).unwrap();
    opt.set_lr(0, 0.5).unwrap();
    assert!(scheduler.step(&mut opt).is_err());
}

/// Two chained by hand: neither wrote what the optimizer has.
#[test]
fn schedulers_that_share_the_rate_go_on() {
    let build = |opt: &mut Opt| {
        let first = LrScheduler::new(Exponential { gamma: 0.9 }, opt).unwrap();
        let second = LrScheduler::new(Step { step_size: 2, gamma: 0.5 }, opt).unwrap();
        (first, second)
    };
    let step = |(first, second): &mut (LrScheduler, LrScheduler), opt: &mut Opt| {
        first.step(opt).unwrap();
        second.step(opt).unwrap();
        opt.lr(0)
    };
    let mut opt = adam();
    let mut both = build(&mut opt);
    for _ in 0..5 {
        step(&mut both, &mut opt);
    }
    let mut again = adam();
    let mut loaded = build(&mut again);
    loaded.0.load_state_dict(&both.0.state_dict()).unwrap();
    loaded.1.load_state_dict(&both.1.state_dict()).unwrap();
    again.load_state_dict(&opt.state_dict()).unwrap();
    for _ in 0..5 {
        assert_eq!(step(&mut both, &mut opt), step(&mut loaded, &mut again));
    }
}

/// A run that got a group on its way is loaded into schedulers built before or after the group.
#[test]
fn groups_of_the_state_count() {
    let mut opt = adam();
    let half = || Step { step_size: 2, gamma: 0.5 };
    let mut scheduler = LrScheduler::new(half(), &mut opt).unwrap();
    let mut decay = OptionScheduler::new("weight_decay", half(), &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    opt.add_group(Select::name("b"), |group| group.lr = 0.7).unwrap();
    (0..2).for_each(|_| {
        scheduler.step(&mut opt).unwrap();
        decay.step(&mut opt).unwrap();
    });
    for built_after in [false, true] {
        let mut again = adam();
        let add = |opt: &mut Opt| opt.add_group(Select::name("b"), |group| group.lr = 0.7).unwrap();
        if built_after {
            add(&mut again);
        }
        let mut second = LrScheduler::new(half(), &mut again).unwrap();
        let mut second_decay = OptionScheduler::new("weight_decay", half(), &mut again).unwrap();
        second.load_state_dict(&scheduler.state_dict()).unwrap();
        if !built_after {
            let error = second.step(&mut again).unwrap_err().to_string();
            let expected = "Step: `base_lrs` has 2 values, the optimizer has 1 parameter groups";
            assert_eq!(error, expected);
            add(&mut again);
        }
        again.load_state_dict(&opt.state_dict()).unwrap();
        second_decay.load_state_dict(&decay.state_dict(), &mut again).unwrap();
        assert_eq!(second.state_dict(), scheduler.state_dict());
        assert_eq!(second_decay.state_dict(), decay.state_dict());
        second.step(&mut again).unwrap();
        assert_eq!((again.lr(0), again.lr(1)), (0.025, 0.175));
    }
}

#[test]
fn plateau_resumes_with_other_options() {
    let mut opt = adam();
    let impatient = ReduceOnPlateau { patience: 5, ..ReduceOnPlateau::default() };
    let mut first = PlateauScheduler::new(impatient.clone(), &opt).unwrap();
    for metric in [1.0, 0.7, 0.8, 0.8] {
        first.step(metric, &mut opt).unwrap();
    }
    let state = first.state_dict();
    let patient = ReduceOnPlateau { patience: 2, factor: 0.5, ..impatient };
    let mut second = PlateauScheduler::resume(patient, &state, &opt).unwrap();
    assert_eq!((second.best(), second.num_bad_epochs(), second.epoch()), (0.7, 2, 4));
    second.step(0.8, &mut opt).unwrap();
    assert_eq!(opt.lr(0), 0.05);
    let rising = ReduceOnPlateau { mode: PlateauMode::Max, ..ReduceOnPlateau::default() };
    let error = PlateauScheduler::resume(rising, &state, &opt).unwrap_err().to_string();
    assert_eq!(error, "state dict: `options.mode`: expected 1, found 0");
}
