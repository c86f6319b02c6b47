//! What a window keeps of every gradient: the options.

use super::compressor::Selection;
use super::residual::ResidualFormat;
use super::window::RowFormat;
use crate::error::{Error, Result};
use crate::optim::Layout;

/// What a window keeps of every gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Compression {
    /// Everything.
    #[default]
    None,
    /// The largest elements.
    Sparse(SparseConfig),
    /// Two thin factors of every matrix.
    LowRank(LowRankConfig),
}

/// How a gradient is made sparse.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SparseConfig {
    /// Which elements are kept.
    pub selection: Selection,
    /// Whether what is left out is added to the next gradient; room for it is needed either way.
    pub feedback: bool,
    /// How what is left out is held.
    pub residual: ResidualFormat,
    /// Whether the window rounds values to bfloat16: 4 bytes per entry in place of 6 for `f32`. What
    /// rounding loses is fed back.
    pub bf16_values: bool,
}

impl Default for SparseConfig {
    /// The largest hundredth, with feedback in full precision.
    fn default() -> Self {
        Self {
            selection: Selection::TopK { density: 0.01 },
            feedback: true,
            residual: ResidualFormat::Full,
            bf16_values: false,
        }
    }
}

/// How the matrices of a gradient are made thin: one step of the power iteration from the factor of
/// the step before. Vectors are kept whole.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LowRankConfig {
    /// Columns of the factors, at least 1.
    pub rank: usize,
    /// Whether what is left out is added to the next gradient; room for it is needed either way.
    pub feedback: bool,
    /// How what is left out is held.
    pub residual: ResidualFormat,
    /// Seed of the first factors.
    pub seed: u64,
}

impl Default for LowRankConfig {
    /// Rank 4, with feedback in full precision.
    fn default() -> Self {
        Self { rank: 4, feedback: true, residual: ResidualFormat::Full, seed: 0 }
    }
}

impl Compression {
    /// The largest `density` of every gradient, with error feedback.
    pub fn sparse(density: f64) -> Self {
        let selection = Selection::TopK { density };
        Self::Sparse(SparseConfig { selection, ..SparseConfig::default() })
    }

    /// Factors of `rank` columns of every matrix, with error feedback.
    pub fn low_rank(rank: usize) -> Self {
        Self::LowRank(LowRankConfig { rank, ..LowRankConfig::default() })
    }

    /// The format of the window's rows.
    pub(super) fn rows(&self, numel: usize) -> RowFormat {
        match self {
            Self::None => RowFormat::Dense,
            Self::Sparse(sparsity) => RowFormat::Sparse {
                kept: sparsity.selection.count(numel),
                bf16: sparsity.bf16_values,
            },
            Self::LowRank(low_rank) => RowFormat::LowRank { rank: low_rank.rank },
        }
    }

    /// Checks every option.
    pub(super) fn validate(&self, optimizer: &'static str) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Sparse(sparsity) => {
                sparsity.selection.validate(optimizer)?;
                sparsity.residual.validate(optimizer)
            }
            Self::LowRank(low_rank) if low_rank.rank == 0 => Err(Error::InvalidHyperparameter {
                optimizer,
                field: "compression.rank",
                expected: "at least 1".into(),
                found: "0".into(),
            }),
            Self::LowRank(low_rank) => low_rank.residual.validate(optimizer),
        }
    }

    /// Checks that a vector has as many elements as are to be kept.
    pub(super) fn check_layout(&self, optimizer: &'static str, layout: &Layout) -> Result<()> {
        match self {
            Self::Sparse(sparsity) => sparsity.selection.check_numel(optimizer, layout.numel()),
            _ => Ok(()),
        }
    }
}
