//! A gradient as methods see it: row-major, scaled, read piece by piece.

use crate::numeric::{Element, Real};
use crate::params::{Generate, RowGradient, scale_and_clamp};
use crate::tree::{load_generated, load_rows, load_slice};
use std::fmt::Debug;

/// A gradient as methods see it: row-major, whatever the user's layout.
#[derive(Clone, Copy, Debug)]
pub struct GradSlice<'u, T: Element> {
    /// Factor on every element.
    pub scale: f64,
    /// Elements are clamped to `[-bound, bound]` after scaling; infinite for no clamp.
    pub bound: f64,
    /// The element of the source that is the first one here.
    pub start: usize,
    /// The elements.
    pub source: GradSource<'u, T>,
}

/// Where the elements of a gradient come from.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum GradSource<'u, T: Element> {
    /// A row-major slice.
    Dense(&'u [T]),
    /// Some rows; the others are zero.
    Rows(&'u RowGradient<T>),
    /// Produced on demand.
    Generated(&'u dyn Generate<T>),
    /// A direction that replaces the gradient, in the arithmetic type.
    Direction(&'u [T::Compute]),
    /// A direction that is computed on demand; the tensor begins at this element of it.
    Computed(&'u dyn Direction<T::Compute>, usize),
}

/// A vector that is computed piece by piece where it is used, and so needs no memory.
pub trait Direction<R>: Debug + Sync {
    /// Writes the elements `offset .. offset + out.len()`. They are 0 before.
    fn compute(&self, offset: usize, out: &mut [R]);
}

impl<'u, T: Element> GradSlice<'u, T> {
    /// The elements as they are.
    pub(in crate::optim) fn plain(source: GradSource<'u, T>) -> Self {
        Self { scale: 1.0, bound: f64::INFINITY, start: 0, source }
    }

    /// The elements from `start` on.
    pub(in crate::optim) fn from(self, start: usize) -> Self {
        Self { start: self.start + start, ..self }
    }
}

impl<T: Element> GradSlice<'_, T> {
    /// The unscaled elements `offset .. offset + len`, if they can be read in place.
    #[inline]
    pub fn in_place(&self, offset: usize, len: usize) -> Option<&[T::Compute]> {
        let offset = self.start + offset;
        match self.source {
            GradSource::Dense(g) if self.bound == f64::INFINITY => {
                T::as_compute(g)?.get(offset..offset + len)
            }
            GradSource::Direction(u) if self.bound == f64::INFINITY => u.get(offset..offset + len),
            _ => None,
        }
    }

    /// Writes the elements `offset .. offset + out.len()`, scaled and clamped.
    pub fn load(&self, offset: usize, out: &mut [T::Compute]) {
        let offset = self.start + offset;
        match self.source {
            GradSource::Dense(g) => load_slice(g, offset, out),
            GradSource::Direction(u) => {
                for (x, &u) in out.iter_mut().zip(u.get(offset..).unwrap_or_default()) {
                    *x = u;
                }
            }
            GradSource::Computed(direction, base) => {
                // lent memory: what the method leaves out must not be what another one has left
                out.fill(T::Compute::default());
                direction.compute(base + offset, out);
            }
            GradSource::Rows(rows) => load_rows(rows, offset, out),
            GradSource::Generated(generator) => load_generated(generator, offset, out),
        }
        scale_and_clamp(self.scale, self.bound, out);
    }
}

/// The gradient of a loss with L2 regularisation: `g + λp`.
#[derive(Clone, Copy, Debug)]
pub struct RegularizedGrad<'u, T: Element> {
    pub(in crate::optim) grad: GradSlice<'u, T>,
    /// The parameter.
    pub(in crate::optim) param: &'u [T],
    /// `λ`.
    pub(in crate::optim) decay: T::Compute,
}

impl<T: Element> RegularizedGrad<'_, T> {
    /// Writes the elements `offset .. offset + out.len()`.
    pub(in crate::optim) fn load(&self, offset: usize, out: &mut [T::Compute]) {
        self.grad.load(offset, out);
        // without decay the parameter is not read: zero times infinity is NaN
        if self.decay != T::Compute::of(0.0) {
            for (g, p) in out.iter_mut().zip(self.param.get(offset..).unwrap_or_default()) {
                *g += self.decay * p.load();
            }
        }
    }
}
