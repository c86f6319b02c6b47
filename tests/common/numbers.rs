//! What the numbers are: descent, precisions, threads, instruction sets, saving.

use crate::model::*;
use crate::threads::on_threads;
use eigenstep::kernel::Isa;
use eigenstep::numeric::Element;
use eigenstep::optim::Optimizer;
use eigenstep::prelude::{Precision, Rounding, StateDict};

/// At some learning rate, 200 steps take a badly scaled quadratic to a hundredth; where signs have a length that is found
/// first, 2000.
pub fn decreases_a_quadratic(subject: &Subject) {
    let curvature = [1.0, 3.0, 10.0];
    let loss = |w: &[f64]| -> f64 { w.iter().zip(curvature).map(|(w, c)| c * w * w / 2.0).sum() };
    let attempt = |lr: f64| {
        let mut config = subject.config();
        config.set_option("lr", lr).unwrap();
        let mut opt: Opt<f64> = config.optimizer().unwrap();
        let mut w = vec![Leaf { shape: vec![3], values: vec![1.0, -1.0, 1.0] }];
        let before = loss(&w[0].values);
        for _ in 0..if subject.name == "DAdaptLion" { 2000 } else { 200 } {
            let now = loss(&w[0].values);
            let values = w[0].values.iter().zip(curvature).map(|(w, c)| c * w).collect();
            let grads = vec![Leaf { shape: vec![3], values }];
            if opt.step(&mut w, &Inputs::new(&grads, now, subject.reads_curvature())).is_err() {
                return f64::INFINITY; // the rate was too large, and gradients have overflown
            }
        }
        opt.eval(&mut w).unwrap();
        loss(&w[0].values) / before
    };
    let best = [10.0, 1.0, 0.1, 0.05, 0.01].map(attempt).into_iter().fold(f64::NAN, f64::min);
    assert!(best < 1e-2, "{}: the loss only fell to {best:.1e} of the start", subject.name);
}

pub fn single_and_double_precision_agree(subject: &Subject) {
    for config in variants(subject) {
        let (_, single) = trained::<f32>(&config, 10);
        let mut opt: Opt<f64> = config.optimizer().unwrap();
        // the same numbers: those of the other run, widened
        let widen = |leaves: Vec<Leaf<f32>>| -> Vec<Leaf<f64>> {
            let leaf = |leaf: Leaf<f32>| Leaf {
                shape: leaf.shape,
                values: leaf.values.into_iter().map(f64::from).collect(),
            };
            leaves.into_iter().map(leaf).collect()
        };
        let narrow = leaves::<f32>(1, &SHAPES);
        let mut double = widen(narrow.clone());
        for step in 0..10 {
            let grads = widen(gradients(step, &narrow));
            opt.step(&mut double, &inputs(subject, step, &grads)).unwrap();
        }
        for (single, double) in all_values(&single).into_iter().zip(all_values(&double)) {
            let off = (single - double).abs();
            assert!(off <= 1e-4 * double.abs().max(1.0), "{config:?}: {single} or {double}");
        }
    }
}

/// Lengths around that of a unit of work, and enough elements in all to wake threads.
const LARGE: [&[usize]; 5] = [&[16_383], &[16_384], &[16_385], &[100_003], &[129, 131]];

/// Bits of parameters and state after three steps.
fn outcome(
    config: &Config,
    precision: Precision,
    isa: Isa,
    shapes: &[&[usize]],
) -> (Vec<Vec<u8>>, StateDict) {
    let opt: Opt<f32> = config.optimizer().unwrap();
    let mut opt = opt.with_state_precision(precision).unwrap().with_isa(isa);
    let mut params = leaves(1, shapes);
    train_as(&config.subject(), &mut opt, &mut params, 0..3);
    (all_bits(&params), opt.state_dict())
}

pub fn threads_do_not_change_bits(subject: &Subject) {
    let run = |threads: usize, config: &Config, precision| {
        on_threads(threads, || outcome(config, precision, Isa::detect(), &LARGE))
    };
    let cases = [
        (subject.config(), Precision::Full),
        (busy(subject), Precision::Full),
        (busy(subject), Precision::INT8_LINEAR),
        (busy(subject), Precision::INT4_LPMM),
    ];
    for (config, precision) in cases {
        let expected = run(1, &config, precision);
        for threads in [2, 7] {
            assert!(run(threads, &config, precision) == expected, "{threads} threads: {config:?}");
        }
    }
}

pub fn instruction_sets_do_not_change_bits(subject: &Subject) {
    for precision in PRECISIONS {
        for config in [subject.config(), busy(subject)] {
            let expected = outcome(&config, precision, Isa::portable(), &SHAPES);
            for isa in Isa::available() {
                let found = outcome(&config, precision, isa, &SHAPES);
                assert!(found == expected, "{}, {precision:?}: {config:?}", isa.name());
            }
        }
    }
}

fn reload<T: Element>(config: &Config, precision: Precision, rounding: Rounding) {
    let subject = &config.subject();
    let build = |config: &Config| -> Opt<T> {
        let opt: Opt<T> = config.optimizer().unwrap();
        opt.with_state_precision(precision).unwrap().with_rounding(rounding).unwrap()
    };
    let mut opt = build(config);
    let mut params = leaves::<T>(1, &SHAPES);
    train_as(subject, &mut opt, &mut params, 0..3);
    let saved = opt.state_dict();
    // the options come out of the dict
    let (mut again, mut copy) = (build(&subject.config()), params.clone());
    again.load_state_dict(&saved).unwrap();
    assert_eq!(again.state_dict(), saved, "{precision:?}: {config:?}");
    assert_eq!(again.state_bytes(), opt.state_bytes(), "{precision:?}: {config:?}");
    train_as(subject, &mut opt, &mut params, 3..6);
    train_as(subject, &mut again, &mut copy, 3..6);
    assert_eq!(all_bits(&copy), all_bits(&params), "{precision:?}: {config:?}");
    assert_eq!(again.state_dict(), opt.state_dict(), "{precision:?}: {config:?}");
    assert_eq!(again.steps("0"), Some(6));
}

pub fn reload_continues_bit_for_bit(subject: &Subject) {
    for config in variants(subject) {
        reload::<f32>(&config, Precision::Full, Rounding::default());
        reload::<f64>(&config, Precision::Full, Rounding::Kahan);
    }
    for precision in PRECISIONS {
        // in full precision both are among the variants
        if precision != Precision::Full {
            reload::<f32>(&subject.config(), precision, Rounding::default());
            reload::<f32>(&busy(subject), precision, Rounding::default());
        }
        reload::<f64>(&busy(subject), precision, Rounding::default());
    }
}

/// The parameters after some steps.
fn twenty_steps(subject: &Subject, precision: Precision) -> Vec<f64> {
    let opt: Opt<f32> = subject.optimizer().unwrap();
    let mut opt = opt.with_state_precision(precision).unwrap();
    let mut params = leaves::<f32>(1, &SHAPES);
    let signal = gradients::<f32>(7, &params);
    for step in 0..20 {
        // half of every gradient is the same at all steps
        let mut grads = gradients(step, &params);
        for (leaf, signal) in grads.iter_mut().zip(&signal) {
            leaf.values.iter_mut().zip(&signal.values).for_each(|(g, s)| *g = (*g + s) / 2.0);
        }
        // a loss of the size of ⟨g, p⟩: with one far below, its differences are those of the codes
        let inputs = Inputs::new(&grads, 100.0, subject.reads_curvature());
        opt.step(&mut params, &inputs).unwrap();
    }
    all_values(&params)
}

pub fn low_bits_stay_near_full_precision(subject: &Subject) {
    let distance = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let start = all_values(&leaves::<f32>(1, &SHAPES));
    let full = twenty_steps(subject, Precision::Full);
    for precision in PRECISIONS {
        let bound = match precision {
            Precision::Full => 0.0,
            Precision::Bf16 => 0.05,
            // the learning rate itself is estimated from the coded slot `s`
            Precision::INT4 | Precision::INT4_LPMM if subject.name == "Prodigy" => 1.2,
            Precision::INT4 | Precision::INT4_LPMM => 0.7,
            _ => 0.2,
        };
        // as a share of the way that the run in full precision has gone
        let found = distance(&twenty_steps(subject, precision), &full) / distance(&full, &start);
        assert!(found <= bound, "{} with {precision:?}: {found}, not {bound}", subject.name);
    }
}

pub fn maximize_is_minimize_of_the_opposite(subject: &Subject) {
    for mut config in variants(subject) {
        let Some(flag) = config.option("maximize") else { continue };
        let (_, expected) = trained::<f32>(&config, 5);
        config.set_option("maximize", 1.0 - flag).unwrap();
        let mut opt: Opt<f32> = config.optimizer().unwrap();
        let mut params = leaves::<f32>(1, &SHAPES);
        for step in 0..5 {
            let mut grads = gradients(step, &params);
            grads.iter_mut().flat_map(|leaf| &mut leaf.values).for_each(|g| *g = -*g);
            let inputs = inputs(subject, step, &grads).with_opposite_loss();
            opt.step(&mut params, &inputs).unwrap();
        }
        assert_eq!(all_bits(&params), all_bits(&expected), "{config:?}");
    }
}
