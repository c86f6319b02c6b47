//! How factors are stored, how roots are computed, and the options that a factor needs.

use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::linalg::{CoupledNewton, Damping, InverseRoot, QrSigns};
use crate::numeric::Real;
use crate::numeric::limits::MOST_ITERATIONS;
use crate::quant::{MatrixCodec, MatrixMap};
use ndarray::{Array2, ArrayRef2};

/// Refuses a number of iterations that would not end.
pub(crate) fn check_iterations(
    optimizer: &'static str,
    field: &'static str,
    iterations: usize,
) -> Result<()> {
    if iterations as u64 <= MOST_ITERATIONS {
        return Ok(());
    }
    Err(Error::invalid(optimizer, field, format!("at most {MOST_ITERATIONS}"), iterations))
}

/// How the factors of a Kronecker preconditioner are stored.
///
/// Factors with fewer than 64 rows (n² < `min_numel`) keep full precision whatever is chosen: they take
/// little memory, and rounding hurts them most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", deny_unknown_fields))]
#[non_exhaustive]
pub enum FactorStorage {
    /// The statistic and its root in full precision: 8n² bytes in `f32`. The root is that of the
    /// statistic itself.
    #[default]
    Dense,
    /// The same with the statistic in `f64`, from which the root is computed: 12n² bytes for parameters in
    /// `f32`. Squares of gradients as large as 1e30 are then finite, and a long sum does not lose what is
    /// added last.
    Double,
    /// The statistic and its root as codes with an exact diagonal. For comparison: small eigenvalues
    /// drown in the rounding of large ones.
    Naive(MatrixCodec),
    /// Eigenvalues and eigenvectors in full precision: 8n² bytes. An update is one orthogonal
    /// iteration from the old basis, far cheaper than a decomposition and not quite as exact.
    Eigen,
    /// Eigenvalues in full precision, eigenvectors and root as codes: about 1.125n² bytes in 4 bits.
    QuantizedEigen {
        /// Format of the codes.
        codec: MatrixCodec,
        /// Björck iterations on decoded eigenvectors before an update.
        rectify_update: usize,
        /// Björck iterations on decoded eigenvectors before a root is made of them.
        rectify_root: usize,
    },
    /// The Cholesky factor of the statistic and its root as codes with exact diagonals: about 0.84n²
    /// bytes in 4 bits, with error feedback 1.13n². See [`CholeskyFactor`](super::CholeskyFactor).
    Cholesky {
        /// Format of the codes.
        codec: MatrixCodec,
        /// Decay rate β_e of the error that is fed back, in `[0, 1)`. `None` feeds nothing back, 0 only the
        /// last error. Much above 0.5 the average becomes as large as the statistic itself.
        error_beta: Option<f64>,
    },
}
crate::config_file::presets!(FactorStorage, [EIGEN4, EIGEN4_UNRECTIFIED, CHOLESKY4]);

impl FactorStorage {
    /// 4-bit eigenvectors with orthogonality rectification, linear-2 codes in blocks of 64.
    pub const EIGEN4: Self = Self::QuantizedEigen {
        codec: MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 },
        rectify_update: 1,
        rectify_root: 4,
    };

    /// [`EIGEN4`](Self::EIGEN4) without rectification.
    pub const EIGEN4_UNRECTIFIED: Self = Self::QuantizedEigen {
        codec: MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 },
        rectify_update: 0,
        rectify_root: 0,
    };

    /// 4-bit Cholesky factors with error feedback, linear-2 codes in blocks of 64.
    pub const CHOLESKY4: Self = Self::Cholesky {
        codec: MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 },
        error_beta: Some(0.0),
    };

    /// The codes, if there are any.
    pub fn codec(&self) -> Option<MatrixCodec> {
        match self {
            Self::Dense | Self::Double | Self::Eigen => None,
            Self::Naive(codec)
            | Self::QuantizedEigen { codec, .. }
            | Self::Cholesky { codec, .. } => Some(*codec),
        }
    }

    /// Checks the fields.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the one that is out of range.
    pub fn validate(&self) -> Result<()> {
        if let Self::Cholesky { error_beta: Some(beta), .. } = self
            && !(0.0..1.0).contains(beta)
        {
            return Err(Error::InvalidHyperparameter {
                optimizer: "FactorStorage",
                field: "error_beta",
                expected: "in [0, 1)".into(),
                found: beta.to_string(),
            });
        }
        if let Self::QuantizedEigen { rectify_update, rectify_root, .. } = *self {
            check_iterations("FactorStorage", "rectify_update", rectify_update)?;
            check_iterations("FactorStorage", "rectify_root", rectify_root)?;
        }
        self.codec().map_or(Ok(()), |codec| codec.validate())
    }

    /// The same storage without codes, for small factors.
    fn in_full(self) -> Self {
        match self {
            Self::Double => Self::Double,
            Self::Dense | Self::Naive(_) | Self::Cholesky { .. } => Self::Dense,
            Self::Eigen | Self::QuantizedEigen { .. } => Self::Eigen,
        }
    }
}

/// The options that a factor needs, as one step of the optimizer has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FactorOptions {
    /// How it is stored.
    pub storage: FactorStorage,
    /// Smallest n² that is coded.
    pub min_numel: usize,
    /// Weight β of the old statistic.
    pub beta: f64,
    /// Weight of a new term: 1 − β, or 1.
    pub weight: f64,
    /// First statistic ε₀I.
    pub initial: f64,
    /// The statistic is divided by this before its root: 1 − βᵘ, or 1.
    pub bias: f64,
    /// It is then multiplied by max(trace, ε) to the power of minus this.
    pub trace_scaling: f64,
    /// Ridge of the root.
    pub damping: Damping,
    /// How the root is computed.
    pub root: RootSolver,
    /// Compute it in `f64`, whatever the type of the factor.
    pub double_roots: bool,
    /// The root is the statistic to the power of minus this.
    pub exponent: f64,
    /// Orthogonal iterations by which stored eigenvectors follow an update.
    pub iterations: usize,
    /// Signs of eigenvectors that follow a statistic by QR decompositions.
    pub qr_signs: QrSigns,
    /// A refresh keeps eigenvalues and eigenvectors in place of the root; `root`, `damping` and `exponent`
    /// are not used.
    pub eigenpairs: bool,
}

impl FactorOptions {
    /// How a factor of order `n` is stored.
    pub(crate) fn stored(&self, n: usize) -> FactorStorage {
        let large = n.saturating_mul(n) >= self.min_numel;
        if large { self.storage } else { self.storage.in_full() }
    }

    /// Whether eigenvectors are kept, where the next root begins.
    pub(super) fn keeps_basis(&self) -> bool {
        self.root.keeps_basis() && !self.eigenpairs
    }

    /// Weights of the old statistic and of the new term.
    pub(super) fn weights<R: Real>(&self) -> (R, R) {
        (R::of(self.beta), R::of(self.weight))
    }

    /// What a statistic of this trace is multiplied by before its root is taken.
    pub(super) fn scale(&self, trace: f64) -> f64 {
        let trace = trace / self.bias;
        let by_trace = match self.trace_scaling {
            0.0 => 1.0,
            power => trace.max(self.damping.ridge(trace)).powf(-power),
        };
        by_trace / self.bias
    }

    /// The inverse root of a statistic; if its own type does not do, in `f64`. One that rounding has
    /// made unsymmetric is not made `symmetric` again.
    pub(super) fn root_of<R: Real>(&self, a: &ArrayRef2<R>, symmetric: bool) -> Result<Array2<R>> {
        let scale = self.scale(a.diag().iter().map(|x| x.widen()).sum());
        let method = self.root.inverse_root(self.damping);
        if !self.double_roots {
            let own = a.mapv(|x| R::of(scale * x.widen()));
            if let Ok(root) = method.root_of(&own, self.exponent, symmetric) {
                return Ok(root);
            }
        }
        let double = a.mapv(|x| scale * x.widen());
        Ok(method.root_of(&double, self.exponent, symmetric)?.mapv(R::of))
    }
}

/// How the inverse root of a statistic is computed; [`InverseRoot`] has the equations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum RootSolver {
    /// From eigenvalues and eigenvectors, those stored or those of a decomposition; the ridge is
    /// added to the eigenvalues.
    #[default]
    Eigen,
    /// The same with the ridge added to the matrix before it is decomposed.
    DampedEigen,
    /// Eigenvalues that count as zero stay zero. The damping is not used.
    PseudoInverse {
        /// Relative to the largest eigenvalue; `None` is n times the machine epsilon.
        rtol: Option<f64>,
        /// Absolute.
        atol: f64,
    },
    /// From eigenvectors that are kept, 4n² bytes more in `f32`, and improved a little by the
    /// QR algorithm: far cheaper than a decomposition, and not quite as exact. For dense factors;
    /// stored eigenvectors serve by themselves.
    Qr {
        /// Off-diagonal part, relative to the whole, below which a basis is good enough.
        tolerance: f64,
        /// Largest number of iterations.
        max_iterations: usize,
    },
    /// Products only.
    CoupledNewton(CoupledNewton),
    /// Products only, fewer iterations.
    CoupledHigherOrder {
        /// Terms of the series, at least 2.
        order: usize,
        /// Largest |M − I| at which to stop.
        tolerance: f64,
        /// Largest number of iterations.
        max_iterations: usize,
    },
}

impl RootSolver {
    /// Whether a dense factor keeps eigenvectors for the next root.
    pub(crate) fn keeps_basis(&self) -> bool {
        matches!(self, Self::Qr { .. })
    }

    /// Refuses a solver that needs eigenvectors where the storage keeps none, and one without end.
    pub(crate) fn check_storage<C: Hyperparameters>(&self, storage: FactorStorage) -> Result<()> {
        if let Self::Qr { max_iterations, .. } = *self {
            check_iterations(C::NAME, "max_iterations", max_iterations)?;
        }
        match storage {
            FactorStorage::Double | FactorStorage::Cholesky { .. } if self.keeps_basis() => {
                let expected = "another solver for Double and Cholesky storage";
                Err(C::invalid("root", expected, "Qr"))
            }
            _ => Ok(()),
        }
    }

    /// The method for a matrix of which nothing is known.
    pub(crate) fn inverse_root(&self, damping: Damping) -> InverseRoot {
        match *self {
            Self::Eigen => InverseRoot::Eigh { damping, perturb_before: false },
            Self::DampedEigen | Self::Qr { .. } => {
                InverseRoot::Eigh { damping, perturb_before: true }
            }
            Self::PseudoInverse { rtol, atol } => InverseRoot::PseudoInverse { rtol, atol },
            Self::CoupledNewton(limits) => InverseRoot::CoupledNewton { damping, limits },
            Self::CoupledHigherOrder { order, tolerance, max_iterations } => {
                InverseRoot::CoupledHigherOrder {
                    damping,
                    order,
                    tolerance,
                    max_iterations,
                    accept: Some(0.1),
                }
            }
        }
    }
}
