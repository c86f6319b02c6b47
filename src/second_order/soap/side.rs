//! The statistic and the basis of one dimension.

use super::config::Soap;
use super::options::{BasisSolver, SoapOrder};
use crate::error::Result;
use crate::linalg::{
    QrSigns, column_products, eigh, matmul, mirror_lower, qr, qr_algorithm_with_rotation, sorted,
    symmetric_from_lower,
};
use crate::numeric::Real;
use crate::quant::MatrixCodec;
use crate::second_order::factor::Eigenpairs;
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use ndarray::{Array2, ArrayRef2, Axis, CowArray, Ix2};

/// The state of one dimension.
#[derive(Clone, Debug)]
pub enum Side<R> {
    /// Both in full precision.
    Full {
        /// The lower triangle of the statistic.
        statistic: Array2<R>,
        /// The basis, in columns.
        basis: Array2<R>,
    },
    /// The basis, as codes, and the eigenvalues of the statistic.
    Quantized(Eigenpairs<R>),
}

/// How slots follow a new basis.
pub(super) struct BasisChange<R> {
    /// Old coordinates to new ones: `Qᵀ Q'`.
    pub rotation: Array2<R>,
    /// Which old basis vector each new one continues; `None`: the one in its place.
    pub order: Option<Vec<usize>>,
}

/// How a basis is renewed at one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal<R> {
    /// `None`: from nothing, all eigenvectors.
    solver: Option<BasisSolver>,
    /// By falling eigenvalue.
    sort: bool,
    /// The statistic is multiplied by this, and this much of the identity added.
    ridge: Option<(R, R)>,
    /// Weights of a quantized statistic and of the new term.
    weights: (R, R),
    rectify: usize,
}

impl<R: Real> Renewal<R> {
    pub(super) fn new<U>(method: &Soap<U>, t: u64, first: bool) -> Self {
        let (sort, ridge) = match method.order {
            SoapOrder::Published { .. } => (true, None),
            SoapOrder::Distributed { epsilon, bias_correction, .. } => {
                let corrects = bias_correction && method.shampoo_beta < 1.0;
                let bias = if corrects { 1.0 - method.shampoo_beta.powf(t as f64) } else { 1.0 };
                (false, Some((R::of(1.0 / bias), R::of(epsilon))))
            }
        };
        Self {
            solver: (!first).then_some(method.solver),
            sort,
            ridge,
            weights: method.weights(method.update_basis_every),
            rectify: method.storage.rectify(),
        }
    }

    /// The eigenvectors of `a`, or what an iteration from `old` makes of them; and how slots follow.
    fn basis(&self, a: &ArrayRef2<R>, old: &ArrayRef2<R>) -> Result<(Array2<R>, BasisChange<R>)> {
        let falling = |basis: Array2<R>| {
            let last_first: Vec<usize> = (0..basis.ncols()).rev().collect();
            if self.sort { basis.select(Axis(1), &last_first) } else { basis }
        };
        let change = |basis: Array2<R>, order| {
            let rotation = matmul(&old.t(), &basis)?;
            Ok((basis, BasisChange { rotation, order }))
        };
        let Some(solver) = self.solver else { return change(falling(eigh(a)?.1), None) };
        let image = (self.sort || solver == BasisSolver::OrthogonalIteration)
            .then(|| matmul(a, old))
            .transpose()?;
        let order = image
            .as_ref()
            .filter(|_| self.sort)
            .map(|image| sorted(&column_products(old, image), |x, y| x > y));
        match (solver, image) {
            (BasisSolver::OrthogonalIteration, Some(image)) => {
                let image = order.as_ref().map(|o| image.select(Axis(1), o)).unwrap_or(image);
                change(qr(&image)?.0, order)
            }
            (BasisSolver::Qr { max_iterations, tolerance }, _) => {
                let (_, basis, rotation) =
                    qr_algorithm_with_rotation(a, old, tolerance, max_iterations)?;
                Ok((falling(basis), BasisChange { rotation: falling(rotation), order }))
            }
            _ => change(falling(eigh(a)?.1), order),
        }
    }
}

impl<R: Real> Side<R> {
    pub(super) fn new(n: usize, codec: Option<MatrixCodec>) -> Self {
        match codec {
            None => Self::Full { statistic: Array2::zeros((n, n)), basis: Array2::eye(n) },
            Some(_) => Self::Quantized(Eigenpairs::new(n, codec, 0.0)),
        }
    }

    /// The basis; decoded after `rectify` Björck iterations.
    ///
    /// # Errors
    /// The iteration left the finite numbers.
    pub fn basis(&self, rectify: usize) -> Result<CowArray<'_, R, Ix2>> {
        match self {
            Self::Full { basis, .. } => Ok(basis.into()),
            Self::Quantized(pairs) => pairs.rectified(rectify).map(CowArray::from),
        }
    }

    /// The statistic, rebuilt from what is stored.
    pub fn statistic(&self) -> Array2<R> {
        match self {
            Self::Full { statistic, .. } => symmetric_from_lower(statistic),
            Self::Quantized(pairs) => pairs.statistic(),
        }
    }

    /// A new basis; `gram` makes the lower triangle of the gradient's Gram matrix. If that fails, the
    /// old one stays.
    pub(super) fn renew(
        &mut self,
        renewal: &Renewal<R>,
        gram: impl FnOnce() -> Result<Array2<R>>,
    ) -> Result<BasisChange<R>> {
        match self {
            Self::Full { statistic, basis } => {
                let mut a = symmetric_from_lower(statistic);
                if let Some((scale, epsilon)) = renewal.ridge {
                    a.mapv_inplace(|x| x * scale);
                    a.diag_mut().mapv_inplace(|x| x + epsilon);
                }
                let (new, change) = renewal.basis(&a, basis)?;
                basis.assign(&new);
                Ok(change)
            }
            Self::Quantized(pairs) => {
                let gram = mirror_lower(gram()?);
                let old = pairs.rectified(renewal.rectify)?;
                if pairs.values().iter().all(R::is_zero) {
                    let (_, weight) = renewal.weights;
                    let (values, vectors) = eigh(&gram)?;
                    // the largest first: iterations keep what the first columns span
                    let order: Vec<usize> = (0..values.len()).rev().collect();
                    let values = values.select(Axis(0), &order).mapv(|x| x * weight);
                    pairs.replace(values, &vectors.select(Axis(1), &order))?;
                } else {
                    let signs = QrSigns::Positive;
                    pairs.accumulate(&gram, renewal.weights, renewal.rectify, 1, signs)?;
                }
                let new = pairs.rectified(renewal.rectify)?;
                Ok(BasisChange { rotation: matmul(&old.t(), &new)?, order: None })
            }
        }
    }

    pub(super) fn count(&self, bytes: &mut StateBytes) {
        match self {
            Self::Full { statistic, basis } => {
                bytes.add("statistic", statistic.len() * size_of::<R>());
                bytes.add("basis", basis.len() * size_of::<R>());
            }
            Self::Quantized(pairs) => pairs.count(bytes),
        }
    }

    pub(super) fn save(&self, record: &mut Record<'_>) {
        match self {
            Self::Full { statistic, basis } => {
                for (name, matrix) in [("statistic", statistic), ("basis", basis)] {
                    let values: Vec<R> = matrix.iter().copied().collect();
                    record.tensor(name, StateTensor::new(matrix.shape(), &values));
                }
            }
            Self::Quantized(pairs) => pairs.save(record),
        }
    }

    pub(super) fn load(n: usize, codec: Option<MatrixCodec>, lookup: &Lookup<'_>) -> Result<Self> {
        if codec.is_some() {
            return Eigenpairs::load(n, codec, lookup).map(Self::Quantized);
        }
        let matrix = |name: &str| {
            let matrix = Array2::from_shape_vec((n, n), lookup.values(name, &[n, n])?);
            matrix.map_err(|error| lookup.problem(name, error.to_string()))
        };
        Ok(Self::Full { statistic: matrix("statistic")?, basis: matrix("basis")? })
    }
}
