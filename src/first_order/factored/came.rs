use crate::first_order::arithmetic::{lerp, ratio};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Factoring, Rule, Slot, TensorStep, TensorSums, WeightDecay};
use std::ops::Range;

/// CAME: Adafactor with momentum, whose steps are divided by how much they differ from their average.
///
/// *Use it when* you train a large language model and the state of Adam does not fit: it holds one number per
/// parameter, and a few per row and column. *Not when* memory is there: [`AdamW`](crate::first_order::AdamW) needs
/// one pass over memory instead of four.
///
/// ```text
/// p ← p·(1 − γλ)                                        or, coupled, g ← g + λp
/// R ← R + (1 − β₂)·(mean of g² + ε₁ over each row − R)  of the last two dimensions;
/// C ← C + (1 − β₂)·(mean of g² + ε₁ over each column − C)   those before them count matrices
/// V = R·C/mean(R)
/// V ← β₂·V + (1 − β₂)·(g² + ε₁)                         in place of R and C, for vectors and scalars
/// S ← max(S, √V), V = S/β₂                              if ams_bound
/// u = g/√V                                              0 where V = 0
/// u ← u/max(1, RMS(u)/d)
/// m ← m + (1 − β₁)·(u − m)
/// R₂, C₂ ← as R and C, of (u − m)² + ε₂ with β₃         U = R₂·C₂/mean(R₂)
/// p ← p − γ·m/√U                                        − γ·m for vectors and scalars
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 2e-4 | paper |
/// | `betas` β₁, β₂, β₃ | (0.9, 0.999, 0.9999) | paper |
/// | `eps` ε₁, ε₂ | (1e-30, 1e-16) | paper |
/// | `clip_threshold` d | 1 | paper |
/// | `weight_decay` λ | 0 | paper's code |
/// | `decoupled_weight_decay` | true | paper's code |
/// | `ams_bound` | false | pytorch_optimizer |
/// | `maximize` | false | PyTorch |
///
/// State for `f32` parameters: `exp_avg` (m), 4 bytes per parameter; `exp_avg_sq_row`, `exp_avg_sq_col`,
/// `exp_avg_res_row` and `exp_avg_res_col`, 8·(r + c) bytes for a matrix of r × c (of a tensor of more dimensions, for
/// each matrix of its last two); `exp_avg_sq` and `exp_avg_res`, 8 bytes per element of a vector, of which the second
/// stays 0; with `ams_bound` `exp_avg_sq_hat` (S), 4 bytes per parameter. Sums of one step (`axis_sums`) take at most half
/// a byte per parameter more. Four passes over memory per step.
///
/// # Errors
/// `build` refuses `lr`, `eps` or `weight_decay` below 0, `betas` outside `[0, 1)`, and `clip_threshold` that is not
/// above 0.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array2;
///
/// let mut w = Array2::<f32>::ones((512, 512));
/// let mut opt = Came { lr: 0.01, ..Came::default() }.build()?;
/// for _ in 0..20 {
///     let grad = w.clone(); // of ‖w‖²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|w| w.abs() < 0.9));
/// assert!(opt.state_bytes().per_parameter() < 4.6); // Adam: 8
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.CAME` and the authors' code. `ams_bound` is pytorch_optimizer's, which takes the largest *root*
/// of V for a second moment; see [`Adafactor`](crate::first_order::Adafactor). With ε₁ = 0, an element that has seen no
/// gradient stands still; in those packages it becomes NaN.
///
/// # Source
/// Y. Luo, X. Ren, Z. Zheng, Z. Jiang, X. Jiang, Y. You, "CAME: Confidence-guided Adaptive Memory Efficient
/// Optimization", ACL 2023.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Came {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the average of steps, of the second moment and of the residuals, each in `[0, 1)`.
    pub betas: (f64, f64, f64),
    /// Stabilisers `>= 0`: `ε₁`, added to squared gradients, and `ε₂`, added to squared residuals.
    pub eps: (f64, f64),
    /// Largest root mean square `d > 0` of `u`.
    pub clip_threshold: f64,
    /// Weight decay `λ >= 0`, decoupled by default.
    pub weight_decay: f64,
    /// Decay the weights directly; else `λp` is added to the gradient.
    pub decoupled_weight_decay: bool,
    /// Divide by the root of the largest `√V` so far: one number more per parameter.
    pub ams_bound: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Came);

impl Default for Came {
    fn default() -> Self {
        Self {
            lr: 2e-4,
            betas: (0.9, 0.999, 0.9999),
            eps: (1e-30, 1e-16),
            clip_threshold: 1.0,
            weight_decay: 0.0,
            decoupled_weight_decay: true,
            ams_bound: false,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Came, "Came", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "betas.2": UnitHalfOpen = betas.2;
    "eps.0": NonNegative = eps.0;
    "eps.1": NonNegative = eps.1;
    "clip_threshold": Positive = clip_threshold;
    "weight_decay": NonNegative = weight_decay;
    "decoupled_weight_decay": Flag = decoupled_weight_decay;
    "ams_bound": Flag = ams_bound;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct CameCoefficients<R> {
    /// Whether the slots read as `√V` and `√U`.
    factored: bool,
    one_minus_beta1: R,
    one_minus_beta2: R,
    eps: (R, R),
    ams_bound: bool,
    beta2: R,
    /// `1/max(1, RMS(u)/d)`, known after the second pass.
    scale: R,
}

const SQUARES: usize = 0;
const SIZE: usize = 1;
const RESIDUALS: usize = 2;

const VARIANCE: usize = 0;

impl<R: Real> CameCoefficients<R> {
    /// `u` before it is clipped, and the new `V` and `S`.
    #[inline(always)]
    fn precondition(&self, g: R, v: R, bound: R) -> (R, R, R) {
        let own = self.beta2 * v + self.one_minus_beta2 * (g * g + self.eps.0);
        let v = if self.factored { v } else { own };
        let root = if self.factored { v } else { v.sqrt() };
        let bound = if bound > root { bound } else { root };
        let root = if self.ams_bound { (bound / self.beta2).sqrt() } else { root };
        (ratio(g, root), v, bound)
    }

    /// `u`, and the new `V`, `m` and `S`.
    #[inline(always)]
    fn moments(&self, g: R, v: R, m: R, bound: R) -> (R, [R; 3]) {
        let (u, v, bound) = self.precondition(g, v, bound);
        let u = u * self.scale;
        (u, [v, lerp(m, u, self.one_minus_beta1), bound])
    }
}

impl Rule for Came {
    type Coefficients<R: Real> = CameCoefficients<R>;
    type State<R: Real> = [R; 4];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::factored("exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"),
        Slot::factored("exp_avg_res", "exp_avg_res_row", "exp_avg_res_col"),
        Slot::signed("exp_avg"),
        Slot::unsigned("exp_avg_sq_hat").optional(),
    ];
    const PER_TENSOR: bool = true;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> CameCoefficients<R> {
        let (beta1, beta2, _) = self.betas;
        CameCoefficients {
            factored: false,
            one_minus_beta1: R::of(1.0 - beta1),
            one_minus_beta2: R::of(1.0 - beta2),
            eps: (R::of(self.eps.0), R::of(self.eps.1)),
            ams_bound: self.ams_bound,
            beta2: R::of(beta2),
            scale: R::one(),
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        _: &[f64],
        c: &mut CameCoefficients<R>,
    ) {
        c.factored = step.shape.len() > 1;
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &CameCoefficients<R>,
        _p: R,
        g: R,
        [v, residual, m, bound]: [R; 4],
    ) -> (R, [R; 4]) {
        let (_, [v, m, bound]) = c.moments(g, v, m, bound);
        let step = if c.factored { ratio(m, residual) } else { m };
        (step, [v, residual, m, bound])
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        if self.decoupled_weight_decay {
            WeightDecay::Decoupled(self.weight_decay)
        } else {
            WeightDecay::Coupled(self.weight_decay)
        }
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn uses_slot(&self, slot: usize) -> bool {
        slot < 3 || self.ams_bound
    }

    fn passes(&self) -> Range<usize> {
        SQUARES..RESIDUALS + 1
    }

    #[inline(always)]
    fn measure<R: Real>(
        pass: usize,
        c: &CameCoefficients<R>,
        _p: R,
        g: R,
        [v, _, _, bound]: [R; 4],
    ) -> Sums {
        if pass != SIZE {
            return Sums::default();
        }
        let u = c.precondition(g, v, bound).0.widen();
        [u * u, 0.0, 0.0, 0.0]
    }

    fn factoring<R: Real>(&self, slot: usize, _: u64) -> Factoring {
        let (_, beta2, beta3) = self.betas;
        if slot == VARIANCE {
            Factoring { pass: SQUARES, weight: 1.0 - beta2, floor: 0.0 }
        } else {
            Factoring { pass: RESIDUALS, weight: 1.0 - beta3, floor: 0.0 }
        }
    }

    #[inline(always)]
    fn factor_term<R: Real>(
        slot: usize,
        c: &CameCoefficients<R>,
        _p: R,
        g: R,
        [v, _, m, bound]: [R; 4],
    ) -> R {
        if slot == VARIANCE {
            return g * g + c.eps.0;
        }
        let (u, [_, m, _]) = c.moments(g, v, m, bound);
        (u - m) * (u - m) + c.eps.1
    }

    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut CameCoefficients<R>) {
        let [squares, ..] = measured.sums;
        if pass == SIZE {
            let excess = (squares / measured.numel as f64).sqrt() / self.clip_threshold;
            c.scale = R::of(if excess <= 1.0 { 1.0 } else { 1.0 / excess });
        }
    }
}
