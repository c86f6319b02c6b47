//! Which part of the runner, and of the crate, a case is for.

use super::options::Spelling;
use super::trajectory::Reference;
use super::{
    Outcome, Stop, adafactor, curvature, distributed, exchange, fail, kernels, low_dimensional,
    lowbit, matrix_runs, rules, schedulers, skip, soap_runs, trajectory, windows, wrappers,
    zeroth_kernels, zeroth_order,
};
use eigenstep::distributed::PowerSgdOrder;
use eigenstep::prelude::*;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one case. A panic is a failure of the case, not of the run.
pub fn run(folder: &str, case: &Value) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let name = |key: &str| case.get(key).and_then(Value::as_str);
        if schedulers::claims(folder, case) {
            schedulers::run(case)
        } else if let Some(kernel) = name("kernel") {
            kernels::run(kernel, case)
        } else if let Some(optimizer) = name("optimizer") {
            self::optimizer(optimizer, case)
        } else {
            Err(skip("names neither an optimizer nor a kernel nor a scheduler"))
        }
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(fail(format!("panicked: {}", text.unwrap_or("no message"))))
    })
}

/// The variant of Distributed Shampoo that a case is about.
fn preconditioner(case: &Value) -> Option<&str> {
    case.get("config")?.get("preconditioner")?.as_str()
}

/// The methods of the crate under the names of their references.
fn optimizer(name: &str, case: &Value) -> Outcome {
    // torch.optim has the crate's names
    const TORCH: Spelling = Spelling::new(&[], &[]);
    const LION: Spelling = Spelling::new(&[("weight_decouple", "decoupled_weight_decay")], &[]);
    const PRODIGY: Spelling = Spelling::new(&[("decouple", "decoupled_weight_decay")], &[]);
    const RMSPROP_TF: Spelling =
        Spelling::new(&[("decoupled_decay", "decoupled_weight_decay")], &[]);
    const CLASSP: Spelling = Spelling::new(
        &[("epsilon", "eps"), ("apply_decay", "scaling")],
        &[("paper", "Paper"), ("code", "AsPublished")],
    );
    const CAUTIOUS: Spelling = Spelling::new(
        &[("mask_scale", "scale")],
        &[("paper", "Paper"), ("mean_clamp", "MeanClamped")],
    );
    if let Some(outcome) = rules::run(name, case) {
        return outcome;
    }
    match name {
        "ASGD" | "LAMB" | "LARS" | "LARC" | "CAME" | "Fromage" | "SGDW" | "Grams" | "NAdam"
        | "NovoGrad" | "adahessian" | "SophiaG" | "SophiaH" | "sophia_g" | "Sps" | "Momo"
        | "MomoAdam" => rule(name, case),
        "SGD" => trajectory::run::<Sgd>(case, TORCH),
        "Adam" => trajectory::run::<Adam>(case, TORCH),
        "AdamW" => trajectory::run::<AdamW>(case, TORCH),
        "RAdam" => trajectory::run::<RAdam>(case, TORCH),
        "SparseAdam" => trajectory::run::<SparseAdam>(case, TORCH),
        "Adamax" => trajectory::run::<Adamax>(case, TORCH),
        "Adagrad" => trajectory::run::<Adagrad>(case, TORCH),
        "Adadelta" => trajectory::run::<Adadelta>(case, TORCH),
        "Rprop" => trajectory::run::<Rprop>(case, TORCH),
        "RMSprop" => trajectory::run::<RmsProp>(case, TORCH),
        "RMSpropTF" => trajectory::run::<RmsPropTf>(case, RMSPROP_TF),
        "FTRL" => trajectory::run::<Ftrl>(case, TORCH),
        "Lion" => trajectory::run::<Lion>(case, LION),
        "LAMBPaper" => trajectory::run::<Lamb>(case, TORCH),
        "Prodigy" => trajectory::run::<Prodigy>(case, PRODIGY),
        "ScheduleFreeAdamW" => trajectory::run::<ScheduleFreeAdamW>(case, TORCH),
        "Adafactor" => trajectory::run::<Adafactor>(case, TORCH),
        "AdafactorOriginal" => adafactor::original(case),
        "CautiousAdamW" => trajectory::run::<Cautious<AdamW>>(case, CAUTIOUS),
        "CLASSP" => trajectory::run::<Classp>(case, CLASSP),
        "Lookahead" => wrappers::lookahead(case),
        "Ranger" => wrappers::ranger(case),
        "SAM" | "ASAM" => wrappers::sam(case),
        "ignite" | "ignite2" => wrappers::ignite(case),
        "AdamW-lowbit" => lowbit::run::<AdamW>(case),
        "Adam-lowbit" => lowbit::run::<Adam>(case),
        "Muon" | "MuonExact" => matrix_runs::muon(case),
        "Scion" => matrix_runs::scion(case),
        "SOAP" => soap_runs::soap(case),
        "DistributedShampoo" => match preconditioner(case) {
            Some("eigenvalue_corrected") => soap_runs::fb_soap(case),
            _ => distributed::run(case),
        },
        "mfac_dense" | "mfac_sparse" | "mfac_low_rank" => windows::mfac(case),
        "ggt" | "ggt_sparse" => windows::ggt(case),
        "ef_adagrad" => windows::ef_adagrad(case),
        "distributed" => exchange::quadratics(case),
        "powersgd" => exchange::power_sgd(case, PowerSgdOrder::Both),
        "powersgd_alternating" => exchange::power_sgd(case, PowerSgdOrder::Alternating),
        "kfac" => curvature::kfac(case),
        "microadam" => windows::microadam(case),
        "QuantizedShampoo" => matrix_runs::quantized_shampoo(case),
        "galore" | "GaLoreAdamW" => low_dimensional::galore(case),
        "APOLLO" | "APOLLO-mini" => low_dimensional::apollo(case),
        "ldadam" => low_dimensional::ldadam(case),
        "zo_sgd"
        | "zo_adam"
        | "zo_adamw"
        | "zo_adamm"
        | "zo_sign"
        | "zo_sgd_conservative"
        | "zo_sgd_layer_scaled"
        | "zo_sgd_blockwise"
        | "sparse_mezo"
        | "hizoo"
        | "lozo"
        | "lozo_m"
        | "subzero" => zeroth_order::run(name, case),
        "quzo" => zeroth_kernels::quzo_run(case),
        _ => Err(Stop::Skip(format!("the crate has no optimizer `{name}`"))),
    }
}

/// Rules with numbers per tensor, and rules that need more than gradients.
fn rule(name: &str, case: &Value) -> Outcome {
    const TORCH: Spelling = Spelling::new(&[], &[]);
    // Π in `f32`, also for `f64` parameters
    const NADAM: Reference = Reference { atol: 1e-7, ..Reference::new(TORCH) };
    // rate and weight of the average of the next step in `f32`
    const ASGD: Reference =
        Reference { atol: 1e-7, derived: &["eta", "mu"], ..Reference::new(TORCH) };
    const NOVOGRAD: Reference = Reference {
        slots: &[("moments", "exp_avg"), ("grads_ema", "exp_avg_sq")],
        group_steps: true,
        ..Reference::new(TORCH)
    };
    const DECOUPLED: Spelling =
        Spelling::new(&[("weight_decouple", "decoupled_weight_decay")], &[]);
    const LAMB: Reference = Reference {
        defaults: &[("form", 1.0), ("decoupled_weight_decay", 1.0), ("max_weight_norm", 10.0)],
        derived: &["weight_norm", "adam_norm", "trust_ratio"],
        group_steps: true,
        ..Reference::new(DECOUPLED)
    };
    const LARC: Reference = Reference {
        defaults: &[
            ("trust_coefficient", 0.02),
            ("eps", 1e-8),
            ("clip", 1.0),
            ("adapt_vectors", 1.0),
        ],
        ..Reference::new(TORCH)
    };
    const CAME: Reference = Reference {
        derived: &["RMS"],
        own: &["exp_avg_res"],
        group_steps: true,
        ..Reference::new(DECOUPLED)
    };
    const SGDW: Reference = Reference { defaults: &[("decay_form", 3.0)], ..Reference::new(TORCH) };
    const SOPHIA: Spelling = Spelling::new(
        &[("hessian_interval", "update_every")],
        &[("gnb", "GaussNewtonBartlett"), ("hutchinson", "Hutchinson")],
    );
    const SPS: Spelling = Spelling::new(
        &[("eta_max", "lr"), ("fstar", "lower_bound"), ("gamma_per_step", "growth_rate")],
        &[],
    );
    const MOMO: Reference = Reference {
        slots: &[("grad_avg", "exp_avg"), ("grad_avg_sq", "exp_avg_sq")],
        ..Reference::new(Spelling::new(&[("lb", "lower_bound")], &[]))
    };
    const GRAMS: Reference = Reference {
        group_steps: true,
        defaults: &[("eps", 1e-6), ("weight_decay", 0.0)],
        ..Reference::new(TORCH)
    };
    match name {
        "Grams" => trajectory::run_as::<Grams<AdamW>>(case, GRAMS),
        "ASGD" => trajectory::run_as::<Asgd>(case, ASGD),
        "LAMB" => trajectory::run_as::<Lamb>(case, LAMB),
        "LARS" => trajectory::run::<Lars>(case, TORCH),
        "LARC" => trajectory::run_as::<Lars>(case, LARC),
        "CAME" => trajectory::run_as::<Came>(case, CAME),
        "Fromage" => trajectory::run::<Fromage>(case, TORCH),
        "SGDW" => trajectory::run_as::<WithDecay<Sgd>>(case, SGDW),
        "NAdam" => trajectory::run_as::<NAdam>(case, NADAM),
        "NovoGrad" => trajectory::run_as::<NovoGrad>(case, NOVOGRAD),
        "adahessian" => trajectory::run::<AdaHessian>(case, TORCH),
        "SophiaG" | "SophiaH" | "sophia_g" => trajectory::run::<Sophia>(case, SOPHIA),
        "Sps" => trajectory::run::<SpsMax>(case, SPS),
        "Momo" => trajectory::run_as::<Momo>(case, MOMO),
        "MomoAdam" => trajectory::run_as::<MomoAdam>(case, MOMO),
        _ => Err(skip(format!("the crate has no rule `{name}`"))),
    }
}
