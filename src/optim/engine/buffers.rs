//! Memory that is kept from step to step.

use super::passes::{PassBuffers, TensorTask};
use crate::numeric::Element;
use crate::optim::method::{GradEntry, TensorMethod};
use crate::params::{GradBuffers, Manifest, ParamBuffers};

/// Allocations that are kept from step to step: a steady training loop allocates nothing.
pub(in crate::optim) struct Buffers<M: TensorMethod<T>, T: Element> {
    pub(super) params: (ParamBuffers<T>, Manifest),
    pub(super) grads: (GradBuffers<T>, Manifest),
    /// Row-major copies of strided leaves.
    pub(super) param_copies: Vec<Vec<T>>,
    pub(super) grad_copies: Vec<Vec<T>>,
    pub(super) curvature_copies: Vec<Vec<T>>,
    pub(super) flat: Vec<&'static mut [T]>,
    pub(super) work: Vec<TensorTask<'static, T, M::State>>,
    pub(super) parts: Vec<GradEntry<'static, T>>,
    pub(super) passes: PassBuffers<M, T>,
}

impl<M: TensorMethod<T>, T: Element> Default for Buffers<M, T> {
    fn default() -> Self {
        Self {
            params: Default::default(),
            grads: Default::default(),
            param_copies: Vec::new(),
            grad_copies: Vec::new(),
            curvature_copies: Vec::new(),
            flat: Vec::new(),
            work: Vec::new(),
            parts: Vec::new(),
            passes: PassBuffers::default(),
        }
    }
}
