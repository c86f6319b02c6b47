use super::polar::PolarBlock;
use super::reshape::{entry_of, of_entries};
use super::{Descent, LrAdjustment, Orthogonalization};
use crate::error::Result;
use crate::first_order::AdamW;
use crate::linalg::matrix_shape;
use crate::numeric::Real;
use crate::numeric::limits::MOST_ITERATIONS;
use crate::optim::{BlockStep, GradEma, MatrixMethod, Partition};
use crate::state::{Lookup, Storage};
use ndarray::{ArrayViewMutD, Ix2};

/// Muon: orthogonalized momentum.
///
/// *Use it when* most parameters are hidden matrices of a network: every singular direction of the
/// momentum gets the same step, so learning rates can be large. *Not when* a matrix is an embedding
/// or an output head: put those into a group with `orthogonalize = false`. Such groups, vectors and
/// scalars are updated by AdamW, the *fallback*, in the same optimizer, so that one schedule drives both.
///
/// ```text
/// B ← μ·B + (1 − μ)·G
/// U = μ·B + (1 − μ)·G        nesterov; else U = B
/// O = NS(U)                  U V Sᵀ ↦ about U Sᵀ, by Newton–Schulz steps
/// W ← W·(1 − γλ) − γ·s·O     s: see LrAdjustment, for rows × columns
/// ```
/// A tensor of more than two dimensions is reshaped to (first, all others), dimensions of size 1 dropped. Rows are
/// the outputs of a layer in `Original` and `Spectral`; for weights that are in × out see
/// [which way round](crate::params#which-way-round-is-a-matrix).
///
/// A stack of matrices in one tensor, such as those of experts or heads, is none of these: put it into a group
/// with `batch_dims = 1`, which numbers the matrices by the first dimension. Each is then orthogonalized as it
/// would be alone, to the bit:
/// ```
/// use eigenstep::{prelude::*, second_order::Muon};
/// use ndarray::{Array3, Axis};
///
/// let mut experts = Array3::<f32>::from_shape_fn((4, 6, 5), |(i, j, k)| (i * 31 + j * 7 + k) as f32).sin();
/// let (grad, mut last) = (experts.clone(), experts.index_axis(Axis(0), 3).to_owned());
/// Muon { batch_dims: 1, ..Muon::default() }.build()?.step(&mut experts, &grad)?;
/// Muon::default().build()?.step(&mut last, &grad.index_axis(Axis(0), 3).to_owned())?;
/// assert_eq!(experts.index_axis(Axis(0), 3), last);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch |
/// | `momentum` μ | 0.95 | paper, PyTorch |
/// | `nesterov` | true | paper, PyTorch |
/// | `weight_decay` λ | 0.1 | PyTorch |
/// | `orthogonalization` | `Quintic` | paper |
/// | `ns_steps` | 5 | paper |
/// | `eps` | 1e-7 | paper |
/// | `adjust_lr` | `Original` | paper |
/// | `batch_dims` | 0 | –; author's code: 1 for tensors of three dimensions |
/// | `orthogonalize` | true | false: AdamW updates this group |
/// | `fallback_lr_ratio` | 1 | AdamW's learning rate is `lr` times this |
/// | `fallback_betas`, `fallback_eps`, `fallback_weight_decay` | (0.9, 0.999), 1e-8, 0.01 | PyTorch's AdamW |
///
/// State: `momentum_buffer` (B), 4 bytes per `f32` parameter; `with_state_precision` codes it like
/// any slot, 1.03 bytes with `INT8_LINEAR`. AdamW's parameters have AdamW's slots.
///
/// # Errors
/// `build` refuses options out of range. A matrix whose momentum cannot be orthogonalized does not move; a
/// step fails if that happens four times in a row. It takes entries near the largest number.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, second_order::Muon};
/// use ndarray::{Array2, array};
///
/// let target = array![[1.0f64, 2.0], [3.0, 4.0]];
/// let mut w = Array2::<f64>::zeros((2, 2));
/// let mut opt = Muon { weight_decay: 0.0, ..Muon::default() }.build()?;
/// for step in 0..200 {
///     // every step has the length of the learning rate, which has to shrink
///     opt.set_lr(0, 0.1 * (1.0 - f64::from(step) / 200.0))?;
///     let grad = &w - &target;
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w - target).iter().all(|x: &f64| x.abs() < 0.1));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// PyTorch iterates in bfloat16; here the type is the parameter's, or `f32`. It refuses what is no matrix. The
/// author's code reshapes tensors of four dimensions as here, takes all others of more than two for stacks, and
/// has the factor of [`LrAdjustment::LastTwoDims`]: for a kernel of 64 × 3 × 3 × 3 that is 1, where
/// `Original` has √(64/27) = 1.54.
///
/// # Source
/// K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein, "Muon: An optimizer for
/// hidden layers in neural networks", 2024; J. Liu et al., "Muon is Scalable for LLM Training", 2025;
/// N. Amsel, D. Persson, C. Musco, R. M. Gower, "The Polar Express", 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Muon {
    /// Learning rate `γ >= 0` of the matrices.
    pub lr: f64,
    /// Decay rate `μ` of the momentum, in `[0, 1)`.
    pub momentum: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// Decoupled weight decay `λ >= 0` of the matrices.
    pub weight_decay: f64,
    /// The polynomials of the iteration.
    pub orthogonalization: Orthogonalization,
    /// Number of iterations, at least 1.
    pub ns_steps: usize,
    /// Norm below which a momentum is not scaled up any more.
    pub eps: f64,
    /// Factor on the learning rate, by the shape of the matrix.
    pub adjust_lr: LrAdjustment,
    /// Number of leading dimensions that number the matrices of a stack. A tensor of which they leave fewer
    /// than two dimensions is updated by AdamW.
    pub batch_dims: usize,
    /// Whether Muon updates the matrices of this group; else AdamW does.
    pub orthogonalize: bool,
    /// Learning rate of the fallback, as a multiple `>= 0` of `lr`. With [`LrAdjustment::MatchRmsAdamW`]
    /// both can have the same rate.
    pub fallback_lr_ratio: f64,
    /// Decay rates of the fallback, each in `[0, 1)`.
    pub fallback_betas: (f64, f64),
    /// Stabiliser `>= 0` of the fallback.
    pub fallback_eps: f64,
    /// Decoupled weight decay `>= 0` of the fallback.
    pub fallback_weight_decay: f64,
}
crate::config_file::named_fields!(Muon);

impl Default for Muon {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.95,
            nesterov: true,
            weight_decay: 0.1,
            orthogonalization: Orthogonalization::default(),
            ns_steps: 5,
            eps: 1e-7,
            adjust_lr: LrAdjustment::default(),
            batch_dims: 0,
            orthogonalize: true,
            fallback_lr_ratio: 1.0,
            fallback_betas: (0.9, 0.999),
            fallback_eps: 1e-8,
            fallback_weight_decay: 0.01,
        }
    }
}

crate::hyperparameters!(Muon, "Muon", {
    "lr": NonNegative = lr;
    "momentum": UnitHalfOpen = momentum;
    "nesterov": Flag = nesterov;
    "weight_decay": NonNegative = weight_decay;
    "ns_steps": Count(1, MOST_ITERATIONS) = ns_steps;
    "eps": NonNegative = eps;
    "orthogonalize": Flag = orthogonalize;
    "fallback_lr_ratio": NonNegative = fallback_lr_ratio;
    "fallback_betas.0": UnitHalfOpen = fallback_betas.0;
    "fallback_betas.1": UnitHalfOpen = fallback_betas.1;
    "fallback_eps": NonNegative = fallback_eps;
    "fallback_weight_decay": NonNegative = fallback_weight_decay;
});

/// What is orthogonalized of a tensor: a matrix as it is, of one row or column as well; what has more
/// dimensions as (first, all others).
fn as_matrix(shape: &[usize]) -> Option<(usize, usize)> {
    match *shape {
        [rows, columns] => Some((rows, columns)),
        _ => matrix_shape(shape),
    }
}

impl MatrixMethod for Muon {
    type Rule = Descent;
    type Fallback = AdamW;
    type Block<R: Real> = PolarBlock;

    fn rule(&self) -> Descent {
        Descent { lr: self.lr, weight_decay: self.weight_decay, ..Descent::default() }
    }

    fn fallback(&self) -> AdamW {
        AdamW {
            lr: self.lr * self.fallback_lr_ratio,
            betas: self.fallback_betas,
            eps: self.fallback_eps,
            weight_decay: self.fallback_weight_decay,
            ..AdamW::default()
        }
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        of_entries(shape, self.batch_dims, |entry| {
            let (rows, columns) = as_matrix(entry).filter(|_| self.orthogonalize)?;
            Some(Partition::new(vec![rows, columns], usize::MAX))
        })
    }

    /// `μB⁺ + (1 − μ)G = μ²B + (1 − μ²)G` for `B⁺ = μB + (1 − μ)G`.
    fn grad_ema(&self) -> Option<GradEma> {
        let mu = self.momentum;
        Some(GradEma {
            slot: "momentum_buffer",
            beta: mu,
            weight: if self.nesterov { mu * mu } else { mu },
            bias_correction: false,
        })
    }

    fn lr_factor(&self, shape: &[usize]) -> f64 {
        let entry = entry_of(shape, self.batch_dims);
        self.adjust_lr.factor(entry, as_matrix(entry).unwrap_or((1, 1)))
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| (method.orthogonalize, method.batch_dims);
        layout(self) == layout(changed)
    }

    fn init<R: Real>(&self, _: &[usize], _: &Storage) -> PolarBlock {
        PolarBlock::default()
    }

    fn load<R: Real>(&self, _: &[usize], _: &Storage, _: &Lookup<'_>) -> Result<PolarBlock> {
        Ok(PolarBlock::default())
    }

    fn precondition<R: Real>(
        &self,
        _: &BlockStep<'_, R>,
        block: &mut PolarBlock,
        direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        // the partition makes matrices only
        let Ok(mut momentum) = direction.into_dimensionality::<Ix2>() else { return 0.0 };
        block.replace(&mut momentum, &self.orthogonalization, (self.ns_steps, self.eps));
        0.0
    }
}
