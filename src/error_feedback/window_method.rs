//! The common part of all methods over a window of gradients: everything but their coefficients.

use super::memory::{WindowMemory, WindowOptions};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Real;
use crate::optim::{Elementwise, Layout, Rule, Scope, VectorMethod, VectorStep};
use crate::state::Lookup;

/// A method whose direction is `Σ cᵢgᵢ + s·v`, of the last gradients `gᵢ` and an average `v` of them.
///
/// The method computes the coefficients. Window, compression, error feedback, inner optimizer, state
/// and checkpoints are shared.
pub trait WindowMethod: Hyperparameters {
    /// The inner optimizer.
    type Base: Rule;

    /// The inner optimizer.
    fn base(&self) -> &Self::Base;

    /// The options of the window.
    fn window(&self) -> WindowOptions;

    /// The coefficients `c` of the gradients, by slot. The newest gradient is in the window already.
    ///
    /// # Errors
    /// [`Error::Decomposition`](crate::Error::Decomposition). The failure is counted, and the
    /// direction of this step is zero.
    fn coefficients<R: Real>(&self, memory: &mut WindowMemory<R>) -> Result<Vec<f64>>;
}

impl<W: WindowMethod> VectorMethod for W {
    type Inner = Elementwise<W::Base>;
    type Memory<R: Real> = WindowMemory<R>;

    fn inner(&self) -> Elementwise<W::Base> {
        Elementwise(self.base().clone())
    }

    fn scope(&self) -> Scope {
        self.window().scope
    }

    fn l2(&self) -> f64 {
        let decay = self.window().l2;
        // with `maximize` the direction changes its sign later
        if self.base().maximize() { -decay } else { decay }
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| {
            let WindowOptions { capacity, compression, averages, .. } = method.window();
            (capacity, compression, averages)
        };
        layout(self) == layout(changed)
    }

    fn check_layout(&self, layout: &Layout) -> Result<()> {
        self.window().compression.check_layout(Self::NAME, layout)
    }

    fn init<R: Real>(&self, layout: &Layout) -> WindowMemory<R> {
        WindowMemory::new(&self.window(), layout)
    }

    fn load<R: Real>(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<WindowMemory<R>> {
        WindowMemory::load(&self.window(), layout, lookup)
    }

    fn absorb<R: Real>(&self, step: &VectorStep<'_, R>, memory: &mut WindowMemory<R>) {
        memory.update(step);
        let coefficients = self.coefficients(memory);
        memory.set_coefficients(coefficients);
    }

    fn tolerated_failures(&self) -> u64 {
        self.window().tolerated_failures
    }
}
