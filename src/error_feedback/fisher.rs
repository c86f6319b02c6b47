//! The inverse of the damped empirical Fisher matrix of a window.

use super::window::GradWindow;
use crate::error::Result;
use crate::linalg::{Triangle, cholesky, gram_right, solve_triangular};
use crate::numeric::Real;
use ndarray::{Array2, Axis};

/// The divisor of the sum of outer products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Normalization {
    /// The capacity `m` of the window, also while it fills, which makes the first steps longer. All
    /// published code does this.
    #[default]
    Window,
    /// The number of gradients in the window.
    Count,
}

/// `F = λI + (1/n) Σ gᵢgᵢᵀ`, the damped empirical Fisher matrix of a window of gradients.
///
/// Neither `F` nor its inverse is formed. `S` is the Gram matrix of the window and `K = S + nλI`,
/// both in `f64`:
/// ```text
/// F⁻¹v  = (v − Gᵀ K⁻¹ G v)/λ         for any v
/// F⁻¹gₛ = n·Gᵀ K⁻¹ eₛ                 for a gradient gₛ of the window
/// ```
/// The first form, like the published recursion, subtracts two vectors of length `‖v‖/λ`, which
/// cancel if `λ` is small. The second form subtracts nothing.
///
/// If gradients depend on each other, only as many are combined as span the others. In `f32`,
/// gradients that agree in their first four digits leave two or three correct digits of the sum.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::{Fisher, GradWindow, Normalization, RowFormat};
/// use eigenstep::optim::Layout;
///
/// let mut window = GradWindow::<f64>::new(RowFormat::Dense, 1, &Layout::single(&[2]));
/// window.push(&[3.0, 4.0][..]);
/// let fisher = Fisher { damping: 0.5, ..Fisher::default() };
/// // one gradient: F⁻¹g = g/(λ + ‖g‖²)
/// let mut u = [0.0; 2];
/// window.combine(&fisher.newest(&window)?, 0, &mut u);
/// assert!((u[0] - 3.0 / 25.5).abs() < 1e-15);
/// assert!((fisher.apply(&window, &[3.0, 4.0])?[0] - u[0]).abs() < 1e-13);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// E. Frantar, E. Kurtic, D. Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order
/// Information", NeurIPS 2021; the identity of Sherman, Morrison and Woodbury.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fisher {
    /// Damping `λ > 0`.
    pub damping: f64,
    /// The divisor `n`.
    pub normalization: Normalization,
}

impl Default for Fisher {
    fn default() -> Self {
        Self { damping: 1e-5, normalization: Normalization::Window }
    }
}

impl Fisher {
    /// `n`.
    fn normalizer<R: Real>(&self, window: &GradWindow<R>) -> f64 {
        match self.normalization {
            Normalization::Window => window.capacity() as f64,
            Normalization::Count => window.count() as f64,
        }
    }

    /// `K⁻¹b`.
    fn solve<R: Real>(&self, window: &GradWindow<R>, b: Vec<f64>) -> Result<Vec<f64>> {
        let count = window.count();
        let shift = self.normalizer(window) * self.damping;
        let mut k = window.gram_matrix();
        k.diag_mut().map_inplace(|x| *x += shift);
        let factor = cholesky(&k).or_else(|_| {
            // rounding can make a nearly singular matrix indefinite
            let mean = k.diag().sum() / count.max(1) as f64;
            k.diag_mut().map_inplace(|x| *x += 1e-12 * mean);
            cholesky(&k)
        })?;
        let b = Array2::from_shape_fn((count, 1), |(i, _)| b.get(i).copied().unwrap_or(0.0));
        let y = solve_triangular(&factor, Triangle::Lower, false, &b)?;
        let x = solve_triangular(&factor, Triangle::Lower, true, &y)?;
        Ok(x.into_iter().collect())
    }

    /// Coefficients `c` such that `F⁻¹g = Σ cᵢgᵢ` for the newest gradient `g` of the window.
    ///
    /// # Errors
    /// [`Error::Decomposition`](crate::Error::Decomposition) if `K` is not finite.
    pub fn newest<R: Real>(&self, window: &GradWindow<R>) -> Result<Vec<f64>> {
        if window.count() == 0 {
            return Ok(Vec::new());
        }
        let mut unit = vec![0.0; window.count()];
        if let Some(place) = unit.get_mut(window.newest()) {
            *place = self.normalizer(window);
        }
        let y = self.solve(window, unit)?;
        if !cancels(window, &y) {
            return Ok(y);
        }
        let (l, pivots) = pivoted_cholesky(window);
        // for independent gradients there are no better coefficients
        if pivots.len() == window.count() { Ok(y) } else { self.newest_of_few(window, &l, &pivots) }
    }

    /// As [`Fisher::newest`], but combines only as many gradients as span the others. If gradients are
    /// nearly dependent, `K⁻¹` gives large coefficients that cancel.
    ///
    /// `S = L Lᵀ` is the pivoted Cholesky decomposition, and `L₁` has the rows of the pivots. The
    /// gradients are `L L₁⁻¹` times the pivots `G₁`, so
    /// ```text
    /// F⁻¹gₛ = n·G₁ᵀ L₁⁻ᵀ (LᵀL + nλI)⁻¹ Lᵀeₛ
    /// ```
    fn newest_of_few<R: Real>(
        &self,
        window: &GradWindow<R>,
        l: &Array2<f64>,
        pivots: &[usize],
    ) -> Result<Vec<f64>> {
        let n = self.normalizer(window);
        let mut inner = gram_right(l);
        inner.diag_mut().map_inplace(|x| *x += n * self.damping);
        let factor = cholesky(&inner)?;
        let row = l.row(window.newest()).mapv(|x| n * x).insert_axis(Axis(1));
        let x = solve_triangular(&factor, Triangle::Lower, false, &row)?;
        let x = solve_triangular(&factor, Triangle::Lower, true, &x)?;
        let corner = l.select(Axis(0), pivots);
        let y = solve_triangular(&corner, Triangle::Lower, true, &x)?;
        let mut coefficients = vec![0.0; window.count()];
        for (&slot, &y) in pivots.iter().zip(&y) {
            if let Some(place) = coefficients.get_mut(slot) {
                *place = y;
            }
        }
        Ok(coefficients)
    }

    /// `F⁻¹v` for any vector of as many elements as the gradients have.
    ///
    /// # Errors
    /// As [`Fisher::newest`].
    pub fn apply<R: Real>(&self, window: &GradWindow<R>, v: &[R]) -> Result<Vec<R>> {
        let products = window.products::<[R]>(v);
        let y = if products.is_empty() { Vec::new() } else { self.solve(window, products)? };
        let inverse = 1.0 / self.damping;
        let y: Vec<f64> = y.into_iter().map(|y| -y * inverse).collect();
        let mut u: Vec<R> = v.iter().map(|x| R::of(x.widen() * inverse)).collect();
        window.combine(&y, 0, &mut u);
        Ok(u)
    }
}

/// Whether `Σ yᵢgᵢ` is so much shorter than its terms that the gradients' type cannot represent it.
/// The relative error of the sum is about ε/4 times the ratio of the lengths.
fn cancels<R: Real>(window: &GradWindow<R>, y: &[f64]) -> bool {
    let (mut terms, mut square) = (0.0, 0.0);
    for (i, a) in y.iter().enumerate() {
        terms += a.abs() * window.gram(i, i).sqrt();
        square += a * window.gram_row(i).iter().zip(y).map(|(s, b)| s * b).sum::<f64>();
    }
    // a NaN must count as cancelled; a square as small as its rounding error says nothing
    let held = terms * R::epsilon().widen() <= 1e-4 * square.sqrt()
        && square > 16.0 * f64::EPSILON * terms * terms;
    terms > 0.0 && !held
}

/// The pivoted Cholesky decomposition `S ≈ L Lᵀ`: `L`, and the rows of the pivots in their order. The
/// pivot is the largest remaining diagonal entry, until that is a rounding error.
fn pivoted_cholesky<R: Real>(window: &GradWindow<R>) -> (Array2<f64>, Vec<usize>) {
    let count = window.count();
    let mut left: Vec<f64> = (0..count).map(|i| window.gram(i, i)).collect();
    let largest = left.iter().fold(0.0_f64, |a, &b| a.max(b));
    let noise = largest * f64::EPSILON * 4.0 * count as f64;
    let (mut columns, mut pivots): (Vec<Vec<f64>>, Vec<usize>) = (Vec::new(), Vec::new());
    while pivots.len() < count {
        let better =
            |best: (usize, f64), (i, &x): (usize, &f64)| if x > best.1 { (i, x) } else { best };
        let (pivot, rest) = left.iter().enumerate().fold((0, f64::NEG_INFINITY), better);
        if rest <= noise || rest.is_nan() {
            break;
        }
        let mut column: Vec<f64> = (0..count).map(|i| window.gram(i, pivot)).collect();
        for earlier in &columns {
            let weight = earlier.get(pivot).copied().unwrap_or(0.0);
            column.iter_mut().zip(earlier).for_each(|(x, e)| *x -= weight * e);
        }
        let root = rest.sqrt();
        column.iter_mut().for_each(|x| *x /= root);
        left.iter_mut().zip(&column).for_each(|(left, x)| *left -= x * x);
        pivots.push(pivot);
        for &done in &pivots {
            if let Some(left) = left.get_mut(done) {
                *left = f64::NEG_INFINITY;
            }
        }
        columns.push(column);
    }
    let shape = (count, columns.len());
    let entry = |(i, j): (usize, usize)| columns.get(j).and_then(|c| c.get(i)).copied();
    (Array2::from_shape_fn(shape, |place| entry(place).unwrap_or(0.0)), pivots)
}
