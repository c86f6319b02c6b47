//! A tensor cut into blocks.

/// A tensor's shape with small dimensions merged, and how it is cut along every dimension.
///
/// Blocks are in row-major order. The last one along a dimension may be shorter. They are computed
/// when they are asked for: a partition takes no memory, however many blocks it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    shape: Vec<usize>,
    max_dim: usize,
    /// Leading dimensions that number the entries of a stack.
    stack: usize,
}

/// One block: where it begins and how large it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    start: Vec<usize>,
    shape: Vec<usize>,
    /// Leading dimensions that choose an entry of a stack; the block has length 1 along them.
    stack: usize,
}

impl Partition {
    /// Cuts `shape` into blocks of at most `max_dim` along every dimension; 0 counts as 1.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::optim::Partition;
    ///
    /// let blocks = Partition::new(vec![5, 3], 4);
    /// let shapes: Vec<_> = blocks.tiles().map(|tile| tile.shape().to_vec()).collect();
    /// assert_eq!(shapes, [[4, 3], [1, 3]]);
    /// assert_eq!(blocks.lengths(0).collect::<Vec<_>>(), [4, 1]);
    /// ```
    pub fn new(shape: Vec<usize>, max_dim: usize) -> Self {
        Self { shape, max_dim: max_dim.max(1), stack: 0 }
    }

    /// The same cuts in every entry of a stack of these dimensions, which come first in memory. A block lies
    /// in one entry, and does not have the stack's dimensions.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::optim::Partition;
    ///
    /// let experts = Partition::new(vec![5, 3], 4).stacked(&[2]);
    /// let shapes: Vec<_> = experts.tiles().map(|tile| tile.shape().to_vec()).collect();
    /// assert_eq!(shapes, [[4, 3], [1, 3], [4, 3], [1, 3]]);
    /// assert_eq!(experts.shape(), [2, 5, 3]);
    /// ```
    pub fn stacked(self, dims: &[usize]) -> Self {
        let shape = dims.iter().chain(&self.shape).copied().collect();
        Self { shape, stack: self.stack + dims.len(), ..self }
    }

    /// Number of leading dimensions that number the entries of a stack.
    pub fn stack_dims(&self) -> usize {
        self.stack
    }

    /// Longest run along a dimension.
    fn longest(&self, axis: usize) -> usize {
        if axis < self.stack { 1 } else { self.max_dim }
    }

    /// The merged shape, that of a stack in front.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The lengths of the blocks along a dimension; none beyond the last dimension.
    pub fn lengths(&self, axis: usize) -> impl Iterator<Item = usize> + use<> {
        let (max_dim, size) = (self.longest(axis), self.shape.get(axis).copied().unwrap_or(0));
        (0..size.div_ceil(max_dim)).map(move |i| max_dim.min(size - i * max_dim))
    }

    /// Number of blocks; `usize::MAX` if there are more than that.
    pub fn len(&self) -> usize {
        let sizes = || self.shape.iter().enumerate();
        let counts = || sizes().map(|(axis, size)| size.div_ceil(self.longest(axis)));
        if counts().any(|count| count == 0) {
            return 0;
        }
        counts().fold(1, usize::saturating_mul)
    }

    /// Whether there are no blocks, because there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks.
    pub fn tiles(&self) -> impl DoubleEndedIterator<Item = Tile> + '_ {
        (0..self.len()).map(|index| self.tile(index))
    }

    /// Block number `index`.
    fn tile(&self, mut index: usize) -> Tile {
        let mut start = vec![0; self.shape.len()];
        for (axis, (start, size)) in start.iter_mut().zip(&self.shape).enumerate().rev() {
            let longest = self.longest(axis);
            let count = size.div_ceil(longest).max(1);
            *start = index % count * longest;
            index /= count;
        }
        let lengths = start.iter().zip(&self.shape).map(|(start, size)| size - start);
        let lengths = lengths.enumerate().map(|(axis, length)| length.min(self.longest(axis)));
        let shape = lengths.collect();
        Tile { start, shape, stack: self.stack }
    }
}

impl Tile {
    /// Size along every dimension, without those of a stack.
    pub fn shape(&self) -> &[usize] {
        self.shape.get(self.stack..).unwrap_or_default()
    }

    /// Number of leading dimensions of the tensor that number the entries of a stack.
    pub(in crate::optim) fn stack_dims(&self) -> usize {
        self.stack
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::blocks;

    /// Against the list of ranges that `linalg::blocks` makes.
    #[test]
    fn tiles_are_the_blocks_of_the_shape() {
        for shape in [&[][..], &[0], &[1], &[7], &[5, 3], &[3, 0, 2], &[4, 9, 2], &[2, 3, 4, 5]] {
            for max_dim in [0, 1, 2, 3, 4, 100, usize::MAX] {
                let partition = Partition::new(shape.to_vec(), max_dim);
                let expected: Vec<Tile> = blocks(shape, max_dim)
                    .into_iter()
                    .map(|ranges| Tile {
                        start: ranges.iter().map(|range| range.start).collect(),
                        shape: ranges.iter().map(ExactSizeIterator::len).collect(),
                        stack: 0,
                    })
                    .collect();
                assert_eq!(partition.tiles().collect::<Vec<_>>(), expected, "{shape:?}, {max_dim}");
                assert_eq!(partition.len(), expected.len());
                for (axis, size) in shape.iter().enumerate() {
                    assert_eq!(partition.lengths(axis).sum::<usize>(), *size);
                }
            }
        }
    }

    /// The blocks of one entry after the other, at the same places of the same memory.
    #[test]
    fn stacks_are_entries_one_after_the_other() {
        for (stack, entry) in
            [(&[3][..], &[4, 5][..]), (&[2, 3], &[4, 5]), (&[1], &[7]), (&[2], &[]), (&[], &[4])]
        {
            for max_dim in [1, 3, 100] {
                let (alone, shape) =
                    (Partition::new(entry.to_vec(), max_dim), [stack, entry].concat());
                let stacked = alone.clone().stacked(stack);
                assert_eq!((stacked.shape(), stacked.stack_dims()), (&shape[..], stack.len()));
                let entries: usize = stack.iter().product();
                assert_eq!(stacked.len(), entries * alone.len());
                let size: usize = entry.iter().product();
                let expected = (0..entries).flat_map(|i| alone.tiles().map(move |tile| (i, tile)));
                for (tile, (i, own)) in stacked.tiles().zip(expected) {
                    assert_eq!((tile.shape(), tile.numel()), (own.shape(), own.numel()));
                    let rows = own.numel() / own.shape().last().copied().unwrap_or(1);
                    for row in 0..rows {
                        let offset = i * size + own.row_offset(entry, row);
                        assert_eq!(tile.row_offset(&shape, row), offset, "{shape:?}, {max_dim}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_enormous_shape_takes_no_time() {
        let partition = Partition::new(vec![usize::MAX, usize::MAX], 1);
        assert_eq!(partition.len(), usize::MAX);
        assert_eq!(partition.tiles().next().map(|tile| tile.numel()), Some(1));
        assert!(Partition::new(vec![usize::MAX, 0], 1).is_empty());
    }
}
