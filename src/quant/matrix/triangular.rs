use super::MatrixCodec;
use super::lines::{Length, Lines, check_finite, check_length, check_shape};
use crate::error::Result;
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
/// they take the room of one [`QuantizedSymmetric`](super::QuantizedSymmetric) and `n` numbers.
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

impl<R: Real> QuantizedTriangular<R> {
    /// Zeros of order `n`.
    ///
    /// # Errors
    /// Those of [`MatrixCodec::validate`].
    pub fn zeros(codec: MatrixCodec, n: usize) -> Result<Self> {
        Ok(Self { lines: Lines::zeros(codec, n, Length::Index)?, diagonal: Array1::zeros(n) })
    }

    /// The identity of order `n`.
    ///
    /// # Errors
    /// Those of [`MatrixCodec::validate`].
    pub fn identity(codec: MatrixCodec, n: usize) -> Result<Self> {
        Ok(Self { diagonal: Array1::ones(n), ..Self::zeros(codec, n)? })
    }

    /// From codes, scales and a diagonal as [`codes`](Self::codes), [`scales`](Self::scales) and
    /// [`diagonal`](Self::diagonal) give them.
    ///
    /// # Errors
    /// Those of [`MatrixCodec::validate`]; [`Error::LengthMismatch`](crate::Error::LengthMismatch)
    /// for a part of another length; [`Error::NonFinite`](crate::Error::NonFinite) for a scale or an
    /// entry of the diagonal that is not finite.
    pub fn from_parts(
        codec: MatrixCodec,
        n: usize,
        codes: Vec<u8>,
        scales: Vec<R>,
        diagonal: Vec<R>,
    ) -> Result<Self> {
        let lines = Lines::from_parts(codec, [n, n], (n, Length::Index), codes, scales)?;
        check_length("diagonal", &[n], n, diagonal.len())?;
        check_finite("an entry of the diagonal", diagonal.iter())?;
        Ok(Self { lines, diagonal: diagonal.into() })
    }

    /// Codes the lower triangle of `matrix` in place of the old one, without allocating.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another shape,
    /// [`Error::NonFinite`](crate::Error::NonFinite) for an entry of the lower triangle that is not
    /// finite.
    pub fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        check_shape(matrix, (self.order(), self.order()))?;
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

    /// Writes the matrix to `out`, zeros above the diagonal included.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another shape.
    pub fn decode_into(&self, out: &mut ArrayRef2<R>) -> Result<()> {
        check_shape(out, (self.order(), self.order()))?;
        self.fill(out);
        Ok(())
    }

    /// The matrix.
    pub fn decode(&self) -> Array2<R> {
        let mut out = Array2::zeros((self.order(), self.order()));
        self.fill(&mut out);
        out
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

    /// Number of rows, and of columns.
    pub fn order(&self) -> usize {
        self.diagonal.len()
    }

    /// The format.
    pub fn codec(&self) -> MatrixCodec {
        self.lines.codec()
    }

    /// The codes, row after row.
    pub fn codes(&self) -> &[u8] {
        self.lines.codes()
    }

    /// The scale of every block, row after row.
    pub fn scales(&self) -> &[R] {
        self.lines.scales()
    }

    /// The exact diagonal.
    pub fn diagonal(&self) -> &[R] {
        self.diagonal.as_slice().unwrap_or_default()
    }

    /// Bytes of memory held by codes, scales and diagonal.
    pub fn bytes(&self) -> usize {
        self.lines.bytes() + size_of_val(self.diagonal())
    }
}
