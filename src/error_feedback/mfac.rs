use super::compression::Compression;
use super::fisher::{Fisher, Normalization};
use super::memory::{WindowMemory, WindowOptions};
use super::momentum::Momentum;
use super::window_method::WindowMethod;
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::numeric::Real;
use crate::optim::{Rule, Scope};

/// M-FAC: natural gradients of the last `m` gradients, full matrix, without a matrix of the size of the
/// model; its window dense, sparse with error feedback, or of low rank.
///
/// *Use it when* curvature is the point, and a window fits: at a density of 1 % with `m = 1024` it takes
/// 62 bytes per parameter in place of 4096. *Not when* `damp` cannot be tuned: what counts is `lr/damp`,
/// the step in directions that the window has not seen.
///
/// ```text
/// c = C(ξ + g);  ξ ← ξ + g − c                   C: compression; without it c = g
/// F = λI + (1/n) Σ cᵢcᵢᵀ                         over the last m gradients, c among them
/// u = F⁻¹c = n·Gᵀ(GGᵀ + nλI)⁻¹e                  rows of G: the gradients; e picks the newest
/// p ← base(p, u)                                 momentum, decay, learning rate
/// ```
/// `u` is never stored: each tensor's part of it is computed where it is used. Gram matrix and its
/// Cholesky factor are in `f64`.
///
/// | field | default | whose |
/// |---|---|---|
/// | `base` | [`Momentum`], lr 1e-3 | M-FAC's code |
/// | `window` m | 1024 | paper |
/// | `damp` λ | 1e-5 | M-FAC's code |
/// | `damp_relative` | 0: λ is absolute | 1e-3 and the like adapt it to the gradients |
/// | `normalization` | `Window`: n = m | all published code; `Count` while the window fills |
/// | `gradient_decay` | 0 | L2, before everything: M-FAC's code |
/// | `compression` | `None`; [`MFac::sparse`], [`MFac::low_rank`] | EFCP |
/// | `scope` | `Group` | `Model`: one F for all groups |
/// | `tolerated_failures` | 3 | – |
///
/// State per parameter: dense 4m bytes; sparse 6mρ at density ρ, 4mρ with `bf16_values`, and the
/// residual's 4; low rank 4mr(a + b)/(ab) for a matrix a × b, and 4. Per vector 8m² for the Gram
/// matrix. And the base's.
///
/// # Errors
/// `build` refuses options out of range. A parameter that was not there at the first step is refused,
/// unless the scope is `Tensor`. A step fails if the Gram matrix could not be factored four times in a
/// row, which takes gradients that overflow.
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
/// let mut opt = MFac { base, window: 8, damp: 0.1, ..MFac::sparse(0.5) }.build()?;
/// for _ in 0..200 {
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - target).iter().all(|x: &f64| x.abs() < 0.05));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The published recursion subtracts two vectors of length `‖g‖/λ` and is wrong by a factor of ten in
/// `f32` at λ = 1e-8; the form above subtracts nothing. Indices have no sign and no limit. Parameters
/// without a gradient count as zero and do not move.
///
/// # Source
/// E. Frantar, E. Kurtic, D. Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order
/// Information", NeurIPS 2021; I. Modoranu, A. Kalinov, E. Kurtic, E. Frantar, D. Alistarh, "Error
/// Feedback Can Accurately Compress Preconditioners", ICML 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MFac<U = Momentum> {
    /// What is done with the direction.
    pub base: U,
    /// Number `m >= 1` of gradients that are remembered.
    pub window: usize,
    /// Damping `λ > 0`.
    pub damp: f64,
    /// Damping as a multiple of the mean squared length of the gradients, added to `damp`; `>= 0`.
    pub damp_relative: f64,
    /// What the sum of outer products is divided by.
    pub normalization: Normalization,
    /// L2 regularisation `>= 0`: weight of the parameter in the gradient, before everything.
    pub gradient_decay: f64,
    /// What is kept of a gradient.
    pub compression: Compression,
    /// Which parameters form one vector.
    pub scope: Scope,
    /// Failures in a row that are still borne.
    pub tolerated_failures: u64,
}

impl Default for MFac {
    fn default() -> Self {
        Self::with_base(Momentum::default())
    }
}

impl MFac {
    /// The largest `density` of every gradient, with error feedback: EFCP's S-MFAC.
    pub fn sparse(density: f64) -> Self {
        Self { compression: Compression::sparse(density), ..Self::default() }
    }

    /// Factors of `rank` columns of every matrix, with error feedback: EFCP's LR-MFAC.
    pub fn low_rank(rank: usize) -> Self {
        Self { compression: Compression::low_rank(rank), ..Self::default() }
    }
}

impl<U> MFac<U> {
    /// The defaults around any rule.
    pub fn with_base(base: U) -> Self {
        Self {
            base,
            window: 1024,
            damp: 1e-5,
            damp_relative: 0.0,
            normalization: Normalization::Window,
            gradient_decay: 0.0,
            compression: Compression::None,
            scope: Scope::Group,
            tolerated_failures: 3,
        }
    }
}

impl<U: Rule> Hyperparameters for MFac<U> {
    const NAME: &'static str = "MFac";

    /// The base's options under their own names, then those of the window.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.base.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("window", Range::CountFrom(1), &mut self.window);
        option("damp", Range::Positive, &mut self.damp);
        option("damp_relative", Range::NonNegative, &mut self.damp_relative);
        option("gradient_decay", Range::NonNegative, &mut self.gradient_decay);
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
            gradient_decay: self.gradient_decay,
            tolerated_failures: self.tolerated_failures,
        }
    }

    fn coefficients<R: Real>(&self, memory: &mut WindowMemory<R>) -> Result<Vec<f64>> {
        let window = memory.window();
        let squares: f64 = (0..window.count()).map(|slot| window.gram(slot, slot)).sum();
        let mean = squares / window.count().max(1) as f64;
        let damp = self.damp + self.damp_relative * mean;
        Fisher { damp, normalization: self.normalization }.newest(window)
    }
}
