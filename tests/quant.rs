//! Properties of the state formats, checked on random numbers and at every threshold.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "quant/spikes.rs"]
mod spikes;

use eigenstep::Error;
use eigenstep::kernel::Isa;
use eigenstep::numeric::Real;
use eigenstep::quant::{
    Blockwise, Codec, Precision, QuantMap, QuantizedTensor, Rank1Codec, Rank1Maxima, Rank1Scales,
    SlotFormat, StatePolicy, Ties, decode_bf16, encode_bf16, unpack_nibbles,
};
use proptest::prelude::*;

/// Every table with every admissible rounding, signed and unsigned.
fn codecs(block_size: usize) -> Vec<Codec> {
    let mut codecs = Vec::new();
    for (bits, map) in [
        (8, QuantMap::Linear),
        (8, QuantMap::Dynamic),
        (4, QuantMap::Dynamic),
        (4, QuantMap::DynamicLinear),
    ] {
        for ties in [Ties::Even, Ties::Lower, Ties::Upper] {
            let spec = Blockwise { bits, block_size, map, ties };
            for signed in [true, false] {
                codecs.extend(spec.codec(signed));
            }
        }
    }
    assert_eq!(codecs.len(), 14);
    codecs
}

fn encode<R: Real>(codec: &Codec, isa: Isa, x: &[R]) -> (Vec<u8>, Vec<R>) {
    let (mut codes, mut scales) = codec.zeros(x.len());
    codec.encode(isa, x, &mut codes, &mut scales).unwrap();
    (codes, scales)
}

fn decode<R: Real>(codec: &Codec, isa: Isa, codes: &[u8], scales: &[R], len: usize) -> Vec<R> {
    let mut out = vec![R::zero(); len];
    codec.decode(isa, codes, scales, &mut out).unwrap();
    out
}

fn round_trip<R: Real>(codec: &Codec, x: &[R]) -> Vec<R> {
    let (codes, scales) = encode(codec, Isa::detect(), x);
    decode(codec, Isa::detect(), &codes, &scales, x.len())
}

/// One code per byte.
fn codes<R: Real>(codec: &Codec, x: &[R]) -> Vec<u8> {
    let (bytes, _) = encode(codec, Isa::detect(), x);
    if codec.spec().bits == 8 {
        return bytes;
    }
    let mut codes = vec![0; x.len()];
    unpack_nibbles(&bytes, &mut codes);
    codes
}

/// Numbers of very different size, zeros among them; squares for an unsigned slot.
fn numbers(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<f64>> {
    let number = (-1.0..1.0_f64, -12..4_i32).prop_map(|(x, e)| x * 10_f64.powi(e));
    proptest::collection::vec(prop_oneof![1 => Just(0.0), 8 => number], len)
}

fn fit<R: Real>(codec: &Codec, x: &[f64]) -> Vec<R> {
    x.iter().map(|&x| R::of(if codec.is_signed() { x } else { x.abs() })).collect()
}

fn bits<R: Real>(x: &[R]) -> Vec<u64> {
    x.iter().map(|x| x.widen().to_bits()).collect()
}

fn largest<R: Real>(x: &[R]) -> f64 {
    x.iter().map(|x| x.widen().abs()).fold(0.0, f64::max)
}

fn nearest_distance(table: &[f32], y: f64) -> f64 {
    table.iter().map(|&c| (y - f64::from(c)).abs()).fold(f64::INFINITY, f64::min)
}

fn check_all<R: Real>(x: &[f64]) {
    for codec in codecs(32).into_iter().chain(codecs(128)) {
        let x: Vec<R> = fit(&codec, x);
        let (codes, scales) = encode(&codec, Isa::portable(), &x);
        let out = decode(&codec, Isa::portable(), &codes, &scales, x.len());
        for isa in Isa::available() {
            let other = encode(&codec, isa, &x);
            assert_eq!((&other.0, bits(&other.1)), (&codes, bits(&scales)), "{codec:?}");
            let other = decode(&codec, isa, &codes, &scales, x.len());
            assert_eq!(bits(&other), bits(&out), "{codec:?} {}", isa.name());
        }
        let table = codec.code_table().unwrap();
        for (block, x) in x.chunks(codec.block_size()).enumerate() {
            let scale = scales[block].widen();
            for (x, out) in x.iter().zip(&out[block * codec.block_size()..]) {
                let error = (x.widen() - out.widen()).abs();
                let y = if scale > 0.0 { x.widen() / scale } else { 0.0 };
                // A block of zeros has the scale 1e-12 or 0; its codes are the nearest all the same.
                let bound = scale * (nearest_distance(table, y) + 3e-7) + 1e-44;
                assert!(error <= bound, "{codec:?}: {x:?} -> {out:?}, scale {scale:e}");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases::cases(48))]

    #[test]
    fn the_nearest_code_on_every_instruction_set(x in numbers(0..400)) {
        check_all::<f32>(&x);
        check_all::<f64>(&x);
    }

    #[test]
    fn codes_rise_with_the_numbers(mut x in numbers(1..128)) {
        x.sort_by(f64::total_cmp);
        for codec in codecs(128) {
            let mut x: Vec<f32> = fit(&codec, &x);
            x.sort_by(f32::total_cmp);
            prop_assert!(codes(&codec, &x).is_sorted(), "{codec:?}");
        }
    }

    #[test]
    fn powers_of_two_pass_through(x in numbers(1..300), exponent in -20..40) {
        let factor = 2_f32.powi(exponent);
        for codec in codecs(128).into_iter().filter(|codec| codec.spec().ties != Ties::Upper) {
            let x: Vec<f32> = fit(&codec, &x);
            let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
            prop_assert_eq!(codes(&codec, &x), codes(&codec, &scaled));
            let expected: Vec<f32> = round_trip(&codec, &x).iter().map(|x| x * factor).collect();
            prop_assert_eq!(round_trip(&codec, &scaled), expected);
        }
    }

    /// Except where the maximum of a block is negative and the table has no −1.
    #[test]
    fn coding_twice_changes_nothing(x in numbers(1..300)) {
        for codec in codecs(128) {
            let mut x: Vec<f32> = fit(&codec, &x);
            if codec.code_table().unwrap()[0] > -1.0 {
                x.chunks_mut(128).for_each(|block| block[0] = 1e5);
            }
            let once = round_trip(&codec, &x);
            prop_assert_eq!(codes(&codec, &once), codes(&codec, &x), "{:?}", codec);
            prop_assert_eq!(round_trip(&codec, &once), once);
        }
    }

    #[test]
    fn the_order_inside_a_block_does_not_matter(x in numbers(128)) {
        for codec in codecs(128) {
            let x: Vec<f32> = fit(&codec, &x);
            let mut expected = round_trip(&codec, &x);
            expected.reverse();
            let reversed: Vec<f32> = x.iter().rev().copied().collect();
            prop_assert_eq!(round_trip(&codec, &reversed), expected);
        }
    }

    #[test]
    fn rank1_in_chunks_as_at_once(x in numbers(210), cut in 0..105_usize, dims in 0..4_usize) {
        let shape = [&[210][..], &[14, 15], &[2, 7, 15], &[70, 1, 3]][dims];
        check_rank1::<f32>(shape, &x, 2 * cut);
        check_rank1::<f64>(shape, &x, 2 * cut);
    }
}

fn rank1_codec() -> Rank1Codec {
    match Precision::INT4_LPMM.format(&[64, 64], false).unwrap() {
        SlotFormat::Rank1(codec) => codec,
        other => panic!("{other:?}"),
    }
}

/// Index by index, as the definition says.
fn rank1_scale(shape: &[usize], x: &[f64], index: usize) -> f64 {
    let coordinate =
        |index: usize, d: usize| index / shape[d + 1..].iter().product::<usize>() % shape[d];
    (0..shape.len())
        .map(|d| {
            let slice = (0..x.len()).filter(|&i| coordinate(i, d) == coordinate(index, d));
            slice.map(|i| x[i]).fold(0.0, f64::max)
        })
        .fold(f64::INFINITY, f64::min)
}

fn check_rank1<R: Real>(shape: &[usize], x: &[f64], cut: usize) {
    let codec = rank1_codec();
    let x: Vec<R> = x.iter().map(|x| R::of(x.abs())).collect();
    let wide: Vec<f64> = x.iter().map(|x| x.widen()).collect();
    let mut results = Vec::new();
    for isa in Isa::available() {
        let maxima = Rank1Maxima::new(shape).unwrap();
        maxima.accumulate(isa, cut, &x[cut..]).unwrap();
        maxima.accumulate(isa, 0, &x[..cut]).unwrap();
        let mut scales = Rank1Scales::<R>::zeros(shape).unwrap();
        maxima.take_into(&mut scales).unwrap();
        assert_eq!(scales, Rank1Scales::of(shape, &x).unwrap());
        let mut codes = vec![0; x.len().div_ceil(2)];
        let mut out = vec![R::zero(); x.len()];
        let (head, tail) = codes.split_at_mut(cut / 2);
        codec.encode(isa, &scales, 0, &x[..cut], head).unwrap();
        codec.encode(isa, &scales, cut, &x[cut..], tail).unwrap();
        codec.decode(isa, &scales, 0, &codes[..cut / 2], &mut out[..cut]).unwrap();
        codec.decode(isa, &scales, cut, &codes[cut / 2..], &mut out[cut..]).unwrap();
        results.push((codes, bits(&out)));
        for (i, out) in out.iter().enumerate() {
            let scale = rank1_scale(shape, &wide, i);
            let below = if wide[i] < scale / 16.0 { scale / 16.0 - wide[i] } else { 0.0 };
            let bound = below.max(scale / 32.0) + scale * 1e-6;
            assert!((out.widen() - wide[i]).abs() <= bound, "{shape:?} {i}");
            assert!(scale > 0.0 || out.is_zero());
        }
    }
    assert!(results.iter().all(|result| *result == results[0]));
}

/// The rules of bitsandbytes and torchao, word by word, against the look-up.
#[test]
fn every_threshold_falls_where_the_definition_says() {
    for codec in codecs(4096).iter().filter(|codec| codec.spec().ties != Ties::Even) {
        let table = codec.code_table().unwrap();
        let mut x = vec![1.0_f32, 0.0, -0.0];
        for (low, high) in table.iter().zip(&table[1..]) {
            let middle = (low + high) / 2.0;
            x.extend([*low, low.next_up(), low.next_down(), middle]);
            x.extend([middle.next_up(), middle.next_down(), middle.next_up().next_up()]);
        }
        if !codec.is_signed() {
            x.retain(|x| *x >= 0.0);
        }
        for (x, code) in x.iter().zip(codes(codec, &x)) {
            let expected = if codec.spec().ties == Ties::Lower {
                table.iter().zip(&table[1..]).filter(|(a, b)| *x > (*a + *b) / 2.0).count()
            } else {
                let low = table.iter().rposition(|c| c <= x).unwrap_or(0);
                let high = (low + 1).min(table.len() - 1);
                if x - table[low] >= (table[high] - table[low]) * 0.5 { high } else { low }
            };
            assert_eq!(usize::from(code), expected, "{codec:?} {x:e}");
        }
    }
}

#[test]
fn the_dynamic_codes_are_the_nearest_for_many_numbers() {
    for codec in codecs(4096).iter().filter(|codec| codec.spec().map == QuantMap::Dynamic) {
        let table = codec.code_table().unwrap();
        // Every exponent and a spread of mantissas, down to far below the smallest code.
        let magnitudes = (0..4095_u32).map(|i| f32::from_bits(0x3f80_0000 - i * 0x1_2345));
        let signs = [1.0_f32, -1.0];
        for sign in if codec.is_signed() { &signs[..] } else { &signs[..1] } {
            let x: Vec<f32> =
                std::iter::once(1.0).chain(magnitudes.clone().map(|x| x * sign)).collect();
            for (x, code) in x.iter().zip(codes(codec, &x)) {
                let distance = (f64::from(*x) - f64::from(table[usize::from(code)])).abs();
                assert!(distance <= nearest_distance(table, f64::from(*x)) + 6e-8, "{x:e}");
            }
        }
    }
}

#[test]
fn bitsandbytes_shrinks_a_negative_maximum() {
    let Precision::Blockwise(spec) = Precision::INT8_DYNAMIC else { panic!() };
    let once = QuantizedTensor::quantize(spec, true, &[-1.0_f32, 0.5]).unwrap().dequantize();
    assert_eq!(once[0], -0.992_968_74);
    let twice = QuantizedTensor::quantize(spec, true, &once).unwrap().dequantize();
    assert_eq!(twice[0], -0.992_968_74 * 0.992_968_74);
}

#[test]
fn zero_blocks() {
    for codec in codecs(64) {
        let out = round_trip(&codec, &[0.0_f32; 100]);
        let floor = codec.spec().ties == Ties::Upper && codec.code_table().unwrap()[0] > 0.0;
        let expected = if floor { 1.0 / 16.0 * 1e-12 } else { 0.0 };
        assert!(out.iter().all(|x| *x == expected), "{codec:?}");
        let (codes, scales) = codec.zeros::<f32>(100);
        let fresh = decode(&codec, Isa::detect(), &codes, &scales, 100);
        assert!(fresh.iter().all(|x| *x == 0.0), "{codec:?}");
    }
}

#[test]
fn an_unsigned_linear_slot_is_never_rounded_to_zero() {
    let Precision::Blockwise(spec) = Precision::INT8_LINEAR else { panic!() };
    let out = round_trip(&spec.codec(false).unwrap(), &[0.0_f32, 1e-30, 1.0]);
    assert_eq!(out, [1.0 / 65536.0, 1.0 / 65536.0, 1.0]);
}

fn extremes<R: Real>() {
    for codec in codecs(32).iter().filter(|codec| codec.spec().ties == Ties::Even) {
        for largest in [R::max_value(), R::min_positive_value(), R::of(1e-44)] {
            if largest > R::zero() {
                let out = round_trip(codec, &[largest, R::zero()]);
                assert_eq!(out[0], largest, "{codec:?}");
            }
        }
    }
    for codec in codecs(32) {
        for bad in [R::nan(), R::infinity(), -R::infinity()] {
            let mut x = vec![R::one(); 80];
            x[40] = bad;
            for isa in Isa::available() {
                let (codes, scales) = encode(&codec, isa, &x);
                let out = decode(&codec, isa, &codes, &scales, x.len());
                if bad.is_nan() {
                    assert!(out[32..64].iter().all(|x| x.is_nan()), "{codec:?}");
                } else {
                    // as large as can be, and no neighbour of it is harmed
                    assert!(out[32..64].iter().all(|x| x.is_finite()), "{codec:?}");
                    let large = out[40].abs() > R::max_value() * R::of(0.2);
                    assert!(large || bad < R::zero() && !codec.is_signed(), "{codec:?}");
                }
                assert!(out[..32].iter().chain(&out[64..]).all(|x| x.is_finite()));
            }
        }
    }
}

/// A finite gradient whose square overflows must not turn its neighbours into NaN.
#[test]
fn one_enormous_gradient_spoils_no_block() {
    use eigenstep::prelude::*;
    let formats = [
        Precision::INT8_LINEAR,
        Precision::INT8_DYNAMIC,
        Precision::INT8_TORCHAO,
        Precision::INT4,
        Precision::INT4_LPMM,
    ];
    for precision in formats {
        let opt = AdamW::default().build().unwrap().with_state_precision(precision).unwrap();
        // the check would refuse it
        let mut opt = opt.with_non_finite(NonFinite::Propagate);
        let mut w = ndarray::Array2::<f32>::ones((80, 60));
        for step in 0..4 {
            let mut grad = ndarray::Array2::<f32>::from_elem((80, 60), 0.1);
            grad[[7, 3]] = if step == 1 { 1e30 } else { 0.1 };
            opt.step(&mut w, &grad).unwrap();
            assert!(w.iter().all(|x| x.is_finite()), "{precision:?}, step {step}");
        }
    }
}

#[test]
fn the_largest_the_smallest_and_what_is_no_number() {
    extremes::<f32>();
    extremes::<f64>();
    assert_eq!(largest(&[-2.0_f32, 1.0]), 2.0);
}

#[test]
fn an_odd_last_code_is_padded_with_zero() {
    for codec in codecs(64).iter().filter(|codec| codec.spec().bits == 4) {
        let (codes, scales) = encode(codec, Isa::detect(), &[1.0_f32; 67]);
        assert_eq!((codes.len(), scales.len()), (34, 2));
        assert_eq!(codes[33], 0xf0);
    }
}

#[test]
fn wrong_formats_are_refused_by_field() {
    let message = |spec: Blockwise| spec.validate().unwrap_err().to_string();
    let default = Blockwise::default();
    assert_eq!(
        message(Blockwise { block_size: 100, ..default }),
        "Blockwise: `block_size` must be a power of two in 16..=4096, got 100"
    );
    assert_eq!(
        message(Blockwise { bits: 3, map: QuantMap::Dynamic, ..default }),
        "Blockwise: `bits` must be 4 or 8 for the map Dynamic, got 3"
    );
    assert_eq!(
        message(Blockwise { ties: Ties::Lower, ..default }),
        "Blockwise: `ties` must be Even for the map Linear, got Lower"
    );
    assert_eq!(
        Precision::Rank1(default).validate().unwrap_err().to_string(),
        "Rank1: `map` must be DynamicLinear, got Linear"
    );
}

#[test]
fn small_tensors_keep_full_precision() {
    let policy = StatePolicy::from(Precision::INT8_LINEAR);
    assert_eq!(policy.precision_of(4095), Precision::Full);
    assert_eq!(policy.precision_of(4097), Precision::INT8_LINEAR);
    let whole = StatePolicy { whole_blocks: true, ..policy };
    assert_eq!(whole.precision_of(4097), Precision::Full);
    assert_eq!(whole.precision_of(4096), Precision::INT8_LINEAR);
    let lpmm = StatePolicy::from(Precision::INT4_LPMM);
    assert!(matches!(lpmm.format(&[64, 64], false), Ok(SlotFormat::Rank1(_))));
    assert!(matches!(lpmm.format(&[64, 64], true), Ok(SlotFormat::Blockwise(_))));
    assert!(matches!(lpmm.format(&[4096], false), Ok(SlotFormat::Blockwise(_))));
}

#[test]
fn bf16_on_every_instruction_set() {
    let x: Vec<f64> = (0..1001).map(|i| f64::from(i).sin() * 10_f64.powi(i % 60 - 30)).collect();
    let mut expected = vec![0; x.len()];
    encode_bf16(Isa::portable(), &x, &mut expected);
    for isa in Isa::available() {
        let (mut codes, mut out) = (vec![0; x.len()], vec![0.0; x.len()]);
        encode_bf16(isa, &x, &mut codes);
        assert_eq!(codes, expected);
        decode_bf16(isa, &codes, &mut out);
        assert!(x.iter().zip(&out).all(|(x, y): (&f64, &f64)| (x - y).abs() <= x.abs() / 256.0));
    }
}

/// Buffers that do not fit are typed errors, and nothing is written.
#[test]
fn buffers_that_do_not_fit_are_refused() {
    let isa = Isa::detect();
    let refused = |result: eigenstep::Result<()>| match result {
        Err(Error::LengthMismatch { .. } | Error::ShapeMismatch { .. }) => {}
        other => panic!("{other:?}"),
    };
    let x = [0.5f32; 300];
    for codec in codecs(128) {
        let (codes, scales) = encode(&codec, isa, &x);
        let (mut short, mut few) = (vec![7; codes.len() - 1], vec![7.0f32; scales.len() - 1]);
        let (mut whole, mut all) = (codes.clone(), scales.clone());
        refused(codec.encode(isa, &x, &mut short, &mut all));
        refused(codec.encode(isa, &x, &mut whole, &mut few));
        refused(codec.encode(isa, &x[..0], &mut whole, &mut all));
        assert!(short.iter().all(|&code| code == 7) && few.iter().all(|&scale| scale == 7.0));
        assert_eq!((&whole, &all), (&codes, &scales));
        let mut out = [7.0f32; 300];
        refused(codec.decode(isa, &short, &scales, &mut out));
        refused(codec.decode(isa, &codes, &few, &mut out));
        refused(codec.decode(isa, &[], &[], &mut out));
        assert_eq!(out, [7.0; 300]);
    }
    let codec = rank1_codec();
    let scales = Rank1Scales::of(&[10, 30], &x).unwrap();
    let (mut codes, mut out) = ([0; 150], [7.0f32; 300]);
    refused(codec.encode(isa, &scales, 1, &x[..299], &mut codes));
    refused(codec.encode(isa, &scales, 2, &x, &mut codes));
    refused(codec.encode(isa, &scales, 0, &x, &mut codes[1..]));
    refused(codec.decode(isa, &scales, 0, &codes[1..], &mut out));
    refused(codec.decode(isa, &scales, 400, &[], &mut out[..1]));
    let maxima = Rank1Maxima::new(&[10, 30]).unwrap();
    refused(maxima.accumulate(isa, 1, &x));
    refused(maxima.accumulate(isa, usize::MAX, &x));
    refused(maxima.take_into(&mut Rank1Scales::<f32>::zeros(&[30, 10]).unwrap()));
    for shape in [&[1 << 60][..], &[1 << 60, 0], &[usize::MAX, 1], &[1 << 33, 1 << 33]] {
        refused(Rank1Scales::<f32>::zeros(shape).map(drop));
        refused(Rank1Scales::<f32>::from_maxima(shape, vec![]).map(drop));
        refused(Rank1Scales::<f32>::of(shape, &[]).map(drop));
        refused(Rank1Maxima::new(shape).map(drop));
    }
}
