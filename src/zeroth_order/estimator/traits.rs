//! The trait of all estimators, and the three doors to it: a closure, a closure on several threads,
//! and ask/tell.

use super::estimate::{Estimate, Report};
use super::snapshot::VisitBuffers;
use super::state::EstimatorState;
use super::work_split::work_split;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::{IntoLoss, Layout, NonFinite, Segment};
use crate::params::Parameters;
use crate::state::{StateBytes, StateDict};
use std::fmt::Debug;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What an estimator adds to a [`EstimatorState`]; only this crate can.
pub trait Core<T: Element> {
    /// The session.
    fn state(&self) -> &EstimatorState<T>;

    /// The session.
    fn state_mut(&mut self) -> &mut EstimatorState<T>;

    /// What happens to losses that are NaN or infinite.
    fn non_finite(&self) -> NonFinite;

    /// Number of probes of the step that was asked for.
    fn num_probes(&self) -> usize;

    /// Prepares the step to come.
    fn plan(&mut self, params: &mut dyn Parameters<T>) -> Result<()>;

    /// The estimate from losses that have been checked; the step is over.
    fn conclude(&mut self, losses: Vec<f64>) -> Estimate<'_, T>;
}

/// Estimates a gradient from losses alone.
///
/// The estimate is a tree of gradients: every optimizer of the crate takes it. There are three ways to
/// evaluate the probes of a step, with the same bits:
///
/// * [`Estimator::estimate`]: a closure sees the parameters, perturbed in place, one probe after another;
/// * [`Estimator::estimate_parallel`]: several threads, each with a copy of the model;
/// * [`Estimator::ask`], [`Estimator::perturb`] and [`Estimator::tell`]: evaluations somewhere else.
///
/// All evaluations of a step must see the same data and the same randomness (minibatch, dropout), and
/// must not change parameters, nor statistics such as those of batch normalisation. Parameters are put
/// back bit for bit after them, whether they succeed, fail or panic.
///
/// The leaves of the tree, and their order, are those of the first step: the place of a leaf decides
/// its random numbers.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Spsa}};
/// use ndarray::array;
///
/// let loss = |w: &ndarray::Array1<f64>| (w * w).sum();
/// let mut w = array![1.0f64, -2.0, 3.0];
/// let mut estimator = Spsa::default().build::<f64>()?;
/// let mut opt = AdamW { lr: 0.05, ..AdamW::default() }.build()?;
/// for _ in 0..300 {
///     // evaluations elsewhere: copies are perturbed, losses come back in order
///     let losses: Vec<f64> = (0..estimator.ask(&mut w)?)
///         .map(|probe| {
///             let mut copy = w.clone();
///             estimator.perturb(probe, &mut copy)?;
///             Ok(loss(&copy))
///         })
///         .collect::<eigenstep::Result<_>>()?;
///     let estimate = estimator.tell(&losses)?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(loss(&w) < 0.1);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Estimator<T: Element>: Core<T> + Debug + Send + Sync {
    /// Name, as in errors and state dicts.
    fn name(&self) -> &'static str;

    /// Turns parameters that are perturbed as for probe `from`, or not at all, into those of probe `to`,
    /// or into what they were when they were asked about.
    ///
    /// # Errors
    /// A tree whose leaves are not those that were asked about.
    fn move_to_probe(
        &self,
        buffers: &mut VisitBuffers<T>,
        from: Option<usize>,
        to: Option<usize>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()>;

    /// Bytes held, slot by slot.
    fn state_bytes(&self) -> StateBytes;

    /// A copy of everything needed to go on bit for bit: seed, step, and what the law remembers.
    fn state_dict(&self) -> StateDict;

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key; the estimator stays as it was.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()>;

    /// What a probe costs beside others: workers get probes of about the same cost in all.
    fn cost(&self, probe: usize) -> u64 {
        let _ = probe;
        1
    }

    /// Number of steps so far: estimates made. It keys the random numbers.
    fn steps(&self) -> u64 {
        self.state().step
    }

    /// The tensors, in the order of the tree; none before the first step.
    fn segments(&self) -> &[Segment] {
        self.state().snapshot.layout.segments()
    }

    /// What the last step has seen.
    fn report(&self) -> &Report {
        &self.state().report
    }

    /// Plans the probes of the next step at these parameters; returns their number. Asking again plans
    /// the same step anew.
    ///
    /// # Errors
    /// A tree whose leaves are not those of the first step; more steps, queries or elements than have
    /// random numbers of their own.
    fn ask(&mut self, params: &mut dyn Parameters<T>) -> Result<usize> {
        let first = self.segments().is_empty();
        let planned = self.plan(params);
        let state = self.state_mut();
        state.asked = planned.is_ok();
        if planned.is_err() && first {
            // the tree of a step that cannot be is no one's
            state.snapshot.layout = Layout::new();
        }
        planned.map(|()| self.num_probes())
    }

    /// Forgets what was asked: the step has not begun.
    fn cancel(&mut self) {
        self.state_mut().asked = false;
    }

    /// Perturbs a copy of the parameters that were asked about as for probe `probe`.
    ///
    /// # Errors
    /// As [`Estimator::move_to_probe`].
    fn perturb(&self, probe: usize, copy: &mut dyn Parameters<T>) -> Result<()> {
        self.move_to_probe(&mut VisitBuffers::default(), None, Some(probe), copy)
    }

    /// The estimate from the losses of all probes, in order. The step is over with it.
    ///
    /// # Errors
    /// [`Error::LossCount`](crate::Error::LossCount);
    /// [`Error::NonFiniteLoss`](crate::Error::NonFiniteLoss) unless the estimator skips or propagates
    /// those; [`Error::OutOfOrder`](crate::Error::OutOfOrder) if nothing was asked. The step is not over
    /// then.
    fn tell(&mut self, losses: &[f64]) -> Result<Estimate<'_, T>> {
        check(self, losses)?;
        let mut kept = take(&mut self.state_mut().losses);
        kept.clear();
        kept.extend_from_slice(losses);
        Ok(self.conclude(kept))
    }

    /// A step whose probes the closure evaluates one after another, in the parameters themselves.
    ///
    /// # Errors
    /// Those of the closure, of [`Estimator::ask`] and of [`Estimator::tell`]; the step is not over then.
    fn estimate<M, L>(
        &mut self,
        model: &mut M,
        mut loss: impl FnMut(&mut M) -> L,
    ) -> Result<Estimate<'_, T>>
    where
        Self: Sized,
        M: Parameters<T>,
        L: IntoLoss,
    {
        let probes = self.ask(model)?;
        let state = self.state_mut();
        let (mut buffers, mut losses) = (take(&mut state.buffers), take(&mut state.losses));
        let mut held = None;
        losses.clear();
        let mut evaluate = |model: &mut M| {
            for probe in 0..probes {
                self.move_to_probe(&mut buffers, held, Some(probe), model)?;
                held = Some(probe);
                losses.push(loss(model).into_loss()?);
            }
            Ok(())
        };
        // a closure that panics leaves the parameters as they were, too
        let outcome = catch_unwind(AssertUnwindSafe(|| evaluate(model)));
        let restored = self.move_to_probe(&mut buffers, held, None, model);
        self.state_mut().buffers = buffers;
        let evaluated = outcome.unwrap_or_else(|panic| {
            self.cancel();
            resume_unwind(panic)
        });
        let checked = evaluated.and(restored).and_then(|()| check(self, &losses));
        if let Err(error) = checked {
            self.state_mut().losses = losses;
            self.cancel();
            return Err(error);
        }
        Ok(self.conclude(losses))
    }

    /// A step whose probes are evaluated by as many threads as there are `workers`, each in a copy of
    /// the model. Copies are brought up to date by `clone_from`.
    ///
    /// The bits are those of [`Estimator::estimate`] for any number of workers.
    ///
    /// # Errors
    /// As [`Estimator::estimate`]; of several evaluations that fail the first in order counts.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Estimator, Spsa};
    /// use ndarray::array;
    ///
    /// let w = array![1.0f64, -2.0, 3.0];
    /// let mut workers = vec![w.clone(), w.clone()];
    /// let mut estimator = Spsa { num_samples: 8, ..Spsa::default() }.build::<f64>()?;
    /// let estimate = estimator.estimate_parallel(&w, &mut workers, |w| (w * w).sum())?;
    /// assert_eq!(estimate.report().evaluations(), 16);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    fn estimate_parallel<M, L>(
        &mut self,
        model: &M,
        workers: &mut [M],
        loss: impl Fn(&M) -> L + Sync,
    ) -> Result<Estimate<'_, T>>
    where
        Self: Sized,
        M: Parameters<T> + Clone + Send + Sync,
        L: IntoLoss,
    {
        let Some(first) = workers.first_mut() else {
            let mut copy = model.clone();
            return self.estimate(&mut copy, |model| loss(model));
        };
        first.clone_from(model);
        let probes = self.ask(first)?;
        let costs: Vec<u64> = (0..probes).map(|probe| self.cost(probe)).collect();
        let split = work_split(&costs, workers.len())?;
        let (estimator, loss, split) = (&*self, &loss, &split);
        let evaluate = |worker: usize, copy: &mut M| -> Vec<Result<f64>> {
            if worker > 0 {
                copy.clone_from(model);
            }
            let (mut buffers, mut held) = (VisitBuffers::default(), None);
            let mine = (0..probes).filter(|&probe| split.get(probe) == Some(&worker));
            mine.map(|probe| {
                estimator.move_to_probe(&mut buffers, held, Some(probe), copy)?;
                held = Some(probe);
                loss(copy).into_loss()
            })
            .collect()
        };
        let parts: std::thread::Result<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (workers.iter_mut().enumerate())
                .map(|(worker, copy)| scope.spawn(move || evaluate(worker, copy)))
                .collect();
            // all are waited for, also if one has panicked
            let parts: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            parts.into_iter().collect()
        });
        let parts = parts.unwrap_or_else(|panic| {
            self.cancel();
            resume_unwind(panic)
        });
        // workers hold probes in ascending order
        let losses = parts.into_iter().flatten().collect::<Result<Vec<f64>>>();
        match losses.and_then(|losses| check(self, &losses).map(|()| losses)) {
            Ok(losses) => Ok(self.conclude(losses)),
            Err(error) => {
                self.cancel();
                Err(error)
            }
        }
    }
}

/// Refuses losses that no estimate can be made of.
fn check<T: Element>(estimator: &(impl Estimator<T> + ?Sized), losses: &[f64]) -> Result<()> {
    let terms = (estimator.non_finite(), estimator.num_probes());
    estimator.state().check(estimator.name(), terms, losses)
}
