//! The methods that formats of matrices have in common. They stand here as macros, so that every type
//! has them as its own, without a trait to import.

/// Decoding, and access to codes and scales, for a type with a field `lines` and the methods `dim` and
/// `fill`; `$order` says in which order lines come.
macro_rules! coded_matrix {
    ($type:ident, $order:literal) => {
        impl<R: Real> $type<R> {
            /// Writes the matrix to `out`, all of it.
            ///
            /// # Errors
            /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for another shape.
            pub fn decode_into(&self, out: &mut ArrayRef2<R>) -> Result<()> {
                check_shape(out, self.dim())?;
                self.fill(out);
                Ok(())
            }

            /// The matrix.
            pub fn decode(&self) -> Array2<R> {
                let mut out = Array2::zeros(self.dim());
                self.fill(&mut out);
                out
            }

            /// The format.
            pub fn codec(&self) -> MatrixCodec {
                self.lines.codec()
            }

            #[doc = concat!("The codes, ", $order, ".")]
            pub fn codes(&self) -> &[u8] {
                self.lines.codes()
            }

            #[doc = concat!("The scale of every block, ", $order, ".")]
            pub fn scales(&self) -> &[R] {
                self.lines.scales()
            }
        }
    };
}

/// Construction, and the exact diagonal, for a square type with the fields `lines` and `diagonal` and
/// the function `of(lines, diagonal)`; `$length` tells the length of its lines from its order.
macro_rules! exact_diagonal {
    ($type:ident, $length:expr) => {
        impl<R: Real> $type<R> {
            /// Zeros of order `n`.
            ///
            /// # Errors
            /// Those of [`MatrixCodec::validate`].
            pub fn zeros(codec: MatrixCodec, n: usize) -> Result<Self> {
                Ok(Self::of(Lines::zeros(codec, n, $length(n))?, Array1::zeros(n)))
            }

            /// The identity of order `n`.
            ///
            /// # Errors
            /// Those of [`MatrixCodec::validate`].
            pub fn identity(codec: MatrixCodec, n: usize) -> Result<Self> {
                Ok(Self { diagonal: Array1::ones(n), ..Self::zeros(codec, n)? })
            }

            /// From codes, scales and a diagonal as [`codes`](Self::codes), [`scales`](Self::scales)
            /// and [`diagonal`](Self::diagonal) give them.
            ///
            /// # Errors
            /// Those of [`MatrixCodec::validate`];
            /// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a part of another length;
            /// [`Error::NonFinite`](crate::Error::NonFinite) for a scale or an entry of the diagonal
            /// that is not finite.
            pub fn from_parts(
                codec: MatrixCodec,
                n: usize,
                codes: Vec<u8>,
                scales: Vec<R>,
                diagonal: Vec<R>,
            ) -> Result<Self> {
                let lines = Lines::from_parts(codec, [n, n], (n, $length(n)), codes, scales)?;
                check_length("diagonal", &[n], n, diagonal.len())?;
                check_finite("an entry of the diagonal", diagonal.iter())?;
                Ok(Self::of(lines, diagonal.into()))
            }

            /// Number of rows, and of columns.
            pub fn order(&self) -> usize {
                self.diagonal.len()
            }

            fn dim(&self) -> (usize, usize) {
                (self.order(), self.order())
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
    };
}

pub(super) use {coded_matrix, exact_diagonal};
