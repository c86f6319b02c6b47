use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// Stochastic gradient descent with momentum.
///
/// *Use it when* the problem is well conditioned or you can tune the learning rate (image
/// classifiers); it generalises well and needs the least memory. *Not when* gradients differ by
/// orders of magnitude between layers (transformers): use [`AdamW`](crate::first_order::AdamW).
///
/// ```text
/// g ← g + λp
/// b ← g                          at the first step
/// b ← μ·b + (1 − τ)·g            later
/// u = g + μ·b with nesterov, b with momentum, g without
/// p ← p − γ·u
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch |
/// | `momentum` μ | 0 | PyTorch |
/// | `dampening` τ | 0 | PyTorch |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `nesterov` | false | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// State: `momentum_buffer` (b), 4 bytes per `f32` parameter; nothing without momentum.
///
/// # Errors
/// `build` refuses negative options, and `nesterov` without momentum or with dampening.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build()?;
/// opt.step(&mut w, &array![1.0])?; // 1 − 0.1·1
/// opt.step(&mut w, &array![1.0])?; // 0.9 − 0.1·(0.9·1 + 1)
/// assert!((w[0] - 0.71).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.SGD`. The learning rate multiplies the momentum when it is applied, not when it is
/// stored, so that a change of `lr` acts at once. Sutskever's form, and optax's `trace` with a schedule,
/// differ. Where momentum is switched on during a run, the buffer starts from zero. SGDW, with decoupled decay, is
/// [`WithDecay`](crate::first_order::WithDecay) around it.
///
/// # Source
/// B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Nesterov
/// form: I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
/// momentum in deep learning", ICML 2013.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Sgd {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Momentum `μ >= 0`.
    pub momentum: f64,
    /// Dampening `τ >= 0` of the gradient in the momentum, from the second step on.
    pub dampening: f64,
    /// Coupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Sgd);

impl Default for Sgd {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Sgd, "Sgd", {
    "lr": NonNegative = lr;
    "momentum": NonNegative = momentum;
    "dampening": NonNegative = dampening;
    "weight_decay": NonNegative = weight_decay;
    "nesterov": Flag = nesterov;
    "maximize": Flag = maximize;
}, |config| {
    if config.nesterov && (config.momentum == 0.0 || config.dampening != 0.0) {
        let Sgd { momentum, dampening, .. } = config;
        return Err(Sgd::invalid(
            "nesterov",
            "false unless momentum > 0 and dampening = 0",
            format!("true with momentum {momentum} and dampening {dampening}"),
        ));
    }
    Ok(())
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct SgdCoefficients<R> {
    /// `μ`.
    momentum: R,
    /// `1 − τ`, or 1 at the first step.
    gain: R,
    /// `u = take_g·g + take_b·b`.
    take_g: R,
    take_b: R,
}

impl Rule for Sgd {
    type Coefficients<R: Real> = SgdCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("momentum_buffer").optional()];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> SgdCoefficients<R> {
        let (take_g, take_b) = match (self.momentum == 0.0, self.nesterov) {
            (true, _) => (1.0, 0.0),
            (false, true) => (1.0, self.momentum),
            (false, false) => (0.0, 1.0),
        };
        SgdCoefficients {
            momentum: R::of(self.momentum),
            gain: R::of(if t == 1 { 1.0 } else { 1.0 - self.dampening }),
            take_g: R::of(take_g),
            take_b: R::of(take_b),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &SgdCoefficients<R>, _p: R, g: R, [b]: [R; 1]) -> (R, [R; 1]) {
        let b = c.momentum * b + c.gain * g;
        (c.take_g * g + c.take_b * b, [b])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    /// Without momentum, a gradient of 0 changes nothing.
    fn lazy(&self) -> bool {
        self.momentum == 0.0
    }

    fn uses_slot(&self, _: usize) -> bool {
        self.momentum != 0.0
    }
}
