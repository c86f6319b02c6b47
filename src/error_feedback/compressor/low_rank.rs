//! Matrices as products of two thin factors.

use crate::linalg::matmul;
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2, Axis};

/// What keeps a column of zeros from being divided by zero.
const EPS: f64 = 1e-8;

/// One step of the power iteration: factors `P` (rows × rank) and `R` (columns × rank) with `M ≈ P Rᵀ`.
///
/// ```text
/// P = GS(M Q)      Gram–Schmidt, column by column, divided by ‖column‖ + 1e-8
/// R = Mᵀ P
/// ```
/// `m`: rows × columns; `q`: columns × rank, the `R` of the step before or random numbers. If the step
/// is repeated with `R` for `Q`, the product converges to the best approximation of this rank, by
/// `(σ_{r+1}/σ_r)²` a step. `P` has orthonormal columns, apart from those that are nearly zero, so that
/// `M − P Rᵀ` is orthogonal to them. A zero matrix has zero factors.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::power_iteration;
/// use ndarray::array;
///
/// let m = array![[1.0f64, 2.0], [2.0, 4.0], [3.0, 6.0]];
/// let (p, r) = power_iteration(&m, &array![[1.0], [0.0]]);
/// assert!((m - p.dot(&r.t())).iter().all(|x: &f64| x.abs() < 1e-6));
/// ```
///
/// # Source
/// T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for
/// Distributed Optimization", NeurIPS 2019.
pub fn power_iteration<R: Real>(m: &ArrayRef2<R>, q: &ArrayRef2<R>) -> (Array2<R>, Array2<R>) {
    let mut p = match shrunk(m, q) {
        Some(q) => product(m, &q),
        None => product(m, q),
    };
    gram_schmidt(&mut p, EPS);
    let r = product(&m.t(), &p);
    (p, r)
}

/// `Q`, no larger than 1, if `M Q` might overflow; lengths of columns do not matter.
fn shrunk<R: Real>(m: &ArrayRef2<R>, q: &ArrayRef2<R>) -> Option<Array2<R>> {
    let largest = |a: &ArrayRef2<R>| a.iter().fold(R::zero(), |a, x| a.max(x.abs()));
    let size = largest(q);
    let safe = largest(m) * size <= R::max_value().sqrt();
    (!safe && size > R::zero()).then(|| q.mapv(|x| x / size))
}

fn product<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> Array2<R> {
    // sizes that do not fit have no product
    matmul(a, b).unwrap_or_else(|_| Array2::zeros((a.nrows(), b.ncols())))
}

/// Makes columns orthonormal, in their order, each against those before it. From five columns on it
/// is done twice: once loses orthogonality with the condition number.
pub(crate) fn gram_schmidt<R: Real>(p: &mut Array2<R>, eps: f64) {
    let passes = if p.ncols() > 4 { 2 } else { 1 };
    for j in 0..p.ncols() {
        let (before, mut rest) = p.view_mut().split_at(Axis(1), j);
        let mut column = rest.column_mut(0);
        for _ in 0..passes {
            for earlier in before.columns() {
                let overlap: f64 =
                    earlier.iter().zip(&column).map(|(a, b)| a.widen() * b.widen()).sum();
                column.scaled_add(R::of(-overlap), &earlier);
            }
        }
        let norm = column.iter().map(|x| x.widen() * x.widen()).sum::<f64>().sqrt();
        let length = norm + eps;
        if length > 0.0 {
            column.map_inplace(|x| *x /= R::of(length));
        }
    }
}
