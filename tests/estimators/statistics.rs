//! What estimates are on average, and how far they stray.

use crate::{D, Pair, Quadratic, dot, flat, numbers, pair};
use eigenstep::zeroth_order::{
    Coordinate, DirectionSampler, Estimate, Estimator, FiniteDifference, FitnessShaping, Fogzo,
    Guided, Hizoo, IntegerFormat, LayerScaled, LayerScales, Lozo, Noise, Philox, Purpose,
    QuantizedNormal, Random, RngStream, Spsa, StraightThrough, SubZero, UnitNoise,
};
use proptest::prelude::*;

const N: usize = 200_000;

fn elements(estimate: &Estimate<'_, f64>) -> [f64; D] {
    let mut all = [0.0; D];
    estimate.fill(0, 0, &mut all[..6]);
    estimate.fill(1, 0, &mut all[6..]);
    all
}

/// Sums over many estimates.
#[derive(Default)]
struct Moments {
    count: f64,
    sum: [f64; D],
    square: [f64; D],
}

impl Moments {
    fn add(&mut self, x: &[f64; D]) {
        self.count += 1.0;
        for (i, x) in x.iter().enumerate() {
            self.sum[i] += x;
            self.square[i] += x * x;
        }
    }

    fn mean(&self, i: usize) -> f64 {
        self.sum[i] / self.count
    }

    fn variance(&self, i: usize) -> f64 {
        self.square[i] / self.count - self.mean(i).powi(2)
    }

    fn total_variance(&self) -> f64 {
        (0..D).map(|i| self.variance(i)).sum()
    }

    /// Every mean is right to five times its own standard deviation.
    fn assert_mean(&self, what: &str, expected: &[f64; D]) {
        for (i, expected) in expected.iter().enumerate() {
            let (mean, sigma) = (self.mean(i), (self.variance(i) / self.count).sqrt());
            let error = (mean - expected).abs();
            assert!(error <= 5.0 * sigma, "{what}, {i}: {mean} ± {sigma}, expected {expected}");
        }
    }

    fn assert_total(&self, what: &str, expected: f64, tolerance: f64) {
        let total = self.total_variance();
        let error = (total / expected - 1.0).abs();
        assert!(error < tolerance, "{what}: total variance {total}, expected {expected}");
    }
}

/// Moments of estimates at `x`, every one from a step of its own.
fn moments<S: DirectionSampler>(
    config: Spsa<S>,
    x: [f64; D],
    loss: impl Fn(&[f64; D]) -> f64,
) -> Moments {
    many(N, config, x, loss)
}

/// The same of fewer, where only the mean is asked for.
fn means<S: DirectionSampler>(
    config: Spsa<S>,
    x: [f64; D],
    loss: impl Fn(&[f64; D]) -> f64,
) -> Moments {
    many(N / 8, config, x, loss)
}

fn many<S: DirectionSampler>(
    count: usize,
    config: Spsa<S>,
    x: [f64; D],
    loss: impl Fn(&[f64; D]) -> f64,
) -> Moments {
    let mut estimator = config.build::<f64>().unwrap();
    let (mut model, mut moments) = (pair(x), Moments::default());
    for _ in 0..count {
        let estimate = estimator.estimate(&mut model, |m: &mut Pair| loss(&flat(m))).unwrap();
        moments.add(&elements(&estimate));
    }
    assert_eq!(flat(&model), x);
    moments
}

fn direction(sampler: Random, step: u64, query: u32) -> [f64; D] {
    let mut u = [0.0; D];
    for (tensor, range) in [(0, 0..6), (1, 6..8)] {
        let stream = RngStream { step, query, tensor, purpose: Purpose::Direction };
        match sampler {
            Random::Rademacher => Philox::new(3).rademacher(&stream, 0, &mut u[range]),
            _ => Philox::new(3).normal(&stream, 0, &mut u[range]),
        }
    }
    u
}

/// With all samplers but those of unit spheres, the estimate along one direction is slope times direction.
#[test]
fn slopes_are_exact_on_linear_functions_and_central_ones_on_quadratics() {
    let quadratic = Quadratic::new(1);
    let (g, x) = (numbers(2), numbers(3));
    for sampler in [Random::Gaussian, Random::Rademacher] {
        for epsilon in [1e-4, 1e-2, 1.0, 100.0] {
            for difference in [FiniteDifference::Central, FiniteDifference::Forward] {
                let config = Spsa {
                    epsilon,
                    difference,
                    num_samples: 3,
                    seed: 3,
                    ..Spsa::with_sampler(sampler)
                };
                let mut estimator = config.clone().build::<f64>().unwrap();
                let mut bowl = config.build::<f64>().unwrap();
                for step in 0..20 {
                    let mut model = pair(x);
                    let mut largest = 0.0f64;
                    let estimate = estimator.estimate(&mut model, |m: &mut Pair| {
                        let loss = dot(&g, &flat(m)) + 0.7;
                        largest = largest.max(loss.abs()).max(1.0);
                        loss
                    });
                    let slopes = estimate.unwrap().report().coefficients.clone();
                    for (query, slope) in (0..).zip(slopes) {
                        let expected = dot(&direction(sampler, step, query), &g);
                        let bound = 8.0 * f64::EPSILON * 2.0 * largest / epsilon;
                        assert!((slope - expected).abs() <= bound, "{slope} and {expected}");
                    }
                    if difference == FiniteDifference::Forward {
                        continue;
                    }
                    let mut largest = 0.0f64;
                    let estimate = bowl.estimate(&mut model, |m: &mut Pair| {
                        let loss = quadratic.loss(&flat(m));
                        largest = largest.max(loss.abs()).max(1.0);
                        loss
                    });
                    let slopes = estimate.unwrap().report().coefficients.clone();
                    for (query, slope) in (0..).zip(slopes) {
                        let expected =
                            dot(&direction(sampler, step, query), &quadratic.gradient(&x));
                        let bound = 32.0 * f64::EPSILON * largest / epsilon;
                        assert!((slope - expected).abs() <= bound, "{slope} and {expected}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Forward differences are off by `(ε/2)·H_jj`, central ones by nothing on quadratics; on cubic
    /// functions by what Taylor's formula says.
    #[test]
    fn coordinates_have_the_bias_of_taylors_formula(
        seed in 0u64..1000, epsilon in 1e-3f64..1.0, cubic in -1.0f64..1.0,
    ) {
        let (quadratic, x) = (Quadratic::new(seed), numbers(seed + 5000));
        let loss = |x: &[f64; D]| {
            quadratic.loss(x) + x.iter().map(|x| cubic * x * x * x).sum::<f64>()
        };
        let g = quadratic.gradient(&x);
        for difference in [FiniteDifference::Forward, FiniteDifference::Central] {
            let config = Coordinate { epsilon, difference, ..Coordinate::default() };
            let mut estimator = config.build::<f64>().unwrap();
            let mut model = pair(x);
            let estimate = estimator.estimate(&mut model, |m: &mut Pair| loss(&flat(m))).unwrap();
            let evaluations = if difference == FiniteDifference::Forward { D + 1 } else { 2 * D };
            prop_assert_eq!(estimate.report().evaluations(), evaluations);
            for (j, found) in elements(&estimate).into_iter().enumerate() {
                let gradient = g[j] + 3.0 * cubic * x[j] * x[j];
                let bias = match difference {
                    FiniteDifference::Forward => {
                        epsilon / 2.0 * (quadratic.h[j][j] + 6.0 * cubic * x[j])
                            + cubic * epsilon * epsilon
                    }
                    FiniteDifference::Central => cubic * epsilon * epsilon,
                };
                let bound = 1e-13 / epsilon;
                prop_assert!((found - gradient - bias).abs() < bound, "{found} for {gradient} + {bias}");
            }
        }
    }
}

#[test]
fn plain_laws_have_the_mean_and_the_variance_of_theory() {
    let (g, x) = (numbers(11), numbers(12));
    let size = dot(&g, &g);
    let d = D as f64;
    for (sampler, total) in [
        (Random::Gaussian, (d + 1.0) * size),
        (Random::Rademacher, (d - 1.0) * size),
        (Random::Sphere, (d - 1.0) * size),
        (Random::ScaledSphere, (d - 1.0) * size),
    ] {
        let found = moments(Spsa { seed: 7, ..Spsa::with_sampler(sampler) }, x, |x| dot(&g, x));
        let what = format!("{sampler:?}");
        found.assert_mean(&what, &g);
        found.assert_total(&what, total, 0.05);
        for (i, g) in g.iter().enumerate() {
            let expected = match sampler {
                Random::Gaussian => size + g * g,
                Random::Rademacher => size - g * g,
                _ => d / (d + 2.0) * (size + 2.0 * g * g) - g * g,
            };
            let error = (found.variance(i) / expected - 1.0).abs();
            assert!(error < 0.05, "{sampler:?}, {i}: {} and {expected}", found.variance(i));
        }
    }
    // with several queries, the variance is divided by their number
    let config = Spsa { num_samples: 4, ..Spsa::with_sampler(Random::Gaussian) };
    let found = many(N / 4, config, x, |x| dot(&g, x));
    found.assert_mean("four queries", &g);
    found.assert_total("four queries", (d + 1.0) * size / 4.0, 0.05);
}

#[test]
fn samplers_with_structure_are_unbiased() {
    let (g, x) = (numbers(21), numbers(22));
    let loss = |x: &[f64; D]| dot(&g, x);
    means(Spsa::with_sampler(Random::BlockSphere), x, loss).assert_mean("block spheres", &g);
    let format = IntegerFormat { bits: 4, full: false };
    let sampler = QuantizedNormal { format };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("four bits", &g);
    // a coarse grid: with one rounding in both places this would be off by far more
    let sampler = QuantizedNormal { format: IntegerFormat { bits: 2, full: false } };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("two bits", &g);
    let sampler = Lozo { rank: 1, interval: 1, ..Lozo::default() };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("low rank", &g);
    let sampler = SubZero { rank: 1, interval: 1, rescale: true };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("subspaces", &g);
    let scales = LayerScales::Given([("0".to_owned(), 4.0), ("1".to_owned(), 0.3)].into());
    for scales in [LayerScales::ParameterNorm, scales] {
        let sampler = LayerScaled { sampler: Random::Gaussian, scales, unbiased: true };
        means(Spsa::with_sampler(sampler), x, loss).assert_mean("scaled layers", &g);
    }
}

#[test]
fn biased_variants_have_the_mean_that_they_say() {
    let (g, x) = (numbers(23), numbers(24));
    let loss = |x: &[f64; D]| dot(&g, x);
    let scaled = |matrix: f64, vector: f64| -> [f64; D] {
        std::array::from_fn(|i| g[i] * if i < 6 { matrix } else { vector })
    };
    // 6 elements of rank 1, dimension 2 · 3: not divided by the rank it is r times as large
    let sampler = Lozo { rank: 1, interval: 1, scale_by_rank: false, ..Lozo::default() };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("rank 1", &g);
    let sampler = SubZero { rank: 1, interval: 1, rescale: false };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("r²/(mn)", &scaled(1.0 / 6.0, 1.0));
    let scales = LayerScales::Given([("0".to_owned(), 4.0), ("1".to_owned(), 0.5)].into());
    let sampler = LayerScaled { sampler: Random::Rademacher, scales, unbiased: false };
    means(Spsa::with_sampler(sampler), x, loss).assert_mean("g/c", &scaled(0.25, 2.0));
}

#[test]
fn one_sided_slopes_add_the_variance_of_curvature() {
    let quadratic = Quadratic::new(4);
    let x = numbers(31);
    let g = quadratic.gradient(&x);
    let (d, size) = (D as f64, dot(&g, &g));
    let (trace, square) = (quadratic.trace(), quadratic.square());
    let diagonal: f64 = (0..D).map(|i| quadratic.h[i][i].powi(2)).sum();
    // so large that curvature counts
    let epsilon = 0.5;
    let quarter = epsilon * epsilon / 4.0;
    for (sampler, total, tolerance) in [
        (
            Random::Gaussian,
            (d + 1.0) * size + quarter * (d + 4.0) * (2.0 * square + trace * trace),
            0.08,
        ),
        (
            Random::Rademacher,
            (d - 1.0) * size + quarter * d * (trace * trace + 2.0 * (square - diagonal)),
            0.05,
        ),
        (
            Random::Sphere,
            (d - 1.0) * size + quarter * d * d * (2.0 * square + trace * trace) / (d * (d + 2.0)),
            0.05,
        ),
    ] {
        let config =
            Spsa { epsilon, difference: FiniteDifference::Forward, ..Spsa::with_sampler(sampler) };
        let found = moments(config, x, |x| quadratic.loss(x));
        found.assert_mean(&format!("{sampler:?}"), &g);
        found.assert_total(&format!("{sampler:?}"), total, tolerance);
    }
}

#[test]
fn a_guided_estimate_is_a_mixture_on_average() {
    let quadratic = Quadratic::new(6);
    let (x, given) = (numbers(41), numbers(42));
    let g = quadratic.gradient(&x);
    let unit = given.map(|x| x / dot(&given, &given).sqrt());
    for beta in [0.0, 0.3, 1.0] {
        for noise in [UnitNoise::Normal, UnitNoise::Matched(StraightThrough::Tanh)] {
            let config = Spsa { epsilon: 0.5, ..Spsa::with_sampler(Guided { beta, noise }) };
            let mut estimator = config.build::<f64>().unwrap();
            let (mut model, mut moments) = (pair(x), Moments::default());
            for _ in 0..N / 8 {
                let estimate = estimator
                    .estimate_guided(beta, &mut model, &pair(given), |m: &mut Pair| {
                        quadratic.loss(&flat(m))
                    })
                    .unwrap();
                moments.add(&elements(&estimate));
            }
            let along = dot(&unit, &g);
            let expected: [f64; D] =
                std::array::from_fn(|i| beta * unit[i] * along + (1.0 - beta) * g[i]);
            if beta < 1.0 {
                moments.assert_mean(&format!("{beta}, {noise:?}"), &expected);
            } else {
                // nothing is random but a sign that cancels
                let error = |i: usize| (moments.mean(i) - expected[i]).abs();
                assert!((0..D).all(|i| error(i) < 1e-12), "{expected:?}");
            }
        }
    }
    // the schedule: 1 at first, `beta_min` at the end and after it
    let config = Fogzo { beta_min: 0.5, total_steps: 10, ..Fogzo::default() };
    assert_eq!([0, 5, 10, 99].map(|step| config.beta(step)), [1.0, 0.75, 0.5, 0.5]);
}

fn shaped(shaping: FitnessShaping, map: impl Fn(f64) -> f64) -> [f64; D] {
    let quadratic = Quadratic::new(8);
    let config = Spsa { shaping, seed: 3, ..Spsa::evolution(16, 0.3) };
    let mut estimator = config.build::<f64>().unwrap();
    let mut model = pair(numbers(51));
    let loss = |m: &mut Pair| map(quadratic.loss(&flat(m)));
    elements(&estimator.estimate(&mut model, loss).unwrap())
}

#[test]
fn evolution_strategies_follow_their_formula() {
    let quadratic = Quadratic::new(8);
    let (n, sigma, x) = (16, 0.3, numbers(51));
    let mut expected = [0.0; D];
    for query in 0..n {
        let u = direction(Random::Gaussian, 0, query);
        let at = |s: f64| quadratic.loss(&std::array::from_fn(|i| x[i] + s * sigma * u[i]));
        let weight = (at(1.0) - at(-1.0)) / (2.0 * f64::from(n) * sigma);
        expected.iter_mut().zip(&u).for_each(|(x, u)| *x += weight * u);
    }
    let found = shaped(FitnessShaping::None, |loss| loss);
    assert!((0..D).all(|i| (found[i] - expected[i]).abs() < 1e-12), "{found:?}, {expected:?}");
    // they are central differences, bit for bit
    let config = Spsa {
        epsilon: sigma,
        num_samples: n as usize,
        seed: 3,
        ..Spsa::with_sampler(Random::Gaussian)
    };
    let mut plain = config.build::<f64>().unwrap();
    let estimate = plain.estimate(&mut pair(x), |m: &mut Pair| quadratic.loss(&flat(m))).unwrap();
    assert_eq!(elements(&estimate), found);
}

#[test]
fn ranks_know_nothing_but_the_order() {
    for shaping in [FitnessShaping::CenteredRank, FitnessShaping::NesUtility] {
        let plain = shaped(shaping, |loss| loss);
        assert!(plain.iter().all(|x| *x != 0.0));
        let maps: [&dyn Fn(f64) -> f64; 4] =
            [&|f| 1e6 * f - 3.0, &|f| f.exp(), &|f| f.atan(), &|f| f * f * f + 1e-3 * f];
        for map in maps {
            assert_eq!(shaped(shaping, map).map(f64::to_bits), plain.map(f64::to_bits));
        }
        assert_eq!(shaped(shaping, |_| 0.1), [0.0; D]);
        // equal losses share their weight, whatever their order
        let mut weights = [2.0, 1.0, 2.0, 0.0];
        shaping.apply(&mut weights);
        assert_eq!(weights[0], weights[2]);
        assert!(weights.iter().sum::<f64>().abs() < 1e-15);
    }
}

/// h of both tensors, from the state dict.
fn hessian<E: Estimator<f64>>(estimator: &E) -> [f64; D] {
    let dict = estimator.state_dict();
    let bytes = ["law.hessian.0", "law.hessian.1"].map(|key| dict.tensors[key].bytes.clone());
    let all = bytes.concat();
    let all: Vec<f64> = all.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect();
    all.try_into().unwrap()
}

#[test]
fn curvature_is_estimated_with_the_known_bias_or_with_none() {
    let quadratic = Quadratic::new(9);
    let alpha = 1e-3;
    for centered in [false, true] {
        let sampler = Hizoo { alpha, centered };
        let config = Spsa { epsilon: 0.1, ..Spsa::with_sampler(sampler) };
        let mut moments = Moments::default();
        for step in 0..20_000 {
            let mut estimator = config.clone().build::<f64>().unwrap();
            estimator.set_step(step).unwrap();
            let mut model = pair(numbers(61));
            let loss = |m: &mut Pair| quadratic.loss(&flat(m));
            estimator.estimate(&mut model, loss).unwrap();
            moments.add(&hessian(&estimator).map(|h| (h - (1.0 - alpha)) / alpha));
        }
        let bias = if centered { 0.0 } else { quadratic.trace() / 2.0 };
        let expected = std::array::from_fn(|i| quadratic.h[i][i] + bias);
        moments.assert_mean(&format!("centered: {centered}"), &expected);
    }
}

#[test]
fn without_curvature_it_is_the_plain_method() {
    let quadratic = Quadratic::new(9);
    let sampler = Hizoo { alpha: 0.0, centered: false };
    let mut scaled = Spsa::with_sampler(sampler).build::<f64>().unwrap();
    let mut plain = Spsa::with_sampler(Random::Gaussian).build::<f64>().unwrap();
    let mut model = pair(numbers(71));
    for _ in 0..20 {
        let loss = |m: &mut Pair| quadratic.loss(&flat(m));
        let expected = elements(&plain.estimate(&mut model, loss).unwrap());
        let estimate = scaled.estimate(&mut model, loss).unwrap();
        assert_eq!(estimate.report().evaluations(), 3);
        assert_eq!(elements(&estimate).map(f64::to_bits), expected.map(f64::to_bits));
    }
}
