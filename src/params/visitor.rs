//! Trees of parameters and gradients, and the visitors that collect their leaves.

use super::gradient::{Generate, GradientKind, GradientLeaf, RowGradient};
use super::manifest::{Manifest, Path, recycle};
use crate::error::{Error, Result};
use ndarray::{ArrayView, ArrayViewMut, ArrayViewMutD, Dimension};
use std::fmt::Display;

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
    Strided(Box<ArrayViewMutD<'a, T>>),
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
            ParamLeaf::Strided(Box::new(value.into_dyn()))
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
    /// Factor and bound that the enclosing wrappers ask for.
    scale: f64,
    bound: f64,
    finite: bool,
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
            scale: 1.0,
            bound: f64::INFINITY,
            finite: false,
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
        self.enter_leaf(value.shape());
        let kind = if value.is_standard_layout() {
            GradientKind::Slice(value.to_slice().unwrap_or_default())
        } else {
            GradientKind::Strided(Box::new(value.into_dyn()))
        };
        self.push(kind);
    }

    /// A dense gradient of another library: a flat, row-major slice and its shape.
    ///
    /// A slice of the wrong length makes the step fail with [`Error::LengthMismatch`].
    pub fn slice(&mut self, data: &'a [T], shape: &[usize]) {
        check_length(&mut self.problem, &self.path, data.len(), shape);
        self.enter_leaf(shape);
        self.push(GradientKind::Slice(data));
    }

    /// Some rows of a gradient whose other rows are zero.
    pub fn rows(&mut self, gradient: &'a RowGradient<T>) {
        self.enter_leaf(gradient.shape());
        self.push(GradientKind::Rows(gradient));
    }

    /// A gradient that is produced chunk by chunk inside the update.
    pub fn generated(&mut self, generator: &'a dyn Generate<T>) {
        self.enter_leaf(generator.shape());
        self.push(GradientKind::Generated(generator));
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

    /// Leaves visited inside are known to be finite: the step need not look again.
    pub(crate) fn known_finite(&mut self, finite: bool, visit: impl FnOnce(&mut Self)) {
        let outer = self.finite;
        self.finite |= finite;
        visit(self);
        self.finite = outer;
    }

    /// A leaf of another tree, which was collected before.
    pub(crate) fn collected(&mut self, leaf: &'a GradientLeaf<'_, T>, shape: &[usize]) {
        let kind = match &leaf.kind {
            GradientKind::Slice(data) => GradientKind::Slice(data),
            GradientKind::Strided(array) => GradientKind::Strided(Box::new(array.view())),
            GradientKind::Rows(rows) => GradientKind::Rows(rows),
            GradientKind::Generated(generator) => GradientKind::Generated(*generator),
        };
        let outer = (self.scale, self.bound);
        self.bound = outer.1.min(leaf.bound * outer.0.abs());
        self.scale *= leaf.scale;
        self.enter_leaf(shape);
        self.known_finite(leaf.finite, |visitor| visitor.push(kind));
        (self.scale, self.bound) = outer;
    }

    /// A second tree of leaves that belong to gradients of the same names: Hessian-vector products,
    /// squared gradients. Factors and bounds outside act on gradients alone; within one curvature there
    /// is no other.
    pub fn curvature<G: Gradients<T> + ?Sized>(&mut self, tree: &'a G) {
        if self.in_curvature {
            return;
        }
        let outer = (self.scale, self.bound, self.finite);
        (self.scale, self.bound, self.finite) = (1.0, f64::INFINITY, false);
        self.in_curvature = true;
        tree.visit(self);
        self.in_curvature = false;
        (self.scale, self.bound, self.finite) = outer;
    }

    /// The loss that these are gradients of.
    pub fn loss(&mut self, loss: f64) {
        self.loss = Some(loss);
    }

    fn enter_leaf(&mut self, shape: &[usize]) {
        let manifest =
            if self.in_curvature { &mut self.curvature_manifest } else { &mut self.manifest };
        manifest.push(self.path.leaf(), shape);
    }

    fn push(&mut self, kind: GradientKind<'a, T>) {
        let leaves = if self.in_curvature { &mut self.curvature } else { &mut self.leaves };
        leaves.push(GradientLeaf {
            scale: self.scale,
            bound: self.bound,
            // an outer factor above 1 could still overflow
            finite: self.finite && self.scale.abs() <= 1.0,
            kind,
        });
    }
}

fn check_length(problem: &mut Option<Error>, path: &Path, found: usize, shape: &[usize]) {
    let expected = shape.iter().product();
    if found != expected && problem.is_none() {
        let name = path.leaf().to_owned();
        *problem = Some(Error::LengthMismatch { name, shape: shape.to_vec(), expected, found });
    }
}
