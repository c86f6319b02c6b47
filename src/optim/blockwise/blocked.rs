//! Makes a [`MatrixMethod`] a [`TensorMethod`]: blocks, filter, grafting, and the rule behind them.

use super::matrix::{BlockState, Blocked, Filter, MatrixMethod};
use super::partition::{Partition, Tile};
use super::unit::{BlockUnit, FilterUnit, FilterWeights, MatrixUnit, split_tiles};
use crate::error::{Error, Result};
use crate::kernel::sweep::Sums;
use crate::kernel::{CHUNK, Isa};
use crate::numeric::{Element, Real};
use crate::optim::elementwise;
use crate::optim::elementwise::{ElementState, Elementwise, Prepared, Rule, Slot};
use crate::optim::method::{
    Configured, Decayed, GradSlice, GradSource, Job, Measured, Stage, TensorMethod, TensorState,
};
use crate::state::slot::{SlotBuffer, SlotShape};
use crate::state::{Lookup, Record, SlotInit, SlotKind, StateBytes, Storage};
use ndarray::{ArrayViewMutD, IxDyn};
use std::ops::Range;

/// The pass that filters gradients, and the one that preconditions; those of the rule follow.
const FILTER: usize = 0;
const PRECONDITION: usize = 1;
const RULE: usize = 2;

/// What is remembered of one tensor.
#[derive(Debug)]
pub struct BlockedState<B, T: Element> {
    /// `None`: the tensor has the plain rule.
    cut: Option<Cut<B, T::Compute>>,
    element: ElementState<T>,
}

#[derive(Debug)]
struct Cut<B, R> {
    partition: Partition,
    blocks: Vec<(Tile, B)>,
    filter: Option<(&'static str, SlotBuffer<R>)>,
    /// Room for the direction; its content does not outlive a step.
    direction: Vec<R>,
}

/// Scalars of one step of one tensor.
#[derive(Debug)]
pub struct BlockedPrepared<C, D, R> {
    rule: Prepared<C, R>,
    plain: Prepared<D, R>,
    /// `‖G‖`.
    gradient_norm: f64,
    /// Whether the length of the direction is that which the blocks ask for.
    grafts: bool,
    /// Factor that makes it so.
    ratio: f64,
}

impl<C: Copy, D: Copy, R: Copy> Copy for BlockedPrepared<C, D, R> {}
impl<C: Copy, D: Copy, R: Copy> Clone for BlockedPrepared<C, D, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: BlockState, T: Element> TensorState for BlockedState<B, T> {
    fn count(&self, bytes: &mut StateBytes) {
        if let Some(cut) = &self.cut {
            cut.blocks.iter().for_each(|(_, block)| block.count(bytes));
            if let Some((name, slot)) = &cut.filter {
                bytes.add(name, slot.bytes());
            }
            bytes.add("direction", size_of_val(cut.direction.as_slice()));
        }
        self.element.count(bytes);
    }

    fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        if let Some(cut) = &self.cut {
            for (i, (_, block)) in cut.blocks.iter().enumerate() {
                block.save(&mut record.nested(&format!("block{i}")));
            }
            if let Some((name, slot)) = &cut.filter {
                slot.save(name, shape, record);
            }
        }
        self.element.save(shape, record);
    }
}

fn filter_shape<'s>(filter: &Filter, shape: &'s [usize]) -> SlotShape<'s> {
    let (kind, init) = (SlotKind::Signed, SlotInit::Value(0.0));
    SlotShape { name: filter.slot, kind, shape, stride: 1, init }
}

impl<C: MatrixMethod> Blocked<C> {
    fn cut<B, R: Real>(
        &self,
        shape: &[usize],
        mut block: impl FnMut(usize, &[usize]) -> Result<B>,
        mut slot: impl FnMut(SlotShape<'_>) -> Result<SlotBuffer<R>>,
    ) -> Result<Option<Cut<B, R>>> {
        let Some(partition) = self.0.partition(shape) else { return Ok(None) };
        let mut blocks = Vec::new();
        for (i, tile) in partition.tiles().enumerate() {
            let block = block(i, tile.shape())?;
            blocks.push((tile, block));
        }
        let filter = self
            .0
            .filter()
            .map(|filter| slot(filter_shape(&filter, shape)).map(|buffer| (filter.slot, buffer)));
        // a shape that a state dict only claims fails before memory is asked for
        let filter = filter.transpose()?;
        let direction = vec![R::zero(); shape.iter().product()];
        Ok(Some(Cut { partition, blocks, filter, direction }))
    }
}

impl<B, R: Real> Cut<B, R> {
    fn split_filter<'u, C, T>(
        &'u mut self,
        filter: Option<Filter>,
        t: u64,
        isa: Isa,
        grad: Decayed<'u, T>,
        push: &mut impl FnMut(MatrixUnit<'u, C, T>),
    ) where
        C: MatrixMethod<Block<R> = B>,
        T: Element<Compute = R>,
    {
        let slot = self.filter.as_mut().map(|(_, slot)| slot.cursor(true));
        let mut average = slot.zip(filter);
        for (chunk, out) in self.direction.chunks_mut(CHUNK).enumerate() {
            let average = average
                .as_mut()
                .map(|(slot, filter)| (slot.take(out.len()), FilterWeights::new(filter, t)));
            let offset = chunk * CHUNK;
            let sums = Sums::default();
            push(MatrixUnit::Filter(FilterUnit { isa, offset, grad, out, average, sums }));
        }
    }

    fn split_blocks<'u, C, T>(
        &'u mut self,
        method: &'u C,
        (t, gradient_norm): (u64, f64),
        grad: Decayed<'u, T>,
        push: &mut impl FnMut(MatrixUnit<'u, C, T>),
    ) where
        C: MatrixMethod<Block<R> = B>,
        T: Element<Compute = R>,
    {
        let partition = &self.partition;
        let shape = partition.shape();
        let direction = ArrayViewMutD::from_shape(IxDyn(shape), self.direction.as_mut_slice());
        let Ok(direction) = direction else { return };
        let mut parts = self.blocks.iter_mut();
        split_tiles(direction, partition, &mut |direction| {
            if let Some((tile, block)) = parts.next() {
                push(MatrixUnit::Block(BlockUnit {
                    method,
                    t,
                    gradient_norm,
                    grad,
                    shape,
                    tile,
                    block,
                    direction,
                    sums: Sums::default(),
                }));
            }
        });
    }
}

impl<C: MatrixMethod> Configured for Blocked<C> {
    type Config = C;

    fn config(&self) -> &C {
        &self.0
    }

    fn new(config: C) -> Self {
        Self(config)
    }
}

impl<C: MatrixMethod, T: Element> TensorMethod<T> for Blocked<C> {
    type State = BlockedState<C::Block<T::Compute>, T>;
    type Scalars = <C::Rule as Rule>::Scalars;
    type Joint = ();
    type Prepared = BlockedPrepared<
        <C::Rule as Rule>::Coefficients<T::Compute>,
        <C::Plain as Rule>::Coefficients<T::Compute>,
        T::Compute,
    >;
    type Unit<'u>
        = MatrixUnit<'u, C, T>
    where
        T: 'u;
    const TWO_POINTS: bool = <C::Rule as Rule>::TWO_POINTS;
    // a product of two matrices of order 64
    const INTENSITY: usize = 64;
    const UNEVEN: bool = true;

    fn check_group(&self, first: &Self) -> Result<()> {
        self.0.rule().check_group(&first.0.rule())?;
        self.0.plain().check_group(&first.0.plain())
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let rule = |method: &Self| Elementwise(method.0.rule());
        let plain = |method: &Self| Elementwise(method.0.plain());
        self.0.keeps_layout(&changed.0)
            && TensorMethod::<T>::keeps_layout(&rule(self), &rule(changed))
            && TensorMethod::<T>::keeps_layout(&plain(self), &plain(changed))
    }

    fn slots(&self) -> Vec<&'static str> {
        let rule = self.0.rule();
        let used = <C::Rule as Rule>::SLOTS.iter().enumerate().filter(|(i, _)| rule.uses_slot(*i));
        let used: Vec<Slot> = used.map(|(_, slot)| *slot).collect();
        let filter = self.0.filter().map(|filter| filter.slot);
        // most methods have one rule for both
        let others = <C::Plain as Rule>::SLOTS.iter().filter(|slot| !used.contains(slot));
        let slots = used.iter().chain(others).map(|slot| slot.name);
        let blocks = self.0.block_slots().iter().copied();
        filter.into_iter().chain(blocks).chain(slots).collect()
    }

    fn check_state(&self, name: &str, state: &Self::State) -> Result<()> {
        let blocks = state.cut.iter().flat_map(|cut| cut.blocks.iter().enumerate());
        for (block, (_, failed)) in blocks {
            match failed.failures() {
                Some((failures, problem)) if failures > self.0.tolerated_failures() => {
                    let name = name.to_owned();
                    return Err(Error::RepeatedFailure { name, block, failures, problem });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> Self::State {
        let block = |_, shape: &[usize]| Ok(self.0.init(shape, storage));
        // new memory cannot fail
        let cut = self.cut(shape, block, |slot| Ok(SlotBuffer::new(&slot, param, storage)));
        let cut = cut.unwrap_or_default();
        let element = match cut {
            Some(_) => Elementwise(self.0.rule()).init(shape, param, storage),
            None => Elementwise(self.0.plain()).init(shape, param, storage),
        };
        BlockedState { cut, element }
    }

    fn extend(&self, state: &mut Self::State, shape: &[usize], param: &[T], storage: &Storage) {
        let element = &mut state.element;
        match &mut state.cut {
            Some(cut) => {
                for (tile, block) in &mut cut.blocks {
                    self.0.extend(block, tile.shape(), storage);
                }
                Elementwise(self.0.rule()).extend(element, shape, param, storage);
            }
            None => Elementwise(self.0.plain()).extend(element, shape, param, storage),
        }
    }

    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<Self::State> {
        let block = |i: usize, shape: &[usize]| {
            self.0.load(shape, storage, &lookup.nested(&format!("block{i}")))
        };
        let slot = |slot: SlotShape<'_>| {
            let buffer = SlotBuffer::load(&slot, storage, lookup)?;
            buffer.ok_or_else(|| lookup.problem(slot.name, "is missing"))
        };
        let cut = self.cut(shape, block, slot)?;
        let element = match cut {
            Some(_) => Elementwise(self.0.rule()).load(shape, storage, lookup)?,
            None => Elementwise(self.0.plain()).load(shape, storage, lookup)?,
        };
        Ok(BlockedState { cut, element })
    }

    fn begin(&self, scalars: &mut Self::Scalars) {
        self.0.rule().begin(scalars);
    }

    fn passes(&self) -> Range<usize> {
        let last = |passes: Range<usize>| passes.end;
        FILTER..RULE + last(self.0.rule().passes()).max(last(self.0.plain().passes()))
    }

    fn combine(&self, pass: usize, total: &Sums, scalars: &mut Self::Scalars) {
        if let Some(pass) = pass.checked_sub(RULE) {
            self.0.rule().combine(pass, total, scalars);
        }
    }

    fn wants_preview(state: &Self::State) -> bool {
        <Elementwise<C::Rule> as TensorMethod<T>>::wants_preview(&state.element)
    }

    fn prepare(&self, t: u64, scalars: &Self::Scalars) -> Self::Prepared {
        BlockedPrepared {
            rule: TensorMethod::<T>::prepare(&Elementwise(self.0.rule()), t, scalars),
            plain: TensorMethod::<T>::prepare(&Elementwise(self.0.plain()), t, scalars),
            gradient_norm: 0.0,
            grafts: self.0.grafts(t),
            ratio: 1.0,
        }
    }

    fn refine(&self, pass: usize, measured: &Measured, prepared: &mut Self::Prepared) {
        match pass.checked_sub(RULE) {
            Some(pass) => {
                self.0.rule().refine(pass, measured, &mut prepared.rule.coefficients);
                self.0.plain().refine(pass, measured, &mut prepared.plain.coefficients);
            }
            None if pass == FILTER => {
                let [squares, ..] = measured.sums;
                prepared.gradient_norm = squares.sqrt();
            }
            None if prepared.grafts => {
                let [wanted, direction, ..] = measured.sums;
                prepared.ratio = wanted.sqrt() / (direction.sqrt() + 1e-12);
            }
            None => {}
        }
    }

    fn split<'u>(
        &'u self,
        job: Job<'u, T, Self::State, Self::Prepared>,
        mut push: impl FnMut(MatrixUnit<'u, C, T>),
    ) {
        let Job { stage, isa, storage, prepared, t, key, shape, data, grad, state } = job;
        let BlockedState { cut, element } = state;
        let rule = self.0.rule();
        // an ascent turns the direction later
        let sign = if rule.maximize() { -1.0 } else { 1.0 };
        let decay = T::Compute::of(sign * self.0.gradient_decay());
        let stage = match stage {
            Stage::Measure(FILTER) => {
                let filter = self.0.filter();
                let grad = Decayed { grad, param: data, decay };
                return cut.iter_mut().for_each(|cut| {
                    cut.split_filter(filter, t, isa, grad, &mut push);
                });
            }
            Stage::Measure(PRECONDITION) => {
                let grad = Decayed { grad, param: data, decay };
                let step = (t, prepared.gradient_norm);
                return cut
                    .iter_mut()
                    .for_each(|cut| cut.split_blocks(&self.0, step, grad, &mut push));
            }
            Stage::Measure(pass) => Stage::Measure(pass - RULE),
            stage => stage,
        };
        match cut {
            Some(cut) => {
                let source = GradSource::Direction(&cut.direction);
                let grad = GradSlice { scale: prepared.ratio, bound: f64::INFINITY, source };
                let mut prepared = prepared.rule;
                prepared.apply.scale_lr(self.0.lr_factor(shape));
                let state = element;
                let job = Job { stage, isa, storage, prepared, t, key, shape, data, grad, state };
                elementwise::split(&rule, job, |unit| push(MatrixUnit::Rule(unit)));
            }
            None => {
                let (prepared, state) = (prepared.plain, element);
                let job = Job { stage, isa, storage, prepared, t, key, shape, data, grad, state };
                elementwise::split(&self.0.plain(), job, |unit| push(MatrixUnit::Plain(unit)));
            }
        }
    }

    fn run(unit: &mut MatrixUnit<'_, C, T>) {
        unit.run();
    }

    fn sums(unit: &MatrixUnit<'_, C, T>) -> Sums {
        unit.sums()
    }

    fn cost(unit: &MatrixUnit<'_, C, T>) -> f64 {
        unit.cost()
    }
}
