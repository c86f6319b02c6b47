//! Momentum that takes no memory.

use super::random::{Random, RandomDirections};
use super::sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
use crate::error::{Result, check_finite};
use crate::hyperparameters;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::Layout;
use crate::state::{Lookup, Record, Scalar, StateBytes, StateTensor};
use std::collections::VecDeque;

/// Momentum without a stored average: past directions are drawn again.
///
/// ```text
/// estimate at step t  =  Σ mˢ·ĝ_{t−s},   0 ≤ s < T,   T: number of s with mˢ ≥ floor
/// ```
/// ĝ are the estimates of [`Random`]. Together with [`Sgd`](crate::first_order::Sgd) without momentum,
/// this is gradient descent with momentum m, with two differences: terms below the floor are dropped, and
/// weight decay does not enter the sum. An update draws T times as many directions.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `sampler` | `Rademacher` | – |
/// | `momentum` m | 0.9 | usual with PyTorch |
/// | `floor` | 1e-3: T = 66 | – |
///
/// State: 8 bytes per past step, tensor and direction; nothing per parameter.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, ReplayedMomentum, Spsa}};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, -2.0];
/// let mut estimator = Spsa::with_sampler(ReplayedMomentum::default()).build::<f64>()?;
/// let mut opt = Sgd { lr: 0.002, ..Sgd::default() }.build()?;
/// for _ in 0..500 {
///     let estimate = estimator.estimate(&mut w, |w| w.mapv(|x| x * x).sum())?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 0.2), "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// A run is determined by its seed and its losses: S. Malladi et al., "Fine-Tuning Language Models with
/// Just Forward Passes", 2023.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ReplayedMomentum {
    /// The sampler of the directions.
    pub sampler: Random,
    /// The momentum, in `[0, 1)`.
    pub momentum: f64,
    /// The weight below which past steps are dropped, in `(0, 1]`.
    pub floor: f64,
}
crate::config_file::named_fields!(ReplayedMomentum);

impl Default for ReplayedMomentum {
    fn default() -> Self {
        Self { sampler: Random::default(), momentum: 0.9, floor: 1e-3 }
    }
}

hyperparameters!(ReplayedMomentum, "ReplayedMomentum", {
    "momentum": UnitHalfOpen = momentum;
    "floor": Unit = floor;
}, |config| {
    match config.floor > 0.0 {
        true => Ok(()),
        false => Err(ReplayedMomentum::invalid("floor", "in (0, 1]", config.floor.to_string())),
    }
});

impl DirectionSampler for ReplayedMomentum {
    type Directions<R: Real> = ReplayedDirections;

    fn directions<R: Real>(&self) -> ReplayedDirections {
        ReplayedDirections {
            config: *self,
            inner: self.sampler.directions::<R>(),
            past: VecDeque::new(),
            dropped: Vec::new(),
            observed: false,
        }
    }
}

/// The directions of [`ReplayedMomentum`].
#[derive(Clone, Debug)]
pub struct ReplayedDirections {
    config: ReplayedMomentum,
    inner: RandomDirections,
    /// The newest first.
    past: VecDeque<Past>,
    /// What the last step has dropped from the end of `past`. The next step uses its memory.
    dropped: Vec<Past>,
    /// Whether the step has learnt: the newest of `past` is its own.
    observed: bool,
}

/// All that an estimate is made of, except random numbers.
#[derive(Clone, Debug, Default)]
struct Past {
    step: u64,
    queries: usize,
    /// The factors of the directions as they are drawn, `[tensor][query]`.
    weights: Vec<f64>,
}

impl<R: Real> Directions<R> for ReplayedDirections {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        self.observed = false;
        self.inner.begin(context)
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.inner.probe(key, offset, out);
    }

    fn observe(
        &mut self,
        context: &StepContext<'_, R>,
        derivatives: &DirectionalDerivatives,
    ) -> Result<()> {
        let ReplayedMomentum { momentum, floor, .. } = self.config;
        let mut newest = self.dropped.pop().unwrap_or_default();
        (newest.step, newest.queries) = (context.step, context.queries as usize);
        newest.weights.clear();
        for tensor in 0..context.layout.segments().len() {
            let scale = Directions::<R>::scale(&self.inner, tensor);
            let counts = f64::from(u8::from(derivatives.takes_part(tensor)));
            newest.weights.extend((0..context.queries).map(|query| {
                let length = self.inner.inverse(tensor, query).unwrap_or(1.0);
                counts * scale * length * derivatives.weight(tensor, query as usize)
            }));
        }
        check_finite("a derivative to remember", &newest.weights)?;
        // keep steps whose weight reaches the floor
        let mut kept = 1;
        let mut power = momentum;
        while kept <= self.past.len() && power >= floor {
            (kept, power) = (kept + 1, power * momentum);
        }
        self.dropped.clear();
        self.dropped.extend(self.past.drain(kept - 1..));
        self.past.push_front(newest);
        self.observed = true;
        Ok(())
    }

    fn undo(&mut self) {
        if std::mem::take(&mut self.observed) {
            self.past.pop_front();
            self.past.extend(self.dropped.drain(..));
        }
    }

    fn own_estimate(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) -> bool {
        with_scratch(out.len(), |sum: &mut [f64]| {
            sum.fill(0.0);
            let mut power = 1.0;
            for Past { step, queries, weights } in &self.past {
                let weights = weights.chunks_exact((*queries).max(1)).nth(key.tensor);
                for (query, &weight) in (0..).zip(weights.unwrap_or_default()) {
                    if weight == 0.0 {
                        continue;
                    }
                    self.config.sampler.draw(
                        &DirectionKey { step: *step, query, ..*key },
                        offset,
                        out,
                    );
                    for (sum, &mut u) in sum.iter_mut().zip(out.iter_mut()) {
                        *sum += power * weight * u.widen();
                    }
                }
                power *= self.config.momentum;
            }
            for (x, &mut sum) in out.iter_mut().zip(sum) {
                *x = R::of(sum);
            }
        });
        true
    }

    fn count(&self, bytes: &mut StateBytes) {
        bytes.add("past", self.past.iter().map(|past| size_of_val(&*past.weights)).sum());
    }

    fn save(&self, record: &mut Record<'_>) {
        for (age, past) in self.past.iter().enumerate() {
            let shape = [past.weights.len() / past.queries.max(1), past.queries];
            record.tensor(&format!("past.{age}"), StateTensor::new(&shape, &past.weights));
            // a step is below 2^32
            let step = Scalar::Int(i64::try_from(past.step).unwrap_or(0));
            record.scalar(&format!("past.{age}.step"), step);
        }
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        self.past.clear();
        (self.dropped, self.observed) = (Vec::new(), false);
        for age in 0.. {
            let name = format!("past.{age}");
            let Some(tensor) = lookup.tensor(&name) else { break };
            let tensors = layout.segments().len();
            let &[found, queries] = &*tensor.shape else {
                return Err(lookup.problem(&name, "is not a matrix"));
            };
            if found != tensors || queries >> 24 != 0 {
                let text = "does not have a row per tensor and a column per direction";
                return Err(lookup.problem(&name, text));
            }
            let weights: Vec<f64> = lookup.values(&name, &[tensors, queries])?;
            if !weights.iter().all(|x| x.is_finite()) {
                return Err(lookup.problem(&name, "holds something that is not finite"));
            }
            let key = format!("past.{age}.step");
            let step = lookup.scalar(&key).and_then(Scalar::as_u64).filter(|step| step >> 32 == 0);
            let step = step.ok_or_else(|| lookup.problem(&key, "is not a step"))?;
            self.past.push_back(Past { step, queries, weights });
        }
        Ok(())
    }
}
