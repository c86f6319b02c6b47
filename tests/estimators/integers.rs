//! Integer weights, trained by integer perturbations.

use crate::noise;
use crate::threads::on_threads;
use eigenstep::Error;
use eigenstep::prelude::NonFinite;
use eigenstep::zeroth_order::{
    IntTensor, IntegerFormat, IntegerQuzo, IntegerQuzoOptimizer, Random,
};
use ndarray::Array1;
use std::panic::{AssertUnwindSafe, catch_unwind};

const INT4: IntegerFormat = IntegerFormat { bits: 4, full: false };

fn tensor(codes: &[i8]) -> Vec<IntTensor> {
    vec![IntTensor::new(&[codes.len()], 0.5, codes.to_vec()).unwrap()]
}

fn build(config: IntegerQuzo) -> IntegerQuzoOptimizer {
    config.build().unwrap()
}

fn sum_of_squares(tensors: &[IntTensor]) -> f64 {
    tensors.iter().flat_map(|t| t.codes()).map(|&code| f64::from(code).powi(2)).sum()
}

#[test]
fn probes_lie_on_both_sides_and_are_taken_back() {
    for (sampler, sigma) in
        [(Random::Rademacher, 1.0), (Random::Rademacher, 0.3), (Random::Gaussian, 2.5)]
    {
        let config =
            IntegerQuzo { lr: 0.0, sigma, sampler, num_samples: 3, ..IntegerQuzo::default() };
        let mut opt = build(config);
        let mut model = vec![tensor(&[0, 100, -100, 7, 1]).remove(0), tensor(&[3; 21]).remove(0)];
        let start = model.clone();
        let mut seen = Vec::new();
        opt.step(&mut model, |t| {
            seen.push(t.to_vec());
            0.0
        })
        .unwrap();
        assert_eq!((&model, seen.len(), opt.steps()), (&start, 6, 1));
        let codes = |t: &[IntTensor]| -> Vec<i32> {
            t.iter().flat_map(|t| t.codes()).map(|&code| i32::from(code)).collect()
        };
        let middle = codes(&start);
        let mut moved = 0;
        for pair in seen.chunks(2) {
            let (plus, minus) = (codes(&pair[0]), codes(&pair[1]));
            for ((plus, minus), at) in plus.iter().zip(&minus).zip(&middle) {
                assert_eq!(plus - at, at - minus);
                moved += usize::from(plus != at);
                assert!(sampler == Random::Gaussian || (plus - at).abs() <= 1);
            }
        }
        assert!(moved > 10 && (sigma != 1.0 || moved == 3 * middle.len()), "{moved}");
    }
}

#[test]
fn codes_come_back_when_the_closure_fails_or_panics() {
    let start = tensor(&[1, -6, 6, 0, 2]);
    for fails_at in 0..4 {
        let mut opt =
            build(IntegerQuzo { lr: 1.0, num_samples: 2, format: INT4, ..IntegerQuzo::default() });
        let mut model = start.clone();
        let mut calls = 0;
        let mut at = || {
            calls += 1;
            calls == fails_at + 1
        };
        let failed = opt.step(&mut model, |_| if at() { Err("no".to_owned()) } else { Ok(1.0) });
        assert!(matches!(failed, Err(Error::Closure(_))));
        assert_eq!((&model, opt.steps()), (&start, 0));
        calls = 0;
        let mut at = || {
            calls += 1;
            calls == fails_at + 1
        };
        let step = AssertUnwindSafe(|| {
            opt.step(&mut model, |_| if at() { panic!("on purpose") } else { 1.0 }).map(|_| ())
        });
        assert!(catch_unwind(step).is_err());
        assert_eq!((&model, opt.steps()), (&start, 0));
        calls = 0;
        let mut at = || {
            calls += 1;
            calls == fails_at + 1
        };
        let failed = opt.step(&mut model, |_| if at() { f64::NAN } else { 1.0 });
        assert!(matches!(failed, Err(Error::NonFiniteLoss(_))));
        assert_eq!((&model, opt.steps()), (&start, 0));
        // and then it goes on
        opt.step(&mut model, sum_of_squares).unwrap();
        assert_eq!(opt.steps(), 1);
    }
}

/// On a linear function the mean change is that of the gradient, within 5 standard errors: for signs and
/// normal numbers, and whatever the rounding.
#[test]
fn changes_are_right_on_average() {
    let gradient = [1.0, -2.0, 0.5, 0.0];
    for (sampler, sigma) in
        [(Random::Rademacher, 1.0), (Random::Rademacher, 0.4), (Random::Gaussian, 0.7)]
    {
        let (count, lr) = (20_000, 0.01);
        let (mut sums, mut squares) = ([0.0; 4], [0.0; 4]);
        for seed in 0..count {
            let mut opt = build(IntegerQuzo { lr, sigma, sampler, seed, ..IntegerQuzo::default() });
            // the last one stays: it lies at the end of the range
            let mut model = tensor(&[0, 40, -40, 3, 127]);
            let loss = |t: &[IntTensor]| -> f64 {
                let codes = t[0].codes().iter();
                codes.zip(&gradient).map(|(&code, g)| 0.5 * f64::from(code) * g).sum()
            };
            opt.step(&mut model, loss).unwrap();
            for (i, (&code, start)) in model[0].codes().iter().zip([0, 40, -40, 3]).enumerate() {
                let change = f64::from(code) - f64::from(start);
                sums[i] += change;
                squares[i] += change * change;
            }
            assert_eq!(model[0].codes()[4], 127);
        }
        for ((sum, square), g) in sums.iter().zip(squares).zip(gradient) {
            let (mean, square) = (sum / count as f64, square / count as f64);
            let error = ((square - mean * mean) / count as f64).sqrt();
            // in codes: the gradient by weight over the scale
            let expected = -lr * g / 0.5;
            assert!(
                (mean - expected).abs() < 5.0 * error,
                "{sampler:?}: {mean}, {expected} ± {error}"
            );
        }
    }
}

/// Weights in the range of the format, but too near to its end, neither move nor are they probed.
#[test]
fn weights_near_the_end_stay() {
    let mut opt = build(IntegerQuzo { lr: 5.0, format: INT4, ..IntegerQuzo::default() });
    let mut model = tensor(&[7, -7, 6, -6, 0, 1, 2, 3, 7]);
    for _ in 0..50 {
        opt.step(&mut model, |t| {
            let codes = t[0].codes();
            assert_eq!([codes[0], codes[1], codes[8]], [7, -7, 7]);
            assert!(codes.iter().all(|code| code.abs() <= 7));
            sum_of_squares(t)
        })
        .unwrap();
        assert!(model[0].codes()[2..8].iter().all(|code| code.abs() <= 6));
    }
    assert_ne!(model[0].codes()[2..8], [6, -6, 0, 1, 2, 3]);
}

/// Steps far below one code train, where rounding to the nearest would change nothing.
#[test]
fn small_steps_train_four_bits() {
    let config = IntegerQuzo { lr: 0.004, num_samples: 4, format: INT4, ..IntegerQuzo::default() };
    let d = 12;
    let start = Array1::from_shape_fn(d, |j| noise(5, j));
    let target = Array1::from_shape_fn(d, |j| 0.8 * noise(6, j));
    let mut model = vec![config.quantize(start.view()).unwrap()];
    let loss = |t: &[IntTensor]| {
        let w = t[0].dequantize::<f64>();
        w.iter().zip(&target).map(|(w, y)| (w - y).powi(2)).sum::<f64>()
    };
    let (before, mut opt) = (loss(&model), build(config));
    for _ in 0..2000 {
        opt.step(&mut model, loss).unwrap();
    }
    let after = loss(&model);
    // the nearest codes are a twelfth of the scale's square away, each
    let floor = d as f64 * model[0].scale().powi(2) / 12.0;
    assert!(after < before / 4.0 && after < 6.0 * floor, "{before} {after} {floor}");
}

#[test]
fn a_run_goes_on_bit_for_bit_on_any_number_of_threads() {
    let config = IntegerQuzo { lr: 1e-3, num_samples: 2, seed: 9, ..IntegerQuzo::default() };
    let start =
        || vec![config.quantize(Array1::from_shape_fn(70_001, |j| noise(7, j)).view()).unwrap()];
    let run = |threads: usize, stop: usize| {
        on_threads(threads, || {
            let (mut opt, mut model) = (build(config.clone()), start());
            for step in 0..4 {
                if step == stop {
                    let dict = opt.state_dict();
                    opt = build(IntegerQuzo { seed: 1, ..config.clone() });
                    opt.load_state_dict(&dict).unwrap();
                }
                opt.step(&mut model, |t| sum_of_squares(t) * 1e-4).unwrap();
            }
            model
        })
    };
    let whole = run(1, 9);
    assert_ne!(whole, start());
    assert_eq!(run(2, 9), whole);
    assert_eq!(run(3, 2), whole);
    let mut opt = build(config);
    let mut dict = opt.state_dict();
    // files from before the type had its name of today
    assert_eq!(dict.optimizer, "QuzoLattice");
    dict.scalars.insert("estimator.more".into(), eigenstep::state::Scalar::Int(1));
    assert!(matches!(opt.load_state_dict(&dict), Err(Error::StateDict { .. })));
}

#[test]
fn skipped_losses_do_not_count() {
    let config = IntegerQuzo {
        lr: 1.0,
        num_samples: 2,
        non_finite: NonFinite::Skip,
        ..IntegerQuzo::default()
    };
    let mut opt = build(config);
    let mut model = tensor(&[1, 2, 3]);
    let report = opt.step(&mut model, |_| f64::NAN).unwrap();
    assert!(report.report.skipped);
    assert_eq!((&model, opt.steps()), (&tensor(&[1, 2, 3]), 1));
    let mut calls = 0;
    let report = opt.step(&mut model, |t| {
        calls += 1;
        if calls == 1 { f64::INFINITY } else { sum_of_squares(t) }
    });
    let report = report.unwrap().report;
    assert_eq!(report.coefficients[0], 0.0);
    assert!(report.coefficients[1] != 0.0 && !report.skipped);
}

#[test]
fn what_cannot_be_is_named() {
    let text = |config: IntegerQuzo| config.build().unwrap_err().to_string();
    let base = IntegerQuzo::default;
    assert_eq!(
        text(IntegerQuzo { sigma: 126.5, ..base() }),
        "IntegerQuzo: `sigma` must be smaller: probes leave the format's range, got 126.5"
    );
    assert!(build(IntegerQuzo { sigma: 126.0, ..base() }).steps() == 0);
    let gauss = IntegerQuzo { sampler: Random::Gaussian, format: INT4, ..base() };
    assert!(text(gauss).starts_with("IntegerQuzo: `sigma`"));
    let sphere = IntegerQuzo { sampler: Random::Sphere, ..base() };
    assert!(text(sphere).starts_with("IntegerQuzo: `sampler` must be Rademacher or Gaussian"));
    let propagate = IntegerQuzo { non_finite: NonFinite::Propagate, ..base() };
    assert!(text(propagate).starts_with("IntegerQuzo: `non_finite`"));
    for (field, config) in [
        ("lr", IntegerQuzo { lr: -1.0, ..base() }),
        ("sigma", IntegerQuzo { sigma: 0.0, ..base() }),
        ("num_samples", IntegerQuzo { num_samples: 0, ..base() }),
        ("bits", IntegerQuzo { format: IntegerFormat { bits: 1, full: false }, ..base() }),
    ] {
        assert!(text(config).contains(&format!("`{field}`")));
    }
    let mut opt = build(IntegerQuzo { format: INT4, ..base() });
    let mut model = tensor(&[1, 8]);
    let error = opt.step(&mut model, sum_of_squares).unwrap_err().to_string();
    assert_eq!(error, "IntegerQuzo: `codes` must be in -7..=7, got 8");
    assert!(IntTensor::new(&[2], 0.0, vec![1, 2]).is_err());
    assert!(IntTensor::new(&[usize::MAX, 2], 1.0, vec![]).is_err());
    let nan = ndarray::array![1.0f32, f32::NAN];
    assert!(matches!(base().quantize(nan.view()), Err(Error::NonFinite { .. })));
    let empty = base().quantize(Array1::<f32>::zeros(0).view()).unwrap();
    build(base()).step(&mut [empty], sum_of_squares).unwrap();
    // a scale whose square is 0
    let mut model = vec![IntTensor::new(&[1], 1e-200, vec![5]).unwrap()];
    build(IntegerQuzo { lr: 1.0, ..base() }).step(&mut model, sum_of_squares).unwrap();
}
