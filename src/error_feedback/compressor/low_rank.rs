//! The compressor of matrices to two low-rank factors.

use super::power_iteration::{normal_factor, power_iteration, redraw_zero_columns};
use super::{Compressor, Message};
use crate::error::{Error, Result};
use crate::linalg::scale_to_one;
use crate::numeric::Real;
use crate::state::{Lookup, Record, StateTensor};
use ndarray::{Array2, ArrayView2};

const NAME: &str = "LowRank";

/// Two low-rank factors of a matrix: one step of the power iteration per message, from the factor of
/// the last message.
///
/// ```text
/// (P, R) = power_iteration(M/s, Q)                  s: power of two near the largest element
/// C(M) = s·P Rᵀ,  Q ← R                             δ ≥ 0; r/min(a, b) if M stays the same
/// ```
/// A message for an a × b matrix `M` takes 4r(a + b) bytes in `f32`. The residual is never longer
/// than `M`. But if all rows of `M` are orthogonal to `Q` the message is zero, so use it with error
/// feedback. Columns of `Q` that become zero are drawn again. If the factors would not be smaller
/// than the matrix, as for a vector, the matrix is sent as it is, with `δ = 1`.
///
/// Because `M` is scaled, the message of `cM` is `c` times the message of `M`. Without scaling, the
/// constant of the orthogonalisation would lose small gradients.
///
/// State: `Q`, 4br bytes in `f32`.
///
/// # Errors
/// [`LowRank::new`] refuses a rank of 0.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::compressor::{Compressor, LowRank};
///
/// // of rank 1
/// let x: Vec<f64> = (0..48).map(|i| f64::from((i / 8 + 1) * (i % 8 - 3))).collect();
/// let mut compressor = LowRank::new(6, 8, 1, 0)?;
/// let message = compressor.compress(1, &x);
/// assert_eq!(message.bytes(), 8 * (6 + 8));
/// let mut y = [0.0; 48];
/// message.decompress_into(&mut y);
/// assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-6));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
/// Distributed Optimization", NeurIPS 2019.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank<R> {
    rows: usize,
    columns: usize,
    rank: usize,
    seed: u64,
    /// `Q`; empty if matrices are sent as they are.
    basis: Array2<R>,
}

impl<R: Real> LowRank<R> {
    /// A compressor of matrices of `rows × columns` elements. `rank` is cut to the shorter side. All
    /// workers need the same `seed`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `rank` if it is 0, and for `columns` if there
    /// are too many elements to be counted.
    pub fn new(rows: usize, columns: usize, rank: usize, seed: u64) -> Result<Self> {
        let wrong = |field, expected: &str, found: usize| {
            let (expected, found) = (expected.to_owned(), found.to_string());
            Err(Error::InvalidHyperparameter { optimizer: NAME, field, expected, found })
        };
        if rank == 0 {
            return wrong("rank", "an integer >= 1", rank);
        }
        let Some(numel) = rows.checked_mul(columns) else {
            return wrong("columns", "fewer", columns);
        };
        let rank = rank.min(rows).min(columns);
        let smaller = rows.saturating_add(columns).saturating_mul(rank) < numel;
        let shape = if smaller { (columns, rank) } else { (0, 0) };
        let basis = normal_factor(shape, seed, 0);
        Ok(Self { rows, columns, rank, seed, basis })
    }

    /// Number of columns of the factors.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether matrices are sent as they are.
    pub fn is_exact(&self) -> bool {
        self.basis.is_empty()
    }
}

impl<R: Real> Compressor<R> for LowRank<R> {
    fn compress(&mut self, t: u64, x: &[R]) -> Message<R> {
        let (rows, columns, rank) = (self.rows, self.columns, self.rank);
        let matrix = match ArrayView2::from_shape((rows, columns), x) {
            Ok(matrix) if !self.is_exact() => matrix,
            _ => return Message::Dense(x.to_vec()),
        };
        let mut matrix = matrix.to_owned();
        let scale = scale_to_one(&mut matrix);
        let (p, mut basis) = power_iteration(&matrix, &self.basis);
        let r = basis.t().iter().map(|&x| x / scale).collect();
        redraw_zero_columns(&mut basis, self.seed, t);
        self.basis = basis;
        Message::Factors { rows, columns, rank, p: p.iter().copied().collect(), r }
    }

    /// 0: a matrix may be orthogonal to `Q`.
    fn contraction(&self, _: usize) -> f64 {
        if self.is_exact() { 1.0 } else { 0.0 }
    }

    fn validate(&self, numel: usize) -> Result<()> {
        if self.rows * self.columns == numel {
            return Ok(());
        }
        Err(Error::InvalidHyperparameter {
            optimizer: NAME,
            field: "columns",
            expected: format!("such that the vector's {numel} elements are `rows` of them"),
            found: format!("{} in {} rows", self.columns, self.rows),
        })
    }

    fn state_bytes(&self) -> usize {
        self.basis.len() * size_of::<R>()
    }

    fn save(&self, record: &mut Record<'_>) {
        let values: Vec<R> = self.basis.iter().copied().collect();
        record.tensor("basis", StateTensor::new(self.basis.shape(), &values));
    }

    fn load(&mut self, lookup: &Lookup<'_>) -> Result<()> {
        let shape = self.basis.dim();
        let values: Vec<R> = lookup.values("basis", &[shape.0, shape.1])?;
        if values.iter().any(|x| !x.is_finite()) {
            return Err(lookup.problem("basis", "holds a number that is not finite"));
        }
        let basis = Array2::from_shape_vec(shape, values);
        self.basis = basis.map_err(|_| lookup.problem("basis", "has another shape"))?;
        Ok(())
    }
}
