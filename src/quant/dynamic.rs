//! The 8-bit dynamic tree: exact nearest code by one table look-up.

// Indices are masked or clamped to the length of their table.
#![allow(clippy::indexing_slicing)]

use super::code_table::{code_table, thresholds};
use super::quant_map::{QuantMap, Ties};
use super::tile::{Map, TILE, divisor, reciprocal};
use crate::numeric::Real;
use std::sync::LazyLock;

/// Upper halves of the bits of 2⁻²³ and of 1: between them lie all thresholds.
const LOWEST: u32 = 0x3400;
const HIGHEST: u32 = 0x3f80;
/// Number of buckets per sign, a power of two above `HIGHEST − LOWEST`.
const BUCKETS: u32 = 4096;

/// A bucket is the set of `f32` with the same upper 16 bits (sign, exponent, 7 bits of mantissa);
/// it holds at most one threshold. The entry is arranged such that adding the lower 16 bits, counted
/// upwards in `y`, carries into the upper half exactly when the threshold is reached:
/// `code = (entry + low) >> 16`.
struct Tables {
    values: [f32; 256],
    entries: [u32; 2 * BUCKETS as usize],
}

static SIGNED_LOWER: LazyLock<Tables> = LazyLock::new(|| Tables::new(true, Ties::Lower));
static SIGNED_UPPER: LazyLock<Tables> = LazyLock::new(|| Tables::new(true, Ties::Upper));
static UNSIGNED_LOWER: LazyLock<Tables> = LazyLock::new(|| Tables::new(false, Ties::Lower));
static UNSIGNED_UPPER: LazyLock<Tables> = LazyLock::new(|| Tables::new(false, Ties::Upper));

impl Tables {
    fn new(signed: bool, ties: Ties) -> Self {
        let mut tables = Self { values: [0.0; 256], entries: [0; 2 * BUCKETS as usize] };
        // The map exists with 8 bits for both signs.
        let values = code_table(QuantMap::Dynamic, 8, signed).unwrap_or_default();
        tables.values.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        let thresholds = thresholds(values, ties);
        for sign in [0, 1] {
            for upper in LOWEST..=HIGHEST {
                let index = (upper - LOWEST) | (sign * BUCKETS);
                tables.entries[index as usize] = entry(sign, upper, &thresholds);
            }
        }
        tables
    }
}

fn entry(sign: u32, upper: u32, thresholds: &[f32]) -> u32 {
    let flip = sign * 0xffff; // a negative number grows as its magnitude shrinks
    let number = |low: u32| f32::from_bits(sign << 31 | upper << 16 | (low ^ flip));
    let code = |low: u32| thresholds.partition_point(|&t| t <= number(low)) as u32;
    let base = code(0);
    let reached = (0..=16).rev().fold(0, |below, bit| {
        let next = below + (1 << bit);
        if next <= 0x10000 && code(next - 1) == base { next } else { below }
    });
    debug_assert!(code(0xffff) <= base + 1, "two thresholds in one bucket");
    (base << 16) + (0x10000 - reached)
}

/// The codec; `UPPER` for torchao's scaling and ties.
#[derive(Clone, Copy)]
pub(super) struct Dynamic<const UPPER: bool>(&'static Tables);

impl<const UPPER: bool> Dynamic<UPPER> {
    pub(super) fn new(signed: bool) -> Self {
        Self(match (signed, UPPER) {
            (true, false) => &SIGNED_LOWER,
            (true, true) => &SIGNED_UPPER,
            (false, false) => &UNSIGNED_LOWER,
            (false, true) => &UNSIGNED_UPPER,
        })
    }
}

impl<const UPPER: bool> Map for Dynamic<UPPER> {
    const PER_BYTE: usize = 1;
    const WIDEST: bool = false;

    #[inline(always)]
    fn scale<R: Real>(absmax: R) -> (R, [R; 2]) {
        if UPPER { divisor(absmax) } else { reciprocal(absmax) }
    }

    /// The clamp of bitsandbytes needs no code: the buckets end at 1.
    #[inline(always)]
    fn normalize<R: Real>(x: R, [factor, _]: [R; 2]) -> R {
        if UPPER { x / factor } else { x * factor }
    }

    #[inline(always)]
    fn encode(self, y: &[f32; TILE], codes: &mut [u8]) {
        let entries = &self.0.entries;
        for (code, y) in codes.iter_mut().zip(y) {
            let bits = y.to_bits();
            let sign = bits >> 31;
            let upper = (bits >> 16 & 0x7fff).clamp(LOWEST, HIGHEST);
            let low = (bits ^ (bits as i32 >> 31) as u32) & 0xffff;
            let index = ((upper - LOWEST) | (sign * BUCKETS)) & (2 * BUCKETS - 1);
            *code = ((entries[index as usize] + low) >> 16) as u8;
        }
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], values: &mut [f32; TILE]) {
        for (value, code) in values.iter_mut().zip(codes) {
            *value = self.0.values[usize::from(*code)];
        }
    }
}
