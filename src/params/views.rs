//! Views of gradients: multiplied by a factor, or clamped.

use super::gradient::RowGradient;
use super::visitor::{GradVisitor, Gradients};
use crate::error::Error;

impl<T> Gradients<T> for RowGradient<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.rows(self);
    }
}

/// A view of gradients times a factor, `factor · g`; the gradients themselves do not change.
///
/// Clipping by norm, loss unscaling and averages are of this kind; the factor is applied inside the
/// update and costs no pass over memory.
///
/// # Examples
/// ```
/// use eigenstep::{params::Scaled, prelude::*};
/// use ndarray::array;
///
/// let (mut w, summed) = (array![1.0f64], array![8.0f64]); // the sum over four micro-batches
/// let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build()?;
/// opt.step(&mut w, &Scaled::new(0.25, &summed))?;
/// assert_eq!(w, array![0.8]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scaled<'g, G: ?Sized> {
    pub(crate) factor: f64,
    /// Whether every element of `inner` is known to be finite.
    pub(crate) finite: bool,
    pub(crate) inner: &'g G,
}

impl<'g, G: ?Sized> Scaled<'g, G> {
    /// `factor · inner`.
    pub fn new(factor: f64, inner: &'g G) -> Self {
        Self { factor, finite: false, inner }
    }

    /// The factor.
    pub fn factor(&self) -> f64 {
        self.factor
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Scaled<'_, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.known_finite(self.finite, |visitor| visitor.scaled(self.factor, self.inner));
    }
}

/// A view of clamped gradients, `min(max(g, -bound), bound)`; the gradients themselves do not change.
#[derive(Clone, Copy, Debug)]
pub struct Clamped<'g, G: ?Sized> {
    pub(crate) bound: f64,
    pub(crate) inner: &'g G,
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Clamped<'_, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        if self.bound.is_nan() || self.bound < 0.0 {
            let expected = "a number >= 0";
            visitor.refuse(Error::invalid("clip_grad_value", "clip_value", expected, self.bound));
        }
        visitor.clamped(self.bound, self.inner);
    }
}
