//! Matrices of a factor in full precision or as codes.

use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::quant::{MatrixCodec, QuantizedColumns, QuantizedSymmetric};
use crate::state::slot::{read_codes, read_exact, read_list};
use crate::state::{Lookup, Record, Scalar, StateTensor};
use ndarray::{Array2, ArrayRef2, CowArray, Ix2};

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
    /// Bytes held.
    fn bytes(&self) -> usize;
    /// Writes the codes as `{name}.codec`, `.codes`, `.scales` and whatever else there is.
    fn save(&self, name: &str, record: &mut Record<'_>);
    /// Reads what [`Codes::save`] wrote, for the codec and order asked for.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    fn load(name: &str, n: usize, codec: MatrixCodec, lookup: &Lookup<'_>) -> Result<Self>;
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

    /// Takes over a matrix whose entries are all finite.
    pub(super) fn store(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        match (self, matrix.iter().find(|x| !x.is_finite())) {
            (Self::Coded(codes), _) => codes.encode(matrix),
            (Self::Exact(own), None) => {
                own.assign(matrix);
                Ok(())
            }
            (_, Some(x)) => Err(Error::NonFinite { what: "a factor", value: x.widen() }),
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
            Self::Coded(codes) => codes.save(name, record),
        }
    }

    pub(super) fn load_from(
        name: &str,
        n: usize,
        codec: Option<MatrixCodec>,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        if let Some(codec) = codec {
            return Q::load(name, n, codec, lookup).map(Self::Coded);
        }
        let values = read_exact(name, &[n, n], lookup)?;
        let matrix = Array2::from_shape_vec((n, n), values);
        matrix.map(Self::Exact).map_err(|error| lookup.problem(name, error.to_string()))
    }
}

impl<R: Real> Codes<R> for QuantizedColumns<R> {
    fn zeros(codec: MatrixCodec, n: usize) -> Result<Self> {
        Self::zeros(codec, (n, n))
    }
    fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        self.encode(matrix)
    }
    fn decode(&self) -> Array2<R> {
        self.decode()
    }
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn save(&self, name: &str, record: &mut Record<'_>) {
        save_codes(name, &self.codec(), (self.codes(), self.scales()), record);
    }
    fn load(name: &str, n: usize, codec: MatrixCodec, lookup: &Lookup<'_>) -> Result<Self> {
        let (codes, scales) = load_codes(name, &codec, lookup)?;
        Self::from_parts(codec, (n, n), codes, scales)
            .map_err(|error| lookup.problem(name, error.to_string()))
    }
}

impl<R: Real> Codes<R> for QuantizedSymmetric<R> {
    fn zeros(codec: MatrixCodec, n: usize) -> Result<Self> {
        Self::zeros(codec, n)
    }
    fn encode(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        self.encode(matrix)
    }
    fn decode(&self) -> Array2<R> {
        self.decode()
    }
    fn bytes(&self) -> usize {
        self.bytes()
    }
    fn save(&self, name: &str, record: &mut Record<'_>) {
        save_codes(name, &self.codec(), (self.codes(), self.scales()), record);
        let diagonal = StateTensor::new(&[self.order()], self.diagonal());
        record.tensor(&format!("{name}.diagonal"), diagonal);
    }
    fn load(name: &str, n: usize, codec: MatrixCodec, lookup: &Lookup<'_>) -> Result<Self> {
        let (codes, scales) = load_codes(name, &codec, lookup)?;
        let diagonal = read_exact(&format!("{name}.diagonal"), &[n], lookup)?;
        Self::from_parts(codec, n, codes, scales, diagonal)
            .map_err(|error| lookup.problem(name, error.to_string()))
    }
}

fn save_codes<R: Real>(
    name: &str,
    codec: &MatrixCodec,
    (codes, scales): (&[u8], &[R]),
    record: &mut Record<'_>,
) {
    record.scalar(&format!("{name}.codec"), Scalar::Text(codec.to_string()));
    record.tensor(&format!("{name}.codes"), StateTensor::codes(codes));
    record.tensor(&format!("{name}.scales"), StateTensor::new(&[scales.len()], scales));
}

fn load_codes<R: Real>(
    name: &str,
    codec: &MatrixCodec,
    lookup: &Lookup<'_>,
) -> Result<(Vec<u8>, Vec<R>)> {
    let key = format!("{name}.codec");
    let (expected, found) = (codec.to_string(), lookup.scalar(&key).and_then(Scalar::as_text));
    if found != Some(expected.as_str()) {
        let found = found.unwrap_or("nothing");
        return Err(lookup.problem(&key, format!("expected {expected}, found {found}")));
    }
    let codes = read_codes(&format!("{name}.codes"), lookup)?;
    Ok((codes, read_list(&format!("{name}.scales"), lookup)?))
}
