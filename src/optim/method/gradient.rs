//! A gradient as methods see it: row-major, scaled, read piece by piece.

use crate::numeric::{Element, Real};
use crate::params::{Generate, RowGradient};
use std::fmt::Debug;

/// A gradient as methods see it: row-major, whatever the user's layout.
#[derive(Clone, Copy, Debug)]
pub struct GradSlice<'u, T: Element> {
    /// Factor on every element.
    pub scale: f64,
    /// Elements are clamped to `[-bound, bound]` after scaling; infinite for no clamp.
    pub bound: f64,
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
    /// Writes the elements `offset .. offset + out.len()`.
    fn compute(&self, offset: usize, out: &mut [R]);
}

impl<T: Element> GradSlice<'_, T> {
    /// The unscaled elements `offset .. offset + len`, if they can be read in place.
    #[inline]
    pub fn in_place(&self, offset: usize, len: usize) -> Option<&[T::Compute]> {
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
        match self.source {
            GradSource::Dense(g) => {
                for (x, g) in out.iter_mut().zip(g.get(offset..).unwrap_or_default()) {
                    *x = g.load();
                }
            }
            GradSource::Direction(u) => {
                for (x, &u) in out.iter_mut().zip(u.get(offset..).unwrap_or_default()) {
                    *x = u;
                }
            }
            GradSource::Computed(direction, base) => direction.compute(base + offset, out),
            GradSource::Rows(rows) => {
                out.fill(T::Compute::of(0.0));
                rows.scatter(offset, out.len(), |i, g| {
                    if let Some(x) = out.get_mut(i) {
                        *x += g.load();
                    }
                });
            }
            GradSource::Generated(generator) => match T::from_compute_mut(out) {
                Some(out) => generator.fill(offset, out),
                None => {
                    let mut block = [T::default(); 256];
                    for (part, xs) in out.chunks_mut(block.len()).enumerate() {
                        let block = block.get_mut(..xs.len()).unwrap_or_default();
                        generator.fill(offset + part * 256, block);
                        xs.iter_mut().zip(block).for_each(|(x, g)| *x = g.load());
                    }
                }
            },
        }
        if self.scale == 1.0 && self.bound == f64::INFINITY {
            return;
        }
        let (scale, bound) = (T::Compute::of(self.scale), T::Compute::of(self.bound));
        for x in out {
            let scaled = *x * scale;
            // comparisons keep a NaN as it is
            *x = if scaled > bound {
                bound
            } else if scaled < -bound {
                -bound
            } else {
                scaled
            };
        }
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
