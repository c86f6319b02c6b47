//! The view of gradients that an optimizer takes.

use crate::numeric::Element;
use crate::params::{GradVisitor, GradientLeaf, Gradients, Manifest};

/// Gradients in which those of registered layers are directions: what
/// [`NetworkPreconditioner::precondition`](super::NetworkPreconditioner::precondition) returns.
///
/// It is a tree of gradients of the same names, in the same order; a loss and a curvature that came with the
/// gradients come with it, too. Views such as clipping may stand around it.
#[derive(Debug)]
pub struct Preconditioned<'g, T> {
    gradients: Leaves<'g, T>,
    curvature: Leaves<'g, T>,
    loss: Option<f64>,
    kl_scale: f64,
}

impl<'g, T: Element> Preconditioned<'g, T> {
    /// The gradients of a tree, but for those that `direction(name)` replaces.
    pub(super) fn new(
        tree: GradVisitor<'g, T>,
        kl_scale: f64,
        direction: impl Fn(&str) -> Option<&'g [T]>,
    ) -> Self {
        let GradVisitor { manifest, leaves, curvature_manifest, curvature, loss, .. } = tree;
        let mut gradients = Leaves::new(&manifest, leaves);
        for named in &mut gradients.0 {
            if let Some(direction) = direction(&named.name) {
                named.leaf = GradientLeaf::scaled_slice(kl_scale, direction);
            }
        }
        let curvature = Leaves::new(&curvature_manifest, curvature);
        Self { gradients, curvature, loss, kl_scale }
    }

    /// ν, the factor that all directions have from `kl_clip`: at most 1.
    pub fn kl_scale(&self) -> f64 {
        self.kl_scale
    }
}

impl<T> Gradients<T> for Preconditioned<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        if let Some(loss) = self.loss {
            visitor.loss(loss);
        }
        self.gradients.visit(visitor);
        visitor.curvature(&self.curvature);
    }
}

/// Leaves that were collected from a tree.
#[derive(Debug)]
struct Leaves<'g, T>(Vec<NamedLeaf<'g, T>>);

#[derive(Debug)]
struct NamedLeaf<'g, T> {
    name: String,
    shape: Vec<usize>,
    leaf: GradientLeaf<'g, T>,
}

impl<'g, T> Leaves<'g, T> {
    fn new(manifest: &Manifest, leaves: Vec<GradientLeaf<'g, T>>) -> Self {
        let named = |(i, leaf)| NamedLeaf {
            name: manifest.name(i).to_owned(),
            shape: manifest.shape(i).to_vec(),
            leaf,
        };
        Self(leaves.into_iter().enumerate().map(named).collect())
    }
}

impl<T> Gradients<T> for Leaves<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        match self.0.as_slice() {
            // an array by itself, which has no name of its own
            [only] if only.name == "param" => only.visit(visitor),
            leaves => leaves.iter().for_each(|leaf| visitor.child(&leaf.name, leaf)),
        }
    }
}

impl<T> Gradients<T> for NamedLeaf<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.forward(&self.shape, &self.leaf);
    }
}
