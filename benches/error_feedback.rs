//! Selection of the largest elements, compressors, and steps over a window of gradients.
//!
//! `cargo bench --bench error_feedback`; threads by `RAYON_NUM_THREADS`, one for ratios. The dense
//! window takes 1 GB.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::error_feedback::compressor::{
    Compressor, HalfPrecision, Natural, Qsgd, RandK, ScaledSign, Selection, TopK,
};
use eigenstep::error_feedback::{MFac, Momentum};
use eigenstep::kernel::{Isa, Kernel};
use eigenstep::numeric::reduce::LaneSum;
use eigenstep::prelude::*;
use ndarray::Array1;
use std::hint::black_box;
use std::time::Duration;
use support::vector;

const NUMEL: usize = 1_000_000;
const DENSITY: f64 = 0.01;
const WINDOW: usize = 256;

/// Two vectors in turn: the threshold of one is no better a guess for the other than in training.
fn vectors(numel: usize) -> [Vec<f32>; 2] {
    [1, 2].map(|seed| vector(numel, seed).to_vec())
}

const SELECTIONS: [(&str, Selection); 2] = [
    ("all", Selection::TopK { density: DENSITY }),
    ("blocks of 4096", Selection::BlockTopK { density: DENSITY, block: 4096 }),
];

/// `Σ|x|`.
struct Magnitudes<'a>(&'a [f32]);

impl Kernel for Magnitudes<'_> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let mut sum = LaneSum::default();
        sum.extend(self.0, |x| f64::from(x.abs()));
        sum.total()
    }
}

/// The selection beside what reading the vector once takes: from the cache, and from memory.
fn selections(c: &mut Criterion) {
    selection(c, "the largest 1 % of 1 M", NUMEL);
    selection(c, "the largest 1 % of 16 M", 16 * NUMEL);
}

fn selection(c: &mut Criterion, name: &str, numel: usize) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(4 * numel as u64));
    let vectors = vectors(numel);
    let mut turn = vectors.iter().cycle();
    group.bench_function("sum of magnitudes", |bench| {
        bench.iter(|| {
            let x = black_box(turn.next().map_or(&[][..], |x| x));
            Isa::detect().run(Magnitudes(x))
        });
    });
    for (name, selection) in SELECTIONS {
        let mut indices = Vec::new();
        let mut turn = vectors.iter().cycle();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let x = black_box(turn.next().map_or(&[][..], |x| x));
                selection.select(x, &mut indices);
                indices.len()
            });
        });
    }
    group.finish();
}

/// Compression of 1 M elements, and back.
fn compressors(c: &mut Criterion) {
    let mut group = c.benchmark_group("compressors, 1 M");
    group.throughput(Throughput::Bytes(4 * NUMEL as u64)).sample_size(20);
    let [x, _] = vectors(NUMEL);
    let compressors: [(&str, Box<dyn Compressor<f32>>); 6] = [
        ("top k", Box::new(TopK(Selection::TopK { density: DENSITY }))),
        ("rand k", Box::new(RandK::default())),
        ("scaled sign", Box::new(ScaledSign)),
        ("qsgd", Box::new(Qsgd::default())),
        ("natural", Box::new(Natural::default())),
        ("bf16", Box::new(HalfPrecision::Bf16)),
    ];
    for (name, mut compressor) in compressors {
        let (mut t, mut out) = (0, vec![0.0; NUMEL]);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                t += 1;
                compressor.compress(t, black_box(&x)).decompress_into(&mut out);
            });
        });
    }
    group.finish();
}

/// Whole steps with a full window.
fn mfac(c: &mut Criterion) {
    let mut group = c.benchmark_group("M-FAC, 1 M, window 256");
    group.throughput(Throughput::Elements(NUMEL as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let gradients: Vec<Array1<f32>> = (1..=4).map(|seed| vector(NUMEL, seed)).collect();
    for (name, method) in [("dense", MFac::default()), ("sparse, 1 %", MFac::sparse(DENSITY))] {
        let base = Momentum { lr: 1e-6, ..Momentum::default() };
        let Ok(mut opt) = (MFac { base, window: WINDOW, ..method }).build::<f32>() else {
            continue;
        };
        let mut weight = vector(NUMEL, 0);
        let mut turn = gradients.iter().cycle();
        let mut step = || turn.next().map(|gradient| opt.step(&mut weight, black_box(gradient)));
        for _ in 0..WINDOW {
            step();
        }
        group.bench_function(name, |bench| bench.iter(&mut step));
    }
    group.finish();
}

criterion_group!(benches, selections, compressors, mfac);
criterion_main!(benches);
