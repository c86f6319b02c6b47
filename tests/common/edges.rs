//! Where numbers end: nothing that is not finite enters parameters or state unseen, nothing decays into
//! numbers that are slow to compute with, and nothing over nothing is no step.

use crate::model::*;
use eigenstep::Error;
use eigenstep::numeric::{Element, Real};
use eigenstep::optim::{NonFinite, Optimizer};
use eigenstep::prelude::Precision;
use eigenstep::state::{Dtype, Scalar, StateDict, StateTensor};
use num_traits::Float;

/// The floats of a tensor; nothing of codes.
fn floats(tensor: &StateTensor) -> Vec<f64> {
    let bytes = &tensor.bytes;
    let upper = |word: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*word)) << 16);
    match tensor.dtype {
        Dtype::F32 => f32::read_le(bytes).into_iter().map(f64::from).collect(),
        Dtype::F64 => f64::read_le(bytes),
        Dtype::Bf16 => bytes.as_chunks().0.iter().map(|word| upper(word).into()).collect(),
        _ => Vec::new(),
    }
}

/// The first entry of a state that is not finite.
fn not_finite(dict: &StateDict) -> Option<String> {
    let kept = |key: &str| key.starts_with("state.") || key.contains(".scalars.");
    let scalar = dict.scalars.iter().find(|(key, value)| match value {
        Scalar::Float(x) => kept(key) && !x.is_finite(),
        _ => false,
    });
    let tensor = dict.tensors.iter().find(|(_, t)| floats(t).iter().any(|x| !x.is_finite()));
    scalar.map(|(key, _)| key.clone()).or(tensor.map(|(key, _)| key.clone()))
}

/// A step is refused and changes nothing, or is taken and keeps nothing but numbers.
fn step_on_numbers<T: Element>(
    subject: &Subject,
    opt: &mut Opt<T>,
    mut params: &mut [Leaf<T>],
    (step, grads): (u64, &Vec<Leaf<T>>),
    what: &str,
) {
    let (before, state) = (all_bits(params), opt.state_dict());
    match opt.step(&mut params, &inputs(subject, step, grads)) {
        Ok(()) => {
            let bad = all_values(params).into_iter().find(|x| !x.is_finite());
            assert!(bad.is_none(), "{what}: a parameter is {bad:?}");
            let bad = not_finite(&opt.state_dict());
            assert!(bad.is_none(), "{what}: {bad:?} is not finite");
        }
        Err(error) => {
            assert_eq!(all_bits(params), before, "{what}: {error}");
            assert_eq!(opt.state_dict(), state, "{what}: {error}");
        }
    }
}

/// Gradients of this size everywhere, or in one place.
fn spike<T: Element>(step: u64, params: &[Leaf<T>], size: f64, everywhere: bool) -> Vec<Leaf<T>> {
    let mut grads = gradients(step, params);
    let large = |x: T| T::store(T::Compute::of(x.load().widen() * size));
    if everywhere {
        grads.iter_mut().flat_map(|leaf| &mut leaf.values).for_each(|g| *g = large(*g));
    } else {
        let sign = if step.is_multiple_of(2) { size } else { -size };
        grads[0].values[71] = T::store(T::Compute::of(sign));
        grads[1].values[3] = T::store(T::Compute::of(sign));
    }
    grads
}

fn spikes<T: Element>(config: &Config, precision: Precision, sizes: &[f64]) {
    let subject = &config.subject();
    for &size in sizes {
        for everywhere in [true, false] {
            let opt: Opt<T> = config.optimizer().unwrap();
            let mut opt = opt.with_state_precision(precision).unwrap();
            let mut params = leaves::<T>(1, &SHAPES);
            train_as(subject, &mut opt, &mut params, 0..2);
            let what = format!("{precision:?}, {size:e} in {}: {config:?}", T::NAME);
            for step in 2..6 {
                let grads = spike(step, &params, size, everywhere);
                step_on_numbers(subject, &mut opt, &mut params, (step, &grads), &what);
            }
            for step in 6..8 {
                let grads = gradients(step, &params);
                step_on_numbers(subject, &mut opt, &mut params, (step, &grads), &what);
            }
        }
    }
}

/// Whatever the size of the gradients, in every precision.
pub fn nothing_but_numbers_is_kept(subject: &Subject) {
    let largest = f64::from(f32::MAX);
    spikes::<f32>(&subject.config(), Precision::Full, &[1e15, largest]);
    for config in [subject.config(), busy(subject)] {
        spikes::<f32>(&config, Precision::Full, &[1e12, 1e19, 1e38]);
        spikes::<f64>(&config, Precision::Full, &[1e140, 1e154, 1e300]);
        spikes::<f64>(&config, Precision::INT4_LPMM, &[1e145, 1e300]);
        spikes::<f64>(&config, Precision::Bf16, &[1e30, 1e140]);
    }
    for precision in PRECISIONS {
        spikes::<f32>(&busy(subject), precision, &[1e15, largest]);
    }
}

/// What is too large is refused by name, counted where steps are left out, and fine under a factor.
pub fn too_large_is_said(subject: &Subject) {
    let opt = || -> Opt<f32> { subject.optimizer().unwrap() };
    let mut params = leaves::<f32>(1, &SHAPES);
    let grads = spike(2, &params, 1e37, false);
    match opt().step(&mut params, &inputs(subject, 9, &grads)) {
        // rules without squares and sums take every number
        Ok(()) => {}
        Err(error) => {
            let Error::GradientTooLarge { optimizer, name, index: 71, value, limit } = error else {
                panic!("{error}");
            };
            assert_eq!((optimizer, name.as_str(), value), (subject.name, "0", f64::from(1e37_f32)));
            assert!((1e12..1e31).contains(&limit), "{limit}");
            let mut skipping = opt().with_non_finite(NonFinite::Skip);
            skipping.step(&mut params, &inputs(subject, 9, &grads)).unwrap();
            assert_eq!(skipping.skipped_steps(), 1);
            let scaled = eigenstep::params::Scaled::new(1e-37, &grads);
            opt().step(&mut params, &inputs(subject, 9, &scaled)).unwrap();
        }
    }
}

fn long<T: Element>(subject: &Subject, pattern: impl Fn(usize, usize) -> f64) {
    let mut opt: Opt<T> = subject.optimizer().unwrap();
    let mut params = leaves::<T>(1, &[&[6, 4], &[5]]);
    let mut grads = params.clone();
    for leaf in &mut grads {
        let width = leaf.shape.last().copied().unwrap();
        for (i, g) in leaf.values.iter_mut().enumerate() {
            *g = T::store(T::Compute::of(pattern(i / width, i % width)));
        }
    }
    for step in 0..450 {
        let what = format!("step {step} in {}", T::NAME);
        step_on_numbers(subject, &mut opt, &mut params, (step, &grads), &what);
    }
}

/// Gradients that never change, as of a loss without a minimum.
pub fn gradients_of_one_direction_stay_numbers(subject: &Subject) {
    let patterns: [fn(usize, usize) -> f64; 3] = [
        |_, _| 1.0,
        |i, j| f64::from(u8::from((i, j) == (0, 1))),
        |i, j| (i as f64 - 2.5) * (j as f64 + 0.5),
    ];
    for pattern in patterns {
        long::<f32>(subject, pattern);
        long::<f64>(subject, pattern);
    }
}

/// The first number of a state that is slow to compute with.
fn subnormal(dict: &StateDict) -> Option<(&str, f64)> {
    // a window holds gradients as they were, and forgets them
    let window = |key: &str| key.contains("vector") && !key.contains("residual");
    dict.tensors.iter().filter(|(key, _)| !window(key)).find_map(|(key, tensor)| {
        let wide = tensor.dtype == Dtype::F64;
        let least = if wide { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) };
        let mut values = floats(tensor).into_iter();
        let found = values.find(|x| *x != 0.0 && x.abs() < least)?;
        Some((key.as_str(), found))
    })
}

/// Moments whose gradients have gone decay to 0, and not to numbers that are slow to compute with.
fn decay<T: Element>(config: &Config, precision: Precision) {
    let subject = &config.subject();
    let opt: Opt<T> = config.optimizer().unwrap();
    let mut opt = opt.with_state_precision(precision).unwrap();
    let mut params = leaves::<T>(1, &SHAPES);
    // a little above what is flushed, and squares there
    let least = T::Compute::min_positive_value().widen();
    for (step, size) in [least * 1e4, least.sqrt() * 1e2, least * 2.0].into_iter().enumerate() {
        let grads = spike(step as u64, &params, size, true);
        opt.step(&mut params, &inputs(subject, 9, &grads)).unwrap();
    }
    let grads = spike(0, &params, 0.0, true);
    for step in 0..60 {
        opt.step(&mut params, &inputs(subject, step, &grads)).unwrap();
        let dict = opt.state_dict();
        let found = subnormal(&dict);
        assert!(found.is_none(), "step {step}, {precision:?}, {}: {found:?}: {config:?}", T::NAME);
    }
}

pub fn moments_decay_to_zero(subject: &Subject) {
    decay::<f32>(&subject.config(), Precision::Full);
    for precision in
        [Precision::Full, Precision::Bf16, Precision::INT8_LINEAR, Precision::INT4_LPMM]
    {
        decay::<f32>(&busy(subject), precision);
    }
    decay::<f64>(&busy(subject), Precision::Full);
}

/// Small tensors, whose steps are cheap.
const TINY: [&[usize]; 2] = [&[3, 2], &[2]];

/// Gradients that vanish, in the first steps and later, and learning rates that a schedule takes to 0 or next to it
/// while gradients go on, leave numbers.
pub fn vanishing_gradients_and_rates_stay_numbers(subject: &Subject) {
    for config in [subject.config(), busy(subject)] {
        for first in [1.0, 1e-38, 1e-45] {
            let mut opt = config.optimizer::<f32>().unwrap();
            let mut params = leaves::<f32>(1, &TINY);
            params.iter_mut().flat_map(|leaf| &mut leaf.values).for_each(|x| *x *= 100.0);
            for step in 0..1400 {
                let grads = tiny(&params, first * 0.93f64.powi(step));
                let what = format!("{first} in step {step}: {config:?}");
                step_on_numbers(subject, &mut opt, &mut params, (9, &grads), &what);
            }
        }
        for factor in [0.0, 0.9] {
            let mut opt = config.optimizer::<f32>().unwrap();
            let mut params = leaves::<f32>(1, &TINY);
            for step in 0..950 {
                let grads = gradients(step % 7, &params);
                let what = format!("rate times {factor} in step {step}: {config:?}");
                step_on_numbers(subject, &mut opt, &mut params, (9, &grads), &what);
                let rate = opt.option(0, "lr").unwrap_or(1.0) * factor;
                let _ = opt.set_option(0, "lr", rate);
            }
        }
    }
}

/// Gradients of this size: one element of each tensor has none.
fn tiny(params: &[Leaf<f32>], size: f64) -> Vec<Leaf<f32>> {
    let mut grads = gradients(3, params);
    for leaf in &mut grads {
        leaf.values.iter_mut().for_each(|g| *g = (f64::from(*g) * size) as f32);
        leaf.values[0] = 0.0;
    }
    grads
}

/// Where every gradient is 0, and nothing keeps divisors from 0, nothing moves.
pub fn nothing_over_nothing_is_nothing(subject: &Subject) {
    for mut config in variants(subject) {
        for (name, _, _) in options(&config.clone()) {
            if name.starts_with("eps") || name.ends_with("eps") {
                let _ = config.set_option(name, 0.0);
            }
        }
        for precision in [Precision::Full, Precision::INT8_LINEAR, Precision::INT4_LPMM] {
            let opt: Opt<f32> = config.optimizer().unwrap();
            let mut opt = opt.with_state_precision(precision).unwrap();
            let mut params = leaves::<f32>(1, &SHAPES);
            let grads = spike(0, &params, 0.0, true);
            for step in 0..3 {
                opt.step(&mut params, &inputs(subject, step, &grads)).unwrap();
            }
            let bad = all_values(&params).into_iter().find(|x| !x.is_finite());
            assert!(bad.is_none(), "{precision:?}: {bad:?}: {config:?}");
            let bad = not_finite(&opt.state_dict());
            assert!(bad.is_none(), "{precision:?}: {bad:?}: {config:?}");
        }
    }
}

/// A failure that repeats is an error that says where, how often, and why.
pub fn repeated_failures_say_where(subject: &Subject) {
    let opt: Opt<f32> = subject.optimizer().unwrap();
    let mut opt = opt.with_non_finite(NonFinite::Propagate);
    let mut params = leaves::<f32>(1, &[&[6, 4], &[5]]);
    for step in 0..12 {
        let mut grads = gradients(step, &params);
        grads[0].values[3] = f32::NAN;
        // parameters stay numbers, so that nothing but the method fails
        let before = params.clone();
        match opt.step(&mut params, &inputs(subject, step, &grads)) {
            Ok(()) => params = before,
            Err(error) => {
                let Error::RepeatedFailure { name, block: 0, failures, problem } = &error else {
                    panic!("{error}");
                };
                let start = format!("parameter `{name}`, block 0: {failures} failures in a row, ");
                assert_eq!(error.to_string(), format!("{start}the last: {problem}"));
                assert!(name == "0" && *failures > 0 && !problem.is_empty(), "{error}");
                return;
            }
        }
    }
    // element-wise rules have nothing that can fail
}

/// Options beyond the arithmetic of the parameters would be infinite in it.
pub fn options_are_numbers_of_the_arithmetic(subject: &Subject) {
    let mut opt = subject.optimizer::<f32>().unwrap();
    for (name, range, value) in options(&subject.config()) {
        let mut config = subject.config();
        let huge = 1e300;
        if !range.contains(huge) || config.set_option(name, huge).is_err() {
            continue;
        }
        if config.option(name) == Some(huge) {
            let text = format!("{}: `{name}` must be finite in f32, got {huge}", subject.name);
            let error = opt.set_option(0, name, huge).unwrap_err().to_string();
            assert_eq!(error, text);
            assert_eq!(opt.option(0, name).map(f64::to_bits), Some(value.to_bits()));
            assert_eq!(config.optimizer::<f32>().unwrap_err().to_string(), text);
            config.optimizer::<f64>().unwrap();
        }
    }
}
