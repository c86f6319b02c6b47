//! Levels and thresholds of a map, in the type that a matrix is decoded to.

use super::MatrixCodec;
use super::map::{BITS, MatrixMap};
use crate::numeric::{ByReal, Real};
use std::sync::LazyLock;

/// As many entries as a byte has values, so that no code can lie outside.
#[derive(Debug)]
pub(super) struct Table<R> {
    pub(super) levels: [R; 256],
    /// `thresholds[j]` is the smallest number coded above `j`: the code of `y` is the number of
    /// thresholds that `y` reaches. Infinite beyond the last code.
    pub(super) thresholds: [R; 256],
}

impl<R: Real> Table<R> {
    /// `up` is the next larger number.
    fn new(levels: &[f64], up: fn(R) -> R) -> Self {
        let mut table = Self { levels: [R::zero(); 256], thresholds: [R::infinity(); 256] };
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
