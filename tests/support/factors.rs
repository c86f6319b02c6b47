//! What tests of layers' factors share.

use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use ndarray::Array2;

pub const NAIVE4: FactorStorage =
    FactorStorage::Naive(MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 });

pub fn norm(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[track_caller]
pub fn close(found: &Array2<f64>, expected: &Array2<f64>, tolerance: f64) {
    let off = norm(&(found - expected)) / norm(expected).max(1e-300);
    assert!(off <= tolerance, "off by {off:e}");
}

/// Everything at every step, and directions as they are.
pub fn eager(method: LayerFactors) -> LayerFactors {
    LayerFactors {
        keep_norm: false,
        update_factors_every: 1,
        update_roots_every: 1,
        min_numel: 0,
        ..method
    }
}
