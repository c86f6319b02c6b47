//! A curve through given points.

use super::anneal::Anneal;
use super::rate::{At, Schedule, table_of};
use crate::error::{Error, Result};
use crate::hyper::{Hyperparameters, OptionValue};

/// How a [`Piecewise`] schedule goes from one point to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Interpolation {
    /// A straight line.
    #[default]
    Linear,
    /// Half a cosine wave.
    Cosine,
    /// Not at all: the factor of a point holds until the next one.
    Step,
}

impl Interpolation {
    const NAMES: &'static [&'static str] = &["linear", "cosine", "step"];
    const ALL: [Self; 3] = [Self::Linear, Self::Cosine, Self::Step];

    fn between(self, start: f64, end: f64, x: f64) -> f64 {
        match self {
            Self::Linear => Anneal::Linear.between(start, end, x),
            Self::Cosine => Anneal::Cos.between(start, end, x),
            Self::Step => start,
        }
    }
}

impl OptionValue for Interpolation {
    fn get(&self) -> f64 {
        Self::ALL.iter().position(|way| way == self).unwrap_or(0) as f64
    }
    fn set(&mut self, value: f64) {
        *self = Self::ALL.get(value as usize).copied().unwrap_or(*self);
    }
}

/// A curve through given points: a list of steps, and the factor on the base rate at each.
///
/// ```text
/// eᵢ ≤ e < eᵢ₊₁:  b·(fᵢ + (fᵢ₊₁ − fᵢ)·shape((e − eᵢ)/(eᵢ₊₁ − eᵢ)))
/// before the first point b·f₁, behind the last b·fₙ
/// ```
/// | field | default | |
/// |---|---|---|
/// | `points` | none: the rate stays | (step, factor ≥ 0), steps ascending; ours |
/// | `interpolation` | `Linear` | `Cosine` or `Step` |
///
/// # Errors
/// [`LrScheduler::new`](super::LrScheduler::new) refuses steps that do not ascend, and factors that are negative or
/// no numbers.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let points = vec![(0, 0.0), (2, 1.0), (3, 1.0), (5, 0.1)];
/// let curve = schedule::Piecewise { points, ..Default::default() };
/// let mut scheduler = LrScheduler::new(curve, &mut opt)?;
/// for expected in [0.5e-2, 1e-2, 1e-2, 0.55e-2, 0.1e-2, 0.1e-2] {
///     scheduler.step(&mut opt)?;
///     assert!((opt.lr(0) - expected).abs() < 1e-15);
/// }
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// optax's `piecewise_interpolate_schedule` and `piecewise_constant_schedule` take factors on the value of the point
/// before, and begin with a point (0, 1); here factors are on the base rate, and every point is in the list.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Piecewise {
    /// Steps and factors on the base rate, the steps in ascending order.
    pub points: Vec<(u64, f64)>,
    /// How to go from one point to the next.
    pub interpolation: Interpolation,
}
crate::config_file::named_fields!(Piecewise);

crate::hyperparameters!(Piecewise, "Piecewise", {
    "interpolation": Choice(Interpolation::NAMES) = interpolation;
});

impl Piecewise {
    fn factor(&self, epoch: f64) -> f64 {
        let next = self.points.partition_point(|(step, _)| *step as f64 <= epoch);
        let (before, after) =
            (next.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(next));
        match (before, after) {
            (Some(&(begin, start)), Some(&(end, stop))) => {
                let x = (epoch - begin as f64) / (end as f64 - begin as f64);
                self.interpolation.between(start, stop, x)
            }
            (Some((_, factor)), None) | (None, Some((_, factor))) => *factor,
            (None, None) => 1.0,
        }
    }
}

impl Schedule for Piecewise {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn next(&self, at: At) -> f64 {
        at.base_lr * self.factor(at.epoch)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
    fn check(&self, _: usize) -> Result<()> {
        self.validate()?;
        let wrong = |expected: &str, found: String| {
            Err(Error::invalid(Self::NAME, "points", expected, found))
        };
        for (&(step, factor), next) in
            self.points.iter().zip(self.points.iter().skip(1).map(Some).chain([None]))
        {
            if !(factor >= 0.0 && factor.is_finite()) {
                return wrong("factors that are finite and >= 0", factor.to_string());
            }
            if let Some((next, _)) = next.filter(|(next, _)| *next <= step) {
                return wrong("steps in ascending order", format!("{next} behind {step}"));
            }
        }
        Ok(())
    }
    fn options(&self) -> Vec<(String, f64)> {
        let mut options = table_of(self);
        for (i, (step, factor)) in self.points.iter().enumerate() {
            options.push((format!("points.{i}.step"), *step as f64));
            options.push((format!("points.{i}.factor"), *factor));
        }
        options
    }
}
