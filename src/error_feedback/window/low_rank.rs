//! Low-rank rows: a pair of factors for every matrix.

use super::super::compressor::normal_factor;
use crate::error::Result;
use crate::linalg::matrix_shape;
use crate::numeric::Real;
use crate::optim::{Layout, Segment};
use crate::state::{Lookup, Record, StateTensor};
use ndarray::Array2;

/// The factors of the gradient of one parameter, `P Rᵀ`.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankRow<R> {
    /// `P`, `rows × rank`, row-major. For a vector, the vector itself.
    pub p: Vec<R>,
    /// `Rᵀ`, `rank × columns`, row-major. For a vector, `[1]`.
    pub r: Vec<R>,
}

/// One parameter as a matrix, and its offset in the vector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatrixPart {
    pub offset: usize,
    pub rows: usize,
    pub columns: usize,
    pub rank: usize,
}

impl MatrixPart {
    /// The parameters of a vector as matrices of (first dimension, all others). Vectors and scalars
    /// become single columns, which are stored exactly.
    pub fn of(layout: &Layout, rank: usize) -> Vec<Self> {
        let part = |segment: &Segment| {
            let offset = segment.offset;
            match matrix_shape(&segment.shape) {
                Some((rows, columns)) => {
                    Self { offset, rows, columns, rank: rank.min(rows).min(columns) }
                }
                None => Self { offset, rows: segment.numel(), columns: 1, rank: 1 },
            }
        };
        layout.segments().iter().map(part).collect()
    }

    /// Whether it is stored exactly.
    pub fn is_exact(&self) -> bool {
        self.columns == 1
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.rows * self.columns
    }

    /// Shape of the factor that the power iteration starts from.
    pub fn basis_shape(&self) -> (usize, usize) {
        if self.is_exact() { (0, 0) } else { (self.columns, self.rank) }
    }

    /// The first factor: normally distributed numbers.
    pub fn first_basis<R: Real>(&self, seed: u64, index: u64) -> Array2<R> {
        normal_factor(self.basis_shape(), seed ^ index, 0)
    }

    /// Number of elements of its residual.
    pub fn residual_numel(&self) -> usize {
        if self.is_exact() { 0 } else { self.numel() }
    }

    /// Zero factors.
    pub fn zero_row<R: Real>(&self) -> LowRankRow<R> {
        LowRankRow {
            p: vec![R::zero(); self.rows * self.rank],
            r: vec![R::zero(); self.columns * self.rank],
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct LowRankRows<R> {
    parts: Vec<Held<R>>,
}

#[derive(Clone, Debug)]
struct Held<R> {
    part: MatrixPart,
    /// `P` of every slot.
    p: Vec<R>,
    /// `Rᵀ` of every slot.
    r: Vec<R>,
}

fn piece<R>(all: &[R], index: usize, len: usize) -> &[R] {
    all.get(index * len..(index + 1) * len).unwrap_or_default()
}

fn dot<'a, R: Real>(pairs: impl Iterator<Item = (&'a R, &'a R)>) -> f64 {
    pairs.map(|(a, b)| a.widen() * b.widen()).sum()
}

impl<R: Real> Held<R> {
    fn p(&self, slot: usize) -> &[R] {
        piece(&self.p, slot, self.part.rows * self.part.rank)
    }

    fn r(&self, slot: usize) -> &[R] {
        piece(&self.r, slot, self.part.columns * self.part.rank)
    }

    /// `⟨P Rᵀ, Q Sᵀ⟩ = Σ (PᵀQ)ₐᵦ (RᵀS)ₐᵦ`. The cost grows with the size of the factors, not of the
    /// matrix.
    fn product(&self, slot: usize, other: usize) -> f64 {
        let MatrixPart { rank, columns, .. } = self.part;
        let ((p, r), (q, s)) = ((self.p(slot), self.r(slot)), (self.p(other), self.r(other)));
        let mut sum = 0.0;
        for a in 0..rank {
            for b in 0..rank {
                let left = p.iter().skip(a).step_by(rank).zip(q.iter().skip(b).step_by(rank));
                let right = piece(r, a, columns).iter().zip(piece(s, b, columns));
                sum += dot(left) * dot(right);
            }
        }
        sum
    }

    /// Adds the elements of `Σ cᵢ Pᵢ Rᵢᵀ` from `offset` on that belong to this parameter.
    fn combine(&self, coefficients: &[f64], offset: usize, out: &mut [R]) {
        let MatrixPart { offset: begin, columns, rank, .. } = self.part;
        let end = offset + out.len();
        let (first, last) = (offset.max(begin), end.min(begin + self.part.numel()));
        if first >= last {
            return;
        }
        for row in (first - begin) / columns..(last - begin).div_ceil(columns) {
            let start = begin + row * columns;
            let (from, to) = (first.max(start), last.min(start + columns));
            let out = out.get_mut(from - offset..to - offset).unwrap_or_default();
            for (slot, &c) in coefficients.iter().enumerate() {
                let weights = piece(self.p(slot), row, rank);
                for (a, weight) in weights.iter().enumerate() {
                    let weight = R::of(c * weight.widen());
                    let r = piece(self.r(slot), a, columns).get(from - start..to - start);
                    let pairs = out.iter_mut().zip(r.unwrap_or_default());
                    pairs.for_each(|(x, &r)| *x += weight * r);
                }
            }
        }
    }
}

impl<R: Real> LowRankRows<R> {
    pub fn new(capacity: usize, layout: &Layout, rank: usize) -> Self {
        let parts = MatrixPart::of(layout, rank).into_iter().map(|part| Held {
            p: vec![R::zero(); capacity * part.rows * part.rank],
            r: vec![R::zero(); capacity * part.columns * part.rank],
            part,
        });
        Self { parts: parts.collect() }
    }

    pub fn store(&mut self, slot: usize, factors: &[LowRankRow<R>]) {
        for (held, factors) in self.parts.iter_mut().zip(factors) {
            for (all, new) in [(&mut held.p, &factors.p), (&mut held.r, &factors.r)] {
                let old = all.get_mut(slot * new.len()..(slot + 1) * new.len());
                old.unwrap_or_default().iter_mut().zip(new).for_each(|(old, &new)| *old = new);
            }
        }
    }

    pub fn products_with_row(&self, count: usize, slot: usize) -> Vec<f64> {
        let product = |other| self.parts.iter().map(|held| held.product(slot, other)).sum();
        (0..count).map(product).collect()
    }

    /// `⟨P Rᵀ, V⟩`, row by row of `V`.
    pub fn products(&self, count: usize, load: &(dyn Fn(usize, &mut [R]) + Sync)) -> Vec<f64> {
        let mut sums = vec![0.0; count];
        for held in &self.parts {
            let MatrixPart { offset, rows, columns, rank } = held.part;
            let mut v = vec![R::zero(); columns];
            for row in 0..rows {
                load(offset + row * columns, &mut v);
                for (slot, sum) in sums.iter_mut().enumerate() {
                    for (a, weight) in piece(held.p(slot), row, rank).iter().enumerate() {
                        let r = piece(held.r(slot), a, columns);
                        *sum += weight.widen() * dot(r.iter().zip(&v));
                    }
                }
            }
        }
        sums
    }

    pub fn combine(&self, coefficients: &[f64], offset: usize, out: &mut [R]) {
        self.parts.iter().for_each(|held| held.combine(coefficients, offset, out));
    }

    pub fn bytes(&self) -> usize {
        let bytes =
            |held: &Held<R>| size_of_val(held.p.as_slice()) + size_of_val(held.r.as_slice());
        self.parts.iter().map(bytes).sum()
    }

    pub fn save(&self, record: &mut Record<'_>) {
        for (index, held) in self.parts.iter().enumerate() {
            let mut record = record.nested(&format!("factors.{index}"));
            record.tensor("p", StateTensor::new(&[held.p.len()], &held.p));
            record.tensor("r", StateTensor::new(&[held.r.len()], &held.r));
        }
    }

    pub fn load(
        capacity: usize,
        layout: &Layout,
        rank: usize,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let load = |(index, part): (usize, MatrixPart)| {
            let lookup = lookup.nested(&format!("factors.{index}"));
            let len = |side: usize| capacity.saturating_mul(side).saturating_mul(part.rank);
            Ok(Held {
                p: lookup.values("p", &[len(part.rows)])?,
                r: lookup.values("r", &[len(part.columns)])?,
                part,
            })
        };
        let parts = MatrixPart::of(layout, rank).into_iter().enumerate().map(load);
        Ok(Self { parts: parts.collect::<Result<_>>()? })
    }
}
