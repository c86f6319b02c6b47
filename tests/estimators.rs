//! Gradients estimated from losses: what they are on average, and what they promise.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "estimators/allocation.rs"]
mod allocation;
#[path = "estimators/compositions.rs"]
mod compositions;
#[path = "estimators/contract.rs"]
mod contract;
#[path = "estimators/evaluation.rs"]
mod evaluation;
#[path = "estimators/failures.rs"]
mod failures;
#[path = "estimators/grids.rs"]
mod grids;
#[path = "estimators/integers.rs"]
mod integers;
#[path = "estimators/methods.rs"]
mod methods;
#[path = "estimators/resume.rs"]
mod resume;
#[path = "estimators/samplers.rs"]
mod samplers;
#[path = "estimators/statistics.rs"]
mod statistics;
#[path = "estimators/subjects.rs"]
mod subjects;
#[path = "support/threads.rs"]
mod threads;

use ndarray::{Array1, Array2};

/// A matrix and a vector, eight elements in all.
type Pair = (Array2<f64>, Array1<f64>);

const D: usize = 8;

fn pair(x: [f64; D]) -> Pair {
    let matrix = Array2::from_shape_vec((3, 2), x[..6].to_vec()).unwrap();
    (matrix, Array1::from(x[6..].to_vec()))
}

fn flat(model: &Pair) -> [f64; D] {
    let all: Vec<f64> = model.0.iter().chain(&model.1).copied().collect();
    all.try_into().unwrap()
}

/// A number in [-1, 1) that depends on nothing but its arguments.
fn noise(seed: u64, i: usize) -> f64 {
    let mut z = (seed << 32).wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn numbers(seed: u64) -> [f64; D] {
    std::array::from_fn(|i| noise(seed, i))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `½xᵀHx + bᵀx`.
struct Quadratic {
    h: [[f64; D]; D],
    b: [f64; D],
}

impl Quadratic {
    /// `H = AAᵀ/8 + I/2`: no curvature is negative.
    fn new(seed: u64) -> Self {
        let a: [[f64; D]; D] = std::array::from_fn(|i| numbers(seed * 100 + i as u64));
        let h = |i: usize, j: usize| dot(&a[i], &a[j]) / 8.0 + if i == j { 0.5 } else { 0.0 };
        let h = std::array::from_fn(|i| std::array::from_fn(|j| h(i, j)));
        Self { h, b: numbers(seed * 100 + 50) }
    }

    fn loss(&self, x: &[f64; D]) -> f64 {
        let curvature: f64 = self.h.iter().zip(x).map(|(row, xi)| xi * dot(row, x)).sum();
        curvature / 2.0 + dot(&self.b, x)
    }

    fn gradient(&self, x: &[f64; D]) -> [f64; D] {
        std::array::from_fn(|i| dot(&self.h[i], x) + self.b[i])
    }

    fn trace(&self) -> f64 {
        (0..D).map(|i| self.h[i][i]).sum()
    }

    /// `‖H‖_F²`.
    fn square(&self) -> f64 {
        self.h.iter().map(|row| dot(row, row)).sum()
    }
}
