//! Directions in a random subspace.

use super::sampler::{DirectionKey, DirectionSampler, Directions, StepContext};
use super::thin::{View, transposed};
use crate::error::Result;
use crate::hyperparameters;
use crate::kernel::scratch::with_scratch;
use crate::linalg::qr;
use crate::numeric::Real;
use crate::state::StateBytes;
use crate::zeroth_order::estimator::Purpose;
use ndarray::Array2;

/// SubZero: directions of matrices within a random subspace, which stays the same for `interval` steps.
///
/// ```text
/// every `interval` steps: U (m × r), V (n × r) with orthonormal columns, from QR of normal numbers
/// u = k·U·Z·Vᵀ,  Z ~ N(0, I), r × r, new for every direction
/// k = √(mn)/r if `rescale`, else 1
/// ```
/// With `rescale`, ‖u‖ is about √(mn), as it is for Gaussian directions, and the usual ε fits.
///
/// A tensor of more than two dimensions counts as the matrix of its first dimension against all others. A
/// matrix with `min(m, n) <= r`, and every vector, gets plain Gaussian directions.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `rank` r | 8 | authors' code |
/// | `interval` | 2000 | authors' code |
/// | `rescale` | true | authors' code; false in the paper |
///
/// State per matrix: `r·(m + n)` numbers, which are drawn again after loading.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, zeroth_order::{Estimator, Spsa, SubZero}};
/// use ndarray::Array2;
///
/// let mut w = Array2::<f32>::ones((20, 10));
/// let sampler = SubZero { rank: 2, interval: 10, ..SubZero::default() };
/// let mut estimator = Spsa { num_samples: 8, ..Spsa::with_sampler(sampler) }.build::<f32>()?;
/// let mut opt = Sgd { lr: 5e-3, ..Sgd::default() }.build()?;
/// for _ in 0..300 {
///     let estimate = estimator.estimate(&mut w, |w| w.mapv(|x| x * x).sum())?;
///     opt.step(&mut w, &estimate)?;
/// }
/// assert!(w.mapv(|x| x * x).sum() < 100.0, "{w}");
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// Z. Yu, P. Zhou, S. Wang, J. Li, M. Tian, H. Huang, "Zeroth-Order Fine-Tuning of LLMs in Random
/// Subspaces", 2025.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SubZero {
    /// The dimension of the subspace on each side, at least 1.
    pub rank: usize,
    /// The number of steps in the same subspace, at least 1.
    pub interval: u64,
    /// Whether directions are as long as plain ones.
    pub rescale: bool,
}
crate::config_file::named_fields!(SubZero);

impl Default for SubZero {
    fn default() -> Self {
        Self { rank: 8, interval: 2000, rescale: true }
    }
}

hyperparameters!(SubZero, "SubZero", {
    "rank": CountFrom(1) = rank;
    "interval": CountFrom(1) = interval;
    "rescale": Flag = rescale;
});

impl DirectionSampler for SubZero {
    type Directions<R: Real> = SubZeroDirections<R>;

    fn directions<R: Real>(&self) -> SubZeroDirections<R> {
        SubZeroDirections { config: *self, epoch: None, tensors: Vec::new() }
    }
}

/// The subspace of one matrix.
#[derive(Clone, Debug)]
struct Bases<R> {
    view: View,
    /// U, m × r.
    left: Vec<R>,
    /// `Vᵀ`, r × n.
    right: Vec<R>,
}

/// The directions of [`SubZero`].
#[derive(Clone, Debug)]
pub struct SubZeroDirections<R> {
    config: SubZero,
    epoch: Option<u64>,
    tensors: Vec<Option<Bases<R>>>,
}

/// An `n × r` matrix with orthonormal columns, row-major.
fn orthonormal<R: Real>(
    key: &DirectionKey<'_, R>,
    purpose: Purpose,
    n: usize,
    r: usize,
) -> Result<Vec<R>> {
    let mut values = vec![R::zero(); n * r];
    key.noise.normal(&key.stream(purpose), 0, &mut values);
    let wide: Vec<f64> = values.iter().map(|x| x.widen()).collect();
    // as many values as the shape says
    let (q, _) = qr(&Array2::from_shape_vec((n, r), wide).unwrap_or_default())?;
    Ok(q.iter().map(|&x| R::of(x)).collect())
}

impl<R: Real> Directions<R> for SubZeroDirections<R> {
    fn begin(&mut self, context: &StepContext<'_, R>) -> Result<()> {
        let epoch = context.step - context.step % self.config.interval;
        let segments = context.layout.segments();
        if self.epoch == Some(epoch) && self.tensors.len() == segments.len() {
            return Ok(());
        }
        let rank = self.config.rank;
        let bases = |(tensor, segment)| {
            let Some(view) = View::of(segment, rank) else { return Ok(None) };
            let key = DirectionKey { noise: context.noise, step: epoch, query: 0, tensor };
            let left = orthonormal(&key, Purpose::LeftFactor, view.rows, rank)?;
            let right = orthonormal(&key, Purpose::RightFactor, view.columns, rank)?;
            Ok(Some(Bases { view, left, right: transposed(&right, rank) }))
        };
        self.tensors = segments.iter().enumerate().map(bases).collect::<Result<_>>()?;
        self.epoch = Some(epoch);
        Ok(())
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn probe(&self, key: &DirectionKey<'_, R>, offset: usize, out: &mut [R]) {
        let plain = key.stream(Purpose::Direction);
        let Some(Some(Bases { view, left, right })) = self.tensors.get(key.tensor) else {
            return key.noise.normal(&plain, offset, out);
        };
        let rank = self.config.rank;
        let factor = match self.config.rescale {
            true => ((view.rows * view.columns) as f64).sqrt() / rank as f64,
            false => 1.0,
        };
        with_scratch(rank * rank, |z: &mut [R]| {
            key.noise.normal(&plain, 0, z);
            view.product(right, offset, out, |row, mixed| {
                let u = left.chunks_exact(rank).nth(row).unwrap_or_default();
                mixed.fill(R::zero());
                for (&u, z) in u.iter().zip(z.chunks_exact(rank)) {
                    for (x, &z) in mixed.iter_mut().zip(z) {
                        *x += R::of(factor) * u * z;
                    }
                }
            });
        });
    }

    fn count(&self, bytes: &mut StateBytes) {
        for bases in self.tensors.iter().flatten() {
            bytes.add("bases", size_of_val(&*bases.left) + size_of_val(&*bases.right));
        }
    }
}
