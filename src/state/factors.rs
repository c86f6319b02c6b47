//! A slot that matrices hold as means over their rows and columns, in the place of a number per element.

use super::bytes::StateBytes;
use super::dict::StateTensor;
use super::kind::Factors;
use super::record::{Lookup, Record};
use crate::error::Result;
use crate::kernel::axis_sums::{AxisSums, scaled_roots};
use crate::kernel::{CHUNK, Isa, Kernel};
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::numeric::reduce::LaneSum;
use std::ops::Range;

/// Most units that take the sums of one tensor, and fewest chunks of one unit. Units that share a matrix
/// need sums of their own.
const MAX_UNITS: usize = 16;
const MIN_CHUNKS: usize = 4;

/// A tensor as a list of matrices: its last two dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Matrices {
    count: usize,
    height: usize,
    width: usize,
}

/// The matrices that one unit of work has elements of.
struct Span {
    /// The first one, if it begins in another unit.
    head: Option<usize>,
    whole: Range<usize>,
    /// The last one, if it ends in another unit; `None` where it is the first, too.
    tail: Option<usize>,
}

impl Matrices {
    fn of(shape: &[usize]) -> Option<Self> {
        match shape {
            [outer @ .., height, width] => {
                Some(Self { count: outer.iter().product(), height: *height, width: *width })
            }
            _ => None,
        }
    }

    fn size(self) -> usize {
        self.height * self.width
    }

    /// Number of rows and columns of one matrix.
    fn sides(self) -> usize {
        self.height + self.width
    }

    /// Elements per unit of work: as many units as their sums take less than a quarter of a byte per
    /// element.
    fn unit_len(self) -> usize {
        let numel = self.count * self.size();
        let units = (numel / (64 * self.sides().max(1))).clamp(1, MAX_UNITS);
        CHUNK * numel.div_ceil(CHUNK).div_ceil(units).max(MIN_CHUNKS)
    }

    fn span(self, start: usize, end: usize) -> Span {
        let size = self.size().max(1);
        let head = (!start.is_multiple_of(size)).then_some(start / size);
        let tail = (!end.is_multiple_of(size)).then_some(end / size);
        let first = start.div_ceil(size);
        Span { head, whole: first..(end / size).max(first), tail: tail.filter(|_| tail != head) }
    }

    /// The matrix of every part of one that a unit has, in order.
    fn shared(self) -> Vec<usize> {
        let (numel, len) = (self.count * self.size(), self.unit_len());
        let spans = (0..numel).step_by(len).map(|start| self.span(start, (start + len).min(numel)));
        spans.flat_map(|span| span.head.into_iter().chain(span.tail)).collect()
    }
}

/// How the means of one step become part of the means over all steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Averaging {
    /// Weight of the new means: `x ← x + weight·(new − x)`.
    pub weight: f64,
    /// Least value of the mean that products are divided by.
    pub floor: f64,
}

impl Averaging {
    fn average<R: Real>(&self, sums: &[f64], count: usize, means: &mut [R]) {
        let weight = R::of(self.weight);
        for (mean, sum) in means.iter_mut().zip(sums) {
            *mean = flushed(*mean + weight * (R::of(sum / count as f64) - *mean));
        }
    }

    /// Takes the sums of one matrix in.
    fn absorb<R: Real>(&self, matrices: Matrices, sums: &[f64], means: MatrixMeans<'_, R>) {
        let (rows, columns) = sums.split_at(matrices.height.min(sums.len()));
        self.average(rows, matrices.width, means.rows);
        self.average(columns, matrices.height, means.columns);
        let mut total = LaneSum::default();
        total.extend(means.rows, Real::widen);
        let mean = total.total() / matrices.height as f64;
        *means.total = R::of(if mean < self.floor { self.floor } else { mean });
    }
}

/// The means of one matrix, and that of all of its elements.
struct MatrixMeans<'u, R> {
    rows: &'u mut [R],
    columns: &'u mut [R],
    total: &'u mut R,
}

/// The memory of one slot.
#[derive(Clone, Debug)]
pub(crate) struct FactorBuffer<R> {
    names: Factors,
    matrices: Matrices,
    rows: Vec<R>,
    columns: Vec<R>,
    /// Means over whole matrices, which products are divided by; they belong to a step.
    totals: Vec<R>,
    /// The matrices that several units share, once for every unit, and the sums of the unit.
    shared: Vec<usize>,
    sums: Vec<f64>,
}

impl<R: Real> FactorBuffer<R> {
    /// Means of zeros; `None` if the tensor has no rows and columns.
    pub fn new(names: Factors, shape: &[usize]) -> Option<Self> {
        let matrices = Matrices::of(shape)?;
        let zeros = |len: usize| vec![R::zero(); len];
        let (rows, columns) =
            (zeros(matrices.count * matrices.height), zeros(matrices.count * matrices.width));
        Some(Self::with_means(names, matrices, rows, columns))
    }

    fn with_means(names: Factors, matrices: Matrices, rows: Vec<R>, columns: Vec<R>) -> Self {
        let (totals, shared) = (vec![R::zero(); matrices.count], matrices.shared());
        let sums = vec![0.0; shared.len() * matrices.sides()];
        Self { names, matrices, rows, columns, totals, shared, sums }
    }

    fn scratch_bytes(&self) -> usize {
        size_of_val(&*self.totals) + size_of_val(&*self.sums) + size_of_val(&*self.shared)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.columns) + self.scratch_bytes()
    }

    /// Adds the bytes held, part by part.
    pub fn count(&self, bytes: &mut StateBytes) {
        bytes.add(self.names.rows, size_of_val(&*self.rows));
        bytes.add(self.names.columns, size_of_val(&*self.columns));
        bytes.add("axis_sums", self.scratch_bytes());
    }

    /// Shapes of the means of a tensor of shape `shape`: as it, but with one column, or with one row.
    fn shapes(shape: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let with_one = |from_end: usize| {
            let mut shape = shape.to_vec();
            if let Some(dim) = shape.iter_mut().rev().nth(from_end) {
                *dim = 1;
            }
            shape
        };
        (with_one(0), with_one(1))
    }

    pub fn save(&self, shape: &[usize], record: &mut Record<'_>) {
        let (rows, columns) = Self::shapes(shape);
        record.tensor(self.names.rows, StateTensor::new(&rows, &self.rows));
        record.tensor(self.names.columns, StateTensor::new(&columns, &self.columns));
    }

    /// Whether a tensor of this shape has rows and columns.
    pub fn fits(shape: &[usize]) -> bool {
        Matrices::of(shape).is_some()
    }

    /// Reads the means; `None` if there are none.
    pub fn load(names: Factors, shape: &[usize], lookup: &Lookup<'_>) -> Result<Option<Self>> {
        let Some(matrices) = Matrices::of(shape) else { return Ok(None) };
        let Factors { rows: row_name, columns: column_name } = names;
        let (row_shape, column_shape) = Self::shapes(shape);
        let read = |name: &str, shape: &[usize]| {
            let tensor = lookup.tensor(name).ok_or_else(|| lookup.problem(name, "is missing"))?;
            let values: Vec<R> = lookup.floats(tensor, shape, name)?;
            match values.iter().any(|x| *x < R::zero()) {
                true => Err(lookup.problem(name, "has a negative element")),
                false => Ok(values),
            }
        };
        if lookup.tensor(row_name).is_none() && lookup.tensor(column_name).is_none() {
            return Ok(None);
        }
        let (rows, columns) = (read(row_name, &row_shape)?, read(column_name, &column_shape)?);
        // only now: the means are there for as many rows and columns as the shape claims
        let held = rows.len().max(columns.len()).saturating_add(1);
        match matrices.count <= held {
            true => Ok(Some(Self::with_means(names, matrices, rows, columns))),
            false => Err(lookup.problem("shape", "claims more matrices than there are means")),
        }
    }

    /// The means of this name.
    pub fn part(&mut self, name: &str) -> Option<&mut [R]> {
        match name {
            _ if name == self.names.rows => Some(&mut self.rows),
            _ if name == self.names.columns => Some(&mut self.columns),
            _ => None,
        }
    }

    /// What the slot reads as.
    pub fn view(&self) -> FactorView<'_, R> {
        let Self { matrices, rows, columns, totals, .. } = self;
        FactorView { matrices: *matrices, offset: 0, rows, columns, totals }
    }

    /// Elements per unit of work that takes sums.
    pub fn unit_len(&self) -> usize {
        self.matrices.unit_len()
    }

    /// Hands out the sums of unit after unit.
    pub fn sums(&mut self, averaging: Averaging) -> FactorCursor<'_, R> {
        let Self { matrices, rows, columns, totals, sums, .. } = self;
        FactorCursor {
            matrices: *matrices,
            averaging,
            offset: 0,
            next: 0,
            rows,
            columns,
            totals,
            sums,
        }
    }

    /// Takes in the sums of matrices that several units share: those of whole ones are already.
    pub fn absorb(&mut self, averaging: Averaging) {
        let (matrices, sides) = (self.matrices, self.matrices.sides());
        let mut rest = self.sums.as_mut_slice();
        for parts in self.shared.chunk_by(|a, b| a == b) {
            let part = rest.split_off_mut(..parts.len() * sides).unwrap_or_default();
            let (sums, others) = part.split_at_mut(sides);
            for other in others.chunks(sides) {
                sums.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
            }
            let Some(&matrix) = parts.first() else { continue };
            let rows = nth_mut(&mut self.rows, matrices.height, matrix);
            let columns = nth_mut(&mut self.columns, matrices.width, matrix);
            if let Some(total) = self.totals.get_mut(matrix) {
                averaging.absorb(matrices, sums, MatrixMeans { rows, columns, total });
            }
        }
    }
}

/// The part of `len` elements number `index`.
fn nth_mut<X>(all: &mut [X], len: usize, index: usize) -> &mut [X] {
    all.get_mut(index * len..(index + 1) * len).unwrap_or_default()
}

fn nth<X>(all: &[X], len: usize, index: usize) -> &[X] {
    all.get(index * len..(index + 1) * len).unwrap_or_default()
}

/// Splits off the first `len` elements.
fn take<'u, X>(rest: &mut &'u mut [X], len: usize) -> &'u mut [X] {
    rest.split_off_mut(..len.min(rest.len())).unwrap_or_default()
}

/// Hands out the sums of unit after unit, from the front.
#[derive(Debug)]
pub(crate) struct FactorCursor<'u, R> {
    matrices: Matrices,
    averaging: Averaging,
    /// Where the next unit begins, and the first matrix whose means have not been handed out.
    offset: usize,
    next: usize,
    rows: &'u mut [R],
    columns: &'u mut [R],
    totals: &'u mut [R],
    sums: &'u mut [f64],
}

impl<'u, R: Real> FactorCursor<'u, R> {
    /// The sums of the next `len` elements.
    pub fn take(&mut self, len: usize) -> FactorSums<'u, R> {
        let Matrices { height, width, .. } = self.matrices;
        let Span { head, whole, tail } = self.matrices.span(self.offset, self.offset + len);
        let (skip, count) = (whole.start.saturating_sub(self.next), whole.len());
        take(&mut self.rows, skip * height);
        take(&mut self.columns, skip * width);
        take(&mut self.totals, skip);
        let (size, sides) = (self.matrices.size().max(1), self.matrices.sides());
        let sums = FactorSums {
            matrices: self.matrices,
            averaging: self.averaging,
            matrix: self.offset / size,
            place: self.offset % size,
            rows: take(&mut self.rows, count * height),
            columns: take(&mut self.columns, count * width),
            totals: take(&mut self.totals, count),
            head: take(&mut self.sums, head.map_or(0, |_| sides)),
            tail: take(&mut self.sums, tail.map_or(0, |_| sides)),
            whole: whole.clone(),
        };
        self.next = whole.end;
        self.offset += len;
        sums
    }
}

/// The sums of one unit: the means of matrices that lie within it, and sums of parts of others.
#[derive(Debug)]
pub(crate) struct FactorSums<'u, R> {
    matrices: Matrices,
    averaging: Averaging,
    /// The matrix and the place in it of the next element.
    matrix: usize,
    place: usize,
    whole: Range<usize>,
    rows: &'u mut [R],
    columns: &'u mut [R],
    totals: &'u mut [R],
    head: &'u mut [f64],
    tail: &'u mut [f64],
}

impl<R: Real> FactorSums<'_, R> {
    /// Numbers of scratch that [`FactorSums::add`] needs.
    pub fn scratch_len(&self) -> usize {
        if self.whole.is_empty() { 0 } else { self.matrices.sides() }
    }

    /// Adds the next elements; scratch, and the sums of the matrix at hand, are kept from call to call.
    pub fn add(
        &mut self,
        isa: Isa,
        mut terms: &[f64],
        (scratch, axes): (&mut [f64], &mut Option<AxisSums>),
    ) {
        let (height, size) = (self.matrices.height, self.matrices.size());
        while !terms.is_empty() && size > 0 {
            let (piece, rest) = terms.split_at((size - self.place).min(terms.len()));
            let whole = self.whole.contains(&self.matrix);
            let place = self.place;
            let sums = if whole { &mut *scratch } else { self.part() };
            if axes.is_none() {
                sums.fill(0.0);
            }
            let (rows, columns) = sums.split_at_mut(height.min(sums.len()));
            let own = axes.get_or_insert_with(|| AxisSums::new(place, columns.len()));
            own.add(isa, piece, rows, columns);
            (self.place, terms) = (place + piece.len(), rest);
            if self.place == size {
                if whole {
                    self.finish(scratch);
                }
                (self.matrix, self.place, *axes) = (self.matrix + 1, 0, None);
            }
        }
    }

    /// Takes the sums of a whole matrix in.
    fn finish(&mut self, sums: &[f64]) {
        let Matrices { height, width, .. } = self.matrices;
        let index = self.matrix - self.whole.start;
        let rows = nth_mut(self.rows, height, index);
        let columns = nth_mut(self.columns, width, index);
        if let Some(total) = self.totals.get_mut(index) {
            self.averaging.absorb(self.matrices, sums, MatrixMeans { rows, columns, total });
        }
    }

    /// The sums of a matrix that is not whole.
    fn part(&mut self) -> &mut [f64] {
        // the first one begins before the unit, the last one ends behind it
        if self.matrix < self.whole.start { self.head } else { self.tail }
    }

    /// Completes the sums after the last element of the unit.
    pub fn close(&mut self, axes: Option<AxisSums>) {
        let Matrices { height, width, .. } = self.matrices;
        if let Some(axes) = axes.filter(|_| !self.whole.contains(&self.matrix)) {
            axes.close(width, self.part().get_mut(..height).unwrap_or_default());
        }
    }
}

/// Reads a slot: the root of `row·column/total` for every element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FactorView<'u, R> {
    matrices: Matrices,
    /// Where the chunk begins in the flattened tensor.
    pub(super) offset: usize,
    rows: &'u [R],
    columns: &'u [R],
    totals: &'u [R],
}

impl<R: Real> FactorView<'_, R> {
    /// Writes the elements `start ..` of the chunk.
    pub fn load(&self, isa: Isa, start: usize, out: &mut [R]) {
        isa.run(Roots { view: *self, first: self.offset + start, out });
    }
}

/// The roots of the elements `first ..`.
///
/// The root of a product would be nothing where both are small: it is the product of the roots.
struct Roots<'a, R> {
    view: FactorView<'a, R>,
    first: usize,
    out: &'a mut [R],
}

impl<R: Real> Kernel for Roots<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { view, first, mut out } = self;
        let Matrices { height, width, .. } = view.matrices;
        if height == 0 || width == 0 {
            return;
        }
        let (mut row, mut column) = (first / width, first % width);
        let (mut matrix, mut inside) = (row / height, row % height);
        while !out.is_empty() {
            let (piece, rest) = out.split_at_mut((width - column).min(out.len()));
            let columns = nth(view.columns, width, matrix).get(column..).unwrap_or_default();
            let of = |all: &[R], index: usize| all.get(index).copied().unwrap_or_default();
            let (mean, total) = (of(view.rows, row), of(view.totals, matrix));
            // without any gradient so far there is nothing to divide by
            let share = if total == R::zero() { R::zero() } else { mean / total };
            scaled_roots(share.sqrt(), columns, piece);
            (out, column, row, inside) = (rest, 0, row + 1, inside + 1);
            if inside == height {
                (matrix, inside) = (matrix + 1, 0);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "the indices are of the test's own making")]
mod tests {
    use super::*;

    const NAMES: Factors = Factors { rows: "row_var", columns: "col_var" };

    fn terms(numel: usize) -> Vec<f64> {
        (0..numel).map(|i| 1.0 + (i as f64 * 0.37).sin()).collect()
    }

    /// One pass over a tensor, unit by unit, in pieces of this length.
    fn pass(buffer: &mut FactorBuffer<f64>, averaging: Averaging, terms: &[f64], piece: usize) {
        let len = buffer.unit_len();
        let mut cursor = buffer.sums(averaging);
        for unit in terms.chunks(len) {
            let mut sums = cursor.take(unit.len());
            let (mut scratch, mut axes) = (vec![f64::NAN; sums.scratch_len()], None);
            for piece in unit.chunks(piece) {
                sums.add(Isa::detect(), piece, (&mut scratch, &mut axes));
            }
            sums.close(axes);
        }
        buffer.absorb(averaging);
    }

    /// Against sums over indices, for tensors in one unit and in several that share matrices or not.
    #[test]
    fn means_are_means() {
        let shapes: [&[usize]; 9] = [
            &[1, 1],
            &[3, 4],
            &[2, 3, 2, 2],
            &[5, 1],
            &[1, 7],
            &[3, 200, 400],
            &[600, 700],
            &[70, 40, 50],
            &[30_000, 5],
        ];
        for shape in shapes {
            let Some(mut buffer) = FactorBuffer::<f64>::new(NAMES, shape) else { continue };
            let Matrices { count, height, width } = buffer.matrices;
            let numel = count * height * width;
            let terms = terms(numel);
            let averaging = Averaging { weight: 1.0, floor: 0.0 };
            pass(&mut buffer, averaging, &terms, 1024);
            let mut read = vec![0.0; numel];
            for (part, out) in read.chunks_mut(777).enumerate() {
                buffer.view().load(Isa::detect(), part * 777, out);
            }
            let matrices = terms.chunks(height * width).zip(read.chunks(height * width));
            for (matrix, (terms, read)) in matrices.enumerate() {
                let total = terms.iter().sum::<f64>() / (height * width) as f64;
                let near = |found: f64, expected: f64| {
                    assert!((found - expected).abs() < 1e-12, "{shape:?}: {found}, not {expected}");
                };
                let row =
                    |i: usize| terms.iter().skip(i * width).take(width).sum::<f64>() / width as f64;
                let column =
                    |j: usize| terms.iter().skip(j).step_by(width).sum::<f64>() / height as f64;
                for i in [0, height / 2, height - 1] {
                    near(nth(&buffer.rows, height, matrix)[i], row(i));
                    for j in [0, width / 3, width - 1] {
                        near(nth(&buffer.columns, width, matrix)[j], column(j));
                        near(read[i * width + j], (row(i) * column(j) / total).sqrt());
                    }
                }
            }
            // however it was cut into pieces
            let mut other = FactorBuffer::new(NAMES, shape).unwrap_or_else(|| buffer.clone());
            pass(&mut other, averaging, &terms, 100);
            assert_eq!((&other.rows, &other.columns), (&buffer.rows, &buffer.columns));
            // the average of a second step
            let doubled: Vec<f64> = terms.iter().map(|x| 3.0 * x).collect();
            pass(&mut other, Averaging { weight: 0.5, floor: 1e9 }, &doubled, 64);
            for (new, old) in other.rows.iter().zip(&buffer.rows) {
                assert!((new - 2.0 * old).abs() < 1e-12);
            }
            assert!(other.totals.iter().all(|&total| total == 1e9));
        }
    }

    #[test]
    fn shared_sums_are_few() {
        for shape in [&[768, 768][..], &[4096, 4096], &[2, 1_000_000], &[512, 512, 3, 3], &[8, 1]] {
            let Some(buffer) = FactorBuffer::<f32>::new(NAMES, shape) else { continue };
            let numel: usize = shape.iter().product();
            assert!(size_of_val(&*buffer.sums) <= numel / 4, "{shape:?}");
        }
        assert!(FactorBuffer::<f32>::new(NAMES, &[7]).is_none());
        assert!(FactorBuffer::<f32>::new(NAMES, &[]).is_none());
        for empty in [&[0, 3][..], &[3, 0], &[0, 2, 2]] {
            let buffer = FactorBuffer::<f32>::new(NAMES, empty);
            assert!(buffer.is_some_and(|buffer| buffer.sums.is_empty()));
        }
    }
}
