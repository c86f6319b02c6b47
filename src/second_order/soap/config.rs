//! The options of SOAP.

use super::options::{BasisSolver, BasisStorage, Sides, SoapOrder};
use crate::error::Result;
use crate::first_order::AdamW;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::numeric::Real;
use crate::optim::{Rule, SkipFirst, check_inner};
use crate::quant::MatrixCodec;
use crate::second_order::Reshape;
use crate::second_order::factor::check_iterations;
use crate::second_order::per_axis::{MAX_ASPECT, check_aspect, within_aspect};

/// SOAP: AdamW, or another element-wise rule, in the eigenbasis of Shampoo's statistics.
///
/// *Use it when* you would take [`Shampoo`](crate::second_order::Shampoo) and can afford four matrix
/// products a step: it tolerates a stale eigenbasis, because the inner rule adapts to every gradient.
/// *Not when* most parameters are vectors, or tables longer than `max_dim` on both sides; those get the
/// inner rule alone.
///
/// ```text
/// first step             L ← (1 − β_s)·G Gᵀ,  R ← (1 − β_s)·Gᵀ G
///                        Q_L, Q_R ← eigenvectors of L and R; nothing else changes
/// every step after that  U = Q_L · inner(Q_Lᵀ G Q_R) · Q_Rᵀ
///                        W ← (W − γU)·(1 − γλ)
///                        L ← β_s·L + (1 − β_s)·G Gᵀ,  R alike
/// every update_basis_every steps
///                        Q_L' ← Q of (L Q_L) = Q R, columns by falling diag(Q_Lᵀ L Q_L);  Q_R alike
///                        M ← Q_L'ᵀ Q_L M Q_Rᵀ Q_R';  rows and columns of V as the columns of Q
/// ```
/// `inner` is the direction of the inner rule, without learning rate γ and decay λ, which act on W. M
/// stands for its slots of both signs (first moments), V for those `>= 0` (second moments). A tensor of
/// any number of dimensions has one statistic and one basis per dimension. A dimension longer than
/// `max_dim` has none, nor has a vector unless `precondition_1d`; what [`Reshape`] merges into one dimension
/// is no vector, and has one. A tensor without any basis gets the inner optimizer alone, which also skips
/// the first step. [`SoapOrder`] has Distributed Shampoo's order.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | AdamW: `lr` 3e-3, `betas` (0.95, 0.95), `eps` 1e-8, `weight_decay` 0.01, `eps_hat` | paper's code |
/// | `order` | `Published`, first step skipped | paper's code |
/// | `solver` | `OrthogonalIteration` | paper |
/// | `storage` | `Full` | – ; [`BasisStorage::FOUR_BIT`] for 4 bits |
/// | `shampoo_beta` β_s | 0.95 | paper's code: the second of `betas`; with 1 a plain sum |
/// | `update_basis_every` | 10 | paper (`precondition_frequency`) |
/// | `sides` | `All` | paper |
/// | `ignored` | none | Distributed Shampoo (`ignored_basis_change_dims`) |
/// | `max_dim` | 10000 | paper's code (`max_precond_dim`) |
/// | `max_aspect` | 64 | ours, see below; the paper's code has none |
/// | `batch_dims` | 0 | –; 1 for the matrices of experts or heads in one tensor |
/// | `reshape` | `AsIs` | paper's code; `Leading` is its `merge_dims` |
/// | `block_dim` | none | Distributed Shampoo cuts at 1024 |
/// | `precondition_1d` | false | paper's code |
/// | `normalize_grads` | false | paper's code: every U gets root mean square 1 |
/// | `min_numel` | 4096 | 4-bit Shampoo: bases with n² below it keep full precision |
/// | `tolerated_failures` | 3 | Distributed Shampoo |
///
/// State of an m × n matrix in `f32`: statistics and bases 8(m² + n²) bytes, in 4 bits about
/// 0.56(m² + n²); the inner rule's slots, which `with_state_precision` codes like any others; and a
/// scratch buffer for the direction, 4 bytes per parameter. In the eigenbasis second moments spread over
/// many orders of magnitude. Take codes that do so, too: `Precision::INT8_DYNAMIC`, not `INT8_LINEAR`.
///
/// A side of n elements costs 8n² bytes however short the other one is: for a table of 2400 × 16 all state would
/// be 303 times the table's own bytes. Under `max_aspect` the long side has no basis, and it is 3.0 times.
///
/// # Errors
/// `build` refuses options out of range, an impossible codec, and an inner rule that takes sums over
/// whole tensors, keeps points in parameter space, or adds decay to the gradient. A basis whose
/// decomposition fails stays as it was; a step fails if that has happened more than
/// `tolerated_failures` times in a row. A gradient whose square overflows counts as such a failure.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use eigenstep::second_order::soap::BasisStorage;
/// use ndarray::Array2;
///
/// let target = Array2::from_shape_fn((96, 64), |(i, j)| ((i * i + i * j + 3 * j * j) as f32).sin());
/// let mut w = Array2::<f32>::zeros((96, 64));
/// let mut opt = Soap { storage: BasisStorage::FOUR_BIT, ..Soap::default() }
///     .build()?
///     .with_state_precision(Precision::INT8_DYNAMIC)?;
/// let loss = |w: &Array2<f32>| (w - &target).iter().map(|x| x * x / 2.0).sum::<f32>();
/// let before = loss(&w);
/// for step in 0..200 {
///     opt.set_lr(0, 0.1 * (1.0 - f64::from(step) / 200.0))?;
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(loss(&w) < 0.1 * before);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Another rule inside:
/// ```
/// use eigenstep::prelude::*;
///
/// let opt = Soap { update_basis_every: 5, ..Soap::with_inner(Lion::default()) }.build::<f32>()?;
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The paper's code keeps M in the original basis and rotates it at every step. Here it stays in the
/// eigenbasis and is rotated when that changes: the same numbers for slots that are linear in the
/// gradients, with one matrix product less per side and step. `normalize_grads` has the same
/// effect whatever the bias correction, and none on tensors without a basis.
///
/// # Source
/// N. Vyas, D. Morwani, R. Zhao, M. Kwun, I. Shapira, D. Brandfonbrener, L. Janson, S. Kakade, "SOAP:
/// Improving and Stabilizing Shampoo using Adam", 2024; quantized bases as in S. Wang, P. Zhou, J. Li,
/// H. Huang, "4-bit Shampoo for Memory-Efficient Network Training", NeurIPS 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "Soap::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(
    feature = "serde",
    serde(bound(deserialize = "U: Default + serde::Deserialize<'de> + 'static"))
)]
pub struct Soap<U = AdamW> {
    /// The inner rule: it runs on the rotated gradient, and on all tensors without a basis.
    pub inner: U,
    /// Order of statistic, basis and step.
    pub order: SoapOrder,
    /// How a basis follows its statistic.
    pub solver: BasisSolver,
    /// How statistics and bases are stored.
    pub storage: BasisStorage,
    /// Weight `β_s` of the old statistic, in `[0, 1]`; with 1 statistics are sums.
    pub shampoo_beta: f64,
    /// Steps between renewals of the basis, at least 1.
    pub update_basis_every: u64,
    /// Which dimensions get a basis.
    pub sides: Sides,
    /// Dimensions that get none, as (number of dimensions of the tensor, dimension).
    pub ignored: Vec<(usize, usize)>,
    /// Longest dimension that gets a basis, at least 1.
    pub max_dim: usize,
    /// How many times as long as the product of the others a dimension with a basis may be, at least 1;
    /// `None`: any length. Vectors are not asked.
    pub max_aspect: Option<f64>,
    /// Number of leading dimensions that number the tensors of a stack: each has statistics and bases of
    /// its own, and is treated as it would be alone.
    #[cfg_attr(feature = "serde", serde(default))]
    pub batch_dims: usize,
    /// Which dimensions are merged into one; merged ones are no larger than `block_dim`, or `max_dim`.
    pub reshape: Reshape,
    /// Tensors longer than this along a dimension are cut into blocks with bases of their own.
    pub block_dim: Option<usize>,
    /// Whether tensors of one dimension, before any are merged, get a basis.
    pub precondition_1d: bool,
    /// Give every direction a root mean square of 1.
    pub normalize_grads: bool,
    /// Smallest n² of a basis that is coded.
    pub min_numel: usize,
    /// Consecutive failures tolerated.
    pub tolerated_failures: u64,
}
crate::config_file::named_fields!(Soap<U>, U);

impl<U: Default + 'static> Soap<U> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        crate::config_file::default_or::<Soap<AdamW>, _>(Self::with_inner(U::default()))
    }
}

impl<U> Soap<U> {
    /// The defaults around this rule.
    pub fn with_inner(inner: U) -> Self {
        Self {
            inner,
            order: SoapOrder::default(),
            solver: BasisSolver::default(),
            storage: BasisStorage::default(),
            shampoo_beta: 0.95,
            update_basis_every: 10,
            sides: Sides::default(),
            ignored: Vec::new(),
            max_dim: 10_000,
            max_aspect: Some(MAX_ASPECT),
            batch_dims: 0,
            reshape: Reshape::AsIs,
            block_dim: None,
            precondition_1d: false,
            normalize_grads: false,
            min_numel: 4096,
            tolerated_failures: 3,
        }
    }

    /// Whether dimension `axis` of a block of this shape gets a basis. The block is no part of a vector
    /// that gets none: what was merged into one dimension is not one.
    pub(super) fn has_basis(&self, shape: &[usize], axis: usize) -> bool {
        // of one number there is but one basis
        let sized = shape.get(axis).is_some_and(|&n| 1 < n && n <= self.max_dim);
        sized
            && within_aspect(shape, axis, self.max_aspect)
            && self.sides.include(shape, axis)
            && !self.ignored.contains(&(shape.len(), axis))
    }

    /// Whether a tensor of this shape, before its dimensions are merged, may have a basis at all.
    pub(super) fn preconditions(&self, shape: &[usize]) -> bool {
        !shape.contains(&0) && (shape.len() > 1 || self.precondition_1d)
    }

    /// The codes of a basis of order `n`.
    pub(super) fn codec_of(&self, n: usize) -> Option<MatrixCodec> {
        self.storage.codec().filter(|_| n.saturating_mul(n) >= self.min_numel)
    }

    /// Weights of the old statistic and of a gradient that stands for so many steps.
    pub(super) fn weights<R: Real>(&self, steps: u64) -> (R, R) {
        let old = self.shampoo_beta.powf(steps as f64);
        let new = if self.shampoo_beta == 1.0 { 1.0 } else { 1.0 - old };
        (R::of(old), R::of(new))
    }

    /// `rule` as the order wants it.
    pub(super) fn delayed<V>(&self, rule: V) -> SkipFirst<V> {
        let (skip_first, decay_after) = match self.order {
            SoapOrder::Published { skip_first } => (skip_first, true),
            SoapOrder::Distributed { .. } => (false, false),
        };
        SkipFirst { inner: rule, skip_first, decay_after }
    }
}

impl Default for Soap<AdamW> {
    fn default() -> Self {
        Self::with_inner(AdamW {
            lr: 3e-3,
            betas: (0.95, 0.95),
            eps: 1e-8,
            weight_decay: 0.01,
            eps_hat: true,
            ..AdamW::default()
        })
    }
}

impl<U: Rule<GroupState = ()>> Soap<U> {
    fn check_choices(&self) -> Result<()> {
        if let BasisSolver::Qr { max_iterations, .. } = self.solver {
            check_iterations(Self::NAME, "max_iterations", max_iterations)?;
        }
        if let Some(codec) = self.storage.codec() {
            codec.validate()?;
            check_iterations(Self::NAME, "rectify", self.storage.rectify())?;
        }
        if let SoapOrder::Distributed { start, epsilon, .. } = self.order {
            if start == 0 {
                return Err(Self::invalid("order.start", "an integer >= 1", "0"));
            }
            if !Range::NonNegative.contains(epsilon) {
                let expected = Range::NonNegative.describe();
                return Err(Self::invalid("order.epsilon", expected, epsilon.to_string()));
            }
        }
        check_aspect::<Self>(self.max_aspect)?;
        match self.solver {
            BasisSolver::Qr { tolerance, .. } if !Range::NonNegative.contains(tolerance) => {
                let expected = Range::NonNegative.describe();
                Err(Self::invalid("solver.tolerance", expected, tolerance.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl<U: Rule<GroupState = ()>> Hyperparameters for Soap<U> {
    const NAME: &'static str = "Soap";

    /// The inner rule's options under their own names, then the basis's.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("shampoo_beta", Range::Unit, &mut self.shampoo_beta);
        option("update_basis_every", Range::CountFrom(1), &mut self.update_basis_every);
        option("sides", Range::Choice(Sides::NAMES), &mut self.sides);
        option("max_dim", Range::CountFrom(1), &mut self.max_dim);
        option("precondition_1d", Range::Flag, &mut self.precondition_1d);
        option("normalize_grads", Range::Flag, &mut self.normalize_grads);
        option("min_numel", Range::CountFrom(0), &mut self.min_numel);
        option("tolerated_failures", Range::CountFrom(0), &mut self.tolerated_failures);
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        check_inner::<Self, U>(&self.inner)?;
        self.check_choices()
    }
}
