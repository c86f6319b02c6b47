//! Reading golden cases: every key of a `config` has to be understood.
#![allow(dead_code)]

use eigenstep::schedule::PerGroup;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

pub type Outcome<T = ()> = Result<T, String>;

/// The keys of a `config`; all have to be read.
pub struct Config<'c>(&'c Map<String, Value>, RefCell<BTreeSet<&'c str>>);

impl<'c> Config<'c> {
    pub fn new(value: &'c Value) -> Outcome<Self> {
        let keys = value.as_object().ok_or("config is no object")?;
        Ok(Self(keys, RefCell::default()))
    }
    pub fn get(&self, key: &str) -> Option<&'c Value> {
        let (key, value) = self.0.get_key_value(key)?;
        self.1.borrow_mut().insert(key);
        Some(value)
    }
    pub fn number(&self, key: &str, default: f64) -> Outcome<f64> {
        self.get(key).map_or(Ok(default), number)
    }
    pub fn count(&self, key: &str, default: u64) -> Outcome<u64> {
        self.get(key).map_or(Ok(default), |v| v.as_u64().ok_or(format!("{key}: no count")))
    }
    pub fn flag(&self, key: &str, default: bool) -> Outcome<bool> {
        self.get(key).map_or(Ok(default), |v| v.as_bool().ok_or(format!("{key}: no flag")))
    }
    pub fn text(&self, key: &str, default: &'c str) -> Outcome<&'c str> {
        self.get(key).map_or(Ok(default), |v| v.as_str().ok_or(format!("{key}: no text")))
    }
    pub fn per_group(&self, key: &str, default: PerGroup) -> Outcome<PerGroup> {
        match self.get(key) {
            None => Ok(default),
            Some(value @ Value::Array(_)) => Ok(numbers(value)?.into()),
            Some(value) => Ok(number(value)?.into()),
        }
    }
    pub fn finish(&self) -> Outcome {
        let unread = self.0.keys().find(|key| !self.1.borrow().contains(key.as_str()));
        unread.map_or(Ok(()), |key| Err(format!("config `{key}` is not understood")))
    }
}

pub fn list(value: &Value) -> Outcome<&Vec<Value>> {
    value.as_array().ok_or_else(|| format!("expected a list, found {value}"))
}

pub fn number(value: &Value) -> Outcome<f64> {
    match value.as_str() {
        Some("nan") => Ok(f64::NAN),
        Some("inf") => Ok(f64::INFINITY),
        Some("-inf") => Ok(f64::NEG_INFINITY),
        _ => value.as_f64().ok_or_else(|| format!("expected a number, found {value}")),
    }
}

pub fn numbers(value: &Value) -> Outcome<Vec<f64>> {
    match value {
        Value::Array(values) => values.iter().map(number).collect(),
        value => Ok(vec![number(value)?]),
    }
}

pub fn close(what: &str, found: &[f64], expected: &[f64], rtol: f64, atol: f64) -> Outcome {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} numbers instead of {}", found.len(), expected.len()));
    }
    for (&x, &y) in found.iter().zip(expected) {
        let equal = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= atol + rtol * y.abs();
        if !equal {
            return Err(format!("{what}: {x:e} instead of {y:e}"));
        }
    }
    Ok(())
}

pub fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}
