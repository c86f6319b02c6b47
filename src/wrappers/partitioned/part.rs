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
