use super::polar::PolarBlock;
use super::reshape::{entry_of, of_entries};
use super::{Descent, Orthogonalization};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::linalg::frobenius;
use crate::numeric::limits::MOST_ITERATIONS;
use crate::numeric::{Real, sign};
use crate::optim::{BlockStep, GradEma, MatrixMethod, Partition};
use crate::state::{Lookup, Storage};
use ndarray::{ArrayRef2, ArrayViewMutD, Axis, Ix2};

/// Added to the size that a matrix, row or column is divided by.
const EPS: f64 = 1e-8;

/// Scion: steps to the edge of a ball around zero, in a norm chosen for each layer.
///
/// *Use it when* you train a whole network with norms that suit its layers, and want learning rates that stay good
/// when the network gets wider, without AdamW for any part of it. *Not when* you want AdamW for embeddings
/// and outputs: that is [`Muon`](super::Muon); or a momentum and average of your own: that is
/// [`SteepestDescent`](super::SteepestDescent).
///
/// ```text
/// m ← (1 − α)·m + α·g
/// u = ρ·lmo(m)                   the matrix of norm ρ along which m rises fastest
/// p ← p·(1 − γ)                  not if unconstrained
/// p ← p − γ·u
/// ```
/// Constrained, every step is a weighted mean of p and a point of the ball of radius ρ, so that p stays in the ball once
/// it is there (a step of Frank and Wolfe); that is decay with λ = 1. Of an out × in matrix, `norm` makes
///
/// | `norm` | lmo(m) | for |
/// |---|---|---|
/// | `Spectral` | √(out/in)·U Vᵀ of m = U S Vᵀ; not `normalized`: √out·U Vᵀ; `max`: the factor at least 1 | hidden layers |
/// | `Sign` | sign(m)/in; not `normalized`: sign(m) | output layers |
/// | `ColNorm` | every column over its root mean square + 1e-8; `normalized`: also over in | embeddings, columns are words |
/// | `RowNorm` | every row over ‖row‖·√in + 1e-8; not `normalized`: over ‖row‖ + 1e-8 | output layers |
/// | `BiasRms` | m over its root mean square + 1e-8 | vectors |
///
/// A tensor of more than two dimensions is the matrix (first, all others), where in is the second dimension alone for
/// `Spectral`, which also divides by the number of places of the kernel (k² of k × k), and for `Sign`. Whatever the
/// `norm`, vectors and scalars get `BiasRms`. Rows are the outputs of a layer, columns its inputs, as in PyTorch;
/// `transpose` takes columns for rows, for embeddings with a row per word.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | authors' code; paper: 2⁻¹² |
/// | `momentum` α | 1: no average | authors' code; paper: 0.1 |
/// | `norm` | `Spectral`, normalized, five steps of Muon's polynomial | authors' code |
/// | `scale` ρ | 1 | authors' code; paper: 50 for hidden layers, 3000 for the output |
/// | `unconstrained` | false | authors' code |
/// | `batch_dims` | 0 | –; 1 for the matrices of experts or heads in one tensor |
///
/// State: `momentum_buffer` (m), 4 bytes per `f32` parameter; none with α = 1.
///
/// # Errors
/// `build` refuses options out of range. A matrix that cannot be orthogonalized does not move, but for its decay; a step
/// fails if that happens four times in a row.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, second_order::ScionNorm};
/// use ndarray::array;
///
/// let mut w = array![[1.0f64, -2.0], [0.5, 0.0]];
/// let norm = ScionNorm::Sign { normalized: true };
/// let mut opt = Scion { lr: 0.5, norm, unconstrained: true, ..Scion::default() }.build()?;
/// let grad = w.clone();
/// opt.step(&mut w, &grad)?;
/// assert_eq!(w, array![[0.75, -1.75], [0.25, 0.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// A network: signs for the output, and a larger ball.
/// ```
/// use eigenstep::{prelude::*, second_order::ScionNorm};
///
/// let hidden = Scion { lr: 2.4e-4, momentum: 0.1, scale: 50.0, ..Scion::default() };
/// let opt = hidden.build::<f32>()?.with_group(Select::name("head*"), |output| {
///     output.norm = ScionNorm::Sign { normalized: true };
///     output.scale = 3000.0;
/// })?;
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// `momentum` is the weight α of the new gradient, as in the authors' code: 1 − α is what other methods call momentum.
/// Their `Auto` is the default here; it divides the kernel of a convolution in one dimension by k², not by k.
/// Their norms of matrices refuse vectors. `ScionLight`, which keeps the average in the gradient, is Scion with gradients
/// that are not set to zero and 1 − α times as large at the next step. They iterate in bfloat16.
///
/// # Source
/// T. Pethick, W. Xie, K. Antonakopoulos, Z. Zhu, A. Silveti-Falls, V. Cevher, "Training Deep Learning Models with
/// Norm-Constrained LMOs", ICML 2025.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Scion {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Weight `α` in `[0, 1]` of the gradient in the average; with 0 it stays zero.
    pub momentum: f64,
    /// The norm of matrices.
    pub norm: ScionNorm,
    /// Radius `ρ > 0` of the ball.
    pub scale: f64,
    /// Steps of length γρ from where the parameter is, which may leave the ball.
    pub unconstrained: bool,
    /// Number of leading dimensions that number the tensors of a stack.
    pub batch_dims: usize,
}
crate::config_file::named_fields!(Scion);

/// The norm of the ball, for matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum ScionNorm {
    /// The largest singular value.
    Spectral {
        /// Factor √(out/in), for outputs of root mean square 1 from such inputs; else √out, for inputs of length 1.
        normalized: bool,
        /// At least 1 for the factor.
        max: bool,
        /// How the orthogonal factor is found.
        orthogonalization: Orthogonalization,
        /// Number of iterations, at least 1.
        steps: usize,
        /// Norm below which a matrix is not scaled up any more.
        eps: f64,
    },
    /// The largest entry: signs.
    Sign {
        /// Divide by the number of inputs.
        normalized: bool,
    },
    /// The largest root mean square of a column.
    ColNorm {
        /// Divide by the number of columns.
        normalized: bool,
        /// Rows instead of columns.
        transpose: bool,
    },
    /// The largest length of a row.
    RowNorm {
        /// Divide by the root of the number of columns.
        normalized: bool,
        /// Columns instead of rows.
        transpose: bool,
    },
    /// The root mean square of all entries.
    BiasRms,
}

impl Default for ScionNorm {
    /// Spectral and normalized, five steps of Muon's polynomial, norms below 1e-7 left alone.
    fn default() -> Self {
        Self::Spectral {
            normalized: true,
            max: false,
            orthogonalization: Orthogonalization::Quintic,
            steps: 5,
            eps: 1e-7,
        }
    }
}

impl Default for Scion {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 1.0,
            norm: ScionNorm::default(),
            scale: 1.0,
            unconstrained: false,
            batch_dims: 0,
        }
    }
}

impl Hyperparameters for Scion {
    const NAME: &'static str = "Scion";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("lr", Range::NonNegative, &mut self.lr);
        option("momentum", Range::Unit, &mut self.momentum);
        option("scale", Range::Positive, &mut self.scale);
        option("unconstrained", Range::Flag, &mut self.unconstrained);
        match &mut self.norm {
            ScionNorm::Spectral { normalized, max, steps, eps, .. } => {
                option("norm.normalized", Range::Flag, normalized);
                option("norm.max", Range::Flag, max);
                option("norm.steps", Range::Count(1, MOST_ITERATIONS), steps);
                option("norm.eps", Range::NonNegative, eps);
            }
            ScionNorm::Sign { normalized } => option("norm.normalized", Range::Flag, normalized),
            ScionNorm::ColNorm { normalized, transpose }
            | ScionNorm::RowNorm { normalized, transpose } => {
                option("norm.normalized", Range::Flag, normalized);
                option("norm.transpose", Range::Flag, transpose);
            }
            ScionNorm::BiasRms => {}
        }
    }
}

/// The matrix (first dimension, all others) of a tensor; vectors and scalars as they are.
fn flattened(entry: &[usize]) -> Vec<usize> {
    match *entry {
        [rows, ref others @ ..] if !others.is_empty() => vec![rows, others.iter().product()],
        _ => entry.to_vec(),
    }
}

impl ScionNorm {
    /// The factor that depends on the shape alone.
    fn factor(&self, entry: &[usize]) -> f64 {
        let length = |axis: usize| entry.get(axis).copied().unwrap_or(1) as f64;
        let (out, inputs) = (length(0), length(1));
        match *self {
            Self::Spectral { normalized, max, .. } => {
                let factor = if normalized { (out / inputs).sqrt() } else { out.sqrt() };
                let places: usize = entry.iter().skip(2).product();
                (if max { factor.max(1.0) } else { factor }) / places as f64
            }
            Self::Sign { normalized: true } => 1.0 / inputs,
            Self::Sign { .. } | Self::ColNorm { .. } | Self::RowNorm { .. } | Self::BiasRms => 1.0,
        }
    }
}

/// x ← x/(c·‖x‖ + 1e-8), also where the square of ‖x‖ is too large for a number; zeros stay zeros.
fn divide_by_norm<R: Real>(x: &mut ArrayRef2<R>, c: f64) {
    let norm = frobenius(x);
    if norm != 0.0 {
        let divisor = c + EPS / norm;
        x.mapv_inplace(|x| R::of(x.widen() / norm / divisor));
    }
}

/// Divides all of `x` by its root mean square.
fn divide_by_rms<R: Real>(x: &mut ArrayRef2<R>) {
    divide_by_norm(x, 1.0 / (x.len() as f64).sqrt());
}

impl MatrixMethod for Scion {
    type Rule = Descent;
    /// Of empty tensors alone.
    type Fallback = Descent;
    type Block<R: Real> = PolarBlock;

    fn rule(&self) -> Descent {
        let weight_decay = if self.unconstrained { 0.0 } else { 1.0 };
        Descent { lr: self.lr, weight_decay, ..Descent::default() }
    }

    fn fallback(&self) -> Descent {
        self.rule()
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        if shape.contains(&0) {
            return None;
        }
        of_entries(shape, self.batch_dims.min(shape.len()), |entry| {
            Some(Partition::new(flattened(entry), usize::MAX))
        })
    }

    fn grad_ema(&self) -> Option<GradEma> {
        let beta = 1.0 - self.momentum;
        let slot = "momentum_buffer";
        (beta > 0.0).then_some(GradEma { slot, beta, weight: beta, bias_correction: false })
    }

    fn lr_factor(&self, shape: &[usize]) -> f64 {
        let entry = entry_of(shape, self.batch_dims);
        let factor = if entry.len() < 2 { 1.0 } else { self.norm.factor(entry) };
        self.scale * factor
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| (method.batch_dims, method.momentum < 1.0);
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
        let direction = match direction.ndim() {
            2 => direction.into_dimensionality::<Ix2>(),
            _ => {
                let whole = direction.len();
                let mut vector = direction.into_shape_with_order((whole, 1));
                if let Ok(vector) = &mut vector {
                    divide_by_rms(vector);
                }
                return 0.0;
            }
        };
        // the partition makes matrices of all others
        let Ok(mut m) = direction else { return 0.0 };
        let (rows, columns) = m.dim();
        let each = |m: &mut ArrayRef2<R>, axis: usize, c: f64| {
            for mut lane in m.axis_chunks_iter_mut(Axis(axis), 1) {
                divide_by_norm(&mut lane, c);
            }
        };
        match self.norm {
            ScionNorm::Spectral { orthogonalization, steps, eps, .. } => {
                block.replace(&mut m, &orthogonalization, (steps, eps));
            }
            ScionNorm::Sign { .. } => m.mapv_inplace(sign),
            ScionNorm::ColNorm { normalized, transpose } => {
                let (axis, out, inputs) =
                    if transpose { (0, columns, rows) } else { (1, rows, columns) };
                let over = if normalized { inputs as f64 } else { 1.0 };
                each(&mut m, axis, over / (out as f64).sqrt());
            }
            ScionNorm::RowNorm { normalized, transpose } => {
                let (axis, inputs) = if transpose { (1, rows) } else { (0, columns) };
                each(&mut m, axis, if normalized { (inputs as f64).sqrt() } else { 1.0 });
            }
            ScionNorm::BiasRms => divide_by_rms(&mut m),
        }
        0.0
    }
}
