//! Statistics themselves, in full precision or as codes.

use super::statistic::StoredStatistic;
use super::{Basis, FactorOptions, FactorStorage, RootSolver, Symmetric};
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
    root: Symmetric<R>,
    /// Eigenvectors at the last root, where the next one begins; see [`RootSolver::Qr`].
    basis: Option<Basis<R>>,
}

impl<R: Real> DenseFactor<R> {
    pub(super) fn new(n: usize, storage: FactorStorage, options: &FactorOptions) -> Self {
        Self {
            statistic: StoredStatistic::new(n, storage, options.initial),
            root: Symmetric::new(Array2::eye(n), storage.codec()),
            basis: options.root.keeps_basis().then(|| Basis::new(Array2::eye(n), None)),
        }
    }

    pub(super) fn accumulate(
        &mut self,
        gram: &ArrayRef2<R>,
        options: &FactorOptions,
    ) -> Result<()> {
        self.statistic.accumulate(gram, options)
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
        let root = match (&mut self.basis, options.root) {
            (Some(basis), RootSolver::Qr { tolerance, max_iterations }) => {
                let mut a = self.statistic.whole();
                let scale = options.scale(a.diag().iter().map(|x| x.widen()).sum());
                a.mapv_inplace(|x| R::of(scale * x.widen()));
                let limits = (tolerance, max_iterations);
                let (exponent, damping) = (options.exponent, options.damping);
                let (root, vectors) =
                    qr_inverse_root(&a, &basis.load(), limits, exponent, damping)?;
                basis.store(&vectors)?;
                root
            }
            _ => self.statistic.root(options)?,
        };
        self.root.store(&root)
    }

    pub(super) fn root(&self) -> &Symmetric<R> {
        &self.root
    }

    pub(super) fn statistic(&self) -> Array2<R> {
        self.statistic.whole()
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        bytes.add("statistic", self.statistic.bytes());
        bytes.add("root", self.root.bytes());
        if let Some(basis) = &self.basis {
            bytes.add("eigenvectors", basis.bytes());
        }
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        self.statistic.save("statistic", record);
        self.root.save("root", record);
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
            basis: options.root.keeps_basis().then(basis).transpose()?,
            statistic: StoredStatistic::load_from("statistic", n, storage, lookup)?,
            root: Symmetric::load_from("root", n, storage.codec(), lookup)?,
        })
    }
}
