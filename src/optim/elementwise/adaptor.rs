//! Makes a [`Rule`] a method of the engine: chunks, threads, instruction sets, codecs.

use super::erased::AnyRule;
use super::prepared::Prepared;
use super::rule::{Apply, Elementwise, Factoring, Rule, Slot};
use super::state::{ElementState, RoundingBuffer};
use super::unit::{ElementUnit, ParamRounding};
use crate::error::Result;
use crate::hyper::{Hyper, OptionValue, Options};
use crate::kernel::CHUNK;
use crate::kernel::sweep::{MAX_SLOTS, Sums};
use crate::numeric::Element;
use crate::numeric::range::largest_for;
use crate::optim::method::{
    Method, MethodFor, Needs, Stage, TensorMethod, TensorPass, TensorState, TensorStep, TensorSums,
};
use crate::state::chunk::SlotChunk;
use crate::state::{Input, Lookup, Record, Rounding, SlotKind, Storage};
use std::any::Any;
use std::ops::Range;

/// Bits left to a rule between the largest sums of its gradients and an overflow: for factors such as
/// that of a rule around it.
const SPARE_BITS: i32 = 4;

impl<U: Rule> Method for Elementwise<U> {
    type Config = U;

    fn config(&self) -> &U {
        &self.0
    }

    fn new(config: U) -> Self {
        Self(config)
    }
}

impl<U: Rule, T: Element> MethodFor<T> for Elementwise<U> {
    type GroupState = U::GroupState;
    type Engine = AnyRule<T::Compute>;

    fn into_engine(self) -> AnyRule<T::Compute> {
        AnyRule::new(self.0)
    }
}

impl<T: Element> TensorMethod<T> for AnyRule<T::Compute> {
    type State = ElementState<T>;
    type Shared = ();
    type Prepared = Prepared<T::Compute>;
    type Unit<'u>
        = ElementUnit<'u, T>
    where
        T: 'u;

    fn name(&self) -> &'static str {
        self.get().name()
    }

    fn has_eval_mode(&self) -> bool {
        self.get().has_eval_mode()
    }

    fn config(&self) -> &dyn Any {
        self.get().config()
    }

    fn group_state(&self) -> &dyn Any {
        self.get().group_state()
    }

    fn set_group_state(&mut self, scalars: &dyn Any) {
        self.get_mut().set_group_state(scalars);
    }

    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.get().read_options(visitor);
    }

    fn changed(&self, change: &mut dyn FnMut(&mut dyn Options) -> Result<()>) -> Result<Self> {
        let mut changed = self.clone();
        change(changed.get_mut().options())?;
        Ok(changed)
    }

    fn visit_group_state(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {
        self.get_mut().visit_group_state(visitor);
    }

    fn check_composition(&self) -> Result<()> {
        self.get().check_composition()
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

    fn largest_gradient(&self, bf16: bool) -> T::Compute {
        largest_for(self.get().gradient_power(), SPARE_BITS, bf16)
    }

    fn per_tensor(&self) -> bool {
        self.get().per_tensor()
    }

    fn save_state(&self, state: &ElementState<T>, shape: &[usize], record: &mut Record<'_>) {
        state.save(shape, record);
        state.save_pending(self.get(), record);
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
        measured: &TensorSums,
        step: &TensorStep<'_>,
        state: &mut ElementState<T>,
    ) {
        state.absorb_factors(self.get(), pass, step.t);
        self.get().absorb(pass, measured, step, &mut state.numbers);
    }

    fn contribute(&self, pass: usize, state: &ElementState<T>, sums: &mut Sums) {
        if self.get().passes().contains(&pass) {
            self.get().contribute(pass, &state.numbers, sums);
        }
    }

    fn passes(&self) -> Range<usize> {
        self.get().passes()
    }

    fn combine(&mut self, pass: usize, total: &Sums) {
        self.get_mut().combine(pass, total);
    }

    fn visit_slot(
        state: &mut ElementState<T>,
        slot: &str,
        shape: &[usize],
        visitor: &mut dyn FnMut(&mut [T::Compute]),
    ) {
        state.visit_slot(slot, shape, visitor);
    }

    fn collects_scales(state: &ElementState<T>) -> bool {
        state.collects_scales()
    }

    fn prepare(
        &self,
        step: &TensorStep<'_>,
        state: &ElementState<T>,
        prepared: &mut Self::Prepared,
    ) {
        prepared.update(self.get(), step, &state.numbers);
    }

    fn refine(&self, pass: usize, measured: &TensorSums, prepared: &mut Self::Prepared) {
        prepared.refine(self.get(), pass, measured);
    }

    fn split<'u>(
        &'u self,
        job: TensorPass<'u, T, ElementState<T>, Self::Prepared>,
        push: &mut dyn FnMut(ElementUnit<'u, T>),
    ) {
        let apply = job.prepared.apply;
        split(job, apply, &mut |unit: ElementUnit<'u, T>| {
            if !unit.is_left_alone(0, unit.p.len()) {
                push(unit);
            }
        });
    }

    fn run(unit: &mut ElementUnit<'_, T>) {
        unit.run();
    }

    fn sums(unit: &ElementUnit<'_, T>) -> Sums {
        unit.sums
    }
}

/// One tensor in one pass of a rule.
pub(in crate::optim) type RulePass<'u, T> =
    TensorPass<'u, T, ElementState<T>, Prepared<<T as Element>::Compute>>;

/// The slot whose means over rows and columns the pass of `stage` takes: its number, how, and the
/// elements per unit.
fn averaged<T: Element>(
    state: &mut ElementState<T>,
    prepared: &Prepared<T::Compute>,
    stage: Stage,
) -> Option<(usize, Factoring, usize)> {
    let Stage::Measure(pass) = stage else { return None };
    let slots = state.slots.iter_mut().zip(prepared.used).zip(prepared.factoring).enumerate();
    slots.into_iter().find_map(|(slot, ((buffer, used), factoring))| {
        let factoring = factoring.filter(|factoring| used && factoring.pass == pass)?;
        Some((slot, factoring, buffer.as_mut()?.factors()?.unit_len()))
    })
}

/// Cuts a tensor into chunks of [`CHUNK`] elements; of more in a pass over rows and columns.
pub(in crate::optim) fn split<'u, T: Element>(
    job: RulePass<'u, T>,
    apply: Apply<T::Compute>,
    push: &mut dyn FnMut(ElementUnit<'u, T>),
) {
    let TensorPass { info, prepared, state } = job;
    let mut grad = info.grad;
    if prepared.maximize {
        grad.scale = -grad.scale;
    }
    let averaged = averaged(state, prepared, info.stage);
    let mut sums = None;
    let used = state.slots.iter_mut().zip(prepared.used).enumerate();
    let mut cursors = used.map(|(slot, (buffer, used))| {
        // a slot that was used before and is switched off now is kept, untouched
        let buffer = buffer.as_mut().filter(|_| used)?;
        match averaged {
            Some((own, factoring, _)) if own == slot => {
                sums = buffer.factors().map(|factors| (slot, factors.sums(factoring.averaging())));
                None
            }
            _ => Some(buffer.cursor(info.stage == Stage::Update)),
        }
    });
    let mut cursors: [Option<_>; MAX_SLOTS] = std::array::from_fn(|_| cursors.next().flatten());
    let mut rounding = match &mut state.rounding {
        RoundingBuffer::None | RoundingBuffer::Pending => match info.storage.rounding {
            Rounding::Stochastic { seed } => ParamRounding::Stochastic { seed, key: info.key },
            _ => ParamRounding::None,
        },
        RoundingBuffer::Kahan(kahan) => ParamRounding::Kahan(kahan),
        RoundingBuffer::Master(master) => ParamRounding::Master(master),
    };
    let mut inputs = prepared.inputs;
    inputs.iter_mut().zip(prepared.used).for_each(|(input, used)| *input = input.filter(|_| used));
    let length = averaged.map_or(CHUNK, |(_, _, length)| length);
    for (chunk, p) in info.data.chunks_mut(length).enumerate() {
        let slots = std::array::from_fn(|k| match cursors.get_mut(k) {
            Some(Some(cursor)) => cursor.take(p.len()),
            _ => inputs.get(k).copied().flatten().map_or(SlotChunk::Off, SlotChunk::Input),
        });
        push(ElementUnit {
            stage: info.stage,
            isa: info.isa,
            prepared,
            apply,
            t: info.t,
            offset: chunk * length,
            factor: sums.as_mut().map(|(slot, sums)| (*slot, sums.take(p.len()))),
            rounding: rounding.take(p.len()),
            p,
            grad,
            curvature: info.curvature,
            shape: info.shape,
            key: info.key,
            slots,
            sums: Sums::default(),
        });
    }
}
