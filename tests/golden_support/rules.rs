//! First-order rules as `pytorch_optimizer` computes them: it counts steps per group.

use super::compare::Tolerance;
use super::options::Spelling;
use super::trajectory::{self, Reference};
use super::{Outcome, json};
use eigenstep::prelude::*;
use serde_json::Value;

/// Names that the package has for options of many rules.
const NAMES: Spelling = Spelling::new(
    &[("weight_decouple", "decoupled_weight_decay"), ("ams_bound", "amsgrad")],
    &[("adamw", "AdamW"), ("lion", "Lion")],
);

const PACKAGE: Reference = Reference { group_steps: true, ..Reference::new(NAMES) };

/// Decay that is coupled by default, where the crate follows the paper.
const COUPLED: Reference = Reference { defaults: &[("decoupled_weight_decay", 0.0)], ..PACKAGE };

/// `1 + γλ` divides by default; the slot holds the gradient with its sign changed.
const ADAN: Reference = Reference {
    slots: &[("previous_grad", "neg_pre_grad")],
    group_steps: true,
    ..Reference::new(Spelling::new(&[("weight_decouple", "no_prox")], &[]))
};

/// Step sizes in `f32`, and a number that nothing depends on.
const LAPROP: Reference = Reference { derived: &["exp_avg_lr_2"], atol: 1e-7, ..PACKAGE };

/// The weights of the averages in `f32`.
const QHADAM: Reference = Reference { atol: 2e-6, ..PACKAGE };

const QHM: Reference = Reference { defaults: &[("momentum", 0.0), ("nu", 1.0)], ..PACKAGE };

/// The state is a dictionary of its own, which the cases do not have.
const AGGMO: Reference = Reference {
    own: &["momentum_buffer_0", "momentum_buffer_1", "momentum_buffer_2", "momentum_buffer_3"],
    ..PACKAGE
};

const PID: Reference = Reference { defaults: &[("momentum", 0.0)], ..PACKAGE };

const MADGRAD: Reference = Reference { defaults: &[("lr", 1e-3)], ..PACKAGE };

const SIGN_SGD: Reference = Reference { defaults: &[("momentum", 0.9)], ..PACKAGE };

const D_ADAPT: Spelling = Spelling::new(&[("decouple", "decoupled_weight_decay")], &[]);

/// Sums over all tensors in `f32`.
const D_ADAPT_PACKAGE: Reference = Reference {
    atol: 1e-8,
    slots: &[("alpha_k", "alphak")],
    group_steps: true,
    ..Reference::new(D_ADAPT)
};

const D_ADAPT_ADAGRAD: Reference = Reference { defaults: &[("eps", 0.0)], ..D_ADAPT_PACKAGE };

const D_ADAPT_LION: Reference = Reference { defaults: &[("betas.1", 0.999)], ..D_ADAPT_PACKAGE };

/// Runs a case, if it is about one of these rules.
pub fn run(name: &str, case: &Value) -> Option<Outcome> {
    Some(match name {
        "AdaBelief" => trajectory::run_as::<AdaBelief>(case, PACKAGE),
        "Yogi" => trajectory::run_as::<Yogi>(case, PACKAGE),
        "Adan" | "AdanClipped" => trajectory::run_as::<Adan>(case, ADAN),
        "ADOPT" => trajectory::run_as::<Adopt>(case, PACKAGE),
        "AdEMAMix" => trajectory::run_as::<AdEmaMix>(case, COUPLED),
        "MARS" => mars(case),
        "StableAdamW" => trajectory::run_as::<StableAdamW>(case, PACKAGE),
        "LaProp" => trajectory::run_as::<LaProp>(case, LAPROP),
        "QHAdam" => trajectory::run_as::<QhAdam>(case, QHADAM),
        "QHM" => trajectory::run_as::<Qhm>(case, QHM),
        "AggMo" => aggmo(case),
        "MADGRAD" => trajectory::run_as::<MadGrad>(case, MADGRAD),
        "AdaBound" => trajectory::run_as::<AdaBound>(case, PACKAGE),
        "AdaMod" => trajectory::run_as::<AdaMod>(case, PACKAGE),
        "DiffGrad" => trajectory::run_as::<DiffGrad>(case, PACKAGE),
        "Adai" => trajectory::run_as::<Adai>(case, PACKAGE),
        "Amos" => trajectory::run_as::<Amos>(case, PACKAGE),
        "PID" => trajectory::run_as::<Pid>(case, PID),
        "Tiger" => trajectory::run_as::<Tiger>(case, PACKAGE),
        "SignSGD" => sign_sgd(case),
        "DAdaptAdam" => trajectory::run::<DAdaptAdam>(case, D_ADAPT),
        "DAdaptSGD" => trajectory::run::<DAdaptSgd>(case, D_ADAPT),
        "DAdaptAdaGrad" => trajectory::run_as::<DAdaptAdagrad>(case, D_ADAPT_ADAGRAD),
        "DAdaptLion" => trajectory::run_as::<DAdaptLion>(case, D_ADAPT_LION),
        "ScheduleFreeSGD" => trajectory::run::<ScheduleFreeSgd>(case, NAMES),
        "ScheduleFreeRAdam" => trajectory::run::<ScheduleFreeRAdam>(case, NAMES),
        _ => return None,
    })
}

/// Decay in the gradient is the wrapper's.
fn sign_sgd(case: &Value) -> Outcome {
    let mut case = case.clone();
    let config = case.get_mut("config").and_then(Value::as_object_mut);
    let coupled = config.and_then(|config| config.remove("weight_decouple"));
    let form = if coupled == Some(false.into()) { DecayForm::Coupled } else { DecayForm::Inner };
    let defaults = WithDecay { decay_form: form, ..WithDecay::default() };
    trajectory::run_from::<WithDecay<SignSgd>>(&case, defaults, SIGN_SGD)
}

/// How many momenta there are is no option.
fn aggmo(case: &Value) -> Outcome {
    let mut defaults = AggMo::default();
    if let Some(Value::Array(betas)) = json::field(case, "config")?.get("betas") {
        defaults.betas = vec![0.0; betas.len()];
    }
    trajectory::run_from(case, defaults, AGGMO)
}

/// The package takes the learning rate of vectors, and keeps its ratio to the other.
fn mars(case: &Value) -> Outcome {
    let mut case = case.clone();
    let config = case.get_mut("config").and_then(Value::as_object_mut);
    if let Some(config) = config {
        let lr = config.get("lr").map_or(Ok(3e-3), json::number)?;
        let lr_1d = config.remove("lr_1d").map_or(Ok(3e-3), |lr| json::number(&lr))?;
        config.insert("lr_1d_factor".to_owned(), (lr_1d / lr).into());
    }
    // without moments the package keeps a slot of zeros
    let config = json::field(&case, "config")?;
    let signs = config.get("mars_type").is_some_and(|rule| rule == "lion");
    let all = config.get("optimize_1d").is_some_and(|all| all == true);
    let derived: &[_] = if signs && all { &["exp_avg_sq"] } else { &[] };
    trajectory::run_as::<Mars>(&case, Reference { derived, ..PACKAGE })
}

/// The schedules of AdEMAMix.
pub fn ademamix_schedules(case: &Value) -> Outcome {
    let (input, expect) = (json::field(case, "input")?, json::field(case, "expect")?);
    let number = |key: &str| json::number(json::field(input, key)?);
    let rule = AdEmaMix {
        betas: (number("beta1")?, 0.999, number("beta3")?),
        alpha: number("alpha")?,
        t_alpha_beta3: Some(number("T")?),
        ..AdEmaMix::default()
    };
    let t = number("step")? as u64;
    let tolerance = Tolerance::of::<f64>();
    tolerance.number(
        "alpha_t",
        rule.alpha_at(t),
        json::number(json::field(expect, "alpha_t")?)?,
    )?;
    tolerance.number("beta3_t", rule.beta3_at(t), json::number(json::field(expect, "beta3_t")?)?)
}
