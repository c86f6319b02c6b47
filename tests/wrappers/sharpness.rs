//! SAM, ASAM and IGNITE around any optimizer.

use crate::inner::*;
use crate::layouts::Zoo;
use crate::model::*;
use crate::threads::on_threads;
use eigenstep::numeric::Element;
use eigenstep::optim::{ClosureOptimizer, Optimizer, Problem};
use eigenstep::params::{Gradients, Parameters};
use eigenstep::prelude::*;
use eigenstep::schedule::Step;
use eigenstep::state::Scalar;
use ndarray::{Array1, Array2, array};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn sam(inner: Boxed, options: SamOptions) -> Sam<Boxed, f64> {
    Sam::with_options(inner, options).unwrap()
}

fn close(a: &Array1<f64>, b: &Array1<f64>, off: f64) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= off)
}

fn all_options() -> [SamOptions; 3] {
    [
        SamOptions::default(),
        SamOptions::adaptive(),
        SamOptions { rho: 3.0, adaptive: true, eta: 0.0 },
    ]
}

#[test]
fn with_a_radius_of_zero_it_is_the_inner_optimizer() {
    for (name, build) in inners() {
        for adaptive in [false, true] {
            let options = SamOptions { rho: 0.0, adaptive, ..SamOptions::default() };
            let near = SamOptions { rho: 1e-9, ..options };
            let (mut one, mut other, mut third) = (model(), model(), model());
            let (mut alone, mut opt, mut close) =
                (build(), sam(build(), options), sam(build(), near));
            for _ in 0..4 {
                let grads = evaluate(&mut one).1;
                alone.step(&mut one, &grads).unwrap();
                opt.step_with(&mut other, evaluate).unwrap();
                close.step_with(&mut third, evaluate).unwrap();
            }
            let states = (alone.state_dict(), opt.inner().state_dict());
            same_state(name, (&one, &states.0), (&other, &states.1));
            assert!(all_bits(&third) != all_bits(&one), "{name}");
            let exact = name != "ErrorFeedback" && !name.contains("bits");
            for (a, b) in all_values(&one).into_iter().zip(all_values(&third)) {
                // what is selected or coded may become another
                assert!((a - b).abs() < if exact { 1e-6 } else { 0.2 }, "{name}: {a} {b}");
            }
        }
    }
}

/// Radius, gradient and step by hand, for SAM and for ASAM of some parameters.
#[test]
fn the_way_uphill_is_that_of_the_equations() {
    let (w, b) = (array![3.0f64, -0.5], array![2.0f64]);
    let gradient = |w: &Array1<f64>, b: &Array1<f64>| (w * &array![1.0, 4.0], b * 0.5);
    let (gw, gb) = gradient(&w, &b);
    for (adaptive, scales_b, eta) in
        [(false, true, 0.01), (true, true, 0.0), (true, true, 0.3), (true, false, 0.3)]
    {
        let t = |p: f64, scaled: bool| if adaptive && scaled { p.abs() + eta } else { 1.0 };
        let (tw, tb) = (w.mapv(|p| t(p, true)), b.mapv(|p| t(p, scales_b)));
        let square = (&tw * &gw).mapv(|x| x * x).sum() + (&tb * &gb).mapv(|x| x * x).sum();
        let factor = 0.7 / (square.sqrt() + 1e-12);
        let up = (&w + &(&tw * &tw * &gw * factor), &b + &(&tb * &tb * &gb * factor));
        let (sw, sb) = gradient(&up.0, &up.1);

        let select = if scales_b { Select::all() } else { Select::name("0") };
        let sgd = Sgd { lr: 0.1, ..Sgd::default() }.build::<f64>().unwrap();
        let options = SamOptions { rho: 0.7, adaptive, eta };
        let mut opt = Sam::with_options(sgd, options).unwrap().with_scaled(select);
        let (mut model, mut points) = ((w.clone(), b.clone()), Vec::new());
        opt.step_with(&mut model, |model| {
            points.push(model.clone());
            (1.0, gradient(&model.0, &model.1))
        })
        .unwrap();
        assert!(points.len() == 2 && points[0] == (w.clone(), b.clone()));
        let near = |a: &Array1<f64>, b: &Array1<f64>| close(a, b, 1e-14);
        assert!(near(&points[1].0, &up.0) && near(&points[1].1, &up.1), "{points:?} {up:?}");
        assert!(near(&model.0, &(&w - &(sw * 0.1))) && near(&model.1, &(&b - &(sb * 0.1))));
    }
}

#[test]
fn parameters_come_back_to_the_bit_in_every_layout() {
    for options in [SamOptions { rho: 30.0, ..SamOptions::default() }, SamOptions::adaptive()] {
        let mut zoo = Zoo::new();
        let before = zoo.bits();
        let grads = zoo.leaves();
        let mut opt = Sam::with_options(AdamW::default().build().unwrap(), options).unwrap();
        assert!(opt.first_step(&mut zoo, &grads).unwrap());
        assert!(zoo.bits() != before);
        opt.abandon(&mut zoo).unwrap();
        assert!(zoo.bits() == before);

        for loss in [Err("no more data"), Ok(f64::NAN)] {
            let mut points = Vec::new();
            let result = opt.step_with(&mut zoo, |zoo| {
                points.push(zoo.bits());
                let loss = if points.len() == 1 { Ok(1.0) } else { loss };
                loss.map(|loss| (loss, zoo.leaves()))
            });
            assert!(result.is_err());
            assert!(points.len() == 2 && points[0] == before && points[1] != before);
            assert!(zoo.bits() == before);
            assert_eq!(opt.inner().steps("flat"), None);
        }
    }
}

/// One evaluation that goes wrong: at which call, and how.
fn spoiled(
    calls: &mut usize,
    at: usize,
    how: &str,
    model: &mut Model,
) -> std::result::Result<(f64, Model), &'static str> {
    *calls += 1;
    let (mut loss, mut grads) = evaluate(model);
    if *calls == at {
        match how {
            "error" => return Err("out of data"),
            "panic" => panic!("out of luck"),
            "loss" => loss = f64::INFINITY,
            "gradient" => grads[1].values[5] = f64::NAN,
            "name" => grads.push(grads[0].clone()),
            "shape" => grads[0].shape = vec![65, 66],
            _ => unreachable!(),
        }
    }
    Ok((loss, grads))
}

/// Whatever goes wrong at either point: parameters and state are as before, and training goes on.
fn whatever_goes_wrong<O: ClosureOptimizer<f64>>(
    name: &str,
    build: &dyn Fn() -> O,
    state: &dyn Fn(&O) -> StateDict,
) {
    for how in ["error", "panic", "loss", "gradient", "name", "shape"] {
        for at in [1, 2] {
            let (mut params, mut opt) = (model(), build());
            opt.step_with(&mut params, evaluate).unwrap();
            let before = (params.clone(), state(&opt));
            let mut calls = 0;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                opt.step_with(&mut params, |model| spoiled(&mut calls, at, how, model))
            }));
            match outcome {
                Err(_) => assert_eq!(how, "panic"),
                Ok(result) => {
                    let error = result.unwrap_err().to_string();
                    let word = match how {
                        "error" => "the closure failed: out of data",
                        "loss" => "the loss is not finite: inf",
                        "gradient" => "gradient `1` is NaN at flat index 5",
                        "name" => "`4`",
                        "shape" => "parameter `0`: expected shape",
                        other => panic!("{other}"),
                    };
                    assert!(error.contains(word), "{name}, {how} at {at}: {error}");
                }
            }
            assert_eq!(calls, at, "{name}, {how}");
            let what = format!("{name}, {how} at {at}");
            same_state(&what, (&params, &state(&opt)), (&before.0, &before.1));
            let (mut twin, mut fresh) = (model(), build());
            for _ in 0..3 {
                fresh.step_with(&mut twin, evaluate).unwrap();
            }
            for _ in 0..2 {
                opt.step_with(&mut params, evaluate).unwrap();
            }
            assert!(all_bits(&params) == all_bits(&twin), "{what}");
        }
    }
}

#[test]
fn sam_changes_nothing_when_an_evaluation_goes_wrong() {
    for (name, build) in inners() {
        let build = move || sam(build(), SamOptions::adaptive());
        whatever_goes_wrong(name, &build, &|opt| opt.state_dict());
    }
}

#[test]
fn ignite_changes_nothing_when_the_loss_goes_wrong() {
    for (name, build) in inners().into_iter().take(3) {
        // the gradient uphill is part of a sum: what is wrong with it is found there
        let build = move || Ignite::new(build());
        for how in ["error", "panic", "loss", "gradient", "shape"] {
            for at in [1, 2] {
                let (mut params, mut opt) = (model(), build());
                opt.step_with(&mut params, evaluate).unwrap();
                let before = (params.clone(), opt.state_dict());
                let mut calls = 0;
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    opt.step_with(&mut params, |model| spoiled(&mut calls, at, how, model))
                }));
                assert!(outcome.map_or(how == "panic", |result| result.is_err()), "{how} at {at}");
                let what = format!("{name}, {how} at {at}");
                same_state(&what, (&params, &opt.state_dict()), (&before.0, &before.1));
                opt.step_with(&mut params, evaluate).unwrap();
            }
        }
    }
}

#[test]
fn a_gradient_of_zero_takes_the_plain_step() {
    let mut opt = Sam::new(AdamW { lr: 0.5, ..AdamW::default() }.build::<f64>().unwrap());
    let mut alone = AdamW { lr: 0.5, ..AdamW::default() }.build::<f64>().unwrap();
    let (mut w, mut twin, mut calls) = (array![2.0, -0.0], array![2.0, -0.0], 0);
    let loss = opt.step_with(&mut w, |w| {
        calls += 1;
        (7.0, &*w * 0.0)
    });
    alone.step(&mut twin, &array![0.0, 0.0]).unwrap();
    assert!(w == twin && calls == 1 && loss.unwrap() == 7.0);
    // no gradient at all is no step, and one of nearly zero is no NaN
    opt.step_with(&mut w, |_| (7.0, None::<Array1<f64>>)).unwrap();
    assert_eq!(opt.inner().steps("param"), Some(1));
    opt.step_with(&mut w, |w| (7.0, w.mapv(|_| 5e-324))).unwrap();
    assert!(w.iter().all(|x| x.is_finite()));
}

#[test]
fn the_policy_for_gradients_that_are_not_finite_is_the_inner_optimizers() {
    let build = |policy| Sgd::default().build::<f64>().unwrap().with_non_finite(policy);
    for at in [1, 2] {
        let run = |policy| {
            let (mut opt, mut w, mut calls) = (Sam::new(build(policy)), array![1.0], 0);
            let result = opt.step_with(&mut w, |w| {
                calls += 1;
                (1.0, if calls == at { &*w * f64::NAN } else { w.clone() })
            });
            (result.map_err(|error| error.to_string()), w[0], opt.inner().skipped_steps(), calls)
        };
        let error = Err("gradient `param` is NaN at flat index 0".to_owned());
        assert_eq!(run(NonFinite::Error), (error, 1.0, 0, at));
        assert_eq!(run(NonFinite::Skip), (Ok(1.0), 1.0, 1, at));
        let (result, w, ..) = run(NonFinite::Propagate);
        match at {
            // there is no way uphill along such a gradient
            1 => assert!(result.unwrap_err().contains("the norm of the gradient") && w == 1.0),
            _ => assert!(result.is_ok() && w.is_nan()),
        }
    }
}

#[test]
fn two_calls_do_what_a_closure_does() {
    for (name, build) in inners() {
        for options in all_options() {
            let (mut one, mut other) = (model(), model());
            let (mut closure, mut calls) = (sam(build(), options), sam(build(), options));
            for _ in 0..3 {
                closure.step_with(&mut one, evaluate).unwrap();
                let grads = evaluate(&mut other).1;
                assert!(calls.first_step(&mut other, &grads).unwrap());
                let grads = evaluate(&mut other).1;
                calls.second_step(&mut other, &grads).unwrap();
            }
            let states = (closure.state_dict(), calls.state_dict());
            same_state(name, (&one, &states.0), (&other, &states.1));
        }
    }
}

#[test]
fn calls_out_of_order_are_refused() {
    let mut opt = Sam::new(Sgd::default().build::<f64>().unwrap());
    let (start, mut w) = (array![1.0, -2.0], array![1.0, -2.0]);
    let saved = opt.state_dict();
    assert!(opt.second_step(&mut w, &start).is_err());
    opt.abandon(&mut w).unwrap();
    assert!(opt.first_step(&mut w, &start).unwrap());
    let uphill = w.clone();
    let refused = [
        opt.first_step(&mut w, &start).map(drop).unwrap_err(),
        opt.step_with(&mut w, |w| (1.0, w.clone())).map(drop).unwrap_err(),
        opt.load_state_dict(&saved).unwrap_err(),
    ];
    assert!(refused.iter().all(|error| matches!(error, Error::OutOfOrder { .. })), "{refused:?}");
    assert!(w == uphill && w != start);
    // a tree that lacks the parameters leaves everything as it is, and the way back open
    assert!(opt.second_step(&mut (array![0.0],), &start).is_err());
    // a bad gradient takes no step, but the way back
    assert!(opt.second_step(&mut w, &array![f64::NAN, 0.0]).is_err());
    assert_eq!(w, start);
    // a gradient of zero does not move anything, and the second step is a plain one
    assert!(!opt.first_step(&mut w, &array![0.0, 0.0]).unwrap());
    opt.second_step(&mut w, &array![1.0, 0.0]).unwrap();
    assert!(w[0] < 1.0);
}

#[test]
fn frozen_parameters_and_those_without_gradients_do_not_move() {
    let opt = Partitioned::new(adamw().build::<f64>().unwrap()).frozen(Select::name("1"));
    let mut opt = Sam::with_options(opt, SamOptions { rho: 1.0, ..SamOptions::default() }).unwrap();
    let mut model = (array![1.0], array![100.0], array![5.0]);
    let grads = (array![2.0], array![1e6], None::<Array1<f64>>);
    assert!(opt.first_step(&mut model, &grads).unwrap());
    // the norm is that of the only gradient that counts
    assert!((model.0[0] - 2.0).abs() < 1e-9);
    assert_eq!((&model.1, &model.2), (&array![100.0], &array![5.0]));
    opt.second_step(&mut model, &grads).unwrap();
    assert!(model.0[0] < 1.0 && model.1 == array![100.0]);
    assert_eq!(opt.state_bytes().slot("copy"), 8);
}

/// What rises with `maximize` is what falls with the negative objective.
#[test]
fn an_objective_may_rise() {
    let group = |maximize| {
        let sgd = Sgd { lr: 0.1, ..Sgd::default() }.build::<f64>().unwrap();
        sgd.with_group(Select::name("1"), |group| group.maximize = maximize).unwrap()
    };
    // the sign of the gradient of the second half of the model
    let gradient = |model: &Model, sign: f64| {
        let mut grads = evaluate(&mut model.clone()).1;
        grads[1].values.iter_mut().for_each(|g| *g *= sign);
        grads
    };
    for options in all_options() {
        let (mut rise, mut fall) = (Sam::new(group(true)), Sam::new(group(false)));
        for opt in [&mut rise, &mut fall] {
            opt.set_option("rho", options.rho).unwrap();
            opt.set_option("adaptive", f64::from(u8::from(options.adaptive))).unwrap();
        }
        let (mut one, mut other) = (model(), model());
        for _ in 0..3 {
            rise.step_with(&mut one, |model| (1.0, gradient(model, 1.0))).unwrap();
            fall.step_with(&mut other, |model| (1.0, gradient(model, -1.0))).unwrap();
        }
        assert!(all_bits(&one) == all_bits(&other) && all_bits(&one) != all_bits(&model()));
    }
    let (mut rise, mut fall) = (Ignite::new(group(true)), Ignite::new(group(false)));
    let (mut one, mut other) = (model(), model());
    for _ in 0..3 {
        let surrogate = |model: &mut Model| evaluate(model);
        rise.step_with_surrogate(&mut one, |model| (1.0, gradient(model, 1.0)), surrogate).unwrap();
        fall.step_with_surrogate(&mut other, |model| (1.0, gradient(model, -1.0)), surrogate)
            .unwrap();
    }
    assert!(all_bits(&one) == all_bits(&other) && all_bits(&one) != all_bits(&model()));
}

#[test]
fn sam_continues_with_the_same_bits_from_any_step() {
    for (name, build) in inners() {
        for saved in [0, 1, 3] {
            let options = SamOptions { rho: 0.3, ..SamOptions::default() };
            let (mut whole, mut opt) = (model(), sam(build(), options));
            for _ in 0..saved {
                opt.step_with(&mut whole, evaluate).unwrap();
            }
            let (mut copy, mut again) = (whole.clone(), Sam::new(build()));
            again.load_state_dict(&opt.state_dict()).unwrap();
            for _ in 0..3 {
                opt.step_with(&mut whole, evaluate).unwrap();
                again.step_with(&mut copy, evaluate).unwrap();
            }
            let states = (opt.state_dict(), again.state_dict());
            same_state(name, (&whole, &states.0), (&copy, &states.1));
        }
    }
}

#[test]
fn state_dicts_that_do_not_fit_are_refused() {
    fn refused<O>(
        mut opt: O,
        name: &str,
        state: impl Fn(&O) -> StateDict,
        load: impl Fn(&mut O, &StateDict) -> Result<()>,
    ) {
        let saved = state(&opt);
        let mut damaged = Vec::new();
        for key in saved.scalars.keys() {
            let mut dict = saved.clone();
            dict.scalars.remove(key);
            // selectors need not be saved, nor what is no option
            let optional = key.ends_with("select") || key.contains("config");
            damaged.extend((!optional).then_some((key.clone(), dict)));
        }
        for key in ["other", "inner.other", "options.other"] {
            let mut dict = saved.clone();
            dict.scalars.insert(key.into(), Scalar::Int(0));
            damaged.push((key.into(), dict));
        }
        let mut dict = saved.clone();
        dict.scalars.insert("options.rho".into(), Scalar::Float(-1.0));
        damaged.push(("options.rho".into(), dict));
        for (key, dict) in damaged {
            let error = load(&mut opt, &dict).unwrap_err().to_string();
            assert!(error.contains(&key), "{name}: {key}: {error}");
            assert!(state(&opt) == saved);
        }
    }
    let inner = || adamw().build::<f64>().unwrap();
    refused(Sam::new(inner()), "Sam", Sam::state_dict, Sam::load_state_dict);
    refused(Ignite::new(inner()), "Ignite", Ignite::state_dict, Ignite::load_state_dict);
}

#[test]
fn options_and_schedules() {
    let mut opt = Sam::new(Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap());
    let mut scheduler =
        LrScheduler::new(Step { step_size: 1, gamma: 0.5 }, opt.inner_mut()).unwrap();
    scheduler.step(opt.inner_mut()).unwrap();
    assert_eq!(opt.inner().lr(0), 0.5);
    opt.set_option("rho", 0.25).unwrap();
    opt.set_option("adaptive", 1.0).unwrap();
    assert_eq!(*opt.options(), SamOptions { rho: 0.25, adaptive: true, eta: 0.01 });
    let error = opt.set_option("eta", -1.0).unwrap_err().to_string();
    assert_eq!(error, "Sam: `eta` must be finite and >= 0, got -1");
    assert!(opt.set_option("lr", 1.0).is_err());
    let wrong = SamOptions { rho: f64::NAN, ..SamOptions::default() };
    assert!(Sam::with_options(Sgd::default().build::<f32>().unwrap(), wrong).is_err());
    let wrong = IgniteOptions { r: 0.0, ..IgniteOptions::default() };
    assert!(Ignite::with_options(Sgd::default().build::<f32>().unwrap(), wrong).is_err());
}

#[test]
fn the_same_bits_for_any_threads() {
    let run = |threads: usize, options: SamOptions| {
        on_threads(threads, || {
            let mut params: Vec<Leaf<f32>> = leaves(3, &[&[300, 500], &[70_000], &[7]]);
            let adamw = AdamW { lr: 0.02, ..AdamW::default() }.build().unwrap();
            let mut sam = Sam::with_options(adamw, options).unwrap();
            let mut ignite = Ignite::new(Lion::default().build::<f32>().unwrap());
            for _ in 0..3 {
                sam.step_with(&mut params, |params| (1.0, params.clone())).unwrap();
                ignite.step_with(&mut params, |params| (1.0, params.clone())).unwrap();
            }
            (all_bits(&params), sam.state_dict(), ignite.state_dict())
        })
    };
    for options in all_options() {
        let one = run(1, options);
        assert!(run(2, options) == one && run(7, options) == one);
    }
}

/// For a quadratic `h`, the finite difference is exact: its Hessian times the direction.
#[test]
fn ignite_takes_the_derivative_of_the_norm() {
    let hessian = array![[2.0, 0.5], [0.5, 1.0]];
    let (lambda, rho) = (0.7, 0.3);
    for r in [1e-3, 0.05, 2.0] {
        let options = IgniteOptions { lambda, rho, r, eta_lambda: 0.1, ..IgniteOptions::default() };
        let sgd = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
        let mut opt = Ignite::with_options(sgd, options).unwrap();
        let (start, mut w) = (array![1.0, -2.0], array![1.0, -2.0]);
        let surrogate = |w: &mut Array1<f64>| (w.dot(&hessian.dot(w)) / 2.0, hessian.dot(w));
        let loss = opt.step_with_surrogate(&mut w, |_| (3.0, array![0.1, 0.2]), surrogate);
        assert_eq!(loss.unwrap(), 3.0);
        let g = hessian.dot(&start);
        let n = g.dot(&g).sqrt();
        let expected = array![0.1, 0.2] + hessian.dot(&g) * (lambda * rho / n);
        assert!(close(&(&start - &w), &expected, 1e-9), "{r}: {w}");
        assert!((opt.gradient().values()[0] - expected[0]).abs() < 1e-9);
        assert!((opt.options().lambda - (lambda + 0.1 * (rho * n - 0.1))).abs() < 1e-14);
    }
}

#[test]
fn ignite_keeps_its_multiplier_within_bounds_and_through_errors() {
    let build = |clamp_nonneg| {
        let options = IgniteOptions { eta_lambda: 1.0, clamp_nonneg, ..IgniteOptions::default() };
        Ignite::with_options(Sgd::default().build::<f64>().unwrap(), options).unwrap()
    };
    // a flat surrogate: the constraint holds, the multiplier falls, and nothing is divided by zero
    for (clamp, expected) in [(true, 0.0), (false, 1e-3 - 0.1)] {
        let (mut opt, mut w) = (build(clamp), array![1.0]);
        opt.step_with_surrogate(&mut w, |w| (1.0, w.clone()), |w| (1.0, &*w * 0.0)).unwrap();
        assert!((opt.options().lambda - expected).abs() < 1e-15);
        assert!((w[0] - (1.0 - 1e-3)).abs() < 1e-15);
    }
    // nothing changes if the surrogate fails uphill, or names what the loss does not
    let (mut opt, mut model) = (build(true), (array![1.0], array![2.0]));
    let saved = opt.state_dict();
    let mut calls = 0;
    let result = opt.step_with_surrogate(
        &mut model,
        |model| (1.0, model.clone()),
        |model| {
            calls += 1;
            if calls == 2 { Err("uphill") } else { Ok((1.0, model.clone())) }
        },
    );
    assert_eq!(result.unwrap_err().to_string(), "the closure failed: uphill");
    let result = opt.step_with_surrogate(
        &mut model,
        |model| (1.0, (Some(model.0.clone()), None::<Array1<f64>>)),
        |model| (1.0, model.clone()),
    );
    assert_eq!(result.unwrap_err().to_string(), "leaf `1` of one tree is not in the other");
    assert!(model == (array![1.0], array![2.0]) && opt.state_dict() == saved);
    // a surrogate of some of the parameters
    let sub =
        |model: &mut (Array1<f64>, Array1<f64>)| (1.0, (model.0.clone(), None::<Array1<f64>>));
    opt.step_with_surrogate(&mut model, |model| (1.0, model.clone()), sub).unwrap();
    assert!((model.1[0] - 2.0 * (1.0 - 1e-3)).abs() < 1e-15);
    // a step that is left out leaves the multiplier alone
    let skipping = Sgd::default().build::<f64>().unwrap().with_non_finite(NonFinite::Skip);
    let mut opt = Ignite::new(skipping);
    opt.step_with(&mut array![1.0], |w| (1.0, &*w * f64::NAN)).unwrap();
    assert!(opt.options().lambda == 1e-3 && opt.inner().skipped_steps() == 1);
}

/// With the loss as its own surrogate, the gradient at the sharper point is mixed in.
#[test]
fn ignite_of_the_loss_is_the_gradient_norm_penalty() {
    let options = IgniteOptions {
        lambda: 0.04,
        rho: 1.0,
        r: 0.1,
        eta_lambda: 0.0,
        ..IgniteOptions::default()
    };
    for (name, build) in inners() {
        let (mut params, mut twin) = (model(), model());
        let mut opt = Ignite::with_options(build(), options).unwrap();
        let mut alone = build();
        for _ in 0..2 {
            opt.step_with(&mut params, evaluate).unwrap();
            let mut grads = evaluate(&mut twin).1;
            let norm = all_values(&grads).iter().map(|g| g * g).sum::<f64>().sqrt();
            let mut up = twin.clone();
            for ((p, g), frozen) in up.iter_mut().zip(&grads).zip(0..) {
                let trained = alone.group_of(&frozen.to_string(), &p.shape).is_some();
                let frozen = if trained { 1.0 } else { 0.0 };
                p.values.iter_mut().zip(&g.values).for_each(|(p, g)| *p += frozen * 0.1 * g / norm);
            }
            let sharp = evaluate(&mut up).1;
            for (g, sharp) in grads.iter_mut().zip(sharp) {
                g.values.iter_mut().zip(sharp.values).for_each(|(g, s)| *g = 0.6 * *g + 0.4 * s);
            }
            alone.step(&mut twin, &grads).unwrap();
        }
        // codes and selections can fall to either side; the norm of parts is another one
        let exact = name != "ErrorFeedback" && !name.contains("bits") && name != "Partitioned";
        for (a, b) in all_values(&params).into_iter().zip(all_values(&twin)) {
            assert!((a - b).abs() < if exact { 1e-7 } else { 0.1 }, "{name}: {a} {b}");
        }
    }
}

/// What the traits of the crate hand to a wrapper that is behind a pointer.
#[test]
fn wrappers_work_behind_pointers() {
    struct Quadratic(Array2<f32>);
    impl Problem<f32> for Quadratic {
        fn parameters(&mut self) -> &mut dyn Parameters<f32> {
            &mut self.0
        }
        fn evaluate(&mut self) -> Result<(f64, Box<dyn Gradients<f32>>)> {
            Ok((f64::from(self.0.mapv(|x| x * x).sum()) / 2.0, Box::new(self.0.clone())))
        }
    }
    fn boxed<T: Element>(opt: impl ClosureOptimizer<T> + 'static) -> Box<dyn ClosureOptimizer<T>> {
        Box::new(opt)
    }
    let muon = || Muon { lr: 0.1, ..Muon::default() }.build::<f32>().unwrap();
    let lookahead: Box<dyn Optimizer<f32>> = Box::new(Lookahead::new(muon()));
    let optimizers =
        [boxed(Sam::new(lookahead)), boxed(Ignite::new(muon())), boxed(Lookahead::new(muon()))];
    for mut opt in optimizers {
        let mut problem = Quadratic(Array2::from_shape_fn((3, 4), |(i, j)| (i + 2 * j) as f32));
        let first = opt.step_problem(&mut problem).unwrap();
        for _ in 0..20 {
            opt.step_problem(&mut problem).unwrap();
        }
        assert!(opt.step_problem(&mut problem).unwrap() < 0.9 * first);
    }
}

#[cfg(feature = "half")]
#[test]
fn half_precision_parameters_come_back_to_the_bit() {
    use eigenstep::numeric::bf16;
    let start = Array1::from_shape_fn(300, |i| bf16::from_bits(0x3f00 + i as u16));
    for options in all_options() {
        let sgd = Sgd { lr: 0.0, ..Sgd::default() }.build::<bf16>().unwrap();
        let mut opt = Sam::with_options(sgd, SamOptions { rho: 9.0, ..options }).unwrap();
        let (mut w, mut moved) = (start.clone(), false);
        opt.step_with(&mut w, |w| {
            moved |= *w != start;
            (1.0, w.clone())
        })
        .unwrap();
        assert!(moved && w == start);
        let mut ignite = Ignite::new(Sgd { lr: 0.5, ..Sgd::default() }.build::<bf16>().unwrap());
        ignite.step_with(&mut w, |w| (1.0, w.clone())).unwrap();
        assert!(w != start);
    }
}
