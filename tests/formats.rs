//! Grids of few bits: what rounding does on average, what it never does, and what is refused; and
//! the split of work.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

use eigenstep::Error;
use eigenstep::numeric::random::philox4x32;
use eigenstep::zeroth_order::{
    Format, Fp8, IntegerFormat, nearest_int, pack_int4, stochastic_round_int, unpack_int4,
    work_split,
};
use proptest::prelude::*;

/// Multiples of 2⁻³² in `[0, 1)`.
fn uniforms(seed: u64) -> impl Iterator<Item = f64> {
    let key = [seed as u32, (seed >> 32) as u32];
    (0u32..)
        .flat_map(move |block| philox4x32([block, 0, 0, 1 << 24], key))
        .map(|word| f64::from(word) / 4_294_967_296.0)
}

fn formats() -> impl Strategy<Value = Format> {
    let int = (2u8..=8, any::<bool>());
    prop_oneof![
        int.prop_map(|(bits, full)| Format::Int(IntegerFormat { bits, full })),
        Just(Format::E4M3),
        Just(Format::E5M2),
    ]
}

/// All finite numbers of a format at scale 1, in order.
fn grid(format: Format) -> Vec<f64> {
    let codes = match format {
        Format::Int(int) => (int.qmin()..=int.qmax()).map(|code| code as u8).collect(),
        _ => (0..=255u8).collect::<Vec<u8>>(),
    };
    let mut grid: Vec<f64> = codes.into_iter().map(|code| format.decode(code, 1.0)).collect();
    grid.retain(|x| x.is_finite());
    grid.iter_mut().for_each(|x| *x += 0.0);
    grid.sort_by(f64::total_cmp);
    grid.dedup();
    grid
}

/// The numbers of the grid around `x`.
fn around(grid: &[f64], x: f64) -> (f64, f64) {
    let low = grid.iter().rev().find(|&&g| g <= x).copied().unwrap();
    (low, grid.iter().find(|&&g| g >= x).copied().unwrap())
}

#[test]
fn grids_have_the_numbers_they_are_known_for() {
    assert_eq!(grid(Format::INT2), [-1.0, 0.0, 1.0]);
    assert_eq!(grid(Format::INT4).len(), 15);
    assert_eq!(grid(Format::Int(IntegerFormat { bits: 8, full: true })).len(), 256);
    // 256 codes less one zero, and less two NaN; less six NaN and two infinities
    assert_eq!(grid(Format::E4M3).len(), 253);
    assert_eq!(grid(Format::E5M2).len(), 247);
    for fp8 in [Fp8::E4M3, Fp8::E5M2] {
        for code in (0..=255).filter(|&code| fp8.decode(code).is_finite() && code != 0x80) {
            let x = fp8.decode(code);
            assert_eq!((fp8.encode_nearest(x), fp8.encode(x, 0.0)), (code, code));
        }
        assert_eq!(fp8.decode(0x80).to_bits(), (-0.0f64).to_bits());
        // and zero has one code
        assert_eq!(
            (fp8.encode_nearest(-0.0), fp8.encode(-1e-30, 0.0), fp8.encode(-1e-30, 1.0)),
            (0, 0, 0x81)
        );
    }
}

/// The mean within five standard deviations, the variance as stated.
#[test]
fn rounding_is_right_on_average() {
    const DRAWS: usize = 200_000;
    for (seed, (format, x, scale)) in [
        (Format::INT4, 2.3, 1.0),
        (Format::INT4, -2.9, 1.0),
        (Format::INT8, -0.37, 0.25),
        (Format::INT2, 0.01, 0.7),
        (Format::E4M3, 0.003, 1.0),
        (Format::E4M3, -300.0, 1.0),
        (Format::E5M2, 5.3, 0.5),
        (Format::E5M2, -1e-5, 1.0),
    ]
    .into_iter()
    .enumerate()
    {
        let (low, high) = around(&grid(format), x / scale);
        let variance = (x - scale * low) * (scale * high - x);
        let drawn: Vec<f64> =
            uniforms(seed as u64).take(DRAWS).map(|u| format.round(x, scale, u) - x).collect();
        let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
        let bound = 5.0 * (variance / DRAWS as f64).sqrt();
        assert!(mean.abs() < bound, "{format:?} {x}: off by {mean:e}, allowed {bound:e}");
        let found = drawn.iter().map(|e| e * e).sum::<f64>() / DRAWS as f64;
        assert!((found / variance - 1.0).abs() < 0.1, "{format:?} {x}: {found:e}, {variance:e}");
    }
}

/// Over equidistant `u` the mean is exact up to one of them, so no sample is needed.
#[test]
fn rounding_has_the_stated_mean_for_equidistant_numbers() {
    const N: usize = 4096;
    for x in [-6.99, -3.5, -0.001, 0.25, 5.75] {
        let points = (0..N).map(|i| (i as f64 + 0.5) / N as f64);
        let mean =
            points.map(|u| f64::from(stochastic_round_int(x, u, -7, 7))).sum::<f64>() / N as f64;
        assert!((mean - x).abs() <= 1.0 / N as f64, "{x}: {mean}");
    }
}

proptest! {
    #[test]
    fn numbers_of_a_grid_never_move(format in formats(), at in any::<prop::sample::Index>(),
                                    power in -20i32..20, u in 0.0..1.0f64) {
        let (grid, scale) = (grid(format), 2f64.powi(power));
        let x = scale * grid[at.index(grid.len())];
        prop_assert_eq!(format.round(x, scale, u), x);
        prop_assert_eq!(format.round(x, scale, 0.0), x);
        prop_assert_eq!(format.nearest(x, scale), x);
        prop_assert!(!format.saturates(x, scale));
    }

    #[test]
    fn results_are_neighbours(format in formats(), position in -1.0..1.0f64, u in 0.0..1.0f64) {
        let (grid, (least, most)) = (grid(format), format.range());
        let x = if position < 0.0 { -position * least } else { position * most };
        let (low, high) = around(&grid, x);
        let (random, nearest) = (format.round(x, 1.0, u), format.nearest(x, 1.0));
        prop_assert!(random == low || random == high);
        let expected = if low == high || u >= (x - low) / (high - low) { low } else { high };
        prop_assert_eq!(random, expected);
        prop_assert!((nearest - x).abs() <= (low - x).abs().min((high - x).abs()));
        prop_assert!(random.to_bits() != (-0.0f64).to_bits());
        prop_assert!(nearest.to_bits() != (-0.0f64).to_bits());
    }

    #[test]
    fn any_number_gives_one_of_the_grid(format in formats(), x in any::<f64>(), u in any::<f64>(),
                                        scale in 0.0..1e3f64) {
        let (random, nearest) = (format.round(x, scale, u), format.nearest(x, scale));
        prop_assert_eq!(random.is_nan(), x.is_nan());
        prop_assert_eq!(nearest.is_nan(), x.is_nan());
        if !x.is_nan() {
            let (least, most) = format.range();
            prop_assert!((scale * least..=scale * most).contains(&random));
        }
        stochastic_round_int(x, u, 5, -5);
        nearest_int(x, 5, -5);
    }

    #[test]
    fn slices_agree_with_their_codes(format in formats(), seed in any::<u64>(),
                                     x in prop::collection::vec(-9.0f32..9.0, 0..40)) {
        let scale = format.scale(&x);
        let u: Vec<f64> = uniforms(seed).take(x.len()).collect();
        let mut rounded = vec![f32::NAN; x.len()];
        prop_assert_eq!(format.round_slice(&x, scale, |i| u[i], &mut rounded).unwrap(), 0);
        let codes = format.encode(&x, scale, |i| u[i]).unwrap();
        let packed = matches!(format, Format::Int(int) if int.bits <= 4);
        prop_assert_eq!(codes.bytes().len(), if packed { x.len().div_ceil(2) } else { x.len() });
        prop_assert_eq!((codes.numel(), codes.saturated()), (x.len(), 0));
        let mut decoded = vec![f32::NAN; x.len()];
        codes.decode_into(&mut decoded).unwrap();
        prop_assert_eq!(decoded, rounded);
    }

    #[test]
    fn nibbles_come_back(codes in prop::collection::vec(-8i8..8, 0..20)) {
        let bytes = pack_int4(&codes);
        prop_assert_eq!(unpack_int4(&bytes, codes.len()).unwrap(), codes);
    }

    #[test]
    fn work_is_split_in_order_and_evenly(weights in prop::collection::vec(0u64..100, 0..40),
                                         workers in 1usize..9) {
        let split = work_split(&weights, workers).unwrap();
        prop_assert!(split.is_sorted() && split.iter().all(|&worker| worker < workers));
        let total: u64 = weights.iter().sum();
        let most = weights.iter().max().copied().unwrap_or(0);
        for worker in 0..workers {
            let mine = split.iter().zip(&weights).filter(|(owner, _)| **owner == worker);
            let load: u64 = mine.map(|(_, weight)| weight).sum();
            prop_assert!(load as f64 <= total as f64 / workers as f64 + most as f64);
        }
    }
}

#[test]
fn work_of_any_size_is_split() {
    assert_eq!(work_split(&[], 3).unwrap(), [0usize; 0]);
    assert_eq!(work_split(&[u64::MAX; 4], usize::MAX).unwrap().len(), 4);
    assert_eq!(work_split(&[u64::MAX; 4], 4).unwrap(), [0, 1, 2, 3]);
    // what costs nothing at the end stays with the last
    assert_eq!(work_split(&[5, 5, 0, 0], 2).unwrap(), [0, 1, 1, 1]);
    let error = work_split(&[1], 0).unwrap_err();
    assert!(matches!(error, Error::InvalidHyperparameter { field: "workers", .. }), "{error}");
}

#[test]
fn the_ends_and_zero() {
    let int4 = Format::INT4;
    for (x, end) in [(f64::INFINITY, 7.0), (-1e300, -7.0)] {
        assert_eq!((int4.round(x, 1.0, 0.5), int4.nearest(x, 1.0)), (end, end));
        assert!(int4.saturates(x, 1.0));
    }
    assert_eq!(Format::E5M2.nearest(f64::INFINITY, 1.0), 57344.0);
    assert_eq!(Format::E5M2.round(-1e9, 1.0, 0.0), -57344.0);
    // an infinity saturates and leaves the scale alone
    let x = [1.0f64, f64::NEG_INFINITY, -3.5];
    let codes = int4.encode(&x, int4.scale(&x), |_| 0.5).unwrap();
    let mut y = [0.0; 3];
    codes.decode_into(&mut y).unwrap();
    assert_eq!((y, codes.saturated()), ([1.0, -3.5, -3.5], 1));
    // nothing but zeros has scale 0 and codes 0
    let zeros = int4.encode(&[0.0f32, -0.0], int4.scale(&[0.0f32, -0.0]), |_| 0.0).unwrap();
    assert_eq!((zeros.scale(), zeros.bytes()), (0.0, &[0u8][..]));
    // a slice scaled by its own largest element never saturates, whatever rounding did to the scale
    for i in 1..2000 {
        let x = [f64::from(i) * 0.1];
        assert!(!int4.saturates(x[0], int4.scale(&x)));
        assert!(!Format::INT8.saturates(x[0], Format::INT8.scale(&x)));
    }
}

#[test]
fn what_cannot_be_rounded_is_refused_and_nothing_is_written() {
    let mut y = [9.0f32; 2];
    let refused = |found: Result<usize, Error>, expected: &str| {
        let message = found.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let (int4, x) = (Format::INT4, [1.0f32, 2.0]);
    refused(int4.round_slice(&[1.0, f32::NAN], 1.0, |_| 0.5, &mut y), "not finite: NaN");
    refused(int4.nearest_slice(&[1.0, f32::NAN], 1.0, &mut y), "not finite: NaN");
    refused(int4.round_slice(&x, -1.0, |_| 0.5, &mut y), "`scale`");
    refused(int4.round_slice(&x, f64::INFINITY, |_| 0.5, &mut y), "`scale`");
    refused(int4.nearest_slice(&x, f64::NAN, &mut y), "`scale`");
    refused(int4.round_slice(&x[..1], 1.0, |_| 0.5, &mut y), "`out`");
    let wide = Format::Int(IntegerFormat { bits: 9, full: false });
    refused(wide.nearest_slice(&x, 1.0, &mut y), "`bits`");
    assert_eq!(y, [9.0; 2]);
    assert!(matches!(unpack_int4(&[0], 3), Err(Error::LengthMismatch { .. })));
    // 8-bit numbers have NaN
    assert_eq!(Format::E4M3.nearest_slice(&[1.0, f32::NAN], 1.0, &mut y).unwrap(), 0);
    assert!(y[1].is_nan());
    let codes = Format::E5M2.encode(&[f32::NAN], 1.0, |_| 0.5).unwrap();
    assert!(Fp8::E5M2.decode(codes.bytes()[0]).is_nan());
}
