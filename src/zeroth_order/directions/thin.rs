//! Products `A·Bᵀ` of matrices with few columns, computed row by row.

use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::Segment;

/// A tensor as a matrix: its first dimension against all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub rows: usize,
    pub columns: usize,
}

impl View {
    /// `None` for tensors for which a rank of `rank` saves nothing. Those get plain directions.
    pub fn of(segment: &Segment, rank: usize) -> Option<Self> {
        let (&rows, rest) = segment.shape.split_first()?;
        let columns = rest.iter().product();
        (!rest.is_empty() && rows.min(columns) > rank).then_some(Self { rows, columns })
    }

    /// Writes the elements `offset .. offset + out.len()` of `A·Bᵀ`; `left(i, row)` writes row `i` of
    /// `A`, and `right` is `Bᵀ`, row-major.
    pub fn product<R: Real>(
        self,
        right: &[R],
        offset: usize,
        out: &mut [R],
        mut left: impl FnMut(usize, &mut [R]),
    ) {
        let rank = right.len() / self.columns.max(1);
        with_scratch(rank, |coefficients: &mut [R]| {
            let (mut rest, mut at) = (out, offset);
            while !rest.is_empty() {
                let (row, column) = (at / self.columns, at % self.columns);
                let len = (self.columns - column).min(rest.len());
                let (now, later) = rest.split_at_mut(len);
                left(row, coefficients);
                now.fill(R::zero());
                for (&a, b) in coefficients.iter().zip(right.chunks_exact(self.columns)) {
                    for (x, &b) in now.iter_mut().zip(b.get(column..).unwrap_or_default()) {
                        *x += a * b;
                    }
                }
                (rest, at) = (later, at + len);
            }
        });
    }
}

/// The transpose of a row-major matrix with `columns` columns.
pub(super) fn transposed<R: Real>(values: &[R], columns: usize) -> Vec<R> {
    (0..columns).flat_map(|j| values.iter().skip(j).step_by(columns).copied()).collect()
}
