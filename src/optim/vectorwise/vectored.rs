//! Makes a [`VectorMethod`] a method of the engine: vectors of one tensor are part of its state, vectors
//! of several are shared.

use super::erased::{AnyMemory, AnyVector, ErasedVector};
use super::vector::{Scope, VectorMethod, VectorStep, Vectored};
use super::vectors::{SharedVectors, check_failures};
use crate::error::{Error, Result};
use crate::hyper::{Hyper, OptionValue, Options};
use crate::kernel::Isa;
use crate::kernel::sweep::Sums;
use crate::numeric::range::largest_for;
use crate::numeric::{Element, Real};
use crate::optim::method::{
    GradSlice, GradSource, Method, MethodFor, Needs, PassInfo, RegularizedGrad, Stage,
    TensorMethod, TensorPass, TensorState, TensorStep, TensorSums,
};
use crate::state::{Lookup, Record, StateBytes, Storage};
use crate::tree::Layout;
use std::any::Any;
use std::ops::Range;

/// The pass that takes gradients in; those of the inner method follow.
const ABSORB: usize = 0;
const INNER: usize = 1;

/// What is remembered of one tensor.
#[derive(Clone, Debug)]
pub struct VectoredState<S, R: Real> {
    /// A vector of its own; `None`: the tensor is part of a longer one.
    own: Option<(Layout, AnyMemory<R>)>,
    inner: S,
    /// Name of the part of a record that the inner state has; empty: the record itself.
    part: &'static str,
}

impl<S: TensorState, R: Real> TensorState for VectoredState<S, R> {
    fn count(&self, bytes: &mut StateBytes) {
        if let Some((_, memory)) = &self.own {
            memory.get().count(bytes);
        }
        self.inner.count(bytes);
    }

    fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        if let Some((_, memory)) = &self.own {
            memory.get().save(&mut record.nested("vector"));
        }
        match self.part {
            "" => self.inner.save(shape, record),
            part => self.inner.save(shape, &mut record.nested(part)),
        }
    }
}

/// One unit of a vector method.
#[derive(Debug)]
pub enum VectorUnit<'u, T: Element, I, U> {
    /// Takes the gradient of one tensor in.
    Absorb(AbsorbUnit<'u, T, I>),
    /// One of the inner method's.
    Inner(U),
}

/// One tensor that is a vector of its own.
#[derive(Debug)]
pub struct AbsorbUnit<'u, T: Element, I> {
    method: &'u dyn ErasedVector<T, I>,
    t: u64,
    isa: Isa,
    layout: &'u Layout,
    gradient: RegularizedGrad<'u, T>,
    memory: &'u mut AnyMemory<T::Compute>,
}

impl<V: VectorMethod> Method for Vectored<V> {
    type Config = V;

    fn config(&self) -> &V {
        &self.0
    }

    fn new(config: V) -> Self {
        Self(config)
    }
}

impl<V: VectorMethod<Inner: MethodFor<T>>, T: Element> MethodFor<T> for Vectored<V> {
    type GroupState = <V::Inner as MethodFor<T>>::GroupState;
    type Engine = AnyVector<T, <V::Inner as MethodFor<T>>::Engine>;

    fn into_engine(self) -> Self::Engine {
        AnyVector::new(self.0)
    }
}

impl<I: TensorMethod<T>, T: Element> TensorMethod<T> for AnyVector<T, I> {
    type State = VectoredState<I::State, T::Compute>;
    type Shared = SharedVectors<I::Shared, T::Compute>;
    type Prepared = I::Prepared;
    type Unit<'u>
        = VectorUnit<'u, T, I, I::Unit<'u>>
    where
        T: 'u;
    // a pass over the window costs more than one over the parameters
    const INTENSITY: usize = 4 * I::INTENSITY;
    const UNEVEN: bool = true;
    const PART: &'static str = "inner";

    fn name(&self) -> &'static str {
        self.get().name()
    }

    fn has_eval_mode(&self) -> bool {
        self.inner.has_eval_mode()
    }

    fn config(&self) -> &dyn Any {
        self.get().config()
    }

    fn group_state(&self) -> &dyn Any {
        self.inner.group_state()
    }

    fn set_group_state(&mut self, scalars: &dyn Any) {
        self.inner.set_group_state(scalars);
    }

    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.get().read_options(visitor);
    }

    fn changed(&self, change: &mut dyn FnMut(&mut dyn Options) -> Result<()>) -> Result<Self> {
        let mut changed = self.with_options(change)?;
        changed.inner.set_group_state(self.inner.group_state());
        Ok(changed)
    }

    fn visit_group_state(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {
        self.inner.visit_group_state(visitor);
    }

    fn check_composition(&self) -> Result<()> {
        self.inner.check_composition()
    }

    fn check_group(&self, first: &Self) -> Result<()> {
        // which tensors share a vector is one question for all of them
        let (scope, expected) = (self.get().scope(), first.get().scope());
        if scope != expected {
            let expected = format!("`{expected:?}`, as in group 0");
            return Err(Error::invalid(self.name(), "scope", expected, format!("{scope:?}")));
        }
        self.inner.check_group(&first.inner)
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        self.get().keeps_layout(changed.get())
            && self.get().scope() == changed.get().scope()
            && self.inner.keeps_layout(&changed.inner)
    }

    fn slots(&self) -> Vec<&'static str> {
        self.inner.slots()
    }

    fn check_state(&self, name: &str, state: &Self::State) -> Result<()> {
        if let Some((_, memory)) = &state.own {
            check_failures(self.get().tolerated_failures(), name, memory)?;
        }
        self.inner.check_state(name, &state.inner)
    }

    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> Self::State {
        let own = (self.get().scope() == Scope::Tensor).then(|| {
            let layout = Layout::single(shape);
            let memory = self.get().init(&layout);
            (layout, memory)
        });
        VectoredState { own, inner: self.inner.init(shape, param, storage), part: I::PART }
    }

    fn extend(&self, state: &mut Self::State, shape: &[usize], param: &[T], storage: &Storage) {
        self.inner.extend(&mut state.inner, shape, param, storage);
    }

    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<Self::State> {
        let load = || {
            let layout = Layout::single(shape);
            let memory = self.get().load(&layout, &lookup.nested("vector"))?;
            Ok((layout, memory))
        };
        let own = (self.get().scope() == Scope::Tensor).then(load).transpose()?;
        let inner = match I::PART {
            "" => self.inner.load(shape, storage, lookup),
            part => self.inner.load(shape, storage, &lookup.nested(part)),
        };
        Ok(VectoredState { own, inner: inner?, part: I::PART })
    }

    fn needs(&self, t: u64) -> Needs {
        self.inner.needs(t)
    }

    fn has_needs(&self) -> bool {
        self.inner.has_needs()
    }

    fn uses_curvature(&self) -> bool {
        self.inner.uses_curvature()
    }

    fn largest_gradient(&self, bf16: bool) -> T::Compute {
        // matrices and windows sum the squares of whole rows
        largest_for(2, 20, bf16)
    }

    fn per_tensor(&self) -> bool {
        self.inner.per_tensor()
    }

    fn save_state(&self, state: &Self::State, shape: &[usize], record: &mut Record<'_>) {
        if let Some((_, memory)) = &state.own {
            memory.get().save(&mut record.nested("vector"));
        }
        match state.part {
            "" => self.inner.save_state(&state.inner, shape, record),
            part => self.inner.save_state(&state.inner, shape, &mut record.nested(part)),
        }
    }

    fn begin(&mut self, loss: Option<f64>) {
        self.inner.begin(loss);
    }

    fn begin_tensor(&self, step: &TensorStep<'_>, state: &mut Self::State) {
        self.inner.begin_tensor(step, &mut state.inner);
    }

    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        state: &mut Self::State,
    ) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.absorb(pass, measured, step, &mut state.inner);
        }
    }

    fn contribute(&self, pass: usize, state: &Self::State, sums: &mut Sums) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.contribute(pass, &state.inner, sums);
        }
    }

    fn passes(&self) -> Range<usize> {
        // vectors of several tensors take their gradients in before all passes
        let first = if self.get().scope() == Scope::Tensor { ABSORB } else { INNER };
        first..INNER + self.inner.passes().end
    }

    fn combine(&mut self, pass: usize, total: &Sums) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.combine(pass, total);
        }
    }

    fn visit_slot(
        state: &mut Self::State,
        slot: &str,
        shape: &[usize],
        visitor: &mut dyn FnMut(&mut [T::Compute]),
    ) {
        I::visit_slot(&mut state.inner, slot, shape, visitor);
    }

    fn collects_scales(state: &Self::State) -> bool {
        I::collects_scales(&state.inner)
    }

    fn prepare(&self, step: &TensorStep<'_>, state: &Self::State, prepared: &mut Self::Prepared) {
        self.inner.prepare(step, &state.inner, prepared);
    }

    fn refine(&self, pass: usize, measured: &TensorSums, prepared: &mut Self::Prepared) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.refine(pass, measured, prepared);
        }
    }

    fn split<'u>(
        &'u self,
        job: TensorPass<'u, T, Self::State, Self::Prepared>,
        push: &mut dyn FnMut(Self::Unit<'u>),
    ) {
        let TensorPass { mut info, prepared, state } = job;
        let VectoredState { own, inner, .. } = state;
        info.stage = match info.stage {
            Stage::Measure(ABSORB) => {
                let Some((layout, memory)) = own else { return };
                let PassInfo { t, isa, data, grad, .. } = info;
                let decay = T::Compute::of(self.get().l2());
                let gradient = RegularizedGrad { grad, param: data, decay };
                let method = self.get();
                let unit = AbsorbUnit { method, t, isa, layout, gradient, memory };
                return push(VectorUnit::Absorb(unit));
            }
            Stage::Measure(pass) => Stage::Measure(pass - INNER),
            stage => stage,
        };
        if let Some((_, memory)) = own {
            let source = GradSource::Computed(&*memory, 0);
            info.grad = GradSlice::plain(source);
        }
        let job = TensorPass { info, prepared, state: inner };
        self.inner.split(job, &mut |unit| push(VectorUnit::Inner(unit)));
    }

    fn run(unit: &mut Self::Unit<'_>) {
        match unit {
            VectorUnit::Absorb(unit) => {
                let AbsorbUnit { method, t, isa, layout, gradient, memory } = unit;
                let step = VectorStep { t: *t, layout, gradient, isa: *isa };
                method.absorb(&step, memory);
            }
            VectorUnit::Inner(unit) => I::run(unit),
        }
    }

    fn sums(unit: &Self::Unit<'_>) -> Sums {
        match unit {
            VectorUnit::Absorb(_) => Sums::default(),
            VectorUnit::Inner(unit) => I::sums(unit),
        }
    }

    fn cost(unit: &Self::Unit<'_>) -> f64 {
        match unit {
            VectorUnit::Absorb(unit) => unit.layout.numel() as f64,
            VectorUnit::Inner(unit) => I::cost(unit),
        }
    }
}
