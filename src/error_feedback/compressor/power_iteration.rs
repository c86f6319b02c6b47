//! Matrices as products of two thin factors.

use crate::linalg::{matmul, scale_to_one};
use crate::numeric::Real;
use crate::numeric::random::{normal_pair, philox4x32};
use ndarray::{Array2, ArrayRef1, ArrayRef2, Axis};

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
/// `M − P Rᵀ` is orthogonal to them. A zero matrix has zero factors. Where the largest elements of `M`
/// and `Q` multiply to less than 0.01, or nearly overflow, both are first brought near 1.
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
    let size = largest(m) * largest(q);
    // the constant is meant for zeros alone, and a product must not overflow
    let mut p = if size == 0.0 || (EPS * 1e6..=R::max_value().widen().sqrt()).contains(&size) {
        product(m, q)
    } else {
        let (mut m, mut q) = (m.to_owned(), q.to_owned());
        scale_to_one(&mut m);
        scale_to_one(&mut q);
        product(&m, &q)
    };
    gram_schmidt(&mut p, EPS);
    let r = product(&m.t(), &p);
    (p, r)
}

fn largest<R: Real>(a: &ArrayRef2<R>) -> f64 {
    a.iter().fold(0.0, |largest, x| x.widen().abs().max(largest))
}

/// A factor of normally distributed numbers that depend on their place, the seed and the step.
pub(crate) fn normal_factor<R: Real>(shape: (usize, usize), seed: u64, t: u64) -> Array2<R> {
    Array2::from_shape_fn(shape, |place| drawn(place, shape.1, seed, t))
}

fn drawn<R: Real>((i, j): (usize, usize), rank: usize, seed: u64, t: u64) -> R {
    let place = (i * rank + j) as u64;
    let counter = [place as u32, (place >> 32) as u32, t as u32, (t >> 32) as u32];
    let [normal, _] = normal_pair(philox4x32(counter, [seed as u32, (seed >> 32) as u32]));
    R::of(normal)
}

/// Draws columns of zeros anew: from zeros the iteration does not come back.
pub(crate) fn redraw_zero_columns<R: Real>(q: &mut Array2<R>, seed: u64, t: u64) {
    let rank = q.ncols();
    for (j, mut column) in q.axis_iter_mut(Axis(1)).enumerate() {
        if column.iter().all(R::is_zero) {
            column.indexed_iter_mut().for_each(|(i, x)| *x = drawn((i, j), rank, seed, t));
        }
    }
}

fn product<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> Array2<R> {
    // sizes that do not fit have no product
    matmul(a, b).unwrap_or_else(|_| Array2::zeros((a.nrows(), b.ncols())))
}

/// Makes columns orthonormal, in their order, each against those before it.
///
/// It is done twice for a column that has lost nearly all of its length, since `eps` leaves the earlier
/// columns a little short, and what is left would be divided by next to nothing; and from five columns
/// on, since once loses orthogonality with the condition number.
pub(crate) fn gram_schmidt<R: Real>(p: &mut Array2<R>, eps: f64) {
    let many = p.ncols() > 4;
    for j in 0..p.ncols() {
        let (before, mut rest) = p.view_mut().split_at(Axis(1), j);
        let mut column = rest.column_mut(0);
        let whole = length(&column);
        subtract_overlaps(&mut column, &before);
        if many || length(&column) < 1e-2 * whole {
            subtract_overlaps(&mut column, &before);
        }
        let divisor = length(&column) + eps;
        if divisor > 0.0 {
            column.map_inplace(|x| *x /= R::of(divisor));
        }
    }
}

fn length<R: Real>(x: &ArrayRef1<R>) -> f64 {
    x.iter().map(|x| x.widen() * x.widen()).sum::<f64>().sqrt()
}

fn subtract_overlaps<R: Real>(x: &mut ArrayRef1<R>, columns: &ArrayRef2<R>) {
    for column in columns.columns() {
        let overlap: f64 = column.iter().zip(x.iter()).map(|(a, b)| a.widen() * b.widen()).sum();
        x.scaled_add(R::of(-overlap), &column);
    }
}
