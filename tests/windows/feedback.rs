//! Error feedback around rules and matrix methods.

use crate::{distance, vector};
use eigenstep::error_feedback::compressor::{Natural, Qsgd, RandK};
use eigenstep::error_feedback::{
    CompressorConfig, EfAdagrad, ErrorFeedback, ResidualFormat, Selection,
};
use eigenstep::optim::{MethodFor, Scope};
use eigenstep::prelude::*;
use ndarray::{Array1, Array2};

type Model = (Array2<f64>, Array1<f64>);

fn model(seed: u64) -> Model {
    let weight = Array2::from_shape_vec((4, 3), vector(seed, 12)).unwrap();
    (weight, Array1::from(vector(seed + 1000, 4)))
}

fn trained(mut opt: impl Optimizer<f64>, steps: u64) -> Model {
    let mut w = model(0);
    (0..steps).for_each(|step| opt.step(&mut w, &model(step + 1)).unwrap());
    w
}

fn shampoo() -> Shampoo {
    Shampoo { update_factors_every: 2, update_roots_every: 4, min_numel: 0, ..Shampoo::default() }
}

/// I2: what is kept whole is the method itself, bit for bit.
#[test]
fn keeping_everything_changes_nothing() {
    let compressors =
        [CompressorConfig::Identity, CompressorConfig::TopK(Selection::TopK { density: 1.0 })];
    for compressor in compressors {
        for scope in [Scope::Model, Scope::Group, Scope::Tensor] {
            let around =
                ErrorFeedback { compressor, scope, ..ErrorFeedback::rule(AdamW::default()) };
            let plain = AdamW::default().build().unwrap();
            assert_eq!(trained(around.build().unwrap(), 9), trained(plain, 9));
            let around = ErrorFeedback { compressor, scope, ..ErrorFeedback::matrix(shampoo()) };
            let plain = shampoo().build().unwrap();
            assert_eq!(trained(around.build().unwrap(), 9), trained(plain, 9));
        }
    }
}

/// With plain descent and a constant rate, the parameter is where it would be without compression,
/// but for the residual.
#[test]
fn only_the_residual_is_missing() {
    let sgd = Sgd { lr: 0.1, ..Sgd::default() };
    let compressor = CompressorConfig::TopK(Selection::Count { k: 2 });
    let scope = Scope::Tensor;
    let method = ErrorFeedback { compressor, scope, ..ErrorFeedback::rule(sgd.clone()) };
    let mut opt = method.build::<f64>().unwrap();
    let mut plain = sgd.build::<f64>().unwrap();
    let (mut a, mut b) = (Array1::from(vector::<f64>(1, 30)), Array1::from(vector::<f64>(1, 30)));
    for step in 0..40 {
        let g = Array1::from(vector::<f64>(step + 2, 30));
        opt.step(&mut a, &g).unwrap();
        plain.step(&mut b, &g).unwrap();
    }
    let dict = opt.state_dict();
    let left = dict.tensors.iter().find(|(key, _)| key.ends_with(".residual")).unwrap().1;
    let left: Vec<f64> =
        left.bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
    let expected: Vec<f64> = b.iter().zip(&left).map(|(b, left)| b + 0.1 * left).collect();
    assert!(distance(a.as_slice().unwrap(), &expected) < 1e-12);
}

/// Scaled Adagrad, step by step: the largest of `|a|/√G`, sent as they are.
#[test]
fn scaled_adagrad_is_what_it_says() {
    let (lr, eps, k, numel) = (0.1, 1e-6, 3, 12);
    let adagrad = Adagrad { lr, eps, ..Adagrad::default() };
    let mut opt = EfAdagrad::scaled(adagrad, 0.25).build::<f64>().unwrap();
    let mut w = ndarray::Array1::<f64>::zeros(numel);
    let (mut x, mut xi, mut sum) = (vec![0.0; numel], vec![0.0; numel], vec![eps; numel]);
    let mut plain = 0;
    for step in 0..40 {
        // coordinates of very different sizes
        let g: Vec<f64> = (0..numel)
            .map(|i| ((step * 7 + i * i) as f64).sin() * 10f64.powi(-(i as i32 % 4)))
            .collect();
        let a: Vec<f64> = xi.iter().zip(&g).map(|(xi, g)| xi + g).collect();
        let largest = |size: &dyn Fn(usize) -> f64| {
            let mut order: Vec<usize> = (0..numel).collect();
            order.sort_by(|&i, &j| size(j).total_cmp(&size(i)).then(i.cmp(&j)));
            order.truncate(k);
            order.sort_unstable();
            order
        };
        let chosen = largest(&|i| a[i].abs() / sum[i].sqrt());
        plain += usize::from(chosen == largest(&|i| a[i].abs()));
        xi = a.clone();
        for i in chosen {
            sum[i] += a[i] * a[i];
            x[i] -= lr * a[i] / (sum[i].sqrt() + eps);
            xi[i] = 0.0;
        }
        opt.step(&mut w, &ndarray::Array1::from(g)).unwrap();
        assert!(distance(w.as_slice().unwrap(), &x) < 1e-12, "step {step}");
    }
    assert!(plain < 20, "it is not the plain selection: {plain} steps alike");
    assert_eq!(opt.state_bytes().slot("compressor"), 8 * numel);
    let none = EfAdagrad::scaled(Adagrad { eps: 0.0, ..Adagrad::default() }, 0.25).build::<f64>();
    assert_eq!(none.unwrap_err().to_string(), "ScaledTopK: `eps` must be finite and > 0, got 0");
}

/// Without feedback what is left out is lost.
#[test]
fn feedback_reaches_what_is_small() {
    let run = |feedback| {
        let compressor = CompressorConfig::TopK(Selection::Count { k: 1 });
        let sgd = Sgd { lr: 0.1, ..Sgd::default() };
        let method = ErrorFeedback { compressor, feedback, ..ErrorFeedback::rule(sgd) };
        let mut opt = method.build::<f64>().unwrap();
        let mut w = ndarray::array![0.0, 0.0];
        (0..50).for_each(|_| opt.step(&mut w, &ndarray::array![1.0, 0.1]).unwrap());
        w[1]
    };
    assert_eq!(run(false), 0.0);
    assert!((run(true) + 0.5).abs() < 0.11, "{}", run(true));
}

fn resumes<M: MethodFor<f64>>(method: ErrorFeedback<M>) {
    let build = || method.clone().build::<f64>().unwrap();
    let (mut opt, mut w) = (build(), model(0));
    (0..5).for_each(|step| opt.step(&mut w, &model(step + 1)).unwrap());
    let (mut again, mut copy) = (build(), w.clone());
    again.load_state_dict(&opt.state_dict()).unwrap();
    for step in 5..10 {
        opt.step(&mut w, &model(step + 1)).unwrap();
        again.step(&mut copy, &model(step + 1)).unwrap();
    }
    assert_eq!(w, copy, "{method:?}");
    assert_eq!(opt.state_dict(), again.state_dict());
}

/// Every compressor: what a quadratic loses without its state comes back, and everything resumes.
#[test]
fn every_compressor_descends_and_resumes() {
    for compressor in [
        CompressorConfig::Identity,
        CompressorConfig::TopK(Selection::Count { k: 2 }),
        CompressorConfig::ScaledTopK { selection: Selection::Count { k: 2 }, eps: 1e-8 },
        CompressorConfig::RandK(RandK { density: 0.3, ..RandK::default() }),
        CompressorConfig::ScaledSign,
        CompressorConfig::Qsgd(Qsgd { levels: 8, seed: 2 }),
        CompressorConfig::Natural(Natural { seed: 3 }),
        CompressorConfig::LowRank { rank: 1, seed: 4 },
    ] {
        let sgd = Sgd { lr: 0.05, ..Sgd::default() };
        let method = ErrorFeedback { compressor, ..ErrorFeedback::rule(sgd) };
        resumes(method.clone());
        let mut opt = method.build::<f64>().unwrap();
        let (mut w, target) = (model(0), model(7));
        for _ in 0..600 {
            let grad = (&w.0 - &target.0, &w.1 - &target.1);
            opt.step(&mut w, &grad).unwrap();
        }
        let off = distance(w.0.as_slice().unwrap(), target.0.as_slice().unwrap());
        assert!(off < 1e-2, "{compressor:?}: {off:e}");
    }
}

#[test]
fn everything_resumes() {
    for residual in
        [ResidualFormat::Full, ResidualFormat::Bf16, ResidualFormat::Nibble { block: 4 }]
    {
        let compressor = CompressorConfig::TopK(Selection::BlockTopK { density: 0.3, block: 5 });
        for scope in [Scope::Model, Scope::Tensor] {
            let rule = ErrorFeedback::rule(AdamW::default());
            resumes(ErrorFeedback { compressor, residual, scope, ..rule });
            let matrix = ErrorFeedback::matrix(shampoo());
            resumes(ErrorFeedback { compressor, residual, scope, ..matrix });
        }
    }
}

/// A residual that would grow without bound is refused at the first step; without feedback there is none.
#[test]
fn feedback_needs_a_contraction() {
    let compressor = CompressorConfig::Qsgd(Qsgd { levels: 1, seed: 0 });
    for feedback in [true, false] {
        let sgd = ErrorFeedback::rule(Sgd::default());
        let mut opt = ErrorFeedback { compressor, feedback, ..sgd }.build::<f64>().unwrap();
        let mut w = Array1::<f64>::ones(100);
        let outcome = opt.step(&mut w, &Array1::ones(100));
        if feedback {
            let error = outcome.unwrap_err().to_string();
            let expected = "ErrorFeedback: `compressor` must be a contraction";
            assert!(error.starts_with(expected), "{error}");
            assert_eq!(w, Array1::<f64>::ones(100));
        } else {
            outcome.unwrap();
        }
    }
}

/// Options of the method inside are options of the whole, by the same names.
#[test]
fn options_pass_through() {
    let mut opt = EfAdagrad::sparse(Adagrad::default(), 0.5).build::<f64>().unwrap();
    opt.set_option(0, "eps", 1e-3).unwrap();
    assert_eq!((opt.option(0, "eps"), opt.option(0, "lr")), (Some(1e-3), Some(0.01)));
    let error = opt.set_option(0, "lr", -1.0).unwrap_err();
    assert_eq!(error.to_string(), "ErrorFeedback: `lr` must be finite and >= 0, got -1");
    let bad = EfAdagrad::sparse(Adagrad::default(), 2.0).build::<f64>().unwrap_err();
    assert_eq!(bad.to_string(), "ErrorFeedback: `density` must be in (0, 1], got 2");
}
