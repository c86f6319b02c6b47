//! One sampler for some tensors and another for the rest; momentum that is computed again.

use crate::{noise, pair};
use eigenstep::gradient::with_loss;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    DirectionSampler, Directions, Estimator, FiniteDifference, Hizoo, Lozo, Random,
    ReplayedMomentum, Split, Spsa, SpsaEstimator,
};
use ndarray::{Array1, Array2};

type Model = (Array2<f64>, Array1<f64>);

fn start() -> Model {
    pair([1.0, -2.0, 0.5, 0.25, -0.75, 3.0, 1.5, -1.25])
}

fn loss(m: &mut Model) -> f64 {
    let all = m.0.iter().chain(&m.1).enumerate();
    all.map(|(i, x)| (1.0 + (i % 3) as f64) * x * x + noise(1, i) * x).sum()
}

/// The whole path of plain descent with an optional momentum.
fn path<S: DirectionSampler>(sampler: S, samples: usize, momentum: f64) -> Vec<Model> {
    let mut estimator: SpsaEstimator<f64, S> =
        Spsa { num_samples: samples, ..Spsa::with_sampler(sampler) }.build().unwrap();
    let mut opt = Sgd { lr: 1e-3, momentum, ..Sgd::default() }.build().unwrap();
    let mut model = start();
    (0..30)
        .map(|_| {
            let estimate = estimator.estimate(&mut model, loss).unwrap();
            opt.step(&mut model, &estimate).unwrap();
            model.clone()
        })
        .collect()
}

fn all(m: &Model) -> impl Iterator<Item = f64> {
    m.0.iter().chain(&m.1).copied()
}

fn farthest(a: &[Model], b: &[Model]) -> f64 {
    let gaps = a.iter().zip(b).flat_map(|(a, b)| all(a).zip(all(b)).map(|(a, b)| (a - b).abs()));
    gaps.fold(0.0, f64::max)
}

/// With nothing dropped, replayed momentum is momentum.
#[test]
fn replayed_momentum_is_that_of_the_optimizer() {
    for sampler in [Random::Rademacher, Random::Gaussian, Random::Sphere, Random::BlockSphere] {
        for samples in [1, 3] {
            let replayed = ReplayedMomentum { sampler, momentum: 0.8, floor: 1e-6 };
            let gap = farthest(&path(replayed, samples, 0.0), &path(sampler, samples, 0.8));
            assert!(gap < 1e-12, "{sampler:?}: {gap}");
        }
    }
    let none = ReplayedMomentum { momentum: 0.0, ..ReplayedMomentum::default() };
    assert_eq!(path(none, 1, 0.0), path(Random::Rademacher, 1, 0.0));
}

/// Of every step 8 bytes per tensor and direction are held, as long as its weight reaches the floor.
#[test]
fn steps_below_the_floor_are_forgotten() {
    for (momentum, floor, kept) in [(0.9, 1e-3, 66), (0.5, 0.25, 3), (0.0, 1e-3, 1)] {
        let sampler = ReplayedMomentum { momentum, floor, ..ReplayedMomentum::default() };
        let config = Spsa { num_samples: 2, ..Spsa::with_sampler(sampler) };
        let mut estimator = config.build::<f64>().unwrap();
        let mut model = start();
        for step in 1..80 {
            estimator.estimate(&mut model, loss).unwrap();
            let bytes = estimator.state_bytes();
            assert_eq!(bytes.slot("past"), 8 * 2 * 2 * kept.min(step), "{momentum}, {step}");
        }
    }
    let config = ReplayedMomentum { floor: 0.0, ..ReplayedMomentum::default() };
    let error = Spsa::with_sampler(config).build::<f64>().unwrap_err().to_string();
    assert_eq!(error, "ReplayedMomentum: `floor` must be in (0, 1], got 0");
}

/// A step in which a tensor takes no part adds nothing to its sum.
#[test]
fn absent_tensors_leave_no_past() {
    let sampler = ReplayedMomentum { momentum: 0.5, ..ReplayedMomentum::default() };
    let mut estimator = Spsa::with_sampler(sampler).build::<f64>().unwrap();
    let mut model = start();
    let mut sums = [0.0; 2];
    for (step, active) in [(0, Some(Select::name("0"))), (1, None)] {
        estimator.set_active(active);
        let estimate = estimator.estimate(&mut model, loss).unwrap();
        let slope = estimate.report().coefficients[0];
        estimate.fill(1, 0, &mut sums);
        assert_eq!(sums.map(f64::abs), [slope.abs() * f64::from(step); 2]);
    }
}

#[test]
fn two_equal_samplers_are_one() {
    for sampler in [Random::Rademacher, Random::Gaussian] {
        let split = Split::new(Select::name("1"), sampler, sampler);
        assert_eq!(path(split, 2, 0.0), path(sampler, 2, 0.0));
    }
}

/// What one direction adds to the estimate of a tensor, over the slope.
fn direction<S: DirectionSampler>(sampler: S, tensor: usize, numel: usize) -> Vec<f64> {
    let mut estimator = Spsa { seed: 5, ..Spsa::with_sampler(sampler) }.build::<f64>().unwrap();
    let mut model = start();
    let estimate = estimator.estimate(&mut model, loss).unwrap();
    let mut out = vec![0.0; numel];
    estimate.fill(tensor, 0, &mut out);
    out.iter().map(|x| x / estimate.report().coefficients[0]).collect()
}

#[track_caller]
fn close(a: &[f64], b: &[f64]) {
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12 * b.abs().max(1.0)), "{a:?} {b:?}");
}

/// Each tensor moves as its sampler alone would move it, and a sphere is that of the sampler's own tensors.
#[test]
fn every_tensor_follows_its_own_sampler() {
    let matrices = || Select::ndim(2..);
    let split = Split::new(matrices(), Lozo::default(), Random::Rademacher);
    close(&direction(split.clone(), 0, 6), &direction(Lozo::default(), 0, 6));
    close(&direction(split, 1, 2), &direction(Random::Rademacher, 1, 2));
    let split = Split::new(!matrices(), Random::Sphere, Random::Gaussian);
    let sphere = direction(split.clone(), 1, 2);
    // a = d, ‖u‖ = 1
    assert!((sphere.iter().map(|x| x * x).sum::<f64>().sqrt() - 2.0).abs() < 1e-12);
    close(&direction(split, 0, 6), &direction(Random::Gaussian, 0, 6));
    let three = Split::new(
        Select::name("0"),
        Random::BlockSphere,
        Split::new(Select::all(), Random::Gaussian, Random::Sphere),
    );
    close(&direction(three, 1, 2), &direction(Random::Gaussian, 1, 2));
}

#[test]
fn samplers_keep_state_for_their_own_tensors() {
    let sampler = Split::new(Select::ndim(1..2), Hizoo::default(), Random::Rademacher);
    let mut estimator = Spsa::with_sampler(sampler).build::<f64>().unwrap();
    estimator.estimate(&mut start(), loss).unwrap();
    // h, and what it was before the step
    assert_eq!(estimator.state_bytes().slot("hessian"), 2 * 8 * 2);
    assert_eq!(estimator.report().evaluations(), 3);
}

#[test]
fn a_selector_of_nothing_is_refused() {
    let sampler = Split::new(Select::name("bias"), Random::Gaussian, Random::Rademacher);
    let mut estimator = Spsa::with_sampler(sampler).build::<f64>().unwrap();
    let mut model = start();
    let error = estimator.estimate(&mut model, loss).unwrap_err();
    assert!(matches!(error, eigenstep::Error::EmptyGroup { .. }), "{error}");
    assert_eq!((model, estimator.steps()), (start(), 0));
}

/// The bound of both holds for each.
#[test]
fn bounds_are_those_of_both() {
    let directions =
        |sampler: Split<Random, Random>| Directions::<f64>::bound(&sampler.directions::<f64>());
    let select = Select::all;
    assert_eq!(directions(Split::new(select(), Random::Rademacher, Random::Gaussian)), Some(9.0));
    assert_eq!(directions(Split::new(select(), Random::ScaledSphere, Random::Gaussian)), None);
}

/// An estimate carries its loss: at the parameters if it was evaluated there, else the mean of the probes.
#[test]
fn a_polyak_step_on_an_estimate() {
    let least = |i: usize| -noise(1, i).powi(2) / (4.0 * (1.0 + (i % 3) as f64));
    let lower_bound: f64 = (0..8).map(least).sum();
    for difference in [FiniteDifference::Central, FiniteDifference::Forward] {
        let spsa = Spsa { num_samples: 4, difference, ..Spsa::default() };
        let build = || SpsMax { lr: 1e9, lower_bound, ..SpsMax::default() }.build().unwrap();
        let (mut estimator, mut opt, mut explicit) =
            (spsa.build::<f64>().unwrap(), build(), build());
        let (mut model, first) = (start(), loss(&mut start()));
        for step in 0..200 {
            let (before, mut copy) = (loss(&mut model), model.clone());
            let estimate = estimator.estimate(&mut model, loss).unwrap();
            let known = estimate.report().loss;
            match difference {
                FiniteDifference::Forward => assert_eq!(known, before),
                _ => assert!((known - before).abs() < 1e-4, "{known} near {before}"),
            }
            opt.step(&mut model, &estimate).unwrap();
            // the same with everything said
            let mut gradient = start();
            estimate.fill(0, 0, gradient.0.as_slice_mut().unwrap());
            estimate.fill(1, 0, gradient.1.as_slice_mut().unwrap());
            explicit.step(&mut copy, &with_loss(&gradient, known)).unwrap();
            assert_eq!(copy, model, "step {step}");
            let square: f64 = all(&gradient).map(|g| g * g).sum();
            let size = opt.group_state(0).unwrap().step_size;
            let expected = (known - lower_bound).max(0.0) / (0.5 * square + 1e-8);
            if expected > 0.0 {
                assert!((size - expected).abs() <= 1e-12 * expected, "{size}, not {expected}");
            }
        }
        let left = loss(&mut model) - lower_bound;
        assert!(left < 1e-3 * (first - lower_bound), "{left} is left");
    }
}
