//! Floor 1: optimizer state in 16, 8 or 4 bits per element.
//!
//! A block of `block_size` consecutive elements shares one scale, its largest magnitude; every
//! element is stored as the index of the nearest entry of a fixed table:
//!
//! ```text
//! scale = max |x| over the block
//! code  = the i for which table[i] is nearest to x / scale
//! x̂     = table[code] · scale
//! ```
//!
//! [`Precision`] names the formats, [`StatePolicy`] says which tensors use them, [`Codec`] encodes
//! and decodes the chunks of the optimizer engine, [`QuantizedTensor`] owns a coded tensor.
//!
//! Matrices have formats of their own, with blocks inside a column or row: [`MatrixCodec`] and its
//! maps, [`QuantizedColumns`] for eigenvectors, [`QuantizedSymmetric`] for inverse roots,
//! [`QuantizedTriangular`] for Cholesky factors.
//!
//! # Bytes per element
//! | format | signed slot | unsigned slot |
//! |---|---|---|
//! | [`Precision::Full`] | 4 | 4 |
//! | [`Precision::Bf16`] | 2 | 2 |
//! | [`Precision::INT8_LINEAR`], [`INT8_DYNAMIC`](Precision::INT8_DYNAMIC), [`INT8_TORCHAO`](Precision::INT8_TORCHAO) | 1 + 4/256 | 1 + 4/256 |
//! | [`Precision::INT4`] | 1/2 + 4/128 | 1/2 + 4/128 |
//! | [`Precision::INT4_LPMM`], `m × n` | 1/2 + 4/128 | 1/2 + 4(m + n)/(mn) |
//!
//! With `f64` updates the scales are `f64`, and take 8 bytes.
//!
//! # Values that are not finite
//! A block that holds a NaN gets the scale NaN and codes 0: all of it decodes to NaN. An infinity, such
//! as the square of a gradient of 1e30, is stored as a quarter of the largest number: the elements
//! beside it are coarse then, and finite. Rank-1 scales keep any damage to the element itself, see
//! [`Rank1Codec`].
//!
//! # Precision of the codes
//! The code is chosen, and the table read, in `f32` for every [`Real`](crate::numeric::Real); scale,
//! quotient and product are in the type of the update. Every instruction set gives the same bits.
//!
//! # Sources
//! Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", 2022
//! (bitsandbytes); Li, Chen, Zhu, "Memory Efficient Optimizers with 4-bit States", 2023 (lpmm);
//! PyTorch, torchao (`torchao.optim`).

mod bf16;
mod code_table;
mod codec;
mod dynamic;
mod linear;
mod matrix;
mod nibble;
mod pack;
mod rank1;
mod tensor;

pub(crate) use bf16::bf16_value;
pub use bf16::{decode_bf16, encode_bf16};
pub use code_table::code_table;
pub use codec::Codec;
pub use matrix::{
    MatrixCodec, MatrixMap, QuantizedColumns, QuantizedSymmetric, QuantizedTriangular,
};
pub use pack::{pack_nibbles, unpack_nibbles};
pub use rank1::{Rank1Codec, Rank1Maxima, Rank1Scales};
pub use tensor::QuantizedTensor;

use crate::error::{Error, Result};

/// Which table the codes of a block index; see [`code_table`] for the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum QuantMap {
    /// 8 bits, evenly spaced; the fastest to compute.
    ///
    /// Signed slots: `c/127` for `c = −127..=127`. Unsigned slots: evenly spaced square roots
    /// without zero, `((c + 1)/256)²`. A second moment is divided by, as its root, so what counts is
    /// the resolution of the root; and a table with a zero would turn a small second
    /// moment into `m/(√0 + eps)`, an enormous step. So a nonzero block never decodes to 0, at the
    /// price of rounding the smallest `v` up to `max/65536` (a root of 1/256 of the largest).
    Linear,
    /// 8 or 4 bits, the dynamic tree of bitsandbytes: 7 (3) decades, each with twice the points of
    /// the one below; relative precision over six orders of magnitude. Zero is exact.
    Dynamic,
    /// 4 bits: the dynamic tree for signed slots, and the evenly spaced `(c + 1)/16` without zero for
    /// unsigned ones, for the reason given at [`QuantMap::Linear`] (torchao, lpmm).
    DynamicLinear,
}

impl QuantMap {
    fn admissible_bits(self) -> &'static str {
        match self {
            Self::Linear => "8",
            Self::Dynamic => "4 or 8",
            Self::DynamicLinear => "4",
        }
    }
}

/// How `x / scale` is computed, and which code a value in the middle between two gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Ties {
    /// To the even step; only for, and the only one for, [`QuantMap::Linear`].
    Even,
    /// bitsandbytes: `y = clamp(x · (1 / max(scale, 1e-38)), −1, 1)`, ties to the lower code.
    Lower,
    /// torchao: `scale = max(max |x|, 1e-12)`, `y = x / scale`, ties to the upper code. A zero block
    /// keeps the scale 1e-12, so that a table without zero decodes it to `table[0] · 1e-12`.
    Upper,
}

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

impl Default for Blockwise {
    fn default() -> Self {
        Self { bits: 8, block_size: 256, map: QuantMap::Linear, ties: Ties::Even }
    }
}

fn invalid(optimizer: &'static str, field: &'static str, expected: &str, found: String) -> Error {
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

    /// The codec of a slot; `signed` is false for slots that are never negative.
    ///
    /// # Errors
    /// Those of [`Blockwise::validate`].
    pub fn codec(&self, signed: bool) -> Result<Codec> {
        Codec::new(*self, signed)
    }
}

/// How the state slots of one tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    /// [`Error::InvalidHyperparameter`] naming the field.
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
pub struct StatePolicy {
    /// Storage of the tensors that qualify.
    pub precision: Precision,
    /// Tensors with fewer elements keep full precision.
    pub min_numel: usize,
    /// Also keep full precision where the number of elements is no multiple of the block size, as
    /// torchao does. Has no meaning for `Full` and `Bf16`.
    pub whole_blocks: bool,
}

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
