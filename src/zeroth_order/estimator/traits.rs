//! The trait of all estimators, with three ways to evaluate the probes of a step.

use super::estimate::{Estimate, Report};
use super::state::{EstimatorState, Stage};
use super::work_split::work_split;
use crate::error::Result;
use crate::numeric::Element;
use crate::optim::{IntoLoss, NonFinite, Segment};
use crate::params::Parameters;
use crate::state::{StateBytes, StateDict};
use std::fmt::Debug;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What an estimator adds to its [`EstimatorState`]. Only this crate can implement it.
pub trait Core<T: Element> {
    /// What is kept from step to step.
    fn state(&self) -> &EstimatorState<T>;

    /// What is kept from step to step.
    fn state_mut(&mut self) -> &mut EstimatorState<T>;

    /// What happens to losses that are NaN or infinite.
    fn non_finite(&self) -> NonFinite;

    /// Number of probes of the step that was asked for.
    fn num_probes(&self) -> usize;

    /// Prepares the next step.
    fn plan(&mut self, params: &mut dyn Parameters<T>) -> Result<()>;

    /// Makes the estimate from the losses of the state, which have been checked, and ends the step. After an
    /// error the step is as it was planned.
    fn conclude(&mut self) -> Result<()>;

    /// The estimate of the step that has ended.
    fn estimated(&self) -> Estimate<'_, T>;

    /// Takes back what the last step has changed, apart from the state. `first`: no tensors were known before.
    fn take_back(&mut self, first: bool);
}

/// Estimates a gradient from losses alone.
///
/// The estimate is a tree of gradients that every optimizer of the crate takes. There are three ways to
/// evaluate the probes of a step. All of them give the same bits:
///
/// * [`Estimator::estimate`]: a closure evaluates one probe after another; the parameters are perturbed
///   in place;
/// * [`Estimator::estimate_parallel`]: several threads evaluate probes, each in its own copy of the model;
/// * [`Estimator::ask`], [`Estimator::perturb`] and [`Estimator::tell`]: the caller evaluates the probes,
///   on another machine if need be.
///
/// All evaluations of a step must see the same data and the same randomness (minibatch, dropout). They
/// must not change the parameters, nor statistics such as those of batch normalisation. Afterwards the
/// parameters are restored bit for bit, whether the evaluations succeed, fail or panic.
///
/// The tree must have the same leaves in the same order in every step: the position of a leaf selects its
/// random numbers.
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
///     // the caller evaluates: copies are perturbed, and losses come back in order
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
    /// The name in errors and state dicts.
    fn name(&self) -> &'static str;

    /// Changes the parameters from those of probe `from` to those of probe `to`. `None` stands for the
    /// unperturbed parameters, as they were at [`Estimator::ask`].
    ///
    /// # Errors
    /// Refuses a tree whose leaves are not those that [`Estimator::ask`] has seen.
    fn move_to_probe(
        &self,
        from: Option<usize>,
        to: Option<usize>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()>;

    /// Bytes held, slot by slot.
    fn state_bytes(&self) -> StateBytes;

    /// A copy of everything that is needed to continue bit for bit: the seed, the step, and what the
    /// directions remember.
    fn state_dict(&self) -> StateDict;

    /// Continues from a saved state.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key. The estimator is unchanged then.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()>;

    /// The cost of a probe in any unit. Probes are distributed such that all workers have about the same
    /// total cost.
    fn cost(&self, probe: usize) -> u64 {
        let _ = probe;
        1
    }

    /// Number of estimates made so far. It is part of the key of the random numbers.
    fn steps(&self) -> u64 {
        self.state().step
    }

    /// The tensors, in the order of the tree; none before the first step.
    fn segments(&self) -> &[Segment] {
        self.state().snapshot.layout.segments()
    }

    /// The losses and coefficients of the last step.
    fn report(&self) -> &Report {
        &self.state().report
    }

    /// Plans the probes of the next step at these parameters, and returns their number. A second call
    /// plans the same step again.
    ///
    /// # Errors
    /// No step is planned then. Refuses a tree whose leaves are not those of the first step, and numbers of steps, queries or
    /// elements for which random numbers would repeat.
    fn ask(&mut self, params: &mut dyn Parameters<T>) -> Result<usize> {
        let state = self.state();
        let again = state.stage == Stage::Asked;
        // asked again, a first step has the tree of the first question
        let first = if again { state.first } else { self.segments().is_empty() };
        if again {
            self.take_back(first);
        }
        let planned = catch_unwind(AssertUnwindSafe(|| self.plan(params)));
        let state = self.state_mut();
        (state.stage, state.first) = (Stage::Asked, first);
        if !matches!(planned, Ok(Ok(()))) {
            self.cancel();
        }
        planned.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(self.num_probes())
    }

    /// Cancels the step that [`Estimator::ask`] planned: everything is as before it.
    fn cancel(&mut self) {
        if self.state().stage == Stage::Asked {
            let first = self.state().first;
            self.take_back(first);
            self.state_mut().take_back();
        }
    }

    /// Takes the last estimate back: step, report and what the directions have learnt are as before it, bit for
    /// bit. For loops of one's own, when the optimizer has refused the estimate; [`ZerothOrder`] does so itself.
    ///
    /// Does nothing if there is no such estimate: before the first one, after a call of [`Estimator::ask`],
    /// and a second time.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Estimator, Lozo, Spsa};
    /// use ndarray::array;
    ///
    /// let sampler = Lozo { rank: 1, momentum: 0.9, ..Lozo::default() };
    /// let mut estimator = Spsa::with_sampler(sampler).build::<f32>()?;
    /// let mut w = array![[1.0f32, 2.0], [3.0, 4.0]];
    /// estimator.estimate(&mut w, |w| w.sum())?;
    /// let before = estimator.state_dict();
    /// estimator.estimate(&mut w, |w| w.sum())?;
    /// estimator.undo();
    /// assert_eq!(estimator.state_dict(), before);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    ///
    /// [`ZerothOrder`]: crate::zeroth_order::ZerothOrder
    fn undo(&mut self) {
        if self.state().stage == Stage::Told {
            let first = self.state().first;
            self.take_back(first);
            self.state_mut().take_back();
        }
    }

    /// Perturbs a copy of the parameters for the probe number `probe`. The copy must hold the parameters
    /// that [`Estimator::ask`] has seen.
    ///
    /// # Errors
    /// As [`Estimator::move_to_probe`].
    fn perturb(&self, probe: usize, copy: &mut dyn Parameters<T>) -> Result<()> {
        self.move_to_probe(None, Some(probe), copy)
    }

    /// Makes the estimate from the losses of all probes, in order, and ends the step.
    ///
    /// # Errors
    /// [`Error::LossCount`](crate::Error::LossCount) if there are too few losses or too many;
    /// [`Error::NonFiniteLoss`](crate::Error::NonFiniteLoss) unless the estimator skips or propagates
    /// them, and [`Error::NonFinite`](crate::Error::NonFinite) for a derivative beyond the range of the
    /// parameters' type; [`Error::OutOfOrder`](crate::Error::OutOfOrder) without a call of [`Estimator::ask`]
    /// before. The step has not ended then: losses can be told again, or the step be cancelled.
    fn tell(&mut self, losses: &[f64]) -> Result<Estimate<'_, T>> {
        let kept = &mut self.state_mut().losses;
        kept.clear();
        kept.extend_from_slice(losses);
        let concluded = catch_unwind(AssertUnwindSafe(|| conclude(self)));
        concluded.unwrap_or_else(|panic| {
            self.cancel();
            resume_unwind(panic)
        })?;
        Ok(self.estimated())
    }

    /// One step: the closure evaluates one probe after another, and the parameters are perturbed in place.
    ///
    /// # Errors
    /// Those of the closure, of [`Estimator::ask`] and of [`Estimator::tell`]. Everything is as before the step
    /// then, and after a panic of the closure, too.
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
        let (mut losses, mut held) = (take(&mut self.state_mut().losses), None);
        losses.clear();
        let mut evaluate = |model: &mut M| {
            for probe in 0..probes {
                self.move_to_probe(held, Some(probe), model)?;
                held = Some(probe);
                losses.push(loss(model).into_loss()?);
            }
            Ok(())
        };
        // after a panic, too, the parameters are restored
        let outcome = catch_unwind(AssertUnwindSafe(|| evaluate(model)));
        let restored = self.move_to_probe(held, None, model);
        self.state_mut().losses = losses;
        end(self, outcome.map(|evaluated| evaluated.and(restored)))
    }

    /// One step whose probes are evaluated on one thread per entry of `workers`. Each entry is a copy of
    /// the model, which `clone_from` brings up to date.
    ///
    /// The result has the bits of [`Estimator::estimate`] for any number of workers.
    ///
    /// # Errors
    /// As [`Estimator::estimate`]. If several evaluations fail, the error is that of the first in order.
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
        // there is a worker
        let split = work_split(&costs, workers.len()).unwrap_or_default();
        let (estimator, loss, split) = (&*self, &loss, &split);
        let evaluate = |worker: usize, copy: &mut M| -> Vec<Result<f64>> {
            if worker > 0 {
                copy.clone_from(model);
            }
            let mut held = None;
            let mine = (0..probes).filter(|&probe| split.get(probe) == Some(&worker));
            mine.map(|probe| {
                estimator.move_to_probe(held, Some(probe), copy)?;
                held = Some(probe);
                loss(copy).into_loss()
            })
            .collect()
        };
        let parts: std::thread::Result<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (workers.iter_mut().enumerate())
                .map(|(worker, copy)| scope.spawn(move || evaluate(worker, copy)))
                .collect();
            // wait for all of them, even if one has panicked
            let parts: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            parts.into_iter().collect()
        });
        // each worker evaluates consecutive probes, in ascending order
        let evaluated =
            parts.map(|parts| parts.into_iter().flatten().collect::<Result<Vec<f64>>>());
        let evaluated =
            evaluated.map(|losses| losses.map(|losses| self.state_mut().losses = losses));
        end(self, evaluated)
    }
}

/// Checks the losses of the state and ends the step.
fn conclude<T: Element>(estimator: &mut (impl Estimator<T> + ?Sized)) -> Result<()> {
    let terms = (estimator.non_finite(), estimator.num_probes());
    let state = estimator.state();
    state.check(estimator.name(), terms, &state.losses)?;
    estimator.conclude()
}

/// Ends a step whose losses have been evaluated, or cancels it.
fn end<'e, T: Element>(
    estimator: &'e mut impl Estimator<T>,
    evaluated: std::thread::Result<Result<()>>,
) -> Result<Estimate<'e, T>> {
    let outcome = evaluated.and_then(|evaluated| {
        catch_unwind(AssertUnwindSafe(|| evaluated.and_then(|()| conclude(estimator))))
    });
    if !matches!(outcome, Ok(Ok(()))) {
        estimator.cancel();
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    Ok(estimator.estimated())
}
