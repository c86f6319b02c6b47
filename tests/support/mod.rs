//! A stand-in for an optimizer: options per group, plain gradient descent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(dead_code)]

pub mod golden;

use eigenstep::optim::Optimizer;
use eigenstep::params::{Gradients, Parameters};
use eigenstep::state::{StateBytes, StateDict};
use eigenstep::{Error, Result};
use std::collections::BTreeMap;

/// Options per group; `lr` and momenta have the ranges of real optimizers.
#[derive(Clone, Debug, PartialEq)]
pub struct Mock {
    pub groups: Vec<BTreeMap<&'static str, f64>>,
    /// Number of calls of `step`.
    pub steps: usize,
}

impl Mock {
    pub fn new(lrs: &[f64], momentum: Option<&'static str>) -> Self {
        let group = |&lr: &f64| {
            let momentum = momentum.map(|name| (name, 0.9));
            std::iter::once(("lr", lr)).chain(momentum).collect()
        };
        Self { groups: lrs.iter().map(group).collect(), steps: 0 }
    }

    pub fn sgd(lrs: &[f64]) -> Self {
        Self::new(lrs, Some("momentum"))
    }

    pub fn adam(lrs: &[f64]) -> Self {
        Self::new(lrs, Some("betas.0"))
    }

    pub fn lrs(&self) -> Vec<f64> {
        self.groups.iter().map(|group| group["lr"]).collect()
    }

    pub fn options(&self, name: &str) -> Vec<f64> {
        self.groups.iter().map(|group| group[name]).collect()
    }
}

impl Optimizer<f32> for Mock {
    fn step(&mut self, _: &mut dyn Parameters<f32>, _: &dyn Gradients<f32>) -> Result<()> {
        self.steps += 1;
        Ok(())
    }
    fn check_step(&mut self, _: &mut dyn Parameters<f32>, _: &dyn Gradients<f32>) -> Result<bool> {
        Ok(true)
    }
    fn name(&self) -> &'static str {
        "Mock"
    }
    fn num_groups(&self) -> usize {
        self.groups.len()
    }
    fn option(&self, group: usize, name: &str) -> Option<f64> {
        self.groups.get(group)?.get(name).copied()
    }
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        let groups = self.groups.len();
        let options = self.groups.get_mut(group).ok_or(Error::UnknownGroup { group, groups })?;
        let slot = options.get_mut(name).ok_or_else(|| Error::UnknownOption {
            optimizer: "Mock",
            name: name.into(),
            known: "lr".into(),
        })?;
        if value.is_nan() || value < 0.0 || name != "lr" && value >= 1.0 {
            return Err(Error::InvalidHyperparameter {
                optimizer: "Mock",
                field: if name == "lr" { "lr" } else { "momentum" },
                expected: "in range".into(),
                found: value.to_string(),
            });
        }
        *slot = value;
        Ok(())
    }
    fn state_bytes(&self) -> StateBytes {
        StateBytes::default()
    }
    fn state_dict(&self) -> StateDict {
        StateDict::new("Mock")
    }
    fn load_state_dict(&mut self, _: &StateDict) -> Result<()> {
        Ok(())
    }
}
