//! Statistics as eigenvalues and eigenvectors: what survives rounding to 4 bits.

use super::{Basis, FactorOptions, FactorStorage, RootSolver, Symmetric};
use crate::error::Result;
use crate::linalg::{bjorck, eigen_inverse_root, matmul, matmul_into, orthogonal_iteration_with};
use crate::numeric::Real;
use crate::quant::MatrixCodec;
use crate::state::slot::read_exact;
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use ndarray::{Array1, Array2, ArrayRef2, CowArray, Ix2};

/// `A = U Diag(λ) Uᵀ` with the eigenvectors U, and often the root, as codes.
///
/// ```text
/// update   V ← decode(U), rectified        V ← 1.5V − 0.5V Vᵀ V, rectify_update times
///          A ← β·V Diag(λ) Vᵀ + (1 − β)·M
///          P ← Q of A V = Q R              one orthogonal iteration from the old basis
///          λ ← diag(Pᵀ A P),  U ← encode(P)
/// root     V ← decode(U), rectified        rectify_root times
///          Â ← V Diag((λ + ε)^(−exponent)) Vᵀ        ε = damping·max λ
/// ```
/// Rounding an orthogonal matrix changes eigenvectors, never eigenvalues: their ratio, and so the
/// root of the small ones, survives where rounding A itself would lose it. What rounding costs in
/// orthogonality a few Björck iterations give back.
///
/// Bytes in `f32`, order n, b bits, blocks of B: `2n·⌈nb/8⌉ + 8n·⌈n/B⌉ + 8n`.
///
/// Source: S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training",
/// NeurIPS 2024, Algorithms 1 to 3; where paper and published code differ, the code.
#[derive(Clone, Debug)]
pub struct EigenFactor<R> {
    values: Array1<R>,
    vectors: Basis<R>,
    root: Symmetric<R>,
}

impl<R: Real> EigenFactor<R> {
    pub(super) fn new(n: usize, codec: Option<MatrixCodec>, options: &FactorOptions) -> Self {
        Self {
            values: Array1::from_elem(n, R::of(options.initial)),
            vectors: Basis::new(Array2::eye(n), codec),
            root: Symmetric::new(Array2::eye(n), codec),
        }
    }

    pub(super) fn accumulate(
        &mut self,
        gram: &ArrayRef2<R>,
        options: &FactorOptions,
    ) -> Result<()> {
        let v = self.rectified(|update, _| update, options)?;
        let (old, new) = options.weights::<R>();
        let mut a = gram.to_owned();
        matmul_into(old, &(&v * &self.values), &v.t(), new, &mut a)?;
        let (values, p) = orthogonal_iteration_with(&a, &v, 1, options.qr_signs)?;
        self.vectors.store(&p)?;
        self.values = values;
        Ok(())
    }

    pub(super) fn refresh_root(&mut self, options: &FactorOptions) -> Result<()> {
        let v = self.rectified(|_, root| root, options)?;
        let root = match options.root {
            RootSolver::Eigen | RootSolver::DampedEigen | RootSolver::Qr { .. } => {
                let scale = options.scale(self.values.iter().map(|x| x.widen()).sum());
                let values = self.values.mapv(|x| R::of(scale * x.widen()));
                eigen_inverse_root(&values, &v, options.exponent, options.damping)?
            }
            _ => options.root_of(&matmul(&(&v * &self.values), &v.t())?)?,
        };
        self.root.store(&root)
    }

    /// The eigenvectors; as many Björck iterations on decoded ones as `times` picks.
    fn rectified(
        &self,
        times: impl Fn(usize, usize) -> usize,
        options: &FactorOptions,
    ) -> Result<Array2<R>> {
        match (&self.vectors, options.storage) {
            (
                Basis::Coded(codes),
                FactorStorage::QuantizedEigen { rectify_update, rectify_root, .. },
            ) => bjorck(&codes.decode(), times(rectify_update, rectify_root)),
            (vectors, _) => Ok(vectors.load().into_owned()),
        }
    }

    pub(super) fn root(&self) -> CowArray<'_, R, Ix2> {
        self.root.load()
    }

    pub(super) fn statistic(&self) -> Array2<R> {
        let v = self.vectors.load();
        (&v * &self.values).dot(&v.t())
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        bytes.add("eigenvalues", self.values.len() * size_of::<R>());
        bytes.add("eigenvectors", self.vectors.bytes());
        bytes.add("root", self.root.bytes());
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        let values = self.values.as_slice().unwrap_or_default();
        record.tensor("eigenvalues", StateTensor::new(&[values.len()], values));
        self.vectors.save("eigenvectors", record);
        self.root.save("root", record);
    }

    pub(super) fn load(n: usize, codec: Option<MatrixCodec>, lookup: &Lookup<'_>) -> Result<Self> {
        Ok(Self {
            values: Array1::from(read_exact("eigenvalues", &[n], lookup)?),
            vectors: Basis::load_from("eigenvectors", n, codec, lookup)?,
            root: Symmetric::load_from("root", n, codec, lookup)?,
        })
    }
}
