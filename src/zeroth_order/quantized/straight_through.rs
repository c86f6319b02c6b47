//! Gradients through rounding, and the noise that matches each of them.

use super::integer_format::IntegerFormat;
use crate::error::{Error, Result, check_length};
use crate::numeric::Real;

/// The grid `alpha·(qmin..=qmax)` of a quantized tensor.
///
/// # Errors
/// [`Grid::validate`] refuses an `alpha` that is not finite and positive, and `qmin > qmax`.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{Grid, IntegerFormat};
///
/// let grid = Grid::of(IntegerFormat { bits: 2, full: true }, 0.5);
/// assert_eq!(grid, Grid { alpha: 0.5, qmin: -2, qmax: 1 });
/// assert!(Grid { alpha: 0.0, ..grid }.validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, remote = "Self"))]
pub struct Grid {
    /// The spacing of the grid, `> 0`.
    pub alpha: f64,
    /// The smallest code.
    pub qmin: i32,
    /// The largest code.
    pub qmax: i32,
}
crate::config_file::named_fields!(Grid);

impl Grid {
    /// The grid of an integer format.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Grid, IntegerFormat};
    ///
    /// let grid = Grid::of(IntegerFormat::default(), 0.1);
    /// assert_eq!((grid.qmin, grid.qmax), (-127, 127));
    /// ```
    pub fn of(format: IntegerFormat, alpha: f64) -> Self {
        Self { alpha, qmin: format.qmin(), qmax: format.qmax() }
    }

    /// Checks the fields.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names `alpha` or `qmin`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::Grid;
    ///
    /// assert!(Grid { alpha: 1.0, qmin: 2, qmax: 1 }.validate().is_err());
    /// ```
    pub fn validate(self) -> Result<()> {
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::invalid("Grid", "alpha", "finite and > 0", self.alpha));
        }
        if self.qmin > self.qmax {
            let expected = format!("at most `qmax` = {}", self.qmax);
            return Err(Error::invalid("Grid", "qmin", expected, self.qmin));
        }
        Ok(())
    }
}

/// Straight-through estimators. The forward pass quantizes. The backward pass uses the derivative of a
/// smoother function in its place.
///
/// With `y = x/alpha`, ties rounded to even, and `sign(0) = 1`:
///
/// | | forward | factor of the gradient | matched noise: ε̄, distribution of `u` |
/// |---|---|---|---|
/// | `Identity` | `alpha·clip(round(y), qmin, qmax)` | 1 | 1/(2√3), uniform on ±√3 |
/// | `Clipped` | the same | 1 if `qmin ≤ y ≤ qmax`, else 0 | the same |
/// | `HardTanh` | `alpha·sign(y)` | 1 if `\|y\| ≤ 1`, else 0 | 1/√3, uniform on ±√3 |
/// | `Tanh` | the same | `1 − tanh²(y)` | π/√12, density `ε̄(1 − tanh²(ε̄u))/2` |
/// | `ApproxSign` | the same | `max(0, 2 − 2\|y\|)` | 1/√6, triangular on ±√6 |
///
/// The noise connects the estimator with zeroth-order methods. `u` has mean 0 and variance 1, and the
/// mean of `round(y + ε̄u)`, or of `sign(y + ε̄u)`, is the function whose derivative is the factor
/// ([`StraightThrough::surrogate`]). Differences of losses at `x ± alpha·ε̄·u` therefore estimate the
/// gradient of that function.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{Grid, StraightThrough};
///
/// let grid = Grid { alpha: 0.5, qmin: -2, qmax: 1 };
/// let x = [0.3f32, -2.0];
/// let (mut quantized, mut grad) = ([0.0; 2], [0.0; 2]);
/// StraightThrough::Clipped.forward_slice(&x, grid, &mut quantized)?;
/// StraightThrough::Clipped.backward_slice(&x, &[3.0, 3.0], grid, &mut grad)?;
/// assert_eq!((quantized, grad), ([0.5, -1.0], [3.0, 0.0]));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Y. Bengio, N. Léonard, A. Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
/// for Conditional Computation", 2013; the noise: Yang, Aamodt, "Improving the Straight-Through
/// Estimator with Zeroth-Order Information", NeurIPS 2025.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StraightThrough {
    /// Rounding; every gradient passes.
    #[default]
    Identity,
    /// Rounding; gradients of elements inside the range pass.
    Clipped,
    /// The sign; the gradient is that of `clip(y, −1, 1)`.
    HardTanh,
    /// The sign; the gradient is that of `tanh(y)`.
    Tanh,
    /// The sign; the gradient is that of a piecewise quadratic function.
    ApproxSign,
}

/// The sign of a number, where 0 counts as positive.
fn sign(y: f64) -> f64 {
    if y.is_nan() {
        y
    } else if y < 0.0 {
        -1.0
    } else {
        1.0
    }
}

/// 1 or 0; NaN stays.
fn indicator(y: f64, inside: bool) -> f64 {
    if y.is_nan() { y } else { f64::from(u8::from(inside)) }
}

impl StraightThrough {
    /// All variants.
    pub const ALL: [Self; 5] =
        [Self::Identity, Self::Clipped, Self::HardTanh, Self::Tanh, Self::ApproxSign];

    /// The quantized value of `x`. NaN stays NaN.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Grid, StraightThrough};
    ///
    /// let grid = Grid { alpha: 0.5, qmin: -2, qmax: 1 };
    /// assert_eq!(StraightThrough::Identity.forward(0.8f64, grid), 0.5);
    /// assert_eq!(StraightThrough::Tanh.forward(0.0f64, grid), 0.5);
    /// ```
    pub fn forward<R: Real>(self, x: R, grid: Grid) -> R {
        let y = x.widen() / grid.alpha;
        let code = match self {
            // `clamp` would panic on an empty range, and `max` alone would lose NaN
            Self::Identity | Self::Clipped if !y.is_nan() => {
                y.round_ties_even().max(f64::from(grid.qmin)).min(f64::from(grid.qmax))
            }
            Self::Identity | Self::Clipped => y,
            Self::HardTanh | Self::Tanh | Self::ApproxSign => sign(y),
        };
        R::of(grid.alpha * code)
    }

    /// The factor by which the gradient of the quantized value is multiplied. NaN stays NaN, except for
    /// `Identity`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Grid, StraightThrough};
    ///
    /// let grid = Grid { alpha: 0.5, qmin: -2, qmax: 1 };
    /// assert_eq!(StraightThrough::ApproxSign.backward_factor(0.125f64, grid), 1.5);
    /// assert_eq!(StraightThrough::Clipped.backward_factor(0.6f64, grid), 0.0);
    /// ```
    pub fn backward_factor<R: Real>(self, x: R, grid: Grid) -> R {
        let y = x.widen() / grid.alpha;
        R::of(match self {
            Self::Identity => 1.0,
            Self::Clipped => indicator(y, y >= f64::from(grid.qmin) && y <= f64::from(grid.qmax)),
            Self::HardTanh => indicator(y, y.abs() <= 1.0),
            Self::Tanh => 1.0 - y.tanh() * y.tanh(),
            Self::ApproxSign if y.is_nan() => y,
            Self::ApproxSign => (2.0 - 2.0 * y.abs()).max(0.0),
        })
    }

    /// The function of `y = x/alpha` whose derivative is the factor. It is the mean of rounding, or of
    /// the sign, under the matched noise.
    ///
    /// ```text
    /// Identity, Clipped   y
    /// HardTanh            clip(y, −1, 1)
    /// Tanh                tanh(y)
    /// ApproxSign          2y − y·|y| for |y| ≤ 1, else sign(y)
    /// ```
    /// For `Clipped` it is the mean before codes are clipped; noise makes the clipping smooth at the ends.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::StraightThrough;
    ///
    /// assert_eq!(StraightThrough::ApproxSign.surrogate(0.5), 0.75);
    /// ```
    pub fn surrogate(self, y: f64) -> f64 {
        match self {
            Self::Identity | Self::Clipped => y,
            Self::HardTanh => y.clamp(-1.0, 1.0),
            Self::Tanh => y.tanh(),
            Self::ApproxSign => {
                let y = y.clamp(-1.0, 1.0);
                2.0 * y - y * y.abs()
            }
        }
    }

    /// The size ε̄ of the matched noise in units of the grid: perturbations are `alpha·ε̄·u`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::StraightThrough;
    ///
    /// // rounding forgets what uniform noise of one grid step adds
    /// assert!((StraightThrough::Identity.epsilon_bar() * 12f64.sqrt() - 1.0).abs() < 1e-15);
    /// ```
    pub fn epsilon_bar(self) -> f64 {
        match self {
            Self::Identity | Self::Clipped => 0.5 / 3f64.sqrt(),
            Self::HardTanh => 1.0 / 3f64.sqrt(),
            Self::Tanh => std::f64::consts::PI / 12f64.sqrt(),
            Self::ApproxSign => 1.0 / 6f64.sqrt(),
        }
    }

    /// The matched noise `u`, which has mean 0 and variance 1: the inverse of its distribution function
    /// at `p`, where `p` is uniform in `[0, 1)`.
    ///
    /// `p` outside `[0, 1]` counts as the nearer end. The noise of `Tanh` is unbounded, so its ends are
    /// 2⁻⁵⁴ and the largest number below 1.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::StraightThrough;
    ///
    /// assert_eq!(StraightThrough::HardTanh.noise(1.0), 3f64.sqrt());
    /// assert!(StraightThrough::Tanh.noise(0.0).is_finite());
    /// ```
    pub fn noise(self, p: f64) -> f64 {
        let p = p.clamp(0.0, 1.0);
        match self {
            Self::Identity | Self::Clipped | Self::HardTanh => 3f64.sqrt() * (2.0 * p - 1.0),
            Self::Tanh => {
                let p = p.clamp(1.0 / (1u64 << 54) as f64, 1.0 - f64::EPSILON / 2.0);
                (p.ln() - (-p).ln_1p()) / (2.0 * self.epsilon_bar())
            }
            Self::ApproxSign if p < 0.5 => 6f64.sqrt() * ((2.0 * p).sqrt() - 1.0),
            Self::ApproxSign => 6f64.sqrt() * (1.0 - (2.0 * (1.0 - p)).sqrt()),
        }
    }

    /// [`StraightThrough::forward`] of every element.
    ///
    /// # Errors
    /// As [`Grid::validate`]; [`Error::LengthMismatch`] if `out` does not have the length of `x`. Nothing
    /// is written then.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Grid, StraightThrough};
    ///
    /// let mut out = [0.0f32; 2];
    /// let grid = Grid { alpha: 1.0, qmin: -7, qmax: 7 };
    /// StraightThrough::Identity.forward_slice(&[2.5, -9.0], grid, &mut out)?;
    /// assert_eq!(out, [2.0, -7.0]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn forward_slice<R: Real>(self, x: &[R], grid: Grid, out: &mut [R]) -> Result<()> {
        grid.validate()?;
        check_length("out", &[x.len()], x.len(), out.len())?;
        out.iter_mut().zip(x).for_each(|(out, &x)| *out = self.forward(x, grid));
        Ok(())
    }

    /// The gradient of every element: [`StraightThrough::backward_factor`] times the gradient of the
    /// quantized value.
    ///
    /// # Errors
    /// As [`StraightThrough::forward_slice`]; `upstream`, too, must have the length of `x`.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Grid, StraightThrough};
    ///
    /// let mut out = [0.0f32; 2];
    /// let grid = Grid { alpha: 1.0, qmin: -1, qmax: 1 };
    /// StraightThrough::HardTanh.backward_slice(&[0.5, -9.0], &[4.0, 4.0], grid, &mut out)?;
    /// assert_eq!(out, [4.0, 0.0]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn backward_slice<R: Real>(
        self,
        x: &[R],
        upstream: &[R],
        grid: Grid,
        out: &mut [R],
    ) -> Result<()> {
        grid.validate()?;
        check_length("upstream", &[x.len()], x.len(), upstream.len())?;
        check_length("out", &[x.len()], x.len(), out.len())?;
        for (out, (&x, &upstream)) in out.iter_mut().zip(x.iter().zip(upstream)) {
            *out = upstream * self.backward_factor(x, grid);
        }
        Ok(())
    }
}
