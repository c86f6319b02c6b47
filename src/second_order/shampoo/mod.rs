//! Shampoo, with the options of its public implementations.

mod block;
mod config;
mod pipeline;

pub use block::ShampooBlock;
pub use config::Shampoo;
pub use pipeline::{Combination, Exponent, Exponents, GraftScope, Pipeline, Statistic};

use super::factor::FactorStorage;
use super::graft::{Graft, SLOT};
use super::reshape::of_entries;
use crate::error::Result;
use crate::numeric::Real;
use crate::optim::{BlockStep, GradEma, MatrixMethod, Partition, Rule, norm_squared};
use crate::state::{Lookup, Storage};
use ndarray::ArrayViewMutD;

impl<U> Shampoo<U> {
    /// The stabiliser of the length of every block, if that is what is grafted. The entries of a stack have
    /// nothing to do with one another, so that there is no length of the whole.
    fn grafts_blocks(&self) -> Option<f64> {
        match self.pipeline.graft_scope {
            _ if self.graft == Graft::None => None,
            GraftScope::Block => Some(1e-16),
            GraftScope::Tensor => (self.batch_dims > 0).then_some(1e-12),
        }
    }
}

impl<U: Rule> MatrixMethod for Shampoo<U> {
    type Rule = U;
    type Fallback = U;
    type Block<R: Real> = ShampooBlock<R>;

    fn rule(&self) -> U {
        self.inner.clone()
    }

    fn fallback(&self) -> U {
        self.inner.clone()
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        of_entries(shape, self.batch_dims, |entry| self.pipeline.partition(entry, self.max_dim))
    }

    fn block_slots(&self) -> &[&'static str] {
        self.graft.moment().map_or(&[], |_| &[SLOT])
    }

    fn grad_ema(&self) -> Option<GradEma> {
        let beta = self.filter_beta;
        (beta > 0.0).then(|| GradEma {
            slot: "filtered_grad",
            beta,
            weight: self.filter_weight.unwrap_or(beta),
            bias_correction: self.bias_correction,
        })
    }

    fn l2(&self) -> f64 {
        self.l2
    }

    fn grafts(&self, t: u64) -> bool {
        let whole = self.pipeline.graft_scope == GraftScope::Tensor && self.batch_dims == 0;
        whole && t >= self.start && self.graft != Graft::None
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| {
            let axes = (1..=8).flat_map(|order| (0..order).map(move |axis| (order, axis)));
            let has_factor = axes.map(|(order, axis)| method.exponents.of(order, axis) > 0.0);
            (
                (method.storage, method.max_dim, method.min_numel, method.pipeline.reshape),
                (method.max_aspect, method.batch_dims),
                (method.root.keeps_basis(), method.graft.moment().is_some()),
                method.filter_beta > 0.0,
                has_factor.collect::<Vec<_>>(),
            )
        };
        layout(self) == layout(changed)
    }

    fn init<R: Real>(&self, shape: &[usize], storage: &Storage) -> ShampooBlock<R> {
        ShampooBlock::new(self, shape, storage)
    }

    fn load<R: Real>(
        &self,
        shape: &[usize],
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<ShampooBlock<R>> {
        ShampooBlock::load(self, shape, storage, lookup)
    }

    fn precondition<R: Real>(
        &self,
        step: &BlockStep<'_, R>,
        block: &mut ShampooBlock<R>,
        mut direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        block.refresh(step, self);
        let preconditions = step.t >= self.start;
        let wanted = block.graft.step(&self.graft, step, &mut direction, !preconditions);
        if !preconditions {
            return wanted;
        }
        block.apply(self.combination, direction.view_mut());
        if let Some(tiny) = self.grafts_blocks() {
            let length = norm_squared(&direction.view()).sqrt();
            let ratio = R::of(wanted.sqrt() / (length + tiny));
            direction.mapv_inplace(|x| x * ratio);
        }
        wanted
    }

    fn cost(&self, t: u64, shape: &[usize]) -> f64 {
        let (factors_due, roots_due) = self.due(t);
        let numel = shape.iter().product::<usize>() as f64;
        let products = 2.0 * numel * shape.iter().sum::<usize>() as f64;
        let cubes: f64 = shape.iter().map(|&d| (d as f64).powi(3)).sum();
        let by_eigenvectors =
            matches!(self.storage, FactorStorage::Eigen | FactorStorage::QuantizedEigen { .. });
        let factors = products + if by_eigenvectors { 12.0 * cubes } else { 0.0 };
        let roots = if by_eigenvectors { 18.0 } else { 11.0 } * cubes;
        let if_due = |due, work| if due { work } else { 0.0 };
        products + if_due(factors_due, factors) + if_due(roots_due, roots)
    }

    fn tolerated_failures(&self) -> u64 {
        self.tolerated_failures
    }
}
