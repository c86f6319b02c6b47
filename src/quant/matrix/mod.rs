//! Matrices in 3, 4 or 8 bits per entry: the state of second-order optimizers.

mod columns;
mod kernels;
mod lines;
mod map;
mod pack;
mod shared;
mod symmetric;
mod table;
mod triangular;

pub use columns::QuantizedColumns;
pub use map::MatrixMap;
pub use symmetric::QuantizedSymmetric;
pub use triangular::QuantizedTriangular;

use super::blockwise::invalid;
use crate::error::Result;
use std::fmt;

/// How the entries of a matrix are coded: in blocks that lie inside one column or row.
///
/// ```text
/// a = max |x| over the block,   s = 1/a   (a block with a = 0, or with 1/a = ∞, is zero)
/// code = the j for which R(j) is nearest to x·s; in the middle, the even one
/// x̂ = R(code)·a
/// ```
///
/// The levels `R` are those of the [`map`](MatrixMap), rounded to the type of the matrix; codes,
/// products and scales are in that type, too. Every instruction set gives the same bits.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `bits` | 4 | paper |
/// | `block_size` | 64 | paper |
/// | `map` | `Linear2` | paper |
///
/// # Examples
/// ```
/// use eigenstep::quant::{MatrixCodec, QuantizedColumns};
/// use ndarray::array;
///
/// let codec = MatrixCodec { bits: 3, ..MatrixCodec::default() };
/// let mut coded = QuantizedColumns::zeros(codec, (2, 2))?;
/// coded.encode(&array![[1.0_f32, -4.0], [0.5, 0.01]])?;
/// let level = (5.0 / 7.0) * (5.0 / 7.0); // of the nearest code to 0.5
/// assert!((coded.decode() - array![[1.0, -4.0], [level, 0.0]]).iter().all(|x| x.abs() < 1e-6));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training", 2024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct MatrixCodec {
    /// Bits per code: 3, 4 or 8. The first code lies in the lowest bits of a byte; eight codes of 3
    /// bits fill three bytes.
    pub bits: u8,
    /// Entries that share a scale, at least 1. The last block of a line may be shorter.
    pub block_size: usize,
    /// The table.
    pub map: MatrixMap,
}
crate::config_file::named_fields!(MatrixCodec);

impl Default for MatrixCodec {
    fn default() -> Self {
        Self { bits: 4, block_size: 64, map: MatrixMap::Linear2 }
    }
}

/// The name under which a state dict records the format.
impl fmt::Display for MatrixCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bits, blocks of {}", self.map.name(), self.bits, self.block_size)
    }
}

impl MatrixCodec {
    /// Checks the fields.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) naming `bits` or
    /// `block_size`.
    pub fn validate(&self) -> Result<()> {
        self.map.levels(self.bits)?;
        if self.block_size == 0 {
            return Err(invalid("MatrixCodec", "block_size", "at least 1", "0".to_owned()));
        }
        Ok(())
    }

    /// Bytes of the codes of one line of `length` entries: `⌈bits·length/8⌉`.
    fn bytes_of(&self, length: usize) -> usize {
        usize::from(self.bits).saturating_mul(length).div_ceil(8)
    }

    /// Scales of one line of `length` entries.
    fn blocks_of(&self, length: usize) -> usize {
        length.div_ceil(self.block_size)
    }
}
