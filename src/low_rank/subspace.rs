//! The subspace that a matrix is projected on: its basis, and its failed decompositions.

use crate::error::{Error, Result};
use crate::linalg::{matmul_into, svd};
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use ndarray::{Array2, ArrayRef2, ArrayViewMut2, s};

/// The shape of a matrix, and which side of it is projected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub rows: usize,
    pub columns: usize,
    /// Whether the right side is projected: then the matrix is used transposed.
    pub right: bool,
    /// Dimension of the subspace.
    pub rank: usize,
}

impl Side {
    pub fn new(shape: &[usize], right: impl Fn(usize, usize) -> bool, rank: usize) -> Self {
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product();
        Self { rows, columns, right: right(rows, columns), rank: rank.min(rows).min(columns) }
    }

    /// The length n of the projected side, and the length k of the other side.
    pub fn lengths(&self) -> (usize, usize) {
        if self.right { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    /// The projected matrix: the same with one side cut to the rank.
    pub fn low(&self) -> Self {
        match self.right {
            true => Self { columns: self.rank, ..*self },
            false => Self { rows: self.rank, ..*self },
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The n × k matrix in a row-major slice of the tensor.
    pub fn view<'a, R>(&self, values: &'a mut [R]) -> Option<ArrayViewMut2<'a, R>> {
        let view = ArrayViewMut2::from_shape((self.rows, self.columns), values).ok()?;
        Some(if self.right { view.reversed_axes() } else { view })
    }
}

/// An orthonormal basis, n × r; zero before the first decomposition.
#[derive(Clone, Debug)]
pub(super) struct Subspace<R> {
    pub basis: Array2<R>,
    failures: u64,
    problem: &'static str,
}

impl<R: Real> Subspace<R> {
    pub fn new(n: usize, rank: usize) -> Self {
        Self { basis: Array2::zeros((n, rank)), failures: 0, problem: "" }
    }

    pub fn load(n: usize, rank: usize, lookup: &Lookup<'_>) -> Result<Self> {
        let basis = Array2::from_shape_vec((n, rank), lookup.values("basis", &[n, rank])?);
        Ok(Self {
            basis: basis.map_err(|error| lookup.problem("basis", error.to_string()))?,
            failures: lookup.count("failures")?,
            problem: "a decomposition failed before the state was saved",
        })
    }

    pub fn count(&self, bytes: &mut StateBytes) {
        bytes.add("basis", self.basis.len() * size_of::<R>());
    }

    pub fn save(&self, record: &mut Record<'_>) {
        let values: Vec<R> = self.basis.iter().copied().collect();
        record.tensor("basis", StateTensor::new(self.basis.shape(), &values));
        record.count("failures", self.failures);
    }

    pub fn failures(&self) -> Option<(u64, &'static str)> {
        (self.failures > 0).then_some((self.failures, self.problem))
    }

    /// Whether there is no basis yet.
    pub fn is_missing(&self) -> bool {
        self.basis.iter().all(R::is_zero)
    }

    /// Replaces the basis and returns the old one. If the decomposition failed, counts the failure.
    pub fn replace(&mut self, basis: Result<Array2<R>>) -> Option<Array2<R>> {
        match basis {
            Ok(basis) if basis.dim() == self.basis.dim() => {
                self.failures = 0;
                Some(std::mem::replace(&mut self.basis, basis))
            }
            outcome => {
                self.failures += 1;
                self.problem = match outcome {
                    Err(Error::Decomposition { problem, .. }) => problem,
                    _ => "a basis does not have the shape of the last one",
                };
                None
            }
        }
    }
}

/// The first `rank` left singular vectors of `x`, the largest entry of each positive.
pub(super) fn leading<R: Real>(x: &ArrayRef2<R>, rank: usize) -> Result<Array2<R>> {
    let (vectors, _, _) = svd(x)?;
    Ok(vectors.slice(s![.., ..rank.min(vectors.ncols())]).to_owned())
}

/// C ← α·A·B + β·C. The shapes must fit.
pub(super) fn product<R: Real>(
    alpha: R,
    (a, b): (&ArrayRef2<R>, &ArrayRef2<R>),
    beta: R,
    c: &mut ArrayRef2<R>,
) {
    // all shapes follow from the block's
    let fits = matmul_into(alpha, a, b, beta, c);
    debug_assert!(fits.is_ok(), "{fits:?}");
}
