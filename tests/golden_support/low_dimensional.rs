//! GaLore and LDAdam, whose cases also hold the size of what waits for the next step.

use super::compare::Tolerance;
use super::matrix_runs::{Options, run};
use super::trajectory::{check_parameters, gradients, parameters};
use super::{Outcome, fail, json, skip};
use eigenstep::prelude::*;
use eigenstep::state::{Dtype, StateTensor};
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
