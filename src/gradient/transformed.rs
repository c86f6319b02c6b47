//! Gradients seen through a transformation.

use super::source::{BLOCK, Source};
use crate::error::Error;
use crate::numeric::{Element, Real};
use crate::params::{Elements, Generate, GradVisitor, Gradients, LeafEdit};

/// Gradients seen through a transformation; the gradients themselves do not change.
///
/// It is a tree of gradients of the same names: a step takes it, and other views take it, in any order.
/// Absent gradients stay absent. Loss and curvature that came with the gradients come with the view, as
/// they are. New elements are computed where they are used, in the arithmetic type, and rounded to the
/// element type once.
///
/// # Examples
/// ```
/// use eigenstep::{gradient::{centralize, clip_grad_norm, clip_grad_value}, prelude::*};
/// use ndarray::array;
///
/// let (mut w, g) = (array![[0.0f64, 0.0]], array![[9.0, 3.0]]);
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// let centred = centralize(&g); // 3, −3
/// opt.step(&mut w, &clip_grad_value(&centred, 2.0))?;
/// assert_eq!(w, array![[-2.0, 2.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Debug)]
pub struct Transformed<'g, T, G: ?Sized> {
    edits: Vec<LeafEdit<'g, T>>,
    inner: &'g G,
    /// An option that is none: its function, its name and its value.
    refusal: Option<(&'static str, &'static str, f64)>,
}

impl<'g, T, G: ?Sized> Transformed<'g, T, G> {
    /// `edits`: one for every leaf of `inner`.
    pub(super) fn new(edits: Vec<LeafEdit<'g, T>>, inner: &'g G) -> Self {
        Self { edits, inner, refusal: None }
    }

    /// The view, which a step refuses unless `value`, the bound `field` of `function`, is a number >= 0.
    pub(super) fn bounded(self, function: &'static str, field: &'static str, value: f64) -> Self {
        let refusal = (value.is_nan() || value < 0.0).then_some((function, field, value));
        Self { refusal, ..self }
    }
}

impl<T, G: Gradients<T> + ?Sized> Gradients<T> for Transformed<'_, T, G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        if let Some((function, field, value)) = self.refusal {
            visitor.refuse(Error::invalid(function, field, "a number >= 0", value));
        }
        visitor.edited(&self.edits, self.inner);
    }
}

/// The leaf as it is.
pub(super) fn same<'g, T>() -> LeafEdit<'g, T> {
    LeafEdit { elements: Elements::Same, factor: 1.0, finite: false }
}

/// The leaf times a factor.
pub(super) fn times<'g, T>(factor: f64, finite: bool) -> LeafEdit<'g, T> {
    LeafEdit { elements: Elements::Same, factor, finite }
}

/// `factor · map(leaf)`.
pub(super) fn mapped<'g, T: Element>(
    source: Source<'g, T>,
    map: impl Map<T::Compute> + 'g,
    factor: f64,
    finite: bool,
) -> LeafEdit<'g, T> {
    LeafEdit { elements: Elements::New(Box::new(Mapped { source, map })), factor, finite }
}

/// A function of single elements, which may depend on their places.
pub(super) trait Map<R>: Send + Sync {
    /// Changes the elements `offset ..`.
    fn apply(&self, offset: usize, xs: &mut [R]);
}

struct Mapped<'g, T: Element, M> {
    source: Source<'g, T>,
    map: M,
}

impl<T: Element, M: Map<T::Compute>> Generate<T> for Mapped<'_, T, M> {
    fn shape(&self) -> &[usize] {
        &self.source.shape
    }

    fn fill(&self, offset: usize, out: &mut [T]) {
        if let Some(out) = T::as_compute_mut(out) {
            self.source.load(offset, out);
            self.map.apply(offset, out);
            return;
        }
        let mut block = [T::Compute::default(); BLOCK];
        for (offset, out) in (offset..).step_by(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let block = block.get_mut(..out.len()).unwrap_or_default();
            self.source.load(offset, block);
            self.map.apply(offset, block);
            out.iter_mut().zip(block).for_each(|(out, &mut x)| *out = T::store(x));
        }
    }

    fn writes_all(&self) -> bool {
        true
    }
}

/// A function of every row: rows are the indices of the first dimension.
pub(super) struct ByRow {
    /// Elements per row.
    pub width: usize,
    pub change: RowChange,
}

/// What is done with a row.
pub(super) enum RowChange {
    /// A number of its own is subtracted.
    Subtract(Vec<f64>),
    /// It is multiplied by a number of its own.
    Multiply(Vec<f64>),
}

impl<R: Real> Map<R> for ByRow {
    fn apply(&self, offset: usize, xs: &mut [R]) {
        if self.width == 0 {
            return;
        }
        let (mut row, mut rest) = (offset / self.width, xs);
        let mut left = self.width - offset % self.width;
        while !rest.is_empty() {
            let (own, others) = rest.split_at_mut(left.min(rest.len()));
            match &self.change {
                RowChange::Subtract(by) => {
                    let by = by.get(row).copied().unwrap_or(f64::NAN);
                    own.iter_mut().for_each(|x| *x = R::of(x.widen() - by));
                }
                RowChange::Multiply(by) => {
                    let by = by.get(row).copied().unwrap_or(f64::NAN);
                    own.iter_mut().for_each(|x| *x = R::of(x.widen() * by));
                }
            }
            (row, rest, left) = (row + 1, others, self.width);
        }
    }
}
