use crate::error::Result;
use crate::first_order::arithmetic::lerp;
use crate::hyper::{Hyperparameters, OptionValue};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Apply, Factoring, Rule, Slot, TensorStep, TensorSums};
use std::ops::Range;

/// Where the first `eps` of [`Adafactor`] acts, and what decay is multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum AdafactorForm {
    /// PyTorch's: a lower bound of the root and of the mean; decay by `lr`.
    #[default]
    Torch,
    /// The paper's: added to the squared gradient; decay by the step size α.
    Original,
}

impl OptionValue for AdafactorForm {
    fn get(&self) -> f64 {
        f64::from(*self as u8)
    }
    fn set(&mut self, value: f64) {
        *self = if value == 0.0 { Self::Torch } else { Self::Original };
    }
}

/// Adafactor: Adam's second moment by rows and columns, in a fraction of the memory.
///
/// *Use it when* the state of Adam does not fit: a matrix of m × n weights has m + n numbers instead of
/// 2mn. *Not when* memory is there: AdamW reaches the same loss in fewer steps, and 8-bit AdamW takes
/// 2 bytes per parameter.
///
/// ```text
/// g² ← g² + ε₁                                          Original only
/// w = max(t^beta2_decay, 1 − beta2_cap)
/// R ← R + w·(mean of g² over each row − R)              of the last two dimensions;
/// C ← C + w·(mean of g² over each column − C)           those before them count matrices
/// V = R·C/max(mean(R), ε₁)                              Original: V = R·C/mean(R)
/// V ← V + w·(g² − V)                                    in place of R and C, for vectors and scalars
/// S ← max(S, √V), V = S/w                               if ams_bound
/// U = g/max(√V, ε₁)                                     Original: U = g/√V; 0/0 = 0
/// ρ = min(γ, 1/√t)                                      warmup_init: min(γ, 1e-6·t, 1/√t); relative_step off: ρ = γ
/// α = ρ·max(ε₂, RMS(p))                                 scale_parameter off: α = ρ
/// p ← p·(1 − γλ)                                        Original: p ← p·(1 − αλ)
/// u = α·U/max(1, RMS(U)/d)
/// m ← m + (1 − β₁)·(u − m), u = m                       if β₁ > 0
/// p ← p − u
/// ```
///
/// | field | default | source of the default | `original()` |
/// |---|---|---|---|
/// | `lr` γ | 1e-2 | PyTorch | 1e-2, the paper's bound of ρ |
/// | `beta1` β₁ | 0: no momentum | PyTorch | 0 |
/// | `beta2_decay` | −0.8 | PyTorch, paper | −0.8 |
/// | `beta2_cap` | 1: none | PyTorch | 0.999, pytorch_optimizer |
/// | `eps` ε₁, ε₂ | (`None`, 1e-3): ε₁ is the gap between 1 and the next number | PyTorch | (`None`, 1e-3): ε₁ is 1e-30, paper |
/// | `d` | 1 | PyTorch, paper | 1 |
/// | `weight_decay` λ | 0 | PyTorch | 0 |
/// | `scale_parameter`, `relative_step` | true, true | PyTorch | true, true |
/// | `warmup_init`, `ams_bound` | false, false | PyTorch | false, false |
/// | `form` | `Torch` | – | `Original` |
/// | `maximize` | false | PyTorch | false |
///
/// State for `f32` parameters: `row_var` and `col_var`, 4·(m + n) bytes for a matrix of m × n (of a
/// tensor of more dimensions, for each matrix of its last two); `variance`, 4 bytes per element of a
/// vector; with `beta1` `exp_avg`, and with `ams_bound` `max_root`, 4 bytes per parameter each.
/// Sums of one step (`axis_sums`) take at most a quarter of a byte per parameter more, and 4 bytes per
/// matrix. Three passes over memory per step.
///
/// # Errors
/// `build` refuses `lr`, `weight_decay` or `eps` below 0, `beta1` outside `[0, 1)`, `beta2_decay` above 0,
/// `beta2_cap` outside `[0, 1]`, `d` below 1, and `warmup_init` without `relative_step`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array2;
///
/// let (mut w, g) = (Array2::<f32>::ones((512, 512)), Array2::from_elem((512, 512), 1e-3));
/// let mut opt = Adafactor { lr: 0.05, ..Adafactor::default() }.build()?;
/// opt.step(&mut w, &g)?;
/// // the step has the size of the weights times `lr`, whatever that of the gradient
/// assert!(w.iter().all(|w| (w - 0.95).abs() < 1e-5));
/// assert_eq!(opt.state_bytes().slot("row_var"), 4 * 512);
/// assert!(opt.state_bytes().per_parameter() < 0.2);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// From PyTorch: `beta1`, `beta2_cap`, `ams_bound` and the switches of the step size are additions. For
/// parameters in bf16 and f16, a default ε₁ is that of `f32`, in which steps are computed. Squares that
/// overflow count as the largest number.
///
/// From the paper's code, fairseq, transformers and pytorch_optimizer, for `original()`: with
/// `relative_step`, `lr` is the bound that is 1e-2 there, so that a schedule can lower it; a rate of 0
/// stops momentum, too. Steps are counted per parameter. `ams_bound` is pytorch_optimizer's, which
/// takes the largest *root* of V for a second moment: steps then follow the root of the gradient, not its
/// sign.
///
/// # Source
/// N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018;
/// `beta2_cap`: X. Zhai, A. Kolesnikov, N. Houlsby, L. Beyer, "Scaling Vision Transformers", CVPR 2022.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Adafactor {
    /// Learning rate `γ >= 0`: the largest step relative to the weights.
    pub lr: f64,
    /// Decay rate `β₁` of the average of steps, in `[0, 1)`; 0 for none.
    pub beta1: f64,
    /// Exponent `<= 0` of the weight `t^beta2_decay` of a new squared gradient.
    pub beta2_decay: f64,
    /// Largest weight of old squared gradients, in `[0, 1]`.
    pub beta2_cap: f64,
    /// Stabiliser `ε₁ >= 0` of the second moment (`None`: the default of the form), and least root mean
    /// square `ε₂ >= 0` that weights count as.
    pub eps: (Option<f64>, f64),
    /// Largest root mean square `d >= 1` of `U`; may be `+∞`.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub d: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Multiply the step by the root mean square of the weights.
    pub scale_parameter: bool,
    /// Let the step shrink with the root of the step number.
    pub relative_step: bool,
    /// Let the step grow from `1e-6` at the start.
    pub warmup_init: bool,
    /// Divide by the root of the largest `√V` so far: one number more per parameter.
    pub ams_bound: bool,
    /// Where `ε₁` acts, and what decay is multiplied by.
    pub form: AdafactorForm,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Adafactor);

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            beta1: 0.0,
            beta2_decay: -0.8,
            beta2_cap: 1.0,
            eps: (None, 1e-3),
            d: 1.0,
            weight_decay: 0.0,
            scale_parameter: true,
            relative_step: true,
            warmup_init: false,
            ams_bound: false,
            form: AdafactorForm::Torch,
            maximize: false,
        }
    }
}

impl Adafactor {
    /// The form of the paper, as fairseq and transformers have it.
    pub fn original() -> Self {
        Self { form: AdafactorForm::Original, beta2_cap: 0.999, ..Self::default() }
    }
}

crate::hyperparameters!(Adafactor, "Adafactor", {
    "lr": NonNegative = lr;
    "beta1": UnitHalfOpen = beta1;
    "beta2_decay": NonPositive = beta2_decay;
    "beta2_cap": Unit = beta2_cap;
    "eps.0": OptionalNonNegative = eps.0;
    "eps.1": NonNegative = eps.1;
    "d": FromOne = d;
    "weight_decay": NonNegative = weight_decay;
    "scale_parameter": Flag = scale_parameter;
    "relative_step": Flag = relative_step;
    "warmup_init": Flag = warmup_init;
    "ams_bound": Flag = ams_bound;
    "form": Choice(&["Torch", "Original"]) = form;
    "maximize": Flag = maximize;
}, |config| { config.check() });

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdafactorCoefficients<R> {
    /// Whether the slot reads as `√V`, and `w` where it does not.
    factored: bool,
    weight: R,
    /// `ε₁` where it is added, and where it bounds.
    added: R,
    floor: R,
    ams_bound: bool,
    /// `1/√w` with `ams_bound`.
    bound_scale: R,
    one_minus_beta1: R,
    /// `α`, known after the first pass.
    alpha: f64,
    /// `α/max(1, RMS(U)/d)`, known after the second.
    scale: R,
    /// `1/γ`; 0 without a rate.
    per_lr: R,
    /// Decay as a multiple of `γλ`.
    decay_scale: R,
}

const SQUARES: usize = 0;
const SIZE: usize = 1;

impl<R: Real> AdafactorCoefficients<R> {
    /// `g²`; what overflows is the largest number, in `f64` the largest that can be summed, and a NaN stays
    /// one.
    #[inline(always)]
    fn square(&self, g: R) -> R {
        let summable = R::of(f64::MAX / 2_f64.powi(60));
        let (square, largest) = (g * g + self.added, R::max_value().min(summable));
        if square > largest { largest } else { square }
    }

    /// `U`, and the new `V` and `S`.
    #[inline(always)]
    fn precondition(&self, g: R, v: R, bound: R) -> (R, R, R) {
        let v = v + self.weight * (self.square(g) - v);
        let root = if self.factored { v } else { v.sqrt() };
        let bound = if bound > root { bound } else { root };
        let root = if self.ams_bound { bound.sqrt() * self.bound_scale } else { root };
        let root = if root < self.floor { self.floor } else { root };
        (if root == R::zero() { root * g } else { g / root }, v, bound)
    }
}

impl Adafactor {
    fn check(&self) -> Result<()> {
        if self.warmup_init && !self.relative_step {
            return Err(Self::invalid("warmup_init", "false without `relative_step`", "true"));
        }
        Ok(())
    }

    /// `w`.
    fn weight(&self, t: u64) -> f64 {
        (t as f64).powf(self.beta2_decay).max(1.0 - self.beta2_cap)
    }

    /// `ρ`.
    fn relative(&self, t: u64) -> f64 {
        let t = t as f64;
        let warmup = if self.warmup_init { 1e-6 * t } else { f64::INFINITY };
        if self.relative_step { self.lr.min(warmup).min(1.0 / t.sqrt()) } else { self.lr }
    }

    /// `ε₁` where it is added, and where it bounds.
    fn stabilisers<R: Real>(&self) -> (f64, f64) {
        match self.form {
            AdafactorForm::Torch => (0.0, self.eps.0.unwrap_or(R::epsilon().widen())),
            AdafactorForm::Original => (self.eps.0.unwrap_or(1e-30), 0.0),
        }
    }
}

impl Rule for Adafactor {
    type Coefficients<R: Real> = AdafactorCoefficients<R>;
    type State<R: Real> = [R; 3];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[
        Slot::factored("variance", "row_var", "col_var"),
        Slot::signed("exp_avg").optional(),
        Slot::unsigned("max_root").optional(),
    ];
    const GRADIENT_POWER: u32 = 0;
    const PER_TENSOR: bool = true;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdafactorCoefficients<R> {
        let weight = self.weight(t);
        let (added, floor) = self.stabilisers::<R>();
        let per_lr = R::of(1.0 / self.lr);
        AdafactorCoefficients {
            factored: false,
            weight: R::of(weight),
            added: R::of(added),
            floor: R::of(floor),
            ams_bound: self.ams_bound,
            bound_scale: R::of(if self.ams_bound { 1.0 / weight.sqrt() } else { 1.0 }),
            one_minus_beta1: R::of(1.0 - self.beta1),
            alpha: self.relative(t),
            scale: R::zero(),
            per_lr: if per_lr.is_finite() { per_lr } else { R::zero() },
            decay_scale: R::one(),
        }
    }

    fn tensor_coefficients<R: Real>(
        &self,
        step: &TensorStep<'_>,
        _: &[f64],
        c: &mut AdafactorCoefficients<R>,
    ) {
        if step.shape.len() > 1 {
            (c.factored, c.weight) = (true, R::zero());
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &AdafactorCoefficients<R>,
        _p: R,
        g: R,
        [v, m, bound]: [R; 3],
    ) -> (R, [R; 3]) {
        let (u, v, bound) = c.precondition(g, v, bound);
        let m = lerp(m, c.scale * u, c.one_minus_beta1);
        (m * c.per_lr, [v, m, bound])
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &AdafactorCoefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: [R; 3],
    ) -> (R, [R; 3]) {
        let (u, s) = Self::direction(c, p, g, s);
        let shrink = R::one() - (R::one() - a.shrink) * c.decay_scale;
        (p * shrink - a.lr * u, s)
    }

    fn has_own_update(&self) -> bool {
        self.form == AdafactorForm::Original && self.weight_decay != 0.0
    }

    fn uses_slot(&self, slot: usize) -> bool {
        match slot {
            0 => true,
            1 => self.beta1 > 0.0,
            _ => self.ams_bound,
        }
    }

    fn passes(&self) -> Range<usize> {
        SQUARES..SIZE + 1
    }

    #[inline(always)]
    fn measure<R: Real>(
        pass: usize,
        c: &AdafactorCoefficients<R>,
        p: R,
        g: R,
        [v, _, bound]: [R; 3],
    ) -> Sums {
        let measured = if pass == SQUARES { p } else { c.precondition(g, v, bound).0 };
        [measured.widen() * measured.widen(), 0.0, 0.0, 0.0]
    }

    fn factoring<R: Real>(&self, _slot: usize, t: u64) -> Factoring {
        let (_, floor) = self.stabilisers::<R>();
        Factoring { pass: SQUARES, weight: self.weight(t), floor }
    }

    #[inline(always)]
    fn factor_term<R: Real>(
        _slot: usize,
        c: &AdafactorCoefficients<R>,
        _p: R,
        g: R,
        _: [R; 3],
    ) -> R {
        c.square(g)
    }

    fn refine<R: Real>(
        &self,
        pass: usize,
        measured: &TensorSums,
        c: &mut AdafactorCoefficients<R>,
    ) {
        let [squares, ..] = measured.sums;
        let rms = (squares / measured.numel as f64).sqrt();
        if pass == SQUARES {
            if self.scale_parameter {
                c.alpha *= if rms < self.eps.1 { self.eps.1 } else { rms };
            }
            if self.form == AdafactorForm::Original && self.lr > 0.0 {
                c.decay_scale = R::of(c.alpha / self.lr);
            }
        } else {
            let excess = rms / self.d;
            c.scale = R::of(if excess <= 1.0 { c.alpha } else { c.alpha / excess });
        }
    }
}
