//! Some leaves of a tree, as a tree of their own.

use crate::params::{
    GradVisitor, GradientLeaf, Gradients, Manifest, ParamLeaf, ParamVisitor, Parameters,
};

/// A name, a shape, and the leaf itself.
type Named<L> = (String, Vec<usize>, L);

/// Some parameters of a model, under their own names.
#[derive(Debug)]
pub(super) struct PartParams<'a, T>(Vec<Named<ParamLeaf<'a, T>>>);

/// Some gradients of a model, with what came along with them.
#[derive(Debug)]
pub(super) struct PartGrads<'a, T> {
    grads: Vec<Named<GradientLeaf<'a, T>>>,
    curvature: Vec<Named<GradientLeaf<'a, T>>>,
    loss: Option<f64>,
    /// Every element has been looked at.
    pub finite: bool,
}

impl<T> Parameters<T> for PartParams<'_, T> {
    fn visit_mut<'v>(&'v mut self, visitor: &mut ParamVisitor<'v, T>) {
        for (name, shape, leaf) in &mut self.0 {
            visitor.with_child(name, |visitor| match leaf {
                ParamLeaf::Slice(slice) => visitor.slice(slice, shape),
                ParamLeaf::Strided(view) => visitor.leaf(view.view_mut()),
            });
        }
    }
}

impl<T> Gradients<T> for PartGrads<'_, T> {
    fn visit<'v>(&'v self, visitor: &mut GradVisitor<'v, T>) {
        if let Some(loss) = self.loss {
            visitor.loss(loss);
        }
        visitor.known_finite(self.finite, |visitor| {
            for (name, shape, leaf) in &self.grads {
                visitor.with_child(name, |visitor| visitor.forward(shape, leaf));
            }
        });
        for (name, shape, leaf) in &self.curvature {
            visitor.with_child(name, |visitor| visitor.forward_curvature(shape, leaf));
        }
    }
}

/// The leaves of a visit, by part; those without one are left out.
fn sorted<L>(
    leaves: Vec<L>,
    manifest: &Manifest,
    parts: usize,
    part_of: impl Fn(usize) -> Option<usize>,
) -> Vec<Vec<Named<L>>> {
    let mut sorted: Vec<Vec<Named<L>>> = (0..parts).map(|_| Vec::new()).collect();
    for (index, leaf) in leaves.into_iter().enumerate() {
        if let Some(part) = part_of(index).and_then(|part| sorted.get_mut(part)) {
            part.push((manifest.name(index).to_owned(), manifest.shape(index).to_vec(), leaf));
        }
    }
    sorted
}

/// The parameters of every part.
pub(super) fn split_params<'a, T>(
    visitor: ParamVisitor<'a, T>,
    parts: usize,
    part_of: impl Fn(usize) -> Option<usize>,
) -> Vec<PartParams<'a, T>> {
    let ParamVisitor { leaves, manifest, .. } = visitor;
    sorted(leaves, &manifest, parts, part_of).into_iter().map(PartParams).collect()
}

/// The gradients of every part; `part_of` knows them by name.
pub(super) fn split_grads<'a, T>(
    visitor: GradVisitor<'a, T>,
    parts: usize,
    part_of: impl Fn(&str) -> Option<usize>,
) -> Vec<PartGrads<'a, T>> {
    let GradVisitor { leaves, manifest, curvature, curvature_manifest, loss, .. } = visitor;
    let grads = sorted(leaves, &manifest, parts, |leaf| part_of(manifest.name(leaf)));
    let curvature = sorted(curvature, &curvature_manifest, parts, |leaf| {
        part_of(curvature_manifest.name(leaf))
    });
    let both = grads.into_iter().zip(curvature);
    both.map(|(grads, curvature)| PartGrads { grads, curvature, loss, finite: false }).collect()
}
