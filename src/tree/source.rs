//! What the algebra reads: any tree of parameters, gradients or owned values.

use super::read::{ReadLeaf, Zeros};
use crate::error::Result;
use crate::kernel::scratch::with_kept;
use crate::numeric::{Element, Real};
use crate::params::{
    GradBuffers, GradVisitor, Gradients, Manifest, ParamBuffers, ParamLeaf, ParamVisitor,
    Parameters,
};
use std::mem::take;

/// A tree that can be read: `&grads` for whatever has [`Gradients`], `&mut params` for whatever has
/// [`Parameters`].
///
/// Gradients are read as an update sees them: scaled, clamped, rows and generated ones written out.
/// Parameters are visited through a mutable reference, since that is how they are visited, and are not
/// changed. A model that has both traits, as all that [`parameters!`](crate::parameters) makes, is read
/// either way.
///
/// All that has the arithmetic type in common goes together: parameters in `bf16`, their average in `f32`.
///
/// # Examples
/// ```
/// use eigenstep::{params::{Parameters, Scaled}, tree};
/// use ndarray::array;
///
/// let (mut model, grads) = (array![3.0f32, 4.0], array![1.0f32, 1.0]);
/// assert_eq!(tree::norm(&model)?, 5.0);
/// assert_eq!(tree::dot(&model, &Scaled::new(2.0, &grads))?, 14.0);
///
/// // as a wrapper around an optimizer sees a model
/// let params: &mut dyn Parameters<f32> = &mut model;
/// assert_eq!(tree::norm(&mut *params)?, 5.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Source<T: Element> {
    /// Calls `f` with the leaves, once, or returns the error of a leaf whose buffer does not fit its shape.
    #[doc(hidden)]
    fn read(self, f: &mut dyn FnMut(&Leaves<'_, T::Compute>) -> Result<()>) -> Result<()>;
}

/// The leaves of a tree that is being read.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a borrowed view that lives for one call")]
pub struct Leaves<'a, R> {
    /// Names and shapes.
    pub(super) manifest: &'a Manifest,
    list: &'a dyn LeafList<R>,
    /// Whether a leaf that is not there counts as zero.
    pub(super) or_zero: bool,
}

impl<'a, R: Real> Leaves<'a, R> {
    /// The leaf of this number; zeros if there is none.
    pub(super) fn leaf(&self, number: usize) -> &'a dyn ReadLeaf<R> {
        self.list.leaf(number).unwrap_or(&Zeros)
    }

    /// Number of elements of a leaf.
    pub(super) fn numel(&self, number: usize) -> usize {
        self.manifest.shape(number).iter().product()
    }
}

/// Leaves by number, whatever their type.
trait LeafList<R>: Sync {
    fn leaf(&self, number: usize) -> Option<&dyn ReadLeaf<R>>;
}

impl<R, L: ReadLeaf<R>> LeafList<R> for &[L] {
    fn leaf(&self, number: usize) -> Option<&dyn ReadLeaf<R>> {
        self.get(number).map(|leaf| leaf as &dyn ReadLeaf<R>)
    }
}

impl<T: Element, G: Gradients<T> + ?Sized> Source<T> for &G {
    fn read(self, f: &mut dyn FnMut(&Leaves<'_, T::Compute>) -> Result<()>) -> Result<()> {
        with_kept(|(buffers, manifest): &mut (GradBuffers<T>, Manifest)| {
            let mut visitor = GradVisitor::new(take(buffers), take(manifest));
            let outcome = visitor.collect(self).and_then(|()| {
                let list: &dyn LeafList<T::Compute> = &&*visitor.leaves;
                f(&Leaves { manifest: &visitor.manifest, list, or_zero: false })
            });
            (*buffers, *manifest) = visitor.into_buffers();
            outcome
        })
    }
}

impl<T: Element, P: Parameters<T> + ?Sized> Source<T> for &mut P {
    fn read(self, f: &mut dyn FnMut(&Leaves<'_, T::Compute>) -> Result<()>) -> Result<()> {
        visit(self, &mut |manifest, leaves| {
            let list: &dyn LeafList<T::Compute> = &&*leaves;
            f(&Leaves { manifest, list, or_zero: false })
        })
    }
}

/// What sees names, shapes and memory of leaves.
pub(crate) type Visit<'f, T> = dyn FnMut(&Manifest, &mut [ParamLeaf<'_, T>]) -> Result<()> + 'f;

/// Calls `f` with names, shapes and memory of the leaves of a tree of parameters. After the first call for a
/// tree of this size nothing is allocated.
pub(crate) fn visit<T: Element, P: Parameters<T> + ?Sized>(
    params: &mut P,
    f: &mut Visit<'_, T>,
) -> Result<()> {
    with_kept(|(buffers, manifest): &mut (ParamBuffers<T>, Manifest)| {
        let mut visitor = ParamVisitor::new(take(buffers), take(manifest));
        let outcome =
            visitor.collect(params).and_then(|()| f(&visitor.manifest, &mut visitor.leaves));
        (*buffers, *manifest) = visitor.into_buffers();
        outcome
    })
}

/// A tree whose missing leaves count as zero; what [`or_zero`] returns.
#[derive(Clone, Copy, Debug)]
pub struct OrZero<S>(S);

/// A tree in which leaves may be missing: they count as zero.
///
/// Without it, a leaf that the other tree has and this one lacks is an error, since it is nearly always a
/// mistake. Gradients of frozen parameters are the exception. A leaf that *only* this tree has is an error
/// in any case, unless the other is read through `or_zero`, too.
///
/// # Examples
/// ```
/// use eigenstep::{Error, tree::{axpy, or_zero}};
/// use ndarray::array;
///
/// let mut model = (array![1.0f32, 2.0], array![3.0f32]);
/// let grads = (Some(array![10.0f32, 10.0]), None::<ndarray::Array1<f32>>);
/// assert!(matches!(axpy(-0.1, &grads, &mut model), Err(Error::MissingParameter { name }) if name == "1"));
/// axpy(-0.1, or_zero(&grads), &mut model)?;
/// assert_eq!(model, (array![0.0, 1.0], array![3.0]));
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub fn or_zero<S>(tree: S) -> OrZero<S> {
    OrZero(tree)
}

impl<T: Element, S: Source<T>> Source<T> for OrZero<S> {
    fn read(self, f: &mut dyn FnMut(&Leaves<'_, T::Compute>) -> Result<()>) -> Result<()> {
        self.0.read(&mut |leaves| f(&Leaves { or_zero: true, ..*leaves }))
    }
}
