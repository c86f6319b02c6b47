//! Transposes, tile by tile. In a matrix of a power-of-two order all entries of a column share one set of
//! the cache, so that a loop along a column waits for memory at every entry. A loop over tiles does not.

#![allow(clippy::indexing_slicing)] // indices are those of a tile

use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2};
use std::array;

/// Edge of a tile: as many numbers as a line of the cache holds in `f32`.
const EDGE: usize = 16;

/// Aᵀ in row-major order.
pub(super) fn transposed<R: Real>(a: &ArrayRef2<R>) -> Array2<R> {
    let (rows, columns) = a.dim();
    match a.as_slice() {
        Some(slice) => {
            from_columns((columns, rows), |i| slice.get(i * columns..).unwrap_or_default())
        }
        None => a.t().as_standard_layout().into_owned(),
    }
}

/// The matrix with these columns, in row-major order; what is behind the end of a column is left out.
pub(super) fn from_columns<'a, R: Real>(
    (rows, columns): (usize, usize),
    column: impl Fn(usize) -> &'a [R],
) -> Array2<R> {
    let mut out = Array2::zeros((rows, columns));
    let Some(target) = out.as_slice_mut() else { return out };
    transpose_parts((rows, columns), column, |row, start, part| {
        write(target.get_mut(row * columns..(row + 1) * columns).unwrap_or_default(), start, part);
    });
    out
}

/// Calls `put(row, start, part)` with every row of the matrix that has these columns, part by part; a
/// part may go on behind the end of the row.
pub(super) fn transpose_parts<'a, R: Real>(
    (rows, columns): (usize, usize),
    column: impl Fn(usize) -> &'a [R],
    mut put: impl FnMut(usize, usize, &[R]),
) {
    for left in (0..columns).step_by(EDGE) {
        let of = |i: usize| if left + i < columns { column(left + i) } else { &[] };
        let sources: [&[R]; EDGE] = array::from_fn(of);
        for top in (0..rows).step_by(EDGE) {
            let tile = transposed_tile(array::from_fn(|i| read(sources[i], top)));
            for (row, part) in (top..rows).zip(&tile) {
                put(row, left, part);
            }
        }
    }
}

/// The symmetric matrix with the lower triangle of C, in row-major order. If C is row-major, its memory
/// is used.
pub(crate) fn mirror_lower<R: Real>(c: Array2<R>) -> Array2<R> {
    let mut c = if c.is_standard_layout() { c } else { c.as_standard_layout().into_owned() };
    let n = c.ncols();
    let Some(entries) = c.as_slice_mut() else { return c };
    for top in (0..n).step_by(EDGE) {
        for left in (0..=top).step_by(EDGE) {
            let line = |i: usize| entries.get((top + i) * n..).unwrap_or_default();
            let below = transposed_tile(array::from_fn(|i| read(line(i), left)));
            for (i, row) in below.iter().enumerate().take(n - left) {
                // on the diagonal a row begins behind it
                let first = if left == top { i + 1 } else { 0 };
                let line = entries.get_mut((left + i) * n..(left + i + 1) * n);
                write(line.unwrap_or_default(), top + first, row.get(first..).unwrap_or_default());
            }
        }
    }
    c
}

/// The part of a line that begins at `start`; zeros behind its end.
#[inline(always)]
fn read<R: Real>(line: &[R], start: usize) -> [R; EDGE] {
    let part = line.get(start..).unwrap_or_default();
    part.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [R::zero(); EDGE];
        padded.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        padded
    })
}

/// Writes into a line from `start` on, as much as fits.
#[inline(always)]
pub(super) fn write<R: Real>(line: &mut [R], start: usize, row: &[R]) {
    let part = line.get_mut(start..).unwrap_or_default();
    let width = part.len().min(row.len());
    if let (Some(part), Some(row)) = (part.get_mut(..width), row.get(..width)) {
        part.copy_from_slice(row);
    }
}

/// The transpose of a whole tile: the compiler then needs no bounds.
#[inline(always)]
fn transposed_tile<R: Real>(tile: [[R; EDGE]; EDGE]) -> [[R; EDGE]; EDGE] {
    array::from_fn(|i| array::from_fn(|j| tile[j][i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;

    #[test]
    fn every_shape_and_layout_is_transposed() {
        for (rows, columns) in [(0, 3), (1, 1), (5, 16), (16, 5), (17, 33), (64, 48)] {
            let a = Array2::from_shape_fn((rows, columns), |(i, j)| (100 * i + j) as f32);
            let (b, odd) = (a.t().to_owned(), a.slice(s![.., ..;2]));
            assert_eq!(transposed(&a), a.t());
            assert_eq!(transposed(&b), a);
            assert_eq!(transposed(&odd), odd.t());
            assert!(transposed(&a).is_standard_layout() && transposed(&odd).is_standard_layout());
        }
    }

    #[test]
    fn the_lower_triangle_is_what_counts() {
        for n in [0, 1, 15, 16, 17, 37, 64] {
            let lower = |(i, j)| if i >= j { (i * n + j) as f64 } else { -1.0 };
            let c = Array2::from_shape_fn((n, n), lower);
            let expected = Array2::from_shape_fn((n, n), |(i, j)| c[(i.max(j), i.min(j))]);
            let by_columns = Array2::from_shape_fn((n, n), |(i, j)| lower((j, i))).reversed_axes();
            assert_eq!(mirror_lower(c), expected);
            assert_eq!(mirror_lower(by_columns), expected);
        }
    }
}
