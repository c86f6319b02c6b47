//! Methods made of estimates: conservative and blockwise steps, coordinates, scores, weights on grids.

use crate::{D, Pair, Quadratic, flat, noise, numbers, pair};
use eigenstep::gradient::materialize;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    ActiveSet, ConservativeChoice, Coordinate, DirectionSampler, Estimator, FiniteDifference,
    Fogzo, Grasp, Hizoo, Lozo, Noise, Philox, Purpose, Random, RngStream, Slope, Spsa, ZerothOrder,
    work_split,
};
use ndarray::{Array1, Array2, array};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever the rate, and however rough the loss.
    #[test]
    fn a_conservative_step_never_raises_the_loss(
        seed in 0u64..10_000, lr in 1e-4f64..10.0, roughness in 0.0f64..3.0, queries in 1usize..4,
    ) {
        let quadratic = Quadratic::new(seed);
        let loss = |m: &mut Pair| {
            let x = flat(m);
            quadratic.loss(&x) + roughness * x.iter().map(|x| (20.0 * x).sin()).sum::<f64>()
        };
        let config = Spsa { seed, num_samples: queries, ..Spsa::with_sampler(Random::Gaussian) };
        let mut estimator = config.build::<f64>().unwrap();
        let mut model = pair(numbers(seed + 3));
        let mut last = loss(&mut model);
        let mut calls = 0;
        for _ in 0..20 {
            let before = flat(&model);
            let choice = estimator
                .step_conservatively(lr, &mut model, |m: &mut Pair| {
                    calls += 1;
                    loss(m)
                })
                .unwrap();
            let now = loss(&mut model);
            prop_assert!(now <= last, "{choice:?}: {now} after {last}");
            prop_assert_eq!(choice == ConservativeChoice::Stay, flat(&model) == before);
            last = now;
        }
        prop_assert_eq!(calls, 20 * (2 * queries + 3));
    }
}

#[test]
fn conservative_steps_go_down_up_or_nowhere() {
    let build = || Spsa::default().build::<f64>().unwrap();
    let mut w = array![1.0];
    // the probes say up, what follows says otherwise
    let told = |after: [f64; 3]| {
        let mut values = [2.0, 1.0].into_iter().chain(after);
        move |_: &mut Array1<f64>| values.next().unwrap()
    };
    for (after, choice) in [
        ([1.0, 1.0, 1.0], ConservativeChoice::Down),
        ([2.0, 1.0, 1.0], ConservativeChoice::Up),
        ([2.0, 2.0, 1.0], ConservativeChoice::Stay),
        ([f64::NAN, f64::INFINITY, 9.0], ConservativeChoice::Stay),
        ([f64::NEG_INFINITY, 3.0, 9.0], ConservativeChoice::Up),
        ([f64::NAN; 3], ConservativeChoice::Stay),
    ] {
        assert_eq!(
            build().step_conservatively(0.1, &mut w, told(after)).unwrap(),
            choice,
            "{after:?}"
        );
        assert_eq!(w[0] == 1.0, choice == ConservativeChoice::Stay);
        w[0] = 1.0;
    }
    // a closure that fails at one of the three points
    for failing in 0..5 {
        let mut calls = 0;
        let outcome = build().step_conservatively(0.1, &mut w, |w: &mut Array1<f64>| {
            calls += 1;
            if calls > failing { Err(std::fmt::Error) } else { Ok(w[0] * w[0]) }
        });
        assert!(matches!(outcome, Err(Error::Closure(_))));
        assert_eq!(w[0], 1.0);
        let mut calls = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            build().step_conservatively(0.1, &mut w, |w: &mut Array1<f64>| {
                calls += 1;
                assert!(calls <= failing, "as it should");
                w[0] * w[0]
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(w[0], 1.0);
    }
}

fn descent<S: DirectionSampler>(
    sampler: S,
) -> ZerothOrder<f64, eigenstep::zeroth_order::SpsaEstimator<f64, S>, Box<dyn Optimizer<f64>>> {
    let opt = Sgd { lr: 0.01, momentum: 0.5, ..Sgd::default() }.build::<f64>().unwrap();
    ZerothOrder::new(Spsa::with_sampler(sampler).build::<f64>().unwrap(), Box::new(opt))
}

#[test]
fn one_block_of_all_is_a_plain_step() {
    let quadratic = Quadratic::new(2);
    let loss = |m: &mut Pair| quadratic.loss(&flat(m));
    let (mut plain, mut blocks) = (descent(Random::Gaussian), descent(Random::Gaussian));
    let (mut a, mut b) = (pair(numbers(1)), pair(numbers(1)));
    for step in 0..10 {
        plain.step(&mut a, loss).unwrap();
        let report = blocks.step_blockwise(&mut b, &[Select::all()], loss).unwrap();
        assert_eq!((report.step, report.evaluations()), (step, 2));
        assert_eq!(flat(&a).map(f64::to_bits), flat(&b).map(f64::to_bits));
    }
}

#[test]
fn blocks_are_probed_and_moved_one_after_another() {
    let quadratic = Quadratic::new(3);
    let blocks = [Select::name("0"), Select::name("1")];
    let mut pairwise = descent(Random::Rademacher);
    let mut model = pair(numbers(1));
    let mut seen = Vec::new();
    pairwise
        .step_blockwise(&mut model, &blocks, |m: &mut Pair| {
            seen.push(m.clone());
            quadratic.loss(&flat(m))
        })
        .unwrap();
    let before = pair(numbers(1));
    assert!(seen[0].1 == before.1 && seen[1].1 == before.1 && seen[0].0 != before.0);
    // the second block sees the first one moved
    assert!(seen[2].0 == model.0 && seen[3].0 == model.0 && model.0 != before.0);
    assert_eq!((pairwise.estimator.steps(), seen.len()), (1, 4));
    // a loss that is refused is what the error says, and the next step goes on
    let error = pairwise.step_blockwise(&mut model, &blocks, |_: &mut Pair| f64::NAN).unwrap_err();
    assert!(matches!(error, Error::NonFiniteLoss(_)), "{error}");
    assert_eq!(pairwise.estimator.steps(), 1);
    pairwise.step_blockwise(&mut model, &blocks, |m: &mut Pair| quadratic.loss(&flat(m))).unwrap();
    assert_eq!(pairwise.estimator.steps(), 2);
    // after a panic no block is left chosen
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let loss = |_: &mut Pair| -> f64 { panic!("as it should") };
        pairwise.step_blockwise(&mut model, &blocks, loss).map(|_| ())
    }));
    assert!(panicked.is_err());
    let before = model.clone();
    pairwise.step(&mut model, |m: &mut Pair| quadratic.loss(&flat(m))).unwrap();
    assert!(model.0 != before.0 && model.1 != before.1);
}

/// What is remembered of a tensor comes from probes of that tensor.
#[test]
fn tensors_that_rest_learn_nothing() {
    fn learned<S: DirectionSampler>(sampler: S, keys: [&str; 2]) {
        let mut estimator = Spsa::with_sampler(sampler).build::<f64>().unwrap();
        let mut model = pair(numbers(1));
        let loss = |m: &mut Pair| Quadratic::new(3).loss(&flat(m));
        estimator.estimate(&mut model, loss).unwrap();
        let before = estimator.state_dict().tensors;
        estimator.set_active(Some(Select::name("1")));
        estimator.estimate(&mut model, loss).unwrap();
        let after = estimator.state_dict().tensors;
        assert_eq!(after[keys[0]], before[keys[0]]);
        assert_ne!(after[keys[1]], before[keys[1]]);
    }
    learned(Hizoo { alpha: 0.3, centered: false }, ["law.hessian.0", "law.hessian.1"]);
    let sampler = Lozo { rank: 1, momentum: 0.5, ..Lozo::default() };
    learned(sampler, ["law.momentum.0", "law.momentum.1"]);
}

/// With no coordinate left out, it is descent along the true gradient, up to O(ε).
#[test]
fn coordinates_follow_the_trajectory_of_the_gradient() {
    let quadratic = Quadratic::new(5);
    let distance = |epsilon: f64, difference: FiniteDifference| {
        let config = Coordinate { epsilon, difference, ..Coordinate::default() };
        let mut estimator = config.build::<f64>().unwrap();
        let sgd = || Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build::<f64>().unwrap();
        let (mut opt, mut exact) = (sgd(), sgd());
        let (mut w, mut x) = (pair(numbers(6)), pair(numbers(6)));
        let mut most = 0.0f64;
        for _ in 0..60 {
            let estimate = estimator.estimate(&mut w, |m: &mut Pair| quadratic.loss(&flat(m)));
            opt.step(&mut w, &estimate.unwrap()).unwrap();
            let gradient = pair(quadratic.gradient(&flat(&x)));
            exact.step(&mut x, &gradient).unwrap();
            let apart = flat(&w).into_iter().zip(flat(&x)).map(|(a, b)| (a - b).abs());
            most = apart.fold(most, f64::max);
        }
        most
    };
    assert!(distance(1e-2, FiniteDifference::Central) < 1e-11);
    let [coarse, fine] = [1e-2, 1e-4].map(|epsilon| distance(epsilon, FiniteDifference::Forward));
    assert!(coarse < 2e-2 && (coarse / fine - 100.0).abs() < 1.0, "{coarse} and {fine}");
}

#[test]
fn a_sparse_gradient_has_exact_counts_and_exact_zeros() {
    let quadratic = Quadratic::new(7);
    for (ratio, kept) in [(0.0, 6), (0.25, 4), (0.5, 3), (0.75, 2), (0.9, 1), (1.0, 0)] {
        let mut estimator = Coordinate { seed: 4, ..Coordinate::default() }.build::<f64>().unwrap();
        let mut dense = Coordinate::default().build::<f64>().unwrap();
        estimator.set_active(ActiveSet::Pruned([("0".to_owned(), ratio)].into())).unwrap();
        let mut model = pair(numbers(8));
        let loss = |m: &Pair| quadratic.loss(&flat(m));
        let all = dense.estimate(&mut model, |m: &mut Pair| loss(m)).unwrap();
        let all = materialize(&all).unwrap();
        let estimate = estimator.estimate(&mut model, |m: &mut Pair| loss(m)).unwrap();
        assert_eq!(estimate.report().evaluations(), 1 + kept + 2);
        let found = materialize(&estimate).unwrap();
        drop(estimate);
        let active: Vec<(u32, usize)> = estimator.active().to_vec();
        assert_eq!(active.len(), kept + 2);
        assert!(active.is_sorted());
        for (i, (a, b)) in found["0"].iter().zip(&all["0"]).enumerate() {
            let expected = if active.contains(&(0, i)) { *b } else { 0.0 };
            assert_eq!(a.to_bits(), expected.to_bits());
        }
        assert_eq!(found["1"], all["1"]);
        // workers together see every probe once, in order
        let split = work_split(&vec![1; kept + 3], 3).unwrap();
        assert!(split.is_sorted() && split.len() == kept + 3);
        let mut copies = vec![pair([0.0; D]); 3];
        let parallel = estimator.estimate_parallel(&model, &mut copies, loss).unwrap();
        assert_eq!(materialize(&parallel).unwrap(), found);
    }
}

#[test]
fn the_names_of_probes_tell_what_is_perturbed() {
    let mut estimator = Coordinate::default().build::<f64>().unwrap();
    let mut model = pair(numbers(8));
    assert_eq!(estimator.ask(&mut model).unwrap(), 9);
    let names: Vec<_> = (0..9).map(|probe| estimator.tensor_of(probe)).collect();
    assert_eq!(names[..2], [None, Some("0")]);
    assert_eq!(names[6..], [Some("0"), Some("1"), Some("1")]);
}

/// The closure that reuses work is told what is perturbed, and makes the same estimate.
#[test]
fn evaluations_that_reuse_work_make_the_same_estimate() {
    let quadratic = Quadratic::new(8);
    for difference in [FiniteDifference::Forward, FiniteDifference::Central] {
        let build = || Coordinate { difference, ..Coordinate::default() }.build::<f64>().unwrap();
        let (mut plain, mut reusing) = (build(), build());
        let before = pair(numbers(8));
        let mut model = before.clone();
        let expected = plain.estimate(&mut model, |m: &mut Pair| quadratic.loss(&flat(m)));
        let expected = materialize(&expected.unwrap()).unwrap();
        let mut centres = 0;
        let found = reusing
            .estimate_reusing(&mut model, |m, perturbed| {
                centres += usize::from(perturbed.is_none());
                assert_eq!(m.0 != before.0, perturbed == Some("0"));
                assert_eq!(m.1 != before.1, perturbed == Some("1"));
                quadratic.loss(&flat(m))
            })
            .unwrap();
        assert_eq!(materialize(&found).unwrap(), expected);
        assert_eq!(centres, usize::from(difference == FiniteDifference::Forward));
        drop(found);
        assert_eq!((reusing.steps(), &model), (1, &before));
        let nan = reusing.estimate_reusing(&mut model, |_, _| f64::NAN).unwrap_err();
        assert!(matches!(nan, Error::NonFiniteLoss(_)));
        assert_eq!((reusing.steps(), &model), (1, &before));
    }
}

type Net = (Array2<f64>, Array1<f64>, Array1<f64>);

fn net() -> Net {
    let matrix = Array2::from_shape_fn((4, 3), |(i, j)| noise(11, 3 * i + j));
    (matrix, Array1::from_shape_fn(4, |i| noise(12, i)), array![0.1, 0.2])
}

fn net_loss(m: &Net) -> f64 {
    let hidden = (m.0.dot(&array![1.0, -0.5, 2.0]) + &m.1).mapv(f64::tanh);
    (hidden.sum() - 0.3).powi(2) + m.2.iter().map(|x| x * x).sum::<f64>()
}

#[test]
fn scores_leave_everything_as_it_was() {
    for fresh in [false, true] {
        let grasp = Grasp { fresh, signed: false };
        let config = Spsa {
            epsilon: 5e-3,
            num_samples: 8,
            difference: FiniteDifference::Forward,
            ..Spsa::with_sampler(Random::Gaussian)
        };
        let mut estimator = config.build::<f64>().unwrap();
        let mut model = net();
        let mut calls = 0;
        let scores = grasp
            .scores(&mut estimator, &mut model, Select::ndim(2..), |m: &mut Net| {
                calls += 1;
                assert!(m.1 == net().1 && m.2 == net().2);
                net_loss(m)
            })
            .unwrap();
        assert_eq!((calls, estimator.steps()), (2 * 9, if fresh { 2 } else { 1 }));
        assert_eq!(model, net());
        // counts are rounded to even, over all scored weights
        for (sparsity, pruned) in [(0.0, 0), (0.125, 2), (0.5, 6), (0.9, 11), (1.0, 12)] {
            let keep = scores.keep(sparsity).unwrap();
            assert_eq!(keep.keys().collect::<Vec<_>>(), ["0"]);
            assert_eq!(keep["0"].iter().filter(|keep| !**keep).count(), pruned);
            assert_eq!(scores.ratios(sparsity).unwrap()["0"], pruned as f64 / 12.0);
        }
        for sparsity in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(scores.keep(sparsity), Err(Error::InvalidHyperparameter { .. })));
            assert!(scores.ratios(sparsity).is_err());
        }
        // a closure that fails or panics at any evaluation
        for failing in [1, 5, 9, 10, 14, 18] {
            let mut calls = 0;
            let outcome = grasp.scores(&mut estimator, &mut model, Select::all(), |m: &mut Net| {
                calls += 1;
                if calls == failing { Err(std::fmt::Error) } else { Ok(net_loss(m)) }
            });
            assert!(matches!(outcome, Err(Error::Closure(_))));
            assert_eq!(model, net());
            let mut calls = 0;
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                grasp.scores(&mut estimator, &mut model, Select::all(), |m: &mut Net| {
                    calls += 1;
                    assert!(calls != failing, "as it should");
                    net_loss(m)
                })
            }));
            assert!(panicked.is_err());
            assert_eq!(model, net());
        }
        // all are probed again
        let estimate = estimator.estimate(&mut model, |m: &mut Net| net_loss(m)).unwrap();
        assert_eq!(materialize(&estimate).unwrap().len(), 3);
    }
}

/// Weights of zero have a score of zero, all the same, and go by index.
#[test]
fn equal_scores_go_by_index() {
    let mut estimator = Spsa { epsilon: 0.5, ..Spsa::default() }.build::<f64>().unwrap();
    // zeros of both signs times curvature: zeros of both signs
    let mut model = (array![0.0, -0.0, 0.0], array![-0.0, 0.0]);
    for signed in [false, true] {
        let grasp = Grasp { fresh: false, signed };
        let scores = grasp
            .scores(
                &mut estimator,
                &mut model,
                Select::all(),
                |m: &mut (Array1<f64>, Array1<f64>)| {
                    m.0.iter().chain(&m.1).map(|x| x * x + x).sum::<f64>()
                },
            )
            .unwrap();
        for pruned in 0..=5 {
            let keep = scores.keep(f64::from(pruned) / 5.0).unwrap();
            let stays: Vec<bool> = keep["0"].iter().chain(&keep["1"]).copied().collect();
            assert!(stays.iter().zip(0..).all(|(stays, i)| *stays == (i >= pruned)), "{stays:?}");
        }
    }
}

/// Every step of descent on the slope's sign has the same length; a bound cuts what is longer.
#[test]
fn slopes_are_bounded_or_signs_on_demand() {
    let steep = numbers(21).map(|g| 100.0 * g);
    let config = Spsa { num_samples: 5, ..Spsa::default() };
    let mut plain = config.clone().build::<f64>().unwrap();
    let mut clipped = Spsa { clip: 50.0, ..config.clone() }.build::<f64>().unwrap();
    let mut signs = Spsa { slope: Slope::Sign, ..config }.build::<f64>().unwrap();
    let mut model = pair(numbers(1));
    let loss = |m: &mut Pair| steep.iter().zip(flat(m)).map(|(g, x)| g * x).sum::<f64>();
    let slopes = plain.estimate(&mut model, loss).unwrap().report().coefficients.clone();
    assert!(slopes.iter().any(|c| c.abs() > 50.0) && slopes.iter().any(|c| c.abs() < 50.0));
    let estimate = clipped.estimate(&mut model, loss).unwrap();
    let expected: Vec<f64> = slopes.iter().map(|c| c.clamp(-50.0, 50.0)).collect();
    assert_eq!(estimate.report().coefficients, expected);
    let signed = signs.estimate(&mut model, loss).unwrap();
    let [mut a, mut b] = [[0.0; 6]; 2];
    estimate.fill(0, 0, &mut a);
    signed.fill(0, 0, &mut b);
    for i in 0..6 {
        let along = |weights: &[f64]| -> f64 {
            let direction = |query| {
                let purpose = Purpose::Direction;
                let stream = RngStream { step: 0, query, tensor: 0, purpose };
                let mut u = [0.0; 6];
                Philox::new(0).rademacher(&stream, 0, &mut u);
                u[i]
            };
            (0..).zip(weights).map(|(query, w)| w * direction(query) / 5.0).sum()
        };
        let sign: Vec<f64> = slopes.iter().map(|c| c.signum()).collect();
        assert!((a[i] - along(&expected)).abs() < 1e-9);
        assert!((b[i] - along(&sign)).abs() < 1e-15);
    }
}

#[test]
fn a_given_gradient_decides_what_is_probed() {
    let build = || {
        let config = Fogzo { beta_min: 0.5, total_steps: 1, num_samples: 2, ..Fogzo::default() };
        config.build::<f64>().unwrap()
    };
    let loss = |m: &mut Pair| Quadratic::new(12).loss(&flat(m));
    let mut estimator = build();
    let mut model = pair(numbers(13));
    let given: BTreeMap<String, Array2<f64>> =
        [("0".to_owned(), Array2::from_elem((3, 2), 2.0))].into();
    for step in 0..3 {
        let before = model.clone();
        let estimate = estimator
            .estimate(&mut model, &given, |m: &mut Pair| {
                assert_eq!(m.1, before.1);
                loss(m)
            })
            .unwrap();
        let found = materialize(&estimate).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["0"]);
        // the first step follows the gradient alone: all elements equal
        assert_eq!(found["0"].iter().all(|x| *x == found["0"][[0, 0]]), step == 0);
        assert_eq!(model, before);
    }
    // nothing given: at first nothing at all, later random directions
    let zero: BTreeMap<String, Array2<f64>> = [("0".to_owned(), Array2::zeros((3, 2)))].into();
    let mut estimator = build();
    let found = estimator.estimate(&mut model, &zero, loss).unwrap();
    assert_eq!(materialize(&found).unwrap()["0"], Array2::<f64>::zeros((3, 2)).into_dyn());
    drop(found);
    let found = estimator.estimate(&mut model, &zero, loss).unwrap();
    assert!(materialize(&found).unwrap()["0"].iter().all(|x| *x != 0.0 && x.is_finite()));
    drop(found);
    // what is wrong is said, and the step is not over
    let before = model.clone();
    let mut wrong = |name: &str, shape: (usize, usize), value: f64| {
        let given: BTreeMap<String, Array2<f64>> =
            [(name.to_owned(), Array2::from_elem(shape, value))].into();
        estimator.estimate(&mut model, &given, loss).unwrap_err()
    };
    assert!(matches!(wrong("x", (3, 2), 1.0), Error::UnknownGradient { name, .. } if name == "x"));
    assert!(matches!(wrong("0", (2, 3), 1.0), Error::ShapeMismatch { .. }));
    assert!(matches!(wrong("0", (3, 2), f64::NAN), Error::NonFinite { .. }));
    assert!(matches!(wrong("0", (3, 2), f64::INFINITY), Error::NonFinite { .. }));
    assert_eq!(estimator.inner().steps(), 2);
    for beta in [-0.1, 1.1, f64::NAN] {
        let error = estimator.inner().estimate_guided(beta, &mut model, &given, loss).unwrap_err();
        assert!(matches!(error, Error::InvalidHyperparameter { field: "beta", .. }), "{error}");
    }
    assert_eq!(model, before);
}
