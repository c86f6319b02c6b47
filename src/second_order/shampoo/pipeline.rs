//! What differs between the public implementations of Shampoo.

use crate::optim::Partition;
use crate::second_order::Reshape;

/// What surrounds the preconditioner in a public implementation.
///
/// | | [`LOW_BIT`](Self::LOW_BIT) | [`SCALABLE`](Self::SCALABLE) | [`DISTRIBUTED`](Self::DISTRIBUTED) |
/// |---|---|---|---|
/// | source | 4-bit Shampoo | Google's Scalable Shampoo | Meta's Distributed Shampoo |
/// | tensors | matrices | all | all |
/// | graft | whole tensor | whole tensor | block by block |
/// | first root | at the interval | at the interval | at `start` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", deny_unknown_fields))]
pub struct Pipeline {
    /// The shape that tensors are given before they are cut into blocks.
    pub reshape: Reshape,
    /// Which vectors get the length that grafting asks for.
    pub graft_scope: GraftScope,
    /// Whether the first roots are made at step `start`; else whenever the interval says so.
    pub roots_at_start: bool,
}
crate::config_file::presets!(Pipeline, [LOW_BIT, SCALABLE, DISTRIBUTED]);

impl Pipeline {
    /// As the code of 4-bit Shampoo: matrices, everything else by the inner rule alone.
    pub const LOW_BIT: Self =
        Self { reshape: Reshape::Matrix, graft_scope: GraftScope::Tensor, roots_at_start: false };
    /// As Google's code: dimensions are merged from the first to the last, vectors have a factor.
    pub const SCALABLE: Self =
        Self { reshape: Reshape::Leading, graft_scope: GraftScope::Tensor, roots_at_start: false };
    /// As Meta's code with matrices kept as matrices. Meta's own default merges further, down to
    /// one dimension: a matrix of no more than `max_dim` elements then becomes a vector.
    pub const DISTRIBUTED: Self = Self {
        reshape: Reshape::Merged { dims: 2 },
        graft_scope: GraftScope::Block,
        roots_at_start: true,
    };

    /// How a tensor of this shape is cut into blocks with factors of at most `max_dim` rows.
    pub(super) fn partition(&self, shape: &[usize], max_dim: usize) -> Option<Partition> {
        if shape.contains(&0) {
            return None;
        }
        let shape = self.reshape.of(shape, max_dim)?;
        Some(Partition::new(shape, max_dim))
    }
}

/// Which vectors get the length that grafting asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GraftScope {
    /// The tensor: `D·‖A‖/(‖D‖ + 1e-12)`. In a stack (`batch_dims`) every block instead.
    Tensor,
    /// Every block: `D·‖A‖/(‖D‖ + 1e-16)`.
    Block,
}

/// The powers that factors are taken to, as positive numbers: `L^(−exponent)`.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Exponents {
    /// `1/(2k)` for a tensor of `k` dimensions: 1/4 for matrices.
    #[default]
    Standard,
    /// The same for all: 1/2 is Shampoo², the square root of the best Kronecker product's step.
    Same(f64),
    /// By number of dimensions, and by dimension; the first entry that fits counts, and where none
    /// does the standard.
    Table(Vec<Exponent>),
}

/// One entry of [`Exponents::Table`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, remote = "Self"))]
pub struct Exponent {
    /// Number of dimensions of the block.
    pub order: usize,
    /// Which dimension, from 0; `None`: all.
    pub dim: Option<usize>,
    /// The exponent `>= 0`; with 0 the dimension has no factor.
    pub exponent: f64,
}
crate::config_file::named_fields!(Exponent);

impl Exponents {
    /// The exponent of dimension `dim` of a block with `order` dimensions.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::second_order::Exponents;
    ///
    /// assert_eq!(Exponents::Standard.of(2, 0), 0.25);
    /// assert_eq!(Exponents::Same(0.5).of(2, 1), 0.5);
    /// ```
    pub fn of(&self, order: usize, dim: usize) -> f64 {
        let standard = 0.5 / order.max(1) as f64;
        match self {
            Self::Standard => standard,
            Self::Same(exponent) => *exponent,
            Self::Table(entries) => entries
                .iter()
                .find(|entry| entry.order == order && entry.dim.is_none_or(|own| own == dim))
                .map_or(standard, |entry| entry.exponent),
        }
    }

    /// The exponents that are named; the standard ones are 1/2, 1/4, 1/6 …
    pub(super) fn named(&self) -> impl Iterator<Item = f64> {
        let (one, many): (Option<f64>, &[Exponent]) = match self {
            Self::Standard => (None, &[]),
            Self::Same(exponent) => (Some(*exponent), &[]),
            Self::Table(entries) => (None, entries),
        };
        one.into_iter().chain(many.iter().map(|entry| entry.exponent))
    }
}

/// What the factors are statistics of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Statistic {
    /// Of the gradient: `L ← β·L + (1 − β)·G Gᵀ`.
    #[default]
    Gradient,
    /// KL-Shampoo: of the gradient preconditioned along all other dimensions by their present
    /// roots, `L ← β·L + (1 − β)·(G R̂)(G R̂)ᵀ`. With exponent 1/2 the factors descend the
    /// Kullback–Leibler divergence between the gradients' covariance and a Kronecker product.
    ///
    /// Source: W. Lin and others, "Understanding and Improving Shampoo and SOAP via
    /// Kullback-Leibler Minimization", 2025.
    KullbackLeibler,
}

/// How the roots of all sides act on a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Combination {
    /// `L̂ G R̂`: the Kronecker product.
    #[default]
    Product,
    /// CASPR: `L̂ J + J R̂` with `J = L̂ G + G R̂`, the square of the Kronecker sum.
    Caspr,
}
