//! Adaptive gradient clipping: every unit relative to its own weights.

use super::source::{Source, Tree, fits};
use super::sums::by_row;
use super::transformed::{ByRow, RowChange, Transformed, mapped, times};
use super::weights::weights_of;
use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::{Element, Real};
use crate::params::{
    Gradients, LeafEdit, Manifest, ParamBuffers, ParamLeaf, ParamVisitor, Parameters,
};
use ndarray::{ArrayViewMut, ArrayViewMutD, Axis, Dimension, IxDyn};
use std::collections::BTreeMap;

/// Limits the gradient of every unit to a fraction of the norm of its weights.
///
/// Use it to train without batch normalisation. Not for the last layer, by the paper: leave its
/// gradient out of the tree. A unit is an index of the first dimension (a row of a matrix, an output
/// channel); a tensor of one dimension, or none, is one unit. A row is an output of the layer if its weight is
/// out × in: see [which way round](crate::params#which-way-round-is-a-matrix).
///
/// ```text
/// limit = clipping·max(‖w‖, eps)
/// ‖g‖ > limit:  g ← g·limit/max(‖g‖, 1e-6)
/// ```
/// | field | default, the paper's | |
/// |---|---|---|
/// | `clipping` | 0.01 | ≥ 0 |
/// | `eps` | 1e-3 | ≥ 0; lets weights that are zero begin to move |
///
/// Norms are made in `f64`. [`AdaptiveClip::clip`] shows the gradients through a view;
/// [`AdaptiveClip::apply`] writes them instead, and takes them as a tree of
/// [`Parameters`](crate::params::Parameters), which every model-shaped gradient is.
///
/// # Examples
/// ```
/// use eigenstep::gradient::AdaptiveClip;
/// use ndarray::array;
///
/// let mut w = array![[3.0f64, 4.0], [0.0, 0.0]];
/// let mut g = array![[30.0, 40.0], [0.0, 1e-5]];
/// AdaptiveClip { clipping: 0.1, ..AdaptiveClip::default() }.apply(&mut w, &mut g)?;
/// assert!((g[[0, 0]] - 0.3).abs() < 1e-12 && g[[1, 1]] == 1e-5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// Source: A. Brock, S. De, S. L. Smith, K. Simonyan, "High-Performance Large-Scale Image
/// Recognition Without Normalization", 2021, eq. 3.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct AdaptiveClip {
    /// Largest norm of a unit's gradient, as a fraction of the norm of its weights.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub clipping: f64,
    /// Lowest norm of weights that counts.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub eps: f64,
}
crate::config_file::named_fields!(AdaptiveClip);

impl Default for AdaptiveClip {
    fn default() -> Self {
        Self { clipping: 0.01, eps: 1e-3 }
    }
}

crate::hyperparameters!(AdaptiveClip, "AdaptiveClip", {
    "clipping": NonNegative = clipping;
    "eps": NonNegative = eps;
});

impl AdaptiveClip {
    /// Clips the gradients of a model in place; the model is not changed.
    ///
    /// # Errors
    /// [`Error::UnknownGradient`], [`Error::ShapeMismatch`], [`Error::DuplicateName`],
    /// [`Error::LengthMismatch`], [`Error::InvalidHyperparameter`]. Then nothing has changed.
    pub fn apply<T: Element, P, G>(&self, params: &mut P, grads: &mut G) -> Result<()>
    where
        P: Parameters<T> + ?Sized,
        G: Parameters<T> + ?Sized,
    {
        self.validate()?;
        let mut weights = BTreeMap::new();
        for (name, weight) in arrays(params)? {
            if weights.insert(name.clone(), weight).is_some() {
                return Err(Error::DuplicateName { name });
            }
        }
        let mut pairs = Vec::new();
        for (name, grad) in arrays(grads)? {
            let Some(weight) = weights.remove(&name) else {
                // those before it are used up
                return Err(Error::unknown_gradient(&name, weights.keys().map(String::as_str)));
            };
            if weight.shape() != grad.shape() {
                let (expected, found) = (weight.shape().to_vec(), grad.shape().to_vec());
                return Err(Error::ShapeMismatch { name, expected, found });
            }
            pairs.push((weight, grad));
        }
        for (weight, grad) in &mut pairs {
            self.clip_tensor(weight, grad);
        }
        Ok(())
    }

    /// The gradients, clipped, as a view; the model is not changed. Units without excess keep every bit.
    ///
    /// # Errors
    /// As [`AdaptiveClip::apply`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::gradient::{AdaptiveClip, materialize};
    /// use ndarray::array;
    ///
    /// let (mut w, g) = (array![[3.0f64, 4.0], [0.0, 0.0]], array![[30.0, 40.0], [0.0, 1e-5]]);
    /// let clip = AdaptiveClip { clipping: 0.1, ..AdaptiveClip::default() };
    /// let clipped = materialize(&clip.clip(&mut w, &g)?)?;
    /// assert!((clipped["param"][[0, 0]] - 0.3).abs() < 1e-12 && clipped["param"][[1, 1]] == 1e-5);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn clip<'g, T: Element, P, G>(
        &self,
        params: &mut P,
        grads: &'g G,
    ) -> Result<Transformed<'g, T, G>>
    where
        P: Parameters<T> + ?Sized,
        G: Gradients<T> + ?Sized,
    {
        self.validate()?;
        let tree = Tree::read(grads).checked()?;
        let weights = weights_of(params, &tree)?;
        Ok(Transformed::new(self.clipped(tree, weights), grads))
    }

    /// Apart from [`AdaptiveClip::clip`], so that it is compiled once and not for every tree.
    fn clipped<'g, T: Element>(
        &self,
        tree: Tree<'g, T>,
        weights: Vec<Vec<T>>,
    ) -> Vec<LeafEdit<'g, T>> {
        let Tree { mut sources, .. } = tree;
        let factors: Vec<f64> = sources.iter_mut().map(Source::take_factor).collect();
        let weights = sources.iter().zip(weights).map(|(g, w)| Source::kept(&g.shape, w));
        let weights: Vec<_> = weights.collect();
        let width = |source: &Source<'_, T>| match source.shape.as_slice() {
            [_, rest @ ..] if !rest.is_empty() => rest.iter().product(),
            _ => source.numel(),
        };
        let norms = row_norms(&sources, width).into_iter();
        let limits = row_norms(&weights, width).into_iter();
        let leaves = sources.into_iter().zip(factors).zip(norms.zip(limits));
        let edits = leaves.map(|((source, factor), (norms, limits))| {
            let size = |norm: &f64| norm * factor.abs();
            let excess = |(g, w): (&f64, &f64)| {
                let (size, limit) = (size(g), self.clipping * w.max(self.eps));
                if size > limit { limit / size.max(1e-6) } else { 1.0 }
            };
            let change: Vec<f64> = norms.iter().zip(&limits).map(excess).collect();
            let finite = norms.iter().all(|g| fits::<T>(size(g))) && factor.abs() <= 1.0;
            if change.iter().all(|&change| change == 1.0) {
                return times(1.0, finite);
            }
            let (width, change) = (width(&source), RowChange::Multiply(change));
            mapped(source, ByRow { width, change }, factor, finite)
        });
        edits.collect()
    }

    fn clip_tensor<T: Element>(
        &self,
        weight: &mut ArrayViewMutD<'_, T>,
        grad: &mut ArrayViewMutD<'_, T>,
    ) {
        if weight.ndim() <= 1 {
            self.clip_unit(weight, grad);
            return;
        }
        let units = grad.axis_iter_mut(Axis(0));
        for (mut weight, mut grad) in weight.axis_iter_mut(Axis(0)).zip(units) {
            self.clip_unit(&mut weight, &mut grad);
        }
    }

    fn clip_unit<T: Element, D: Dimension>(
        &self,
        weight: &mut ArrayViewMut<'_, T, D>,
        grad: &mut ArrayViewMut<'_, T, D>,
    ) {
        let limit = self.clipping * norm(weight).max(self.eps);
        let size = norm(grad);
        if size > limit {
            let factor = T::Compute::of(limit / size.max(1e-6));
            grad.map_inplace(|g| *g = T::store(g.load() * factor));
        }
    }
}

/// The 2-norm of every row of every leaf, also where squares leave the range of `f64`.
fn row_norms<T: Element>(
    sources: &[Source<'_, T>],
    width: impl Fn(&Source<'_, T>) -> usize + Copy + Sync + Send,
) -> Vec<Vec<f64>> {
    let squares = by_row(sources, width, |x| x * x);
    let norms = |(source, rows): (_, Vec<[f64; 2]>)| {
        if rows.iter().all(|[square, _]| *square < f64::INFINITY) {
            return rows.iter().map(|[square, _]| square.sqrt()).collect();
        }
        let source = std::slice::from_ref(source);
        let scaled = by_row(source, width, |x| (x * SMALL) * (x * SMALL)).into_iter().flatten();
        scaled.map(|[square, _]| square.sqrt() / SMALL).collect()
    };
    sources.iter().zip(squares).map(norms).collect()
}

/// A factor under which no sum of squares overflows, `2⁻⁶⁰⁰`.
const SMALL: f64 = f64::from_bits((1023 - 600) << 52);

/// Euclidean norm, in `f64`, in logical order.
fn norm<T: Element, D: Dimension>(values: &ArrayViewMut<'_, T, D>) -> f64 {
    let sum = |unit: f64| {
        let square = |x: &T| (x.load().widen() * unit) * (x.load().widen() * unit);
        values.iter().fold(0.0, |sum, x| sum + square(x)).sqrt() / unit
    };
    let plain = sum(1.0);
    if plain.is_infinite() { sum(SMALL) } else { plain }
}

/// The leaves of a tree, as arrays.
fn arrays<'a, T: Element, P: Parameters<T> + ?Sized>(
    tree: &'a mut P,
) -> Result<Vec<(String, ArrayViewMutD<'a, T>)>> {
    let mut visitor = ParamVisitor::new(ParamBuffers::default(), Manifest::default());
    visitor.collect(tree)?;
    let ParamVisitor { manifest, leaves, .. } = visitor;
    let array = |(i, leaf)| {
        let (name, shape) = (manifest.name(i).to_owned(), manifest.shape(i));
        Ok(match leaf {
            ParamLeaf::Strided(array) => (name, array),
            ParamLeaf::Slice(data) => {
                let (found, expected) = (data.len(), shape.iter().product());
                let array = ArrayViewMutD::from_shape(IxDyn(shape), data).map_err(|_| {
                    let (name, shape) = (name.clone(), shape.to_vec());
                    Error::LengthMismatch { name, shape, expected, found }
                })?;
                (name, array)
            }
        })
    };
    leaves.into_iter().enumerate().map(array).collect()
}
