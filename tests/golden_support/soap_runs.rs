//! SOAP as its paper's code and as Distributed Shampoo have it.

use super::compare::Tolerance;
use super::matrix_runs::{Options, run};
use super::{Outcome, fail, json, skip};
use eigenstep::prelude::*;
use eigenstep::second_order::Reshape;
use eigenstep::second_order::soap::{BasisSolver, SoapOrder};
use serde_json::Value;

/// What the trajectories are compared to.
const TOLERANCE: Tolerance = Tolerance { rtol: 1e-8, atol: 1e-8 };

/// The paper's code; options that are left out have its defaults.
pub fn soap(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let default = Soap::default();
    let lr = options.number_or("lr", default.inner.lr)?;
    let betas = match options.get("betas") {
        Some(_) => options.pair("betas")?,
        None => default.inner.betas,
    };
    let eps = options.number_or("eps", default.inner.eps)?;
    let weight_decay = options.number_or("weight_decay", default.inner.weight_decay)?;
    let bias_correction = options.get("correct_bias").and_then(Value::as_bool).unwrap_or(true);
    // none, or a negative number: that of the second moment
    let shampoo_beta = options.get("shampoo_beta").and_then(Value::as_f64);
    let max_dim = options.number_or("max_precondition_dim", default.max_dim as f64)? as usize;
    let merges = options.flag("merge_dims");
    let every = options.number_or("precondition_frequency", default.update_basis_every as f64)?;
    let method = Soap {
        inner: AdamW { lr, betas, eps, weight_decay, bias_correction, ..default.inner },
        shampoo_beta: shampoo_beta.filter(|beta| *beta >= 0.0).unwrap_or(betas.1),
        update_basis_every: every as u64,
        max_dim,
        reshape: if merges { Reshape::Leading } else { Reshape::AsIs },
        precondition_1d: options.flag("precondition_1d"),
        normalize_grads: options.flag("normalize_grads"),
        ..default
    };
    options.finish()?;
    run(case, method, TOLERANCE, |_, _| 0.0)
}

/// The `EigenvalueCorrectedShampoo` of Distributed Shampoo.
pub fn fb_soap(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    options.text("preconditioner");
    for (name, expected) in [("grafting", "none"), ("weight_decay_type", "decoupled")] {
        let found = options.text(name);
        if !["", expected].contains(&found) {
            return Err(skip(format!("SOAP knows no `{name}` {found}")));
        }
    }
    let betas = options.pair("betas")?;
    if ![-1.0, betas.0].contains(&options.number_or("beta3", -1.0)?) {
        return Err(skip("SOAP knows no `beta3`"));
    }
    let (lr, weight_decay) = (options.number("lr")?, options.number_or("weight_decay", 0.0)?);
    let (epsilon, every) = (options.number("epsilon")?, options.count("precondition_frequency")?);
    let start = match options.number_or("start_preconditioning_step", -1.0)? {
        start if start < 0.0 => every as u64,
        start => start as u64,
    };
    let bias_correction = options.get("use_bias_correction").and_then(Value::as_bool);
    let bias_correction = bias_correction.unwrap_or(true);
    let block_dim = options.count("max_preconditioner_dim")?;
    let target = options.number_or("target_parameter_dimensionality", 1.0)?;
    let reshape =
        if target.is_finite() { Reshape::Merged { dims: target as usize } } else { Reshape::AsIs };
    let solver = match options.text("eig") {
        "qr" => BasisSolver::Qr {
            max_iterations: options.number_or("qr_max_iterations", 1.0)? as usize,
            tolerance: options.number_or("qr_tolerance", 0.0)?,
        },
        _ => BasisSolver::Eigh,
    };
    let eps = epsilon;
    let method = Soap {
        order: SoapOrder::Distributed { start, epsilon, bias_correction },
        solver,
        shampoo_beta: betas.1,
        update_basis_every: every as u64,
        ignored: ignored(options.get("ignored_basis_change_dims"))?,
        max_dim: usize::MAX >> 11,
        reshape,
        block_dim: Some(block_dim),
        precondition_1d: true,
        ..Soap::with_inner(AdamW {
            lr,
            betas,
            eps,
            weight_decay,
            bias_correction,
            ..AdamW::default()
        })
    };
    options.finish()?;
    run(case, method, TOLERANCE, |_, _| 0.0)
}

/// `{"2": [1]}`: of tensors with two dimensions the second.
fn ignored(dims: Option<&Value>) -> Outcome<Vec<(usize, usize)>> {
    let mut ignored = Vec::new();
    for (order, axes) in dims.and_then(Value::as_object).into_iter().flatten() {
        let order = order.parse().map_err(|_| fail(format!("`{order}` is no number")))?;
        ignored.extend(json::numbers(axes)?.into_iter().map(|axis| (order, axis as usize)));
    }
    Ok(ignored)
}
