//! Inverse roots of symmetric matrices.

use super::checks::{few, invalid, not_negative, positive};
use super::coupled::{Coupled, CoupledNewton, Fraction};
use super::damping::Damping;
use super::functions::{eigh, gram_left, symmetric_from_lower};
use super::norms::{max_row_sum, symmetrized};
use super::orthogonal_iteration::qr_algorithm;
use super::spectral::spectral_norm;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2};

const SINGULAR: &str = "it is not positive definite, damping included";

/// How to compute A^(−e) of a symmetric positive semidefinite matrix A, e > 0.
///
/// | method | ridge | exponent e | flops | use it |
/// |---|---|---|---|---|
/// | [`Eigh`](Self::Eigh) | yes | any | ≈ 11n³ | by default: exact, never slow |
/// | [`PseudoInverse`](Self::PseudoInverse) | no, cuts | any | ≈ 11n³ | where a null space must stay null |
/// | [`CoupledNewton`](Self::CoupledNewton) | yes | q/p | ≈ 8n³ per iteration | products only |
/// | [`CoupledHigherOrder`](Self::CoupledHigherOrder) | yes | q/p | ≈ 10n³ per iteration, fewer | the same |
///
/// The matrix inverted is (A + Aᵀ)/2 with its damping. The result is exactly symmetric for the first
/// two, and symmetrised for the others. The coupled iterations lose n·ε·cond(A) of accuracy: in
/// `f32` they fail beyond a condition of about 1e5, where the others still give the leading part.
/// Matrices of order one are inverted directly by every method.
///
/// # Examples
/// ```
/// use eigenstep::linalg::{Damping, InverseRoot};
/// use ndarray::{Array2, array};
///
/// let a = array![[16.0_f64, 0.0], [0.0, 81.0]];
/// let expected = array![[0.5, 0.0], [0.0, 1.0 / 3.0]];
/// for method in [
///     InverseRoot::eigh(Damping::default()),
///     InverseRoot::coupled_newton(Damping::default()),
///     InverseRoot::higher_order(Damping::default()),
///     InverseRoot::PseudoInverse { rtol: None, atol: 0.0 },
/// ] {
///     let root = method.root(&a, 0.25)?;
///     assert!((root - &expected).iter().all(|x| x.abs() < 1e-6));
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// The eigenvalue form and the options: H.-J. M. Shi and others, "A Distributed Data-Parallel
/// PyTorch Implementation of the Distributed Shampoo Optimizer", 2023. Coupled Newton: C.-H. Guo,
/// N. J. Higham, "A Schur–Newton Method for the Matrix p-th Root and its Inverse", 2006; its
/// stopping rule: R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable Second Order
/// Optimization for Deep Learning", 2020.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum InverseRoot {
    /// Through eigenvalues: Q Diag(λ^(−e)) Qᵀ.
    ///
    /// ```text
    /// before:  (λ, Q) = eigh(A + εI);  if min λ < ε:  λ ← λ − min λ + ε
    /// after:   (λ, Q) = eigh(A);                      λ ← λ − min(min λ, 0) + ε
    /// ```
    ///
    /// Always converges. Fails only if an eigenvalue is still 0 because ε is.
    Eigh {
        /// λ̄ is found by power iteration if `perturb_before`, else it is max λ.
        damping: Damping,
        /// Damp the matrix; else its eigenvalues.
        perturb_before: bool,
    },
    /// Coupled Newton iteration, e = q/p.
    ///
    /// ```text
    /// A ← A + εI;  z = (1 + p)/(2‖A‖);  X = z^(1/p) I;  M = zA
    /// while max|M − I| > tolerance, and at most max_iterations times:
    ///     T = ((p + 1) I − M)/p;  X ← X T;  M ← Tᵖ M
    /// X^q
    /// ```
    ///
    /// Converges if all eigenvalues of zA lie in (0, p + 1); for a positive definite A the choice
    /// of z puts them into (0, (p + 1)/2]. The smaller zλ, the longer: a factor (1 + 1/p)ᵖ per
    /// iteration. λ̄ is found by power iteration.
    CoupledNewton {
        /// The ridge.
        damping: Damping,
        /// When to stop, and what counts as a root.
        limits: CoupledNewton,
    },
    /// Coupled iteration of higher order, e = q/p.
    ///
    /// ```text
    /// λ̄ = ‖A‖∞;  A ← A + εI;  z = 1/tr A;  X = z^(1/p) I;  M = zA
    /// repeat:  T = Σ_{i<order} bᵢ (I − M)ⁱ;  X ← X T;  M ← Tᵖ M
    /// X^q                         bᵢ = Π_{j=1..i} (1 + (j − 1)p)/(jp)
    /// ```
    ///
    /// The first step is of order 2, which is Newton's. Converges for every positive definite A,
    /// since all eigenvalues of zA lie in (0, 1]. Stops as [`CoupledNewton`](Self::CoupledNewton)
    /// with a growth of 1.2, or when max|M − I| repeats exactly below 1e-3.
    CoupledHigherOrder {
        /// The ridge.
        damping: Damping,
        /// Terms of the series, `>= 2`.
        order: usize,
        /// Largest |M − I| at which to stop.
        tolerance: f64,
        /// Largest number of iterations.
        max_iterations: usize,
        /// Fail if |A Xᵖ − I| exceeds this in the end.
        accept: Option<f64>,
    },
    /// The root of the Moore–Penrose inverse: eigenvalues that count as zero stay zero.
    ///
    /// ```text
    /// λ ↦ 0 if λ <= max(rtol·max(max λ, 0), atol), else λ^(−e)
    /// ```
    ///
    /// Always converges; the zero matrix maps to itself.
    PseudoInverse {
        /// Relative to the largest eigenvalue; `None` is n times the machine epsilon.
        rtol: Option<f64>,
        /// Absolute.
        atol: f64,
    },
}

impl Default for InverseRoot {
    /// [`InverseRoot::eigh`] with an absolute damping of 1e-12.
    fn default() -> Self {
        Self::eigh(Damping::absolute(1e-12))
    }
}

impl InverseRoot {
    /// Eigenvalues of the damped matrix.
    pub const fn eigh(damping: Damping) -> Self {
        Self::Eigh { damping, perturb_before: true }
    }

    /// Coupled Newton as in Distributed Shampoo: [`CoupledNewton::DISTRIBUTED`].
    pub const fn coupled_newton(damping: Damping) -> Self {
        Self::CoupledNewton { damping, limits: CoupledNewton::DISTRIBUTED }
    }

    /// Coupled Newton as in Scalable Shampoo: [`CoupledNewton::SCALABLE`].
    pub const fn scalable(damping: Damping) -> Self {
        Self::CoupledNewton { damping, limits: CoupledNewton::SCALABLE }
    }

    /// Order 3, to 1e-8, in at most 100 iterations.
    pub const fn higher_order(damping: Damping) -> Self {
        Self::CoupledHigherOrder {
            damping,
            order: 3,
            tolerance: 1e-8,
            max_iterations: 100,
            accept: Some(0.1),
        }
    }

    /// A^(−`exponent`), symmetric.
    ///
    /// `a`: n × n, symmetric positive semidefinite. Returns n × n. A matrix without rows is its own
    /// root.
    ///
    /// # Errors
    /// [`Error::Decomposition`](crate::Error::Decomposition): `a` is not square or holds a NaN or an
    /// infinity; it is singular or indefinite beyond its damping; the iteration did not converge; the
    /// result overflows. [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter):
    /// `exponent` is not a finite number above 0, or no fraction of small integers where the method
    /// needs one; an option is negative.
    pub fn root<R: Real>(&self, a: &ArrayRef2<R>, exponent: f64) -> Result<Array2<R>> {
        self.root_of(a, exponent, true)
    }

    /// [`root`](Self::root) of a matrix that is only approximately symmetric, such as one that was decoded
    /// from codes: coupled Newton iterates on it as it is, and its result is approximately symmetric, too.
    ///
    /// It reproduces the numbers of programs that do so. λ̄ is that of the lower triangle and its mirror
    /// image. The other methods symmetrise in any case.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn root_as_given<R: Real>(&self, a: &ArrayRef2<R>, exponent: f64) -> Result<Array2<R>> {
        self.root_of(a, exponent, false)
    }

    /// [`root`](Self::root), or [`root_as_given`](Self::root_as_given) if not `symmetric`.
    pub(crate) fn root_of<R: Real>(
        &self,
        a: &ArrayRef2<R>,
        exponent: f64,
        symmetric: bool,
    ) -> Result<Array2<R>> {
        let task = Task::new("inverse root", a);
        task.square()?;
        task.largest(a)?;
        positive("exponent", exponent)?;
        self.validate()?;
        if a.is_empty() {
            return Ok(Array2::zeros((0, 0)));
        }
        let root = match *self {
            Self::Eigh { damping, perturb_before: false } => {
                let (values, vectors) = eigh(a)?;
                let (low, high) = ends(&values);
                let shift = R::of(damping.ridge(high.max(0.0)) - low.min(0.0));
                power(task, &values.mapv(|x| x + shift), &vectors, exponent)?
            }
            Self::PseudoInverse { rtol, atol } => pseudo_inverse(a, rtol, atol, exponent)?,
            Self::Eigh { damping, .. } => eigh_before(task, a, damping, exponent)?,
            Self::CoupledNewton { damping, .. } | Self::CoupledHigherOrder { damping, .. }
                if a.len() == 1 =>
            {
                eigh_before(task, a, damping, exponent)?
            }
            Self::CoupledNewton { damping, limits } => {
                let fraction = Fraction::of(exponent)?;
                let a = if symmetric { symmetrized(a) } else { a.to_owned() };
                let ridge =
                    ridge_of(&a, damping, |a| largest_eigenvalue(&symmetric_from_lower(a)))?;
                limits.root(task, a, ridge, fraction, symmetric)?
            }
            Self::CoupledHigherOrder { damping, order, tolerance, max_iterations, accept } => {
                let fraction = Fraction::of(exponent)?;
                let (a, _) = damped(symmetrized(a), damping, |a| Ok(max_row_sum(a)))?;
                let z = a.diag().iter().map(|x| x.widen()).sum::<f64>().recip();
                let (max_growth, symmetric) = (1.2, true);
                let limits =
                    Coupled { order, tolerance, max_iterations, max_growth, accept, symmetric };
                limits.root(task, &a, z, fraction)?
            }
        };
        task.check(&root)?;
        Ok(root)
    }

    /// Checks the options.
    pub(crate) fn validate(&self) -> Result<()> {
        let damping = |Damping { relative, absolute }| {
            not_negative("damping.relative", relative)?;
            not_negative("damping.absolute", absolute)
        };
        match *self {
            Self::Eigh { damping: d, .. } => damping(d),
            Self::CoupledNewton { damping: d, limits } => {
                let CoupledNewton { tolerance, max_growth, accept, retry, max_iterations } = limits;
                damping(d)?;
                few("max_iterations", max_iterations)?;
                not_negative("tolerance", tolerance)?;
                not_negative("max_growth", max_growth.unwrap_or(0.0))?;
                not_negative("accept", accept.unwrap_or(0.0))?;
                match retry.and_then(|retry| retry.wrong()) {
                    Some((field, expected, found)) => Err(invalid(field, expected, found)),
                    None => Ok(()),
                }
            }
            Self::CoupledHigherOrder { damping: d, order, tolerance, accept, max_iterations } => {
                damping(d)?;
                few("max_iterations", max_iterations)?;
                few("order", order)?;
                not_negative("tolerance", tolerance)?;
                not_negative("accept", accept.unwrap_or(0.0))?;
                if order < 2 { Err(invalid("order", "at least 2", order)) } else { Ok(()) }
            }
            Self::PseudoInverse { rtol, atol } => {
                not_negative("rtol", rtol.unwrap_or(0.0))?;
                not_negative("atol", atol)
            }
        }
    }

    /// Whether the method can take the root with this exponent > 0.
    pub(crate) fn takes(&self, exponent: f64) -> bool {
        match self {
            Self::CoupledNewton { .. } | Self::CoupledHigherOrder { .. } => {
                Fraction::of(exponent).is_ok()
            }
            Self::Eigh { .. } | Self::PseudoInverse { .. } => true,
        }
    }
}

/// The inverse root of a matrix that is known by its eigenvalues and eigenvectors.
///
/// ```text
/// V Diag((max(λ, 0) + ε)^(−e)) Vᵀ        ε = damping.ridge(max λ);  I if all of that is zero
/// ```
///
/// `values`: n; `vectors`: m × n, eigenvectors in columns, orthonormal as far as the caller cares:
/// they may be decoded from a few bits. Returns m × m, exactly symmetric. Eigenvalues estimated as
/// Rayleigh quotients may be slightly negative; they count as zero.
///
/// # Errors
/// The numbers of values and vectors differ; one is not finite; an eigenvalue is 0 though not all
/// are, and ε is 0; the result overflows; `exponent` is not a finite number above 0; the damping is
/// negative.
///
/// # Examples
/// ```
/// use eigenstep::linalg::{Damping, eigen_inverse_root};
/// use ndarray::{Array2, array};
///
/// let root = eigen_inverse_root(&array![4.0, -1e-9], &Array2::eye(2), 0.5, Damping::absolute(1.0))?;
/// assert_eq!(root, array![[5.0_f64.sqrt().recip(), 0.0], [0.0, 1.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training",
/// NeurIPS 2024.
pub fn eigen_inverse_root<R: Real>(
    values: &ArrayRef1<R>,
    vectors: &ArrayRef2<R>,
    exponent: f64,
    damping: Damping,
) -> Result<Array2<R>> {
    let task = Task::new("inverse root by eigenvectors", vectors);
    task.largest(vectors)?;
    positive("exponent", exponent)?;
    InverseRoot::eigh(damping).validate()?;
    if values.len() != vectors.ncols() {
        return Err(task.fails("there must be one eigenvalue per column"));
    }
    if values.iter().any(|x| !x.is_finite()) {
        return Err(task.fails("an eigenvalue is not finite"));
    }
    let clamped = values.mapv(|x| if x < R::zero() { R::zero() } else { x });
    let largest = ends(&clamped).1.max(0.0);
    let ridge = damping.ridge(largest);
    if largest == 0.0 && ridge == 0.0 {
        return Ok(Array2::eye(vectors.nrows()));
    }
    let root = power(task, &clamped.mapv(|x| x + R::of(ridge)), vectors, exponent)?;
    task.check(&root)?;
    Ok(root)
}

/// A^(−`exponent`) from an approximate eigenbasis, which the QR algorithm improves.
///
/// `a`: n × n, symmetric positive semidefinite; `basis`: n × n, orthogonal, of a matrix like `a`.
/// Returns the root of A + εI and the better basis. As [`InverseRoot::Eigh`] with `perturb_before`,
/// as far as [`qr_algorithm`] gets within `max_iterations` or to `tolerance`.
///
/// # Errors
/// As [`InverseRoot::root`], and [`qr_algorithm`].
pub fn qr_inverse_root<R: Real>(
    a: &ArrayRef2<R>,
    basis: &ArrayRef2<R>,
    (tolerance, max_iterations): (f64, usize),
    exponent: f64,
    damping: Damping,
) -> Result<(Array2<R>, Array2<R>)> {
    let task = Task::new("inverse root by the QR algorithm", a);
    task.square()?;
    task.largest(a)?;
    positive("exponent", exponent)?;
    let (a, ridge) = damped(symmetrized(a), damping, largest_eigenvalue)?;
    let (values, vectors) = qr_algorithm(&a, basis, tolerance, max_iterations)?;
    let root = power(task, &lifted(values, ridge), &vectors, exponent)?;
    task.check(&root)?;
    Ok((root, vectors))
}

fn eigh_before<R: Real>(
    task: Task,
    a: &ArrayRef2<R>,
    damping: Damping,
    exponent: f64,
) -> Result<Array2<R>> {
    let (a, ridge) = damped(symmetrized(a), damping, largest_eigenvalue)?;
    let (values, vectors) = eigh(&a)?;
    power(task, &lifted(values, ridge), &vectors, exponent)
}

/// The root without the eigenvalues that count as zero.
fn pseudo_inverse<R: Real>(
    a: &ArrayRef2<R>,
    rtol: Option<f64>,
    atol: f64,
    exponent: f64,
) -> Result<Array2<R>> {
    let (values, vectors) = eigh(a)?;
    let rtol = rtol.unwrap_or(a.nrows() as f64 * R::epsilon().widen());
    let zero = atol.max(rtol * ends(&values).1.max(0.0));
    let half = |x: f64| if x <= zero { 0.0 } else { x.powf(-0.5 * exponent) };
    Ok(weighted_gram(&vectors, &values.mapv(|x| R::of(half(x.widen())))))
}

/// Eigenvalues of a damped matrix of which rounding has left none below the ridge.
fn lifted<R: Real>(mut values: Array1<R>, ridge: f64) -> Array1<R> {
    let low = ends(&values).0;
    if low < ridge {
        values.mapv_inplace(|x| (x - R::of(low)) + R::of(ridge));
    }
    values
}

/// ε.
fn ridge_of<R: Real>(
    a: &Array2<R>,
    damping: Damping,
    largest: impl Fn(&Array2<R>) -> Result<f64>,
) -> Result<f64> {
    let largest = if damping.relative > 0.0 { largest(a)? } else { 0.0 };
    Ok(damping.ridge(largest))
}

/// A + εI, and ε.
fn damped<R: Real>(
    mut a: Array2<R>,
    damping: Damping,
    largest: impl Fn(&Array2<R>) -> Result<f64>,
) -> Result<(Array2<R>, f64)> {
    let ridge = ridge_of(&a, damping, largest)?;
    a.diag_mut().mapv_inplace(|x| x + R::of(ridge));
    Ok((a, ridge))
}

fn largest_eigenvalue<R: Real>(a: &Array2<R>) -> Result<f64> {
    // a product with a vector is cheap compared with the matrix products that follow
    spectral_norm(a, 300, R::epsilon().widen().max(1e-10))
}

/// The smallest and the largest of some numbers; zeros if there are none.
fn ends<R: Real>(values: &Array1<R>) -> (f64, f64) {
    let widened = || values.iter().map(|x| x.widen());
    match widened().next() {
        None => (0.0, 0.0),
        Some(_) => {
            (widened().fold(f64::INFINITY, f64::min), widened().fold(f64::NEG_INFINITY, f64::max))
        }
    }
}

/// V Diag(λ^(−e)) Vᵀ for λ > 0.
fn power<R: Real>(
    task: Task,
    values: &Array1<R>,
    vectors: &ArrayRef2<R>,
    exponent: f64,
) -> Result<Array2<R>> {
    if values.iter().any(|x| x.is_nan() || *x <= R::zero()) {
        return Err(task.fails(SINGULAR));
    }
    let half = |x: R| R::of(x.widen().powf(-0.5 * exponent));
    Ok(weighted_gram(vectors, &values.mapv(half)))
}

/// V Diag(w²) Vᵀ as a Gram matrix: half the work of a product, and exactly symmetric.
fn weighted_gram<R: Real>(vectors: &ArrayRef2<R>, weights: &Array1<R>) -> Array2<R> {
    gram_left(&(&vectors.view() * weights))
}
