//! Properties of the codes of matrices, and what they cost in accuracy.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "support/cases.rs"]
mod cases;

use eigenstep::Error;
use eigenstep::linalg::{bjorck, eigh, matmul, qr};
use eigenstep::numeric::Real;
use eigenstep::quant::{
    MatrixCodec, MatrixMap, QuantizedColumns, QuantizedSymmetric, QuantizedTriangular,
};
use ndarray::{Array1, Array2, Axis, array, s};
use proptest::prelude::*;

const MAPS: [MatrixMap; 2] = [MatrixMap::Linear2, MatrixMap::DynamicTree];

/// Every map with every number of bits.
fn codecs(block_size: usize) -> impl Iterator<Item = MatrixCodec> {
    let with = move |map| move |bits| MatrixCodec { bits, block_size, map };
    MAPS.into_iter().flat_map(move |map| [3, 4, 8].map(with(map)))
}

fn columns<R: Real>(codec: MatrixCodec, x: &Array2<R>) -> QuantizedColumns<R> {
    let mut coded = QuantizedColumns::zeros(codec, x.dim()).unwrap();
    coded.encode(x).unwrap();
    coded
}

fn symmetric<R: Real>(codec: MatrixCodec, x: &Array2<R>) -> QuantizedSymmetric<R> {
    let mut coded = QuantizedSymmetric::zeros(codec, x.nrows()).unwrap();
    coded.encode(x).unwrap();
    coded
}

fn triangular<R: Real>(codec: MatrixCodec, x: &Array2<R>) -> QuantizedTriangular<R> {
    let mut coded = QuantizedTriangular::zeros(codec, x.nrows()).unwrap();
    coded.encode(x).unwrap();
    coded
}

/// The codes of a line of `length` entries, from the definition of the packing.
fn unpack(bits: u8, length: usize, bytes: &[u8]) -> Vec<u8> {
    let bit = |i: usize| bytes[i / 8] >> (i % 8) & 1;
    let width = usize::from(bits);
    (0..length).map(|k| (0..width).map(|b| bit(k * width + b) << b).sum()).collect()
}

/// The codes, column by column.
fn codes<R: Real>(coded: &QuantizedColumns<R>) -> Vec<Vec<u8>> {
    let (rows, cols) = coded.dim();
    let bits = coded.codec().bits;
    let width = (rows * usize::from(bits)).div_ceil(8);
    let column = |j| unpack(bits, rows, &coded.codes()[j * width..(j + 1) * width]);
    (0..cols).map(column).collect()
}

/// Matrices of very different entries, zeros among them.
fn matrices() -> impl Strategy<Value = Array2<f64>> {
    let number = (-1.0..1.0_f64, -6..4_i32).prop_map(|(x, e)| x * 10_f64.powi(e));
    let number = prop_oneof![1 => Just(0.0), 8 => number];
    (0..23_usize, 0..19_usize).prop_flat_map(move |(rows, cols)| {
        proptest::collection::vec(number.clone(), rows * cols)
            .prop_map(move |x| Array2::from_shape_vec((rows, cols), x).unwrap())
    })
}

/// Largest distance of a number in `[−1, 1]` from its level.
fn worst(codec: MatrixCodec) -> f64 {
    let levels = codec.map.levels(codec.bits).unwrap();
    let gap = levels.windows(2).map(|pair| (pair[1] - pair[0]) / 2.0).fold(0.0, f64::max);
    gap.max(levels[0] + 1.0)
}

fn bits<R: Real>(x: &Array2<R>) -> Vec<u64> {
    x.iter().map(|x| x.widen().to_bits()).collect()
}

/// Error bound, codes nearest and monotone, scales, for one column.
fn check_column<R: Real>(codec: MatrixCodec, x: &[R], codes: &[u8], scales: &[R], out: &[R]) {
    let levels = codec.map.levels(codec.bits).unwrap();
    let eps = R::epsilon().widen();
    for (block, (x, scale)) in x.chunks(codec.block_size).zip(scales).enumerate() {
        let at = block * codec.block_size;
        let (codes, out) = (&codes[at..at + x.len()], &out[at..at + x.len()]);
        let largest = x.iter().map(|x| x.widen().abs()).fold(0.0, f64::max);
        assert_eq!(scale.widen(), largest);
        for ((x, out), &code) in x.iter().zip(out).zip(codes) {
            let error = (x.widen() - out.widen()).abs();
            assert!(error <= largest * (worst(codec) + 2.0 * eps), "{codec}: {x:?} {out:?}");
            let y = if largest > 0.0 { x.widen() / largest } else { 0.0 };
            let nearest = levels.iter().map(|level| (y - level).abs()).fold(1.0, f64::min);
            assert!((y - levels[usize::from(code)]).abs() <= nearest + 4.0 * eps);
            if x.is_zero() {
                assert_eq!(out.widen().to_bits(), 0, "a zero stays a zero");
            }
        }
        let mut sorted: Vec<_> = x.iter().map(|x| x.widen()).zip(codes).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(sorted.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{codec}");
    }
}

fn check_columns<R: Real>(codec: MatrixCodec, x: &Array2<R>) {
    let (coded, (rows, cols)) = (columns(codec, x), x.dim());
    let out = coded.decode();
    let blocks = rows.div_ceil(codec.block_size);
    for (j, codes) in codes(&coded).iter().enumerate() {
        let scales = &coded.scales()[j * blocks..(j + 1) * blocks];
        check_column(codec, &x.column(j).to_vec(), codes, scales, &out.column(j).to_vec());
    }
    let width = (rows * usize::from(codec.bits)).div_ceil(8);
    assert_eq!(coded.bytes(), cols * (width + blocks * size_of::<R>()));
    if codec.map == MatrixMap::Linear2 {
        assert_eq!(columns(codec, &out), coded, "{codec}: coding again changes something");
    }
    // any layout of the input, and of the output, gives the same
    let mut transposed = Array2::zeros((cols, rows));
    coded.decode_into(&mut transposed.view_mut().reversed_axes()).unwrap();
    assert_eq!(bits(&transposed.t().to_owned()), bits(&out));
    let mut again = QuantizedColumns::zeros(codec, x.dim()).unwrap();
    again.encode(&x.t().to_owned().t()).unwrap();
    assert_eq!(again, coded);
    let parts = (coded.codes().to_vec(), coded.scales().to_vec());
    assert_eq!(QuantizedColumns::from_parts(codec, x.dim(), parts.0, parts.1).unwrap(), coded);
}

proptest! {
    #![proptest_config(cases::cases(48))]

    #[test]
    fn columns_keep_what_they_promise(x in matrices(), block in 1..25_usize) {
        for codec in codecs(block) {
            check_columns(codec, &x);
            check_columns(codec, &x.mapv(|x| x as f32));
        }
    }

    #[test]
    fn powers_of_two_only_change_the_scales(x in matrices(), power in -20..20_i32) {
        let factor = 2_f64.powi(power);
        for codec in codecs(7) {
            let (small, large) = (columns(codec, &x), columns(codec, &(&x * factor)));
            prop_assert_eq!(small.codes(), large.codes());
            prop_assert!(small.scales().iter().zip(large.scales()).all(|(a, b)| a * factor == *b));
        }
    }

    #[test]
    fn blocks_are_independent(x in matrices(), place in 0..1000_usize, value in -1e5..1e5_f64) {
        prop_assume!(!x.is_empty());
        for codec in codecs(5) {
            let (i, j) = (place % x.nrows(), place / x.nrows() % x.ncols());
            let mut changed = x.clone();
            changed[(i, j)] = value;
            let (a, b) = (columns(codec, &x).decode(), columns(codec, &changed).decode());
            for ((at, a), b) in a.indexed_iter().zip(&b) {
                prop_assert!(a == b || at.1 == j && at.0 / 5 == i / 5);
            }
        }
    }

    #[test]
    fn the_other_formats_are_columns_of_what_they_code(x in matrices(), block in 1..25_usize) {
        let n = x.nrows().min(x.ncols());
        let x = x.slice(s![..n, ..n]).to_owned();
        for codec in codecs(block) {
            let mut hollow = x.clone();
            hollow.diag_mut().fill(0.0);
            let mut expected = columns(codec, &hollow.t().to_owned()).decode().t().to_owned();
            expected.diag_mut().assign(&x.diag());
            let coded = symmetric(codec, &x);
            prop_assert_eq!(bits(&coded.decode()), bits(&expected));
            let halves = coded.clone().symmetrize(true).decode();
            prop_assert_eq!(&halves, &halves.t());
            prop_assert!((halves - (&expected + &expected.t()) / 2.0).iter().all(|x| *x == 0.0));
            let width = (n * usize::from(codec.bits)).div_ceil(8) + 8 * n.div_ceil(block) + 8;
            prop_assert_eq!(coded.bytes(), n * width);

            let coded = triangular(codec, &x);
            let mut bytes = 8 * n;
            for i in 0..n {
                let row = x.slice(s![i..i + 1, ..i]).t().to_owned();
                let row = columns(codec, &row);
                bytes += row.bytes();
                let (row, out) = (row.decode(), coded.decode());
                prop_assert_eq!(row.t(), out.slice(s![i..i + 1, ..i]));
                prop_assert_eq!(coded.decode()[(i, i)], x[(i, i)]);
                prop_assert!(coded.decode().slice(s![i, i + 1..]).iter().all(|x| *x == 0.0));
            }
            prop_assert_eq!(coded.bytes(), bytes);
        }
    }

    #[test]
    fn scaled_signed_permutations_survive(seed in any::<u64>(), n in 1..20_usize) {
        let mut places: Vec<usize> = (0..n).collect();
        places.sort_by_key(|&i| (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut x = Array2::zeros((n, n));
        for (i, &j) in places.iter().enumerate() {
            x[(i, j)] = if seed >> (i % 64) & 1 == 0 { 0.3 } else { -7.0 } * (i + 1) as f64;
        }
        for bits in [3, 4, 8] {
            let codec = MatrixCodec { bits, ..MatrixCodec::default() };
            prop_assert_eq!(&columns(codec, &x).decode(), &x);
            prop_assert_eq!(&symmetric(codec, &x).decode(), &x);
        }
    }
}

/// The definition: the nearest level, and of two at the same distance the even one.
fn nearest<R: Real>(levels: &[f64], y: R) -> u8 {
    // the distances are compared by the middle, which `f64` holds exactly for levels in `f32`
    let level = |j: usize| R::of(levels[j]).widen();
    let reached = |j: &usize| {
        let middle = 0.5 * (level(*j) + level(j + 1));
        y.widen() > middle || y.widen() == middle && j % 2 == 1
    };
    (0..levels.len() - 1).filter(reached).count() as u8
}

/// Every middle between two levels, its neighbours, and numbers all over.
fn codes_are_the_nearest<R: Real>(up: fn(R) -> R, down: fn(R) -> R) {
    for codec in codecs(1000) {
        let levels = codec.map.levels(codec.bits).unwrap();
        let mut y = vec![R::one()];
        for pair in levels.windows(2) {
            let middle = R::of(0.5 * (R::of(pair[0]).widen() + R::of(pair[1]).widen()));
            y.extend([middle, up(middle), down(middle), R::of(pair[0])]);
        }
        let wave = |i: u32| (f64::from(i) * 0.7).sin();
        y.extend((0..2000).map(|i| R::of(wave(i).powi(1 + (i % 9) as i32))));
        // blocks of fewer than 1000, each with a 1, so that scaling changes nothing
        for part in y.chunks(900) {
            let column: Vec<R> = std::iter::once(R::one()).chain(part.iter().copied()).collect();
            let x = Array1::from(column).insert_axis(Axis(1));
            let found = codes(&columns(codec, &x)).concat();
            for (y, code) in x.iter().zip(found) {
                assert_eq!(code, nearest(levels, *y), "{codec}: {y:?}");
            }
        }
    }
}

#[test]
fn codes_are_those_of_the_nearest_levels() {
    codes_are_the_nearest::<f32>(f32::next_up, f32::next_down);
    codes_are_the_nearest::<f64>(f64::next_up, f64::next_down);
}

#[test]
fn the_identity_is_exact_in_every_format() {
    for n in [0, 1, 2, 7, 16, 65] {
        for codec in codecs(64) {
            let eye = Array2::<f32>::eye(n);
            assert_eq!(QuantizedColumns::<f32>::identity(codec, n).unwrap().decode(), eye);
            assert_eq!(QuantizedSymmetric::<f32>::identity(codec, n).unwrap().decode(), eye);
            assert_eq!(QuantizedTriangular::<f32>::identity(codec, n).unwrap().decode(), eye);
            let zeros = QuantizedColumns::<f32>::zeros(codec, (n, n + 1)).unwrap().decode();
            assert!(zeros.iter().all(|x| x.to_bits() == 0));
        }
    }
}

#[test]
fn single_entries_and_empty_matrices() {
    for codec in codecs(64) {
        let x = array![[-3.5_f64]];
        let low = codec.map.levels(codec.bits).unwrap()[0];
        assert_eq!(columns(codec, &x).decode(), array![[-3.5 * -low]]);
        assert_eq!(symmetric(codec, &x).decode(), x);
        assert_eq!(triangular(codec, &x).decode(), x);
        for dim in [(0, 0), (0, 3), (3, 0)] {
            let empty = Array2::<f32>::zeros(dim);
            assert_eq!(columns(codec, &empty).decode().dim(), dim);
            assert_eq!(columns(codec, &empty).bytes(), 0);
        }
        assert_eq!(symmetric(codec, &Array2::<f32>::zeros((0, 0))).bytes(), 0);
    }
}

#[test]
fn subnormal_blocks_are_zero_where_their_reciprocal_is_not_finite() {
    let tiny = f32::from_bits(1);
    for codec in codecs(2) {
        let coded = columns(codec, &array![[tiny], [-tiny], [1.0], [tiny]]);
        assert_eq!((coded.scales(), coded.decode()[(0, 0)].to_bits()), (&[0.0, 1.0][..], 0));
        assert_eq!(coded.decode().column(0).to_vec(), [0.0, 0.0, 1.0, 0.0]);
        let smallest = 1.0 / f32::MAX.next_down();
        let kept = columns(codec, &array![[smallest], [f32::MAX]]);
        assert!(kept.decode().iter().all(|x| x.is_finite()));
        assert_eq!(kept.scales(), [f32::MAX]);
    }
}

/// The first value in the way, and that nothing has changed.
#[test]
fn what_is_not_finite_is_refused() {
    let x = Array2::from_shape_fn((9, 9), |(i, j)| (i * 9 + j) as f32);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut wrong = x.clone();
        wrong[(8, 3)] = bad;
        let codec = MatrixCodec::default();
        let (mut a, mut b, mut c) =
            (columns(codec, &x), symmetric(codec, &x), triangular(codec, &x));
        let before = (a.clone(), b.clone(), c.clone());
        let errors = [a.encode(&wrong), b.encode(&wrong), c.encode(&wrong)];
        for error in errors {
            assert!(matches!(error, Err(Error::NonFinite { value, .. }) if !value.is_finite()));
        }
        assert!(a.encode(&wrong.t()).is_err());
        assert!(a.encode(&wrong.slice(s![..;-1, ..])).is_err());
        assert_eq!((a, b, c.clone()), before);
        // above the diagonal nothing is read
        c.encode(&wrong.t()).unwrap();
    }
}

#[test]
fn other_shapes_are_refused() {
    let codec = MatrixCodec::default();
    let mut coded = QuantizedColumns::<f32>::zeros(codec, (3, 2)).unwrap();
    let message = coded.encode(&Array2::zeros((2, 3))).unwrap_err().to_string();
    assert_eq!(message, "parameter `matrix`: expected shape [3, 2], found [2, 3]");
    assert!(coded.decode_into(&mut Array2::zeros((3, 3))).is_err());
    let mut coded = QuantizedSymmetric::<f32>::zeros(codec, 3).unwrap();
    assert!(coded.encode(&Array2::zeros((2, 3))).is_err());
    let coded = QuantizedTriangular::<f32>::zeros(codec, 3).unwrap();
    assert!(coded.decode_into(&mut Array2::zeros((3, 2))).is_err());
}

#[test]
fn wrong_codecs_and_parts_are_refused() {
    let message = |codec: MatrixCodec| codec.validate().unwrap_err().to_string();
    let codec = MatrixCodec::default();
    let bits = message(MatrixCodec { bits: 5, ..codec });
    assert_eq!(bits, "MatrixCodec: `bits` must be 3, 4 or 8, got 5");
    let block = message(MatrixCodec { block_size: 0, ..codec });
    assert_eq!(block, "MatrixCodec: `block_size` must be at least 1, got 0");
    assert!(QuantizedColumns::<f32>::zeros(MatrixCodec { bits: 0, ..codec }, (2, 2)).is_err());

    let parts = |codes, scales: Vec<f32>| {
        QuantizedColumns::from_parts(codec, (3, 2), vec![0; codes], scales).map(|_| ())
    };
    assert!(parts(4, vec![1.0; 2]).is_ok());
    let error = parts(3, vec![1.0; 2]).unwrap_err().to_string();
    assert_eq!(error, "`codes`: shape [3, 2] needs 4 elements, the buffer has 3");
    assert!(matches!(parts(4, vec![1.0; 3]), Err(Error::LengthMismatch { expected: 2, .. })));
    let error = parts(4, vec![1.0, f32::NAN]).unwrap_err().to_string();
    assert_eq!(error, "a scale is not finite: NaN");

    let x = array![[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0_f32]];
    let coded = symmetric(codec, &x);
    let parts = |diagonal: Vec<f32>| {
        let (codes, scales) = (coded.codes().to_vec(), coded.scales().to_vec());
        QuantizedSymmetric::from_parts(codec, 3, codes, scales, diagonal)
    };
    assert_eq!(parts(coded.diagonal().to_vec()).unwrap(), coded);
    assert!(matches!(parts(vec![1.0; 2]), Err(Error::LengthMismatch { found: 2, .. })));
    assert!(matches!(parts(vec![f32::INFINITY; 3]), Err(Error::NonFinite { .. })));
    let coded = triangular(codec, &x);
    let (codes, scales) = (coded.codes().to_vec(), coded.scales().to_vec());
    let again = QuantizedTriangular::from_parts(codec, 3, codes, scales, coded.diagonal().to_vec());
    assert_eq!(again.unwrap(), coded);
}

/// An orthogonal matrix: Q of a Gaussian one.
fn orthogonal(n: usize, seed: u64) -> Array2<f64> {
    let mut state = seed;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let gaussian = Array2::from_shape_simple_fn((n, n), || (0..12).map(|_| uniform()).sum());
    qr(&gaussian).unwrap().0
}

/// `‖VᵀV − I‖₂`.
fn departure(v: &Array2<f64>) -> f64 {
    let gram = matmul(&v.t(), v).unwrap() - Array2::<f64>::eye(v.ncols());
    let (values, _) = eigh(&gram).unwrap();
    values.iter().fold(0.0, |largest, x| f64::max(largest, x.abs()))
}

#[test]
fn coded_eigenvectors_become_orthogonal_again() {
    for n in [64, 128] {
        let u = orthogonal(n, 7);
        for map in MAPS {
            let v = columns(MatrixCodec { map, ..MatrixCodec::default() }, &u).decode();
            let errors = (&v - &u).mapv(|x| x * x).sum_axis(Axis(0)).mapv(f64::sqrt);
            let error = errors.mean().unwrap();
            let after = |iterations| departure(&bjorck(&v, iterations).unwrap());
            let (once, four_times) = (after(1), after(4));
            assert!(after(0) < 0.5, "{map:?}");
            if map == MatrixMap::Linear2 {
                assert!((0.09..0.125).contains(&error), "{error}");
                assert!(once <= 0.08 && four_times <= 1e-8, "{once} {four_times}");
            } else {
                assert!(once <= 0.14 && four_times <= 1e-6, "{once} {four_times}");
            }
        }
    }
}

/// `|A|^(−1/4)`.
fn inverse_root(a: &Array2<f64>) -> Array2<f64> {
    let (values, vectors) = eigh(&((a + &a.t()) / 2.0)).unwrap();
    rebuild(&vectors, &values.mapv(|x| x.abs().powf(-0.25)))
}

fn rebuild(v: &Array2<f64>, values: &Array1<f64>) -> Array2<f64> {
    matmul(&(v * values), &v.t()).unwrap()
}

/// Relative error in the norm, and the angle in degrees.
fn errors(exact: &Array2<f64>, found: &Array2<f64>) -> (f64, f64) {
    let norm = |x: &Array2<f64>| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let dot = (exact * found).sum();
    let angle = (dot / (norm(exact) * norm(found))).acos().to_degrees();
    (norm(&(exact - found)) / norm(exact), angle)
}

/// The errors of `A^(−1/4)` where A, or its eigenvectors, have 4 bits; A has two eigenvalues.
#[test]
fn errors_of_the_inverse_root_are_those_of_the_paper() {
    let n = 128;
    let u = orthogonal(n, 20);
    let values = Array1::from_shape_fn(n, |i| if i < 77 { 1000.0 } else { 1.0 });
    let a = rebuild(&u, &values);
    let root = inverse_root(&a);
    let of = |map| {
        let codec = MatrixCodec { map, ..MatrixCodec::default() };
        let v = columns(codec, &u).decode();
        let with = |iterations| {
            errors(&root, &inverse_root(&rebuild(&bjorck(&v, iterations).unwrap(), &values)))
        };
        (errors(&root, &inverse_root(&symmetric(codec, &a).decode())), with(0), with(1), with(4))
    };
    let near = |x: f64, expected: f64| (x / expected - 1.0).abs() < 0.05;
    let (whole, plain, once, often) = of(MatrixMap::Linear2);
    println!("{whole:?} {plain:?} {once:?} {often:?}");
    assert!(near(once.0, 0.068) && near(once.1, 3.88), "{once:?}");
    assert!(near(plain.0, 0.099), "{plain:?}");
    assert!(whole.0 > 5.0 * once.0, "{whole:?}");
    assert!(often.0 <= once.0 && once.0 < plain.0);
    let (_, dt_plain, dt_once, dt_often) = of(MatrixMap::DynamicTree);
    assert!(dt_plain.0 > plain.0 && dt_once.0 > once.0 && dt_often.0 > often.0);
    assert!(dt_often.0 <= dt_once.0 && dt_once.0 < dt_plain.0);
}
