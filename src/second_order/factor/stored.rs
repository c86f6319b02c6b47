//! Matrices of a factor in full precision or as codes.

use crate::error::{Result, check_finite};
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::quant::{MatrixCodec, QuantizedColumns, QuantizedSymmetric, QuantizedTriangular};
use crate::state::{Lookup, Record, Scalar, StateTensor};
use ndarray::{Array2, ArrayRef2, ArrayView2, ArrayViewMut2, CowArray, Ix2};

/// A square matrix in full precision, or as codes of the kind `Q`.
#[derive(Clone, Debug)]
pub enum Stored<R, Q> {
    /// In full precision.
    Exact(Array2<R>),
    /// As codes.
    Coded(Q),
}

/// Eigenvectors in columns; blocks of codes lie inside one column.
pub type Basis<R> = Stored<R, QuantizedColumns<R>>;

/// A symmetric matrix; codes keep an exact diagonal, and what is decoded need not be symmetric.
pub type Symmetric<R> = Stored<R, QuantizedSymmetric<R>>;

/// A lower triangle; codes keep an exact diagonal.
pub type Triangular<R> = Stored<R, QuantizedTriangular<R>>;

/// Codes of a square matrix: what [`Stored`] asks of them.
pub trait Codes<R: Real>: Sized {
    /// All zeros.
    ///
    /// # Errors
    /// The codec does not exist.
    fn zeros(codec: MatrixCodec, n: usize) -> Result<Self>;
    /// Takes over a matrix.
    ///
    /// # Errors
    /// An entry is not finite; nothing has changed.
    fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()>;
    /// The matrix.
    fn decode(&self) -> Array2<R>;
    /// The same into `out`.
    ///
    /// # Errors
    /// `out` has another shape.
    fn decode_into(&self, out: &mut ArrayRef2<R>) -> Result<()>;
    /// Bytes held.
    fn bytes(&self) -> usize;
    /// What a state dict holds of it.
    fn parts(&self) -> Parts<'_, R>;
    /// From what a state dict holds; the diagonal is empty where [`Codes::parts`] has none.
    ///
    /// # Errors
    /// The parts do not fit together.
    fn from_parts(
        codec: MatrixCodec,
        n: usize,
        codes: Vec<u8>,
        scales: Vec<R>,
        diagonal: Vec<R>,
    ) -> Result<Self>;
    /// Whether there is an exact diagonal.
    const DIAGONAL: bool;
}

/// The pieces of a coded matrix.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a, R> {
    /// The format.
    pub codec: MatrixCodec,
    /// The codes.
    pub codes: &'a [u8],
    /// The scales.
    pub scales: &'a [R],
    /// The exact diagonal; empty if there is none.
    pub diagonal: &'a [R],
}

impl<R: Real, Q: Codes<R>> Stored<R, Q> {
    /// Stores `matrix`; `codec` was checked when the optimizer was built.
    pub(super) fn new(matrix: Array2<R>, codec: Option<MatrixCodec>) -> Self {
        let coded = codec.and_then(|codec| {
            let mut codes = Q::zeros(codec, matrix.nrows()).ok()?;
            codes.encode(&matrix).ok()?;
            Some(codes)
        });
        coded.map_or(Self::Exact(matrix), Self::Coded)
    }

    /// The matrix, decoded.
    pub fn load(&self) -> CowArray<'_, R, Ix2> {
        match self {
            Self::Exact(matrix) => matrix.into(),
            Self::Coded(codes) => codes.decode().into(),
        }
    }

    /// Length of the scratch buffer that [`load_in`](Self::load_in) takes for a matrix of order `n`.
    pub(crate) fn scratch_len(&self, n: usize) -> usize {
        match self {
            Self::Exact(_) => 0,
            Self::Coded(_) => n * n,
        }
    }

    /// [`load`](Self::load) for the order `n`; codes are decoded into the beginning of `scratch`.
    pub(crate) fn load_in<'a>(
        &'a self,
        n: usize,
        scratch: &mut &'a mut [R],
    ) -> CowArray<'a, R, Ix2> {
        let decode = |codes: &Q, scratch: &'a mut [R]| {
            let mut out = ArrayViewMut2::from_shape((n, n), &mut *scratch).ok()?;
            codes.decode_into(&mut out).ok()?;
            ArrayView2::from_shape((n, n), &*scratch).ok()
        };
        let decoded = match self {
            Self::Exact(_) => None,
            Self::Coded(codes) => {
                scratch.split_off_mut(..n * n).and_then(|part| decode(codes, part))
            }
        };
        decoded.map_or_else(|| self.load(), CowArray::from)
    }

    /// Takes over a matrix whose entries are all finite.
    pub(super) fn store(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        match self {
            Self::Coded(codes) => codes.encode(matrix),
            Self::Exact(own) => {
                check_finite("a factor", matrix)?;
                own.zip_mut_with(matrix, |own, &x| *own = flushed(x));
                Ok(())
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Exact(matrix) => matrix.len() * size_of::<R>(),
            Self::Coded(codes) => codes.bytes(),
        }
    }

    pub(super) fn save(&self, name: &str, record: &mut Record<'_>) {
        match self {
            Self::Exact(matrix) => {
                let values: Vec<R> = matrix.iter().copied().collect();
                record.tensor(name, StateTensor::new(matrix.shape(), &values));
            }
            Self::Coded(codes) => save_codes(name, &codes.parts(), Q::DIAGONAL, record),
        }
    }

    pub(super) fn load_from(
        name: &str,
        n: usize,
        codec: Option<MatrixCodec>,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        if let Some(codec) = codec {
            return load_codes(name, n, codec, lookup).map(Self::Coded);
        }
        let values = lookup.values(name, &[n, n])?;
        let matrix = Array2::from_shape_vec((n, n), values);
        matrix.map(Self::Exact).map_err(|error| lookup.problem(name, error.to_string()))
    }
}

impl<R: Real> Codes<R> for QuantizedColumns<R> {
    const DIAGONAL: bool = false;
    fn zeros(codec: MatrixCodec, n: usize) -> Result<Self> {
        Self::zeros(codec, (n, n))
    }
    fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        self.encode(matrix)
    }
    fn decode(&self) -> Array2<R> {
        self.decode()
    }
    fn decode_into(&self, out: &mut ArrayRef2<R>) -> Result<()> {
        self.decode_into(out)
    }
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn parts(&self) -> Parts<'_, R> {
        let (codes, scales) = (self.codes(), self.scales());
        Parts { codec: self.codec(), codes, scales, diagonal: &[] }
    }
    fn from_parts(
        codec: MatrixCodec,
        n: usize,
        codes: Vec<u8>,
        scales: Vec<R>,
        _: Vec<R>,
    ) -> Result<Self> {
        Self::from_parts(codec, (n, n), codes, scales)
    }
}

/// Codes of a square matrix with an exact diagonal, by their own methods of the same names.
macro_rules! codes_with_diagonal {
    ($($codes:ident)+) => {$(
        impl<R: Real> Codes<R> for $codes<R> {
            const DIAGONAL: bool = true;
            fn zeros(codec: MatrixCodec, n: usize) -> Result<Self> {
                Self::zeros(codec, n)
            }
            fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
                self.encode(matrix)
            }
            fn decode(&self) -> Array2<R> {
                self.decode()
            }
            fn decode_into(&self, out: &mut ArrayRef2<R>) -> Result<()> {
                self.decode_into(out)
            }
            fn bytes(&self) -> usize {
                self.bytes()
            }
            fn parts(&self) -> Parts<'_, R> {
                let (codes, scales, diagonal) = (self.codes(), self.scales(), self.diagonal());
                Parts { codec: self.codec(), codes, scales, diagonal }
            }
            fn from_parts(
                codec: MatrixCodec,
                n: usize,
                codes: Vec<u8>,
                scales: Vec<R>,
                diagonal: Vec<R>,
            ) -> Result<Self> {
                Self::from_parts(codec, n, codes, scales, diagonal)
            }
        }
    )+};
}
codes_with_diagonal!(QuantizedSymmetric QuantizedTriangular);

/// Writes `{name}.codec`, `.codes`, `.scales`, and `.diagonal` if there is one.
fn save_codes<R: Real>(name: &str, parts: &Parts<'_, R>, diagonal: bool, record: &mut Record<'_>) {
    let Parts { codec, codes, scales, diagonal: entries } = *parts;
    record.scalar(&format!("{name}.codec"), Scalar::Text(codec.to_string()));
    record.tensor(&format!("{name}.codes"), StateTensor::codes(codes));
    let mut list = |part: &str, x: &[R]| {
        record.tensor(&format!("{name}.{part}"), StateTensor::new(&[x.len()], x));
    };
    list("scales", scales);
    if diagonal {
        list("diagonal", entries);
    }
}

/// Reads what [`save_codes`] wrote, for the codec and order asked for.
fn load_codes<R: Real, Q: Codes<R>>(
    name: &str,
    n: usize,
    codec: MatrixCodec,
    lookup: &Lookup<'_>,
) -> Result<Q> {
    let key = format!("{name}.codec");
    let (expected, found) = (codec.to_string(), lookup.scalar(&key).and_then(Scalar::as_text));
    if found != Some(expected.as_str()) {
        let found = found.unwrap_or("nothing");
        return Err(lookup.problem(&key, format!("expected {expected}, found {found}")));
    }
    let codes = lookup.codes(&format!("{name}.codes"))?;
    let scales = lookup.list(&format!("{name}.scales"))?;
    let key = format!("{name}.diagonal");
    let diagonal = if Q::DIAGONAL { lookup.values(&key, &[n])? } else { Vec::new() };
    Q::from_parts(codec, n, codes, scales, diagonal)
        .map_err(|error| lookup.problem(name, error.to_string()))
}
