//! Smaller learning rates for lower layers.

use crate::error::Result;
use crate::hyper::Hyperparameters;

/// Learning rates that shrink from the head of a network down to its embedding: for fine-tuning.
///
/// ```text
/// lr·d^(L+1−id),   id 0: embedding, 1 … L: blocks, L+1: head
/// ```
/// | field | default | |
/// |---|---|---|
/// | `lr` | 1e-3 | rate of the head, ≥ 0 |
/// | `decay` | 0.75 | d, in [0, 1] |
/// | `num_layers` | 12 | L, number of blocks |
///
/// # Examples
/// ```
/// use eigenstep::{params::Select, prelude::*, schedule::LayerwiseLr};
///
/// let rates = LayerwiseLr { lr: 1e-2, decay: 0.5, num_layers: 2 }.checked()?;
/// let mut opt = AdamW { lr: rates.head(), ..AdamW::default() }
///     .build::<f32>()?
///     .with_group(Select::name("embedding.*"), |group| group.lr = rates.embedding())?;
/// for layer in 0..2 {
///     let select = Select::name(&format!("layers.{layer}.*"));
///     opt = opt.with_group(select, |group| group.lr = rates.layer(layer))?;
/// }
/// assert_eq!([0, 1, 2, 3].map(|group| opt.lr(group)), [1e-2, 0.125e-2, 0.25e-2, 0.5e-2]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: J. Howard, S. Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct LayerwiseLr {
    /// Rate of the head.
    pub lr: f64,
    /// Factor from one layer to the one below.
    pub decay: f64,
    /// Number of blocks between embedding and head.
    pub num_layers: usize,
}
crate::config_file::named_fields!(LayerwiseLr);

impl Default for LayerwiseLr {
    fn default() -> Self {
        Self { lr: 1e-3, decay: 0.75, num_layers: 12 }
    }
}

crate::hyperparameters!(LayerwiseLr, "LayerwiseLr", {
    "lr": NonNegative = lr;
    "decay": Unit = decay;
    "num_layers": CountFrom(0) = num_layers;
});

impl LayerwiseLr {
    /// The same, if its fields are admissible.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    pub fn checked(self) -> Result<Self> {
        self.validate()?;
        Ok(self)
    }

    /// Rate of the embedding.
    pub fn embedding(&self) -> f64 {
        self.at(0)
    }

    /// Rate of a block, counted from 0.
    pub fn layer(&self, layer: usize) -> f64 {
        self.at(layer.saturating_add(1))
    }

    /// Rate of the head.
    pub fn head(&self) -> f64 {
        self.lr
    }

    fn at(&self, id: usize) -> f64 {
        let above = (self.num_layers as f64 + 1.0 - id as f64).max(0.0);
        self.lr * self.decay.powf(above)
    }
}
