//! Kernel cases of the views of gradients: centralisation, projections, masks of signs.

use super::compare::Tolerance;
use super::{Outcome, fail, json, kernels};
use eigenstep::gradient::{
    Accumulator, AutoClip, HistoryClip, NormBound, OutlierLimit, ProjectOut, SignMask, ZClip,
    centralize, materialize, ortho_grad, project_out, sign,
};
use eigenstep::params::{Gradients, Scaled};
use ndarray::ArrayD;
use serde_json::Value;

const EXACT: Tolerance = Tolerance { rtol: 1e-12, atol: 1e-13 };

/// Compares what a view shows with a list of the case.
fn shows(view: &dyn Gradients<f64>, expect: &Value, key: &str) -> Outcome {
    let copies = materialize(view).map_err(|error| fail(error.to_string()))?;
    let found = copies.get("param").ok_or_else(|| fail("the view shows nothing"))?;
    let found: Vec<f64> = found.iter().copied().collect();
    EXACT.slice(key, &found, &json::reals::<f64>(expect, key)?)
}

/// A one-dimensional array.
fn vector(input: &Value, key: &str) -> Outcome<ArrayD<f64>> {
    let values = json::field(input, key)?;
    json::array(&[json::numbers(values)?.len()], values)
}

/// Rows of a list, as arrays.
fn rows(input: &Value, key: &str, width: usize) -> Outcome<Vec<ArrayD<f64>>> {
    let values = json::reals::<f64>(input, key)?;
    let row = |row: &[f64]| {
        ArrayD::from_shape_vec(vec![row.len()], row.to_vec())
            .map_err(|error| fail(error.to_string()))
    };
    values.chunks(width).map(row).collect()
}

/// Centralisation and OrthoGrad of one tensor.
pub fn transforms(case: &Value) -> Outcome {
    let config = kernels::config(case, &["shape"])?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    let shape = json::shape(config, "shape")?;
    let grad = json::array::<f64>(&shape, json::field(input, "grad")?)?;
    let mut param = json::array::<f64>(&shape, json::field(input, "param")?)?;
    shows(&centralize(&grad), expect, "centralized")?;
    let across = ortho_grad(&mut param, &grad).map_err(|error| fail(error.to_string()))?;
    shows(&across, expect, "orthograd")
}

/// The projection onto what is at right angles to retained gradients, with and without a metric.
pub fn projection(case: &Value) -> Outcome {
    let config = kernels::config(case, &["retain_count"])?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    let (forget, metric) = (vector(input, "forget")?, vector(input, "metric_diag")?);
    let retain = rows(input, "retain_rows", forget.len())?;
    if retain.len() != json::count(config, "retain_count")? {
        return Err(fail("other retained gradients than counted"));
    }
    let retain: Vec<&ArrayD<f64>> = retain.iter().collect();
    let text = |error: eigenstep::Error| fail(error.to_string());
    shows(&project_out(&forget, &retain).map_err(text)?, expect, "euclidean")?;
    let view = ProjectOut::default().apply_in_metric(&forget, &retain, &metric).map_err(text)?;
    shows(&view, expect, "metric")
}

/// Masks of a task vector by the signs of descent, of the gradient and of the majority of samples.
pub fn masks(case: &Value) -> Outcome {
    kernels::config(case, &[])?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    let (task, gradient) = (vector(input, "task_vector")?, vector(input, "gradient")?);
    let text = |error: eigenstep::Error| fail(error.to_string());
    let descent = Scaled::new(-1.0, &gradient);
    let (hard, force) = (SignMask::default(), SignMask { force: true });
    shows(&hard.apply(&task, &descent).map_err(text)?, expect, "hard")?;
    shows(&force.apply(&task, &descent).map_err(text)?, expect, "force")?;
    let mut votes = Accumulator::new();
    for sample in rows(input, "sample_gradients", task.len())? {
        votes.add(&sign(&Scaled::new(-1.0, &sample))).map_err(text)?;
    }
    let majority = sign(&votes);
    shows(&majority, expect, "majority_sign")?;
    shows(&hard.apply(&task, &majority).map_err(text)?, expect, "hard_majority")
}

/// Norms of a gradient of one number before and after a clip that remembers.
pub fn history(case: &Value) -> Outcome {
    let config = json::field(case, "config")?;
    let number = |key: &str, default: f64| config.get(key).map_or(Some(default), Value::as_f64);
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("rule") {
        "zclip" => {
            let rule = ZClip {
                max_norm: number("max_grad_norm", 1.0),
                z_thresh: number("z_thresh", 2.5).unwrap_or(f64::NAN),
                alpha: number("alpha", 0.97).unwrap_or(f64::NAN),
                clip_factor: number("clip_factor", 1.0).unwrap_or(f64::NAN),
                warmup: number("warmup_steps", 25.0).unwrap_or(f64::NAN) as u64,
                limit: match (text("mode"), text("clip_option")) {
                    ("percentile", _) => OutlierLimit::Fixed,
                    (_, "mean") => OutlierLimit::Mean,
                    _ => OutlierLimit::Reciprocal,
                },
                skip_spikes: config.get("skip_update_on_spike").is_some(),
            };
            clips(rule.build(), case)
        }
        "autoclip" => {
            let quantile = number("percentile", 10.0).unwrap_or(f64::NAN) / 100.0;
            clips(AutoClip { quantile, ..AutoClip::default() }.build(), case)
        }
        other => Err(fail(format!("rule {other}"))),
    }
}

fn clips<C: NormBound>(clip: eigenstep::Result<HistoryClip<C>>, case: &Value) -> Outcome {
    let text = |error: eigenstep::Error| fail(error.to_string());
    let mut clip = clip.map_err(text)?;
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    let mut found = Vec::new();
    for norm in json::reals::<f64>(input, "norms")? {
        let gradient = ndarray::array![norm];
        found.push(clip.clip(&gradient).map_err(text)?.factor() * norm);
    }
    EXACT.slice("norms", &found, &json::reals::<f64>(expect, "norms")?)
}
