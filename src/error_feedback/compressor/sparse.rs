//! Compressors that keep the largest elements.

use super::{Compressor, Message, Selection};
use crate::error::Result;
use crate::numeric::Real;

/// Top-k: the largest elements, of the whole vector or of every block. `δ = k/d`; with blocks, the
/// smallest share of a block.
///
/// An element takes its own bytes and 4 for its index. In blocks of at most 65536 elements the index
/// takes 2 bytes, because it counts from the start of the block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK(pub Selection);

impl<R: Real> Compressor<R> for TopK {
    fn compress(&mut self, _: u64, x: &[R]) -> Message<R> {
        let mut indices = Vec::new();
        self.0.select(x, &mut indices);
        self.0.message(x, indices)
    }

    fn contraction(&self, numel: usize) -> f64 {
        let share = |numel: usize| self.0.count(numel) as f64 / numel as f64;
        match self.0.block().filter(|&block| block < numel) {
            Some(block) if numel.is_multiple_of(block) => share(block),
            Some(block) => share(block).min(share(numel % block)),
            None => share(numel.max(1)),
        }
    }

    fn validate(&self, numel: usize) -> Result<()> {
        self.0.validate("TopK")?;
        self.0.check_numel("TopK", numel)
    }
}

impl Selection {
    /// The message with the elements of `x` that this selection has selected.
    pub(super) fn message<R: Real>(&self, x: &[R], indices: Vec<u32>) -> Message<R> {
        let values = indices.iter().filter_map(|&index| x.get(index as usize).copied()).collect();
        let numel = x.len();
        match self.block() {
            Some(block) if block <= 1 << 16 => {
                let places = indices.iter().map(|&index| (index as usize % block) as u16);
                let (indices, per_block) = (places.collect(), self.count(block.min(numel)));
                Message::BlockSparse { numel, block, per_block: per_block.max(1), indices, values }
            }
            _ => Message::Sparse { numel, indices, values },
        }
    }
}
