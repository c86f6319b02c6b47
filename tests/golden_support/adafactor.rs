//! Cases of pytorch_optimizer's Adafactor: other names, and one step counter per group.

use super::compare::Tolerance;
use super::options::assign;
use super::trajectory::{Tree, check_parameters, check_state, gradients, parameters};
use super::{Outcome, Stop, fail, json};
use eigenstep::prelude::*;
use eigenstep::state::Scalar;
use serde_json::{Map, Value};

/// The slots there, and here.
const SLOTS: [(&str, &str); 5] = [
    ("exp_avg_sq_row", "row_var"),
    ("exp_avg_sq_col", "col_var"),
    ("exp_avg_sq", "variance"),
    ("exp_avg_sq_hat", "max_root"),
    ("exp_avg", "exp_avg"),
];

/// The options of a case.
fn config(case: &Value) -> Outcome<Adafactor> {
    // the defaults of the package
    let mut config = Adafactor { beta1: 0.9, ..Adafactor::original() };
    let mut options = Vec::new();
    for (key, value) in json::object(case, "config")? {
        match (key.as_str(), value) {
            // a rate of its own, which is at most 1e-2
            ("lr", Value::Null) => options.push(("lr".to_owned(), 1e-2)),
            ("betas", Value::Array(betas)) => {
                let [beta1, cap] = betas.as_slice() else { return Err(fail("betas are two")) };
                let beta1 = if beta1.is_null() { 0.0 } else { json::number(beta1)? };
                options.extend([
                    ("beta1".to_owned(), beta1),
                    ("beta2_cap".to_owned(), json::number(cap)?),
                ]);
            }
            ("momentum_dtype", Value::String(dtype)) if dtype == "float64" => {}
            ("relative_step" | "scale_parameter" | "warmup_init" | "ams_bound", value) => {
                let flag = value.as_bool().ok_or_else(|| fail(format!("`{key}` is no flag")))?;
                options.push((key.clone(), f64::from(u8::from(flag))));
            }
            ("lr" | "weight_decay", value) => options.push((key.clone(), json::number(value)?)),
            _ => return Err(fail(format!("config: `{key}` is not understood"))),
        }
    }
    assign(&mut config, &options);
    Ok(config)
}

/// The state under the names here; the size of the weights, which is none, left out.
fn renamed(state: &Map<String, Value>) -> Outcome<Map<String, Value>> {
    let slot = |(name, value): (&String, &Value)| {
        let found = SLOTS.iter().find(|(there, _)| there == name);
        let (_, here) = found.ok_or_else(|| fail(format!("the slot `{name}` is unknown")))?;
        Ok(((*here).to_owned(), value.clone()))
    };
    let param = |(name, slots): (&String, &Value)| {
        let slots = slots.as_object().ok_or_else(|| fail("is no object"))?;
        let slots = slots.iter().filter(|(name, _)| *name != "RMS");
        Ok((name.clone(), Value::Object(slots.map(slot).collect::<Outcome<_>>()?)))
    };
    state.iter().map(param).collect()
}

/// Counts a step of every parameter that has been updated before and has no gradient now.
fn count_absent<X>(
    opt: &mut dyn Optimizer<f64>,
    grads: &Tree<Option<X>>,
) -> Result<(), eigenstep::Error> {
    let mut dict = opt.state_dict();
    for (name, _) in grads.iter().filter(|(_, grad)| grad.is_none()) {
        if let Some(Scalar::Int(step)) = dict.scalars.get_mut(&format!("state.{name}.step")) {
            *step += 1;
        }
    }
    opt.load_state_dict(&dict)
}

/// Runs a case.
pub fn original(case: &Value) -> Outcome {
    json::only(
        case,
        &["optimizer", "origin", "dtype", "config", "params", "steps", "notes", "final_state"],
    )?;
    if json::text(case, "dtype")? != "f64" {
        return Err(Stop::Skip("the runner takes this method in f64 only".into()));
    }
    let mut params = parameters::<f64>(case)?;
    let mut opt = config(case)?.build::<f64>()?;
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        let grads = gradients(step, &params)?;
        opt.step(&mut params, &grads)?;
        count_absent(&mut opt, &grads)?;
        check_parameters(step, "expect", &params, Tolerance::of::<f64>(), &Tree::new())
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    let steps = json::list(case, "steps")?.len();
    let expected = renamed(json::object(case, "final_state")?)?;
    check_state(&opt.state_dict(), steps, &params, &expected).map_err(|stop| stop.at("final_state"))
}
