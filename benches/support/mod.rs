//! Numbers for benches.
#![allow(dead_code)] // a bench needs vectors or matrices

use ndarray::{Array1, Array2};

/// Gaussian enough, without pattern; others for every `seed`.
fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    move || 0.01 * (uniform() + uniform() + uniform())
}

/// A vector of [`numbers`].
pub fn vector(numel: usize, seed: u64) -> Array1<f32> {
    Array1::from_shape_simple_fn(numel, numbers(seed))
}

/// A square matrix of [`numbers`].
pub fn matrix(n: usize, seed: u64) -> Array2<f32> {
    Array2::from_shape_simple_fn((n, n), numbers(seed))
}
