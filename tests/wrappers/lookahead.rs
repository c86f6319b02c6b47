//! Slow weights around any optimizer.

use crate::inner::*;
use crate::layouts::Zoo;
use crate::model::*;
use crate::threads::on_threads;
use eigenstep::optim::Optimizer;
use eigenstep::prelude::*;
use eigenstep::schedule::Step;
use eigenstep::state::Scalar;
use ndarray::{Array1, array};

const PULLBACKS: [PullbackMomentum; 3] =
    [PullbackMomentum::None, PullbackMomentum::Reset, PullbackMomentum::Pullback];

fn around(inner: Boxed, options: LookaheadOptions) -> Lookahead<Boxed, f64> {
    Lookahead::with_options(inner, options).unwrap()
}

#[test]
fn with_alpha_one_it_is_the_inner_optimizer() {
    for (name, build) in inners() {
        let options = LookaheadOptions { k: 2, alpha: 1.0, ..LookaheadOptions::default() };
        let (mut one, mut other) = (model(), model());
        let (mut alone, mut opt) = (build(), around(build(), options));
        train(&mut *alone, &mut one, 0..7);
        train(&mut opt, &mut other, 0..7);
        let state = (alone.state_dict(), opt.inner().state_dict());
        same_state(name, (&one, &state.0), (&other, &state.1));
    }
}

#[test]
fn with_k_one_a_step_is_a_part_of_the_inner_one() {
    for (name, build) in inners() {
        let options = LookaheadOptions { k: 1, alpha: 0.3, ..LookaheadOptions::default() };
        let (start, mut one, mut other) = (model(), model(), model());
        train(&mut *build(), &mut one, 0..1);
        train(&mut around(build(), options), &mut other, 0..1);
        let pairs = all_values(&start).into_iter().zip(all_values(&one)).zip(all_values(&other));
        for ((p0, p1), found) in pairs {
            assert!((found - (p0 + 0.3 * (p1 - p0))).abs() < 1e-14, "{name}: {p0} {p1} {found}");
        }
    }
}

#[test]
fn it_continues_with_the_same_bits_from_any_step() {
    for (name, build) in inners() {
        for pullback_momentum in PULLBACKS {
            let options = LookaheadOptions { k: 3, alpha: 0.4, pullback_momentum };
            for saved in 0..7 {
                let (mut whole, mut opt) = (model(), around(build(), options));
                train(&mut opt, &mut whole, 0..saved);
                let (mut copy, dict) = (whole.clone(), opt.state_dict());
                let mut again = around(build(), LookaheadOptions::default());
                again.load_state_dict(&dict).unwrap();
                assert!(again.state_dict() == dict, "{name}");
                train(&mut opt, &mut whole, saved..saved + 4);
                train(&mut again, &mut copy, saved..saved + 4);
                let states = (opt.state_dict(), again.state_dict());
                same_state(name, (&whole, &states.0), (&copy, &states.1));
            }
        }
    }
}

#[test]
fn the_evaluation_point_is_the_slow_weights() {
    for (name, build) in inners() {
        let (mut params, mut opt) = (model(), around(build(), LookaheadOptions::default()));
        train(&mut opt, &mut params, 0..7);
        let (fast, trained) = (params.clone(), opt.state_dict());
        opt.eval(&mut params).unwrap();
        opt.eval(&mut params).unwrap();
        for segment in opt.slow_weights().layout().segments() {
            let leaf = &params[segment.name.parse::<usize>().unwrap()];
            let slow = opt.slow_weights().get(&segment.name).unwrap();
            assert!(slow.iter().eq(&leaf.values), "{name}");
        }
        assert!(all_bits(&params) != all_bits(&fast), "{name}");
        let error = opt.step(&mut params, &gradients(9, &fast)).unwrap_err();
        assert!(matches!(error, Error::EvaluationMode { optimizer: "Lookahead" }), "{name}");

        // a checkpoint at the evaluation point has the fast weights
        let mut again = around(build(), LookaheadOptions::default());
        again.load_state_dict(&opt.state_dict()).unwrap();
        for mut opt in [opt, again] {
            let mut params = params.clone();
            opt.train(&mut params).unwrap();
            same_state(name, (&params, &opt.state_dict()), (&fast, &trained));
        }
    }
}

#[test]
fn the_inner_evaluation_point_can_be_used() {
    let free = || ScheduleFreeAdamW { lr: 0.05, ..ScheduleFreeAdamW::default() }.build().unwrap();
    let mut opt = Lookahead::new(free()).with_inner_eval();
    let (mut params, mut twin, mut alone) = (model(), model(), free());
    train(&mut opt, &mut params, 0..3);
    train(&mut alone, &mut twin, 0..3);
    opt.eval(&mut params).unwrap();
    alone.eval(&mut twin).unwrap();
    assert!(all_bits(&params) == all_bits(&twin));
    assert!(opt.step(&mut params, &gradients(3, &twin)).is_err());
    opt.train(&mut params).unwrap();
    alone.train(&mut twin).unwrap();
    assert!(all_bits(&params) == all_bits(&twin));
    train(&mut opt, &mut params, 3..6);
}

/// Calls that fail, and a word of each error.
fn failures(params: &Model) -> Vec<(&'static str, Model)> {
    let mut all = Vec::new();
    let mut broken = |word, change: &dyn Fn(&mut Model)| {
        let mut grads = gradients(20, params);
        change(&mut grads);
        all.push((word, grads));
    };
    broken("gradient `0` is NaN", &|grads| grads[0].values[9] = f64::NAN);
    broken("gradient `3` is inf", &|grads| grads[3].values[0] = f64::INFINITY);
    broken("parameter `1`: expected shape", &|grads| grads[1].shape = vec![2, 2100]);
    broken("gradient `4` belongs to no parameter", &|grads| grads.push(grads[3].clone()));
    all
}

#[test]
fn errors_change_nothing() {
    for (name, build) in inners() {
        let options = LookaheadOptions { k: 2, ..LookaheadOptions::default() };
        for steps in [0, 1, 2] {
            let (mut params, mut opt) = (model(), around(build(), options));
            train(&mut opt, &mut params, 0..steps);
            let (before, state) = (params.clone(), opt.state_dict());
            for (word, grads) in failures(&before) {
                for check in [true, false] {
                    let error = match check {
                        true => opt.check_step(&mut params, &grads).map(drop),
                        false => opt.step(&mut params, &grads),
                    };
                    let error = error.unwrap_err().to_string();
                    assert!(error.contains(word), "{name}: {error}");
                    same_state(name, (&params, &opt.state_dict()), (&before, &state));
                }
            }
            let (mut twin, mut fresh) = (model(), around(build(), options));
            train(&mut fresh, &mut twin, 0..5);
            train(&mut opt, &mut params, steps..5);
            assert!(all_bits(&params) == all_bits(&twin), "{name}");
        }
    }
}

#[test]
fn a_parameter_of_another_shape_is_named() {
    let mut opt = Lookahead::new(Sgd::default().build::<f64>().unwrap());
    opt.step(&mut (array![1.0], array![2.0]), &(array![1.0], array![1.0])).unwrap();
    let mut changed = (array![1.0], array![2.0, 3.0]);
    let error = opt.step(&mut changed, &(array![1.0], None::<Array1<f64>>)).unwrap_err();
    assert!(error.to_string().contains("parameter `1`: expected shape [1]"), "{error}");
    let mut fits = (array![1.0], array![2.0]);
    opt.eval(&mut fits).unwrap();
    let error = opt.train(&mut (array![1.0],)).unwrap_err();
    assert_eq!(error.to_string(), "parameter `1` is missing from the tree");
    opt.train(&mut fits).unwrap();
    assert_eq!(fits, (array![1.0], array![2.0]));
}

#[test]
fn steps_that_are_left_out_do_not_count() {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    let options = LookaheadOptions { k: 2, ..LookaheadOptions::default() };
    let mut opt = Lookahead::with_options(sgd.with_non_finite(NonFinite::Skip), options).unwrap();
    let mut w = array![0.0];
    opt.step(&mut w, &array![f64::NAN]).unwrap();
    assert_eq!((opt.slow_weights().values().len(), opt.skipped_steps()), (0, 1));
    for (gradient, expected) in
        [(1.0, -1.0), (f64::NAN, -1.0), (1.0, -1.0), (2.0, -3.0), (0.0, -2.0)]
    {
        opt.step(&mut w, &array![gradient]).unwrap();
        opt.step(&mut w, &None::<Array1<f64>>).unwrap(); // no step either
        assert_eq!(w, array![expected], "{gradient}");
    }
}

/// Three groups: averaged, averaged more often, and not at all.
#[test]
fn every_group_has_options_and_counts_of_its_own() {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    let sgd = sgd.with_group(Select::name("1"), |_| {}).unwrap();
    let mut opt = Lookahead::new(sgd.with_group(Select::name("2"), |_| {}).unwrap());
    assert_eq!(opt.num_groups(), 3);
    for (group, name, value) in
        [(0, "lookahead_k", 2.0), (1, "lookahead_k", 1.0), (2, "lookahead_alpha", 1.0)]
    {
        opt.set_option(group, name, value).unwrap();
        assert_eq!(opt.option(group, name), Some(value));
    }
    let mut model = (array![0.0], array![0.0], array![0.0]);
    let grads = (array![-1.0], array![-1.0], array![-1.0]);
    let expected = [(1.0, 0.5, 1.0), (1.0, 1.0, 2.0), (2.0, 1.5, 3.0), (2.0, 2.0, 4.0)];
    for (a, b, c) in expected {
        opt.step(&mut model, &grads).unwrap();
        assert_eq!(model, (array![a], array![b], array![c]));
    }
    // a group that is added later begins with the options of group 0, and counts from there
    opt.inner_mut().add_group(Select::name("2"), |group| group.lr = 2.0).unwrap();
    assert_eq!(opt.option(3, "lookahead_k"), Some(2.0));
    opt.step(&mut model, &grads).unwrap();
    assert_eq!(model.2, array![6.0]);
    opt.step(&mut model, &grads).unwrap();
    // its slow weight was 0 all the time
    assert_eq!(model.2, array![4.0]);
}

#[test]
fn options_and_schedules_reach_the_inner_optimizer() {
    let mut opt = Lookahead::new(RmsProp { lr: 1.0, ..RmsProp::default() }.build::<f64>().unwrap());
    assert_eq!((opt.option(0, "alpha"), opt.option(0, "lookahead_alpha")), (Some(0.99), Some(0.5)));
    opt.set_option(0, "alpha", 0.9).unwrap();
    assert_eq!(opt.inner().option(0, "alpha"), Some(0.9));
    let mut scheduler = LrScheduler::new(Step { step_size: 1, gamma: 0.5 }, &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    assert_eq!((opt.lr(0), opt.inner().lr(0)), (0.5, 0.5));
    assert!(opt.option(1, "lookahead_k").is_none() && opt.option(0, "nothing").is_none());
    let errors = [
        (0, "lookahead_k", 0.0, "Lookahead: `lookahead_k` must be an integer >= 1, got 0"),
        (0, "lookahead_alpha", 1.5, "Lookahead: `lookahead_alpha` must be in [0, 1], got 1.5"),
        (1, "lookahead_k", 2.0, "parameter group 1 does not exist; there are 1"),
    ];
    for (group, name, value, text) in errors {
        assert_eq!(opt.set_option(group, name, value).unwrap_err().to_string(), text);
    }
    let error = opt.set_option(0, "betas", 1.0).unwrap_err().to_string();
    assert!(error.contains("lr, ") && error.ends_with("lookahead_pullback_momentum"), "{error}");
    let wrong = LookaheadOptions { k: 0, ..LookaheadOptions::default() };
    assert!(Lookahead::with_options(Sgd::default().build::<f32>().unwrap(), wrong).is_err());
    // a smaller k takes effect at once
    let sgd = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    let (mut opt, mut w) = (Lookahead::new(sgd), array![0.0]);
    (0..3).for_each(|_| opt.step(&mut w, &array![-1.0]).unwrap());
    opt.set_option(0, "lookahead_k", 2.0).unwrap();
    opt.step(&mut w, &array![-1.0]).unwrap();
    assert_eq!(w, array![2.0]);
}

/// Without a gradient in the step of the slow weights, both weights stay for the next one; a parameter that
/// appears later has slow weights from then on; a frozen one never has.
#[test]
fn parameters_that_are_absent_appear_or_are_frozen() {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    let options = LookaheadOptions { k: 2, ..LookaheadOptions::default() };
    let mut opt = Lookahead::with_options(sgd, options).unwrap();
    let g = || Some(array![-1.0]);
    let mut model = (Some(array![0.0]), array![0.0], array![7.0], None::<Array1<f64>>);
    let none = None::<Array1<f64>>;
    opt.step(&mut model, &(g(), g(), none.clone(), none.clone())).unwrap();
    opt.step(&mut model, &(g(), none.clone(), none.clone(), none.clone())).unwrap();
    assert_eq!(model, (Some(array![1.0]), array![1.0], array![7.0], None));
    model.3 = Some(array![10.0]);
    opt.step(&mut model, &(g(), g(), none.clone(), g())).unwrap();
    model.0 = None; // gone for a step
    opt.step(&mut model, &(none.clone(), g(), none.clone(), g())).unwrap();
    // from 0 to 3, and from 10 to 12
    assert_eq!((&model.1, &model.3), (&array![1.5], &Some(array![11.0])));
    model.0 = Some(array![2.0]);
    opt.step(&mut model, &(g(), none.clone(), none.clone(), none.clone())).unwrap();
    opt.step(&mut model, &(g(), none.clone(), none.clone(), none)).unwrap();
    assert_eq!(model, (Some(array![2.5]), array![1.5], array![7.0], Some(array![11.0])));
    let names = opt.slow_weights().layout().segments().iter().map(|leaf| leaf.name.clone());
    assert_eq!(names.collect::<Vec<_>>(), ["0", "1", "3"]);
    assert_eq!(opt.state_bytes().slot("slow"), 24);
}

#[test]
fn frozen_parts_have_no_slow_weights() {
    let adamw = adamw().build::<f64>().unwrap();
    let mut opt = Lookahead::new(Partitioned::new(adamw).frozen(Select::name("1")));
    let mut params = model();
    train(&mut opt, &mut params, 0..6);
    assert!(opt.slow_weights().get("0").is_some() && opt.slow_weights().get("1").is_none());
    assert!(bits(&params[1].values) == bits(&model()[1].values));
}

#[test]
fn momentum_goes_back_with_the_weights() {
    for precision in [Precision::Full, Precision::INT8_DYNAMIC] {
        for pullback_momentum in PULLBACKS {
            let build = || {
                let opt = adamw().build::<f64>().unwrap();
                opt.with_state_precision(precision).unwrap()
            };
            let options = LookaheadOptions { k: 2, alpha: 0.25, pullback_momentum };
            let mut opt = Lookahead::with_options(build(), options).unwrap();
            let (mut alone, mut params, mut twin) = (build(), model(), model());
            train(&mut opt, &mut params, 0..2);
            train(&mut alone, &mut twin, 0..2);
            let mut momenta = Vec::new();
            alone.visit_slot("exp_avg", &mut |_, m| momenta.push(m.to_vec()));
            let mut momenta = momenta.into_iter();
            opt.visit_slot("exp_avg", &mut |_, found| {
                let factor = match pullback_momentum {
                    PullbackMomentum::None => 1.0,
                    PullbackMomentum::Reset => 0.0,
                    PullbackMomentum::Pullback => 0.25,
                };
                for (found, m) in found.iter().zip(momenta.next().unwrap()) {
                    // coded once more, a number may become its neighbour
                    let off = if precision == Precision::Full { 1e-15 } else { 0.02 };
                    assert!(
                        (found - factor * m).abs() <= off,
                        "{pullback_momentum:?}: {found} {m}"
                    );
                }
            });
            let slow = opt.state_bytes().slot("slow_momentum");
            let pulled = pullback_momentum == PullbackMomentum::Pullback;
            assert_eq!(slow, if pulled { opt.state_bytes().slot("slow") } else { 0 });
        }
    }
}

#[test]
fn the_same_bits_for_any_threads_and_any_memory_order() {
    let run = |threads: usize| {
        on_threads(threads, || {
            let mut params: Vec<Leaf<f32>> = leaves(3, &[&[300, 500], &[70_000], &[7]]);
            let adamw = AdamW { lr: 0.02, ..AdamW::default() }.build().unwrap();
            let options = LookaheadOptions { k: 2, ..LookaheadOptions::default() };
            let mut opt = Lookahead::with_options(adamw, options).unwrap();
            train(&mut opt, &mut params, 0..5);
            (all_bits(&params), opt.state_dict())
        })
    };
    let one = run(1);
    assert!(run(2) == one && run(7) == one);

    let options = LookaheadOptions { k: 2, ..LookaheadOptions::default() };
    let build =
        || Lookahead::with_options(Lion { lr: 0.1, ..Lion::default() }.build().unwrap(), options);
    let (mut opt, mut twin) = (build().unwrap(), build().unwrap());
    let mut zoo = Zoo::new();
    let mut copy = zoo.leaves();
    for _ in 0..5 {
        let grads = zoo.leaves();
        opt.step(&mut zoo, &grads).unwrap();
        twin.step(&mut copy, &grads).unwrap();
        assert!(bits(zoo.leaves().values()) == bits(copy.values()));
    }
    let fast = zoo.bits();
    opt.eval(&mut zoo).unwrap();
    assert!(zoo.bits() != fast);
    opt.train(&mut zoo).unwrap();
    assert!(zoo.bits() == fast);
}

#[test]
fn loading_is_all_or_nothing() {
    let build = || Lookahead::new(adamw().build::<f64>().unwrap());
    let options =
        LookaheadOptions { k: 2, pullback_momentum: PullbackMomentum::Pullback, alpha: 0.5 };
    let mut opt = Lookahead::with_options(adamw().build::<f64>().unwrap(), options).unwrap();
    let mut params = model();
    train(&mut opt, &mut params, 0..3);
    let saved = opt.state_dict();
    let mut victim = build();
    train(&mut victim, &mut model(), 0..1);
    let before = victim.state_dict();
    let mut refused = |key: &str, damage: &dyn Fn(&mut StateDict)| {
        let mut dict = saved.clone();
        damage(&mut dict);
        assert!(dict != saved, "{key}");
        let error = victim.load_state_dict(&dict).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
        assert!(victim.state_dict() == before, "{key}");
    };
    refused("optimizer", &|dict| dict.optimizer = "AdamW".into());
    let number = |x| Scalar::Float(x);
    for key in ["groups.0.lookahead_k", "groups.0.steps", "inner.groups.0.lr", "train_mode"] {
        refused(key, &|dict| drop(dict.scalars.remove(key)));
        refused(key, &|dict| drop(dict.scalars.insert(key.into(), number(-1.5))));
    }
    refused("inner.optimizer", &|dict| drop(dict.scalars.remove("inner.optimizer")));
    for key in ["groups.1.lookahead_k", "other", "inner.other", "state.0.other"] {
        refused(key, &|dict| drop(dict.scalars.insert(key.into(), number(1.0))));
    }
    refused("inner.state.1.exp_avg", &|dict| drop(dict.tensors.remove("inner.state.1.exp_avg")));
    // momentum without weights, a wrong length, a wrong type, a wrong shape
    refused("state.1.slow_exp_avg", &|dict| drop(dict.tensors.remove("state.1.slow")));
    refused("state.1.slow_exp_avg", &|dict| {
        let tensor = dict.tensors["state.0.slow_exp_avg"].clone();
        dict.tensors.insert("state.1.slow_exp_avg".into(), tensor);
    });
    refused("state.1.slow", &|dict| {
        dict.tensors.get_mut("state.1.slow").unwrap().bytes.pop();
    });
    refused("`1`", &|dict| dict.tensors.get_mut("state.1.slow").unwrap().shape = vec![42, 100]);
    victim.load_state_dict(&saved).unwrap();
    assert!(victim.state_dict() == saved);
}

#[test]
fn closures_are_evaluated_once() {
    let (mut params, mut twin) = (model(), model());
    let (mut opt, mut other) =
        (Lookahead::new(adamw().build().unwrap()), Lookahead::new(adamw().build().unwrap()));
    let mut calls = 0;
    for _ in 0..6 {
        let expected = evaluate(&mut twin.clone());
        let loss = opt.step_with(&mut params, |params| {
            calls += 1;
            evaluate(params)
        });
        assert_eq!(loss.unwrap(), expected.0);
        other.step(&mut twin, &expected.1).unwrap();
    }
    assert!(all_bits(&params) == all_bits(&twin) && calls == 6);
    let before = (params.clone(), opt.state_dict());
    assert!(opt.step_with(&mut params, |params| (f64::NAN, params.clone())).is_err());
    same_state("loss", (&params, &opt.state_dict()), (&before.0, &before.1));
}

/// Steps far below a unit in the last place of the parameters reach the slow weights, and come back from there.
#[cfg(feature = "half")]
#[test]
fn half_precision_loses_nothing() {
    use eigenstep::numeric::bf16;
    let build = |rounding| {
        let sgd = Sgd { lr: 1e-4, ..Sgd::default() }.build::<bf16>().unwrap();
        sgd.with_rounding(rounding).unwrap()
    };
    for (rounding, off) in [(Rounding::Master, 2e-5), (Rounding::Kahan, 2e-3)] {
        let options = LookaheadOptions { k: 1, alpha: 0.5, ..LookaheadOptions::default() };
        let mut opt = Lookahead::with_options(build(rounding), options).unwrap();
        let mut w = Array1::from_elem(3, bf16::ONE);
        for _ in 0..1000 {
            opt.step(&mut w, &Array1::from_elem(3, bf16::ONE)).unwrap();
        }
        for (slow, fast) in opt.slow_weights().values().iter().zip(&w) {
            assert!((slow - 0.95).abs() < off, "{rounding:?}: {slow}");
            assert_eq!(*fast, bf16::from_f32(*slow), "{rounding:?}");
        }
        // and the inner optimizer alone, to the bit
        let options = LookaheadOptions { k: 2, alpha: 1.0, ..LookaheadOptions::default() };
        let mut opt = Lookahead::with_options(build(rounding), options).unwrap();
        let (mut alone, mut one, mut other) = (build(rounding), w.clone(), w.clone());
        for step in 0..50 {
            let grads = w.mapv(|x| bf16::from_f32(x.to_f32() * step as f32));
            alone.step(&mut one, &grads).unwrap();
            opt.step(&mut other, &grads).unwrap();
        }
        assert!(one == other && alone.state_dict() == opt.inner().state_dict());
        // a checkpoint at the evaluation point
        opt.eval(&mut other).unwrap();
        let mut again = Lookahead::with_options(build(rounding), options).unwrap();
        again.load_state_dict(&opt.state_dict()).unwrap();
        again.train(&mut other).unwrap();
        assert!(one == other);
    }
}

/// Schedules know the range of every option: a count stays a count.
#[test]
fn schedules_of_counts_write_counts() {
    let sgd = Sgd { lr: 0.1, ..Sgd::default() }.build::<f64>().unwrap();
    let options = LookaheadOptions { k: 9, ..LookaheadOptions::default() };
    let mut opt = Lookahead::with_options(sgd, options).unwrap();
    for name in ["lookahead_k", "lookahead_alpha", "lr"] {
        assert!(opt.option_range(0, name).is_some(), "{name}");
    }
    assert!(opt.option_range(0, "no.such").is_none() && opt.option_range(1, "lr").is_none());
    let halving = Step { step_size: 1, gamma: 0.5 };
    let mut schedule = OptionScheduler::new("lookahead_k", halving, &mut opt).unwrap();
    schedule.step(&mut opt).unwrap();
    let k = opt.option(0, "lookahead_k").unwrap();
    assert!(k == 4.0 || k == 5.0, "{k}");
}

/// The slow weight belongs to the name, as the inner state does.
#[test]
fn slow_weights_are_renamed_and_forgotten_with_the_state() {
    use std::collections::BTreeMap;
    let tree = |name: &str| {
        BTreeMap::from([(name.to_owned(), array![1.0, 2.0]), ("rest".into(), array![3.0])])
    };
    let options = LookaheadOptions { k: 3, ..LookaheadOptions::default() };
    let build = || {
        let inner = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build::<f64>().unwrap();
        Lookahead::with_options(inner, options).unwrap()
    };
    let (mut opt, mut twin) = (build(), build());
    let (mut old, mut same) = (tree("old"), tree("old"));
    for _ in 0..2 {
        opt.step(&mut old, &tree("old")).unwrap();
        twin.step(&mut same, &tree("old")).unwrap();
    }
    opt.rename("old", "new").unwrap();
    let mut new = BTreeMap::from([
        ("new".to_owned(), old["old"].clone()),
        ("rest".into(), old["rest"].clone()),
    ]);
    for _ in 0..2 {
        opt.step(&mut new, &tree("new")).unwrap();
        twin.step(&mut same, &tree("old")).unwrap();
    }
    assert_eq!(new["new"], same["old"]);
    assert_eq!(new["rest"], same["rest"]);
    opt.forget("new").unwrap();
    let dict = opt.state_dict();
    assert!(!dict.tensors.keys().any(|key| key.contains("new")), "{:?}", dict.tensors.keys());
    // the evaluation point of what is left
    let mut rest = BTreeMap::from([("rest".to_owned(), new["rest"].clone())]);
    opt.eval(&mut rest).unwrap();
    opt.train(&mut rest).unwrap();
    assert_eq!(rest["rest"], new["rest"]);
    assert!(matches!(opt.forget("new"), Err(Error::UnknownParameter { .. })));
}
