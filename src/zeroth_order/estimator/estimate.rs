//! What an estimator returns: a gradient whose elements are computed where they are used.

use super::snapshot::ParamSnapshot;
use crate::error::Result;
use crate::kernel::scratch::with_scratch;
use crate::numeric::{Element, Real};
use crate::params::{Generate, GradVisitor, Gradients, Parameters, recycle};
use std::fmt::Debug;
use std::mem::take;
use std::sync::{Mutex, PoisonError};

/// An estimate of which any piece can be computed.
pub(in crate::zeroth_order) trait Slices<R>: Sync + Debug {
    /// Writes the elements `offset .. offset + out.len()` of a tensor.
    fn slice(&self, tensor: usize, offset: usize, out: &mut [R]);
    /// Whether the tensor takes part.
    fn takes_part(&self, tensor: usize) -> bool;
    /// A magnitude that no element of a tensor exceeds, if one is known.
    fn bound(&self, tensor: usize) -> Option<f64>;
}

/// The losses and coefficients of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Number of the step, from 0.
    pub step: u64,
    /// The loss at the unperturbed parameters if it was evaluated, else the mean over the probes.
    pub loss: f64,
    /// The loss of every probe, in order.
    pub losses: Vec<f64>,
    /// The derivative along every direction, or of every coordinate; 0 where a loss was not finite and was
    /// skipped.
    pub coefficients: Vec<f64>,
    /// Whether no usable loss was left. The estimate then has no gradients, and the optimizer changes
    /// nothing.
    pub skipped: bool,
}

impl Report {
    /// Number of evaluations.
    pub fn evaluations(&self) -> usize {
        self.losses.len()
    }

    /// Number of losses that were NaN or infinite.
    pub fn non_finite(&self) -> usize {
        self.losses.iter().filter(|loss| !loss.is_finite()).count()
    }
}

/// A gradient estimated from losses: a tree of gradients for
/// [`Optimizer::step`](crate::optim::Optimizer::step).
///
/// No tensor is stored. Directions are drawn again where the optimizer uses them. A piece has the same
/// bits at any time and on any thread.
#[derive(Debug)]
pub struct Estimate<'e, T: Element> {
    report: &'e Report,
    slices: &'e dyn Slices<T::Compute>,
    snapshot: &'e ParamSnapshot<T>,
    leaves: Vec<Leaf<'e, T>>,
    /// Takes the memory of the leaves back.
    pool: &'e LeafPool<T>,
}

/// Keeps the memory of the leaves between two estimates.
#[derive(Debug)]
pub(super) struct LeafPool<T: Element>(Mutex<Vec<Leaf<'static, T>>>);

impl<T: Element> Default for LeafPool<T> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T: Element> LeafPool<T> {
    fn exchange(&self, leaves: Vec<Leaf<'static, T>>) -> Vec<Leaf<'static, T>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, leaves)
    }
}

impl<'e, T: Element> Estimate<'e, T> {
    pub(super) fn new(
        report: &'e Report,
        slices: &'e dyn Slices<T::Compute>,
        snapshot: &'e ParamSnapshot<T>,
        pool: &'e LeafPool<T>,
    ) -> Self {
        let mut leaves: Vec<Leaf<'e, T>> = recycle(pool.exchange(Vec::new()));
        let segments = snapshot.layout.segments().iter().enumerate();
        leaves.extend(segments.map(|(tensor, s)| Leaf { slices, tensor, shape: &s.shape }));
        Self { report, slices, snapshot, leaves, pool }
    }

    /// The losses and coefficients of the step.
    pub fn report(&self) -> &'e Report {
        self.report
    }

    /// Writes the elements `offset .. offset + out.len()` of the tensor number `tensor`, in the order of
    /// the tree.
    pub fn fill(&self, tensor: usize, offset: usize, out: &mut [T::Compute]) {
        self.slices.slice(tensor, offset, out);
    }
}

impl<T: Element> Estimate<'_, T> {
    /// Sets the parameters to those before the step plus `scale` times the estimate. Needs the copy of the
    /// estimator.
    pub(super) fn write_moved(&self, scale: f64, params: &mut dyn Parameters<T>) -> Result<()> {
        self.snapshot.write("Estimate", params, |tensor, offset, before, out| {
            out.copy_from_slice(before);
            if scale != 0.0 && self.slices.takes_part(tensor) {
                with_scratch(out.len(), |estimate| {
                    self.slices.slice(tensor, offset, estimate);
                    for (x, &mut u) in out.iter_mut().zip(estimate) {
                        *x += T::Compute::of(scale) * u;
                    }
                });
            }
        })
    }
}

impl<T: Element> Drop for Estimate<'_, T> {
    fn drop(&mut self) {
        self.pool.exchange(recycle(take(&mut self.leaves)));
    }
}

impl<T: Element> Gradients<T> for Estimate<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        if self.report.skipped {
            return;
        }
        visitor.loss(self.report.loss);
        for (leaf, segment) in self.leaves.iter().zip(self.snapshot.layout.segments()) {
            if self.slices.takes_part(leaf.tensor) {
                visitor.child(&segment.name, leaf);
            }
        }
    }
}

/// One tensor of an estimate.
#[derive(Debug)]
struct Leaf<'e, T: Element> {
    slices: &'e dyn Slices<T::Compute>,
    tensor: usize,
    shape: &'e [usize],
}

impl<T: Element> Generate<T> for Leaf<'_, T> {
    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn fill(&self, offset: usize, out: &mut [T]) {
        if let Some(out) = T::as_compute_mut(out) {
            return self.slices.slice(self.tensor, offset, out);
        }
        with_scratch(out.len(), |values| {
            self.slices.slice(self.tensor, offset, values);
            for (to, &mut from) in out.iter_mut().zip(values) {
                *to = T::store(from);
            }
        });
    }

    fn bound(&self) -> Option<f64> {
        self.slices.bound(self.tensor)
    }

    fn writes_all(&self) -> bool {
        true
    }
}

impl<T: Element> Gradients<T> for Leaf<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.generated(self);
    }
}
