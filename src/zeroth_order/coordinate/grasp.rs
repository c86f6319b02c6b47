//! Scores that say which weights matter, from losses alone.

use crate::error::{Error, Result};
use crate::gradient::materialize;
use crate::numeric::{Element, Real};
use crate::optim::IntoLoss;
use crate::params::{Parameters, Select};
use crate::zeroth_order::directions::DirectionSampler;
use crate::zeroth_order::estimator::{Backup, Estimator, ParamSnapshot};
use crate::zeroth_order::spsa::SpsaEstimator;
use ndarray::ArrayD;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// ZO-GraSP: scores of weights for pruning, from the difference of two estimated gradients.
///
/// ```text
/// g₀ = estimate at p,  g₁ = estimate at p + ε·g₀,  H·g ≈ (g₁ − g₀)/ε
/// S = −p ⊙ H·g
/// ```
/// Both estimates use the same directions, so that most of their noise cancels. DeepZero uses 192 Gaussian
/// directions, `epsilon` 5e-3 and forward differences: 386 evaluations in all.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use eigenstep::zeroth_order::{ActiveSet, Coordinate, FiniteDifference, Grasp, Random, Spsa};
/// use ndarray::{Array1, Array2, array};
///
/// let mut model = (Array2::from_elem((3, 2), 0.5f64), array![0.1, 0.2]);
/// let loss = |m: &mut (Array2<f64>, Array1<f64>)| {
///     let y = m.0.dot(&array![1.0, -2.0]);
///     (&y * &y).sum() + m.1.sum()
/// };
/// let config = Spsa {
///     epsilon: 5e-3,
///     num_samples: 192,
///     difference: FiniteDifference::Forward,
///     ..Spsa::with_sampler(Random::Gaussian)
/// };
/// let mut estimator = config.build::<f64>()?;
/// let scores = Grasp::default().scores(&mut estimator, &mut model, Select::ndim(2..), loss)?;
/// let ratios = scores.ratios(0.5)?;
/// assert_eq!(ratios["0"], 0.5);
/// // a sparse gradient: the unpruned share of the weights, and all biases
/// let mut sparse = Coordinate::default().build::<f64>()?;
/// sparse.set_active(ActiveSet::Pruned(ratios))?;
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// A. Chen et al., "DeepZero: Scaling up Zeroth-Order Optimization for Deep Model Training", ICLR 2024;
/// C. Wang, G. Zhang, R. Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow",
/// ICLR 2020.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Grasp {
    /// Whether the second estimate draws its own directions, as in DeepZero's code.
    pub fresh: bool,
    /// Whether scores are ranked with their sign, as in GraSP, or by magnitude, as in DeepZero's code.
    pub signed: bool,
}
crate::config_file::named_fields!(Grasp);

/// The scores of the weights that were selected.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    signed: bool,
    tensors: Vec<(String, ArrayD<f64>)>,
}

impl Grasp {
    /// The scores of the weights that `scored` selects. Other parameters are neither perturbed nor scored.
    /// Afterwards the parameters are active that were so before.
    ///
    /// # Errors
    /// Those of [`Estimator::estimate`]; [`Error::OutOfOrder`] between [`ask`](Estimator::ask) and
    /// [`tell`](Estimator::tell). The parameters are unchanged in any case, and the estimator after an error, too.
    pub fn scores<T, S, M, V>(
        self,
        estimator: &mut SpsaEstimator<T, S>,
        model: &mut M,
        scored: Select,
        mut loss: impl FnMut(&mut M) -> V,
    ) -> Result<Scores>
    where
        T: Element,
        S: DirectionSampler,
        M: Parameters<T>,
        V: IntoLoss,
    {
        let before = Backup::of(estimator, "Grasp::scores")?;
        let mut snapshot = ParamSnapshot::<T>::new("Grasp")?;
        snapshot.read("Grasp", model, true)?;
        let active = estimator.replace_active(Some(scored));
        // after a panic, too, the parameters are restored
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.two_estimates(estimator, &snapshot, model, &mut loss)
        }));
        estimator.set_active(active);
        if !matches!(outcome, Ok(Ok(_))) {
            before.restore(estimator)?;
        }
        snapshot.restore("Grasp", model)?;
        let (first, second) = outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
        let epsilon = estimator.config().epsilon;
        let mut tensors = Vec::new();
        for segment in snapshot.layout.segments() {
            let (Some(first), Some(second)) = (first.get(&segment.name), second.get(&segment.name))
            else {
                continue;
            };
            let before = snapshot.values().iter().skip(segment.offset);
            let mut scores = ArrayD::zeros(first.raw_dim());
            for (((score, p), g0), g1) in scores.iter_mut().zip(before).zip(first).zip(second) {
                *score = -p.widen() * (g1.load().widen() - g0.load().widen()) / epsilon;
            }
            tensors.push((segment.name.clone(), scores));
        }
        Ok(Scores { signed: self.signed, tensors })
    }

    /// Estimates at the parameters, and at a point a step along the first estimate.
    fn two_estimates<T, S, M, V>(
        self,
        estimator: &mut SpsaEstimator<T, S>,
        snapshot: &ParamSnapshot<T>,
        model: &mut M,
        loss: &mut impl FnMut(&mut M) -> V,
    ) -> Result<(Gradient<T>, Gradient<T>)>
    where
        T: Element,
        S: DirectionSampler,
        M: Parameters<T>,
        V: IntoLoss,
    {
        let step = estimator.steps();
        let epsilon = T::Compute::of(estimator.config().epsilon);
        let first = materialize(&estimator.estimate(model, &mut *loss)?)?;
        snapshot.write("Grasp", model, |tensor, offset, before, out| {
            let segment = snapshot.layout.segments().get(tensor);
            let along = segment.and_then(|s| first.get(&s.name)).and_then(|g| g.as_slice());
            let along = along.and_then(|g| g.get(offset..)).unwrap_or_default();
            out.copy_from_slice(before);
            for (x, g) in out.iter_mut().zip(along) {
                *x += epsilon * g.load();
            }
        })?;
        if !self.fresh {
            estimator.set_step(step)?;
        }
        let second = materialize(&estimator.estimate(model, loss)?)?;
        Ok((first, second))
    }
}

type Gradient<T> = BTreeMap<String, ArrayD<T>>;

impl Scores {
    /// The scores of a tensor.
    pub fn get(&self, name: &str) -> Option<&ArrayD<f64>> {
        self.tensors.iter().find(|(known, _)| known == name).map(|(_, scores)| scores)
    }

    /// The weights that are kept if a share `sparsity` of the n scored weights is pruned:
    /// `round(sparsity·n)` of them, with halves rounded to even, which are those of least score. Of equal
    /// scores, the first is pruned first.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for a sparsity outside `[0, 1]`.
    pub fn keep(&self, sparsity: f64) -> Result<BTreeMap<String, ArrayD<bool>>> {
        if !(0.0..=1.0).contains(&sparsity) {
            return Err(Error::invalid("Grasp", "sparsity", "in [0, 1]", sparsity));
        }
        // GraSP prunes the largest −p⊙Hg, which is the least of its negative; both zeros are one
        let rank = |score: f64| if self.signed { 0.0 - score } else { score.abs() };
        let all = self.tensors.iter().flat_map(|(_, scores)| scores);
        let mut order: Vec<(f64, usize)> = all.map(|&score| rank(score)).zip(0..).collect();
        order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let pruned = (sparsity * order.len() as f64).round_ties_even() as usize;
        let mut stays = vec![true; order.len()];
        for &(_, index) in order.iter().take(pruned) {
            stays.get_mut(index).into_iter().for_each(|stays| *stays = false);
        }
        let mut stays = stays.into_iter();
        let mask = |(name, scores): &(String, ArrayD<f64>)| {
            (name.clone(), scores.map(|_| stays.next().unwrap_or(true)))
        };
        Ok(self.tensors.iter().map(mask).collect())
    }

    /// The share of every tensor that is pruned; see [`Scores::keep`].
    ///
    /// # Errors
    /// As [`Scores::keep`].
    pub fn ratios(&self, sparsity: f64) -> Result<BTreeMap<String, f64>> {
        let share = |(name, stays): (String, ArrayD<bool>)| {
            let pruned = stays.iter().filter(|stays| !**stays).count();
            (name, pruned as f64 / stays.len().max(1) as f64)
        };
        Ok(self.keep(sparsity)?.into_iter().map(share).collect())
    }
}
