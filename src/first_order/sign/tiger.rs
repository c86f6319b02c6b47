use crate::first_order::arithmetic::lerp;
use crate::numeric::{Real, sign};
use crate::optim::{Rule, Slot};

/// Tiger: the sign of the momentum, with decoupled weight decay.
///
/// *Use it when* memory is the limit: one slot, and few bits do for it. *Not when* [`Lion`](crate::first_order::Lion) fits:
/// it is Tiger with another β for the direction than for the memory.
///
/// ```text
/// p ← p·(1 − γλ)                          or, coupled, g ← g + λp
/// m ← m + (1 − β)·(g − m)
/// p ← p − γ·sign(m)                       sign(0) = 0
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | author's code |
/// | `beta` β | 0.965 | author's code |
/// | `weight_decay` λ | 0.01 | author's code |
/// | `decoupled_weight_decay` | true | author's code |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m), 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr` or `weight_decay` below 0 and `beta` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64, 1.0, 1.0];
/// let mut opt = Tiger { lr: 0.25, weight_decay: 0.0, ..Tiger::default() }.build()?;
/// opt.step(&mut w, &array![100.0, -0.001, 0.0])?;
/// assert_eq!(w, array![0.75, 1.25, 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.Tiger`. [`SignSgd`](crate::first_order::SignSgd) with momentum is the same with other defaults. The
/// author's code also scales the steps of a tensor to the size of its weights; use groups for that.
///
/// # Source
/// J. Su, "Tiger: A Tight-fisted Optimizer", 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Tiger {
    /// Learning rate `γ >= 0`: the size of every step.
    pub lr: f64,
    /// Decay rate `β` of the momentum, in `[0, 1)`.
    pub beta: f64,
    /// Weight decay `λ >= 0`, decoupled unless switched off.
    pub weight_decay: f64,
    /// Decay the weights directly, as AdamW does; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Tiger);

impl Default for Tiger {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta: 0.965,
            weight_decay: 0.01,
            decoupled_weight_decay: true,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Tiger, "Tiger", {
    "lr": NonNegative = lr;
    "beta": UnitHalfOpen = beta;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "maximize": Flag = maximize;
});

impl Rule for Tiger {
    /// `1 − β`.
    type Coefficients<R: Real> = R;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> R {
        R::of(1.0 - self.beta)
    }

    #[inline(always)]
    fn direction<R: Real>(&newest: &R, _p: R, g: R, [m]: [R; 1]) -> (R, [R; 1]) {
        let m = lerp(m, g, newest);
        (sign(m), [m])
    }
}
