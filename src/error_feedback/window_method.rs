//! What methods over a window of gradients share: everything but their coefficients.

use super::memory::{WindowMemory, WindowOptions};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Real;
use crate::optim::{Elementwise, Layout, Rule, Scope, VectorMethod, VectorStep};
use crate::state::Lookup;

/// A method whose direction is `Σ cᵢgᵢ` over the last gradients, `+ s·v` for an average `v` of them.
///
/// It needs its coefficients; window, compression, feedback, base rule, state and files are shared.
pub trait WindowMethod: Hyperparameters {
    /// What is done with the direction.
    type Base: Rule;

    /// What is done with the direction.
    fn base(&self) -> &Self::Base;

    /// The window.
    fn window(&self) -> WindowOptions;

    /// The coefficients `c` of the gradients in their slots, after the newest was stored.
    ///
    /// # Errors
    /// [`Error::Decomposition`](crate::Error::Decomposition); then nothing moves, and it is counted.
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

    fn gradient_decay(&self) -> f64 {
        let decay = self.window().gradient_decay;
        // an ascent turns the direction later
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
