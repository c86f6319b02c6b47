//! Steps of Muon, and the codes of matrices.
//!
//! `cargo bench --bench second_order`; threads by `RAYON_NUM_THREADS`. Steps of Shampoo: `shampoo4`.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, QuantizedColumns, QuantizedSymmetric};
use std::hint::black_box;
use std::time::Duration;
use support::matrix;

fn muon(c: &mut Criterion) {
    let mut group = c.benchmark_group("muon");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for n in [256, 512, 1024] {
        let Ok(mut opt) = Muon::default().build::<f32>() else { continue };
        let (mut weight, gradient) = (matrix(n, 0), matrix(n, 1));
        if opt.step(&mut weight, &gradient).is_err() {
            continue;
        }
        group.bench_function(BenchmarkId::new("five iterations", n), |bench| {
            bench.iter(|| opt.step(black_box(&mut weight), black_box(&gradient)));
        });
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

criterion_group!(benches, muon, codecs);
criterion_main!(benches);
