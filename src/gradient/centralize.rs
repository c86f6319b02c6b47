//! Gradient centralisation.

use super::source::{Source, Tree, fits};
use super::sums::by_row;
use super::transformed::{ByRow, RowChange, Transformed, mapped, same};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::params::{Gradients, LeafEdit};

/// Subtracts from every row of a gradient its mean: gradient centralisation, as a view.
///
/// *Use it when* you train a network with convolutions or linear layers by SGD or Adam, with or without
/// normalisation layers. *Not when* a row is no weight vector of one output: leave such gradients out by
/// [`Centralize::min_ndim`], or visit them outside of the view.
///
/// ```text
/// ndim > 1:  g[i, …] ← g[i, …] − mean(g[i, …])     every index i of the first dimension
/// ndim ≤ 1:  g
/// ```
/// A row is an output neuron of a linear layer `(out, in)`, an output channel of a convolution
/// `(out, in, height, width)`. For a weight that is in × out, `x.dot(&weight)`, a row is an *input*: see
/// [which way round](crate::params#which-way-round-is-a-matrix). Means are made in `f64`. The gradients are read once to measure them, and
/// the means are subtracted inside the update.
///
/// A NaN, or a buffer of the wrong length, is reported by the step, not here.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{centralize, materialize};
/// use ndarray::array;
///
/// let grads = (array![[1.0f32, 3.0], [5.0, 5.0]], array![1.0f32, 3.0]);
/// let centred = materialize(&centralize(&grads))?;
/// assert_eq!(centred["0"], array![[-1.0f32, 1.0], [0.0, 0.0]].into_dyn());
/// assert_eq!(centred["1"], array![1.0f32, 3.0].into_dyn()); // a bias stays
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Differences
/// The authors' optimizers centralise the gradient before weight decay is added (SGD) or where it is
/// used (Adam). A view can only do the former.
///
/// # Source
/// H. Yong, J. Huang, X. Hua, L. Zhang, "Gradient Centralization: A New Optimization Technique for Deep
/// Neural Networks", ECCV 2020.
pub fn centralize<T: Element, G: Gradients<T> + ?Sized>(grads: &G) -> Transformed<'_, T, G> {
    Transformed::new(centred(Tree::read(grads), 2), grads)
}

/// [`centralize`] for tensors of some dimensions only.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `min_ndim` | 2 | the paper's GC: linear layers and convolutions |
///
/// With 3, linear layers stay as they are, and convolutions of one dimension or more are centralised:
/// the variant for convolutions only. The authors' `gc_conv_only` means 4: convolutions of two dimensions
/// or more.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{Centralize, materialize};
/// use ndarray::{Array2, Array4};
///
/// let grads = (Array2::<f32>::ones((2, 3)), Array4::<f32>::ones((2, 1, 3, 3)));
/// let centred = materialize(&Centralize { min_ndim: 3 }.apply(&grads)?)?;
/// assert_eq!(centred["0"].sum(), 6.0); // the linear layer stays
/// assert_eq!(centred["1"].sum(), 0.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Centralize {
    /// Smallest number of dimensions of a tensor that is centralised, at least 2.
    pub min_ndim: usize,
}
crate::config_file::named_fields!(Centralize);

impl Default for Centralize {
    fn default() -> Self {
        Self { min_ndim: 2 }
    }
}

crate::hyperparameters!(Centralize, "Centralize", {
    "min_ndim": CountFrom(2) = min_ndim;
});

impl Centralize {
    /// The gradients, centralised.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter);
    /// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit its shape.
    pub fn apply<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        grads: &'g G,
    ) -> Result<Transformed<'g, T, G>> {
        self.validate()?;
        Ok(Transformed::new(centred(Tree::read(grads).checked()?, self.min_ndim), grads))
    }
}

fn centred<T: Element>(tree: Tree<'_, T>, min_ndim: usize) -> Vec<LeafEdit<'_, T>> {
    let Tree { mut sources, .. } = tree;
    let factors: Vec<f64> = sources.iter_mut().map(Source::take_factor).collect();
    // rows without elements have no mean, and need none
    let width = |source: &Source<'_, T>| match source.shape.as_slice() {
        [_, rest @ ..] if rest.len() + 1 >= min_ndim => rest.iter().product(),
        _ => 0,
    };
    let sums = by_row(&sources, width, |x| x);
    // sums of numbers near the largest f64 overflow: once more, with smaller ones
    let small = 2f64.powi(-64);
    let overflown = sums.iter().flatten().any(|[sum, _]| !sum.is_finite());
    let smaller = overflown.then(|| by_row(&sources, width, |x| x * small));
    let (sums, unit) = smaller.map_or((sums, 1.0), |sums| (sums, 1.0 / small));
    let leaves = sources.into_iter().zip(factors).zip(sums);
    let edits = leaves.map(|((source, factor), sums)| {
        let width = width(&source);
        if width == 0 {
            return same();
        }
        let mean = |[sum, _]: &[f64; 2]| sum / width as f64 * unit;
        // no element is further from a mean than twice the largest; a NaN stays one
        let largest: f64 = sums.iter().map(|[_, size]| size).sum();
        let finite = fits::<T>(2.0 * largest * unit * factor.abs().max(1.0));
        let change = RowChange::Subtract(sums.iter().map(mean).collect());
        mapped(source, ByRow { width, change }, factor, finite)
    });
    edits.collect()
}
