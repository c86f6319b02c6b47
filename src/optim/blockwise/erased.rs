//! A matrix method behind a pointer: what the engine knows of it.

use super::matrix::{BlockState, BlockStep, GradEma, MatrixMethod};
use super::partition::Partition;
use crate::error::Result;
use crate::hyper::{Hyper, Options};
use crate::numeric::Real;
use crate::optim::elementwise::AnyRule;
use crate::state::{Lookup, Record, StateBytes, Storage};
use ndarray::ArrayViewMutD;
use std::any::Any;
use std::fmt::Debug;

/// A [`BlockState`] behind a pointer.
pub trait ErasedBlock: Any + Debug + Send {
    /// A copy.
    fn boxed(&self) -> Box<dyn ErasedBlock>;
    /// [`BlockState::count`].
    fn count(&self, bytes: &mut StateBytes);
    /// [`BlockState::save`].
    fn save(&self, record: &mut Record<'_>);
    /// [`BlockState::failures`].
    fn failures(&self) -> Option<(u64, &'static str)>;
}

impl<B: BlockState> ErasedBlock for B {
    fn boxed(&self) -> Box<dyn ErasedBlock> {
        Box::new(self.clone())
    }
    fn count(&self, bytes: &mut StateBytes) {
        BlockState::count(self, bytes);
    }
    fn save(&self, record: &mut Record<'_>) {
        BlockState::save(self, record);
    }
    fn failures(&self) -> Option<(u64, &'static str)> {
        BlockState::failures(self)
    }
}

/// The state of one block, whatever its type.
#[derive(Debug)]
pub struct AnyBlock(Box<dyn ErasedBlock>);

impl Clone for AnyBlock {
    fn clone(&self) -> Self {
        Self(self.0.boxed())
    }
}

impl AnyBlock {
    fn new(block: impl BlockState) -> Self {
        Self(Box::new(block))
    }

    /// What is behind the pointer.
    pub fn get(&self) -> &dyn ErasedBlock {
        &*self.0
    }

    fn own<B: BlockState>(&mut self) -> Option<&mut B> {
        let block: &mut dyn Any = &mut *self.0;
        block.downcast_mut()
    }
}

/// The methods of [`MatrixMethod`], for arithmetic in `R`.
pub trait ErasedMatrix<R: Real>: Any + Debug + Send + Sync {
    /// A copy.
    fn boxed(&self) -> Box<dyn ErasedMatrix<R>>;
    /// The method itself.
    fn options(&mut self) -> &mut dyn Options;
    /// Calls `visitor` for every option.
    fn read_options(&self, visitor: &mut dyn FnMut(Hyper<'_>));
    /// The method itself.
    fn config(&self) -> &dyn Any;
    /// Its name.
    fn name(&self) -> &'static str;
    /// [`MatrixMethod::rule`], in a group that has made no step.
    fn rule(&self) -> AnyRule<R>;
    /// [`MatrixMethod::fallback`], in a group that has made no step.
    fn fallback(&self) -> AnyRule<R>;
    /// [`MatrixMethod::partition`].
    fn partition(&self, shape: &[usize]) -> Option<Partition>;
    /// [`MatrixMethod::block_slots`].
    fn block_slots(&self) -> &[&'static str];
    /// [`MatrixMethod::grad_ema`].
    fn grad_ema(&self) -> Option<GradEma>;
    /// [`MatrixMethod::reads_param`].
    fn reads_param(&self) -> bool;
    /// [`MatrixMethod::l2`].
    fn l2(&self) -> f64;
    /// [`MatrixMethod::grafts`].
    fn grafts(&self, t: u64) -> bool;
    /// [`MatrixMethod::lr_factor`].
    fn lr_factor(&self, shape: &[usize]) -> f64;
    /// [`MatrixMethod::keeps_layout`].
    fn keeps_layout(&self, changed: &dyn ErasedMatrix<R>) -> bool;
    /// [`MatrixMethod::init`].
    fn init(&self, shape: &[usize], storage: &Storage) -> AnyBlock;
    /// [`MatrixMethod::load`].
    ///
    /// # Errors
    /// Those of the method.
    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<AnyBlock>;
    /// [`MatrixMethod::extend`].
    fn extend(&self, block: &mut AnyBlock, shape: &[usize], storage: &Storage);
    /// [`MatrixMethod::precondition`].
    fn precondition(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut AnyBlock,
        direction: ArrayViewMutD<'_, R>,
    ) -> f64;
    /// [`MatrixMethod::cost`].
    fn cost(&self, t: u64, shape: &[usize]) -> f64;
    /// [`MatrixMethod::tolerated_failures`].
    fn tolerated_failures(&self) -> u64;
}

impl<C: MatrixMethod, R: Real> ErasedMatrix<R> for C {
    fn boxed(&self) -> Box<dyn ErasedMatrix<R>> {
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
        C::NAME
    }
    fn rule(&self) -> AnyRule<R> {
        AnyRule::new(MatrixMethod::rule(self))
    }
    fn fallback(&self) -> AnyRule<R> {
        AnyRule::new(MatrixMethod::fallback(self))
    }
    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        MatrixMethod::partition(self, shape)
    }
    fn block_slots(&self) -> &[&'static str] {
        MatrixMethod::block_slots(self)
    }
    fn grad_ema(&self) -> Option<GradEma> {
        MatrixMethod::grad_ema(self)
    }
    fn reads_param(&self) -> bool {
        MatrixMethod::reads_param(self)
    }
    fn l2(&self) -> f64 {
        MatrixMethod::l2(self)
    }
    fn grafts(&self, t: u64) -> bool {
        MatrixMethod::grafts(self, t)
    }
    fn lr_factor(&self, shape: &[usize]) -> f64 {
        MatrixMethod::lr_factor(self, shape)
    }
    fn keeps_layout(&self, changed: &dyn ErasedMatrix<R>) -> bool {
        // a method changes its options, never its type
        let changed = changed.config().downcast_ref::<C>();
        changed.is_none_or(|changed| MatrixMethod::keeps_layout(self, changed))
    }
    fn init(&self, shape: &[usize], storage: &Storage) -> AnyBlock {
        AnyBlock::new(MatrixMethod::init::<R>(self, shape, storage))
    }
    fn load(&self, shape: &[usize], storage: &Storage, lookup: &Lookup<'_>) -> Result<AnyBlock> {
        MatrixMethod::load::<R>(self, shape, storage, lookup).map(AnyBlock::new)
    }
    fn extend(&self, block: &mut AnyBlock, shape: &[usize], storage: &Storage) {
        if let Some(block) = block.own::<C::Block<R>>() {
            MatrixMethod::extend::<R>(self, block, shape, storage);
        }
    }
    fn precondition(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut AnyBlock,
        direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        // the block was made by this method
        block
            .own::<C::Block<R>>()
            .map_or(0.0, |block| MatrixMethod::precondition::<R>(self, step, block, direction))
    }
    fn cost(&self, t: u64, shape: &[usize]) -> f64 {
        MatrixMethod::cost(self, t, shape)
    }
    fn tolerated_failures(&self) -> u64 {
        MatrixMethod::tolerated_failures(self)
    }
}

/// A matrix method of any type with its rules, and the state of its group: the method of the engine.
#[derive(Debug)]
pub struct AnyMatrix<R: Real> {
    method: Box<dyn ErasedMatrix<R>>,
    /// Rule of tensors that are cut into blocks; it has the state of the group.
    pub(super) rule: AnyRule<R>,
    /// Rule of all other tensors; its state is a copy.
    pub(super) fallback: AnyRule<R>,
}

impl<R: Real> Clone for AnyMatrix<R> {
    fn clone(&self) -> Self {
        let (rule, fallback) = (self.rule.clone(), self.fallback.clone());
        Self { method: self.method.boxed(), rule, fallback }
    }
}

impl<R: Real> AnyMatrix<R> {
    /// A method in a group that has made no step.
    pub fn new(method: impl MatrixMethod) -> Self {
        let method: Box<dyn ErasedMatrix<R>> = Box::new(method);
        Self { rule: method.rule(), fallback: method.fallback(), method }
    }

    /// What is behind the pointer.
    pub fn get(&self) -> &dyn ErasedMatrix<R> {
        &*self.method
    }

    pub(super) fn changed(
        &self,
        change: &mut dyn FnMut(&mut dyn Options) -> Result<()>,
    ) -> Result<Self> {
        let mut method = self.method.boxed();
        change(method.options())?;
        let mut changed = Self { rule: method.rule(), fallback: method.fallback(), method };
        changed.rule.get_mut().set_group_state(self.rule.get().group_state());
        changed.share_group_state();
        Ok(changed)
    }

    /// Gives the second rule what the first one remembers of the group.
    pub(super) fn share_group_state(&mut self) {
        self.fallback.get_mut().set_group_state(self.rule.get().group_state());
    }
}
