//! Passes over all tensors: they are cut into units, one flat list of work, and the list is run.

use super::group::Group;
use super::tracked::Tracked;
use crate::kernel::{Isa, Sums, parallel};
use crate::numeric::Element;
use crate::optim::method::{
    GradEntry, GradSlice, GradSource, PassInfo, Stage, TensorMethod, TensorPass, TensorStep,
    TensorSums,
};
use crate::params::recycle;
use crate::state::Storage;
use std::mem::take;

fn add(total: &mut Sums, terms: &Sums) {
    total.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

/// A parameter that this step changes.
pub(in crate::optim) struct TensorTask<'j, T: Element, S> {
    name: &'j str,
    group: usize,
    t: u64,
    key: u64,
    shape: &'j [usize],
    data: &'j mut [T],
    grad: GradSlice<'j, T>,
    curvature: Option<GradSlice<'j, T>>,
    state: &'j mut S,
}

impl<'j, T: Element, S> TensorTask<'j, T, S> {
    pub fn new(
        tracked: &'j mut Tracked<S>,
        data: &'j mut [T],
        grad: GradSlice<'j, T>,
        curvature: Option<GradSlice<'j, T>>,
    ) -> Self {
        let Tracked { name, group, t, key, shape, state, .. } = tracked;
        Self { name, group: *group, t: *t, key: *key, shape, data, grad, curvature, state }
    }
}

impl<'j, T: Element, S> TensorTask<'j, T, S> {
    /// Path of the parameter.
    pub fn name(&self) -> &'j str {
        self.name
    }

    /// The tensor's part of the step, and its state.
    fn step(&mut self) -> (TensorStep<'j>, &mut S) {
        let Self { t, shape, curvature, state, .. } = self;
        (TensorStep { t: *t, shape, curvature: curvature.is_some() }, state)
    }

    /// The parameter and its gradient, to look at.
    pub fn part(&self) -> GradEntry<'_, T> {
        GradEntry { name: self.name, group: self.group, param: self.data, grad: self.grad }
    }

    /// Replaces the gradient by a direction.
    pub fn replace_gradient(&mut self, source: GradSource<'j, T>) {
        self.grad = GradSlice::plain(source);
    }
}

/// Allocations that are kept from pass to pass.
pub(in crate::optim) struct PassBuffers<M: TensorMethod<T>, T: Element> {
    units: Vec<M::Unit<'static>>,
    sums: Vec<Sums>,
    /// What every measuring pass found, tensor by tensor.
    measured: Vec<Option<TensorSums>>,
    /// Number of measuring passes of the step.
    passes: usize,
    /// Coefficients of the step, and which of them every tensor has.
    prepared: Vec<M::Prepared>,
    chosen: Vec<usize>,
    /// Number of units of every tensor.
    counts: Vec<usize>,
}

impl<M: TensorMethod<T>, T: Element> Default for PassBuffers<M, T> {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            sums: Vec::new(),
            measured: Vec::new(),
            passes: 0,
            prepared: Vec::new(),
            chosen: Vec::new(),
            counts: Vec::new(),
        }
    }
}

/// What all passes of one step share.
pub(in crate::optim) struct Passes<'r, M: TensorMethod<T>, T: Element> {
    pub storage: &'r Storage,
    pub isa: Isa,
    pub buffers: PassBuffers<M, T>,
}

impl<M: TensorMethod<T>, T: Element> Passes<'_, M, T> {
    /// The measuring passes of the method, and the update.
    pub fn step(&mut self, groups: &mut [Group<M>], work: &mut [TensorTask<'_, T, M::State>]) {
        for work in work.iter_mut() {
            if let Some(group) = groups.get(work.group) {
                let (step, state) = work.step();
                group.method.begin_tensor(&step, state);
            }
        }
        let passes = groups.iter().map(|group| group.method.passes()).filter(|p| !p.is_empty());
        let passes = passes.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let passes = passes.unwrap_or(0..0);
        self.buffers.passes = passes.end;
        self.buffers.measured.clear();
        self.buffers.measured.resize(passes.end * work.len(), None);
        for pass in passes {
            self.run(Stage::Measure(pass), groups, work);
            let total = self.collect_sums(pass, groups, work);
            for group in groups.iter_mut().filter(|group| group.method.passes().contains(&pass)) {
                group.method.combine(pass, &total);
            }
        }
        if work.iter().any(|work| M::collects_scales(work.state)) {
            self.run(Stage::CollectScales, groups, work);
        }
        self.run(Stage::Update, groups, work);
    }

    /// One pass over all tensors that take part in `stage`.
    pub fn run(
        &mut self,
        stage: Stage,
        groups: &[Group<M>],
        work: &mut [TensorTask<'_, T, M::State>],
    ) {
        let mut prepared = take(&mut self.buffers.prepared);
        let mut chosen = take(&mut self.buffers.chosen);
        let measured = (self.buffers.measured.as_slice(), self.buffers.passes);
        prepare_all::<M, T>(groups, work, measured, (&mut prepared, &mut chosen));
        let mut units: Vec<M::Unit<'_>> = recycle(take(&mut self.buffers.units));
        let mut elements = 0;
        self.buffers.counts.clear();
        for (work, &index) in work.iter_mut().zip(&chosen) {
            let before = units.len();
            let group = groups.get(work.group).filter(|group| work.takes_part(stage, group));
            if let (Some(group), Some(prepared)) = (group, prepared.get(index)) {
                elements += work.data.len() * M::INTENSITY;
                let info = PassInfo {
                    stage,
                    isa: self.isa,
                    storage: self.storage,
                    t: work.t,
                    key: work.key,
                    shape: work.shape,
                    data: work.data,
                    grad: work.grad,
                    curvature: work.curvature,
                };
                let job = TensorPass { info, prepared, state: work.state };
                group.method.split(job, &mut |unit| units.push(unit));
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
        self.buffers.prepared = prepared;
        self.buffers.chosen = chosen;
    }

    /// Adds the sums of the units, in their order, per tensor and in total.
    fn collect_sums(
        &mut self,
        pass: usize,
        groups: &[Group<M>],
        work: &mut [TensorTask<'_, T, M::State>],
    ) -> Sums {
        let (mut total, mut sums) = (Sums::default(), self.buffers.sums.iter());
        for (index, (work, &count)) in work.iter_mut().zip(&self.buffers.counts).enumerate() {
            let mut own = Sums::default();
            sums.by_ref().take(count).for_each(|unit| add(&mut own, unit));
            let place = index * self.buffers.passes + pass;
            if let Some(measured) = self.buffers.measured.get_mut(place).filter(|_| count > 0) {
                let (numel, ndim) = (work.data.len(), work.shape.len());
                let found = TensorSums { sums: own, numel, ndim };
                *measured = Some(found);
                if let Some(group) = groups.get(work.group) {
                    let (step, state) = work.step();
                    group.method.absorb(pass, &found, &step, state);
                    group.method.contribute(pass, state, &mut own);
                }
            }
            add(&mut total, &own);
        }
        total
    }
}

/// Coefficients of every tensor; tensors of one group and age share theirs, whose powers are expensive,
/// until something was measured of them.
fn prepare_all<M: TensorMethod<T>, T: Element>(
    groups: &[Group<M>],
    work: &[TensorTask<'_, T, M::State>],
    (measured, passes): (&[Option<TensorSums>], usize),
    (prepared, chosen): (&mut Vec<M::Prepared>, &mut Vec<usize>),
) {
    let (mut count, mut shared) = (0, None);
    chosen.clear();
    for (index, work) in work.iter().enumerate() {
        let key = (work.group, work.t);
        let measured = measured.get(index * passes..(index + 1) * passes).unwrap_or_default();
        let Some(group) = groups.get(work.group) else {
            chosen.push(usize::MAX);
            continue;
        };
        let own = measured.iter().any(Option::is_some) || group.method.per_tensor();
        match shared {
            Some((known, index)) if known == key && !own => {
                chosen.push(index);
                continue;
            }
            _ => {}
        }
        if prepared.len() == count {
            prepared.push(M::Prepared::default());
        }
        if let Some(prepared) = prepared.get_mut(count) {
            let (t, shape, curvature) = (work.t, work.shape, work.curvature.is_some());
            let step = TensorStep { t, shape, curvature };
            group.method.prepare(&step, work.state, prepared);
            for (pass, measured) in measured.iter().enumerate() {
                if let Some(measured) = measured {
                    group.method.refine(pass, measured, prepared);
                }
            }
        }
        if !own {
            shared = Some((key, count));
        }
        chosen.push(count);
        count += 1;
    }
}

impl<T: Element, S> TensorTask<'_, T, S> {
    fn takes_part<M: TensorMethod<T, State = S>>(&self, stage: Stage, group: &Group<M>) -> bool {
        match stage {
            Stage::Measure(pass) => group.method.passes().contains(&pass),
            Stage::CollectScales => M::collects_scales(self.state),
            Stage::Update | Stage::Switch(..) => true,
        }
    }
}
