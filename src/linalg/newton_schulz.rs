//! The Newton–Schulz iteration towards the polar factor.

use super::functions::matmul_into;
use super::norms::frobenius;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::{Array2, ArrayRef2};

/// Newton–Schulz iteration towards the polar factor: pushes all singular values to 1.
///
/// *Use it when* products are cheap and an approximate polar factor U Vᵀ of G = U Σ Vᵀ will do, as
/// for the direction of Muon. *Not when* small singular values matter: below about 1e-3 of ‖G‖ they
/// are still small after five Muon steps.
///
/// ```text
/// X = G / max(‖G‖, eps)                     transposed first if G has more rows than columns
/// for (a, b, c):  S = X Xᵀ;  X ← a X + (b S + c S²) X
/// ```
///
/// Singular vectors stay; every singular value moves by s ← a s + b s³ + c s⁵. Since ‖X‖ = 1, all
/// start in [0, 1]. Where they end, for s in [0.01, 1]:
///
/// | schedule | steps | singular values | flops, m ≤ n |
/// |---|---|---|---|
/// | [`muon`](Self::muon), the default | 5 | [0.682, 1.134]; never converges | 5·(4m²n + 2m³) |
/// | [`polar_express`](Self::polar_express) | 5 | [0.870, 1.124] | the same |
/// | | 6 | [0.9974, 1.0012] | |
/// | | 8 | 1 ± 5e-5; converges | |
/// | [`repeated`](Self::repeated) (3, −16/5, 6/5) | 8 | [0.990, 1.012]; converges | |
/// | [`cubic`](Self::cubic) | 20 | 1 ± 1e-6; converges, slowly | steps·4m²n |
///
/// A schedule that converges does so for s in (0, 1]; zeros stay zeros, so the zero matrix maps to
/// itself. The result does not depend on the scale of G while ‖G‖ ≥ eps.
///
/// # Errors
/// The functions refuse a matrix that holds a NaN or an infinity, or whose norm overflows, and
/// coefficients under which the iteration does.
///
/// # Examples
/// ```
/// use eigenstep::linalg::NewtonSchulz;
/// use ndarray::array;
///
/// let g = array![[3.0_f64, 0.0, 0.0], [0.0, 0.0, -0.2]];
/// let polar = NewtonSchulz::polar_express(10).orthogonalize(&g)?;
/// let expected = array![[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]];
/// assert!((polar - expected).iter().all(|x| x.abs() < 1e-12));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// PyTorch iterates in bf16, this in the type of the matrix.
///
/// # Source
/// K. Jordan and others, "Muon: An Optimizer for Hidden Layers in Neural Networks", 2024; N. Amsel,
/// D. Persson, C. Musco, R. M. Gower, "The Polar Express", 2025; cubic: Å. Björck, C. Bowie, 1971.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct NewtonSchulz {
    /// One triple (a, b, c) per iteration.
    pub coefficients: Vec<[f64; 3]>,
    /// The norm below which a matrix is not scaled up any more, `eps >= 0`.
    pub eps: f64,
}
crate::config_file::named_fields!(NewtonSchulz);

/// The best polynomials one after the other, for singular values from 1e-3 up.
const POLAR_EXPRESS: [[f64; 3]; 8] = [
    [8.28721201814563, -23.595886519098837, 17.300387312530933],
    [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
    [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
    [3.3184196573706015, -2.488488024314874, 0.51004894012372],
    [2.300652019954817, -1.6689039845747493, 0.4188073119525673],
    [1.891301407787398, -1.2679958271945868, 0.37680408948524835],
    [1.8750014808534479, -1.2500016453999487, 0.3750001645474248],
    [1.875, -1.25, 0.375],
];

impl Default for NewtonSchulz {
    fn default() -> Self {
        Self::muon(5)
    }
}

impl NewtonSchulz {
    /// Muon's polynomial, steepest at zero: small singular values grow 3.4 times a step, and end
    /// near 1, not at 1. Muon takes five steps.
    pub fn muon(steps: usize) -> Self {
        Self::repeated([3.4445, -4.7750, 2.0315], steps)
    }

    /// Polar Express: another polynomial for every step, each the best for what the last one left;
    /// from the eighth on the quintic Newton–Schulz polynomial (15/8, −5/4, 3/8).
    ///
    /// All but the last are shrunk to s ↦ p(s/1.01): rounding errors then cannot push a singular
    /// value out of the interval.
    pub fn polar_express(steps: usize) -> Self {
        let last = POLAR_EXPRESS.len() - 1;
        let triple = |i: usize| {
            let [a, b, c] = POLAR_EXPRESS.get(i).copied().unwrap_or([1.875, -1.25, 0.375]);
            let safety = if i < last { 1.01_f64 } else { 1.0 };
            [a / safety, b / safety.powi(3), c / safety.powi(5)]
        };
        Self { coefficients: (0..steps).map(triple).collect(), ..Self::repeated([0.0; 3], 0) }
    }

    /// The classical cubic iteration s ← 1.5s − 0.5s³: half the work per step, quadratic
    /// convergence in the end, slow at first.
    pub fn cubic(steps: usize) -> Self {
        Self::repeated([1.5, -0.5, 0.0], steps)
    }

    /// The same polynomial a s + b s³ + c s⁵ in every step, with Muon's `eps` of 1e-7.
    pub fn repeated(coefficients: [f64; 3], steps: usize) -> Self {
        Self { coefficients: vec![coefficients; steps], eps: 1e-7 }
    }

    /// The approximate polar factor of `g`, of the same shape.
    ///
    /// # Errors
    /// See the [type](Self).
    pub fn orthogonalize<R: Real>(&self, g: &ArrayRef2<R>) -> Result<Array2<R>> {
        let mut polar = Array2::zeros(g.dim());
        self.orthogonalize_into(g, &mut NewtonSchulzScratch::default(), &mut polar)?;
        Ok(polar)
    }

    /// [`orthogonalize`](Self::orthogonalize) into memory of the caller. Allocates nothing if
    /// `scratch` has been used for the same shape, or its transpose, before.
    ///
    /// # Errors
    /// See the [type](Self); or `polar` does not have the shape of `g`. `polar` is then untouched.
    pub fn orthogonalize_into<R: Real>(
        &self,
        g: &ArrayRef2<R>,
        scratch: &mut NewtonSchulzScratch<R>,
        polar: &mut ArrayRef2<R>,
    ) -> Result<()> {
        let task = Task::new("Newton-Schulz iteration", g);
        task.largest(g)?;
        if polar.dim() != g.dim() {
            return Err(task.fails("the destination does not have the shape of the matrix"));
        }
        let tall = g.nrows() > g.ncols();
        let wide = if tall { g.t() } else { g.view() };
        let NewtonSchulzScratch { x, next, gram, polynomial } = scratch.fit(wide.dim());
        x.assign(&wide);
        let norm = frobenius(x).max(self.eps);
        if !norm.is_finite() {
            return Err(task.fails("its norm is too large"));
        }
        if norm > 0.0 {
            x.mapv_inplace(|x| R::of(x.widen() / norm));
        }
        for &[a, b, c] in &self.coefficients {
            matmul_into(R::one(), x, &x.t(), R::zero(), gram)?;
            polynomial.assign(gram);
            matmul_into(R::of(c), gram, gram, R::of(b), polynomial)?;
            next.assign(x);
            matmul_into(R::one(), polynomial, x, R::of(a), next)?;
            std::mem::swap(x, next);
        }
        task.check(x)?;
        polar.assign(&if tall { x.t() } else { x.view() });
        Ok(())
    }
}

/// Working memory of [`NewtonSchulz::orthogonalize_into`]: two matrices of the size of the one to
/// orthogonalize and two of the order of its smaller dimension. It fits itself to every shape.
#[derive(Clone, Debug, Default)]
pub struct NewtonSchulzScratch<R> {
    x: Array2<R>,
    next: Array2<R>,
    gram: Array2<R>,
    polynomial: Array2<R>,
}

impl<R: Real> NewtonSchulzScratch<R> {
    fn fit(&mut self, (rows, cols): (usize, usize)) -> &mut Self {
        if self.x.dim() != (rows, cols) {
            let zeros = Array2::zeros;
            self.x = zeros((rows, cols));
            self.next = zeros((rows, cols));
            self.gram = zeros((rows, rows));
            self.polynomial = zeros((rows, rows));
        }
        self
    }
}
