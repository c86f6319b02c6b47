//! The shape that a matrix method gives a tensor.

use crate::linalg::{matrix_shape, merge_leading_dims, merge_small_dims};
use crate::optim::Partition;

/// The shape that a tensor is given before it is cut into blocks of at most `d` along a dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Reshape {
    /// Its own shape: every dimension has a factor or basis, those of size 1 included. A scalar has no
    /// dimension, and so none.
    #[default]
    AsIs,
    /// A matrix: dimensions of size 1 are dropped, the first of the others becomes the rows, the product of
    /// the rest the columns. The inner rule alone updates tensors that are no matrices.
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

/// The partition of a stack whose first `batch_dims` dimensions number tensors: every entry is cut as `cut`
/// cuts one alone. `None`: there are fewer dimensions, or an entry is not cut at all.
pub(super) fn of_entries(
    shape: &[usize],
    batch_dims: usize,
    cut: impl FnOnce(&[usize]) -> Option<Partition>,
) -> Option<Partition> {
    let (stack, entry) = shape.split_at_checked(batch_dims)?;
    Some(cut(entry)?.stacked(stack))
}

/// The shape of one entry of such a stack.
pub(super) fn entry_of(shape: &[usize], batch_dims: usize) -> &[usize] {
    shape.get(batch_dims..).unwrap_or_default()
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
