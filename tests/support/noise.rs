//! Numbers to try things on.

use ndarray::Array2;

/// Numbers of mean 0 and variance 1 without pattern.
pub fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as f64 / f64::from(1_u32 << 31) - 0.5
    };
    Array2::from_shape_simple_fn((rows, columns), || (0..12).map(|_| uniform()).sum())
}
