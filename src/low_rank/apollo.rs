use super::subspace::{Side, product};
use crate::error::Result;
use crate::first_order::AdamW;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::kernel::scratch::with_scratch;
use crate::linalg::{frobenius, matrix_shape};
use crate::numeric::Real;
use crate::numeric::random::{normal_pair, philox4x32};
use crate::numeric::range::capped;
use crate::optim::{
    BlockState, BlockStep, ElementState, Elementwise, MatrixMethod, Partition, Rule, StepOnly,
    TensorState, check_inner,
};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateTensor, Storage};
use ndarray::{Array2, ArrayRef2, ArrayViewMut2, ArrayViewMutD, Axis};

/// Added to the length that a scale is divided by.
const EPS: f64 = 1e-8;

/// APOLLO: the raw gradient, every channel of it scaled as AdamW, or another rule, would scale a random projection.
///
/// *Use it when* AdamW's moments do not fit into memory: [`Apollo::mini`] needs next to none, and steps are of full rank.
/// *Not when* memory for moments in 8 bits is there: AdamW itself is then surer. Put embeddings and output heads into a
/// group with `project = false`.
///
/// ```text
/// every update_proj_gap steps, from the first
///     P ← r × n random numbers of N(0, 1/r)       n: the shorter side; G is transposed below if it has more rows
/// every step
///     R = P·G                                      r × k
///     R̃ = inner(R)
///     sⱼ = ‖R̃ⱼ‖/(‖Rⱼ‖ + 1e-8)                      Channel: for every column j; Tensor: one s of all R
///     U = √α·G·s                                   column j times sⱼ
///     U ← U·κ‖U_last‖/‖U‖ if ‖U‖ > κ‖U_last‖ > 0   κ: norm_growth
///     W ← W·(1 − γλ) − γU
/// ```
/// `inner` is the direction of the inner rule; learning rate γ and decay λ act on W. r is `rank`, or the length of the
/// shorter side if that is less. The state of the inner rule stays as it is when P changes.
///
/// Tensors that are not matrices get the inner rule. A tensor of more than two dimensions is a matrix of (first
/// dimension, all others); dimensions of 1 are left out. P depends on `seed`, on the step and on the shape: tensors of the
/// same sides have the same one.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | AdamW: `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-6, `weight_decay` 0 | authors' code |
/// | `rank` r | 256; `mini()` 1 | authors' code; paper: a quarter of the width |
/// | `update_proj_gap` | 200 | paper |
/// | `scaling` | `Channel`; `mini()` `Tensor` | paper |
/// | `scale` α | 1; `mini()` 128 | paper |
/// | `norm_growth` κ | 1.01 | paper; `None`: no limit |
/// | `project` | true | false: this group gets the inner rule |
/// | `seed` | 0 | – |
///
/// State of an n × k matrix, k >= n: `projection` with nr values, the inner rule's slots for kr elements, `update_norm`
/// with 8 bytes. With AdamW that is (n + 2k)r values. `with_state_precision` applies to the slots as usual. A scratch
/// buffer takes another 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses options out of range. It also refuses an inner rule that takes sums over whole tensors, keeps points
/// in parameter space, or adds decay to the gradient.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array2;
///
/// let mut w = Array2::<f32>::ones((64, 32));
/// let mut opt = Apollo::mini().build()?;
/// let grad = w.clone(); // of ‖w‖²/2
/// opt.step(&mut w, &grad)?;
/// assert!(w.iter().all(|&w| w < 1.0));
/// // moments of one row, a projection on it, a norm
/// assert_eq!(opt.state_bytes().total() - opt.state_bytes().slot("direction"), 4 * (2 * 64 + 32) + 8);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The paper's equations are followed: the raw gradient is scaled. pytorch_optimizer 4.1 scales the projected gradient and
/// projects it back. The authors' code adds 1e-8 to ‖U_last‖, so that the step after a zero gradient is next to zero; here
/// a zero gradient sets no limit. It decays after the step. Where the gradient is a square matrix, columns are channels.
/// Here, numbers in P·G whose square would overflow are clamped to the largest whose square does not.
///
/// # Source
/// H. Zhu, Z. Zhang, W. Cong, X. Liu, S. Park, V. Chandra, B. Long, D. Z. Pan, Z. Wang, J. Lee, "APOLLO: SGD-like Memory,
/// AdamW-level Performance", MLSys 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(default = "Apollo::of_file", deny_unknown_fields, remote = "Self")
)]
#[cfg_attr(
    feature = "serde",
    serde(bound(deserialize = "U: Default + serde::Deserialize<'de> + 'static"))
)]
pub struct Apollo<U = AdamW> {
    /// The inner rule: of projected gradients, and of all tensors that are not projected.
    pub inner: U,
    /// Number `r` of rows of the projection, at least 1; cut to the shorter side of a matrix.
    pub rank: usize,
    /// Steps from one projection to the next, at least 1.
    pub update_proj_gap: u64,
    /// What has a scale of its own.
    pub scaling: ApolloScaling,
    /// Factor `α >= 0`, of which the root acts on the direction.
    pub scale: f64,
    /// Most `κ >= 1` by which the norm of the direction may grow from one step to the next.
    pub norm_growth: Option<f64>,
    /// Whether matrices of this group are projected.
    pub project: bool,
    /// Key of the random numbers.
    pub seed: u64,
}
crate::config_file::named_fields!(Apollo<U>, U);

/// What has a scale of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ApolloScaling {
    /// Every channel: a line along the shorter side of the matrix.
    #[default]
    Channel,
    /// The whole tensor.
    Tensor,
}

impl<U: Default + 'static> Apollo<U> {
    /// The defaults of a configuration file.
    #[cfg(feature = "serde")]
    fn of_file() -> Self {
        crate::config_file::default_or::<Apollo, _>(Self::with_inner(U::default()))
    }
}

impl<U> Apollo<U> {
    /// The defaults, with another inner rule.
    pub fn with_inner(inner: U) -> Self {
        Self {
            inner,
            rank: 256,
            update_proj_gap: 200,
            scaling: ApolloScaling::Channel,
            scale: 1.0,
            norm_growth: Some(1.01),
            project: true,
            seed: 0,
        }
    }

    fn side(&self, shape: &[usize]) -> Side {
        Side::new(shape, |rows, columns| rows > columns, self.rank)
    }
}

impl Apollo {
    /// APOLLO-Mini: rank 1, one scale per tensor, α = 128.
    pub fn mini() -> Self {
        Self { rank: 1, scaling: ApolloScaling::Tensor, scale: 128.0, ..Self::default() }
    }
}

impl Default for Apollo {
    fn default() -> Self {
        Self::with_inner(AdamW { eps: 1e-6, weight_decay: 0.0, ..AdamW::default() })
    }
}

impl<U: Rule<GroupState = ()>> Hyperparameters for Apollo<U> {
    const NAME: &'static str = "Apollo";

    /// The inner rule's options under their own names, then those of the projection.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("rank", Range::CountFrom(1), &mut self.rank);
        option("update_proj_gap", Range::CountFrom(1), &mut self.update_proj_gap);
        option("scale", Range::NonNegative, &mut self.scale);
        option("norm_growth", Range::OptionalPositive, &mut self.norm_growth);
        option("project", Range::Flag, &mut self.project);
        option("seed", Range::CountFrom(0), &mut self.seed);
    }

    fn validate_together(&self) -> Result<()> {
        match self.norm_growth {
            Some(growth) if growth < 1.0 => {
                return Err(Self::invalid("norm_growth", "unset or >= 1", growth.to_string()));
            }
            _ => {}
        }
        self.inner.validate_together()?;
        check_inner::<Self, U>(&self.inner)
    }
}

/// The state of one matrix.
#[derive(Clone, Debug)]
pub struct ApolloBlock<R: Real> {
    side: Side,
    /// Pᵀ, n × r; zeros before the first step.
    projection: Array2<R>,
    /// ‖U‖ of the last step.
    update_norm: f64,
    inner: ElementState<R>,
}

/// Fills Pᵀ with numbers of N(0, 1/r) that belong to this seed, step and place.
fn draw<R: Real>(projection: &mut Array2<R>, seed: u64, t: u64) {
    let (n, rank) = projection.dim();
    let deviation = 1.0 / (rank as f64).sqrt();
    let key = [seed as u32, (seed >> 32) as u32];
    // the shape is part of the counter: other sides have other numbers
    let drawn = |i: usize| {
        let block = [(i / 2) as u32, n as u32, rank as u32, t as u32];
        let [first, second] = normal_pair(philox4x32(block, key));
        if i.is_multiple_of(2) { first } else { second }
    };
    let places = projection.iter_mut().enumerate();
    places.for_each(|(i, x)| *x = R::of(deviation * drawn(i)));
}

/// ‖R̃‖/(‖R‖ + 1e-8).
fn ratio<R: Real>(direction: &ArrayRef2<R>, gradient: &ArrayRef2<R>) -> f64 {
    frobenius(direction) / (frobenius(gradient) + EPS)
}

/// Multiplies every number by `factor`.
fn scale_by<R: Real>(x: &mut ArrayRef2<R>, factor: f64) {
    x.mapv_inplace(|x| R::of(x.widen() * factor));
}

impl<R: Real> ApolloBlock<R> {
    /// Replaces the gradient in `values` by the direction.
    fn step<U: Rule<GroupState = ()>>(&mut self, method: &Apollo<U>, t: u64, values: &mut [R]) {
        let side = self.side;
        let due = t > 1 && (t - 1).is_multiple_of(method.update_proj_gap.max(1));
        if due || self.projection.iter().all(R::is_zero) {
            draw(&mut self.projection, method.seed, t);
        }
        let Some(mut x) = side.view(values) else { return };
        let Self { projection, inner, .. } = self;
        // both have the memory order of the tensor
        let kept = side.low();
        let numel = kept.rows * kept.columns;
        with_scratch::<R, _>(2 * numel, |scratch| {
            let (low, u) = scratch.split_at_mut(numel);
            if let Some(mut low) = kept.view(low) {
                product(R::one(), (&projection.t(), &x), R::zero(), &mut low);
            }
            let limit = (R::max_value() / R::of(4.0)).sqrt();
            low.iter_mut().for_each(|x| *x = capped(*x, limit));
            Elementwise(method.inner.clone()).direction(t, low, inner, u);
            if let (Some(low), Some(u)) = (kept.view(low), kept.view(u)) {
                method.rescale(&mut x, &low, &u);
            }
        });
        let norm = frobenius(&x);
        let limit = method.norm_growth.map_or(f64::INFINITY, |growth| growth * self.update_norm);
        self.update_norm = if limit > 0.0 && norm > limit {
            scale_by(&mut x, limit / norm);
            limit
        } else {
            norm
        };
    }
}

impl<U: Rule<GroupState = ()>> Apollo<U> {
    /// x ← √α·x·s, for `low` the projected gradient and `u` what the inner rule makes of it.
    fn rescale<R: Real>(&self, x: &mut ArrayViewMut2<'_, R>, low: &ArrayRef2<R>, u: &ArrayRef2<R>) {
        let root = if self.inner.maximize() { -self.scale.sqrt() } else { self.scale.sqrt() };
        match self.scaling {
            ApolloScaling::Tensor => scale_by(x, root * ratio(u, low)),
            ApolloScaling::Channel => {
                let channels = low.axis_chunks_iter(Axis(1), 1).zip(u.axis_chunks_iter(Axis(1), 1));
                for (mut x, (low, u)) in x.axis_chunks_iter_mut(Axis(1), 1).zip(channels) {
                    scale_by(&mut x, root * ratio(&u, &low));
                }
            }
        }
    }
}

impl<R: Real> BlockState for ApolloBlock<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.inner.count(bytes);
        bytes.add("projection", self.projection.len() * size_of::<R>());
        bytes.add("update_norm", size_of::<f64>());
    }

    fn save(&self, record: &mut Record<'_>) {
        self.inner.save(&self.side.low().shape(), record);
        let values: Vec<R> = self.projection.iter().copied().collect();
        record.tensor("projection", StateTensor::new(self.projection.shape(), &values));
        record.scalar("update_norm", Scalar::Float(self.update_norm));
    }
}

impl<U: Rule<GroupState = ()>> MatrixMethod for Apollo<U> {
    type Rule = StepOnly<U>;
    /// Its slots have the same names as the slots of the blocks, so the blocks need no list of their own.
    type Fallback = U;
    type Block<R: Real> = ApolloBlock<R>;

    fn rule(&self) -> StepOnly<U> {
        StepOnly(self.inner.clone())
    }

    fn fallback(&self) -> U {
        self.inner.clone()
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        let (rows, columns) = matrix_shape(shape).filter(|_| self.project)?;
        Some(Partition::new(vec![rows, columns], usize::MAX))
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        (self.rank, self.project) == (changed.rank, changed.project)
    }

    fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> ApolloBlock<R> {
        let side = self.side(shape);
        let (n, _) = side.lengths();
        let inner = Elementwise(self.inner.clone());
        let inner = inner.init(&side.low().shape(), storage);
        ApolloBlock { side, projection: Array2::zeros((n, side.rank)), update_norm: 0.0, inner }
    }

    fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<ApolloBlock<R>> {
        let side = self.side(shape);
        let (n, _) = side.lengths();
        let inner = Elementwise(self.inner.clone());
        let inner = inner.load(&side.low().shape(), storage, lookup)?;
        let values = lookup.values("projection", &[n, side.rank])?;
        let projection = Array2::from_shape_vec((n, side.rank), values)
            .map_err(|error| lookup.problem("projection", error.to_string()))?;
        let update_norm = match lookup.scalar("update_norm").and_then(Scalar::as_f64) {
            Some(norm) if norm >= 0.0 || norm.is_nan() => norm,
            _ => return Err(lookup.problem("update_norm", "is not a number >= 0")),
        };
        Ok(ApolloBlock { side, projection, update_norm, inner })
    }

    fn extend<R: Real>(&self, block: &mut ApolloBlock<R>, _: &[usize], storage: &Storage) {
        let shape = block.side.low().shape();
        Elementwise(self.inner.clone()).extend(&mut block.inner, &shape, storage);
    }

    fn precondition<R: Real>(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut ApolloBlock<R>,
        mut direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        // one block is the whole tensor
        if let Some(values) = direction.as_slice_mut() {
            block.step(self, step.t.max(1), values);
        }
        0.0
    }

    fn cost(&self, _: u64, shape: &[usize]) -> f64 {
        let side = self.side(shape);
        let (n, k) = side.lengths();
        n as f64 * k as f64 * (2 * side.rank + 4) as f64
    }
}
