//! Factors from closures.

use super::rate::{At, Schedule};
use crate::error::{Error, Result};
use std::fmt;

type Factor = Box<dyn Fn(u64) -> f64 + Send + Sync>;

/// One closure for all groups, or one for each.
struct Factors {
    each: Vec<Factor>,
    shared: bool,
}

impl Factors {
    /// NaN, which the scheduler refuses, if there is no closure for the group.
    fn at(&self, at: At) -> f64 {
        let factor = self.each.get(if self.shared { 0 } else { at.group });
        // the steps of a schedule are far below 2^53
        factor.map_or(f64::NAN, |factor| factor(at.epoch as u64))
    }

    fn check(&self, schedule: &'static str, groups: usize) -> Result<()> {
        let found = self.each.len();
        if self.shared || found == groups {
            return Ok(());
        }
        Err(Error::GroupValues { schedule, field: "factors", groups, found })
    }
}

macro_rules! from_closures {
    ($type:ident, $name:literal) => {
        impl $type {
            /// One function of the step number for all groups.
            pub fn new(factor: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
                Self(Factors { each: vec![Box::new(factor)], shared: true })
            }

            /// One function of the step number per group.
            pub fn per_group(factors: Vec<Box<dyn Fn(u64) -> f64 + Send + Sync>>) -> Self {
                Self(Factors { each: factors, shared: false })
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name).field("closures", &self.0.each.len()).finish()
            }
        }
    };
}
from_closures!(Lambda, "Lambda");
from_closures!(Multiplicative, "Multiplicative");

/// Multiplies the base rate by a function of the step number: PyTorch's `LambdaLR`.
///
/// ```text
/// η = b·f(e)
/// ```
/// The function is not part of the state dict: build the scheduler with the same one before loading.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let inverse = schedule::Lambda::new(|step| 1.0 / (1 + step) as f64);
/// let mut scheduler = LrScheduler::new(inverse, &mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert_eq!(opt.lr(0), 0.5e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub struct Lambda(Factors);

impl Schedule for Lambda {
    fn name(&self) -> &'static str {
        "Lambda"
    }
    fn next(&self, at: At) -> f64 {
        at.base_lr * self.0.at(at)
    }
    fn closed_form(&self, at: At) -> Option<f64> {
        Some(self.next(at))
    }
    fn check(&self, groups: usize) -> Result<()> {
        self.0.check("Lambda", groups)
    }
}

/// Multiplies the current rate by a function of the step number: PyTorch's `MultiplicativeLR`.
///
/// ```text
/// η ← η·f(e)  from e = 1 on
/// ```
/// As a later part of a [`Sequential`](super::Sequential) it also multiplies by f(0), as PyTorch
/// does. The function is not part of the state dict: build the scheduler with the same one before
/// loading.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, schedule};
///
/// let mut opt = AdamW { lr: 1e-2, ..AdamW::default() }.build::<f32>()?;
/// let halve = schedule::Multiplicative::new(|step| if step % 2 == 0 { 0.5 } else { 1.0 });
/// let mut scheduler = LrScheduler::new(halve, &mut opt)?;
/// scheduler.step(&mut opt)?;
/// scheduler.step(&mut opt)?;
/// assert_eq!(opt.lr(0), 0.5e-2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub struct Multiplicative(Factors);

impl Schedule for Multiplicative {
    fn name(&self) -> &'static str {
        "Multiplicative"
    }
    fn start(&self, at: At) -> f64 {
        at.lr
    }
    fn next(&self, at: At) -> f64 {
        at.lr * self.0.at(at)
    }
    fn check(&self, groups: usize) -> Result<()> {
        self.0.check("Multiplicative", groups)
    }
}
