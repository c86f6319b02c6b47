//! Gradients at right angles to other gradients.

use super::combine::{Bundle, Sizes, Weights, products};
use super::normalize::TreeScope;
use super::source::{Source, Tree};
use super::transformed::Transformed;
use crate::error::{Error, Result, check_shape};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::params::Gradients;
use std::collections::BTreeMap;

/// Takes out of a gradient every component along the `others`: its projection onto what is at right
/// angles to all of them, as a view.
///
/// *Use it when* a step must not change other losses to first order: unlearn examples and retain the
/// rest, learn a task and keep an older one. *Not when* the others may improve as well:
/// [`project_conflicting`](super::project_conflicting) takes out only what makes them worse.
///
/// ```text
/// g ← g − Σᵢ qᵢ·⟨qᵢ, g⟩     q₁, q₂, … an orthonormal basis of the span of the others
/// ```
/// All tensors together are one vector here, and inner products are made in `f64`. A tensor that is
/// absent in one of the others counts as zero there; one that is absent in `grads` stays absent, and
/// what the others have there is left out. Loss and curvature are those of `grads`. The basis is never
/// stored: it is written as combinations of the gradients, which are read some three times for each of
/// the others here, and once in the update. [`TreeVec::of`](crate::tree::TreeVec::of) makes a copy that owns
/// its values. See [`ProjectOut`] for options.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DuplicateName`], [`Error::LengthMismatch`];
/// [`Error::NonFinite`] if the norm of one of the others is not finite.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{materialize, project_out};
/// use ndarray::array;
///
/// let (forget, retain) = (array![3.0f64, 1.0, 2.0], [array![1.0, 0.0, 0.0], array![1.0, 1.0, 0.0]]);
/// let kept = materialize(&project_out(&forget, &[&retain[0], &retain[1]])?)?;
/// assert!((&kept["param"] - &array![0.0, 0.0, 2.0].into_dyn()).iter().all(|x| x.abs() < 1e-15));
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Differences
/// The authors' code projects every tensor on its own, which is [`TreeScope::Tensor`]: it retains more
/// and leaves less to step along.
///
/// # Source
/// D. Zhou et al., "Geometric-Disentanglement Unlearning", 2025.
pub fn project_out<'g, T: Element, G, R>(
    grads: &'g G,
    others: &[&'g R],
) -> Result<Transformed<'g, T, G>>
where
    G: Gradients<T> + ?Sized,
    R: Gradients<T> + ?Sized,
{
    ProjectOut::default().apply(grads, others)
}

/// [`project_out`] with its options.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `scope` | [`TreeScope::Tree`] | the paper's equations |
/// | `tolerance` | 1e-10 | ours; in [0, 1) |
///
/// One of the others is left out if the sine of its angle to the span of those before it is at most
/// `tolerance`: it adds no direction but rounding errors. So is one that is zero.
///
/// # Examples
/// In the metric of Adam, `h = √v + eps`, the projected step is taken by an optimizer without one:
/// ```
/// use eigenstep::gradient::{ProjectOut, materialize};
/// use ndarray::array;
///
/// let (forget, retain, h) = (array![2.0f64, 2.0], array![1.0, 1.0], array![1.0, 4.0]);
/// let step = materialize(&ProjectOut::default().apply_in_metric(&forget, &[&retain], &h)?)?;
/// // ⟨retain, step⟩ = 0; without `retain` the step were forget/h = (2, 0.5)
/// assert!((step["param"][0] + step["param"][1]).abs() < 1e-15);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct ProjectOut {
    /// Whether each tensor is a vector by itself, or all together are one.
    pub scope: TreeScope,
    /// Smallest sine of an angle between a gradient and the span of others that counts.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub tolerance: f64,
}
crate::config_file::named_fields!(ProjectOut);

impl Default for ProjectOut {
    fn default() -> Self {
        Self { scope: TreeScope::Tree, tolerance: 1e-10 }
    }
}

crate::hyperparameters!(ProjectOut, "ProjectOut", {
    "tolerance": UnitHalfOpen = tolerance;
});

impl ProjectOut {
    /// The gradients without any component along the others.
    ///
    /// # Errors
    /// Those of [`project_out`], and [`Error::InvalidHyperparameter`].
    pub fn apply<'g, T: Element, G, R>(
        &self,
        grads: &'g G,
        others: &[&'g R],
    ) -> Result<Transformed<'g, T, G>>
    where
        G: Gradients<T> + ?Sized,
        R: Gradients<T> + ?Sized,
    {
        self.validate()?;
        let bundles = aligned(Tree::read(grads).checked()?, read_all(others)?)?;
        self.edited(bundles, grads, others.len())
    }

    /// The preconditioned gradients without what changes the others to first order, for a positive
    /// diagonal metric `h`, a tree with the names of the gradients:
    ///
    /// ```text
    /// d = (g − Σᵢ cᵢ·rᵢ)/h     such that ⟨rᵢ, d⟩ = 0 for every other gradient rᵢ
    /// ```
    /// Of all such directions of its length `√⟨d, h·d⟩` it descends most.
    ///
    /// # Errors
    /// Those of [`project_out`]; [`Error::InvalidHyperparameter`]; [`Error::MissingInput`] for a
    /// gradient that the metric lacks.
    pub fn apply_in_metric<'g, T: Element, G, R, H>(
        &self,
        grads: &'g G,
        others: &[&'g R],
        metric: &'g H,
    ) -> Result<Transformed<'g, T, G>>
    where
        G: Gradients<T> + ?Sized,
        R: Gradients<T> + ?Sized,
        H: Gradients<T> + ?Sized,
    {
        self.validate()?;
        let tree = Tree::read(grads).checked()?;
        let mut metric = Tree::read(metric).checked()?.by_name()?;
        let names: Vec<_> =
            (0..tree.sources.len()).map(|i| tree.manifest.name(i).to_owned()).collect();
        let mut bundles = aligned(tree, read_all(others)?)?;
        for (bundle, name) in bundles.iter_mut().zip(names) {
            let diagonal = metric.remove(&name).ok_or_else(|| Error::MissingInput {
                optimizer: "ProjectOut",
                input: "a metric",
                of: format!(" for `{name}`"),
                help: "ProjectOut::apply_in_metric",
            })?;
            check_shape(&name, &bundle.shape, &diagonal.shape)?;
            bundle.metric = Some(diagonal);
        }
        self.edited(bundles, grads, others.len())
    }

    fn edited<'g, T: Element, G: ?Sized>(
        &self,
        bundles: Vec<Bundle<'g, T>>,
        grads: &'g G,
        others: usize,
    ) -> Result<Transformed<'g, T, G>> {
        let sizes = Sizes::measure(&bundles, others + 1);
        let spans =
            Projection { config: self, bundles: &bundles, units: &sizes.units }.run(others)?;
        let group = |leaf: usize| if self.scope == TreeScope::Tree { 0 } else { leaf };
        let edits =
            bundles.into_iter().enumerate().zip(&sizes.of).map(|((leaf, bundle), sizes)| {
                bundle.combined(spans.get(group(leaf)).cloned().unwrap_or_default(), sizes)
            });
        Ok(Transformed::new(edits.collect(), grads))
    }
}

fn read_all<'g, T: Element, R: Gradients<T> + ?Sized>(
    trees: &[&'g R],
) -> Result<Vec<BTreeMap<String, Source<'g, T>>>> {
    trees.iter().map(|tree| Tree::read(*tree).checked()?.by_name()).collect()
}

/// Every gradient of `tree` together with those of the others that have its name.
fn aligned<'g, T: Element>(
    tree: Tree<'g, T>,
    mut others: Vec<BTreeMap<String, Source<'g, T>>>,
) -> Result<Vec<Bundle<'g, T>>> {
    let Tree { manifest, sources, .. } = tree;
    let mut bundles = Vec::with_capacity(sources.len());
    for (leaf, source) in sources.into_iter().enumerate() {
        let (name, shape) = (manifest.name(leaf), source.shape.clone());
        let mut sources = vec![Some(source)];
        for other in &mut others {
            let source = other.remove(name);
            source.as_ref().map_or(Ok(()), |source| check_shape(name, &shape, &source.shape))?;
            sources.push(source);
        }
        bundles.push(Bundle::new(&shape, sources));
    }
    Ok(bundles)
}

/// Gram and Schmidt's process over combinations of the gradients: nothing but weights is stored.
struct Projection<'p, 'g, T: Element> {
    config: &'p ProjectOut,
    bundles: &'p [Bundle<'g, T>],
    units: &'p [f64],
}

impl<T: Element> Projection<'_, '_, T> {
    /// Weights of the projected gradient, for all bundles or for each.
    fn run(&self, others: usize) -> Result<Vec<Weights>> {
        let groups = if self.config.scope == TreeScope::Tree { 1 } else { self.bundles.len() };
        // orthonormal combinations of every group
        let mut bases: Vec<Vec<Weights>> = vec![Vec::new(); groups];
        for other in 1..=others {
            let rests = self.rest(other, &bases);
            for (basis, rest) in bases.iter_mut().zip(rests) {
                if !rest.whole.is_finite() {
                    let what = "the squared norm of a gradient that is projected out";
                    return Err(Error::NonFinite { what, value: rest.whole });
                }
                let tolerance = self.config.tolerance * self.config.tolerance;
                if rest.square > tolerance * rest.whole && rest.square > 0.0 {
                    let norm = rest.square.sqrt();
                    basis.push(rest.weights.into_iter().map(|weight| weight / norm).collect());
                }
            }
        }
        let unit = self.units.first().copied().unwrap_or(1.0);
        let weights = |rest: Rest| rest.weights.into_iter().map(|weight| weight / unit).collect();
        Ok(self.rest(0, &bases).into_iter().map(weights).collect())
    }

    /// What is left of a gradient without its components along the bases. A second round removes what
    /// rounding has left by the first.
    fn rest(&self, gradient: usize, bases: &[Vec<Weights>]) -> Vec<Rest> {
        let unit = |i| if i == gradient { self.units.get(i).copied().unwrap_or(1.0) } else { 0.0 };
        let weights: Weights = (0..self.units.len()).map(unit).collect();
        let mut rests = vec![Rest { weights, square: 0.0, whole: 0.0 }; bases.len()];
        for round in 0..2 {
            let inner = self.inner_products(bases, &rests);
            for ((rest, basis), products) in rests.iter_mut().zip(bases).zip(inner) {
                let square = products.last().copied().unwrap_or(0.0);
                let lost: f64 = products.iter().take(basis.len()).map(|x| x * x).sum();
                for (vector, product) in basis.iter().zip(&products) {
                    let terms = rest.weights.iter_mut().zip(vector);
                    terms.for_each(|(weight, x)| *weight -= product * x);
                }
                rest.whole = if round == 0 { square } else { rest.whole };
                rest.square = square - lost;
            }
        }
        rests
    }

    /// Inner products of what is left of every group with its basis, and with itself at the end.
    fn inner_products(&self, bases: &[Vec<Weights>], rests: &[Rest]) -> Vec<Vec<f64>> {
        let whole_tree = self.config.scope == TreeScope::Tree;
        let group = |leaf: usize| if whole_tree { 0 } else { leaf };
        let lefts: Vec<Vec<Weights>> = bases
            .iter()
            .zip(rests)
            .map(|(basis, rest)| basis.iter().chain([&rest.weights]).cloned().collect())
            .collect();
        let left = |leaf| lefts.get(group(leaf)).map_or(&[][..], Vec::as_slice);
        let right =
            |leaf| left(leaf).split_last().map_or(&[][..], |(last, _)| std::slice::from_ref(last));
        let products = products(self.bundles, left, right);
        let mut sums: Vec<Vec<f64>> = lefts.iter().map(|left| vec![0.0; left.len()]).collect();
        for (leaf, products) in products.into_iter().enumerate() {
            if let Some(sums) = sums.get_mut(group(leaf)) {
                sums.iter_mut().zip(products).for_each(|(sum, x)| *sum += x);
            }
        }
        sums
    }
}

/// What is left of a gradient: its weights, its square, and the square of the gradient.
#[derive(Clone)]
struct Rest {
    weights: Weights,
    square: f64,
    whole: f64,
}
