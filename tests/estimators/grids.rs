//! Weights on a grid, trained by losses.

use crate::noise;
use eigenstep::Error;
use eigenstep::zeroth_order::{
    Estimator, Format, Fp8, IntegerFormat, Noise, Philox, Purpose, Quzo, QuzoOptimizer, RngStream,
};
use ndarray::{Array1, Array2};

/// How far `w` is from a multiple of the scale, or from a number of the format.
fn assert_on_grid(format: Format, scale: f64, w: impl IntoIterator<Item = f64>) {
    let (low, high) = format.range();
    for x in w {
        assert_eq!(format.nearest(x, scale), x, "{x} on the grid of {scale}");
        let slack = 1.0 + 1e-12;
        assert!(x / scale >= low * slack && x / scale <= high * slack, "{x} in range of {scale}");
    }
}

/// Least squares: `‖Xw − y‖²/n` with a solution in the range of the weights.
struct LeastSquares {
    x: Array2<f64>,
    y: Array1<f64>,
}

impl LeastSquares {
    fn new(d: usize) -> Self {
        let x = Array2::from_shape_fn((3 * d, d), |(i, j)| noise(3, d * i + j));
        let solution = Array1::from_shape_fn(d, |j| 0.9 * noise(4, j));
        let y = x.dot(&solution);
        Self { x, y }
    }

    fn loss(&self, w: &Array1<f64>) -> f64 {
        let r = self.x.dot(w) - &self.y;
        r.dot(&r) / self.y.len() as f64
    }
}

#[test]
fn weights_stay_on_the_grid_and_in_its_range() {
    let problem = LeastSquares::new(10);
    let int3 = Format::Int(IntegerFormat { bits: 3, full: true });
    for weights in [Format::INT2, int3, Format::INT4, Format::INT8, Format::E4M3, Format::E5M2] {
        for round_each_query in [false, true] {
            let config = Quzo {
                // so large that weights run into the end
                lr: 0.2,
                epsilon: 0.1,
                num_samples: 2,
                weights,
                round_each_query,
                ..Quzo::default()
            };
            let mut opt = config.build::<f64>().unwrap();
            let mut w = Array1::from_shape_fn(10, |j| noise(5, j));
            opt.quantize(&mut w).unwrap();
            let scale = opt.scales()["param"];
            let (mut saturated, mut moved) = (0, 0);
            for _ in 0..100 {
                let before = w.clone();
                let report = opt.step(&mut w, |w: &mut Array1<f64>| problem.loss(w)).unwrap();
                saturated += report.saturated;
                moved += usize::from(w != before);
                assert_on_grid(weights, scale, w.iter().copied());
            }
            assert!(moved > 10, "{weights:?}: {moved}");
            if matches!(weights, Format::Int(_)) {
                assert!(saturated > 0, "{weights:?}");
            }
        }
    }
}

/// Philox, with other uniform numbers for the update: every half of the time the nearest.
#[derive(Debug)]
struct Nearest;

impl Noise<f64> for Nearest {
    fn normal(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        Philox::new(0).normal(stream, offset, out);
    }
    fn rademacher(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        Philox::new(0).rademacher(stream, offset, out);
    }
    fn uniform(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        match stream.purpose {
            Purpose::UpdateRounding => out.fill(0.5),
            _ => Noise::<f64>::uniform(&Philox::new(0), stream, offset, out),
        }
    }
}

#[test]
fn steps_below_the_spacing_count_on_average_and_would_be_lost_when_rounded() {
    for (weights, start, scale) in [(Format::INT4, 2.0, 1.0), (Format::E4M3, 1.5, 1.0)] {
        let d = 4;
        let config = Quzo { lr: 0.02, epsilon: 0.5, weights, ..Quzo::default() };
        let build = |seed| {
            let opt = Quzo { seed, ..config.clone() }.build::<f64>().unwrap();
            opt.with_scales([("param".to_owned(), scale)].into()).unwrap()
        };
        let g = Array1::from(vec![1.0, -0.5, 0.25, 0.8]);
        let n = 40_000;
        let mut opt = build(1);
        let (mut sum, mut square) = (vec![0.0; d], vec![0.0; d]);
        let mut spaced = 0;
        for _ in 0..n {
            let mut w = Array1::from_elem(d, start);
            opt.step(&mut w, |w: &mut Array1<f64>| w.dot(&g)).unwrap();
            for (j, x) in w.iter().enumerate() {
                let step = start - x;
                spaced += usize::from(step != 0.0);
                sum[j] += step;
                square[j] += step * step;
            }
        }
        // most steps do nothing
        assert!(spaced < n * d / 3, "{spaced}");
        for j in 0..d {
            let mean = sum[j] / n as f64;
            let sigma = ((square[j] / n as f64 - mean * mean) / n as f64).sqrt();
            let expected = 0.02 * g[j];
            assert!((mean - expected).abs() < 5.0 * sigma, "{j}: {mean} ± {sigma}, {expected}");
        }
        // rounded to the nearest nothing would ever happen
        let mut opt = build(1).with_noise(Nearest);
        let mut w = Array1::from_elem(d, start);
        for _ in 0..100 {
            let tiny = Array1::from_elem(d, 0.1);
            opt.step(&mut w, |w: &mut Array1<f64>| w.dot(&tiny)).unwrap();
        }
        assert_eq!(w, Array1::from_elem(d, start), "{weights:?}");
    }
}

#[test]
fn four_bits_solve_least_squares() {
    let problem = LeastSquares::new(8);
    let mut w = Array1::from_elem(8, 1.0);
    let config =
        Quzo { lr: 0.01, epsilon: 0.1, num_samples: 4, weights: Format::INT4, ..Quzo::default() };
    let mut opt = config.build::<f64>().unwrap();
    opt.quantize(&mut w).unwrap();
    let start = problem.loss(&w);
    let mut averages = Vec::new();
    for _ in 0..4 {
        let mut total = 0.0;
        for _ in 0..150 {
            opt.step(&mut w, |w: &mut Array1<f64>| problem.loss(w)).unwrap();
            total += problem.loss(&w) / 150.0;
        }
        averages.push(total);
    }
    // down to the noise of a grid of spacing 1/7
    assert!(averages[0] < start && averages[3] < averages[0], "{start}: {averages:?}");
    assert!(averages[3] < 0.05 * start, "{start}: {averages:?}");
}

#[test]
fn a_run_goes_on_from_scales_and_state() {
    let problem = LeastSquares::new(8);
    let config = Quzo { lr: 0.01, epsilon: 0.1, weights: Format::INT4, ..Quzo::default() };
    let mut opt = config.clone().build::<f64>().unwrap();
    let mut w = Array1::from_elem(8, 1.0);
    opt.quantize(&mut w).unwrap();
    let run = |opt: &mut QuzoOptimizer<f64>, w: &mut Array1<f64>| {
        for _ in 0..10 {
            opt.step(w, |w: &mut Array1<f64>| problem.loss(w)).unwrap();
        }
    };
    run(&mut opt, &mut w);
    let mut resumed = config.build::<f64>().unwrap().with_scales(opt.scales().clone()).unwrap();
    resumed.estimator().load_state_dict(&opt.estimator().state_dict()).unwrap();
    let mut again = w.clone();
    run(&mut opt, &mut w);
    run(&mut resumed, &mut again);
    assert_eq!(w, again);
}

#[test]
fn weights_are_quantized_first_and_scales_are_checked() {
    let mut w = Array1::from(vec![0.5f32, -1.0]);
    let loss = |w: &mut Array1<f32>| f64::from(w.sum());
    let mut opt = Quzo::default().build::<f32>().unwrap();
    assert!(matches!(opt.step(&mut w, loss), Err(Error::OutOfOrder { .. })));
    assert_eq!(opt.estimator().config().num_samples, 1);
    // the step is not over
    assert_eq!(opt.estimator().steps(), 0);
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let opt = Quzo::default().build::<f32>().unwrap();
        let refused = opt.with_scales([("param".to_owned(), scale)].into());
        assert!(matches!(refused, Err(Error::InvalidHyperparameter { field: "scales", .. })));
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let mut w = Array1::from(vec![0.3, bad]);
        assert!(matches!(opt.quantize(&mut w), Err(Error::NonFinite { .. })));
        assert_eq!(w[0], 0.3);
    }
    opt.quantize(&mut w).unwrap();
    let before = w.clone();
    assert!(matches!(opt.step(&mut w, |_: &mut _| f64::NAN), Err(Error::NonFiniteLoss(_))));
    assert_eq!(w, before);
    opt.step(&mut w, loss).unwrap();
    // a tensor of zeros has no grid, and rests
    let mut zeros = Array1::<f32>::zeros(3);
    let mut opt = Quzo { lr: 1.0, ..Quzo::default() }.build::<f32>().unwrap();
    opt.quantize(&mut zeros).unwrap();
    opt.step(&mut zeros, loss).unwrap();
    assert_eq!(zeros, Array1::<f32>::zeros(3));
    assert_eq!(Format::E4M3.fp8(), Some(Fp8::E4M3));
}
