//! The format of codes that share a scale block by block.

use super::code_table::code_table;
use super::quant_map::{QuantMap, Ties};
use crate::error::{Error, Result};

/// Codes with one scale per block.
///
/// | field | default |
/// |---|---|
/// | `bits` | 8 |
/// | `block_size` | 256 |
/// | `map` | `Linear` |
/// | `ties` | `Even` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Blockwise {
    /// Bits per code: 4 or 8.
    pub bits: u8,
    /// Elements that share a scale: a power of two in `16..=4096`. From 128 up the loops are fast.
    pub block_size: usize,
    /// The table.
    pub map: QuantMap,
    /// Scaling and rounding.
    pub ties: Ties,
}
crate::config_file::named_fields!(Blockwise);

impl Default for Blockwise {
    fn default() -> Self {
        Self { bits: 8, block_size: 256, map: QuantMap::Linear, ties: Ties::Even }
    }
}

/// The error for a field that is out of range.
pub(super) fn invalid(
    optimizer: &'static str,
    field: &'static str,
    expected: &str,
    found: String,
) -> Error {
    Error::InvalidHyperparameter { optimizer, field, expected: expected.into(), found }
}

impl Blockwise {
    /// Checks that the combination exists.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] naming `block_size`, `bits` or `ties`.
    pub fn validate(&self) -> Result<()> {
        if !self.block_size.is_power_of_two() || !(16..=4096).contains(&self.block_size) {
            let expected = "a power of two in 16..=4096";
            return Err(invalid("Blockwise", "block_size", expected, self.block_size.to_string()));
        }
        code_table(self.map, self.bits, true)?;
        if (self.map == QuantMap::Linear) != (self.ties == Ties::Even) {
            let expected = if self.map == QuantMap::Linear { "Even" } else { "Lower or Upper" };
            let expected = format!("{expected} for the map {:?}", self.map);
            return Err(invalid("Blockwise", "ties", &expected, format!("{:?}", self.ties)));
        }
        Ok(())
    }
}
