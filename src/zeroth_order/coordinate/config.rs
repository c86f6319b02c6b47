//! Estimates one coordinate at a time.

use crate::hyperparameters;
use crate::optim::NonFinite;
use crate::zeroth_order::estimator::FiniteDifference;

/// Finite differences along every coordinate, or along those of an active set: DeepZero's gradient.
///
/// *Use it when* parameters are few, or few of them are active: unlike random directions it has no
/// variance. *Not when* there are millions: a step takes one evaluation per active coordinate.
///
/// ```text
/// forward:  ĝ_j = (f(p + ε·e_j) − f(p))/ε                 |S| + 1 evaluations; error (ε/2)·H_jj
/// central:  ĝ_j = (f(p + ε·e_j) − f(p − ε·e_j))/(2ε)      2|S| evaluations; exact for quadratics
/// ĝ_j = 0 outside the active set S
/// ```
///
/// | field | default | whose |
/// |---|---|---|
/// | `epsilon` ε | 5e-3 | DeepZero; for `f64` losses 1e-6, central 1e-5 |
/// | `difference` | `Forward` | DeepZero |
/// | `seed` | 0: of [`redraw`](crate::zeroth_order::CoordinateEstimator::redraw) | – |
/// | `non_finite` | `Error`; `Skip` takes 0 for a coordinate whose loss is not finite | – |
///
/// Memory: 24 bytes per active coordinate and 8 for its loss; parameters are not copied: the coordinate is
/// saved and put back.
///
/// Coordinates outside the active set have a gradient of zero, not none: momentum and decay still move
/// them, as in the paper's code; [`step_frozen`](crate::zeroth_order::ZerothOrder::step_frozen) leaves them alone.
///
/// # Errors
/// `build` refuses options out of range and parameters of 16 bits; a step an empty active set.
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Coordinate {
    /// Perturbation size, above 0.
    pub epsilon: f64,
    /// Where the loss is evaluated.
    pub difference: FiniteDifference,
    /// Seed of active sets.
    pub seed: u64,
    /// What happens to losses that are NaN or infinite.
    pub non_finite: NonFinite,
}

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
