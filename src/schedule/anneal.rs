//! How a rate moves from one value to another.

use crate::hyper::OptionValue;

/// How a rate moves between two values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Anneal {
    /// Half a cosine wave.
    #[default]
    Cos,
    /// A straight line.
    Linear,
}

impl Anneal {
    pub(super) const NAMES: &'static [&'static str] = &["cos", "linear"];
}

impl OptionValue for Anneal {
    fn get(&self) -> f64 {
        f64::from(u8::from(*self == Anneal::Linear))
    }
    fn set(&mut self, value: f64) {
        *self = if value == 0.0 { Anneal::Cos } else { Anneal::Linear };
    }
}

/// `½ (1 + cos(π x))`: from 1 at 0 down to 0 at 1.
pub(super) fn half_cosine(x: f64) -> f64 {
    (1.0 + (std::f64::consts::PI * x).cos()) / 2.0
}
