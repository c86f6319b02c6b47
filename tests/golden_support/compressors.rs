//! Compressors, the power iteration, and error feedback.

use super::compare::{Tolerance, equal};
use super::{Outcome, json, kernels, skip};
use eigenstep::error_feedback::compressor::{
    Accumulator, Compressor, Message, Natural, Qsgd, RandK, ScaledSign, Selection, TopK,
    power_iteration,
};
use ndarray::Array2;
use serde_json::Value;

/// What the README of the vectors asks for.
const TOLERANCE: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-12 };

fn vector(message: &Message<f64>) -> Vec<f64> {
    let mut out = vec![f64::NAN; message.numel()];
    message.decompress_into(&mut out);
    out
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// A compressor without random numbers.
fn deterministic(config: &Value) -> Outcome<Box<dyn Compressor<f64>>> {
    let density = || json::number(json::field(config, "density")?);
    Ok(match json::text(config, "compressor")? {
        "identity" => Box::new(eigenstep::error_feedback::compressor::Identity),
        "top_k" if config.get("k").is_some() => {
            Box::new(TopK(Selection::Count { k: json::count(config, "k")? }))
        }
        "top_k" => Box::new(TopK(Selection::TopK { density: density()? })),
        "block_top_k" => {
            let block = json::count(config, "block")?;
            Box::new(TopK(Selection::BlockTopK { density: density()?, block }))
        }
        "scaled_sign" => Box::new(ScaledSign),
        other => return Err(skip(format!("the crate has no compressor `{other}`"))),
    })
}

const OPTIONS: [&str; 6] = ["compressor", "k", "density", "block", "levels", "unbiased"];

pub fn compress(case: &Value) -> Outcome {
    let config = kernels::config(case, &OPTIONS)?;
    let input = json::field(case, "input")?;
    json::only(input, &["x", "uniforms", "indices"])?;
    let expect = json::field(case, "expect")?;
    json::only(expect, &["y", "residual_sq", "delta_bound"])?;
    let x: Vec<f64> = json::reals(input, "x")?;
    let uniforms = || json::numbers(json::field(input, "uniforms")?);
    let mut bound = None;
    let message = match json::text(config, "compressor")? {
        "qsgd" => Qsgd::quantize(&x, json::count(config, "levels")? as u32, uniforms()?),
        "natural" => Natural::quantize(&x, uniforms()?),
        "rand_k" => {
            let indices = json::integers(input, "indices")?;
            equal("k", &[indices.len()], &[json::count(config, "k")?])?;
            let unbiased = json::field(config, "unbiased")? == &Value::Bool(true);
            RandK::keep(&x, &indices, unbiased)
        }
        name => {
            let mut compressor = deterministic(config)?;
            compressor.validate(x.len())?;
            bound = Some(match name {
                // of this vector, not of the worst
                "scaled_sign" => ScaledSign::contraction_of(&x),
                _ => compressor.contraction(x.len()),
            });
            compressor.compress(1, &x)
        }
    };
    let found = vector(&message);
    TOLERANCE.slice("y", &found, &json::reals(expect, "y")?)?;
    let left = json::number(json::field(expect, "residual_sq")?)?;
    TOLERANCE.number("residual_sq", squared_distance(&x, &found), left)?;
    match expect.get("delta_bound") {
        None | Some(Value::Null) => {}
        Some(expected) => {
            let bound = bound.ok_or_else(|| skip("a bound of a random compressor"))?;
            TOLERANCE.number("delta_bound", bound, json::number(expected)?)?;
        }
    }
    let again = Message::from_bytes(&message.to_bytes())?;
    equal("the message after its way as bytes", &[again], &[message])
}

pub fn low_rank(case: &Value) -> Outcome {
    let config = kernels::config(case, &["rows", "cols", "rank", "eps"])?;
    let input = json::field(case, "input")?;
    let expect = json::field(case, "expect")?;
    json::only(expect, &["p", "q", "reconstruction", "residual_sq"])?;
    if json::number(json::field(config, "eps")?)? != 1e-8 {
        return Err(skip("Gram-Schmidt has the divisor norm + 1e-8"));
    }
    let count = |key: &str| json::count(config, key);
    let (rows, columns, rank) = (count("rows")?, count("cols")?, count("rank")?);
    let matrix = |key: &str, shape: (usize, usize)| {
        Array2::from_shape_vec(shape, json::reals::<f64>(input, key)?)
            .map_err(|error| super::fail(format!("{key}: {error}")))
    };
    let m = matrix("matrix", (rows, columns))?;
    let (p, r) = power_iteration(&m, &matrix("q", (columns, rank))?);
    let product = p.dot(&r.t());
    let flat = |a: &Array2<f64>| -> Vec<f64> { a.iter().copied().collect() };
    TOLERANCE.slice("p", &flat(&p), &json::reals(expect, "p")?)?;
    TOLERANCE.slice("q", &flat(&r), &json::reals(expect, "q")?)?;
    TOLERANCE.slice("reconstruction", &flat(&product), &json::reals(expect, "reconstruction")?)?;
    let left = json::number(json::field(expect, "residual_sq")?)?;
    TOLERANCE.number("residual_sq", squared_distance(&flat(&m), &flat(&product)), left)
}

pub fn accumulator(case: &Value) -> Outcome {
    let config = kernels::config(case, &OPTIONS)?;
    let grads = json::list(json::field(case, "input")?, "grads")?;
    let steps = json::list(json::field(case, "expect")?, "steps")?;
    equal("number of steps", &[grads.len()], &[steps.len()])?;
    let numel = grads.first().map_or(Ok(0), |g| json::numbers(g).map(|g| g.len()))?;
    let mut feedback = Accumulator::new(deterministic(config)?, numel)?;
    for (index, (grad, expect)) in grads.iter().zip(steps).enumerate() {
        let at = |stop: super::Stop| stop.at(format!("step {}", index + 1));
        json::only(expect, &["c", "xi"]).map_err(at)?;
        let c = vector(&feedback.step(&json::numbers(grad)?)?);
        TOLERANCE.slice("c", &c, &json::reals(expect, "c")?).map_err(at)?;
        TOLERANCE.slice("xi", feedback.residual(), &json::reals(expect, "xi")?).map_err(at)?;
    }
    Ok(())
}
