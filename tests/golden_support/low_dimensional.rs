//! GaLore, APOLLO with its projections given, and LDAdam, whose cases also hold the size of what waits for the next step.

use super::compare::Tolerance;
use super::matrix_runs::{Options, run, steps as run_optimizer};
use super::trajectory::{check_parameters, gradients, parameters};
use super::{Outcome, fail, json, skip};
use eigenstep::low_rank::ApolloScaling;
use eigenstep::prelude::*;
use eigenstep::state::{Dtype, Scalar, StateTensor};
use serde_json::Value;
use std::collections::BTreeMap;

/// What the trajectories are compared to.
const TOLERANCE: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-11 };

/// The authors' code; options that are left out have its defaults.
pub fn galore(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let default = GaLore::default();
    let AdamW { lr, betas, eps, weight_decay, .. } = default.inner;
    let correct_bias = options.get("correct_bias").and_then(Value::as_bool);
    let inner = AdamW {
        lr: options.number_or("lr", lr)?,
        betas: if options.get("betas").is_some() { options.pair("betas")? } else { betas },
        eps: options.number_or("eps", eps)?,
        weight_decay: options.number_or("weight_decay", weight_decay)?,
        bias_correction: correct_bias.unwrap_or(true),
        ..default.inner
    };
    let gap = options.number_or("update_proj_gap", default.update_proj_gap as f64)?;
    let method = GaLore {
        rank: options.number_or("rank", default.rank as f64)? as usize,
        update_proj_gap: gap as u64,
        scale: options.number_or("scale", default.scale)?,
        ..GaLore::with_inner(inner)
    };
    options.finish()?;
    run(case, method, TOLERANCE, |_, _| 0.0)
}

/// APOLLO; the projections go into the state before the first step.
pub fn apollo(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let inner = AdamW {
        lr: options.number("lr")?,
        betas: options.pair("betas")?,
        eps: options.number("eps")?,
        weight_decay: options.number("weight_decay")?,
        ..AdamW::default()
    };
    let (rank, scaling) = match options.text("scale_type") {
        "channel" => (2, ApolloScaling::Channel),
        "tensor" => (1, ApolloScaling::Tensor),
        other => return Err(fail(format!("the scale `{other}` is not understood"))),
    };
    let method = Apollo {
        rank,
        scaling,
        scale: options.number("scale")?,
        norm_growth: Some(options.number("limiter")?),
        ..Apollo::with_inner(inner)
    };
    let projections = options.get("projection").and_then(Value::as_object);
    let projections = projections.ok_or_else(|| fail("no projections"))?;
    options.finish()?;
    let build =
        || method.clone().build::<f64>().map(|opt| opt.with_non_finite(NonFinite::Propagate));
    // a step of another optimizer makes state of the right shapes
    let first = json::list(case, "steps")?.first().ok_or_else(|| fail("no steps"))?;
    let mut params = parameters::<f64>(case)?;
    let (mut opt, grads) = (build()?, gradients(first, &params)?);
    opt.step(&mut params, &grads)?;
    let mut state = opt.state_dict();
    for (key, scalar) in &mut state.scalars {
        if key.ends_with(".step") {
            *scalar = Scalar::Int(0);
        } else if key.ends_with(".update_norm") {
            *scalar = Scalar::Float(0.0);
        }
    }
    for (key, tensor) in &mut state.tensors {
        let name = projections.iter().find(|(name, _)| key.split('.').any(|part| part == *name));
        match name.filter(|_| key.ends_with(".projection")) {
            Some((_, given)) => {
                let given =
                    json::array::<f64>(&json::shape(given, "shape")?, json::field(given, "data")?)?;
                let turned: Vec<f64> = given.t().iter().copied().collect();
                *tensor = StateTensor::new(&tensor.shape.clone(), &turned);
            }
            None => tensor.bytes.fill(0),
        }
    }
    let mut opt = build()?;
    opt.load_state_dict(&state)?;
    run_optimizer(case, opt, TOLERANCE, |_, _| 0.0)
}

/// The authors' code with an error buffer of its own; options that are left out have its defaults.
pub fn ldadam(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let default = LdAdam::default();
    let feedback = options.get("error_feedback").and_then(Value::as_bool);
    let betas = if options.get("betas").is_some() { options.pair("betas")? } else { default.betas };
    let method = LdAdam {
        lr: options.number_or("lr", default.lr)?,
        betas,
        rho: options.number_or("rho", default.rho)?,
        rank: options.number_or("rank", default.rank as f64)? as usize,
        eps: options.number_or("eps", default.eps)?,
        weight_decay: options.number_or("weight_decay", default.weight_decay)?,
        error_feedback: feedback.unwrap_or(default.error_feedback),
        ..default
    };
    options.finish()?;
    match json::text(case, "dtype")? {
        "f64" => steps(case, method),
        other => Err(skip(format!("the runner does not know the type `{other}` of LDAdam"))),
    }
}

fn steps(case: &Value, method: LdAdam) -> Outcome {
    json::only(case, &["optimizer", "origin", "dtype", "config", "params", "steps", "notes"])?;
    let mut opt = method.build::<f64>()?.with_non_finite(NonFinite::Propagate);
    let mut params = parameters::<f64>(case)?;
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["grads", "expect", "error_norm"])?;
        let at = format!("step {}", index + 1);
        let grads = gradients(step, &params)?;
        opt.step(&mut params, &grads)?;
        check_parameters(step, "expect", &params, TOLERANCE, &BTreeMap::new())
            .map_err(|stop| stop.at(at.clone()))?;
        if let Some(expected) = step.get("error_norm") {
            let found = error_norm(&opt.state_dict())?;
            TOLERANCE
                .slice_with("error_norm", &[found], &[json::number(expected)?], &[])
                .map_err(|stop| stop.at(at))?;
        }
    }
    Ok(())
}

/// ‖E‖ over all parameters; 0 without error feedback.
fn error_norm(state: &StateDict) -> Outcome<f64> {
    let errors = state.tensors.iter().filter(|(name, _)| name.ends_with(".error"));
    let squares = |(name, tensor): (&String, &StateTensor)| match tensor.dtype {
        Dtype::F64 => {
            let (words, _) = tensor.bytes.as_chunks();
            Ok(words.iter().map(|&word| f64::from_le_bytes(word).powi(2)).sum::<f64>())
        }
        other => Err(fail(format!("`{name}` is {other:?}"))),
    };
    let squares: Vec<f64> = errors.map(squares).collect::<Outcome<_>>()?;
    Ok(squares.iter().sum::<f64>().sqrt())
}
