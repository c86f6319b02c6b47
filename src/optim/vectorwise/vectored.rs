//! Makes a [`VectorMethod`] a [`TensorMethod`]: vectors of one tensor are part of its state, vectors of
//! several are joint.

use super::vector::{Layout, ReadVector, Scope, VectorMemory, VectorMethod, VectorStep, Vectored};
use super::vectors::{Vectors, check_failures};
use crate::error::Result;
use crate::kernel::Isa;
use crate::kernel::sweep::Sums;
use crate::numeric::{Element, Real};
use crate::optim::method::{
    Configured, Decayed, GradSlice, GradSource, Job, Measured, Stage, TensorMethod, TensorState,
};
use crate::state::{Lookup, Record, StateBytes, Storage};
use std::ops::Range;

/// The pass that takes gradients in; those of the inner method follow.
const ABSORB: usize = 0;
const INNER: usize = 1;

/// What is remembered of one tensor.
#[derive(Debug)]
pub struct VectoredState<S, B> {
    /// A vector of its own; `None`: the tensor is part of a longer one.
    own: Option<(Layout, B)>,
    inner: S,
}

impl<S: TensorState, B: VectorMemory> TensorState for VectoredState<S, B> {
    fn count(&self, bytes: &mut StateBytes) {
        if let Some((_, memory)) = &self.own {
            memory.count(bytes);
        }
        self.inner.count(bytes);
    }

    fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        if let Some((_, memory)) = &self.own {
            memory.save(&mut record.nested("vector"));
        }
        self.inner.save(shape, record);
    }
}

/// One unit of a vector method.
#[derive(Debug)]
pub enum VectorUnit<'u, V: VectorMethod, T: Element, I> {
    /// Takes the gradient of one tensor in.
    Absorb(AbsorbUnit<'u, V, T>),
    /// One of the inner method's.
    Inner(I),
}

/// One tensor that is a vector of its own.
#[derive(Debug)]
pub struct AbsorbUnit<'u, V: VectorMethod, T: Element> {
    method: &'u V,
    t: u64,
    isa: Isa,
    layout: &'u Layout,
    gradient: Decayed<'u, T>,
    memory: &'u mut V::Memory<T::Compute>,
}

impl<T: Element> ReadVector<T::Compute> for Decayed<'_, T> {
    fn load(&self, offset: usize, out: &mut [T::Compute]) {
        Decayed::load(self, offset, out);
    }
}

impl<V: VectorMethod> Configured for Vectored<V> {
    type Config = V;

    fn config(&self) -> &V {
        &self.config
    }

    fn new(config: V) -> Self {
        Self::of(config)
    }
}

impl<V: VectorMethod, T: Element> TensorMethod<T> for Vectored<V>
where
    V::Inner: TensorMethod<T>,
{
    type State = VectoredState<<V::Inner as TensorMethod<T>>::State, V::Memory<T::Compute>>;
    type Scalars = <V::Inner as TensorMethod<T>>::Scalars;
    type Joint = Vectors<V::Memory<T::Compute>>;
    type Prepared = <V::Inner as TensorMethod<T>>::Prepared;
    type Unit<'u>
        = VectorUnit<'u, V, T, <V::Inner as TensorMethod<T>>::Unit<'u>>
    where
        T: 'u;
    const TWO_POINTS: bool = <V::Inner as TensorMethod<T>>::TWO_POINTS;
    // a pass over the window costs more than one over the parameters
    const INTENSITY: usize = 4 * <V::Inner as TensorMethod<T>>::INTENSITY;
    const UNEVEN: bool = true;

    fn check_group(&self, first: &Self) -> Result<()> {
        self.inner.check_group(&first.inner)
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        self.config.keeps_layout(&changed.config)
            && self.config.scope() == changed.config.scope()
            && self.inner.keeps_layout(&changed.inner)
    }

    fn slots(&self) -> Vec<&'static str> {
        self.inner.slots()
    }

    fn check_state(&self, name: &str, state: &Self::State) -> Result<()> {
        if let Some((_, memory)) = &state.own {
            check_failures(&self.config, name, memory)?;
        }
        self.inner.check_state(name, &state.inner)
    }

    fn init(&self, shape: &[usize], param: &[T], storage: &Storage) -> Self::State {
        let own = (self.config.scope() == Scope::Tensor).then(|| {
            let layout = Layout::single(shape);
            let memory = self.config.init(&layout);
            (layout, memory)
        });
        VectoredState { own, inner: self.inner.init(shape, param, storage) }
    }

    fn extend(&self, state: &mut Self::State, shape: &[usize], param: &[T], storage: &Storage) {
        self.inner.extend(&mut state.inner, shape, param, storage);
    }

    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<Self::State> {
        let load = || {
            let layout = Layout::single(shape);
            let memory = self.config.load(&layout, &lookup.nested("vector"))?;
            Ok((layout, memory))
        };
        let own = (self.config.scope() == Scope::Tensor).then(load).transpose()?;
        Ok(VectoredState { own, inner: self.inner.load(shape, storage, lookup)? })
    }

    fn begin(&self, scalars: &mut Self::Scalars) {
        self.inner.begin(scalars);
    }

    fn passes(&self) -> Range<usize> {
        ABSORB..INNER + self.inner.passes().end
    }

    fn combine(&self, pass: usize, total: &Sums, scalars: &mut Self::Scalars) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.combine(pass, total, scalars);
        }
    }

    fn wants_preview(state: &Self::State) -> bool {
        V::Inner::wants_preview(&state.inner)
    }

    fn prepare(&self, t: u64, scalars: &Self::Scalars) -> Self::Prepared {
        self.inner.prepare(t, scalars)
    }

    fn refine(&self, pass: usize, measured: &Measured, prepared: &mut Self::Prepared) {
        if let Some(pass) = pass.checked_sub(INNER) {
            self.inner.refine(pass, measured, prepared);
        }
    }

    fn split<'u>(
        &'u self,
        job: Job<'u, T, Self::State, Self::Prepared>,
        mut push: impl FnMut(Self::Unit<'u>),
    ) {
        let Job { stage, isa, storage, prepared, t, key, shape, data, mut grad, state } = job;
        let VectoredState { own, inner } = state;
        let stage = match stage {
            Stage::Measure(ABSORB) => {
                let Some((layout, memory)) = own else { return };
                let decay = T::Compute::of(self.config.gradient_decay());
                let gradient = Decayed { grad, param: data, decay };
                let method = &self.config;
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
        self.inner.split(job, |unit| push(VectorUnit::Inner(unit)));
    }

    fn run(unit: &mut Self::Unit<'_>) {
        match unit {
            VectorUnit::Absorb(unit) => {
                let AbsorbUnit { method, t, isa, layout, gradient, memory } = unit;
                let step = VectorStep { t: *t, layout, gradient, isa: *isa };
                method.absorb(&step, memory);
            }
            VectorUnit::Inner(unit) => V::Inner::run(unit),
        }
    }

    fn sums(unit: &Self::Unit<'_>) -> Sums {
        match unit {
            VectorUnit::Absorb(_) => Sums::default(),
            VectorUnit::Inner(unit) => V::Inner::sums(unit),
        }
    }

    fn cost(unit: &Self::Unit<'_>) -> f64 {
        match unit {
            VectorUnit::Absorb(unit) => unit.layout.numel() as f64,
            VectorUnit::Inner(unit) => V::Inner::cost(unit),
        }
    }
}
