//! Statistics themselves, in full precision or as codes.

use super::statistic::StoredStatistic;
use super::{Basis, FactorOptions, FactorStorage, GramSum, Inverse, RootSolver};
use crate::error::Result;
use crate::linalg::qr_inverse_root;
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateBytes};
use ndarray::{Array2, ArrayRef2, ArrayViewD};

/// A statistic A and its root.
///
/// ```text
/// update   A ← β·A + (1 − β)·M
/// root     Â ← (A + εI)^(−exponent)
/// ```
/// Bytes in `f32`, order n: `8n²`, with the statistic in `f64` `12n²`. As codes, the naive way to fewer
/// bits, both matrices keep an exact diagonal. Rounding the other entries moves small eigenvalues by more
/// than their own size.
///
/// Source: V. Gupta, T. Koren, Y. Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization",
/// ICML 2018.
#[derive(Clone, Debug)]
pub struct DenseFactor<R> {
    statistic: StoredStatistic<R>,
    inverse: Inverse<R>,
    /// Eigenvectors at the last root, where the next one begins; see [`RootSolver::Qr`].
    basis: Option<Basis<R>>,
}

impl<R: Real> DenseFactor<R> {
    pub(super) fn new(n: usize, storage: FactorStorage, options: &FactorOptions) -> Self {
        Self {
            statistic: StoredStatistic::new(n, storage, options.initial),
            inverse: Inverse::new(n, storage.codec(), options),
            basis: options.keeps_basis().then(|| Basis::new(Array2::eye(n), None)),
        }
    }

    pub(super) fn accumulate(
        &mut self,
        gram: &ArrayRef2<R>,
        options: &FactorOptions,
    ) -> Result<()> {
        self.statistic.accumulate(gram, options)
    }

    pub(super) fn accumulate_sum(
        &mut self,
        sum: &GramSum<R>,
        options: &FactorOptions,
    ) -> Result<()> {
        self.statistic.accumulate_sum(sum, options)
    }

    pub(super) fn accumulate_mode(
        &mut self,
        x: &ArrayViewD<'_, R>,
        axis: usize,
        options: &FactorOptions,
    ) -> Result<()> {
        self.statistic.accumulate_mode(x, axis, options)
    }

    pub(super) fn refresh_root(&mut self, options: &FactorOptions) -> Result<()> {
        let Self { statistic, inverse, basis } = self;
        let root = || match (basis, options.root) {
            (Some(basis), RootSolver::Qr { tolerance, max_iterations }) => {
                let mut a = statistic.whole();
                let scale = options.scale(a.diag().iter().map(|x| x.widen()).sum());
                a.mapv_inplace(|x| R::of(scale * x.widen()));
                let limits = (tolerance, max_iterations);
                let (exponent, damping) = (options.exponent, options.damping);
                let (root, vectors) =
                    qr_inverse_root(&a, &basis.load(), limits, exponent, damping)?;
                basis.store(&vectors)?;
                Ok(root)
            }
            _ => statistic.root(options),
        };
        inverse.refresh(root, || statistic.eigenpairs(options))
    }

    pub(super) fn inverse(&self) -> &Inverse<R> {
        &self.inverse
    }

    pub(super) fn statistic(&self) -> Array2<R> {
        self.statistic.whole()
    }

    pub(super) fn trace(&self) -> f64 {
        self.statistic.trace()
    }

    pub(super) fn largest_eigenvalue(&self) -> Result<f64> {
        self.statistic.largest_eigenvalue()
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        bytes.add("statistic", self.statistic.bytes());
        self.inverse.count(bytes);
        if let Some(basis) = &self.basis {
            bytes.add("eigenvectors", basis.bytes());
        }
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        self.statistic.save("statistic", record);
        self.inverse.save(record);
        if let Some(basis) = &self.basis {
            basis.save("eigenvectors", record);
        }
    }

    pub(super) fn load(
        n: usize,
        storage: FactorStorage,
        options: &FactorOptions,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let basis = || Basis::load_from("eigenvectors", n, None, lookup);
        Ok(Self {
            basis: options.keeps_basis().then(basis).transpose()?,
            statistic: StoredStatistic::load_from("statistic", n, storage, lookup)?,
            inverse: Inverse::load(n, storage.codec(), options, lookup)?,
        })
    }
}
