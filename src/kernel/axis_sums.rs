//! Sums over the rows and columns of a matrix, and products of the two.

use super::isa::{Isa, Kernel};
use crate::numeric::Real;
use crate::numeric::reduce::LaneSum;

/// Sums over the rows and the columns of a matrix whose elements come piece by piece, row-major.
///
/// The order of additions depends on where a row begins alone, not on the pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AxisSums {
    row: usize,
    column: usize,
    lanes: LaneSum,
}

impl AxisSums {
    /// Sums that begin with the element number `place` of a matrix of this width.
    pub fn new(place: usize, width: usize) -> Self {
        let width = width.max(1);
        Self { row: place / width, column: place % width, lanes: LaneSum::default() }
    }

    /// Adds the next elements to the sums of their columns; a row gets its sum where it ends.
    pub fn add(&mut self, isa: Isa, terms: &[f64], rows: &mut [f64], columns: &mut [f64]) {
        isa.run(Add { sums: self, terms, rows, columns });
    }

    /// Writes the sum of a row that has not ended.
    pub fn close(&self, width: usize, rows: &mut [f64]) {
        if let Some(sum) = rows.get_mut(self.row).filter(|_| self.column > 0) {
            *sum = self.lanes.total_of(width);
        }
    }
}

struct Add<'a> {
    sums: &'a mut AxisSums,
    terms: &'a [f64],
    rows: &'a mut [f64],
    columns: &'a mut [f64],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { sums, mut terms, rows, columns } = self;
        let width = columns.len();
        while !terms.is_empty() && sums.column < width {
            let (piece, rest) = terms.split_at((width - sums.column).min(terms.len()));
            for (sum, &x) in columns[sums.column..].iter_mut().zip(piece) {
                *sum += x;
            }
            sums.lanes.extend_from(sums.column, piece);
            sums.column += piece.len();
            if sums.column == width {
                if let Some(sum) = rows.get_mut(sums.row) {
                    *sum = sums.lanes.total_of(width);
                }
                *sums = AxisSums { row: sums.row + 1, ..AxisSums::default() };
            }
            terms = rest;
        }
    }
}

/// `out ← factor·√x` for every `x` of `columns`.
#[inline(always)]
pub(crate) fn scaled_roots<R: Real>(factor: R, columns: &[R], out: &mut [R]) {
    for (out, &x) in out.iter_mut().zip(columns) {
        *out = factor * x.sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_do_not_change_a_bit() {
        for (height, width) in [(1, 1), (5, 3), (3, 16), (7, 50), (2, 1000)] {
            let terms: Vec<f64> = (0..height * width).map(|i| (i as f64).sin()).collect();
            let sums = |isa: Isa, piece: usize| {
                let (mut rows, mut columns) = (vec![0.0; height], vec![0.0; width]);
                let mut sums = AxisSums::new(0, width);
                for piece in terms.chunks(piece) {
                    sums.add(isa, piece, &mut rows, &mut columns);
                }
                (rows, columns)
            };
            let expected = sums(Isa::portable(), height * width);
            for isa in Isa::available() {
                for piece in [1, 2, 7, 16, 33, 1024] {
                    assert_eq!(sums(isa, piece), expected, "{height}×{width} by {piece}");
                }
            }
            let (rows, columns) = expected;
            let total: f64 = terms.iter().sum();
            assert!((rows.iter().sum::<f64>() - total).abs() < 1e-9);
            assert!((columns.iter().sum::<f64>() - total).abs() < 1e-9);
            for (row, sum) in rows.iter().enumerate() {
                let expected: f64 = terms[row * width..(row + 1) * width].iter().sum();
                assert!((sum - expected).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn a_row_that_is_cut_is_closed() {
        let (mut rows, mut columns) = (vec![0.0; 3], vec![0.0; 4]);
        let mut sums = AxisSums::new(6, 4);
        sums.add(Isa::portable(), &[1.0, 2.0, 4.0], &mut rows, &mut columns);
        sums.close(4, &mut rows);
        assert_eq!((rows, columns), (vec![0.0, 3.0, 4.0], vec![4.0, 0.0, 1.0, 2.0]));
    }
}
