//! The storage of state slots: which formats there are, and which tensors use them.

use super::blockwise::Blockwise;
use super::codec::Codec;
use super::quant_map::{QuantMap, Ties};
use super::rank1::Rank1Codec;
use crate::error::Result;

/// How the state slots of one tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self"))]
#[non_exhaustive]
pub enum Precision {
    /// In the type of the update.
    #[default]
    Full,
    /// The upper 16 bits of an `f32`, rounded to nearest, ties to even.
    Bf16,
    /// Codes with one scale per block.
    Blockwise(Blockwise),
    /// Signed slots and 1-D tensors as [`Precision::Blockwise`]; unsigned slots of matrices and
    /// higher tensors with [rank-1 scales](Rank1Codec) and the unsigned table of the same map.
    /// Only for [`QuantMap::DynamicLinear`].
    Rank1(Blockwise),
}
crate::config_file::presets!(Precision, [INT8_LINEAR, INT8_DYNAMIC, INT8_TORCHAO, INT4, INT4_LPMM]);

impl Precision {
    /// 8 bits, evenly spaced, blocks of 256: the fastest.
    pub const INT8_LINEAR: Self = Self::Blockwise(Blockwise {
        bits: 8,
        block_size: 256,
        map: QuantMap::Linear,
        ties: Ties::Even,
    });
    /// 8 bits, dynamic tree, blocks of 256, as bitsandbytes.
    pub const INT8_DYNAMIC: Self = Self::Blockwise(Blockwise {
        bits: 8,
        block_size: 256,
        map: QuantMap::Dynamic,
        ties: Ties::Lower,
    });
    /// 8 bits, dynamic tree, blocks of 256, as torchao.
    pub const INT8_TORCHAO: Self = Self::Blockwise(Blockwise {
        bits: 8,
        block_size: 256,
        map: QuantMap::Dynamic,
        ties: Ties::Upper,
    });
    /// 4 bits, blocks of 128, as torchao.
    pub const INT4: Self = Self::Blockwise(INT4);
    /// 4 bits, blocks of 128 for signed slots and 1-D tensors, rank-1 scales for the others, as
    /// lpmm.
    pub const INT4_LPMM: Self = Self::Rank1(INT4);

    /// Checks that the combination exists.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) naming the field.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Full | Self::Bf16 => Ok(()),
            Self::Blockwise(blockwise) => blockwise.validate(),
            Self::Rank1(blockwise) => Rank1Codec::new(*blockwise).map(|_| ()),
        }
    }

    /// What this precision means for one slot of a tensor of shape `shape`.
    ///
    /// # Errors
    /// Those of [`Precision::validate`].
    pub fn format(&self, shape: &[usize], signed: bool) -> Result<SlotFormat> {
        self.validate()?;
        Ok(match *self {
            Self::Full => SlotFormat::Full,
            Self::Bf16 => SlotFormat::Bf16,
            Self::Rank1(blockwise) if !signed && shape.len() > 1 => {
                SlotFormat::Rank1(Rank1Codec::new(blockwise)?)
            }
            Self::Blockwise(blockwise) | Self::Rank1(blockwise) => {
                SlotFormat::Blockwise(blockwise.codec(signed)?)
            }
        })
    }
}

const INT4: Blockwise =
    Blockwise { bits: 4, block_size: 128, map: QuantMap::DynamicLinear, ties: Ties::Upper };

/// The storage of one slot, with its codec resolved; cheap to copy.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum SlotFormat {
    /// In the type of the update.
    Full,
    /// As bf16.
    Bf16,
    /// Codes with one scale per block.
    Blockwise(Codec),
    /// Codes with rank-1 scales.
    Rank1(Rank1Codec),
}

/// Which tensors are stored in low precision.
///
/// | field | default |
/// |---|---|
/// | `precision` | `Full` |
/// | `min_numel` | 4096 (bitsandbytes and torchao; lpmm asks for more than 4096) |
/// | `whole_blocks` | `false` (torchao: `true`) |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct StatePolicy {
    /// Storage of the tensors that qualify.
    pub precision: Precision,
    /// Tensors with fewer elements keep full precision.
    pub min_numel: usize,
    /// Also keep full precision where the number of elements is no multiple of the block size, as
    /// torchao does. Has no meaning for `Full` and `Bf16`.
    pub whole_blocks: bool,
}
crate::config_file::named_fields!(StatePolicy);

impl Default for StatePolicy {
    fn default() -> Self {
        Self { precision: Precision::Full, min_numel: 4096, whole_blocks: false }
    }
}

impl From<Precision> for StatePolicy {
    fn from(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }
}

impl StatePolicy {
    /// Checks the precision.
    ///
    /// # Errors
    /// Those of [`Precision::validate`].
    pub fn validate(&self) -> Result<()> {
        self.precision.validate()
    }

    /// The precision for a tensor of `numel` elements.
    pub fn precision_of(&self, numel: usize) -> Precision {
        let whole = match self.precision {
            Precision::Blockwise(blockwise) | Precision::Rank1(blockwise) => {
                numel.is_multiple_of(blockwise.block_size.max(1))
            }
            Precision::Full | Precision::Bf16 => true,
        };
        if numel >= self.min_numel && (whole || !self.whole_blocks) {
            self.precision
        } else {
            Precision::Full
        }
    }

    /// The storage of one slot of a tensor of shape `shape`.
    ///
    /// # Errors
    /// Those of [`Precision::validate`].
    pub fn format(&self, shape: &[usize], signed: bool) -> Result<SlotFormat> {
        self.validate()?;
        self.precision_of(shape.iter().product()).format(shape, signed)
    }
}
