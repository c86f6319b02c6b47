//! Coding of one line of a matrix: scales block by block, codes tile by tile.

// Indices are bytes into tables of 256 entries.
#![allow(clippy::indexing_slicing)]

use super::pack::{pack, unpack};
use super::table::{BUCKETS, Table, bucket};
use crate::kernel::isa::{Isa, Kernel};
use crate::kernel::nibbles::look_up_vectors;
use crate::numeric::Real;
use crate::quant::tile::{TILE, max_magnitude};

/// Codes the numbers of `y`, which are scaled in place.
pub(super) struct Encode<'a, R: Real> {
    pub(super) table: &'static Table<R>,
    pub(super) bits: u8,
    pub(super) block_size: usize,
    pub(super) y: &'a mut [R],
    pub(super) codes: &'a mut [u8],
    pub(super) scales: &'a mut [R],
}

impl<R: Real> Kernel for Encode<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (y, scale) in self.y.chunks_mut(self.block_size).zip(self.scales) {
            let absmax = max_magnitude(y);
            let reciprocal = R::one() / absmax;
            // the reciprocal of the smallest subnormal numbers overflows: to be coded as zeros
            let (stored, factor) =
                if reciprocal.is_finite() { (absmax, reciprocal) } else { (R::zero(), R::zero()) };
            *scale = stored;
            y.iter_mut().for_each(|y| *y *= factor);
        }
        match self.bits {
            3 => tiles::<R, 3>(self.y, self.codes, |y, codes| count::<R, 7>(self.table, y, codes)),
            4 => tiles::<R, 4>(self.y, self.codes, |y, codes| search(self.table, y, codes)),
            _ => tiles::<R, 8>(self.y, self.codes, |y, codes| search(self.table, y, codes)),
        }
    }
}

#[inline(always)]
fn tiles<R: Real, const BITS: usize>(
    y: &[R],
    bytes: &mut [u8],
    encode: impl Fn(&[R; TILE], &mut [u8; TILE]),
) {
    let mut codes = [0; TILE];
    let (whole, rest) = y.as_chunks::<TILE>();
    let mut bytes = bytes.chunks_mut(TILE * BITS / 8);
    for (y, bytes) in whole.iter().zip(&mut bytes) {
        encode(y, &mut codes);
        pack::<BITS>(&codes, bytes);
    }
    if let Some(bytes) = bytes.next() {
        let mut y = [R::zero(); TILE];
        y[..rest.len()].copy_from_slice(rest);
        encode(&y, &mut codes);
        // what fills up the last byte is 0
        codes[rest.len()..].fill(0);
        pack::<BITS>(&codes, bytes);
    }
}

/// The number of thresholds that each `y` reaches, without a branch.
#[inline(always)]
fn count<R: Real, const N: usize>(table: &Table<R>, y: &[R; TILE], codes: &mut [u8; TILE]) {
    let thresholds: [R; N] = std::array::from_fn(|j| table.thresholds[j]);
    let rows = y.as_chunks::<32>().0;
    for (codes, y) in codes.as_chunks_mut::<32>().0.iter_mut().zip(rows) {
        let counts = y.map(|y| thresholds.iter().map(|t| u32::from(y >= *t)).sum::<u32>());
        *codes = counts.map(|count| count as u8);
    }
}

/// The same for more thresholds: those of all buckets before, and the few of the bucket itself one by
/// one. The places are computed for a whole tile, in vectors.
#[inline(always)]
fn search<R: Real>(table: &Table<R>, y: &[R; TILE], codes: &mut [u8; TILE]) {
    let places = y.map(bucket);
    for ((code, y), place) in codes.iter_mut().zip(y).zip(places) {
        let mut found = table.first[place as usize % BUCKETS];
        for _ in 0..table.most {
            // the last threshold is infinite, so that this never leads out of the table
            found += u8::from(*y >= table.thresholds[usize::from(found)]);
        }
        *code = found;
    }
}

/// Writes what the codes stand for to `out`.
pub(super) struct Decode<'a, R: Real> {
    pub(super) isa: Isa,
    pub(super) table: &'static Table<R>,
    pub(super) bits: u8,
    pub(super) block_size: usize,
    pub(super) codes: &'a [u8],
    pub(super) scales: &'a [R],
    pub(super) out: &'a mut [R],
}

impl<R: Real> Kernel for Decode<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.bits {
            3 => levels::<R, 3>(self.table, self.codes, self.out),
            4 => {
                let (mut codes, mut out) = (self.codes, &mut *self.out);
                if let Some(levels) = self.table.levels.first_chunk() {
                    (codes, out) = look_up_vectors(self.isa, codes, levels, out);
                }
                levels::<R, 4>(self.table, codes, out);
            }
            _ => levels::<R, 8>(self.table, self.codes, self.out),
        }
        for (out, scale) in self.out.chunks_mut(self.block_size).zip(self.scales) {
            out.iter_mut().for_each(|out| *out *= *scale);
        }
    }
}

#[inline(always)]
fn levels<R: Real, const BITS: usize>(table: &Table<R>, bytes: &[u8], out: &mut [R]) {
    let mut codes = [0; TILE];
    for (out, bytes) in out.chunks_mut(TILE).zip(bytes.chunks(TILE * BITS / 8)) {
        unpack::<BITS>(bytes, &mut codes);
        for (out, code) in out.iter_mut().zip(&codes) {
            *out = table.levels[usize::from(*code)];
        }
    }
}
