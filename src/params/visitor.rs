//! Trees of parameters and gradients, and the visitors that collect their leaves.

use super::edits::{EditFrame, LeafEdit};
use super::gradient::{Generate, GradientKind, GradientLeaf, RowGradient};
use super::manifest::{Manifest, Path, recycle};
use crate::error::{Error, Result};
use crate::numeric::limits::numel;
use ndarray::{ArrayView, ArrayViewMut, ArrayViewMutD, Dimension};
use std::fmt::Display;
use std::mem::{replace, take};

/// A tree of named arrays that an optimizer may change.
pub trait Parameters<T> {
    /// Hands every leaf to the visitor, in a fixed order.
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>);
}

/// A tree of named gradients, matched to parameters by path.
pub trait Gradients<T> {
    /// Hands every leaf to the visitor, in a fixed order.
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>);
}

/// The memory of one parameter.
#[derive(Debug)]
pub(crate) enum ParamLeaf<'a, T> {
    /// Contiguous and row-major.
    Slice(&'a mut [T]),
    /// Transposed, Fortran-order or strided: the engine works on a row-major copy.
    Strided(ArrayViewMutD<'a, T>),
}

/// Buffers that one visit of parameters leaves to the next.
#[derive(Debug)]
pub(crate) struct ParamBuffers<T: 'static> {
    path: Path,
    leaves: Vec<ParamLeaf<'static, T>>,
}

impl<T> Default for ParamBuffers<T> {
    fn default() -> Self {
        Self { path: Path::default(), leaves: Vec::new() }
    }
}

/// Collects the leaves of a tree of parameters.
#[derive(Debug)]
pub struct ParamVisitor<'a, T> {
    path: Path,
    pub(crate) manifest: Manifest,
    pub(crate) leaves: Vec<ParamLeaf<'a, T>>,
    problem: Option<Error>,
}

impl<'a, T: 'static> ParamVisitor<'a, T> {
    /// A visitor in the buffers of an earlier one.
    pub(crate) fn new(buffers: ParamBuffers<T>, mut manifest: Manifest) -> Self {
        manifest.clear();
        Self { path: buffers.path, manifest, leaves: recycle(buffers.leaves), problem: None }
    }

    /// Visits a tree; an error is a leaf whose buffer does not fit its shape.
    pub(crate) fn collect<P: Parameters<T> + ?Sized>(&mut self, tree: &'a mut P) -> Result<()> {
        tree.visit_mut(self);
        self.problem.take().map_or(Ok(()), Err)
    }

    pub(crate) fn into_buffers(self) -> (ParamBuffers<T>, Manifest) {
        (ParamBuffers { path: self.path, leaves: recycle(self.leaves) }, self.manifest)
    }
}

impl<'a, T> ParamVisitor<'a, T> {
    /// A leaf in any layout. Row-major ones are updated in place; others through a copy.
    pub fn leaf<D: Dimension>(&mut self, value: ArrayViewMut<'a, T, D>) {
        self.manifest.push(self.path.leaf(), value.shape());
        self.leaves.push(if value.is_standard_layout() {
            // a view in standard layout is a slice
            ParamLeaf::Slice(value.into_slice().unwrap_or_default())
        } else {
            ParamLeaf::Strided(value.into_dyn())
        });
    }

    /// A leaf of another library: a flat, row-major slice and its shape.
    ///
    /// A slice of the wrong length makes the step fail with [`Error::LengthMismatch`].
    pub fn slice(&mut self, data: &'a mut [T], shape: &[usize]) {
        check_length(&mut self.problem, &self.path, data.len(), shape);
        self.manifest.push(self.path.leaf(), shape);
        self.leaves.push(ParamLeaf::Slice(data));
    }

    /// A slice that is called `name`.
    pub(crate) fn named(&mut self, name: &str, data: &'a mut [T], shape: &[usize]) {
        let parent = self.path.enter(name);
        self.slice(data, shape);
        self.path.leave(parent);
    }

    /// What `visit` hands over, called `name`.
    pub(crate) fn with_child(&mut self, name: &str, visit: impl FnOnce(&mut Self)) {
        let parent = self.path.enter(name);
        visit(self);
        self.path.leave(parent);
    }

    /// A subtree called `name`.
    pub fn child<P: Parameters<T> + ?Sized>(&mut self, name: impl Display, child: &'a mut P) {
        let parent = self.path.enter(name);
        child.visit_mut(self);
        self.path.leave(parent);
    }
}

/// Buffers that one visit of gradients leaves to the next.
pub(crate) struct GradBuffers<T: 'static> {
    path: Path,
    leaves: Vec<GradientLeaf<'static, T>>,
    curvature_manifest: Manifest,
    curvature: Vec<GradientLeaf<'static, T>>,
}

impl<T> Default for GradBuffers<T> {
    fn default() -> Self {
        Self {
            path: Path::default(),
            leaves: Vec::new(),
            curvature_manifest: Manifest::default(),
            curvature: Vec::new(),
        }
    }
}

/// Collects the leaves of a tree of gradients.
#[derive(Debug)]
pub struct GradVisitor<'a, T> {
    path: Path,
    pub(crate) manifest: Manifest,
    pub(crate) leaves: Vec<GradientLeaf<'a, T>>,
    /// The curvature: leaves that came with gradients of the same names.
    pub(crate) curvature_manifest: Manifest,
    pub(crate) curvature: Vec<GradientLeaf<'a, T>>,
    /// Whether leaves belong to the curvature.
    in_curvature: bool,
    /// The loss, if it is known.
    pub(crate) loss: Option<f64>,
    /// Norm of the whole tree, if a view has measured it.
    pub(crate) norm: Option<f64>,
    /// Factor and bound that the enclosing wrappers ask for.
    scale: f64,
    bound: f64,
    finite: bool,
    /// The views that are being visited, the innermost last.
    frames: Vec<EditFrame<'a, T>>,
    problem: Option<Error>,
}

impl<'a, T: 'static> GradVisitor<'a, T> {
    /// A visitor in the buffers of an earlier one.
    pub(crate) fn new(buffers: GradBuffers<T>, mut manifest: Manifest) -> Self {
        manifest.clear();
        let mut curvature_manifest = buffers.curvature_manifest;
        curvature_manifest.clear();
        Self {
            path: buffers.path,
            manifest,
            leaves: recycle(buffers.leaves),
            curvature_manifest,
            curvature: recycle(buffers.curvature),
            in_curvature: false,
            loss: None,
            norm: None,
            scale: 1.0,
            bound: f64::INFINITY,
            finite: false,
            frames: Vec::new(),
            problem: None,
        }
    }

    /// Visits a tree; an error is a leaf whose buffer does not fit its shape.
    pub(crate) fn collect<G: Gradients<T> + ?Sized>(&mut self, tree: &'a G) -> Result<()> {
        tree.visit(self);
        self.problem.take().map_or(Ok(()), Err)
    }

    pub(crate) fn into_buffers(self) -> (GradBuffers<T>, Manifest) {
        let buffers = GradBuffers {
            path: self.path,
            leaves: recycle(self.leaves),
            curvature_manifest: self.curvature_manifest,
            curvature: recycle(self.curvature),
        };
        (buffers, self.manifest)
    }
}

impl<'a, T> GradVisitor<'a, T> {
    /// A dense gradient in any layout.
    pub fn leaf<D: Dimension>(&mut self, value: ArrayView<'a, T, D>) {
        let shape = value.raw_dim();
        let kind = if value.is_standard_layout() {
            GradientKind::Slice(value.to_slice().unwrap_or_default())
        } else {
            GradientKind::Strided(value.into_dyn())
        };
        self.push(shape.slice(), kind);
    }

    /// A dense gradient of another library: a flat, row-major slice and its shape.
    ///
    /// A slice of the wrong length makes the step fail with [`Error::LengthMismatch`].
    pub fn slice(&mut self, data: &'a [T], shape: &[usize]) {
        check_length(&mut self.problem, &self.path, data.len(), shape);
        self.push(shape, GradientKind::Slice(data));
    }

    /// Some rows of a gradient whose other rows are zero.
    pub fn rows(&mut self, gradient: &'a RowGradient<T>) {
        self.push(gradient.shape(), GradientKind::Rows(gradient));
    }

    /// A gradient that is produced chunk by chunk inside the update.
    pub fn generated(&mut self, generator: &'a dyn Generate<T>) {
        if numel(generator.shape()).is_none() {
            // no parameter has so many elements
            check_length(&mut self.problem, &self.path, usize::MAX, generator.shape());
            return;
        }
        self.push(generator.shape(), GradientKind::Generated(generator));
    }

    /// A slice that is called `name`.
    pub(crate) fn named(&mut self, name: &str, data: &'a [T], shape: &[usize]) {
        let parent = self.path.enter(name);
        self.slice(data, shape);
        self.path.leave(parent);
    }

    /// What `visit` hands over, called `name`.
    pub(crate) fn with_child(&mut self, name: &str, visit: impl FnOnce(&mut Self)) {
        let parent = self.path.enter(name);
        visit(self);
        self.path.leave(parent);
    }

    /// A leaf that another visitor has collected, as it was there.
    pub(crate) fn forward(&mut self, shape: &[usize], leaf: &'a GradientLeaf<'_, T>) {
        let outer = (self.scale, self.bound, self.finite);
        // clamp(s·x, b), and outside of it what is outside here
        self.bound = outer.1.min(leaf.bound * self.scale.abs());
        self.scale *= leaf.scale;
        self.finite |= leaf.finite;
        self.push(shape, leaf.kind.reborrow());
        (self.scale, self.bound, self.finite) = outer;
    }

    /// [`GradVisitor::forward`] of a leaf of a curvature.
    pub(crate) fn forward_curvature(&mut self, shape: &[usize], leaf: &'a GradientLeaf<'_, T>) {
        let outer = replace(&mut self.in_curvature, true);
        let frames = take(&mut self.frames);
        self.forward(shape, leaf);
        self.frames = frames;
        self.in_curvature = outer;
    }

    /// A subtree called `name`.
    pub fn child<G: Gradients<T> + ?Sized>(&mut self, name: impl Display, child: &'a G) {
        let parent = self.path.enter(name);
        child.visit(self);
        self.path.leave(parent);
    }

    /// A subtree whose elements count `factor` times.
    pub fn scaled<G: Gradients<T> + ?Sized>(&mut self, factor: f64, inner: &'a G) {
        let outer = self.scale;
        self.scale *= factor;
        inner.visit(self);
        self.scale = outer;
    }

    /// A subtree whose elements are clamped to `[-bound, bound]`.
    pub fn clamped<G: Gradients<T> + ?Sized>(&mut self, bound: f64, inner: &'a G) {
        let outer = self.bound;
        // clamp(x, b) * s = clamp(x * s, b * |s|)
        self.bound = outer.min(bound * self.scale.abs());
        inner.visit(self);
        self.bound = outer;
    }

    /// A view knows the norm of its gradients, which counts if they are the whole tree.
    pub(crate) fn measured(&mut self, norm: f64) {
        if self.path.is_root() && self.frames.is_empty() {
            self.norm.get_or_insert(norm);
        }
    }

    /// Makes whatever reads the tree fail with this error.
    pub(crate) fn refuse(&mut self, problem: Error) {
        self.problem.get_or_insert(problem);
    }

    /// Leaves visited inside are known to be finite: the step need not look again.
    pub(crate) fn known_finite(&mut self, finite: bool, visit: impl FnOnce(&mut Self)) {
        let outer = self.finite;
        self.finite |= finite;
        visit(self);
        self.finite = outer;
    }

    /// A tree whose gradients are seen through `edits`, one for every leaf in the order of the visit.
    /// Loss and curvature of the tree are seen as they are.
    pub(crate) fn edited<G: Gradients<T> + ?Sized>(
        &mut self,
        edits: &'a [LeafEdit<'a, T>],
        tree: &'a G,
    ) {
        let outer = self.swap_factors((1.0, f64::INFINITY, false));
        self.frames.push(EditFrame::new(edits, outer));
        tree.visit(self);
        let outer = self.frames.pop().map_or(outer, |frame| frame.outside());
        self.swap_factors(outer);
    }

    /// A second tree of leaves that belong to gradients of the same names: Hessian-vector products,
    /// squared gradients. Factors, bounds and views outside act on gradients alone; within one curvature
    /// there is no other.
    pub fn curvature<G: Gradients<T> + ?Sized>(&mut self, tree: &'a G) {
        if self.in_curvature {
            return;
        }
        let outer = self.swap_factors((1.0, f64::INFINITY, false));
        let frames = take(&mut self.frames);
        self.in_curvature = true;
        tree.visit(self);
        self.in_curvature = false;
        self.frames = frames;
        self.swap_factors(outer);
    }

    /// The loss that these are gradients of.
    pub fn loss(&mut self, loss: f64) {
        // what came with a curvature is not the loss of the gradients
        if !self.in_curvature {
            self.loss = Some(loss);
        }
    }

    /// Changes factor, bound and whether leaves are known to be finite; returns what they were.
    fn swap_factors(&mut self, (scale, bound, finite): (f64, f64, bool)) -> (f64, f64, bool) {
        (
            replace(&mut self.scale, scale),
            replace(&mut self.bound, bound),
            replace(&mut self.finite, finite),
        )
    }

    fn push(&mut self, shape: &[usize], kind: GradientKind<'a, T>) {
        // an outer factor above 1 could still overflow
        let finite = self.finite && self.scale.abs() <= 1.0;
        let mut leaf = GradientLeaf { scale: self.scale, bound: self.bound, finite, kind };
        for frame in self.frames.iter_mut().rev() {
            leaf = match frame.edit(self.path.leaf(), shape, leaf) {
                Ok(Some(leaf)) => leaf,
                Ok(None) => return,
                Err(problem) => {
                    self.problem.get_or_insert(problem);
                    return;
                }
            };
        }
        let (manifest, leaves) = if self.in_curvature {
            (&mut self.curvature_manifest, &mut self.curvature)
        } else {
            (&mut self.manifest, &mut self.leaves)
        };
        manifest.push(self.path.leaf(), shape);
        leaves.push(leaf);
    }
}

fn check_length(problem: &mut Option<Error>, path: &Path, found: usize, shape: &[usize]) {
    let expected = numel(shape);
    if expected != Some(found) && problem.is_none() {
        let (name, expected) = (path.leaf().to_owned(), expected.unwrap_or(usize::MAX));
        *problem = Some(Error::LengthMismatch { name, shape: shape.to_vec(), expected, found });
    }
}
