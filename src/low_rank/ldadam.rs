use super::subspace::{Side, Subspace, leading, product};
use crate::error::Result;
use crate::first_order::AdamW;
use crate::kernel::Isa;
use crate::kernel::scratch::with_scratch;
use crate::linalg::{matmul, matrix_shape, qr, scale_to_one};
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::optim::{BlockState, BlockStep, MatrixMethod, Partition, StepOnly};
use crate::state::slot::{SlotBuffer, SlotShape};
use crate::state::{Lookup, Record, SlotInit, SlotKind, StateBytes, Storage};
use ndarray::{Array2, ArrayRef2, ArrayViewMut2, ArrayViewMutD};

/// LDAdam: AdamW in a subspace that follows the gradients, with error feedback.
///
/// *Use it when* the moments of large matrices do not fit into memory, and no part of a gradient may
/// be lost. *Not when* the 4 bytes per `f32` parameter of the residual are too many: take
/// [`GaLore`](super::GaLore), or switch `error_feedback` off. Put embeddings and output heads into a
/// group with `project = false`.
///
/// ```text
/// X = G + E                                            n × k; transposed if there are more rows
/// first step   U ← the r leading left singular vectors of X
/// later        A = ρ·U⁻m/c₁ + (1 − ρ)·X,  U ← Q of A(AᵀU⁻) = QR,  R_ii >= 0
///              P = UᵀU⁻,  m⁺ = P m
///              v ← |c₂·((P∘P)(v/c₂ − (m/c₁)²) + (m⁺/c₁)²)|
/// E ← X − U UᵀX + β₁/(1 − β₁)·(U⁻m − U m⁺)
/// m ← β₁·m⁺ + (1 − β₁)·UᵀX
/// v ← β₂·v + (1 − β₂)·(UᵀX)²
/// W ← W·(1 − γλ) − γ·U·(m/(1 − β₁ᵗ))/(√(v/(1 − β₂ᵗ)) + ε)
/// ```
/// `U⁻` is the basis of the last step; c₁ = 1 − β₁ᵗ⁻¹ and c₂ = 1 − β₂ᵗ⁻¹ are its bias corrections. r
/// is `rank`, or n if that is less. If A = 0 the basis stays as it is. If A(AᵀU⁻) = 0 the basis is
/// computed from A as at the first step.
///
/// Tensors that are not matrices get AdamW. A tensor of more than two dimensions is a matrix of (first
/// dimension, all others); dimensions of 1 are left out.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | authors' code |
/// | `betas` β₁, β₂ | (0.908, 0.99) | authors' code |
/// | `rho` ρ | 0.908 | authors' code |
/// | `rank` r | 16 | authors' code |
/// | `eps` ε | 1e-8 | authors' code |
/// | `weight_decay` λ | 0 | authors' code |
/// | `error_feedback` | true | paper; without it E = 0 |
/// | `project` | true | false: this group gets AdamW |
/// | `tolerated_failures` | 3 | – |
///
/// State of an n × k matrix, n <= k: `basis` (U) with nr values, `exp_avg` (m) and `exp_avg_sq` (v)
/// with rk values each, and with error feedback `error` (E) with nk values. `with_state_precision`
/// applies to the moments. E stays in full precision, because rounding would lose its small elements;
/// use [`with_slot_precision`](crate::optim::Optim::with_slot_precision) to change that. A scratch
/// buffer takes another 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses options out of range. If a decomposition fails, U stays as it was. After more than
/// `tolerated_failures` consecutive failures a step fails.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array2;
///
/// // a target of full rank: no gradient fits into a subspace of two dimensions
/// let target = Array2::from_shape_fn((12, 8), |(i, j)| ((i * i + 3 * i * j + j) as f64).sin());
/// let mut w = Array2::<f64>::zeros((12, 8));
/// let mut opt = LdAdam { rank: 2, ..LdAdam::default() }.build()?;
/// let loss = |w: &Array2<f64>| (w - &target).iter().map(|x| x * x).sum::<f64>();
/// let before = loss(&w);
/// for step in 0..600 {
///     opt.set_lr(0, 0.1 * (1.0 - f64::from(step) / 600.0))?;
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(loss(&w) < 0.01 * before);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The authors' code keeps E inside the gradients, which must then not be cleared, clipped or scaled.
/// Here E is a slot of its own. Second moments are clamped where sums of them would overflow.
///
/// # Source
/// T. Robert, M. Safaryan, I.-V. Modoranu, D. Alistarh, "LDAdam: Adaptive Optimization from
/// Low-Dimensional Gradient Statistics", ICLR 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct LdAdam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Weight `ρ` of the first moment in the matrix that the basis follows, in `[0, 1]`.
    pub rho: f64,
    /// Dimension `r` of the subspace, at least 1; cut to the shorter side of a matrix.
    pub rank: usize,
    /// Stabiliser `ε >= 0`, added to the root of the corrected second moment.
    pub eps: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Whether the part of a gradient outside of the subspace is added to the next gradient.
    pub error_feedback: bool,
    /// Whether matrices of this group are projected.
    pub project: bool,
    /// Consecutive failed decompositions that are tolerated.
    pub tolerated_failures: u64,
}
crate::config_file::named_fields!(LdAdam);

impl Default for LdAdam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.908, 0.99),
            rho: 0.908,
            rank: 16,
            eps: 1e-8,
            weight_decay: 0.0,
            error_feedback: true,
            project: true,
            tolerated_failures: 3,
        }
    }
}

crate::hyperparameters!(LdAdam, "LdAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "rho": Unit = rho;
    "rank": CountFrom(1) = rank;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "error_feedback": Flag = error_feedback;
    "project": Flag = project;
    "tolerated_failures": CountFrom(0) = tolerated_failures;
});

/// The state of one matrix.
#[derive(Clone, Debug)]
pub struct LdAdamBlock<R> {
    side: Side,
    subspace: Subspace<R>,
    /// m and v, r × k.
    moments: [SlotBuffer<R>; 2],
    /// E, in the shape of the tensor; `None` without error feedback.
    error: Option<SlotBuffer<R>>,
}

/// The moments, under the names of AdamW's slots.
const MOMENTS: [(&str, SlotKind); 2] =
    [("exp_avg", SlotKind::Signed), ("exp_avg_sq", SlotKind::Unsigned)];
/// In full precision, unless a precision is set for this slot by name.
const ERROR: (&str, SlotKind) = ("error", SlotKind::Iterate);

fn slot<'s>((name, kind): (&'static str, SlotKind), shape: &'s [usize; 2]) -> SlotShape<'s> {
    SlotShape { name, kind, shape, stride: 1, init: SlotInit::Value(0.0), factors: None }
}

fn read<R: Real>(buffer: &mut SlotBuffer<R>, out: &mut [R], with: impl Fn(&mut R, R)) {
    buffer.read(Isa::detect(), out.len(), |start, values| {
        out.iter_mut().skip(start).zip(values).for_each(|(x, &value)| with(x, value));
    });
}

fn write<R: Real>(buffer: &mut SlotBuffer<R>, from: &[R]) {
    buffer.rewrite(Isa::detect(), from.len(), |start, values| {
        values.iter_mut().zip(from.iter().skip(start)).for_each(|(x, &value)| *x = flushed(value));
    });
}

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
struct Scalars<R> {
    betas: (R, R),
    rho: R,
    eps: R,
    /// `1 − βᵗ⁻¹` of both moments.
    old_bias: (R, R),
    /// `1 − βᵗ` of both moments.
    bias: (R, R),
    /// `β₁/(1 − β₁)`.
    carry: R,
    /// Upper limit of second moments: the sum of r of them does not overflow.
    limit: R,
}

impl<R: Real> Scalars<R> {
    fn new(method: &LdAdam, t: u64, rank: usize) -> Self {
        let (beta1, beta2) = method.betas;
        let bias = |beta: f64, t: u64| R::of(1.0 - beta.powf(t as f64));
        let old = t.saturating_sub(1);
        Self {
            betas: (R::of(beta1), R::of(beta2)),
            rho: R::of(method.rho),
            eps: R::of(method.eps),
            old_bias: (bias(beta1, old), bias(beta2, old)),
            bias: (bias(beta1, t), bias(beta2, t)),
            carry: R::of(beta1 / (1.0 - beta1)),
            limit: R::max_value() / R::of(8.0 * (rank as f64 + 1.0)),
        }
    }

    fn square(&self, x: R) -> R {
        self.capped(x * x)
    }

    /// NaN stays NaN.
    fn capped(&self, x: R) -> R {
        if x > self.limit { self.limit } else { x }
    }
}

/// The next basis: one step of block power iteration on `a` from `old`, or the leading singular
/// vectors of `a` if that step gives zero.
fn follow<R: Real>(a: &ArrayRef2<R>, old: &ArrayRef2<R>) -> Result<Array2<R>> {
    let image = matmul(a, &matmul(&a.t(), old)?)?;
    if image.iter().all(R::is_zero) {
        return leading(a, old.ncols());
    }
    qr(&image).map(|(q, _)| q)
}

impl<R: Real> LdAdamBlock<R> {
    fn shape(side: Side) -> ([usize; 2], [usize; 2]) {
        let (_, k) = side.lengths();
        ([side.rank, k], [side.rows, side.columns])
    }

    fn new_error(side: Side, storage: &Storage) -> SlotBuffer<R> {
        SlotBuffer::new::<R>(&slot(ERROR, &Self::shape(side).1), &[], storage)
    }

    /// Moves the basis towards the gradient `x`, and returns the old basis if it has moved. `a` is a
    /// scratch buffer.
    fn follow(
        &mut self,
        c: &Scalars<R>,
        x: &ArrayRef2<R>,
        m: &ArrayRef2<R>,
        a: &mut ArrayRef2<R>,
    ) -> Option<Array2<R>> {
        let missing = self.subspace.is_missing();
        let old = &self.subspace.basis;
        a.assign(x);
        if !missing {
            let (c1, _) = c.old_bias;
            product(c.rho / c1, (old, m), R::one() - c.rho, a);
        }
        if a.iter().all(R::is_zero) {
            return None;
        }
        scale_to_one(a);
        let basis = if missing { leading(a, self.side.rank) } else { follow(a, old) };
        self.subspace.replace(basis)
    }

    /// Rotates the moments from the `old` basis into the new one. The new first moment goes into
    /// `rotated`.
    fn rotate(&self, c: &Scalars<R>, old: &ArrayRef2<R>, [m, v, rotated]: [&mut ArrayRef2<R>; 3]) {
        let Ok(mut rotation) = matmul(&self.subspace.basis.t(), old) else { return };
        product(R::one(), (&rotation, m), R::zero(), rotated);
        rotation.mapv_inplace(|x| x * x);
        let (c1, c2) = c.old_bias;
        if c1 == R::zero() || c2 == R::zero() {
            return; // at the first step there are no moments to rotate
        }
        let mut variance = v.to_owned();
        variance.zip_mut_with(m, |v, &m| *v = c.capped(*v / c2) - c.square(m / c1));
        product(R::one(), (&rotation, &variance), R::zero(), v);
        v.zip_mut_with(rotated, |v, &m| *v = (c2 * (*v + c.square(m / c1))).abs());
    }

    /// Step `t`: replaces the gradient in `values` by the direction.
    fn step(&mut self, method: &LdAdam, t: u64, values: &mut [R]) {
        let side = self.side;
        let ([r, k], _) = Self::shape(side);
        let c = Scalars::new(method, t, r);
        let mut error = self.error.take();
        let mut feedback = error.as_mut().filter(|_| method.error_feedback);
        if let Some(error) = &mut feedback {
            read(error, values, |x, e| *x += e);
        }
        with_scratch::<R, _>(values.len() + 4 * r * k, |scratch| {
            let (rest, low) = scratch.split_at_mut(values.len());
            let mut parts = low.chunks_mut((r * k).max(1));
            let mut part = || parts.next().unwrap_or_default();
            let (m, v, rotated, low) = (part(), part(), part(), part());
            self.moments.iter_mut().zip([&mut *m, &mut *v]).for_each(|(slot, values)| {
                read(slot, values, |x, value| *x = value);
            });
            self.compute(&c, [values, rest], [&mut *m, &mut *v, rotated, low]);
            self.moments.iter_mut().zip([m, v]).for_each(|(slot, values)| write(slot, values));
            if let Some(error) = &mut feedback {
                write(error, rest);
            }
        });
        self.error = error;
    }

    /// Replaces X in `values` by the direction, and writes the new E into `rest`, the new moments
    /// into `m` and `v`.
    fn compute(
        &mut self,
        c: &Scalars<R>,
        [values, rest]: [&mut [R]; 2],
        [m, v, rotated, low]: [&mut [R]; 4],
    ) -> Option<()> {
        let side = self.side;
        let ([r, k], _) = Self::shape(side);
        let matrix = |values| ArrayViewMut2::from_shape((r, k), values).ok();
        let (mut x, mut e) = (side.view(values)?, side.view(rest)?);
        let (mut m, mut v) = (matrix(m)?, matrix(v)?);
        let (mut rotated, mut low) = (matrix(rotated)?, matrix(low)?);

        let old = self.follow(c, &x, &m, &mut e);
        let basis = &self.subspace.basis;
        product(R::one(), (&basis.t(), &x), R::zero(), &mut low);
        e.assign(&x);
        product(-R::one(), (basis, &low), R::one(), &mut e);
        if let Some(old) = old {
            product(c.carry, (&old, &m), R::one(), &mut e);
            self.rotate(c, &old, [&mut m, &mut v, &mut rotated]);
            m.assign(&rotated);
            product(-c.carry, (basis, &m), R::one(), &mut e);
        }
        let (beta1, beta2) = c.betas;
        m.zip_mut_with(&low, |m, &g| *m = beta1 * *m + (R::one() - beta1) * g);
        v.zip_mut_with(&low, |v, &g| {
            *v = c.capped(beta2 * *v + (R::one() - beta2) * c.square(g));
        });
        low.assign(&m);
        let (bias1, bias2) = c.bias;
        low.zip_mut_with(&v, |u, &v| {
            let root = (v / bias2).sqrt() + c.eps;
            // without a gradient there is no direction, even if eps is 0
            *u = if root == R::zero() { *u } else { *u / bias1 / root };
        });
        product(R::one(), (basis, &low), R::zero(), &mut x);
        Some(())
    }
}

impl<R: Real> BlockState for LdAdamBlock<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.subspace.count(bytes);
        for ((name, _), slot) in MOMENTS.iter().zip(&self.moments) {
            bytes.add(name, slot.bytes());
        }
        bytes.add("error", self.error.as_ref().map_or(0, SlotBuffer::bytes));
    }

    fn save(&self, record: &mut Record<'_>) {
        let (low, full) = Self::shape(self.side);
        for ((name, _), slot) in MOMENTS.iter().zip(&self.moments) {
            slot.save(name, &low, record);
        }
        if let Some(error) = &self.error {
            error.save("error", &full, record);
        }
        self.subspace.save(record);
    }

    fn failures(&self) -> Option<(u64, &'static str)> {
        self.subspace.failures()
    }
}

impl MatrixMethod for LdAdam {
    type Rule = StepOnly<AdamW>;
    type Fallback = AdamW;
    type Block<R: Real> = LdAdamBlock<R>;

    fn rule(&self) -> StepOnly<AdamW> {
        StepOnly(self.fallback())
    }

    fn fallback(&self) -> AdamW {
        let Self { lr, betas, eps, weight_decay, .. } = *self;
        AdamW { lr, betas, eps, weight_decay, ..AdamW::default() }
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        let (rows, columns) = matrix_shape(shape).filter(|_| self.project)?;
        Some(Partition::new(vec![rows, columns], usize::MAX))
    }

    /// The moments are listed already, as AdamW's.
    fn block_slots(&self) -> &[&'static str] {
        &["error"]
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        (self.rank, self.project) == (changed.rank, changed.project)
    }

    fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> LdAdamBlock<R> {
        let side = self.side(shape);
        let (low, _) = LdAdamBlock::<R>::shape(side);
        let (n, _) = side.lengths();
        LdAdamBlock {
            side,
            subspace: Subspace::new(n, side.rank),
            moments: MOMENTS.map(|moment| SlotBuffer::new::<R>(&slot(moment, &low), &[], storage)),
            error: self.error_feedback.then(|| LdAdamBlock::new_error(side, storage)),
        }
    }

    fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<LdAdamBlock<R>> {
        let side = self.side(shape);
        let (low, full) = LdAdamBlock::<R>::shape(side);
        let (n, _) = side.lengths();
        let moment = |moment: (&'static str, SlotKind)| {
            let buffer = SlotBuffer::load(&slot(moment, &low), storage, lookup)?;
            buffer.ok_or_else(|| lookup.problem(moment.0, "is missing"))
        };
        let [m, v] = MOMENTS.map(moment);
        let error = SlotBuffer::load(&slot(ERROR, &full), storage, lookup)?;
        if error.is_none() && self.error_feedback {
            return Err(lookup.problem("error", "is missing"));
        }
        let subspace = Subspace::load(n, side.rank, lookup)?;
        Ok(LdAdamBlock { side, subspace, moments: [m?, v?], error })
    }

    fn extend<R: Real>(&self, block: &mut LdAdamBlock<R>, _: &[usize], storage: &Storage) {
        if self.error_feedback && block.error.is_none() {
            block.error = Some(LdAdamBlock::new_error(block.side, storage));
        }
    }

    fn precondition<R: Real>(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut LdAdamBlock<R>,
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
        14.0 * n as f64 * k as f64 * side.rank as f64
    }

    fn tolerated_failures(&self) -> u64 {
        self.tolerated_failures
    }
}

impl LdAdam {
    fn side(&self, shape: &[usize]) -> Side {
        Side::new(shape, |rows, columns| rows > columns, self.rank)
    }
}
