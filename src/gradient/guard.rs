//! Skipping steps whose gradient is far larger than usual.

use super::norm::total_norm;
use crate::error::{Error, Result};
use crate::hyper::{Hyperparameters, Range};
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::params::{Gradients, Parameters};
use crate::state::{Scalar, StateDict, StateReader};

/// Options of a [`NormGuard`].
///
/// | field | default, ours | |
/// |---|---|---|
/// | `factor` | 10 | > 1; how many times the running mean is too much |
/// | `decay` | 0.99 | in [0, 1); of the running mean |
/// | `warmup` | 100 | accepted norms before any finite one is refused |
/// | `max_skips` | 20 | steps skipped in a row, at most |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct NormLimit {
    /// How many times the running mean is too much.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub factor: f64,
    /// Decay of the running mean.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub decay: f64,
    /// Number of accepted norms before any finite one is refused.
    pub warmup: u64,
    /// Most steps that are skipped in a row.
    pub max_skips: u64,
}
crate::config_file::named_fields!(NormLimit);

impl Default for NormLimit {
    fn default() -> Self {
        Self { factor: 10.0, decay: 0.99, warmup: 100, max_skips: 20 }
    }
}

crate::hyperparameters!(NormLimit, "NormLimit", {
    "factor": AboveOne = factor;
    "decay": UnitHalfOpen = decay;
    "warmup": CountFrom(0) = warmup;
    "max_skips": CountFrom(0) = max_skips;
});

/// Skips a step if the norm of its gradients is not finite, or far above its running mean. Skipped
/// steps touch neither parameters nor state.
///
/// ```text
/// skip if ‖g‖ is not finite, or after the warm-up > factor·mean
/// else  mean ← decay·mean + (1−decay)·‖g‖   (the first norm starts the mean; zeros do not count)
/// ```
/// *Recovery*: gradients may have become larger for good, after a change of data or of the learning rate.
/// What is too large `max_skips` times in a row is taken for that: the next finite norm is accepted, and
/// the mean begins anew with it. Norms that are not finite have no such end: after `max_skips` of them in a
/// row [`step`](NormGuard::step) fails, until a norm is finite again.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{NormGuard, NormLimit}, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![0.0f32];
/// let mut opt = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
/// let mut guard = NormGuard::new(NormLimit { warmup: 2, ..NormLimit::default() })?;
/// for gradient in [1.0, 1.0, 1e6, f32::NAN] {
///     guard.step(&mut opt, &mut w, &array![gradient])?;
/// }
/// assert_eq!(w, array![-1.0]);
/// assert_eq!(guard.skipped(), 2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NormGuard {
    limit: NormLimit,
    mean: f64,
    accepted: u64,
    skipped: u64,
    /// Number of steps skipped since the last accepted one.
    in_a_row: u64,
}

impl NormGuard {
    /// A guard that has seen no norm.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter).
    pub fn new(limit: NormLimit) -> Result<Self> {
        limit.validate()?;
        Ok(Self { limit, mean: 0.0, accepted: 0, skipped: 0, in_a_row: 0 })
    }

    /// Steps the optimizer, unless the gradients are too large; returns whether it did.
    ///
    /// # Errors
    /// The optimizer's, and [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit
    /// its shape; [`Error::NonFinite`](crate::Error::NonFinite) after more than `max_skips` skips in a row if the
    /// norm is still not finite. The guard has not counted the step then.
    pub fn step<T: Element, O: Optimizer<T> + ?Sized>(
        &mut self,
        opt: &mut O,
        params: &mut dyn Parameters<T>,
        grads: &dyn Gradients<T>,
    ) -> Result<bool> {
        let norm = total_norm(grads, 2.0)?;
        let mut after = self.clone();
        let accepted = after.accepts(norm);
        if !accepted && !norm.is_finite() && after.in_a_row > self.limit.max_skips {
            let what = "the norm of the gradients, as often in a row as `max_skips` allows,";
            return Err(Error::NonFinite { what, value: norm });
        }
        if accepted {
            opt.step(params, grads)?;
        }
        *self = after;
        Ok(accepted)
    }

    /// Judges a norm measured elsewhere, such as [`Clipped::norm`](super::Clipped::norm), and takes
    /// it into the running mean or counts a skipped step.
    pub fn accepts(&mut self, norm: f64) -> bool {
        let warm = self.accepted >= self.limit.warmup && self.accepted > 0;
        let large = warm && norm > self.limit.factor * self.mean;
        let lasting = large && self.in_a_row >= self.limit.max_skips;
        if !norm.is_finite() || large && !lasting {
            self.skipped += 1;
            self.in_a_row += 1;
            return false;
        }
        self.in_a_row = 0;
        if norm > 0.0 {
            let anew = self.accepted == 0 || lasting;
            let decay = if anew { 0.0 } else { self.limit.decay };
            self.mean = decay * self.mean + (1.0 - decay) * norm;
            self.accepted += 1;
        }
        true
    }

    /// The running mean of accepted norms.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Number of steps skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Options, running mean and counts.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new("NormGuard");
        let mut put = |key: &str, value| state.scalars.insert(key.to_owned(), value);
        put("mean", Scalar::Float(self.mean));
        put("accepted", Scalar::Int(self.accepted as i64));
        put("skipped", Scalar::Int(self.skipped as i64));
        if self.in_a_row > 0 {
            put("in_a_row", Scalar::Int(self.in_a_row as i64));
        }
        // a copy: options are visited to be changed
        self.limit.clone().visit_options(&mut |option| {
            put(option.name, Scalar::Float(option.value.get()));
        });
        state
    }

    /// Goes on from a saved state, with its options; dicts without options leave those that are set.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the first key that does not fit; the
    /// guard stays as it was.
    pub fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        let mut reader = StateReader::new(state, "NormGuard")?;
        let mean = reader.number("mean", Range::NonNegative)?;
        let (accepted, skipped) = (reader.count("accepted")?, reader.count("skipped")?);
        let in_a_row = reader.has("in_a_row").then(|| reader.count("in_a_row")).transpose()?;
        let (mut limit, mut outcome) = (self.limit, Ok(()));
        limit.visit_options(&mut |option| {
            if outcome.is_ok() && reader.has(option.name) {
                let read = reader.number(option.name, option.range);
                outcome = read.map(|value| option.value.set(value));
            }
        });
        outcome?;
        reader.finish()?;
        self.limit = limit;
        (self.mean, self.accepted, self.skipped) = (mean, accepted, skipped);
        self.in_a_row = in_a_row.unwrap_or(0);
        Ok(())
    }
}
