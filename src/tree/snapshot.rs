//! A copy of parameters, to the bit.

use super::layout::Layout;
use super::matching::MISSING;
use super::owned::TreeVec;
use super::source::visit;
use super::transfer::{gather, scatter, scatter_with};
use crate::error::{Error, Result, check_shape};
use crate::numeric::Element;
use crate::params::{GradVisitor, Gradients, Manifest, Parameters, Select};
use std::borrow::Cow;

/// A copy of parameters from which they are restored, to the bit.
///
/// *Use it when* parameters are moved and have to come back exactly: SAM, evaluations at an average, line
/// searches, steps that may be rejected. Moving them back by arithmetic would drift. *Not when* the copy takes
/// part in arithmetic only: that is a [`TreeVec`].
///
/// Elements are copied as they are, in every element type and memory order, NaN with its payload. For a method
/// that moves a part of the model only, [`Snapshot::only`] copies just these leaves.
///
/// State: the bytes of the parameters that are copied. The snapshot can be read as a tree of gradients, for
/// [`distance`](super::distance) and the like.
///
/// # Examples
/// Sharpness-aware minimisation: the gradient at the worst point nearby, a step from where we were.
/// ```
/// use eigenstep::{prelude::*, tree::{Snapshot, axpy, norm}};
/// use ndarray::{Array1, array};
///
/// let gradient = |w: &Array1<f64>| w * &array![1.0, 100.0];
/// let (mut w, mut snapshot) = (array![1.0, 1.0], Snapshot::new());
/// let mut opt = Sgd { lr: 0.005, ..Sgd::default() }.build()?;
/// for _ in 0..100 {
///     let grads = gradient(&w);
///     snapshot.retake(&mut w)?;
///     axpy(0.05 / norm(&grads)?, &grads, &mut w)?;
///     let sharp = gradient(&w);
///     snapshot.restore(&mut w)?;
///     opt.step(&mut w, &sharp)?;
/// }
/// assert!(w[0] < 0.7 && w[1].abs() < 0.1);
/// # Ok::<(), eigenstep::Error>(())
/// ```
/// # Source
/// P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
/// Generalization", ICLR 2021, for the example.
#[derive(Clone, Debug)]
pub struct Snapshot<T: Element> {
    select: Option<Select>,
    /// The leaves of the tree that was copied last, and the segment of each, or [`MISSING`].
    seen: Manifest,
    places: Vec<usize>,
    copy: TreeVec<T>,
}

impl<T: Element> Default for Snapshot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Element> Snapshot<T> {
    /// A snapshot of all leaves; empty before the first [`Snapshot::retake`].
    pub fn new() -> Self {
        Self { select: None, seen: Manifest::default(), places: Vec::new(), copy: TreeVec::new() }
    }

    /// A snapshot of the selected leaves alone, in less memory. The others are neither copied nor restored.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::{params::Select, tree::{Snapshot, fill}};
    /// use ndarray::array;
    ///
    /// let mut model = (array![[1.0f32, 2.0], [3.0, 4.0]], array![5.0f32]);
    /// let mut vectors = Snapshot::only(Select::ndim(..=1));
    /// vectors.retake(&mut model)?;
    /// assert_eq!(vectors.tree().bytes(), 4);
    /// fill(0.0, &mut model)?;
    /// vectors.restore(&mut model)?;
    /// assert_eq!(model, (array![[0.0, 0.0], [0.0, 0.0]], array![5.0]));
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn only(select: Select) -> Self {
        Self { select: Some(select), ..Self::new() }
    }

    /// A snapshot of all leaves of these parameters.
    ///
    /// # Errors
    /// As [`Snapshot::retake`].
    pub fn take<P: Parameters<T> + ?Sized>(params: &mut P) -> Result<Self> {
        let mut snapshot = Self::new();
        snapshot.retake(params)?;
        Ok(snapshot)
    }

    /// Copies the parameters, in place of what was copied before. While names and shapes stay the same, no
    /// memory is allocated.
    ///
    /// # Errors
    /// [`Error::DuplicateName`]; [`Error::LengthMismatch`] for a buffer that does not fit its shape;
    /// [`Error::EmptyGroup`] if the selector of [`Snapshot::only`] matches no leaf. The snapshot has not changed
    /// then.
    pub fn retake<P: Parameters<T> + ?Sized>(&mut self, params: &mut P) -> Result<()> {
        visit(params, &mut |leaves, memory| {
            if self.seen != *leaves {
                let (layout, places) = self.plan(leaves)?;
                (self.copy, self.places) = (TreeVec::zeros(layout), places);
                self.seen.clone_from(leaves);
            }
            let chosen = |leaf: usize| self.places.get(leaf).is_some_and(|&place| place != MISSING);
            gather(memory, chosen, self.copy.values_mut());
            Ok(())
        })
    }

    fn plan(&self, leaves: &Manifest) -> Result<(Layout, Vec<usize>)> {
        // a name that is used twice is found among all leaves
        let all = Layout::of_leaves(leaves)?;
        let Some(select) = &self.select else { return Ok((all, (0..leaves.len()).collect())) };
        let (mut layout, mut places) = (Layout::new(), Vec::new());
        for leaf in all.segments() {
            places.push(match select.matches(&leaf.name, &leaf.shape) {
                true => layout.segments().len(),
                false => MISSING,
            });
            if places.last() != Some(&MISSING) {
                layout.push(&leaf.name, &leaf.shape);
            }
        }
        if layout.segments().is_empty() {
            let names = all.segments().iter().map(|leaf| leaf.name.as_str());
            return Err(Error::empty_group(0, select.label(), names));
        }
        Ok((layout, places))
    }

    /// Writes the copy back, to the bit. The leaves may come in another order, and lie in memory in another.
    ///
    /// # Errors
    /// [`Error::MissingParameter`]: a leaf of the copy is not there; [`Error::UnknownLeaf`]: a leaf that would
    /// have been copied was not; [`Error::ShapeMismatch`], [`Error::DuplicateName`],
    /// [`Error::LengthMismatch`]. The parameters have not changed then.
    pub fn restore<P: Parameters<T> + ?Sized>(&self, params: &mut P) -> Result<()> {
        visit(params, &mut |leaves, memory| {
            let places = self.places_in(leaves)?;
            scatter(memory, self.copy.values(), |leaf| self.offset(places.get(leaf)));
            Ok(())
        })
    }

    /// Writes what `f` makes of the copy: a point nearby, without reading the parameters first.
    ///
    /// `f(leaf, offset, before, out)` gets a piece of the copy, that begins at the element `offset` of the leaf
    /// of this number in [`TreeVec::layout`], and writes the parameters `out`. It is called on all threads, in
    /// any order.
    ///
    /// # Errors
    /// As [`Snapshot::restore`].
    ///
    /// # Examples
    /// ```
    /// use eigenstep::tree::Snapshot;
    /// use ndarray::array;
    ///
    /// let mut w = array![1.0f32, 2.0, 3.0];
    /// let snapshot = Snapshot::take(&mut w)?;
    /// snapshot.restore_with(&mut w, |_, offset, before, out| {
    ///     for (i, (out, x)) in out.iter_mut().zip(before).enumerate() {
    ///         *out = x + (offset + i) as f32;
    ///     }
    /// })?;
    /// assert_eq!(w, array![1.0, 3.0, 5.0]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn restore_with<P: Parameters<T> + ?Sized>(
        &self,
        params: &mut P,
        f: impl Fn(usize, usize, &[T], &mut [T]) + Sync + Send,
    ) -> Result<()> {
        visit(params, &mut |leaves, memory| {
            let places = self.places_in(leaves)?;
            let place = |leaf: usize| self.offset(places.get(leaf));
            scatter_with(memory, self.copy.values(), place, |leaf, offset, before, out| {
                f(places.get(leaf).copied().unwrap_or(MISSING), offset, before, out);
            });
            Ok(())
        })
    }

    /// The segment of each leaf of a tree, or [`MISSING`].
    fn places_in(&self, leaves: &Manifest) -> Result<Cow<'_, [usize]>> {
        if self.seen == *leaves {
            return Ok(Cow::Borrowed(&self.places));
        }
        let layout = self.copy.layout();
        let (mut places, mut found) =
            (vec![MISSING; leaves.len()], vec![false; layout.segments().len()]);
        for (leaf, place) in places.iter_mut().enumerate() {
            let (name, shape) = (leaves.name(leaf), leaves.shape(leaf));
            let Some(at) = layout.position(name) else {
                match &self.select {
                    Some(select) if !select.matches(name, shape) => continue,
                    _ => return Err(Error::UnknownLeaf { name: name.to_owned() }),
                }
            };
            let expected = layout.segments().get(at).map_or(&[][..], |segment| &segment.shape);
            check_shape(name, expected, shape)?;
            match found.get_mut(at) {
                Some(found) if !*found => *found = true,
                _ => return Err(Error::DuplicateName { name: name.to_owned() }),
            }
            *place = at;
        }
        match layout.segments().iter().zip(&found).find(|(_, found)| !**found) {
            Some((segment, _)) => Err(Error::MissingParameter { name: segment.name.clone() }),
            None => Ok(Cow::Owned(places)),
        }
    }

    fn offset(&self, place: Option<&usize>) -> Option<usize> {
        self.copy.layout().segments().get(*place?).map(|segment| segment.offset)
    }

    /// The copy.
    pub fn tree(&self) -> &TreeVec<T> {
        &self.copy
    }
}

/// A copy that was saved.
impl<T: Element> From<TreeVec<T>> for Snapshot<T> {
    fn from(copy: TreeVec<T>) -> Self {
        // no tree has been seen: places are found by name
        Self { copy, ..Self::new() }
    }
}

impl<T: Element> Gradients<T> for Snapshot<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        self.copy.visit(visitor);
    }
}
