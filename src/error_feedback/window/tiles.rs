//! Sparse rows are divided into tiles; this is where the entries of each tile start.

use crate::kernel::CHUNK;
use std::ops::Range;

/// Elements of a tile, which is also a unit of work. Positions count from the start of their tile, so
/// 16 bits suffice for vectors of any length. A tile of a direction fits into the second-level cache.
pub(super) const TILE: usize = CHUNK;

/// Number of tiles that share one `start` of four bytes.
const SHARING: usize = 8;

/// The number of entries of each row in each tile.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    /// Number of tiles per row.
    tiles: usize,
    /// All groups, row by row.
    groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Number of entries of the row before this group.
    start: u32,
    counts: [u16; SHARING],
}

impl Tiles {
    pub fn new(rows: usize, numel: usize) -> Self {
        let tiles = numel.div_ceil(TILE);
        Self { tiles, groups: vec![Group::default(); rows * tiles.div_ceil(SHARING)] }
    }

    /// Number of tiles per row.
    pub fn len(&self) -> usize {
        self.tiles
    }

    fn row(&self, slot: usize) -> Range<usize> {
        let groups = self.tiles.div_ceil(SHARING);
        slot * groups..(slot + 1) * groups
    }

    /// The range of the entries in a tile, counted from the first entry of the row.
    #[inline(always)]
    pub fn entries(&self, slot: usize, tile: usize) -> Range<usize> {
        let group = self.groups.get(self.row(slot)).and_then(|row| row.get(tile / SHARING));
        let Some(Group { start, counts }) = group else { return 0..0 };
        let own = tile % SHARING;
        let earlier = counts.iter().enumerate();
        let earlier = earlier.map(|(i, &count)| if i < own { u32::from(count) } else { 0 });
        let start = (start + earlier.sum::<u32>()) as usize;
        start..start + counts.get(own).map_or(0, |&count| count.into())
    }

    /// Records the entries of a piece of the vector: `len` elements from `base` on. The pieces of a
    /// row come in order. `indices` ascend and count from the start of the piece. `filled` is the
    /// number of entries of earlier pieces.
    pub fn note(
        &mut self,
        slot: usize,
        (filled, base): (usize, usize),
        indices: &[u32],
        len: usize,
    ) {
        let range = self.row(slot);
        let row = self.groups.get_mut(range).unwrap_or_default();
        let mut noted = 0;
        for tile in base / TILE..(base + len).div_ceil(TILE) {
            let Some(group) = row.get_mut(tile / SHARING) else { return };
            let begin = tile * TILE;
            if tile % SHARING == 0 && begin >= base {
                *group = Group { start: (filled + noted) as u32, ..Group::default() };
            }
            let rest = indices.get(noted..).unwrap_or_default();
            let inside = rest.partition_point(|&index| base + (index as usize) < begin + TILE);
            if let Some(count) = group.counts.get_mut(tile % SHARING) {
                *count = count.wrapping_add(inside as u16);
            }
            noted += inside;
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(self.groups.as_slice())
    }

    /// The number of entries of every tile, row by row.
    pub fn counts(&self) -> Vec<u8> {
        let rows = self.groups.chunks(self.tiles.div_ceil(SHARING).max(1));
        let counts =
            rows.flat_map(|row| row.iter().flat_map(|group| group.counts).take(self.tiles));
        counts.flat_map(u16::to_le_bytes).collect()
    }

    /// Tiles with these numbers of entries; `None` if there is not one number per tile, or if a row
    /// has more entries than fit.
    pub fn with_counts(rows: usize, numel: usize, kept: usize, counts: &[u8]) -> Option<Self> {
        let (counts, rest) = counts.as_chunks();
        let tiles = numel.div_ceil(TILE);
        // the lengths are checked before memory is allocated
        if !rest.is_empty() || Some(counts.len()) != rows.checked_mul(tiles) {
            return None;
        }
        let mut held = Self::new(rows, numel);
        for (slot, counts) in counts.chunks(tiles.max(1)).enumerate() {
            let mut start = 0;
            let range = held.row(slot);
            let groups = held.groups.get_mut(range).unwrap_or_default();
            for (group, counts) in groups.iter_mut().zip(counts.chunks(SHARING)) {
                group.start = start;
                for (to, &count) in group.counts.iter_mut().zip(counts) {
                    *to = u16::from_le_bytes(count);
                    start = start.checked_add((*to).into())?;
                }
            }
            if start as usize > kept {
                return None;
            }
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::{TILE, Tiles};

    /// Rows in pieces of any length, also written again, and from their counts.
    #[test]
    fn entries_are_found_where_they_were_noted() {
        let numel = 21 * TILE + 5;
        let mut tiles = Tiles::new(2, numel);
        for (slot, step, piece) in [(0, 7, numel), (1, 3, 1000), (1, 1000, TILE + 1), (1, 11, 4096)]
        {
            let all: Vec<usize> = (0..numel).step_by(step).collect();
            let mut filled = 0;
            for base in (0..numel).step_by(piece) {
                let len = piece.min(numel - base);
                let own = all.iter().filter(|&&i| (base..base + len).contains(&i));
                let indices: Vec<u32> = own.map(|i| (i - base) as u32).collect();
                tiles.note(slot, (filled, base), &indices, len);
                filled += indices.len();
            }
            let kept = all.len().max(numel.div_ceil(7));
            let again = Tiles::with_counts(2, numel, kept, &tiles.counts());
            for tile in 0..tiles.len() {
                let before = |limit: usize| all.partition_point(|&i| i < limit);
                let expected = before(tile * TILE)..before((tile + 1) * TILE);
                assert_eq!(tiles.entries(slot, tile), expected.clone(), "{tile} of {slot}");
                assert_eq!(again.as_ref().map(|tiles| tiles.entries(slot, tile)), Some(expected));
            }
            assert!(Tiles::with_counts(2, numel, filled - 1, &tiles.counts()).is_none());
        }
        assert_eq!(tiles.entries(0, 1000), 0..0);
        assert!(Tiles::with_counts(2, numel, numel, &[0; 7]).is_none());
    }
}
