//! What is remembered of one tensor under an element-wise rule.

use super::erased::ErasedRule;
use super::rule::Slot;
use crate::error::Result;
use crate::numeric::{Element, Real};
use crate::optim::method::TensorState;
use crate::state::slot::{SlotBuffer, SlotShape};
use crate::state::{Lookup, Record, Rounding, Scalar, StateBytes, StateTensor, Storage};

/// The slots of one tensor, and what rounding its parameter remembers.
#[derive(Clone, Debug)]
pub struct ElementState<T: Element> {
    pub(in crate::optim) layout: &'static [Slot],
    /// `None`: switched off by the options.
    pub(in crate::optim) slots: Vec<Option<SlotBuffer<T::Compute>>>,
    pub(super) rounding: RoundingBuffer<T>,
    /// Numbers of the tensor, and their names.
    pub(in crate::optim) numbers: Vec<f64>,
    names: &'static [(&'static str, f64)],
}

#[derive(Clone, Debug)]
pub(super) enum RoundingBuffer<T: Element> {
    None,
    /// A state dict had nothing: the next step makes it from the parameter.
    Pending,
    Kahan(Vec<T>),
    /// The exact parameter, and what it was last rounded to.
    Master(Vec<T::Compute>),
}

impl<T: Element> RoundingBuffer<T> {
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

    /// What a state dict has of it. What it has and is not kept here is dropped: it may come from parameters of
    /// another type, or from another rounding. An error of rounding belongs to parameters of its own type.
    fn load(rounding: Rounding, shape: &[usize], lookup: &Lookup<'_>) -> Result<Self> {
        let kahan = lookup.values_of_type("kahan", shape)?;
        let master = lookup.tensor("master").map(|_| lookup.values("master", shape)).transpose()?;
        Ok(match Self::new(&[], rounding) {
            Self::Kahan(_) => kahan.map_or(Self::Pending, Self::Kahan),
            Self::Master(_) => master.map_or(Self::Pending, Self::Master),
            Self::None | Self::Pending => Self::None,
        })
    }
}

impl<T: Element> TensorState for ElementState<T> {
    fn count(&self, bytes: &mut StateBytes) {
        for (slot, buffer) in self.layout.iter().zip(&self.slots) {
            if slot.kind.is_input() {
                continue;
            }
            match buffer {
                Some(buffer) => buffer.count(slot.name, bytes),
                None => bytes.add(slot.name, 0),
            }
        }
        for ((name, _), number) in self.names.iter().zip(&self.numbers) {
            bytes.add(name, size_of_val(number));
        }
        match &self.rounding {
            RoundingBuffer::None | RoundingBuffer::Pending => {}
            RoundingBuffer::Kahan(kahan) => bytes.add("kahan", size_of_val(kahan.as_slice())),
            RoundingBuffer::Master(master) => bytes.add("master", size_of_val(master.as_slice())),
        }
    }

    fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        for (slot, buffer) in self.layout.iter().zip(&self.slots) {
            if let Some(buffer) = buffer {
                buffer.save(slot.name, shape, record);
            }
        }
        for ((name, _), number) in self.names.iter().zip(&self.numbers) {
            record.scalar(name, Scalar::Float(*number));
        }
        match &self.rounding {
            RoundingBuffer::None | RoundingBuffer::Pending => {}
            RoundingBuffer::Kahan(kahan) => record.tensor("kahan", StateTensor::new(shape, kahan)),
            RoundingBuffer::Master(master) => {
                record.tensor("master", StateTensor::new(shape, master));
            }
        }
    }
}

/// Key that says that the next step makes a slot.
fn pending(slot: &str) -> String {
    format!("{slot}.pending")
}

/// The slot number `index` of a tensor of this shape.
fn slot_shape<'s, R: Real>(
    rule: &dyn ErasedRule<R>,
    index: usize,
    slot: Slot,
    shape: &'s [usize],
) -> SlotShape<'s> {
    let (stride, init) = (rule.slot_stride(index), rule.slot_init(index));
    SlotShape { name: slot.name, kind: slot.kind, shape, stride, init, factors: slot.factors }
}

impl<T: Element> ElementState<T> {
    /// The state of a parameter before its first step.
    pub(in crate::optim) fn new(
        rule: &dyn ErasedRule<T::Compute>,
        shape: &[usize],
        param: &[T],
        storage: &Storage,
    ) -> Self {
        let mut state = Self {
            layout: rule.layout(),
            slots: rule.layout().iter().map(|_| None).collect(),
            rounding: RoundingBuffer::new(param, storage.rounding),
            numbers: rule.tensor_slots().iter().map(|(_, first)| *first).collect(),
            names: rule.tensor_slots(),
        };
        state.extend(rule, shape, param, storage);
        state
    }

    /// Adds the slots that an option switched on after the first step, and what a state dict lacked.
    pub(in crate::optim) fn extend(
        &mut self,
        rule: &dyn ErasedRule<T::Compute>,
        shape: &[usize],
        param: &[T],
        storage: &Storage,
    ) {
        for (index, (slot, buffer)) in self.layout.iter().zip(&mut self.slots).enumerate() {
            if buffer.is_none() && !slot.kind.is_input() && rule.uses_slot(index) {
                let slot = slot_shape(rule, index, *slot, shape);
                *buffer = Some(SlotBuffer::new(&slot, param, storage));
            }
        }
        if matches!(self.rounding, RoundingBuffer::Pending) {
            self.rounding = RoundingBuffer::new(param, storage.rounding);
        }
    }

    /// A state from a state dict.
    pub(in crate::optim) fn load(
        rule: &dyn ErasedRule<T::Compute>,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let layout = rule.layout();
        let mut slots = Vec::with_capacity(layout.len());
        for (index, slot) in layout.iter().enumerate() {
            if slot.kind.is_input() {
                slots.push(None);
                continue;
            }
            let slot = slot_shape(rule, index, *slot, shape);
            let buffer = SlotBuffer::load(&slot, storage, lookup)?;
            let is_pending = || lookup.scalar(&pending(slot.name)) == Some(&Scalar::Bool(true));
            if buffer.is_none() && rule.uses_slot(index) && !is_pending() {
                let matrix = slot.factors.filter(|_| shape.len() > 1);
                let name = matrix.map_or(slot.name, |factors| factors.rows);
                return Err(lookup.problem(name, "is missing"));
            }
            slots.push(buffer);
        }
        let rounding = RoundingBuffer::load(storage.rounding, shape, lookup)?;
        let names = rule.tensor_slots();
        let number = |(name, _): &(&'static str, f64)| {
            let number = lookup.scalar(name).and_then(Scalar::as_f64);
            number.ok_or_else(|| lookup.problem(name, "is missing or no number"))
        };
        let numbers = names.iter().map(number).collect::<Result<_>>()?;
        Ok(Self { layout, slots, rounding, numbers, names })
    }

    /// Takes the sums over rows and columns of pass number `pass` into the slots that hold their means.
    pub(super) fn absorb_factors(
        &mut self,
        rule: &dyn ErasedRule<T::Compute>,
        pass: usize,
        t: u64,
    ) {
        let own = rule.passes().contains(&pass);
        for (slot, buffer) in self.slots.iter_mut().enumerate() {
            let used = buffer.as_mut().filter(|_| own && rule.uses_slot(slot));
            let Some(factors) = used.and_then(SlotBuffer::factors) else { continue };
            let factoring = rule.factoring(slot, t);
            if factoring.pass == pass {
                factors.absorb(factoring.averaging());
            }
        }
    }

    /// Shows all numbers of the slot `name`, if there is such a slot, and keeps what `visitor` changes.
    pub(in crate::optim) fn visit_slot(
        &mut self,
        name: &str,
        shape: &[usize],
        visitor: &mut dyn FnMut(&mut [T::Compute]),
    ) {
        let slots = self.layout.iter().zip(&mut self.slots);
        for buffer in slots.filter(|(slot, _)| slot.name == name).filter_map(|(_, b)| b.as_mut()) {
            buffer.visit(shape.iter().product(), visitor);
        }
        let factors = self.slots.iter_mut().flatten().filter_map(SlotBuffer::factors);
        factors.filter_map(|factors| factors.part(name)).for_each(&mut *visitor);
        match &mut self.rounding {
            RoundingBuffer::Master(master) if name == "master" => visitor(master),
            RoundingBuffer::Kahan(kahan) if name == "kahan" => {
                let mut wide: Vec<_> = kahan.iter().map(|x| x.load()).collect();
                visitor(&mut wide);
                kahan.iter_mut().zip(wide).for_each(|(to, from)| *to = T::store(from));
            }
            _ => {}
        }
    }

    /// Marks the slots that an option has switched on since the last step, and that have no memory yet.
    pub(in crate::optim) fn save_pending(
        &self,
        rule: &dyn ErasedRule<T::Compute>,
        record: &mut Record<'_>,
    ) {
        for (index, (slot, buffer)) in self.layout.iter().zip(&self.slots).enumerate() {
            if buffer.is_none() && !slot.kind.is_input() && rule.uses_slot(index) {
                record.scalar(&pending(slot.name), Scalar::Bool(true));
            }
        }
    }

    /// Whether any slot asks for a look at the new state before it is written.
    pub(in crate::optim) fn collects_scales(&self) -> bool {
        self.slots.iter().flatten().any(SlotBuffer::collects_scales)
    }
}
