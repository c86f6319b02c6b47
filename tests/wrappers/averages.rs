//! Averages of weights.

use crate::inner::{SHAPES, adamw};
use crate::layouts::Zoo;
use crate::model::*;
use crate::threads::on_threads;
use eigenstep::prelude::*;
use eigenstep::state::Scalar;
use ndarray::{Array1, array};
use std::collections::BTreeMap;

type Model = Vec<Leaf<f64>>;

fn model(seed: u64) -> Model {
    leaves(seed, &SHAPES)
}

fn emas() -> Vec<Ema> {
    let flags = [(false, false), (true, false), (false, true), (true, true)];
    flags.map(|(warmup, debias)| Ema { decay: 0.7, warmup, debias }).to_vec()
}

#[test]
fn with_a_decay_of_zero_it_is_the_parameters() {
    for ema in emas() {
        let mut average = Ema { decay: 0.0, ..ema }.build().unwrap();
        for seed in 0..4 {
            let mut params = model(seed);
            params[0].values[0] = if seed % 2 == 0 { 2.0 } else { -0.0 };
            average.update(&mut params).unwrap();
            assert!(bits(average.weights().values()) == all_bits(&params).concat());
        }
    }
}

#[test]
fn with_a_decay_of_one_it_is_the_first_parameters() {
    for ema in emas() {
        let mut average = Ema { decay: 1.0, warmup: false, ..ema }.build().unwrap();
        (0..4).for_each(|seed| average.update(&mut model(seed)).unwrap());
        assert!(bits(average.weights().values()) == all_bits(&model(0)).concat());
    }
}

#[test]
fn the_average_of_equal_trees_is_that_tree() {
    let mut params = model(5);
    params[1].values[..3].copy_from_slice(&[-0.0, f64::INFINITY, 5e-324]);
    let mut swa = Swa.build().unwrap();
    (0..20).for_each(|_| swa.update(&mut params).unwrap());
    assert!(bits(swa.weights().values()) == all_bits(&params).concat());
    for ema in emas() {
        let mut ema = ema.build().unwrap();
        (0..20).for_each(|_| ema.update(&mut params).unwrap());
        assert!(bits(ema.weights().values()) == all_bits(&params).concat());
    }
}

#[test]
fn averages_are_what_their_equations_say() {
    let xs = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0];
    let mut swa = Swa.build().unwrap();
    for (n, x) in xs.iter().enumerate() {
        swa.update(&mut array![*x]).unwrap();
        let mean = xs[..=n].iter().sum::<f64>() / (n + 1) as f64;
        assert!((swa.weights().values()[0] - mean).abs() < 1e-14);
    }
    for ema in emas() {
        let (mut average, mut numerator, mut denominator) =
            (ema.clone().build().unwrap(), 0.0, 0.0);
        for (n, x) in xs.iter().enumerate() {
            average.update(&mut array![*x]).unwrap();
            let n = n as f64;
            let d = if ema.warmup { f64::min(0.7, (1.0 + n) / (10.0 + n)) } else { 0.7 };
            let first = !ema.debias && n == 0.0;
            let d = if first { 0.0 } else { d };
            numerator = d * numerator + (1.0 - d) * x;
            denominator = d * denominator + (1.0 - d);
            let expected = numerator / denominator;
            let found = average.weights().values()[0];
            assert!((found - expected).abs() < 1e-13, "{ema:?}: {found} {expected}");
        }
    }
}

#[test]
fn averages_continue_with_the_same_bits_from_any_update() {
    fn check<C: WeightAverage>(rule: C, other: C) {
        for saved in 0..5 {
            let mut whole: Averaged<C, f64> = rule.clone().build().unwrap();
            (0..saved).for_each(|seed| whole.update(&mut model(seed)).unwrap());
            let mut params = model(100);
            if saved > 0 {
                whole.swap(&mut params).unwrap();
            }
            let mut again: Averaged<C, f64> = other.clone().build().unwrap();
            again.load_state_dict(&whole.state_dict()).unwrap();
            assert!(again.state_dict() == whole.state_dict());
            assert_eq!(again.is_swapped(), saved > 0);
            for average in [&mut whole, &mut again] {
                if saved > 0 {
                    let mut params = params.clone();
                    average.restore(&mut params).unwrap();
                    assert!(all_bits(&params) == all_bits(&model(100)));
                }
                (saved..saved + 3).for_each(|seed| average.update(&mut model(seed)).unwrap());
            }
            assert!(again.state_dict() == whole.state_dict());
        }
    }
    check(Swa, Swa);
    emas().into_iter().for_each(|ema| check(ema, Ema::default()));
}

/// Each parameter has counts of its own: it is as if it had been averaged alone.
#[test]
fn parameters_may_appear_and_be_missing() {
    fn check<C: WeightAverage>(rule: C) {
        let mut average = rule.clone().build().unwrap();
        let mut alone: [Averaged<C, f64>; 3] =
            std::array::from_fn(|_| rule.clone().build().unwrap());
        for step in 0..8u32 {
            let there = [step != 3, step >= 2 && step % 3 != 0, step >= 5];
            let x = |leaf: usize| f64::from(step * 7 % 5) + leaf as f64;
            let leaf = |leaf: usize| there[leaf].then(|| Array1::from_elem(leaf + 1, x(leaf)));
            let mut params = (leaf(0), leaf(1), leaf(2));
            average.update(&mut params).unwrap();
            for (i, alone) in alone.iter_mut().enumerate().filter(|(i, _)| there[*i]) {
                alone.update(&mut leaf(i)).unwrap();
            }
        }
        for (i, alone) in alone.iter().enumerate() {
            let found = average.weights().get(&i.to_string()).unwrap();
            let expected = alone.weights().get("param").unwrap();
            assert_eq!(found, expected);
            assert_eq!(average.updates(&i.to_string()), alone.updates("param"));
        }
        let mut again: Averaged<C, f64> = rule.build().unwrap();
        again.load_state_dict(&average.state_dict()).unwrap();
        assert!(again.state_dict() == average.state_dict());
        assert_eq!(again.updates("nothing"), None);
    }
    check(Swa);
    emas().into_iter().for_each(check);
}

/// An average goes on under another name, and begins anew after it was dropped; what is refused changes nothing.
#[test]
fn averages_follow_names() {
    fn check<C: WeightAverage>(rule: C) {
        let mut average: Averaged<C, f64> = rule.clone().build().unwrap();
        let mut twin: Averaged<C, f64> = rule.build().unwrap();
        let tree = |names: [&str; 2], step: u32| -> BTreeMap<String, Array1<f64>> {
            let leaf = |(i, name): (usize, &str)| {
                (name.to_owned(), Array1::from_elem(i + 2, f64::from(step * 7 % 5) + i as f64))
            };
            names.into_iter().enumerate().map(leaf).collect()
        };
        for step in 0..4 {
            average.update(&mut tree(["a", "b"], step)).unwrap();
            twin.update(&mut tree(["a", "b"], step)).unwrap();
        }
        let state = average.state_dict();
        assert!(matches!(average.rename("a", "b"), Err(Error::DuplicateName { .. })));
        assert!(matches!(average.rename("c", "d"), Err(Error::UnknownParameter { .. })));
        assert!(matches!(average.forget("c"), Err(Error::UnknownParameter { .. })));
        average.swap(&mut tree(["a", "b"], 0)).unwrap();
        assert!(matches!(average.forget("a"), Err(Error::OutOfOrder { .. })));
        assert!(matches!(average.rename("a", "c"), Err(Error::OutOfOrder { .. })));
        average.restore(&mut tree(["a", "b"], 0)).unwrap();
        assert!(average.state_dict() == state);

        average.rename("a", "z").unwrap();
        average.update(&mut tree(["z", "b"], 4)).unwrap();
        twin.update(&mut tree(["a", "b"], 4)).unwrap();
        assert_eq!(average.weights().get("z").unwrap(), twin.weights().get("a").unwrap());
        assert_eq!(average.updates("z"), twin.updates("a"));

        average.forget("z").unwrap();
        assert_eq!(average.updates("z"), None);
        // the same name with another shape
        let mut params = tree(["b", "z"], 5);
        params.insert("b".into(), Array1::from_elem(3, 1.0));
        average.update(&mut params).unwrap();
        assert_eq!((average.updates("z"), average.updates("b")), (Some(1), Some(6)));
        assert_eq!(average.weights().get("z").unwrap(), params["z"].view().into_dyn());
    }
    check(Swa);
    emas().into_iter().for_each(check);
}

/// The average of numbers is a number, also where their difference is none.
#[test]
fn averages_of_large_numbers_are_numbers() {
    for decay in [0.3, 0.9] {
        let mut average = Ema { decay, ..Ema::default() }.build::<f32>().unwrap();
        average.update(&mut array![3e38f32]).unwrap();
        average.update(&mut array![-3e38f32]).unwrap();
        let expected = 3e38 * (2.0 * decay - 1.0);
        let found = f64::from(average.weights().values()[0]);
        assert!((found - expected).abs() < 1e-6 * 3e38, "{found}, not {expected}");
    }
}

/// What an average has left behind is 0 in the end, and never subnormal, which would be slow.
#[test]
fn averages_decay_to_zero() {
    let mut average = Ema { decay: 0.5, ..Ema::default() }.build::<f32>().unwrap();
    average.update(&mut array![1.0f32]).unwrap();
    for _ in 0..200 {
        average.update(&mut array![0.0f32]).unwrap();
        assert!(average.weights().values().iter().all(|x| *x == 0.0 || x.is_normal()));
    }
    assert_eq!(average.weights().values(), [0.0]);
}

#[test]
fn parameters_come_back_to_the_bit_in_every_layout() {
    let mut zoo = Zoo::new();
    let mut ema = Ema { decay: 0.5, ..Ema::default() }.build().unwrap();
    ema.update(&mut zoo).unwrap();
    let average = zoo.leaves();
    eigenstep::tree::scale(-3.0, &mut zoo).unwrap();
    let (moved, moved_leaves) = (zoo.bits(), zoo.leaves());
    ema.swap(&mut zoo).unwrap();
    assert!(bits(zoo.leaves().values()) == bits(average.values()));
    ema.restore(&mut zoo).unwrap();
    assert!(zoo.bits() == moved);
    // row-major copies have the same average
    let mut twin = Ema { decay: 0.5, ..Ema::default() }.build().unwrap();
    let (mut average, mut moved_leaves) = (average, moved_leaves);
    for _ in 0..3 {
        twin.update(&mut average).unwrap();
        twin.update(&mut moved_leaves).unwrap();
        if twin.updates("flat") > ema.updates("flat") {
            ema.update(&mut zoo).unwrap();
            assert!(bits(ema.weights().values()) == bits(twin.weights().values()));
            return;
        }
    }
    unreachable!();
}

#[test]
fn errors_change_nothing() {
    let mut ema = Ema::default().build().unwrap();
    let mut good = (array![1.0], array![2.0, 3.0]);
    ema.update(&mut good).unwrap();
    let before = ema.state_dict();
    let says = |result: Result<()>, word: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    says(ema.update(&mut (array![9.0], array![9.0])), "parameter `1`: expected shape [2]");
    says(ema.copy_to(&mut (array![9.0],)), "leaf `1` of one tree is not in the other");
    let mut more = (array![9.0], array![2.0, 3.0], array![7.0]);
    says(ema.swap(&mut more), "parameter `2` is missing");
    assert_eq!(more, (array![9.0], array![2.0, 3.0], array![7.0]));
    says(ema.restore(&mut good), "call `swap` first");
    says(ema.set_option("decay", 1.5), "Ema: `decay` must be in [0, 1], got 1.5");
    says(ema.set_option("lr", 1.5), "Ema has no option `lr`; it has decay, warmup, debias");
    assert!(ema.state_dict() == before);
    good.0[0] = 5.0;
    ema.swap(&mut good).unwrap();
    assert_eq!(good, (array![1.0], array![2.0, 3.0]));
    says(ema.swap(&mut good), "call `restore` first");
    says(ema.update(&mut good), "call `restore` first");
    says(ema.restore(&mut (array![0.0],)), "parameter `1` is missing");
    ema.restore(&mut good).unwrap();
    assert_eq!(good, (array![5.0], array![2.0, 3.0]));
    assert!(ema.state_dict() == before);
    assert!(Ema { decay: f64::NAN, ..Ema::default() }.build::<f32>().is_err());
    let mut empty = Swa.build().unwrap();
    says(empty.swap(&mut good), "call `update` first");
    assert_eq!((ema.option("decay"), ema.rule().warmup), (Some(0.999), false));
}

#[test]
fn loading_is_all_or_nothing() {
    let mut ema = Ema { decay: 0.25, ..Ema::default() }.build::<f64>().unwrap();
    (0..3).for_each(|seed| ema.update(&mut model(seed)).unwrap());
    ema.swap(&mut model(9)).unwrap();
    let saved = ema.state_dict();
    let mut victim = Ema::default().build::<f64>().unwrap();
    victim.update(&mut model(7)).unwrap();
    let before = victim.state_dict();
    // what is no option was not saved by older versions
    let needed = saved.scalars.keys().chain(saved.tensors.keys());
    for key in needed.filter(|key| !key.contains("config")) {
        let mut dict = saved.clone();
        dict.scalars.remove(key);
        dict.tensors.remove(key);
        let error = victim.load_state_dict(&dict).unwrap_err().to_string();
        // a layout ends at the first name that is missing
        let names = key.contains("layout") || error.contains(key);
        assert!(names && victim.state_dict() == before, "{key}: {error}");
    }
    for (key, x) in
        [("other", 1.0), ("options.decay", 2.0), ("ages.0.updates", 0.5), ("swapped", 1.0)]
    {
        let mut dict = saved.clone();
        dict.scalars.insert(key.into(), Scalar::Float(x));
        let error = victim.load_state_dict(&dict).unwrap_err().to_string();
        assert!(error.contains(key) && victim.state_dict() == before, "{key}: {error}");
    }
    let mut other = Ema::default().build::<f64>().unwrap();
    other.update(&mut (array![1.0], array![2.0])).unwrap();
    let error = other.load_state_dict(&saved).unwrap_err().to_string();
    assert!(error.contains("parameter `0`: expected shape [1]"), "{error}");
    let swa: StateDict = Swa.build::<f64>().unwrap().state_dict();
    assert!(victim.load_state_dict(&swa).is_err());
    victim.load_state_dict(&saved).unwrap();
    assert!(victim.state_dict() == saved);
}

#[test]
fn the_same_bits_for_any_threads() {
    let run = |threads: usize| {
        on_threads(threads, || {
            let shapes: [&[usize]; 3] = [&[300, 500], &[70_000], &[7]];
            let (mut ema, mut swa) = (Ema::default().build::<f32>(), Swa.build::<f32>());
            for seed in 0..4 {
                let mut params: Vec<Leaf<f32>> = leaves(seed, &shapes);
                ema.as_mut().unwrap().update(&mut params).unwrap();
                swa.as_mut().unwrap().update(&mut params).unwrap();
            }
            (ema.unwrap().state_dict(), swa.unwrap().state_dict())
        })
    };
    let one = run(1);
    assert!(run(2) == one && run(7) == one);
}

#[test]
fn what_an_optimizer_knows_exactly_is_the_same_without_rounding() {
    let (mut params, mut opt) = (model(1), adamw().build::<f64>().unwrap());
    let (mut one, mut other) = (Ema::default().build().unwrap(), Ema::default().build().unwrap());
    for step in 0..4 {
        train(&mut opt, &mut params, step..step + 1);
        one.update(&mut params).unwrap();
        other.update_exact(&mut opt, &mut params).unwrap();
    }
    assert!(one.state_dict() == other.state_dict());
    let bytes = one.state_bytes();
    assert_eq!((bytes.slot("average"), bytes.slot("copy")), (8 * bytes.parameters(), 0));
}

/// Weights that move by less than a unit in their last place have an average that moves with them.
#[cfg(feature = "half")]
#[test]
fn averages_of_half_precision_are_not_rounded() {
    use eigenstep::numeric::{bf16, f16};
    let mut swa = Swa.build().unwrap();
    for bits in 0..4 {
        swa.update(&mut Array1::from_elem(2, bf16::from_bits(0x3f80 + bits))).unwrap();
    }
    assert_eq!(swa.weights().values(), [1.0 + 1.5 / 128.0; 2]);
    let mut w = Array1::from_elem(2, bf16::from_bits(0x7fc1)); // a NaN with a payload
    swa.swap(&mut w).unwrap();
    assert_eq!(w[0], bf16::from_f32(1.0 + 1.5 / 128.0));
    swa.restore(&mut w).unwrap();
    assert!(w.iter().all(|x| x.to_bits() == 0x7fc1));

    for (rounding, exact) in
        [(Rounding::Master, 1e-6), (Rounding::Kahan, 1e-4), (Rounding::Nearest, 1.0)]
    {
        let sgd = Sgd { lr: 1e-4, ..Sgd::default() }.build::<f16>().unwrap();
        let mut opt = sgd.with_rounding(rounding).unwrap();
        let (mut w, g) = (Array1::from_elem(1, f16::ONE), Array1::from_elem(1, f16::ONE));
        let mut last = Ema { decay: 0.0, ..Ema::default() }.build().unwrap();
        for step in 1..20 {
            opt.step(&mut w, &g).unwrap();
            last.update_exact(&mut opt, &mut w).unwrap();
            let off = (last.weights().values()[0] - (1.0 - 1e-4 * step as f32)).abs();
            assert!(off < exact, "{rounding:?}, step {step}: {off}");
        }
    }
}

#[test]
fn an_average_that_has_seen_nothing_says_so() {
    let mut ema = Ema::default().build::<f64>().unwrap();
    let mut w = model(1);
    let before = all_bits(&w);
    let error = ema.swap(&mut w).unwrap_err();
    assert_eq!(error.to_string(), "Averaged: there is no average yet; call `update` first");
    assert!(ema.copy_to(&mut w).is_err());
    assert!(all_bits(&w) == before);
    ema.update(&mut w).unwrap();
    ema.swap(&mut w).unwrap();
}
