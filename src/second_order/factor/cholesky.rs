//! Statistics as Cholesky factors: however these are rounded, they represent a positive semidefinite
//! matrix.

use super::inverse::pairs_of;
use super::{FactorOptions, FactorStorage, Inverse, Triangular};
use crate::error::Result;
use crate::linalg::{cholesky, gram_left, spectral_norm};
use crate::numeric::Real;
use crate::quant::MatrixCodec;
use crate::state::{Lookup, Record, StateBytes};
use ndarray::{Array2, ArrayRef2, Zip};

/// Ridges that are tried, each ten times the last one.
const ATTEMPTS: usize = 6;

/// `A = C Cᵀ` with the lower triangle C, its accumulated rounding error E, and the root, all as codes.
///
/// ```text
/// update   A ← β·C̄ C̄ᵀ + (1 − β)·M                       C̄ = decode(C)
///          T ← chol(A + εI) + decode(E)                  ε = max(relative·max Aᵢᵢ, absolute)
///          C ← encode(T)
///          E ← encode(β_e·decode(E) + (1 − β_e)·(T − decode(C)))
/// root     Â ← encode((C̄ C̄ᵀ + ε'I)^(−exponent))          ε' = the damping of every root
/// ```
/// C keeps its diagonal in full precision, so E has none. The condition number of C is the root of that of
/// A, and C Cᵀ has no negative eigenvalues: small eigenvalues survive that are lost where A itself is
/// rounded. *Error feedback* (E) adds to the next factor what rounding took from this one. Without it, an
/// update that is smaller than half a gap between codes is lost every time.
///
/// β_e = 0, as in gradient compression, follows a changing statistic best: for A of order 96, in 4 bits
/// and with β = 0.95, the error is 0.13 of the norm of A, without E 0.41. The authors' average is harmful
/// here: it adds errors to A that were added before, and A remembers them. At β_e = 0.9 nothing is gained;
/// at 0.95 the error is larger than A.
///
/// ε is that of `damping`, relative to the largest diagonal entry. Everything is computed in `f64`. If
/// rounding in the products of gradients has made A indefinite beyond ε, the ridge is raised tenfold, at
/// most five times.
///
/// Bytes in `f32`, order n, b bits, blocks of B: `Σ_{i<n} (⌈bi/8⌉ + 4⌈i/B⌉) + 4n` for C, again as
/// many for E, and `n⌈bn/8⌉ + 4n⌈n/B⌉ + 4n` for the root.
///
/// Source: J. Li, K. Ding, K.-C. Toh, P. Zhou, "Memory-Efficient 4-bit Preconditioned Stochastic
/// Optimization", 2024. Its ε is one number for all matrices; here it is relative, as in the root.
#[derive(Clone, Debug)]
pub struct CholeskyFactor<R> {
    lower: Triangular<R>,
    error: Option<Triangular<R>>,
    inverse: Inverse<R>,
}

/// Decay rate `β_e` of the error state, if there is one.
fn error_beta(options: &FactorOptions) -> Option<f64> {
    match options.storage {
        FactorStorage::Cholesky { error_beta, .. } => error_beta,
        _ => None,
    }
}

impl<R: Real> CholeskyFactor<R> {
    pub(super) fn new(n: usize, codec: Option<MatrixCodec>, options: &FactorOptions) -> Self {
        let start = R::of(options.initial.sqrt());
        let error = || Triangular::new(Array2::zeros((n, n)), codec);
        Self {
            lower: Triangular::new(Array2::from_diag_elem(n, start), codec),
            error: error_beta(options).map(|_| error()),
            inverse: Inverse::new(n, codec, options),
        }
    }

    pub(super) fn accumulate(
        &mut self,
        gram: &ArrayRef2<R>,
        options: &FactorOptions,
    ) -> Result<()> {
        let (old, new) = options.weights::<f64>();
        let mut a = self.wide_statistic();
        Zip::from(&mut a).and(gram).for_each(|a, m| *a = old * *a + new * m.widen());
        let mut target = damped_cholesky(&a, options)?.mapv(R::of);
        let Some((error, beta)) = self.error.as_mut().zip(error_beta(options)) else {
            return self.lower.store(&target);
        };
        let mut e = error.load().into_owned();
        target += &e;
        self.lower.store(&target)?;
        let (old, new) = (R::of(beta), R::of(1.0 - beta));
        let mismatch = |e: &mut R, &t: &R, &c: &R| *e = old * *e + new * (t - c);
        Zip::from(&mut e).and(&target).and(&self.lower.load()).for_each(mismatch);
        error.store(&e)
    }

    pub(super) fn refresh_root(&mut self, options: &FactorOptions) -> Result<()> {
        let a = self.wide_statistic();
        let root = || Ok(options.root_of(&a, true)?.mapv(R::of));
        self.inverse.refresh(root, || pairs_of(&a, options))
    }

    /// `C̄ C̄ᵀ` in `f64`: rounding must not make it indefinite.
    fn wide_statistic(&self) -> Array2<f64> {
        gram_left(&self.lower.load().mapv(R::widen))
    }

    pub(super) fn inverse(&self) -> &Inverse<R> {
        &self.inverse
    }

    pub(super) fn statistic(&self) -> Array2<R> {
        self.wide_statistic().mapv(R::of)
    }

    pub(super) fn trace(&self) -> f64 {
        self.lower.load().iter().map(|x| x.widen() * x.widen()).sum()
    }

    pub(super) fn largest_eigenvalue(&self) -> Result<f64> {
        spectral_norm(&self.wide_statistic(), 300, 1e-10)
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        bytes.add("cholesky", self.lower.bytes());
        if let Some(error) = &self.error {
            bytes.add("error", error.bytes());
        }
        self.inverse.count(bytes);
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        self.lower.save("cholesky", record);
        if let Some(error) = &self.error {
            error.save("error", record);
        }
        self.inverse.save(record);
    }

    pub(super) fn load(
        n: usize,
        codec: Option<MatrixCodec>,
        options: &FactorOptions,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let error = || Triangular::load_from("error", n, codec, lookup);
        Ok(Self {
            lower: Triangular::load_from("cholesky", n, codec, lookup)?,
            error: error_beta(options).map(|_| error()).transpose()?,
            inverse: Inverse::load(n, codec, options, lookup)?,
        })
    }
}

/// The Cholesky factor of A with a ridge, as small as serves; that of nothing is nothing.
fn damped_cholesky(a: &Array2<f64>, options: &FactorOptions) -> Result<Array2<f64>> {
    let largest = a.diag().iter().fold(0.0, |largest, x| f64::max(largest, *x));
    let mut ridge = options.damping.ridge(largest);
    let factor = |ridge: f64| {
        let mut a = a.clone();
        a.diag_mut().mapv_inplace(|x| x + ridge);
        cholesky(&a)
    };
    let mut found = factor(ridge);
    for _ in 1..ATTEMPTS {
        if found.is_ok() || largest == 0.0 {
            break;
        }
        ridge = f64::max(10.0 * ridge, a.nrows() as f64 * f64::EPSILON * largest);
        found = factor(ridge);
    }
    match found {
        Err(_) if a.iter().all(|x| *x == 0.0) => Ok(Array2::zeros(a.dim())),
        found => found,
    }
}
