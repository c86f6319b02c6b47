//! Parameters in `bf16` and `f16`: what each way of rounding keeps, on any number of threads, and
//! across saving.
#![cfg(feature = "half")]
// a test that fails says so by panicking; the helpers serve other tests too
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;
#[path = "rounding/moves.rs"]
mod moves;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::numeric::{Element, bf16, f16};
use eigenstep::optim::Optimizer;
use eigenstep::prelude::{Precision, Rounding, Sgd};
use model::*;
use threads::on_threads;

const ROUNDINGS: [Rounding; 4] =
    [Rounding::Nearest, Rounding::Stochastic { seed: 7 }, Rounding::Kahan, Rounding::Master];

fn build<T: Element>(config: &Config, rounding: Rounding) -> Opt<T> {
    let opt: Opt<T> = config.optimizer().unwrap();
    opt.with_rounding(rounding).unwrap()
}

/// Weights of 1.0 after `steps` steps of size `lr`.
fn after<T: Element>(rounding: Rounding, lr: f64, steps: usize, len: usize) -> Vec<f64> {
    let config = Config::from(Sgd { lr, ..Sgd::default() });
    let mut opt = build::<T>(&config, rounding);
    let one = T::store(eigenstep::numeric::Real::of(1.0));
    let mut params = vec![Leaf { shape: vec![len], values: vec![one; len] }];
    let grads = params.clone();
    for _ in 0..steps {
        opt.step(&mut params, &grads).unwrap();
    }
    all_values(&params)
}

/// Steps below half a unit in the last place.
fn small_steps<T: Element>(lr: f64) {
    let steps = 200;
    let exact = 1.0 - lr * steps as f64;
    let unit = 2.0 * lr;
    assert!(after::<T>(Rounding::Nearest, lr, steps, 100).iter().all(|&w| w == 1.0));
    for rounding in [Rounding::Kahan, Rounding::Master] {
        for w in after::<T>(rounding, lr, steps, 100) {
            assert!((w - exact).abs() <= 2.0 * unit, "{rounding:?}: {w}, not {exact}");
        }
    }
    let weights = after::<T>(Rounding::Stochastic { seed: 1 }, lr, steps, 4096);
    let mean = weights.iter().sum::<f64>() / 4096.0;
    assert!((mean - exact).abs() <= unit, "stochastic: {mean}, not {exact}");
}

#[test]
fn small_steps_are_lost_by_nearest_alone() {
    small_steps::<bf16>(1e-3);
    small_steps::<f16>(1e-4);
}

/// The share of weights that one step moves down is the probability it should have.
fn unbiased<T: Element>(lr: f64, spacing: f64) {
    let n = 100_000;
    for seed in 0..5 {
        let weights = after::<T>(Rounding::Stochastic { seed }, lr, 1, n);
        assert!(weights.iter().all(|&w| w == 1.0 || w == 1.0 - spacing));
        let moved = weights.iter().filter(|&&w| w < 1.0).count() as f64;
        let p = f64::from((1.0 - (1.0 - lr) as f32) / spacing as f32);
        let (mean, sigma) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
        assert!((moved - mean).abs() <= 5.0 * sigma, "{moved} of {n}, expected {mean} ± {sigma}");
    }
}

#[test]
fn stochastic_rounding_is_unbiased() {
    unbiased::<bf16>(1e-3, 2f64.powi(-8));
    unbiased::<f16>(1e-4, 2f64.powi(-11));
}

#[test]
fn streams_differ_between_seeds_steps_and_parameters() {
    let run = |seed, name: &str, steps| {
        let config = Config::from(Sgd { lr: 1e-3, ..Sgd::default() });
        let mut opt = build::<bf16>(&config, Rounding::Stochastic { seed });
        let mut tree = std::collections::BTreeMap::from([(name.to_owned(), leaf(bf16::ONE))]);
        let grads = tree.clone();
        for _ in 0..steps {
            opt.step(&mut tree, &grads).unwrap();
        }
        bits(&tree[name].values)
    };
    fn leaf(x: bf16) -> Leaf<bf16> {
        Leaf { shape: vec![64], values: vec![x; 64] }
    }
    let first = run(1, "a", 1);
    assert_eq!(first, run(1, "a", 1));
    assert_ne!(first, run(2, "a", 1));
    assert_ne!(first, run(1 << 32, "a", 1));
    assert_ne!(first, run(1, "b", 1));
    assert_ne!(first, run(1, "a", 2));
}

/// Every rounding has numbers of its own: that of every move between the two points of a method, and of
/// every step beyond those that 32 bits can count.
#[test]
fn no_rounding_draws_numbers_that_another_had() {
    use eigenstep::prelude::{ScheduleFreeAdamW, Sgld};
    use eigenstep::state::Scalar;
    let rounding = Rounding::Stochastic { seed: 3 };
    let subject = &named::ScheduleFreeAdamW;
    let config = ScheduleFreeAdamW { lr: 0.01, ..ScheduleFreeAdamW::default() };
    let mut opt = build::<bf16>(&config.into(), rounding);
    let mut params = leaves::<bf16>(1, &[&[512]]);
    train_as(subject, &mut opt, &mut params, 0..3);
    let start = params.clone();
    let mut moved = Vec::new();
    for _ in 0..4 {
        params.clone_from(&start);
        opt.eval(&mut params).unwrap();
        moved.push(all_bits(&params));
        params.clone_from(&start);
        // a copy goes on with the same numbers
        let mut copy = build::<bf16>(&ScheduleFreeAdamW::default().into(), rounding);
        copy.load_state_dict(&opt.state_dict()).unwrap();
        opt.train(&mut params).unwrap();
        let mut again = start.clone();
        copy.train(&mut again).unwrap();
        assert_eq!(all_bits(&again), all_bits(&params));
        moved.push(all_bits(&params));
    }
    for (i, one) in moved.iter().enumerate() {
        assert!(moved.iter().skip(i + 2).step_by(2).all(|other| other != one), "move {i}");
    }

    fn at(config: &Config, rounding: Rounding, t: i64) -> Vec<Vec<u8>> {
        let subject = &config.subject();
        let mut opt: Opt<bf16> = build(config, rounding);
        let mut params = leaves::<bf16>(1, &[&[512]]);
        train_as(subject, &mut opt, &mut params, 0..1);
        let mut dict = opt.state_dict();
        dict.scalars.insert("state.0.step".into(), Scalar::Int(t));
        opt.load_state_dict(&dict).unwrap();
        train_as(subject, &mut opt, &mut params, 1..2);
        all_bits(&params)
    }
    let sgd = Config::from(Sgd { lr: 1e-3, ..Sgd::default() });
    let sgld = Config::from(Sgld { temperature: 1.0, ..Sgld::default() });
    let steps = [7, 7 + (1 << 32), 7 + (1 << 33), 7 ^ (1 << 16), 7 ^ (1 << 17)];
    for (i, &one) in steps.iter().enumerate() {
        for &other in &steps[i + 1..] {
            assert_ne!(at(&sgd, rounding, one), at(&sgd, rounding, other), "{one} {other}");
            let master = Rounding::Master;
            assert_ne!(at(&sgld, master, one), at(&sgld, master, other), "{one} {other}");
        }
    }
}

fn reload<T: Element>(subject: &Subject) {
    for rounding in ROUNDINGS {
        for precision in [Precision::Full, Precision::INT8_LINEAR, Precision::INT4_LPMM] {
            let fresh = |config: &Config| -> Opt<T> {
                build(config, rounding).with_state_precision(precision).unwrap()
            };
            let (mut opt, mut again) = (fresh(&busy(subject)), fresh(&subject.config()));
            let mut params = leaves(1, &SHAPES);
            train_as(subject, &mut opt, &mut params, 0..3);
            let mut copy = params.clone();
            again.load_state_dict(&opt.state_dict()).unwrap();
            train_as(subject, &mut opt, &mut params, 3..5);
            train_as(subject, &mut again, &mut copy, 3..5);
            assert_eq!(all_bits(&copy), all_bits(&params), "{}, {rounding:?}", T::NAME);
            assert_eq!(again.state_dict(), opt.state_dict(), "{}, {rounding:?}", T::NAME);
        }
    }
}

fn threads(subject: &Subject) {
    for rounding in ROUNDINGS {
        let run = |threads| {
            on_threads(threads, || {
                let mut opt: Opt<bf16> = build(&busy(subject), rounding);
                let mut params = leaves(1, &[&[16_385], &[60_001]]);
                train_as(subject, &mut opt, &mut params, 0..2);
                (all_bits(&params), opt.state_dict())
            })
        };
        assert!(run(1) == run(3), "{rounding:?}");
    }
}

macro_rules! every_rule {
    ($rule:ident) => {
        #[allow(non_snake_case)]
        mod $rule {
            use crate::named::$rule as subject;
            use eigenstep::numeric::{bf16, f16};
            #[test]
            fn reload_continues_bit_for_bit() {
                crate::reload::<bf16>(&subject);
                crate::reload::<f16>(&subject);
            }
            #[test]
            fn threads_do_not_change_bits() {
                crate::threads(&subject);
            }
        }
    };
}
mod each {
    eigenstep::for_each_first_order!(every_rule);
}

/// A value that the program writes into a parameter wins over the exact copy.
#[test]
fn a_written_parameter_is_taken_over() {
    let sgd = Config::from(Sgd { lr: 1e-3, ..Sgd::default() });
    let mut opt = build::<bf16>(&sgd, Rounding::Master);
    let one = |x| vec![Leaf { shape: vec![1], values: vec![bf16::from_f32(x)] }];
    let mut params = one(1.0);
    opt.step(&mut params, &one(1.0)).unwrap();
    params[0].values[0] = bf16::from_f32(-2.0);
    opt.step(&mut params, &one(1.0)).unwrap();
    assert_eq!(params[0].values[0], bf16::from_f32(-2.0));
    assert_eq!(opt.state_bytes().slot("master"), 4);
}
