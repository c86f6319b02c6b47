//! Noise on a schedule.

use super::rate::{At, Schedule, table_of};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::random::{philox4x32, unit};
use std::fmt;

/// Noise of a [`Noisy`] schedule.
///
/// | field | default | |
/// |---|---|---|
/// | `pct` | 0.67 | a, in [0, 1]: the noise stays within ±a of the rate; timm's `noise_pct` |
/// | `from` | 0 | first step with noise; timm's `noise_range_t` |
/// | `to` | 2⁵³ | first step without noise again |
/// | `uniform` | false | uniform in [−a, a] instead of standard normal, of which what lies outside is drawn again |
/// | `seed` | 42 | timm's |
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct RateNoise {
    /// Largest noise, as a share of the rate.
    pub pct: f64,
    /// First step with noise.
    pub from: u64,
    /// First step without noise again.
    pub to: u64,
    /// Whether the noise is uniform instead of normal.
    pub uniform: bool,
    /// Seed of the noise; the same for all groups.
    pub seed: u64,
}
crate::config_file::named_fields!(RateNoise);

impl Default for RateNoise {
    fn default() -> Self {
        Self { pct: 0.67, from: 0, to: 1 << 53, uniform: false, seed: 42 }
    }
}

crate::hyperparameters!(RateNoise, "Noisy", {
    "pct": Unit = pct;
    "from": CountFrom(0) = from;
    "to": CountFrom(0) = to;
    "uniform": Flag = uniform;
    "seed": CountFrom(0) = seed;
});

impl RateNoise {
    /// The noise of one step, the same whenever it is asked for.
    fn at(&self, epoch: f64) -> f64 {
        if epoch < self.from as f64 || epoch >= self.to as f64 {
            return 0.0;
        }
        let (step, key) = (epoch.to_bits(), [self.seed as u32, (self.seed >> 32) as u32]);
        let draw = |attempt: u32| {
            let [a, b, c, d] = philox4x32([step as u32, (step >> 32) as u32, attempt, 0], key);
            (self.pct * (2.0 * unit(a, b) - 1.0), unit(c, d))
        };
        if self.uniform {
            return draw(0).0;
        }
        // a normal number within ±a: at least 3 of 5 drawn are kept
        let kept = (0..64).map(draw).find(|(x, u)| *u <= (-x * x / 2.0).exp());
        kept.map_or(0.0, |(x, _)| x)
    }
}

/// A schedule with random noise on its rates, which may shake training out of a bad place: timm's
/// `lr_noise`.
///
/// ```text
/// η = closed form·(1 + ξ),   ξ normal or uniform within ±a, another one at every step
/// ```
/// The noise of one step does not enter the next: rates come from the closed form of the schedule, which it must
/// have. Steps have noise of their own whatever is saved, loaded or repeated.
///
/// # Errors
/// [`LrScheduler::new`](super::LrScheduler::new) refuses options out of range, and a schedule without a closed form.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule::{Noisy, RateNoise}};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let cosine = WarmupCosine { total: 100, ..WarmupCosine::default() };
/// let noise = RateNoise { pct: 0.1, from: 50, ..RateNoise::default() };
/// let mut scheduler = LrScheduler::new(Noisy::new(cosine, noise), &mut opt)?;
/// for step in 1..=60 {
///     scheduler.step(&mut opt)?;
///     let plain = 1e-2 * (1.0 + (std::f64::consts::PI * f64::from(step) / 100.0).cos()) / 2.0;
///     assert!((opt.lr(0) - plain).abs() <= 0.1 * plain);
///     assert_eq!((opt.lr(0) - plain).abs() < 1e-12, step < 50);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// timm draws with PyTorch's generator, so its numbers are others of the same distribution.
pub struct Noisy {
    schedule: Box<dyn Schedule>,
    noise: RateNoise,
}

impl Noisy {
    /// Noise on this schedule.
    pub fn new(schedule: impl Schedule + 'static, noise: RateNoise) -> Self {
        Self { schedule: Box::new(schedule), noise }
    }
}

impl fmt::Debug for Noisy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Schedule::options(self)).finish()
    }
}

impl Schedule for Noisy {
    fn name(&self) -> &'static str {
        RateNoise::NAME
    }
    fn next(&self, at: At) -> f64 {
        self.closed_form(at).unwrap_or(at.lr)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        let rate = self.schedule.closed_form(at)?;
        Some(rate * (1.0 + self.noise.at(at.epoch)))
    }
    fn has_closed_form(&self) -> bool {
        self.schedule.has_closed_form()
    }
    fn momentum(&self, at: At) -> Option<f64> {
        self.schedule.momentum(at)
    }
    fn check(&self, groups: usize) -> Result<()> {
        self.noise.validate()?;
        self.schedule.check(groups)?;
        if !self.schedule.has_closed_form() {
            let expected = "a schedule with a closed form";
            return Err(RateNoise::invalid("schedule", expected, self.schedule.name().to_owned()));
        }
        if self.noise.from >= self.noise.to {
            let expected = format!("more than `from`, {}", self.noise.from);
            return Err(RateNoise::invalid("to", expected, self.noise.to.to_string()));
        }
        Ok(())
    }
    fn check_epoch(&self, epoch: f64) -> Result<()> {
        self.schedule.check_epoch(epoch)
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = table_of(&self.noise);
        let prefix = self.schedule.name();
        options.push((prefix.into(), 0.0));
        let inner = self.schedule.options().into_iter();
        options.extend(inner.map(|(name, value)| (format!("{prefix}.{name}"), value)));
        options
    }
}
