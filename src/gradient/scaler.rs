//! Loss scaling for gradients in half precision.

use super::norm::total_norm;
use crate::error::{Error, Result};
use crate::hyper::{Hyperparameters, Range};
use crate::numeric::range::HARMLESS;
use crate::numeric::{Element, Real};
use crate::optim::Optimizer;
use crate::params::{GradVisitor, Gradients, Parameters, Scaled};
use crate::state::{Scalar, StateDict, StateReader};
use num_traits::Float;

/// Options of a [`GradScaler`].
///
/// | field | default, PyTorch's | |
/// |---|---|---|
/// | `init_scale` | 65536 | > 0 |
/// | `growth_factor` | 2 | > 1 |
/// | `backoff_factor` | 0.5 | in [0, 1) |
/// | `growth_interval` | 2000 | steps without overflow until the scale grows, ≥ 1 |
/// | `min_scale` | 2⁻²⁴, PyTorch has none | ≥ 0; what the scale does not fall below |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct LossScaling {
    /// First scale.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub init_scale: f64,
    /// Factor after `growth_interval` good steps.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub growth_factor: f64,
    /// Factor after a bad step.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub backoff_factor: f64,
    /// Number of good steps in a row until the scale grows.
    pub growth_interval: u64,
    /// Smallest scale: if gradients are not finite under it, the model is at fault and not the scale. 2⁻²⁴
    /// is the smallest number of half precision.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub min_scale: f64,
}
crate::config_file::named_fields!(LossScaling);

impl Default for LossScaling {
    fn default() -> Self {
        Self {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            min_scale: 2_f64.powi(-24),
        }
    }
}

crate::hyperparameters!(LossScaling, "LossScaling", {
    "init_scale": Positive = init_scale;
    "growth_factor": AboveOne = growth_factor;
    "backoff_factor": UnitHalfOpen = backoff_factor;
    "growth_interval": CountFrom(1) = growth_interval;
    "min_scale": NonNegative = min_scale;
}, |this| {
    // the scale is an f32
    if (this.init_scale as f32).is_finite() && this.init_scale as f32 > 0.0 {
        return Ok(());
    }
    Err(Self::invalid("init_scale", "a positive f32", this.init_scale.to_string()))
});

/// Where one iteration stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Ready,
    Unscaled {
        found_inf: bool,
    },
    Stepped {
        found_inf: bool,
    },
    /// The optimizer refused the step for something that has nothing to do with the scale.
    Failed,
}

/// Scales the loss so that small gradients survive in half precision, and skips steps in which large
/// ones overflow: PyTorch's `GradScaler`.
///
/// ```text
/// backward of scale·loss;  g ← g/scale;  any g not finite, before or after: no step
/// update:  not finite: scale·backoff, count = 0; an error if that is below min_scale
///          else count += 1; count = interval: scale·growth if that is finite, count = 0
/// ```
/// A loss that goes to the step ([`with_loss`](super::with_loss)), for methods such as
/// [`SpsMax`](crate::first_order::SpsMax), is the *unscaled* one: gradients are unscaled before the step, and the
/// scaler does not touch the loss that comes with them.
///
/// One scaler is for one optimizer; PyTorch's can be for several. The scale is an `f32`, as in PyTorch.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{GradScaler, clip_grad_norm}, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![1.0f32];
/// let mut opt = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
/// let mut scaler = GradScaler::default();
/// for gradient in [0.5, f32::INFINITY] {
///     let grads = array![scaler.scale(gradient)];      // backward of the scaled loss
///     let grads = scaler.unscale(&grads)?;             // optional: to clip in between
///     scaler.step(&mut opt, &mut w, &clip_grad_norm(&grads, 1.0))?;
///     scaler.update()?;
/// }
/// assert_eq!(w, array![0.75]); // the second step was skipped
/// assert_eq!(scaler.current_scale(), 32768.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: P. Micikevicius et al., "Mixed Precision Training", 2018.
#[derive(Clone, Debug, PartialEq)]
pub struct GradScaler {
    config: LossScaling,
    scale: f32,
    growth_tracker: u64,
    stage: Stage,
}

impl Default for GradScaler {
    fn default() -> Self {
        let config = LossScaling::default();
        Self { config, scale: 65536.0, growth_tracker: 0, stage: Stage::Ready }
    }
}

impl GradScaler {
    /// A scaler at its first scale.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`].
    pub fn new(config: LossScaling) -> Result<Self> {
        config.validate()?;
        let scale = config.init_scale as f32;
        Ok(Self { config, scale, growth_tracker: 0, stage: Stage::Ready })
    }

    /// The loss times the scale.
    pub fn scale<R: Real>(&self, loss: R) -> R {
        loss * R::of(f64::from(self.scale))
    }

    /// Goes on with another scale, whatever the iteration has come to: PyTorch's `update(new_scale)`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] unless it is a positive `f32`.
    pub fn set_scale(&mut self, scale: f64) -> Result<()> {
        let config = LossScaling { init_scale: scale, ..self.config };
        config.validate()?;
        (self.scale, self.growth_tracker, self.stage) = (scale as f32, 0, Stage::Ready);
        Ok(())
    }

    /// The current scale.
    pub fn current_scale(&self) -> f64 {
        f64::from(self.scale)
    }

    /// Number of good steps since the scale changed.
    pub fn growth_tracker(&self) -> u64 {
        self.growth_tracker
    }

    /// The gradients over the scale: a view. Needed only to look at them, or to clip them, before
    /// [`GradScaler::step`].
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] the second time since the last update;
    /// [`Error::LengthMismatch`] for a buffer that does not fit its shape.
    pub fn unscale<'g, T: Element, G: Gradients<T> + ?Sized>(
        &mut self,
        grads: &'g G,
    ) -> Result<Unscaled<'g, G>> {
        let problem = match self.stage {
            Stage::Ready => None,
            Stage::Unscaled { .. } => Some("already called since the last `update`"),
            Stage::Stepped { .. } | Stage::Failed => {
                Some("called after `step`; call `update` first")
            }
        };
        if let Some(problem) = problem {
            return Err(Error::OutOfOrder { what: "GradScaler::unscale", problem });
        }
        let unscaled = self.look(grads)?;
        self.stage = Stage::Unscaled { found_inf: unscaled.found_inf };
        Ok(unscaled)
    }

    fn look<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        grads: &'g G,
    ) -> Result<Unscaled<'g, G>> {
        let largest = total_norm(grads, f64::INFINITY)?;
        // the reciprocal is an f32, computed in f64, as in PyTorch
        let factor = f64::from((1.0 / f64::from(self.scale)) as f32);
        // under a scale below 1 gradients may overflow only now
        let unscaled = T::Compute::of(largest) * T::Compute::of(factor);
        let found_inf = !unscaled.is_finite();
        let finite = unscaled.widen() <= HARMLESS && factor <= 1.0;
        Ok(Unscaled { scaled: Scaled { factor, finite, inner: grads }, found_inf })
    }

    /// Steps the optimizer, unless a gradient is not finite; says whether it did. A step that the optimizer
    /// itself leaves out ([`NonFinite::Skip`](crate::optim::NonFinite::Skip)) is none, either.
    ///
    /// Pass what [`GradScaler::unscale`] returned, or a view of it, if it was called; else the
    /// scaled gradients.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] the second time since the last update; the optimizer's errors, after which
    /// [`GradScaler::update`] leaves the scale as it is.
    pub fn step<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        opt: &mut O,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        let skipped = opt.skipped_steps();
        let (found_inf, outcome) = match self.stage {
            Stage::Ready => {
                let unscaled = self.look(grads)?;
                let go = || opt.step(params, &unscaled);
                (unscaled.found_inf, (!unscaled.found_inf).then(go))
            }
            Stage::Unscaled { found_inf } => {
                (found_inf, (!found_inf).then(|| opt.step(params, grads)))
            }
            Stage::Stepped { .. } | Stage::Failed => {
                let problem = "already called since the last `update`";
                return Err(Error::OutOfOrder { what: "GradScaler::step", problem });
            }
        };
        if let Some(Err(error)) = outcome {
            self.stage = Stage::Failed;
            return Err(error);
        }
        let found_inf = found_inf || opt.skipped_steps() != skipped;
        self.stage = Stage::Stepped { found_inf };
        Ok(!found_inf)
    }

    /// Ends an iteration: changes the scale if it is time.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if no gradients were looked at since the last update. [`Error::LossScale`] if the
    /// scale would fall below `min_scale`; it and the count stay, and [`GradScaler::set_scale`] goes on.
    pub fn update(&mut self) -> Result<()> {
        let found_inf = match self.stage {
            Stage::Unscaled { found_inf } | Stage::Stepped { found_inf } => found_inf,
            Stage::Failed => {
                self.stage = Stage::Ready;
                return Ok(());
            }
            Stage::Ready => {
                let problem = "no gradients were looked at; call `unscale` or `step` first";
                return Err(Error::OutOfOrder { what: "GradScaler::update", problem });
            }
        };
        let scale = f64::from(self.scale);
        if found_inf {
            let (fallen, min_scale) =
                ((scale * self.config.backoff_factor) as f32, self.config.min_scale);
            if fallen == 0.0 || f64::from(fallen) < min_scale {
                return Err(Error::LossScale { scale, next: fallen.into(), min_scale });
            }
            self.scale = fallen;
            self.growth_tracker = 0;
        } else {
            self.growth_tracker += 1;
            if self.growth_tracker >= self.config.growth_interval {
                let grown = (scale * self.config.growth_factor) as f32;
                self.scale = if grown.is_finite() { grown } else { self.scale };
                self.growth_tracker = 0;
            }
        }
        self.stage = Stage::Ready;
        Ok(())
    }

    /// Scale, count and options.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new("GradScaler");
        let mut put = |key: &str, value| state.scalars.insert(key.to_owned(), value);
        put("scale", Scalar::Float(f64::from(self.scale)));
        put("growth_factor", Scalar::Float(self.config.growth_factor));
        put("backoff_factor", Scalar::Float(self.config.backoff_factor));
        put("growth_interval", Scalar::Int(self.config.growth_interval as i64));
        put("growth_tracker", Scalar::Int(self.growth_tracker as i64));
        state
    }

    /// Goes on from a saved state, options included, as in PyTorch. Save and load between
    /// [`GradScaler::update`] and the next iteration.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the first key that does not fit; the scaler stays as it was.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let mut reader = StateReader::new(state, "GradScaler")?;
        let scale = reader.number("scale", Range::Positive)?.min(f64::from(f32::MAX)) as f32;
        let config = LossScaling {
            init_scale: self.config.init_scale,
            growth_factor: reader.number("growth_factor", Range::AboveOne)?,
            backoff_factor: reader.number("backoff_factor", Range::UnitHalfOpen)?,
            growth_interval: reader.number("growth_interval", Range::CountFrom(1))? as u64,
            min_scale: self.config.min_scale,
        };
        let growth_tracker = reader.count("growth_tracker")?;
        reader.finish()?;
        *self = Self { config, scale, growth_tracker, stage: Stage::Ready };
        Ok(())
    }
}

/// Gradients seen over the loss scale.
#[derive(Clone, Copy, Debug)]
pub struct Unscaled<'g, G: ?Sized> {
    scaled: Scaled<'g, G>,
    found_inf: bool,
}

impl<G: ?Sized> Unscaled<'_, G> {
    /// Whether an element is NaN or infinite; then the step will be skipped.
    pub fn found_inf(&self) -> bool {
        self.found_inf
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Unscaled<'_, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        self.scaled.visit(visitor);
    }
}
