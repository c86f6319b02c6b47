//! A tree that owns its values.

use super::algebra::update;
use super::layout::{Layout, Segment};
use super::source::Source;
use crate::error::Result;
use crate::kernel::huge_pages::Buffer;
use crate::numeric::{Element, Real};
use crate::params::{Generate, GradVisitor, Gradients, ParamVisitor, Parameters};
use crate::state::{Lookup, Record, StateTensor};
use ndarray::{ArrayViewD, ArrayViewMutD, IxDyn};
use std::fmt;

/// A tree that owns its values: all leaves in one flat buffer, row-major, one after another.
///
/// *Use it for* whatever a method remembers of all parameters: averages, directions, old gradients. It is a
/// tree of [`Parameters`] and of [`Gradients`] of the names that it was made with, so everything in
/// [`tree`](super) reads and writes it, an optimizer can step it, and it can be given to `step` as gradients.
/// *Not for* a copy of half-precision parameters that is to be restored bit for bit: that is a
/// [`Snapshot`](super::Snapshot).
///
/// `T` is the type in which the values are kept: the arithmetic type of the parameters (`f32` for `bf16`), or a
/// narrower one to save memory. State: `size_of::<T>()` bytes per element.
///
/// # Examples
/// Two workers that agree on the mean of their gradients, in one flat vector:
/// ```
/// use eigenstep::{prelude::*, tree::{TreeVec, axpy, scale}};
/// use ndarray::array;
///
/// let (one, other) = ((array![1.0f32, 2.0], array![3.0f32]), (array![3.0f32, 0.0], array![1.0f32]));
/// let mut mean = TreeVec::<f32>::of(&one)?;
/// axpy(1.0, &other, &mut mean)?;
/// scale(0.5, &mut mean)?;
/// assert_eq!(mean.values(), [2.0, 1.0, 2.0]);
///
/// let mut model = (array![0.0f32, 0.0], array![0.0f32]);
/// Sgd { lr: 1.0, ..Sgd::default() }.build()?.step(&mut model, &mean)?;
/// assert_eq!(model, (array![-2.0, -1.0], array![-2.0]));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone)]
pub struct TreeVec<T: Element> {
    layout: Layout,
    values: Buffer<T>,
}

impl<T: Element> fmt::Debug for TreeVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the elements would fill the screen
        f.debug_struct("TreeVec").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl<T: Element> TreeVec<T> {
    /// Calls the leaf `from` `to`; the order of the leaves stays.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(place) = self.layout.position(from) {
            self.layout = self.layout.renamed(place, to);
        }
    }
}

impl<T: Element> Default for TreeVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Element> TreeVec<T> {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::zeros(Layout::new())
    }

    /// Zeros in this layout.
    pub fn zeros(layout: Layout) -> Self {
        Self { values: Buffer::filled(T::default(), layout.numel()), layout }
    }

    /// Zeros in the layout of a tree, whatever its element type.
    ///
    /// # Errors
    /// Those of [`Layout::of`].
    pub fn zeros_like<S: Element>(tree: impl Source<S>) -> Result<Self> {
        Layout::of(tree).map(Self::zeros)
    }

    /// A copy of a tree, rounded to `T`. Gradients are copied as an update sees them: scaled, clamped, rows and
    /// generated ones written out.
    ///
    /// # Errors
    /// Those of [`Layout::of`].
    pub fn of<S: Element<Compute = T::Compute>>(tree: impl Source<S>) -> Result<Self> {
        let mut copy = Self::new();
        copy.assign(tree)?;
        Ok(copy)
    }

    /// Becomes a copy of a tree, in its layout. While the layout stays the same, no memory is allocated.
    ///
    /// # Errors
    /// Those of [`Layout::of`]. Nothing has changed then.
    pub fn assign<S: Element<Compute = T::Compute>>(&mut self, tree: impl Source<S>) -> Result<()> {
        tree.read(&mut |leaves| {
            if !self.layout.fits(leaves.manifest) {
                *self = Self::zeros(Layout::of_leaves(leaves.manifest)?);
            }
            update([leaves], self, &|[x], _| x)
        })
    }

    /// Names, shapes and places of the leaves.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All values.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values: as a message to other workers, or to be filled.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// The leaf of this name.
    pub fn get(&self, name: &str) -> Option<ArrayViewD<'_, T>> {
        let segment = self.layout.get(name)?;
        let values = self.values.get(segment.offset..segment.offset + segment.numel())?;
        ArrayViewD::from_shape(IxDyn(&segment.shape), values).ok()
    }

    /// The leaf of this name.
    pub fn get_mut(&mut self, name: &str) -> Option<ArrayViewMutD<'_, T>> {
        let segment = self.layout.get(name)?;
        let values = self.values.get_mut(segment.offset..segment.offset + segment.numel())?;
        ArrayViewMutD::from_shape(IxDyn(&segment.shape), values).ok()
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.values.bytes()
    }

    /// Writes the layout under `layout.…`, and every leaf as a tensor of its name.
    pub fn save(&self, record: &mut Record<'_>) {
        self.layout.save(&mut record.nested("layout"));
        for (segment, values) in self.leaves() {
            record.tensor(&segment.name, StateTensor::new(&segment.shape, values));
        }
    }

    /// Reads what [`TreeVec::save`] has written.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key: a leaf that is missing, or has another
    /// shape or element type.
    pub fn load(lookup: &Lookup<'_>) -> Result<Self> {
        let layout = Layout::load(&lookup.nested("layout"))?;
        // all leaves are there before memory for them is asked for
        let leaf = |segment: &Segment| lookup.values::<T>(&segment.name, &segment.shape);
        let leaves = layout.segments().iter().map(leaf).collect::<Result<Vec<_>>>()?;
        let values = leaves.into_iter().flatten();
        Ok(Self { values: Buffer::collected(layout.numel(), T::default(), values), layout })
    }

    fn leaves(&self) -> impl Iterator<Item = (&Segment, &[T])> {
        self.layout.segments().iter().map(|segment| {
            let values = self.values.get(segment.offset..segment.offset + segment.numel());
            (segment, values.unwrap_or_default())
        })
    }
}

impl<R: Real> TreeVec<R> {
    /// The values as gradients of parameters in another type of this arithmetic type: rounded where the update
    /// reads them, and nowhere stored.
    ///
    /// # Examples
    #[cfg_attr(feature = "half", doc = "```")]
    #[cfg_attr(not(feature = "half"), doc = "```ignore")]
    /// use eigenstep::{numeric::bf16, prelude::*, tree::TreeVec};
    /// use ndarray::array;
    ///
    /// let mut model = array![1.0f32, 2.0].mapv(bf16::from_f32);
    /// let gradient = TreeVec::<f32>::of(&array![0.5f32, -0.5])?;
    /// Sgd { lr: 1.0, ..Sgd::default() }.build()?.step(&mut model, &gradient.rounded())?;
    /// assert_eq!(model.mapv(|x| x.to_f32()), array![0.5, 2.5]);
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn rounded<T: Element<Compute = R>>(&self) -> Rounded<'_, T> {
        let leaf = |(segment, values)| RoundedLeaf { segment, values };
        Rounded { leaves: self.leaves().map(leaf).collect() }
    }
}

impl<T: Element> Gradients<T> for TreeVec<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        for (segment, values) in self.leaves() {
            visitor.named(&segment.name, values, &segment.shape);
        }
    }
}

impl<T: Element> Parameters<T> for TreeVec<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        let mut rest = &mut *self.values;
        for segment in self.layout.segments() {
            let (values, later) = rest.split_at_mut(segment.numel().min(rest.len()));
            visitor.named(&segment.name, values, &segment.shape);
            rest = later;
        }
    }
}

/// The values of a [`TreeVec`] as gradients of parameters in another type; see [`TreeVec::rounded`].
#[derive(Debug)]
pub struct Rounded<'v, T: Element> {
    leaves: Vec<RoundedLeaf<'v, T>>,
}

#[derive(Debug)]
struct RoundedLeaf<'v, T: Element> {
    segment: &'v Segment,
    values: &'v [T::Compute],
}

impl<T: Element> Generate<T> for RoundedLeaf<'_, T> {
    fn shape(&self) -> &[usize] {
        &self.segment.shape
    }
    fn fill(&self, offset: usize, out: &mut [T]) {
        for (to, &from) in out.iter_mut().zip(self.values.get(offset..).unwrap_or_default()) {
            *to = T::store(from);
        }
    }

    fn writes_all(&self) -> bool {
        true
    }
}

impl<T: Element> Gradients<T> for RoundedLeaf<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.generated(self);
    }
}

impl<T: Element> Gradients<T> for Rounded<'_, T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        for leaf in &self.leaves {
            visitor.child(&leaf.segment.name, leaf);
        }
    }
}
