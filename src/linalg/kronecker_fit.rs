//! How well a Kronecker product describes the second moment of gradients: a diagnostic.

use super::functions::{gram_left, gram_right, matmul};
use super::norms::{frobenius, inner, max_abs};
use super::routines::NO_CONVERGENCE;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::linalg::kron;
use ndarray::{Array2, ArrayView2};

/// A Kronecker product L ⊗ R that stands for the second moment H of gradients G, m × n.
///
/// ```text
/// H = mean vec(G) vec(G)ᵀ        vec row by row: entry (i·n + j) of vec(G) is gᵢⱼ
/// ```
///
/// H is never formed: it has (mn)² entries. What is needed of it are products and Σ of entries:
///
/// ```text
/// R(H) vec(X)  = mean G X Gᵀ        R(H)ᵀ vec(Y) = mean Gᵀ Y G
/// ⟨L ⊗ R, H⟩   = mean ⟨L, G R Gᵀ⟩   ‖H‖² = mean over pairs ⟨G, G'⟩²
/// ```
///
/// where the rearrangement R(H) holds entry ((i, j), (k, l)) of H in row (i, k) and column (j, l),
/// so that the best Kronecker product is its leading pair of singular vectors.
///
/// # Examples
/// ```
/// use eigenstep::linalg::KroneckerFit;
/// use ndarray::array;
///
/// let grads = [array![[1.0_f64, 2.0], [0.0, 1.0]], array![[-1.0, 1.0], [3.0, 0.5]]];
/// let grads: Vec<_> = grads.iter().map(|g| g.view()).collect();
/// let shampoo = KroneckerFit::shampoo_squared(&grads)?.cosine(&grads)?;
/// let best = KroneckerFit::best(&grads, 1000, 1e-12)?.cosine(&grads)?;
/// assert!(0.5 < shampoo && shampoo <= best && best <= 1.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// D. Morwani, I. Shapira, N. Vyas, E. Malach, S. Kakade, L. Janson, "A New Perspective on
/// Shampoo's Preconditioner", 2024; C. F. Van Loan, N. Pitsianis, "Approximation with Kronecker
/// Products", 1993.
#[derive(Clone, Debug, PartialEq)]
pub struct KroneckerFit<R> {
    /// L, m × m.
    pub left: Array2<R>,
    /// R, n × n.
    pub right: Array2<R>,
}

impl<R: Real> KroneckerFit<R> {
    /// One step of power iteration from the identity on either side, which is the *square* of
    /// Shampoo's preconditioner.
    ///
    /// ```text
    /// L = mean G Gᵀ / tr(mean G Gᵀ),  R = mean Gᵀ G
    /// ```
    ///
    /// Hence H^(−1/2) is near tr^(1/2) · L^(−1/2) ⊗ R^(−1/2): an exponent of 1/2 on each side where
    /// Shampoo has 1/4.
    ///
    /// # Errors
    /// There are no gradients, their shapes differ, one holds a NaN or an infinity, all are zero,
    /// or a product overflows.
    pub fn shampoo_squared(grads: &[ArrayView2<'_, R>]) -> Result<Self> {
        let task = checked("Kronecker product", grads)?;
        let left = mean(grads, |g| Ok(gram_left(g)))?;
        let right = mean(grads, |g| Ok(gram_right(g)))?;
        let trace = left.diag().iter().map(|x| x.widen()).sum::<f64>();
        let left = left.mapv(|x| R::of(x.widen() / trace));
        task.check(&left)?;
        task.check(&right)?;
        Ok(Self { left, right })
    }

    /// The Kronecker product nearest to H in the Frobenius norm, by power iteration on R(H).
    ///
    /// ```text
    /// X = I;  repeat:  Y = mean G X Gᵀ;  L = Y/‖Y‖;  X ← mean Gᵀ L G;  R = X
    /// ```
    ///
    /// until L and R/‖R‖ change by no more than `tolerance` in every entry. Converges with the
    /// ratio (σ₂/σ₁)² of singular values of R(H), and to the leading pair: L and R are positive
    /// semidefinite, and so is the start. ‖L‖ = 1, and ‖R‖ = σ₁.
    ///
    /// # Errors
    /// As [`shampoo_squared`](Self::shampoo_squared), or `max_iterations` were not enough.
    pub fn best(
        grads: &[ArrayView2<'_, R>],
        max_iterations: usize,
        tolerance: f64,
    ) -> Result<Self> {
        let task = checked("best Kronecker product", grads)?;
        let cols = grads.first().map_or(0, |g| g.ncols());
        let mut right = unit(&Array2::eye(cols));
        let mut left: Option<Array2<R>> = None;
        for _ in 0..max_iterations {
            let y = unit(&mean(grads, |g| matmul(&matmul(g, &right)?, &g.t()))?);
            let x = mean(grads, |g| matmul(&matmul(&g.t(), &y)?, g))?;
            task.check(&y)?;
            task.check(&x)?;
            let direction = unit(&x);
            let near = |new: &Array2<R>, old: &Array2<R>| max_abs(&(new - old)) <= tolerance;
            if left.is_some_and(|left| near(&y, &left)) && near(&direction, &right) {
                return Ok(Self { left: y, right: x });
            }
            (left, right) = (Some(y), direction);
        }
        Err(task.fails(NO_CONVERGENCE))
    }

    /// The cosine between L ⊗ R and H; 1 if one is a multiple of the other.
    ///
    /// Costs a product of three matrices per gradient, and a scalar product per pair of gradients.
    ///
    /// # Errors
    /// As [`shampoo_squared`](Self::shampoo_squared), or L and R do not fit the gradients.
    pub fn cosine(&self, grads: &[ArrayView2<'_, R>]) -> Result<f64> {
        let task = checked("cosine to a Kronecker product", grads)?;
        let mut product = 0.0;
        let mut square = 0.0;
        for (i, g) in grads.iter().enumerate() {
            let image = matmul(&matmul(g, &self.right)?, &g.t())?;
            if image.dim() != self.left.dim() {
                return Err(task.fails("the left factor must have the order of the rows"));
            }
            product += inner(&self.left, &image);
            for other in grads.iter().take(i) {
                square += 2.0 * inner(g, other).powi(2);
            }
            square += inner(g, g).powi(2);
        }
        let norms = frobenius(&self.left) * frobenius(&self.right) * square.sqrt();
        let cosine = product / norms;
        if cosine.is_finite() { Ok(cosine) } else { Err(task.fails("a norm is 0 or too large")) }
    }

    /// The product itself, mn × mn: for small matrices.
    pub fn to_dense(&self) -> Array2<R> {
        kron(&self.left, &self.right)
    }
}

/// The mean of a function of the gradients.
fn mean<R: Real>(
    grads: &[ArrayView2<'_, R>],
    f: impl Fn(&ArrayView2<'_, R>) -> Result<Array2<R>>,
) -> Result<Array2<R>> {
    let mut sum: Option<Array2<R>> = None;
    for g in grads {
        let term = f(g)?;
        sum = Some(match sum {
            None => term,
            Some(sum) => sum + term,
        });
    }
    let count = R::of(grads.len() as f64);
    Ok(sum.unwrap_or_default().mapv(|x| x / count))
}

/// A/‖A‖; the zero matrix stays.
fn unit<R: Real>(a: &Array2<R>) -> Array2<R> {
    let norm = frobenius(a);
    a.mapv(|x| if norm == 0.0 { x } else { R::of(x.widen() / norm) })
}

/// Finite gradients of one shape, not all zero.
fn checked<R: Real>(what: &'static str, grads: &[ArrayView2<'_, R>]) -> Result<Task> {
    let Some(first) = grads.first() else {
        let none = Array2::<R>::zeros((0, 0));
        return Err(Task::new(what, &none).fails("there are no gradients"));
    };
    let task = Task::new(what, first);
    let mut zero = true;
    for g in grads {
        if g.dim() != first.dim() {
            return Err(task.fails("all gradients must have the same shape"));
        }
        zero &= task.largest(g)? == R::zero();
    }
    if zero { Err(task.fails("all gradients are zero")) } else { Ok(task) }
}
