//! The numbers that codes stand for, and the thresholds between them.

use super::quant_map::{QuantMap, Ties};
use crate::error::{Error, Result};
use std::sync::LazyLock;

static LINEAR_SIGNED_8: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..255).map(|code| (code as f32 - 127.0) * (1.0 / 127.0)).collect());
static LINEAR_UNSIGNED_8: LazyLock<Vec<f32>> =
    LazyLock::new(|| (1..=256).map(|root| (root as f32 / 256.0).powi(2)).collect());
static DYNAMIC_SIGNED_8: LazyLock<Vec<f32>> = LazyLock::new(|| dynamic(7, true));
static DYNAMIC_UNSIGNED_8: LazyLock<Vec<f32>> = LazyLock::new(|| dynamic(7, false));
static DYNAMIC_SIGNED_4: LazyLock<Vec<f32>> = LazyLock::new(|| dynamic(3, true));
static DYNAMIC_UNSIGNED_4: LazyLock<Vec<f32>> = LazyLock::new(|| dynamic(3, false));
static LINEAR_UNSIGNED_4: LazyLock<Vec<f32>> =
    LazyLock::new(|| (1..=16).map(|code| code as f32 / 16.0).collect());

/// The value of every code of a map, ascending, as a fraction of the scale: code `c` stands for
/// `code_table(map, bits, signed)?[c] · scale`.
///
/// | map | bits | signed | unsigned |
/// |---|---|---|---|
/// | `Linear` | 8 | `(c − 127)/127`, `c = 0..=254` | `((c + 1)/256)²` |
/// | `Dynamic` | 8 | bitsandbytes' dynamic tree, 7 decades | the same without a sign |
/// | `Dynamic` | 4 | dynamic tree of 3 decades (torchao, lpmm) | the same without a sign |
/// | `DynamicLinear` | 4 | dynamic tree of 3 decades | `(c + 1)/16` |
///
/// # Errors
/// [`Error::InvalidHyperparameter`] for a map that does not exist with so many bits.
pub fn code_table(map: QuantMap, bits: u8, signed: bool) -> Result<&'static [f32]> {
    Ok(match (map, bits, signed) {
        (QuantMap::Linear, 8, true) => &LINEAR_SIGNED_8,
        (QuantMap::Linear, 8, false) => &LINEAR_UNSIGNED_8,
        (QuantMap::Dynamic, 8, true) => &DYNAMIC_SIGNED_8,
        (QuantMap::Dynamic, 8, false) => &DYNAMIC_UNSIGNED_8,
        (QuantMap::Dynamic | QuantMap::DynamicLinear, 4, true) => &DYNAMIC_SIGNED_4,
        (QuantMap::Dynamic, 4, false) => &DYNAMIC_UNSIGNED_4,
        (QuantMap::DynamicLinear, 4, false) => &LINEAR_UNSIGNED_4,
        _ => {
            return Err(Error::InvalidHyperparameter {
                optimizer: "Blockwise",
                field: "bits",
                expected: format!("{} for the map {map:?}", map.admissible_bits()),
                found: bits.to_string(),
            });
        }
    })
}

/// The dynamic tree: decade `i` holds the midpoints of `linspace(0.1, 1, n + 1)` times
/// `10^(i − decades + 1)`, with `n = 2^i` points for each sign or `2^(i + 1)` without sign; then 0
/// and 1. In `f32`, with the multiply-add of `linspace` rounded once, as PyTorch computes it.
fn dynamic(decades: u32, signed: bool) -> Vec<f32> {
    let mut values = vec![0.0, 1.0];
    for decade in 0..decades {
        let points = 1_u32 << (decade + u32::from(!signed));
        let power = 10_f64.powi(decade as i32 - decades as i32 + 1) as f32;
        for point in 0..points {
            let mean = (linspace(point, points) + linspace(point + 1, points)) / 2.0;
            values.push(power * mean);
            if signed {
                values.push(-(power * mean));
            }
        }
    }
    values.sort_by(f32::total_cmp);
    values
}

/// Point `i` of `torch.linspace(0.1, 1, intervals + 1)`: counted from the nearer end.
fn linspace(i: u32, intervals: u32) -> f32 {
    let step = (1.0_f32 - 0.1_f32) / intervals as f32;
    // The product of two f32 is exact in f64, so this rounds once.
    if i < intervals.div_ceil(2) {
        (f64::from(0.1_f32) + f64::from(step) * f64::from(i)) as f32
    } else {
        (1.0 - f64::from(step) * f64::from(intervals - i)) as f32
    }
}

/// `thresholds[i]` is the smallest `f32` that is coded above `table[i]`, so the code of `y` is the
/// number of thresholds `t` with `y >= t`.
pub(super) fn thresholds(table: &[f32], ties: Ties) -> Vec<f32> {
    table.iter().zip(table.iter().skip(1)).map(|(&low, &high)| threshold(low, high, ties)).collect()
}

fn threshold(low: f32, high: f32, ties: Ties) -> f32 {
    let middle = (low + high) / 2.0;
    if ties != Ties::Upper {
        return middle.next_up();
    }
    // torchao compares the residual, rounded to f32, with half the gap; find where that turns true.
    let rises = |y: f32| y - low >= (high - low) * 0.5;
    let mut y = middle;
    while rises(y.next_down()) {
        y = y.next_down();
    }
    while !rises(y) {
        y = y.next_up();
    }
    y
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_tables_end_where_the_papers_end() {
        let signed = code_table(QuantMap::Dynamic, 8, true).unwrap();
        assert_eq!(signed.len(), 256);
        assert_eq!((signed[0], signed[127], signed[255]), (-0.992_968_74, 0.0, 1.0));
        let unsigned = code_table(QuantMap::Dynamic, 8, false).unwrap();
        assert_eq!((unsigned.len(), unsigned[0], unsigned[1]), (256, 0.0, 3.250_000_3e-7));
        let four = code_table(QuantMap::Dynamic, 4, true).unwrap();
        assert_eq!(
            four[8..],
            [0.0055, 0.032_500_003, 0.0775, 0.212_499_99, 0.4375, 0.6625, 0.8875, 1.0]
        );
    }

    #[test]
    fn the_largest_linear_code_is_exactly_one() {
        let signed = code_table(QuantMap::Linear, 8, true).unwrap();
        assert_eq!((signed.len(), signed[0], signed[127], signed[254]), (255, -1.0, 0.0, 1.0));
        let unsigned = code_table(QuantMap::Linear, 8, false).unwrap();
        assert_eq!((unsigned.len(), unsigned[0], unsigned[255]), (256, 1.0 / 65536.0, 1.0));
    }

    #[test]
    fn a_missing_map_is_refused_by_name() {
        let message = code_table(QuantMap::Linear, 4, true).unwrap_err().to_string();
        assert_eq!(message, "Blockwise: `bits` must be 8 for the map Linear, got 4");
    }

    #[test]
    fn thresholds_lie_between_their_neighbours() {
        for ties in [Ties::Lower, Ties::Upper] {
            let table = code_table(QuantMap::Dynamic, 8, true).unwrap();
            for (i, t) in thresholds(table, ties).into_iter().enumerate() {
                assert!(table[i] < t && t < table[i + 1]);
            }
        }
    }
}
