//! The functions of the module, by the default backend.

use super::backend::{Backend, Eigh, Qr, Svd, Triangle};
use super::layout::mirror_lower;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2};

/// Eigenvalues and eigenvectors of a symmetric matrix: A = V Diag(λ) Vᵀ.
///
/// `a`: n × n. Returns λ ascending (n) and V (n × n) with eigenvectors in columns, the entry of
/// largest magnitude of each positive. The matrix decomposed is (A + Aᵀ)/2: statistics such as
/// V Λ Vᵀ are symmetric only to rounding, and no triangle of them is better than the other.
///
/// Each |λ| is exact up to a small multiple of n·ε·‖A‖; small eigenvalues of an ill-conditioned
/// matrix carry no relative accuracy and may come out negative.
///
/// # Errors
/// `a` is not square, holds a NaN or an infinity, or the iteration did not converge.
///
/// Source: Golub & Van Loan, Matrix Computations, 4th ed., sections 8.3 (native) and 8.4 (faer,
/// divide and conquer).
pub fn eigh<R: Real>(a: &ArrayRef2<R>) -> Result<Eigh<R>> {
    Backend::default().eigh(a)
}

/// Thin QR decomposition: A = Q R with QᵀQ = I, R upper triangular, Rᵢᵢ ≥ 0.
///
/// `a`: m × n of any shape and rank. With k = min(m, n), returns Q (m × k) and R (k × n). Q is
/// orthonormal even where A has dependent columns; only those columns of it are then arbitrary.
/// For full column rank the sign rule makes both factors unique. (LAPACK leaves signs open;
/// [`qr_with`](super::qr_with) has those that it returns.)
///
/// # Errors
/// `a` holds a NaN or an infinity, or an entry of R overflows.
///
/// Source: Golub & Van Loan, section 5.2, Householder reflectors.
pub fn qr<R: Real>(a: &ArrayRef2<R>) -> Result<Qr<R>> {
    Backend::default().qr(a)
}

/// Cholesky factor of a symmetric positive definite matrix: A = L Lᵀ.
///
/// `a`: n × n, of which only the lower triangle is read. Returns L (n × n), lower triangular with
/// zeros above a positive diagonal.
///
/// # Errors
/// `a` is not square, holds a NaN or an infinity in its lower triangle, or is not positive
/// definite. For a singular matrix rounding decides: add a ridge of several n·ε·‖A‖ first.
///
/// Source: Golub & Van Loan, section 4.2.
pub fn cholesky<R: Real>(a: &ArrayRef2<R>) -> Result<Array2<R>> {
    Backend::default().cholesky(a)
}

/// Thin singular value decomposition: A = U Diag(s) Vᵀ.
///
/// `a`: m × n of any shape and rank. With k = min(m, n), returns U (m × k), s ≥ 0 descending (k)
/// and Vᵀ (k × n). UᵀU = I and VᵀV = I also where A is rank-deficient. The entry of largest
/// magnitude of each column of U is positive.
///
/// # Errors
/// `a` holds a NaN or an infinity, the iteration did not converge, or a singular value overflows.
///
/// Source: Golub & Van Loan, section 8.6.
pub fn svd<R: Real>(a: &ArrayRef2<R>) -> Result<Svd<R>> {
    Backend::default().svd(a)
}

/// The product A B.
///
/// `a`: m × k, `b`: k × n, any layout. NaN and infinity propagate.
///
/// # Errors
/// The inner dimensions differ.
pub fn matmul<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> Result<Array2<R>> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    matmul_into(R::one(), a, b, R::zero(), &mut c)?;
    Ok(c)
}

/// C ← α A B + β C.
///
/// `a`: m × k, `b`: k × n, `c`: m × n, any layout. With β = 0 the old C is not read, so it may
/// hold anything.
///
/// # Errors
/// The shapes do not fit; C is then untouched.
pub fn matmul_into<R: Real>(
    alpha: R,
    a: &ArrayRef2<R>,
    b: &ArrayRef2<R>,
    beta: R,
    c: &mut ArrayRef2<R>,
) -> Result<()> {
    let task = Task::new("product", a);
    if a.ncols() != b.nrows() {
        return Err(task.fails("the right factor must have as many rows as the left has columns"));
    }
    if c.dim() != (a.nrows(), b.ncols()) {
        return Err(task.fails("the destination does not have the shape of the product"));
    }
    Backend::default().product((alpha, a.view()), b.view(), (beta, c.view_mut()));
    Ok(())
}

/// The Gram matrix of the rows: G Gᵀ.
///
/// `g`: m × n. Returns m × m, exactly symmetric. NaN and infinity propagate.
pub fn gram_left<R: Real>(g: &ArrayRef2<R>) -> Array2<R> {
    Backend::default().gram_left(g)
}

/// The Gram matrix of the columns: Gᵀ G.
///
/// `g`: m × n. Returns n × n, exactly symmetric. NaN and infinity propagate.
pub fn gram_right<R: Real>(g: &ArrayRef2<R>) -> Array2<R> {
    Backend::default().gram_right(g)
}

/// C ← a·C + b·G Gᵀ in the lower triangle of C; what is above the diagonal afterwards is arbitrary.
///
/// `g`: m × n; `weights`: (a, b); `c`: m × m. An average that is renewed at every step and looked at
/// now and then takes half of the operations of a full product and no memory;
/// [`symmetric_from_lower`] makes a matrix of it. NaN and infinity propagate.
///
/// # Errors
/// `c` does not have the shape of the product; it is then untouched.
pub fn add_gram_left<R: Real>(g: &ArrayRef2<R>, weights: (R, R), c: &mut Array2<R>) -> Result<()> {
    Backend::default().add_gram_left(g, weights, c)
}

/// C ← a·C + b·Gᵀ G in the lower triangle of C, as [`add_gram_left`].
///
/// # Errors
/// As [`add_gram_left`].
pub fn add_gram_right<R: Real>(g: &ArrayRef2<R>, weights: (R, R), c: &mut Array2<R>) -> Result<()> {
    Backend::default().add_gram_right(g, weights, c)
}

/// The symmetric matrix with the lower triangle of `c`, diagonal included.
///
/// # Examples
/// ```
/// use eigenstep::linalg::{add_gram_left, symmetric_from_lower};
/// use ndarray::{Array2, array};
///
/// let mut c = Array2::eye(2);
/// add_gram_left(&array![[1.0, 2.0], [0.0, 1.0]], (0.5, 2.0), &mut c)?;
/// assert_eq!(symmetric_from_lower(&c), array![[10.5, 4.0], [4.0, 2.5]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn symmetric_from_lower<R: Real>(c: &ArrayRef2<R>) -> Array2<R> {
    mirror_lower(c.to_owned())
}

/// The solution X of T X = B, or of Tᵀ X = B if `transposed`, for a triangular T.
///
/// `a`: n × n, of which only the `triangle` is read; `b`: n × k. Returns X (n × k).
///
/// # Errors
/// `a` is not square, `b` does not have n rows, one of them holds a NaN or an infinity, the
/// diagonal holds a zero, or X overflows.
///
/// Source: Golub & Van Loan, section 3.1.
pub fn solve_triangular<R: Real>(
    a: &ArrayRef2<R>,
    triangle: Triangle,
    transposed: bool,
    b: &ArrayRef2<R>,
) -> Result<Array2<R>> {
    Backend::default().solve_triangular(a, triangle, transposed, b)
}
