//! The directions of a step and their slopes: all that an estimate along directions is made of.

use super::estimate::Slices;
use super::law::{Directions, Law, Query, Slopes};
use super::noise::Noise;
use crate::kernel::scratch::with_scratch;
use crate::kernel::{Isa, Kernel};
use crate::numeric::Real;

/// The directions of a step and their slopes.
#[derive(Debug)]
pub(super) struct Rays<R: Real, L: Law> {
    pub directions: L::Directions<R>,
    pub noise: Box<dyn Noise<R>>,
    pub step: u64,
    pub queries: u32,
    /// Perturbation size of every tensor.
    pub epsilons: Vec<f64>,
    /// See [`Slopes`].
    pub differences: Vec<f64>,
    pub second_differences: Vec<f64>,
    pub divided: bool,
    /// Tensors that take part; all if empty.
    pub active: Vec<bool>,
}

impl<R: Real, L: Law> Rays<R, L> {
    pub fn query(&self, query: u32, tensor: usize) -> Query<'_, R> {
        Query { noise: &*self.noise, step: self.step, query, tensor }
    }

    pub fn slopes(&self) -> Slopes<'_> {
        Slopes {
            epsilons: &self.epsilons,
            differences: &self.differences,
            second_differences: &self.second_differences,
            divided: self.divided,
            active: &self.active,
        }
    }

    pub fn takes_part(&self, tensor: usize) -> bool {
        self.active.get(tensor).copied().unwrap_or(true)
    }
}

impl<R: Real, L: Law> Slices<R> for Rays<R, L> {
    fn slice(&self, tensor: usize, offset: usize, out: &mut [R]) {
        let scale = self.directions.scale(tensor);
        if self.directions.own_estimate(tensor, offset, out) {
            out.iter_mut().for_each(|x| *x *= R::of(scale));
            return;
        }
        let weight = |query: u32| scale * self.slopes().weight(tensor, query as usize);
        if self.queries == 1 {
            self.directions.update(&self.query(0, tensor), offset, out);
            Isa::detect().run(Scale { factor: R::of(weight(0)), out });
            return;
        }
        with_scratch(out.len(), |sum: &mut [f64]| {
            sum.fill(0.0);
            for query in 0..self.queries {
                let weight = weight(query);
                if weight == 0.0 {
                    continue;
                }
                self.directions.update(&self.query(query, tensor), offset, out);
                for (sum, &mut x) in sum.iter_mut().zip(out.iter_mut()) {
                    *sum += weight * x.widen();
                }
            }
            for (x, &mut sum) in out.iter_mut().zip(sum) {
                *x = R::of(sum);
            }
        });
    }

    fn takes_part(&self, tensor: usize) -> bool {
        Rays::takes_part(self, tensor)
    }

    fn is_finite(&self) -> bool {
        let total = |tensor| -> f64 {
            let weight = |query| self.slopes().weight(tensor, query).abs();
            self.directions.scale(tensor).abs()
                * (0..self.differences.len()).map(weight).sum::<f64>()
        };
        let largest = (0..self.epsilons.len()).map(total).fold(0.0, f64::max);
        let bound = self.directions.bound();
        bound.is_some_and(|bound| bound * largest < 0.5 * R::max_value().widen())
    }
}

/// `out = factor·out`.
struct Scale<'a, R> {
    factor: R,
    out: &'a mut [R],
}

impl<R: Real> Kernel for Scale<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for x in self.out {
            *x *= self.factor;
        }
    }
}

/// `out = before + step·direction`.
pub(super) struct Perturb<'a, R> {
    pub before: &'a [R],
    pub step: R,
    pub direction: &'a [R],
    pub out: &'a mut [R],
}

impl<R: Real> Kernel for Perturb<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((x, &before), &u) in self.out.iter_mut().zip(self.before).zip(self.direction) {
            *x = before + self.step * u;
        }
    }
}
