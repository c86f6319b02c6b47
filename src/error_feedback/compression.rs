//! How a window of gradients is compressed: the options.

use super::compressor::Selection;
use super::residual::ResidualFormat;
use super::window::RowFormat;
use crate::error::{Error, Result};
use crate::optim::Layout;

/// How a window compresses every gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// To the largest elements.
    Sparse(SparseConfig),
    /// To two low-rank factors of every matrix.
    LowRank(LowRankConfig),
}

/// Options of a sparse window.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SparseConfig {
    /// Which elements are kept.
    pub selection: Selection,
    /// Whether the residual is added to the next gradient. It takes its memory either way.
    pub feedback: bool,
    /// The format of the residual.
    pub residual: ResidualFormat,
    /// Whether the window rounds values to bfloat16: 4 bytes per entry instead of 6 for `f32`. The
    /// rounding error goes into the residual.
    pub bf16_values: bool,
}
crate::config_file::named_fields!(SparseConfig);

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

/// Options of a low-rank window: factors come from one step of the power iteration, which starts from
/// the last step's factor. Vectors are not compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct LowRankConfig {
    /// Columns of the factors, at least 1.
    pub rank: usize,
    /// Whether the residual is added to the next gradient. It takes its memory either way.
    pub feedback: bool,
    /// The format of the residual.
    pub residual: ResidualFormat,
    /// Seed of the first factors.
    pub seed: u64,
}
crate::config_file::named_fields!(LowRankConfig);

impl Default for LowRankConfig {
    /// Rank 4, with feedback in full precision.
    fn default() -> Self {
        Self { rank: 4, feedback: true, residual: ResidualFormat::Full, seed: 0 }
    }
}

impl Compression {
    /// The largest elements of every gradient, a share of `density`, with error feedback.
    pub fn sparse(density: f64) -> Self {
        let selection = Selection::TopK { density };
        Self::Sparse(SparseConfig { selection, ..SparseConfig::default() })
    }

    /// Factors of `rank` columns for every matrix, with error feedback.
    pub fn low_rank(rank: usize) -> Self {
        Self::LowRank(LowRankConfig { rank, ..LowRankConfig::default() })
    }

    /// The row format of the window.
    pub(super) fn rows(&self, numel: usize) -> RowFormat {
        match self {
            Self::None => RowFormat::Dense,
            Self::Sparse(sparse) => {
                RowFormat::Sparse { kept: sparse.selection.count(numel), bf16: sparse.bf16_values }
            }
            Self::LowRank(low_rank) => RowFormat::LowRank { rank: low_rank.rank },
        }
    }

    /// Checks every option.
    pub(super) fn validate(&self, optimizer: &'static str) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Sparse(sparse) => {
                sparse.selection.validate(optimizer)?;
                sparse.residual.validate(optimizer)
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

    /// Checks that a vector has at least as many elements as the window keeps.
    pub(super) fn check_layout(&self, optimizer: &'static str, layout: &Layout) -> Result<()> {
        match self {
            Self::Sparse(sparse) => sparse.selection.check_numel(optimizer, layout.numel()),
            _ => Ok(()),
        }
    }
}
