//! Gradients that can be read row-major from any place, whatever their form.

use super::blocks::numel;
use crate::error::{Error, Result};
use crate::numeric::range::HARMLESS;
use crate::numeric::{Element, Real};
use crate::params::{GradBuffers, GradVisitor, GradientLeaf, Gradients, Manifest};
use crate::tree::ReadLeaf;
use num_traits::Float;
use std::collections::BTreeMap;
use std::mem::replace;

/// Elements that are read at a time.
pub(super) const BLOCK: usize = 1024;

/// One gradient of a tree.
pub(super) struct Source<'g, T> {
    pub shape: Vec<usize>,
    elements: Elements<'g, T>,
}

enum Elements<'g, T> {
    Given(GradientLeaf<'g, T>),
    /// Row-major.
    Kept(Vec<T>),
}

impl<'g, T: Element> Source<'g, T> {
    fn new(leaf: GradientLeaf<'g, T>, shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), elements: Elements::Given(leaf) }
    }

    /// Elements that are kept, row-major.
    pub fn kept(shape: &[usize], elements: Vec<T>) -> Self {
        Self { shape: shape.to_vec(), elements: Elements::Kept(elements) }
    }

    /// Takes the factor out, so that what is left is read unscaled. A clamped gradient keeps its own:
    /// it has to be clamped where it is read.
    pub fn take_factor(&mut self) -> f64 {
        match &mut self.elements {
            Elements::Given(leaf) if leaf.bound == f64::INFINITY => replace(&mut leaf.scale, 1.0),
            _ => 1.0,
        }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Writes the elements `offset ..`, scaled and clamped.
    pub fn load(&self, offset: usize, out: &mut [T::Compute]) {
        match &self.elements {
            Elements::Given(leaf) => leaf.load(offset, out),
            Elements::Kept(kept) => {
                let kept = kept.get(offset..).unwrap_or_default();
                out.iter_mut().zip(kept).for_each(|(x, kept)| *x = kept.load());
            }
        }
    }

    /// Calls `visit(offset, block)` for the elements `start .. start + len`, ascending.
    pub fn visit(&self, start: usize, len: usize, mut visit: impl FnMut(usize, &[T::Compute])) {
        let mut block = [T::Compute::default(); BLOCK];
        for offset in (start..start + len).step_by(BLOCK) {
            let block = block.get_mut(..BLOCK.min(start + len - offset)).unwrap_or_default();
            self.load(offset, block);
            visit(offset, block);
        }
    }
}

/// A tree of gradients that a view reads.
pub(super) struct Tree<'g, T> {
    pub manifest: Manifest,
    pub sources: Vec<Source<'g, T>>,
    pub loss: Option<f64>,
    /// The first problem of a leaf. The step finds and reports it, too.
    problem: Result<()>,
}

impl<'g, T: Element> Tree<'g, T> {
    pub fn read<G: Gradients<T> + ?Sized>(grads: &'g G) -> Self {
        let mut visitor = GradVisitor::new(GradBuffers::default(), Manifest::default());
        let problem = visitor.collect(grads);
        Self::of(visitor, problem)
    }

    /// Apart from [`Tree::read`], so that it is compiled once and not for every tree.
    fn of(visitor: GradVisitor<'g, T>, problem: Result<()>) -> Self {
        let GradVisitor { manifest, leaves, loss, .. } = visitor;
        let source = |(i, leaf)| Source::new(leaf, manifest.shape(i));
        let sources = leaves.into_iter().enumerate().map(source).collect();
        Self { sources, loss, manifest, problem }
    }

    /// The tree, unless a buffer does not fit its shape.
    pub fn checked(self) -> Result<Self> {
        let Self { problem, .. } = self;
        problem?;
        Ok(Self { problem: Ok(()), ..self })
    }

    /// Every leaf under its name.
    pub fn by_name(self) -> Result<BTreeMap<String, Source<'g, T>>> {
        let mut sources = BTreeMap::new();
        for (leaf, source) in self.sources.into_iter().enumerate() {
            let name = self.manifest.name(leaf).to_owned();
            if sources.insert(name.clone(), source).is_some() {
                return Err(Error::DuplicateName { name });
            }
        }
        Ok(sources)
    }

    /// Number of elements of every leaf.
    pub fn numels(&self) -> Vec<usize> {
        (0..self.sources.len()).map(|leaf| numel(&self.manifest, leaf)).collect()
    }
}

/// Whether no optimizer refuses numbers of this magnitude, so that none has to look at them again.
pub(super) fn fits<T: Element>(magnitude: f64) -> bool {
    magnitude <= HARMLESS && T::store(T::Compute::of(magnitude)).load().is_finite()
}
