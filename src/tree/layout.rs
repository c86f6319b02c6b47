//! Names, shapes and places of the leaves of a tree.

use super::source::Source;
use crate::error::{Error, Result, check_shape};
use crate::numeric::Element;
use crate::numeric::limits::numel;
use crate::params::Manifest;
use crate::state::{Lookup, Record, Scalar, parse_shape};

/// One leaf of a tree, and its place in a vector that holds all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Path of the leaf.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where it begins.
    pub offset: usize,
}

impl Segment {
    /// Number of elements; `usize::MAX` if so many cannot be counted.
    pub fn numel(&self) -> usize {
        numel(&self.shape).unwrap_or(usize::MAX)
    }
}

/// The leaves of a tree as one vector: row-major, one after another, in the order of the tree.
///
/// Two layouts are equal if names, shapes and their order are.
///
/// # Examples
/// ```
/// use eigenstep::tree::Layout;
/// use ndarray::{Array1, Array2};
///
/// let model = (Array2::<f32>::zeros((2, 3)), Array1::<f32>::zeros(3));
/// let layout = Layout::of(&model)?;
/// assert_eq!(layout.numel(), 9);
/// let bias = layout.get("1").expect("a leaf of the model");
/// assert_eq!((bias.shape.as_slice(), bias.offset), (&[3][..], 6));
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    /// Numbers of the segments, by name.
    by_name: Vec<usize>,
    numel: usize,
}

impl Layout {
    /// An empty vector.
    pub fn new() -> Self {
        Self::default()
    }

    /// The vector of one tensor.
    pub fn single(shape: &[usize]) -> Self {
        let mut layout = Self::new();
        layout.push("", shape);
        layout
    }

    /// The layout of a tree.
    ///
    /// # Errors
    /// [`Error::DuplicateName`]; [`Error::LengthMismatch`] for a buffer that does not fit its shape.
    pub fn of<T: Element>(tree: impl Source<T>) -> Result<Self> {
        let mut layout = Self::new();
        tree.read(&mut |leaves| {
            layout = Self::of_leaves(leaves.manifest)?;
            Ok(())
        })?;
        Ok(layout)
    }

    pub(crate) fn of_leaves(leaves: &Manifest) -> Result<Self> {
        let mut layout = Self::new();
        for leaf in 0..leaves.len() {
            let name = leaves.name(leaf);
            if layout.get(name).is_some() {
                return Err(Error::DuplicateName { name: name.to_owned() });
            }
            layout.push(name, leaves.shape(leaf));
        }
        Ok(layout)
    }

    /// Appends a leaf.
    pub fn push(&mut self, name: &str, shape: &[usize]) {
        let segment = Segment { name: name.into(), shape: shape.into(), offset: self.numel };
        let place = self.by_name.partition_point(|&i| self.name(i) <= name);
        self.by_name.insert(place, self.segments.len());
        self.numel = self.numel.saturating_add(segment.numel());
        self.segments.push(segment);
    }

    /// The same leaves in the same places, the one at `place` under another name.
    pub(crate) fn renamed(&self, place: usize, name: &str) -> Self {
        let mut layout = Self::new();
        for (index, segment) in self.segments.iter().enumerate() {
            layout.push(if index == place { name } else { &segment.name }, &segment.shape);
        }
        layout
    }

    /// The same leaves in the same places, without the elements of those for which `keep` is not `kept`.
    pub(crate) fn keeping(&self, keep: &[bool], kept: bool) -> Self {
        let part = |(segment, &keep): (&Segment, &bool)| {
            let shape = if keep == kept { segment.shape.clone() } else { vec![0] };
            Segment { name: segment.name.clone(), shape, offset: segment.offset }
        };
        let segments: Vec<Segment> = self.segments.iter().zip(keep).map(part).collect();
        let numel = segments.iter().map(Segment::numel).sum();
        Self { segments, by_name: self.by_name.clone(), numel }
    }

    /// The leaves.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Number of elements of all of them.
    pub fn numel(&self) -> usize {
        self.numel
    }

    /// The leaf of this name; the first one if there are several.
    pub fn get(&self, name: &str) -> Option<&Segment> {
        self.segments.get(self.position(name)?)
    }

    /// The number of the leaf of this name, in [`Layout::segments`].
    pub fn position(&self, name: &str) -> Option<usize> {
        let place = self.by_name.partition_point(|&i| self.name(i) < name);
        self.by_name.get(place).copied().filter(|&i| self.name(i) == name)
    }

    fn name(&self, i: usize) -> &str {
        self.segments.get(i).map_or("", |segment| &segment.name)
    }

    /// Whether a tree hands out these leaves, in this order.
    pub(crate) fn fits(&self, leaves: &Manifest) -> bool {
        let same =
            |(i, s): (usize, &Segment)| leaves.name(i) == s.name && leaves.shape(i) == s.shape;
        leaves.len() == self.segments.len() && self.segments.iter().enumerate().all(same)
    }

    /// Checks that every leaf of this layout is a leaf of `other`, in whatever order.
    ///
    /// # Errors
    /// [`Error::UnknownLeaf`] names the first leaf that `other` does not have; [`Error::ShapeMismatch`]
    /// names one that has another shape there.
    pub fn check_subset(&self, other: &Layout) -> Result<()> {
        self.segments.iter().try_for_each(|segment| match other.get(&segment.name) {
            Some(found) => check_shape(&segment.name, &segment.shape, &found.shape),
            None => Err(Error::UnknownLeaf { name: segment.name.clone() }),
        })
    }

    /// Checks that both layouts have the same leaves, in whatever order.
    ///
    /// # Errors
    /// Those of [`Layout::check_subset`], both ways.
    pub fn check_same(&self, other: &Layout) -> Result<()> {
        self.check_subset(other)?;
        other.check_subset(self)
    }

    /// Writes names and shapes: `{number}.name` and `{number}.shape`.
    pub fn save(&self, record: &mut Record<'_>) {
        for (i, segment) in self.segments.iter().enumerate() {
            let dims: Vec<String> = segment.shape.iter().map(usize::to_string).collect();
            record.scalar(&format!("{i}.name"), Scalar::Text(segment.name.clone()));
            record.scalar(&format!("{i}.shape"), Scalar::Text(dims.join(",")));
        }
    }

    /// Reads what [`Layout::save`] has written; without an entry the layout is empty.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    pub fn load(lookup: &Lookup<'_>) -> Result<Self> {
        let mut layout = Self::new();
        loop {
            let leaf = lookup.nested(&layout.segments.len().to_string());
            let Some(name) = leaf.scalar("name") else {
                return match leaf.scalar("shape") {
                    None => Ok(layout),
                    Some(_) => Err(leaf.problem("name", "is missing")),
                };
            };
            let name = name.as_text().ok_or_else(|| leaf.problem("name", "is not a name"))?;
            // leaves that are gone have no name, and keep their places
            if !name.is_empty() && layout.get(name).is_some() {
                return Err(leaf.problem("name", "is used twice"));
            }
            let shape = leaf.scalar("shape").and_then(Scalar::as_text).and_then(parse_shape);
            let shape = shape.ok_or_else(|| {
                leaf.problem("shape", "is missing, or no list of sizes that memory could hold")
            })?;
            let numel = shape.iter().product::<usize>();
            if layout.numel.checked_add(numel).is_none_or(|numel| numel > isize::MAX as usize / 8) {
                return Err(leaf.problem("shape", "makes the vector too long"));
            }
            layout.push(name, &shape);
        }
    }
}
