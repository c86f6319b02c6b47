//! Numbers of whole trees: independent of threads and memory order, symmetric, linear, and right at the ends of
//! the range.

use crate::cases::cases;
use crate::every_type;
use crate::held::{ORDERS, Order, Tree};
use crate::threads::on_threads;
use eigenstep::Error;
use eigenstep::gradient::total_norm;
use eigenstep::numeric::{Element, Real};
use eigenstep::params::{Flat, Parameters, RowGradient, Scaled};
use eigenstep::tree::{TreeVec, axpy, difference, distance, dot, norm, norm_max, norm1, or_zero};
use ndarray::{Array1, Array2, array};
use proptest::prelude::*;

/// Several chunks, rests that fill neither a chunk nor the lanes, rows that are long and short.
const SHAPES: [&[usize]; 5] = [&[97, 1031], &[2, 40_007], &[], &[0], &[3, 5, 70]];

/// All sums of two trees.
fn sums<T: Element>(x: &Tree<T>, y: &Tree<T>) -> [u64; 5] {
    let all = [dot(x, y), norm(x), norm1(x), norm_max(x), distance(x, y)];
    all.map(|sum| sum.unwrap().to_bits())
}

fn neither_threads_nor_order<T: Element>() {
    let tree = |order, seed| Tree::<T>::random(&SHAPES, order, seed);
    let (x, y) = (tree(Order::RowMajor, 1), tree(Order::RowMajor, 2));
    let expected = on_threads(1, || sums(&x, &y));
    assert_eq!(f64::from_bits(expected[0]), dot(&y, &x).unwrap());
    for threads in [2, 3, 7] {
        assert_eq!(on_threads(threads, || sums(&x, &y)), expected);
    }
    for order in ORDERS {
        let (mut x, y) = (tree(order, 1), tree(order, 2));
        assert_eq!(on_threads(3, || sums(&x, &y)), expected, "{order:?}");
        // as parameters, and as a wrapper sees them
        assert_eq!(dot(&y, &mut x).unwrap().to_bits(), expected[0]);
        let params: &mut dyn Parameters<T> = &mut x;
        assert_eq!(norm(&mut *params).unwrap().to_bits(), expected[1]);
        let owned = TreeVec::<T>::of(&y).unwrap();
        assert_eq!(dot(params, &owned).unwrap().to_bits(), expected[0]);
    }
}

#[test]
fn sums_depend_neither_on_threads_nor_on_memory() {
    every_type!(neither_threads_nor_order());
}

#[test]
fn rows_scaled_and_generated_gradients_have_the_sums_of_their_dense_form() {
    let rows = vec![5, 0, 999, 5];
    let values = Array2::from_shape_fn((4, 90), |(i, j)| ((i * 90 + j) as f32).sin());
    let sparse = RowGradient::new(&[1000, 90], rows, values).unwrap();
    let dense = eigenstep::gradient::materialize(&sparse).unwrap().remove("param").unwrap();
    let other = Array2::from_shape_fn((1000, 90), |(i, j)| ((i + 7 * j) as f32).cos());
    assert_eq!(norm(&sparse).unwrap(), norm(&dense).unwrap());
    assert_eq!(dot(&sparse, &other).unwrap(), dot(&dense, &other).unwrap());
    let halved = dense.mapv(|x| 0.3 * x);
    assert_eq!(norm1(&Scaled::new(0.3, &sparse)).unwrap(), norm1(&halved).unwrap());
    assert_eq!(norm_max(&Scaled::new(0.3, &dense)).unwrap(), norm_max(&halved).unwrap());
    let owned = TreeVec::<f32>::of(&halved).unwrap();
    assert_eq!(norm(&owned.rounded::<f32>()).unwrap(), norm(&halved).unwrap());
}

#[test]
fn the_norm_of_gradients_is_their_total_norm() {
    let dense = Tree::<f32>::random(&SHAPES, Order::RowMajor, 3);
    for (ours, p) in [(norm(&dense), 2.0), (norm1(&dense), 1.0), (norm_max(&dense), f64::INFINITY)]
    {
        assert_eq!(ours.unwrap(), total_norm(&dense, p).unwrap());
    }
    assert_eq!(norm::<f32>(&()).unwrap(), 0.0);
    assert_eq!(norm_max(&Array1::<f64>::zeros(0)).unwrap(), 0.0);
    assert_eq!(norm(&Array1::<f64>::zeros(70_000)).unwrap(), 0.0);
}

#[test]
fn squares_neither_overflow_nor_vanish() {
    for scale in [1e-320, 1e-300, 1e-160, 1e-130, 1.0, 1e150, 1e160, 1e300, 3e307] {
        let x = array![3.0 * scale, 0.0, -4.0 * scale];
        let expected: f64 = 5.0 * scale;
        let close = |found: f64| (found - expected).abs() <= 4e-16 * expected + 5e-324;
        assert!(close(norm(&x).unwrap()), "{scale}: {}", norm(&x).unwrap());
        assert!(close(distance(&(&x * 0.5), &(&x * -0.5)).unwrap()), "{scale}");
    }
    // the norm itself is too large
    assert_eq!(norm(&array![1.5e308, 1.5e308]).unwrap(), f64::INFINITY);
    // f32 is far from the ends of f64
    assert_eq!(norm(&array![3e38f32, 0.0]).unwrap(), f64::from(3e38f32));
    assert_eq!(norm(&array![1e-45f32, 0.0]).unwrap(), f64::from(1e-45f32));
    assert_eq!(norm(&array![0.0f64, f64::NEG_INFINITY]).unwrap(), f64::INFINITY);
    let x = array![f64::INFINITY, f64::NAN, 1e300];
    for sum in [norm, norm1, norm_max] {
        assert!(sum(&x).unwrap().is_nan());
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn dot_is_symmetric_and_bilinear(
        rows in 1usize..40, cols in 1usize..70, alpha in -2.0f64..2.0, seed in 0u64..1000,
    ) {
        let shapes: [&[usize]; 3] = [&[rows, cols], &[cols], &[]];
        let tree = |k, order| Tree::<f64>::random(&shapes, order, seed + k);
        let (x, y, z) = (tree(0, ORDERS[rows % 3]), tree(1, ORDERS[cols % 3]), tree(2, Order::RowMajor));
        let of = |a, b| dot(a, b).unwrap();
        prop_assert_eq!(of(&x, &y), of(&y, &x));
        let mut sum = TreeVec::<f64>::of(&x).unwrap();
        axpy(alpha, &y, &mut sum).unwrap();
        let expected = of(&x, &z) + alpha * of(&y, &z);
        let bound = 1e-14 * (1.0 + alpha.abs()) * (rows * cols + cols + 1) as f64;
        prop_assert!((dot(&sum, &z).unwrap() - expected).abs() <= bound);
        // the plain loop
        let plain: f64 = x.values().iter().zip(&y.values()).map(|(x, y)| x * y).sum();
        prop_assert!((of(&x, &y) - plain).abs() <= bound);
        // Cauchy and Schwarz, and the law of cosines
        let (a, b) = (norm(&x).unwrap(), norm(&y).unwrap());
        prop_assert!(of(&x, &y).abs() <= a * b * (1.0 + 1e-14));
        let square = distance(&x, &y).unwrap().powi(2);
        prop_assert!((square - (a * a + b * b - 2.0 * of(&x, &y))).abs() <= 2.0 * bound);
        let mut apart = TreeVec::<f64>::zeros_like(&x).unwrap();
        difference(&x, &y, &mut apart).unwrap();
        prop_assert_eq!(norm(&apart).unwrap(), distance(&x, &y).unwrap());
    }
}

#[test]
fn leaves_are_matched_by_name_whatever_their_order() {
    let x = Tree::<f32>::random(&[&[3, 4], &[5], &[]], Order::RowMajor, 1);
    let y = Tree::<f32>::random(&[&[3, 4], &[5], &[]], Order::Fortran, 2);
    let expected = (dot(&x, &y).unwrap(), distance(&x, &y).unwrap());
    assert_eq!((dot(&x, &y.reversed()).unwrap(), distance(&x, &y.reversed()).unwrap()), expected);
}

#[test]
fn missing_leaves_are_errors_or_zero() {
    let pair = |a: Option<f64>, b: Option<f64>| [a.map(|x| array![x]), b.map(|x| array![x])];
    let (whole, first, second) =
        (pair(Some(3.0), Some(4.0)), pair(Some(12.0), None), pair(None, Some(5.0)));
    assert!(matches!(dot(&whole, &first), Err(Error::MissingParameter { name }) if name == "1"));
    assert!(matches!(dot(&first, &whole), Err(Error::UnknownLeaf { name }) if name == "1"));
    assert_eq!(dot(&whole, or_zero(&first)).unwrap(), 36.0);
    assert_eq!(dot(or_zero(&first), &whole).unwrap(), 36.0);
    assert_eq!(distance(or_zero(&second), &whole).unwrap(), 10f64.sqrt());
    assert_eq!(distance(&whole, or_zero(&second)).unwrap(), 10f64.sqrt());
    // both lack something
    assert_eq!(dot(or_zero(&first), or_zero(&second)).unwrap(), 0.0);
    assert_eq!(distance(or_zero(&first), or_zero(&second)).unwrap(), 13.0);
    // what is missing is zero, and zero times infinity is no number
    assert!(dot(or_zero(&first), &pair(Some(1.0), Some(f64::INFINITY))).unwrap().is_nan());
}

#[test]
fn what_does_not_fit_is_named() {
    let x = (array![1.0f32, 2.0], array![3.0f32]);
    let wide = (array![1.0f32, 2.0], array![[3.0f32]]);
    let error = dot(&x, &wide).unwrap_err();
    let Error::ShapeMismatch { name, expected, found } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), expected, found), ("1", vec![1], vec![1, 1]));
    let short = Flat::new(&[1.0f32; 3], &[2, 2]);
    assert!(matches!(norm(&short), Err(Error::LengthMismatch { .. })));
    assert!(
        matches!(dot(&x, &(x.0.clone(), short)), Err(Error::LengthMismatch { name, .. }) if name == "1")
    );
    let mut twice = Tree::<f32>::random(&[&[2], &[2]], Order::RowMajor, 1);
    let once = twice.clone();
    twice.0[1].0 = "a".into();
    assert!(matches!(dot(&twice, &once), Err(Error::DuplicateName { name }) if name == "a"));
    assert!(matches!(dot(&once, &twice), Err(Error::DuplicateName { name }) if name == "a"));
}

#[test]
fn types_of_one_arithmetic_type_go_together() {
    fn check<T: Element<Compute = f32>>() {
        let x = Tree::<T>::random(&[&[70], &[3, 3]], Order::Fortran, 1);
        let y = Tree::<f32>::random(&[&[70], &[3, 3]], Order::RowMajor, 2);
        let wide = x.values().into_iter().map(|x| x.load().widen());
        let plain: f64 = wide.zip(y.values()).map(|(x, y)| x * f64::from(y)).sum();
        assert!((dot(&x, &y).unwrap() - plain).abs() < 1e-12);
    }
    check::<f32>();
    #[cfg(feature = "half")]
    {
        check::<eigenstep::numeric::bf16>();
        check::<eigenstep::numeric::f16>();
    }
}
