//! A tensor cut into blocks.

use crate::linalg::blocks;
use std::ops::Range;

/// A tensor's shape with small dimensions merged, and its cuts along every dimension.
///
/// Blocks are in row-major order. The last one along a dimension may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    shape: Vec<usize>,
    cuts: Vec<Vec<usize>>,
    tiles: Vec<Tile>,
}

/// One block: where it begins and how large it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    start: Vec<usize>,
    shape: Vec<usize>,
}

impl Partition {
    /// Cuts `shape` into blocks of at most `max_dim` along every dimension; 0 counts as 1.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::optim::Partition;
    ///
    /// let blocks = Partition::new(vec![5, 3], 4);
    /// let shapes: Vec<_> = blocks.tiles().iter().map(|tile| tile.shape().to_vec()).collect();
    /// assert_eq!(shapes, [[4, 3], [1, 3]]);
    /// ```
    pub fn new(shape: Vec<usize>, max_dim: usize) -> Self {
        let lengths = |&size: &usize| -> Vec<usize> {
            blocks(&[size], max_dim).iter().flatten().map(ExactSizeIterator::len).collect()
        };
        let cuts = shape.iter().map(lengths).collect();
        let tile = |ranges: Vec<Range<usize>>| Tile {
            start: ranges.iter().map(|range| range.start).collect(),
            shape: ranges.iter().map(ExactSizeIterator::len).collect(),
        };
        let tiles = blocks(&shape, max_dim).into_iter().map(tile).collect();
        Self { shape, cuts, tiles }
    }

    /// The merged shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The lengths of the blocks along every dimension.
    pub fn cuts(&self) -> &[Vec<usize>] {
        &self.cuts
    }

    /// The blocks.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }
}

impl Tile {
    /// Size along every dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Where row number `row` of the block, a run along the last dimension, begins in the flattened
    /// tensor of shape `shape`.
    pub fn row_offset(&self, shape: &[usize], row: usize) -> usize {
        let (mut offset, mut stride, mut row) = (0, 1, row);
        let dims = shape.iter().zip(&self.start).zip(&self.shape).rev();
        for (axis, ((&dim, &start), &length)) in dims.enumerate() {
            let index = if axis == 0 { 0 } else { row % length.max(1) };
            if axis > 0 {
                row /= length.max(1);
            }
            offset += (start + index) * stride;
            stride *= dim;
        }
        offset
    }
}
