//! The numbers that codes of matrices stand for.

use super::super::blockwise::invalid;
use crate::error::Result;
use std::sync::LazyLock;

/// Numbers of bits that a code can have.
pub(super) const BITS: [u8; 3] = [3, 4, 8];

static LINEAR2: LazyLock<[Vec<f64>; 3]> = LazyLock::new(|| BITS.map(linear2));
static DYNAMIC_TREE: LazyLock<[Vec<f64>; 3]> = LazyLock::new(|| BITS.map(dynamic_tree));

/// Which table the codes of a matrix index.
///
/// Neither is symmetric: `linear-2` lacks the negative of its smallest positive level, `dt` lacks −1. With
/// `dt`, a block whose largest entry is negative shrinks a little every time that it is coded.
///
/// ```
/// use eigenstep::quant::MatrixMap;
///
/// let levels = MatrixMap::Linear2.levels(3)?;
/// assert_eq!((levels[0], levels[3], levels[7]), (-1.0, 0.0, 1.0));
/// assert_eq!(MatrixMap::DynamicTree.name(), "dt");
/// # Ok::<(), eigenstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MatrixMap {
    /// `linear-2`, evenly spaced roots with their sign; exact for 0 and both signs of the extreme.
    ///
    /// ```text
    /// u_j = −1 + 2j/(2^b − 1),   R(j) = sign(u_j)·u_j²,   R(2^(b−1) − 1) = 0
    /// ```
    #[default]
    Linear2,
    /// `dt`, the dynamic tree: decade `i` holds the midpoints of `2^i` equal parts of `[0.1, 1]`,
    /// with both signs; then 0 and 1.
    ///
    /// ```text
    /// ± (midpoint k of 2^i parts of [0.1, 1])·10^(i − b + 2),   i = 0 … b − 2
    /// ```
    DynamicTree,
}

impl MatrixMap {
    /// The name in papers: `linear-2` or `dt`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear2 => "linear-2",
            Self::DynamicTree => "dt",
        }
    }

    /// The `2^bits` levels as fractions of the scale, ascending: code `c` stands for `levels[c]`.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`](crate::Error::InvalidHyperparameter) naming `bits`, unless
    /// they are 3, 4 or 8.
    pub fn levels(self, bits: u8) -> Result<&'static [f64]> {
        let tables = match self {
            Self::Linear2 => &*LINEAR2,
            Self::DynamicTree => &*DYNAMIC_TREE,
        };
        let table = BITS.iter().zip(tables).find(|(with, _)| **with == bits);
        let missing = || invalid("MatrixCodec", "bits", "3, 4 or 8", bits.to_string());
        table.map(|(_, levels)| levels.as_slice()).ok_or_else(missing)
    }
}

fn linear2(bits: u8) -> Vec<f64> {
    let last = (1_u32 << bits) - 1;
    let level = |j: u32| {
        let u = -1.0 + f64::from(2 * j) / f64::from(last);
        if j == last / 2 { 0.0 } else { u.signum() * u * u }
    };
    (0..=last).map(level).collect()
}

fn dynamic_tree(bits: u8) -> Vec<f64> {
    let mut levels = vec![0.0, 1.0];
    for decade in 0..bits - 1 {
        let parts = 1_u32 << decade;
        let edge = |k: u32| 0.1 + 0.9 * f64::from(k) / f64::from(parts);
        let power = 1.0 / 10_f64.powi(i32::from(bits - 2 - decade));
        for k in 0..parts {
            let level = 0.5 * (edge(k) + edge(k + 1)) * power;
            levels.extend([level, -level]);
        }
    }
    levels.sort_by(f64::total_cmp);
    levels
}
