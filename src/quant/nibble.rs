//! The 4-bit maps: 16 codes, 15 thresholds, two codes per byte.

// Indices are bytes into tables of 256 entries.
#![allow(clippy::indexing_slicing)]

use super::code_table::{code_table, thresholds};
use super::pack::pack_nibbles;
use super::quant_map::{QuantMap, Ties};
use super::tile::{Map, TILE, divisor, reciprocal};
use crate::numeric::Real;
use std::sync::LazyLock;

/// The thresholds, and for every byte the two values that it stands for.
pub(super) struct NibbleTable {
    thresholds: [f32; 15],
    /// The bits of the positive thresholds, minus 1; signed tables only.
    steps: [i32; 8],
    pairs: [[f32; 2]; 256],
}

static SIGNED_LOWER: LazyLock<NibbleTable> = LazyLock::new(|| NibbleTable::new(true, Ties::Lower));
static SIGNED_UPPER: LazyLock<NibbleTable> = LazyLock::new(|| NibbleTable::new(true, Ties::Upper));
static UNSIGNED_LOWER: LazyLock<NibbleTable> =
    LazyLock::new(|| NibbleTable::new(false, Ties::Lower));
static UNSIGNED_UPPER: LazyLock<NibbleTable> =
    LazyLock::new(|| NibbleTable::new(false, Ties::Upper));

impl NibbleTable {
    fn new(signed: bool, ties: Ties) -> Self {
        // The map exists with 4 bits for both signs.
        let values = code_table(QuantMap::Dynamic, 4, signed).unwrap_or_default();
        let mut table = Self { thresholds: [0.0; 15], steps: [0; 8], pairs: [[0.0; 2]; 256] };
        table.thresholds.iter_mut().zip(thresholds(values, ties)).for_each(|(to, from)| *to = from);
        let positive = table.thresholds.iter().skip(7);
        for (step, threshold) in table.steps.iter_mut().zip(positive) {
            *step = threshold.to_bits() as i32 - 1;
        }
        for (byte, pair) in table.pairs.iter_mut().enumerate() {
            *pair =
                [byte >> 4, byte & 15].map(|code| values.get(code).copied().unwrap_or_default());
        }
        table
    }

    /// The dynamic table.
    pub(super) fn of(signed: bool, ties: Ties) -> &'static Self {
        match (signed, ties) {
            (true, Ties::Upper) => &SIGNED_UPPER,
            (true, _) => &SIGNED_LOWER,
            (false, Ties::Upper) => &UNSIGNED_UPPER,
            (false, _) => &UNSIGNED_LOWER,
        }
    }
}

/// Any table of 16 values; `UPPER` for torchao's scaling and ties.
#[derive(Clone, Copy)]
pub(super) struct Nibble<const UPPER: bool>(&'static NibbleTable);

impl<const UPPER: bool> Nibble<UPPER> {
    pub(super) fn new(table: &'static NibbleTable) -> Self {
        Self(table)
    }
}

impl<const UPPER: bool> Map for Nibble<UPPER> {
    const PER_BYTE: usize = 2;

    #[inline(always)]
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]) {
        if UPPER { divisor(absmax) } else { reciprocal(absmax) }
    }

    /// The clamp of bitsandbytes needs no code: beyond the last threshold the code is the last.
    #[inline(always)]
    fn normalize<R: Real>(x: R, [factor, _]: [R; 2]) -> R {
        if UPPER { x / factor } else { x * factor }
    }

    #[inline(always)]
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]) {
        let thresholds = self.0.thresholds;
        let mut counts = [0_u32; TILE];
        for (count, y) in counts.iter_mut().zip(y) {
            *count = thresholds.iter().map(|t| u32::from(y >= t)).sum();
        }
        pack_wide(&counts, codes);
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]) {
        for (pair, code) in values.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            *pair = self.0.pairs[usize::from(*code)];
        }
    }
}

/// Which magnitudes torchao does not treat alike for both signs: there the residual of the middle is
/// rounded up for both, and the negative threshold lies one unit in the last place nearer to 0.
const ROUNDED_UP: [bool; 7] = [false, false, true, false, true, false, true];

/// The signed dynamic table: 0, seven magnitudes of both signs, and 1; half the comparisons of
/// [`Nibble`], with the same result.
#[derive(Clone, Copy)]
pub(super) struct SignedNibble<const UPPER: bool>(&'static NibbleTable);

impl<const UPPER: bool> SignedNibble<UPPER> {
    pub(super) fn new(table: &'static NibbleTable) -> Self {
        Self(table)
    }
}

impl<const UPPER: bool> Map for SignedNibble<UPPER> {
    const PER_BYTE: usize = 2;
    const WIDEST: bool = false;

    #[inline(always)]
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]) {
        Nibble::<UPPER>::scale(absmax)
    }

    #[inline(always)]
    fn normalize<R: Real>(x: R, factors: [R; 2]) -> R {
        Nibble::<UPPER>::normalize(x, factors)
    }

    /// Magnitudes are compared as the integers of their bits. A tie goes to the same side for both
    /// signs, so to the smaller magnitude for one and to the larger for the other: one unit in the
    /// last place more or less.
    #[inline(always)]
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]) {
        let [steps @ .., last] = self.0.steps;
        let mut wide = [0_u32; TILE];
        for (code, y) in wide.iter_mut().zip(y) {
            let bits = y.to_bits() as i32;
            let sign = bits >> 31;
            let exact = bits & i32::MAX;
            let shifted = if UPPER { exact + sign } else { exact - sign };
            let count: i32 = (steps.iter().zip(ROUNDED_UP))
                .map(|(step, rounded)| {
                    let magnitude = if UPPER && rounded { exact } else { shifted };
                    i32::from(magnitude > *step)
                })
                .sum();
            *code = (7 + ((count ^ sign) - sign) + i32::from(bits > last)) as u32;
        }
        pack_wide(&wide, codes);
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]) {
        Nibble::<UPPER>(self.0).decode(codes, values);
    }
}

#[inline(always)]
fn pack_wide(wide: &[u32; TILE], codes: &mut [u8]) {
    let mut narrow = [0_u8; TILE];
    let rows = wide.as_chunks::<32>().0;
    for (narrow, wide) in narrow.as_chunks_mut::<32>().0.iter_mut().zip(rows) {
        *narrow = wide.map(|code| code as u8);
    }
    pack_nibbles(&narrow, codes);
}

/// `(c + 1)/16`, by arithmetic; `UPPER` for torchao's scaling and ties.
#[derive(Clone, Copy)]
pub(super) struct LinearNibble<const UPPER: bool>;

impl<const UPPER: bool> Map for LinearNibble<UPPER> {
    const PER_BYTE: usize = 2;

    #[inline(always)]
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]) {
        if UPPER { divisor(absmax) } else { reciprocal(absmax) }
    }

    #[inline(always)]
    fn normalize<R: Real>(x: R, [factor, _]: [R; 2]) -> R {
        if UPPER { x / factor } else { x * factor }
    }

    #[inline(always)]
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]) {
        let mut wide = [0_u8; TILE];
        for (code, y) in wide.iter_mut().zip(y) {
            *code = linear_code::<UPPER>(*y);
        }
        pack_nibbles(&wide, codes);
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]) {
        for (pair, code) in values.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            *pair = [*code >> 4, *code & 15].map(|code| (f32::from(code) + 1.0) * (1.0 / 16.0));
        }
    }
}

/// The nearest `c` to `16·y − 1` in `0..=15`, ties up or down. Products and differences here are
/// exact, so the tie is recognised exactly.
#[inline(always)]
pub(super) fn linear_code<const UPPER: bool>(y: f32) -> u8 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³
    let z = y * 16.0;
    let z = if z > 1.0 { z } else { 1.0 };
    let z = if z < 16.0 { z } else { 16.0 };
    let shifted = z + ROUND;
    let rest = z - (shifted - ROUND);
    let tie = if UPPER { u32::from(rest >= 0.5) } else { u32::from(rest <= -0.5) };
    let nearest = shifted.to_bits() & 31;
    (if UPPER { nearest + tie } else { nearest - tie } - 1) as u8
}
