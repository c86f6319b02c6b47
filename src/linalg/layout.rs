//! Matrices turned over. A matrix of a power-of-two order has all entries of a column in one set of
//! the cache, so that a loop along columns waits for memory at every entry; tiles do not.

use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2};

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
    for left in (0..columns).step_by(EDGE) {
        let width = EDGE.min(columns - left);
        for top in (0..rows).step_by(EDGE) {
            let mut tile = [[R::zero(); EDGE]; EDGE];
            for (i, source) in (left..left + width).enumerate() {
                let part = column(source).get(top..).unwrap_or_default();
                for (row, &x) in tile.iter_mut().zip(part) {
                    if let Some(entry) = row.get_mut(i) {
                        *entry = x;
                    }
                }
            }
            let lines = target.chunks_exact_mut(columns).skip(top);
            for (line, row) in lines.zip(&tile) {
                if let Some(line) = line.get_mut(left..left + width) {
                    line.copy_from_slice(row.get(..width).unwrap_or_default());
                }
            }
        }
    }
    out
}

/// The symmetric matrix with the lower triangle of C.
pub(super) fn mirror_lower<R: Real>(c: &ArrayRef2<R>) -> Array2<R> {
    let mut mirrored = transposed(c);
    for (i, (mut row, own)) in mirrored.rows_mut().into_iter().zip(c.rows()).enumerate() {
        row.iter_mut().zip(own).take(i).for_each(|(x, &below)| *x = below);
    }
    mirrored
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may panic")]

    use super::*;
    use ndarray::s;

    #[test]
    fn every_shape_and_layout_is_turned_over() {
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
        let c = Array2::from_shape_fn(
            (37, 37),
            |(i, j)| if i >= j { (i * 37 + j) as f64 } else { -1.0 },
        );
        let expected = Array2::from_shape_fn((37, 37), |(i, j)| c[(i.max(j), i.min(j))]);
        assert_eq!(mirror_lower(&c), expected);
    }
}
