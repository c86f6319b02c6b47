//! Rounds of units: all tensors are cut into one flat work list, and the list is run.

use super::group::Group;
use super::joint::Part;
use super::method::{GradSlice, GradSource, Job, Stage, TensorMethod};
use super::plan::Tracked;
use super::rule::Measured;
use crate::kernel::{Isa, Sums, parallel};
use crate::numeric::Element;
use crate::params::recycle;
use crate::state::Storage;
use std::mem::take;

/// Most measuring passes of a method: one of a vector method, two of a matrix method behind it, and
/// two of the rule behind that.
const MAX_PASSES: usize = 5;

fn add(total: &mut Sums, terms: &Sums) {
    total.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

/// A parameter that this step changes.
pub(super) struct Work<'j, T: Element, S> {
    name: &'j str,
    group: usize,
    t: u64,
    key: u64,
    shape: &'j [usize],
    data: &'j mut [T],
    grad: GradSlice<'j, T>,
    state: &'j mut S,
    /// What every measuring pass found.
    measured: [Option<Measured>; MAX_PASSES],
}

impl<'j, T: Element, S> Work<'j, T, S> {
    pub fn new(tracked: &'j mut Tracked<S>, data: &'j mut [T], grad: GradSlice<'j, T>) -> Self {
        let Tracked { name, group, t, key, shape, state } = tracked;
        Self {
            name,
            group: *group,
            t: *t,
            key: *key,
            shape,
            data,
            grad,
            state,
            measured: [None; MAX_PASSES],
        }
    }
}

impl<'j, T: Element, S> Work<'j, T, S> {
    /// Path of the parameter.
    pub fn name(&self) -> &'j str {
        self.name
    }

    /// The parameter and its gradient, to look at.
    pub fn part(&self) -> Part<'_, T> {
        Part { name: self.name, group: self.group, param: self.data, grad: self.grad }
    }

    /// Puts another direction in the place of the gradient.
    pub fn replace_gradient(&mut self, source: GradSource<'j, T>) {
        self.grad = GradSlice { scale: 1.0, bound: f64::INFINITY, source };
    }
}

/// Allocations that are kept from round to round.
pub(super) struct RoundBuffers<M: TensorMethod<T>, T: Element> {
    units: Vec<M::Unit<'static>>,
    sums: Vec<Sums>,
    /// Number of units of every tensor.
    counts: Vec<usize>,
}

impl<M: TensorMethod<T>, T: Element> Default for RoundBuffers<M, T> {
    fn default() -> Self {
        Self { units: Vec::new(), sums: Vec::new(), counts: Vec::new() }
    }
}

/// What all rounds of one step share.
pub(super) struct Rounds<'r, M: TensorMethod<T>, T: Element> {
    pub storage: &'r Storage,
    pub isa: Isa,
    pub buffers: RoundBuffers<M, T>,
}

impl<M: TensorMethod<T>, T: Element> Rounds<'_, M, T> {
    /// Measures as often as the method asks for, and updates.
    pub fn step(&mut self, groups: &mut [Group<M, T>], work: &mut [Work<'_, T, M::State>]) {
        let passes = groups.iter().map(|group| group.method.passes()).filter(|p| !p.is_empty());
        let passes = passes.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        for pass in passes.unwrap_or(0..0) {
            self.run(Stage::Measure(pass), groups, work);
            let total = self.collect_sums(pass, work);
            for group in groups.iter_mut().filter(|group| group.method.passes().contains(&pass)) {
                group.method.combine(pass, &total, &mut group.scalars);
            }
        }
        if work.iter().any(|work| M::wants_preview(work.state)) {
            self.run(Stage::Preview, groups, work);
        }
        self.run(Stage::Update, groups, work);
    }

    /// One round over all tensors that take part in `stage`.
    pub fn run(
        &mut self,
        stage: Stage,
        groups: &[Group<M, T>],
        work: &mut [Work<'_, T, M::State>],
    ) {
        let mut units: Vec<M::Unit<'_>> = recycle(take(&mut self.buffers.units));
        let mut elements = 0;
        self.buffers.counts.clear();
        // tensors of one group and age share their scalars, whose powers are dear
        let mut last: Option<((usize, u64), M::Prepared)> = None;
        for work in work {
            let before = units.len();
            if let Some(group) =
                groups.get(work.group).filter(|group| work.takes_part(stage, group))
            {
                let key = (work.group, work.t);
                let mut prepared = match last {
                    Some((known, prepared)) if known == key => prepared,
                    _ => group.method.prepare(work.t, &group.scalars),
                };
                last = Some((key, prepared));
                for (pass, measured) in work.measured.iter().enumerate() {
                    if let Some(measured) = measured {
                        group.method.refine(pass, measured, &mut prepared);
                    }
                }
                elements += work.data.len() * M::INTENSITY;
                let job = Job {
                    stage,
                    isa: self.isa,
                    storage: self.storage,
                    prepared,
                    t: work.t,
                    key: work.key,
                    shape: work.shape,
                    data: work.data,
                    grad: work.grad,
                    state: work.state,
                };
                group.method.split(job, |unit| units.push(unit));
            }
            self.buffers.counts.push(units.len() - before);
        }
        if M::UNEVEN {
            parallel::for_each_longest_first(&mut units, elements, M::cost, M::run);
        } else {
            parallel::for_each(&mut units, elements, M::run);
        }
        self.buffers.sums.clear();
        if matches!(stage, Stage::Measure(_)) {
            self.buffers.sums.extend(units.iter().map(M::sums));
        }
        self.buffers.units = recycle(units);
    }

    /// Adds the sums of the units, in their order, per tensor and in total.
    fn collect_sums(&self, pass: usize, work: &mut [Work<'_, T, M::State>]) -> Sums {
        let (mut total, mut sums) = (Sums::default(), self.buffers.sums.iter());
        for (work, &count) in work.iter_mut().zip(&self.buffers.counts) {
            let mut own = Sums::default();
            sums.by_ref().take(count).for_each(|unit| add(&mut own, unit));
            add(&mut total, &own);
            if let Some(measured) = work.measured.get_mut(pass).filter(|_| count > 0) {
                let (numel, ndim) = (work.data.len(), work.shape.len());
                *measured = Some(Measured { sums: own, numel, ndim });
            }
        }
        total
    }
}

impl<T: Element, S> Work<'_, T, S> {
    fn takes_part<M: TensorMethod<T, State = S>>(&self, stage: Stage, group: &Group<M, T>) -> bool {
        match stage {
            Stage::Measure(pass) => group.method.passes().contains(&pass),
            Stage::Preview => M::wants_preview(self.state),
            Stage::Update | Stage::Switch(_) => true,
        }
    }
}
