//! One part of a model.

use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::params::Select;

/// Parameters, and what trains them.
pub(super) struct Part<T: Element> {
    pub select: Select,
    /// `None`: frozen.
    pub optimizer: Option<Box<dyn Optimizer<T>>>,
    /// A tree had parameters of it.
    pub seen: bool,
}

impl<T: Element> Part<T> {
    /// Whether a tree without any parameter of this part is no mistake: they are frozen.
    pub fn may_be_empty(&self) -> bool {
        let with_state = |part: &dyn Optimizer<T>| !part.parameters_with_state().is_empty();
        self.seen || self.select.is_optional() || self.optimizer.as_deref().is_some_and(with_state)
    }

    /// Number of groups; a frozen part has none.
    pub fn num_groups(&self) -> usize {
        self.optimizer.as_ref().map_or(0, |optimizer| optimizer.num_groups())
    }
}
