//! Contraction, variance, unbiasedness, ties, determinism.

use crate::cases::cases;
use crate::{Named, all, contractions, decompressed, lost, squares, vector};
use eigenstep::Error;
use eigenstep::error_feedback::compressor::{
    Compressor, HalfPrecision, Identity, LowRank, Message, Natural, Qsgd, RandK, ScaledSign,
    ScaledTopK, Selection, TopK, round_at_random,
};
use eigenstep::numeric::Real;
use ndarray::Array2;
use proptest::prelude::*;

fn contract<R: Real>(seed: u64, rows: usize, columns: usize, unit: f64) {
    let numel = rows * columns;
    for (name, mut compressor) in contractions::<R>(numel, columns, seed) {
        for t in 1..4 {
            let x: Vec<R> =
                vector::<R>(seed + t, numel).into_iter().map(|x| x * R::of(0.01)).collect();
            let y = decompressed(&compressor.compress(t, &x));
            assert!(y.iter().all(|y| y.is_finite()));
            let bound = (1.0 - compressor.contraction(numel)) * squares(&x);
            // half precision has its constant only for elements that are not denormal
            let tiny = if name == "f16" { numel as f64 * 1e-15 } else { 0.0 };
            let allowed = bound + unit * squares(&x) + tiny;
            assert!(lost(&x, &y) <= allowed, "{name}: {} > {allowed}", lost(&x, &y));
        }
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_message_is_near(seed in 0u64..1000, rows in 1usize..20, columns in 1usize..20) {
        contract::<f64>(seed, rows, columns, 1e-13);
        contract::<f32>(seed, rows, columns, 1e-6);
    }

    /// The constant of the scaled sign is exact.
    #[test]
    fn scaled_sign_loses_what_it_says(seed in 0u64..1000, len in 1usize..300) {
        let x = vector::<f64>(seed, len);
        let y = decompressed(&ScaledSign.compress(1, &x));
        let constant = ScaledSign::contraction_of(&x);
        prop_assert!((lost(&x, &y) - (1.0 - constant) * squares(&x)).abs() <= 1e-12 * squares(&x));
        prop_assert!(constant >= Compressor::<f64>::contraction(&ScaledSign, len) * (1.0 - 1e-12));
    }

    /// Places are as many as wanted, ascending, and inside; the pure form takes the same.
    #[test]
    fn places_are_a_subset(seed in any::<u64>(), t in any::<u64>(), numel in 1usize..400, share in 0.0f64..1.0) {
        let k = 1 + (share * (numel - 1) as f64) as usize;
        let places = RandK::places(seed, t, numel, k);
        prop_assert_eq!(places.len(), k);
        prop_assert!(places.is_sorted_by(|a, b| a < b) && places.iter().all(|&place| place < numel));
        let x = vector::<f64>(seed % 1000, numel);
        for unbiased in [false, true] {
            let mut compressor = RandK { density: k as f64 / numel as f64, unbiased, seed };
            let count = compressor.count(numel);
            let places = RandK::places(seed, t, numel, count).into_iter().map(|place| place as u32);
            let places: Vec<u32> = places.collect();
            let expected = decompressed(&RandK::keep(&x, &places, unbiased));
            prop_assert_eq!(decompressed(&compressor.compress(t, &x)), expected);
        }
    }

    /// What is made of a vector depends on seed, step and the vectors before, and on nothing else.
    #[test]
    fn messages_are_reproducible(seed in 0u64..1000, rows in 1usize..12, columns in 1usize..12) {
        let numel = rows * columns;
        let runs = all::<f32>(numel, columns, seed).into_iter().zip(all::<f32>(numel, columns, seed));
        for ((name, mut one), (_, mut other)) in runs {
            for t in 1..4 {
                let x = vector::<f32>(seed + t, numel);
                prop_assert_eq!(one.compress(t, &x), other.compress(t, &x), "{}", name);
            }
        }
    }

    /// A power of two more or less changes the scale of what a matrix becomes, and nothing else.
    #[test]
    fn factors_scale_with_the_matrix(seed in 0u64..300, exponent in -60i32..60) {
        let x = vector::<f32>(seed, 63);
        let factor = 2.0f32.powi(exponent);
        let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
        let mut compressor = LowRank::new(9, 7, 2, seed).unwrap();
        let y = decompressed(&compressor.clone().compress(1, &x));
        let z = decompressed(&compressor.compress(1, &scaled));
        prop_assert!(y.iter().zip(&z).all(|(y, z)| y * factor == *z));
    }
}

/// Means over many steps: of the vectors and of their errors.
fn average((name, mut compressor): Named<f64>, x: &[f64]) {
    const STEPS: u64 = 4000;
    let (mut mean, mut mean_square) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let (mut error, mut error_square) = (0.0, 0.0);
    for t in 1..=STEPS {
        let y = decompressed(&compressor.compress(t, x));
        for (i, y) in y.iter().enumerate() {
            mean[i] += y / STEPS as f64;
            mean_square[i] += y * y / STEPS as f64;
        }
        let lost = lost(x, &y);
        error += lost / STEPS as f64;
        error_square += lost * lost / STEPS as f64;
    }
    let five = |mean: f64, square: f64| {
        5.0 * ((square - mean * mean).max(0.0) / STEPS as f64).sqrt() + 1e-9
    };
    let bound = match compressor.variance(x.len()) {
        Some(variance) => {
            for (i, &x) in x.iter().enumerate() {
                let off = (mean[i] - x).abs();
                assert!(off <= five(mean[i], mean_square[i]), "{name}, element {i}: off by {off}");
            }
            variance * squares(x)
        }
        None => (1.0 - compressor.contraction(x.len())) * squares(x),
    };
    assert!(error <= bound + five(error, error_square), "{name}: {error} > {bound}");
    if name.starts_with("rand_k") {
        let off = (error - bound).abs();
        assert!(off <= five(error, error_square), "{name}: {error} is not {bound}");
    }
}

/// Unbiasedness, variance and contraction on average, within five standard errors.
#[test]
fn random_compressors_keep_their_constants() {
    for seed in [1, 2, 3] {
        let random = ["rand_k", "rand_k_unbiased", "qsgd", "natural"];
        for (name, compressor) in all::<f64>(40, 8, seed) {
            if random.contains(&name) {
                average((name, compressor), &vector(seed, 40));
            }
        }
        average(("qsgd, one level", Box::new(Qsgd { levels: 1, seed })), &vector(seed, 40));
    }
}

#[test]
fn rounding_at_random_takes_the_uniforms_given() {
    assert_eq!(round_at_random(0.0, 0.0), 0.0);
    assert_eq!(round_at_random(3.0, 0.0), 3.0);
    assert_eq!(round_at_random(3.5, 0.49), 4.0);
    let levels = Qsgd::quantize(&[3.0f64, -4.0], 5, [0.0, 0.999]);
    assert!(lost(&decompressed(&levels), &[3.0, -4.0]) < 1e-28);
    let powers = Natural::quantize(&[3.0f64, -3.0, 0.0], [0.49, 0.5, 0.0]);
    assert_eq!(decompressed(&powers), [4.0, -2.0, 0.0]);
}

/// Of equal elements those that come first; the sign of zero is positive; zero stays zero.
#[test]
fn ties_and_zeros() {
    let x = [1.0f32, -1.0, 0.5, 1.0, -1.0, 1.0];
    let y = decompressed(&TopK(Selection::Count { k: 3 }).compress(1, &x));
    assert_eq!(y, [1.0, -1.0, 0.0, 1.0, 0.0, 0.0]);
    let y = decompressed(&TopK(Selection::BlockTopK { density: 0.3, block: 4 }).compress(1, &x));
    assert_eq!(y, [1.0, -1.0, 0.0, 0.0, -1.0, 0.0]);
    assert_eq!(
        decompressed(&ScaledSign.compress(1, &[0.0f32, -0.0, -2.0, 2.0])),
        [1.0, 1.0, -1.0, 1.0]
    );
    for (name, mut compressor) in all::<f32>(24, 6, 1) {
        for t in 1..3 {
            let y = decompressed(&compressor.compress(t, &[0.0; 24]));
            assert!(y.iter().all(|y| *y == 0.0), "{name}: {y:?}");
        }
        assert_eq!(compressor.compress(3, &[]).numel(), 0, "{name}");
    }
}

/// The largest and the smallest numbers become finite ones, near to them where that is promised.
#[test]
fn extremes_stay_finite() {
    for x in [[f32::MAX; 24], [-f32::MAX; 24], [1e-44; 24], [f32::MIN_POSITIVE; 24]] {
        for (name, mut compressor) in all::<f32>(24, 6, 1) {
            let y = decompressed(&compressor.compress(1, &x));
            let overflows = name == "rand_k_unbiased" || name == "low_rank";
            assert!(overflows || y.iter().all(|y| y.is_finite()), "{name}: {y:?}");
        }
    }
    let huge = [f64::MAX, -f64::MAX, 1e300];
    let y = decompressed(&ScaledSign.compress(1, &huge));
    assert!(y.iter().all(|y| y.is_finite()));
    let y = decompressed(&HalfPrecision::F16.compress(1, &[1e9f64, -1e9, 6e-8]));
    assert_eq!(y, [65504.0, -65504.0, 2.0f64.powi(-24)]);
}

/// With the same matrix again and again the factors become the best of their rank.
#[test]
fn warm_starts_converge() {
    let x = vector::<f64>(5, 12 * 9);
    let m = Array2::from_shape_vec((12, 9), x.clone()).unwrap();
    let (_, values, _) = eigenstep::linalg::svd(&m).unwrap();
    let best: f64 = values.iter().skip(2).map(|x| x * x).sum();
    let mut compressor = LowRank::new(12, 9, 2, 0).unwrap();
    let mut last = f64::INFINITY;
    for t in 1..200 {
        let left = lost(&x, &decompressed(&compressor.compress(t, &x)));
        assert!(left <= last * (1.0 + 1e-9), "step {t}");
        last = left;
    }
    assert!((last / best - 1.0).abs() < 1e-4, "{last} against {best}");
}

/// Zero matrices, and matrices of less than the rank, leave no column of zeros behind.
#[test]
fn bases_do_not_die() {
    let mut compressor = LowRank::new(12, 9, 3, 0).unwrap();
    compressor.compress(1, &[0.0; 108]);
    let mut one = vec![0.0f64; 108];
    one[5] = 1.0;
    compressor.compress(2, &one);
    let x = vector::<f64>(5, 108);
    let mut left = 0.0;
    for t in 3..100 {
        left = lost(&x, &decompressed(&compressor.compress(t, &x)));
    }
    let m = Array2::from_shape_vec((12, 9), x).unwrap();
    let (_, values, _) = eigenstep::linalg::svd(&m).unwrap();
    let best: f64 = values.iter().skip(3).map(|x| x * x).sum();
    assert!(left < 1.1 * best, "{left} against {best}");
}

/// Vectors, and matrices that are not larger than their factors, are sent as they are.
#[test]
fn small_matrices_are_exact() {
    for (rows, columns, rank) in [(1, 30, 1), (30, 1, 4), (5, 6, 100), (4, 4, 2)] {
        let mut compressor = LowRank::new(rows, columns, rank, 0).unwrap();
        assert!(compressor.is_exact() && compressor.rank() <= rank.min(rows).min(columns));
        let x = vector::<f32>(1, rows * columns);
        assert_eq!(compressor.compress(1, &x), Message::Dense(x));
        assert_eq!(compressor.contraction(rows * columns), 1.0);
    }
}

fn refused(compressor: impl Compressor<f32>, name: &str) {
    match compressor.validate(30) {
        Err(Error::InvalidHyperparameter { field, .. }) if field == name => {}
        other => panic!("{compressor:?}: {other:?}"),
    }
}

#[test]
fn bad_options_are_errors() {
    for density in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        refused(TopK(Selection::TopK { density }), "density");
        refused(TopK(Selection::BlockTopK { density, block: 8 }), "density");
        refused(RandK { density, ..RandK::default() }, "density");
    }
    refused(TopK(Selection::BlockTopK { density: 0.1, block: 0 }), "block");
    refused(TopK(Selection::Count { k: 0 }), "k");
    refused(TopK(Selection::Count { k: 31 }), "k");
    refused(Qsgd { levels: 0, seed: 0 }, "levels");
    refused(Qsgd { levels: u32::MAX, seed: 0 }, "levels");
    refused(LowRank::new(5, 7, 1, 0).unwrap(), "columns");
    let mut scaled = ScaledTopK::<f32>::new(5, Selection::Count { k: 1 }, 1.0).unwrap();
    assert_eq!(decompressed(&scaled.compress(1, &[1.0, 2.0])), [1.0, 2.0]);
    refused(scaled, "numel");
    assert!(ScaledTopK::<f32>::new(5, Selection::Count { k: 1 }, f64::NAN).is_err());
    assert!(LowRank::<f32>::new(5, 6, 0, 0).is_err());
    assert!(LowRank::<f32>::new(usize::MAX, 2, 1, 0).is_err());
    assert!(Compressor::<f32>::validate(&Identity, 30).is_ok());
    // what is refused does not panic either
    let x = vector::<f32>(1, 30);
    for density in [0.0, f64::NAN, 2.0] {
        RandK { density, unbiased: true, seed: 0 }.compress(1, &x);
        TopK(Selection::BlockTopK { density, block: 0 }).compress(1, &x);
    }
    Qsgd { levels: 0, seed: 0 }.compress(1, &x);
    LowRank::new(5, 7, 1, 0).unwrap().compress(1, &x);
}
