//! Some leaves of a tree, as a tree of their own.

use crate::error::Result;
use crate::kernel::scratch::with_kept;
use crate::numeric::Element;
use crate::params::{
    GradBuffers, GradVisitor, GradientLeaf, Gradients, Manifest, ParamBuffers, ParamLeaf,
    ParamVisitor, Parameters,
};
use std::collections::BTreeMap;
use std::mem::take;

/// A name, a shape, and the leaf itself.
type Named<L> = (String, Vec<usize>, L);

/// Some parameters of a model, under their own names.
#[derive(Debug)]
pub(super) struct PartParams<'a, T>(Vec<Named<ParamLeaf<'a, T>>>);

impl<T> Default for PartGrads<'_, T> {
    fn default() -> Self {
        Self { grads: Vec::new(), curvature: Vec::new(), loss: None, finite: false }
    }
}

impl<T> Default for PartParams<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Some gradients of a model, with what came along with them.
#[derive(Debug)]
pub(super) struct PartGrads<'a, T> {
    grads: Vec<Named<GradientLeaf<'a, T>>>,
    curvature: Vec<Named<GradientLeaf<'a, T>>>,
    loss: Option<f64>,
    /// Every element has been looked at.
    pub finite: bool,
}

impl<T> PartParams<'_, T> {
    /// Names of the leaves.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, ..)| name.as_str())
    }
}

impl<T> PartGrads<'_, T> {
    /// Leaves out what no one would read.
    pub fn drop_curvature(&mut self) {
        self.curvature.clear();
    }

    /// Names of the gradients.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.grads.iter().map(|(name, ..)| name.as_str())
    }
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

/// The parameters for which `keep(name, shape)` holds.
pub(super) fn select<'a, T: Element, P: Parameters<T> + ?Sized>(
    params: &'a mut P,
    keep: impl Fn(&str, &[usize]) -> bool,
) -> Result<PartParams<'a, T>> {
    let parts = sort(params, 1, |name, shape| keep(name, shape).then_some(0))?;
    Ok(parts.into_iter().next().unwrap_or_default())
}

/// Parameters, sorted by what `part_of(name, shape)` says; those without a part are left out.
pub(super) fn sort<'a, T: Element, P: Parameters<T> + ?Sized>(
    params: &'a mut P,
    parts: usize,
    part_of: impl Fn(&str, &[usize]) -> Option<usize>,
) -> Result<Vec<PartParams<'a, T>>> {
    let mut visitor = ParamVisitor::new(ParamBuffers::default(), Manifest::default());
    visitor.collect(params)?;
    let ParamVisitor { leaves, manifest, .. } = visitor;
    let part_of = |leaf: usize| part_of(manifest.name(leaf), manifest.shape(leaf));
    Ok(sorted(leaves, &manifest, parts, part_of).into_iter().map(PartParams).collect())
}

/// Gradients, sorted in the same way.
pub(super) fn sort_grads<'a, T: Element, G: Gradients<T> + ?Sized>(
    grads: &'a G,
    parts: usize,
    part_of: impl Fn(&str, &[usize]) -> Option<usize>,
) -> Result<Vec<PartGrads<'a, T>>> {
    let mut visitor = GradVisitor::new(GradBuffers::default(), Manifest::default());
    visitor.collect(grads)?;
    let shapes: BTreeMap<String, Vec<usize>> = (0..visitor.manifest.len())
        .map(|leaf| (visitor.manifest.name(leaf).to_owned(), visitor.manifest.shape(leaf).to_vec()))
        .collect();
    Ok(split_grads(visitor, parts, |name| part_of(name, shapes.get(name)?)))
}

/// Calls `f` with names and shapes of gradients.
pub(super) fn with_names<T: Element, G: Gradients<T> + ?Sized, X>(
    grads: &G,
    f: impl FnOnce(&Manifest) -> X,
) -> Result<X> {
    with_kept(|(buffers, manifest): &mut (GradBuffers<T>, Manifest)| {
        let mut visitor = GradVisitor::new(take(buffers), take(manifest));
        let outcome = visitor.collect(grads).map(|()| f(&visitor.manifest));
        (*buffers, *manifest) = visitor.into_buffers();
        outcome
    })
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
