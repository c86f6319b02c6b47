//! Any element-wise rule in the eigenbasis of Shampoo's statistics.

mod block;
mod config;
mod options;
mod side;

pub use crate::optim::{SkipFirst, StepOnly};
pub use block::SoapBlock;
pub use config::Soap;
pub use options::{BasisSolver, BasisStorage, Sides, SoapOrder};
pub use side::Side;

use crate::error::Result;
use crate::numeric::Real;
use crate::optim::{BlockStep, MatrixMethod, Partition, Rule};
use crate::second_order::reshape::of_entries;
use crate::state::{Lookup, Storage};
use ndarray::ArrayViewMutD;

impl<U> Soap<U> {
    /// How a tensor, or one entry of a stack, is cut into blocks; `None`: no block would have a basis.
    fn cut(&self, shape: &[usize]) -> Option<Partition> {
        if !self.preconditions(shape) {
            return None;
        }
        let shape = self.reshape.of(shape, self.block_dim.unwrap_or(self.max_dim))?;
        let partition = Partition::new(shape, self.block_dim.unwrap_or(usize::MAX));
        let has_basis = |shape: &[usize]| (0..shape.len()).any(|axis| self.has_basis(shape, axis));
        // blocks have no more than two sizes along a dimension, and these two have all of them
        let (first, last) = (partition.tiles().next(), partition.tiles().next_back());
        let some = [first, last].iter().flatten().any(|tile| has_basis(tile.shape()));
        some.then_some(partition)
    }
}

impl<U: Rule<GroupState = ()>> MatrixMethod for Soap<U> {
    type Rule = SkipFirst<StepOnly<U>>;
    /// Its slots have the names of the blocks' slots, so that those need no list of their own.
    type Fallback = SkipFirst<U>;
    type Block<R: Real> = SoapBlock<R>;

    fn rule(&self) -> SkipFirst<StepOnly<U>> {
        self.delayed(StepOnly(self.inner.clone()))
    }

    fn fallback(&self) -> SkipFirst<U> {
        self.delayed(self.inner.clone())
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        of_entries(shape, self.batch_dims, |entry| self.cut(entry))
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| {
            let Self { storage, sides, max_dim, reshape, block_dim, .. } = method;
            let dims = (*max_dim, method.max_aspect, *block_dim, method.batch_dims);
            let numbers = (dims, method.precondition_1d, method.min_numel);
            (*storage, *sides, *reshape, numbers, method.ignored.clone())
        };
        layout(self) == layout(changed)
    }

    fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> SoapBlock<R> {
        SoapBlock::new(self, shape, storage)
    }

    fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<SoapBlock<R>> {
        SoapBlock::load(self, shape, storage, lookup)
    }

    fn extend<R: Real>(&self, block: &mut SoapBlock<R>, _: &[usize], storage: &Storage) {
        block.extend(self, storage);
    }

    fn precondition<R: Real>(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut SoapBlock<R>,
        direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        // the engine hands over row-major copies
        if let Some(gradient) = step.gradient.as_slice() {
            block.step(self, step.t, gradient, direction);
        }
        0.0
    }

    fn tolerated_failures(&self) -> u64 {
        self.tolerated_failures
    }
}
