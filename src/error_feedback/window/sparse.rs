//! Rows of which a fixed number of elements is kept.

use crate::error::Result;
use crate::kernel::scratch::with_scratch;
use crate::kernel::{Isa, parallel};
use crate::numeric::Real;
use crate::quant::{bf16_value, decode_bf16, encode_bf16};
use crate::state::{Lookup, Record, StateTensor};
use std::ops::Range;

/// Elements of a tile. Indices count from the beginning of their tile, so that 16 bits suffice for
/// vectors of any length, and a tile of a direction stays in the second-level cache.
const TILE: usize = 32_768;

#[derive(Debug)]
pub(super) struct SparseRows<R> {
    numel: usize,
    /// Entries of each row.
    kept: usize,
    /// Of every entry, the place in its tile; ascending within the vector.
    indices: Vec<u16>,
    values: Values<R>,
    /// Where each tile begins among the entries of its row, and where the last one ends.
    starts: Vec<u32>,
}

#[derive(Debug)]
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
        let starts = vec![0; capacity * (numel.div_ceil(TILE) + 1)];
        Self { numel, kept, indices: vec![0; entries], values, starts }
    }

    fn tiles(&self) -> usize {
        self.numel.div_ceil(TILE)
    }

    fn starts(&self, slot: usize) -> &[u32] {
        let stride = self.tiles() + 1;
        self.starts.get(slot * stride..(slot + 1) * stride).unwrap_or_default()
    }

    /// Entries of a row that lie in a tile.
    fn entries(&self, slot: usize, tile: usize) -> Range<usize> {
        match self.starts(slot).get(tile..tile + 2) {
            Some(&[first, end]) => {
                slot * self.kept + first as usize..slot * self.kept + end as usize
            }
            _ => 0..0,
        }
    }

    /// Takes elements out of a piece of the vector that begins at `base`, and leaves there what
    /// rounding has lost. `indices` count from the beginning of the piece; `filled` entries of the
    /// row are those of earlier pieces.
    pub fn store(
        &mut self,
        slot: usize,
        (filled, base): (usize, usize),
        indices: &[u32],
        vector: &mut [R],
    ) {
        let row = slot * self.kept + filled..slot * self.kept + filled + indices.len();
        let (stride, end) = (self.tiles() + 1, base + vector.len());
        let starts = self.starts.get_mut(slot * stride..(slot + 1) * stride).unwrap_or_default();
        for (tile, start) in starts.iter_mut().enumerate() {
            let begin = tile * TILE;
            if begin >= base && (begin < end || end == self.numel) {
                let before = indices.partition_point(|&index| base + (index as usize) < begin);
                *start = (filled + before) as u32;
            }
        }
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
            // a piece of a tile: the entries before and behind it are passed over
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

    /// `⟨gᵢ, v⟩` for the first `count` rows: one unit per tile, added in the order of the tiles;
    /// within a tile in that of the entries.
    pub fn products(&self, count: usize, load: &(dyn Fn(usize, &mut [R]) + Sync)) -> Vec<f64> {
        let mut sums = vec![0.0; self.tiles() * count];
        let mut units: Vec<_> = sums.chunks_mut(count.max(1)).enumerate().collect();
        parallel::for_each(&mut units, count * self.kept, |(tile, sums)| {
            let begin = *tile * TILE;
            with_scratch::<R, _>(TILE.min(self.numel - begin), |v| {
                load(begin, v);
                for (slot, sum) in sums.iter_mut().enumerate() {
                    self.visit(self.entries(slot, *tile), |place, value| {
                        let x = v.get(place).copied().unwrap_or(R::zero());
                        *sum += value.widen() * x.widen();
                    });
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
        values + size_of_val(self.indices.as_slice()) + size_of_val(self.starts.as_slice())
    }

    pub fn save(&self, record: &mut Record<'_>) {
        let bytes = |words: &[u16]| -> Vec<u8> {
            words.iter().copied().flat_map(u16::to_le_bytes).collect()
        };
        record.tensor("indices", StateTensor::codes(&bytes(&self.indices)));
        let starts: Vec<u8> = self.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        record.tensor("starts", StateTensor::codes(&starts));
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
        let bytes = lookup.codes("starts")?;
        let starts: Vec<u32> =
            bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect();
        let rows = Self { numel, kept, indices, values, starts };
        if rows.starts.len() != capacity.saturating_mul(rows.tiles() + 1) {
            return Err(lookup.problem("starts", "does not fit the number of rows and tiles"));
        }
        match (0..capacity).find(|&slot| !rows.is_sound(slot)) {
            Some(slot) => Err(lookup.problem("indices", format!("row {slot} does not ascend"))),
            None => Ok(rows),
        }
    }

    /// Whether starts and indices ascend, and stay inside the vector.
    fn is_sound(&self, slot: usize) -> bool {
        let starts = self.starts(slot);
        let inside = starts.last().is_none_or(|&end| end as usize <= self.kept);
        starts.is_sorted()
            && inside
            && (0..self.tiles()).all(|tile| {
                let places = self.indices.get(self.entries(slot, tile)).unwrap_or_default();
                let length = TILE.min(self.numel - tile * TILE);
                places.is_sorted_by(|a, b| a < b)
                    && places.last().is_none_or(|&last| usize::from(last) < length)
            })
    }
}
