use super::subspace::{Side, Subspace, leading, product};
use crate::error::Result;
use crate::first_order::AdamW;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::kernel::scratch::with_scratch;
use crate::linalg::matrix_shape;
use crate::numeric::Real;
use crate::numeric::range::capped;
use crate::optim::{
    BlockState, BlockStep, ElementState, Elementwise, MatrixMethod, Partition, Rule, SkipFirst,
    StepOnly, TensorState, check_inner,
};
use crate::state::{Lookup, Record, StateBytes, Storage};
use ndarray::{ArrayViewMut2, ArrayViewMutD};

/// GaLore: AdamW, or another element-wise rule, on gradients projected to a low rank.
///
/// *Use it when* the moments of large matrices do not fit into memory, and gradients have a low rank.
/// *Not when* the part of a gradient outside of the subspace matters: GaLore drops it, and
/// [`LdAdam`](super::LdAdam) adds it to the next gradient. Put embeddings and output heads into a
/// group with `project = false`.
///
/// ```text
/// every update_proj_gap steps, from the first
///     B ← the r leading left singular vectors of G        rows < columns
///     B ← the r leading right singular vectors of G       else; G is then transposed below
/// every step
///     U = s·B·inner(Bᵀ G)
///     W ← (W − γU)·(1 − γλ)
/// ```
/// `inner` is the direction of the inner rule. Learning rate γ and decay λ act on W. The state
/// of the inner rule stays as it is when B changes. The signs of B therefore matter: the largest
/// entry of every column is positive. r is `rank`, or the length of the shorter side if that is less.
/// A zero gradient leaves B as it is.
///
/// Tensors that are not matrices get the inner rule, with decay after the step. A tensor of more
/// than two dimensions is a matrix of (first dimension, all others); dimensions of 1 are left out.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | AdamW: `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-6, `weight_decay` 0, `eps_hat` | authors' code |
/// | `rank` r | 128 | paper: 128 to 1024, a quarter to a half of the width |
/// | `update_proj_gap` | 200 | paper |
/// | `scale` s | 0.25 | paper |
/// | `project` | true | false: this group gets the inner rule |
/// | `tolerated_failures` | 3 | – |
///
/// State of an a × b matrix, a >= b: `basis` with br values, and the inner rule's slots for ar
/// elements. With AdamW that is (b + 2a)r values. `with_state_precision` applies to the slots as
/// usual. A scratch buffer takes another 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses options out of range. It also refuses an inner rule that takes sums over whole
/// tensors, keeps points in parameter space, or adds decay to the gradient. If the decomposition of a
/// gradient fails, B stays as it was. After more than `tolerated_failures` consecutive failures a
/// step fails.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array2;
///
/// // a target of rank 2: all gradients have rank 2
/// let target = Array2::from_shape_fn((12, 8), |(i, j)| (i as f64).sin() + (j as f64).cos());
/// let mut w = Array2::<f64>::zeros((12, 8));
/// let mut opt = GaLore { rank: 2, scale: 1.0, update_proj_gap: 10, ..GaLore::default() }.build()?;
/// for step in 0..300 {
///     opt.set_lr(0, 0.1 * (1.0 - f64::from(step) / 300.0))?;
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - target).iter().all(|x| x.abs() < 0.1));
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Another inner rule:
/// ```
/// use eigenstep::prelude::*;
///
/// let opt = GaLore { rank: 64, ..GaLore::with_inner(Lion::default()) }.build::<f32>()?;
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The authors' code leaves the signs of B to the SVD, so results depend on the library. After a zero
/// gradient it projects on arbitrary vectors until B is computed again. Here, numbers in Bᵀ G whose
/// square would overflow are clamped to the largest whose square does not. The authors' 8-bit version
/// is `with_state_precision(Precision::INT8_DYNAMIC)`.
///
/// # Source
/// J. Zhao, Z. Zhang, B. Chen, Z. Wang, A. Anandkumar, Y. Tian, "GaLore: Memory-Efficient LLM Training
/// by Gradient Low-Rank Projection", ICML 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "GaLore::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(
    feature = "serde",
    serde(bound(deserialize = "U: Default + serde::Deserialize<'de> + 'static"))
)]
pub struct GaLore<U = AdamW> {
    /// The inner rule: of projected gradients, and of all tensors that are not projected.
    pub inner: U,
    /// Dimension `r` of the subspace, at least 1; cut to the shorter side of a matrix.
    pub rank: usize,
    /// Steps from one basis to the next, at least 1.
    pub update_proj_gap: u64,
    /// Factor `s >= 0` of the direction.
    pub scale: f64,
    /// Whether matrices of this group are projected.
    pub project: bool,
    /// Consecutive failed decompositions that are tolerated.
    pub tolerated_failures: u64,
}
crate::config_file::named_fields!(GaLore<U>, U);

impl<U: Default + 'static> GaLore<U> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        crate::config_file::default_or::<GaLore, _>(Self::with_inner(U::default()))
    }
}

impl<U> GaLore<U> {
    /// The defaults, with another inner rule.
    pub fn with_inner(inner: U) -> Self {
        Self {
            inner,
            rank: 128,
            update_proj_gap: 200,
            scale: 0.25,
            project: true,
            tolerated_failures: 3,
        }
    }

    fn side(&self, shape: &[usize]) -> Side {
        Side::new(shape, |rows, columns| rows >= columns, self.rank)
    }
}

impl Default for GaLore {
    fn default() -> Self {
        Self::with_inner(AdamW { eps: 1e-6, weight_decay: 0.0, eps_hat: true, ..AdamW::default() })
    }
}

impl<U: Rule<GroupState = ()>> Hyperparameters for GaLore<U> {
    const NAME: &'static str = "GaLore";

    /// The inner rule's options under their own names, then those of the projection.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("rank", Range::CountFrom(1), &mut self.rank);
        option("update_proj_gap", Range::CountFrom(1), &mut self.update_proj_gap);
        option("scale", Range::NonNegative, &mut self.scale);
        option("project", Range::Flag, &mut self.project);
        option("tolerated_failures", Range::CountFrom(0), &mut self.tolerated_failures);
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        check_inner::<Self, U>(&self.inner)
    }
}

/// The state of one matrix.
#[derive(Clone, Debug)]
pub struct GaLoreBlock<R: Real> {
    side: Side,
    subspace: Subspace<R>,
    inner: ElementState<R>,
}

impl<R: Real> GaLoreBlock<R> {
    /// Computes the basis from the gradient `x` if it is `due`, or if there is none yet.
    fn follow(&mut self, x: &ArrayViewMut2<'_, R>, due: bool) {
        if (due || self.subspace.is_missing()) && !x.iter().all(R::is_zero) {
            let _ = self.subspace.replace(leading(x, self.side.rank));
        }
    }

    /// Replaces the gradient in `values` by the direction.
    fn step<U: Rule<GroupState = ()>>(&mut self, method: &GaLore<U>, t: u64, values: &mut [R]) {
        let side = self.side;
        let due = (t - 1).is_multiple_of(method.update_proj_gap.max(1));
        let Some(mut x) = side.view(values) else { return };
        self.follow(&x, due);
        let Self { subspace, inner, .. } = self;
        // both have the memory order of the tensor
        let kept = side.low();
        let numel = kept.rows * kept.columns;
        with_scratch::<R, _>(2 * numel, |scratch| {
            let (low, u) = scratch.split_at_mut(numel);
            if let Some(mut low) = kept.view(low) {
                product(R::one(), (&subspace.basis.t(), &x), R::zero(), &mut low);
            }
            let limit = (R::max_value() / R::of(4.0)).sqrt();
            low.iter_mut().for_each(|x| *x = capped(*x, limit));
            Elementwise(method.inner.clone()).direction(t, low, inner, u);
            if let Some(u) = kept.view(u) {
                product(R::of(method.scale), (&subspace.basis, &u), R::zero(), &mut x);
            }
        });
    }
}

impl<R: Real> BlockState for GaLoreBlock<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.inner.count(bytes);
        self.subspace.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        self.inner.save(&self.side.low().shape(), record);
        self.subspace.save(record);
    }

    fn failures(&self) -> Option<(u64, &'static str)> {
        self.subspace.failures()
    }
}

impl<U: Rule<GroupState = ()>> MatrixMethod for GaLore<U> {
    type Rule = SkipFirst<StepOnly<U>>;
    /// Its slots have the same names as the slots of the blocks, so the blocks need no list of their
    /// own.
    type Fallback = SkipFirst<U>;
    type Block<R: Real> = GaLoreBlock<R>;

    fn rule(&self) -> SkipFirst<StepOnly<U>> {
        SkipFirst { inner: StepOnly(self.inner.clone()), skip_first: false, decay_after: true }
    }

    fn fallback(&self) -> SkipFirst<U> {
        SkipFirst { inner: self.inner.clone(), skip_first: false, decay_after: true }
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        let (rows, columns) = matrix_shape(shape).filter(|_| self.project)?;
        Some(Partition::new(vec![rows, columns], usize::MAX))
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        (self.rank, self.project) == (changed.rank, changed.project)
    }

    fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> GaLoreBlock<R> {
        let side = self.side(shape);
        let (n, _) = side.lengths();
        let inner = Elementwise(self.inner.clone());
        let inner = inner.init(&side.low().shape(), storage);
        GaLoreBlock { side, subspace: Subspace::new(n, side.rank), inner }
    }

    fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<GaLoreBlock<R>> {
        let side = self.side(shape);
        let (n, _) = side.lengths();
        let inner = Elementwise(self.inner.clone());
        let inner = inner.load(&side.low().shape(), storage, lookup)?;
        Ok(GaLoreBlock { side, subspace: Subspace::load(n, side.rank, lookup)?, inner })
    }

    fn extend<R: Real>(&self, block: &mut GaLoreBlock<R>, _: &[usize], storage: &Storage) {
        let shape = block.side.low().shape();
        Elementwise(self.inner.clone()).extend(&mut block.inner, &shape, storage);
    }

    fn precondition<R: Real>(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut GaLoreBlock<R>,
        mut direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        // one block is the whole tensor
        if let Some(values) = direction.as_slice_mut() {
            block.step(self, step.t.max(1), values);
        }
        0.0
    }

    fn cost(&self, t: u64, shape: &[usize]) -> f64 {
        let side = self.side(shape);
        let (n, k) = side.lengths();
        let due = t.saturating_sub(1).is_multiple_of(self.update_proj_gap.max(1));
        let columns = if due { 10 * n.min(k) } else { 4 * side.rank };
        n as f64 * k as f64 * columns as f64
    }

    fn tolerated_failures(&self) -> u64 {
        self.tolerated_failures
    }
}
