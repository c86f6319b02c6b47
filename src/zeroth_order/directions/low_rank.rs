//! Low-rank directions.

use super::sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
use super::thin::{View, transposed};
use crate::error::{Result, check_finite};
use crate::hyperparameters;
use crate::numeric::Real;
use crate::optim::Layout;
use crate::state::{Lookup, Record, Scalar, StateBytes, StateTensor};
use crate::zeroth_order::estimator::Purpose;

/// LOZO: low-rank directions for matrices. Their right factor stays the same for `interval` steps.
///
/// ```text
/// every `interval` steps: V ~ N(0, I), n × r
/// u = U·Vᵀ,  U ~ N(0, I), m × r, new for every direction         E[u⟨u, G⟩] = r·G
/// ĝ = c·u/r                                   without 1/r if `scale_by_rank` is false
///
/// with momentum β (LOZO-M):  N ← c·U in the first step, then βN + (1 − β)·c·U;   ĝ = N·Vᵀ/r
///                            before V changes: N ← N·VᵀV′/n
/// ```
/// A tensor of more than two dimensions counts as the matrix of its first dimension against all others. A
/// matrix with `min(m, n) <= r`, and every vector, gets plain Gaussian directions z; momentum then averages
/// `c·z` in the same way.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `rank` r | 2 | authors' code |
/// | `interval` ν | 50 | authors' code |
/// | `scale_by_rank` | true | paper; false in the authors' code |
/// | `momentum` β | 0: LOZO; above 0: LOZO-M | – |
///
/// State per m × n matrix: V with `r·n` numbers, which are drawn again after loading, and with momentum N
/// with `r·m` numbers. State of other tensors: with momentum, one number per element. Momentum is held twice: a
/// step that fails returns to the one before it.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Lozo, Spsa}};
/// use ndarray::Array2;
///
/// let mut w = Array2::<f32>::ones((20, 10));
/// let mut estimator = Spsa { num_samples: 8, ..Spsa::with_sampler(Lozo::default()) }.build::<f32>()?;
/// let mut opt = Sgd { lr: 5e-3, ..Sgd::default() }.build()?;
/// for _ in 0..300 {
///     let estimate = estimator.estimate(&mut w, |w| w.mapv(|x| x * x).sum())?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(w.mapv(|x| x * x).sum() < 100.0, "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// In the published code, a step that draws a new V updates along a U that was not probed. Here every
/// update is along the directions of its probes.
///
/// # Source
/// Y. Chen, Y. Zhang, L. Cao, K. Yuan, Z. Wen, "Enhancing Zeroth-Order Fine-Tuning for Language Models
/// with Low-Rank Structures", 2025.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Lozo {
    /// The number of columns of the factors, at least 1.
    pub rank: usize,
    /// The number of steps with the same right factor, at least 1.
    pub interval: u64,
    /// Whether the estimate is divided by the rank, which makes it unbiased.
    pub scale_by_rank: bool,
    /// The decay rate of the average of left factors, in `[0, 1)`. 0 keeps no average.
    pub momentum: f64,
}
crate::config_file::named_fields!(Lozo);

impl Default for Lozo {
    fn default() -> Self {
        Self { rank: 2, interval: 50, scale_by_rank: true, momentum: 0.0 }
    }
}

hyperparameters!(Lozo, "Lozo", {
    "rank": CountFrom(1) = rank;
    "interval": CountFrom(1) = interval;
    "scale_by_rank": Flag = scale_by_rank;
    "sampler_momentum": UnitHalfOpen = momentum;
});

impl DirectionSampler for Lozo {
    type Directions<R: Real> = LozoDirections<R>;

    fn directions<R: Real>(&self) -> LozoDirections<R> {
        LozoDirections { config: *self, epoch: None, tensors: Vec::new(), before: None }
    }
}

/// One tensor.
#[derive(Clone, Debug)]
struct Factors<R> {
    /// The tensor as a matrix; `None` if it has plain directions.
    view: Option<View>,
    /// `Vᵀ`, r × n.
    right: Vec<R>,
    /// N, m × r, or the average of plain directions. Empty without momentum and before the first step.
    average: Vec<R>,
    /// The same before the step, if the step has changed it.
    before: Vec<R>,
}

/// The directions of [`Lozo`].
#[derive(Clone, Debug)]
pub struct LozoDirections<R> {
    config: Lozo,
    /// The step at which the right factors were drawn.
    epoch: Option<u64>,
    tensors: Vec<Factors<R>>,
    /// The epoch before the step, if the step has changed epoch or averages.
    before: Option<Option<u64>>,
}

impl<R: Real> LozoDirections<R> {
    /// Keeps epoch and averages, so that [`Directions::undo`] can return to them.
    fn keep(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.epoch);
            self.tensors.iter_mut().for_each(|f| f.before.clone_from(&f.average));
        }
    }
}

impl<R: Real> Directions<R> for LozoDirections<R> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        self.before = None;
        let rank = self.config.rank;
        let epoch = context.step - context.step % self.config.interval;
        let segments = context.layout.segments();
        // right factors are missing after loading
        let drawn = self.tensors.iter().all(|f| f.view.is_none() || !f.right.is_empty());
        if self.epoch == Some(epoch) && self.tensors.len() == segments.len() && drawn {
            return Ok(());
        }
        self.keep();
        if self.tensors.len() != segments.len() {
            self.tensors = segments.iter().map(|s| Factors::new(View::of(s, rank))).collect();
        }
        for (tensor, factors) in self.tensors.iter_mut().enumerate() {
            let Some(view) = factors.view else { continue };
            let draw = |epoch| draw_right(context, epoch, tensor, (view, rank));
            let right = draw(epoch);
            if let Some(before) = self.epoch.filter(|_| !factors.average.is_empty()) {
                if factors.right.is_empty() {
                    factors.right = draw(before);
                }
                if before != epoch {
                    factors.change_basis(&right, view.columns, rank);
                }
            }
            factors.right = right;
        }
        self.epoch = Some(epoch);
        Ok(())
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        let Some((Factors { right, .. }, view)) =
            self.tensors.get(key.tensor).and_then(|f| Some((f, f.view?)))
        else {
            return key.noise.normal(&key.stream(Purpose::Direction), offset, out);
        };
        let stream = key.stream(Purpose::LeftFactor);
        let rank = self.config.rank;
        view.product(right, offset, out, |row, left| {
            key.noise.normal(&stream, row * rank, left);
        });
    }

    fn scale(&self, tensor: usize) -> f64 {
        let scaled =
            self.config.scale_by_rank && self.tensors.get(tensor).is_some_and(|f| f.view.is_some());
        if scaled { 1.0 / self.config.rank as f64 } else { 1.0 }
    }

    fn observe(
        &mut self,
        context: &StepContext<'_, R>,
        derivatives: &DirectionalDerivatives,
    ) -> Result<()> {
        let Lozo { rank, momentum, .. } = self.config;
        if momentum == 0.0 {
            return Ok(());
        }
        self.keep();
        let tensors = self.tensors.iter_mut().zip(context.layout.segments());
        for (tensor, (factors, segment)) in tensors.enumerate() {
            if !derivatives.takes_part(tensor) {
                continue;
            }
            let (purpose, len) = match factors.view {
                Some(view) => (Purpose::LeftFactor, view.rows * rank),
                None => (Purpose::Direction, segment.numel()),
            };
            let (mut now, mut drawn) = (vec![0.0; len], vec![R::zero(); len]);
            for query in 0..context.queries {
                let weight = derivatives.weight(tensor, query as usize);
                let key = DirectionKey { noise: context.noise, step: context.step, query, tensor };
                context.noise.normal(&key.stream(purpose), 0, &mut drawn);
                for (sum, u) in now.iter_mut().zip(&drawn) {
                    *sum += weight * u.widen();
                }
            }
            if factors.average.is_empty() {
                factors.average = now.iter().map(|&x| R::of(x)).collect();
            } else {
                for (average, &x) in factors.average.iter_mut().zip(&now) {
                    *average = R::of(momentum * average.widen() + (1.0 - momentum) * x);
                }
            }
            check_finite("an average of directions", &factors.average)?;
        }
        Ok(())
    }

    fn undo(&mut self) {
        let Some(epoch) = self.before.take() else { return };
        for factors in &mut self.tensors {
            std::mem::swap(&mut factors.average, &mut factors.before);
            if epoch != self.epoch {
                // drawn again from the epoch
                factors.right.clear();
            }
        }
        self.epoch = epoch;
    }

    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        let factors = self.tensors.get(key.tensor).filter(|factors| !factors.average.is_empty());
        factors.inspect(|factors| factors.estimate(offset, out)).is_some()
    }

    fn count(&self, bytes: &mut StateBytes) {
        for factors in &self.tensors {
            bytes.add("right", size_of_val(&*factors.right));
            bytes.add("momentum", size_of_val(&*factors.average) + size_of_val(&*factors.before));
        }
    }

    fn save(&self, record: &mut Record<'_>) {
        // an epoch is a step, below 2^32
        let learned = self.tensors.iter().any(|f| !f.average.is_empty());
        let Some(epoch) = self.epoch.filter(|_| learned) else { return };
        record.scalar("epoch", Scalar::Int(i64::try_from(epoch).unwrap_or(0)));
        for (tensor, factors) in self.tensors.iter().enumerate() {
            let average = &factors.average;
            record
                .tensor(&format!("momentum.{tensor}"), StateTensor::new(&[average.len()], average));
        }
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        let Lozo { rank, momentum, .. } = self.config;
        (self.epoch, self.tensors, self.before) = (None, Vec::new(), None);
        let Some(epoch) = lookup.scalar("epoch").filter(|_| momentum > 0.0) else { return Ok(()) };
        let epoch = epoch.as_u64().ok_or_else(|| lookup.problem("epoch", "is not a step"))?;
        for (tensor, segment) in layout.segments().iter().enumerate() {
            let view = View::of(segment, rank);
            let len = view.map_or(segment.numel(), |view| view.rows * rank);
            let name = format!("momentum.{tensor}");
            // a tensor that never took part has none yet
            let begun = lookup.tensor(&name).is_none_or(|tensor| tensor.shape != [0]);
            let average: Vec<R> = lookup.values(&name, &[if begun { len } else { 0 }])?;
            if !average.iter().all(|x| x.is_finite()) {
                return Err(lookup.problem(&name, "holds something that is not finite"));
            }
            self.tensors.push(Factors { average, ..Factors::new(view) });
        }
        // the right factors to which the averages belong are drawn again from this
        self.epoch = Some(epoch);
        Ok(())
    }
}

/// `Vᵀ` of an epoch.
fn draw_right<R: Real>(
    context: &StepContext<'_, R>,
    epoch: u64,
    tensor: usize,
    (view, rank): (View, usize),
) -> Vec<R> {
    let key = DirectionKey { noise: context.noise, step: epoch, query: 0, tensor };
    let mut right = vec![R::zero(); view.columns * rank];
    context.noise.normal(&key.stream(Purpose::RightFactor), 0, &mut right);
    transposed(&right, rank)
}

impl<R: Real> Factors<R> {
    /// Before the first step.
    fn new(view: Option<View>) -> Self {
        Self { view, right: Vec::new(), average: Vec::new(), before: Vec::new() }
    }

    /// `N ← N·(VᵀV′)/n`.
    fn change_basis(&mut self, new: &[R], n: usize, rank: usize) {
        let mixed: Vec<R> = (0..rank * rank)
            .map(|i| {
                // columns of the factors are rows here
                let old = self.right.iter().skip(i / rank * n).take(n);
                let new = new.iter().skip(i % rank * n).take(n);
                R::of(old.zip(new).map(|(a, b)| a.widen() * b.widen()).sum::<f64>() / n as f64)
            })
            .collect();
        for row in self.average.chunks_exact_mut(rank) {
            let old = row.to_vec();
            for (j, x) in row.iter_mut().enumerate() {
                let column = mixed.iter().skip(j).step_by(rank);
                *x = old.iter().zip(column).map(|(&a, &b)| a * b).sum();
            }
        }
    }

    /// The elements `offset .. offset + out.len()` of `N·Vᵀ`, or of the average.
    fn estimate(&self, offset: usize, out: &mut [R]) {
        let Some(view) = self.view else {
            let from = self.average.get(offset..).unwrap_or_default();
            out.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
            return;
        };
        view.product(&self.right, offset, out, |row, left| {
            let from = self.average.chunks_exact(left.len()).nth(row).unwrap_or_default();
            left.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
        });
    }
}
