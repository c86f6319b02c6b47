//! The estimator that [`Spsa`] builds.

use super::config::{Slope, Spsa};
use super::directional::{DirectionalEstimate, Perturb};
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::kernel::scratch::with_scratch;
use crate::numeric::{Element, Real, sign};
use crate::optim::NonFinite;
use crate::params::{Parameters, Select};
use crate::state::{Record, Scalar, StateBytes, StateDict};
use crate::zeroth_order::directions::{
    DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
use crate::zeroth_order::estimator::{
    Core, ESTIMATOR, Estimate, Estimator, EstimatorState, FiniteDifference, FitnessShaping, Noise,
    ParamSnapshot, Philox, Purpose, RngStream, Saved,
};
use std::borrow::Cow;

/// The estimator that [`Spsa`] builds: estimates along random directions.
#[derive(Debug)]
pub struct SpsaEstimator<T: Element, S: DirectionSampler> {
    config: Spsa<S>,
    state: EstimatorState<T>,
    estimate: DirectionalEstimate<T::Compute, S>,
    /// Perturbation sizes by selector. The last one that matches counts.
    epsilons: Vec<(Select, f64)>,
    /// The tensors that take part; all if `None`.
    active: Option<Select>,
}

impl<S: DirectionSampler> Spsa<S> {
    /// An estimator for parameters of element type `T`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] names the option that is out of range or contradicts another;
    /// [`Error::UnsupportedElement`] for 16-bit parameters.
    pub fn build<T: Element>(self) -> Result<SpsaEstimator<T, S>> {
        SpsaEstimator::new(self)
    }
}

/// The evaluation that a probe asks for.
enum Probe {
    Centre,
    Along { query: u32, sign: f64 },
}

impl<T: Element, S: DirectionSampler> SpsaEstimator<T, S> {
    fn new(config: Spsa<S>) -> Result<Self> {
        config.validate()?;
        let directions = config.sampler.directions();
        if directions.needs_centre() && config.difference == FiniteDifference::Forward {
            let expected = "`Central` with these directions";
            return Err(Spsa::<S>::invalid("difference", expected, "Forward"));
        }
        let estimate = DirectionalEstimate {
            directions,
            noise: Box::new(Philox::new(config.seed)),
            step: 0,
            queries: 0,
            derivatives: DirectionalDerivatives {
                divided: config.slope == Slope::Value,
                ..DirectionalDerivatives::default()
            },
        };
        let state = EstimatorState::new(Spsa::<S>::NAME)?;
        Ok(Self { state, estimate, config, epsilons: Vec::new(), active: None })
    }

    /// Replaces Philox by another source of random numbers, for tests that supply the numbers.
    pub fn with_noise(mut self, noise: impl Noise<T::Compute> + 'static) -> Self {
        self.estimate.noise = Box::new(noise);
        self
    }

    /// Sets another perturbation size for some tensors. They are perturbed by `ε_k·u_k`, and their
    /// differences are divided by `ε_k`. If several selectors match, the last one counts.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is finite and above 0.
    pub fn with_epsilon(mut self, select: Select, epsilon: f64) -> Result<Self> {
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            let expected = "finite and > 0";
            return Err(Spsa::<S>::invalid("epsilon", expected, epsilon.to_string()));
        }
        self.epsilons.push((select, epsilon));
        Ok(self)
    }

    /// The configuration.
    pub fn config(&self) -> &Spsa<S> {
        &self.config
    }

    /// Changes the perturbation size, from the next step on.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is finite and above 0; [`Error::OutOfOrder`] between
    /// [`ask`](Estimator::ask) and [`tell`](Estimator::tell).
    pub fn set_epsilon(&mut self, epsilon: f64) -> Result<()> {
        self.state.refuse_if_asked("Spsa::set_epsilon")?;
        self.config.set_option("epsilon", epsilon)
    }

    /// Restricts probes and estimates to the selected tensors, from the next step on; `None` removes the
    /// restriction. The directions of a tensor do not depend on it.
    pub fn set_active(&mut self, active: Option<Select>) {
        self.active = active;
    }

    /// Sets the number of the next step, which selects its directions: to repeat a step, or to skip some.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] between [`ask`](Estimator::ask) and [`tell`](Estimator::tell).
    pub fn set_step(&mut self, step: u64) -> Result<()> {
        self.state.refuse_if_asked("Spsa::set_step")?;
        self.state.step = step;
        Ok(())
    }

    /// Reads the tensors of the model, unless they are known already.
    pub(in crate::zeroth_order) fn ensure_layout(
        &mut self,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        if self.segments().is_empty() {
            self.ask(params)?;
            self.cancel();
        }
        Ok(())
    }

    /// The directions, for what they cannot learn from losses.
    pub(in crate::zeroth_order) fn directions_mut(&mut self) -> &mut S::Directions<T::Compute> {
        &mut self.estimate.directions
    }

    /// Writes a piece of one direction's part of the estimate.
    pub(in crate::zeroth_order) fn contribution(
        &self,
        tensor: usize,
        query: u32,
        offset: usize,
        out: &mut [T::Compute],
    ) {
        self.estimate.contribution(tensor, query, offset, out);
    }

    /// Writes uniform numbers of the last step.
    pub(in crate::zeroth_order) fn uniform(
        &self,
        purpose: Purpose,
        (tensor, query): (usize, u32),
        offset: usize,
        out: &mut [f64],
    ) {
        self.estimate.noise.uniform(&self.estimate.key(query, tensor).stream(purpose), offset, out);
    }

    /// Calls `f(tensor, offset, before, out)` for every piece of the tree. `before` are the parameters
    /// before the step, and `f` writes the new ones into `out`.
    pub(in crate::zeroth_order) fn rewrite(
        &self,
        params: &mut dyn Parameters<T>,
        f: impl Fn(usize, usize, &[T::Compute], &mut [T::Compute]) + Sync + Send,
    ) -> Result<()> {
        self.state.snapshot.write(Spsa::<S>::NAME, params, f)
    }

    fn probe(&self, probe: usize) -> Probe {
        let centre = usize::from(self.evaluates_centre());
        let Some(along) = probe.checked_sub(centre) else { return Probe::Centre };
        // fewer than 2^24 queries
        match self.config.difference {
            FiniteDifference::Forward => Probe::Along { query: along as u32, sign: 1.0 },
            FiniteDifference::Central => {
                let sign = if along % 2 == 0 { 1.0 } else { -1.0 };
                Probe::Along { query: (along / 2) as u32, sign }
            }
        }
    }

    fn evaluates_centre(&self) -> bool {
        self.config.difference == FiniteDifference::Forward
            || self.estimate.directions.needs_centre()
    }

    /// Computes the derivative along every direction. `along` are the losses of the directions, and
    /// `shaped` the weights in their place.
    fn set_derivatives(&mut self, along: &[f64], shaped: &[f64], centre: Option<f64>) {
        let width = self.evaluations_per_direction();
        let Spsa { epsilon, clip, slope: form, non_finite, .. } = self.config;
        let all = along.chunks_exact(width);
        let total = all.clone().filter(|losses| counts(non_finite, losses, centre)).count();
        let report = &mut self.state.report;
        report.skipped = total == 0;
        report.coefficients.clear();
        let derivatives = &mut self.estimate.derivatives;
        derivatives.differences.clear();
        derivatives.second_differences.clear();
        let total = total.max(1) as f64;
        for (losses, shaped) in all.zip(shaped.chunks_exact(width)) {
            let (difference, second) = match (shaped, losses, centre) {
                _ if !counts(non_finite, losses, centre) => (0.0, 0.0),
                (&[plus, minus], &[f_plus, f_minus], centre) => {
                    let second = centre.map_or(0.0, |f| f_plus + f_minus - 2.0 * f);
                    ((plus - minus) / 2.0, second)
                }
                (&[plus], _, Some(centre)) => (plus - centre, 0.0),
                _ => (0.0, 0.0),
            };
            let slope = difference / epsilon;
            let clipped = if slope.abs() > clip { clip.copysign(slope) } else { slope };
            report.coefficients.push(clipped);
            derivatives.differences.push(match form {
                Slope::Sign => sign(slope) / total,
                Slope::Value if slope.abs() > clip => clipped * epsilon / total,
                Slope::Value => difference / total,
            });
            if self.estimate.directions.needs_centre() {
                derivatives.second_differences.push(second / total);
            }
        }
    }

    /// The number of evaluations per direction.
    fn evaluations_per_direction(&self) -> usize {
        match self.config.difference {
            FiniteDifference::Forward => 1,
            FiniteDifference::Central => 2,
        }
    }

    /// The weights in place of the losses, for directions that count.
    fn shaped<'l>(&self, along: &'l [f64], centre: Option<f64>) -> Cow<'l, [f64]> {
        if self.config.shaping == FitnessShaping::None {
            return Cow::Borrowed(along);
        }
        let width = self.evaluations_per_direction();
        let counts = |losses: &[f64]| counts(self.config.non_finite, losses, centre);
        let kept = along.chunks_exact(width).filter(|losses| counts(losses));
        let mut kept: Vec<f64> = kept.flatten().copied().collect();
        self.config.shaping.apply(&mut kept);
        let mut shaped = along.to_vec();
        let targets = shaped.chunks_exact_mut(width).filter(|losses| counts(losses)).flatten();
        targets.zip(kept).for_each(|(target, weight)| *target = weight);
        Cow::Owned(shaped)
    }
}

/// Whether a direction with these losses counts.
fn counts(policy: NonFinite, losses: &[f64], centre: Option<f64>) -> bool {
    policy == NonFinite::Propagate
        || losses.iter().chain(centre.as_ref()).all(|loss| loss.is_finite())
}

impl<T: Element, S: DirectionSampler> Core<T> for SpsaEstimator<T, S> {
    fn state(&self) -> &EstimatorState<T> {
        &self.state
    }

    fn state_mut(&mut self) -> &mut EstimatorState<T> {
        &mut self.state
    }

    fn non_finite(&self) -> NonFinite {
        self.config.non_finite
    }

    fn num_probes(&self) -> usize {
        usize::from(self.evaluates_centre())
            + self.evaluations_per_direction() * self.config.num_samples
    }

    fn plan(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        let Self { state, estimate, .. } = self;
        state.snapshot.read(Spsa::<S>::NAME, params, true)?;
        let segments = state.snapshot.layout.segments();
        let largest = segments.iter().map(|s| s.numel()).max().unwrap_or(0);
        RngStream::check(state.step, self.config.num_samples, largest)?;
        for select in self.epsilons.iter().map(|(select, _)| select).chain(&self.active) {
            if !segments.iter().any(|s| select.matches(&s.name, &s.shape)) {
                return Err(Error::EmptyGroup { group: 0, select: select.label().to_owned() });
            }
        }
        estimate.derivatives.epsilons.clear();
        estimate.derivatives.epsilons.extend(segments.iter().map(|s| {
            let own =
                self.epsilons.iter().rev().find(|(select, _)| select.matches(&s.name, &s.shape));
            own.map_or(self.config.epsilon, |&(_, epsilon)| epsilon)
        }));
        estimate.derivatives.active.clear();
        if let Some(select) = &self.active {
            estimate
                .derivatives
                .active
                .extend(segments.iter().map(|s| select.matches(&s.name, &s.shape)));
        }
        // fewer than 2^24
        (estimate.step, estimate.queries) = (state.step, self.config.num_samples as u32);
        estimate.directions.begin(&context(
            &state.snapshot,
            &*estimate.noise,
            (estimate.step, estimate.queries),
        ))
    }

    fn conclude(&mut self, losses: Vec<f64>) -> Estimate<'_, T> {
        let (centre, along) =
            losses.split_at(usize::from(self.evaluates_centre()).min(losses.len()));
        let centre = centre.first().copied();
        self.set_derivatives(along, &self.shaped(along, centre), centre);
        self.state.end_step(losses, centre);
        let Self { state, estimate, .. } = self;
        if !state.report.skipped {
            let context =
                context(&state.snapshot, &*estimate.noise, (estimate.step, estimate.queries));
            estimate.directions.observe(&context, &estimate.derivatives);
        }
        state.estimate(estimate)
    }
}

fn context<'a, T: Element>(
    snapshot: &'a ParamSnapshot<T>,
    noise: &'a dyn Noise<T::Compute>,
    (step, queries): (u64, u32),
) -> StepContext<'a, T::Compute> {
    StepContext { step, queries, layout: &snapshot.layout, parameters: snapshot, noise }
}

impl<T: Element, S: DirectionSampler> Estimator<T> for SpsaEstimator<T, S> {
    fn name(&self) -> &'static str {
        Spsa::<S>::NAME
    }

    fn move_to_probe(
        &self,
        _from: Option<usize>,
        to: Option<usize>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        let (name, snapshot) = (Spsa::<S>::NAME, &self.state.snapshot);
        let (query, sign) = match to.map(|probe| self.probe(probe)) {
            Some(Probe::Along { query, sign }) => (query, sign),
            Some(Probe::Centre) | None => return snapshot.restore(name, params),
        };
        let isa = Isa::detect();
        snapshot.write(name, params, |tensor, offset, before, out| {
            if !self.estimate.derivatives.takes_part(tensor) {
                return out.copy_from_slice(before);
            }
            let step = T::Compute::of(sign * self.estimate.derivatives.epsilon(tensor));
            // the direction has its own memory, in the cache: the parameters are written only once
            with_scratch(out.len(), |direction| {
                self.estimate.directions.probe(
                    &self.estimate.key(query, tensor),
                    offset,
                    direction,
                );
                isa.run(Perturb { before, step, direction, out });
            });
        })
    }

    fn state_bytes(&self) -> StateBytes {
        let mut bytes = self.state.count();
        self.estimate.directions.count(&mut bytes);
        bytes
    }

    fn state_dict(&self) -> StateDict {
        let mut dict = self.state.save(&self.config, self.config.seed);
        // samplers were called laws when the first files were written: the keys stay
        Record::new(ESTIMATOR, &mut dict).scalar("law", Scalar::Text(S::NAME.to_owned()));
        self.estimate.directions.save(&mut Record::new("law", &mut dict));
        dict
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let saved = Saved::open(Spsa::<S>::NAME, state)?;
        let (seed, step) = (saved.integer("seed")?, saved.integer("step")?);
        let lookup = saved.lookup(ESTIMATOR);
        if lookup.scalar("law").and_then(Scalar::as_text) != Some(S::NAME) {
            return Err(lookup.problem("law", format!("is not `{}`", S::NAME)));
        }
        let mut config = Spsa { seed, ..self.config.clone() };
        saved.options(&mut config)?;
        let layout = saved.layout(&self.state.snapshot)?;
        let mut directions = config.sampler.directions();
        directions.load(&layout, &saved.lookup("law"))?;
        saved.finish()?;
        self.state.resume(step, layout);
        self.estimate.directions = directions;
        if seed != self.config.seed {
            self.estimate.noise = Box::new(Philox::new(seed));
        }
        self.config = config;
        Ok(())
    }
}
