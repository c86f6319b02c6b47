//! One side of a Kronecker preconditioner: a statistic, its inverse root, and how both are stored.
//!
//! [`FactorOptions`] is the part of a configuration that says so, [`FactorStorage`] the formats:
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::Array2;
//!
//! let shampoo: Shampoo = Shampoo { storage: FactorStorage::EIGEN4, ..Shampoo::default() };
//! let mut w = Array2::<f32>::ones((64, 64));
//! let grad = w.clone(); // of ‖w‖²/2
//! shampoo.build()?.step(&mut w, &grad)?;
//! # Ok::<(), eigenstep::Error>(())
//! ```

mod cholesky;
mod dense;
mod eigen;
mod options;
mod pairs;
mod statistic;
mod stored;

pub use cholesky::CholeskyFactor;
pub use dense::DenseFactor;
pub use eigen::EigenFactor;
pub use options::{FactorOptions, FactorStorage, RootSolver};
pub use pairs::Eigenpairs;
pub use stored::{Basis, Codes, Parts, Stored, Symmetric, Triangular};

use crate::error::{Error, Result};
use crate::linalg::mode_gram;
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateBytes};
use ndarray::{Array2, ArrayRef2, ArrayViewD, CowArray, Ix2};

/// The statistic of one side, and its inverse root.
#[derive(Clone, Debug)]
pub enum Factor<R> {
    /// Statistics themselves.
    Dense(DenseFactor<R>),
    /// Eigenvalues and eigenvectors.
    Eigen(EigenFactor<R>),
    /// Cholesky factors.
    Cholesky(CholeskyFactor<R>),
}

impl<R: Real> Factor<R> {
    /// The factor of order `n` before its first step: statistic εI, root I.
    pub fn new(n: usize, options: &FactorOptions) -> Self {
        let storage = options.stored(n);
        match storage {
            FactorStorage::Dense | FactorStorage::Double | FactorStorage::Naive(_) => {
                Self::Dense(DenseFactor::new(n, storage, options))
            }
            FactorStorage::Eigen | FactorStorage::QuantizedEigen { .. } => {
                Self::Eigen(EigenFactor::new(n, storage.codec(), options))
            }
            FactorStorage::Cholesky { .. } => {
                Self::Cholesky(CholeskyFactor::new(n, storage.codec(), options))
            }
        }
    }

    /// `A ← β·A + weight·M` for a Gram matrix M.
    ///
    /// # Errors
    /// A decomposition failed, or the result is not finite; the factor is as it was.
    pub fn accumulate(&mut self, gram: &ArrayRef2<R>, options: &FactorOptions) -> Result<()> {
        match self {
            Self::Dense(factor) => factor.accumulate(gram, options),
            Self::Eigen(factor) => factor.accumulate(gram, options),
            Self::Cholesky(factor) => factor.accumulate(gram, options),
        }
    }

    /// [`accumulate`](Self::accumulate) for the Gram matrix of dimension `axis` of `x`, as
    /// [`mode_gram`] makes it.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate).
    pub fn accumulate_mode(
        &mut self,
        x: &ArrayViewD<'_, R>,
        axis: usize,
        options: &FactorOptions,
    ) -> Result<()> {
        match self {
            Self::Dense(factor) => factor.accumulate_mode(x, axis, options),
            _ => self.accumulate(&mode_gram(x, axis)?, options),
        }
    }

    /// Makes the root of the statistic as it stands.
    ///
    /// # Errors
    /// A decomposition failed, or the root is not finite; the old root stays.
    pub fn refresh_root(&mut self, options: &FactorOptions) -> Result<()> {
        match self {
            Self::Dense(factor) => factor.refresh_root(options),
            Self::Eigen(factor) => factor.refresh_root(options),
            Self::Cholesky(factor) => factor.refresh_root(options),
        }
    }

    /// The root, decoded.
    pub fn root(&self) -> CowArray<'_, R, Ix2> {
        self.stored_root().load()
    }

    /// How the root is stored.
    pub(super) fn stored_root(&self) -> &Symmetric<R> {
        match self {
            Self::Dense(factor) => factor.root(),
            Self::Eigen(factor) => factor.root(),
            Self::Cholesky(factor) => factor.root(),
        }
    }

    /// The statistic, rebuilt from what is stored.
    pub fn statistic(&self) -> Array2<R> {
        match self {
            Self::Dense(factor) => factor.statistic(),
            Self::Eigen(factor) => factor.statistic(),
            Self::Cholesky(factor) => factor.statistic(),
        }
    }

    /// Adds the bytes held.
    pub fn count(&self, bytes: &mut StateBytes) {
        match self {
            Self::Dense(factor) => factor.count(bytes),
            Self::Eigen(factor) => factor.count(bytes),
            Self::Cholesky(factor) => factor.count(bytes),
        }
    }

    /// Writes the factor under the record's keys.
    pub fn save(&self, record: &mut Record<'_>) {
        match self {
            Self::Dense(factor) => factor.save(record),
            Self::Eigen(factor) => factor.save(record),
            Self::Cholesky(factor) => factor.save(record),
        }
    }

    /// The factor of order `n` from a state dict.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    pub fn load(n: usize, options: &FactorOptions, lookup: &Lookup<'_>) -> Result<Self> {
        let storage = options.stored(n);
        Ok(match storage {
            FactorStorage::Dense | FactorStorage::Double | FactorStorage::Naive(_) => {
                Self::Dense(DenseFactor::load(n, storage, options, lookup)?)
            }
            FactorStorage::Eigen | FactorStorage::QuantizedEigen { .. } => {
                Self::Eigen(EigenFactor::load(n, storage.codec(), lookup)?)
            }
            FactorStorage::Cholesky { .. } => {
                Self::Cholesky(CholeskyFactor::load(n, storage.codec(), options, lookup)?)
            }
        })
    }
}

/// Why a decomposition failed, as text that needs no memory.
pub(crate) fn reason(error: &Error) -> &'static str {
    match error {
        Error::Decomposition { problem, .. } => problem,
        _ => "a factor is not finite",
    }
}
