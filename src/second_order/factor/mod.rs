//! One side of a Kronecker preconditioner: a statistic, what a refresh makes of it, and how both are stored.
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
mod gram_sum;
mod inverse;
mod options;
mod pairs;
mod statistic;
mod stored;

pub use cholesky::CholeskyFactor;
pub use dense::DenseFactor;
pub use eigen::EigenFactor;
pub use gram_sum::GramSum;
pub use inverse::Inverse;
pub(crate) use options::check_iterations;
pub use options::{FactorOptions, FactorStorage, RootSolver};
pub use pairs::Eigenpairs;
pub use stored::{Basis, Codes, Parts, Stored, Symmetric, Triangular};

use crate::error::{Error, Result};
use crate::linalg::mode_gram;
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateBytes};
use ndarray::{Array2, ArrayRef2, ArrayViewD, CowArray, Ix2};

/// The statistic of one side, and its inverse root; or its eigenpairs, with
/// [`FactorOptions::eigenpairs`].
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

    /// `A ← β·A + weight·Σ` for a sum of Gram matrices.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate).
    pub fn accumulate_sum(&mut self, sum: &GramSum<R>, options: &FactorOptions) -> Result<()> {
        match self {
            Self::Dense(factor) => factor.accumulate_sum(sum, options),
            _ => self.accumulate(&sum.whole(), options),
        }
    }

    /// Makes the root, or the eigenpairs, of the statistic as it stands.
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

    /// The root, decoded; without rows where eigenpairs are kept.
    pub fn root(&self) -> CowArray<'_, R, Ix2> {
        self.stored_root().map_or_else(|| Array2::zeros((0, 0)).into(), Symmetric::load)
    }

    /// How the root is stored.
    pub(super) fn stored_root(&self) -> Option<&Symmetric<R>> {
        self.inverse().root()
    }

    /// The eigenvalues and eigenvectors at the last refresh, where they are kept.
    pub fn eigenpairs(&self) -> Option<&Eigenpairs<R>> {
        self.inverse().eigenpairs()
    }

    fn inverse(&self) -> &Inverse<R> {
        match self {
            Self::Dense(factor) => factor.inverse(),
            Self::Eigen(factor) => factor.inverse(),
            Self::Cholesky(factor) => factor.inverse(),
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

    /// Trace of the statistic.
    pub(crate) fn trace(&self) -> f64 {
        match self {
            Self::Dense(factor) => factor.trace(),
            Self::Eigen(factor) => factor.trace(),
            Self::Cholesky(factor) => factor.trace(),
        }
    }

    /// Largest eigenvalue of the statistic.
    pub(crate) fn largest_eigenvalue(&self) -> Result<f64> {
        match self {
            Self::Dense(factor) => factor.largest_eigenvalue(),
            Self::Eigen(factor) => Ok(factor.largest_eigenvalue()),
            Self::Cholesky(factor) => factor.largest_eigenvalue(),
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
                Self::Eigen(EigenFactor::load(n, storage.codec(), options, lookup)?)
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
