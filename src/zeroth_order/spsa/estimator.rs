//! The estimator that [`Spsa`] builds.

use super::config::{Slope, Spsa};
use super::directional::{DirectionalEstimate, Perturb};
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::kernel::scratch::with_scratch;
use crate::numeric::{Element, Real, sign};
use crate::optim::{Layout, NonFinite};
use crate::params::{Parameters, Select};
use crate::state::{Record, Scalar, StateBytes, StateDict};
use crate::zeroth_order::directions::{
    DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
use crate::zeroth_order::estimator::{
    Cleared, Core, ESTIMATOR, Estimate, Estimator, EstimatorState, FiniteDifference,
    FitnessShaping, Noise, ParamSnapshot, Philox, Purpose, RngStream, Saved, Stage,
};
use num_traits::Float;
use std::borrow::Cow;
use std::mem::{replace, take};

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
            begun: false,
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
        self.estimate.noise = Box::new(Cleared(noise));
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
        (self.state.step, self.state.stage) = (step, Stage::Ready);
        Ok(())
    }

    /// [`set_active`](Self::set_active), which returns the restriction before.
    pub(in crate::zeroth_order) fn replace_active(
        &mut self,
        active: Option<Select>,
    ) -> Option<Select> {
        replace(&mut self.active, active)
    }

    /// The tensors of the model: those known already, or those that the first step would learn of.
    pub(in crate::zeroth_order) fn layout_of(
        &self,
        params: &mut dyn Parameters<T>,
    ) -> Result<Cow<'_, Layout>> {
        if !self.segments().is_empty() {
            return Ok(Cow::Borrowed(&self.state.snapshot.layout));
        }
        let mut snapshot = ParamSnapshot::<T>::new(Spsa::<S>::NAME)?;
        snapshot.read(Spsa::<S>::NAME, params, false)?;
        Ok(Cow::Owned(snapshot.layout))
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
    fn set_derivatives(
        &mut self,
        along: &[f64],
        shaped: &[f64],
        centre: Option<f64>,
    ) -> Result<()> {
        let width = self.evaluations_per_direction();
        let Spsa { epsilon, clip, slope: form, non_finite, .. } = self.config;
        let slope = |shaped: &[f64]| difference(shaped, centre) / epsilon;
        let used = |shaped: &[f64]| match (form, slope(shaped)) {
            (Slope::Sign, slope) => sign(slope),
            (Slope::Value, slope) if slope.abs() > clip => clip.copysign(slope) * epsilon,
            (Slope::Value, _) => difference(shaped, centre),
        };
        let (factor, most) = (self.largest_factor(), <T::Compute as Float>::max_value().widen());
        let fits = |shaped: &[f64]| {
            non_finite == NonFinite::Propagate || (used(shaped) * factor).abs() <= most
        };
        let all = || along.chunks_exact(width).zip(shaped.chunks_exact(width));
        let counts =
            |(losses, shaped): (&[f64], &[f64])| counts(non_finite, losses, centre) && fits(shaped);
        if let Some((_, shaped)) = all().find(|&(_, shaped)| !fits(shaped))
            && non_finite == NonFinite::Error
        {
            let (what, value) = ("the derivative along a direction", slope(shaped));
            return Err(Error::NonFinite { what, value });
        }
        let count = all().filter(|&direction| counts(direction)).count();
        let total = count.max(1) as f64;
        let (report, derivatives) = (&mut self.state.draft, &mut self.estimate.derivatives);
        report.skipped = count == 0;
        report.coefficients.clear();
        derivatives.differences.clear();
        derivatives.second_differences.clear();
        for (losses, shaped) in all() {
            let counts = counts((losses, shaped));
            let slope = if counts { slope(shaped) } else { 0.0 };
            let clipped = if slope.abs() > clip { clip.copysign(slope) } else { slope };
            report.coefficients.push(clipped);
            derivatives.differences.push(if counts { used(shaped) / total } else { 0.0 });
            if self.estimate.directions.needs_centre() {
                let second = if counts { second_difference(losses, centre) } else { 0.0 };
                derivatives.second_differences.push(second / total);
            }
        }
        Ok(())
    }

    /// The largest factor of a difference of losses in the estimate of a tensor.
    fn largest_factor(&self) -> f64 {
        let DirectionalEstimate { directions, derivatives, .. } = &self.estimate;
        let tensors = (0..self.segments().len()).filter(|&tensor| derivatives.takes_part(tensor));
        let divisor = |tensor| if derivatives.divided { derivatives.epsilon(tensor) } else { 1.0 };
        tensors.map(|tensor| directions.scale(tensor) / divisor(tensor)).fold(0.0, f64::max)
    }

    /// Prepares the directions of the step that is planned.
    fn begin(&mut self) -> Result<()> {
        let Self { state, estimate, .. } = self;
        estimate.begun = true;
        estimate.directions.begin(&context(
            &state.snapshot,
            &*estimate.noise,
            (estimate.step, estimate.queries),
        ))
    }

    /// Shows the directions the losses of the step.
    fn observe(&mut self) -> Result<()> {
        let Self { state, estimate, .. } = self;
        let context = context(&state.snapshot, &*estimate.noise, (estimate.step, estimate.queries));
        estimate.directions.observe(&context, &estimate.derivatives)
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

/// Half the difference of two losses, or that to the centre.
fn difference(losses: &[f64], centre: Option<f64>) -> f64 {
    match (losses, centre) {
        (&[plus, minus], _) => (plus - minus) / 2.0,
        (&[plus], Some(centre)) => plus - centre,
        _ => 0.0,
    }
}

/// The second difference of two losses and the centre.
fn second_difference(losses: &[f64], centre: Option<f64>) -> f64 {
    match (losses, centre) {
        (&[plus, minus], Some(centre)) => plus + minus - 2.0 * centre,
        _ => 0.0,
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
        estimate.begun = false;
        state.snapshot.read(Spsa::<S>::NAME, params, true)?;
        let segments = state.snapshot.layout.segments();
        let largest = segments.iter().map(|s| s.numel()).max().unwrap_or(0);
        RngStream::check(state.step, self.config.num_samples, largest)?;
        for select in self.epsilons.iter().map(|(select, _)| select).chain(&self.active) {
            if !segments.iter().any(|s| select.matches(&s.name, &s.shape)) {
                let names = segments.iter().map(|s| s.name.as_str());
                return Err(Error::empty_group(0, select.label(), names));
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
        self.begin()
    }

    fn conclude(&mut self) -> Result<()> {
        let losses = take(&mut self.state.losses);
        let (centre, along) =
            losses.split_at(usize::from(self.evaluates_centre()).min(losses.len()));
        let centre = centre.first().copied();
        let derived = self.set_derivatives(along, &self.shaped(along, centre), centre);
        self.state.losses = losses;
        derived?;
        if !self.state.draft.skipped
            && let Err(error) = self.observe()
        {
            // as planned
            self.take_back(self.state.first);
            self.begin()?;
            if self.config.non_finite != NonFinite::Skip {
                return Err(error);
            }
            self.state.draft.skipped = true;
        }
        self.state.end_step(centre);
        Ok(())
    }

    fn estimated(&self) -> Estimate<'_, T> {
        self.state.estimate(&self.estimate)
    }

    fn take_back(&mut self, first: bool) {
        let begun = take(&mut self.estimate.begun);
        if first {
            self.estimate.directions = self.config.sampler.directions();
        } else if begun {
            // else it would take back the step before
            self.estimate.directions.undo();
        }
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
                self.estimate.probe(tensor, query, offset, direction);
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
        let (seed, step) = (saved.integer("seed")?, saved.count("step")?);
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
