//! Rank-1 scales: the smallest of the per-dimension maxima bounds every element.

// Rows and tiles are cut to the lengths of the shape.
#![allow(clippy::indexing_slicing)]

use super::blockwise::{Blockwise, invalid};
use super::nibble::linear_code;
use super::quant_map::{QuantMap, Ties};
use super::tile::{TILE, max_magnitude, narrow, widen};
use crate::error::{Error, Result, check_length, check_shape};
use crate::kernel::isa::{Isa, Kernel};
use crate::numeric::Real;
use crate::numeric::limits::numel;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Rows of the last dimension that a flat chunk touches: number of the row, columns, and where they
/// lie in the chunk.
#[inline(always)]
fn rows(columns: usize, offset: usize, len: usize) -> impl Iterator<Item = Row> {
    let last = if len == 0 { 0 } else { (offset + len).div_ceil(columns) };
    (offset / columns..last).map(move |row| {
        let start = offset.max(row * columns);
        let end = (offset + len).min((row + 1) * columns);
        let columns = start - row * columns..end - row * columns;
        Row { row, columns, place: start - offset..end - offset }
    })
}

struct Row {
    row: usize,
    columns: Range<usize>,
    place: Range<usize>,
}

/// Positions, in the concatenated maxima, of the outer coordinates of row `row`.
#[inline(always)]
fn outer(shape: &[usize], row: usize) -> impl Iterator<Item = usize> {
    let outer = shape.split_last().map_or(&[][..], |(_, outer)| outer);
    let mut start: usize = outer.iter().sum();
    let mut rest = row;
    outer.iter().rev().map(move |&extent| {
        start -= extent;
        let index = rest % extent;
        rest /= extent;
        start + index
    })
}

/// Refuses a tensor of more elements than can be counted.
fn check_countable(shape: &[usize]) -> Result<()> {
    match numel(shape) {
        Some(_) => Ok(()),
        None => check_length("maxima", shape, usize::MAX, 0),
    }
}

/// Refuses elements beyond the end of a tensor.
fn check_chunk(name: &str, shape: &[usize], offset: usize, len: usize) -> Result<()> {
    let left = shape.iter().product::<usize>().saturating_sub(offset);
    check_length(name, shape, left.min(len), len)
}

fn columns(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1).max(1)
}

/// The per-dimension maxima of a non-negative tensor:
///
/// ```text
/// maxima[d][k] = max of |x| over all elements whose coordinate d is k
/// scale(i₁ … iₙ) = min over d of maxima[d][i_d]
/// ```
///
/// (for a matrix, the smaller of row and column maximum): `Σ shape` numbers instead of one
/// per block.
#[derive(Clone, Debug, PartialEq)]
pub struct Rank1Scales<R> {
    shape: Vec<usize>,
    maxima: Vec<R>,
}

impl<R: Real> Rank1Scales<R> {
    /// Zeros: the tensor decodes to 0.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] for a tensor of more elements than can be counted.
    pub fn zeros(shape: &[usize]) -> Result<Self> {
        check_countable(shape).map(|()| Self::blank(shape))
    }

    /// [`zeros`](Self::zeros) of a shape that can be counted.
    pub(crate) fn blank(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), maxima: vec![R::zero(); shape.iter().sum()] }
    }

    /// From maxima concatenated in the order of the dimensions.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] unless there are `Σ shape` of them.
    pub fn from_maxima(shape: &[usize], maxima: Vec<R>) -> Result<Self> {
        check_countable(shape)?;
        let expected = shape.iter().sum();
        if maxima.len() != expected {
            let (name, shape) = ("scales".to_owned(), shape.to_vec());
            return Err(Error::LengthMismatch { name, shape, expected, found: maxima.len() });
        }
        Ok(Self { shape: shape.to_vec(), maxima })
    }

    /// The maxima of a whole tensor in row-major order.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] unless `x` has the number of elements of `shape`.
    pub fn of(shape: &[usize], x: &[R]) -> Result<Self> {
        let expected = numel(shape).unwrap_or(usize::MAX);
        if x.len() != expected {
            let (name, shape) = ("x".to_owned(), shape.to_vec());
            return Err(Error::LengthMismatch { name, shape, expected, found: x.len() });
        }
        let maxima = Rank1Maxima::blank(shape);
        maxima.accumulate_fitting(Isa::detect(), 0, x);
        let mut scales = Self::blank(shape);
        maxima.move_into(&mut scales);
        Ok(scales)
    }

    /// Shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The maxima, concatenated in the order of the dimensions.
    pub fn maxima(&self) -> &[R] {
        &self.maxima
    }

    /// Maxima of the last dimension.
    fn last(&self) -> &[R] {
        &self.maxima[self.maxima.len() - self.shape.last().copied().unwrap_or(0)..]
    }

    /// Smallest of the outer maxima of a row; NaN, the neutral element of `smaller`, where there is only one dimension.
    fn of_row(&self, row: usize) -> R {
        let maxima = outer(&self.shape, row).map(|place| self.maxima[place]);
        maxima.fold(R::nan(), |smallest, x| smaller(x, smallest))
    }
}

/// The smaller magnitude; NaN counts as the largest, so one NaN in a row spoils only itself.
#[inline(always)]
fn smaller<R: Real>(a: R, b: R) -> R {
    if a.magnitude_bits() < b.magnitude_bits() { a } else { b }
}

/// Collects the maxima of a tensor chunk by chunk, from several threads at once.
///
/// Non-negative floats order as their bits, so an atomic maximum of integers does it, and the result
/// does not depend on the order of the chunks. NaN counts as the largest number.
#[derive(Debug)]
pub struct Rank1Maxima {
    shape: Vec<usize>,
    bits: Vec<AtomicU64>, // of f64, exact for f32 too
}

impl Clone for Rank1Maxima {
    fn clone(&self) -> Self {
        let bits = self.bits.iter().map(|bits| AtomicU64::new(bits.load(Relaxed))).collect();
        Self { shape: self.shape.clone(), bits }
    }
}

impl Rank1Maxima {
    /// All maxima 0.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] for a tensor of more elements than can be counted.
    pub fn new(shape: &[usize]) -> Result<Self> {
        check_countable(shape).map(|()| Self::blank(shape))
    }

    /// [`new`](Self::new) of a shape that can be counted.
    pub(crate) fn blank(shape: &[usize]) -> Self {
        let bits = (0..shape.iter().sum()).map(|_| AtomicU64::new(0)).collect();
        Self { shape: shape.to_vec(), bits }
    }

    /// Includes the elements `offset .. offset + x.len()` of the tensor in row-major order.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] for elements beyond the end of the tensor.
    pub fn accumulate<R: Real>(&self, isa: Isa, offset: usize, x: &[R]) -> Result<()> {
        check_chunk("x", &self.shape, offset, x.len())?;
        self.accumulate_fitting(isa, offset, x);
        Ok(())
    }

    /// [`accumulate`](Self::accumulate) of elements that the tensor has.
    pub(crate) fn accumulate_fitting<R: Real>(&self, isa: Isa, offset: usize, x: &[R]) {
        debug_assert!(check_chunk("x", &self.shape, offset, x.len()).is_ok());
        if x.is_empty() {
            // a tensor without elements may have a last dimension without columns
            return;
        }
        isa.run(Accumulate { maxima: self, offset, x });
    }

    /// Moves the maxima into `scales`, which has the same shape, and starts again from 0.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for scales of another shape.
    pub fn take_into<R: Real>(&self, scales: &mut Rank1Scales<R>) -> Result<()> {
        check_shape("scales", &self.shape, &scales.shape)?;
        self.move_into(scales);
        Ok(())
    }

    /// [`take_into`](Self::take_into) of scales of the same shape.
    pub(crate) fn move_into<R: Real>(&self, scales: &mut Rank1Scales<R>) {
        debug_assert_eq!(scales.shape, self.shape);
        for (to, from) in scales.maxima.iter_mut().zip(&self.bits) {
            *to = R::of(f64::from_bits(from.swap(0, Relaxed)));
        }
    }

    #[inline(always)]
    fn raise(&self, place: usize, bits: u64) {
        let maximum = &self.bits[place];
        // Reading is cheap, and soon nothing is larger any more.
        if maximum.load(Relaxed) < bits {
            maximum.fetch_max(bits, Relaxed);
        }
    }
}

struct Accumulate<'a, R> {
    maxima: &'a Rank1Maxima,
    offset: usize,
    x: &'a [R],
}

impl<R: Real> Kernel for Accumulate<'_, R> {
    type Output = ();

    /// Tiles of columns, so that the column maxima stay on the stack while the rows go by.
    #[inline(always)]
    fn run(self) {
        const WIDTH: usize = 1024;
        let Self { maxima, offset, x } = self;
        let shape = &maxima.shape;
        let extent = columns(shape);
        let first_column = maxima.bits.len() - shape.last().copied().unwrap_or(0);
        for left in (0..extent).step_by(WIDTH) {
            let right = extent.min(left + WIDTH);
            let mut lanes = [R::Bits::default(); WIDTH];
            for row in rows(extent, offset, x.len()) {
                let start = row.columns.start.max(left);
                let end = row.columns.end.min(right);
                if start >= end {
                    continue;
                }
                let begin = row.place.start + (start - row.columns.start);
                let x = &x[begin..begin + (end - start)];
                for (lane, x) in lanes[start - left..end - left].iter_mut().zip(x) {
                    let bits = x.magnitude_bits();
                    *lane = if bits > *lane { bits } else { *lane };
                }
                let largest = max_magnitude(x).widen().to_bits();
                outer(shape, row.row).for_each(|place| maxima.raise(place, largest));
            }
            for (lane, place) in lanes.into_iter().zip(first_column + left..first_column + right) {
                maxima.raise(place, R::from_magnitude_bits(lane).widen().to_bits());
            }
        }
    }
}

/// 4-bit codes of a non-negative tensor with [rank-1 scales](Rank1Scales) and the table `(c + 1)/16`:
///
/// ```text
/// code = nearest c to 16·x/scale − 1,   x̂ = (code + 1)/16 · scale
/// ```
///
/// An element whose scale is 0 has code 0 and decodes to 0. An element that is NaN or infinite
/// decodes to NaN or infinity, because the scales of its row and column both are; its
/// neighbours keep the scale of their other dimension.
///
/// Chunks begin at even flat indices (two codes per byte, the first in the high half). The new
/// scales must be known before the first chunk is encoded: see [`Rank1Maxima`].
///
/// Source: Li, Chen, Zhu, "Memory Efficient Optimizers with 4-bit States", 2023.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank1Codec {
    ties: Ties,
}

/// The name under which a state dict records the format.
impl fmt::Display for Rank1Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank-1 DynamicLinear unsigned, 4 bits, ties {:?}", self.ties)
    }
}

impl Rank1Codec {
    /// The codec of [`Precision::Rank1`](super::Precision::Rank1).
    ///
    /// # Errors
    /// Those of [`Blockwise::validate`]; [`Error::InvalidHyperparameter`] naming `map` for another
    /// one than [`QuantMap::DynamicLinear`].
    pub fn new(spec: Blockwise) -> Result<Self> {
        spec.validate()?;
        if spec.map != QuantMap::DynamicLinear {
            let found = format!("{:?}", spec.map);
            return Err(invalid("Rank1", "map", "DynamicLinear", found));
        }
        Ok(Self { ties: spec.ties })
    }

    /// Bytes of the codes of `numel` elements.
    pub fn codes_len(&self, numel: usize) -> usize {
        numel.div_ceil(2)
    }

    /// Number of scales of a tensor.
    pub fn scales_len(&self, shape: &[usize]) -> usize {
        shape.iter().fold(0, |sum: usize, &dim| sum.saturating_add(dim))
    }

    fn check<R: Real>(
        &self,
        scales: &Rank1Scales<R>,
        (offset, len): (usize, usize),
        codes: usize,
    ) -> Result<()> {
        // two codes share a byte
        check_length("offset", &[offset], offset.next_multiple_of(2), offset)?;
        check_chunk("chunk", &scales.shape, offset, len)?;
        check_length("codes", &[len], self.codes_len(len), codes)
    }

    /// Decodes the chunk that begins at the even flat index `offset`; `codes` are those of the chunk.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] for an odd offset, elements beyond the end of the tensor, or another
    /// number of codes than the chunk has; nothing was written then.
    pub fn decode<R: Real>(
        &self,
        isa: Isa,
        scales: &Rank1Scales<R>,
        offset: usize,
        codes: &[u8],
        out: &mut [R],
    ) -> Result<()> {
        self.check(scales, (offset, out.len()), codes.len())?;
        self.decode_fitting(isa, scales, offset, codes, out);
        Ok(())
    }

    /// Encodes the chunk that begins at the even flat index `offset`; `codes` are those of the chunk.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn encode<R: Real>(
        &self,
        isa: Isa,
        scales: &Rank1Scales<R>,
        offset: usize,
        x: &[R],
        codes: &mut [u8],
    ) -> Result<()> {
        self.check(scales, (offset, x.len()), codes.len())?;
        self.encode_fitting(isa, scales, offset, x, codes);
        Ok(())
    }

    /// [`decode`](Self::decode) of a chunk that fits.
    pub(crate) fn decode_fitting<R: Real>(
        &self,
        isa: Isa,
        scales: &Rank1Scales<R>,
        offset: usize,
        codes: &[u8],
        out: &mut [R],
    ) {
        debug_assert!(self.check(scales, (offset, out.len()), codes.len()).is_ok());
        isa.run(Decode { scales, offset, codes, out });
    }

    /// [`encode`](Self::encode) of a chunk that fits.
    pub(crate) fn encode_fitting<R: Real>(
        &self,
        isa: Isa,
        scales: &Rank1Scales<R>,
        offset: usize,
        x: &[R],
        codes: &mut [u8],
    ) {
        debug_assert!(self.check(scales, (offset, x.len()), codes.len()).is_ok());
        if self.ties == Ties::Upper {
            isa.run(Encode::<R, true> { scales, offset, x, codes });
        } else {
            isa.run(Encode::<R, false> { scales, offset, x, codes });
        }
    }
}

/// Scales of the elements `offset .. offset + out.len()`.
#[inline(always)]
fn element_scales<R: Real>(scales: &Rank1Scales<R>, offset: usize, out: &mut [R]) {
    let last = scales.last();
    for row in rows(columns(&scales.shape), offset, out.len()) {
        let of_row = scales.of_row(row.row);
        for (out, &of_column) in out[row.place].iter_mut().zip(&last[row.columns]) {
            *out = smaller(of_row, of_column);
        }
    }
}

struct Decode<'a, R> {
    scales: &'a Rank1Scales<R>,
    offset: usize,
    codes: &'a [u8],
    out: &'a mut [R],
}

impl<R: Real> Kernel for Decode<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        element_scales(self.scales, self.offset, self.out);
        let value = |code: u8| widen::<R>((f32::from(code) + 1.0) * (1.0 / 16.0));
        let (pairs, rest) = self.out.as_chunks_mut::<2>();
        for ([first, second], code) in pairs.iter_mut().zip(self.codes) {
            *first *= value(code >> 4);
            *second *= value(code & 15);
        }
        if let ([first], Some(code)) = (rest, self.codes.last()) {
            *first *= value(code >> 4);
        }
    }
}

struct Encode<'a, R, const UPPER: bool> {
    scales: &'a Rank1Scales<R>,
    offset: usize,
    x: &'a [R],
    codes: &'a mut [u8],
}

impl<R: Real, const UPPER: bool> Kernel for Encode<'_, R, UPPER> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let mut scales = [R::zero(); TILE];
        let mut wide = [0_u8; TILE];
        let tiles = self.x.chunks(TILE).zip(self.codes.chunks_mut(TILE / 2));
        for (tile, (x, codes)) in tiles.enumerate() {
            let scales = &mut scales[..x.len()];
            element_scales(self.scales, self.offset + tile * TILE, scales);
            for ((code, x), &scale) in wide.iter_mut().zip(x).zip(&*scales) {
                let y = if scale > R::zero() { *x / scale } else { R::zero() };
                *code = linear_code::<UPPER>(narrow(y));
            }
            super::pack_nibbles(&wide[..x.len()], codes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Precision;
    use super::*;

    fn codec() -> Rank1Codec {
        let Precision::Rank1(spec) = Precision::INT4_LPMM else { unreachable!() };
        Rank1Codec::new(spec).unwrap()
    }

    fn round_trip(shape: &[usize], x: &[f32]) -> Vec<f32> {
        let scales = Rank1Scales::of(shape, x).unwrap();
        let (mut codes, mut out) = (vec![0; x.len().div_ceil(2)], vec![0.0; x.len()]);
        codec().encode(Isa::detect(), &scales, 0, x, &mut codes).unwrap();
        codec().decode(Isa::detect(), &scales, 0, &codes, &mut out).unwrap();
        out
    }

    #[test]
    fn scales_are_the_smaller_of_row_and_column_maximum() {
        let scales = Rank1Scales::of(&[2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 0.0, 1.0]).unwrap();
        assert_eq!(scales.maxima(), [3.0, 4.0, 4.0, 2.0, 3.0]);
        let mut out = [0.0; 6];
        element_scales(&scales, 0, &mut out);
        assert_eq!(out, [3.0, 2.0, 3.0, 4.0, 2.0, 3.0]);
    }

    #[test]
    fn a_zero_row_stays_zero() {
        assert_eq!(round_trip(&[2, 2], &[0.0, 0.0, 1.0, 0.5]), [0.0, 0.0, 1.0, 0.5]);
    }

    #[test]
    fn what_is_not_finite_spoils_only_itself() {
        let out = round_trip(&[2, 2], &[f32::NAN, 0.5, 1.0, 0.5]);
        assert!(out[0].is_nan());
        assert_eq!(out[1..], [0.5, 1.0, 0.5]);
        let out = round_trip(&[2, 2], &[f32::INFINITY, 0.5, 1.0, 0.5]);
        assert_eq!(out, [f32::INFINITY, 0.5, 1.0, 0.5]);
    }
}
