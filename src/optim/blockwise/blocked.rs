//! Makes a [`MatrixMethod`] a [`TensorMethod`]: blocks, filter, grafting, and the rule behind them.

use super::erased::{AnyBlock, AnyMatrix, ErasedMatrix};
use super::matrix::{Blocked, GradEma, MatrixMethod};
use super::partition::{Partition, Tile};
use super::unit::{BlockUnit, EmaUnit, EmaWeights, MatrixUnit, split_tiles};
use crate::error::{Error, Result};
use crate::hyper::{Hyper, OptionValue, Options};
use crate::kernel::sweep::Sums;
use crate::kernel::{CHUNK, Isa};
use crate::numeric::range::largest_for;
use crate::numeric::{Element, Real};
use crate::optim::elementwise::{self, AnyRule, ElementState, Prepared, Rule, Slot};
use crate::optim::method::{
    GradSlice, GradSource, Method, MethodFor, Needs, RegularizedGrad, Stage, TensorMethod,
    TensorPass, TensorState, TensorStep, TensorSums,
};
use crate::state::slot::{SlotBuffer, SlotShape};
use crate::state::{Lookup, Record, SlotInit, SlotKind, StateBytes, Storage};
use ndarray::{ArrayViewMutD, IxDyn};
use std::any::Any;
use std::ops::Range;

/// The pass that filters gradients, and the one that preconditions; those of the rule follow.
const EMA: usize = 0;
const PRECONDITION: usize = 1;
const RULE: usize = 2;

/// What is remembered of one tensor.
#[derive(Clone, Debug)]
pub struct BlockedState<T: Element> {
    /// `None`: the tensor has the plain rule.
    cut: Option<Cut<T::Compute>>,
    element: ElementState<T>,
}

#[derive(Clone, Debug)]
struct Cut<R> {
    partition: Partition,
    blocks: Vec<(Tile, AnyBlock)>,
    filter: Option<(&'static str, SlotBuffer<R>)>,
    /// Room for the direction, made by the first step; its content does not outlive a step.
    direction: Vec<R>,
}

/// Coefficients of one step of one tensor.
#[derive(Debug)]
pub struct BlockedPrepared<R: Real> {
    rule: Prepared<R>,
    fallback: Prepared<R>,
    /// `‖G‖`.
    gradient_norm: f64,
    /// Whether the length of the direction is that which the blocks ask for.
    grafts: bool,
    /// Factor that makes it so.
    ratio: f64,
}

impl<R: Real> Default for BlockedPrepared<R> {
    fn default() -> Self {
        let (rule, fallback) = (Prepared::default(), Prepared::default());
        Self { rule, fallback, gradient_norm: 0.0, grafts: false, ratio: 1.0 }
    }
}

impl<T: Element> TensorState for BlockedState<T> {
    fn count(&self, bytes: &mut StateBytes) {
        if let Some(cut) = &self.cut {
            cut.blocks.iter().for_each(|(_, block)| block.get().count(bytes));
            if let Some((name, slot)) = &cut.filter {
                bytes.add(name, slot.bytes());
            }
            // also before the first step after loading, which makes it
            let numel: usize = cut.partition.shape().iter().product();
            bytes.add("direction", size_of::<T::Compute>() * numel);
        }
        self.element.count(bytes);
    }

    fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        if let Some(cut) = &self.cut {
            for (i, (_, block)) in cut.blocks.iter().enumerate() {
                block.get().save(&mut record.nested(&format!("block{i}")));
            }
            if let Some((name, slot)) = &cut.filter {
                slot.save(name, shape, record);
            }
        }
        self.element.save(shape, record);
    }
}

fn filter_shape<'s>(filter: &GradEma, shape: &'s [usize]) -> SlotShape<'s> {
    let (kind, init) = (SlotKind::Signed, SlotInit::Value(0.0));
    SlotShape { name: filter.slot, kind, shape, stride: 1, init, factors: None }
}

impl<R: Real> AnyMatrix<R> {
    fn cut(
        &self,
        shape: &[usize],
        block: &mut dyn FnMut(usize, &[usize]) -> Result<AnyBlock>,
        slot: &mut dyn FnMut(SlotShape<'_>) -> Result<SlotBuffer<R>>,
    ) -> Result<Option<Cut<R>>> {
        let Some(partition) = self.get().partition(shape) else { return Ok(None) };
        let mut blocks = Vec::new();
        for (i, tile) in partition.tiles().enumerate() {
            let block = block(i, tile.shape())?;
            blocks.push((tile, block));
        }
        let filter = self.get().grad_ema();
        let filter = filter
            .map(|filter| slot(filter_shape(&filter, shape)).map(|buffer| (filter.slot, buffer)));
        let filter = filter.transpose()?;
        // the shape may be one that a state dict only claims: the first step makes the room
        Ok(Some(Cut { partition, blocks, filter, direction: Vec::new() }))
    }
}

impl<R: Real> Cut<R> {
    fn split_ema<'u, T>(
        &'u mut self,
        filter: Option<GradEma>,
        t: u64,
        isa: Isa,
        grad: RegularizedGrad<'u, T>,
        push: &mut dyn FnMut(MatrixUnit<'u, T>),
    ) where
        T: Element<Compute = R>,
    {
        let slot = self.filter.as_mut().map(|(_, slot)| slot.cursor(true));
        let mut average = slot.zip(filter);
        for (chunk, out) in self.direction.chunks_mut(CHUNK).enumerate() {
            let average = average
                .as_mut()
                .map(|(slot, filter)| (slot.take(out.len()), EmaWeights::new(filter, t)));
            let offset = chunk * CHUNK;
            let sums = Sums::default();
            push(MatrixUnit::Ema(EmaUnit { isa, offset, grad, out, average, sums }));
        }
    }

    fn split_blocks<'u, T>(
        &'u mut self,
        method: &'u dyn ErasedMatrix<R>,
        (t, gradient_norm): (u64, f64),
        grad: RegularizedGrad<'u, T>,
        push: &mut dyn FnMut(MatrixUnit<'u, T>),
    ) where
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

impl<C: MatrixMethod> Method for Blocked<C> {
    type Config = C;

    fn config(&self) -> &C {
        &self.0
    }

    fn new(config: C) -> Self {
        Self(config)
    }
}

impl<C: MatrixMethod, T: Element> MethodFor<T> for Blocked<C> {
    type GroupState = <C::Rule as Rule>::GroupState;
    type Engine = AnyMatrix<T::Compute>;

    fn into_engine(self) -> AnyMatrix<T::Compute> {
        AnyMatrix::new(self.0)
    }
}

impl<T: Element> TensorMethod<T> for AnyMatrix<T::Compute> {
    type State = BlockedState<T>;
    type Shared = ();
    type Prepared = BlockedPrepared<T::Compute>;
    type Unit<'u>
        = MatrixUnit<'u, T>
    where
        T: 'u;
    // a product of two matrices of order 64
    const INTENSITY: usize = 64;
    const UNEVEN: bool = true;

    fn name(&self) -> &'static str {
        self.get().name()
    }

    fn has_eval_mode(&self) -> bool {
        self.rule.get().has_eval_mode()
    }

    fn config(&self) -> &dyn Any {
        self.get().config()
    }

    fn group_state(&self) -> &dyn Any {
        self.rule.get().group_state()
    }

    fn set_group_state(&mut self, scalars: &dyn Any) {
        self.rule.get_mut().set_group_state(scalars);
        self.share_group_state();
    }

    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.get().read_options(visitor);
    }

    fn changed(&self, change: &mut dyn FnMut(&mut dyn Options) -> Result<()>) -> Result<Self> {
        AnyMatrix::changed(self, change)
    }

    fn visit_group_state(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {
        self.rule.get_mut().visit_group_state(visitor);
        self.share_group_state();
    }

    fn check_composition(&self) -> Result<()> {
        self.rule.get().check_composition()?;
        self.fallback.get().check_composition()
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        self.rule.get().check_group(first.rule.get())?;
        self.fallback.get().check_group(first.fallback.get())
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        self.get().keeps_layout(changed.get())
            && TensorMethod::<T>::keeps_layout(&self.rule, &changed.rule)
            && TensorMethod::<T>::keeps_layout(&self.fallback, &changed.fallback)
    }

    fn slots(&self) -> Vec<&'static str> {
        let (rule, fallback) = (self.rule.get(), self.fallback.get());
        let used = rule.layout().iter().enumerate().filter(|(i, _)| rule.uses_slot(*i));
        let used: Vec<Slot> = used.map(|(_, slot)| *slot).collect();
        let filter = self.get().grad_ema().map(|filter| filter.slot);
        // most methods have one rule for both
        let others = fallback.layout().iter().filter(|slot| !used.contains(slot));
        let slots = used.iter().chain(others).filter(|slot| !slot.kind.is_input());
        let slots = slots.map(|slot| slot.name);
        let blocks = self.get().block_slots().iter().copied();
        filter.into_iter().chain(blocks).chain(slots).collect()
    }

    fn check_state(&self, name: &str, state: &Self::State) -> Result<()> {
        let blocks = state.cut.iter().flat_map(|cut| cut.blocks.iter().enumerate());
        for (block, (_, failed)) in blocks {
            match failed.get().failures() {
                Some((failures, problem)) if failures > self.get().tolerated_failures() => {
                    let name = name.to_owned();
                    return Err(Error::RepeatedFailure { name, block, failures, problem });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> Self::State {
        let mut block = |_, shape: &[usize]| Ok(self.get().init(shape, storage));
        // new memory cannot fail
        let mut slot = |slot: SlotShape<'_>| Ok(SlotBuffer::new(&slot, param, storage));
        let cut = self.cut(shape, &mut block, &mut slot).unwrap_or_default();
        let element = ElementState::new(self.rule_of(&cut).get(), shape, param, storage);
        BlockedState { cut, element }
    }

    fn extend(&self, state: &mut Self::State, shape: &[usize], param: &[T], storage: &Storage) {
        for (tile, block) in state.cut.iter_mut().flat_map(|cut| &mut cut.blocks) {
            self.get().extend(block, tile.shape(), storage);
        }
        let rule = self.rule_of(&state.cut);
        state.element.extend(rule.get(), shape, param, storage);
    }

    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<Self::State> {
        let mut block = |i: usize, shape: &[usize]| {
            self.get().load(shape, storage, &lookup.nested(&format!("block{i}")))
        };
        let mut slot = |slot: SlotShape<'_>| {
            let buffer = SlotBuffer::load(&slot, storage, lookup)?;
            buffer.ok_or_else(|| lookup.problem(slot.name, "is missing"))
        };
        let cut = self.cut(shape, &mut block, &mut slot)?;
        let element = ElementState::load(self.rule_of(&cut).get(), shape, storage, lookup)?;
        Ok(BlockedState { cut, element })
    }

    fn needs(&self, t: u64) -> Needs {
        let (rule, fallback) = (self.rule.get().needs(t), self.fallback.get().needs(t));
        Needs { loss: rule.loss || fallback.loss, curvature: rule.curvature || fallback.curvature }
    }

    fn has_needs(&self) -> bool {
        let has = |rule: &AnyRule<_>| TensorMethod::<T>::has_needs(rule);
        has(&self.rule) || has(&self.fallback)
    }

    fn uses_curvature(&self) -> bool {
        let uses = |rule: &AnyRule<_>| TensorMethod::<T>::uses_curvature(rule);
        uses(&self.rule) || uses(&self.fallback)
    }

    fn largest_gradient(&self, bf16: bool) -> T::Compute {
        // matrices and windows sum the squares of whole rows
        largest_for(2, 20, bf16)
    }

    fn per_tensor(&self) -> bool {
        self.rule.get().per_tensor() || self.fallback.get().per_tensor()
    }

    fn save_state(&self, state: &Self::State, shape: &[usize], record: &mut Record<'_>) {
        state.save(shape, record);
        state.element.save_pending(self.rule_of(&state.cut).get(), record);
    }

    fn begin(&mut self, loss: Option<f64>) {
        self.rule.get_mut().begin(loss);
        self.share_group_state();
    }

    fn begin_tensor(&self, step: &TensorStep<'_>, state: &mut Self::State) {
        if let Some(Cut { partition, direction, .. }) = &mut state.cut {
            let numel = partition.shape().iter().product();
            if direction.len() != numel {
                *direction = vec![T::Compute::default(); numel];
            }
        }
        let rule = self.rule_of(&state.cut);
        rule.begin_tensor(step, &mut state.element);
    }

    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        state: &mut Self::State,
    ) {
        if let Some(pass) = pass.checked_sub(RULE) {
            self.rule_of(&state.cut).absorb(pass, measured, step, &mut state.element);
        }
    }

    fn contribute(&self, pass: usize, state: &Self::State, sums: &mut Sums) {
        if let Some(pass) = pass.checked_sub(RULE) {
            self.rule_of(&state.cut).contribute(pass, &state.element, sums);
        }
    }

    fn passes(&self) -> Range<usize> {
        let last = |passes: Range<usize>| passes.end;
        EMA..RULE + last(self.rule.get().passes()).max(last(self.fallback.get().passes()))
    }

    fn combine(&mut self, pass: usize, total: &Sums) {
        if let Some(pass) = pass.checked_sub(RULE) {
            self.rule.get_mut().combine(pass, total);
            self.share_group_state();
        }
    }

    fn visit_slot(
        state: &mut Self::State,
        slot: &str,
        shape: &[usize],
        visitor: &mut dyn FnMut(&mut [T::Compute]),
    ) {
        let filter = state.cut.as_mut().and_then(|cut| cut.filter.as_mut());
        if let Some((_, buffer)) = filter.filter(|(name, _)| *name == slot) {
            buffer.visit(shape.iter().product(), visitor);
        }
        state.element.visit_slot(slot, shape, visitor);
    }

    fn collects_scales(state: &Self::State) -> bool {
        state.element.collects_scales()
    }

    fn prepare(&self, step: &TensorStep<'_>, state: &Self::State, prepared: &mut Self::Prepared) {
        let (numbers, cut) = (state.element.numbers.as_slice(), state.cut.is_some());
        // tensors of one group share these coefficients, unless they have numbers of their own: those are
        // of the rule that the tensor has, and the other one is not asked
        let both = !TensorMethod::<T>::per_tensor(self);
        if both || cut {
            prepared.rule.update(self.rule.get(), step, numbers);
        }
        if both || !cut {
            prepared.fallback.update(self.fallback.get(), step, numbers);
        }
        prepared.gradient_norm = 0.0;
        prepared.grafts = self.get().grafts(step.t);
        prepared.ratio = 1.0;
    }

    fn refine(&self, pass: usize, measured: &TensorSums, prepared: &mut Self::Prepared) {
        match pass.checked_sub(RULE) {
            Some(pass) => {
                prepared.rule.refine(self.rule.get(), pass, measured);
                prepared.fallback.refine(self.fallback.get(), pass, measured);
            }
            None if pass == EMA => {
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
        job: TensorPass<'u, T, Self::State, Self::Prepared>,
        push: &mut dyn FnMut(MatrixUnit<'u, T>),
    ) {
        let TensorPass { mut info, prepared, state } = job;
        let BlockedState { cut, element: state } = state;
        // an ascent turns the direction later
        let sign = if prepared.rule.maximizes() { -1.0 } else { 1.0 };
        let decay = T::Compute::of(sign * self.get().l2());
        info.stage = match info.stage {
            Stage::Measure(EMA) => {
                let ema = self.get().grad_ema();
                let grad = RegularizedGrad { grad: info.grad, param: info.data, decay };
                return cut.iter_mut().for_each(|cut| {
                    cut.split_ema(ema, info.t, info.isa, grad, push);
                });
            }
            Stage::Measure(PRECONDITION) => {
                let grad = RegularizedGrad { grad: info.grad, param: info.data, decay };
                let step = (info.t, prepared.gradient_norm);
                return cut
                    .iter_mut()
                    .for_each(|cut| cut.split_blocks(self.get(), step, grad, push));
            }
            Stage::Measure(pass) => Stage::Measure(pass - RULE),
            stage => stage,
        };
        let (prepared, lr_factor) = match cut {
            Some(cut) => {
                let source = GradSource::Direction(&cut.direction);
                info.grad = GradSlice { scale: prepared.ratio, ..GradSlice::plain(source) };
                (&prepared.rule, self.get().lr_factor(info.shape))
            }
            None => (&prepared.fallback, 1.0),
        };
        let apply = prepared.apply_with(lr_factor);
        let job = TensorPass { info, prepared, state };
        elementwise::split(job, apply, &mut |unit| push(MatrixUnit::Rule(unit)));
    }

    fn run(unit: &mut MatrixUnit<'_, T>) {
        unit.run();
    }

    fn sums(unit: &MatrixUnit<'_, T>) -> Sums {
        unit.sums()
    }

    fn cost(unit: &MatrixUnit<'_, T>) -> f64 {
        unit.cost()
    }
}

impl<R: Real> AnyMatrix<R> {
    /// The rule of a tensor.
    fn rule_of(&self, cut: &Option<Cut<R>>) -> &AnyRule<R> {
        if cut.is_some() { &self.rule } else { &self.fallback }
    }
}
