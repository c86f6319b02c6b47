//! One part of a model.

use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::params::Select;

/// Parameters, and what trains them.
pub(super) struct Part<T: Element> {
    pub select: Select,
    /// `None`: frozen.
    pub optimizer: Option<Box<dyn Optimizer<T>>>,
}

impl<T: Element> Part<T> {
    /// Number of groups; a frozen part has none.
    pub fn num_groups(&self) -> usize {
        self.optimizer.as_ref().map_or(0, |optimizer| optimizer.num_groups())
    }
}
