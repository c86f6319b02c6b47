use super::compressed_window::CompressedWindow;
use super::compression::{Compression, SparseConfig};
use super::compressor::Selection;
use super::momentum::Momentum;
use super::residual::ResidualFormat;
use crate::error::Result;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::numeric::limits::MOST_GRADIENTS;
use crate::optim::{Direction, Elementwise, Layout, Scope, VectorMemory, VectorMethod, VectorStep};
use crate::state::{Lookup, Record, StateBytes};

/// The number of steps `h` in the bias corrections of [`MicroAdam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Horizon {
    /// All steps, as published. The window holds `m` gradients only, so late in training a coordinate
    /// that is selected at every step moves several times as far as with Adam.
    #[default]
    Step,
    /// The number of gradients in the window.
    Window,
}

/// MicroAdam: Adam over a short window of sparse gradients, with error feedback from a residual in 4
/// bits.
///
/// *Use it when* you fine-tune a large model and memory is short: it takes 0.97 bytes per parameter,
/// Adam 8. *Not when* every weight has to move at every step: at most a share of `m·density` moves.
///
/// ```text
/// a = g + ξ
/// c = TopK(a), block by block;  ξ ← Q(a − c)         Q: rounding to the format of the residual
/// m̂ = (1 − β₁)/(1 − β₁ʰ)·Σ β₁^age·c                  over the window; h: horizon
/// v̂ = (1 − β₂)/(1 − β₂ʰ)·Σ β₂^age·c²
/// p ← p·(1 − γλ) − γ·m̂/(√v̂ + ε)
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | – |
/// | `betas` | (0.9, 0.999) | paper |
/// | `eps` ε | 1e-8 | paper |
/// | `weight_decay` λ | 0 | paper |
/// | `window` m | 10 | paper |
/// | `selection` | 1 % of every block of 4096 | paper (its block size depends on the GPU) |
/// | `residual` | 4 bits in blocks of 64 | paper |
/// | `bf16_values` | true | paper |
/// | `horizon` h | `Step` | paper |
/// | `alpha` | 0; the share of ξ that every step applies and removes | ISTA-DASLab-Optimizers |
/// | `maximize` | false | – |
///
/// State with the defaults, in bytes per `f32` parameter: 0.5 for the residual's codes, 0.125 for
/// their ranges, 0.4 for the window.
///
/// # Errors
/// `build` refuses options out of range.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::{MicroAdam, Selection};
/// use eigenstep::prelude::*;
/// use ndarray::Array1;
///
/// let target = Array1::from_iter((0..50).map(f64::from));
/// let mut w = Array1::<f64>::zeros(50);
/// let selection = Selection::BlockTopK { density: 0.1, block: 64 };
/// let mut opt = MicroAdam { lr: 0.5, selection, ..MicroAdam::default() }.build()?;
/// for step in 0..600 {
///     opt.set_lr(0, 0.5 * (1.0 - f64::from(step) / 600.0))?;
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - target).iter().all(|x: &f64| x.abs() < 2.0));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The authors' code writes into the gradient; here it does not change. Codes are clamped, so rounding
/// cannot overflow into the neighbouring code. Ranges have the parameter's type.
///
/// # Source
/// I. Modoranu, M. Safaryan, G. Malinovsky, E. Kurtic, T. Robert, P. Richtárik, D. Alistarh,
/// "MicroAdam: Accurate Adaptive Optimization with Low Space Overhead and Provable Convergence",
/// NeurIPS 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct MicroAdam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the sums of gradients and of their squares, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`.
    pub eps: f64,
    /// Decoupled weight decay `λ >= 0`.
    pub weight_decay: f64,
    /// Number `m >= 1` of gradients in the window.
    pub window: usize,
    /// Which elements of a gradient are kept.
    pub selection: Selection,
    /// The format of the residual.
    pub residual: ResidualFormat,
    /// Whether the window rounds values to bfloat16.
    pub bf16_values: bool,
    /// The number of steps in the bias corrections.
    pub horizon: Horizon,
    /// Share of the residual that every step applies and removes, in `[0, 1)`.
    pub alpha: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(MicroAdam);

impl Default for MicroAdam {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            window: 10,
            selection: Selection::BlockTopK { density: 0.01, block: 4096 },
            residual: ResidualFormat::Nibble { block: 64 },
            bf16_values: true,
            horizon: Horizon::Step,
            alpha: 0.0,
            maximize: false,
        }
    }
}

crate::hyperparameters!(MicroAdam, "MicroAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "weight_decay": NonNegative = weight_decay;
    "window": Count(1, MOST_GRADIENTS) = window;
    "bf16_values": Flag = bf16_values;
    "alpha": UnitHalfOpen = alpha;
    "maximize": Flag = maximize;
}, |config| { config.compression().validate("MicroAdam") });

impl MicroAdam {
    fn compression(&self) -> Compression {
        let Self { selection, residual, bf16_values, .. } = *self;
        Compression::Sparse(SparseConfig { selection, feedback: true, residual, bf16_values })
    }
}

/// The state of [`MicroAdam`] for one tensor.
#[derive(Clone, Debug)]
pub struct MicroAdamMemory<R> {
    gradients: CompressedWindow<R>,
    /// Weights of every gradient in the two averages, by its slot in the window.
    weights: Vec<[R; 2]>,
    eps: R,
    alpha: R,
}

impl<R: Real> MicroAdamMemory<R> {
    fn new(gradients: CompressedWindow<R>) -> Self {
        Self { gradients, weights: Vec::new(), eps: R::zero(), alpha: R::zero() }
    }
}

impl<R: Real> Direction<R> for MicroAdamMemory<R> {
    fn compute(&self, offset: usize, out: &mut [R]) {
        out.fill(R::zero());
        let window = &self.gradients.window;
        with_scratch::<R, _>(out.len(), |squares| {
            squares.fill(R::zero());
            for (slot, &[first, second]) in self.weights.iter().enumerate() {
                window.each_stored(slot, offset, out.len(), |place, c| {
                    if let (Some(m), Some(v)) = (out.get_mut(place), squares.get_mut(place)) {
                        *m += first * c;
                        *v += second * (c * c);
                    }
                });
            }
            for (m, &v) in out.iter_mut().zip(&*squares) {
                // a coordinate that is not in the window does not move, even if eps is 0
                if v > R::zero() {
                    *m /= v.sqrt() + self.eps;
                }
            }
        });
        if self.alpha > R::zero() {
            self.gradients.add_residual(offset, self.alpha, out);
        }
    }
}

impl<R: Real> VectorMemory for MicroAdamMemory<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.gradients.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        self.gradients.save(record);
    }
}

impl VectorMethod for MicroAdam {
    type Inner = Elementwise<Momentum>;
    type Memory<R: Real> = MicroAdamMemory<R>;

    fn inner(&self) -> Elementwise<Momentum> {
        let Self { lr, weight_decay, maximize, .. } = *self;
        Elementwise(Momentum { lr, weight_decay, maximize, ..Momentum::default() })
    }

    fn scope(&self) -> Scope {
        Scope::Tensor
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        self.window == changed.window && self.compression() == changed.compression()
    }

    fn check_layout(&self, layout: &Layout) -> Result<()> {
        self.compression().check_layout("MicroAdam", layout)
    }

    fn init<R: Real>(&self, layout: &Layout) -> MicroAdamMemory<R> {
        MicroAdamMemory::new(CompressedWindow::new(&self.compression(), self.window, layout))
    }

    fn load<R: Real>(&self, layout: &Layout, lookup: &Lookup<'_>) -> Result<MicroAdamMemory<R>> {
        let gradients = CompressedWindow::load(&self.compression(), self.window, layout, lookup)?;
        Ok(MicroAdamMemory::new(gradients))
    }

    fn absorb<R: Real>(&self, step: &VectorStep<'_, R>, memory: &mut MicroAdamMemory<R>) {
        // removes what the last step has applied
        if self.alpha > 0.0 {
            memory.gradients.scale_residual(1.0 - self.alpha);
        }
        memory.gradients.update(step);
        let window = &memory.gradients.window;
        let horizon = match self.horizon {
            Horizon::Step => step.t as f64,
            Horizon::Window => window.count() as f64,
        };
        let weight =
            |beta: f64, age: f64| R::of((1.0 - beta) / (1.0 - beta.powf(horizon)) * beta.powf(age));
        let (first, second) = self.betas;
        memory.weights.clear();
        memory.weights.extend((0..window.count()).map(|slot| {
            let age = window.age(slot) as f64;
            [weight(first, age), weight(second, age)]
        }));
        memory.eps = R::of(self.eps);
        memory.alpha = R::of(self.alpha);
    }
}
