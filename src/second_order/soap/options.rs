//! What SOAP's variants differ in.

use crate::hyper::OptionValue;
use crate::quant::{MatrixCodec, MatrixMap};

/// The order of statistic, basis and step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum SoapOrder {
    /// As in the paper's code: the first gradient makes the basis, later ones are used before they
    /// change it. Eigenvectors are sorted by falling eigenvalue, and second moments with them.
    /// Decoupled decay acts after the update.
    Published {
        /// The first step changes neither parameters nor slots. Also of vectors and all else.
        skip_first: bool,
    },
    /// As in Distributed Shampoo: the basis is the identity until step `start`, and is renewed before
    /// it is used, from the statistic divided by `1 − β_sᵗ` plus `epsilon·I`. Second moments stay
    /// where they are. Decoupled decay acts before the update.
    Distributed {
        /// First step with a basis, at least 1; the reference asks for no less than
        /// `update_basis_every`.
        start: u64,
        /// Ridge, `>= 0`. Eigenvectors do not depend on it; how far an unfinished iteration gets does.
        epsilon: f64,
        /// Whether the statistic is divided by `1 − β_sᵗ`.
        bias_correction: bool,
    },
}

impl Default for SoapOrder {
    fn default() -> Self {
        Self::Published { skip_first: true }
    }
}

/// How a basis follows its statistic `A`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum BasisSolver {
    /// One orthogonal iteration, `Q ← Q of A Q`.
    #[default]
    OrthogonalIteration,
    /// All eigenvectors.
    Eigh,
    /// The QR algorithm from the old basis: nothing at all while `‖QᵀAQ − diag‖ <= tolerance·‖A‖`.
    Qr {
        /// Largest number of iterations of one renewal.
        max_iterations: usize,
        /// Relative error that is good enough, `>= 0`.
        tolerance: f64,
    },
}

/// How statistic and basis of one dimension are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", deny_unknown_fields))]
#[non_exhaustive]
pub enum BasisStorage {
    /// Both in full precision, 8n² bytes in `f32`. The statistic sees every gradient.
    #[default]
    Full,
    /// The statistic as its eigenvalues and its eigenvectors, which are the basis, as codes: about
    /// 0.56n² bytes in 4 bits. It sees the gradients of steps that renew the basis only, by one
    /// orthogonal iteration each, and each stands for all k = `update_basis_every` steps until the next:
    /// `L ← βᵏ·L + (1 − βᵏ)·G Gᵀ`.
    Quantized {
        /// Format of the codes.
        codec: MatrixCodec,
        /// Björck iterations on decoded eigenvectors whenever they are used.
        rectify: usize,
    },
}
crate::config_file::presets!(BasisStorage, [FOUR_BIT, EIGHT_BIT]);

impl BasisStorage {
    /// 4-bit eigenvectors, linear-2 codes in blocks of 64, rectified once.
    pub const FOUR_BIT: Self = Self::Quantized {
        codec: MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 },
        rectify: 1,
    };

    /// 8-bit eigenvectors, as [`BasisStorage::FOUR_BIT`]: twice the bytes, and a basis as good as in
    /// full precision.
    pub const EIGHT_BIT: Self = Self::Quantized {
        codec: MatrixCodec { bits: 8, block_size: 64, map: MatrixMap::Linear2 },
        rectify: 1,
    };

    /// The codes, if there are any.
    pub fn codec(&self) -> Option<MatrixCodec> {
        match self {
            Self::Full => None,
            Self::Quantized { codec, .. } => Some(*codec),
        }
    }

    pub(super) fn rectify(&self) -> usize {
        match self {
            Self::Full => 0,
            Self::Quantized { rectify, .. } => *rectify,
        }
    }
}

/// Which dimensions of a tensor of at least two get a basis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Sides {
    /// Every one.
    #[default]
    All,
    /// All but the longest, of equal ones the last: the paper's one-sided version.
    Shorter,
    /// The first: rows of a matrix.
    First,
    /// The last: columns of a matrix.
    Last,
}

impl Sides {
    pub(super) const NAMES: &'static [&'static str] = &["All", "Shorter", "First", "Last"];

    /// Whether dimension `axis` of `shape` gets a basis.
    pub(super) fn include(self, shape: &[usize], axis: usize) -> bool {
        let longest = || (0..shape.len()).max_by_key(|&axis| shape.get(axis));
        match self {
            _ if shape.len() < 2 => true,
            Self::All => true,
            Self::Shorter => longest() != Some(axis),
            Self::First => axis == 0,
            Self::Last => axis + 1 == shape.len(),
        }
    }
}

impl OptionValue for Sides {
    fn get(&self) -> f64 {
        match self {
            Self::All => 0.0,
            Self::Shorter => 1.0,
            Self::First => 2.0,
            Self::Last => 3.0,
        }
    }
    fn set(&mut self, value: f64) {
        *self = match value as u64 {
            1 => Self::Shorter,
            2 => Self::First,
            3 => Self::Last,
            _ => Self::All,
        };
    }
}
