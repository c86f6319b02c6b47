//! What a compressor makes of a vector.

use crate::numeric::Real;

/// A vector in fewer bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<R> {
    /// All elements.
    Dense(Vec<R>),
    /// Some elements; the others are zero.
    Sparse {
        /// Number of elements of the vector.
        numel: usize,
        /// Places of the elements, ascending.
        indices: Vec<u32>,
        /// The elements.
        values: Vec<R>,
    },
}

impl<R: Real> Message<R> {
    /// Number of elements of the vector.
    pub fn numel(&self) -> usize {
        match self {
            Self::Dense(values) => values.len(),
            Self::Sparse { numel, .. } => *numel,
        }
    }

    /// Writes the vector; elements beyond the shorter of both are left out.
    pub fn decompress_into(&self, out: &mut [R]) {
        match self {
            Self::Dense(values) => out.iter_mut().zip(values).for_each(|(x, &value)| *x = value),
            Self::Sparse { indices, values, .. } => {
                out.fill(R::zero());
                for (&index, &value) in indices.iter().zip(values) {
                    if let Some(x) = out.get_mut(index as usize) {
                        *x = value;
                    }
                }
            }
        }
    }

    /// Bytes of the payload.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(values) => size_of_val(values.as_slice()),
            Self::Sparse { indices, values, .. } => {
                size_of_val(indices.as_slice()) + size_of_val(values.as_slice())
            }
        }
    }
}
