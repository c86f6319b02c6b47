//! The mathematics of methods over a window of gradients: M-FAC, GGT, MicroAdam.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "windows/compression.rs"]
mod compression;
#[path = "windows/engine.rs"]
mod engine;
#[path = "windows/feedback.rs"]
mod feedback;
#[path = "windows/fisher.rs"]
mod fisher;
#[path = "windows/microadam.rs"]
mod microadam;
#[path = "windows/root.rs"]
mod root;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::error_feedback::{GradWindow, RowFormat};
use eigenstep::numeric::Real;
use eigenstep::optim::Layout;

/// A number in [-1, 1) that depends on nothing but its arguments.
fn noise(seed: u64, i: usize) -> f64 {
    let mut z = (seed << 32).wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn vector<R: Real>(seed: u64, len: usize) -> Vec<R> {
    (0..len).map(|i| R::of(noise(seed, i))).collect()
}

/// Gradients that have a common part, as those of one model have.
fn gradients<R: Real>(seed: u64, count: usize, len: usize) -> Vec<Vec<R>> {
    let common = vector::<f64>(seed, len);
    let one = |t: usize| {
        let own = vector::<f64>(seed + 1 + t as u64, len);
        common.iter().zip(&own).map(|(a, b)| R::of(a + 0.5 * b)).collect()
    };
    (0..count).map(one).collect()
}

/// A dense window of `capacity` with these gradients.
fn window<R: Real>(capacity: usize, gradients: &[Vec<R>]) -> GradWindow<R> {
    let layout = Layout::single(&[gradients[0].len()]);
    let mut window = GradWindow::new(RowFormat::Dense, capacity, &layout);
    gradients.iter().for_each(|g| window.push(&g[..]));
    window
}

fn dot<R: Real>(a: &[R], b: &[R]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.widen() * b.widen()).sum()
}

fn norm<R: Real>(a: &[R]) -> f64 {
    dot(a, a).sqrt()
}

/// `‖a − b‖/‖b‖`.
fn distance<R: Real>(a: &[R], b: &[R]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a.widen() - b.widen()).collect();
    norm(&difference) / norm(b).max(f64::MIN_POSITIVE)
}
