//! Makes a [`VectorMethod`] a method of the engine: vectors of one tensor are part of its state, vectors
//! of several are joint.

use super::erased::{AnyMemory, AnyVector, ErasedVector};
use super::vector::{Scope, VectorMethod, VectorStep, Vectored};
use super::vectors::{JointVectors, check_failures};
use crate::error::Result;
use crate::hyper::{Hyper, OptionValue, Options};
use crate::kernel::Isa;
use crate::kernel::sweep::Sums;
use crate::numeric::{Element, Real};
use crate::optim::method::{
    Configured, Decayed, GradSlice, GradSource, Job, Measured, MethodFor, Stage, TensorMethod,
    TensorState,
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
    gradient: Decayed<'u, T>,
    memory: &'u mut AnyMemory<T::Compute>,
}

impl<V: VectorMethod> Configured for Vectored<V> {
    type Config = V;

    fn config(&self) -> &V {
        &self.0
    }

    fn new(config: V) -> Self {
        Self(config)
    }
}

impl<V: VectorMethod<Inner: MethodFor<T>>, T: Element> MethodFor<T> for Vectored<V> {
    type Scalars = <V::Inner as MethodFor<T>>::Scalars;
    type Engine = AnyVector<T, <V::Inner as MethodFor<T>>::Engine>;

    fn into_engine(self) -> Self::Engine {
        AnyVector::new(self.0)
    }
}

impl<I: TensorMethod<T>, T: Element> TensorMethod<T> for AnyVector<T, I> {
    type State = VectoredState<I::State, T::Compute>;
    type Joint = JointVectors<I::Joint, T::Compute>;
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

    fn two_points(&self) -> bool {
        self.inner.two_points()
    }

    fn config(&self) -> &dyn Any {
        self.get().config()
    }

    fn scalars(&self) -> &dyn Any {
        self.inner.scalars()
    }

    fn set_scalars(&mut self, scalars: &dyn Any) {
        self.inner.set_scalars(scalars);
    }

    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.get().read_options(visitor);
    }

    fn changed(&self, change: &mut dyn FnMut(&mut dyn Options) -> Result<()>) -> Result<Self> {
        let mut changed = self.with_options(change)?;
        changed.inner.set_scalars(self.inner.scalars());
        Ok(changed)
    }

    fn visit_scalars(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {
        self.inner.visit_scalars(visitor);
    }

    fn check_group(&self, first: &Self) -> Result<()> {
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

    fn begin(&mut self) {
        self.inner.begin();
    }

    fn passes(&self) -> Range<usize> {
        ABSORB..INNER + self.inner.passes().end
    }

    fn combine(&mut self, pass: usize, total: &Sums) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.combine(pass, total);
        }
    }

    fn wants_preview(state: &Self::State) -> bool {
        I::wants_preview(&state.inner)
    }

    fn prepare(&self, t: u64, prepared: &mut Self::Prepared) {
        self.inner.prepare(t, prepared);
    }

    fn refine(&self, pass: usize, measured: &Measured, prepared: &mut Self::Prepared) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.refine(pass, measured, prepared);
        }
    }

    fn split<'u>(
        &'u self,
        job: Job<'u, T, Self::State, Self::Prepared>,
        push: &mut dyn FnMut(Self::Unit<'u>),
    ) {
        let Job { stage, isa, storage, prepared, t, key, shape, data, mut grad, state } = job;
        let VectoredState { own, inner, .. } = state;
        let stage = match stage {
            Stage::Measure(ABSORB) => {
                let Some((layout, memory)) = own else { return };
                let decay = T::Compute::of(self.get().gradient_decay());
                let gradient = Decayed { grad, param: data, decay };
                let method = self.get();
                let unit = AbsorbUnit { method, t, isa, layout, gradient, memory };
                return push(VectorUnit::Absorb(unit));
            }
            Stage::Measure(pass) => Stage::Measure(pass - INNER),
            stage => stage,
        };
        if let Some((_, memory)) = own {
            let source = GradSource::Computed(&*memory, 0);
            grad = GradSlice { scale: 1.0, bound: f64::INFINITY, source };
        }
        let state = inner;
        let job = Job { stage, isa, storage, prepared, t, key, shape, data, grad, state };
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
