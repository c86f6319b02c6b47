//! How an optimizer stores what it remembers, and how it rounds parameters.

use super::kind::SlotKind;
use crate::error::{Error, Result};
use crate::quant::{Precision, SlotFormat, StatePolicy};

/// How a new parameter value, computed in `f32`, becomes a `bf16` or `f16`.
///
/// A step of `1e-3` on a `bf16` weight of 1.0 is less than half a unit in the last place: rounded to
/// nearest it changes nothing, however often it is repeated. The other variants keep what rounding
/// would lose. For `f32` and `f64` parameters only `Kahan` does anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Rounding {
    /// To nearest, ties to even. No memory; small steps are lost.
    Nearest,
    /// Up or down at random, right on average; reproducible from the seed. No memory.
    ///
    /// Each element draws from a Philox stream keyed by (seed, parameter name, step, index); where `train` and
    /// `eval` move parameters, by the number of the move, too.
    Stochastic {
        /// Key of the random stream.
        seed: u64,
    },
    /// The rounding error is kept in a slot `kahan` of the parameter's own type and added to the
    /// next step: 2 bytes per parameter.
    Kahan,
    /// The parameter is kept in `f32` in a slot `master`, and rounded from there: 4 bytes per
    /// parameter. The parameter that training sees is `master` rounded to nearest; a value that
    /// the program wrote into the parameter since the last step is taken over.
    #[default]
    Master,
}

/// How an optimizer stores its state.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Storage {
    /// Precision of the slots, and which tensors are exempt.
    pub state: StatePolicy,
    /// Precision of single slots, by name; the last entry of a name counts.
    pub slots: Vec<(String, Precision)>,
    /// Rounding of parameters.
    pub rounding: Rounding,
}
crate::config_file::named_fields!(Storage);

impl Storage {
    /// Checks every precision, and that the slots named exist.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the field.
    pub fn check(
        &self,
        optimizer: &'static str,
        known: impl Iterator<Item = &'static str> + Clone,
    ) -> Result<()> {
        self.state.validate()?;
        for (name, precision) in &self.slots {
            if !known.clone().any(|slot| slot == name) {
                let expected = format!("one of {}", known.collect::<Vec<_>>().join(", "));
                let found = format!("`{name}`");
                return Err(Error::InvalidHyperparameter {
                    optimizer,
                    field: "slot",
                    expected,
                    found,
                });
            }
            precision.validate()?;
        }
        Ok(())
    }

    /// Whether parameters are rounded at random.
    pub(crate) fn is_random(&self) -> bool {
        matches!(self.rounding, Rounding::Stochastic { .. })
    }

    /// Whether any slot is stored as bf16, whose range is that of `f32`.
    pub(crate) fn has_bf16(&self) -> bool {
        let slots = self.slots.iter().map(|(_, precision)| precision);
        slots.chain([&self.state.precision]).any(|precision| *precision == Precision::Bf16)
    }

    /// How the slot `name` of a tensor of shape `shape` is stored.
    pub(crate) fn format(&self, name: &str, kind: SlotKind, shape: &[usize]) -> SlotFormat {
        let chosen = self.slots.iter().rev().find(|(slot, _)| slot == name);
        let precision = match (chosen, kind) {
            (Some((_, precision)), _) => *precision,
            (None, SlotKind::Iterate) => Precision::Full,
            (None, SlotKind::Signed | SlotKind::Unsigned | SlotKind::Input(_)) => {
                self.state.precision
            }
        };
        let policy = StatePolicy { precision, ..self.state };
        // the precision was checked when it was chosen
        policy.format(shape, kind != SlotKind::Unsigned).unwrap_or(SlotFormat::Full)
    }
}
