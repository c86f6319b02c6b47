//! The window of gradients: a ring buffer and its Gram matrix.

mod dense;
mod low_rank;
mod sparse;
mod tiles;

use crate::error::Result;
use crate::kernel::Isa;
use crate::numeric::Real;
use crate::optim::{Layout, ReadVector};
use crate::state::{Lookup, Record, Scalar, StateBytes, StateTensor};
use dense::DenseRows;
pub use low_rank::LowRankRow;
use low_rank::LowRankRows;
pub(crate) use low_rank::MatrixPart;
use ndarray::{Array2, ArrayView1};
use sparse::SparseRows;

/// The format of the gradients in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowFormat {
    /// All elements.
    Dense,
    /// A fixed number of elements, as 16-bit indices and values.
    Sparse {
        /// Number of elements of every gradient.
        kept: usize,
        /// Whether values are rounded to bfloat16.
        bf16: bool,
    },
    /// Factors `P` and `R` of every matrix: the gradient is approximately `P Rᵀ`.
    LowRank {
        /// Number of columns of `P` and `R`.
        rank: usize,
    },
}

/// The last `m` gradients `g₁ … gₘ` of a vector of `d` elements, and their Gram matrix
/// `Sᵢⱼ = ⟨gᵢ, gⱼ⟩` in `f64`.
///
/// The gradients are in a ring buffer: the newest replaces the oldest. Its row and column of `S` are
/// computed from the stored gradients, so `S` always fits what is stored, also after rounding.
///
/// # Examples
/// ```
/// use eigenstep::error_feedback::{GradWindow, RowFormat};
/// use eigenstep::optim::Layout;
///
/// let mut window = GradWindow::<f64>::new(RowFormat::Dense, 2, &Layout::single(&[3]));
/// for gradient in [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 3.0, 0.0]] {
///     window.push(&gradient[..]);
/// }
/// // the third gradient is in the slot of the first
/// assert_eq!((window.newest(), window.count()), (0, 2));
/// assert_eq!([window.gram(0, 0), window.gram(0, 1), window.gram(1, 1)], [18.0, 6.0, 4.0]);
/// let mut sum = [0.0; 3];
/// window.combine(&[1.0, 0.5], 0, &mut sum);
/// assert_eq!(sum, [3.0, 4.0, 0.0]);
/// ```
#[derive(Clone, Debug)]
pub struct GradWindow<R> {
    rows: Rows<R>,
    capacity: usize,
    /// `S`, row-major, `capacity × capacity`.
    gram: Vec<f64>,
    next: usize,
    count: usize,
    isa: Isa,
}

#[derive(Clone, Debug)]
enum Rows<R> {
    Dense(DenseRows<R>),
    Sparse(SparseRows<R>),
    LowRank(LowRankRows<R>),
}

impl<R: Real> GradWindow<R> {
    /// An empty window of `capacity` gradients of a vector.
    pub fn new(format: RowFormat, capacity: usize, layout: &Layout) -> Self {
        let rows = match format {
            RowFormat::Dense => Rows::Dense(DenseRows::new(capacity, layout.numel())),
            RowFormat::Sparse { kept, bf16 } => {
                Rows::Sparse(SparseRows::new(capacity, layout.numel(), kept, bf16))
            }
            RowFormat::LowRank { rank } => Rows::LowRank(LowRankRows::new(capacity, layout, rank)),
        };
        let gram = vec![0.0; capacity * capacity];
        Self { rows, capacity, gram, next: 0, count: 0, isa: Isa::detect() }
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of gradients in the window.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Slot of the newest gradient; 0 if the window is empty.
    pub fn newest(&self) -> usize {
        self.next.checked_sub(1).unwrap_or(self.capacity.saturating_sub(1))
    }

    /// Slot of the next gradient.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Age of the gradient in `slot`, in steps; the newest has age 0.
    pub fn age(&self, slot: usize) -> usize {
        let newest = self.newest();
        if slot <= newest { newest - slot } else { newest + self.capacity - slot }
    }

    /// The Gram matrix `S` of the gradients in the window.
    pub fn gram_matrix(&self) -> Array2<f64> {
        let mut s = Array2::zeros((self.count, self.count));
        for (i, mut row) in s.rows_mut().into_iter().enumerate() {
            row.assign(&ArrayView1::from(self.gram_row(i)));
        }
        s
    }

    /// Inner products of the gradient in `slot` with all gradients of the window.
    pub fn gram_row(&self, slot: usize) -> &[f64] {
        let begin = slot * self.capacity;
        self.gram.get(begin..begin + self.count).unwrap_or_default()
    }

    /// Inner product of the gradients in slots `i` and `j`.
    pub fn gram(&self, i: usize, j: usize) -> f64 {
        self.gram.get(i * self.capacity + j).copied().unwrap_or(0.0)
    }

    /// Stores a gradient, if the window is dense. Else nothing happens.
    pub fn push<V: ReadVector<R> + ?Sized>(&mut self, gradient: &V) {
        if let Rows::Dense(rows) = &mut self.rows {
            rows.store(self.next, &|offset, out: &mut [R]| gradient.load(offset, out));
            self.advance();
        }
    }

    /// Stores the elements of `vector` at `indices`, ascending, if the window is sparse. Else nothing
    /// happens. In `vector` each of these elements is replaced by its rounding error.
    pub fn push_sparse(&mut self, indices: &[u32], vector: &mut [R]) {
        self.push_piece((0, 0), indices, vector);
        self.finish_row();
    }

    /// As [`GradWindow::push_sparse`], for a piece of the vector. `place` is the number of entries of
    /// earlier pieces, and the offset of this one. [`GradWindow::finish_row`] ends the row.
    pub(crate) fn push_piece(&mut self, place: (usize, usize), indices: &[u32], vector: &mut [R]) {
        if let Rows::Sparse(rows) = &mut self.rows {
            rows.store(self.next, place, indices, vector);
        }
    }

    /// Ends a row that was stored in pieces.
    pub(crate) fn finish_row(&mut self) {
        if matches!(self.rows, Rows::Sparse(_)) {
            self.advance();
        }
    }

    /// Stores the factors of every matrix, if the window is of low rank. Else nothing happens.
    pub fn push_low_rank(&mut self, factors: &[LowRankRow<R>]) {
        if let Rows::LowRank(rows) = &mut self.rows {
            rows.store(self.next, factors);
            self.advance();
        }
    }

    /// Computes the inner products of the row just written, and moves to the next slot.
    fn advance(&mut self) {
        let slot = self.next;
        self.count = (self.count + 1).min(self.capacity);
        self.next = if slot + 1 == self.capacity { 0 } else { slot + 1 };
        let products = match &self.rows {
            Rows::Dense(rows) => rows.products_with_row(self.count, slot, self.isa),
            Rows::Sparse(rows) => rows.products_with_row(self.count, slot),
            Rows::LowRank(rows) => rows.products_with_row(self.count, slot),
        };
        // the same number at both places, so that S is symmetric to the bit
        for (i, &product) in products.iter().enumerate() {
            for place in [slot * self.capacity + i, i * self.capacity + slot] {
                if let Some(entry) = self.gram.get_mut(place) {
                    *entry = product;
                }
            }
        }
    }

    /// `⟨gᵢ, v⟩` for every gradient of the window.
    pub fn products<V: ReadVector<R> + ?Sized>(&self, v: &V) -> Vec<f64> {
        let load = |offset: usize, out: &mut [R]| v.load(offset, out);
        match &self.rows {
            Rows::Dense(rows) => rows.products(self.count, &load, self.isa),
            Rows::Sparse(rows) => rows.products(self.count, &load),
            Rows::LowRank(rows) => rows.products(self.count, &load),
        }
    }

    /// Adds the elements `offset .. offset + out.len()` of `Σ cᵢ gᵢ` to `out`.
    pub fn combine(&self, coefficients: &[f64], offset: usize, out: &mut [R]) {
        let coefficients = coefficients.get(..self.count).unwrap_or(coefficients);
        match &self.rows {
            Rows::Dense(rows) => rows.combine(coefficients, offset, out, self.isa),
            Rows::Sparse(rows) => rows.combine(coefficients, offset, out),
            Rows::LowRank(rows) => rows.combine(coefficients, offset, out),
        }
    }

    /// Calls `f(place, value)` for every stored element `offset + place`, `place < len`, of the
    /// gradient in `slot`, if the window is sparse.
    pub fn each_stored(&self, slot: usize, offset: usize, len: usize, f: impl FnMut(usize, R)) {
        if let Rows::Sparse(rows) = &self.rows {
            rows.each(slot, offset, len, f);
        }
    }

    /// Counts the bytes of the rows and of the Gram matrix.
    pub fn count_bytes(&self, bytes: &mut StateBytes) {
        let rows = match &self.rows {
            Rows::Dense(rows) => rows.bytes(),
            Rows::Sparse(rows) => rows.bytes(),
            Rows::LowRank(rows) => rows.bytes(),
        };
        bytes.add("window", rows);
        bytes.add("gram", size_of_val(self.gram.as_slice()));
    }

    /// Saves the window under the record's keys.
    pub fn save(&self, record: &mut Record<'_>) {
        record.scalar("next", Scalar::Int(self.next as i64));
        record.scalar("count", Scalar::Int(self.count as i64));
        let shape = [self.capacity, self.capacity];
        record.tensor("gram", StateTensor::new(&shape, &self.gram));
        match &self.rows {
            Rows::Dense(rows) => rows.save(record),
            Rows::Sparse(rows) => rows.save(record),
            Rows::LowRank(rows) => rows.save(record),
        }
    }

    /// Loads a window. The arguments are those of [`GradWindow::new`].
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict) names the key.
    pub fn load(
        format: RowFormat,
        capacity: usize,
        layout: &Layout,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let number = |name: &str, limit: usize| {
            let found = lookup.scalar(name).and_then(Scalar::as_u64);
            let found = found.and_then(|number| usize::try_from(number).ok());
            let found = found.filter(|number| *number <= limit);
            found.ok_or_else(|| lookup.problem(name, "is not a number of slots"))
        };
        let (count, next) = (number("count", capacity)?, number("next", capacity)?);
        let fits = if count == capacity { next < capacity.max(1) } else { next == count };
        if !fits {
            return Err(lookup.problem("next", "does not fit the number of gradients"));
        }
        let gram = lookup.values::<f64>("gram", &[capacity, capacity])?;
        let rows = match format {
            RowFormat::Dense => Rows::Dense(DenseRows::load(capacity, layout.numel(), lookup)?),
            RowFormat::Sparse { kept, bf16 } => {
                Rows::Sparse(SparseRows::load(capacity, layout.numel(), (kept, bf16), lookup)?)
            }
            RowFormat::LowRank { rank } => {
                Rows::LowRank(LowRankRows::load(capacity, layout, rank, lookup)?)
            }
        };
        Ok(Self { rows, capacity, gram, next: next % capacity.max(1), count, isa: Isa::detect() })
    }
}
