use super::MatrixCodec;
use super::lines::{Length, Lines, check_matrix, check_shape};
use super::shared::coded_matrix;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2, s};

/// A matrix whose columns are coded; made for eigenvectors.
///
/// Blocks run inside one column, and every column begins with a byte and a block of its own.
///
/// ```text
/// bytes of m × n, b bits, blocks of B:   n·⌈bm/8⌉ + sizeof(R)·n·⌈m/B⌉
/// ```
///
/// With `linear-2`, coding what was decoded changes nothing.
///
/// # Examples
/// ```
/// use eigenstep::quant::{MatrixCodec, QuantizedColumns};
/// use ndarray::{Array2, array};
///
/// let mut vectors = QuantizedColumns::<f32>::identity(MatrixCodec::default(), 3)?;
/// assert_eq!(vectors.decode(), Array2::<f32>::eye(3));
/// assert_eq!(vectors.bytes(), 3 * 2 + 4 * 3);
///
/// let rotation = array![[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]];
/// vectors.encode(&rotation)?;
/// let mut decoded = Array2::zeros((3, 3));
/// vectors.decode_into(&mut decoded)?;
/// assert!((decoded - rotation).iter().all(|x| x.abs() < 0.8 * 0.125));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training", 2024.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedColumns<R> {
    rows: usize,
    lines: Lines<R>,
}

coded_matrix!(QuantizedColumns, "column after column");

impl<R: Real> QuantizedColumns<R> {
    /// Zeros of shape `(rows, cols)`.
    ///
    /// # Errors
    /// Those of [`MatrixCodec::validate`].
    pub fn zeros(codec: MatrixCodec, (rows, cols): (usize, usize)) -> Result<Self> {
        Ok(Self { rows, lines: Lines::zeros(codec, cols, Length::Same(rows))? })
    }

    /// The identity of order `n`, which every map represents exactly.
    ///
    /// # Errors
    /// Those of [`MatrixCodec::validate`].
    pub fn identity(codec: MatrixCodec, n: usize) -> Result<Self> {
        let mut identity = Self::zeros(codec, (n, n))?;
        identity.lines.encode(|lines, mut panel| {
            panel.fill(R::zero());
            panel.slice_mut(s![.., lines]).diag_mut().fill(R::one());
        });
        Ok(identity)
    }

    /// From a shape `(rows, cols)`, and codes and scales as [`codes`](Self::codes) and
    /// [`scales`](Self::scales) give them.
    ///
    /// # Errors
    /// Those of [`MatrixCodec::validate`]; [`Error::LengthMismatch`](crate::Error::LengthMismatch)
    /// for `codes` or `scales` of another length; [`Error::NonFinite`](crate::Error::NonFinite) for a
    /// scale that is not finite.
    pub fn from_parts(
        codec: MatrixCodec,
        (rows, cols): (usize, usize),
        codes: Vec<u8>,
        scales: Vec<R>,
    ) -> Result<Self> {
        let lines =
            Lines::from_parts(codec, [rows, cols], (cols, Length::Same(rows)), codes, scales)?;
        Ok(Self { rows, lines })
    }

    /// Codes `matrix` in place of the old one, without allocating.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another shape,
    /// [`Error::NonFinite`](crate::Error::NonFinite) for an entry that is not finite.
    pub fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        check_shape(matrix, self.dim())?;
        check_matrix(matrix)?;
        self.lines.encode(|lines, mut panel| {
            // a row at a time, in whole cache lines
            let rows = matrix.slice(s![.., lines]);
            for (mut entries, row) in panel.columns_mut().into_iter().zip(rows.rows()) {
                entries.assign(&row);
            }
        });
        Ok(())
    }

    fn fill(&self, out: &mut ArrayRef2<R>) {
        self.lines.decode(|lines, panel| {
            let mut rows = out.slice_mut(s![.., lines]);
            for (mut row, entries) in rows.rows_mut().into_iter().zip(panel.columns()) {
                row.assign(&entries);
            }
        });
    }

    /// Rows and columns.
    pub fn dim(&self) -> (usize, usize) {
        (self.rows, self.lines.count())
    }

    /// Bytes of memory held by codes and scales.
    pub fn bytes(&self) -> usize {
        self.lines.bytes()
    }
}
