//! Every field of every configuration survives saving and loading, or is refused: a dict that was saved with another
//! value of any field gives the same next steps, or an error.
//!
//! `serde` knows the fields, so that none can be forgotten here.
#![cfg(feature = "serde")]
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;

use eigenstep::optim::Optimizer;
use eigenstep::prelude::*;
use eigenstep_instances::Tested;
use model::*;
use serde_json::{Value, json};

/// Where a field is: keys of objects, and numbers of list elements.
type Path = Vec<Value>;

fn paths(value: &Value, here: &Path, out: &mut Vec<Path>) {
    out.push(here.clone());
    let mut inner = |key: Value, value: &Value| {
        let path = here.iter().cloned().chain([key]).collect();
        paths(value, &path, out);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, x)| inner(json!(key), x)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, x)| inner(json!(i), x)),
        _ => {}
    }
}

fn at<'v>(value: &'v mut Value, path: &[Value]) -> &'v mut Value {
    path.iter().fold(value, |value, key| match key {
        Value::String(key) => &mut value[key.as_str()],
        key => &mut value[key.as_u64().unwrap() as usize],
    })
}

/// What serde says against a value of a configuration's type.
type Refused = fn(Value) -> Option<String>;

fn refusal<C: for<'de> serde::Deserialize<'de>>(value: Value) -> Option<String> {
    serde_json::from_value::<C>(value).err().map(|error| error.to_string())
}

/// The words between backticks behind `expected` in an error of serde: variants of an enumeration.
fn variants(refused: Refused, config: &Value, path: &[Value]) -> Vec<Value> {
    let mut wrong = config.clone();
    *at(&mut wrong, path) = json!("no variant");
    let error = refused(wrong).unwrap_or_default();
    if !error.starts_with("unknown variant") {
        return Vec::new();
    }
    let (error, presets) = error.split_once(", or a preset: ").unwrap_or((&error, ""));
    let presets = presets.split(", ").filter(|name| !name.is_empty()).map(|name| json!(name));
    let names = error.split('`').skip(3).step_by(2);
    let forms =
        |name: &str| [json!(name), json!({ name: 2 }), json!({ name: 0.5 }), json!({ name: {} })];
    names.flat_map(forms).chain(presets).collect()
}

/// Other values that a field may have.
fn others(refused: Refused, config: &Value, path: &[Value]) -> Vec<Value> {
    let mut config = config.clone();
    let value = at(&mut config, path).clone();
    let mut others = variants(refused, &config, path);
    match &value {
        Value::Bool(flag) => others.push(json!(!flag)),
        Value::Number(x) if x.is_u64() => {
            let x = x.as_u64().unwrap();
            others.extend([x + 1, x.saturating_sub(1), 2 * x, x / 2, 8, 1].map(|x| json!(x)));
        }
        Value::Number(x) => {
            let x = x.as_f64().unwrap();
            others.extend([0.9 * x, 1.1 * x, 0.5, 0.05, 0.0, -0.5].map(|x| json!(x)));
        }
        Value::Null => others.extend([json!(0.5), json!(3)]),
        // a number that JSON does not have
        Value::String(_) if others.is_empty() => others.extend([json!(0.001), json!(1.001)]),
        _ => {}
    }
    others.retain(|other| *other != value);
    others
}

/// A configuration that serde reads and writes.
struct Form {
    refused: Refused,
    read: fn(Value) -> Option<Config>,
    write: fn(&Config) -> Value,
}

impl Form {
    fn of<C: Tested + serde::Serialize + for<'de> serde::Deserialize<'de>>() -> Self {
        Self {
            refused: refusal::<C>,
            read: |value| Some(serde_json::from_value::<C>(value).ok()?.into()),
            write: |config| serde_json::to_value(config.get::<C>().unwrap()).unwrap(),
        }
    }
}

/// For every field: saved with another value, loaded into the default.
fn every_field(subject: &Subject, form: &Form, unchanged: &mut Vec<String>) {
    let own = subject.config();
    let config = (form.write)(&own);
    assert_eq!((form.write)(&(form.read)(config.clone()).unwrap()), config);
    let mut fields = Vec::new();
    paths(&config, &Vec::new(), &mut fields);
    for path in fields.iter().skip(1) {
        let mut changed = 0;
        for other in others(form.refused, &config, path) {
            let mut json = config.clone();
            *at(&mut json, path) = other.clone();
            let built = (form.read)(json).and_then(|changes| changes.optimizer::<f64>().ok());
            let Some(mut opt) = built else { continue };
            changed += 1;
            let mut params = leaves::<f64>(1, &[&[6, 5], &[7], &[2, 3, 2]]);
            train_as(subject, &mut opt, &mut params, 0..2);
            let mut again = own.optimizer::<f64>().unwrap();
            let before = again.state_dict();
            let what = format!("{}: {path:?} = {other}", subject.name);
            match again.load_state_dict(&opt.state_dict()) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("state dict") || text.contains("shape"),
                        "{what}: {text}"
                    );
                    assert_eq!(again.state_dict(), before, "{what}");
                }
                Ok(()) => {
                    let mut copy = params.clone();
                    train_as(subject, &mut opt, &mut params, 2..5);
                    train_as(subject, &mut again, &mut copy, 2..5);
                    assert!(
                        all_bits(&params) == all_bits(&copy),
                        "{what}: other steps, and no error"
                    );
                }
            }
        }
        let leaf =
            !at(&mut config.clone(), path).is_object() && !at(&mut config.clone(), path).is_array();
        if changed == 0 && leaf {
            unchanged.push(format!("{}: {path:?}", subject.name));
        }
    }
}

/// Fields that depend on others.
const BOUND: [&str; 6] = ["nesterov", "filter_weight", "beta1", "decay", "storage", "compressor"];

macro_rules! fields {
    ($rule:ident) => {
        #[allow(non_snake_case)]
        mod $rule {
            #[test]
            fn every_field() {
                let mut unchanged = Vec::new();
                let form = crate::Form::of::<eigenstep::prelude::$rule>();
                crate::every_field(&crate::named::$rule, &form, &mut unchanged);
                // what has no other value as long as another field has its default
                let known = |field: &String| crate::BOUND.iter().any(|name| field.contains(name));
                assert!(unchanged.iter().all(known), "without another value: {unchanged:?}");
            }
        }
    };
}
mod each {
    eigenstep::for_each_first_order!(fields);
    eigenstep::for_each_second_order!(fields);
    eigenstep::for_each_error_feedback!(fields);
    eigenstep::for_each_windowed!(fields);
    eigenstep::for_each_low_rank!(fields);
}

/// The optimizers that users found, and what they were told.
#[test]
fn mismatches_are_named() {
    fn refused(saved: &impl Optimizer<f32>, mut other: impl Optimizer<f32>) -> String {
        other.load_state_dict(&saved.state_dict()).unwrap_err().to_string()
    }
    let shampoo = |same| {
        let exponents = eigenstep::second_order::Exponents::Same(same);
        Shampoo { exponents, ..Shampoo::<AdamW>::default() }.build::<f32>().unwrap()
    };
    let advice = "build the optimizer as it was built when this was saved";
    assert_eq!(
        refused(&shampoo(0.5), shampoo(0.25)),
        format!(
            "state dict: `groups.0.config.exponents.0`: expected `0.25`, found `0.5`; {advice}"
        )
    );
    let sgd = || Sgd { momentum: 0.9, ..Sgd::default() };
    let nested = Cautious::with_inner(Grams { inner: sgd() }).build().unwrap();
    let plain = Cautious::with_inner(sgd()).build().unwrap();
    assert_eq!(
        refused(&nested, plain),
        format!("state dict: `groups.0.config.inner`: expected `Sgd`, found `Grams`; {advice}")
    );
    let uncorrected = AdamW { bias_correction: false, eps_hat: true, ..AdamW::default() };
    let uncorrected = uncorrected.build::<f32>().unwrap();
    assert_eq!(
        refused(&uncorrected, AdamW::default().build().unwrap()),
        format!(
            "state dict: `groups.0.config.bias_correction`: expected `true`, found `false`; {advice}"
        )
    );
    // options of the dict may be edited before it is loaded
    let mut opt = AdamW::default().build::<f32>().unwrap();
    let mut edited = opt.state_dict();
    edited.scalars.insert("groups.0.lr".into(), eigenstep::state::Scalar::Float(0.5));
    opt.load_state_dict(&edited).unwrap();
    assert_eq!(opt.lr(0), 0.5);
}

/// Estimators take options over, too, and refuse another sampler, another form of the difference, another shaping.
#[test]
fn every_field_of_an_estimator() {
    use eigenstep::zeroth_order::{Coordinate, Estimator, Spsa};

    fn check<C, E>(own: &C, build: impl Fn(C) -> Result<E>, config: impl Fn(&E) -> &C)
    where
        C: serde::Serialize
            + for<'de> serde::Deserialize<'de>
            + Clone
            + PartialEq
            + std::fmt::Debug,
        E: Estimator<f64>,
    {
        let run = |config: C| {
            let mut estimator = build(config).ok()?;
            let mut w = ndarray::array![1.0f64, -2.0, 0.5];
            let loss = |w: &mut ndarray::Array1<f64>| w.iter().map(|x| x * x).sum::<f64>();
            estimator.estimate(&mut w, loss).unwrap();
            Some(estimator)
        };
        let json = serde_json::to_value(own).unwrap();
        let mut fields = Vec::new();
        paths(&json, &Vec::new(), &mut fields);
        let (mut taken, mut refused) = (0, 0);
        for path in fields.iter().skip(1).filter(|path| path[0] != json!("non_finite")) {
            for other in others(refusal::<C>, &json, path) {
                let mut changed = json.clone();
                *at(&mut changed, path) = other;
                let Ok(changed) = serde_json::from_value::<C>(changed) else { continue };
                let Some(saved) = run(changed.clone()) else { continue };
                let mut again = run(own.clone()).unwrap();
                match again.load_state_dict(&saved.state_dict()) {
                    Ok(()) => {
                        taken += 1;
                        assert_eq!(config(&again), &changed);
                    }
                    Err(error) => {
                        refused += 1;
                        assert_eq!(config(&again), own);
                        assert!(error.to_string().contains("found"), "{error}");
                    }
                }
            }
        }
        assert!(taken > 0 && refused > 0, "{own:?}: {taken} {refused}");
    }
    check(&Spsa::default(), |config| config.build::<f64>(), |estimator| estimator.config());
    check(&Coordinate::default(), |config| config.build::<f64>(), |estimator| estimator.config());
}
