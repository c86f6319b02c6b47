//! What a view puts in the place of the gradients of a tree, leaf by leaf.

use super::gradient::{Generate, GradientKind, GradientLeaf};
use crate::error::{Error, Result, check_shape};
use std::slice::Iter;

/// Where the elements of an edited gradient come from.
#[derive(Debug)]
pub(crate) enum Elements<'g, T> {
    /// The gradient itself.
    Same,
    /// Elements of the same shape, computed where they are used.
    New(Box<dyn Generate<T> + 'g>),
    /// Nothing: the gradient is left out.
    Absent,
}

/// One gradient of a tree as a view shows it: `factor · elements`.
#[derive(Debug)]
pub(crate) struct LeafEdit<'g, T> {
    pub elements: Elements<'g, T>,
    pub factor: f64,
    /// Every element is known to be finite, the factor included.
    pub finite: bool,
}

/// The edits of one view while its tree is visited, and what stands around the view.
#[derive(Debug)]
pub(super) struct EditFrame<'a, T> {
    edits: Iter<'a, LeafEdit<'a, T>>,
    scale: f64,
    bound: f64,
    finite: bool,
}

impl<'a, T> EditFrame<'a, T> {
    /// Edits of a view that wrappers scale, clamp, and may know to be finite.
    pub fn new(edits: &'a [LeafEdit<'a, T>], (scale, bound, finite): (f64, f64, bool)) -> Self {
        Self { edits: edits.iter(), scale, bound, finite }
    }

    /// What stands around the view.
    pub fn outside(&self) -> (f64, f64, bool) {
        (self.scale, self.bound, self.finite)
    }

    /// The next leaf of the tree as it is seen from outside the view; `None` if it is left out.
    pub fn edit(
        &mut self,
        name: &str,
        shape: &[usize],
        leaf: GradientLeaf<'a, T>,
    ) -> Result<Option<GradientLeaf<'a, T>>> {
        let changed = || Error::ChangedTree { name: name.to_owned() };
        let edit = self.edits.next().ok_or_else(changed)?;
        let factor = edit.factor;
        let mut leaf = match &edit.elements {
            Elements::Absent => return Ok(None),
            Elements::Same => leaf.times(factor),
            Elements::New(generator) => {
                check_shape(name, generator.shape(), shape)?;
                let kind = GradientKind::Generated(&**generator);
                GradientLeaf { scale: factor, bound: f64::INFINITY, finite: false, kind }
            }
        };
        leaf.finite |= edit.finite || self.finite;
        let leaf = leaf.times(self.scale);
        Ok(Some(GradientLeaf { bound: leaf.bound.min(self.bound), ..leaf }))
    }
}

impl<T> GradientLeaf<'_, T> {
    /// The gradient times a factor.
    fn times(self, factor: f64) -> Self {
        // zero times infinity is no bound
        let bound = if self.bound.is_finite() { self.bound * factor.abs() } else { self.bound };
        let finite = self.finite && factor.abs() <= 1.0;
        Self { scale: self.scale * factor, bound, finite, kind: self.kind }
    }
}
