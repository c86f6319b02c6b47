//! One chunk of one tensor under an element-wise rule: decode, update, encode.

use super::inputs::{NoiseStream, RoundingStream, load_magnitude};
use super::kernel::ElementKernel;
use super::prepared::Prepared;
use super::rule::Apply;
use crate::kernel::scratch::with_scratch;
use crate::kernel::sweep::{Chunk, MAX_SLOTS, SlotSlices, Sums};
use crate::kernel::{CHUNK, Isa};
use crate::numeric::{Element, Real};
use crate::optim::method::{GradSlice, GradSource, Stage};
use crate::params::RowGradient;
use crate::state::Input;
use crate::state::chunk::SlotChunk;
use crate::state::factors::FactorSums;

/// Elements that are decoded into scratch at a time: few enough that parameters, gradient and all
/// slots stay in the first-level cache, and at least the length of a block of codes.
const BLOCK: usize = 1024;

/// What rounding a parameter remembers, cut like the parameter.
#[derive(Debug)]
pub(in crate::optim) enum ParamRounding<'u, T: Element> {
    None,
    Stochastic { seed: u64, key: u64 },
    Kahan(&'u mut [T]),
    Master(&'u mut [T::Compute]),
}

impl<'u, T: Element> ParamRounding<'u, T> {
    /// Splits off the first `len` elements.
    pub fn take(&mut self, len: usize) -> Self {
        match self {
            Self::None => Self::None,
            Self::Stochastic { seed, key } => Self::Stochastic { seed: *seed, key: *key },
            Self::Kahan(kahan) => Self::Kahan(kahan.split_off_mut(..len).unwrap_or_default()),
            Self::Master(master) => Self::Master(master.split_off_mut(..len).unwrap_or_default()),
        }
    }
}

/// One chunk of one tensor.
#[derive(Debug)]
pub struct ElementUnit<'u, T: Element> {
    pub(in crate::optim) stage: Stage,
    pub(in crate::optim) isa: Isa,
    pub(super) prepared: &'u Prepared<T::Compute>,
    pub(super) apply: Apply<T::Compute>,
    pub(in crate::optim) t: u64,
    /// Where the chunk begins in the flattened tensor.
    pub(in crate::optim) offset: usize,
    pub(in crate::optim) p: &'u mut [T],
    pub(in crate::optim) grad: GradSlice<'u, T>,
    pub(super) curvature: Option<GradSlice<'u, T>>,
    /// Shape and name of the whole tensor.
    pub(super) shape: &'u [usize],
    pub(super) key: u64,
    pub(in crate::optim) slots: [SlotChunk<'u, T::Compute>; MAX_SLOTS],
    /// The slot whose means over rows and columns this pass takes, and their sums.
    pub(super) factor: Option<(usize, FactorSums<'u, T::Compute>)>,
    pub(in crate::optim) rounding: ParamRounding<'u, T>,
    pub(in crate::optim) sums: Sums,
}

/// The loop of one stage.
#[derive(Clone, Copy)]
struct Sweep<'k, R: Real> {
    kernel: &'k dyn ElementKernel<R>,
    stage: Stage,
    isa: Isa,
    apply: Apply<R>,
}

impl<R: Real> Sweep<'_, R> {
    fn run(self, chunk: Chunk<'_, R>) {
        match self.stage {
            Stage::Switch(to, _) => self.kernel.switch(self.isa, to, chunk),
            _ => self.kernel.update(self.isa, &self.apply, chunk),
        }
    }

    /// The loop over the rows that are given, of a chunk that begins at an element of them; over all without rows.
    fn run_over<T: Element>(self, rows: GivenRows<'_, T>, mut chunk: Chunk<'_, R>) {
        let Some((rows, offset)) = rows else { return self.run(chunk) };
        rows.each_run(offset, chunk.p.len(), |run| {
            let p = chunk.p.get_mut(run.clone()).unwrap_or_default();
            let g = chunk.g.get(run.clone()).unwrap_or_default();
            self.run(Chunk { p, g, scale: chunk.scale, slots: chunk.slots.part(run) });
        });
    }
}

/// The rows that a lazy step changes, and the element of them that something begins at; `None` if all take part.
type GivenRows<'u, T> = Option<(&'u RowGradient<T>, usize)>;

impl<'u, T: Element> ElementUnit<'u, T> {
    pub(in crate::optim) fn run(&mut self) {
        // a method prepares its step before it cuts tensors into units
        let Some(kernel) = self.prepared.kernel.as_deref() else { return };
        let sweep = Sweep { kernel, stage: self.stage, isa: self.isa, apply: self.apply };
        match self.stage {
            Stage::CollectScales => self.each_block(|unit, block| unit.collect_block(sweep, block)),
            Stage::Update => {
                if !self.update_in_place(sweep) {
                    self.each_block(|unit, block| unit.update_block(sweep, block));
                }
            }
            Stage::Switch(..) => self.each_block(|unit, block| unit.update_block(sweep, block)),
            Stage::Measure(pass) => self.measure(kernel, pass),
        }
    }

    /// Takes the sums of a pass, those over rows and columns among them.
    fn measure(&mut self, kernel: &dyn ElementKernel<T::Compute>, pass: usize) {
        let mut sums = Sums::default();
        let (mut factor, mut axes) = (self.factor.take(), None);
        let kept = factor.as_ref().map_or(0, |(_, factor)| factor.scratch_len());
        let terms = factor.as_ref().map_or(0, |_| self.block_len());
        with_scratch::<f64, _>(kept + terms, |scratch| {
            let (kept, terms) = scratch.split_at_mut(kept);
            self.each_block(|unit, mut block| {
                unit.load(&mut block);
                if let Some((slot, factor)) = &mut factor {
                    let terms = terms.get_mut(..block.p.len()).unwrap_or_default();
                    unit.terms(kernel, *slot, &mut block, terms);
                    factor.add(unit.isa, terms, (&mut *kept, &mut axes));
                }
                for (sum, term) in sums.iter_mut().zip(unit.measure_block(kernel, pass, block)) {
                    *sum += term;
                }
            });
        });
        if let Some((_, factor)) = &mut factor {
            factor.close(axes);
        }
        self.sums = sums;
    }

    /// The rows that the step changes, from the element `start` of the chunk on.
    fn given(&self, start: usize) -> GivenRows<'u, T> {
        let changes = matches!(self.stage, Stage::Update | Stage::CollectScales);
        match self.grad.source {
            GradSource::Rows(rows) if changes && self.prepared.lazy => {
                Some((rows, self.grad.start + self.offset + start))
            }
            _ => None,
        }
    }

    /// Whether a block has nothing to do: no row in it is given, and no slot has to be coded again.
    pub(super) fn is_left_alone(&self, start: usize, len: usize) -> bool {
        let recoded = || self.slots.iter().any(SlotChunk::shares_scales);
        self.given(start).is_some_and(|(rows, offset)| !rows.touches(offset, len) && !recoded())
    }

    /// Slots up to the last one in use.
    fn slots_in_use(&self) -> usize {
        self.slots.iter().rposition(|slot| !slot.is_off()).map_or(0, |last| last + 1)
    }

    /// Updates the whole chunk without copies, if everything is stored as it is computed with.
    fn update_in_place(&mut self, sweep: Sweep<'_, T::Compute>) -> bool {
        let in_use = self.slots_in_use();
        let (slots, _) = self.slots.split_at_mut(in_use);
        let plain = matches!(self.rounding, ParamRounding::None)
            && slots.iter_mut().all(|slot| slot.in_place().is_some());
        let gradient = self.grad.in_place(self.offset, self.p.len());
        let (true, Some(p), Some(g)) = (plain, T::as_compute_mut(self.p), gradient) else {
            return false;
        };
        let mut slices = SlotSlices::default();
        slots.iter_mut().filter_map(SlotChunk::in_place).for_each(|slot| slices.push(slot));
        let scale = T::Compute::of(self.grad.scale);
        sweep.run(Chunk { p, g, scale, slots: slices });
        true
    }

    /// Elements that are worked on at a time.
    fn block_len(&self) -> usize {
        let length = self.slots.iter().map(SlotChunk::block).max().unwrap_or(0).max(BLOCK);
        // what is computed is sought in lists: better once for the whole chunk
        let computed = matches!(self.grad.source, GradSource::Computed(..));
        if computed { length.max(CHUNK) } else { length }
    }

    /// Calls `f` for every block of the chunk, with scratch for parameters, gradient and slots.
    fn each_block(&mut self, mut f: impl FnMut(&mut Self, Block<'_, T::Compute>)) {
        let (len, in_use, length) = (self.p.len(), self.slots_in_use(), self.block_len());
        with_scratch::<T::Compute, _>((2 + in_use) * length, |scratch| {
            for start in (0..len).step_by(length) {
                if self.is_left_alone(start, length.min(len - start)) {
                    continue;
                }
                let mut parts = scratch.chunks_exact_mut(length);
                let mut part = || {
                    let part = parts.next().unwrap_or_default();
                    part.get_mut(..length.min(len - start)).unwrap_or_default()
                };
                let (p, g) = (part(), part());
                let mut slots = SlotSlices::default();
                (0..in_use).for_each(|_| slots.push(part()));
                f(self, Block { start, p, g, slots });
            }
        });
    }

    /// Decodes everything into the block.
    fn load(&self, block: &mut Block<'_, T::Compute>) {
        let range = block.start..block.start + block.p.len();
        load_params(self.p.get(range).unwrap_or_default(), &self.rounding, block.start, block.p);
        self.grad.load(self.offset + block.start, block.g);
        for (slot, values) in self.slots.iter().zip(block.slots.iter_mut()) {
            self.load_slot(slot, block.start, values);
        }
    }

    /// Reads the elements `start ..` of a slot, or of an input of the step.
    fn load_slot(&self, slot: &SlotChunk<'_, T::Compute>, start: usize, out: &mut [T::Compute]) {
        let offset = self.offset + start;
        match (slot, self.curvature) {
            (SlotChunk::Input(Input::Noise), _) => {
                let stream = NoiseStream { seed: self.prepared.seed, t: self.t, key: self.key };
                stream.fill(offset, out);
            }
            (SlotChunk::Input(Input::Curvature), Some(curvature)) => curvature.load(offset, out),
            (SlotChunk::Input(Input::CurvatureMagnitude), Some(curvature)) => {
                load_magnitude(&curvature, self.shape, offset, out);
            }
            _ => slot.load(self.isa, start, out),
        }
    }

    /// Updates one block: in place what is stored as it is computed with, the rest through scratch.
    fn update_block(&mut self, sweep: Sweep<'_, T::Compute>, block: Block<'_, T::Compute>) {
        let Block { start, p, g, mut slots } = block;
        let (range, rows) = (start..start + p.len(), self.given(start));
        let (gradient, scale) = match self.grad.in_place(self.offset + start, p.len()) {
            Some(gradient) => (gradient, T::Compute::of(self.grad.scale)),
            None => {
                self.grad.load(self.offset + start, g);
                (&*g, T::Compute::of(1.0))
            }
        };
        for (slot, scratch) in self.slots.iter().zip(slots.iter_mut()) {
            if !slot.is_in_place() {
                self.load_slot(slot, start, scratch);
            }
        }
        let mut slices = SlotSlices::default();
        for (slot, scratch) in self.slots.iter_mut().zip(slots.iter_mut()) {
            let own = slot.in_place().and_then(|values| values.get_mut(range.clone()));
            slices.push(own.unwrap_or(scratch));
        }
        let own = T::as_compute_mut(self.p.get_mut(range.clone()).unwrap_or_default());
        match own.filter(|_| matches!(self.rounding, ParamRounding::None)) {
            Some(own) => {
                sweep.run_over(rows, Chunk { p: own, g: gradient, scale, slots: slices });
            }
            None => {
                load_params(self.p.get(range).unwrap_or_default(), &self.rounding, start, p);
                sweep.run_over(rows, Chunk { p: &mut *p, g: gradient, scale, slots: slices });
                self.store_rows(rows, start, p);
            }
        }
        if self.stage != Stage::Update {
            // moving to the other point leaves the state alone: coding it again could change it
            return;
        }
        for (slot, scratch) in self.slots.iter_mut().zip(slots.iter_mut()) {
            if slot.in_place().is_none() {
                slot.store(self.isa, start, scratch);
            }
        }
    }

    /// Rounds the new parameters `start .. start + new.len()` of the chunk, those of the rows that are given.
    fn store_rows(&mut self, rows: GivenRows<'_, T>, start: usize, new: &[T::Compute]) {
        match rows {
            // random numbers come four at a time, and what did not change is not rounded
            Some((rows, offset)) if !matches!(self.rounding, ParamRounding::Stochastic { .. }) => {
                rows.each_run(offset, new.len(), |run| {
                    self.store(start + run.start, new.get(run).unwrap_or_default());
                });
            }
            _ => self.store(start, new),
        }
    }

    /// Rounds the new parameters `start .. start + new.len()` of the chunk.
    fn store(&mut self, start: usize, new: &[T::Compute]) {
        let range = start..start + new.len();
        let old = self.p.get_mut(range.clone()).unwrap_or_default();
        match &mut self.rounding {
            ParamRounding::None => old.iter_mut().zip(new).for_each(|(p, &x)| *p = T::store(x)),
            ParamRounding::Stochastic { seed, key } => {
                let first = (self.offset + start) as u64;
                let stream =
                    RoundingStream { seed: *seed, key: *key, t: self.t, stage: self.stage };
                for (quad, (p, x)) in old.chunks_mut(4).zip(new.chunks(4)).enumerate() {
                    let random = stream.quad(first / 4 + quad as u64);
                    for ((p, &x), bits) in p.iter_mut().zip(x).zip(random) {
                        *p = T::store_stochastic(x, bits);
                    }
                }
            }
            ParamRounding::Kahan(kahan) => {
                let kahan = kahan.get_mut(range).unwrap_or_default();
                for ((p, &x), compensation) in old.iter_mut().zip(new).zip(kahan) {
                    let step = T::store(x - p.load());
                    kahan_add(p, compensation, step);
                }
            }
            ParamRounding::Master(master) => {
                let master = master.get_mut(range).unwrap_or_default();
                for ((p, &x), exact) in old.iter_mut().zip(new).zip(master) {
                    *exact = x;
                    *p = T::store(x);
                }
            }
        }
    }

    /// Shows the new state to the slots, and forgets it.
    fn collect_block(&mut self, sweep: Sweep<'_, T::Compute>, mut block: Block<'_, T::Compute>) {
        self.load(&mut block);
        let Block { start, p, g, mut slots } = block;
        let one = T::Compute::of(1.0);
        let chunk = Chunk { p, g, scale: one, slots: slots.reborrow() };
        sweep.run_over(self.given(start), chunk);
        for (slot, values) in self.slots.iter().zip(slots.iter_mut()) {
            slot.preview(self.isa, start, values);
        }
    }

    /// Measures a block that was loaded.
    fn measure_block(
        &self,
        kernel: &dyn ElementKernel<T::Compute>,
        pass: usize,
        mut block: Block<'_, T::Compute>,
    ) -> Sums {
        let stride = self.prepared.measure_stride;
        let kept = if stride == 1 { block.p.len() } else { self.thin(stride, &mut block) };
        let in_use = block.slots.len();
        let (values, slots) = block.first(kept);
        let slots = slots.get(..in_use).unwrap_or_default();
        kernel.measure(self.isa, pass, self.apply.coupled, values, slots)
    }

    /// Writes the terms of a block that was loaded to the means of slot number `slot`.
    fn terms(
        &self,
        kernel: &dyn ElementKernel<T::Compute>,
        slot: usize,
        block: &mut Block<'_, T::Compute>,
        out: &mut [f64],
    ) {
        let in_use = block.slots.len();
        let (values, slots) = block.first(out.len());
        let slots = slots.get(..in_use).unwrap_or_default();
        kernel.terms(self.isa, (slot, self.apply.coupled), values, slots, out);
    }

    /// Moves every `stride`-th element of the flattened tensor to the front; returns how many.
    fn thin(&self, stride: usize, block: &mut Block<'_, T::Compute>) -> usize {
        let offset = self.offset + block.start;
        let first = offset.next_multiple_of(stride) - offset;
        let places = (first..block.p.len()).step_by(stride);
        let kept = places.len();
        let thin = |values: &mut [T::Compute]| {
            for (to, from) in places.clone().enumerate() {
                values.swap(to, from);
            }
        };
        thin(block.p);
        thin(block.g);
        block.slots.iter_mut().for_each(thin);
        kept
    }
}

/// Widens parameters that begin at `start` of their chunk, from the master copy where there is one.
fn load_params<T: Element>(
    params: &[T],
    rounding: &ParamRounding<'_, T>,
    start: usize,
    out: &mut [T::Compute],
) {
    match rounding {
        ParamRounding::Master(master) => {
            let master = master.get(start..).unwrap_or_default();
            for (x, (&p, &exact)) in out.iter_mut().zip(params.iter().zip(master)) {
                // a parameter that the program has written to since counts as it stands
                *x = if T::store(exact) == p { exact } else { p.load() };
            }
        }
        _ => out.iter_mut().zip(params).for_each(|(x, p)| *x = p.load()),
    }
}

/// Scratch for one block: equally long slices.
struct Block<'b, R> {
    /// Where the block begins in the chunk.
    start: usize,
    p: &'b mut [R],
    g: &'b mut [R],
    slots: SlotSlices<'b, R>,
}

/// Parameters and gradients, and slots, to look at.
type Values<'v, R> = ((&'v [R], &'v [R]), [&'v [R]; MAX_SLOTS]);

impl<R> Block<'_, R> {
    /// The first `len` elements.
    fn first(&mut self, len: usize) -> Values<'_, R> {
        let empty: &[R] = &[];
        let mut slots = [empty; MAX_SLOTS];
        for (slot, values) in slots.iter_mut().zip(self.slots.iter_mut()) {
            *slot = values.get(..len).unwrap_or_default();
        }
        let (p, g) = (self.p.get(..len), self.g.get(..len));
        ((p.unwrap_or_default(), g.unwrap_or_default()), slots)
    }
}

/// `p ← p + step` with the error of the addition kept for the next one; every operation rounds to
/// `T`.
///
/// W. Kahan, "Further remarks on reducing truncation errors", 1965; the order of operations is that
/// of the optimi library.
#[inline]
pub fn kahan_add<T: Element>(p: &mut T, compensation: &mut T, step: T) {
    let add = |a: T, b: T| T::store(a.load() + b.load());
    let total = add(*compensation, step);
    let old = *p;
    *p = add(old, total);
    let lost = T::store(old.load() - p.load());
    *compensation = add(total, lost);
}

#[cfg(test)]
mod tests {
    use super::ElementUnit;

    /// `StateBytes` leaves the work list out: it has to be small compared with 16 384 elements.
    #[test]
    fn units_are_small() {
        assert!(size_of::<ElementUnit<'_, f32>>() <= 1024);
        assert!(size_of::<ElementUnit<'_, f64>>() <= 1024);
    }
}
