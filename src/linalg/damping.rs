//! Damping: the ridge that a matrix gets before its root is taken.

use crate::error::Result;

/// A multiple of the identity that is added to a matrix before it is inverted.
///
/// ```text
/// ε = max(relative · λ̄, absolute)        λ̄ ≈ λmax(A); how it is found is the method's choice
/// ```
///
/// # Examples
/// ```
/// use eigenstep::linalg::Damping;
///
/// assert_eq!(Damping::relative(1e-4).ridge(50.0), 5e-3);
/// assert_eq!(Damping::absolute(1e-12).ridge(50.0), 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Damping {
    /// In units of the largest eigenvalue, `>= 0`.
    pub relative: f64,
    /// A lower bound, or the whole damping, `>= 0`.
    pub absolute: f64,
}
crate::config_file::named_fields!(Damping);

impl Damping {
    /// ε = `epsilon`, whatever the matrix.
    pub const fn absolute(epsilon: f64) -> Self {
        Self { relative: 0.0, absolute: epsilon }
    }

    /// ε = `epsilon`·λmax: the root of cA is then exactly as well conditioned as that of A.
    pub const fn relative(epsilon: f64) -> Self {
        Self { relative: epsilon, absolute: 0.0 }
    }

    /// ε for a matrix whose largest eigenvalue is `largest`.
    pub const fn ridge(self, largest: f64) -> f64 {
        (self.relative * largest).max(self.absolute)
    }
}

/// Further tries of an inverse root that is not good enough, with ridges that grow.
///
/// ```text
/// ε, growth·ε, growth²·ε, …         until the error is at most `above`, in all `tries` times
/// ```
/// The last try is judged by what the method accepts, and its result is the root of a matrix that is
/// damped growth^(tries − 1) times as much as was asked for: less precise, but a root. Without a ridge
/// there is nothing to enlarge, and only one try.
///
/// # Errors
/// Methods that take these options refuse an `above` below 0, and a `growth` that is below 1 or not
/// finite. `tries: 0` counts as 1.
///
/// # Source
/// The published code of R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable Second
/// Order Optimization for Deep Learning", 2020.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(remote = "Self", deny_unknown_fields))]
pub struct RidgeRetry {
    /// Error |A Xᵖ − I| above which to try again, `>= 0`.
    pub above: f64,
    /// Tries in all, the first one counted.
    pub tries: u32,
    /// Factor from one ridge to the next, `>= 1`.
    pub growth: f64,
}
crate::config_file::presets!(RidgeRetry, [SCALABLE]);

impl RidgeRetry {
    /// As in Scalable Shampoo: up to six tries, each with ten times the ridge, while the error is
    /// above 0.05.
    pub const SCALABLE: Self = Self { above: 0.05, tries: 6, growth: 10.0 };

    /// What `try_with(ridge, largest error)` gives at the first ridge where it does not fail.
    pub(super) fn attempt<O>(
        retry: Option<Self>,
        mut ridge: f64,
        accept: Option<f64>,
        mut try_with: impl FnMut(f64, Option<f64>) -> Result<O>,
    ) -> Result<O> {
        if let Some(Self { above, tries, growth }) = retry.filter(|_| ridge > 0.0) {
            for _ in 1..tries {
                if let Ok(root) = try_with(ridge, Some(above)) {
                    return Ok(root);
                }
                ridge *= growth;
            }
        }
        try_with(ridge, accept)
    }

    /// The field that is out of range, what was expected, and what was found.
    pub(super) fn wrong(&self) -> Option<(&'static str, &'static str, f64)> {
        let Self { above, growth, .. } = *self;
        if above.is_nan() || above < 0.0 {
            Some(("retry.above", ">= 0", above))
        } else if !(1.0..f64::INFINITY).contains(&growth) {
            Some(("retry.growth", "finite and >= 1", growth))
        } else {
            None
        }
    }
}
