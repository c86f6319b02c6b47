//! How estimates by coordinate are configured.

use crate::hyperparameters;
use crate::optim::NonFinite;
use crate::zeroth_order::estimator::FiniteDifference;

/// Finite differences along every coordinate, or along those of an active set: the estimator of DeepZero.
///
/// *Use it when* there are few parameters, or few of them are active: unlike random directions, it has no
/// variance. *Not when* there are millions: a step takes one or two evaluations per active coordinate.
///
/// ```text
/// forward:  ĝ_j = (f(p + ε·e_j) − f(p))/ε                 |S| + 1 evaluations; error (ε/2)·H_jj
/// central:  ĝ_j = (f(p + ε·e_j) − f(p − ε·e_j))/(2ε)      2|S| evaluations; exact for quadratics
/// ĝ_j = 0 outside the active set S
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `epsilon` ε | 5e-3; for losses in `f64` 1e-6, or 1e-5 with `Central` | DeepZero |
/// | `difference` | `Forward` | DeepZero |
/// | `seed` | 0; selects random active sets | – |
/// | `non_finite` | `Error`; `Skip` estimates 0 for a coordinate whose loss is not finite | – |
///
/// Memory: 24 bytes per active coordinate, and 8 for its loss. The parameters are not copied; only the
/// active coordinates are saved and restored.
///
/// Coordinates outside the active set have a gradient of zero, so that momentum and weight decay still
/// change them, as in the authors' code. [`step_frozen`](crate::zeroth_order::ZerothOrder::step_frozen)
/// leaves them unchanged.
///
/// # Errors
/// `build` refuses options out of range and 16-bit parameters. A step refuses an empty active set.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Coordinate, Estimator}};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, -2.0];
/// let mut estimator = Coordinate { epsilon: 1e-6, ..Coordinate::default() }.build::<f64>()?;
/// let mut opt = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build()?;
/// for _ in 0..200 {
///     let estimate = estimator.estimate(&mut w, |w| w[0] * w[0] + 3.0 * w[1] * w[1])?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 1e-3), "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// A. Chen, Y. Zhang, J. Jia, J. Diffenderfer, J. Liu, K. Parasyris, Y. Zhang, Z. Zhang, B. Kailkhura,
/// S. Liu, "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model Training", 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Coordinate {
    /// The perturbation size, above 0.
    pub epsilon: f64,
    /// Where the loss is evaluated.
    pub difference: FiniteDifference,
    /// The seed of random active sets.
    pub seed: u64,
    /// What happens to losses that are NaN or infinite.
    pub non_finite: NonFinite,
}
crate::config_file::named_fields!(Coordinate);

impl Default for Coordinate {
    fn default() -> Self {
        Self {
            epsilon: 5e-3,
            difference: FiniteDifference::Forward,
            seed: 0,
            non_finite: NonFinite::Error,
        }
    }
}

hyperparameters!(Coordinate, "Coordinate", {
    "epsilon": Positive = epsilon;
});
