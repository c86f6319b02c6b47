//! Gradients of unit length, and a bound on their root mean square.

use super::source::{Tree, fits};
use super::sums::{by_leaf, reciprocal_power};
use super::transformed::{Transformed, times};
use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::kernel::{Isa, Kernel};
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};
use crate::params::{Gradients, LeafEdit};
use num_traits::Float;

/// Whether each tensor is measured, or projected, by itself, or all together as one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum TreeScope {
    /// All tensors together.
    Tree,
    /// Every tensor on its own.
    #[default]
    Tensor,
}

/// The size of a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GradSize {
    /// `‖g‖₂`.
    #[default]
    Norm,
    /// `‖g‖₂/√n` for n elements.
    Rms,
}

/// Divides the gradient of every tensor by its norm, as a view.
///
/// *Use it when* gradients of some layers are much smaller than of others, or explode. *Not when* the
/// optimizer divides by their size itself, as Adam and its relatives do.
///
/// ```text
/// g ← g/(‖g‖ + eps)     per tensor; a gradient of zeros stays zero
/// ```
/// The gradients are read once to measure them; the factor is applied inside the update. See
/// [`Normalize`] for options. A gradient that does not fit, or is not finite, is reported by the step, not here.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{materialize, normalize};
/// use ndarray::array;
///
/// let grads = (array![3.0f64, 4.0], array![1e-3f64]);
/// let unit = materialize(&normalize(&grads))?;
/// assert!((unit["0"][0] - 0.6).abs() < 1e-9 && (unit["1"][0] - 1.0).abs() < 1e-8);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// A. W. Yu, L. Huang, Q. Lin, R. Salakhutdinov, J. Carbonell, "Block-Normalized Gradient Method: An
/// Empirical Study for Training Deep Neural Network", 2017.
pub fn normalize<T: Element, G: Gradients<T> + ?Sized>(grads: &G) -> Transformed<'_, T, G> {
    Transformed::new(Normalize::default().edits(&Tree::read(grads)), grads)
}

/// [`normalize`] with its options.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `scope` | [`TreeScope::Tensor`] | the paper's blocks are layers |
/// | `size` | [`GradSize::Norm`] | the paper |
/// | `eps` | 1e-12 | ours; ≥ 0, and a gradient of zeros stays zero with 0, too |
///
/// # Examples
/// ```
/// use eigenstep::gradient::{Normalize, TreeScope, materialize};
/// use ndarray::array;
///
/// let grads = (array![3.0f64], array![4.0f64]);
/// let together = Normalize { scope: TreeScope::Tree, eps: 0.0, ..Normalize::default() };
/// let unit = materialize(&together.apply(&grads)?)?;
/// assert_eq!((unit["0"][0], unit["1"][0]), (0.6000000000000001, 0.8));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Normalize {
    /// Whether each tensor is a vector by itself, or all together are one.
    pub scope: TreeScope,
    /// What it is divided by.
    pub size: GradSize,
    /// Added to the size.
    #[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))]
    pub eps: f64,
}
crate::config_file::named_fields!(Normalize);

impl Default for Normalize {
    fn default() -> Self {
        Self { scope: TreeScope::Tensor, size: GradSize::Norm, eps: 1e-12 }
    }
}

crate::hyperparameters!(Normalize, "Normalize", {
    "eps": NonNegative = eps;
});

impl Normalize {
    /// The gradients over their size.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter);
    /// [`Error::LengthMismatch`](crate::Error::LengthMismatch) for a buffer that does not fit its shape.
    pub fn apply<'g, T: Element, G: Gradients<T> + ?Sized>(
        &self,
        grads: &'g G,
    ) -> Result<Transformed<'g, T, G>> {
        self.validate()?;
        Ok(Transformed::new(self.edits(&Tree::read(grads).checked()?), grads))
    }

    fn edits<'g, T: Element>(&self, tree: &Tree<'g, T>) -> Vec<LeafEdit<'g, T>> {
        let (mut norms, mut numels) = (leaf_norms(tree), tree.numels());
        if self.scope == TreeScope::Tree {
            // of the norms; each is finite and their squares may not be
            let largest =
                norms.iter().fold(0.0, |a: f64, &b| if b > a || b.is_nan() { b } else { a });
            let unit = if largest > 0.0 && largest.is_finite() { largest } else { 1.0 };
            let square: f64 = norms.iter().map(|norm| (norm / unit) * (norm / unit)).sum();
            let (norm, numel) = (square.sqrt() * unit, numels.iter().sum());
            norms.fill(norm);
            numels.fill(numel);
        }
        let leaves = norms.into_iter().zip(numels);
        leaves.map(|(norm, numel)| self.edit(norm, numel)).collect()
    }

    fn edit<'g, T: Element>(&self, norm: f64, numel: usize) -> LeafEdit<'g, T> {
        let size = match self.size {
            GradSize::Norm => norm,
            GradSize::Rms => norm / (numel.max(1) as f64).sqrt(),
        };
        let divisor = size + self.eps;
        // subnormal gradients: not further than the largest factor, which is a number
        let largest = T::Compute::max_value().widen();
        let factor = if size == 0.0 { 1.0 } else { 1.0 / divisor };
        let factor = if factor > largest { largest } else { factor };
        times(factor, norm.is_finite() && fits::<T>(norm * factor))
    }
}

/// Scales the gradient of every tensor down to root mean square `max_rms` if its own is larger, as a
/// view.
///
/// ```text
/// g ← g/max(1, rms(g)/max_rms)     per tensor,  rms(g) = ‖g‖/√n
/// ```
/// *Use it when* one layer's gradient explodes now and then and the others should not shrink with it,
/// as they do with [`clip_grad_norm`](super::clip_grad_norm). A gradient with a NaN becomes NaN, and the
/// step refuses it, as it refuses a `max_rms` that is negative or NaN.
///
/// # Examples
/// ```
/// use eigenstep::gradient::{clip_grad_rms, materialize};
/// use ndarray::array;
///
/// let grads = (array![6.0f64, 8.0], array![0.5f64]);
/// let clipped = materialize(&clip_grad_rms(&grads, 1.0))?;
/// assert!((clipped["0"][0] - 6.0 / 50f64.sqrt()).abs() < 1e-15);
/// assert_eq!(clipped["1"][0], 0.5);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, section
/// 6, which clips updates.
pub fn clip_grad_rms<T: Element, G: Gradients<T> + ?Sized>(
    grads: &G,
    max_rms: f64,
) -> Transformed<'_, T, G> {
    let tree = Tree::read(grads);
    let edit = |(norm, numel): (f64, usize)| {
        let excess = norm / (numel.max(1) as f64).sqrt() / max_rms;
        // not `max`, which would swallow a NaN; 0/0 of a gradient of zeros is no excess
        let factor = if excess <= 1.0 || norm == 0.0 { 1.0 } else { 1.0 / excess };
        times(factor, fits::<T>(norm) && (0.0..=1.0).contains(&factor))
    };
    let edits = leaf_norms(&tree).into_iter().zip(tree.numels()).map(edit).collect();
    Transformed::new(edits, grads).bounded("clip_grad_rms", "max_rms", max_rms)
}

/// The 2-norm of every leaf, also where squares leave the range of `f64`.
fn leaf_norms<T: Element>(tree: &Tree<'_, T>) -> Vec<f64> {
    let ones = vec![1.0; tree.sources.len()];
    let first = sizes_and_squares(tree, &ones);
    let unit = |sums: &Vec<f64>| match sums.as_slice() {
        &[size, square] if size > 0.0 && !(1e-280..1e300).contains(&square) => {
            // an infinite size may be a sum of finite numbers
            if size.is_finite() { reciprocal_power(size) } else { 2f64.powi(-600) }
        }
        _ => 1.0,
    };
    let units: Vec<f64> = first.iter().map(unit).collect();
    let sums = if units == ones { first } else { sizes_and_squares(tree, &units) };
    let norm =
        |(sums, unit): (Vec<f64>, f64)| sums.last().map_or(0.0, |square| square.sqrt() / unit);
    sums.into_iter().zip(units).map(norm).collect()
}

/// `[Σ |x|, Σ (unit·x)²]` of every leaf.
fn sizes_and_squares<T: Element>(tree: &Tree<'_, T>, units: &[f64]) -> Vec<Vec<f64>> {
    let isa = Isa::detect();
    by_leaf(&tree.numels(), 2, |piece| {
        let mut sums = [LaneSum::default(); 2];
        let leaf = tree.sources.get(piece.leaf).zip(units.get(piece.leaf));
        if let Some((source, &unit)) = leaf {
            source.visit(piece.start, piece.len, |_, xs| isa.run(AddSquares(&mut sums, xs, unit)));
        }
        sums.map(LaneSum::total).to_vec()
    })
}

struct AddSquares<'a, R>(&'a mut [LaneSum; 2], &'a [R], f64);

impl<R: Real> Kernel for AddSquares<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self([sizes, squares], xs, unit) = self;
        sizes.extend(xs, |x| x.widen().abs());
        squares.extend(xs, |x| (x.widen() * unit) * (x.widen() * unit));
    }
}
