use super::MatrixCodec;
use super::lines::{Length, Lines, check_shape};
use super::shared::{coded_matrix, exact_diagonal};
use crate::error::{Result, check_finite, check_length};
use crate::numeric::Real;
use ndarray::{Array1, Array2, ArrayRef2, s};

/// A lower triangle with an exact diagonal; made for Cholesky factors.
///
/// Row `i` codes its `i` entries left of the diagonal in blocks; the upper triangle is neither read
/// nor stored, and decodes to 0.
///
/// ```text
/// bytes of order n, b bits, blocks of B:   Σ_{i<n} ⌈bi/8⌉ + sizeof(R)·(Σ_{i<n} ⌈i/B⌉ + n)
/// ```
///
/// A second one of diagonal 0 holds the accumulated error of the first, for error feedback: together
/// they take the memory of one [`QuantizedSymmetric`](super::QuantizedSymmetric) and `n` numbers.
///
/// # Examples
/// ```
/// use eigenstep::quant::{MatrixCodec, QuantizedTriangular};
/// use ndarray::array;
///
/// let mut factor = QuantizedTriangular::<f64>::identity(MatrixCodec::default(), 2)?;
/// factor.encode(&array![[2.0, 7.0], [0.5, 1.0]])?;
/// assert_eq!(factor.decode(), array![[2.0, 0.0], [0.5, 1.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. Li, K. Ding, K.-C. Toh, P. Zhou, "Memory-Efficient 4-bit Preconditioned Stochastic
/// Optimization", 2024.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTriangular<R> {
    lines: Lines<R>,
    diagonal: Array1<R>,
}

coded_matrix!(QuantizedTriangular, "row after row");
exact_diagonal!(QuantizedTriangular, |_| Length::Index);

impl<R: Real> QuantizedTriangular<R> {
    fn of(lines: Lines<R>, diagonal: Array1<R>) -> Self {
        Self { lines, diagonal }
    }

    /// Codes the lower triangle of `matrix` in place of the old one, without allocating.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another shape,
    /// [`Error::NonFinite`](crate::Error::NonFinite) for an entry of the lower triangle that is not
    /// finite.
    pub fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        check_shape(matrix, self.dim())?;
        for (i, row) in matrix.rows().into_iter().enumerate() {
            check_finite("an entry of the lower triangle", row.iter().take(i + 1))?;
        }
        self.diagonal.assign(&matrix.diag());
        self.lines.encode(|lines, mut panel| {
            let longest = panel.ncols();
            panel.assign(&matrix.slice(s![lines, ..longest]));
        });
        Ok(())
    }

    fn fill(&self, out: &mut ArrayRef2<R>) {
        out.fill(R::zero());
        self.lines.decode(|lines, panel| {
            for (i, row) in lines.zip(panel.rows()) {
                out.slice_mut(s![i, ..i]).assign(&row.slice(s![..i]));
            }
        });
        out.diag_mut().assign(&self.diagonal);
    }
}
