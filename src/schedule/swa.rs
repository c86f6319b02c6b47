//! The rate of stochastic weight averaging.

use super::anneal::Anneal;
use super::per_group::PerGroup;
use super::rate::{At, Schedule, table_of};
use crate::error::Result;
use crate::hyper::{Hyperparameters, Range};
use std::f64::consts::PI;

/// Anneals the rate to a constant, at which weights are then averaged: PyTorch's `SWALR`.
///
/// Step it instead of the main schedule from the moment averaging begins.
///
/// ```text
/// a(t) = t  or  (1 − cos πt)/2,   t = clamp(e/anneal_epochs)
/// lr₀ = (η − a_prev·swa)/(1 − a_prev)   (swa if a_prev = 1)
/// η   = swa·a + lr₀·(1 − a)
/// ```
/// | field | default | |
/// |---|---|---|
/// | `swa_lr` | 0.05 | for all groups or for each; ours, PyTorch has none |
/// | `anneal_epochs` | 10 | 0 jumps at once; PyTorch's |
/// | `anneal` | `Cos` | PyTorch's `anneal_strategy` |
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let swa = schedule::SwaLr { swa_lr: 0.02.into(), anneal_epochs: 2, ..Default::default() };
/// let mut scheduler = LrScheduler::new(swa, &mut opt)?;
/// for expected in [0.015, 0.02, 0.02] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-15);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson, "Averaging Weights
/// Leads to Wider Optima and Better Generalization", 2018.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SwaLr {
    /// The rate to arrive at.
    pub swa_lr: PerGroup,
    /// Steps until then.
    pub anneal_epochs: u64,
    /// Shape of the way.
    pub anneal: Anneal,
}
crate::config_file::named_fields!(SwaLr);

impl Default for SwaLr {
    fn default() -> Self {
        Self { swa_lr: PerGroup::All(0.05), anneal_epochs: 10, anneal: Anneal::Cos }
    }
}

crate::hyperparameters!(SwaLr, "SwaLr", {
    "anneal_epochs": CountFrom(0) = anneal_epochs;
    "anneal": Choice(Anneal::NAMES) = anneal;
});

impl SwaLr {
    fn alpha(&self, epoch: f64) -> f64 {
        let t = (epoch / self.anneal_epochs.max(1) as f64).clamp(0.0, 1.0);
        match self.anneal {
            Anneal::Cos => (1.0 - (PI * t).cos()) / 2.0,
            Anneal::Linear => t,
        }
    }
}

impl Schedule for SwaLr {
    fn name(&self) -> &'static str {
        "SwaLr"
    }
    fn next(&self, at: At) -> f64 {
        let epoch = if self.anneal_epochs == 0 { at.epoch.max(1.0) } else { at.epoch };
        let swa_lr = self.swa_lr.get(at.group);
        let (before, alpha) = (self.alpha(epoch - 1.0), self.alpha(epoch));
        let initial =
            if before == 1.0 { swa_lr } else { (at.lr - before * swa_lr) / (1.0 - before) };
        swa_lr * alpha + initial * (1.0 - alpha)
    }
    fn check(&self, groups: usize) -> Result<()> {
        Hyperparameters::validate(self)?;
        self.swa_lr.check("SwaLr", "swa_lr", groups, Range::NonNegative)
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = table_of(self);
        self.swa_lr.list("swa_lr", &mut options);
        options
    }
}
