//! Options of one group.

use crate::hyper::OptionValue;

/// What becomes of the inner optimizer's momentum when the fast weights go back to the slow ones.
///
/// Momentum are the slots `momentum_buffer`, `exp_avg` and `momentum`. Those in few bits are decoded, changed,
/// and coded again. Second moments stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PullbackMomentum {
    /// It goes on.
    #[default]
    None,
    /// It begins anew at zero.
    Reset,
    /// It goes back like the weights: `m ← m_slow + α(m − m_slow)`, `m_slow ← m`; `m_slow` begins at zero.
    Pullback,
}

impl PullbackMomentum {
    pub(super) const NAMES: &'static [&'static str] = &["none", "reset", "pullback"];
}

impl OptionValue for PullbackMomentum {
    fn get(&self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Reset => 1.0,
            Self::Pullback => 2.0,
        }
    }
    fn set(&mut self, value: f64) {
        *self = match value {
            0.0 => Self::None,
            1.0 => Self::Reset,
            _ => Self::Pullback,
        };
    }
}

/// Options of [`Lookahead`](super::Lookahead), one set per group of the inner optimizer.
///
/// | field | option | default | source of the default |
/// |---|---|---|---|
/// | `k` | `lookahead_k` | 5 | paper, pytorch_optimizer |
/// | `alpha` α | `lookahead_alpha` | 0.5 | paper, pytorch_optimizer |
/// | `pullback_momentum` | `lookahead_pullback_momentum`: 0 none, 1 reset, 2 pullback | `None` | pytorch_optimizer |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct LookaheadOptions {
    /// Steps of the inner optimizer for one of the slow weights, at least 1.
    pub k: u64,
    /// Share `α` of the way that the slow weights go, in `[0, 1]`.
    pub alpha: f64,
    /// What becomes of momentum.
    pub pullback_momentum: PullbackMomentum,
}
crate::config_file::named_fields!(LookaheadOptions);

impl Default for LookaheadOptions {
    fn default() -> Self {
        Self { k: 5, alpha: 0.5, pullback_momentum: PullbackMomentum::None }
    }
}

impl LookaheadOptions {
    /// Names of the options.
    pub(super) const NAMES: [&'static str; 3] =
        ["lookahead_k", "lookahead_alpha", "lookahead_pullback_momentum"];
}

crate::hyperparameters!(LookaheadOptions, "Lookahead", {
    "lookahead_k": CountFrom(1) = k;
    "lookahead_alpha": Unit = alpha;
    "lookahead_pullback_momentum": Choice(PullbackMomentum::NAMES) = pullback_momentum;
});
