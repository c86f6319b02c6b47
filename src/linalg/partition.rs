//! Shapes: which dimensions of a tensor belong together, and how a large one is cut into blocks.
//!
//! Merging changes how the same row-major elements are read, never their order.

use std::ops::Range;

/// Merges neighbouring dimensions from the last to the first, as Distributed Shampoo does.
///
/// ```text
/// drop dimensions of size 1; starting from the last one, merge a dimension into the group behind
/// it while the product stays <= threshold and more than `target` dimensions would remain
/// ```
///
/// `target = None` merges nothing and leaves the shape as it is, ones included. A shape of ones,
/// and one without dimensions, becomes `[1]`.
///
/// With the reference's defaults (threshold 1024, target 1) a small matrix becomes a *vector*; ask
/// for a target of 2 to keep a matrix a matrix.
///
/// # Examples
/// ```
/// use eigenstep::linalg::merge_small_dims;
///
/// assert_eq!(merge_small_dims(&[4, 3, 1, 2], 1024, Some(1)), [24]);
/// assert_eq!(merge_small_dims(&[4, 3, 1, 2], 1024, Some(2)), [4, 6]);
/// assert_eq!(merge_small_dims(&[4, 3, 1, 2], 8, Some(1)), [4, 6]);
/// assert_eq!(merge_small_dims(&[4, 3, 1, 2], 1024, None), [4, 3, 1, 2]);
/// ```
///
/// Source: H.-J. M. Shi and others, "A Distributed Data-Parallel PyTorch Implementation of the
/// Distributed Shampoo Optimizer", 2023.
pub fn merge_small_dims(shape: &[usize], threshold: usize, target: Option<usize>) -> Vec<usize> {
    let Some(target) = target else { return shape.to_vec() };
    let mut dims: Vec<usize> = shape.iter().copied().filter(|&size| size != 1).collect();
    let mut merged: Vec<usize> = Vec::with_capacity(dims.len());
    while let Some(size) = dims.pop() {
        let remaining = dims.len() + merged.len() + 1;
        match merged.last_mut() {
            Some(group) if merges(*group, size, threshold) && remaining > target => *group *= size,
            _ => merged.push(size),
        }
    }
    merged.reverse();
    if merged.is_empty() { vec![1] } else { merged }
}

/// Whether the product of two sizes can be counted and is no larger than `threshold`.
fn merges(a: usize, b: usize, threshold: usize) -> bool {
    a.checked_mul(b).is_some_and(|product| product <= threshold)
}

/// Merges neighbouring dimensions from the first to the last while the product stays
/// <= `threshold`, as Scalable Shampoo does; ones disappear.
///
/// A shape of ones, and one without dimensions, becomes `[1]`.
///
/// # Examples
/// ```
/// use eigenstep::linalg::merge_leading_dims;
///
/// assert_eq!(merge_leading_dims(&[1, 2, 512, 1, 2048, 1, 3, 4], 1024), [1024, 2048, 12]);
/// ```
///
/// Source: R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable Second Order Optimization
/// for Deep Learning", 2020.
pub fn merge_leading_dims(shape: &[usize], threshold: usize) -> Vec<usize> {
    let mut merged: Vec<usize> = Vec::with_capacity(shape.len());
    for &size in shape.iter().filter(|&&size| size != 1) {
        match merged.last_mut() {
            Some(group) if merges(*group, size, threshold) => *group *= size,
            _ => merged.push(size),
        }
    }
    if merged.is_empty() { vec![1] } else { merged }
}

/// A tensor as a matrix: ones dropped, the first dimension against the product of the rest.
///
/// `None` if no more than one dimension is left: there is nothing to precondition from two sides.
/// A product that cannot be counted is `usize::MAX`.
/// A convolution's kernel (out, in, height, width) becomes out × in·height·width.
///
/// # Examples
/// ```
/// use eigenstep::linalg::matrix_shape;
///
/// assert_eq!(matrix_shape(&[8, 1, 3, 3]), Some((8, 9)));
/// assert_eq!(matrix_shape(&[1, 5, 1]), None);
/// ```
///
/// Source: S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network
/// Training", NeurIPS 2024.
pub fn matrix_shape(shape: &[usize]) -> Option<(usize, usize)> {
    let mut dims = shape.iter().copied().filter(|&size| size != 1);
    let (rows, second) = (dims.next()?, dims.next()?);
    Some((rows, dims.fold(second, usize::saturating_mul)))
}

/// Cuts a tensor of any number of dimensions into blocks of at most `max_dim` per dimension.
///
/// Every dimension is cut into runs of `max_dim`, the last one shorter; blocks are all combinations
/// in row-major order. Returns one range per dimension for each block. They cover every element
/// once. A tensor without elements has no blocks, one without dimensions has one without ranges. A
/// `max_dim` of 0 counts as 1.
///
/// # Examples
/// ```
/// use eigenstep::linalg::blocks;
///
/// assert_eq!(blocks(&[2, 5], 3), [[0..2, 0..3], [0..2, 3..5]]);
/// ```
pub fn blocks(shape: &[usize], max_dim: usize) -> Vec<Vec<Range<usize>>> {
    let mut blocks = vec![Vec::with_capacity(shape.len())];
    for &size in shape {
        let extended = blocks.iter().flat_map(|block: &Vec<Range<usize>>| {
            runs(size, max_dim).map(move |run| block.iter().cloned().chain([run]).collect())
        });
        blocks = extended.collect();
    }
    blocks
}

/// Cuts a matrix into blocks of at most `max_dim` rows and columns, in row-major order.
///
/// As [`blocks`], with the ranges of rows and columns as a pair.
///
/// # Examples
/// ```
/// use eigenstep::linalg::matrix_blocks;
///
/// assert_eq!(matrix_blocks((3, 2), 2), [(0..2, 0..2), (2..3, 0..2)]);
/// ```
pub fn matrix_blocks(
    (rows, cols): (usize, usize),
    max_dim: usize,
) -> Vec<(Range<usize>, Range<usize>)> {
    let of_rows = |rows: Range<usize>| runs(cols, max_dim).map(move |cols| (rows.clone(), cols));
    runs(rows, max_dim).flat_map(of_rows).collect()
}

fn runs(size: usize, max_dim: usize) -> impl Iterator<Item = Range<usize>> {
    let step = max_dim.max(1);
    (0..size).step_by(step).map(move |start| start..size.min(start.saturating_add(step)))
}
