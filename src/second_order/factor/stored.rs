//! Matrices of a factor in full precision or as codes.

use crate::error::{Error, Result};
use crate::numeric::Real;
use crate::quant::{MatrixCodec, QuantizedColumns, QuantizedSymmetric};
use crate::state::slot::{read_codes, read_exact, read_list};
use crate::state::{Lookup, Record, Scalar, StateTensor};
use ndarray::{Array2, ArrayRef2, CowArray, Ix2};

/// Eigenvectors in columns.
#[derive(Clone, Debug)]
pub enum Basis<R> {
    /// In full precision.
    Exact(Array2<R>),
    /// As codes, blocks inside one column.
    Coded(QuantizedColumns<R>),
}

/// A symmetric matrix.
#[derive(Clone, Debug)]
pub enum Symmetric<R> {
    /// In full precision.
    Exact(Array2<R>),
    /// As codes with an exact diagonal. What is decoded need not be symmetric.
    Coded(QuantizedSymmetric<R>),
}

impl<R: Real> Basis<R> {
    /// The unit vectors.
    pub(super) fn identity(n: usize, codec: Option<MatrixCodec>) -> Self {
        // a codec was checked when the optimizer was built
        let coded = codec.and_then(|codec| QuantizedColumns::identity(codec, n).ok());
        coded.map_or_else(|| Self::Exact(Array2::eye(n)), Self::Coded)
    }

    /// The matrix, decoded.
    pub fn load(&self) -> CowArray<'_, R, Ix2> {
        match self {
            Self::Exact(matrix) => matrix.into(),
            Self::Coded(codes) => codes.decode().into(),
        }
    }

    pub(super) fn store(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        match self {
            Self::Exact(own) => assign(own, matrix),
            Self::Coded(codes) => codes.encode(matrix),
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
            Self::Exact(matrix) => save_exact(name, matrix, record),
            Self::Coded(codes) => {
                save_codes(name, &codes.codec(), (codes.codes(), codes.scales()), record);
            }
        }
    }

    pub(super) fn load_from(
        name: &str,
        n: usize,
        codec: Option<MatrixCodec>,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let Some(codec) = codec else { return load_exact(name, n, lookup).map(Self::Exact) };
        let (codes, scales) = load_codes(name, &codec, lookup)?;
        QuantizedColumns::from_parts(codec, (n, n), codes, scales)
            .map(Self::Coded)
            .map_err(|error| misfit(name, &error, lookup))
    }
}

impl<R: Real> Symmetric<R> {
    /// `scale · I`.
    pub(super) fn scaled_identity(n: usize, scale: R, codec: Option<MatrixCodec>) -> Self {
        let matrix = Array2::from_diag_elem(n, scale);
        let coded = codec.and_then(|codec| {
            let mut coded = QuantizedSymmetric::zeros(codec, n).ok()?;
            coded.encode(&matrix).ok()?;
            Some(coded)
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

    pub(super) fn store(&mut self, matrix: &ArrayRef2<R>) -> Result<()> {
        match self {
            Self::Exact(own) => assign(own, matrix),
            Self::Coded(codes) => codes.encode(matrix),
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
            Self::Exact(matrix) => save_exact(name, matrix, record),
            Self::Coded(codes) => {
                save_codes(name, &codes.codec(), (codes.codes(), codes.scales()), record);
                let diagonal = StateTensor::new(&[codes.order()], codes.diagonal());
                record.tensor(&format!("{name}.diagonal"), diagonal);
            }
        }
    }

    pub(super) fn load_from(
        name: &str,
        n: usize,
        codec: Option<MatrixCodec>,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let Some(codec) = codec else { return load_exact(name, n, lookup).map(Self::Exact) };
        let (codes, scales) = load_codes(name, &codec, lookup)?;
        let diagonal = read_exact(&format!("{name}.diagonal"), &[n], lookup)?;
        QuantizedSymmetric::from_parts(codec, n, codes, scales, diagonal)
            .map(Self::Coded)
            .map_err(|error| misfit(name, &error, lookup))
    }
}

/// Takes over a matrix whose entries are all finite.
fn assign<R: Real>(own: &mut Array2<R>, matrix: &ArrayRef2<R>) -> Result<()> {
    match matrix.iter().find(|x| !x.is_finite()) {
        None => {
            own.assign(matrix);
            Ok(())
        }
        Some(x) => Err(Error::NonFinite { what: "a factor", value: x.widen() }),
    }
}

fn save_exact<R: Real>(name: &str, matrix: &Array2<R>, record: &mut Record<'_>) {
    let values: Vec<R> = matrix.iter().copied().collect();
    record.tensor(name, StateTensor::new(matrix.shape(), &values));
}

fn load_exact<R: Real>(name: &str, n: usize, lookup: &Lookup<'_>) -> Result<Array2<R>> {
    let values = read_exact(name, &[n, n], lookup)?;
    Array2::from_shape_vec((n, n), values).map_err(|error| lookup.problem(name, error.to_string()))
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

fn misfit(name: &str, error: &Error, lookup: &Lookup<'_>) -> Error {
    lookup.problem(name, error.to_string())
}
