//! The power iteration: two low-rank factors of a matrix.

use crate::linalg::{matmul, scale_to_one};
use crate::numeric::Real;
use crate::numeric::random::{normal_pair, philox4x32};
use ndarray::{Array2, ArrayRef1, ArrayRef2, Axis};

/// Keeps a column of zeros from being divided by zero.
const EPS: f64 = 1e-8;

/// One step of the power iteration: factors `P` (rows × rank) and `R` (columns × rank) with
/// `M ≈ P Rᵀ`.
///
/// ```text
/// P = GS(M Q)      Gram–Schmidt, column by column, divided by ‖column‖ + 1e-8
/// R = Mᵀ P
/// ```
/// `m` is rows × columns. `q` is columns × rank: the `R` of the last step, or random numbers. If the
/// step is repeated with `R` as the new `Q`, the product converges to the best approximation of this
/// rank, with the rate `(σ_{r+1}/σ_r)²`.
///
/// The columns of `P` are orthonormal, apart from columns that are nearly zero, and `M − P Rᵀ` is
/// orthogonal to them. A zero matrix has zero factors. If the product of the largest elements of `M`
/// and `Q` is below 0.01, or may overflow, both are scaled to about 1 first.
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
    // EPS must matter for zeros only, and the product must not overflow
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

/// A factor of normally distributed numbers, which depend on position, seed and step.
pub(crate) fn normal_factor<R: Real>(shape: (usize, usize), seed: u64, t: u64) -> Array2<R> {
    Array2::from_shape_fn(shape, |place| drawn(place, shape.1, seed, t))
}

fn drawn<R: Real>((i, j): (usize, usize), rank: usize, seed: u64, t: u64) -> R {
    let place = (i * rank + j) as u64;
    let counter = [place as u32, (place >> 32) as u32, t as u32, (t >> 32) as u32];
    let [normal, _] = normal_pair(philox4x32(counter, [seed as u32, (seed >> 32) as u32]));
    R::of(normal)
}

/// Replaces columns of zeros by random numbers: the iteration cannot leave zero by itself.
pub(crate) fn redraw_zero_columns<R: Real>(q: &mut Array2<R>, seed: u64, t: u64) {
    let rank = q.ncols();
    for (j, mut column) in q.axis_iter_mut(Axis(1)).enumerate() {
        if column.iter().all(R::is_zero) {
            column.indexed_iter_mut().for_each(|(i, x)| *x = drawn((i, j), rank, seed, t));
        }
    }
}

fn product<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> Array2<R> {
    // shapes that do not fit give zeros
    matmul(a, b).unwrap_or_else(|_| Array2::zeros((a.nrows(), b.ncols())))
}

/// Gram–Schmidt: makes the columns orthonormal, each against the columns before it.
///
/// A column is treated twice if it has lost nearly all of its length: `eps` makes the earlier columns
/// a little too short, and the small rest would be divided by a small number. With five columns or
/// more all are treated twice, because one pass loses orthogonality in proportion to the condition
/// number.
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
