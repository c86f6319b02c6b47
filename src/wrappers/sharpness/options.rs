//! How far uphill, and what is made of the gradient there.

/// Options of [`Sam`](super::Sam).
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `rho` ρ | 0.05; 0.5 in [`SamOptions::adaptive`] | papers |
/// | `adaptive` | false; true in [`SamOptions::adaptive`] | – |
/// | `eta` η | 0.01, only used if `adaptive` | the authors' code of ASAM |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SamOptions {
    /// Length `ρ >= 0` of the way uphill.
    pub rho: f64,
    /// The way is measured relative to the parameters: ASAM.
    pub adaptive: bool,
    /// Added to the magnitude of a parameter where it is the measure, `η >= 0`.
    pub eta: f64,
}
crate::config_file::named_fields!(SamOptions);

impl Default for SamOptions {
    fn default() -> Self {
        Self { rho: 0.05, adaptive: false, eta: 0.01 }
    }
}

impl SamOptions {
    /// Adaptive sharpness-aware minimisation, ASAM, with the `rho` of its paper.
    pub fn adaptive() -> Self {
        Self { rho: 0.5, adaptive: true, ..Self::default() }
    }
}

crate::hyperparameters!(SamOptions, "Sam", {
    "rho": NonNegative = rho;
    "adaptive": Flag = adaptive;
    "eta": NonNegative = eta;
});

/// Options of [`Ignite`](super::Ignite).
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lambda` λ | 1e-3 | authors' code |
/// | `eta_lambda` η | 1e-3; 0 keeps λ as it is, IGNITE-2 | authors' code |
/// | `rho` ρ | 0.05 | authors' code |
/// | `r` | 0.05 | authors' code |
/// | `epsilon` ε | 0.1 | authors' scripts; their program's default is 1e-3 |
/// | `clamp_nonneg` | true | ours; the authors' code lets λ become negative |
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct IgniteOptions {
    /// Weight of the norm: the multiplier of the constraint, which every step changes.
    pub lambda: f64,
    /// Step size `η >= 0` of the multiplier.
    pub eta_lambda: f64,
    /// Radius `ρ >= 0` within which the surrogate may change by no more than `epsilon`.
    pub rho: f64,
    /// Length `r > 0` of the way uphill that the finite difference is taken over.
    pub r: f64,
    /// Change `ε >= 0` of the surrogate that is admitted.
    pub epsilon: f64,
    /// The multiplier stays at least 0.
    pub clamp_nonneg: bool,
}
crate::config_file::named_fields!(IgniteOptions);

impl Default for IgniteOptions {
    fn default() -> Self {
        Self {
            lambda: 1e-3,
            eta_lambda: 1e-3,
            rho: 0.05,
            r: 0.05,
            epsilon: 0.1,
            clamp_nonneg: true,
        }
    }
}

crate::hyperparameters!(IgniteOptions, "Ignite", {
    "lambda": Finite = lambda;
    "eta_lambda": NonNegative = eta_lambda;
    "rho": NonNegative = rho;
    "r": Positive = r;
    "epsilon": NonNegative = epsilon;
    "clamp_nonneg": Flag = clamp_nonneg;
});
