//! Decoding and encoding of every state format, for every instruction set of this machine, in one
//! chunk of the optimizer engine (16 Ki elements, so the data lies in the second-level cache).
//!
//! `cargo bench --bench quant`; elements per second are reported, 1 Gelem/s is 1 ns per element.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eigenstep::kernel::Isa;
use eigenstep::numeric::Real;
use eigenstep::quant::{
    Codec, Precision, Rank1Maxima, Rank1Scales, SlotFormat, decode_bf16, encode_bf16,
};
use std::hint::black_box;

const CHUNK: usize = 16384;

fn samples<R: Real>(signed: bool) -> Vec<R> {
    let mut state = 1_u64;
    let mut uniform = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let normal = std::iter::repeat_with(move || (0..12).map(|_| uniform()).sum::<f64>());
    normal.take(CHUNK).map(|x| R::of(if signed { x } else { x * x })).collect()
}

fn blockwise<R: Real>(c: &mut Criterion, name: &str, precision: Precision) {
    for signed in [true, false] {
        let Ok(SlotFormat::Blockwise(codec)) = precision.format(&[CHUNK], signed) else { continue };
        let sign = if signed { "signed" } else { "unsigned" };
        let mut group = c.benchmark_group(format!("{name}/{sign}/{}", R::NAME));
        group.throughput(Throughput::Elements(CHUNK as u64));
        for isa in Isa::available() {
            one_isa::<R>(&mut group, codec, isa);
        }
        group.finish();
    }
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn one_isa<R: Real>(group: &mut Group<'_>, codec: Codec, isa: Isa) {
    let x = samples::<R>(codec.is_signed());
    let (mut codes, mut scales) = codec.zeros::<R>(CHUNK);
    let mut out = vec![R::zero(); CHUNK];
    group.bench_function(BenchmarkId::new("encode", isa.name()), |b| {
        b.iter(|| codec.encode(isa, black_box(&x), &mut codes, &mut scales));
    });
    group.bench_function(BenchmarkId::new("decode", isa.name()), |b| {
        b.iter(|| codec.decode(isa, black_box(&codes), &scales, &mut out));
    });
}

fn rank1(c: &mut Criterion) {
    let shape = [64, CHUNK / 64];
    let Ok(SlotFormat::Rank1(codec)) = Precision::INT4_LPMM.format(&shape, false) else { return };
    let x = samples::<f32>(false);
    let Ok(scales) = Rank1Scales::of(&shape, &x) else { return };
    let Ok(maxima) = Rank1Maxima::new(&shape) else { return };
    let (mut codes, mut out) = (vec![0; CHUNK / 2], vec![0.0; CHUNK]);
    let mut group = c.benchmark_group("INT4_LPMM/unsigned/f32");
    group.throughput(Throughput::Elements(CHUNK as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("maxima", isa.name()), |b| {
            b.iter(|| maxima.accumulate(isa, 0, black_box(&x)));
        });
        group.bench_function(BenchmarkId::new("encode", isa.name()), |b| {
            b.iter(|| codec.encode(isa, &scales, 0, black_box(&x), &mut codes));
        });
        group.bench_function(BenchmarkId::new("decode", isa.name()), |b| {
            b.iter(|| codec.decode(isa, &scales, 0, black_box(&codes), &mut out));
        });
    }
    group.finish();
}

fn bf16(c: &mut Criterion) {
    let x = samples::<f32>(true);
    let (mut codes, mut out) = (vec![0; CHUNK], vec![0.0_f32; CHUNK]);
    let mut group = c.benchmark_group("Bf16/f32");
    group.throughput(Throughput::Elements(CHUNK as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new("encode", isa.name()), |b| {
            b.iter(|| encode_bf16(isa, black_box(&x), &mut codes));
        });
        group.bench_function(BenchmarkId::new("decode", isa.name()), |b| {
            b.iter(|| decode_bf16(isa, black_box(&codes), &mut out));
        });
    }
    group.finish();
}

fn all(c: &mut Criterion) {
    for (name, precision) in [
        ("INT8_LINEAR", Precision::INT8_LINEAR),
        ("INT8_DYNAMIC", Precision::INT8_DYNAMIC),
        ("INT8_TORCHAO", Precision::INT8_TORCHAO),
        ("INT4", Precision::INT4),
    ] {
        blockwise::<f32>(c, name, precision);
        blockwise::<f64>(c, name, precision);
    }
    rank1(c);
    bf16(c);
}

criterion_group!(benches, all);
criterion_main!(benches);
