//! What a tensor is seen as.

use crate::linalg::{matrix_shape, merge_leading_dims, merge_small_dims};

/// What a tensor is seen as before it is cut into blocks, of a largest size `d` along a dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Reshape {
    /// As it is, with something for every dimension, those of size 1 included; nothing for a scalar,
    /// which has none.
    #[default]
    AsIs,
    /// A matrix: the first dimension against all others, ones dropped. What is no matrix is left to
    /// the element-wise rule.
    Matrix,
    /// Dimensions merged from the last to the first while the product is at most `d` and more than
    /// `dims` would be left; see [`merge_small_dims`]. 2 leaves a matrix a matrix.
    Merged {
        /// Number of dimensions at which merging ends, at least 1.
        dims: usize,
    },
    /// Dimensions merged from the first to the last while the product is at most `d`; see
    /// [`merge_leading_dims`].
    Leading,
}

impl Reshape {
    /// The shape that a tensor of this shape is given; `None`: it is no matrix, and should be one.
    pub(super) fn of(self, shape: &[usize], largest: usize) -> Option<Vec<usize>> {
        Some(match self {
            Self::AsIs => shape.to_vec(),
            Self::Matrix => {
                let (rows, columns) = matrix_shape(shape)?;
                vec![rows, columns]
            }
            Self::Merged { dims } => merge_small_dims(shape, largest, Some(dims)),
            Self::Leading => merge_leading_dims(shape, largest),
        })
    }
}
