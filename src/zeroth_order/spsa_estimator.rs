//! The estimator that [`Spsa`] builds.

use super::estimate::{Estimate, Home, Report};
use super::estimator::{Buffers, Estimator};
use super::fogzo::Guide;
use super::law::{Directions, Draw, Guided, Law, Slopes};
use super::noise::{Noise, Philox, Place, Purpose};
use super::rays::{Perturb, Rays};
use super::shaping::Shaping;
use super::space::{Space, Visit};
use super::spsa::{Sides, Slope, Spsa};
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::kernel::Isa;
use crate::kernel::scratch::with_scratch;
use crate::numeric::{Element, Real};
use crate::optim::{NonFinite, Segment};
use crate::params::{Parameters, Select};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateDict};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::mem::{replace, take};

/// Estimates along random directions: what [`Spsa`] builds.
#[derive(Debug)]
pub struct SpsaEstimator<T: Element, L: Law> {
    config: Spsa<L>,
    space: Space<T>,
    rays: Rays<T::Compute, L>,
    /// Perturbation sizes by selector; the last that matches counts.
    epsilons: Vec<(Select, f64)>,
    /// Which tensors take part; all if `None`.
    active: Option<Select>,
    /// The step to come.
    step: u64,
    asked: bool,
    report: Report,
    buffers: Buffers<T>,
    home: Home<T>,
}

/// Which evaluation a probe is.
enum Probe {
    Centre,
    Along { query: u32, sign: f64 },
}

impl<T: Element, L: Law> SpsaEstimator<T, L> {
    pub(super) fn new(config: Spsa<L>) -> Result<Self> {
        config.validate()?;
        let directions = config.law.directions();
        if directions.needs_centre() && config.sides == Sides::Forward {
            let expected = "`Central` with this law";
            return Err(Spsa::<L>::invalid("sides", expected, "Forward"));
        }
        let rays = Rays {
            directions,
            noise: Box::new(Philox::new(config.seed)),
            step: 0,
            queries: 0,
            epsilons: Vec::new(),
            differences: Vec::new(),
            second_differences: Vec::new(),
            divided: config.slope == Slope::Value,
            active: Vec::new(),
        };
        Ok(Self {
            space: Space::new(Spsa::<L>::NAME)?,
            rays,
            config,
            epsilons: Vec::new(),
            active: None,
            step: 0,
            asked: false,
            report: Report::default(),
            buffers: Buffers::default(),
            home: Home::default(),
        })
    }

    /// Random numbers from another source than Philox: for tests that supply them.
    pub fn with_noise(mut self, noise: impl Noise<T::Compute> + 'static) -> Self {
        self.rays.noise = Box::new(noise);
        self
    }

    /// Another perturbation size for some tensors: their part of a probe is `ε_k·u_k`, and their slopes
    /// are divided by `ε_k`. Where several match the last counts.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is finite and above 0.
    pub fn with_epsilon(mut self, select: Select, epsilon: f64) -> Result<Self> {
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            let expected = "finite and > 0";
            return Err(Spsa::<L>::invalid("epsilon", expected, epsilon.to_string()));
        }
        self.epsilons.push((select, epsilon));
        Ok(self)
    }

    /// The configuration.
    pub fn config(&self) -> &Spsa<L> {
        &self.config
    }

    /// The tensors, in the order of the tree; none before the first step.
    pub fn segments(&self) -> &[Segment] {
        self.space.layout.segments()
    }

    /// What the last step has seen.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Changes the perturbation size, from the next step on.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is finite and above 0; [`Error::OutOfOrder`] between
    /// [`ask`](Estimator::ask) and [`tell`](Estimator::tell).
    pub fn set_epsilon(&mut self, epsilon: f64) -> Result<()> {
        self.refuse_if_asked("Spsa::set_epsilon")?;
        self.config.set_option("epsilon", epsilon)
    }

    /// Restricts probes and estimates to some tensors, or to none in particular, from the next step on.
    /// All keep their places, so that the directions of those that take part stay the same.
    pub fn set_active(&mut self, active: Option<Select>) {
        self.active = active;
    }

    /// Goes to another step, whose directions come next: to repeat one, or to leave some out.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] between [`ask`](Estimator::ask) and [`tell`](Estimator::tell).
    pub fn set_step(&mut self, step: u64) -> Result<()> {
        self.refuse_if_asked("Spsa::set_step")?;
        self.step = step;
        Ok(())
    }

    fn refuse_if_asked(&self, what: &'static str) -> Result<()> {
        let problem = "the losses of the step that was asked for have to be told first";
        if self.asked { Err(Error::OutOfOrder { what, problem }) } else { Ok(()) }
    }

    /// The part of one direction in the estimate.
    pub(super) fn contribution(
        &self,
        tensor: usize,
        query: u32,
        offset: usize,
        out: &mut [T::Compute],
    ) {
        self.rays.directions.update(&self.rays.query(query, tensor), offset, out);
        let weight = self.rays.slopes().weight(tensor, query as usize);
        let weight = T::Compute::of(weight * self.rays.directions.scale(tensor));
        out.iter_mut().for_each(|x| *x *= weight);
    }

    /// Uniform numbers of the step that was told last.
    pub(super) fn uniform(
        &self,
        purpose: Purpose,
        (tensor, query): (usize, u32),
        offset: usize,
        out: &mut [f64],
    ) {
        self.rays.noise.uniform(&self.rays.query(query, tensor).place(purpose), offset, out);
    }

    /// Lets `f(tensor, offset, before, out)` write the parameters from the copy before the step.
    pub(super) fn rewrite(
        &self,
        params: &mut dyn Parameters<T>,
        f: impl Fn(usize, usize, &[T::Compute], &mut [T::Compute]) + Sync + Send,
    ) -> Result<()> {
        let mut visit = Visit::default();
        self.space.write(Spsa::<L>::NAME, &mut visit, params, |tensor, offset, before, out| {
            if let (Some(before), Some(out)) = (T::as_compute(before), T::as_compute_mut(out)) {
                f(tensor, offset, before, out);
            }
        })
    }

    /// Prepares the step to come.
    fn plan(&mut self, params: &mut dyn Parameters<T>) -> Result<()> {
        self.asked = false;
        self.space.read(Spsa::<L>::NAME, &mut self.buffers.visit, params, true)?;
        let segments = self.space.layout.segments();
        let largest = segments.iter().map(|s| s.numel()).max().unwrap_or(0);
        Place::check(self.step, self.config.num_samples, largest)?;
        for select in self.epsilons.iter().map(|(select, _)| select).chain(&self.active) {
            if !segments.iter().any(|s| select.matches(&s.name, &s.shape)) {
                return Err(Error::EmptyGroup { group: 0, select: select.label().to_owned() });
            }
        }
        let rays = &mut self.rays;
        rays.epsilons.clear();
        rays.epsilons.extend(segments.iter().map(|s| {
            let own =
                self.epsilons.iter().rev().find(|(select, _)| select.matches(&s.name, &s.shape));
            own.map_or(self.config.epsilon, |&(_, epsilon)| epsilon)
        }));
        rays.active.clear();
        if let Some(select) = &self.active {
            rays.active.extend(segments.iter().map(|s| select.matches(&s.name, &s.shape)));
        }
        // fewer than 2^24
        (rays.step, rays.queries) = (self.step, self.config.num_samples as u32);
        rays.directions.begin(&Draw {
            step: self.step,
            queries: rays.queries,
            layout: &self.space.layout,
            parameters: &self.space.base(),
            noise: &*rays.noise,
        })?;
        self.asked = true;
        Ok(())
    }

    fn probe(&self, probe: usize) -> Probe {
        let centre = usize::from(self.evaluates_centre());
        let Some(along) = probe.checked_sub(centre) else { return Probe::Centre };
        // fewer than 2^24 queries
        match self.config.sides {
            Sides::Forward => Probe::Along { query: along as u32, sign: 1.0 },
            Sides::Central => {
                let sign = if along % 2 == 0 { 1.0 } else { -1.0 };
                Probe::Along { query: (along / 2) as u32, sign }
            }
        }
    }

    fn evaluates_centre(&self) -> bool {
        self.config.sides == Sides::Forward || self.rays.directions.needs_centre()
    }

    fn num_probes(&self) -> usize {
        usize::from(self.evaluates_centre()) + self.sides() * self.config.num_samples
    }

    /// Fills the report and the slopes from the losses.
    fn judge(&mut self, losses: &[f64]) {
        let bad = losses.iter().filter(|loss| !loss.is_finite()).count();
        (self.report.non_finite, self.report.evaluations) = (bad, losses.len());
        let (centre, along) =
            losses.split_at(usize::from(self.evaluates_centre()).min(losses.len()));
        let centre = centre.first().copied();
        let finite = losses.iter().filter(|loss| loss.is_finite());
        self.report.loss =
            centre.unwrap_or_else(|| finite.clone().sum::<f64>() / finite.count().max(1) as f64);
        let shaped = self.shaped(along, centre);
        self.set_slopes(along, &shaped, centre);
    }

    /// Whether a direction with these losses counts.
    fn counts(&self, losses: &[f64], centre: Option<f64>) -> bool {
        self.config.non_finite == NonFinite::Propagate
            || losses.iter().chain(centre.as_ref()).all(|loss| loss.is_finite())
    }

    /// One slope per direction; `along` are its losses, `shaped` what stands for them.
    fn set_slopes(&mut self, along: &[f64], shaped: &[f64], centre: Option<f64>) {
        let sides = self.sides();
        let Spsa { epsilon, clip, slope: form, .. } = self.config;
        let all = along.chunks_exact(sides);
        let total = all.clone().filter(|losses| self.counts(losses, centre)).count();
        self.report.skipped = total == 0;
        let total = total.max(1) as f64;
        self.rays.differences.clear();
        self.rays.second_differences.clear();
        self.report.coefficients.clear();
        for (losses, shaped) in all.zip(shaped.chunks_exact(sides)) {
            let (difference, second) = match (shaped, losses, centre) {
                _ if !self.counts(losses, centre) => (0.0, 0.0),
                (&[plus, minus], &[f_plus, f_minus], centre) => {
                    let second = centre.map_or(0.0, |f| f_plus + f_minus - 2.0 * f);
                    ((plus - minus) / 2.0, second)
                }
                (&[plus], _, Some(centre)) => (plus - centre, 0.0),
                _ => (0.0, 0.0),
            };
            let slope = difference / epsilon;
            let clipped = if slope.abs() > clip { clip.copysign(slope) } else { slope };
            self.report.coefficients.push(clipped);
            self.rays.differences.push(match form {
                Slope::Sign => sign(slope) / total,
                Slope::Value if slope.abs() > clip => clipped * epsilon / total,
                Slope::Value => difference / total,
            });
            if self.rays.directions.needs_centre() {
                self.rays.second_differences.push(second / total);
            }
        }
    }

    /// Evaluations per direction.
    fn sides(&self) -> usize {
        match self.config.sides {
            Sides::Forward => 1,
            Sides::Central => 2,
        }
    }

    /// Weights in place of the losses of directions that count.
    fn shaped<'l>(&self, along: &'l [f64], centre: Option<f64>) -> Cow<'l, [f64]> {
        if self.config.shaping == Shaping::None {
            return Cow::Borrowed(along);
        }
        let sides = self.sides();
        let counts = |losses: &[f64]| self.counts(losses, centre);
        let kept = along.chunks_exact(sides).filter(|losses| counts(losses));
        let mut kept: Vec<f64> = kept.flatten().copied().collect();
        self.config.shaping.apply(&mut kept);
        let mut shaped = along.to_vec();
        let places = shaped.chunks_exact_mut(sides).filter(|losses| counts(losses)).flatten();
        places.zip(kept).for_each(|(place, weight)| *place = weight);
        Cow::Owned(shaped)
    }
}

impl<T: Element> SpsaEstimator<T, Guided> {
    /// Follows a direction, and probes the tensors that it has, from the next step on.
    pub(super) fn follow(&mut self, guide: Guide<T::Compute>) {
        let Guide { beta, directions, names } = guide;
        self.rays.directions.follow(beta, directions);
        let named = move |name: &str, _: &[usize]| names.iter().any(|known| known == name);
        self.active = Some(Select::by("with a gradient", named));
    }
}

/// −1, 0 or 1; NaN stays.
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

impl<T: Element, L: Law> Estimator<T> for SpsaEstimator<T, L> {
    fn name(&self) -> &'static str {
        Spsa::<L>::NAME
    }

    fn steps(&self) -> u64 {
        self.step
    }

    fn ask(&mut self, params: &mut dyn Parameters<T>) -> Result<usize> {
        let first = self.segments().is_empty();
        let planned = self.plan(params);
        if planned.is_err() && first {
            // the tree of a step that cannot be is no one's
            self.space = Space::new(Spsa::<L>::NAME)?;
        }
        planned.map(|()| self.num_probes())
    }

    fn place(
        &self,
        visit: &mut Visit<T>,
        _from: Option<usize>,
        to: Option<usize>,
        params: &mut dyn Parameters<T>,
    ) -> Result<()> {
        let name = Spsa::<L>::NAME;
        let (query, sign) = match to.map(|probe| self.probe(probe)) {
            Some(Probe::Along { query, sign }) => (query, sign),
            Some(Probe::Centre) | None => return self.space.restore(name, visit, params),
        };
        let isa = Isa::detect();
        self.space.write(name, visit, params, |tensor, offset, before, out| {
            let (Some(before), Some(out)) = (T::as_compute(before), T::as_compute_mut(out)) else {
                return;
            };
            if !self.rays.takes_part(tensor) {
                return out.copy_from_slice(before);
            }
            let epsilon = self.rays.epsilons.get(tensor).copied().unwrap_or(0.0);
            let step = T::Compute::of(sign * epsilon);
            // beside, in the cache: the parameters themselves are written once
            with_scratch(out.len(), |direction| {
                self.rays.directions.probe(&self.rays.query(query, tensor), offset, direction);
                isa.run(Perturb { before, step, direction, out });
            });
        })
    }

    fn check(&self, losses: &[f64]) -> Result<()> {
        let (expected, found) = (self.num_probes(), losses.len());
        let bad = losses.iter().find(|loss| !loss.is_finite());
        match (self.config.non_finite, bad) {
            _ if !self.asked => {
                let problem = "the parameters have to be asked about first";
                Err(Error::OutOfOrder { what: "Spsa::tell", problem })
            }
            _ if found != expected => {
                Err(Error::LossCount { method: Spsa::<L>::NAME, expected, found })
            }
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
        if !self.report.skipped {
            let (differences, seconds) =
                (take(&mut self.rays.differences), take(&mut self.rays.second_differences));
            let active = take(&mut self.rays.active);
            let slopes = Slopes {
                epsilons: &self.rays.epsilons,
                differences: &differences,
                second_differences: &seconds,
                divided: self.rays.divided,
                active: &active,
            };
            let draw = Draw {
                step: self.step,
                queries: self.rays.queries,
                layout: &self.space.layout,
                parameters: &self.space.base(),
                noise: &*self.rays.noise,
            };
            self.rays.directions.observe(&draw, &slopes);
            (self.rays.differences, self.rays.second_differences) = (differences, seconds);
            self.rays.active = active;
        }
        (self.asked, self.step) = (false, self.step + 1);
        Ok(Estimate::new(&self.report, &self.rays, &self.space, &self.home))
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
        bytes.add("copy", self.space.bytes());
        self.rays.directions.count(&mut bytes);
        bytes
    }

    fn state_dict(&self) -> StateDict {
        let mut dict = StateDict::new(Spsa::<L>::NAME);
        let mut record = Record::new("estimator", &mut dict);
        // seeds and steps of all 64 bits survive as the same bits
        record.scalar("seed", Scalar::Int(self.config.seed as i64));
        record.scalar("step", Scalar::Int(self.step as i64));
        record.scalar("law", Scalar::Text(L::NAME.to_owned()));
        self.space.save(&mut Record::new("tensors", &mut dict));
        self.rays.directions.save(&mut Record::new("law", &mut dict));
        dict
    }

    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        state.check_header(Spsa::<L>::NAME)?;
        let used = RefCell::new(BTreeSet::new());
        let lookup = Lookup::new("estimator", state, &used);
        let integer = |name: &str| match lookup.scalar(name) {
            Some(&Scalar::Int(value)) => Ok(value as u64),
            _ => Err(lookup.problem(name, "is missing, or not an integer")),
        };
        let (seed, step) = (integer("seed")?, integer("step")?);
        if lookup.scalar("law").and_then(Scalar::as_text) != Some(L::NAME) {
            return Err(lookup.problem("law", format!("is not `{}`", L::NAME)));
        }
        let mut space = Space::new(Spsa::<L>::NAME)?;
        space.load(&Lookup::new("tensors", state, &used))?;
        if !self.space.layout.segments().is_empty() {
            self.space.load(&Lookup::new("tensors", state, &used))?;
        }
        let mut directions = self.config.law.directions();
        directions.load(&space.layout, &Lookup::new("law", state, &used))?;
        self.space = space;
        self.rays.directions = directions;
        if seed != self.config.seed {
            self.rays.noise = Box::new(Philox::new(seed));
        }
        self.config.seed = seed;
        (self.step, self.asked) = (step, false);
        Ok(())
    }
}
