//! Steps of the element-wise rules: each rule, each precision, large, mixed and tiny tensors.
//!
//! `cargo bench --bench first_order`; threads by `RAYON_NUM_THREADS`. Throughput is in elements.
//! Ratios to other libraries are measured by `benches/peers`, side by side in one run.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

#[path = "../tests/support/inputs.rs"]
mod inputs;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::prelude::*;
use inputs::{Inputs, reads_curvature};
use ndarray::Array1;
use std::hint::black_box;

type Tensors = Vec<Array1<f32>>;

/// Small numbers without pattern, none of them denormal.
fn tensors(count: usize, numel: usize, scale: f32) -> Tensors {
    let number = |i: usize| ((i as f32 * 0.7).sin() + 0.01) * scale;
    (0..count).map(|t| (0..numel).map(|i| number(i + t)).collect()).collect()
}

fn step(
    c: &mut Criterion,
    group: &str,
    name: &str,
    (mut opt, curvature): (impl Optimizer<f32>, bool),
    (count, numel): (usize, usize),
) {
    let (mut params, grads) = (tensors(count, numel, 0.1), tensors(count, numel, 0.01));
    let mut group = c.benchmark_group(group);
    group.sample_size(10).throughput(Throughput::Elements((count * numel) as u64));
    group.bench_function(BenchmarkId::new(name, format!("{count}x{numel}")), |bench| {
        let inputs = Inputs::new(&grads, 1.0, curvature);
        bench.iter(|| opt.step(black_box(&mut params), black_box(&inputs)));
    });
}

const SIZES: [(usize, usize); 3] = [(1, 25_000_000), (200, 125_000), (1000, 1000)];

fn rules(c: &mut Criterion) {
    for size in SIZES {
        macro_rules! rule {
            ($rule:ident) => {
                if let Ok(opt) = $rule::default().build::<f32>() {
                    let opt = opt.with_non_finite(NonFinite::Propagate);
                    let opt = (opt, reads_curvature::<$rule>());
                    step(c, "rules, no finite check", stringify!($rule), opt, size);
                }
            };
        }
        eigenstep::for_each_first_order!(rule);
    }
}

fn precisions(c: &mut Criterion) {
    for size in SIZES {
        for (name, precision) in [
            ("full", Precision::Full),
            ("bf16", Precision::Bf16),
            ("int8 linear", Precision::INT8_LINEAR),
            ("int8 dynamic", Precision::INT8_DYNAMIC),
            ("int4", Precision::INT4),
            ("int4 lpmm", Precision::INT4_LPMM),
        ] {
            let opt = AdamW::default().build::<f32>();
            if let Ok(opt) = opt.and_then(|opt| opt.with_state_precision(precision)) {
                step(c, "AdamW, finite check", name, (opt, false), size);
            }
        }
    }
}

criterion_group!(benches, rules, precisions);
criterion_main!(benches);
