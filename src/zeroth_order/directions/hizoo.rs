//! Directions that are scaled by an estimate of the curvature.

use super::sampler::{
    DirectionKey, DirectionSampler, DirectionalDerivatives, Directions, StepContext,
};
use crate::error::{Error, Result};
use crate::hyperparameters;
use crate::kernel::parallel::for_each_piece;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::{Layout, Segment};
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use crate::zeroth_order::estimator::Purpose;
use std::sync::atomic::{AtomicBool, Ordering};

/// HiZOO: Gaussian directions, divided by the square root of an estimate of the Hessian's diagonal.
///
/// ```text
/// u = z/√h                                                        z ~ N(0, I), h = 1 at first
/// Δ = f(p + εu) + f(p − εu) − 2f(p)
/// h ← (1 − α)h + α·|Δ|/(2ε²)·h⊙z²                centered: α·Δ/(2ε²)·h⊙(z² − 1)
/// v = z/√h                                                        with the new h
/// ```
/// h stays between 1e-12 and the largest number of its type. With several directions the terms are averaged.
/// On a quadratic at h = 1, the mean of the published term is `H_jj + ½ tr H`; the mean of the centered term is `H_jj`. Second differences at ε = 1e-3 need
/// losses in `f64`.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `alpha` α | 1e-8 | README of the authors' code, whose script has 0 |
/// | `centered` | false | – |
///
/// State: `hessian` (h), 4 bytes per `f32` parameter, and with α > 0 as many for the h before the step, to which
/// a step that fails returns.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Hizoo, Spsa}};
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0];
/// let sampler = Hizoo { alpha: 0.1, ..Hizoo::default() };
/// let mut estimator = Spsa { epsilon: 1e-3, ..Spsa::with_sampler(sampler) }.build::<f64>()?;
/// let mut opt = Sgd { lr: 0.3, ..Sgd::default() }.build()?;
/// for _ in 0..200 {
///     let estimate = estimator.estimate(&mut w, |w| 10.0 * w[0] * w[0] + 0.1 * w[1] * w[1])?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(w.iter().all(|x| x.abs() < 0.9), "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Y. Zhao, S. Dang, H. Ye, G. Dai, Y. Qian, I. W. Tsang, "Second-Order Fine-Tuning without Pain for
/// LLMs: A Hessian Informed Zeroth-Order Optimizer", 2025.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Hizoo {
    /// The weight of the newest curvature, in `[0, 1]`.
    pub alpha: f64,
    /// Whether the centered term is used, which is unbiased.
    pub centered: bool,
}
crate::config_file::named_fields!(Hizoo);

impl Default for Hizoo {
    fn default() -> Self {
        Self { alpha: 1e-8, centered: false }
    }
}

hyperparameters!(Hizoo, "Hizoo", {
    "alpha": Unit = alpha;
    "centered": Flag = centered;
});

impl DirectionSampler for Hizoo {
    type Directions<R: Real> = HizooDirections<R>;

    fn directions<R: Real>(&self) -> HizooDirections<R> {
        HizooDirections { config: *self, hessian: Vec::new(), before: Vec::new(), observed: false }
    }
}

/// The directions of [`Hizoo`].
#[derive(Clone, Debug)]
pub struct HizooDirections<R> {
    config: Hizoo,
    /// h of every tensor.
    hessian: Vec<Vec<R>>,
    /// h before the step; its memory takes the next h.
    before: Vec<Vec<R>>,
    /// Whether the step has learnt: `before` is what `hessian` was.
    observed: bool,
}

/// The smallest h.
const FLOOR: f64 = 1e-12;

impl<R: Real> Directions<R> for HizooDirections<R> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let segments = context.layout.segments();
        if self.hessian.len() != segments.len() {
            self.hessian = segments.iter().map(|s| vec![R::one(); s.numel()]).collect();
        }
        self.observed = false;
        Ok(())
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        key.noise.normal(&key.stream(Purpose::Direction), offset, out);
        let h = self.hessian.get(key.tensor).and_then(|h| h.get(offset..)).unwrap_or_default();
        for (x, &h) in out.iter_mut().zip(h) {
            *x /= h.sqrt();
        }
    }

    fn needs_centre(&self) -> bool {
        true
    }

    fn observe(
        &mut self,
        context: &StepContext<'_, R>,
        derivatives: &DirectionalDerivatives,
    ) -> Result<()> {
        if self.config.alpha == 0.0 {
            return Ok(());
        }
        self.before.resize_with(self.hessian.len(), Vec::new);
        let finite = AtomicBool::new(true);
        for (tensor, (h, next)) in self.hessian.iter().zip(&mut self.before).enumerate() {
            next.clone_from(h);
            if !derivatives.takes_part(tensor) {
                continue;
            }
            for_each_piece(next, 1 << 12, |offset, h| {
                if !learn(self.config, (context, derivatives), (tensor, offset), h) {
                    finite.store(false, Ordering::Relaxed);
                }
            });
        }
        if !finite.into_inner() {
            let what = "the estimate of the Hessian's diagonal";
            return Err(Error::NonFinite { what, value: f64::INFINITY });
        }
        std::mem::swap(&mut self.hessian, &mut self.before);
        self.observed = true;
        Ok(())
    }

    fn undo(&mut self) {
        if std::mem::take(&mut self.observed) {
            std::mem::swap(&mut self.hessian, &mut self.before);
        }
    }

    fn count(&self, bytes: &mut StateBytes) {
        let held = self.hessian.iter().chain(&self.before);
        bytes.add("hessian", held.map(|h| size_of_val(&**h)).sum());
    }

    fn save(&self, record: &mut Record<'_>) {
        for (tensor, h) in self.hessian.iter().enumerate() {
            record.tensor(&format!("hessian.{tensor}"), StateTensor::new(&[h.len()], h));
        }
    }

    fn load(&mut self, layout: &Layout, lookup: &Lookup<'_>) -> Result<()> {
        let read = |(tensor, segment): (usize, &Segment)| {
            let name = format!("hessian.{tensor}");
            let h: Vec<R> = lookup.values(&name, &[segment.numel()])?;
            match h.iter().all(|&h| h > R::zero() && h.is_finite()) {
                true => Ok(h),
                false => Err(lookup.problem(&name, "holds something that is not finite and > 0")),
            }
        };
        self.hessian = layout.segments().iter().enumerate().map(read).collect::<Result<_>>()?;
        (self.before, self.observed) = (Vec::new(), false);
        Ok(())
    }
}

/// Takes the second differences into one piece of h. Returns whether it is finite.
fn learn<R: Real>(
    Hizoo { alpha, centered }: Hizoo,
    (context, derivatives): (&StepContext<'_, R>, &DirectionalDerivatives),
    (tensor, offset): (usize, usize),
    h: &mut [R],
) -> bool {
    let epsilon = derivatives.epsilon(tensor);
    let mut terms = vec![0.0; h.len()];
    for (query, second) in (0..).zip(&derivatives.second_differences) {
        let curvature = second / (2.0 * epsilon * epsilon);
        let key = DirectionKey { noise: context.noise, step: context.step, query, tensor };
        with_scratch(h.len(), |z: &mut [R]| {
            context.noise.normal(&key.stream(Purpose::Direction), offset, z);
            for (term, z) in terms.iter_mut().zip(z) {
                let square = z.widen() * z.widen();
                *term += match centered {
                    true => curvature * (square - 1.0),
                    false => curvature.abs() * square,
                };
            }
        });
    }
    let mut finite = true;
    for (h, term) in h.iter_mut().zip(terms) {
        let old = h.widen();
        let new = (1.0 - alpha) * old + alpha * term * old;
        finite &= new.is_finite();
        *h = R::of(new.clamp(FLOOR, R::max_value().widen()));
    }
    finite
}
