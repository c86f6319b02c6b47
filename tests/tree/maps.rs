//! What is computed element by element equals the plain loop, to the bit.

use crate::cases::cases;
use crate::every_type;
use crate::held::{ORDERS, Order, Tree, bits};
use crate::threads::on_threads;
use eigenstep::Error;
use eigenstep::gradient::{clip_grad_value, materialize};
use eigenstep::numeric::{Element, Real};
use eigenstep::params::{
    Flat, FlatMut, Generate, GradVisitor, Gradients, Parameters, RowGradient, Scaled,
};
use eigenstep::tree::*;
use ndarray::{Array1, Array2, ArrayD, array};
use proptest::prelude::*;

const SHAPES: [&[usize]; 6] = [&[41, 1031], &[2, 3001], &[], &[0], &[1, 5, 7], &[17_000]];

/// `y` after `f`, computed in a loop.
fn looped<T: Element>(
    x: &Tree<T>,
    y: &Tree<T>,
    f: impl Fn(T::Compute, T::Compute) -> T::Compute,
) -> Vec<u8> {
    let pairs = x.values().into_iter().zip(y.values());
    bits(&pairs.map(|(x, y)| T::store(f(x.load(), y.load()))).collect::<Vec<T>>())
}

/// A name, what is called, and what it does to one element.
type Case<'a, T> = (
    &'a str,
    &'a dyn Fn(&mut Tree<T>) -> eigenstep::Result<()>,
    &'a dyn Fn(Compute<T>, Compute<T>) -> Compute<T>,
);
type Compute<T> = <T as Element>::Compute;

fn equals_its_loop<T: Element>(shapes: &[&[usize]], orders: [Order; 2], seed: u64) {
    let x = Tree::<T>::random(shapes, orders[0], seed);
    let start = Tree::<T>::random(shapes, orders[1], seed + 1);
    let z = Tree::<T>::random(shapes, Order::RowMajor, seed + 2);
    let r = <T::Compute as Real>::of;
    let (z_of, half) = (z.values(), r(0.5));
    let cases: [Case<'_, T>; 10] = [
        ("fill", &|y| fill(0.3, y), &|_, _| r(0.3)),
        ("scale", &|y| scale(-1.7, y), &|_, y| r(-1.7) * y),
        ("map", &|y| map(y, |y| y * y - y), &|_, y| y * y - y),
        ("copy", &|y| copy(&x, y), &|x, _| x),
        ("axpy", &|y| axpy(0.1, &x, y), &|x, y| y + r(0.1) * x),
        ("near", &|y| lerp(0.1, &x, y), &|x, y| y + r(0.1) * (x - y)),
        ("far", &|y| lerp(0.9, &x, y), &|x, y| x - r(1.0 - 0.9) * (x - y)),
        ("start", &|y| lerp(0.0, &x, y), &|_, y| y),
        ("end", &|y| lerp(1.0, &x, y), &|x, _| x),
        ("zip_map", &|y| zip_map(&x, y, |x, y| x * y - x), &|x, y| x * y - x),
    ];
    for (name, step, each) in cases {
        let mut y = start.clone();
        step(&mut y).unwrap();
        assert_eq!(y.bits(), looped(&x, &start, each), "{name}, {orders:?}, {}", T::NAME);
    }
    let mut y = start.clone();
    zip_map3(&x, &z, &mut y, |x, z, y| (x - y) * half + z).unwrap();
    let triples = x.values().into_iter().zip(&z_of).zip(start.values());
    let expected = triples.map(|((x, z), y)| T::store((x.load() - y.load()) * half + z.load()));
    assert_eq!(y.bits(), bits(&expected.collect::<Vec<T>>()), "zip_map3, {orders:?}");
    difference(&x, &z, &mut y).unwrap();
    let pairs = x.values().into_iter().zip(&z_of);
    let expected = pairs.map(|(x, z)| T::store(x.load() - z.load()));
    assert_eq!(y.bits(), bits(&expected.collect::<Vec<T>>()), "difference, {orders:?}");
}

/// Both ends of an interpolation are exact, also where a difference overflows or is no number, and where
/// zeros differ in sign.
#[test]
fn interpolation_has_exact_ends() {
    let numbers = [0.0, -0.0, 1.5, f64::MAX, -f64::MAX, f64::INFINITY, f64::NEG_INFINITY];
    for (a, b) in numbers.iter().flat_map(|a| numbers.map(|b| (*a, b))) {
        let at = |w: f64| {
            let mut y = ndarray::array![b];
            lerp(w, &ndarray::array![a], &mut y).unwrap();
            y[0].to_bits()
        };
        assert_eq!(at(0.0), b.to_bits(), "{a}, {b}");
        assert_eq!(at(1.0), a.to_bits(), "{a}, {b}");
        if a == b {
            assert_eq!(at(0.3), b.to_bits(), "{a}, {b}");
        }
    }
}

#[test]
fn every_function_equals_its_loop() {
    for orders in ORDERS.iter().flat_map(|&a| ORDERS.map(|b| [a, b])) {
        on_threads(2, || {
            every_type!(equals_its_loop(&SHAPES, orders, 1));
        });
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn trees_of_any_shape_equal_their_loops(
        dims in prop::collection::vec(0usize..7, 0..5), orders in 0usize..9, seed in 0u64..1000,
    ) {
        let shapes: [&[usize]; 2] = [&dims, &[11]];
        every_type!(equals_its_loop(&shapes, [ORDERS[orders / 3], ORDERS[orders % 3]], seed));
    }
}

#[test]
fn threads_do_not_change_bits() {
    let run = |threads| {
        on_threads(threads, || {
            let x = Tree::<f32>::random(&SHAPES, Order::Fortran, 1);
            let mut y = Tree::<f32>::random(&SHAPES, Order::Spread, 2);
            axpy(0.3, &x, &mut y).unwrap();
            y.bits()
        })
    };
    let expected = run(1);
    for threads in [2, 3, 7] {
        assert_eq!(run(threads), expected);
    }
}

/// A gradient with the values of an array, made piece by piece.
struct Made<T>(ArrayD<T>);
impl<T: Element> Generate<T> for Made<T> {
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn fill(&self, offset: usize, out: &mut [T]) {
        out.iter_mut().zip(self.0.iter().skip(offset)).for_each(|(out, &x)| *out = x);
    }
}
impl<T: Element> Gradients<T> for Made<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.generated(self);
    }
}

fn is_read_as_an_update_sees_it<T: Element>() {
    let number = |i: usize| T::store(T::Compute::of((i as f64 * 0.7).sin() * 3.0));
    let dense = ArrayD::from_shape_fn(ndarray::IxDyn(&[300, 70]), |at| number(at[0] * 70 + at[1]));
    let given = Array2::from_shape_fn((4, 70), |(i, j)| number(90_000 + i * 70 + j));
    let rows = RowGradient::new(&[300, 70], vec![299, 3, 0, 3], given).unwrap();
    let fortran = dense.t().as_standard_layout().into_owned().reversed_axes();
    let forms: [&dyn Gradients<T>; 4] = [&dense, &fortran, &Made(dense.clone()), &rows];
    for form in forms {
        let clamped = clip_grad_value(form, 1.0);
        let scaled = Scaled::new(0.3, &clamped);
        let views: [&dyn Gradients<T>; 3] = [form, &clamped, &scaled];
        for view in views {
            let expected = materialize(view).unwrap().remove("param").unwrap();
            let owned = TreeVec::<T>::of(view).unwrap();
            let expected: Vec<T> = expected.iter().copied().collect();
            assert_eq!(bits(owned.values()), bits(&expected), "{}", T::NAME);
        }
    }
}

#[test]
fn gradients_of_all_forms_are_read_as_an_update_sees_them() {
    every_type!(is_read_as_an_update_sees_it());
}

#[test]
fn averages_in_f32_of_parameters_in_half_precision() {
    fn check<T: Element<Compute = f32>>() {
        let mut model = Tree::<T>::random(&[&[70, 3], &[5]], Order::Spread, 1);
        let mut average = TreeVec::<f32>::zeros_like(&model).unwrap();
        let params: &mut dyn Parameters<T> = &mut model;
        lerp(0.01, &mut *params, &mut average).unwrap();
        let of = |x: T| 0.01f32 * x.load();
        let expected: Vec<f32> = model.values().into_iter().map(of).collect();
        assert_eq!(average.values(), expected);
        copy(&average, &mut model).unwrap();
        assert_eq!(model.values(), expected.iter().map(|&x| T::store(x)).collect::<Vec<T>>());
    }
    check::<f32>();
    #[cfg(feature = "half")]
    {
        check::<eigenstep::numeric::bf16>();
        check::<eigenstep::numeric::f16>();
    }
}

#[test]
fn missing_leaves_count_as_zero_if_that_is_said() {
    let mut y = (array![1.0f32, -0.0], array![2.0f32]);
    let x = (Some(array![1.0f32, 1.0]), None::<Array1<f32>>);
    lerp(0.25, or_zero(&x), &mut y).unwrap();
    assert_eq!(y, (array![1.0, 0.25], array![1.5]));
    zip_map3(or_zero(&x), &y.clone(), &mut y, |x, y, _| x + y).unwrap();
    assert_eq!(y, (array![2.0, 1.25], array![1.5]));
    let all = y.clone();
    let error = axpy(1.0, or_zero(&all), &mut vec![array![0.0f32, 0.0]]).unwrap_err();
    assert!(matches!(error, Error::UnknownLeaf { name } if name == "1"));
}

#[test]
fn errors_change_nothing() {
    let y = (array![1.0f32, 2.0], array![3.0f32]);
    let good = y.clone();
    let refused = |outcome: eigenstep::Result<()>, now: &(Array1<f32>, Array1<f32>)| {
        assert_eq!(*now, good);
        outcome.unwrap_err()
    };
    let mut now = y.clone();
    let fewer = vec![array![1.0f32, 1.0]];
    let error = refused(axpy(1.0, &fewer, &mut now), &now);
    assert!(matches!(error, Error::MissingParameter { name } if name == "1"));
    let more = vec![array![1.0f32, 1.0], array![1.0], array![1.0]];
    let error = refused(copy(&more, &mut now), &now);
    assert!(matches!(error, Error::UnknownLeaf { name } if name == "2"));
    let wide = (array![1.0f32, 2.0, 3.0], array![1.0f32]);
    // the first source fits
    let error = refused(difference(&y, &wide, &mut now), &now);
    assert!(matches!(error, Error::ShapeMismatch { name, .. } if name == "0"));
    let short = (array![1.0f32, 2.0], Flat::new(&[1.0f32; 3], &[1]));
    let error = refused(lerp(0.5, &short, &mut now), &now);
    assert!(matches!(error, Error::LengthMismatch { name, .. } if name == "1"));
    // the tree that is written
    let mut memory = ([1.0f32; 2], [1.0f32; 3]);
    let mut bad = (FlatMut::new(&mut memory.0, &[2]), FlatMut::new(&mut memory.1, &[1]));
    assert!(matches!(fill(0.0, &mut bad), Err(Error::LengthMismatch { name, .. }) if name == "1"));
    assert!(matches!(copy(&y, &mut bad), Err(Error::LengthMismatch { .. })));
    assert_eq!(memory, ([1.0; 2], [1.0; 3]));
    let mut twice = Tree::<f32>::random(&[&[2], &[2]], Order::RowMajor, 1);
    let once = twice.clone();
    twice.0[0].0 = "b".into();
    let before = twice.bits();
    assert!(matches!(copy(&once, &mut twice), Err(Error::DuplicateName { name }) if name == "b"));
    assert_eq!(twice.bits(), before);
}

#[test]
fn leaves_are_matched_by_name_whatever_their_order() {
    let x = Tree::<f32>::random(&[&[3, 4], &[5], &[]], Order::RowMajor, 1);
    let mut y = Tree::<f32>::random(&[&[3, 4], &[5], &[]], Order::RowMajor, 2);
    copy(&x.reversed(), &mut y).unwrap();
    assert_eq!(y.bits(), x.bits());
}
