//! Eigenvectors of a matrix that changes slowly, from those it had before.

use super::backend::{Backend, Eigh};
use super::functions::{matmul, qr};
use super::layout::transposed;
use super::norms::frobenius;
use super::scale::sorted;
use super::signs::{QrSigns, qr_with};
use super::task::{Task, largest};
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array1, Array2, ArrayRef2, Axis, Zip};

/// Orthogonal iteration from a known basis, and the Rayleigh quotients of the new one.
///
/// ```text
/// repeat:  P ← Q of QR(A P), Rᵢᵢ ≥ 0
/// λ = diag(Pᵀ A P)
/// ```
///
/// `a`: n × n, symmetric positive semidefinite; `p`: n × k, k ≤ n, of full column rank (nearly
/// orthogonal is enough). Returns λ (k) and P (n × k) in the order of the given columns, not
/// sorted. No iteration gives the quotients of `p` as it is.
///
/// Column i converges to an eigenvector of the i-th largest |λ| with the ratio |λᵢ₊₁/λᵢ| per
/// iteration; until then Σλ = tr A holds for k = n, and P is only *an* orthonormal basis. Because
/// Rᵢᵢ ≥ 0, columns follow the given ones continuously. A singular A leaves the columns of its
/// null space arbitrary, yet orthonormal. λ may come out negative by rounding.
///
/// # Errors
/// `a` is not square, `p` does not have its rows, one of them holds a NaN or an infinity, or a
/// product overflows.
///
/// # Examples
/// ```
/// use eigenstep::linalg::orthogonal_iteration;
/// use ndarray::{Array2, array};
///
/// let a = array![[2.0_f64, 1.0], [1.0, 2.0]];
/// let start = array![[1.0, 0.0], [0.0, 1.0]];
/// let (values, basis) = orthogonal_iteration(&a, &start, 20)?;
/// assert!((values[0] - 3.0).abs() < 1e-12 && (values[1] - 1.0).abs() < 1e-12);
/// assert!((basis[(0, 0)] - 0.5_f64.sqrt()).abs() < 1e-9);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Golub & Van Loan, Matrix Computations, 4th ed., section 8.2.4; one iteration per update as in
/// S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training",
/// NeurIPS 2024.
pub fn orthogonal_iteration<R: Real>(
    a: &ArrayRef2<R>,
    p: &ArrayRef2<R>,
    iterations: usize,
) -> Result<Eigh<R>> {
    orthogonal_iteration_with(a, p, iterations, QrSigns::Positive)
}

/// [`orthogonal_iteration`] with the signs of QR asked for.
///
/// With [`QrSigns::Lapack`] columns may turn into their mirror images from one iteration to the
/// next; λ does not depend on signs.
///
/// # Errors
/// As [`orthogonal_iteration`].
///
/// # Examples
/// ```
/// use eigenstep::linalg::{QrSigns, orthogonal_iteration_with};
/// use ndarray::{Array2, array};
///
/// let a = array![[2.0_f64, 1.0], [1.0, 2.0]];
/// let (values, basis) = orthogonal_iteration_with(&a, &Array2::eye(2), 1, QrSigns::Lapack)?;
/// assert!((values.sum() - 4.0).abs() < 1e-14);
/// assert!(basis[(0, 0)] < 0.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn orthogonal_iteration_with<R: Real>(
    a: &ArrayRef2<R>,
    p: &ArrayRef2<R>,
    iterations: usize,
    signs: QrSigns,
) -> Result<Eigh<R>> {
    let mut p = checked("orthogonal iteration", a, p)?;
    for _ in 0..iterations {
        (p, _) = qr_with(&matmul(a, &p)?, signs)?;
    }
    Ok((quotients(a, &p)?, p))
}

/// The Rayleigh quotients of orthonormal columns: diag(Pᵀ A P).
///
/// `a`: n × n; `p`: n × k. Returns k numbers. For symmetric A and orthonormal P they are majorised
/// by its eigenvalues, and for k = n they add up to its trace.
///
/// # Errors
/// As [`orthogonal_iteration`].
///
/// # Examples
/// ```
/// use eigenstep::linalg::rayleigh_quotients;
/// use ndarray::array;
///
/// let quotients = rayleigh_quotients(&array![[2.0, 1.0], [1.0, 5.0]], &array![[0.0], [1.0]])?;
/// assert_eq!(quotients, array![5.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn rayleigh_quotients<R: Real>(a: &ArrayRef2<R>, p: &ArrayRef2<R>) -> Result<Array1<R>> {
    let p = checked("Rayleigh quotients", a, p)?;
    quotients(a, &p)
}

fn quotients<R: Real>(a: &ArrayRef2<R>, p: &ArrayRef2<R>) -> Result<Array1<R>> {
    let quotients = column_products(p, &matmul(a, p)?);
    Task::new("Rayleigh quotients", a).check(&quotients)?;
    Ok(quotients)
}

/// The QR algorithm from a known basis: eigenvalues ascending, and eigenvectors.
///
/// ```text
/// B = Qᵀ A Q
/// while ‖B − diag B‖ > tolerance · ‖B‖, and at most max_iterations times:
///     (q, r) = QR(B);  B ← r q;  Q ← Q q
/// sort diag B ascending, and the columns of Q with it
/// ```
///
/// `a`: n × n, symmetric; `q`: n × n, orthogonal. Returns diag B (n) and Q (n × n). It stops at
/// `max_iterations` without an error: one iteration per call keeps up with a matrix that changes
/// slowly. Q stays orthogonal throughout. Unshifted, it separates neighbours with the ratio
/// |λᵢ₊₁/λᵢ| per iteration; with equal |λ| of both signs it never does.
///
/// # Errors
/// As [`orthogonal_iteration`], or `q` is not square.
///
/// # Examples
/// ```
/// use eigenstep::linalg::qr_algorithm;
/// use ndarray::{Array2, array};
///
/// let a = array![[2.0_f64, 1.0], [1.0, 2.0]];
/// let (values, _) = qr_algorithm(&a, &Array2::eye(2), 1e-9, 100)?;
/// assert!((values[0] - 1.0).abs() < 1e-12 && (values[1] - 3.0).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Golub & Van Loan, section 8.3.1; warm-started in R. Eschenhagen, A. Defazio, T.-H. Lee, R. E.
/// Turner, H.-J. M. Shi, "Purifying Shampoo", 2025.
pub fn qr_algorithm<R: Real>(
    a: &ArrayRef2<R>,
    q: &ArrayRef2<R>,
    tolerance: f64,
    max_iterations: usize,
) -> Result<Eigh<R>> {
    let (values, basis, _) = qr_algorithm_with_rotation(a, q, tolerance, max_iterations)?;
    Ok((values, basis))
}

/// [`qr_algorithm`], and the rotation Q₀ᵀ Q from the basis that it began with.
pub(crate) fn qr_algorithm_with_rotation<R: Real>(
    a: &ArrayRef2<R>,
    q: &ArrayRef2<R>,
    tolerance: f64,
    max_iterations: usize,
) -> Result<(Array1<R>, Array2<R>, Array2<R>)> {
    let task = Task::new("QR algorithm", a);
    let start = checked("QR algorithm", a, q)?;
    if q.ncols() != q.nrows() {
        return Err(task.fails("the basis must be square"));
    }
    let mut b = in_basis(a, &start)?;
    let mut values = b.diag().to_owned();
    let mut rotation: Option<Array2<R>> = None;
    for left in (0..max_iterations).rev() {
        if off_diagonal(&b) <= tolerance {
            break;
        }
        let (q, r) = qr(&b)?;
        // of the last B = r q nobody asks for more than the diagonal
        values = column_products(&transposed(&r), &q);
        if left > 0 {
            b = matmul(&r, &q)?;
        }
        rotation = Some(match rotation {
            Some(rotation) => matmul(&rotation, &q)?,
            None => q,
        });
    }
    let (basis, rotation) = match rotation {
        Some(rotation) => (matmul(&start, &rotation)?, rotation),
        None => (start, Array2::eye(q.ncols())),
    };
    let order = sorted(&values, |x, y| x < y);
    let in_order = |columns: Array2<R>| columns.select(Axis(1), &order);
    let (values, basis, rotation) =
        (values.select(Axis(0), &order), in_order(basis), in_order(rotation));
    task.check(&values)?;
    task.check(&basis)?;
    Ok((values, basis, rotation))
}

/// How far an orthogonal basis is from diagonalising a symmetric matrix.
///
/// ```text
/// ‖B − diag B‖ / ‖B‖,  B = Qᵀ A Q        0 if B = 0
/// ```
///
/// `a`: n × n, symmetric; `q`: n × n, orthogonal. Returns a number in [0, 1]. It is also the
/// relative error of Q diag(B) Qᵀ as an approximation of A, so it tells at the cost of two products
/// whether a basis needs to be refreshed.
///
/// # Errors
/// As [`orthogonal_iteration`].
///
/// # Examples
/// ```
/// use eigenstep::linalg::{eigenbasis_error, eigh};
/// use ndarray::{Array2, array};
///
/// let a = array![[2.0_f64, 1.0], [1.0, 2.0]];
/// assert!((eigenbasis_error(&a, &Array2::eye(2))? - 0.2_f64.sqrt()).abs() < 1e-15);
/// assert!(eigenbasis_error(&a, &eigh(&a)?.1)? < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn eigenbasis_error<R: Real>(a: &ArrayRef2<R>, q: &ArrayRef2<R>) -> Result<f64> {
    let q = checked("eigenbasis error", a, q)?;
    let b = in_basis(a, &q)?;
    Task::new("eigenbasis error", a).check(&b)?;
    Ok(off_diagonal(&b))
}

/// The inner products of the columns of A with those of B, by a pass over the rows.
pub(crate) fn column_products<R: Real>(a: &ArrayRef2<R>, b: &ArrayRef2<R>) -> Array1<R> {
    let mut sums = Array1::zeros(a.ncols());
    for (a, b) in a.rows().into_iter().zip(b.rows()) {
        Zip::from(&mut sums).and(&a).and(&b).for_each(|sum, &x, &y| *sum += x * y);
    }
    sums
}

/// B = Qᵀ A Q for a symmetric A and a row-major Q.
fn in_basis<R: Real>(a: &ArrayRef2<R>, q: &Array2<R>) -> Result<Array2<R>> {
    Ok(Backend::default().symmetric_product(q.t(), matmul(a, q)?.view()))
}

/// ‖B − diag B‖ / ‖B‖
fn off_diagonal<R: Real>(b: &Array2<R>) -> f64 {
    let mut rest = b.clone();
    rest.diag_mut().fill(R::zero());
    let norm = frobenius(b);
    if norm == 0.0 { 0.0 } else { frobenius(&rest) / norm }
}

/// A row-major copy of `p` if A P can be formed.
fn checked<R: Real>(what: &'static str, a: &ArrayRef2<R>, p: &ArrayRef2<R>) -> Result<Array2<R>> {
    let task = Task::new(what, a);
    task.square()?;
    task.largest(a)?;
    if p.nrows() != a.nrows() || p.ncols() > p.nrows() {
        return Err(task.fails("the basis must have as many rows, and not more columns"));
    }
    if !largest(p).is_finite() {
        return Err(task.fails("the basis holds a NaN or an infinity"));
    }
    Ok(p.as_standard_layout().into_owned())
}
