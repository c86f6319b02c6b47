//! The inverse square root of the Gram matrix of a window.

use super::window::GradWindow;
use crate::error::Result;
use crate::linalg::{Eigh, eigh};
use crate::numeric::Real;
use ndarray::{Array1, Axis};

/// `[(ĜĜᵀ)^½ + εI]⁻¹`: the columns of `Ĝ` are the gradients of a window, `ĝᵢ = β^age·gᵢ`.
///
/// Neither `ĜĜᵀ` nor its root is formed. `T = ĜᵀĜ + jitter·I = V diag(σ²) Vᵀ` is computed in `f64`:
/// ```text
/// v     ↦ v/ε + Ĝ z,  z = V diag(((σ+ε)⁻¹ − ε⁻¹)/σ²) Vᵀ Ĝᵀv      for any v
/// ĝₛ    ↦ Ĝ (T^½ + εI)⁻¹ eₛ                                     for the newest gradient
/// ```
/// In the first form two multiples of `v/ε` cancel, and with a jitter they do not cancel entirely.
/// The second form has no cancellation, also if `ε` is small.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::{GradWindow, RowFormat, WindowRoot};
/// use eigenstep::optim::Layout;
///
/// let mut window = GradWindow::<f64>::new(RowFormat::Dense, 1, &Layout::single(&[2]));
/// window.push(&[3.0, 4.0][..]);
/// // one gradient: g/(‖g‖ + ε)
/// let root = WindowRoot { eps: 0.5, jitter: 0.0, ..WindowRoot::default() };
/// let mut u = [0.0; 2];
/// window.combine(&root.newest(&window)?, 0, &mut u);
/// assert!((u[0] - 3.0 / 5.5).abs() < 1e-14);
/// assert!((root.apply(&window, &[3.0, 4.0])?[1] - 4.0 / 5.5).abs() < 1e-13);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// N. Agarwal, B. Bullins, X. Chen, E. Hazan, K. Singh, C. Zhang, Y. Zhang, "Efficient Full-Matrix
/// Adaptive Regularization", ICML 2019.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowRoot {
    /// Decay rate `β` per step of a gradient's age, in `[0, 1]`.
    pub beta: f64,
    /// Stabiliser `ε > 0`: the inverse step size in directions outside of the window.
    pub eps: f64,
    /// Number `>= 0` that is added to the diagonal of the Gram matrix.
    pub jitter: f64,
    /// Whether the jitter is a multiple of `max(1, mean of the diagonal)`.
    pub relative_jitter: bool,
}

impl Default for WindowRoot {
    fn default() -> Self {
        Self { beta: 1.0, eps: 1e-5, jitter: 1e-6, relative_jitter: false }
    }
}

impl WindowRoot {
    /// The factors `β^age` of the gradients.
    fn decays<R: Real>(&self, window: &GradWindow<R>) -> Array1<f64> {
        let age = |slot: usize| window.age(slot) as f64;
        Array1::from_shape_fn(window.count(), |slot| self.beta.powf(age(slot)))
    }

    fn eigh<R: Real>(&self, window: &GradWindow<R>, decays: &Array1<f64>) -> Result<Eigh<f64>> {
        let n = window.count();
        let mut t = window.gram_matrix() * decays * decays.view().insert_axis(Axis(1));
        let mean = t.diag().sum() / n.max(1) as f64;
        let jitter = self.jitter * if self.relative_jitter { mean.max(1.0) } else { 1.0 };
        t.diag_mut().map_inplace(|x| *x += jitter);
        let (mut values, vectors) = eigh(&t)?;
        // rounding can make small eigenvalues negative
        values.map_inplace(|x| *x = x.max(jitter));
        Ok((values, vectors))
    }

    /// Coefficients `c` of the image of the newest gradient: it is mapped to `Σ cᵢgᵢ`.
    ///
    /// # Errors
    /// [`Error::Decomposition`](crate::Error::Decomposition) if the Gram matrix is not finite.
    pub fn newest<R: Real>(&self, window: &GradWindow<R>) -> Result<Vec<f64>> {
        if window.count() == 0 {
            return Ok(Vec::new());
        }
        let decays = self.decays(window);
        let (values, vectors) = self.eigh(window, &decays)?;
        let scaled = values.mapv(|x| 1.0 / (x.sqrt() + self.eps)) * vectors.row(window.newest());
        Ok((vectors.dot(&scaled) * decays).to_vec())
    }

    /// Coefficients `c` of the image of `v`: it is mapped to `v/ε + Σ cᵢgᵢ`. `products` are `⟨gᵢ, v⟩`.
    ///
    /// # Errors
    /// As [`WindowRoot::newest`].
    pub fn correction<R: Real>(
        &self,
        window: &GradWindow<R>,
        products: Vec<f64>,
    ) -> Result<Vec<f64>> {
        if window.count() == 0 {
            return Ok(Vec::new());
        }
        let decays = self.decays(window);
        let (values, vectors) = self.eigh(window, &decays)?;
        // eigenvalues that are rounding errors belong to the null space
        let noise = f64::EPSILON * values.len() as f64 * values.iter().fold(0.0, |a, &b| b.max(a));
        let weight = |x: f64| match x > noise {
            true => (1.0 / (x.sqrt() + self.eps) - 1.0 / self.eps) / x,
            false => 0.0,
        };
        let projected = vectors.t().dot(&(Array1::from(products) * &decays));
        Ok((vectors.dot(&(values.mapv(weight) * projected)) * decays).to_vec())
    }

    /// The image of any vector `v` that is as long as the gradients.
    ///
    /// # Errors
    /// As [`WindowRoot::newest`].
    pub fn apply<R: Real>(&self, window: &GradWindow<R>, v: &[R]) -> Result<Vec<R>> {
        let coefficients = self.correction(window, window.products::<[R]>(v))?;
        let mut u: Vec<R> = v.iter().map(|x| R::of(x.widen() / self.eps)).collect();
        window.combine(&coefficients, 0, &mut u);
        Ok(u)
    }
}
