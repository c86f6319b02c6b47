//! Parameters come back bit for bit, and whatever is wrong is said.

use crate::noise;
use eigenstep::Error;
use eigenstep::params::ParamVisitor;
use eigenstep::prelude::{NonFinite, Optimizer, Parameters, Rule, Select, Sgd};
use eigenstep::zeroth_order::{
    ActiveSet, Coordinate, DirectionSampler, Estimator, FiniteDifference, FitnessShaping, Fogzo,
    Hizoo, IntegerFormat, LayerScaled, LayerScales, Lozo, Mask, QuantizedNormal, Quzo, Random,
    Sparse, Spsa, SubZero,
};
use ndarray::{Array0, Array1, Array2, Array4, ArrayD, ShapeBuilder, arr0, s};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A leaf that is a part of its memory.
#[derive(Clone)]
struct Gaps(Array2<f32>);

impl Parameters<f32> for Gaps {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        visitor.leaf(self.0.slice_mut(s![..;2, 1..;3]));
    }
}

/// Everything that a tree can be made of.
#[derive(Clone)]
struct Zoo {
    matrix: Array2<f32>,
    fortran: Array2<f32>,
    strided: Gaps,
    scalar: Array0<f32>,
    kernel: Array4<f32>,
    empty: Array2<f32>,
    list: Vec<(Array1<f32>, Option<Array1<f32>>)>,
    none: Option<Array1<f32>>,
}

impl Parameters<f32> for Zoo {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        visitor.child("matrix", &mut self.matrix);
        visitor.child("fortran", &mut self.fortran);
        visitor.child("scalar", &mut self.scalar);
        visitor.child("kernel", &mut self.kernel);
        visitor.child("empty", &mut self.empty);
        visitor.child("list", &mut self.list);
        visitor.child("none", &mut self.none);
        visitor.child("strided", &mut self.strided);
    }
}

impl Zoo {
    fn new(size: f32) -> Self {
        let x = |i: usize| size * noise(7, i) as f32;
        let vector = |n: usize| Array1::from_shape_fn(n, |i| x(n + i));
        Self {
            matrix: Array2::from_shape_fn((5, 7), |(i, j)| x(7 * i + j)),
            fortran: Array2::from_shape_fn((9, 4).f(), |(i, j)| x(100 + 9 * j + i)),
            strided: Gaps(Array2::from_shape_fn((6, 10), |(i, j)| x(200 + 10 * i + j))),
            scalar: arr0(x(300)),
            kernel: Array4::from_shape_fn((3, 2, 2, 2), |(a, b, c, d)| x(a + 10 * b + 50 * c + d)),
            empty: Array2::zeros((0, 3)),
            list: vec![(vector(3), None), (vector(4), Some(vector(5)))],
            none: None,
        }
    }

    fn values(&self) -> Vec<f32> {
        let list = self.list.iter().flat_map(|(a, b)| a.iter().chain(b.iter().flatten()));
        let head = self.matrix.iter().chain(&self.fortran).chain(&self.strided.0);
        head.chain(&self.scalar).chain(&self.kernel).chain(list).copied().collect()
    }

    fn bits(&self) -> Vec<u32> {
        self.values().iter().map(|x| x.to_bits()).collect()
    }

    fn loss(&mut self) -> f64 {
        self.values().iter().map(|&x| f64::from(x) * f64::from(x)).sum()
    }
}

fn each_estimator(
    f: &mut impl FnMut(&mut dyn FnMut(&mut Zoo, &mut dyn FnMut(&mut Zoo) -> f64) -> bool),
) {
    macro_rules! sampler {
        ($($sampler:expr),* $(,)?) => {
            $({
                let mut estimator = Spsa::with_sampler($sampler).build::<f32>().unwrap();
                f(&mut |zoo, loss| estimator.estimate(zoo, |m: &mut Zoo| loss(m)).is_ok());
            })*
        };
    }
    sampler!(
        Random::Rademacher,
        Random::Gaussian,
        Random::Sphere,
        Random::ScaledSphere,
        Random::BlockSphere,
        Sparse::default(),
        Sparse { sampler: Random::Gaussian, mask: Mask::Random { sparsity: 0.5 } },
        LayerScaled::default(),
        Lozo { momentum: 0.9, interval: 2, ..Lozo::default() },
        SubZero { rank: 2, ..SubZero::default() },
        Hizoo { alpha: 0.1, centered: true },
        QuantizedNormal::default(),
    );
    for difference in [FiniteDifference::Forward, FiniteDifference::Central] {
        let config = Coordinate { difference, ..Coordinate::default() };
        let mut estimator = config.build::<f32>().unwrap();
        f(&mut |zoo, loss| estimator.estimate(zoo, |m: &mut Zoo| loss(m)).is_ok());
    }
}

#[test]
fn parameters_come_back_bit_for_bit() {
    let before = Zoo::new(30.0);
    each_estimator(&mut |estimate| {
        let mut zoo = before.clone();
        let mut probes = 0;
        let mut moved = 0;
        // ten thousand in all
        while probes < 800 {
            let mut loss = |m: &mut Zoo| {
                probes += 1;
                moved += usize::from(m.bits() != before.bits());
                m.loss()
            };
            assert!(estimate(&mut zoo, &mut loss));
            assert_eq!(zoo.bits(), before.bits());
        }
        assert!(moved > probes / 3, "{moved} of {probes}");
    });
}

#[test]
fn parameters_come_back_when_the_closure_fails_or_panics() {
    let before = Zoo::new(30.0);
    each_estimator(&mut |estimate| {
        let mut zoo = before.clone();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut calls = 0;
            let mut loss = |m: &mut Zoo| {
                calls += 1;
                if calls == 2 { bad } else { m.loss() }
            };
            assert!(!estimate(&mut zoo, &mut loss));
            assert_eq!(zoo.bits(), before.bits());
        }
        let mut calls = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            estimate(&mut zoo, &mut |m: &mut Zoo| {
                calls += 1;
                assert!(calls < 2, "as it should");
                m.loss()
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(zoo.bits(), before.bits());
        // and goes on
        assert!(estimate(&mut zoo, &mut |m: &mut Zoo| m.loss()));
        assert_eq!(zoo.bits(), before.bits());
    });
}

#[test]
fn a_step_that_failed_is_not_over_and_leaves_nothing_behind() {
    let mut estimator = Spsa { num_samples: 3, ..Spsa::default() }.build::<f64>().unwrap();
    let mut coordinate = Coordinate::default().build::<f64>().unwrap();
    let mut w = Array1::from(vec![1.0, -2.0]);
    let failing = |_: &mut Array1<f64>| -> Result<f64, std::fmt::Error> { Err(std::fmt::Error) };
    assert!(matches!(estimator.estimate(&mut w, failing), Err(Error::Closure(_))));
    assert!(matches!(coordinate.estimate(&mut w, failing), Err(Error::Closure(_))));
    let nan = |_: &mut Array1<f64>| f64::NAN;
    assert!(matches!(estimator.estimate(&mut w, nan), Err(Error::NonFiniteLoss(x)) if x.is_nan()));
    assert!(matches!(coordinate.estimate(&mut w, nan), Err(Error::NonFiniteLoss(_))));
    let mut workers = vec![w.clone(), w.clone()];
    let error = estimator.estimate_parallel(&w, &mut workers, |_| f64::INFINITY).unwrap_err();
    assert!(matches!(error, Error::NonFiniteLoss(_)));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let loss = |_: &Array1<f64>| -> f64 { panic!("as it should") };
        estimator.estimate_parallel(&w, &mut workers, loss).map(|_| ())
    }));
    assert!(panicked.is_err());
    // nothing is asked any more: another size can be tried, and the step is the same
    estimator.set_epsilon(1e-4).unwrap();
    estimator.set_step(0).unwrap();
    assert_eq!((estimator.steps(), coordinate.steps()), (0, 0));
    assert!(matches!(estimator.tell(&[0.0; 6]), Err(Error::OutOfOrder { .. })));
    assert_eq!(w, Array1::from(vec![1.0, -2.0]));
}

fn losses(bad: &[usize], count: usize, value: f64) -> Vec<f64> {
    (0..count).map(|i| if bad.contains(&i) { value } else { 1.0 + (i * i) as f64 }).collect()
}

#[test]
fn losses_that_are_not_finite_are_refused_skipped_or_propagated() {
    let mut w = Array1::from(vec![1.0f64, 2.0, 3.0]);
    for value in [f64::NAN, f64::INFINITY] {
        let config = Spsa { num_samples: 3, non_finite: NonFinite::Skip, ..Spsa::default() };
        let mut skip = config.clone().build::<f64>().unwrap();
        let mut twin = Spsa { num_samples: 3, ..Spsa::default() }.build::<f64>().unwrap();
        // the second of three directions is left out: the mean of the other two
        assert_eq!(skip.ask(&mut w).unwrap(), 6);
        let estimate = skip.tell(&losses(&[3], 6, value)).unwrap();
        let report = estimate.report();
        assert_eq!((report.non_finite(), report.skipped, report.coefficients[1]), (1, false, 0.0));
        let (mut found, mut expected) = ([0.0; 3], [0.0; 3]);
        estimate.fill(0, 0, &mut found);
        drop(estimate);
        twin.ask(&mut w).unwrap();
        let mut good = losses(&[], 6, value);
        (good[2], good[3]) = (0.5, 0.5);
        twin.tell(&good).unwrap().fill(0, 0, &mut expected);
        let close = |(a, b): (&f64, &f64)| (a - 1.5 * b).abs() < 1e-12 * a.abs();
        assert!(found.iter().zip(&expected).all(close), "{found:?}, {expected:?}");
        // all bad: nothing is changed, and the counter goes on
        skip.ask(&mut w).unwrap();
        let estimate = skip.tell(&losses(&[0, 3, 4], 6, value)).unwrap();
        assert!(estimate.report().skipped);
        let before = w.clone();
        let mut sgd = Sgd { weight_decay: 0.1, ..Sgd::default() }.build().unwrap();
        sgd.step(&mut w, &estimate).unwrap();
        assert_eq!(w, before);
        drop(estimate);
        assert_eq!(skip.steps(), 2);
        // propagated: visible
        let config = Spsa { non_finite: NonFinite::Propagate, ..config };
        let mut propagate = config.build::<f64>().unwrap();
        propagate.ask(&mut w).unwrap();
        let estimate = propagate.tell(&losses(&[3], 6, value)).unwrap();
        estimate.fill(0, 0, &mut found);
        assert!(found.iter().all(|x| !x.is_finite()));
    }
}

#[test]
fn coordinates_without_a_loss_have_no_slope() {
    let mut w = Array1::from(vec![1.0f64, 2.0, 3.0]);
    for (difference, probes) in [(FiniteDifference::Forward, 4), (FiniteDifference::Central, 6)] {
        let config =
            Coordinate { difference, non_finite: NonFinite::Skip, ..Coordinate::default() };
        let mut skip = config.build::<f64>().unwrap();
        assert_eq!(skip.ask(&mut w).unwrap(), probes);
        let report = skip.tell(&losses(&[1], probes, f64::NAN)).unwrap().report().clone();
        assert_eq!((report.skipped, report.coefficients[0], report.non_finite()), (false, 0.0, 1));
        assert!(report.coefficients[1..].iter().all(|c| *c != 0.0));
        // one of every pair, or all beside the centre: nothing is left
        skip.ask(&mut w).unwrap();
        let bad: Vec<usize> =
            if difference == FiniteDifference::Forward { vec![1, 2, 3] } else { vec![0, 3, 4] };
        assert!(skip.tell(&losses(&bad, probes, f64::NAN)).unwrap().report().skipped);
        assert_eq!(skip.steps(), 2);
    }
    // without the centre there are no differences
    let config = Coordinate { non_finite: NonFinite::Skip, ..Coordinate::default() };
    let mut skip = config.build::<f64>().unwrap();
    skip.ask(&mut w).unwrap();
    assert!(skip.tell(&losses(&[0], 4, f64::NAN)).unwrap().report().skipped);
}

#[test]
fn ask_and_tell_have_an_order() {
    let mut w = Array1::from(vec![1.0f64, 2.0]);
    let mut estimator = Spsa::default().build::<f64>().unwrap();
    assert!(matches!(estimator.tell(&[1.0, 2.0]), Err(Error::OutOfOrder { .. })));
    let probes = estimator.ask(&mut w).unwrap();
    assert_eq!(probes, 2);
    let counts = estimator.tell(&[1.0]).unwrap_err();
    assert!(matches!(counts, Error::LossCount { expected: 2, found: 1, .. }), "{counts}");
    assert!(matches!(estimator.set_epsilon(1.0), Err(Error::OutOfOrder { .. })));
    assert!(matches!(estimator.set_step(5), Err(Error::OutOfOrder { .. })));
    assert_eq!(estimator.steps(), 0);
    // told again, it is right
    assert!(matches!(estimator.tell(&[f64::NAN, 0.0]), Err(Error::NonFiniteLoss(_))));
    estimator.tell(&[1.0, 2.0]).unwrap();
    assert_eq!(estimator.steps(), 1);
    assert!(matches!(estimator.tell(&[1.0, 2.0]), Err(Error::OutOfOrder { .. })));
    estimator.set_epsilon(1.0).unwrap();
    let mut coordinate = Coordinate::default().build::<f64>().unwrap();
    assert!(matches!(coordinate.tell(&[1.0]), Err(Error::OutOfOrder { .. })));
    coordinate.ask(&mut w).unwrap();
    assert!(matches!(coordinate.tell(&[1.0]), Err(Error::LossCount { expected: 3, .. })));
    assert!(matches!(estimator.set_epsilon(f64::NAN), Err(Error::InvalidHyperparameter { .. })));
}

fn refused<X>(expected: &str, outcome: Result<X, Error>) {
    match outcome {
        Err(Error::InvalidHyperparameter { field, .. }) => assert_eq!(field, expected),
        Err(error) => panic!("{expected}: {error}"),
        Ok(_) => panic!("{expected}: not refused"),
    }
}

fn built<S: DirectionSampler>(field: &str, config: Spsa<S>) {
    refused(field, config.build::<f64>());
}

#[test]
fn options_out_of_range_are_named() {
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        built("epsilon", Spsa { epsilon, ..Spsa::default() });
        refused("epsilon", Coordinate { epsilon, ..Coordinate::default() }.build::<f64>());
        let estimator = Spsa::default().build::<f64>().unwrap();
        refused("epsilon", estimator.with_epsilon(Select::all(), epsilon));
    }
    for num_samples in [0, 1 << 24] {
        built("num_samples", Spsa { num_samples, ..Spsa::default() });
    }
    for clip in [0.0, -1.0, f64::NAN] {
        built("clip", Spsa { clip, ..Spsa::default() });
    }
    built(
        "difference",
        Spsa { difference: FiniteDifference::Forward, ..Spsa::with_sampler(Hizoo::default()) },
    );
    built("difference", Spsa { difference: FiniteDifference::Forward, ..Spsa::evolution(2, 0.1) });
    let shaping = FitnessShaping::NesUtility;
    built("difference", Spsa { shaping, difference: FiniteDifference::Forward, ..Spsa::default() });
    built("alpha", Spsa::with_sampler(Hizoo { alpha: 1.5, centered: false }));
    built("rank", Spsa::with_sampler(Lozo { rank: 0, ..Lozo::default() }));
    built("interval", Spsa::with_sampler(SubZero { interval: 0, ..SubZero::default() }));
    built("sampler_momentum", Spsa::with_sampler(Lozo { momentum: 1.0, ..Lozo::default() }));
    for density in [0.0, 1.5, f64::NAN] {
        let mask = Mask::SmallWeights { density };
        built("density", Spsa::with_sampler(Sparse { sampler: Random::Gaussian, mask }));
    }
    for sparsity in [-0.1, 1.0, f64::NAN] {
        let mask = Mask::Random { sparsity };
        built("sparsity", Spsa::with_sampler(Sparse { sampler: Random::Gaussian, mask }));
    }
    let scales = LayerScales::Given([("w".to_owned(), 0.0)].into());
    built("scales", Spsa::with_sampler(LayerScaled { scales, ..LayerScaled::default() }));
    let format = IntegerFormat { bits: 9, full: false };
    built("bits", Spsa::with_sampler(QuantizedNormal { format }));
    refused("lr", Quzo { lr: -1.0, ..Quzo::default() }.build::<f32>());
    refused("bits", Quzo { directions: format, ..Quzo::default() }.build::<f32>());
    refused("beta_min", Fogzo { beta_min: 1.1, ..Fogzo::default() }.build::<f32>());
    refused("alpha", Fogzo { alpha: 0.0, ..Fogzo::default() }.build::<f32>());
    refused("num_samples", Fogzo { num_samples: 1 << 24, ..Fogzo::default() }.build::<f32>());
}

#[test]
fn active_sets_name_what_they_lack() {
    let mut w = (Array1::from(vec![1.0f64, 2.0]), Array1::from(vec![1.0; 3]));
    let mut set = |active: ActiveSet| {
        let mut estimator = Coordinate::default().build::<f64>().unwrap();
        estimator.set_active(active)?;
        estimator.ask(&mut w)
    };
    let indices = |name: &str, at: &[usize]| {
        ActiveSet::Indices([(name.to_owned(), at.to_vec())].into_iter().collect())
    };
    let pruned = |name: &str, ratio| ActiveSet::Pruned([(name.to_owned(), ratio)].into());
    assert!(
        matches!(set(indices("x", &[0])), Err(Error::MissingParameter { name }) if name == "x")
    );
    assert!(matches!(set(pruned("x", 0.5)), Err(Error::MissingParameter { .. })));
    refused("active", set(indices("1", &[3])));
    for ratio in [-0.1, 1.1, f64::NAN] {
        refused("active", set(pruned("1", ratio)));
    }
    let nothing = [("0".to_owned(), vec![]), ("1".to_owned(), vec![])];
    refused("active", set(ActiveSet::Indices(nothing.into())));
    // any order, repetitions: each once, ascending
    assert_eq!(set(indices("1", &[2, 0, 2])).unwrap(), 1 + 2 + 2);
    assert_eq!(set(pruned("1", 1.0)).unwrap(), 1 + 2);
    let mut none = Coordinate::default().build::<f64>().unwrap();
    refused("active", none.ask(&mut Array1::<f64>::zeros(0)));
}

#[test]
fn random_numbers_never_repeat() {
    let mut w = Array1::from(vec![1.0f64, 2.0]);
    let mut estimator = Spsa::default().build::<f64>().unwrap();
    estimator.set_step((1 << 32) - 1).unwrap();
    estimator.estimate(&mut w, |w| w.sum()).unwrap();
    let error = estimator.estimate(&mut w, |w| w.sum()).unwrap_err();
    assert!(matches!(error, Error::TooMany { what: "steps", .. }), "{error}");
    estimator.set_step(0).unwrap();
    estimator.estimate(&mut w, |w| w.sum()).unwrap();
}

/// Leaves under names of their own.
struct Named(Vec<(&'static str, ArrayD<f64>)>);

impl Parameters<f64> for Named {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f64>) {
        self.0.iter_mut().for_each(|(name, array)| visitor.child(name, array));
    }
}

#[test]
fn another_tree_is_refused() {
    let named = |leaves: &[(&'static str, &[usize])]| {
        Named(leaves.iter().map(|&(name, shape)| (name, ArrayD::ones(shape))).collect())
    };
    let good = || named(&[("a", &[2, 3]), ("b", &[4])]);
    fn check(estimator: &mut impl Estimator<f64>, trees: [(Named, &str); 4], good: &mut Named) {
        estimator.ask(good).unwrap();
        for (mut tree, expected) in trees {
            let error = estimator.ask(&mut tree).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            let before = tree.0.clone();
            estimator.ask(good).unwrap();
            assert!(estimator.perturb(1, &mut tree).unwrap_err().to_string().contains(expected));
            assert_eq!(tree.0, before);
        }
    }
    let trees = || {
        [
            (named(&[("a", &[2, 3]), ("c", &[4])]), "parameter `b` is missing"),
            (named(&[("a", &[3, 2]), ("b", &[4])]), "parameter `a`: expected shape [2, 3]"),
            (named(&[("a", &[2, 3]), ("b", &[4]), ("c", &[1])]), "parameter `c` was not there"),
            (named(&[("a", &[2, 3])]), "parameter `b` is missing"),
        ]
    };
    check(&mut Spsa::default().build::<f64>().unwrap(), trees(), &mut good());
    check(&mut Coordinate::default().build::<f64>().unwrap(), trees(), &mut good());
    let mut twice = named(&[("a", &[2]), ("a", &[2])]);
    let error = Spsa::default().build::<f64>().unwrap().ask(&mut twice).unwrap_err();
    assert!(matches!(error, Error::DuplicateName { name } if name == "a"));
    let error = Coordinate::default().build::<f64>().unwrap().ask(&mut twice).unwrap_err();
    assert!(matches!(error, Error::DuplicateName { .. }));
}

#[test]
fn a_first_step_that_fails_takes_no_tree() {
    let mut small = Array1::from(vec![1.0f64, 2.0]);
    let mut large = Array1::from(vec![1.0f64; 9]);
    let mut estimator = Spsa::with_sampler(Hizoo::default()).build::<f64>().unwrap();
    estimator.set_active(Some(Select::name("nothing")));
    assert!(matches!(estimator.ask(&mut small), Err(Error::EmptyGroup { .. })));
    let dict = estimator.state_dict();
    Spsa::with_sampler(Hizoo::default()).build::<f64>().unwrap().load_state_dict(&dict).unwrap();
    estimator.set_active(None);
    assert_eq!(estimator.ask(&mut large).unwrap(), 3);
    let mut coordinate = Coordinate::default().build::<f64>().unwrap();
    let unknown = ActiveSet::Pruned([("x".to_owned(), 0.5)].into());
    coordinate.set_active(unknown).unwrap();
    assert!(matches!(coordinate.ask(&mut small), Err(Error::MissingParameter { .. })));
    coordinate.set_active(ActiveSet::All).unwrap();
    assert_eq!(coordinate.ask(&mut large).unwrap(), 10);
}

#[cfg(feature = "half")]
#[test]
fn sixteen_bits_are_refused() {
    let refused =
        |error: Error| assert!(matches!(error, Error::UnsupportedElement { .. }), "{error}");
    refused(Spsa::default().build::<half::bf16>().unwrap_err());
    refused(Spsa::with_sampler(Lozo::default()).build::<half::f16>().unwrap_err());
    refused(Coordinate::default().build::<half::bf16>().unwrap_err());
    refused(Quzo::default().build::<half::bf16>().unwrap_err());
    refused(Fogzo::default().build::<half::f16>().unwrap_err());
}
