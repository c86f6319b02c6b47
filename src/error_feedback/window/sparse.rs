//! Sparse rows: a fixed number of elements of each.

use super::tiles::{TILE, Tiles};
use crate::error::Result;
use crate::kernel::scratch::with_scratch;
use crate::kernel::{Isa, parallel};
use crate::numeric::Real;
use crate::quant::{bf16_value, decode_bf16, encode_bf16};
use crate::state::{Lookup, Record, StateTensor};
use std::ops::Range;

/// Number of accumulators of an inner product. A single one would wait for every addition.
const SUMS: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct SparseRows<R> {
    numel: usize,
    /// Number of entries per row.
    kept: usize,
    /// The position of every entry in its tile, ascending.
    indices: Vec<u16>,
    values: Values<R>,
    tiles: Tiles,
}

#[derive(Clone, Debug)]
enum Values<R> {
    Full(Vec<R>),
    Bf16(Vec<u16>),
}

impl<R: Real> SparseRows<R> {
    pub fn new(capacity: usize, numel: usize, kept: usize, bf16: bool) -> Self {
        let entries = capacity * kept;
        let values = match bf16 {
            true => Values::Bf16(vec![0; entries]),
            false => Values::Full(vec![R::zero(); entries]),
        };
        Self { numel, kept, indices: vec![0; entries], values, tiles: Tiles::new(capacity, numel) }
    }

    /// The entries of a row in a tile.
    #[inline(always)]
    fn entries(&self, slot: usize, tile: usize) -> Range<usize> {
        let Range { start, end } = self.tiles.entries(slot, tile);
        slot * self.kept + start..slot * self.kept + end
    }

    /// Stores elements of a piece of the vector that starts at `base`. In `vector` each of them is
    /// replaced by its rounding error. `indices` count from the start of the piece. `filled` is the
    /// number of entries of earlier pieces.
    pub fn store(
        &mut self,
        slot: usize,
        (filled, base): (usize, usize),
        indices: &[u32],
        vector: &mut [R],
    ) {
        let row = slot * self.kept + filled..slot * self.kept + filled + indices.len();
        self.tiles.note(slot, (filled, base), indices, vector.len());
        let places = self.indices.get_mut(row.clone()).unwrap_or_default();
        for (place, &index) in places.iter_mut().zip(indices) {
            *place = ((base + index as usize) % TILE) as u16;
        }
        with_scratch::<R, _>(2 * indices.len(), |scratch| {
            let (exact, stored) = scratch.split_at_mut(indices.len());
            for (value, &index) in exact.iter_mut().zip(indices) {
                *value = vector.get(index as usize).copied().unwrap_or(R::zero());
            }
            match &mut self.values {
                Values::Full(values) => {
                    let values = values.get_mut(row).unwrap_or_default();
                    values.iter_mut().zip(&*exact).for_each(|(value, &x)| *value = x);
                    stored.copy_from_slice(exact);
                }
                Values::Bf16(codes) => {
                    let codes = codes.get_mut(row).unwrap_or_default();
                    encode_bf16(Isa::detect(), exact, codes);
                    // a finite number too large for 16 bits becomes the largest; the rest is feedback
                    for (code, x) in codes.iter_mut().zip(&*exact) {
                        *code -= u16::from(*code & 0x7fff == 0x7f80 && x.is_finite());
                    }
                    decode_bf16(Isa::detect(), codes, stored);
                }
            }
            for ((&index, &x), &y) in indices.iter().zip(&*exact).zip(&*stored) {
                if let Some(rest) = vector.get_mut(index as usize) {
                    *rest = x - y;
                }
            }
        });
    }

    /// Calls `f(place, value)` for the entries of a range.
    #[inline(always)]
    fn visit(&self, entries: Range<usize>, mut f: impl FnMut(usize, R)) {
        let places = self.indices.get(entries.clone()).unwrap_or_default();
        match &self.values {
            Values::Full(values) => {
                let values = values.get(entries).unwrap_or_default();
                places.iter().zip(values).for_each(|(&place, &value)| f(place.into(), value));
            }
            Values::Bf16(codes) => {
                let codes = codes.get(entries).unwrap_or_default();
                let pairs = places.iter().zip(codes);
                pairs.for_each(|(&place, &code)| f(place.into(), bf16_value(code)));
            }
        }
    }

    /// Calls `f(place, value)` for every stored element `offset + place` of a range, `place < len`.
    #[inline]
    pub fn each(&self, slot: usize, offset: usize, len: usize, mut f: impl FnMut(usize, R)) {
        let end = offset + len;
        for tile in offset / TILE..end.div_ceil(TILE) {
            let begin = tile * TILE;
            let mut entries = self.entries(slot, tile);
            // if only a piece of a tile is wanted, the entries before and after it are skipped
            let places = self.indices.get(entries.clone()).unwrap_or_default();
            let before =
                |limit: usize| places.partition_point(|&place| begin + usize::from(place) < limit);
            let skipped = if begin < offset { before(offset) } else { 0 };
            if begin + TILE > end {
                entries.end = entries.start + before(end);
            }
            entries.start += skipped;
            self.visit(entries, |place, value| f((begin + place).wrapping_sub(offset), value));
        }
    }

    /// Adds the elements `offset .. offset + out.len()` of `Σ cᵢ gᵢ` to `out`, row by row.
    pub fn combine(&self, coefficients: &[f64], offset: usize, out: &mut [R]) {
        for (slot, &c) in coefficients.iter().enumerate().filter(|(_, c)| **c != 0.0) {
            let c = R::of(c);
            self.each(slot, offset, out.len(), |place, value| {
                if let Some(x) = out.get_mut(place) {
                    *x += c * value;
                }
            });
        }
    }

    /// `⟨gᵢ, v⟩` for the first `count` rows, with one unit of work per tile. The sums of the tiles
    /// are added in order; a tile has [`SUMS`] accumulators.
    pub fn products(&self, count: usize, load: &(dyn Fn(usize, &mut [R]) + Sync)) -> Vec<f64> {
        let mut sums = vec![0.0; self.tiles.len() * count];
        let mut units: Vec<_> = sums.chunks_mut(count.max(1)).enumerate().collect();
        parallel::for_each(&mut units, count * self.kept, |(tile, sums)| {
            let begin = *tile * TILE;
            with_scratch::<R, _>(TILE, |v| {
                load(begin, v.get_mut(..TILE.min(self.numel - begin)).unwrap_or_default());
                for (slot, sum) in sums.iter_mut().enumerate() {
                    let entries = self.entries(slot, *tile);
                    let places = self.indices.get(entries.clone()).unwrap_or_default();
                    *sum = match &self.values {
                        Values::Full(values) => {
                            dot(places, values.get(entries).unwrap_or_default(), |value| value, v)
                        }
                        Values::Bf16(codes) => {
                            dot(places, codes.get(entries).unwrap_or_default(), bf16_value, v)
                        }
                    };
                }
            });
        });
        let mut totals = vec![0.0; count];
        for sums in sums.chunks(count.max(1)) {
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        totals
    }

    pub fn products_with_row(&self, count: usize, slot: usize) -> Vec<f64> {
        self.products(count, &|offset, out| {
            out.fill(R::zero());
            self.each(slot, offset, out.len(), |place, value| {
                if let Some(x) = out.get_mut(place) {
                    *x = value;
                }
            });
        })
    }

    pub fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Full(values) => size_of_val(values.as_slice()),
            Values::Bf16(codes) => size_of_val(codes.as_slice()),
        };
        values + size_of_val(self.indices.as_slice()) + self.tiles.bytes()
    }

    pub fn save(&self, record: &mut Record<'_>) {
        let bytes = |words: &[u16]| -> Vec<u8> {
            words.iter().copied().flat_map(u16::to_le_bytes).collect()
        };
        record.tensor("indices", StateTensor::codes(&bytes(&self.indices)));
        record.tensor("counts", StateTensor::codes(&self.tiles.counts()));
        match &self.values {
            Values::Full(values) => {
                record.tensor("values", StateTensor::new(&[values.len()], values));
            }
            Values::Bf16(codes) => record.tensor("codes", StateTensor::codes(&bytes(codes))),
        }
    }

    pub fn load(
        capacity: usize,
        numel: usize,
        (kept, bf16): (usize, bool),
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        let entries = capacity.saturating_mul(kept);
        let words = |name: &str| -> Result<Vec<u16>> {
            let bytes = lookup.codes(name)?;
            if bytes.len() != entries.saturating_mul(2) {
                let found = bytes.len();
                let text = format!("expected {entries} numbers of 2 bytes, found {found} bytes");
                return Err(lookup.problem(name, text));
            }
            Ok(bytes.as_chunks().0.iter().map(|&word| u16::from_le_bytes(word)).collect())
        };
        let indices = words("indices")?;
        let values = match bf16 {
            true => Values::Bf16(words("codes")?),
            false => Values::Full(lookup.values("values", &[entries])?),
        };
        let counts = lookup.codes("counts")?;
        let tiles = Tiles::with_counts(capacity, numel, kept, &counts);
        let tiles =
            tiles.ok_or_else(|| lookup.problem("counts", "do not fit the rows and tiles"))?;
        let rows = Self { numel, kept, indices, values, tiles };
        match (0..capacity).find(|&slot| !rows.is_sound(slot)) {
            Some(slot) => Err(lookup.problem("indices", format!("row {slot} does not ascend"))),
            None => Ok(rows),
        }
    }

    /// Whether the indices of every tile ascend and lie inside the vector.
    fn is_sound(&self, slot: usize) -> bool {
        (0..self.tiles.len()).all(|tile| {
            let places = self.indices.get(self.entries(slot, tile)).unwrap_or_default();
            let length = TILE.min(self.numel - tile * TILE);
            places.is_sorted_by(|a, b| a < b)
                && places.last().is_none_or(|&last| usize::from(last) < length)
        })
    }
}

/// `Σ decode(value)·v[place]`, with several accumulators. `v` has the elements of a tile.
#[inline(always)]
fn dot<R: Real, V: Copy>(places: &[u16], values: &[V], decode: impl Fn(V) -> R, v: &[R]) -> f64 {
    let Some(v) = v.first_chunk::<TILE>() else { return 0.0 };
    // every place is inside of its tile; with the remainder the compiler needs no check
    let term = |place: u64, value: V| {
        decode(value).widen() * v.get(place as usize % TILE).map_or(0.0, |x| x.widen())
    };
    let mut sums = [0.0; SUMS];
    let (places, last_places) = places.as_chunks::<SUMS>();
    let (values, last_values) = values.as_chunks::<SUMS>();
    for (places, values) in places.iter().zip(values) {
        // shifts of one word: extracting the places from a vector register would take most of the time
        let mut places = places.iter().rev().fold(0, |word, &place| word << 16 | u64::from(place));
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum += term(places, value);
            places >>= 16;
        }
    }
    for ((sum, &place), &value) in sums.iter_mut().zip(last_places).zip(last_values) {
        *sum += term(place.into(), value);
    }
    sums.iter().sum()
}
