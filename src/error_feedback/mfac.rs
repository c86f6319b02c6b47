use super::compression::Compression;
use super::fisher::{Fisher, Normalization};
use super::memory::{WindowMemory, WindowOptions};
use super::momentum::Momentum;
use super::window_method::WindowMethod;
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::numeric::Real;
use crate::numeric::limits::MOST_GRADIENTS;
use crate::optim::{Rule, Scope};

/// M-FAC: the natural gradient of the full empirical Fisher matrix over the last `m` gradients,
/// without forming the matrix. The window of gradients is dense, sparse with error feedback, or of
/// low rank.
///
/// *Use it when* the problem needs the curvature of the whole model, and a window fits into memory:
/// with `m = 1024` a dense window takes 4096 bytes per parameter, and 62 at a density of 1 %. *Not
/// when* `damping` cannot be tuned: `lr/damping` is the step size in directions outside of the window.
///
/// ```text
/// c = C(ξ + g);  ξ ← ξ + g − c                   C: compression; c = g without
/// F = λI + (1/n) Σ cᵢcᵢᵀ                         over the last m gradients, with c
/// u = F⁻¹c = n·Gᵀ(GGᵀ + nλI)⁻¹e                  the rows of G are the gradients; e selects the newest
/// p ← base(p, u)                                 momentum, decay, learning rate
/// ```
/// `u` is never stored: the part of each tensor is computed where it is used. The Gram matrix and its
/// Cholesky factor are in `f64`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `base` | [`Momentum`], lr 1e-3 | M-FAC's code |
/// | `window` m | 1024 | paper |
/// | `damping` λ | 1e-5 | M-FAC's code |
/// | `damping_relative` | 0: λ is absolute; 1e-3 or so scales it with the gradients | – |
/// | `normalization` | `Window`: n = m; `Count`: the number of gradients in the window | all published code |
/// | `l2` | 0; L2, added to the gradient before everything else | M-FAC's code |
/// | `compression` | `None`; [`MFac::sparse`], [`MFac::low_rank`] | EFCP |
/// | `scope` | `Group`; `Model`: one F for all groups | – |
/// | `tolerated_failures` | 3 | – |
///
/// State in bytes per `f32` parameter: dense 4m; sparse 6mρ at density ρ, or 4mρ with `bf16_values`,
/// and 4 for the residual; low rank 4mr(a + b)/(ab) for an a × b matrix at rank r, and 4 for the
/// residual. The Gram matrix of a vector takes 8m² bytes. The inner optimizer adds its own state.
///
/// # Errors
/// `build` refuses options out of range. Unless the scope is `Tensor`, a step refuses a parameter
/// that was absent at the first step. A step also fails after more than `tolerated_failures`
/// consecutive failed decompositions of the Gram matrix; only gradients that overflow cause these.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::{MFac, Momentum};
/// use eigenstep::prelude::*;
/// use ndarray::{Array2, array};
///
/// let target = array![[1.0f64, 2.0], [3.0, 4.0]];
/// let mut w = Array2::<f64>::zeros((2, 2));
/// let base = Momentum { lr: 0.1, ..Momentum::default() };
/// let mut opt = MFac { base, window: 8, damping: 0.1, ..MFac::sparse(0.5) }.build()?;
/// for _ in 0..200 {
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - target).iter().all(|x: &f64| x.abs() < 0.05));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The published recursion subtracts two vectors of length `‖g‖/λ`; in `f32` at λ = 1e-8 it is wrong
/// by a factor of ten. The form above subtracts nothing. Indices of a sparse window are unsigned and
/// count within tiles, so a vector may have up to 2³² elements. A parameter without a gradient counts
/// as a zero gradient in F, and does not move.
///
/// # Source
/// E. Frantar, E. Kurtic, D. Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order
/// Information", NeurIPS 2021; I. Modoranu, A. Kalinov, E. Kurtic, E. Frantar, D. Alistarh, "Error
/// Feedback Can Accurately Compress Preconditioners", ICML 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "MFac::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(feature = "serde", serde(bound(deserialize = "U: Default + serde::Deserialize<'de>")))]
pub struct MFac<U = Momentum> {
    /// The inner optimizer.
    pub base: U,
    /// Number `m >= 1` of gradients in the window.
    pub window: usize,
    /// Damping `λ > 0`.
    pub damping: f64,
    /// Additional damping `>= 0`, as a multiple of the mean squared norm of the gradients.
    pub damping_relative: f64,
    /// The divisor of the sum of outer products.
    pub normalization: Normalization,
    /// L2 regularisation `>= 0`: this multiple of the parameter is added to the gradient before
    /// everything else.
    pub l2: f64,
    /// How the window is compressed.
    pub compression: Compression,
    /// Which parameters form one vector.
    pub scope: Scope,
    /// Consecutive failed decompositions that are tolerated.
    pub tolerated_failures: u64,
}
crate::config_file::named_fields!(MFac<U>, U);

impl<U: Default> MFac<U> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        Self::with_base(U::default())
    }
}

impl Default for MFac {
    fn default() -> Self {
        Self::with_base(Momentum::default())
    }
}

impl MFac {
    /// EFCP's S-MFAC: a window of the largest elements, a share of `density`, with error feedback.
    pub fn sparse(density: f64) -> Self {
        Self { compression: Compression::sparse(density), ..Self::default() }
    }

    /// EFCP's LR-MFAC: a window of factors of `rank` columns for every matrix, with error feedback.
    pub fn low_rank(rank: usize) -> Self {
        Self { compression: Compression::low_rank(rank), ..Self::default() }
    }
}

impl<U> MFac<U> {
    /// The defaults, with another inner optimizer.
    pub fn with_base(base: U) -> Self {
        Self {
            base,
            window: 1024,
            damping: 1e-5,
            damping_relative: 0.0,
            normalization: Normalization::Window,
            l2: 0.0,
            compression: Compression::None,
            scope: Scope::Group,
            tolerated_failures: 3,
        }
    }
}

impl<U: Rule> Hyperparameters for MFac<U> {
    const NAME: &'static str = "MFac";

    /// The inner optimizer's options under their own names, then those of the window.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.base.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("window", Range::Count(1, MOST_GRADIENTS), &mut self.window);
        option("damping", Range::Positive, &mut self.damping);
        option("damping_relative", Range::NonNegative, &mut self.damping_relative);
        option("l2", Range::NonNegative, &mut self.l2);
        option("tolerated_failures", Range::CountFrom(0), &mut self.tolerated_failures);
    }

    fn validate_together(&self) -> Result<()> {
        self.base.validate_together()?;
        self.compression.validate(Self::NAME)
    }
}

impl<U: Rule> WindowMethod for MFac<U> {
    type Base = U;

    fn base(&self) -> &U {
        &self.base
    }

    fn window(&self) -> WindowOptions {
        WindowOptions {
            capacity: self.window,
            compression: self.compression,
            averages: false,
            scope: self.scope,
            l2: self.l2,
            tolerated_failures: self.tolerated_failures,
        }
    }

    fn coefficients<R: Real>(&self, memory: &mut WindowMemory<R>) -> Result<Vec<f64>> {
        let window = memory.window();
        let squares: f64 = (0..window.count()).map(|slot| window.gram(slot, slot)).sum();
        let mean = squares / window.count().max(1) as f64;
        let damping = self.damping + self.damping_relative * mean;
        Fisher { damping, normalization: self.normalization }.newest(window)
    }
}
