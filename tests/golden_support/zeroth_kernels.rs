//! Random numbers, estimates and steps of zeroth-order methods, one by one.

use super::compare::{equal, identical, same_length};
use super::noise::Table;
use super::objectives::{Model, Objective};
use super::zeroth_order::TOLERANCE;
use super::{Outcome, fail, json, skip};
use eigenstep::gradient::materialize;
use eigenstep::hyper::Hyperparameters;
use eigenstep::numeric::Real;
use eigenstep::numeric::random::philox4x32;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    ActiveSet, Coordinate, DirectionKey, DirectionSampler, Directions, Estimator, FiniteDifference,
    FitnessShaping, Fogzo, Grasp, Guided, IntegerFormat, Noise, Philox, Purpose, QuantizedNormal,
    Quzo, Random, RngStream, Spsa, StepContext, UnitNoise,
};
use ndarray::{Array1, Array2, Axis};
use serde_json::Value;
use std::collections::BTreeMap;

fn parts(case: &Value) -> Outcome<(&Value, &Value, &Value)> {
    Ok((json::field(case, "input")?, json::field(case, "config")?, json::field(case, "expect")?))
}

fn number(value: &Value, key: &str) -> Outcome<f64> {
    json::number(json::field(value, key)?)
}

fn seed(value: &Value, key: &str) -> Outcome<u64> {
    json::text(value, key)?.parse().map_err(|_| fail(format!("`{key}` is no seed")))
}

/// Words in hexadecimal.
fn words(value: &Value) -> Outcome<Vec<u32>> {
    let list = value.as_array().ok_or_else(|| fail("words are no list"))?;
    let word = |w: &Value| u32::from_str_radix(w.as_str()?.trim_start_matches("0x"), 16).ok();
    list.iter().map(|w| word(w).ok_or_else(|| fail(format!("{w} is no word")))).collect()
}

/// Philox with ten rounds; others are not in the crate.
pub fn philox(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    if json::text(config, "generator")? != "philox4x32" || json::count(config, "rounds")? != 10 {
        // the file also holds generators and rounds that nothing here uses
        return Ok(());
    }
    let counter = words(json::field(input, "ctr")?)?;
    let key = words(json::field(input, "key")?)?;
    match (counter.as_slice(), key.as_slice()) {
        (&[a, b, c, d], &[k, l]) => {
            equal("words", &philox4x32([a, b, c, d], [k, l]), &words(expect)?)
        }
        _ => Err(fail("counter or key of another length")),
    }
}

const PURPOSES: [Purpose; 9] = [
    Purpose::Direction,
    Purpose::FirstRounding,
    Purpose::SecondRounding,
    Purpose::UpdateRounding,
    Purpose::Coordinates,
    Purpose::Sign,
    Purpose::LeftFactor,
    Purpose::RightFactor,
    Purpose::Genetic,
];

/// Slices of rows of random numbers.
pub fn stream(case: &Value) -> Outcome {
    let (input, _, expect) = parts(case)?;
    json::only(input, &["seed", "tensor", "step", "purpose", "query", "start", "n"])?;
    let purpose = PURPOSES.get(json::count(input, "purpose")?).ok_or_else(|| skip("a purpose"))?;
    let stream = RngStream {
        step: json::count(input, "step")? as u64,
        query: json::count(input, "query")? as u32,
        tensor: json::count(input, "tensor")? as u32,
        purpose: *purpose,
    };
    let philox = Philox::new(seed(input, "seed")?);
    let noise: &dyn Noise<f64> = &philox;
    let (start, n) = (json::count(input, "start")?, json::count(input, "n")?);
    let mut found = vec![0; n];
    philox.words(&stream, start, &mut found);
    equal("u32", &found, &words(json::field(expect, "u32")?)?)?;
    let mut found = vec![0.0; n];
    noise.uniform(&stream, start, &mut found);
    identical("u01", &found, &json::reals::<f64>(expect, "u01")?)?;
    noise.rademacher(&stream, start, &mut found);
    identical("rademacher", &found, &json::reals::<f64>(expect, "rademacher")?)?;
    noise.normal(&stream, start, &mut found);
    let expected = json::reals::<f64>(expect, "normal")?;
    for (found, expected) in found.iter().zip(expected) {
        // 4 units in the last place; a cosine near 0 has lost some before
        let allowed = 4.0 * f64::EPSILON * expected.abs().max(1e-3);
        if (found - expected).abs() > allowed {
            return Err(fail(format!("normal: expected {expected:e}, got {found:e}")));
        }
    }
    Ok(())
}

fn difference(name: &str) -> Outcome<FiniteDifference> {
    match name {
        "central" => Ok(FiniteDifference::Central),
        "forward" => Ok(FiniteDifference::Forward),
        other => Err(skip(format!("the runner does not know the side `{other}`"))),
    }
}

fn directions(input: &Value, key: &str) -> Outcome<(Table, usize)> {
    let mut table = Table::default();
    let rows = json::list(input, key)?;
    for (query, row) in rows.iter().enumerate() {
        table.set(Purpose::Direction, (0, query, 0), json::numbers(row)?);
    }
    Ok((table, rows.len()))
}

/// The elements of a gradient of one vector.
fn flat(grads: &dyn Gradients<f64>) -> Outcome<Vec<f64>> {
    Ok(materialize(grads)?.values().flatten().copied().collect())
}

/// Estimates along random directions.
pub fn rge(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["mu", "sided", "distribution", "scale"])?;
    let (table, num_samples) = directions(input, "directions")?;
    let objective = Objective::of(json::field(input, "objective")?)?;
    let mut model = Model::vector(json::reals(input, "x")?);
    let sampler = match json::text(config, "distribution")? {
        "gaussian" => Random::Gaussian,
        "rademacher" => Random::Rademacher,
        "sphere" => Random::Sphere,
        "sphere_sqrt_d" => Random::ScaledSphere,
        other => return Err(skip(format!("the runner does not know the distribution `{other}`"))),
    };
    let (epsilon, difference) = (number(config, "mu")?, difference(json::text(config, "sided")?)?);
    let config = Spsa { epsilon, num_samples, difference, ..Spsa::with_sampler(sampler) };
    let mut estimator = config.build::<f64>()?.with_noise(table);
    let estimate = estimator.estimate(&mut model, |m| objective.at(&m.flat()))?;
    TOLERANCE.slice(
        "coefficients",
        &estimate.report().coefficients,
        &json::reals::<f64>(expect, "coefficients")?,
    )?;
    TOLERANCE.slice("estimate", &flat(&estimate)?, &json::reals::<f64>(expect, "estimate")?)
}

/// Estimates along directions of one length for every tensor; the published code's without its factor.
pub fn block_sphere(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    let epsilon = number(config, "mu")?;
    let objective = Objective::of(json::field(input, "objective")?)?;
    let model = Model::of(input)?;
    let rows = json::list(input, "raw_directions")?;
    let mut table = Table::default();
    for (query, row) in rows.iter().enumerate() {
        let mut values = json::numbers(row)?;
        for (tensor, (_, param)) in model.0.iter().enumerate() {
            let rest = values.split_off(param.len());
            table.set(Purpose::Direction, (0, query, tensor), values);
            values = rest;
        }
    }
    fn run<S: DirectionSampler>(
        sampler: S,
        (epsilon, num_samples): (f64, usize),
        table: Table,
        mut model: Model,
        objective: &Objective,
    ) -> Outcome<Vec<f64>> {
        let difference = FiniteDifference::Forward;
        let config = Spsa { epsilon, num_samples, difference, ..Spsa::with_sampler(sampler) };
        let mut estimator = config.build::<f64>()?.with_noise(table);
        let order: Vec<String> = model.0.iter().map(|(name, _)| name.clone()).collect();
        let estimate = estimator.estimate(&mut model, |m| objective.at(&m.flat()))?;
        let found = materialize(&estimate)?;
        Ok(order.iter().filter_map(|name| found.get(name)).flatten().copied().collect())
    }
    let options = (epsilon, rows.len());
    let ours = run(Random::BlockSphere, options, table.clone(), model.clone(), &objective)?;
    TOLERANCE.slice("estimate", &ours, &json::reals::<f64>(expect, "block_sphere_estimate")?)?;
    let theirs = run(Published { epsilon }, options, table, model, &objective)?;
    TOLERANCE.slice("published", &theirs, &json::reals::<f64>(expect, "released_code_estimate")?)
}

/// DeepZero's directions: of length 1 per tensor, and a factor `ε` in place of `d_k`.
#[derive(Clone, Debug)]
struct Published {
    epsilon: f64,
}

eigenstep::hyperparameters!(Published, "Published", { "published_epsilon": Positive = epsilon; });

impl DirectionSampler for Published {
    type Directions<R: Real> = PublishedDirections<<Random as DirectionSampler>::Directions<R>>;

    fn directions<R: Real>(&self) -> Self::Directions<R> {
        PublishedDirections { inner: Random::BlockSphere.directions::<R>(), scale: self.epsilon }
    }
}

#[derive(Debug)]
struct PublishedDirections<D> {
    inner: D,
    scale: f64,
}

impl<R: Real, D: Directions<R>> Directions<R> for PublishedDirections<D> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> eigenstep::Result<()> {
        self.inner.begin(context)
    }
    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.inner.probe(key, offset, out);
    }
    fn scale(&self, _: usize) -> f64 {
        self.scale
    }
}

/// Estimates one coordinate at a time.
pub fn cge(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["mu", "sided"])?;
    let objective = Objective::of(json::field(input, "objective")?)?;
    let mut model = Model::vector(json::reals(input, "x")?);
    let mask = json::integers(input, "mask")?;
    let active = mask.iter().enumerate().filter(|(_, on)| **on == 1).map(|(i, _)| i).collect();
    let difference = difference(json::text(config, "sided")?)?;
    let config = Coordinate { epsilon: number(config, "mu")?, difference, ..Coordinate::default() };
    let mut estimator = config.build::<f64>()?;
    estimator.set_active(ActiveSet::Indices(BTreeMap::from([("x".to_owned(), active)])))?;
    let outcome = estimator.estimate(&mut model, |m| objective.at(&m.flat()));
    if !mask.contains(&1) {
        // the crate refuses a step without coordinates
        return match outcome {
            Err(eigenstep::Error::InvalidHyperparameter { field: "active", .. }) => Ok(()),
            _ => Err(fail("an empty active set was not refused")),
        };
    }
    let estimate = outcome?;
    equal(
        "evaluations",
        &[estimate.report().evaluations()],
        &[json::count(expect, "evaluations")?],
    )?;
    TOLERANCE.slice("estimate", &flat(&estimate)?, &json::reals::<f64>(expect, "estimate")?)
}

/// Evolution strategies: pairs of probes, and weights in place of losses.
pub fn evolution(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["sigma", "antithetic", "shaping", "weights_only"])?;
    let shaping = match json::text(config, "shaping")? {
        "none" => FitnessShaping::None,
        "centered_rank" => FitnessShaping::CenteredRank,
        "nes_utility" => FitnessShaping::NesUtility,
        other => return Err(skip(format!("the runner does not know the shaping `{other}`"))),
    };
    let weights_only = config.get("weights_only").and_then(Value::as_bool) == Some(true);
    let losses = json::reals::<f64>(if weights_only { input } else { expect }, "losses")?;
    let mut weights = losses.clone();
    shaping.apply(&mut weights);
    TOLERANCE.slice("weights", &weights, &json::reals::<f64>(expect, "weights")?)?;
    if weights_only {
        return Ok(());
    }
    let (table, pairs) = directions(input, "eps")?;
    let objective = Objective::of(json::field(input, "objective")?)?;
    let mut model = Model::vector(json::reals(input, "x")?);
    let config = Spsa { shaping, ..Spsa::evolution(pairs, number(config, "sigma")?) };
    let mut estimator = config.build::<f64>()?.with_noise(table);
    let estimate = estimator.estimate(&mut model, |m| objective.at(&m.flat()))?;
    // the case has all positive probes first
    let found = &estimate.report().losses;
    let ordered: Vec<f64> =
        found.iter().step_by(2).chain(found.iter().skip(1).step_by(2)).copied().collect();
    TOLERANCE.slice("losses", &ordered, &losses)?;
    TOLERANCE.slice("estimate", &flat(&estimate)?, &json::reals::<f64>(expect, "estimate")?)
}

/// The mixture of a given direction and random ones.
pub fn fogzo(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["beta", "eps", "n"])?;
    let objective = Objective::of(json::field(input, "objective")?)?;
    let mut model = Model::vector(json::reals(input, "x")?);
    let (mut table, num_samples) = directions(input, "u")?;
    for (query, sign) in json::reals::<f64>(input, "s")?.into_iter().enumerate() {
        table.set(Purpose::Sign, (0, query, 0), vec![sign]);
    }
    let sampler = Guided { beta: number(config, "beta")?, noise: UnitNoise::Normal };
    let spsa = Spsa { epsilon: number(config, "eps")?, num_samples, ..Spsa::with_sampler(sampler) };
    let mut estimator = spsa.build::<f64>()?.with_noise(table);
    let gradient = Array1::from(json::reals::<f64>(input, "ste_gradient")?);
    let given = BTreeMap::from([("x".to_owned(), gradient)]);
    let estimate =
        estimator.estimate_guided(sampler.beta, &mut model, &given, |m| objective.at(&m.flat()))?;
    let coefficients = &estimate.report().coefficients;
    TOLERANCE.slice("coefficients", coefficients, &json::reals::<f64>(expect, "coefficients")?)?;
    TOLERANCE.slice("estimate", &flat(&estimate)?, &json::reals::<f64>(expect, "estimate")?)
}

/// Share of the given direction.
pub fn fogzo_beta(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    let total_steps = json::count(config, "total_steps")? as u64;
    let config = Fogzo { total_steps, beta_min: number(config, "beta_min")?, ..Fogzo::default() };
    let found = config.beta(json::count(input, "step")? as u64);
    TOLERANCE.number("beta", found, json::number(expect)?)
}

fn quantized(rows: [(&Value, Purpose, &str); 4], step: u64, table: &mut Table) -> Outcome<usize> {
    let mut count = 0;
    for (value, purpose, key) in rows {
        let Some(rows) = value.get(key).and_then(Value::as_array) else { continue };
        for (query, row) in rows.iter().enumerate() {
            table.set(purpose, (step, query, 0), json::numbers(row)?);
        }
        count = count.max(rows.len());
    }
    Ok(count)
}

fn quantized_rows(value: &Value) -> [(&Value, Purpose, &'static str); 4] {
    [
        (value, Purpose::Direction, "u"),
        (value, Purpose::FirstRounding, "r1"),
        (value, Purpose::SecondRounding, "r2"),
        (value, Purpose::UpdateRounding, "r3"),
    ]
}

/// Estimates along directions of few bits.
pub fn quzo_estimate(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["bits", "mu", "scale_rule"])?;
    let mut table = Table::default();
    let num_samples = quantized(quantized_rows(input), 0, &mut table)?;
    let format = IntegerFormat { bits: json::count(config, "bits")? as u8, full: false };
    let sampler = QuantizedNormal { format };
    let spsa = Spsa { epsilon: number(config, "mu")?, num_samples, ..Spsa::with_sampler(sampler) };
    let objective = Objective::of(json::field(input, "objective")?)?;
    let mut model = Model::vector(json::reals(input, "x")?);
    let mut estimator = spsa.build::<f64>()?.with_noise(table);
    let estimate = estimator.estimate(&mut model, |m| objective.at(&m.flat()))?;
    let coefficients = &estimate.report().coefficients;
    TOLERANCE.slice("coefficients", coefficients, &json::reals::<f64>(expect, "coefficients")?)?;
    TOLERANCE.slice("estimate", &flat(&estimate)?, &json::reals::<f64>(expect, "estimate")?)
}

/// Steps on weights of few bits.
pub fn quzo_run(case: &Value) -> Outcome {
    json::only(
        case,
        &["optimizer", "origin", "dtype", "config", "objective", "params", "steps", "notes"],
    )?;
    let config = json::field(case, "config")?;
    json::only(config, &["bits", "mu", "lr", "q", "weight_scale", "round_each_query"])?;
    let steps = json::list(case, "steps")?;
    let mut table = Table::default();
    for (t, step) in steps.iter().enumerate() {
        quantized(quantized_rows(step), t as u64, &mut table)?;
    }
    let format = IntegerFormat { bits: json::count(config, "bits")? as u8, full: false };
    let scale = number(config, "weight_scale")?;
    let mut model = Model(Vec::new());
    for param in json::list(case, "params")? {
        let codes: ndarray::ArrayD<f64> =
            json::array(&json::shape(param, "shape")?, json::field(param, "init_codes")?)?;
        model.0.push((json::text(param, "name")?.to_owned(), codes * scale));
    }
    let names = model.0.iter().map(|(name, _)| (name.clone(), scale)).collect();
    let quzo = Quzo {
        lr: number(config, "lr")?,
        epsilon: number(config, "mu")?,
        num_samples: json::count(config, "q")?,
        weights: eigenstep::zeroth_order::Format::Int(format),
        directions: format,
        round_each_query: json::field(config, "round_each_query")?.as_bool() == Some(true),
        ..Quzo::default()
    };
    let mut opt = quzo.build::<f64>()?.with_scales(names)?.with_noise(table);
    let objective = Objective::of(json::field(case, "objective")?)?;
    for (index, step) in steps.iter().enumerate() {
        let known = ["u", "r1", "r2", "r3", "coefficients", "delta", "expect_codes"];
        json::only(step, &known)?;
        let report = opt.step(&mut model, |m| objective.at(&m.flat()))?.report;
        let expected = json::reals::<f64>(step, "coefficients")?;
        let at = |stop: super::Stop| stop.at(format!("step {index}"));
        TOLERANCE.slice("coefficients", &report.coefficients, &expected).map_err(at)?;
        let codes: Vec<i64> = model.flat().iter().map(|w| (w / scale).round() as i64).collect();
        let expected: Vec<i64> =
            json::reals::<f64>(step, "expect_codes")?.iter().map(|&code| code as i64).collect();
        equal("codes", &codes, &expected).map_err(at)?;
    }
    Ok(())
}

/// A run from its slopes.
pub fn replay(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["seed", "tensor", "purpose", "distribution", "lr", "weight_decay"])?;
    let sampler = match json::text(config, "distribution")? {
        "gaussian" => Random::Gaussian,
        "rademacher" => Random::Rademacher,
        other => return Err(skip(format!("the runner does not know the distribution `{other}`"))),
    };
    let mut model = Model::vector(json::reals(input, "x")?);
    let seed = seed(config, "seed")?;
    let (lr, weight_decay) = (number(config, "lr")?, number(config, "weight_decay")?);
    let mut opt = Sgd { lr, weight_decay, ..Sgd::default() }.build()?;
    let mut steps: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for entry in json::list(input, "ledger")? {
        let slopes = steps.entry(json::count(entry, "step")?).or_default();
        same_length("queries", json::count(entry, "query")?, slopes.len())?;
        slopes.push(number(entry, "coefficient")?);
    }
    for (step, slopes) in steps {
        let epsilon = 0.5;
        let spsa = Spsa { epsilon, num_samples: slopes.len(), seed, ..Spsa::with_sampler(sampler) };
        let mut estimator = spsa.build::<f64>()?;
        estimator.set_step(step as u64)?;
        estimator.ask(&mut model)?;
        // losses with these slopes
        let losses: Vec<f64> = slopes.iter().flat_map(|c| [c * epsilon, -c * epsilon]).collect();
        let estimate = estimator.tell(&losses)?;
        opt.step(&mut model, &estimate)?;
    }
    TOLERANCE.slice("x", &model.flat(), &json::numbers(expect)?)
}

/// What adding and subtracting perturbations does to parameters, and that the crate's do not.
pub fn restore(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["eps", "policy", "dtype"])?;
    let before = json::reals::<f32>(input, "x")?;
    let epsilon = number(config, "eps")?;
    let rows = json::list(input, "directions")?;
    if json::text(config, "policy")? == "in_place" {
        // the drift itself: the crate has no such policy
        let mut x = before.clone();
        for row in rows {
            let z: Vec<f32> = json::numbers(row)?.into_iter().map(|z| z as f32).collect();
            for s in [1.0f32, -2.0, 1.0] {
                x.iter_mut().zip(&z).for_each(|(x, z)| *x += (s * z) * epsilon as f32);
            }
        }
        return identical("after", &x, &json::reals::<f32>(expect, "after")?);
    }
    let mut model = Array1::from(before);
    let mut table = Rows(Vec::new());
    for row in rows {
        table.0.push(json::numbers(row)?.into_iter().map(|z| z as f32).collect());
    }
    let spsa = Spsa { epsilon, ..Spsa::with_sampler(Random::Gaussian) };
    let mut estimator = spsa.build::<f32>()?.with_noise(table);
    for _ in rows {
        estimator.estimate(&mut model, |x| f64::from(x.sum()))?;
    }
    identical("after", &model.to_vec(), &json::reals::<f32>(expect, "after")?)
}

/// One direction per step.
#[derive(Debug)]
struct Rows(Vec<Vec<f32>>);

impl Noise<f32> for Rows {
    fn normal(&self, stream: &RngStream, offset: usize, out: &mut [f32]) {
        let row = self.0.get(stream.step as usize).and_then(|row| row.get(offset..));
        out.iter_mut().zip(row.unwrap_or_default()).for_each(|(x, &z)| *x = z);
    }
    fn rademacher(&self, stream: &RngStream, offset: usize, out: &mut [f32]) {
        self.normal(stream, offset, out);
    }
    fn uniform(&self, _: &RngStream, _: usize, out: &mut [f64]) {
        out.fill(f64::NAN);
    }
}

/// Mean cross entropy of a network with one hidden layer.
fn cross_entropy(model: &Model, x: &Array2<f64>, labels: &[u32]) -> f64 {
    let layer = |input: &Array2<f64>, name: &str| -> Array2<f64> {
        let find = |name: String| model.0.iter().find(|(known, _)| *known == name).map(|(_, v)| v);
        let weight = find(format!("{name}.weight"))
            .and_then(|w| w.view().into_dimensionality::<ndarray::Ix2>().ok());
        let out = weight.map_or_else(|| input.clone(), |w| input.dot(&w.t()));
        match find(format!("{name}.bias")) {
            Some(bias) => out + &Array1::from_iter(bias.iter().copied()),
            None => out,
        }
    };
    let logits = layer(&layer(x, "fc1").mapv(f64::tanh), "fc2");
    let losses = logits.axis_iter(Axis(0)).zip(labels).map(|(row, &label)| {
        let most = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = row.iter().map(|z| (z - most).exp()).sum();
        most + sum.ln() - row.get(label as usize).copied().unwrap_or(0.0)
    });
    losses.sum::<f64>() / labels.len() as f64
}

/// Scores of weights, as the crate computes them and as the published code does.
pub fn grasp(case: &Value) -> Outcome {
    let (input, config, expect) = parts(case)?;
    json::only(config, &["mu", "q", "scored", "model", "norm_eps"])?;
    let rows = json::list(input, "X")?;
    let values: Vec<f64> = rows.iter().map(json::numbers).collect::<Outcome<Vec<_>>>()?.concat();
    let width = values.len() / rows.len().max(1);
    let x = Array2::from_shape_vec((rows.len(), width), values).map_err(|e| fail(e.to_string()))?;
    let labels = json::integers(input, "y")?;
    let scored: Vec<String> = json::list(config, "scored")?
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let select = || {
        let scored = scored.clone();
        Select::by("scored", move |name, _| scored.iter().any(|known| known == name))
    };
    let model = Model::of(input)?;
    let mut table = Table::default();
    table.directions(0, &model, json::list(input, "directions_0")?)?;
    table.directions(1, &model, json::list(input, "directions_1")?)?;
    let (epsilon, num_samples) = (number(config, "mu")?, json::count(config, "q")?);
    let loss = |m: &mut Model| cross_entropy(m, &x, &labels);
    for (key, fresh) in [("released", true), ("shared", false)] {
        let expected = json::field(expect, key)?;
        let grasp = Grasp { fresh, signed: false };
        let mut model = model.clone();
        let difference = FiniteDifference::Forward;
        let scores = if fresh {
            let sampler = Published { epsilon };
            let spsa = Spsa { epsilon, num_samples, difference, ..Spsa::with_sampler(sampler) };
            let mut estimator = spsa.build::<f64>()?.with_noise(table.clone());
            grasp.scores(&mut estimator, &mut model, select(), loss)?
        } else {
            let spsa =
                Spsa { epsilon, num_samples, difference, ..Spsa::with_sampler(Random::Gaussian) };
            let mut estimator = spsa.build::<f64>()?.with_noise(table.clone());
            grasp.scores(&mut estimator, &mut model, select(), loss)?
        };
        let sparsity = number(expected, "sparsity")?;
        let (keep, ratios) = (scores.keep(sparsity)?, scores.ratios(sparsity)?);
        for name in &scored {
            let what = format!("{key}, {name}");
            let found = scores.get(name).ok_or_else(|| fail(format!("{what}: no scores")))?;
            let theirs = json::numbers(json::field(json::field(expected, "scores")?, name)?)?;
            let found: Vec<f64> = found.iter().copied().collect();
            // a difference of two estimates, over ε again
            let loose = super::compare::Tolerance { rtol: 1e-6, atol: 1e-8 };
            loose.slice(&what, &found, &theirs)?;
            let kept: Vec<u32> =
                keep.get(name).into_iter().flatten().map(|&k| u32::from(k)).collect();
            let theirs = json::integers(json::field(expected, "mask_keep")?, name)?;
            equal(&what, &kept, &theirs)?;
            let ratio = number(json::field(expected, "layer_ratio")?, name)?;
            TOLERANCE.number(&what, ratios.get(name).copied().unwrap_or(f64::NAN), ratio)?;
        }
    }
    Ok(())
}

/// Keeps the import that the macro above needs.
const _: &str = <Published as Hyperparameters>::NAME;
