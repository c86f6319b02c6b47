//! Laws of compressors, their messages, and of error feedback around them.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "compressors/feedback.rs"]
mod feedback;
#[path = "compressors/laws.rs"]
mod laws;
#[path = "compressors/messages.rs"]
mod messages;

use eigenstep::error_feedback::compressor::{
    Compressor, HalfPrecision, Identity, LowRank, Message, Natural, Qsgd, RandK, ScaledSign,
    ScaledTopK, Selection, TopK,
};
use eigenstep::numeric::Real;

/// A number in [-1, 1) that depends on nothing but its arguments.
fn noise(seed: u64, i: usize) -> f64 {
    let mut z = (seed << 32).wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Numbers of several sizes, some of them zero and some of them equal.
fn vector<R: Real>(seed: u64, len: usize) -> Vec<R> {
    let number = |i: usize| match (noise(seed + 1, i), noise(seed, i)) {
        (kind, _) if kind < -0.8 => 0.0,
        (kind, x) if kind < -0.5 => 0.25 * x.signum(),
        (kind, x) if kind < 0.5 => x,
        (_, x) => x * x * x,
    };
    (0..len).map(|i| R::of(number(i))).collect()
}

fn squares<R: Real>(x: &[R]) -> f64 {
    x.iter().map(|x| x.widen() * x.widen()).sum()
}

fn decompressed<R: Real>(message: &Message<R>) -> Vec<R> {
    let mut out = vec![R::nan(); message.numel()];
    message.decompress_into(&mut out);
    out
}

/// `‖C(x) − x‖²`.
fn lost<R: Real>(x: &[R], y: &[R]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (x.widen() - y.widen()).powi(2)).sum()
}

type Named<R> = (&'static str, Box<dyn Compressor<R>>);

/// One of every kind, for vectors of `numel` elements, as matrices of `columns` columns.
fn all<R: Real>(numel: usize, columns: usize, seed: u64) -> Vec<Named<R>> {
    let density = 0.2;
    let low_rank = LowRank::new(numel / columns.max(1), columns, 2, seed).unwrap();
    vec![
        ("identity", Box::new(Identity)),
        ("top_k", Box::new(TopK(Selection::TopK { density }))),
        ("block_top_k", Box::new(TopK(Selection::BlockTopK { density, block: 16 }))),
        ("large_block", Box::new(TopK(Selection::BlockTopK { density, block: 70_000 }))),
        (
            "scaled_top_k",
            Box::new(ScaledTopK::new(numel, Selection::TopK { density }, 1e-10).unwrap()),
        ),
        ("rand_k", Box::new(RandK { density, unbiased: false, seed })),
        ("rand_k_unbiased", Box::new(RandK { density, unbiased: true, seed })),
        ("scaled_sign", Box::new(ScaledSign)),
        ("qsgd", Box::new(Qsgd { levels: 9, seed })),
        ("natural", Box::new(Natural { seed })),
        ("low_rank", Box::new(low_rank)),
        ("bf16", Box::new(HalfPrecision::Bf16)),
        ("f16", Box::new(HalfPrecision::F16)),
    ]
}

/// Those of which every single message is a contraction.
fn contractions<R: Real>(numel: usize, columns: usize, seed: u64) -> Vec<Named<R>> {
    let random = ["rand_k", "rand_k_unbiased", "qsgd", "natural"];
    let all = all(numel, columns, seed).into_iter();
    all.filter(|(name, _)| !random.contains(name)).collect()
}
