//! Dense rows.

use crate::error::Result;
use crate::kernel::huge_pages::Buffer;
use crate::kernel::isa::{Isa, Kernel};
use crate::kernel::parallel;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::numeric::reduce::LaneSum;
use crate::state::{Lookup, Record, StateTensor};

/// Elements of a row per unit of work.
const CHUNK: usize = 16_384;

#[derive(Clone, Debug)]
pub(super) struct DenseRows<R> {
    numel: usize,
    /// All rows, one after another.
    values: Buffer<R>,
}

/// Reads a piece of a vector.
type Load<'l, R> = &'l (dyn Fn(usize, &mut [R]) + Sync);

/// Passes a piece of a vector, given by offset and length, to a function.
type Piece<'p, R> = &'p (dyn Fn(usize, usize, &mut dyn FnMut(&[R])) + Sync);

impl<R: Real> DenseRows<R> {
    pub fn new(capacity: usize, numel: usize) -> Self {
        Self { numel, values: Buffer::filled(R::zero(), capacity * numel) }
    }

    fn row(&self, slot: usize) -> &[R] {
        self.values.get(slot * self.numel..(slot + 1) * self.numel).unwrap_or_default()
    }

    pub fn store(&mut self, slot: usize, load: Load<'_, R>) {
        let range = slot * self.numel..(slot + 1) * self.numel;
        let row = self.values.get_mut(range).unwrap_or_default();
        let mut units: Vec<_> = row.chunks_mut(CHUNK).enumerate().collect();
        parallel::for_each(&mut units, self.numel, |(chunk, out)| load(*chunk * CHUNK, out));
    }

    pub fn products_with_row(&self, count: usize, slot: usize, isa: Isa) -> Vec<f64> {
        let row = self.row(slot);
        self.products_of(count, isa, &|offset, len, f| {
            f(row.get(offset..offset + len).unwrap_or_default());
        })
    }

    pub fn products(&self, count: usize, load: Load<'_, R>, isa: Isa) -> Vec<f64> {
        self.products_of(count, isa, &|offset, len, f| {
            with_scratch::<R, _>(len, |piece| {
                load(offset, piece);
                f(piece);
            });
        })
    }

    /// `⟨gᵢ, v⟩`, with one unit of work per piece of `v`. The sums of the pieces are added in order.
    fn products_of(&self, count: usize, isa: Isa, piece: Piece<'_, R>) -> Vec<f64> {
        let pieces = self.numel.div_ceil(CHUNK);
        let mut sums = vec![0.0; pieces * count];
        let mut units: Vec<_> = sums.chunks_mut(count.max(1)).enumerate().collect();
        parallel::for_each(&mut units, count * self.numel, |(index, sums)| {
            let offset = *index * CHUNK;
            let len = CHUNK.min(self.numel - offset);
            piece(offset, len, &mut |v| {
                for (slot, sum) in sums.iter_mut().enumerate() {
                    let row = self.row(slot).get(offset..offset + len).unwrap_or_default();
                    *sum = isa.run(Dot { a: row, b: v });
                }
            });
        });
        let mut totals = vec![0.0; count];
        for sums in sums.chunks(count.max(1)) {
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        totals
    }

    pub fn combine(&self, coefficients: &[f64], offset: usize, out: &mut [R], isa: Isa) {
        for (slot, &c) in coefficients.iter().enumerate() {
            let row = self.row(slot).get(offset..offset + out.len()).unwrap_or_default();
            if c != 0.0 {
                isa.run(Axpy { c: R::of(c), x: row, y: out });
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.values.bytes()
    }

    pub fn save(&self, record: &mut Record<'_>) {
        let rows = self.values.len().checked_div(self.numel).unwrap_or(0);
        record.tensor("rows", StateTensor::new(&[rows, self.numel], &self.values));
    }

    pub fn load(capacity: usize, numel: usize, lookup: &Lookup<'_>) -> Result<Self> {
        let rows = if numel == 0 { 0 } else { capacity };
        let values: Vec<R> = lookup.values("rows", &[rows, numel])?;
        Ok(Self { numel, values: values.as_slice().into() })
    }
}

/// `Σ aᵢbᵢ` in `f64`.
struct Dot<'a, R> {
    a: &'a [R],
    b: &'a [R],
}

impl<R: Real> Kernel for Dot<'_, R> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let mut sum = LaneSum::default();
        sum.extend_pairs(self.a, self.b, |a, b| a.widen() * b.widen());
        sum.total()
    }
}

/// `y ← y + c·x`.
struct Axpy<'a, R> {
    c: R,
    x: &'a [R],
    y: &'a mut [R],
}

impl<R: Real> Kernel for Axpy<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (y, &x) in self.y.iter_mut().zip(self.x) {
            *y += self.c * x;
        }
    }
}
