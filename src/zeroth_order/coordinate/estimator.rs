//! The estimator that [`Coordinate`] builds.

use super::active::ActiveSet;
use super::config::Coordinate;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::{Element, Real};
use crate::optim::{IntoLoss, NonFinite};
use crate::params::Parameters;
use crate::state::{Record, Scalar, StateBytes, StateDict};
use crate::zeroth_order::estimator::{
    Core, ESTIMATOR, Estimate, Estimator, EstimatorState, FiniteDifference, Saved, Slices,
};
use num_traits::Float;
use std::collections::BTreeMap;
use std::mem::take;

const NAME: &str = <Coordinate as Hyperparameters>::NAME;

/// The estimator that [`Coordinate`] builds: estimates one coordinate at a time.
#[derive(Debug)]
pub struct CoordinateEstimator<T: Element> {
    config: Coordinate,
    state: EstimatorState<T>,
    active: ActiveSet,
    /// How often active sets were drawn anew. It selects their random numbers.
    draw: u64,
    /// The cost of an evaluation, by name of the perturbed tensor; 1 if it is not named.
    costs: BTreeMap<String, u64>,
    partials: PartialDerivatives,
    /// The elements at the active coordinates before the step.
    saved: Vec<T>,
}

impl Coordinate {
    /// An estimator for parameters of element type `T`, with all coordinates active.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) names the option that is out
    /// of range; [`Error::UnsupportedElement`](crate::Error::UnsupportedElement) for 16-bit parameters.
    pub fn build<T: Element>(self) -> Result<CoordinateEstimator<T>> {
        CoordinateEstimator::new(self)
    }
}

/// The active coordinates and the partial derivatives there.
#[derive(Debug, Default)]
struct PartialDerivatives {
    /// Pairs of tensor and index in ascending order; empty if they have to be determined anew.
    coordinates: Vec<(u32, usize)>,
    values: Vec<f64>,
}

impl<R: Real> Slices<R> for PartialDerivatives {
    fn slice(&self, tensor: usize, offset: usize, out: &mut [R]) {
        out.fill(R::zero());
        let from = self.coordinates.partition_point(|&(t, i)| (t as usize, i) < (tensor, offset));
        let end = offset + out.len();
        let found = self.coordinates.iter().zip(&self.values).skip(from);
        for (&(_, i), &value) in found.take_while(|(p, _)| (p.0 as usize, p.1) < (tensor, end)) {
            out.get_mut(i - offset).into_iter().for_each(|x| *x = R::of(value));
        }
    }

    fn takes_part(&self, _tensor: usize) -> bool {
        true
    }

    fn bound(&self, tensor: usize) -> Option<f64> {
        let from = self.coordinates.partition_point(|&(t, _)| (t as usize) < tensor);
        let own = self.coordinates.iter().zip(&self.values).skip(from);
        let own = own.take_while(|(p, _)| p.0 as usize == tensor).map(|(_, value)| value.abs());
        // not `max`, which would drop a NaN
        Some(own.fold(0.0, |most, value| if value > most || value.is_nan() { value } else { most }))
    }
}

/// The evaluation that a probe asks for.
enum Probe {
    Centre,
    At { coordinate: usize, sign: f64 },
}

impl<T: Element> CoordinateEstimator<T> {
    fn new(config: Coordinate) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            state: EstimatorState::new(NAME)?,
            config,
            active: ActiveSet::All,
            draw: 0,
            costs: BTreeMap::new(),
            partials: PartialDerivatives::default(),
            saved: Vec::new(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Coordinate {
        &self.config
    }

    /// Sets the coordinates that take part, from the next step on.
    ///
    /// # Errors
    /// [`InvalidHyperparameter`](crate::Error::InvalidHyperparameter) for a ratio outside `[0, 1]`.
    /// The next step checks names and indices.
    pub fn set_active(&mut self, active: ActiveSet) -> Result<()> {
        active.validate()?;
        self.active = active;
        self.partials.coordinates.clear();
        Ok(())
    }

    /// Draws other coordinates for [`ActiveSet::Pruned`]. DeepZero does so every five epochs.
    pub fn redraw(&mut self) {
        self.draw += 1;
        self.partials.coordinates.clear();
    }

    /// The active coordinates of the last planned step: pairs of tensor and row-major index, in the order
    /// of the probes.
    pub fn active(&self) -> &[(u32, usize)] {
        &self.partials.coordinates
    }

    /// Sets the cost of an evaluation by name of the perturbed tensor; 1 for tensors that are not named.
    /// Probes are distributed such that all workers have about the same total cost. Results do not depend
    /// on it.
    pub fn set_costs(&mut self, costs: BTreeMap<String, u64>) {
        self.costs = costs;
    }

    /// The name of the tensor that a probe perturbs; `None` for the unperturbed evaluation.
    pub fn tensor_of(&self, probe: usize) -> Option<&str> {
        let Probe::At { coordinate, .. } = self.probe(probe) else { return None };
        let &(tensor, _) = self.partials.coordinates.get(coordinate)?;
        let segment = self.segments().get(tensor as usize)?;
        Some(&segment.name)
    }

    /// As [`Estimator::estimate`], but the closure also gets the name of the perturbed tensor, or `None`
    /// for the unperturbed evaluation.
    ///
    /// Layers before that tensor compute the same as in the unperturbed evaluation. A closure that stores
    /// the inputs of all layers can therefore start at the layer of the tensor. With
    /// [`FiniteDifference::Forward`] the unperturbed evaluation is the first, and the others go through
    /// the tensors in order.
    ///
    /// # Errors
    /// As [`Estimator::estimate`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::zeroth_order::{Coordinate, Estimator};
    /// use ndarray::array;
    ///
    /// // y = b·(a·x): while b is perturbed, a·x is known
    /// let mut model = (array![2.0f64], array![3.0f64]);
    /// let (mut hidden, mut products) = (0.0, 0);
    /// let mut estimator = Coordinate { epsilon: 1e-6, ..Coordinate::default() }.build::<f64>()?;
    /// let estimate = estimator.estimate_reusing(&mut model, |(a, b), perturbed| {
    ///     let now = if perturbed == Some("1") { hidden } else { products += 1; a[0] * 1.5 };
    ///     if perturbed.is_none() {
    ///         hidden = now;
    ///     }
    ///     b[0] * now
    /// })?;
    /// assert_eq!(products, 2); // of three evaluations
    /// assert!((estimate.report().coefficients[0] - 4.5).abs() < 1e-8);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn estimate_reusing<M, L>(
        &mut self,
        model: &mut M,
        mut loss: impl FnMut(&mut M, Option<&str>) -> L,
    ) -> Result<Estimate<'_, T>>
    where
        M: Parameters<T>,
        L: IntoLoss,
    {
        let probes = self.ask(model)?;
        let names: Vec<String> =
            self.segments().iter().map(|segment| segment.name.clone()).collect();
        let tensors: Vec<Option<u32>> = (0..probes)
            .map(|probe| match self.probe(probe) {
                Probe::Centre => None,
                Probe::At { coordinate, .. } => {
                    self.partials.coordinates.get(coordinate).map(|p| p.0)
                }
            })
            .collect();
        let mut tensors = tensors.into_iter();
        self.estimate(model, |model| {
            let tensor = tensors.next().flatten();
            loss(model, tensor.and_then(|tensor| names.get(tensor as usize)).map(String::as_str))
        })
    }

    /// Computes the derivative of every active coordinate. Returns the loss at the unperturbed parameters.
    fn set_slopes(&mut self, losses: &[f64]) -> Result<Option<f64>> {
        let Coordinate { epsilon, difference, non_finite, .. } = self.config;
        let (centre, along, width, divisor) = match (difference, losses.split_first()) {
            (FiniteDifference::Forward, Some((centre, along))) => {
                (Some(*centre), along, 1, epsilon)
            }
            _ => (None, losses, 2, 2.0 * epsilon),
        };
        let slopes = along.chunks_exact(width).map(|losses| match (losses, centre) {
            (&[plus, minus], _) => (plus - minus) / divisor,
            (&[plus], Some(centre)) => (plus - centre) / divisor,
            _ => 0.0,
        });
        let most = <T::Compute as Float>::max_value().widen();
        let counts = |slope: f64| slope.abs() <= most || non_finite == NonFinite::Propagate;
        if let Some(value) = slopes.clone().find(|&slope| !counts(slope))
            && non_finite == NonFinite::Error
        {
            return Err(Error::NonFinite { what: "the derivative of a coordinate", value });
        }
        self.partials.values.clear();
        self.partials
            .values
            .extend(slopes.clone().map(|slope| if counts(slope) { slope } else { 0.0 }));
        self.state.draft.coefficients.clone_from(&self.partials.values);
        self.state.draft.skipped = !slopes.into_iter().any(counts);
        Ok(centre)
    }

    fn probe(&self, probe: usize) -> Probe {
        match (self.config.difference, probe.checked_sub(1)) {
            (FiniteDifference::Forward, None) => Probe::Centre,
            (FiniteDifference::Forward, Some(coordinate)) => Probe::At { coordinate, sign: 1.0 },
            (FiniteDifference::Central, _) => {
                let sign = if probe.is_multiple_of(2) { 1.0 } else { -1.0 };
                Probe::At { coordinate: probe / 2, sign }
            }
        }
    }

    /// The coordinate that a probe perturbs, its element before, and its element in the probe.
    fn target(&self, probe: Option<usize>) -> Option<((u32, usize), T, T)> {
        let Probe::At { coordinate, sign } = self.probe(probe?) else { return None };
        let &at = self.partials.coordinates.get(coordinate)?;
        let &before = self.saved.get(coordinate)?;
        let step = T::Compute::of(sign * self.config.epsilon);
        Some((at, before, T::store(before.load() + step)))
    }
}

impl<T: Element> Core<T> for CoordinateEstimator<T> {
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
        match self.config.difference {
            FiniteDifference::Forward => self.partials.coordinates.len() + 1,
            FiniteDifference::Central => 2 * self.partials.coordinates.len(),
        }
    }

    fn plan(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        let Self { state: EstimatorState { snapshot, .. }, partials, saved, .. } = self;
        snapshot.read(NAME, params, false)?;
        if partials.coordinates.is_empty() {
            partials.coordinates =
                self.active.coordinates(&snapshot.layout, self.config.seed, self.draw)?;
        }
        saved.clear();
        snapshot.for_each(NAME, params, &partials.coordinates, |_, x| saved.push(*x))
    }

    fn conclude(&mut self) -> Result<()> {
        let losses = take(&mut self.state.losses);
        let concluded = self.set_slopes(&losses);
        self.state.losses = losses;
        let centre = concluded?;
        self.state.end_step(centre);
        Ok(())
    }

    fn estimated(&self) -> Estimate<'_, T> {
        self.state.estimate(&self.partials)
    }

    fn take_back(&mut self, first: bool) {
        if first {
            self.partials.coordinates.clear();
        }
    }
}

impl<T: Element> Estimator<T> for CoordinateEstimator<T> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn move_to_probe(
        &self,
        from: Option<usize>,
        to: Option<usize>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        let (old, new) = (self.target(from), self.target(to));
        let moves = [old.map(|(at, before, _)| (at, before)), new.map(|(at, _, x)| (at, x))];
        let moves = moves.map(|target| target.unwrap_or(((u32::MAX, 0), T::default())));
        let coordinates = moves.map(|(at, _)| at);
        self.state.snapshot.for_each(NAME, params, &coordinates, |number, x| {
            moves.get(number).into_iter().for_each(|&(_, value)| *x = value);
        })
    }

    fn cost(&self, probe: usize) -> u64 {
        self.tensor_of(probe).and_then(|name| self.costs.get(name)).copied().unwrap_or(1)
    }

    fn state_bytes(&self) -> StateBytes {
        let mut bytes = self.state.count();
        bytes.add("coordinates", size_of_val(&*self.partials.coordinates));
        bytes.add("derivatives", size_of_val(&*self.partials.values));
        bytes.add("saved", size_of_val(&*self.saved));
        bytes
    }

    fn state_dict(&self) -> StateDict {
        let mut dict = self.state.save(&self.config, self.config.seed);
        Record::new(ESTIMATOR, &mut dict).scalar("draw", Scalar::Int(self.draw as i64));
        dict
    }

    /// The state holds how often active sets were drawn, not the active set itself: that is configuration.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let saved = Saved::open(NAME, state)?;
        let (seed, step, draw) =
            (saved.integer("seed")?, saved.count("step")?, saved.count("draw")?);
        let mut config = Coordinate { seed, ..self.config.clone() };
        saved.options(&mut config)?;
        let layout = saved.layout(&self.state.snapshot)?;
        saved.finish()?;
        self.state.resume(step, layout);
        (self.config, self.draw) = (config, draw);
        self.partials.coordinates.clear();
        Ok(())
    }
}
