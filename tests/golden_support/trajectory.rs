//! Optimizer cases: the same gradients, step by step, and the same parameters and state.

use super::compare::Tolerance;
use super::options::{Assignments, Spelling, assign};
use super::{Outcome, Stop, fail, json, skip};
use eigenstep::numeric::{Element, Real};
use eigenstep::prelude::*;
use eigenstep::state::{Dtype, StateTensor};
use ndarray::ArrayD;
use serde_json::Value;
use std::collections::BTreeMap;

/// Parameters or gradients by name.
pub type Tree<A> = BTreeMap<String, A>;

/// Runs a case of the method `U`.
pub fn run<U: Rule + Default>(case: &Value, spelling: Spelling) -> Outcome {
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
            "groups",
            "final_state",
            "expect_eval",
            "expect_train_again",
        ],
    )?;
    match json::text(case, "dtype")? {
        "f64" => Trajectory::<U, f64>::new(case, spelling)?.run(case),
        "f32" => Trajectory::<U, f32>::new(case, spelling)?.run(case),
        other => Err(skip(format!("the runner does not know the type `{other}`"))),
    }
}

/// The parameters of a case before the first step.
pub fn parameters<R: Real>(case: &Value) -> Outcome<Tree<ArrayD<R>>> {
    let read = |param: &Value| {
        let name = json::text(param, "name")?.to_owned();
        let shape = json::shape(param, "shape")?;
        Ok((name, json::array(&shape, json::field(param, "init")?)?))
    };
    json::list(case, "params")?.iter().map(read).collect()
}

/// The gradients of a step; `null` is an absent gradient.
pub fn gradients<R: Real>(
    step: &Value,
    params: &Tree<ArrayD<R>>,
) -> Outcome<Tree<Option<ArrayD<R>>>> {
    let read = |(name, value): (&String, &Value)| {
        let param = params.get(name).ok_or_else(|| fail(format!("no parameter `{name}`")))?;
        let grad = match value {
            Value::Null => None,
            value => Some(json::array(param.shape(), value)?),
        };
        Ok((name.clone(), grad))
    };
    json::object(step, "grads")?.iter().map(read).collect()
}

/// Compares all parameters with the field `key` of `value`; `extra` as in
/// [`Tolerance::slice_with`].
pub fn check_parameters<R: Real>(
    value: &Value,
    key: &str,
    params: &Tree<ArrayD<R>>,
    tolerance: Tolerance,
    extra: &Tree<Vec<f64>>,
) -> Outcome {
    let expected = json::object(value, key)?;
    for name in params.keys() {
        if !expected.contains_key(name) {
            return Err(fail(format!("`{key}` lacks the parameter `{name}`")));
        }
    }
    for (name, values) in expected {
        let param = params.get(name).ok_or_else(|| fail(format!("no parameter `{name}`")))?;
        let found: Vec<f64> = param.iter().map(|x| x.widen()).collect();
        let what = format!("{key}, parameter `{name}`");
        let extra = extra.get(name).map_or(&[][..], Vec::as_slice);
        tolerance.slice_with(&what, &found, &json::numbers(values)?, extra)?;
    }
    Ok(())
}

/// An optimizer with the parameters of a case.
struct Trajectory<U: Rule, R: Real> {
    params: Tree<ArrayD<R>>,
    /// What rounding every element at every step may amount to by now; empty for `f64`.
    rounding: Tree<Vec<f64>>,
    optimizer: Box<dyn Optimizer<R>>,
    spelling: Spelling,
    defaults: U,
}

impl<U: Rule + Default, R: Real> Trajectory<U, R> {
    fn new(case: &Value, spelling: Spelling) -> Outcome<Self> {
        let params = parameters(case)?;
        let mut defaults = U::default();
        let options = spelling.translate(&defaults, json::object(case, "config")?)?;
        assign(&mut defaults, &options);
        // as the references, which do not look at gradients before they use them
        let mut optimizer = defaults.clone().build()?.with_non_finite(NonFinite::Propagate);
        for (index, group) in json::list_or_empty(case, "groups")?.iter().enumerate() {
            let (names, options) = read_group(group, &defaults, spelling)
                .map_err(|stop| stop.at(format!("group {index}")))?;
            let select = Select::by(format!("group {index}"), move |name, _| {
                names.iter().any(|member| member == name)
            });
            optimizer = optimizer.with_group(select, |config| assign(config, &options))?;
        }
        let rounding = Tree::new();
        Ok(Self { params, rounding, optimizer: Box::new(optimizer), spelling, defaults })
    }

    fn run(mut self, case: &Value) -> Outcome {
        for (index, step) in json::list(case, "steps")?.iter().enumerate() {
            self.step(step).map_err(|stop| stop.at(format!("step {}", index + 1)))?;
        }
        let tolerance = Tolerance::of::<R>();
        if case.get("final_state").is_some() {
            let expected = json::object(case, "final_state")?;
            let steps = json::list(case, "steps")?.len();
            check_state(&self.optimizer.state_dict(), steps, &self.params, expected)
                .map_err(|stop| stop.at("final_state"))?;
        }
        if case.get("expect_eval").is_some() {
            self.optimizer.eval(&mut self.params)?;
            check_parameters(case, "expect_eval", &self.params, tolerance, &self.rounding)?;
        }
        if case.get("expect_train_again").is_some() {
            self.optimizer.train(&mut self.params)?;
            check_parameters(case, "expect_train_again", &self.params, tolerance, &self.rounding)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Outcome {
        json::only(step, &["grads", "expect", "set", "group"])?;
        if step.get("set").is_some() {
            let options = self.spelling.translate(&self.defaults, json::object(step, "set")?)?;
            for group in 0..self.optimizer.num_groups() {
                for (name, number) in &options {
                    self.optimizer.set_option(group, name, *number)?;
                }
            }
        }
        let grads = gradients(step, &self.params)?;
        self.optimizer.step(&mut self.params, &grads)?;
        let tolerance = Tolerance::of::<R>();
        self.add_rounding(step)?;
        check_parameters(step, "expect", &self.params, tolerance, &self.rounding)?;
        if step.get("group").is_some() {
            let dict = self.optimizer.state_dict();
            for (name, value) in json::object(step, "group")? {
                let found = dict.scalars.get(&format!("groups.0.scalars.{name}"));
                let found = found.and_then(|scalar| scalar.as_f64());
                let found = found.ok_or_else(|| fail(format!("the group has no `{name}`")))?;
                tolerance.number(&format!("group `{name}`"), found, json::number(value)?)?;
            }
        }
        Ok(())
    }

    /// Adds what rounding the parameters of this step may have lost.
    ///
    /// Looser than 4e-6 relative + 1e-7, because that asks too much of an element that comes close
    /// to zero after having been large: every step rounds it to `2^-24` of its size at that time,
    /// in the reference as in the crate. (Against exact arithmetic both have the same error: for
    /// `sgd_01` and `sgd_02` 1.2e-7 and 1.1e-7 rms after ten steps.) PyTorch rounds product and sum
    /// once, as a fused multiply-add; the crate gives the same bits on processors that have none.
    fn add_rounding(&mut self, step: &Value) -> Outcome {
        if R::NAME == "f64" {
            return Ok(());
        }
        for (name, values) in json::object(step, "expect")? {
            let values = json::numbers(values)?;
            let sums = self.rounding.entry(name.clone()).or_insert_with(|| vec![0.0; values.len()]);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += 0.5 * f64::from(f32::EPSILON) * value.abs();
            }
        }
        Ok(())
    }
}

/// Compares the state of every parameter after so many steps: the slots of the reference, and no others.
///
/// In `f32` an element may have been as large as the largest of its slot at every step, and is then
/// rounded as such: a momentum of terms of size 10 comes near zero with errors of terms of size 10,
/// which add up as a random walk does.
pub fn check_state<R: Real>(
    dict: &StateDict,
    steps: usize,
    params: &Tree<ArrayD<R>>,
    expected: &serde_json::Map<String, Value>,
) -> Outcome {
    let nothing = serde_json::Map::new();
    for param in params.keys() {
        let slots = match expected.get(param) {
            Some(slots) => slots.as_object().ok_or_else(|| fail("is no object"))?,
            None => &nothing,
        };
        let prefix = format!("state.{param}.");
        let mut own = dict.tensors.keys().filter_map(|key| key.strip_prefix(&prefix));
        if let Some(slot) = own.find(|slot| !slots.contains_key(*slot)) {
            return Err(fail(format!("parameter `{param}`: the reference has no `{slot}`")));
        }
        for (slot, value) in slots {
            let key = format!("{prefix}{slot}");
            let found = match (dict.tensors.get(&key), dict.scalars.get(&key)) {
                (Some(tensor), _) => elements(tensor)?,
                (None, Some(scalar)) => scalar.as_f64().into_iter().collect(),
                (None, None) => return Err(fail(format!("the crate has no `{key}`"))),
            };
            let data = value.get("data").unwrap_or(value);
            let what = format!("parameter `{param}`, slot `{slot}`");
            let expected = json::numbers(data)?;
            let rounding = match R::NAME {
                "f64" => 0.0,
                _ => 0.5 * f64::from(f32::EPSILON) * (steps as f64).sqrt(),
            };
            let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
            let tolerance = Tolerance::of::<R>().plus(rounding * largest);
            tolerance.slice(&what, &found, &expected)?;
        }
    }
    Ok(())
}

/// Names of the parameters and options of a group.
fn read_group<U: Rule>(
    group: &Value,
    defaults: &U,
    spelling: Spelling,
) -> Outcome<(Vec<String>, Assignments)> {
    let mut options = group.as_object().cloned().unwrap_or_default();
    let names = options.remove("params").and_then(|names| serde_json::from_value(names).ok());
    let names = names.ok_or_else(|| fail("`params` is no list of names"))?;
    Ok((names, spelling.translate(defaults, &options)?))
}

/// A saved tensor as numbers.
pub fn elements(tensor: &StateTensor) -> Outcome<Vec<f64>> {
    match tensor.dtype {
        Dtype::F64 => Ok(f64::read_le(&tensor.bytes)),
        Dtype::F32 => Ok(f32::read_le(&tensor.bytes).into_iter().map(f64::from).collect()),
        other => Err(Stop::Fail(format!("a slot is stored as {other:?}"))),
    }
}
