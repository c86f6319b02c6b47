//! Directions of independent random numbers.

use super::sampler::{DirectionKey, DirectionSampler, Directions, StepContext};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters};
use crate::kernel::parallel::sum_pieces;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::numeric::reduce::sum_of_squares;
use crate::zeroth_order::estimator::Purpose;

/// Directions of independent random numbers.
///
/// | variant | u | factor a | variance of the estimate with one direction |
/// |---|---|---|---|
/// | `Rademacher` | signs: ±1, each with probability 1/2 | 1 | (d − 1)·‖g‖² |
/// | `Gaussian` | standard normal | 1 | (d + 1)·‖g‖² |
/// | `Sphere` | uniform on the sphere `‖u‖ = 1` of all tensors together | d | (d − 1)·‖g‖² |
/// | `ScaledSphere` | the same with `‖u‖ = √d` | 1 | (d − 1)·‖g‖² |
/// | `BlockSphere` | `‖u_k‖ = 1` for every tensor k | d_k | |
///
/// d is the number of elements of all tensors, and d_k that of tensor k. Signs have the least variance
/// and are by far the cheapest.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Random, Spsa}};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 2.0];
/// let config = Spsa { sampler: Random::Gaussian, num_samples: 4, ..Spsa::default() };
/// let mut estimator = config.build::<f64>()?;
/// let estimate = estimator.estimate(&mut w, |w| w[0] * w[0] + w[1])?;
/// assert_eq!(estimate.report().evaluations(), 8);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. C. Spall, "Multivariate Stochastic Approximation Using a Simultaneous Perturbation Gradient
/// Approximation", 1992; Y. Nesterov, V. Spokoiny, "Random Gradient-Free Minimization of Convex
/// Functions", 2017; `BlockSphere`: A. Chen et al., "DeepZero: Scaling up Zeroth-Order Optimization for
/// Deep Model Training", 2024, whose code has no factor a.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Random {
    /// Signs.
    #[default]
    Rademacher,
    /// Standard normal numbers.
    Gaussian,
    /// A point on the unit sphere of all tensors together.
    Sphere,
    /// A point on the sphere of radius √d.
    ScaledSphere,
    /// A point on a unit sphere for every tensor. Its length is increased by 1e-8 before the division.
    BlockSphere,
}

impl Hyperparameters for Random {
    const NAME: &'static str = "Random";

    fn visit_options(&mut self, _visitor: &mut dyn FnMut(Hyper<'_>)) {}
}

impl DirectionSampler for Random {
    type Directions<R: Real> = RandomDirections;

    fn directions<R: Real>(&self) -> RandomDirections {
        RandomDirections { sampler: *self, inverses: Vec::new(), scales: Vec::new() }
    }
}

impl Random {
    /// A piece of a direction before it is scaled to its length.
    pub(in crate::zeroth_order) fn draw<R: Real>(
        self,
        key: &DirectionKey<'_, R>,
        offset: usize,
        out: &mut [R],
    ) {
        let stream = key.stream(Purpose::Direction);
        match self {
            Random::Rademacher => key.noise.rademacher(&stream, offset, out),
            _ => key.noise.normal(&stream, offset, out),
        }
    }
}

/// The directions of [`Random`].
#[derive(Clone, Debug)]
pub struct RandomDirections {
    sampler: Random,
    /// The factors of directions, `[query][tensor]`; empty if directions are not scaled.
    inverses: Vec<f64>,
    /// The factors of tensors in the estimate; empty if all are 1.
    scales: Vec<f64>,
}

impl RandomDirections {
    /// The factor that gives a tensor's part of a direction its length, if there is one.
    pub(super) fn inverse(&self, tensor: usize, query: u32) -> Option<f64> {
        self.inverses.get(query as usize * self.scales.len() + tensor).copied()
    }
}

/// Elements whose squares are summed at once.
const PIECE: usize = 1 << 14;

/// The squared length of the normal direction of one tensor. The order of the sum depends on `numel` alone.
fn square<R: Real>(key: &DirectionKey<'_, R>, numel: usize) -> f64 {
    let stream = key.stream(Purpose::Direction);
    sum_pieces(numel, PIECE, |offset, len| {
        with_scratch(len, |z: &mut [R]| {
            key.noise.normal(&stream, offset, z);
            sum_of_squares(z)
        })
    })
}

impl<R: Real> Directions<R> for RandomDirections {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let segments = context.layout.segments();
        let numel = context.layout.numel() as f64;
        self.scales.clear();
        self.scales.extend(segments.iter().map(|segment| match self.sampler {
            Random::Sphere => numel,
            Random::BlockSphere => segment.numel() as f64,
            _ => 1.0,
        }));
        self.inverses.clear();
        if matches!(self.sampler, Random::Rademacher | Random::Gaussian) {
            return Ok(());
        }
        for query in 0..context.queries {
            let start = self.inverses.len();
            self.inverses.extend(segments.iter().enumerate().map(|(tensor, segment)| {
                let key = DirectionKey { noise: context.noise, step: context.step, query, tensor };
                square(&key, segment.numel())
            }));
            let squares = self.inverses.get_mut(start..).unwrap_or_default();
            let total: f64 = squares.iter().sum();
            let inverse = |length: f64| if length > 0.0 { 1.0 / length } else { 0.0 };
            for x in squares {
                *x = match self.sampler {
                    Random::BlockSphere => inverse(x.sqrt() + 1e-8),
                    Random::ScaledSphere => numel.sqrt() * inverse(total.sqrt()),
                    _ => inverse(total.sqrt()),
                };
            }
        }
        Ok(())
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        self.sampler.draw(key, offset, out);
        if let Some(inverse) = self.inverse(key.tensor, key.query) {
            for x in out {
                *x *= R::of(inverse);
            }
        }
    }

    fn scale(&self, tensor: usize) -> f64 {
        self.scales.get(tensor).copied().unwrap_or(1.0)
    }

    fn bound(&self) -> Option<f64> {
        // a Box-Muller number from 53 bits is below 8.7
        match self.sampler {
            Random::Rademacher => Some(1.0),
            Random::ScaledSphere => None,
            _ => Some(9.0),
        }
    }
}
