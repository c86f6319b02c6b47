use super::compression::Compression;
use super::memory::{WindowMemory, WindowOptions};
use super::momentum::Momentum;
use super::root::WindowRoot;
use super::window_method::WindowMethod;
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::numeric::Real;
use crate::numeric::limits::MOST_GRADIENTS;
use crate::optim::{Rule, Scope};

/// The formula of [`Ggt`]'s direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GgtForm {
    /// `Ĝ(T^½ + εI)⁻¹e`: for the newest gradient, without cancellation. Needs `beta1 = 0`.
    #[default]
    Newest,
    /// The published formula, for any vector. Multiples of `v/ε` cancel in it: in `f32` with
    /// `ε = 1e-7` no digit is correct.
    General,
}

/// GGT: full-matrix Adagrad over the last `r` gradients, without forming the full matrix. The window
/// of gradients is dense, sparse with error feedback, or of low rank.
///
/// *Use it when* a problem is convex or nearly so, and badly conditioned: linear probes, logistic
/// regression. *Not when* an eigendecomposition of order `r` per step is too expensive.
///
/// ```text
/// c = C(ξ + g);  ξ ← ξ + g − c                    C: compression; c = g without
/// v ← β₁v + (1 − β₁)c                             v = c if β₁ = 0
/// Ĝ = [β₂^age·c, …]                               over the last r gradients
/// u = [(ĜĜᵀ)^½ + εI]⁻¹ v
/// p ← base(p, u)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `base` | [`Momentum`], lr 1 | EFCP's logistic regression |
/// | `window` r | 100 | EFCP |
/// | `beta1` | 0 | EFCP's runs |
/// | `beta2` | 1 | EFCP's runs |
/// | `eps` ε | 1e-5 | EFCP's runs |
/// | `jitter` | 1e-6, added to the diagonal of ĜᵀĜ | EFCP |
/// | `relative_jitter` | false; true: `jitter` times max(1, mean of that diagonal) | – |
/// | `form` | `Newest` | – (published: `General`) |
/// | `l2` | 0; L2, added to the gradient before everything else | EFCP |
/// | `compression` | `None`; [`Ggt::sparse`], [`Ggt::low_rank`] | EFCP |
/// | `scope` | `Group` | – |
/// | `tolerated_failures` | 3 | – |
///
/// State in bytes per `f32` parameter: dense 4r; sparse 6rρ at density ρ, and 4 for the residual; low
/// rank 4rk(a + b)/(ab) for an a × b matrix at rank k, and 4 for the residual. `beta1 > 0` takes 4
/// more. The Gram matrix of a vector takes 8r² bytes.
///
/// # Errors
/// `build` refuses options out of range, and `form: Newest` with `beta1 > 0`. Unless the scope is
/// `Tensor`, a step refuses a parameter that was absent at the first step. A step also fails after
/// more than `tolerated_failures` consecutive failed decompositions; only gradients that overflow
/// cause these.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::{Ggt, Momentum};
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// // ten thousand times steeper along one axis than along the other
/// let curvature = array![100.0f64, 0.01];
/// let mut w = array![1.0, 1.0];
/// let base = Momentum { lr: 0.5, ..Momentum::default() };
/// let mut opt = Ggt { base, window: 10, ..Ggt::default() }.build()?;
/// for _ in 0..100 {
///     let grad = &w * &curvature;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|x: &f64| x.abs() < 0.05), "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// EFCP's dense code takes directions from gradients without decay, and their lengths from gradients
/// with decay. Here both have decayed. With `beta2 = 1` the results are the same.
///
/// # Source
/// N. Agarwal, B. Bullins, X. Chen, E. Hazan, K. Singh, C. Zhang, Y. Zhang, "Efficient Full-Matrix
/// Adaptive Regularization", ICML 2019; I. Modoranu, A. Kalinov, E. Kurtic, E. Frantar, D. Alistarh,
/// "Error Feedback Can Accurately Compress Preconditioners", ICML 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "Ggt::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(
    feature = "serde",
    serde(bound(deserialize = "U: Default + serde::Deserialize<'de> + 'static"))
)]
pub struct Ggt<U = Momentum> {
    /// The inner optimizer.
    pub base: U,
    /// Number `r >= 1` of gradients in the window.
    pub window: usize,
    /// Decay rate `β₁` in `[0, 1)` of the average that is preconditioned.
    pub beta1: f64,
    /// Decay rate `β₂` in `[0, 1]`: a gradient is multiplied by `β₂` with every step of its age.
    pub beta2: f64,
    /// Stabiliser `ε > 0`: the inverse step size in directions outside of the window.
    pub eps: f64,
    /// Number `>= 0` that is added to the diagonal of the Gram matrix.
    pub jitter: f64,
    /// Whether the jitter is a multiple of `max(1, mean of that diagonal)`.
    pub relative_jitter: bool,
    /// The formula of the direction.
    pub form: GgtForm,
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
crate::config_file::named_fields!(Ggt<U>, U);

impl<U: Default + 'static> Ggt<U> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        crate::config_file::default_or::<Ggt, _>(Self::with_base(U::default()))
    }
}

impl Default for Ggt {
    fn default() -> Self {
        Self::with_base(Momentum { lr: 1.0, ..Momentum::default() })
    }
}

impl Ggt {
    /// EFCP's S-GGT: a window of the largest elements, a share of `density`, with error feedback.
    pub fn sparse(density: f64) -> Self {
        Self { compression: Compression::sparse(density), ..Self::default() }
    }

    /// A window of factors of `rank` columns for every matrix, with error feedback.
    pub fn low_rank(rank: usize) -> Self {
        Self { compression: Compression::low_rank(rank), ..Self::default() }
    }
}

impl<U> Ggt<U> {
    /// The defaults, with another inner optimizer.
    pub fn with_base(base: U) -> Self {
        Self {
            base,
            window: 100,
            beta1: 0.0,
            beta2: 1.0,
            eps: 1e-5,
            jitter: 1e-6,
            relative_jitter: false,
            form: GgtForm::Newest,
            l2: 0.0,
            compression: Compression::None,
            scope: Scope::Group,
            tolerated_failures: 3,
        }
    }
}

impl<U: Rule> Hyperparameters for Ggt<U> {
    const NAME: &'static str = "Ggt";

    /// The inner optimizer's options under their own names, then those of the window.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.base.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("window", Range::Count(1, MOST_GRADIENTS), &mut self.window);
        option("beta1", Range::UnitHalfOpen, &mut self.beta1);
        option("beta2", Range::Unit, &mut self.beta2);
        option("eps", Range::Positive, &mut self.eps);
        option("jitter", Range::NonNegative, &mut self.jitter);
        option("relative_jitter", Range::Flag, &mut self.relative_jitter);
        option("l2", Range::NonNegative, &mut self.l2);
        option("tolerated_failures", Range::CountFrom(0), &mut self.tolerated_failures);
    }

    fn validate_together(&self) -> Result<()> {
        self.base.validate_together()?;
        self.compression.validate(Self::NAME)?;
        match self.form {
            GgtForm::Newest if self.beta1 != 0.0 => {
                let expected = "0 with the form `Newest`";
                Err(Self::invalid("beta1", expected, self.beta1.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl<U: Rule> WindowMethod for Ggt<U> {
    type Base = U;

    fn base(&self) -> &U {
        &self.base
    }

    fn window(&self) -> WindowOptions {
        WindowOptions {
            capacity: self.window,
            compression: self.compression,
            averages: self.beta1 != 0.0,
            scope: self.scope,
            l2: self.l2,
            tolerated_failures: self.tolerated_failures,
        }
    }

    fn coefficients<R: Real>(&self, memory: &mut WindowMemory<R>) -> Result<Vec<f64>> {
        let Self { eps, jitter, relative_jitter, .. } = *self;
        let root = WindowRoot { beta: self.beta2, eps, jitter, relative_jitter };
        let products = memory.average(self.beta1, 1.0 / eps);
        let window = memory.window();
        match (self.form, products) {
            (GgtForm::Newest, _) => root.newest(window),
            (GgtForm::General, Some(products)) => root.correction(window, products),
            (GgtForm::General, None) => {
                let newest = window.newest();
                let products = window.gram_row(newest).to_vec();
                let mut coefficients = root.correction(window, products)?;
                if let Some(own) = coefficients.get_mut(newest) {
                    *own += 1.0 / eps;
                }
                Ok(coefficients)
            }
        }
    }
}
