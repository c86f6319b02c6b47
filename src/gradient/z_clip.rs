use super::history_clip::{NormBound, NormMemory};
use crate::hyper::OptionValue;

/// What [`ZClip`] scales outliers down to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OutlierLimit {
    /// The closer to the mean, the more they stand out.
    #[default]
    Reciprocal,
    /// The mean.
    Mean,
    /// The largest norm that is no outlier.
    Fixed,
}

impl OutlierLimit {
    const NAMES: &'static [&'static str] = &["reciprocal", "mean", "fixed"];
    const ALL: [Self; 3] = [Self::Reciprocal, Self::Mean, Self::Fixed];
}

impl OptionValue for OutlierLimit {
    fn get(&self) -> f64 {
        Self::ALL.iter().position(|limit| limit == self).unwrap_or(0) as f64
    }
    fn set(&mut self, value: f64) {
        *self = Self::ALL.get(value as usize).copied().unwrap_or(*self);
    }
}

/// ZClip: norms that are outliers, by their z-score, are scaled down; the others are left alone.
///
/// ```text
/// z = (‖g‖ − μ)/(σ + 1e-6)
/// z > z₀:  limit = f·(μ + z₀σ·z₀/z);  otherwise none
/// g ← g·min(1, limit/(‖g‖ + 1e-6)), with a limit of at most max_norm
/// μ ← αμ + (1 − α)·n,  σ² ← ασ² + (1 − α)·(n − μ)²     n: the limit of an outlier, otherwise ‖g‖
/// ```
/// The more a norm stands out, the closer to the mean it is taken. In the warm-up only `max_norm` holds; mean and
/// variance begin with those of its norms.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `alpha` α | 0.97 | authors' code; in [0, 1) |
/// | `z_thresh` z₀ | 2.5 | authors' code; > 0 |
/// | `max_norm` | 1 | authors' code; > 0, or none |
/// | `warmup` | 25 | authors' code; norms, at least 2 |
/// | `clip_factor` f | 1 | authors' code; > 0, for `limit` `Reciprocal` alone |
/// | `limit` | `Reciprocal` | authors' code: the line above; `Mean`: μ; `Fixed`, their `percentile`: μ + z₀σ, for norms above it |
/// | `skip_spikes` | false | authors' code: whether outliers leave μ and σ alone |
///
/// The warm-up begins with the first norm above 0.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{NormBound, ZClip};
/// use ndarray::array;
///
/// let mut clip = ZClip { max_norm: None, warmup: 2, ..ZClip::default() }.build()?;
/// let mut factor = |norm: f64| clip.clip(&array![norm]).map(|clipped| clipped.factor());
/// assert_eq!((factor(0.9)?, factor(1.1)?, factor(1.2)?), (1.0, 1.0, 1.0));
/// assert!((factor(50.0)? * 50.0 - 1.0).abs() < 0.02);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// A. Kumar, L. Owen, N. Roy Chowdhury, F. Güra, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ZClip {
    /// Decay of mean and variance.
    pub alpha: f64,
    /// The z-score from which on a norm is an outlier.
    pub z_thresh: f64,
    /// Largest norm in any case.
    pub max_norm: Option<f64>,
    /// Number of norms that mean and variance begin with.
    pub warmup: u64,
    /// Factor on the limit of an outlier.
    pub clip_factor: f64,
    /// What outliers are scaled down to.
    pub limit: OutlierLimit,
    /// Whether outliers leave mean and variance alone.
    pub skip_spikes: bool,
}
crate::config_file::named_fields!(ZClip);

impl Default for ZClip {
    fn default() -> Self {
        Self {
            alpha: 0.97,
            z_thresh: 2.5,
            max_norm: Some(1.0),
            warmup: 25,
            clip_factor: 1.0,
            limit: OutlierLimit::Reciprocal,
            skip_spikes: false,
        }
    }
}

crate::hyperparameters!(ZClip, "ZClip", {
    "alpha": UnitHalfOpen = alpha;
    "z_thresh": Positive = z_thresh;
    "max_norm": OptionalPositive = max_norm;
    "warmup": CountFrom(2) = warmup;
    "clip_factor": Positive = clip_factor;
    "limit": Choice(OutlierLimit::NAMES) = limit;
    "skip_spikes": Flag = skip_spikes;
});

impl ZClip {
    /// Whether there is nothing yet that norms could be compared with.
    fn warms_up(&self, memory: &NormMemory) -> bool {
        memory.count < self.warmup
    }

    /// What a norm is scaled down to, if it is an outlier.
    fn limit(&self, memory: &NormMemory, norm: f64) -> Option<f64> {
        let (mean, deviation) = (memory.mean, memory.variance.sqrt());
        let z = (norm - mean) / (deviation + 1e-6);
        let (outlier, limit) = match self.limit {
            OutlierLimit::Fixed => {
                let highest = mean + self.z_thresh * deviation;
                (norm > highest, highest)
            }
            OutlierLimit::Mean => (z > self.z_thresh, mean),
            OutlierLimit::Reciprocal => {
                let limit = mean + self.z_thresh * deviation * self.z_thresh / z;
                (z > self.z_thresh, limit * self.clip_factor)
            }
        };
        (outlier && !self.warms_up(memory)).then_some(limit)
    }
}

impl NormBound for ZClip {
    fn bound(&self, memory: &NormMemory, norm: f64) -> f64 {
        let limit = self.limit(memory, norm).unwrap_or(f64::INFINITY);
        limit.min(self.max_norm.unwrap_or(f64::INFINITY))
    }

    fn observe(&self, memory: &mut NormMemory, norm: f64) {
        if self.warms_up(memory) {
            // the warm-up begins with the first norm that others could be compared with
            if norm > 0.0 || memory.count > 0 {
                memory.count += 1;
                memory.norms.push(norm);
            }
            if !self.warms_up(memory) {
                let count = memory.norms.len() as f64;
                memory.mean = (memory.norms.iter().sum::<f64>() / count).min(f64::MAX);
                let squares = memory.norms.iter().map(|x| (x - memory.mean).powi(2));
                memory.variance = (squares.sum::<f64>() / count).min(f64::MAX);
                memory.norms.clear();
            }
            return;
        }
        memory.count += 1;
        let limit = self.limit(memory, norm);
        if limit.is_none() || !self.skip_spikes {
            let seen = limit.unwrap_or(norm);
            memory.mean = self.alpha * memory.mean + (1.0 - self.alpha) * seen;
            let square = (seen - memory.mean).powi(2);
            let variance = self.alpha * memory.variance + (1.0 - self.alpha) * square;
            memory.variance = variance.min(f64::MAX);
        }
    }
}
