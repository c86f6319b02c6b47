//! The orthogonal factor of a matrix: the direction of Muon and of spectral descent.

use crate::error::Result;
use crate::linalg::{NewtonSchulz, matmul, svd};
use crate::numeric::Real;
use crate::optim::BlockState;
use crate::state::{Record, StateBytes};
use ndarray::{Array2, ArrayRef2, ArrayViewMut2};

/// The polynomials of the Newton–Schulz iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Orthogonalization {
    /// Muon's: (3.4445, −4.7750, 2.0315) in every step. Singular values end in about 0.68 … 1.13.
    #[default]
    Quintic,
    /// Another triple (a, b, c) in every step, each optimal for the result of the one before. Singular
    /// values are within 0.3 % of 1 after six steps.
    PolarExpress,
    /// This triple in every step.
    Custom([f64; 3]),
    /// No iteration: U Vᵀ of the singular value decomposition. Slow; for comparison.
    Exact,
}

/// Factor `s` on the learning rate of a matrix. Rows are the outputs of a layer, columns its inputs, as in
/// PyTorch; a weight that is in × out gets another factor from `Original` and `Spectral`
/// ([which way round](crate::params#which-way-round-is-a-matrix)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LrAdjustment {
    /// `√max(1, rows/columns)` of the matrix that is orthogonalized: a convolution's kernel counts as
    /// out × in·height·width.
    #[default]
    Original,
    /// `√max(1, a/b)` for the last two dimensions a × b of the tensor itself, as in the code of Muon's author: of
    /// a matrix the same as `Original`, of a convolution's kernel height and width, and so 1 where these
    /// are equal.
    LastTwoDims,
    /// `0.2·√max(rows, columns)`: updates as large as AdamW's, so that AdamW's learning rate fits.
    MatchRmsAdamW,
    /// `√(rows/columns)`: the spectral norm that keeps features of equal size.
    Spectral,
    /// 1.
    None,
}

impl LrAdjustment {
    /// The factor of a tensor of this shape that is orthogonalized as a matrix of `rows` × `columns`.
    pub(super) fn factor(self, shape: &[usize], (rows, columns): (usize, usize)) -> f64 {
        let clamped = |rows: f64, columns: f64| (rows / columns).max(1.0).sqrt();
        let (rows, columns) = (rows as f64, columns as f64);
        match self {
            Self::Original => clamped(rows, columns),
            Self::LastTwoDims => match shape {
                [.., rows, columns] => clamped(*rows as f64, *columns as f64),
                _ => 1.0,
            },
            Self::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
            Self::Spectral => (rows / columns).sqrt(),
            Self::None => 1.0,
        }
    }
}

impl Orthogonalization {
    /// The orthogonal factor of a matrix, or what so many steps make of it; of nothing, nothing.
    fn polar<R: Real>(&self, matrix: &ArrayRef2<R>, steps: usize, eps: f64) -> Result<Array2<R>> {
        let iteration = match *self {
            Self::Quintic => NewtonSchulz::muon(steps),
            Self::PolarExpress => NewtonSchulz::polar_express(steps),
            Self::Custom(triple) => NewtonSchulz::repeated(triple, steps),
            Self::Exact if matrix.iter().all(R::is_zero) => return Ok(matrix.to_owned()),
            Self::Exact => {
                let (u, _, vt) = svd(matrix)?;
                return matmul(&u, &vt);
            }
        };
        NewtonSchulz { eps, ..iteration }.orthogonalize(matrix)
    }
}

/// The state of one matrix that is orthogonalized: how often that failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolarBlock {
    failures: u64,
}

impl PolarBlock {
    /// Puts the orthogonal factor of a matrix into its place; zeros, if it cannot be found.
    pub(super) fn replace<R: Real>(
        &mut self,
        matrix: &mut ArrayViewMut2<'_, R>,
        orthogonalization: &Orthogonalization,
        (steps, eps): (usize, f64),
    ) {
        match orthogonalization.polar(matrix, steps, eps) {
            Ok(orthogonal) => {
                self.failures = 0;
                matrix.assign(&orthogonal);
            }
            Err(_) => {
                self.failures += 1;
                matrix.fill(R::zero());
            }
        }
    }
}

impl BlockState for PolarBlock {
    fn count(&self, _: &mut StateBytes) {}

    fn save(&self, _: &mut Record<'_>) {}

    fn failures(&self) -> Option<(u64, &'static str)> {
        (self.failures > 0).then_some((self.failures, "the matrix cannot be made orthogonal"))
    }
}
