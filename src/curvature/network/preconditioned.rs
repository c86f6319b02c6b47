//! The view of gradients that an optimizer takes.

use crate::numeric::Element;
use crate::params::{Elements, Generate, GradVisitor, Gradients, LeafEdit, Manifest};

/// Gradients in which those of registered layers are directions: what
/// [`NetworkPreconditioner::precondition`](super::NetworkPreconditioner::precondition) returns.
///
/// It borrows the gradients, and owns the directions. It is a tree of gradients of the same names, in the
/// same order; a loss and a curvature that came with the gradients come with it, too. Views such as
/// clipping may stand around it.
#[derive(Debug)]
pub struct Preconditioned<'g, T, G: ?Sized> {
    edits: Vec<LeafEdit<'g, T>>,
    inner: &'g G,
    kl_scale: f64,
}

impl<'g, T: Element, G: ?Sized> Preconditioned<'g, T, G> {
    /// The gradients of a tree with these leaves, but for some leaves that directions replace.
    pub(super) fn new(
        inner: &'g G,
        leaves: &Manifest,
        kl_scale: f64,
        directions: Vec<(usize, Vec<T>)>,
    ) -> Self {
        let same = |_| LeafEdit { elements: Elements::Same, factor: 1.0, finite: false };
        let mut edits: Vec<_> = (0..leaves.len()).map(same).collect();
        for (leaf, values) in directions {
            if let Some(edit) = edits.get_mut(leaf) {
                let direction = Direction { shape: leaves.shape(leaf).to_vec(), values };
                (edit.elements, edit.factor) = (Elements::New(Box::new(direction)), kl_scale);
            }
        }
        Self { edits, inner, kl_scale }
    }
}

impl<T, G: ?Sized> Preconditioned<'_, T, G> {
    /// ν, the factor that all directions have from `kl_clip`: at most 1.
    pub fn kl_scale(&self) -> f64 {
        self.kl_scale
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Preconditioned<'_, T, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.edited(&self.edits, self.inner);
    }
}

/// The direction of a parameter.
struct Direction<T> {
    shape: Vec<usize>,
    values: Vec<T>,
}

impl<T: Element> Generate<T> for Direction<T> {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn fill(&self, offset: usize, out: &mut [T]) {
        let values = self.values.get(offset..).unwrap_or_default();
        out.iter_mut().zip(values).for_each(|(out, &x)| *out = x);
    }

    fn writes_all(&self) -> bool {
        true
    }
}
