//! Compressed vectors.

use super::half::HalfPrecision;
use crate::numeric::Real;

/// A compressed vector.
///
/// | variant | payload for `d` elements in `f32`, bytes | compressor |
/// |---|---|---|
/// | `Dense` | 4d | [`Identity`](super::Identity) |
/// | `Sparse` | 8k | [`TopK`](super::TopK) of all elements |
/// | `BlockSparse` | 6k | [`TopK`](super::TopK) of blocks of at most 65536 elements |
/// | `Seeded` | 4k | [`RandK`](super::RandK) |
/// | `Signs` | d/8 + 4 | [`ScaledSign`](super::ScaledSign) |
/// | `Levels` | d⌈log₂(2s + 1)⌉/8 + 4 | [`Qsgd`](super::Qsgd) |
/// | `Exponents` | 9d/8; 12d/8 in `f64` | [`Natural`](super::Natural) |
/// | `Factors` | 4r(a + b) for an a × b matrix | [`LowRank`](super::LowRank) |
/// | `Half` | 2d | [`HalfPrecision`] |
///
/// Codes are packed from the lowest bits of a byte on. The last byte is padded with zeros.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message<R> {
    /// All elements.
    Dense(Vec<R>),
    /// Some elements; the others are zero.
    Sparse {
        /// Number of elements of the vector.
        numel: usize,
        /// Positions of the elements, ascending.
        indices: Vec<u32>,
        /// The elements.
        values: Vec<R>,
    },
    /// The same number of elements of every block; the others are zero.
    BlockSparse {
        /// Number of elements of the vector.
        numel: usize,
        /// Length of a block; the last one may be shorter.
        block: usize,
        /// Number of elements of a block; the last one has the remaining ones.
        per_block: usize,
        /// Positions of the elements in their blocks, ascending in each.
        indices: Vec<u16>,
        /// The elements.
        values: Vec<R>,
    },
    /// Elements at random positions; the others are zero. The receiver draws the positions itself:
    /// [`RandK::places`](super::RandK::places).
    Seeded {
        /// Number of elements of the vector.
        numel: usize,
        /// Seed of the positions.
        seed: u64,
        /// Step number of the positions.
        t: u64,
        /// The elements in the order of their positions, scaled by `d/k` if unbiased.
        values: Vec<R>,
    },
    /// One magnitude and the sign of every element.
    Signs {
        /// Number of elements of the vector.
        numel: usize,
        /// The magnitude.
        scale: R,
        /// One bit per element, set if it is negative.
        signs: Vec<u8>,
    },
    /// Multiples `q = −s ..= s` of `norm/s`.
    Levels {
        /// Number of elements of the vector.
        numel: usize,
        /// Number `s` of levels.
        levels: u32,
        /// Length of the vector.
        norm: R,
        /// `q + s` in ⌈log₂(2s + 1)⌉ bits each, packed.
        codes: Vec<u8>,
    },
    /// Powers of two.
    Exponents {
        /// Number of elements of the vector.
        numel: usize,
        /// Sign and exponent of every element, packed; 0 for zero.
        codes: Vec<u8>,
    },
    /// A matrix `P Rᵀ`.
    Factors {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Columns of the factors.
        rank: usize,
        /// `P`, `rows × rank`, row-major.
        p: Vec<R>,
        /// `Rᵀ`, `rank × columns`, row-major.
        r: Vec<R>,
    },
    /// All elements in 16 bits.
    Half {
        /// The format.
        format: HalfPrecision,
        /// The elements.
        codes: Vec<u16>,
    },
}

impl<R: Real> Message<R> {
    /// Number of elements of the vector.
    pub fn numel(&self) -> usize {
        match self {
            Self::Dense(values) => values.len(),
            Self::Half { codes, .. } => codes.len(),
            Self::Factors { rows, columns, .. } => rows.saturating_mul(*columns),
            Self::Sparse { numel, .. }
            | Self::BlockSparse { numel, .. }
            | Self::Seeded { numel, .. }
            | Self::Signs { numel, .. }
            | Self::Levels { numel, .. }
            | Self::Exponents { numel, .. } => *numel,
        }
    }

    /// Positions and elements of a sparse message. Any other message is returned as it is.
    pub(crate) fn into_entries(self) -> Result<(Vec<u32>, Vec<R>), Self> {
        match self {
            Self::Sparse { indices, values, .. } => Ok((indices, values)),
            Self::BlockSparse { block, per_block, indices, values, .. } => {
                let places = block_places(&indices, block, per_block);
                Ok((places.map(|place| place as u32).collect(), values))
            }
            message => Err(message),
        }
    }

    /// Bytes of the payload. Sizes, options and seeds do not count: both sides know them.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(values) | Self::Seeded { values, .. } => size_of_val(values.as_slice()),
            Self::Sparse { indices, values, .. } => {
                size_of_val(indices.as_slice()) + size_of_val(values.as_slice())
            }
            Self::BlockSparse { indices, values, .. } => {
                size_of_val(indices.as_slice()) + size_of_val(values.as_slice())
            }
            Self::Signs { signs: codes, .. } | Self::Levels { codes, .. } => {
                size_of::<R>() + codes.len()
            }
            Self::Exponents { codes, .. } => codes.len(),
            Self::Factors { p, r, .. } => size_of_val(p.as_slice()) + size_of_val(r.as_slice()),
            Self::Half { codes, .. } => size_of_val(codes.as_slice()),
        }
    }
}

/// Positions in the vector, from positions in the blocks.
pub(super) fn block_places(
    indices: &[u16],
    block: usize,
    per_block: usize,
) -> impl Iterator<Item = usize> + '_ {
    let blocks = indices.chunks(per_block.max(1)).enumerate();
    blocks.flat_map(move |(number, indices)| {
        let start = number.saturating_mul(block);
        indices.iter().map(move |&index| start.saturating_add(index.into()))
    })
}
