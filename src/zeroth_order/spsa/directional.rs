//! The directions of a step and the derivatives along them, of which the estimate is made.

use crate::kernel::scratch::with_scratch;
use crate::kernel::{Isa, Kernel};
use crate::numeric::Real;
use crate::zeroth_order::directions::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions,
};
use crate::zeroth_order::estimator::{Noise, Slices};

/// The directions of a step and the derivatives along them.
#[derive(Debug)]
pub(super) struct DirectionalEstimate<R: Real, S: DirectionSampler> {
    pub directions: S::Directions<R>,
    pub noise: Box<dyn Noise<R>>,
    /// Whether the directions have begun the step.
    pub begun: bool,
    pub step: u64,
    pub queries: u32,
    pub derivatives: DirectionalDerivatives,
}

impl<R: Real, S: DirectionSampler> DirectionalEstimate<R, S> {
    pub fn key(&self, query: u32, tensor: usize) -> DirectionKey<'_, R> {
        DirectionKey { noise: &*self.noise, step: self.step, query, tensor }
    }

    /// Writes a piece of the direction of a perturbation.
    pub fn probe(&self, tensor: usize, query: u32, offset: usize, out: &mut [R]) {
        self.directions.probe(&self.key(query, tensor), offset, self.cleared(out));
    }

    /// Writes a piece of a direction in the estimate.
    fn update(&self, tensor: usize, query: u32, offset: usize, out: &mut [R]) {
        self.directions.update(&self.key(query, tensor), offset, self.cleared(out));
    }

    /// Memory of any content as directions are promised to find it.
    fn cleared<'o>(&self, out: &'o mut [R]) -> &'o mut [R] {
        if !self.directions.writes_all() {
            out.fill(R::zero());
        }
        out
    }

    /// The weight of a direction in a tensor's estimate.
    fn weight(&self, tensor: usize, query: u32) -> f64 {
        self.directions.scale(tensor) * self.derivatives.weight(tensor, query as usize)
    }

    /// Writes a piece of one direction's part of the estimate.
    pub fn contribution(&self, tensor: usize, query: u32, offset: usize, out: &mut [R]) {
        self.update(tensor, query, offset, out);
        Isa::detect().run(Scale { factor: R::of(self.weight(tensor, query)), out });
    }
}

impl<R: Real, S: DirectionSampler> Slices<R> for DirectionalEstimate<R, S> {
    fn slice(&self, tensor: usize, offset: usize, out: &mut [R]) {
        if self.directions.own_estimate(&self.key(0, tensor), offset, self.cleared(out)) {
            let factor = R::of(self.directions.scale(tensor));
            return Isa::detect().run(Scale { factor, out });
        }
        if self.queries == 1 {
            return self.contribution(tensor, 0, offset, out);
        }
        with_scratch(out.len(), |sum: &mut [f64]| {
            sum.fill(0.0);
            for query in 0..self.queries {
                let weight = self.weight(tensor, query);
                if weight == 0.0 {
                    continue;
                }
                self.update(tensor, query, offset, out);
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
        self.derivatives.takes_part(tensor)
    }

    fn bound(&self, tensor: usize) -> Option<f64> {
        let total: f64 = (0..self.queries).map(|query| self.weight(tensor, query).abs()).sum();
        // twice, for what rounding adds
        Some(2.0 * self.directions.bound()? * total)
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
