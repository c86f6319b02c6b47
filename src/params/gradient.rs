//! Gradients in their forms: dense, a few rows, generated.

use crate::error::{Error, Result};
use crate::numeric::limits::numel;
use crate::numeric::{Element, Real};
use ndarray::{Array2, ArrayViewD};
use std::ops::Range;

/// A gradient that is never held in memory: the update asks for it chunk by chunk.
///
/// Zeroth-order estimates (seeded noise times a coefficient) and casts are of this kind. Chunks are
/// asked for on any thread, in any order, and more than once; the same offset must give the same
/// values.
///
/// # Examples
/// ```
/// use eigenstep::{params::{Generate, GradVisitor, Gradients}, prelude::*};
/// use ndarray::array;
///
/// struct Alternating;
/// impl Generate<f32> for Alternating {
///     fn shape(&self) -> &[usize] {
///         &[4]
///     }
///     fn fill(&self, offset: usize, out: &mut [f32]) {
///         for (i, x) in (offset..).zip(out) {
///             *x = if i % 2 == 0 { 1.0 } else { -1.0 };
///         }
///     }
/// }
/// impl Gradients<f32> for Alternating {
///     fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
///         visitor.generated(self);
///     }
/// }
///
/// let mut w = array![0.0f32, 0.0, 0.0, 0.0];
/// let mut opt = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
/// opt.step(&mut w, &Alternating)?;
/// assert_eq!(w, array![-0.5, 0.5, -0.5, 0.5]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
pub trait Generate<T>: Send + Sync {
    /// Shape of the gradient.
    fn shape(&self) -> &[usize];
    /// Writes the elements `offset .. offset + out.len()`, counted row-major. They are 0 before; what is not
    /// written stays so.
    fn fill(&self, offset: usize, out: &mut [T]);
    /// A magnitude that no element exceeds, if one is known; then the step does not generate the gradient a
    /// second time to check it.
    fn bound(&self) -> Option<f64> {
        None
    }
    /// `true` if `fill` writes every element whatever is there before, so that none has to be set to 0 first.
    #[doc(hidden)]
    fn writes_all(&self) -> bool {
        false
    }
}

/// [`Generate::fill`] into memory of any content. All that asks a generator for elements asks here: memory is
/// lent from one step to the next, and what a generator leaves out must not be what another one has left.
pub(crate) fn generate<T: Element>(generator: &dyn Generate<T>, offset: usize, out: &mut [T]) {
    if !generator.writes_all() {
        out.fill(T::default());
    }
    generator.fill(offset, out);
}

impl<T> std::fmt::Debug for dyn Generate<T> + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generate").field("shape", &self.shape()).finish()
    }
}

/// Some rows of a gradient whose other rows are zero: the gradient of an embedding table.
///
/// A row named twice counts twice. To the update rule the gradient is dense: moments of the other
/// rows decay and weight decay acts on them, exactly as with the zeros written out. Rules that are
/// [lazy](crate::optim::Rule::lazy) leave the other rows alone, and do not even read them.
///
/// # Examples
/// ```
/// use eigenstep::{params::RowGradient, prelude::*};
/// use ndarray::{Array2, array};
///
/// let mut table = Array2::<f32>::zeros((5, 2));
/// let rows = RowGradient::new(&[5, 2], vec![3, 1, 3], array![[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])?;
/// let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build()?;
/// opt.step(&mut table, &rows)?;
/// assert_eq!(table, array![[0.0, 0.0], [-2.0, -2.0], [0.0, 0.0], [-4.0, -4.0], [0.0, 0.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RowGradient<T> {
    shape: Vec<usize>,
    /// Ascending; equal indices keep the order they were given in, so that sums are reproducible.
    rows: Vec<usize>,
    values: Vec<T>,
}

impl<T: Copy> RowGradient<T> {
    /// Rows `rows` of a gradient of shape `shape`; `values` holds one row of
    /// `shape[1] · shape[2] · …` elements for each.
    ///
    /// # Errors
    /// [`Error::RowOutOfRange`] for an index beyond `shape[0]`; [`Error::ShapeMismatch`] if `values`
    /// is not `rows.len() × shape[1] · shape[2] · …`.
    pub fn new(shape: &[usize], rows: Vec<usize>, values: Array2<T>) -> Result<Self> {
        let height = shape.first().copied().unwrap_or(0);
        let width = numel(shape).map_or(usize::MAX, |_| shape.iter().skip(1).product());
        if values.dim() != (rows.len(), width) {
            return Err(Error::ShapeMismatch {
                name: "values of a row gradient".into(),
                expected: vec![rows.len(), width],
                found: values.shape().to_vec(),
            });
        }
        if let Some(&row) = rows.iter().find(|&&row| row >= height) {
            return Err(Error::RowOutOfRange { name: "rows".into(), row, rows: height });
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| rows.get(i).copied());
        Ok(Self {
            shape: shape.to_vec(),
            values: order.iter().flat_map(|&i| values.row(i).to_vec()).collect(),
            rows: order.iter().filter_map(|&i| rows.get(i).copied()).collect(),
        })
    }
}

impl<T> RowGradient<T> {
    /// Shape of the gradient.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values given, row by row.
    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }

    /// The values of every row that is given more than once, together.
    pub(crate) fn repeated(&self) -> impl Iterator<Item = &[T]> {
        let (width, mut start) = (self.width(), 0);
        self.rows.chunk_by(|a, b| a == b).filter_map(move |run| {
            let values = self.values.get(start..start + run.len() * width);
            start += run.len() * width;
            values.filter(|_| run.len() > 1)
        })
    }

    /// Number of elements of one row.
    pub(crate) fn width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The first row given that has elements from `offset` on, and all behind it.
    fn rows_from(&self, offset: usize, width: usize) -> &[usize] {
        let first = self.rows.partition_point(|&row| (row + 1) * width <= offset);
        self.rows.get(first..).unwrap_or_default()
    }

    /// Whether any element of `offset .. offset + len` is given.
    pub(crate) fn touches(&self, offset: usize, len: usize) -> bool {
        let width = self.width();
        let first = self.rows_from(offset, width).first();
        width > 0 && first.is_some_and(|row| row * width < offset + len)
    }

    /// Calls `visit` for every run of given elements of `offset .. offset + len`, counted from `offset`; rows
    /// next to each other are one run.
    pub(crate) fn each_run(&self, offset: usize, len: usize, mut visit: impl FnMut(Range<usize>)) {
        let width = self.width();
        if !self.touches(offset, len) {
            return;
        }
        for run in self.rows_from(offset, width).chunk_by(|a, b| *b <= a + 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
            let (start, end) = ((first * width).max(offset), (last + 1) * width);
            if start >= offset + len {
                return;
            }
            visit(start - offset..end.min(offset + len) - offset);
        }
    }

    /// Calls `add(i, x)` for every given element of `offset .. offset + len`, `i` counted from
    /// `offset`.
    pub(crate) fn scatter(&self, offset: usize, len: usize, mut add: impl FnMut(usize, &T)) {
        let width = self.width();
        if width == 0 {
            return;
        }
        let first = self.rows.partition_point(|&row| (row + 1) * width <= offset);
        let rows = self.rows.iter().zip(self.values.chunks_exact(width)).skip(first);
        for (&row, values) in rows.take_while(|&(&row, _)| row * width < offset + len) {
            for (i, x) in (row * width..).zip(values) {
                if let Some(i) = i.checked_sub(offset).filter(|&i| i < len) {
                    add(i, x);
                }
            }
        }
    }
}

/// The memory of one gradient.
#[derive(Debug)]
pub(crate) enum GradientKind<'a, T> {
    Slice(&'a [T]),
    Strided(ArrayViewD<'a, T>),
    Rows(&'a RowGradient<T>),
    Generated(&'a dyn Generate<T>),
}

impl<'a, T> GradientKind<'a, T> {
    /// The same elements, for a shorter time.
    pub fn reborrow(&self) -> GradientKind<'_, T> {
        match self {
            Self::Slice(slice) => GradientKind::Slice(slice),
            Self::Strided(view) => GradientKind::Strided(view.view()),
            Self::Rows(rows) => GradientKind::Rows(rows),
            Self::Generated(generator) => GradientKind::Generated(*generator),
        }
    }
}

/// One gradient: the update sees `clamp(scale · g, -bound, bound)`.
#[derive(Debug)]
pub(crate) struct GradientLeaf<'a, T> {
    pub scale: f64,
    pub bound: f64,
    /// A wrapper has looked at every element and found it finite.
    pub finite: bool,
    pub kind: GradientKind<'a, T>,
}

impl<T> GradientLeaf<'_, T> {
    /// Whether the update sees the elements as they are.
    pub fn is_plain(&self) -> bool {
        self.scale == 1.0 && self.bound == f64::INFINITY
    }

    /// Turns elements of the leaf, in the arithmetic type, into what the update sees.
    pub fn apply<R: Real>(&self, xs: &mut [R]) {
        scale_and_clamp(self.scale, self.bound, xs);
    }
}

/// `x ← clamp(scale·x, -bound, bound)`; a NaN stays one.
pub(crate) fn scale_and_clamp<R: Real>(scale: f64, bound: f64, xs: &mut [R]) {
    if scale == 1.0 && bound == f64::INFINITY {
        return;
    }
    let (scale, bound) = (R::of(scale), R::of(bound));
    // not `min` and `max`, which would swallow a NaN
    let clamp = |x: R| if x < -bound { -bound } else { x };
    xs.iter_mut().for_each(|x| {
        let scaled = *x * scale;
        *x = if scaled > bound { bound } else { clamp(scaled) };
    });
}
