//! Weight decay and learning rate schedules.

/// How weight decay follows the learning rate `γ`; its share of a parameter per step is `γ·α`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum DecaySchedule {
    /// `α = λ`.
    #[default]
    WithLr,
    /// `α = λ·γ/peak_lr`.
    Corrected {
        /// The highest learning rate of the schedule, `> 0`.
        peak_lr: f64,
    },
    /// `α = λ/peak_lr`.
    Independent {
        /// The highest learning rate of the schedule, `> 0`.
        peak_lr: f64,
    },
}

impl DecaySchedule {
    /// `α` for a decay and a learning rate.
    pub fn factor(self, weight_decay: f64, lr: f64) -> f64 {
        match self {
            Self::WithLr => weight_decay,
            Self::Corrected { peak_lr } => weight_decay * lr / peak_lr,
            Self::Independent { peak_lr } => weight_decay / peak_lr,
        }
    }

    /// The highest learning rate, if it is not a positive number.
    pub(crate) fn wrong(self) -> Option<f64> {
        match self {
            Self::WithLr => None,
            Self::Corrected { peak_lr } | Self::Independent { peak_lr } => {
                Some(peak_lr).filter(|lr| !(*lr > 0.0 && lr.is_finite()))
            }
        }
    }
}
