//! A symmetric matrix as eigenvalues and eigenvectors, which may be codes.

use super::Basis;
use crate::error::{Result, check_finite};
use crate::linalg::{QrSigns, add_gram_left, bjorck, mirror_lower, orthogonal_iteration_with};
use crate::numeric::Real;
use crate::quant::MatrixCodec;
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use ndarray::{Array1, Array2, ArrayRef2};

/// `A = U Diag(λ) Uᵀ` with λ in full precision, U in full precision or as codes.
///
/// ```text
/// V ← decode(U), rectified by Björck iterations
/// A ← old·V Diag(λ) Vᵀ + new·M
/// P ← Q of A V = Q R              orthogonal iteration from the old basis, Rᵢᵢ ≥ 0
/// λ ← diag(Pᵀ A P),  U ← encode(P)
/// ```
/// An update is computed in `f64`.
///
/// Bytes in `f32`, order n, b bits, blocks of B: `n·⌈nb/8⌉ + 4n·⌈n/B⌉ + 4n`.
#[derive(Clone, Debug)]
pub struct Eigenpairs<R> {
    values: Array1<R>,
    vectors: Basis<R>,
}

impl<R: Real> Eigenpairs<R> {
    /// `initial·I`; `codec` was checked when the optimizer was built.
    pub(crate) fn new(n: usize, codec: Option<MatrixCodec>, initial: f64) -> Self {
        Self {
            values: Array1::from_elem(n, R::of(initial)),
            vectors: Basis::new(Array2::eye(n), codec),
        }
    }

    /// The eigenvalues, in the order of the eigenvectors.
    pub fn values(&self) -> &Array1<R> {
        &self.values
    }

    /// The eigenvectors in columns; decoded ones after `times` Björck iterations.
    ///
    /// # Errors
    /// The iteration left the finite numbers.
    pub fn rectified(&self, times: usize) -> Result<Array2<R>> {
        match &self.vectors {
            Basis::Coded(codes) => bjorck(&codes.decode(), times),
            Basis::Exact(vectors) => Ok(vectors.clone()),
        }
    }

    /// `A ← old·A + new·M`, from eigenvectors after `rectify` Björck iterations, which then follow
    /// by `iterations` orthogonal ones.
    pub(crate) fn accumulate(
        &mut self,
        gram: &ArrayRef2<R>,
        (old, new): (R, R),
        rectify: usize,
        iterations: usize,
        signs: QrSigns,
    ) -> Result<()> {
        // in f32 a QR decomposition loses so much orthogonality that small eigenvalues take up part of the
        // large ones
        let v = self.rectified(rectify)?.mapv(|x| x.widen());
        // a quotient that rounding has left just below zero is none that a statistic has
        let roots = self.values.mapv(|x| x.widen().max(0.0).sqrt());
        let mut a = gram.mapv(|x| x.widen());
        add_gram_left(&(&v * &roots), (new.widen(), old.widen()), &mut a)?;
        let a = mirror_lower(a);
        let (values, p) = orthogonal_iteration_with(&a, &v, iterations, signs)?;
        let (values, p) = (values.mapv(R::of), p.mapv(R::of));
        self.replace(values, &p)
    }

    /// Takes over eigenvalues and eigenvectors; nothing changes if they are not finite.
    pub(crate) fn replace(&mut self, values: Array1<R>, vectors: &ArrayRef2<R>) -> Result<()> {
        check_finite("an eigenvalue", &values)?;
        self.vectors.store(vectors)?;
        self.values = values;
        Ok(())
    }

    /// The matrix, rebuilt from what is stored.
    pub fn statistic(&self) -> Array2<R> {
        let v = self.vectors.load();
        (&v * &self.values).dot(&v.t())
    }

    pub(crate) fn count(&self, bytes: &mut StateBytes) {
        bytes.add("eigenvalues", self.values.len() * size_of::<R>());
        bytes.add("eigenvectors", self.vectors.bytes());
    }

    pub(crate) fn save(&self, record: &mut Record<'_>) {
        let values = self.values.as_slice().unwrap_or_default();
        record.tensor("eigenvalues", StateTensor::new(&[values.len()], values));
        self.vectors.save("eigenvectors", record);
    }

    pub(crate) fn load(n: usize, codec: Option<MatrixCodec>, lookup: &Lookup<'_>) -> Result<Self> {
        Ok(Self {
            values: Array1::from(lookup.values("eigenvalues", &[n])?),
            vectors: Basis::load_from("eigenvectors", n, codec, lookup)?,
        })
    }
}
