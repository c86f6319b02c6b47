//! Makes a [`Rule`] a method of the engine: chunks, threads, instruction sets, codecs.

use super::erased::AnyRule;
use super::prepared::Prepared;
use super::rule::{Apply, Elementwise, Rule, Slot};
use super::state::{ElementState, ShadowBuffer};
use super::unit::{ElementUnit, Shadow};
use crate::error::Result;
use crate::hyper::{Hyper, OptionValue, Options};
use crate::kernel::CHUNK;
use crate::kernel::sweep::{MAX_SLOTS, Sums};
use crate::numeric::Element;
use crate::optim::method::{
    Configured, Job, Measured, MethodFor, Needs, Stage, TensorMethod, TensorStep,
};
use crate::state::chunk::SlotChunk;
use crate::state::{Input, Lookup, Rounding, SlotKind, Storage};
use std::any::Any;
use std::ops::Range;

impl<U: Rule> Configured for Elementwise<U> {
    type Config = U;

    fn config(&self) -> &U {
        &self.0
    }

    fn new(config: U) -> Self {
        Self(config)
    }
}

impl<U: Rule, T: Element> MethodFor<T> for Elementwise<U> {
    type Scalars = U::Scalars;
    type Engine = AnyRule<T::Compute>;

    fn into_engine(self) -> AnyRule<T::Compute> {
        AnyRule::new(self.0)
    }
}

impl<T: Element> TensorMethod<T> for AnyRule<T::Compute> {
    type State = ElementState<T>;
    type Joint = ();
    type Prepared = Prepared<T::Compute>;
    type Unit<'u>
        = ElementUnit<'u, T>
    where
        T: 'u;

    fn name(&self) -> &'static str {
        self.get().name()
    }

    fn two_points(&self) -> bool {
        self.get().two_points()
    }

    fn config(&self) -> &dyn Any {
        self.get().config()
    }

    fn scalars(&self) -> &dyn Any {
        self.get().scalars()
    }

    fn set_scalars(&mut self, scalars: &dyn Any) {
        self.get_mut().set_scalars(scalars);
    }

    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.get().read_options(visitor);
    }

    fn changed(&self, change: &mut dyn FnMut(&mut dyn Options) -> Result<()>) -> Result<Self> {
        let mut changed = self.clone();
        change(changed.get_mut().options())?;
        Ok(changed)
    }

    fn visit_scalars(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {
        self.get_mut().visit_scalars(visitor);
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        self.get().check_group(first.get())
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let slots = 0..self.get().layout().len();
        slots
            .into_iter()
            .all(|slot| self.get().slot_stride(slot) == changed.get().slot_stride(slot))
    }

    fn slots(&self) -> Vec<&'static str> {
        let slots = self.get().layout().iter().filter(|slot| !slot.kind.is_input());
        slots.map(|slot| slot.name).collect()
    }

    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> ElementState<T> {
        ElementState::new(self.get(), shape, param, storage)
    }

    fn extend(&self, state: &mut ElementState<T>, shape: &[usize], param: &[T], storage: &Storage) {
        state.extend(self.get(), shape, param, storage);
    }

    fn load(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<ElementState<T>> {
        ElementState::load(self.get(), shape, storage, lookup)
    }

    fn needs(&self, t: u64) -> Needs {
        self.get().needs(t)
    }

    fn has_needs(&self) -> bool {
        self.get().needs(1).loss || TensorMethod::<T>::uses_curvature(self)
    }

    fn uses_curvature(&self) -> bool {
        let reads = |slot: &Slot| match slot.kind {
            SlotKind::Input(input) => input != Input::Noise,
            _ => false,
        };
        self.get().layout().iter().any(reads)
    }

    fn per_tensor(&self) -> bool {
        self.get().per_tensor()
    }

    fn begin(&mut self, loss: Option<f64>) {
        self.get_mut().begin(loss);
    }

    fn begin_tensor(&self, step: &TensorStep<'_>, state: &mut ElementState<T>) {
        self.get().begin_tensor(step, &mut state.numbers);
    }

    fn absorb(
        &self,
        pass: usize,
        measured: &Measured,
        step: &TensorStep<'_>,
        state: &mut ElementState<T>,
    ) {
        if self.get().passes().contains(&pass) {
            self.get().absorb(pass, measured, step, &mut state.numbers);
        }
    }

    fn passes(&self) -> Range<usize> {
        self.get().passes()
    }

    fn combine(&mut self, pass: usize, total: &Sums) {
        self.get_mut().combine(pass, total);
    }

    fn wants_preview(state: &ElementState<T>) -> bool {
        state.wants_preview()
    }

    fn prepare(
        &self,
        step: &TensorStep<'_>,
        state: &ElementState<T>,
        prepared: &mut Self::Prepared,
    ) {
        prepared.update(self.get(), step, &state.numbers);
    }

    fn refine(&self, pass: usize, measured: &Measured, prepared: &mut Self::Prepared) {
        prepared.refine(self.get(), pass, measured);
    }

    fn split<'u>(
        &'u self,
        job: Job<'u, T, ElementState<T>, Self::Prepared>,
        push: &mut dyn FnMut(ElementUnit<'u, T>),
    ) {
        let apply = job.prepared.apply;
        split(job, apply, push);
    }

    fn run(unit: &mut ElementUnit<'_, T>) {
        unit.run();
    }

    fn sums(unit: &ElementUnit<'_, T>) -> Sums {
        unit.sums
    }
}

/// One tensor in one round of a rule.
pub(in crate::optim) type RuleJob<'u, T> =
    Job<'u, T, ElementState<T>, Prepared<<T as Element>::Compute>>;

/// Cuts a tensor into chunks of [`CHUNK`] elements.
pub(in crate::optim) fn split<'u, T: Element>(
    job: RuleJob<'u, T>,
    apply: Apply<T::Compute>,
    push: &mut dyn FnMut(ElementUnit<'u, T>),
) {
    let prepared = job.prepared;
    let mut grad = job.grad;
    if prepared.maximize {
        grad.scale = -grad.scale;
    }
    let mut cursors = job.state.slots.iter_mut().zip(prepared.used).map(|(buffer, used)| {
        // a slot that was used before and is switched off now is kept, untouched
        let buffer = buffer.as_mut().filter(|_| used);
        buffer.map(|buffer| buffer.cursor(job.stage == Stage::Update))
    });
    let mut cursors: [Option<_>; MAX_SLOTS] = std::array::from_fn(|_| cursors.next().flatten());
    let mut shadow = match &mut job.state.shadow {
        ShadowBuffer::None => match job.storage.rounding {
            Rounding::Stochastic { seed } => Shadow::Stochastic { seed, key: job.key },
            _ => Shadow::None,
        },
        ShadowBuffer::Kahan(kahan) => Shadow::Kahan(kahan),
        ShadowBuffer::Master(master) => Shadow::Master(master),
    };
    let mut inputs = prepared.inputs;
    inputs.iter_mut().zip(prepared.used).for_each(|(input, used)| *input = input.filter(|_| used));
    for (chunk, p) in job.data.chunks_mut(CHUNK).enumerate() {
        let slots = std::array::from_fn(|k| match cursors.get_mut(k) {
            Some(Some(cursor)) => cursor.take(p.len()),
            _ => inputs.get(k).copied().flatten().map_or(SlotChunk::Off, SlotChunk::Input),
        });
        push(ElementUnit {
            stage: job.stage,
            isa: job.isa,
            prepared,
            apply,
            t: job.t,
            offset: chunk * CHUNK,
            shadow: shadow.take(p.len()),
            p,
            grad,
            curvature: job.curvature,
            shape: job.shape,
            key: job.key,
            slots,
            sums: Sums::default(),
        });
    }
}
