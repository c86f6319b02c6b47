//! Floor 1: matrix products and decompositions for `f32` and `f64`, on ndarray's types.
//!
//! The functions of this module use the default [`Backend`]: faer with the feature `faer`, else
//! plain Rust. Each is also a method of [`Backend`], so that one can be checked against another.
//!
//! On them stand the pieces of preconditioners: inverse roots ([`InverseRoot`]), polar factors
//! ([`NewtonSchulz`], [`bjorck()`]), eigenbases that follow a changing matrix
//! ([`orthogonal_iteration()`], [`qr_algorithm`]), shapes and blocks ([`merge_small_dims`],
//! [`blocks`]), and a measure of Kronecker products ([`Kronecker`]).
//!
//! # Promises
//!
//! * **Conventions do not depend on the backend.** Eigenvalues ascend, singular values descend,
//!   R has a diagonal ≥ 0, and in every eigenvector and left singular vector the entry of largest
//!   magnitude (the first of them) is positive. Within an eigenspace of several dimensions the
//!   basis is the backend's choice; compare V Λ Vᵀ, never V.
//! * **The same numbers give the same bits**, in any memory layout and wherever the matrix lies,
//!   on one machine: decompositions run on one thread, and large products are cut at places that only
//!   their shape decides. Backends, and machines with different vector units, agree to rounding only.
//! * **Backward stable.** With ε the machine epsilon and n the larger dimension, the factors of A
//!   reproduce it, and orthogonal factors are orthogonal, up to a small multiple of n·ε relative
//!   to ‖A‖ and 1 in the Frobenius norm. Matrices of any finite size are scaled by powers of two
//!   where squares could overflow.
//! * **No panic, no NaN out of finite numbers.** NaN, infinity, a wrong shape, a failed iteration
//!   or an overflowing result is [`Error::Decomposition`](crate::Error::Decomposition). Products
//!   pass NaN on instead, as sums do. Empty matrices have empty factors.
//!
//! ```
//! use eigenstep::linalg::{eigh, matmul};
//! use ndarray::{Array2, array};
//!
//! let a = array![[2.0, 1.0], [1.0, 2.0]];
//! let (values, vectors) = eigh(&a)?;
//! let rebuilt = matmul(&matmul(&vectors, &Array2::from_diag(&values))?, &vectors.t())?;
//! assert!((values[0] - 1.0_f64).abs() < 1e-14 && (values[1] - 3.0).abs() < 1e-14);
//! assert!((rebuilt - a).iter().all(|x| x.abs() < 1e-14));
//! # Ok::<(), eigenstep::Error>(())
//! ```

mod backend;
mod bjorck;
mod checks;
mod coupled;
mod damping;
#[cfg(feature = "faer")]
mod faer;
mod inverse_root;
mod kronecker;
#[cfg(feature = "lapack")]
mod lapack;
mod layout;
pub(crate) mod modes;
mod native;
mod newton_schulz;
mod norms;
mod orthogonal_iteration;
mod partition;
mod routines;
mod signs;

pub use bjorck::{bjorck, orthogonality_error};
pub(crate) use coupled::COUPLED_EXPONENT;
pub use coupled::CoupledNewton;
pub use damping::{Damping, RidgeRetry};
pub use inverse_root::{InverseRoot, eigen_inverse_root, qr_inverse_root};
pub use kronecker::Kronecker;
pub(crate) use layout::mirror_lower;
pub use modes::{mode_gram, mode_product};
pub use newton_schulz::{NewtonSchulz, NewtonSchulzScratch};
pub(crate) use norms::frobenius;
pub use norms::spectral_norm;
pub(crate) use orthogonal_iteration::{column_products, qr_turn};
pub use orthogonal_iteration::{
    eigenbasis_error, orthogonal_iteration, orthogonal_iteration_with, qr_algorithm,
    rayleigh_quotients,
};
pub use partition::{blocks, matrix_blocks, matrix_shape, merge_leading_dims, merge_small_dims};
pub use signs::{QrSigns, qr_with};

use crate::error::Result;
use crate::numeric::Real;
use backend::Task;
use ndarray::{Array1, Array2, ArrayRef2};

/// Eigenvalues and eigenvectors; see [`eigh`].
pub type Eigh<R> = (Array1<R>, Array2<R>);
/// Q and R; see [`qr`].
pub type Qr<R> = (Array2<R>, Array2<R>);
/// U, the singular values, and Vᵀ; see [`svd`].
pub type Svd<R> = (Array2<R>, Array1<R>, Array2<R>);

/// Who computes the decompositions.
///
/// The default is the fastest of the build. The others are there to check it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Plain Rust without dependencies, in every build.
    #[cfg_attr(not(feature = "faer"), default)]
    Native,
    /// faer, decompositions on one thread; feature `faer`, which is on by default.
    #[cfg(feature = "faer")]
    #[default]
    Faer,
    /// LAPACK through ndarray-linalg; one of the features `lapack-…`. Slow; for checking.
    #[cfg(feature = "lapack")]
    Lapack,
}

/// Which half of a square matrix, diagonal included, holds the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Triangle {
    /// On and below the diagonal.
    Lower,
    /// On and above the diagonal.
    Upper,
}

/// Eigenvalues and eigenvectors of a symmetric matrix: A = V Diag(λ) Vᵀ.
///
/// `a`: n × n. Returns λ ascending (n) and V (n × n) with eigenvectors in columns, the entry of
/// largest magnitude of each positive. What is decomposed is (A + Aᵀ)/2: statistics such as
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
/// [`qr_with`] has those that it returns.)
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

/// 2⁻ᵉ for 2ᵉ ≤ |x| < 2ᵉ⁺¹, as far as it is a normal number; multiplying by it is exact, apart
/// from underflow. `x` is finite and not zero.
fn reciprocal_power_of_two<R: Real>(x: R) -> R {
    let log2 = |x: R| {
        let (mantissa, exponent, _sign) = x.integer_decode();
        i32::from(exponent) + 63 - mantissa.leading_zeros() as i32
    };
    let limit = -log2(R::min_positive_value());
    R::of(2.0_f64.powi(-log2(x).clamp(-limit, limit)))
}

/// Multiplies `x` by a power of two that brings its largest entry near 1, and returns it: 1 if there is
/// nothing but zeros, or an entry that is not finite.
pub(crate) fn scale_to_one<R: Real>(x: &mut ArrayRef2<R>) -> R {
    let largest = x.iter().fold(R::zero(), |largest, x| largest.max(x.abs()));
    if largest == R::zero() || !largest.is_finite() {
        return R::one();
    }
    let scale = reciprocal_power_of_two(largest);
    x.mapv_inplace(|x| x * scale);
    scale
}

/// Indices that put `values` in the order of `before`; equal ones keep theirs.
pub(crate) fn sorted<R: Real>(values: &Array1<R>, before: impl Fn(R, R) -> bool) -> Vec<usize> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let mut order: Vec<(usize, R)> = values.iter().copied().enumerate().collect();
    order.sort_by(|&(_, x), &(_, y)| match (before(x, y), before(y, x)) {
        (true, _) => Less,
        (_, true) => Greater,
        _ => Equal,
    });
    order.into_iter().map(|(i, _)| i).collect()
}
