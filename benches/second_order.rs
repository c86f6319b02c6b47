//! Steps of the matrix methods, and the codes of matrices.
//!
//! `cargo bench --bench second_order`; threads by `RAYON_NUM_THREADS`, one for ratios.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, QuantizedColumns, QuantizedSymmetric};
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// An interval that does not end in these benches.
const NEVER: u64 = 1 << 40;

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Orders of square weights.
const ORDERS: [usize; 3] = [256, 512, 1024];

/// Gaussian enough, without pattern; another one for every `seed`.
fn matrix(n: usize, seed: u64) -> Array2<f32> {
    let mut state = seed;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    Array2::from_shape_simple_fn((n, n), || 0.01 * (uniform() + uniform() + uniform()))
}

/// What `steps` steps take, with gradients in turn.
fn time_steps(opt: &mut impl Optimizer<f32>, n: usize, steps: u64) -> eigenstep::Result<Duration> {
    let mut weight = matrix(n, 0);
    let gradients: Vec<Array2<f32>> = (1..=4).map(|seed| matrix(n, seed)).collect();
    let start = Instant::now();
    for gradient in gradients.iter().cycle().take(steps as usize) {
        opt.step(black_box(&mut weight), black_box(gradient))?;
    }
    Ok(start.elapsed())
}

fn shampoo(storage: FactorStorage, intervals: (u64, u64)) -> Shampoo {
    let (update_factors_every, update_roots_every) = intervals;
    Shampoo { storage, update_factors_every, update_roots_every, ..Shampoo::default() }
}

/// One step with its share of the work on factors and roots: all that a period of the paper's
/// intervals, 100 and 500, holds, divided by 500.
fn amortised(c: &mut Criterion) {
    const FACTORS: u64 = 100;
    const ROOTS: u64 = 500;
    let mut group = c.benchmark_group("shampoo, a period of 500 steps");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    for n in ORDERS {
        for (name, storage) in [("dense", FactorStorage::Dense), ("4-bit", FactorStorage::EIGEN4)] {
            let Ok(mut plain) = shampoo(storage, (NEVER, NEVER)).build::<f32>() else {
                continue;
            };
            let Ok(mut factors) = shampoo(storage, (1, NEVER)).build::<f32>() else { continue };
            let Ok(mut both) = shampoo(storage, (1, 1)).build::<f32>() else { continue };
            group.bench_function(BenchmarkId::new(name, n), |bench| {
                bench.iter_custom(|periods| {
                    let mut time = Duration::ZERO;
                    for _ in 0..periods {
                        // three kinds of steps, weighed as they occur; few of each say it all
                        let parts = [
                            (&mut plain, 5, ROOTS - ROOTS / FACTORS),
                            (&mut factors, 2, ROOTS / FACTORS - 1),
                            (&mut both, 2, 1),
                        ];
                        for (opt, steps, weight) in parts {
                            let measured = time_steps(opt, n, steps).unwrap_or_default();
                            time += measured.mul_f64(weight as f64 / steps as f64);
                        }
                    }
                    time
                });
            });
        }
    }
    group.finish();
}

/// A step that updates neither factors nor roots, and the two products that it cannot do without.
fn plain_steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("a step without factors and roots");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    for n in ORDERS {
        let (left, right) = (matrix(n, 1), matrix(n, 2));
        let (gradient, mut half, mut out) = (matrix(n, 3), matrix(n, 4), matrix(n, 5));
        group.bench_function(BenchmarkId::new("two products", n), |bench| {
            bench.iter(|| {
                general_mat_mul(1.0, black_box(&left), black_box(&gradient), 0.0, &mut half);
                general_mat_mul(1.0, &half, black_box(&right), 0.0, black_box(&mut out));
            });
        });
        for (name, storage) in [("dense", FactorStorage::Dense), ("4-bit", FactorStorage::EIGEN4)] {
            step(&mut group, name, shampoo(storage, (NEVER, NEVER)), n);
        }
    }
    group.finish();
}

fn step<M: MatrixMethod>(group: &mut Group<'_>, name: &str, method: M, n: usize) {
    let Ok(mut opt) = method.build::<f32>() else { return };
    if time_steps(&mut opt, n, 1).is_err() {
        return;
    }
    let (mut weight, gradient) = (matrix(n, 0), matrix(n, 1));
    group.bench_function(BenchmarkId::new(name, n), |bench| {
        bench.iter(|| opt.step(black_box(&mut weight), black_box(&gradient)));
    });
}

fn muon(c: &mut Criterion) {
    let mut group = c.benchmark_group("muon");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for n in ORDERS {
        step(&mut group, "five iterations", Muon::default(), n);
    }
    group.finish();
}

fn codecs(c: &mut Criterion) {
    const N: usize = 1024;
    let x = matrix(N, 1);
    for bits in [3, 4, 8] {
        let codec = MatrixCodec { bits, ..MatrixCodec::default() };
        let columns = QuantizedColumns::<f32>::zeros(codec, (N, N));
        let symmetric = QuantizedSymmetric::<f32>::zeros(codec, N);
        let (Ok(mut columns), Ok(mut symmetric)) = (columns, symmetric) else { continue };
        let mut group = c.benchmark_group(format!("codes of a matrix, {bits} bits"));
        group.throughput(Throughput::Elements((N * N) as u64));
        group.sample_size(20).measurement_time(Duration::from_secs(1));
        group.bench_function("columns, encode", |b| b.iter(|| columns.encode(black_box(&x))));
        group.bench_function("columns, decode", |b| b.iter(|| black_box(&columns).decode()));
        group.bench_function("symmetric, encode", |b| b.iter(|| symmetric.encode(black_box(&x))));
        group.bench_function("symmetric, decode", |b| b.iter(|| black_box(&symmetric).decode()));
        group.finish();
    }
}

criterion_group!(benches, amortised, plain_steps, muon, codecs);
criterion_main!(benches);
