//! Optimizers around optimizers, and averages of weights.

use super::compare::Tolerance;
use super::objectives::Model;
use super::options::Spelling;
use super::trajectory::{Tree, check_parameters, count_absent, elements, gradients, parameters};
use super::{Outcome, fail, json, skip};
use eigenstep::gradient::centralize;
use eigenstep::hyper::Hyperparameters;
use eigenstep::params::{GradVisitor, Gradients};
use eigenstep::prelude::*;
use ndarray::{Array1, Array2, ArrayD};
use serde_json::{Map, Value};

/// A reference's names of options, which are the crate's but for those of Lookahead.
const NAMES: Spelling = Spelling::new(
    &[
        ("k", "lookahead_k"),
        ("alpha", "lookahead_alpha"),
        ("pullback_momentum", "lookahead_pullback_momentum"),
        ("lambda0", "lambda"),
    ],
    &[],
);

fn configured<C: Hyperparameters>(mut config: C, options: &Map<String, Value>) -> Outcome<C> {
    for (name, value) in NAMES.translate(&config, options)? {
        config.set_option(&name, value)?;
    }
    Ok(config)
}

/// The optimizer that a case calls its base.
fn base(name: &str, options: &Map<String, Value>) -> Outcome<Box<dyn Optimizer<f64>>> {
    let policy = NonFinite::Propagate;
    Ok(match name {
        "SGD" => Box::new(configured(Sgd::default(), options)?.build()?.with_non_finite(policy)),
        "AdamW" => {
            Box::new(configured(AdamW::default(), options)?.build()?.with_non_finite(policy))
        }
        other => return Err(skip(format!("the runner does not know the base `{other}`"))),
    })
}

/// The text of an option that is taken out of the others.
fn text(options: &mut Map<String, Value>, name: &str) -> Outcome<String> {
    let found = options.remove(name);
    let found = found.as_ref().and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| fail(format!("config: no `{name}`")))
}

/// Slow weights around SGD or AdamW.
pub fn lookahead(case: &Value) -> Outcome {
    json::only(case, &["optimizer", "origin", "dtype", "config", "params", "steps", "notes"])?;
    let mut options = json::object(case, "config")?.clone();
    let name = text(&mut options, "base")?;
    let inner = options.remove("base_config").unwrap_or_default();
    let inner = base(&name, inner.as_object().ok_or_else(|| fail("base_config is no object"))?)?;
    let mut opt =
        Lookahead::with_options(inner, configured(LookaheadOptions::default(), &options)?)?;
    let mut params: Tree<ArrayD<f64>> = parameters(case)?;
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["grads", "expect"])?;
        let grads = gradients(step, &params)?;
        opt.step(&mut params, &grads)?;
        check_parameters(step, "expect", &params, Tolerance::of::<f64>(), &Tree::new())
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    Ok(())
}

/// RAdam, slow weights and centralised gradients, as `pytorch_optimizer` composes them.
pub fn ranger(case: &Value) -> Outcome {
    json::only(
        case,
        &["optimizer", "origin", "dtype", "config", "params", "steps", "notes", "final_state"],
    )?;
    let mut options = json::object(case, "config")?.clone();
    // without it the package climbs while the second moment is not to be trusted
    if options.remove("degenerated_to_sgd") != Some(true.into()) {
        return Err(skip("the first steps of Ranger go up"));
    }
    let centred = options.remove("use_gc") != Some(false.into());
    let slow: Map<String, Value> =
        ["k", "alpha"].iter().filter_map(|key| options.remove_entry(*key)).collect();
    let slow = configured(LookaheadOptions { k: 6, ..LookaheadOptions::default() }, &slow)?;
    let inner =
        RAdam { betas: (0.95, 0.999), eps: 1e-5, decoupled_weight_decay: true, ..RAdam::default() };
    let inner = configured(inner, &options)?.build()?.with_non_finite(NonFinite::Propagate);
    let mut opt = Lookahead::with_options(inner, slow)?;
    let mut params: Tree<ArrayD<f64>> = parameters(case)?;
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["grads", "expect"])?;
        let grads = gradients(step, &params)?;
        if centred {
            opt.step(&mut params, &centralize(&grads))?;
        } else {
            opt.step(&mut params, &grads)?;
        }
        count_absent(&mut opt, &grads)?; // the package counts the steps of the group
        check_parameters(step, "expect", &params, Tolerance::of::<f64>(), &Tree::new())
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    final_state(case, &opt.state_dict())
}

/// Moments and slow weights after the last step.
fn final_state(case: &Value, dict: &StateDict) -> Outcome {
    for (param, slots) in json::object(case, "final_state")? {
        for (slot, value) in slots.as_object().into_iter().flatten() {
            let name = if slot == "slow_buffer" { "slow" } else { slot };
            let key = format!("state.{param}.{name}");
            let found = dict.tensors.iter().find(|(found, _)| found.ends_with(&key));
            let (_, found) = found.ok_or_else(|| fail(format!("no `{key}`")))?;
            let expected = json::numbers(value.get("data").unwrap_or(value))?;
            Tolerance::of::<f64>().slice(&key, &elements(found)?, &expected)?;
        }
    }
    Ok(())
}

/// The objectives of closure cases.
enum Objective {
    Quadratic { a: Array2<f64>, b: Array1<f64> },
    LogCosh { m: Array2<f64>, y: Array1<f64> },
}

impl Objective {
    fn of(value: &Value) -> Outcome<Self> {
        let vector = |key| Ok::<_, super::Stop>(Array1::from(json::reals::<f64>(value, key)?));
        let matrix = |key, rows: usize| -> Outcome<Array2<f64>> {
            let values = json::reals::<f64>(value, key)?;
            let shape = (rows, values.len() / rows.max(1));
            Array2::from_shape_vec(shape, values).map_err(|error| fail(error.to_string()))
        };
        match json::text(value, "kind")? {
            "quadratic" => {
                let b = vector("b")?;
                Ok(Self::Quadratic { a: matrix("A", b.len())?, b })
            }
            "logcosh" => {
                let y = vector("y")?;
                Ok(Self::LogCosh { m: matrix("M", json::count(value, "rows")?)?, y })
            }
            other => Err(skip(format!("the runner does not know the objective `{other}`"))),
        }
    }

    fn at(&self, x: &Array1<f64>) -> (f64, Array1<f64>) {
        match self {
            Self::Quadratic { a, b } => {
                let ax = a.dot(x);
                (x.dot(&ax) / 2.0 - b.dot(x), ax - b)
            }
            Self::LogCosh { m, y } => {
                let r = m.dot(x) - y;
                (r.mapv(|r| r.cosh().ln()).sum(), m.t().dot(&r.mapv(f64::tanh)))
            }
        }
    }

    /// Value and gradient at the parameters, as one vector in the order of the case.
    fn of_model(&self, model: &Model) -> (f64, Flat) {
        let (value, gradient) = self.at(&Array1::from(model.flat()));
        let (mut elements, mut leaves) = (gradient.iter(), model.0.clone());
        for (_, leaf) in &mut leaves {
            leaf.iter_mut().zip(&mut elements).for_each(|(to, from)| *to = *from);
        }
        (value, Flat(leaves))
    }
}

/// Gradients by name.
struct Flat(Vec<(String, ArrayD<f64>)>);

impl Gradients<f64> for Flat {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f64>) {
        for (name, leaf) in &self.0 {
            visitor.child(name, leaf);
        }
    }
}

fn check(step: &Value, key: &str, model: &Model) -> Outcome {
    let params: Tree<ArrayD<f64>> = model.0.iter().cloned().collect();
    check_parameters(step, key, &params, Tolerance::of::<f64>(), &Tree::new())
}

/// SAM and ASAM around SGD or AdamW.
pub fn sam(case: &Value) -> Outcome {
    let known = ["optimizer", "origin", "dtype", "config", "objective", "params", "steps", "notes"];
    json::only(case, &known)?;
    let objective = Objective::of(json::field(case, "objective")?)?;
    let mut options = json::object(case, "config")?.clone();
    let name = text(&mut options, "base")?;
    let mut own = Map::new();
    for key in ["rho", "adaptive"] {
        own.extend(options.remove_entry(key));
    }
    // the reference adds nothing to the magnitudes of parameters
    let defaults = SamOptions { eta: 0.0, ..SamOptions::default() };
    let mut opt = Sam::with_options(base(&name, &options)?, configured(defaults, &own)?)?;
    let mut model = Model::of(case)?;
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["expect_perturbed", "expect"])?;
        let mut points = Vec::new();
        opt.step_with(&mut model, |model| {
            points.push(model.clone());
            objective.of_model(model)
        })?;
        let [_, perturbed] = points.as_slice() else { return Err(fail("not two evaluations")) };
        check(step, "expect_perturbed", perturbed)
            .and_then(|()| check(step, "expect", &model))
            .map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    Ok(())
}

/// IGNITE around SGD.
pub fn ignite(case: &Value) -> Outcome {
    let known = ["optimizer", "origin", "dtype", "config", "objective", "surrogate_mean", "params"];
    json::only(case, &[&known[..], &["steps", "notes"]].concat())?;
    let objective = Objective::of(json::field(case, "objective")?)?;
    let surrogate = Objective::of(json::field(case, "surrogate_mean")?)?;
    let mut options = json::object(case, "config")?.clone();
    let lr: Map<String, Value> = options.remove_entry("lr").into_iter().collect();
    let defaults = IgniteOptions { clamp_nonneg: false, ..IgniteOptions::default() };
    let mut opt = Ignite::with_options(base("SGD", &lr)?, configured(defaults, &options)?)?;
    let mut model = Model::of(case)?;
    let tolerance = Tolerance::of::<f64>();
    for (index, step) in json::list(case, "steps")?.iter().enumerate() {
        json::only(step, &["lambda_used", "combined_gradient", "lambda_next", "expect"])?;
        let number = |key| json::number(json::field(step, key)?);
        let mut run = || {
            tolerance.number("lambda", opt.options().lambda, number("lambda_used")?)?;
            opt.step_with_surrogate(
                &mut model,
                |model| objective.of_model(model),
                |model| surrogate.of_model(model),
            )?;
            // a difference of gradients over r: what rounding leaves in them counts 1/r times
            let difference = Tolerance { rtol: 1e-11, atol: 1e-12 };
            let expected = json::reals::<f64>(step, "combined_gradient")?;
            difference.slice("combined_gradient", opt.gradient().values(), &expected)?;
            tolerance.number("lambda", opt.options().lambda, number("lambda_next")?)?;
            check(step, "expect", &model)
        };
        run().map_err(|stop| stop.at(format!("step {}", index + 1)))?;
    }
    Ok(())
}

/// Averages of weights.
pub fn averages(case: &Value) -> Outcome {
    json::only(case, &["kernel", "origin", "cases"])?;
    for case in json::list(case, "cases")? {
        json::only(case, &["input", "config", "expect"])?;
        let config = json::field(case, "config")?;
        json::only(config, &["kind", "decay"])?;
        let ema = || -> Outcome<Ema> {
            Ok(Ema { decay: json::number(json::field(config, "decay")?)?, ..Ema::default() })
        };
        match json::text(config, "kind")? {
            "swa" => average(case, Swa.build()?)?,
            "ema" => average(case, ema()?.build()?)?,
            "ema_warmup" => average(case, Ema { warmup: true, ..ema()? }.build()?)?,
            "ema_debiased" => average(case, Ema { debias: true, ..ema()? }.build()?)?,
            other => return Err(skip(format!("the runner does not know the average `{other}`"))),
        }
    }
    Ok(())
}

fn average<C: WeightAverage>(case: &Value, mut average: Averaged<C, f64>) -> Outcome {
    let pairs = json::list(case, "input")?.iter().zip(json::list(case, "expect")?);
    for (index, (weights, expected)) in pairs.enumerate() {
        average.update(&mut Array1::from(json::numbers(weights)?))?;
        let (what, expected) = (format!("update {}", index + 1), json::numbers(expected)?);
        Tolerance::of::<f64>().slice(&what, average.weights().values(), &expected)?;
    }
    Ok(())
}
