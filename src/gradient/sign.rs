//! Signs of gradients, and gradients where signs agree.

use super::source::{BLOCK, Source, Tree, fits};
use super::sums::magnitudes;
use super::transformed::{Map, Transformed, mapped};
use crate::error::{Error, Result, check_shape};
use crate::numeric::{Element, Real, sign as sign_of};
use crate::params::Gradients;
use num_traits::Float;

/// The signs of gradients, −1, 0 or 1, as a view.
///
/// *Use it when* you want steps of one size in every coordinate with an optimizer of your choice, or the
/// votes of several micro-batches: add the signs to an [`Accumulator`](super::Accumulator), and take the
/// sign of the sum. *Not when* [`SignSgd`](crate::first_order::SignSgd) or [`Lion`](crate::first_order::Lion) do.
///
/// ```text
/// g ← sign(g)     sign(0) = 0, and a NaN stays a NaN
/// ```
///
/// # Examples
/// A majority vote:
/// ```
/// use eigenstep::gradient::{Accumulator, materialize, sign};
/// use ndarray::array;
///
/// let mut votes = Accumulator::new();
/// for sample in [array![1.0f32, 9.0], array![2.0, -1.0], array![-3.0, -1.0]] {
///     votes.add(&sign(&sample))?;
/// }
/// assert_eq!(materialize(&sign(&votes))?["param"], array![1.0f32, -1.0].into_dyn());
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: Compressed Optimisation for
/// Non-Convex Problems", ICML 2018.
pub fn sign<T: Element, G: Gradients<T> + ?Sized>(grads: &G) -> Transformed<'_, T, G> {
    let sources = Tree::read(grads).sources;
    // infinities have signs
    let finite = magnitudes(&sources).into_iter().map(|magnitude| !magnitude.is_nan());
    let leaves = sources.into_iter().zip(finite);
    let edits = leaves.map(|(source, finite)| mapped(source, Signs, 1.0, finite));
    Transformed::new(edits.collect(), grads)
}

struct Signs;

impl<R: Real> Map<R> for Signs {
    fn apply(&self, _: usize, xs: &mut [R]) {
        xs.iter_mut().for_each(|x| *x = sign_of(*x));
    }
}

/// Keeps the elements of a gradient whose signs are those of a reference; others become zero.
///
/// *Use it when* a second direction says which moves are safe: the momentum (cautious updates), the
/// gradient at another batch, or a task vector whose entries should descend a new loss (GradFix). *Not
/// when* the signs of the reference are noise: half of every step is lost.
///
/// ```text
/// keep:   u ← u if sign(u) = sign(r), else 0
/// force:  u ← |u|·sign(r)
/// ```
/// | field | default | source of the default |
/// |---|---|---|
/// | `force` | false | the hard mask of GradFix; `true` is its force mask |
///
/// The reference is a tree with the same names, and may have more. A NaN in either becomes NaN, which
/// the step refuses. Kept elements are not scaled up for those that are lost.
///
/// # Examples
/// A task vector, masked to descend: the reference is minus the gradient.
/// ```
/// use eigenstep::{gradient::{SignMask, materialize}, params::Scaled};
/// use ndarray::array;
///
/// let (task, gradient) = (array![1.0f64, -2.0, 3.0], array![-5.0f64, -5.0, 5.0]);
/// let descent = Scaled::new(-1.0, &gradient);
/// let masked = SignMask::default().apply(&task, &descent)?;
/// assert_eq!(materialize(&masked)?["param"], array![1.0, 0.0, 0.0].into_dyn());
/// let forced = SignMask { force: true }.apply(&task, &descent)?;
/// assert_eq!(materialize(&forced)?["param"], array![1.0, 2.0, -3.0].into_dyn());
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// F. Rinaldi et al., "Gradient-Sign Masking for Task Vector Transport Across Pre-Trained Models", ICLR
/// 2026; K. Liang, L. Chen, B. Liu, Q. Liu, "Cautious Optimizers: Improving Training with One Line of
/// Code", 2024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SignMask {
    /// Gives every element the sign of the reference instead.
    pub force: bool,
}
crate::config_file::named_fields!(SignMask);

impl SignMask {
    /// `grads`, masked by the signs of `reference`. Loss and curvature are those of `grads`.
    ///
    /// # Errors
    /// [`Error::MissingInput`] for a gradient that the reference lacks; [`Error::ShapeMismatch`],
    /// [`Error::DuplicateName`], [`Error::LengthMismatch`].
    pub fn apply<'g, T: Element, G, H>(
        &self,
        grads: &'g G,
        reference: &'g H,
    ) -> Result<Transformed<'g, T, G>>
    where
        G: Gradients<T> + ?Sized,
        H: Gradients<T> + ?Sized,
    {
        let tree = Tree::read(grads).checked()?;
        let mut references = Tree::read(reference).checked()?.by_name()?;
        let mut paired = Vec::with_capacity(tree.sources.len());
        for (leaf, source) in tree.sources.iter().enumerate() {
            let name = tree.manifest.name(leaf);
            let reference = references.remove(name).ok_or_else(|| Error::MissingInput {
                optimizer: "SignMask",
                input: "a reference",
                of: format!(" for `{name}`"),
                help: "SignMask::apply",
            })?;
            check_shape(name, &source.shape, &reference.shape)?;
            paired.push(reference);
        }
        let sizes = magnitudes(&tree.sources).into_iter().zip(magnitudes(&paired));
        let leaves = tree.sources.into_iter().zip(paired).zip(sizes);
        let edits = leaves.map(|((source, reference), (size, other))| {
            let finite = fits::<T>(size) && !other.is_nan();
            mapped(source, Masked { reference, force: self.force }, 1.0, finite)
        });
        Ok(Transformed::new(edits.collect(), grads))
    }
}

struct Masked<'g, T: Element> {
    reference: Source<'g, T>,
    force: bool,
}

impl<T: Element> Map<T::Compute> for Masked<'_, T> {
    fn apply(&self, offset: usize, xs: &mut [T::Compute]) {
        let mut block = [T::Compute::default(); BLOCK];
        for (offset, xs) in (offset..).step_by(BLOCK).zip(xs.chunks_mut(BLOCK)) {
            let block = block.get_mut(..xs.len()).unwrap_or_default();
            self.reference.load(offset, block);
            for (x, &r) in xs.iter_mut().zip(&*block) {
                *x = if self.force { x.abs() * sign_of(r) } else { kept(*x, r) };
            }
        }
    }
}

/// `x` if its sign is that of `r`, else 0; a NaN of either is equal to nothing, and stays.
fn kept<R: Real>(x: R, r: R) -> R {
    let same = sign_of(x) == sign_of(r);
    let unordered = x.is_nan() || r.is_nan();
    if same {
        x
    } else if unordered {
        R::nan()
    } else {
        R::zero()
    }
}
