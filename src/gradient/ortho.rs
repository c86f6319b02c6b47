//! Gradients at right angles to their weights.

use super::combine::{Bundle, Sizes, Weights, products};
use super::source::{Source, Tree};
use super::transformed::Transformed;
use super::weights::weights_of;
use crate::error::Result;
use crate::numeric::Element;
use crate::params::{Gradients, Parameters};

/// Takes out of every gradient what points along its weights, and gives it its old norm back: OrthoGrad,
/// as a view.
///
/// *Use it when* a network that fits its training data only scales its weights up (the logits grow, the
/// loss falls, and nothing else is learnt): it groks sooner. *Not when* the scale of the weights has to
/// be learnt. Weight decay still acts along the weights.
///
/// ```text
/// o = g − w·⟨w, g⟩/(⟨w, w⟩ + 1e-30)          per tensor
/// g ← o·‖g‖/(‖o‖ + 1e-30)     if ‖o‖ > 4ε·‖g‖, ε = 2.2e-16;  else 0
/// ```
/// A gradient along its weights, as that of a scalar, becomes zero. Inner products are made in `f64`.
/// The view holds a copy of the weights that have gradients.
///
/// # Errors
/// [`Error::UnknownGradient`](crate::Error::UnknownGradient) for a gradient without weights,
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch),
/// [`Error::DuplicateName`](crate::Error::DuplicateName),
/// [`Error::LengthMismatch`](crate::Error::LengthMismatch). Nothing is changed, the model neither.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{materialize, ortho_grad};
/// use ndarray::array;
///
/// let (mut w, g) = (array![1.0f64, 0.0], array![3.0, 4.0]);
/// let across = materialize(&ortho_grad(&mut w, &g)?)?;
/// assert_eq!(across["param"], array![0.0, 5.0].into_dyn());
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Differences
/// The authors compute in the gradient's type and have no threshold: what rounding leaves of a gradient
/// along its weights is then scaled up to the old norm.
///
/// # Source
/// L. Prieto, M. Barsbey, P. A. M. Mediano, T. Birdal, "Grokking at the Edge of Numerical Stability",
/// ICLR 2025.
pub fn ortho_grad<'g, T: Element, P, G>(
    params: &mut P,
    grads: &'g G,
) -> Result<Transformed<'g, T, G>>
where
    P: Parameters<T> + ?Sized,
    G: Gradients<T> + ?Sized,
{
    let tree = Tree::read(grads).checked()?;
    let weights = weights_of(params, &tree)?;
    let pairs = tree.sources.into_iter().zip(weights);
    let bundle = |(grad, weights): (Source<'g, T>, Vec<T>)| {
        let shape = grad.shape.clone();
        let weights = Source::kept(&shape, weights);
        Bundle::new(&shape, vec![Some(grad), Some(weights)])
    };
    let bundles: Vec<_> = pairs.map(bundle).collect();
    let sizes = Sizes::measure(&bundles, 2);
    let unit = sizes.units.first().copied().unwrap_or(1.0);
    let (across, norms) = across(&bundles, &sizes.units);
    let lengths = products(&bundles, |leaf| one(&across, leaf), |leaf| one(&across, leaf));
    let leaves = bundles.into_iter().zip(across).zip(norms).zip(lengths).zip(&sizes.of);
    let edits = leaves.map(|((((bundle, mut weights), norm), length), sizes)| {
        // at right angles to the weights, with the old norm
        let factor = match length.into_iter().sum::<f64>().sqrt() {
            length if length <= 4.0 * f64::EPSILON * norm => 0.0,
            length => norm / (length + 1e-30),
        };
        weights.iter_mut().for_each(|weight| *weight *= factor / unit);
        bundle.combined(weights, sizes)
    });
    Ok(Transformed::new(edits.collect(), grads))
}

/// The list of one leaf's only combination.
fn one(weights: &[Weights], leaf: usize) -> &[Weights] {
    weights.get(leaf).map(std::slice::from_ref).unwrap_or_default()
}

/// `g − w·⟨w, g⟩/⟨w, w⟩` as a combination of both, and `‖g‖`, of every leaf; both in units of `g`.
fn across<T: Element>(bundles: &[Bundle<'_, T>], units: &[f64]) -> (Vec<Weights>, Vec<f64>) {
    let (g, w) = (units.first().copied().unwrap_or(1.0), units.last().copied().unwrap_or(1.0));
    let both = [vec![g, 0.0], vec![0.0, w]];
    let sums = products(bundles, |_| &both, |_| &both);
    let leaf = |sums: Vec<f64>| {
        let [gg, gw, _, ww] = sums.try_into().unwrap_or([0.0; 4]);
        (vec![g, -gw / (ww + 1e-30) * w], gg.sqrt())
    };
    sums.into_iter().map(leaf).unzip()
}
