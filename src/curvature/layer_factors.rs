//! The options of one layer's factors.

use super::kronecker_inverse::KroneckerInverse;
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::linalg::{COUPLED_EXPONENT, Damping, QrSigns};
use crate::numeric::limits::MOST_ITERATIONS;
use crate::second_order::factor::{FactorOptions, FactorStorage, RootSolver};

/// K-FAC and AdaBK: the gradient of one layer, whitened by statistics of the layer's inputs and output
/// gradients, for any optimizer.
///
/// *Use it when* your program has both, in a backward pass of its own or in hooks: they describe every
/// sample, whereas a gradient is only their sum. *Not when* you have gradients alone:
/// [`Shampoo`](crate::second_order::Shampoo) needs no more. For all layers of a network, convolutions among
/// them, [`NetworkFactors`](super::NetworkFactors) has the same options.
///
/// The weight W is out × in. X (samples × in) holds the inputs of the layer, Y (samples × out) the gradient
/// of each sample's loss at `X Wᵀ`, so that G = YᵀX/samples is the gradient of the mean loss:
/// ```text
/// every update_factors_every observations   L ← β·L + (1 − β)·YᵀY/samples
///                                           R ← β·R + (1 − β)·XᵀX/samples
/// every update_roots_every observations     L̂ ← (L/(1 − βᵘ) + εI)^(−e),  R̂ alike        u updates
/// precondition                              D = L̂ G R̂,  D ← D·‖G‖/‖D‖                  keep_norm
/// ```
/// With e = 1 and absolute damping D solves `(L + εI) D (R + εI) = G`: a natural gradient step, as far as
/// L ⊗ R equals the Fisher matrix. That is the model's own if Y belongs to labels drawn from its
/// predictions, and the empirical one if Y belongs to the labels of the data.
///
/// * *A bias* is one more column of W and G, the last, and a column of ones in X.
/// * *Shared weights*: a convolution gives a row per position, with its patch in X; a sequence gives a
///   row per token.
/// * *Scale.* Backward passes usually compute gradients of the mean loss. With these in Y, L is samples²
///   times smaller. As long as `keep_norm` is on and damping is relative, D depends neither on that nor on
///   any other scale of X and Y. Otherwise multiply Y by the number of samples.
///
/// Until the first root L̂ = R̂ = I. Other ways to damp and invert L ⊗ R, the eigenvalue-corrected one
/// (EKFAC) among them, are the variants of [`KroneckerInverse`].
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `exponent` e | 1, [`adabk`](Self::adabk) 1/2 | papers |
/// | `damping` ε | 0.1·λmax, [`adabk`](Self::adabk) 0.001·λmax | 4-bit Shampoo's |
/// | `inverse` | `PerFactor` | AdaBK; see [`KroneckerInverse`] |
/// | `keep_norm` | true | AdaBK |
/// | `storage` | `Dense` | – ; in 4 bits [`FactorStorage::EIGEN4_UNRECTIFIED`] is the authors', [`FactorStorage::EIGEN4`] closer to full precision |
/// | `iterations` | 2 | 4-bit Shampoo's: orthogonal iterations of `Eigen` and `QuantizedEigen` per update |
/// | `factor_beta` β | 0.9 | AdaBK; with 1, a plain sum |
/// | `bias_correction` | true | – ; false: `L + εI` in the equation |
/// | `initial` ε₀ | 0 | AdaBK's code: L = R = ε₀I before the first update |
/// | `root` | `Eigen` | – ; see [`RootSolver`] |
/// | `double_roots` | true | – ; false: in the type of the gradient |
/// | `qr_signs` | `Positive` | – |
/// | `update_factors_every` | 200 | AdaBK |
/// | `update_roots_every` | 2000 | AdaBK |
/// | `from_first_step` | false | 4-bit Shampoo's: due at the multiples; true: at 1, 1 + k, 1 + 2k, … for an interval k, as in AdaBK's code and kfac-pytorch |
/// | `min_numel` | 4096 | 4-bit Shampoo's code: factors with n² below it keep full precision |
/// | `tolerated_failures` | 3 | as in Shampoo |
///
/// State in `f32`: `Dense` and `Eigen` 8(out² + in²) bytes, in 4 bits about 1.13(out² + in²); twice that
/// while factors or roots are renewed, so that both sides change or none. `Joint` and `Ekfac` keep
/// eigenpairs in place of roots, in as many bytes and 4(out + in) more; `Ekfac` also S, 4·out·in bytes.
///
/// # Errors
/// `build` refuses options out of range, an impossible codec or solver, the QR algorithm with a
/// storage that keeps no eigenvectors, a solver that an `inverse` cannot use, and `Ekfac` with statistics
/// that are plain sums. The other errors are those of
/// [`LayerPreconditioner`](super::LayerPreconditioner)'s methods.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::{Array2, Axis};
///
/// // inputs that are much alike: without factors the best `lr` leaves an error of 0.8
/// let x = Array2::from_shape_fn((64, 4), |(i, j)| {
///     (i as f64).cos() + 0.03 * ((i * (j + 2)) as f64).sin()
/// });
/// let goal = Array2::from_shape_fn((3, 4), |(i, j)| (i + 2 * j) as f64);
/// let targets = x.dot(&goal.t());
///
/// let mut w = Array2::zeros((3, 4));
/// let method =
///     LayerFactors { update_factors_every: 1, update_roots_every: 10, ..LayerFactors::adabk() };
/// let mut layer = method.build(w.dim())?;
/// let mut opt = Sgd { lr: 0.3, momentum: 0.9, ..Sgd::default() }.build()?;
/// for _ in 0..300 {
///     let y = x.dot(&w.t()) - &targets; // of ‖W x − target‖²/2, a row per sample
///     let mut grad = y.t().dot(&x) / x.len_of(Axis(0)) as f64;
///     layer.observe(&x, &y)?;
///     layer.precondition(&mut grad)?;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - goal).iter().all(|error| error.abs() < 1e-3));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// AdaBK's published code sums over samples in L, has a damping of 1e-5, and also updates and refreshes at
/// the first step (`from_first_step`). K-FAC as first published damps both factors by amounts that balance
/// their traces (`KroneckerInverse::Balanced`), and finds the length of a step from the Fisher matrix; here
/// the length is the gradient's, or with `keep_norm: false` that of D.
///
/// # Source
/// K-FAC: J. Martens, R. Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate
/// Curvature", ICML 2015. AdaBK: H. Yong, Y. Sun, L. Zhang, "A General Regret Bound of Preconditioned
/// Gradient Method for DNN Training", CVPR 2023. In 4 bits: S. Wang, P. Zhou, J. Li, H. Huang, "4-bit
/// Shampoo for Memory-Efficient Network Training", NeurIPS 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, remote = "Self"))]
pub struct LayerFactors {
    /// Exponent `e > 0`: roots are `L^(−e)` and `R^(−e)`.
    pub exponent: f64,
    /// Ridge `ε` of the roots, absolute or relative to the largest eigenvalue.
    pub damping: Damping,
    /// How L ⊗ R is damped and inverted.
    #[cfg_attr(feature = "serde", serde(default))]
    pub inverse: KroneckerInverse,
    /// Give the direction the norm of the gradient.
    pub keep_norm: bool,
    /// How factors are stored.
    pub storage: FactorStorage,
    /// Orthogonal iterations, at least 1, that bring stored eigenvectors up to date after an update.
    pub iterations: usize,
    /// Weight `β` of the old statistic, in `[0, 1]`; with 1 statistics are sums.
    pub factor_beta: f64,
    /// Correct the statistics for their start at zero.
    pub bias_correction: bool,
    /// First statistic `ε₀I`, `ε₀ >= 0`.
    pub initial: f64,
    /// How roots are computed.
    pub root: RootSolver,
    /// Compute roots in `f64`.
    pub double_roots: bool,
    /// Signs of the eigenvectors of `Eigen` and `QuantizedEigen`.
    pub qr_signs: QrSigns,
    /// Observations between updates of the statistics, at least 1.
    pub update_factors_every: u64,
    /// Observations between updates of the roots, at least 1.
    pub update_roots_every: u64,
    /// Count intervals from the first observation: everything is due then.
    #[cfg_attr(feature = "serde", serde(default))]
    pub from_first_step: bool,
    /// Smallest n² of a factor that is coded.
    pub min_numel: usize,
    /// Failures since the last root that are tolerated.
    pub tolerated_failures: u64,
}
crate::config_file::named_fields!(LayerFactors);

crate::hyperparameters!(LayerFactors, "LayerFactors", {
    "exponent": Positive = exponent;
    "damping.relative": NonNegative = damping.relative;
    "damping.absolute": NonNegative = damping.absolute;
    "keep_norm": Flag = keep_norm;
    "iterations": Count(1, MOST_ITERATIONS) = iterations;
    "factor_beta": Unit = factor_beta;
    "bias_correction": Flag = bias_correction;
    "initial": NonNegative = initial;
    "double_roots": Flag = double_roots;
    "update_factors_every": CountFrom(1) = update_factors_every;
    "update_roots_every": CountFrom(1) = update_roots_every;
    "from_first_step": Flag = from_first_step;
    "min_numel": CountFrom(0) = min_numel;
    "tolerated_failures": CountFrom(0) = tolerated_failures;
}, |method| {
    method.storage.validate()?;
    method.root.check_storage::<LayerFactors>(method.storage)?;
    let solver = method.root.inverse_root(method.damping);
    solver.validate()?;
    method.check_inverse()?;
    match solver.takes(method.exponent) {
        true => Ok(()),
        false => {
            let found = method.exponent.to_string();
            Err(LayerFactors::invalid("exponent", COUPLED_EXPONENT, found))
        }
    }
});

/// Largest order of a factor: 64 GiB in `f32`.
const MOST_ORDER: usize = 1 << 17;

impl LayerFactors {
    /// Refuses a layer whose factors no memory holds.
    pub(super) fn check_orders(orders: (usize, usize)) -> Result<()> {
        let (rows, columns) = orders;
        match rows.max(columns) <= MOST_ORDER {
            true => Ok(()),
            false => Err(Self::invalid(
                "shape",
                format!("at most {MOST_ORDER} outputs and inputs"),
                format!("{rows} and {columns}"),
            )),
        }
    }

    /// K-FAC: the inverses of both factors, damped by a tenth of their largest eigenvalue.
    pub fn kfac() -> Self {
        Self {
            exponent: 1.0,
            damping: Damping::relative(0.1),
            inverse: KroneckerInverse::default(),
            keep_norm: true,
            storage: FactorStorage::default(),
            iterations: 2,
            factor_beta: 0.9,
            bias_correction: true,
            initial: 0.0,
            root: RootSolver::default(),
            double_roots: true,
            qr_signs: QrSigns::default(),
            update_factors_every: 200,
            update_roots_every: 2000,
            from_first_step: false,
            min_numel: 4096,
            tolerated_failures: 3,
        }
    }

    /// AdaBK: the inverse square roots of both factors.
    pub fn adabk() -> Self {
        Self { exponent: 0.5, damping: Damping::relative(1e-3), ..Self::kfac() }
    }

    /// Whether statistics and roots are due at observation `t`.
    pub(super) fn due(&self, t: u64) -> (bool, bool) {
        let t = if self.from_first_step { t.saturating_sub(1) } else { t };
        let due = |interval: u64| t.is_multiple_of(interval);
        (due(self.update_factors_every), due(self.update_roots_every))
    }

    /// The options of the factors for a Gram matrix of so many samples, or a root after so many updates.
    pub(super) fn factor_options(&self, samples: usize, updates: u64) -> FactorOptions {
        let beta = self.factor_beta;
        let corrected = self.bias_correction && beta < 1.0 && updates > 0;
        FactorOptions {
            storage: self.storage,
            min_numel: self.min_numel,
            beta,
            weight: if beta < 1.0 { 1.0 - beta } else { 1.0 } / samples as f64,
            initial: self.initial,
            bias: if corrected { 1.0 - beta.powf(updates as f64) } else { 1.0 },
            trace_scaling: 0.0,
            damping: self.damping,
            root: self.root,
            double_roots: self.double_roots,
            exponent: self.exponent,
            iterations: self.iterations,
            qr_signs: self.qr_signs,
            eigenpairs: self.inverse.keeps_eigenpairs(),
        }
    }

    /// Björck iterations on decoded eigenvectors before they rotate a gradient.
    pub(super) fn rectifications(&self) -> usize {
        match self.storage {
            FactorStorage::QuantizedEigen { rectify_update, .. } => rectify_update,
            _ => 0,
        }
    }

    /// Whether a layer with factors of these orders is stored alike with `other`.
    pub(super) fn keeps_layout(&self, other: &Self, (m, n): (usize, usize)) -> bool {
        let (own, other_options) = (self.factor_options(1, 0), other.factor_options(1, 0));
        let alike = |n: usize| own.stored(n) == other_options.stored(n);
        let bases = own.root.keeps_basis() == other_options.root.keeps_basis();
        alike(m) && alike(n) && bases && self.inverse.is_stored_like(other.inverse)
    }

    fn check_inverse(&self) -> Result<()> {
        let expected = match (self.inverse, self.root) {
            (KroneckerInverse::Joint | KroneckerInverse::Ekfac, root)
                if root != RootSolver::Eigen =>
            {
                "Eigen where `inverse` is Joint or Ekfac"
            }
            (KroneckerInverse::Balanced, RootSolver::PseudoInverse { .. }) => {
                "a solver that damps where `inverse` is Balanced"
            }
            (KroneckerInverse::Ekfac, _) if self.factor_beta == 1.0 => {
                let expected = "below 1 where `inverse` is Ekfac";
                return Err(Self::invalid("factor_beta", expected, "1"));
            }
            _ => return Ok(()),
        };
        Err(Self::invalid("root", expected, format!("{:?}", self.root)))
    }
}
