//! Reading fields of a case.

use super::{Outcome, fail, skip};
use eigenstep::numeric::Real;
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value};

/// The field `key`.
pub fn field<'v>(value: &'v Value, key: &str) -> Outcome<&'v Value> {
    value.get(key).ok_or_else(|| fail(format!("the field `{key}` is missing")))
}

/// The field `key`, which is an object.
pub fn object<'v>(value: &'v Value, key: &str) -> Outcome<&'v Map<String, Value>> {
    let found = field(value, key)?.as_object();
    found.ok_or_else(|| fail(format!("`{key}` is no object")))
}

/// The field `key`, which is a list.
pub fn list<'v>(value: &'v Value, key: &str) -> Outcome<&'v Vec<Value>> {
    let found = field(value, key)?.as_array();
    found.ok_or_else(|| fail(format!("`{key}` is no list")))
}

/// The field `key`, which is a word.
pub fn text<'v>(value: &'v Value, key: &str) -> Outcome<&'v str> {
    let found = field(value, key)?.as_str();
    found.ok_or_else(|| fail(format!("`{key}` is no text")))
}

/// The field `key`, which is a count.
pub fn count(value: &Value, key: &str) -> Outcome<usize> {
    let found = field(value, key)?.as_u64().and_then(|count| usize::try_from(count).ok());
    found.ok_or_else(|| fail(format!("`{key}` is no count")))
}

/// Skips the case if `value` has a field that the runner does not read: nothing may be left
/// unchecked without saying so.
pub fn only(value: &Value, known: &[&str]) -> Outcome {
    let mut keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
    match keys.find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(skip(format!("the runner does not read the field `{key}`"))),
        None => Ok(()),
    }
}

/// A number; "nan", "inf" and "-inf" are numbers too.
pub fn number(value: &Value) -> Outcome<f64> {
    match value.as_str() {
        Some("nan") => Ok(f64::NAN),
        Some("inf") => Ok(f64::INFINITY),
        Some("-inf") => Ok(f64::NEG_INFINITY),
        _ => value.as_f64().ok_or_else(|| fail(format!("expected a number, found {value}"))),
    }
}

/// A list of numbers, or a single one.
pub fn numbers(value: &Value) -> Outcome<Vec<f64>> {
    match value {
        Value::Array(values) => values.iter().map(number).collect(),
        value => Ok(vec![number(value)?]),
    }
}

/// The field `key`: numbers, rounded to `R` (exact where the case was computed in `R`).
pub fn reals<R: Real>(value: &Value, key: &str) -> Outcome<Vec<R>> {
    Ok(numbers(field(value, key)?)?.into_iter().map(R::of).collect())
}

/// The field `key`: codes, bits or other small integers.
pub fn integers(value: &Value, key: &str) -> Outcome<Vec<u32>> {
    let integer = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
    let found: Option<Vec<u32>> = list(value, key)?.iter().map(integer).collect();
    found.ok_or_else(|| fail(format!("`{key}` holds something else than small integers")))
}

/// The field `key`: sizes of dimensions.
pub fn shape(value: &Value, key: &str) -> Outcome<Vec<usize>> {
    Ok(integers(value, key)?.into_iter().map(|size| size as usize).collect())
}

/// An array of `shape` from its elements in row-major order.
pub fn array<R: Real>(shape: &[usize], value: &Value) -> Outcome<ArrayD<R>> {
    let values = numbers(value)?.into_iter().map(R::of).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|error| fail(error.to_string()))
}

/// The field `key`, which is a list; an empty one if it is missing.
pub fn list_or_empty<'v>(value: &'v Value, key: &str) -> Outcome<&'v [Value]> {
    if value.get(key).is_some() { Ok(list(value, key)?) } else { Ok(&[]) }
}
