//! The options of Shampoo.

use super::pipeline::{Combination, Exponents, Pipeline, Statistic};
use crate::error::Result;
use crate::first_order::AdamW;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::linalg::{COUPLED_EXPONENT, CoupledNewton, Damping, QrSigns};
use crate::optim::Rule;
use crate::second_order::factor::{FactorOptions, FactorStorage, RootSolver};
use crate::second_order::graft::Graft;
use crate::second_order::per_axis::{MAX_ASPECT, check_aspect, within_aspect};
use crate::second_order::{Descent, Reshape};

/// Shampoo: the gradient of a matrix, whitened from both sides, then handed to any element-wise rule.
///
/// *Use it when* steps are expensive and matrices are not huge: it needs fewer steps than AdamW. *Not
/// when* most parameters are vectors or very long tables; those get the inner rule alone.
///
/// ```text
/// G ← g + λ₂·p                                            l2 λ₂
/// every update_factors_every steps   L ← β·L + (1 − β)·G Gᵀ,   R ← β·R + (1 − β)·Gᵀ G
/// every update_roots_every steps     L̂ ← (L + εI)^(−1/4),  R̂ alike
/// Ḡ = G, or an average of gradients                       filter_beta
/// from step start on                 D = L̂ Ḡ R̂,  D ← D·‖A‖/(‖D‖ + tiny)   else D = A
/// inner rule                         p, s ← inner(p, D, s)
/// ```
/// A is the direction of the method that is grafted, by default Ḡ itself ([`Graft`]). A tensor of k
/// dimensions can have k factors, taken to the power −1/(2k) ([`Reshape`], [`Exponents`]). Tensors larger
/// than `max_dim` are cut into blocks, each with its own factors. Until the first root L̂ = R̂ = I.
///
/// Three public implementations are values of [`Pipeline`]. The defaults are those of 4-bit Shampoo;
/// [`Shampoo::scalable`] and [`Shampoo::distributed`] give the others.
///
/// What most programs set:
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | `AdamW::default()` | paper: also SGD with momentum |
/// | `storage` | `Dense` | –; in 4 bits [`FactorStorage::EIGEN4`] or [`FactorStorage::CHOLESKY4`] |
/// | `update_factors_every` | 100 | paper; for short runs 5 |
/// | `update_roots_every` | 500 | paper; for short runs 10 |
/// | `factor_beta` β | 0.95 | paper; with 1, a plain sum |
/// | `damping` ε | 1e-6·λmax | paper; 1e-4 is safer late in long runs |
/// | `graft` | `Gradient` | paper's code |
/// | `start` | 1 | paper |
/// | `max_dim` | 1200 | paper |
///
/// For experts:
///
/// | field | default | source of the default, and what else there is |
/// |---|---|---|
/// | `pipeline` | `LOW_BIT` | 4-bit Shampoo |
/// | `statistic` | `Gradient` | Shampoo; or KL-Shampoo |
/// | `combination` | `Product` | Shampoo; or CASPR |
/// | `exponents` | `Standard` | paper: 1/4 for matrices; 1/2 is Shampoo² |
/// | `sum_of_grams` | false | true: new terms weigh 1, not 1 − β |
/// | `bias_correction` | false | true: the statistic is divided by 1 − βᵘ after u updates, and the filter is corrected |
/// | `initial` ε₀ | 1e-6 | paper: L = R = ε₀I before the first step |
/// | `trace_scaling` s | 0 | L·max(tr L, ε)^(−s) takes the place of L |
/// | `root` | `Eigen` | –; see [`RootSolver`]. `PseudoInverse` does not use `damping` |
/// | `double_roots` | true | –; false: in the type of the statistic |
/// | `qr_signs` | `Positive` | –; `Lapack` for the numbers of the authors' code. Only eigenvector storages use it |
/// | `filter_beta` β₁ | 0: no average | 4-bit Shampoo; see [`GradEma`](crate::optim::GradEma) |
/// | `filter_weight` β₃ | β₁ | Distributed Shampoo |
/// | `l2` λ₂ | 0 | L2 regularisation; other decay is the inner rule's |
/// | `min_numel` | 4096 | paper's code: factors with n² below it keep full precision |
/// | `max_aspect` | 64 | ours: a 2400 × 16 table would take 153 times its bytes, with it 3.0; `scalable` and `distributed` have none |
/// | `batch_dims` | 0 | –; 1 for the matrices of experts or heads in one tensor |
/// | `tolerated_failures` | 3 | Distributed Shampoo |
///
/// State of an m × n block in `f32`: `Dense` and `Eigen` 8(m² + n²) bytes, `EIGEN4` and `CHOLESKY4`
/// about 1.13(m² + n²). `graft_moment`, with a [`GraftMoment`](crate::second_order::GraftMoment), and
/// `filtered_grad`, with a filter, take 4 bytes per parameter each. The inner rule's slots come on
/// top, and a scratch buffer for the direction, 4 bytes per parameter.
///
/// # Errors
/// `build` refuses options out of range, an impossible codec or solver, a `filter_weight` without
/// `filter_beta`, and [`RootSolver::Qr`] with a storage that keeps no eigenvectors (`Double`, `Cholesky`).
/// A factor whose decomposition fails keeps its last good root; a step fails if that has happened more
/// than `tolerated_failures` times in a row.
///
/// # Examples
/// ```
/// use eigenstep::{linalg::Damping, prelude::*};
/// use ndarray::Array2;
///
/// let mut w = Array2::from_shape_fn((96, 64), |(i, j)| (i * j) as f32).sin();
/// let mut opt = Shampoo {
///     inner: Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() },
///     storage: FactorStorage::EIGEN4,
///     damping: Damping::relative(1e-4),
///     update_factors_every: 2,
///     update_roots_every: 4,
///     ..Shampoo::default()
/// }
/// .build()?;
/// for _ in 0..100 {
///     let grad = w.clone(); // of ‖w‖²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|w| w.abs() < 0.1));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// *From 4-bit Shampoo's code.* LAPACK chooses the signs of its eigenvectors. Here R of every QR
/// decomposition has a diagonal ≥ 0, so that eigenvectors change continuously; with [`QrSigns::Lapack`]
/// the numbers are those of the published code. That code grafts 1-D tensors on themselves, which
/// multiplies them by ‖g‖/(‖g‖ + 1e-12); here this factor is left out.
///
/// *From Distributed Shampoo.* It keeps learning rates and averages in 32 bits, here they have 64. Its
/// factors may be packed triangles, here they are whole matrices. Its roots are computed in the type of the
/// factors, `f32`, by LAPACK; here they are computed in `f64`, which comes closer to a run in `f64`. It counts the steps of a group; here
/// every tensor counts its own, as in PyTorch's optimizers, which matters only where gradients are missing.
/// With [`Graft::Gradient`] and no bias correction, its steps before `start` overwrite the filter; here
/// the filter stays as it is.
///
/// *From Scalable Shampoo.* It runs a second momentum on the grafted direction and uses it until `start`;
/// here the inner rule, which can be any rule, has one state that sees both directions. Its error of
/// a root is max |M − I| of the iteration, here it is the spectral norm of A Xᵖ − I.
///
/// # Source
/// V. Gupta, T. Koren, Y. Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML
/// 2018; S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training",
/// NeurIPS 2024; R. Anil, V. Gupta, T. Koren, K. Regan, Y. Singer, "Scalable Second Order
/// Optimization for Deep Learning", 2020; H.-J. M. Shi and others, "A Distributed Data-Parallel
/// PyTorch Implementation of the Distributed Shampoo Optimizer", 2023; CASPR: S. S. Duvvuri, F.
/// Devvrit, R. Anil, C.-J. Hsieh, I. S. Dhillon, "Combining Axes Preconditioners through Kronecker
/// Approximation for Deep Learning", ICLR 2024; Shampoo²: D. Morwani and others, "A New Perspective
/// on Shampoo's Preconditioner", 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Shampoo<U = AdamW> {
    /// The inner rule: it takes the direction, and updates all tensors without factors.
    pub inner: U,
    /// Which tensors are preconditioned, in how many dimensions, and what grafting acts on.
    pub pipeline: Pipeline,
    /// How factors are stored.
    pub storage: FactorStorage,
    /// What factors are statistics of.
    pub statistic: Statistic,
    /// Weight `β` of the old statistic, in `[0, 1]`; with 1 statistics are sums.
    pub factor_beta: f64,
    /// Give new terms the weight 1 whatever `β` is; there is then no bias to correct.
    pub sum_of_grams: bool,
    /// Correct statistics and filter for their start at zero.
    pub bias_correction: bool,
    /// First statistic `ε₀I`, `ε₀ >= 0`.
    pub initial: f64,
    /// Ridge `ε` of the roots, absolute or relative to the largest eigenvalue.
    pub damping: Damping,
    /// Power `>= 0` of a statistic's trace that it is divided by before its root.
    pub trace_scaling: f64,
    /// How roots are computed.
    pub root: RootSolver,
    /// Compute roots in `f64`. Those in `f32` are some 1.6 to 2 times faster, but the eigenvalues that count
    /// most in a root, the small ones, then have errors as large as 1e-5 of the largest one: far above a
    /// small ridge, and above what LAPACK loses in `f32`.
    pub double_roots: bool,
    /// Exponents of the factors: `L^(−exponent)`.
    pub exponents: Exponents,
    /// How the factors of all dimensions are combined.
    pub combination: Combination,
    /// Signs of the eigenvectors of `Eigen` and `QuantizedEigen`.
    pub qr_signs: QrSigns,
    /// The method that gives the direction its length.
    pub graft: Graft,
    /// Decay rate `β₁` in `[0, 1)` of the average that is preconditioned; with 0 it is the gradient itself.
    pub filter_beta: f64,
    /// Weight `β₃` in `[0, 1)` of the old average in what is preconditioned; only with a `filter_beta`.
    pub filter_weight: Option<f64>,
    /// L2 regularisation `λ₂ >= 0`: this multiple of the parameter is added to the gradient.
    pub l2: f64,
    /// First step that preconditions, at least 1.
    pub start: u64,
    /// Steps between updates of the statistics, at least 1.
    pub update_factors_every: u64,
    /// Steps between updates of the roots, at least 1.
    pub update_roots_every: u64,
    /// Largest order of a factor, at least 1.
    pub max_dim: usize,
    /// How many times as long as the product of the others a dimension with a factor may be, at least 1;
    /// `None`: any length. Vectors are not asked. The standard exponents are those of the factors there are:
    /// 1/2 for a matrix with one.
    pub max_aspect: Option<f64>,
    /// Number of leading dimensions that number the tensors of a stack: each has factors of its own, and
    /// every block of it the length that its own gradient asks for.
    #[cfg_attr(feature = "serde", serde(default))]
    pub batch_dims: usize,
    /// Smallest n² of a factor that is coded.
    pub min_numel: usize,
    /// Consecutive failures tolerated.
    pub tolerated_failures: u64,
}
crate::config_file::named_fields!(Shampoo<U>, U);

impl<U: Default> Default for Shampoo<U> {
    fn default() -> Self {
        Self::with_inner(U::default())
    }
}

impl<U> Shampoo<U> {
    /// The defaults around this rule.
    pub fn with_inner(inner: U) -> Self {
        Self {
            inner,
            pipeline: Pipeline::LOW_BIT,
            storage: FactorStorage::default(),
            statistic: Statistic::default(),
            factor_beta: 0.95,
            sum_of_grams: false,
            bias_correction: false,
            initial: 1e-6,
            damping: Damping::relative(1e-6),
            trace_scaling: 0.0,
            root: RootSolver::default(),
            double_roots: true,
            exponents: Exponents::default(),
            combination: Combination::default(),
            qr_signs: QrSigns::default(),
            graft: Graft::default(),
            filter_beta: 0.0,
            filter_weight: None,
            l2: 0.0,
            start: 1,
            update_factors_every: 100,
            update_roots_every: 500,
            max_dim: 1200,
            max_aspect: Some(MAX_ASPECT),
            batch_dims: 0,
            min_numel: 4096,
            tolerated_failures: 3,
        }
    }

    /// As Google's Scalable Shampoo, around any rule. Google's own is momentum 0.9 in Nesterov's form.
    ///
    /// Statistics and roots are renewed at every step, and used from the fifth on. Blocks have 128 rows and
    /// columns, β is 0.999, ε is 1e-6·λmax. Roots come from a coupled Newton iteration, repeated with a
    /// larger ridge where they are not good enough ([`CoupledNewton::SCALABLE`]). Directions have the length
    /// of the gradient.
    pub fn scalable(inner: U) -> Self {
        Self {
            pipeline: Pipeline::SCALABLE,
            factor_beta: 0.999,
            root: RootSolver::CoupledNewton(CoupledNewton::SCALABLE),
            start: 5,
            update_factors_every: 1,
            update_roots_every: 1,
            max_dim: 128,
            max_aspect: None,
            ..Self::with_inner(inner)
        }
    }
}

impl Shampoo<Descent> {
    /// As Meta's Distributed Shampoo, with matrices kept as matrices and its lr of 0.01.
    ///
    /// Statistics are sums from zero; gradients are filtered (β₁ 0.9) and corrected for bias. ε is absolute,
    /// 1e-12. Roots are computed at every step, in blocks of 1024. Nothing is grafted. With Adam's length
    /// for every block, averages instead of sums, and fewer roots:
    /// ```
    /// use eigenstep::{linalg::Damping, prelude::*, second_order::Graft};
    ///
    /// let method = Shampoo {
    ///     graft: Graft::ADAM,
    ///     factor_beta: 0.999,
    ///     damping: Damping::absolute(1e-8),
    ///     update_roots_every: 10,
    ///     start: 10,
    ///     ..Shampoo::distributed()
    /// };
    /// let mut w = ndarray::Array2::<f32>::ones((20, 10));
    /// let grad = w.clone();
    /// method.build()?.step(&mut w, &grad)?;
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    /// Momentum, dampening and weight decay are those of [`Descent`], except for L2 regularisation, which
    /// is `l2`. [`PrimalAveraging`](crate::first_order::PrimalAveraging) and any other rule can
    /// take its place.
    pub fn distributed() -> Self {
        Self {
            pipeline: Pipeline::DISTRIBUTED,
            factor_beta: 1.0,
            bias_correction: true,
            initial: 0.0,
            damping: Damping::absolute(1e-12),
            root: RootSolver::DampedEigen,
            graft: Graft::None,
            filter_beta: 0.9,
            update_factors_every: 1,
            update_roots_every: 1,
            max_dim: 1024,
            max_aspect: None,
            ..Self::with_inner(Descent { lr: 1e-2, ..Descent::default() })
        }
    }
}

impl<U: Rule> Hyperparameters for Shampoo<U> {
    const NAME: &'static str = "Shampoo";

    /// The inner rule's options under their own names, then the preconditioner's.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("factor_beta", Range::Unit, &mut self.factor_beta);
        option("sum_of_grams", Range::Flag, &mut self.sum_of_grams);
        option("bias_correction", Range::Flag, &mut self.bias_correction);
        option("initial", Range::NonNegative, &mut self.initial);
        option("damping.relative", Range::NonNegative, &mut self.damping.relative);
        option("damping.absolute", Range::NonNegative, &mut self.damping.absolute);
        option("trace_scaling", Range::NonNegative, &mut self.trace_scaling);
        option("double_roots", Range::Flag, &mut self.double_roots);
        option("filter_beta", Range::UnitHalfOpen, &mut self.filter_beta);
        option("filter_weight", Range::OptionalUnitHalfOpen, &mut self.filter_weight);
        option("l2", Range::NonNegative, &mut self.l2);
        option("start", Range::CountFrom(1), &mut self.start);
        option("update_factors_every", Range::CountFrom(1), &mut self.update_factors_every);
        option("update_roots_every", Range::CountFrom(1), &mut self.update_roots_every);
        option("max_dim", Range::CountFrom(1), &mut self.max_dim);
        option("min_numel", Range::CountFrom(0), &mut self.min_numel);
        option("tolerated_failures", Range::CountFrom(0), &mut self.tolerated_failures);
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        self.storage.validate()?;
        self.root.check_storage::<Self>(self.storage)?;
        if let Some(weight) = self.filter_weight.filter(|&weight| weight != 0.0)
            && self.filter_beta == 0.0
        {
            let expected = "unset without filter_beta";
            return Err(Self::invalid("filter_weight", expected, weight.to_string()));
        }
        check_aspect::<Self>(self.max_aspect)?;
        let solver = self.root.inverse_root(self.damping);
        solver.validate()?;
        for exponent in self.exponents.named() {
            let invalid = |expected| Self::invalid("exponents", expected, exponent.to_string());
            if !(0.0..f64::INFINITY).contains(&exponent) {
                return Err(invalid("finite and >= 0"));
            }
            // with 0 the dimension has no factor
            if exponent > 0.0 && !solver.takes(exponent) {
                return Err(invalid(COUPLED_EXPONENT));
            }
        }
        if let Some(moment) = self.graft.moment() {
            if !Range::Unit.contains(moment.beta) {
                let expected = Range::Unit.describe();
                return Err(Self::invalid("graft.beta", expected, moment.beta.to_string()));
            }
            if !Range::NonNegative.contains(moment.eps) {
                let expected = Range::NonNegative.describe();
                return Err(Self::invalid("graft.eps", expected, moment.eps.to_string()));
            }
        }
        match self.pipeline.reshape {
            Reshape::Merged { dims: 0 } => {
                Err(Self::invalid("pipeline.reshape.dims", "at least 1", "0"))
            }
            _ => Ok(()),
        }
    }
}

impl<U> Shampoo<U> {
    /// Whether statistics and roots are due at step `t`.
    pub(super) fn due(&self, t: u64) -> (bool, bool) {
        let due = |interval: u64| t.is_multiple_of(interval);
        let roots = match self.pipeline.roots_at_start {
            true => t == self.start || t > self.start && due(self.update_roots_every),
            false => due(self.update_roots_every),
        };
        (due(self.update_factors_every), roots)
    }

    /// The exponent of dimension `axis` of a block of this shape; 0: it has no factor.
    fn exponent(&self, shape: &[usize], axis: usize) -> f64 {
        let has_factor = |&axis: &usize| within_aspect(shape, axis, self.max_aspect);
        match &self.exponents {
            _ if !has_factor(&axis) => 0.0,
            Exponents::Standard => {
                let factors = (0..shape.len()).filter(has_factor).count();
                Exponents::Standard.of(factors, axis)
            }
            named => named.of(shape.len(), axis),
        }
    }

    /// What the factor of dimension `axis` of a block of this shape is told at step `t`.
    pub(super) fn factor_options(&self, shape: &[usize], axis: usize, t: u64) -> FactorOptions {
        let sum = self.sum_of_grams || self.factor_beta == 1.0;
        let updates = t / self.update_factors_every.max(1);
        let corrected = self.bias_correction && !sum && updates > 0;
        FactorOptions {
            storage: self.storage,
            min_numel: self.min_numel,
            beta: self.factor_beta,
            weight: if sum { 1.0 } else { 1.0 - self.factor_beta },
            initial: self.initial,
            bias: if corrected { 1.0 - self.factor_beta.powf(updates as f64) } else { 1.0 },
            trace_scaling: self.trace_scaling,
            damping: self.damping,
            root: self.root,
            double_roots: self.double_roots,
            exponent: self.exponent(shape, axis),
            iterations: 1,
            qr_signs: self.qr_signs,
            eigenpairs: false,
        }
    }
}
