//! Statistics as eigenvalues and eigenvectors, which survive rounding to 4 bits.

use super::inverse::corrected;
use super::{Eigenpairs, FactorOptions, FactorStorage, Inverse, RootSolver};
use crate::error::Result;
use crate::linalg::{eigen_inverse_root, matmul};
use crate::numeric::Real;
use crate::quant::MatrixCodec;
use crate::state::{Lookup, Record, StateBytes};
use ndarray::{Array1, Array2, ArrayRef2};

/// `A = U Diag(λ) Uᵀ` with the eigenvectors U, and often the root, as codes.
///
/// ```text
/// update   V ← decode(U), rectified        V ← 1.5V − 0.5V Vᵀ V, rectify_update times
///          A ← β·V Diag(λ) Vᵀ + (1 − β)·M
///          P ← Q of A V = Q R              orthogonal iteration from the old basis, `iterations`
///                                          times, each time from the last P
///          λ ← diag(Pᵀ A P),  U ← encode(P)
/// root     V ← decode(U), rectified        rectify_root times
///          Â ← V Diag((λ + ε)^(−exponent)) Vᵀ        ε = damping·max λ
/// ```
/// Rounding an orthogonal matrix changes eigenvectors, never eigenvalues: their ratio survives, and with
/// it the root of the small ones, which rounding A itself would destroy. A few Björck iterations restore
/// the orthogonality that rounding has cost.
///
/// Bytes in `f32`, order n, b bits, blocks of B: `2n·⌈nb/8⌉ + 8n·⌈n/B⌉ + 8n`.
///
/// Source: S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training",
/// NeurIPS 2024, Algorithms 1 to 3; where paper and published code differ, the code.
#[derive(Clone, Debug)]
pub struct EigenFactor<R> {
    pairs: Eigenpairs<R>,
    inverse: Inverse<R>,
}

impl<R: Real> EigenFactor<R> {
    pub(super) fn new(n: usize, codec: Option<MatrixCodec>, options: &FactorOptions) -> Self {
        Self {
            pairs: Eigenpairs::new(n, codec, options.initial),
            inverse: Inverse::new(n, codec, options),
        }
    }

    pub(super) fn accumulate(
        &mut self,
        gram: &ArrayRef2<R>,
        options: &FactorOptions,
    ) -> Result<()> {
        let (rectify_update, _) = rectify(options);
        let (iterations, signs) = (options.iterations, options.qr_signs);
        self.pairs.accumulate(gram, options.weights(), rectify_update, iterations, signs)
    }

    pub(super) fn refresh_root(&mut self, options: &FactorOptions) -> Result<()> {
        let (_, rectify_root) = rectify(options);
        let (values, v) = (self.pairs.values(), self.pairs.rectified(rectify_root)?);
        let root = || root_of(values, &v, options);
        self.inverse.refresh(root, || Ok((corrected(values, options), v.clone())))
    }

    pub(super) fn inverse(&self) -> &Inverse<R> {
        &self.inverse
    }

    pub(super) fn statistic(&self) -> Array2<R> {
        self.pairs.statistic()
    }

    pub(super) fn trace(&self) -> f64 {
        self.pairs.values().iter().map(|x| x.widen()).sum()
    }

    pub(super) fn largest_eigenvalue(&self) -> f64 {
        self.pairs.values().iter().fold(0.0, |largest, x| f64::max(largest, x.widen()))
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        self.pairs.count(bytes);
        self.inverse.count(bytes);
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        self.pairs.save(record);
        self.inverse.save(record);
    }

    pub(super) fn load(
        n: usize,
        codec: Option<MatrixCodec>,
        options: &FactorOptions,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        Ok(Self {
            pairs: Eigenpairs::load(n, codec, lookup)?,
            inverse: Inverse::load(n, codec, options, lookup)?,
        })
    }
}

fn root_of<R: Real>(
    values: &Array1<R>,
    v: &Array2<R>,
    options: &FactorOptions,
) -> Result<Array2<R>> {
    match options.root {
        RootSolver::Eigen | RootSolver::DampedEigen | RootSolver::Qr { .. } => {
            let scale = options.scale(values.iter().map(|x| x.widen()).sum());
            let values = values.mapv(|x| R::of(scale * x.widen()));
            eigen_inverse_root(&values, v, options.exponent, options.damping)
        }
        _ => options.root_of(&matmul(&(v * values), &v.t())?, true),
    }
}

/// Björck iterations on decoded eigenvectors before an update, and before a root.
fn rectify(options: &FactorOptions) -> (usize, usize) {
    match options.storage {
        FactorStorage::QuantizedEigen { rectify_update, rectify_root, .. } => {
            (rectify_update, rectify_root)
        }
        _ => (0, 0),
    }
}
