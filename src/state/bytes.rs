//! How much memory an optimizer holds.

use std::collections::BTreeMap;
use std::fmt;

/// Bytes that an optimizer's state holds, slot by slot, summed over all parameters.
///
/// Counted are the buffers of the state itself: codes, scales, moments, master weights. Names, step
/// counts, the work list of a step (a few dozen bytes per tensor) and the 2 KiB by which buffers of
/// 4 MiB and more are kept apart are not.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array2;
///
/// let (mut w, g) = (Array2::<f32>::zeros((64, 64)), Array2::<f32>::ones((64, 64)));
/// let mut opt = AdamW::default().build()?;
/// opt.step(&mut w, &g)?;
/// let bytes = opt.state_bytes();
/// assert_eq!(bytes.slot("exp_avg"), 64 * 64 * 4);
/// assert_eq!(bytes.total(), 2 * 64 * 64 * 4);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateBytes {
    slots: BTreeMap<&'static str, usize>,
    parameters: usize,
}

impl StateBytes {
    /// Adds `bytes` to the slot `name`.
    pub fn add(&mut self, name: &'static str, bytes: usize) {
        *self.slots.entry(name).or_default() += bytes;
    }

    /// Counts `numel` more parameters.
    pub fn add_parameters(&mut self, numel: usize) {
        self.parameters += numel;
    }

    /// Bytes of the slot `name`, 0 if there is none.
    pub fn slot(&self, name: &str) -> usize {
        self.slots.get(name).copied().unwrap_or(0)
    }

    /// Every slot with its bytes.
    pub fn slots(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.slots.iter().map(|(&name, &bytes)| (name, bytes))
    }

    /// Bytes of all slots.
    pub fn total(&self) -> usize {
        self.slots.values().sum()
    }

    /// Number of parameters (elements) that have a state.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Bytes per parameter; 0 without parameters.
    pub fn per_parameter(&self) -> f64 {
        if self.parameters == 0 { 0.0 } else { self.total() as f64 / self.parameters as f64 }
    }
}

impl fmt::Display for StateBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes) in self.slots() {
            writeln!(f, "{name:<20} {bytes:>12} B")?;
        }
        write!(
            f,
            "{:<20} {:>12} B, {:.2} B per parameter",
            "total",
            self.total(),
            self.per_parameter()
        )
    }
}
