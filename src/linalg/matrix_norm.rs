//! Norms of matrices, their dual norms, and the directions in which a loss falls fastest.

use super::functions::{matmul, svd};
use super::norms::{frobenius, max_abs};
use crate::error::Result;
use crate::numeric::{Real, sign};
use ndarray::{Array2, ArrayRef2, Axis};

/// A norm of weights, out × in, that act as y = W·x: by how much W changes outputs.
///
/// *Use it when* you build a step from a norm, measure an update, or compare what methods do. *Not when* you want
/// an optimizer: [`SteepestDescent`](crate::second_order::SteepestDescent), [`Muon`](crate::second_order::Muon) and
/// [`Scion`](crate::second_order::Scion) are.
///
/// With RMS(x) = ‖x‖/√d for x of length d:
///
/// | norm | of W | dual norm of G | direction |
/// |---|---|---|---|
/// | `MaxEntry` | max\|Wᵢⱼ\| | Σ\|Gᵢⱼ\| | sign(G) |
/// | `Spectral` | largest singular value σ | Σσᵢ | U Vᵀ of G = U S Vᵀ |
/// | `RmsToRms` | √(in/out)·σ | √(out/in)·Σσᵢ | √(out/in)·U Vᵀ |
/// | `ColumnRms` | largest RMS of a column | √out·Σ‖column‖ | every column over its RMS |
/// | `RowLength` | length of the longest row | Σ‖row‖ | every row over its length |
/// | `Frobenius` | ‖W‖ | ‖G‖ | G/‖G‖ |
///
/// The step that lowers a loss ⟨G, Δ⟩ + λ/2·‖Δ‖² the most is `Δ = −(dual norm/λ)·direction`. A direction T has norm 1, and
/// ⟨G, T⟩ is the dual norm of G. Rows, columns and singular vectors of zeros stay zeros.
///
/// # Errors
/// A singular value decomposition may fail.
///
/// # Examples
/// ```
/// use eigenstep::linalg::MatrixNorm;
/// use ndarray::array;
///
/// let g = array![[3.0, -4.0], [0.0, 0.0]];
/// assert_eq!(MatrixNorm::MaxEntry.direction(&g)?, array![[1.0, -1.0], [0.0, 0.0]]);
/// assert_eq!(MatrixNorm::MaxEntry.dual(&g)?, 7.0);
/// assert_eq!(MatrixNorm::RowLength.direction(&g)?, array![[0.6, -0.8], [0.0, 0.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. Bernstein, L. Newhouse, "Old Optimizer, New Norm: An Anthology", 2024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MatrixNorm {
    /// The largest entry: from sums of absolute inputs to the largest output.
    MaxEntry,
    /// The largest singular value: from lengths to lengths.
    Spectral,
    /// The same for root mean squares.
    RmsToRms,
    /// The largest root mean square of a column: from sums of absolute inputs to root mean squares.
    ColumnRms,
    /// The length of the longest row: from lengths to the largest output.
    RowLength,
    /// The length of all entries.
    Frobenius,
}

/// Singular values up to this times the largest are zero.
fn negligible<R: Real>(a: &ArrayRef2<R>) -> R {
    R::epsilon() * R::of(a.nrows().max(a.ncols()) as f64)
}

/// ‖x‖ of every row (axis 0) or column (axis 1).
fn lengths<R: Real>(a: &ArrayRef2<R>, axis: usize) -> Vec<f64> {
    a.axis_chunks_iter(Axis(axis), 1).map(|lane| frobenius(&lane)).collect()
}

/// Every row or column times `c` over its length.
fn divided<R: Real>(a: &ArrayRef2<R>, axis: usize, c: f64) -> Array2<R> {
    let mut a = a.to_owned();
    for mut lane in a.axis_chunks_iter_mut(Axis(axis), 1) {
        let length = frobenius(&lane);
        if length != 0.0 {
            lane.mapv_inplace(|x| R::of(c * (x.widen() / length)));
        }
    }
    a
}

impl MatrixNorm {
    /// The norm of weights.
    ///
    /// # Errors
    /// See the type.
    pub fn norm<R: Real>(self, w: &ArrayRef2<R>) -> Result<f64> {
        let longest = |axis| lengths(w, axis).into_iter().fold(0.0, f64::max);
        Ok(match self {
            Self::MaxEntry => max_abs(w),
            Self::Spectral | Self::RmsToRms => {
                let (_, values, _) = svd(w)?;
                let largest = values.iter().fold(0.0, |largest, x| x.widen().max(largest));
                largest * self.rate(w).recip()
            }
            Self::ColumnRms => longest(1) / (w.nrows() as f64).sqrt(),
            Self::RowLength => longest(0),
            Self::Frobenius => frobenius(w),
        })
    }

    /// The dual norm of a gradient: the largest ⟨G, T⟩ of all T of norm 1.
    ///
    /// # Errors
    /// See the type.
    pub fn dual<R: Real>(self, g: &ArrayRef2<R>) -> Result<f64> {
        let sum = |axis| lengths(g, axis).into_iter().sum::<f64>();
        Ok(match self {
            Self::MaxEntry => g.iter().map(|x| x.widen().abs()).sum(),
            Self::Spectral | Self::RmsToRms => {
                let (_, values, _) = svd(g)?;
                self.rate(g) * values.iter().map(|x| x.widen()).sum::<f64>()
            }
            Self::ColumnRms => sum(1) * (g.nrows() as f64).sqrt(),
            Self::RowLength => sum(0),
            Self::Frobenius => frobenius(g),
        })
    }

    /// The direction T of norm 1 with the largest ⟨G, T⟩; along −T the loss falls fastest.
    ///
    /// # Errors
    /// See the type.
    pub fn direction<R: Real>(self, g: &ArrayRef2<R>) -> Result<Array2<R>> {
        Ok(match self {
            Self::MaxEntry => g.mapv(sign),
            Self::Spectral | Self::RmsToRms => {
                let (mut u, values, vt) = svd(g)?;
                let largest = values.iter().fold(R::zero(), |largest, &x| x.max(largest));
                let (least, rate) = (largest * negligible(g), R::of(self.rate(g)));
                for (mut column, &value) in u.columns_mut().into_iter().zip(&values) {
                    let factor = if value > least { rate } else { R::zero() };
                    column.mapv_inplace(|x| factor * x);
                }
                let rank = values.len();
                matmul(&u.slice(ndarray::s![.., ..rank]), &vt.slice(ndarray::s![..rank, ..]))?
            }
            Self::ColumnRms => divided(g, 1, (g.nrows() as f64).sqrt()),
            Self::RowLength => divided(g, 0, 1.0),
            Self::Frobenius => {
                let length = frobenius(g);
                let divide = |x: R| if length == 0.0 { x } else { R::of(x.widen() / length) };
                g.mapv(divide)
            }
        })
    }

    /// √(out/in) for `RmsToRms`; else 1.
    fn rate<R: Real>(self, a: &ArrayRef2<R>) -> f64 {
        let (out, inputs) = a.dim();
        match self {
            Self::RmsToRms => (out as f64 / inputs as f64).sqrt(),
            _ => 1.0,
        }
    }
}
