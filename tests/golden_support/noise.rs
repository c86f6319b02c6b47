//! Random numbers that a case supplies.

use super::Outcome;
use super::objectives::Model;
use eigenstep::zeroth_order::{Noise, Purpose, RngStream};
use serde_json::Value;
use std::collections::BTreeMap;

/// Numbers by purpose, step, query and tensor, whatever their distribution.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<(u32, u64, u32, u32), Vec<f64>>);

impl Table {
    /// The row of one direction.
    pub fn set(&mut self, purpose: Purpose, at: (u64, usize, usize), values: Vec<f64>) {
        let (step, query, tensor) = at;
        self.0.insert((purpose as u32, step, query as u32, tensor as u32), values);
    }

    /// Directions `[{name: values}]`, one per query.
    pub fn directions(&mut self, step: u64, model: &Model, directions: &[Value]) -> Outcome {
        for (query, direction) in directions.iter().enumerate() {
            for (name, values) in direction.as_object().into_iter().flatten() {
                let tensor =
                    model.index(name).ok_or_else(|| super::fail(format!("no `{name}`")))?;
                let values = super::json::numbers(values)?;
                self.set(Purpose::Direction, (step, query, tensor), values);
            }
        }
        Ok(())
    }

    fn read(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        let key = (stream.purpose as u32, stream.step, stream.query, stream.tensor);
        let row = self.0.get(&key).map_or(&[][..], Vec::as_slice);
        for (i, x) in out.iter_mut().enumerate() {
            // a number that is not there must not go unnoticed
            *x = row.get(offset + i).copied().unwrap_or(f64::NAN);
        }
    }
}

impl Noise<f64> for Table {
    fn normal(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        self.read(stream, offset, out);
    }
    fn rademacher(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        self.read(stream, offset, out);
    }
    fn uniform(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        self.read(stream, offset, out);
    }
}
