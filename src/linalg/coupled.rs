//! Coupled iterations for inverse p-th roots: X → A^(−1/p) and M = Xᵖ A → I together, by matrix products
//! only.

use super::checks::invalid;
use super::damping::RidgeRetry;
use super::functions::matmul;
use super::norms::{frobenius, max_abs, symmetrized};
use super::routines::NO_CONVERGENCE;
use super::spectral::spectral_norm;
use super::task::Task;
use crate::error::Result;
use crate::numeric::Real;
use ndarray::Array2;

/// What the exponent of a coupled iteration must be.
pub(crate) const COUPLED_EXPONENT: &str =
    "a fraction q/p with q <= 64, p <= 1024 for a coupled iteration";

/// An exponent q/p in lowest terms.
#[derive(Clone, Copy)]
pub(super) struct Fraction {
    pub(super) q: u32,
    pub(super) p: u32,
}

impl Fraction {
    pub(super) fn of(exponent: f64) -> Result<Self> {
        let fraction = |q: u32| {
            let p = (f64::from(q) / exponent).round();
            let fits = (1.0..=1024.0).contains(&p)
                && (f64::from(q) - exponent * p).abs() <= 1e-12 * f64::from(q);
            fits.then_some(Fraction { q, p: p as u32 })
        };
        (1..=64).find_map(fraction).ok_or_else(|| invalid("exponent", COUPLED_EXPONENT, exponent))
    }
}

/// When a coupled Newton iteration stops, and what counts as a root; the iteration is that of
/// [`InverseRoot::CoupledNewton`](super::InverseRoot::CoupledNewton).
///
/// | | tolerance | iterations | growth | accepted | further ridges |
/// |---|---|---|---|---|---|
/// | [`DISTRIBUTED`](Self::DISTRIBUTED), the default | 1e-6 | 100 | any | 0.1 | none |
/// | [`SCALABLE`](Self::SCALABLE) | 1e-6 | 100 | 1.2 | 0.1 | [`RidgeRetry::SCALABLE`] |
///
/// # Errors
/// Methods that take these options refuse a tolerance, a growth or an error below 0, and a [`RidgeRetry`]
/// out of range.
///
/// # Source
/// R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable Second Order Optimization for Deep
/// Learning", 2020, and its published code; H.-J. M. Shi and others, "A Distributed Data-Parallel
/// PyTorch Implementation of the Distributed Shampoo Optimizer", 2023.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", default, deny_unknown_fields))]
pub struct CoupledNewton {
    /// Largest |M − I| at which to stop, `>= 0`.
    pub tolerance: f64,
    /// Largest number of iterations.
    pub max_iterations: usize,
    /// If max|M − I| grows by more than this factor, stop and keep the iterate before.
    pub max_growth: Option<f64>,
    /// Fail if |A Xᵖ − I| exceeds this in the end; `None` takes what there is, as long as it is
    /// finite.
    pub accept: Option<f64>,
    /// Try again with a larger ridge while |A Xᵖ − I| is too large; `None` tries once.
    pub retry: Option<RidgeRetry>,
}
crate::config_file::presets!(CoupledNewton, [DISTRIBUTED, SCALABLE]);

impl Default for CoupledNewton {
    fn default() -> Self {
        Self::DISTRIBUTED
    }
}

impl CoupledNewton {
    /// As in Distributed Shampoo.
    pub const DISTRIBUTED: Self = Self {
        tolerance: 1e-6,
        max_iterations: 100,
        max_growth: None,
        accept: Some(0.1),
        retry: None,
    };

    /// As in Scalable Shampoo.
    ///
    /// Where eigenvalues of zA lie on both sides of 1, the error can rise once although the iteration
    /// converges. `max_growth` then stops it too early, and the root is that of a matrix with a larger
    /// ridge.
    pub const SCALABLE: Self =
        Self { max_growth: Some(1.2), retry: Some(RidgeRetry::SCALABLE), ..Self::DISTRIBUTED };

    /// (A + εI)^(−q/p), by Newton's scale.
    pub(super) fn root<R: Real>(
        &self,
        task: Task,
        mut a: Array2<R>,
        ridge: f64,
        fraction: Fraction,
        symmetric: bool,
    ) -> Result<Array2<R>> {
        let Self { tolerance, max_iterations, max_growth, accept, retry } = *self;
        let (order, max_growth) = (2, max_growth.unwrap_or(f64::INFINITY));
        let diagonal = a.diag().to_owned();
        RidgeRetry::attempt(retry, ridge, accept, |ridge, accept| {
            a.diag_mut().assign(&diagonal.mapv(|x| x + R::of(ridge)));
            let z = (1.0 + fraction.p as f64) / (2.0 * frobenius(&a));
            Coupled { order, tolerance, max_iterations, max_growth, accept, symmetric }
                .root(task, &a, z, fraction)
        })
    }
}

/// When a coupled iteration of any order stops, and what it may return.
pub(super) struct Coupled {
    /// Terms of the series from the second step on; the first has two.
    pub(super) order: usize,
    pub(super) tolerance: f64,
    pub(super) max_iterations: usize,
    pub(super) max_growth: f64,
    pub(super) accept: Option<f64>,
    /// Whether A is symmetric, and its root to be so exactly.
    pub(super) symmetric: bool,
}

impl Coupled {
    /// A^(−q/p), from X = z^(1/p) I.
    pub(super) fn root<R: Real>(
        &self,
        task: Task,
        a: &Array2<R>,
        z: f64,
        Fraction { q, p }: Fraction,
    ) -> Result<Array2<R>> {
        if z <= 0.0 || !z.is_finite() {
            return Err(task.fails("its scale is 0, negative or too large"));
        }
        let finish = |x: Array2<R>| if self.symmetric { symmetrized(&x) } else { x };
        let x = finish(self.iterate(a, z, p)?);
        if let Some(bound) = self.accept {
            let mut error = matmul(a, &power(&x, p)?)?;
            error.diag_mut().mapv_inplace(|x| x - R::one());
            let error = symmetrized(&error);
            // the largest entry alone would miss a null space that is spread over many of them
            let accepted = |error: f64| error <= bound;
            if !accepted(max_abs(&error)) || !accepted(spectral_norm(&error, 20, 1e-2)?) {
                return Err(task.fails(NO_CONVERGENCE));
            }
        }
        Ok(finish(power(&x, q)?))
    }

    fn iterate<R: Real>(&self, a: &Array2<R>, z: f64, p: u32) -> Result<Array2<R>> {
        let start = R::of(z.powf(1.0 / f64::from(p)));
        let mut x = Array2::eye(a.nrows()).mapv(|unit: R| start * unit);
        // rounded after the product: z alone may be too small for the number type
        let mut m = a.mapv(|a| R::of(z * a.widen()));
        let mut error = max_abs(&from_identity(&m));
        for iteration in 0..self.max_iterations {
            if error <= self.tolerance {
                break;
            }
            let terms = if iteration == 0 { 2 } else { self.order };
            let t = series(&m, p, terms)?;
            let next = matmul(&power(&t, p)?, &m)?;
            let last = std::mem::replace(&mut error, max_abs(&from_identity(&next)));
            // NaN is growth, too
            if error.is_nan() || error > self.max_growth * last {
                break;
            }
            (x, m) = (matmul(&x, &t)?, next);
            if error == last && error < 1e-3 {
                break;
            }
        }
        Ok(x)
    }
}

/// I − M
fn from_identity<R: Real>(m: &Array2<R>) -> Array2<R> {
    let mut e = m.mapv(|x| -x);
    e.diag_mut().mapv_inplace(|x| x + R::one());
    e
}

/// The first terms of (I − E)^(−1/p) = Σ bᵢ Eⁱ, E = I − M, by Horner's rule.
fn series<R: Real>(m: &Array2<R>, p: u32, terms: usize) -> Result<Array2<R>> {
    let p = f64::from(p);
    let ratio = |j: usize| (1.0 + (j as f64 - 1.0) * p) / (j as f64 * p);
    let b = |i: usize| R::of((1..=i).map(ratio).product());
    let e = from_identity(m);
    let last = b(terms - 1);
    let mut t = e.mapv(|x| last * x);
    for i in (0..terms - 1).rev() {
        t.diag_mut().mapv_inplace(|x| x + b(i));
        if i > 0 {
            t = matmul(&t, &e)?;
        }
    }
    Ok(t)
}

/// Aⁿ, n >= 1, by repeated squaring.
fn power<R: Real>(a: &Array2<R>, mut n: u32) -> Result<Array2<R>> {
    let mut square = a.clone();
    let mut result: Option<Array2<R>> = None;
    loop {
        if n % 2 == 1 {
            result = Some(match result {
                None => square.clone(),
                Some(result) => matmul(&result, &square)?,
            });
        }
        n /= 2;
        if n == 0 {
            return Ok(result.unwrap_or(square));
        }
        square = matmul(&square, &square)?;
    }
}
