//! Optimizer cases: the same gradients, step by step, and the same parameters and state.

use super::compare::Tolerance;
use super::options::{Assignments, Spelling, assign};
use super::{Outcome, Stop, fail, json, skip};
use eigenstep::numeric::{Element, Real};
use eigenstep::params::GradVisitor;
use eigenstep::prelude::*;
use eigenstep::state::{Dtype, Scalar, StateTensor};
use ndarray::ArrayD;
use serde_json::Value;
use std::collections::BTreeMap;

/// Parameters or gradients by name.
pub type Tree<A> = BTreeMap<String, A>;

/// What a reference calls things, and how exact it is.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// Options.
    pub spelling: Spelling,
    /// Slots: the reference's name, the crate's name. An empty name of the crate: nothing depends on the slot;
    /// an empty name of the reference: the case does not list it.
    pub slots: &'static [(&'static str, &'static str)],
    /// Absolute tolerance besides that of the element type: what scalars in `f32` amount to.
    pub atol: f64,
    /// Whether it counts steps per group, also those in which a parameter has no gradient.
    pub group_steps: bool,
    /// Defaults that are not the crate's.
    pub defaults: &'static [(&'static str, f64)],
    /// Slots that it keeps and nothing depends on, or that follow from options and the step.
    pub derived: &'static [&'static str],
    /// Slots of the crate that the reference does not have for every parameter.
    pub own: &'static [&'static str],
}

impl Reference {
    /// A reference with the crate's slots, step counts and precision.
    pub const fn new(spelling: Spelling) -> Self {
        let (atol, group_steps) = (0.0, false);
        let (slots, defaults, derived, own) = (&[], &[], &[], &[]);
        Self { spelling, slots, atol, group_steps, defaults, derived, own }
    }
}

/// Runs a case of the method `U`.
pub fn run<U: Rule + Default>(case: &Value, spelling: Spelling) -> Outcome {
    run_as::<U>(case, Reference::new(spelling))
}

/// Runs a case of the method `U` as computed by `reference`.
pub fn run_as<U: Rule + Default>(case: &Value, reference: Reference) -> Outcome {
    run_from(case, U::default(), reference)
}

/// The same, with other defaults than those of `U`.
pub fn run_from<U: Rule>(case: &Value, defaults: U, reference: Reference) -> Outcome {
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
        "f64" => Trajectory::<U, f64>::new(case, defaults, reference)?.run(case),
        "f32" => Trajectory::<U, f32>::new(case, defaults, reference)?.run(case),
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
    match step.get("grads") {
        Some(_) => arrays(step, "grads", params),
        None => Ok(Tree::new()),
    }
}

/// Gradients of some rows, where a step has such.
fn row_gradients<R: Real + Element>(
    step: &Value,
    params: &Tree<ArrayD<R>>,
) -> Outcome<Tree<RowGradient<R>>> {
    let read = |(name, value): (&String, &Value)| {
        let param = params.get(name).ok_or_else(|| fail(format!("no parameter `{name}`")))?;
        let rows = json::numbers(json::field(value, "rows")?)?;
        let rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
        let width = param.shape().iter().skip(1).product();
        let values = json::array(&[rows.len(), width], json::field(value, "values")?)?;
        let values = values.into_dimensionality().map_err(|error| fail(error.to_string()))?;
        Ok((name.clone(), RowGradient::new(param.shape(), rows, values)?))
    };
    match step.get("sparse_grads") {
        Some(_) => json::object(step, "sparse_grads")?.iter().map(read).collect(),
        None => Ok(Tree::new()),
    }
}

/// The field `key` of a step: arrays of the shapes of the parameters.
fn arrays<R: Real>(
    step: &Value,
    key: &str,
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
    json::object(step, key)?.iter().map(read).collect()
}

/// All that a step is given.
struct Inputs<R> {
    grads: Tree<Option<ArrayD<R>>>,
    rows: Tree<RowGradient<R>>,
    curvature: Option<Tree<Option<ArrayD<R>>>>,
    loss: Option<f64>,
}

/// Fields with a curvature.
const CURVATURES: [&str; 3] = ["hessian_input", "hessian_grads", "hvp"];

impl<R: Real + Element> Inputs<R> {
    fn of(step: &Value, params: &Tree<ArrayD<R>>) -> Outcome<Self> {
        let grads = gradients(step, params)?;
        let given = |key: &&str| step.get(*key).is_some_and(|value| !value.is_null());
        let mut curvature = match CURVATURES.iter().find(|key| given(key)) {
            Some(key) => Some(arrays(step, key, params)?),
            None => None,
        };
        // a parameter that is skipped ignores its curvature, too
        let has = |name: &String| grads.get(name).is_some_and(Option::is_some);
        curvature.iter_mut().for_each(|tree| tree.retain(|name, _| has(name)));
        let loss = step.get("loss").map(json::number).transpose()?;
        let rows = row_gradients(step, params)?;
        Ok(Self { grads, rows, curvature, loss })
    }
}

impl<R: Real + Element> Gradients<R> for Inputs<R> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, R>) {
        self.loss.iter().for_each(|loss| visitor.loss(*loss));
        self.grads.visit(visitor);
        self.rows.visit(visitor);
        self.curvature.iter().for_each(|tree| visitor.curvature(tree));
    }
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

/// Counts the step for parameters without a gradient, too.
pub fn count_absent<R: Real>(
    optimizer: &mut dyn Optimizer<R>,
    grads: &Tree<Option<ArrayD<R>>>,
) -> Outcome {
    let mut dict = optimizer.state_dict();
    for (name, _) in grads.iter().filter(|(_, grad)| grad.is_none()) {
        let key = format!("state.{name}.step");
        for (_, steps) in dict.scalars.iter_mut().filter(|(found, _)| found.ends_with(&key)) {
            if let Scalar::Int(steps) = steps {
                *steps += 1;
            }
        }
    }
    Ok(optimizer.load_state_dict(&dict)?)
}

/// An optimizer with the parameters of a case.
struct Trajectory<U: Rule, R: Real> {
    params: Tree<ArrayD<R>>,
    /// What rounding every element at every step may amount to by now; empty for `f64`.
    rounding: Tree<Vec<f64>>,
    optimizer: Box<dyn Optimizer<R>>,
    reference: Reference,
    defaults: U,
}

impl<U: Rule, R: Real> Trajectory<U, R> {
    fn new(case: &Value, mut defaults: U, reference: Reference) -> Outcome<Self> {
        let (params, spelling) = (parameters(case)?, reference.spelling);
        for &(name, value) in reference.defaults {
            defaults.set_option(name, value)?;
        }
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
        Ok(Self { params, rounding, optimizer: Box::new(optimizer), reference, defaults })
    }

    fn run(mut self, case: &Value) -> Outcome {
        for (index, step) in json::list(case, "steps")?.iter().enumerate() {
            self.step(step).map_err(|stop| stop.at(format!("step {}", index + 1)))?;
        }
        let tolerance = self.tolerance();
        if case.get("final_state").is_some() {
            let expected = renamed(json::object(case, "final_state")?, &self.reference);
            let steps = json::list(case, "steps")?.len();
            let atol = self.reference.atol;
            let mut dict = self.optimizer.state_dict();
            let slot = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
            dict.tensors.retain(|key, _| !self.reference.own.contains(&slot(key).as_str()));
            check_state_to(&dict, steps, (&self.params, atol), &expected)
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
        let known =
            ["grads", "sparse_grads", "expect", "expect_state", "set", "group", "loss", "z"];
        json::only(step, &[&known[..], &CURVATURES].concat())?;
        if step.get("set").is_some() {
            let options =
                self.reference.spelling.translate(&self.defaults, json::object(step, "set")?)?;
            for group in 0..self.optimizer.num_groups() {
                for (name, number) in &options {
                    self.optimizer.set_option(group, name, *number)?;
                }
            }
        }
        let inputs = Inputs::of(step, &self.params)?;
        self.optimizer.step(&mut self.params, &inputs)?;
        if self.reference.group_steps {
            count_absent(&mut *self.optimizer, &inputs.grads)?;
        }
        let tolerance = self.tolerance();
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
        if step.get("expect_state").is_some() {
            let dict = self.optimizer.state_dict();
            for (slot, tree) in json::object(step, "expect_state")? {
                for (name, values) in tree.as_object().into_iter().flatten() {
                    let key = format!("state.{name}.{slot}");
                    let tensor =
                        dict.tensors.get(&key).ok_or_else(|| fail(format!("no `{key}`")))?;
                    tolerance.slice(&key, &elements(tensor)?, &json::numbers(values)?)?;
                }
            }
        }
        Ok(())
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::of::<R>().plus(self.reference.atol)
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
    check_state_to(dict, steps, (params, 0.0), expected)
}

/// The same, with an absolute tolerance on top.
fn check_state_to<R: Real>(
    dict: &StateDict,
    steps: usize,
    (params, atol): (&Tree<ArrayD<R>>, f64),
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
            let tolerance = Tolerance::of::<R>().plus(rounding * largest + atol);
            tolerance.slice(&what, &found, &expected)?;
        }
    }
    Ok(())
}

/// The state of a reference under the crate's names of slots, without what is derived.
fn renamed(
    state: &serde_json::Map<String, Value>,
    reference: &Reference,
) -> serde_json::Map<String, Value> {
    let names = reference.slots;
    let ours =
        |slot: &String| names.iter().find(|(theirs, _)| theirs == slot).map(|(_, ours)| *ours);
    let kept = |(slot, _): &(&String, &Value)| !reference.derived.contains(&slot.as_str());
    let slots = |slots: &Value| -> Value {
        let slots = slots.as_object().into_iter().flatten().filter(kept);
        let slots = slots.map(|(slot, x)| (ours(slot).unwrap_or(slot).to_owned(), x.clone()));
        Value::Object(slots.collect())
    };
    state.iter().map(|(param, of_param)| (param.clone(), slots(of_param))).collect()
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
