//! Runs of zeroth-order methods whose directions the case supplies.

use super::compare::{Tolerance, equal};
use super::noise::Table;
use super::objectives::{Model, Objective};
use super::{Outcome, fail, json, skip};
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    ConservativeChoice, DirectionSampler, Estimator, FiniteDifference, Hizoo, LayerScaled,
    LayerScales, Lozo, Mask, Purpose, Random, Report, Slope, Sparse, Spsa, SpsaEstimator, SubZero,
    ZerothOrder,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Difference quotients magnify the rounding of losses.
pub const TOLERANCE: Tolerance = Tolerance { rtol: 1e-9, atol: 1e-10 };

/// Options of a case; each has to be read.
struct Config<'c> {
    options: &'c Map<String, Value>,
    unread: Vec<&'c str>,
}

impl<'c> Config<'c> {
    fn of(case: &'c Value) -> Outcome<Self> {
        let options = json::object(case, "config")?;
        Ok(Self { options, unread: options.keys().map(String::as_str).collect() })
    }

    fn get(&mut self, key: &str) -> Option<&'c Value> {
        self.unread.retain(|unread| *unread != key);
        self.options.get(key)
    }

    fn number(&mut self, key: &str, default: f64) -> Outcome<f64> {
        self.get(key).map_or(Ok(default), json::number)
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn text(&mut self, key: &str) -> &'c str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn by_name(&mut self, key: &str) -> Outcome<BTreeMap<String, f64>> {
        let given = self.get(key).and_then(Value::as_object).ok_or_else(|| fail(key))?;
        given.iter().map(|(name, value)| Ok((name.clone(), json::number(value)?))).collect()
    }

    fn finish(self) -> Outcome {
        match self.unread.first() {
            Some(key) => Err(skip(format!("the runner does not read the option `{key}`"))),
            None => Ok(()),
        }
    }
}

fn random(distribution: &str) -> Outcome<Random> {
    match distribution {
        "gaussian" | "" => Ok(Random::Gaussian),
        "rademacher" => Ok(Random::Rademacher),
        "sphere" => Ok(Random::Sphere),
        other => Err(skip(format!("the runner does not know the distribution `{other}`"))),
    }
}

fn difference(name: &str) -> Outcome<FiniteDifference> {
    match name {
        "central" | "" => Ok(FiniteDifference::Central),
        "forward" => Ok(FiniteDifference::Forward),
        other => Err(skip(format!("the runner does not know the side `{other}`"))),
    }
}

/// A method of the family.
pub fn run(name: &str, case: &Value) -> Outcome {
    json::only(
        case,
        &["optimizer", "origin", "dtype", "config", "objective", "params", "steps", "notes"],
    )?;
    let mut config = Config::of(case)?;
    let (mu, lr) = (config.number("mu", 1e-3)?, config.number("lr", 1e-3)?);
    let num_samples = config.number("q", 1.0)? as usize;
    let difference = difference(config.text("sided"))?;
    let sampler = random(config.text("distribution"))?;
    let spsa = Spsa { epsilon: mu, num_samples, difference, ..Spsa::with_sampler(sampler) };
    let case = Case::new(case)?;
    match name {
        "zo_sgd_conservative" => {
            config.finish()?;
            return case.conservative(spsa, lr);
        }
        "zo_sgd_blockwise" => {
            config.finish()?;
            return case.blockwise(spsa, Sgd { lr, ..Sgd::default() }.build()?);
        }
        _ => {}
    }
    let scale_by_rank = config.flag("scale_by_rank", true);
    let (rank, interval) = (config.number("rank", 2.0)?, config.number("interval", 1.0)?);
    let (rank, interval) = (rank as usize, interval as u64);
    match name {
        "zo_sgd_layer_scaled" => {
            let scales = LayerScales::Given(config.by_name("c")?);
            let unbiased = config.flag("unbiased", true);
            let sampler = LayerScaled { sampler, scales, unbiased };
            case.run(of(sampler, &spsa), optimizer(name, config, lr)?)
        }
        "sparse_mezo" => {
            let sampler = Sparse { sampler, mask: Mask::Below(config.by_name("threshold")?) };
            case.run(of(sampler, &spsa), optimizer(name, config, lr)?)
        }
        "hizoo" => {
            let alpha = config.number("alpha", 0.0)?;
            if config.number("h0", 1.0)? != 1.0 {
                return Err(skip("another h at first"));
            }
            let sampler = Hizoo { alpha, ..Hizoo::default() };
            case.run(of(sampler, &spsa), optimizer(name, config, lr)?)
        }
        "lozo" | "lozo_m" => {
            let beta = config.number("beta", 0.0)?;
            let momentum = if name == "lozo_m" { beta } else { 0.0 };
            let sampler = Lozo { rank, interval, scale_by_rank, momentum };
            case.run(of(sampler, &spsa), optimizer(name, config, lr)?)
        }
        "subzero" => {
            let sampler = SubZero { rank, interval, rescale: config.flag("rescale", true) };
            case.run(of(sampler, &spsa), optimizer(name, config, lr)?)
        }
        "zo_sign" if config.text("sign_mode") == "coefficient" => {
            let spsa = Spsa { slope: Slope::Sign, ..spsa };
            case.run(spsa, optimizer("zo_sgd", config, lr)?)
        }
        _ => case.run(spsa, optimizer(name, config, lr)?),
    }
}

/// The same with another sampler.
fn of<S: DirectionSampler>(sampler: S, spsa: &Spsa) -> Spsa<S> {
    let Spsa { epsilon, num_samples, difference, .. } = *spsa;
    Spsa { epsilon, num_samples, difference, ..Spsa::with_sampler(sampler) }
}

/// What the estimate goes into.
fn optimizer(name: &str, mut config: Config<'_>, lr: f64) -> Outcome<Box<dyn Optimizer<f64>>> {
    let weight_decay = config.number("weight_decay", 0.0)?;
    let betas = (config.number("beta1", 0.9)?, config.number("beta2", 0.999)?);
    let eps = config.number("eps", 1e-8)?;
    Ok(match name {
        "zo_adam" => {
            config.finish()?;
            Box::new(Adam { lr, betas, eps, weight_decay, ..Adam::default() }.build()?)
        }
        "zo_adamw" => {
            config.finish()?;
            Box::new(AdamW { lr, betas, eps, weight_decay, ..AdamW::default() }.build()?)
        }
        "zo_adamm" => {
            config.finish()?;
            let adam = Adam { amsgrad: true, bias_correction: false, ..Adam::default() };
            Box::new(Adam { lr, betas, eps, weight_decay, ..adam }.build()?)
        }
        "zo_sign" => {
            config.get("sign_mode");
            config.finish()?;
            Box::new(SignSgd { lr, weight_decay, ..SignSgd::default() }.build()?)
        }
        _ => {
            let sgd = Sgd {
                lr,
                weight_decay,
                momentum: config.number("momentum", 0.0)?,
                dampening: config.number("dampening", 0.0)?,
                nesterov: config.flag("nesterov", false),
                ..Sgd::default()
            };
            let spared: Vec<String> = match config.get("no_decay") {
                Some(names) => {
                    serde_json::from_value(names.clone()).map_err(|e| fail(e.to_string()))?
                }
                None => Vec::new(),
            };
            config.get("sign_mode");
            config.finish()?;
            // a group has to select something
            if spared.is_empty() {
                return Ok(Box::new(sgd.build()?));
            }
            let select = Select::by("no_decay", move |name, _| spared.iter().any(|s| s == name));
            Box::new(sgd.build()?.with_group(select, |group| group.weight_decay = 0.0)?)
        }
    })
}

struct Case<'c> {
    model: Model,
    objective: Objective,
    steps: &'c [Value],
    noise: Table,
}

impl<'c> Case<'c> {
    fn new(case: &'c Value) -> Outcome<Self> {
        let model = Model::of(case)?;
        let steps = json::list(case, "steps")?;
        let mut noise = Table::default();
        for (t, step) in steps.iter().enumerate() {
            let t = t as u64;
            if step.get("directions").is_some() {
                noise.directions(t, &model, json::list(step, "directions")?)?;
            }
            let names = [
                ("U", Purpose::LeftFactor, "w"),
                ("V", Purpose::RightFactor, "w"),
                ("Z", Purpose::Direction, "w"),
                ("z_b", Purpose::Direction, "b"),
            ];
            for (key, purpose, name) in names {
                if let (Some(values), Some(tensor)) = (step.get(key), model.index(name)) {
                    noise.set(purpose, (t, 0, tensor), json::numbers(values)?);
                }
            }
        }
        Ok(Self { model, objective: Objective::of(json::field(case, "objective")?)?, steps, noise })
    }

    fn estimator<S: DirectionSampler>(&self, spsa: Spsa<S>) -> Outcome<SpsaEstimator<f64, S>> {
        Ok(spsa.build::<f64>()?.with_noise(self.noise.clone()))
    }

    fn run<S: DirectionSampler>(
        mut self,
        spsa: Spsa<S>,
        optimizer: Box<dyn Optimizer<f64>>,
    ) -> Outcome {
        let estimator = self.estimator(spsa)?;
        let mut optimizer = optimizer;
        let mut estimator = estimator;
        for (index, step) in self.steps.iter().enumerate() {
            let known = [
                "directions",
                "coefficients",
                "loss0",
                "loss_plus",
                "loss_minus",
                "expect",
                "mask",
                "hessian",
                "U",
                "V",
                "Z",
                "N",
                "z_b",
                "coefficient",
            ];
            json::only(step, &known)?;
            let objective = &self.objective;
            let estimate = estimator.estimate(&mut self.model, |m| objective.at(&m.flat()))?;
            check_report(step, estimate.report())?;
            optimizer.step(&mut self.model, &estimate)?;
            drop(estimate);
            check_state(step, &self.model, &estimator.state_dict())?;
            check(step, &self.model).map_err(|stop| stop.at(format!("step {index}")))?;
        }
        Ok(())
    }

    fn conservative(mut self, spsa: Spsa, lr: f64) -> Outcome {
        let mut estimator = self.estimator(spsa)?;
        for (index, step) in self.steps.iter().enumerate() {
            let known =
                ["directions", "coefficients", "loss0", "loss_down", "loss_up", "picked", "expect"];
            json::only(step, &known)?;
            let objective = &self.objective;
            let choice =
                estimator.step_conservatively(lr, &mut self.model, |m| objective.at(&m.flat()))?;
            let picked = match choice {
                ConservativeChoice::Down => "down",
                ConservativeChoice::Up => "up",
                ConservativeChoice::Stay => "stay",
            };
            equal("picked", &[picked], &[json::text(step, "picked")?])?;
            check(step, &self.model).map_err(|stop| stop.at(format!("step {index}")))?;
        }
        Ok(())
    }

    fn blockwise(mut self, spsa: Spsa, optimizer: impl Optimizer<f64>) -> Outcome {
        let blocks: Vec<Select> = self.model.0.iter().map(|(name, _)| Select::name(name)).collect();
        let mut pair = ZerothOrder::new(self.estimator(spsa)?, optimizer);
        for (index, step) in self.steps.iter().enumerate() {
            json::only(step, &["directions", "coefficients", "expect"])?;
            let objective = &self.objective;
            pair.step_blockwise(&mut self.model, &blocks, |m| objective.at(&m.flat()))?;
            check(step, &self.model).map_err(|stop| stop.at(format!("step {index}")))?;
        }
        Ok(())
    }
}

fn check_report(step: &Value, report: &Report) -> Outcome {
    for key in ["coefficients", "coefficient"] {
        if let Some(expected) = step.get(key) {
            TOLERANCE.slice(key, &report.coefficients, &json::numbers(expected)?)?;
        }
    }
    let Some(plus) = step.get("loss_plus") else { return Ok(()) };
    let (plus, minus) = (json::numbers(plus)?, json::numbers(json::field(step, "loss_minus")?)?);
    let along: Vec<f64> = match minus.is_empty() {
        true => plus,
        false => plus.into_iter().zip(minus).flat_map(|(plus, minus)| [plus, minus]).collect(),
    };
    let centre = report.losses.len() - along.len();
    TOLERANCE.slice("losses", report.losses.get(centre..).unwrap_or_default(), &along)?;
    match (report.losses.first(), step.get("loss0")) {
        (Some(&found), Some(expected)) if centre == 1 => {
            TOLERANCE.number("loss0", found, json::number(expected)?)
        }
        _ => Ok(()),
    }
}

/// What the directions remember.
fn check_state(step: &Value, model: &Model, state: &StateDict) -> Outcome {
    let saved = |key: &str| {
        let tensor = state.tensors.get(key).ok_or_else(|| fail(format!("no `{key}`")))?;
        super::trajectory::elements(tensor)
    };
    if step.get("hessian").is_some() {
        for (name, values) in json::object(step, "hessian")? {
            let tensor = model.index(name).ok_or_else(|| fail("hessian"))?;
            let found = saved(&format!("law.hessian.{tensor}"))?;
            TOLERANCE.slice("hessian", &found, &json::numbers(values)?)?;
        }
    }
    match step.get("N") {
        Some(values) => TOLERANCE.slice("N", &saved("law.momentum.0")?, &json::numbers(values)?),
        None => Ok(()),
    }
}

fn check(step: &Value, model: &Model) -> Outcome {
    let expected = json::object(step, "expect")?;
    equal("number of parameters", &[model.0.len()], &[expected.len()])?;
    for (name, value) in &model.0 {
        let values = expected.get(name).ok_or_else(|| fail(format!("no `{name}`")))?;
        let found: Vec<f64> = value.iter().copied().collect();
        TOLERANCE.slice(name, &found, &json::numbers(values)?)?;
    }
    Ok(())
}
