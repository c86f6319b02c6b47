//! All ways to evaluate the probes, any number of threads, and any piece of an estimate that is asked
//! for: the bits are the same.

use crate::noise;
use crate::threads::on_threads;
use eigenstep::gradient::materialize;
use eigenstep::params::Parameters;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    Coordinate, Estimate, Estimator, FiniteDifference, Hizoo, LayerScaled, Lozo, Mask, Noise,
    Philox, Purpose, QuantizedNormal, Random, RngStream, Sparse, Spsa, SubZero,
};
use ndarray::{Array1, Array2, ArrayD};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = (Array2<f32>, Vec<Array1<f32>>);

fn model(rows: usize) -> Model {
    let matrix = Array2::from_shape_fn((rows, 7), |(i, j)| noise(1, 7 * i + j) as f32);
    let vector = |n: usize| Array1::from_shape_fn(n, |i| noise(2, i) as f32);
    (matrix, vec![vector(5), vector(1)])
}

fn loss(m: &Model) -> f64 {
    let all = m.0.iter().chain(m.1.iter().flatten());
    all.enumerate().map(|(i, &x)| f64::from(x) * (f64::from(x) + 0.1 * (i % 5) as f64)).sum()
}

/// Names and bits of all gradients.
fn bits(estimate: &Estimate<'_, f32>) -> Vec<(String, Vec<u32>)> {
    let all = materialize(estimate).unwrap();
    let bits = |array: ArrayD<f32>| array.iter().map(|x| x.to_bits()).collect();
    all.into_iter().map(|(name, array)| (name, bits(array))).collect()
}

fn agree<E: Estimator<f32>>(make: impl Fn() -> E) {
    let mut plain = make();
    let mut workers: Vec<E> = (0..3).map(|_| make()).collect();
    let mut told = make();
    let mut w = model(6);
    for step in 0..6 {
        // the parameters move on
        w.0[(0, 0)] += 0.1 * step as f32;
        let before = w.clone();
        let expected = bits(&plain.estimate(&mut w, |m| loss(m)).unwrap());
        for (estimator, count) in workers.iter_mut().zip([1, 2, 7]) {
            let mut copies = vec![model(6); count];
            let estimate = estimator.estimate_parallel(&w, &mut copies, loss).unwrap();
            assert_eq!(bits(&estimate), expected, "{count} workers");
        }
        let probes = told.ask(&mut w).unwrap();
        let mut losses = vec![0.0; probes];
        for probe in (0..probes).rev() {
            let mut copy = w.clone();
            told.perturb(probe, &mut copy).unwrap();
            losses[probe] = loss(&copy);
        }
        assert_eq!(bits(&told.tell(&losses).unwrap()), expected, "asked and told");
        assert_eq!(w, before);
    }
}

#[test]
fn three_ways_to_evaluate_give_the_same_bits() {
    macro_rules! sampler {
        ($($sampler:expr),* $(,)?) => {
            $(agree(|| Spsa { num_samples: 3, ..Spsa::with_sampler($sampler) }.build().unwrap());)*
        };
    }
    sampler!(
        Random::Rademacher,
        Random::Gaussian,
        Random::Sphere,
        Random::BlockSphere,
        Sparse::default(),
        Sparse { sampler: Random::Gaussian, mask: Mask::Random { sparsity: 0.5 } },
        LayerScaled::default(),
        Lozo { momentum: 0.9, interval: 2, ..Lozo::default() },
        SubZero { rank: 2, interval: 4, ..SubZero::default() },
        Hizoo { alpha: 0.1, centered: false },
        QuantizedNormal::default(),
    );
    agree(|| {
        Spsa { num_samples: 4, difference: FiniteDifference::Forward, ..Spsa::default() }
            .build()
            .unwrap()
    });
    agree(|| Spsa { clip: 0.2, ..Spsa::evolution(5, 0.1) }.build().unwrap());
    for difference in [FiniteDifference::Forward, FiniteDifference::Central] {
        agree(|| {
            let config = Coordinate { difference, ..Coordinate::default() };
            let mut estimator = config.build().unwrap();
            estimator.set_costs([("0".to_owned(), 9), ("1.0".to_owned(), 2)].into());
            estimator
        });
    }
}

#[test]
fn threads_do_not_change_bits() {
    let sum = |w: &mut Array1<f32>| w.iter().step_by(97).map(|&x| f64::from(x)).sum::<f64>();
    let run = |threads: usize, len: usize, sampler: usize| {
        on_threads(threads, || {
            let mut w = Array1::from_shape_fn(len, |i| noise(5, i) as f32);
            macro_rules! steps {
                ($sampler:expr) => {{
                    let mut estimator = Spsa { num_samples: 2, ..Spsa::with_sampler($sampler) }
                        .build::<f32>()
                        .unwrap();
                    let mut opt = AdamW { lr: 0.01, ..AdamW::default() }.build().unwrap();
                    for _ in 0..2 {
                        let estimate = estimator.estimate(&mut w, sum).unwrap();
                        opt.step(&mut w, &estimate).unwrap();
                    }
                }};
            }
            match sampler {
                0 => steps!(Random::Rademacher),
                1 => steps!(Random::Sphere),
                2 => {
                    let mask = Mask::SmallWeights { density: 0.3 };
                    steps!(Sparse { sampler: Random::Gaussian, mask: mask.clone() })
                }
                3 => steps!(LayerScaled::default()),
                4 => steps!(Hizoo { alpha: 0.5, centered: false }),
                _ => steps!(QuantizedNormal::default()),
            }
            w.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        })
    };
    for sampler in 0..6 {
        for len in [150_001, 65_537] {
            let expected = run(1, len, sampler);
            for threads in [2, 7] {
                assert!(
                    run(threads, len, sampler) == expected,
                    "{sampler}, {len}, {threads} threads"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn pieces_of_a_row_are_the_row(
        seed: u64, step in 0u64..1 << 32, query in 0u32..1 << 24, tensor: u32,
        len in 1usize..700, from in 0usize..700, part in 1usize..300,
    ) {
        let from = from.min(len - 1);
        let range = from..(from + part).min(len);
        let philox = Philox::new(seed);
        let stream = RngStream { step, query, tensor, purpose: Purpose::Direction };
        macro_rules! whole_and_part {
            ($method:ident, $type:ty) => {
                let mut whole: Vec<$type> = vec![Default::default(); len];
                let mut part: Vec<$type> = vec![Default::default(); range.len()];
                philox.$method(&stream, 0, &mut whole);
                philox.$method(&stream, from, &mut part);
                prop_assert_eq!(&whole[range.clone()], &part[..]);
            };
        }
        whole_and_part!(normal, f32);
        whole_and_part!(normal, f64);
        whole_and_part!(rademacher, f32);
        whole_and_part!(rademacher, f64);
        whole_and_part!(words, u32);
        let (mut whole, mut part) = (vec![0.0; len], vec![0.0; range.len()]);
        Noise::<f32>::uniform(&philox, &stream, 0, &mut whole);
        Noise::<f32>::uniform(&philox, &stream, from, &mut part);
        prop_assert_eq!(&whole[range.clone()], &part[..]);
        prop_assert!(whole.iter().all(|u| (0.0..1.0).contains(u)));
    }

    #[test]
    fn pieces_of_an_estimate_are_the_estimate(
        seed: u64, from in 0usize..105, part in 1usize..60, sampler in 0usize..6,
    ) {
        let range = from..(from + part).min(105);
        macro_rules! check {
            ($sampler:expr) => {{
                let config = Spsa { num_samples: 2, seed, ..Spsa::with_sampler($sampler) };
                let mut estimator = config.build::<f32>().unwrap();
                let mut w = model(15);
                let estimate = estimator.estimate(&mut w, |m: &mut Model| loss(m)).unwrap();
                let (mut whole, mut piece) = (vec![0.0; 105], vec![0.0; range.len()]);
                estimate.fill(0, 0, &mut whole);
                estimate.fill(0, from, &mut piece);
                prop_assert_eq!(&whole[range.clone()], &piece[..]);
            }};
        }
        match sampler {
            0 => check!(Random::ScaledSphere),
            1 => check!(Lozo { rank: 3, ..Lozo::default() }),
            2 => check!(Lozo { momentum: 0.5, ..Lozo::default() }),
            3 => check!(SubZero { rank: 3, ..SubZero::default() }),
            4 => check!(Sparse::default()),
            _ => check!(QuantizedNormal::default()),
        }
    }
}

/// What an optimizer makes of an estimate is what it makes of the same gradient in memory.
fn same<O: Optimizer<f32>>(mut make: impl FnMut() -> O) {
    let (mut a, mut b) = (make(), make());
    let config = Spsa { num_samples: 2, ..Spsa::default() };
    let mut estimator = config.build::<f32>().unwrap();
    let (mut x, mut y) = (model(40), model(40));
    for _ in 0..4 {
        let estimate = estimator.estimate(&mut x, |m: &mut Model| loss(m)).unwrap();
        let copies: BTreeMap<String, ArrayD<f32>> = materialize(&estimate).unwrap();
        a.step(&mut x, &estimate).unwrap();
        // the same tree of names
        b.step(&mut y, &copies).unwrap();
        assert_eq!(x, y);
    }
    assert_ne!(x, model(40));
}

#[test]
fn every_optimizer_takes_an_estimate() {
    same(|| Sgd { lr: 0.01, ..Sgd::default() }.build::<f32>().unwrap());
    same(|| Lion { lr: 0.01, ..Lion::default() }.build::<f32>().unwrap());
    same(|| {
        let opt = AdamW { lr: 0.01, ..AdamW::default() }.build::<f32>().unwrap();
        opt.with_state_precision(Precision::INT8_LINEAR).unwrap()
    });
    let shampoo = || Shampoo {
        inner: Sgd { lr: 1e-3, ..Sgd::default() },
        storage: FactorStorage::EIGEN4,
        update_factors_every: 1,
        update_roots_every: 1,
        ..Shampoo::default()
    };
    same(|| shampoo().build::<f32>().unwrap());
    same(|| {
        let opt = Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() }.build::<f32>().unwrap();
        Box::new(opt) as Box<dyn Optimizer<f32>>
    });
}

#[test]
fn tensors_that_rest_leave_the_directions_of_others_alone() {
    let build = || {
        let config = Spsa { num_samples: 2, ..Spsa::with_sampler(Random::Gaussian) };
        config.build::<f32>().unwrap()
    };
    let linear = |m: &Model| f64::from(m.1[0].sum());
    // losses told, not evaluated: only directions count
    let told = [1.0, 0.5, 2.0, -1.0];
    let (mut all, mut some) = (build(), build());
    let mut w = model(6);
    all.ask(&mut w).unwrap();
    let expected: BTreeMap<_, _> = bits(&all.tell(&told).unwrap()).into_iter().collect();
    some.set_active(Some(Select::name("1.*")));
    some.ask(&mut w).unwrap();
    for probe in 0..4 {
        let mut copy = w.clone();
        some.perturb(probe, &mut copy).unwrap();
        assert_eq!(copy.0, w.0);
        assert!(copy.1[0] != w.1[0] && copy.1[1] != w.1[1]);
    }
    let found: BTreeMap<_, _> = bits(&some.tell(&told).unwrap()).into_iter().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["1.0", "1.1"]);
    assert!(found.iter().all(|(name, bits)| expected[name] == *bits));
    // not even decay moves what rests
    let before = w.clone();
    let mut opt = Sgd { lr: 0.1, weight_decay: 0.5, ..Sgd::default() }.build().unwrap();
    let estimate = some.estimate(&mut w, |m: &mut Model| linear(m)).unwrap();
    opt.step(&mut w, &estimate).unwrap();
    assert_eq!(w.0, before.0);
    assert_ne!(w.1, before.1);
    drop(estimate);
    some.set_active(Some(Select::name("nothing")));
    let error = some.estimate(&mut w, |m: &mut Model| linear(m)).unwrap_err();
    assert!(matches!(error, Error::EmptyGroup { .. }), "{error}");
}

#[test]
fn every_tensor_may_have_a_size_of_its_own() {
    let build = || Spsa::with_sampler(Random::Gaussian).build::<f64>().unwrap();
    let mut w = (Array1::from(vec![1.0, -2.0]), Array1::from(vec![0.5]));
    let before = w.clone();
    let select = Select::name("1");
    let mut sized = build().with_epsilon(Select::all(), 0.25).unwrap();
    sized = sized.with_epsilon(select, 4.0).unwrap();
    sized.ask(&mut w).unwrap();
    let (mut copy, mut plain) = (w.clone(), w.clone());
    sized.perturb(0, &mut copy).unwrap();
    let mut twin = Spsa { epsilon: 0.25, ..Spsa::with_sampler(Random::Gaussian) }.build().unwrap();
    twin.ask(&mut w).unwrap();
    twin.perturb(0, &mut plain).unwrap();
    assert_eq!(copy.0, plain.0);
    assert!((copy.1[0] - 0.5 - 16.0 * (plain.1[0] - 0.5)).abs() < 1e-12);
    // ((f₊ − f₋)/2)/ε_k · z_k
    let (a, b) = (sized.tell(&[3.0, 1.0]).unwrap(), twin.tell(&[3.0, 1.0]).unwrap());
    let (a, b) = (materialize(&a).unwrap(), materialize(&b).unwrap());
    assert_eq!(a["0"], b["0"]);
    assert!((a["1"][0] - b["1"][0] / 16.0).abs() < 1e-15);
    assert_eq!(w, before);
    let mut unknown = build().with_epsilon(Select::name("2"), 1.0).unwrap();
    assert!(matches!(unknown.ask(&mut w), Err(Error::EmptyGroup { .. })));
}

#[test]
fn the_plain_step_is_the_estimate_times_the_rate() {
    let mut estimator = Spsa::with_sampler(Random::Gaussian).build::<f64>().unwrap();
    let mut w = Array1::from_shape_fn(5000, |i| noise(3, i));
    let before = w.clone();
    let estimate = estimator.estimate(&mut w, |w| w.iter().map(|x| x * x).sum::<f64>()).unwrap();
    let g = materialize(&estimate).unwrap().remove("param").unwrap();
    let mut opt = Sgd { lr: 0.125, ..Sgd::default() }.build().unwrap();
    opt.step(&mut w, &estimate).unwrap();
    assert!(w.iter().zip(&before).zip(&g).all(|((w, b), g)| *w == b - 0.125 * g));
    drop(estimate);
    // and a leaf of its own is a tree
    let mut tree: Box<dyn Parameters<f64>> = Box::new(before.clone());
    assert_eq!(estimator.ask(&mut *tree).unwrap(), 2);
}
