//! Levels and thresholds of a map, in the type that a matrix is decoded to.

use super::MatrixCodec;
use super::map::{BITS, MatrixMap};
use crate::numeric::{ByReal, Real};
use crate::quant::tile::narrow;
use std::sync::LazyLock;

/// As many entries as a byte has values, so that no code can lie outside.
#[derive(Debug)]
pub(super) struct Table<R> {
    pub(super) levels: [R; 256],
    /// `thresholds[j]` is the smallest number coded above `j`: the code of `y` is the number of
    /// thresholds that `y` reaches. Infinite beyond the last code.
    pub(super) thresholds: [R; 256],
    /// Thresholds in all buckets before one: where the search for a number of that bucket begins.
    pub(super) first: [u8; BUCKETS],
    /// Thresholds in the bucket that has most.
    pub(super) most: usize,
}

/// Number of intervals that `[−1, 1]` is cut into, for tables of many levels.
pub(super) const BUCKETS: usize = 4096;

/// The interval of `y`, below [`BUCKETS`] for `|y|` up to 1 and a rounding error: intervals are equal
/// for `±√|y|`, of which most levels lie near zero. It never falls where `y` grows, since every single
/// operation is monotone: a threshold in an earlier interval is reached, one in a later one is not.
#[inline(always)]
pub(super) fn bucket<R: Real>(y: R) -> u32 {
    // adding 2²³ rounds to an integer, which then stands in the lowest bits
    const INTEGERS: f32 = 8_388_608.0;
    let y = narrow(y);
    let place = (y.abs().sqrt().copysign(y) + 1.0) * ((BUCKETS - 1) as f32 / 2.0);
    (place + INTEGERS).to_bits() & (BUCKETS - 1) as u32
}

impl<R: Real> Table<R> {
    /// `up` is the next larger number.
    fn new(levels: &[f64], up: fn(R) -> R) -> Self {
        let (zeros, none) = ([R::zero(); 256], [R::infinity(); 256]);
        let mut table = Self { levels: zeros, thresholds: none, first: [0; BUCKETS], most: 0 };
        for (to, level) in table.levels.iter_mut().zip(levels) {
            *to = R::of(*level);
        }
        let pairs = table.levels.iter().zip(table.levels.iter().skip(1)).take(levels.len() - 1);
        for ((j, threshold), (low, high)) in table.thresholds.iter_mut().enumerate().zip(pairs) {
            // exact for `f32`; a number in the middle has the even one of the two codes
            let middle = 0.5 * (low.widen() + high.widen());
            let nearest = R::of(middle);
            let above = nearest.widen() > middle || nearest.widen() == middle && j % 2 == 1;
            *threshold = if above { nearest } else { up(nearest) };
        }
        let places = table.thresholds.map(|t| t.is_finite().then(|| bucket(t)));
        let mut reached = 0;
        for (place, first) in (0..).zip(&mut table.first) {
            *first = reached as u8;
            let here = places.iter().filter(|p| **p == Some(place)).count();
            (reached, table.most) = (reached + here, table.most.max(here));
        }
        table
    }

    /// The tables of one map with 3, 4 and 8 bits.
    fn all(map: MatrixMap, up: fn(R) -> R) -> [Self; 3] {
        BITS.map(|bits| Self::new(map.levels(bits).unwrap_or(&[0.0]), up))
    }
}

struct TableOf(MatrixCodec);

macro_rules! arm {
    ($real:ident) => {
        fn $real(self) -> &'static Table<$real> {
            static LINEAR2: LazyLock<[Table<$real>; 3]> =
                LazyLock::new(|| Table::all(MatrixMap::Linear2, $real::next_up));
            static DYNAMIC_TREE: LazyLock<[Table<$real>; 3]> =
                LazyLock::new(|| Table::all(MatrixMap::DynamicTree, $real::next_up));
            let [three, four, eight] = match self.0.map {
                MatrixMap::Linear2 => &*LINEAR2,
                MatrixMap::DynamicTree => &*DYNAMIC_TREE,
            };
            match self.0.bits {
                3 => three,
                4 => four,
                _ => eight,
            }
        }
    };
}

impl ByReal for TableOf {
    type Output<R: Real> = &'static Table<R>;
    arm!(f32);
    arm!(f64);
}

/// The table of a valid codec.
pub(super) fn table<R: Real>(codec: MatrixCodec) -> &'static Table<R> {
    R::choose(TableOf(codec))
}
