//! Steps of the matrix methods, and the codes of matrices.
//!
//! `cargo bench --bench second_order`; threads by `RAYON_NUM_THREADS`, one for ratios. What 4 bits cost in
//! time is measured by `shampoo4`.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, QuantizedColumns, QuantizedSymmetric};
use ndarray::linalg::general_mat_mul;
use std::hint::black_box;
use std::time::Duration;
use support::matrix;

/// An interval that does not end in these benches.
const NEVER: u64 = 1 << 40;

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Orders of square weights.
const ORDERS: [usize; 3] = [256, 512, 1024];

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
            let method: Shampoo = Shampoo {
                storage,
                update_factors_every: NEVER,
                update_roots_every: NEVER,
                ..Shampoo::default()
            };
            step(&mut group, name, method, n);
        }
    }
    group.finish();
}

fn step<M: MatrixMethod>(group: &mut Group<'_>, name: &str, method: M, n: usize) {
    let Ok(mut opt) = method.build::<f32>() else { return };
    let (mut weight, gradient) = (matrix(n, 0), matrix(n, 1));
    if opt.step(&mut weight, &gradient).is_err() {
        return;
    }
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

criterion_group!(benches, plain_steps, muon, codecs);
criterion_main!(benches);
