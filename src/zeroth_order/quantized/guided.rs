//! Random directions mixed with a given one.

use super::straight_through::StraightThrough;
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::state::StateBytes;
use crate::zeroth_order::directions::{DirectionKey, DirectionSampler, Directions, StepContext};
use crate::zeroth_order::estimator::Purpose;
use std::mem::replace;

/// Random numbers of mean 0 and variance 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum UnitNoise {
    /// Standard normal.
    Normal,
    /// The noise that matches a straight-through estimator; see [`StraightThrough::noise`].
    Matched(StraightThrough),
}

/// Random directions mixed with a given one: the directions of [`Fogzo`](crate::zeroth_order::Fogzo).
///
/// ```text
/// u = √β·s·ĝ + √(1 − β)·z        s = ±1, the same for all tensors of a direction; ‖ĝ‖ = 1 over all tensors
/// ```
/// Without a given direction, ĝ = 0.
///
/// # Source
/// A. Yang, T. Aamodt, "Improving the Straight-Through Estimator with Zeroth-Order Information", 2025.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Guided {
    /// The share `β` of the given direction, in `[0, 1]`.
    pub beta: f64,
    /// The distribution of z.
    pub noise: UnitNoise,
}
crate::config_file::named_fields!(Guided);

impl Default for Guided {
    fn default() -> Self {
        Self { beta: 0.999, noise: UnitNoise::Matched(StraightThrough::Identity) }
    }
}

impl Hyperparameters for Guided {
    const NAME: &'static str = "Guided";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        visitor(Hyper { name: "beta", range: Range::Unit, value: &mut self.beta });
    }
}

impl DirectionSampler for Guided {
    type Directions<R: Real> = GuidedDirections<R>;

    fn directions<R: Real>(&self) -> GuidedDirections<R> {
        GuidedDirections { sampler: *self, guide: Vec::new() }
    }
}

/// The directions of [`Guided`].
#[derive(Clone, Debug)]
pub struct GuidedDirections<R> {
    sampler: Guided,
    /// ĝ of every tensor; empty where it is 0.
    guide: Vec<Vec<R>>,
}

impl<R: Real> GuidedDirections<R> {
    /// Sets the share and the given direction, from the next step on. Returns those before.
    pub(super) fn follow(&mut self, beta: f64, guide: Vec<Vec<R>>) -> (f64, Vec<Vec<R>>) {
        (replace(&mut self.sampler.beta, beta), replace(&mut self.guide, guide))
    }
}

impl<R: Real> Directions<R> for GuidedDirections<R> {
    fn begin(&mut self, _context: &StepContext<'_, R>) -> Result<()> {
        Ok(())
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        let stream = key.stream(Purpose::Direction);
        match self.sampler.noise {
            UnitNoise::Normal => key.noise.normal(&stream, offset, out),
            UnitNoise::Matched(straight_through) => {
                with_scratch(out.len(), |uniform: &mut [f64]| {
                    key.noise.uniform(&stream, offset, uniform);
                    for (x, &mut p) in out.iter_mut().zip(uniform) {
                        *x = R::of(straight_through.noise(p));
                    }
                })
            }
        }
        let random = R::of((1.0 - self.sampler.beta).sqrt());
        out.iter_mut().for_each(|x| *x *= random);
        let guide = self.guide.get(key.tensor).and_then(|g| g.get(offset..)).unwrap_or_default();
        if guide.is_empty() {
            return;
        }
        let mut sign = [R::one()];
        let first = DirectionKey { tensor: 0, ..*key };
        key.noise.rademacher(&first.stream(Purpose::Sign), 0, &mut sign);
        let [sign] = sign;
        let share = R::of(self.sampler.beta.sqrt()) * sign;
        for (x, &g) in out.iter_mut().zip(guide) {
            *x += share * g;
        }
    }

    fn count(&self, bytes: &mut StateBytes) {
        bytes.add("guide", self.guide.iter().map(|g| size_of_val(&**g)).sum());
    }
}
