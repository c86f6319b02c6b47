use super::MatrixCodec;
use super::lines::{Length, Lines, check_matrix, check_shape};
use super::shared::{coded_matrix, exact_diagonal};
use crate::error::{Result, check_finite, check_length};
use crate::numeric::Real;
use ndarray::{Array1, Array2, ArrayRef2, s};

/// A square matrix with an exact diagonal; made for symmetric ones, such as inverse roots.
///
/// The diagonal is kept as it is, and counts as 0 where the rows are coded:
///
/// ```text
/// X̂ = D(Q(X − Diag(diag X))) + Diag(diag X)            Q codes rows in blocks, D decodes
/// bytes of n × n, b bits, blocks of B:   n·⌈bn/8⌉ + sizeof(R)·(n·⌈n/B⌉ + n)
/// ```
///
/// Row `i` and column `i` have different scales, so the decoded matrix is not symmetric. The authors' code
/// uses it as it is. [`symmetrize`](Self::symmetrize) replaces it by `(X̂ + X̂ᵀ)/2`.
///
/// # Examples
/// ```
/// use eigenstep::quant::{MatrixCodec, QuantizedSymmetric};
/// use ndarray::{Array2, array};
///
/// let mut root = QuantizedSymmetric::<f64>::identity(MatrixCodec::default(), 2)?;
/// root.encode(&array![[31.4, 0.25], [0.25, 2.7]])?;
/// assert_eq!(root.decode(), array![[31.4, 0.25], [0.25, 2.7]]); // one number a block is exact
/// assert_eq!(root.diagonal()[1], 2.7);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training", 2024.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedSymmetric<R> {
    lines: Lines<R>,
    diagonal: Array1<R>,
    symmetrize: bool,
}

coded_matrix!(QuantizedSymmetric, "row after row");
exact_diagonal!(QuantizedSymmetric, Length::Same);

impl<R: Real> QuantizedSymmetric<R> {
    fn of(lines: Lines<R>, diagonal: Array1<R>) -> Self {
        Self { lines, diagonal, symmetrize: false }
    }

    /// Whether decoding returns `(X̂ + X̂ᵀ)/2` instead of `X̂`; by default it does not.
    pub fn symmetrize(self, symmetrize: bool) -> Self {
        Self { symmetrize, ..self }
    }

    /// Codes `matrix` in place of the old one, without allocating.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another shape,
    /// [`Error::NonFinite`](crate::Error::NonFinite) for an entry that is not finite.
    pub fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        check_shape(matrix, self.dim())?;
        check_matrix(matrix)?;
        self.diagonal.assign(&matrix.diag());
        self.lines.encode(|lines, mut panel| {
            panel.assign(&matrix.slice(s![lines.clone(), ..]));
            panel.slice_mut(s![.., lines]).diag_mut().fill(R::zero());
        });
        Ok(())
    }

    fn fill(&self, out: &mut ArrayRef2<R>) {
        self.lines.decode_rows(out);
        if self.symmetrize {
            let half = R::of(0.5);
            for i in 0..self.order() {
                for j in 0..i {
                    let mean = (out[(i, j)] + out[(j, i)]) * half;
                    (out[(i, j)], out[(j, i)]) = (mean, mean);
                }
            }
        }
        out.diag_mut().assign(&self.diagonal);
    }
}
