//! Probes and updates along random directions, compared with a step of AdamW; evaluations by two workers.
//!
//! `cargo bench --bench zeroth_order`; threads by `RAYON_NUM_THREADS`. Throughput is in bytes of
//! parameters, gradients, state and copies that are read or written.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{Estimator, Random, Spsa, ZerothOrder};
use ndarray::Array1;
use std::hint::black_box;
use std::time::{Duration, Instant};

const NUMEL: usize = 25_000_000;

/// A step of AdamW without the non-finite check, with which all others are compared.
fn adamw(c: &mut Criterion) {
    let mut group = c.benchmark_group("25 M");
    group.sample_size(20).throughput(Throughput::Bytes(28 * NUMEL as u64));
    let (mut weight, gradient) = (Array1::<f32>::ones(NUMEL), Array1::<f32>::ones(NUMEL));
    let Ok(opt) = AdamW { lr: 1e-6, ..AdamW::default() }.build::<f32>() else { return };
    let mut opt = opt.with_non_finite(NonFinite::Propagate);
    group.bench_function("step of AdamW", |bench| {
        bench.iter(|| opt.step(&mut weight, black_box(&gradient)));
    });
    group.finish();
}

fn directions(c: &mut Criterion) {
    let mut group = c.benchmark_group("25 M");
    group.sample_size(10).throughput(Throughput::Bytes(8 * NUMEL as u64));
    let mut weight = Array1::<f32>::ones(NUMEL);
    for (name, sampler) in [("signs", Random::Rademacher), ("normal numbers", Random::Gaussian)] {
        let Ok(mut estimator) = Spsa::with_sampler(sampler).build::<f32>() else { continue };
        let Ok(mut opt) = (Sgd { lr: 1e-6, ..Sgd::default() }).build::<f32>() else { continue };
        if estimator.ask(&mut weight).is_err() {
            continue;
        }
        group.bench_function(format!("a probe along {name}"), |bench| {
            bench.iter(|| estimator.move_to_probe(None, Some(0), &mut weight));
        });
        let Ok(estimate) = estimator.tell(&[1.0, 0.999]) else { continue };
        group.bench_function(format!("an update along {name}"), |bench| {
            bench.iter(|| opt.step(&mut weight, &estimate));
        });
    }
    group.finish();
}

/// A whole step without the evaluations: a copy, two probes, one restoration and one update.
fn mezo(c: &mut Criterion) {
    let mut group = c.benchmark_group("25 M");
    group.sample_size(10).throughput(Throughput::Bytes(40 * NUMEL as u64));
    let mut weight = Array1::<f32>::ones(NUMEL);
    let Ok(estimator) = Spsa::default().build::<f32>() else { return };
    let Ok(opt) = (Sgd { lr: 1e-9, ..Sgd::default() }).build::<f32>() else { return };
    let mut pair = ZerothOrder::new(estimator, opt);
    group.bench_function("a step of MeZO", |bench| {
        bench.iter(|| {
            pair.step(&mut weight, |w| w.first().copied().unwrap_or(0.0)).map(|report| report.loss)
        });
    });
    group.finish();
}

/// Sixteen evaluations of 10 ms.
fn workers(c: &mut Criterion) {
    let mut group = c.benchmark_group("16 evaluations of 10 ms");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let weight = Array1::<f32>::ones(1000);
    for count in [1, 2] {
        let Ok(mut estimator) = (Spsa { num_samples: 8, ..Spsa::default() }).build::<f32>() else {
            continue;
        };
        let mut copies = vec![weight.clone(); count];
        group.bench_function(format!("{count} workers"), |bench| {
            bench.iter(|| {
                let estimate = estimator.estimate_parallel(&weight, &mut copies, busy);
                estimate.map(|estimate| estimate.report().loss)
            });
        });
    }
    group.finish();
}

/// A loss that takes 10 ms of one processor.
fn busy(weight: &Array1<f32>) -> f64 {
    let start = Instant::now();
    let mut loss = 0.0;
    while start.elapsed() < Duration::from_millis(10) {
        loss = black_box(weight).iter().map(|&w| f64::from(w)).sum();
    }
    loss
}

criterion_group!(benches, adamw, directions, mezo, workers);
criterion_main!(benches);
