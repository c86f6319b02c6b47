//! Maximal update parametrisation (µP): how options change with the width of a network, so that those
//! tuned on a narrow one suit a wide one.

use super::LrAdjustment;
use crate::error::{Error, Result};

/// The place of a weight in a network whose hidden layers have `M` units. Shapes are outputs × inputs
/// ([which way round](crate::params#which-way-round-is-a-matrix)); apart from the two dampings, and from Muon's
/// factors on the learning rate, the numbers are the same for a weight that is stored the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// M × d, from a fixed number of inputs; and every bias except that of the output, which needs no
    /// scaling.
    Input,
    /// M × M.
    Hidden,
    /// C × M, to a fixed number of outputs.
    Output,
}

/// The kind of update, as far as the size of a step depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateKind {
    /// The gradient itself, or a direction of the same length: [`Sgd`](crate::first_order::Sgd), and
    /// [`Shampoo`](super::Shampoo) with [`Graft::Gradient`](super::Graft::Gradient), its default.
    Sgd,
    /// A direction whose entries do not depend on the size of gradients: [`AdamW`](crate::first_order::AdamW) and its
    /// relatives, [`Lion`](crate::first_order::Lion), anything grafted on them. Decoupled decay is γλ: divide λ by the
    /// factor on γ to keep it.
    Adam,
    /// [`Shampoo`](super::Shampoo) without grafting, with this exponent on either side: 1/4, or 1/2. Both sides
    /// must have factors at every width (`max_aspect: None`).
    Shampoo {
        /// The exponent e of `L^(−e) G R^(−e)`.
        exponent: f64,
    },
    /// `B⁻¹ G A⁻¹` with `A = E[h hᵀ]` of the layer's inputs and `B = E[δ δᵀ]` of the gradients of its
    /// outputs.
    Kfac,
    /// A matrix of singular values 1, times the learning rate.
    Spectral,
    /// [`Muon`](super::Muon), whose adjustment of the learning rate to shapes does part of the work.
    Muon(LrAdjustment),
}

/// Factors on options that were tuned at the narrow width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WidthScales {
    /// On the learning rate.
    pub lr: f64,
    /// On the absolute damping of the factor of rows: L, or B. Relative damping needs none.
    pub left_damping: f64,
    /// On the absolute damping of the factor of columns: R, or A.
    pub right_damping: f64,
    /// On the standard deviation of the initial weights.
    pub init_std: f64,
}

/// Factors on learning rate, damping and initial weights of a network that is `width_ratio` times as
/// wide as the one on which they were tuned (maximal update parametrisation, µP).
///
/// *Use it when* options are searched for on a small model and used on a large one. *Not when* only
/// depth, data or batch change: it knows about width alone.
///
/// With M for the ratio:
///
/// | | input weights, biases | hidden | output |
/// |---|---|---|---|
/// | `init_std` | 1 | M^(−1/2) | M^(−1) |
/// | `lr` of `Sgd` | M | 1 | M^(−1) |
/// | `lr` of `Adam` | 1 | M^(−1) | M^(−1) |
/// | `lr` of `Shampoo`, e = 1/4 | M^(1/2) | 1 | M^(−1/2) |
/// | `lr` of `Shampoo`, e = 1/2 | 1 | 1 | 1 |
/// | both dampings of `Shampoo` | M^(−1) | 1 | M |
/// | `lr` of `Kfac` | 1 | 1 | 1 |
/// | left damping, of B | M^(−1) | M^(−1) | 1 |
/// | right damping, of A | 1 | M | M |
/// | `lr` of `Spectral` | M^(1/2) | 1 | M^(−1/2) |
/// | `lr` of `Muon(Original)` | 1 | 1 | M^(−1/2) |
/// | `lr` of `Muon(MatchRmsAdamW)` | 1 | M^(−1/2) | M^(−1) |
/// | `lr` of `Muon(Spectral)` | 1 | 1 | 1 |
///
/// The argument in short: activations have entries of size 1, so gradients of hidden layers have entries
/// of size 1/M, and the spectral norms of weight gradients are `g = M^(−1/2), 1, M^(1/2)`. Every layer's
/// output moves by a fixed amount if the spectral norm of its update is 1/g. Factors of norm g² with
/// exponent e turn a gradient of norm g into a direction of norm `g^(1 − 4e)`, hence `lr ∝ g^(4e − 2)`.
/// Damping is proportional to the factor that it is added to.
///
/// An update that is grafted on Adam's scales like Adam. Blocks that are
/// smaller than a matrix bound the norms of factors: scale the block size with the width, or use no
/// blocks.
///
/// # Errors
/// [`Error::InvalidHyperparameter`] if `width_ratio` or the exponent is not a finite number above 0.
///
/// # Examples
/// ```
/// use eigenstep::second_order::{LayerRole, UpdateKind, mup_scales};
///
/// // from width 256 to 4096
/// let output = mup_scales(UpdateKind::Shampoo { exponent: 0.25 }, LayerRole::Output, 16.0)?;
/// assert_eq!((output.lr, output.left_damping, output.init_std), (0.25, 16.0, 1.0 / 16.0));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// S. Ishikawa, R. Karakida, "On the Parameterization of Second-Order Optimization Effective Towards
/// the Infinite Width", ICLR 2024. The table is derived by its argument of one step; a test takes
/// such steps at widths from 64 on.
pub fn mup_scales(kind: UpdateKind, role: LayerRole, width_ratio: f64) -> Result<WidthScales> {
    positive("width_ratio", width_ratio)?;
    if let UpdateKind::Shampoo { exponent } = kind {
        positive("exponent", exponent)?;
    }
    // everything is a power of the width; g is the norm of a gradient
    let (g, init) = match role {
        LayerRole::Input => (-0.5, 0.0),
        LayerRole::Hidden => (0.0, -0.5),
        LayerRole::Output => (0.5, -1.0),
    };
    let lr = match kind {
        UpdateKind::Sgd => -2.0 * g,
        // entries of size 1 make a matrix whose norm is the root of its size, or the product of lengths where it is
        // aligned with what comes in
        UpdateKind::Adam if role == LayerRole::Input => 0.0,
        UpdateKind::Adam => -1.0,
        UpdateKind::Shampoo { exponent } => (4.0 * exponent - 2.0) * g,
        UpdateKind::Kfac => 0.0,
        UpdateKind::Spectral => -g,
        UpdateKind::Muon(adjustment) => -g - adjusted(adjustment, role),
    };
    let (left, right) = match kind {
        UpdateKind::Kfac => match role {
            LayerRole::Input => (-1.0, 0.0),
            LayerRole::Hidden => (-1.0, 1.0),
            LayerRole::Output => (0.0, 1.0),
        },
        UpdateKind::Shampoo { .. } => (2.0 * g, 2.0 * g),
        _ => (0.0, 0.0),
    };
    let power = |exponent: f64| width_ratio.powf(exponent);
    Ok(WidthScales {
        lr: power(lr),
        left_damping: power(left),
        right_damping: power(right),
        init_std: power(init),
    })
}

impl WidthScales {
    /// The factors of a weight that the network multiplies by `multiplier`, so that what acts is `multiplier`·W, in the
    /// place of those of a weight that acts itself: `1/multiplier` on initial weights, and the power on the others
    /// with which the update that acts stays the same.
    ///
    /// The output with a multiplier of 1/M has the factors of the other common form of this parametrisation: initial
    /// weights of the same size at any width, `lr` of `Sgd` proportional to M, that of `Adam` constant.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] if the multiplier or the exponent is not a finite number above 0.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::second_order::{LayerRole, UpdateKind, mup_scales};
    ///
    /// let output = mup_scales(UpdateKind::Adam, LayerRole::Output, 16.0)?;
    /// let output = output.with_multiplier(UpdateKind::Adam, 1.0 / 16.0)?;
    /// assert_eq!((output.lr, output.init_std), (1.0, 1.0));
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn with_multiplier(self, kind: UpdateKind, multiplier: f64) -> Result<Self> {
        positive("multiplier", multiplier)?;
        // gradients are `multiplier` times as large; the update is of this degree in them
        let (degree, left, right) = match kind {
            UpdateKind::Sgd => (1.0, 0.0, 0.0),
            UpdateKind::Shampoo { exponent } => {
                positive("exponent", exponent)?;
                (1.0 - 4.0 * exponent, 2.0, 2.0)
            }
            UpdateKind::Kfac => (-1.0, 2.0, 0.0),
            UpdateKind::Adam | UpdateKind::Spectral | UpdateKind::Muon(_) => (0.0, 0.0, 0.0),
        };
        let power = |exponent: f64| multiplier.powf(exponent);
        Ok(Self {
            lr: self.lr * power(-1.0 - degree),
            left_damping: self.left_damping * power(left),
            right_damping: self.right_damping * power(right),
            init_std: self.init_std * power(-1.0),
        })
    }
}

/// The power of the width in the factor that Muon itself puts on the learning rate of a matrix.
fn adjusted(adjustment: LrAdjustment, role: LayerRole) -> f64 {
    use LrAdjustment::{LastTwoDims, MatchRmsAdamW, None, Original, Spectral};
    match (adjustment, role) {
        (Original | LastTwoDims | Spectral, LayerRole::Input) => 0.5,
        (Spectral, LayerRole::Output) => -0.5,
        (Original | LastTwoDims | Spectral | None, _) => 0.0,
        (MatchRmsAdamW, _) => 0.5,
    }
}

fn positive(field: &'static str, x: f64) -> Result<()> {
    if x > 0.0 && x.is_finite() {
        return Ok(());
    }
    let expected = "finite and > 0".into();
    let found = x.to_string();
    Err(Error::InvalidHyperparameter { optimizer: "mup_scales", field, expected, found })
}
