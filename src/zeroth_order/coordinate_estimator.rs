//! The estimator that [`Coordinate`] builds.

use super::active::ActiveSet;
use super::coordinate::Coordinate;
use super::estimate::{Estimate, Home, Report, Slices};
use super::estimator::{Buffers, Estimator};
use super::space::{Space, Visit};
use super::spsa::Sides;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::{Element, Real};
use crate::optim::{IntoLoss, NonFinite};
use crate::params::Parameters;
use crate::state::{Lookup, Record, Scalar, StateBytes, StateDict};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::{replace, take};

const NAME: &str = <Coordinate as Hyperparameters>::NAME;

/// Estimates one coordinate at a time: what [`Coordinate`] builds.
#[derive(Debug)]
pub struct CoordinateEstimator<T: Element> {
    config: Coordinate,
    space: Space<T>,
    active: ActiveSet,
    /// How often active sets have been drawn: keys their random numbers.
    draw: u64,
    /// Cost of an evaluation by name of the tensor that is perturbed; 1 if not named.
    costs: BTreeMap<String, u64>,
    slopes: Slopes,
    /// The active coordinates before the step.
    saved: Vec<T>,
    step: u64,
    /// Whether `slopes.places` is that of `active`.
    placed: bool,
    asked: bool,
    report: Report,
    buffers: Buffers<T>,
    home: Home<T>,
}

/// The active coordinates and their slopes.
#[derive(Debug, Default)]
struct Slopes {
    /// Tensor and index, ascending.
    places: Vec<(u32, usize)>,
    values: Vec<f64>,
}

impl<R: Real> Slices<R> for Slopes {
    fn slice(&self, tensor: usize, offset: usize, out: &mut [R]) {
        out.fill(R::zero());
        let from = self.places.partition_point(|&(t, i)| (t as usize, i) < (tensor, offset));
        let end = offset + out.len();
        let found = self.places.iter().zip(&self.values).skip(from);
        for (&(_, i), &value) in found.take_while(|(p, _)| (p.0 as usize, p.1) < (tensor, end)) {
            out.get_mut(i - offset).into_iter().for_each(|x| *x = R::of(value));
        }
    }

    fn takes_part(&self, _tensor: usize) -> bool {
        true
    }

    fn is_finite(&self) -> bool {
        let most = R::max_value().widen();
        self.values.iter().all(|value| value.abs() <= most)
    }
}

/// Which evaluation a probe is.
enum Probe {
    Centre,
    At { coordinate: usize, sign: f64 },
}

impl<T: Element> CoordinateEstimator<T> {
    pub(super) fn new(config: Coordinate) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            space: Space::new(NAME)?,
            config,
            active: ActiveSet::All,
            draw: 0,
            costs: BTreeMap::new(),
            slopes: Slopes::default(),
            saved: Vec::new(),
            step: 0,
            placed: false,
            asked: false,
            report: Report::default(),
            buffers: Buffers::default(),
            home: Home::default(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Coordinate {
        &self.config
    }

    /// What the last step has seen.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Which coordinates take part, from the next step on.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for a ratio outside `[0, 1]`. Names and indices are checked by
    /// the next step.
    pub fn set_active(&mut self, active: ActiveSet) -> Result<()> {
        active.validate()?;
        (self.active, self.placed) = (active, false);
        Ok(())
    }

    /// Draws other coordinates for [`ActiveSet::Pruned`]: DeepZero does so every five epochs.
    pub fn redraw(&mut self) {
        (self.draw, self.placed) = (self.draw + 1, false);
    }

    /// The active coordinates of the step that was asked for last: tensor and row-major index, in the
    /// order of the probes.
    pub fn active(&self) -> &[(u32, usize)] {
        &self.slopes.places
    }

    /// What an evaluation costs when a tensor is perturbed, by its name; 1 for those not named. Workers
    /// get probes of about the same cost in all. Results do not change.
    pub fn set_costs(&mut self, costs: BTreeMap<String, u64>) {
        self.costs = costs;
    }

    /// The tensor that a probe perturbs; `None` for the one that perturbs nothing.
    pub fn tensor_of(&self, probe: usize) -> Option<&str> {
        let Probe::At { coordinate, .. } = self.probe(probe) else { return None };
        let &(tensor, _) = self.slopes.places.get(coordinate)?;
        let segment = self.space.layout.segments().get(tensor as usize)?;
        Some(&segment.name)
    }

    /// As [`Estimator::estimate`]; the closure is told which tensor is perturbed, `None` for the evaluation
    /// that perturbs nothing.
    ///
    /// What comes before that tensor in the network is as in the unperturbed evaluation: a closure that
    /// keeps the inputs of every layer begins at the layer in question. With [`Sides::Forward`] the
    /// unperturbed evaluation is the first, and the others go through the tensors in their order.
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
            self.space.layout.segments().iter().map(|segment| segment.name.clone()).collect();
        let tensors: Vec<Option<u32>> = (0..probes)
            .map(|probe| match self.probe(probe) {
                Probe::Centre => None,
                Probe::At { coordinate, .. } => self.slopes.places.get(coordinate).map(|p| p.0),
            })
            .collect();
        let mut tensors = tensors.into_iter();
        self.estimate(model, |model| {
            let tensor = tensors.next().flatten();
            loss(model, tensor.and_then(|tensor| names.get(tensor as usize)).map(String::as_str))
        })
    }

    fn probe(&self, probe: usize) -> Probe {
        match (self.config.sides, probe.checked_sub(1)) {
            (Sides::Forward, None) => Probe::Centre,
            (Sides::Forward, Some(coordinate)) => Probe::At { coordinate, sign: 1.0 },
            (Sides::Central, _) => {
                let sign = if probe.is_multiple_of(2) { 1.0 } else { -1.0 };
                Probe::At { coordinate: probe / 2, sign }
            }
        }
    }

    fn num_probes(&self) -> usize {
        match self.config.sides {
            Sides::Forward => self.slopes.places.len() + 1,
            Sides::Central => 2 * self.slopes.places.len(),
        }
    }

    /// Fills the report and the slopes from the losses.
    fn judge(&mut self, losses: &[f64]) {
        let bad = losses.iter().filter(|loss| !loss.is_finite()).count();
        let epsilon = self.config.epsilon;
        let (centre, along, width, divisor) = match (self.config.sides, losses.split_first()) {
            (Sides::Forward, Some((centre, along))) => (Some(*centre), along, 1, epsilon),
            _ => (None, losses, 2, 2.0 * epsilon),
        };
        let propagate = self.config.non_finite == NonFinite::Propagate;
        let mut usable = 0;
        let slope = |losses: &[f64]| {
            let difference = match (losses, centre) {
                (&[plus, minus], _) => plus - minus,
                (&[plus], Some(centre)) => plus - centre,
                _ => 0.0,
            };
            let counts = difference.is_finite() || propagate;
            usable += usize::from(counts);
            if counts { difference / divisor } else { 0.0 }
        };
        self.slopes.values.clear();
        self.slopes.values.extend(along.chunks_exact(width).map(slope));
        self.report.coefficients.clone_from(&self.slopes.values);
        let finite = losses.iter().filter(|loss| loss.is_finite());
        self.report.loss =
            centre.unwrap_or_else(|| finite.clone().sum::<f64>() / finite.count().max(1) as f64);
        (self.report.non_finite, self.report.evaluations) = (bad, losses.len());
        self.report.skipped = usable == 0;
    }
}

impl<T: Element> Estimator<T> for CoordinateEstimator<T> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn steps(&self) -> u64 {
        self.step
    }

    fn ask(&mut self, params: &mut dyn Parameters<T>) -> Result<usize> {
        self.asked = false;
        let mut visit = take(&mut self.buffers.visit);
        let first = self.space.layout.segments().is_empty();
        let mut read = self.space.read(NAME, &mut visit, params, false);
        if read.is_ok() && !self.placed {
            let places = self.active.places(&self.space.layout, self.config.seed, self.draw);
            self.placed = places.is_ok();
            read = places.map(|places| self.slopes.places = places);
        }
        if read.is_err() && first {
            // the tree of a step that cannot be is no one's
            self.space = Space::new(NAME)?;
        }
        self.saved.clear();
        let Self { space, saved, slopes, .. } = self;
        let saved = read.and_then(|()| {
            space.each(NAME, &mut visit, params, &slopes.places, |_, x| saved.push(*x))
        });
        self.buffers.visit = visit;
        saved?;
        self.asked = true;
        Ok(self.num_probes())
    }

    fn place(
        &self,
        visit: &mut Visit<T>,
        from: Option<usize>,
        to: Option<usize>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        for (probe, perturbed) in [(from, false), (to, true)] {
            let Some(Probe::At { coordinate, sign }) = probe.map(|probe| self.probe(probe)) else {
                continue;
            };
            let place = self.slopes.places.get(coordinate..=coordinate).unwrap_or_default();
            let Some(&before) = self.saved.get(coordinate) else { continue };
            let step = if perturbed { sign * self.config.epsilon } else { 0.0 };
            self.space.each(NAME, visit, params, place, |_, x| {
                let moved = before.load() + T::Compute::of(step);
                *x = if perturbed { T::store(moved) } else { before };
            })?;
        }
        Ok(())
    }

    fn cost(&self, probe: usize) -> u64 {
        self.tensor_of(probe).and_then(|name| self.costs.get(name)).copied().unwrap_or(1)
    }

    fn check(&self, losses: &[f64]) -> Result<()> {
        let (expected, found) = (self.num_probes(), losses.len());
        let bad = losses.iter().find(|loss| !loss.is_finite());
        match (self.config.non_finite, bad) {
            _ if !self.asked => {
                let problem = "the parameters have to be asked about first";
                Err(Error::OutOfOrder { what: "Coordinate::tell", problem })
            }
            _ if found != expected => Err(Error::LossCount { method: NAME, expected, found }),
            (NonFinite::Error, Some(&loss)) => Err(Error::NonFiniteLoss(loss)),
            _ => Ok(()),
        }
    }

    fn conclude(&mut self, losses: Vec<f64>) -> Result<Estimate<'_, T>> {
        if let Err(error) = self.check(&losses) {
            self.buffers.losses = losses;
            return Err(error);
        }
        self.judge(&losses);
        self.buffers.losses = replace(&mut self.report.losses, losses);
        self.report.step = self.step;
        (self.asked, self.step) = (false, self.step + 1);
        Ok(Estimate::new(&self.report, &self.slopes, &self.space, &self.home))
    }

    fn cancel(&mut self) {
        self.asked = false;
    }

    fn buffers(&mut self) -> &mut Buffers<T> {
        &mut self.buffers
    }

    fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        bytes.add_parameters(self.space.layout.numel());
        bytes.add("places", size_of_val(&*self.slopes.places));
        bytes.add("slopes", size_of_val(&*self.slopes.values));
        bytes.add("saved", size_of_val(&*self.saved));
        bytes
    }

    fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(NAME);
        let mut record = Record::new("estimator", &mut dict);
        // all 64 bits of a seed survive
        record.scalar("seed", Scalar::Int(self.config.seed as i64));
        record.scalar("step", Scalar::Int(self.step as i64));
        record.scalar("draw", Scalar::Int(self.draw as i64));
        self.space.save(&mut Record::new("tensors", &mut dict));
        dict
    }

    /// Active sets are configured, not saved: only how often they were drawn is.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        state.check_header(NAME)?;
        let used = RefCell::new(BTreeSet::new());
        let lookup = Lookup::new("estimator", state, &used);
        let integer = |name: &str| match lookup.scalar(name) {
            Some(&Scalar::Int(value)) => Ok(value as u64),
            _ => Err(lookup.problem(name, "is missing, or not an integer")),
        };
        let (seed, step, draw) = (integer("seed")?, integer("step")?, integer("draw")?);
        self.space.load(&Lookup::new("tensors", state, &used))?;
        (self.config.seed, self.step, self.draw) = (seed, step, draw);
        (self.placed, self.asked) = (false, false);
        Ok(())
    }
}
