//! Makes a [`Rule`] a [`TensorMethod`]: chunks, threads, instruction sets, codecs.

use super::prepared::Prepared;
use super::rule::{Apply, Elementwise, Rule, Slot, WeightDecay};
use super::unit::{ElementUnit, Shadow};
use crate::error::Result;
use crate::kernel::CHUNK;
use crate::kernel::sweep::{MAX_SLOTS, Slots, Sums};
use crate::numeric::{Element, Real};
use crate::optim::method::{Configured, Job, Measured, Stage, TensorMethod, TensorState};
use crate::state::chunk::SlotChunk;
use crate::state::slot::{SlotBuffer, SlotShape};
use crate::state::{Lookup, Record, Rounding, StateBytes, StateTensor, Storage};
use std::ops::Range;

/// The slots of one tensor, and what rounding its parameter remembers.
#[derive(Debug)]
pub struct ElementState<T: Element> {
    pub(in crate::optim) layout: &'static [Slot],
    /// `None`: switched off by the options.
    pub(in crate::optim) slots: Vec<Option<SlotBuffer<T::Compute>>>,
    shadow: ShadowBuffer<T>,
}

#[derive(Debug)]
enum ShadowBuffer<T: Element> {
    None,
    Kahan(Vec<T>),
    /// The exact parameter, and what it was last rounded to.
    Master(Vec<T::Compute>),
}

impl<T: Element> ShadowBuffer<T> {
    fn new(param: &[T], rounding: Rounding) -> Self {
        let same_type = T::as_compute(&[]).is_some();
        match rounding {
            Rounding::Kahan => Self::Kahan(vec![T::default(); param.len()]),
            Rounding::Master if !same_type => {
                Self::Master(param.iter().map(|p| p.load()).collect())
            }
            _ => Self::None,
        }
    }

    fn load(self, shape: &[usize], lookup: &Lookup<'_>) -> Result<Self> {
        Ok(match self {
            Self::None => Self::None,
            Self::Kahan(_) => Self::Kahan(lookup.values("kahan", shape)?),
            Self::Master(_) => Self::Master(lookup.values("master", shape)?),
        })
    }
}

impl<T: Element> TensorState for ElementState<T> {
    fn count(&self, bytes: &mut StateBytes) {
        for (slot, buffer) in self.layout.iter().zip(&self.slots) {
            bytes.add(slot.name, buffer.as_ref().map_or(0, SlotBuffer::bytes));
        }
        match &self.shadow {
            ShadowBuffer::None => {}
            ShadowBuffer::Kahan(kahan) => bytes.add("kahan", size_of_val(kahan.as_slice())),
            ShadowBuffer::Master(master) => bytes.add("master", size_of_val(master.as_slice())),
        }
    }

    fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        for (slot, buffer) in self.layout.iter().zip(&self.slots) {
            if let Some(buffer) = buffer {
                buffer.save(slot.name, shape, record);
            }
        }
        match &self.shadow {
            ShadowBuffer::None => {}
            ShadowBuffer::Kahan(kahan) => record.tensor("kahan", StateTensor::new(shape, kahan)),
            ShadowBuffer::Master(master) => {
                record.tensor("master", StateTensor::new(shape, master));
            }
        }
    }
}

impl<U: Rule> Elementwise<U> {
    fn slot_shape<'s>(&self, index: usize, slot: Slot, shape: &'s [usize]) -> SlotShape<'s> {
        let (stride, init) = (self.0.slot_stride(index), self.0.slot_init(index));
        SlotShape { name: slot.name, kind: slot.kind, shape, stride, init }
    }
}

impl<U: Rule> Configured for Elementwise<U> {
    type Config = U;

    fn config(&self) -> &U {
        &self.0
    }

    fn new(config: U) -> Self {
        Self(config)
    }
}

impl<U: Rule, T: Element> TensorMethod<T> for Elementwise<U> {
    type State = ElementState<T>;
    type Scalars = U::Scalars;
    type Joint = ();
    type Prepared = Prepared<U::Coefficients<T::Compute>, T::Compute>;
    type Unit<'u>
        = ElementUnit<'u, U, T>
    where
        T: 'u;
    const TWO_POINTS: bool = U::TWO_POINTS;

    fn check_group(&self, first: &Self) -> Result<()> {
        self.0.check_group(&first.0)
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        (0..U::SLOTS.len()).all(|slot| self.0.slot_stride(slot) == changed.0.slot_stride(slot))
    }

    fn slots(&self) -> Vec<&'static str> {
        U::SLOTS.iter().map(|slot| slot.name).collect()
    }

    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> ElementState<T> {
        let mut state = ElementState {
            layout: U::SLOTS,
            slots: U::SLOTS.iter().map(|_| None).collect(),
            shadow: ShadowBuffer::new(param, storage.rounding),
        };
        self.extend(&mut state, shape, param, storage);
        state
    }

    fn extend(&self, state: &mut ElementState<T>, shape: &[usize], param: &[T], storage: &Storage) {
        for (index, (slot, buffer)) in U::SLOTS.iter().zip(&mut state.slots).enumerate() {
            if buffer.is_none() && self.0.uses_slot(index) {
                let slot = self.slot_shape(index, *slot, shape);
                *buffer = Some(SlotBuffer::new(&slot, param, storage));
            }
        }
    }

    fn load(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<ElementState<T>> {
        let mut slots = Vec::with_capacity(U::SLOTS.len());
        for (index, slot) in U::SLOTS.iter().enumerate() {
            let slot = self.slot_shape(index, *slot, shape);
            let buffer = SlotBuffer::load(&slot, storage, lookup)?;
            if buffer.is_none() && self.0.uses_slot(index) {
                return Err(lookup.problem(slot.name, "is missing"));
            }
            slots.push(buffer);
        }
        let shadow = ShadowBuffer::new(&[], storage.rounding).load(shape, lookup)?;
        Ok(ElementState { layout: U::SLOTS, slots, shadow })
    }

    fn begin(&self, scalars: &mut U::Scalars) {
        self.0.begin(scalars);
    }

    fn passes(&self) -> Range<usize> {
        self.0.passes()
    }

    fn combine(&self, pass: usize, total: &Sums, scalars: &mut U::Scalars) {
        self.0.combine(pass, total, scalars);
    }

    fn wants_preview(state: &ElementState<T>) -> bool {
        state.slots.iter().flatten().any(SlotBuffer::wants_preview)
    }

    fn prepare(&self, t: u64, scalars: &U::Scalars) -> Self::Prepared {
        let lr = self.0.step_size(t, scalars);
        let (lr, coupled, shrink) = match self.0.decay() {
            WeightDecay::None => (lr, 0.0, 1.0),
            WeightDecay::Coupled(decay) => (lr, decay, 1.0),
            WeightDecay::Decoupled(decay) => (lr, 0.0, 1.0 - lr * decay),
            // what comes after the update shrinks the update, too
            WeightDecay::DecoupledAfter(decay) => {
                let shrink = 1.0 - lr * decay;
                (lr * shrink, 0.0, shrink)
            }
            WeightDecay::Independent(decay) => (lr, 0.0, 1.0 - decay),
        };
        let of = T::Compute::of;
        Prepared {
            coefficients: self.0.coefficients(t, scalars),
            apply: Apply { lr: of(lr), coupled: of(coupled), shrink: of(shrink) },
        }
    }

    fn refine(&self, pass: usize, measured: &Measured, prepared: &mut Self::Prepared) {
        self.0.refine(pass, measured, &mut prepared.coefficients);
    }

    fn split<'u>(
        &'u self,
        job: Job<'u, T, ElementState<T>, Self::Prepared>,
        push: impl FnMut(ElementUnit<'u, U, T>),
    ) {
        split(&self.0, job, push);
    }

    fn run(unit: &mut ElementUnit<'_, U, T>) {
        unit.run();
    }

    fn sums(unit: &ElementUnit<'_, U, T>) -> Sums {
        unit.sums
    }
}

/// One tensor in one round of a rule.
type RuleJob<'u, U, T> = Job<'u, T, ElementState<T>, <Elementwise<U> as TensorMethod<T>>::Prepared>;

/// Cuts a tensor into chunks of [`CHUNK`] elements.
pub(in crate::optim) fn split<'u, U: Rule, T: Element>(
    rule: &U,
    job: RuleJob<'u, U, T>,
    mut push: impl FnMut(ElementUnit<'u, U, T>),
) {
    const {
        // every slot has a name, and the kernel has room for all of them
        assert!(U::SLOTS.len() == <U::State<f32> as Slots<f32>>::N);
        assert!(U::SLOTS.len() <= MAX_SLOTS);
    }
    let mut grad = job.grad;
    if rule.maximize() {
        grad.scale = -grad.scale;
    }
    let mut cursors = job.state.slots.iter_mut().enumerate().map(|(index, buffer)| {
        // a slot that was used before and is switched off now is kept, untouched
        let buffer = buffer.as_mut().filter(|_| rule.uses_slot(index));
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
    for (chunk, p) in job.data.chunks_mut(CHUNK).enumerate() {
        let slots = std::array::from_fn(|k| match cursors.get_mut(k) {
            Some(Some(cursor)) => cursor.take(p.len()),
            _ => SlotChunk::Off,
        });
        push(ElementUnit {
            measure_stride: rule.measure_stride().max(1),
            stage: job.stage,
            isa: job.isa,
            prepared: job.prepared,
            t: job.t,
            offset: chunk * CHUNK,
            shadow: shadow.take(p.len()),
            p,
            grad,
            slots,
            sums: Sums::default(),
        });
    }
}
