//! Trajectories of Distributed Shampoo.

use super::compare::Tolerance;
use super::matrix_runs::Options;
use super::trajectory::{check_parameters, gradients, parameters};
use super::{Outcome, fail, json, skip};
use eigenstep::first_order::{Averaging, PrimalAveraging};
use eigenstep::linalg::{CoupledNewton, Damping};
use eigenstep::optim::{DecaySchedule, MatrixMethod};
use eigenstep::prelude::*;
use eigenstep::second_order::factor::RootSolver;
use eigenstep::second_order::{
    Descent, Exponent, Exponents, Graft, GraftMoment, LrAdjustment, Norm, Orthogonalization,
    Reshape, Statistic, SteepestDescent,
};
use serde_json::Value;
use std::collections::BTreeMap;

const EXACT: Tolerance = Tolerance { rtol: 1e-8, atol: 1e-8 };
/// The reference keeps the coefficients of averages in 32 bits.
const AVERAGED: Tolerance = Tolerance { rtol: 1e-7, atol: 1e-7 };

/// Runs a case.
pub fn run(case: &Value) -> Outcome {
    let mut options = Options::new(case)?;
    let lrs = options.get("lr_schedule").map(json::numbers).transpose()?;
    let lr = options.number("lr")?;
    let (weight_decay, kind) = (options.number("weight_decay")?, options.text("weight_decay_type"));
    let decay = match kind {
        "corrected" => DecaySchedule::Corrected { peak_lr: lr },
        "independent" => DecaySchedule::Independent { peak_lr: lr },
        _ => DecaySchedule::WithLr,
    };
    // L2 acts on the gradient, all others behind the direction
    let l2 = if kind == "l2" { weight_decay } else { 0.0 };
    let weight_decay = weight_decay - l2;
    let averaging = match (options.get("gpa_eval_interp"), options.get("schedule_free_lr_power")) {
        (Some(x), _) => Some(Averaging::Constant(json::number(x)?)),
        (_, Some(r)) => Some(Averaging::ScheduleFree { lr_power: json::number(r)? }),
        _ => None,
    };
    match averaging {
        Some(averaging) => {
            let interp = ["gpa_train_interp", "schedule_free_train_interp"];
            let [gpa, free] = interp.map(|name| options.get(name));
            let train_interp = gpa.or(free).ok_or_else(|| fail("no point to train at"))?;
            let train_interp = json::number(train_interp)?;
            let inner = PrimalAveraging {
                lr,
                averaging,
                train_interp,
                weight_decay,
                decay,
                ..PrimalAveraging::default()
            };
            with_inner(case, inner, l2, lrs, options, AVERAGED)
        }
        None => {
            let momentum = options.number_or("momentum", 0.0)?;
            let dampening = options.number_or("dampening", 0.0)?;
            let nesterov = options.flag("nesterov");
            let inner = Descent { lr, momentum, dampening, nesterov, weight_decay, decay };
            with_inner(case, inner, l2, lrs, options, EXACT)
        }
    }
}

fn with_inner<U: Rule + Default>(
    case: &Value,
    inner: U,
    l2: f64,
    lrs: Option<Vec<f64>>,
    mut options: Options<'_>,
    tolerance: Tolerance,
) -> Outcome {
    let (filter_beta, factor_beta) = options.pair("betas")?;
    let beta3 = options.number("beta3")?;
    let filter_weight = (beta3 >= 0.0).then_some(beta3);
    let bias_correction = options.flag("use_bias_correction");
    match options.text("preconditioner") {
        kind @ ("sign_descent" | "spectral_descent") => {
            for unused in [
                "epsilon",
                "precondition_frequency",
                "start_preconditioning_step",
                "max_preconditioner_dim",
                "target_parameter_dimensionality",
            ] {
                let _ = options.get(unused);
            }
            if options.text("grafting") != "none" {
                return Err(skip("grafting onto this direction"));
            }
            let norm = if kind == "sign_descent" {
                Norm::Max { scale: options.number_or("scale", 1.0)? }
            } else {
                Norm::Spectral {
                    orthogonalization: match options
                        .get("ns_coefficients")
                        .map(json::numbers)
                        .transpose()?
                        .as_deref()
                    {
                        Some(&[a, b, c]) => Orthogonalization::Custom([a, b, c]),
                        Some(_) => return Err(fail("`ns_coefficients` are no three numbers")),
                        None => Orthogonalization::Quintic,
                    },
                    steps: options.count("ns_steps")?,
                    eps: 1e-8,
                    adjust_lr: LrAdjustment::None,
                }
            };
            let method = SteepestDescent {
                inner,
                norm,
                filter_beta,
                filter_weight,
                bias_correction,
                l2,
                batch_dims: 0,
            };
            options.finish()?;
            steps(case, method, lrs, tolerance)
        }
        "eigenvalue_corrected" => Err(skip("SOAP")),
        kind => {
            let method = Shampoo {
                statistic: match kind {
                    "root_inv_kl" | "eigendecomposed_kl" => Statistic::KullbackLeibler,
                    _ => Statistic::Gradient,
                },
                factor_beta,
                filter_beta,
                filter_weight,
                bias_correction,
                l2,
                ..shampoo(inner, kind, &mut options)?
            };
            options.finish()?;
            steps(case, method, lrs, tolerance)
        }
    }
}

fn shampoo<U: Rule + Default>(
    inner: U,
    kind: &str,
    options: &mut Options<'_>,
) -> Outcome<Shampoo<U>> {
    let limit = |options: &mut Options<'_>, name| match options.get(name) {
        Some(Value::String(text)) if text == "inf" => Ok(usize::MAX),
        Some(value) => Ok(json::number(value)? as usize),
        None => Err(fail(format!("config lacks `{name}`"))),
    };
    let distributed = Shampoo::distributed();
    let mut pipeline = distributed.pipeline;
    pipeline.reshape = match limit(options, "target_parameter_dimensionality")? {
        usize::MAX => Reshape::AsIs,
        dims => Reshape::Merged { dims },
    };
    let every = options.count("precondition_frequency")? as u64;
    let start = options.number("start_preconditioning_step")?;
    let epsilon = options.number("epsilon")?;
    let damping = Damping {
        absolute: options.number_or("abs_epsilon", epsilon)?,
        relative: options.number_or("rel_epsilon", 0.0)?,
    };
    Ok(Shampoo {
        inner,
        pipeline,
        storage: distributed.storage,
        statistic: distributed.statistic,
        factor_beta: distributed.factor_beta,
        sum_of_grams: options.flag("drop_weighting_factor"),
        bias_correction: distributed.bias_correction,
        initial: distributed.initial,
        damping,
        trace_scaling: options.number_or("trace_scaling_exponent", 0.0)?,
        root: solver(kind, options)?,
        max_aspect: None,
        batch_dims: 0,
        double_roots: distributed.double_roots,
        exponents: exponents(options)?,
        combination: distributed.combination,
        qr_signs: distributed.qr_signs,
        graft: graft(options)?,
        filter_beta: distributed.filter_beta,
        filter_weight: None,
        l2: 0.0,
        start: if start < 0.0 { every } else { start as u64 },
        update_factors_every: 1,
        update_roots_every: every,
        max_dim: limit(options, "max_preconditioner_dim")?,
        min_numel: distributed.min_numel,
        tolerated_failures: distributed.tolerated_failures,
    })
}

fn solver(kind: &str, options: &mut Options<'_>) -> Outcome<RootSolver> {
    let root = options.text("root");
    let eig = options.text("eig");
    let tolerance = options.number_or("root_tolerance", 1e-6)?;
    let max_iterations = options.number_or("root_max_iterations", 100.0)? as usize;
    let after = options.get("perturb_before").and_then(Value::as_bool) == Some(false);
    Ok(match (kind, root) {
        ("eigendecomposed" | "eigendecomposed_kl", _) if eig == "qr" => RootSolver::Qr {
            tolerance: options.number("qr_tolerance")?,
            max_iterations: options.count("qr_max_iterations")?,
        },
        (_, "" | "eigh") if after => RootSolver::Eigen,
        (_, "" | "eigh") => RootSolver::DampedEigen,
        (_, "eigh_pseudo_inverse") => RootSolver::PseudoInverse {
            rtol: options.get("rank_rtol").map(json::number).transpose()?,
            atol: options.number_or("rank_atol", 0.0)?,
        },
        (_, "coupled_newton") => RootSolver::CoupledNewton(CoupledNewton {
            tolerance,
            max_iterations,
            accept: None,
            ..CoupledNewton::DISTRIBUTED
        }),
        (_, "coupled_higher_order") => RootSolver::CoupledHigherOrder {
            order: options.count("root_order")?,
            tolerance,
            max_iterations,
        },
        _ => return Err(skip(format!("the runner does not know the root `{root}` of `{kind}`"))),
    })
}

/// `{order: p}` or `{order: {dim: p}}`.
fn exponents(options: &mut Options<'_>) -> Outcome<Exponents> {
    let Some(table) = options.get("inverse_exponent_override") else {
        return Ok(Exponents::Standard);
    };
    let parse = |text: &String| text.parse::<usize>().map_err(|error| fail(error.to_string()));
    let table: BTreeMap<String, Value> =
        serde_json::from_value(table.clone()).map_err(|error| fail(error.to_string()))?;
    let mut entries = Vec::new();
    for (order, value) in &table {
        let order = parse(order)?;
        match value.as_object() {
            None => {
                entries.push(Exponent { order, dim: None, exponent: json::number(value)? });
            }
            Some(dims) => {
                for (dim, exponent) in dims {
                    let (dim, exponent) = (Some(parse(dim)?), json::number(exponent)?);
                    entries.push(Exponent { order, dim, exponent });
                }
            }
        }
    }
    Ok(Exponents::Table(entries))
}

fn graft(options: &mut Options<'_>) -> Outcome<Graft> {
    let graft = match options.text("grafting") {
        "none" => Graft::None,
        "sgd" => Graft::Gradient,
        "adagrad" => Graft::ADAGRAD,
        "rmsprop" => Graft::RMSPROP,
        "adam" => Graft::ADAM,
        other => return Err(skip(format!("the runner does not know the graft `{other}`"))),
    };
    Ok(match graft {
        Graft::Moment(moment) => Graft::Moment(GraftMoment {
            beta: options.number_or("grafting_beta2", moment.beta)?,
            eps: options.number_or("grafting_epsilon", moment.eps)?,
            ..moment
        }),
        graft => graft,
    })
}

fn steps<C: MatrixMethod>(
    case: &Value,
    method: C,
    lrs: Option<Vec<f64>>,
    tolerance: Tolerance,
) -> Outcome {
    json::only(
        case,
        &[
            "optimizer",
            "origin",
            "dtype",
            "config",
            "params",
            "steps",
            "notes",
            "final_eval_params",
        ],
    )?;
    if json::text(case, "dtype")? != "f64" {
        return Err(skip("Distributed Shampoo is compared in `f64`"));
    }
    let mut opt = method.build::<f64>()?.with_non_finite(NonFinite::Propagate);
    let mut params = parameters::<f64>(case)?;
    let nothing = BTreeMap::new();
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["grads", "expect"])?;
        if let Some(lr) = lrs.as_ref().and_then(|lrs| lrs.get(index)) {
            opt.set_lr(0, *lr)?;
        }
        let grads = gradients(step, &params)?;
        opt.step(&mut params, &grads)?;
        check_parameters(step, "expect", &params, tolerance, &nothing)
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    if case.get("final_eval_params").is_some() {
        opt.eval(&mut params)?;
        check_parameters(case, "final_eval_params", &params, tolerance, &nothing)?;
    }
    Ok(())
}
