//! A vector method behind a pointer: what the engine knows of it.

use super::vector::{Scope, VectorMemory, VectorMethod, VectorStep};
use crate::error::Result;
use crate::hyper::{Hyper, Options};
use crate::numeric::{Element, Real};
use crate::optim::method::{Direction, MethodFor};
use crate::state::{Lookup, Record, StateBytes};
use crate::tree::Layout;
use std::any::Any;
use std::fmt::Debug;

/// A [`VectorMemory`] behind a pointer.
pub trait ErasedMemory<R>: Any + Debug + Send + Sync {
    /// A copy.
    fn boxed(&self) -> Box<dyn ErasedMemory<R>>;
    /// [`VectorMemory::count`].
    fn count(&self, bytes: &mut StateBytes);
    /// [`VectorMemory::save`].
    fn save(&self, record: &mut Record<'_>);
    /// [`VectorMemory::failures`].
    fn failures(&self) -> Option<(u64, &'static str)>;
    /// [`Direction::compute`].
    fn compute(&self, offset: usize, out: &mut [R]);
}

impl<R, B: VectorMemory + Direction<R>> ErasedMemory<R> for B {
    fn boxed(&self) -> Box<dyn ErasedMemory<R>> {
        Box::new(self.clone())
    }
    fn count(&self, bytes: &mut StateBytes) {
        VectorMemory::count(self, bytes);
    }
    fn save(&self, record: &mut Record<'_>) {
        VectorMemory::save(self, record);
    }
    fn failures(&self) -> Option<(u64, &'static str)> {
        VectorMemory::failures(self)
    }
    fn compute(&self, offset: usize, out: &mut [R]) {
        Direction::compute(self, offset, out);
    }
}

/// The memory of one vector, whatever its type.
#[derive(Debug)]
pub struct AnyMemory<R>(Box<dyn ErasedMemory<R>>);

impl<R: 'static> Clone for AnyMemory<R> {
    fn clone(&self) -> Self {
        Self(self.0.boxed())
    }
}

impl<R: Real> AnyMemory<R> {
    fn new(memory: impl VectorMemory + Direction<R>) -> Self {
        Self(Box::new(memory))
    }

    /// What is behind the pointer.
    pub fn get(&self) -> &dyn ErasedMemory<R> {
        &*self.0
    }

    fn own<B: VectorMemory>(&mut self) -> Option<&mut B> {
        let memory: &mut dyn Any = &mut *self.0;
        memory.downcast_mut()
    }
}

impl<R: Real> Direction<R> for AnyMemory<R> {
    fn compute(&self, offset: usize, out: &mut [R]) {
        self.0.compute(offset, out);
    }
}

/// The methods of [`VectorMethod`], for parameters of type `T`; `I` is the inner method as the engine
/// runs it.
pub trait ErasedVector<T: Element, I>: Any + Debug + Send + Sync {
    /// A copy.
    fn boxed(&self) -> Box<dyn ErasedVector<T, I>>;
    /// The method itself.
    fn options(&mut self) -> &mut dyn Options;
    /// Calls `visitor` for every option.
    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>));
    /// The method itself.
    fn config(&self) -> &dyn Any;
    /// Its name.
    fn name(&self) -> &'static str;
    /// [`VectorMethod::inner`].
    fn inner(&self) -> I;
    /// [`VectorMethod::scope`].
    fn scope(&self) -> Scope;
    /// [`VectorMethod::l2`].
    fn l2(&self) -> f64;
    /// [`VectorMethod::keeps_layout`].
    fn keeps_layout(&self, changed: &dyn ErasedVector<T, I>) -> bool;
    /// [`VectorMethod::check_layout`].
    ///
    /// # Errors
    /// Those of the method.
    fn check_layout(&self, layout: &Layout) -> Result<()>;
    /// [`VectorMethod::init`].
    fn init(&self, layout: &Layout) -> AnyMemory<T::Compute>;
    /// [`VectorMethod::load`].
    ///
    /// # Errors
    /// Those of the method.
    fn load(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<AnyMemory<T::Compute>>;
    /// [`VectorMethod::absorb`].
    fn absorb(&self, step: &VectorStep<'_, T::Compute>, memory: &mut AnyMemory<T::Compute>);
    /// [`VectorMethod::tolerated_failures`].
    fn tolerated_failures(&self) -> u64;
}

impl<V, T: Element> ErasedVector<T, <V::Inner as MethodFor<T>>::Engine> for V
where
    V: VectorMethod<Inner: MethodFor<T>>,
{
    fn boxed(&self) -> Box<dyn ErasedVector<T, <V::Inner as MethodFor<T>>::Engine>> {
        Box::new(self.clone())
    }
    fn options(&mut self) -> &mut dyn Options {
        self
    }
    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.clone().visit_options(visitor);
    }
    fn config(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        V::NAME
    }
    fn inner(&self) -> <V::Inner as MethodFor<T>>::Engine {
        VectorMethod::inner(self).into_engine()
    }
    fn scope(&self) -> Scope {
        VectorMethod::scope(self)
    }
    fn l2(&self) -> f64 {
        VectorMethod::l2(self)
    }
    fn keeps_layout(
        &self,
        changed: &dyn ErasedVector<T, <V::Inner as MethodFor<T>>::Engine>,
    ) -> bool {
        // a method changes its options, never its type
        let changed = changed.config().downcast_ref::<V>();
        changed.is_none_or(|changed| VectorMethod::keeps_layout(self, changed))
    }
    fn check_layout(&self, layout: &Layout) -> Result<()> {
        VectorMethod::check_layout(self, layout)
    }
    fn init(&self, layout: &Layout) -> AnyMemory<T::Compute> {
        AnyMemory::new(VectorMethod::init::<T::Compute>(self, layout))
    }
    fn load(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<AnyMemory<T::Compute>> {
        VectorMethod::load::<T::Compute>(self, layout, lookup).map(AnyMemory::new)
    }
    fn absorb(&self, step: &VectorStep<'_, T::Compute>, memory: &mut AnyMemory<T::Compute>) {
        // the memory was made by this method
        if let Some(memory) = memory.own::<V::Memory<T::Compute>>() {
            VectorMethod::absorb(self, step, memory);
        }
    }
    fn tolerated_failures(&self) -> u64 {
        VectorMethod::tolerated_failures(self)
    }
}

/// A vector method of any type around an inner method `I`: the method of the engine.
#[derive(Debug)]
pub struct AnyVector<T: Element, I> {
    method: Box<dyn ErasedVector<T, I>>,
    pub(super) inner: I,
}

impl<T: Element, I: Clone + 'static> Clone for AnyVector<T, I> {
    fn clone(&self) -> Self {
        Self { method: self.method.boxed(), inner: self.inner.clone() }
    }
}

impl<T: Element, I: 'static> AnyVector<T, I> {
    /// A method in a group that has made no step.
    pub fn new(method: impl ErasedVector<T, I>) -> Self {
        Self { inner: method.inner(), method: Box::new(method) }
    }

    /// What is behind the pointer.
    pub fn get(&self) -> &dyn ErasedVector<T, I> {
        &*self.method
    }

    /// A copy with changed options, and with the inner method that belongs to them.
    pub(super) fn with_options(
        &self,
        change: &mut dyn FnMut(&mut dyn Options) -> Result<()>,
    ) -> Result<Self> {
        let mut method = self.method.boxed();
        change(method.options())?;
        Ok(Self { inner: method.inner(), method })
    }
}
