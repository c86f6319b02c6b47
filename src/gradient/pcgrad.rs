//! Gradients of several tasks without what they do to each other: PCGrad.

use super::combine::{Bundle, Sizes, Weights, products};
use super::normalize::TreeScope;
use super::source::Tree;
use crate::error::{Error, Result, check_shape};
use crate::numeric::Element;
use crate::numeric::random::philox4x32;
use crate::params::{Elements, GradVisitor, Gradients, LeafEdit};
use std::collections::BTreeMap;

/// Keeps these random numbers apart from others of the same seed.
const PURPOSE: u32 = 0x7063_6772;

/// One gradient of several tasks: from each is taken what makes another task worse, and the rest is
/// added up. PCGrad, or gradient surgery, as a view.
///
/// *Use it when* one model learns several tasks whose gradients point against each other. *Not when* the
/// tasks agree, then it is their sum; nor when some must not change at all: see
/// [`project_out`](super::project_out).
///
/// ```text
/// for every task i:   u = gᵢ
///   for every other task j, in random order:
///     ⟨u, gⱼ⟩ < 0:    u ← u − gⱼ·⟨u, gⱼ⟩/‖gⱼ‖²
///   g ← g + u
/// ```
/// All tensors together are one vector here, and inner products are made in `f64`. A tensor that is
/// absent in a task counts as zero there; one that is absent in all tasks stays absent. The loss is the
/// sum of the losses if every task brings its own. Nothing of the size of the model is stored: every
/// `u` is a combination of the gradients, which are read twice here and once in the update.
///
/// Give another `seed` in every step, such as its number. See [`PcGrad`] for options.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DuplicateName`], [`Error::LengthMismatch`].
///
/// # Examples
/// ```
/// use eigenstep::gradient::{materialize, project_conflicting};
/// use ndarray::array;
///
/// let tasks = [array![1.0f64, 0.0], array![-1.0, 1.0]]; // their inner product is −1
/// let both = materialize(&project_conflicting(&[&tasks[0], &tasks[1]], 0)?)?;
/// // (1/2, 1/2) of the first and (0, 1) of the second: better for both
/// assert_eq!(both["param"], array![0.5, 1.5].into_dyn());
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn, "Gradient Surgery for Multi-Task
/// Learning", NeurIPS 2020.
pub fn project_conflicting<'g, T: Element, G: Gradients<T> + ?Sized>(
    tasks: &[&'g G],
    seed: u64,
) -> Result<Combined<'g, T, G>> {
    PcGrad { seed, ..PcGrad::default() }.apply(tasks, 0)
}

/// How the gradients of the tasks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reduction {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean over the tasks.
    Mean,
}

/// [`project_conflicting`] with its options.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `scope` | [`TreeScope::Tree`] | the paper |
/// | `reduction` | [`Reduction::Sum`] | the paper |
/// | `seed` | 0 | ours; to be kept when a run goes on |
///
/// # Examples
/// ```
/// use eigenstep::gradient::{PcGrad, Reduction, materialize};
/// use eigenstep::params::Gradients;
/// use ndarray::array;
///
/// let (a, b) = (array![2.0f64, 0.0], array![0.0, 4.0]); // no conflict
/// let mean = PcGrad { reduction: Reduction::Mean, ..PcGrad::default() };
/// // tasks of different types are behind pointers
/// let tasks: [&dyn Gradients<f64>; 2] = [&a, &b];
/// assert_eq!(materialize(&mean.apply(&tasks, 7)?)?["param"], array![1.0, 2.0].into_dyn());
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct PcGrad {
    /// Whether each tensor is a vector by itself, or all together are one.
    pub scope: TreeScope,
    /// How the gradients become one.
    pub reduction: Reduction,
    /// Chooses the random orders.
    pub seed: u64,
}
crate::config_file::named_fields!(PcGrad);

impl Default for PcGrad {
    fn default() -> Self {
        Self { scope: TreeScope::Tree, reduction: Reduction::Sum, seed: 0 }
    }
}

impl PcGrad {
    /// One gradient of all tasks; `step` and the seed determine the orders.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::DuplicateName`], [`Error::LengthMismatch`].
    pub fn apply<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        tasks: &[&'g G],
        step: u64,
    ) -> Result<Combined<'g, T, G>> {
        let trees = tasks.iter().map(|task| Tree::read(*task).checked());
        let trees: Vec<Tree<'g, T>> = trees.collect::<Result<_>>()?;
        let losses: Option<f64> = trees.iter().map(|tree| tree.loss).sum();
        let loss = losses.map(|loss| loss * self.share(tasks.len())).filter(|_| !tasks.is_empty());
        let edits = self.edits(trees, step)?;
        Ok(Combined { edits, trees: tasks.to_vec(), loss })
    }

    /// Edits of every tree: the first that has a tensor shows the combination in its place.
    fn edits<'g, T: Element>(
        &self,
        trees: Vec<Tree<'g, T>>,
        step: u64,
    ) -> Result<Vec<Vec<LeafEdit<'g, T>>>> {
        let (tasks, leaves) = (trees.len(), trees.iter().map(|tree| tree.sources.len()));
        let left_out = || LeafEdit { elements: Elements::Absent, factor: 1.0, finite: false };
        let mut edits: Vec<Vec<_>> =
            leaves.map(|leaves| (0..leaves).map(|_| left_out()).collect()).collect();
        let (bundles, places) = aligned(trees)?;
        let sizes = Sizes::measure(&bundles, tasks);
        let weights = self.weights(&bundles, &sizes.units, step);
        let leaves = bundles.into_iter().zip(places).zip(&sizes.of).enumerate();
        for (leaf, ((bundle, (task, place)), sizes)) in leaves {
            let group = if self.scope == TreeScope::Tree { 0 } else { leaf };
            let weights = weights.get(group).cloned().unwrap_or_default();
            if let Some(edit) = edits.get_mut(task).and_then(|edits| edits.get_mut(place)) {
                *edit = bundle.combined(weights, sizes);
            }
        }
        Ok(edits)
    }

    /// Weight of one of so many tasks.
    fn share(&self, tasks: usize) -> f64 {
        match self.reduction {
            Reduction::Sum => 1.0,
            Reduction::Mean => 1.0 / tasks.max(1) as f64,
        }
    }

    /// Weights of the tasks' gradients in the result, for all bundles or for each.
    fn weights<T: Element>(
        &self,
        bundles: &[Bundle<'_, T>],
        units: &[f64],
        step: u64,
    ) -> Vec<Weights> {
        let tasks = units.len();
        let unit = |task: usize| (0..tasks).map(move |i| if i == task { 1.0 } else { 0.0 });
        let scaled = |task| unit(task).zip(units).map(|(x, unit)| x * unit).collect();
        let gradients: Vec<Weights> = (0..tasks).map(scaled).collect();
        let mut inner = products(bundles, |_| &gradients, |_| &gradients);
        if self.scope == TreeScope::Tree {
            let total = |i: usize| inner.iter().filter_map(|products| products.get(i)).sum();
            inner = vec![(0..tasks * tasks).map(total).collect()];
        }
        let orders: Vec<Vec<usize>> =
            (0..tasks).map(|task| self.order(task, tasks, step)).collect();
        let share = self.share(tasks);
        let weights = |inner: Vec<f64>| {
            let mut sum = vec![0.0; tasks];
            for ((task, order), own) in orders.iter().enumerate().zip(units) {
                let mut weights: Weights = unit(task).collect();
                project(&mut weights, order, &inner);
                let terms = sum.iter_mut().zip(weights).zip(units);
                terms.for_each(|((sum, weight), unit)| *sum += weight * (unit / own) * share);
            }
            sum
        };
        inner.into_iter().map(weights).collect()
    }

    /// The other tasks in random order: Fisher and Yates' shuffle.
    fn order(&self, task: usize, tasks: usize, step: u64) -> Vec<usize> {
        let mut others: Vec<usize> = (0..tasks).filter(|&other| other != task).collect();
        let words = |x: u64| [x as u32, (x >> 32) as u32];
        let ([seed, high], [t, later]) = (words(self.seed), words(step));
        for last in (1..others.len()).rev() {
            let [low, up, ..] =
                philox4x32([last as u32, task as u32, t, later], [seed, high ^ PURPOSE]);
            // of 64 bits the remainder is uniform for any number of tasks there can be
            let bits = u64::from(low) | u64::from(up) << 32;
            others.swap(last, (bits % (last as u64 + 1)) as usize);
        }
        others
    }
}

/// Projects a combination onto the normal plane of every gradient that it conflicts with; `inner` holds
/// the inner products of the gradients, row by row.
fn project(weights: &mut Weights, order: &[usize], inner: &[f64]) {
    let tasks = weights.len();
    for &other in order {
        let row = inner.get(other * tasks..(other + 1) * tasks).unwrap_or_default();
        let product: f64 =
            weights.iter().zip(row).filter(|(w, _)| **w != 0.0).map(|(w, x)| w * x).sum();
        let square = row.get(other).copied().unwrap_or(0.0);
        if product < 0.0
            && let Some(weight) = weights.get_mut(other)
        {
            *weight -= product / square;
        }
    }
}

/// Bundles of all tensors of the trees, and where the first gradient of each is: number of the tree, and
/// of the leaf in it.
type Aligned<'g, T> = (Vec<Bundle<'g, T>>, Vec<(usize, usize)>);

/// Every tensor of any tree, with its gradients in all of them.
fn aligned<T: Element>(trees: Vec<Tree<'_, T>>) -> Result<Aligned<'_, T>> {
    let tasks = trees.len();
    let (mut by_name, mut bundles, mut places) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (task, tree) in trees.into_iter().enumerate() {
        let Tree { manifest, sources, .. } = tree;
        for (leaf, source) in sources.into_iter().enumerate() {
            let name = manifest.name(leaf);
            let index = *by_name.entry(name.to_owned()).or_insert_with(|| {
                let sources = (0..tasks).map(|_| None).collect();
                bundles.push(Bundle::new(&source.shape, sources));
                places.push((task, leaf));
                bundles.len() - 1
            });
            let Some(bundle) = bundles.get_mut(index) else { continue };
            check_shape(name, &bundle.shape, &source.shape)?;
            let place = bundle.sources.get_mut(task);
            if place.is_some_and(|place| place.replace(source).is_some()) {
                return Err(Error::DuplicateName { name: name.to_owned() });
            }
        }
    }
    Ok((bundles, places))
}

/// One gradient made of several, such as [`project_conflicting`] makes of those of several tasks.
///
/// It is a tree of gradients with every name that one of them has; they do not change. Their curvatures
/// come along. Where two have a curvature of the same tensor, the step says that the name is used twice:
/// then put [`with_curvature`](super::with_curvature) around the result instead.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{clip_grad_norm, project_conflicting}, prelude::*};
/// use ndarray::array;
///
/// let mut w = array![0.0f64, 0.0];
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let tasks = [array![3.0f64, 0.0], array![0.0, 4.0]];
/// let both = project_conflicting(&[&tasks[0], &tasks[1]], 0)?;
/// opt.step(&mut w, &clip_grad_norm(&both, 1.0))?; // a view like any other
/// assert!((w[0] + 0.6).abs() < 1e-6 && (w[1] + 0.8).abs() < 1e-6);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Debug)]
pub struct Combined<'g, T, G: ?Sized> {
    edits: Vec<Vec<LeafEdit<'g, T>>>,
    trees: Vec<&'g G>,
    loss: Option<f64>,
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Combined<'_, T, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        let outer = visitor.loss;
        for (tree, edits) in self.trees.iter().zip(&self.edits) {
            visitor.edited(edits, *tree);
        }
        // one task's loss is not that of all
        visitor.loss = self.loss.or(outer);
    }
}
