//! Gradients through categorical samples, summed over all samples instead of drawn.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep::Error;
use eigenstep::discrete::categorical::{
    exact_gradient, gumbel, gumbel_softmax, reinmax, sample, sample_index, score, softmax,
    straight_through,
};
use ndarray::{Array1, Array2, Array3, ArrayD, Axis, IxDyn, array, aview0, s};
use proptest::prelude::*;

/// `f(D) = ½DᵀAD + bᵀD`: values at all categories, and gradients in rows.
fn quadratic(a: &Array2<f64>, b: &Array1<f64>) -> (Array1<f64>, Array2<f64>) {
    (&(&a.diag() / 2.0) + b, a + &b.view().insert_axis(Axis(0)))
}

/// The mean over all samples of what `gradient` gives.
fn mean(
    logits: &Array1<f64>,
    gradients: &Array2<f64>,
    gradient: impl Fn(usize, &Array1<f64>) -> Array1<f64>,
) -> Array1<f64> {
    let p = softmax(logits.view(), 1.0).unwrap();
    let terms = gradients.outer_iter().zip(&p).enumerate();
    terms.fold(Array1::zeros(p.len()), |sum, (i, (g, p))| sum + gradient(i, &g.to_owned()) * *p)
}

fn distance(a: &Array1<f64>, b: &Array1<f64>) -> f64 {
    (a - b).iter().fold(0.0, |largest: f64, x| largest.max(x.abs()))
}

/// Logits, a symmetric matrix and a vector of `K <= 6` categories.
fn problem() -> impl Strategy<Value = (Array1<f64>, Array2<f64>, Array1<f64>)> {
    let numbers = |len| prop::collection::vec(-2.0..2.0f64, len);
    (1usize..=6).prop_flat_map(move |k| (numbers(k), numbers(k * k), numbers(k))).prop_map(
        |(logits, a, b)| {
            let a = Array2::from_shape_vec((b.len(), b.len()), a).unwrap();
            (logits.into(), &a + &a.t(), b.into())
        },
    )
}

proptest! {
    #[test]
    fn reinmax_is_exact_for_quadratics((logits, a, b) in problem()) {
        let (values, gradients) = quadratic(&a, &b);
        let exact = exact_gradient(logits.view(), values.view()).unwrap();
        let found = mean(&logits, &gradients, |i, g| {
            reinmax(logits.view(), aview0(&i), g.view(), None, 1.0).unwrap()
        });
        prop_assert!(distance(&found, &exact) <= 1e-12, "{found} {exact}");
    }

    #[test]
    fn reinforce_is_exact_for_everything((logits, a, b) in problem()) {
        let (values, gradients) = quadratic(&a, &b);
        let exact = exact_gradient(logits.view(), values.view()).unwrap();
        let found = mean(&logits, &gradients, |i, _| {
            score(logits.view(), aview0(&i)).unwrap() * values[i]
        });
        prop_assert!(distance(&found, &exact) <= 1e-12);
    }

    #[test]
    fn straight_through_is_exact_for_linear_functions((logits, a, b) in problem()) {
        let (values, gradients) = quadratic(&(a * 0.0), &b);
        let exact = exact_gradient(logits.view(), values.view()).unwrap();
        let found = mean(&logits, &gradients, |_, g| {
            straight_through(logits.view(), g.view(), 1.0).unwrap()
        });
        prop_assert!(distance(&found, &exact) <= 1e-12);
    }

    #[test]
    fn every_gradient_sums_to_zero((logits, _, g) in problem(), tau in 1.0..3.0f64,
                                   u in 0.0..1.0f64) {
        let drawn = sample(logits.view(), aview0(&u)).unwrap();
        let noise = logits.map(|x| gumbel((x * 7.0).sin().abs()));
        let all = [
            straight_through(logits.view(), g.view(), tau).unwrap(),
            reinmax(logits.view(), drawn.view(), g.view(), Some(g.view()), tau).unwrap(),
            gumbel_softmax(logits.view(), noise.view(), tau).unwrap().gradient(g.view()).unwrap(),
            score(logits.view(), drawn.view()).unwrap(),
        ];
        for grad in all {
            prop_assert!(grad.sum().abs() < 1e-12);
            prop_assert!(grad.len() > 1 || grad[0] == 0.0);
        }
    }

    #[test]
    fn softmax_does_not_see_a_common_shift((logits, ..) in problem(), shift in -700.0..700.0f64) {
        let (a, b) = (softmax(logits.view(), 0.7), softmax((&logits + shift).view(), 0.7));
        prop_assert!(distance(&a.unwrap(), &b.unwrap()) < 1e-12);
    }
}

/// Only with curvature does plain straight-through go wrong; where it does, ReinMax does not.
#[test]
fn straight_through_is_wrong_for_a_quadratic() {
    let (logits, b) = (array![0.3, -0.4, 0.9], array![0.0, 0.0, 0.0]);
    let (values, gradients) = quadratic(&Array2::from_diag(&array![1.0, -2.0, 0.5]), &b);
    let exact = exact_gradient(logits.view(), values.view()).unwrap();
    let st =
        mean(&logits, &gradients, |_, g| straight_through(logits.view(), g.view(), 1.0).unwrap());
    assert!(distance(&st, &exact) > 0.05);
    // and ReinMax at another temperature is no longer exact
    let warm = mean(&logits, &gradients, |i, g| {
        reinmax(logits.view(), aview0(&i), g.view(), None, 2.0).unwrap()
    });
    assert!(distance(&warm, &exact) > 1e-3);
}

/// The exact gradient is the derivative of the mean.
#[test]
fn the_exact_gradient_is_a_derivative() {
    const H: f64 = 1e-6;
    let (logits, values) = (array![0.3, -0.4, 0.9, 0.0], array![1.0, 7.0, -2.0, 0.5]);
    let value = |logits: &Array1<f64>| softmax(logits.view(), 1.0).unwrap().dot(&values);
    let grad = exact_gradient(logits.view(), values.view()).unwrap();
    for j in 0..4 {
        let (mut up, mut down) = (logits.clone(), logits.clone());
        up[j] += H;
        down[j] -= H;
        assert!((grad[j] - (value(&up) - value(&down)) / (2.0 * H)).abs() < 1e-8);
    }
}

/// The frequencies of samples, from equidistant uniform numbers.
#[test]
fn samples_follow_the_probabilities() {
    const N: usize = 10_000;
    let logits = array![0.0, 1.0, f64::NEG_INFINITY, -1.0];
    let p = softmax(logits.view(), 1.0).unwrap();
    assert_eq!(p[2], 0.0);
    let mut counts = [0usize; 4];
    for i in 0..N {
        let u = (i as f64 + 0.5) / N as f64;
        counts[sample(logits.view(), aview0(&u)).unwrap().into_scalar()] += 1;
    }
    for (count, p) in counts.iter().zip(&p) {
        assert!((*count as f64 - p * N as f64).abs() <= 1.0, "{counts:?}");
    }
    // beyond the sum, and beyond [0, 1): the last that is possible; never one of probability 0
    assert_eq!(sample_index(&[0.3, 0.3, 0.0], 0.99), Some(1));
    assert_eq!(sample_index(&[0.0, 1.0, 0.0], -1.0), Some(1));
    assert_eq!(sample_index(&[f64::NAN, f64::NAN], 0.5), None);
}

/// The largest perturbed logit is a sample of the softmax: `P = Π` over two categories by quadrature.
#[test]
fn gumbel_noise_samples_the_softmax() {
    const N: usize = 400;
    let logits = array![0.7, -0.2];
    let p = softmax(logits.view(), 1.0).unwrap();
    let noise: Vec<f64> = (0..N).map(|i| gumbel((i as f64 + 0.5) / N as f64)).collect();
    let mut first = 0usize;
    for &a in &noise {
        for &b in &noise {
            let drawn = gumbel_softmax(logits.view(), array![a, b].view(), 0.1).unwrap();
            first += usize::from(drawn.sample.into_scalar() == 0);
        }
    }
    assert!((first as f64 / (N * N) as f64 - p[0]).abs() < 2.0 / N as f64);
}

/// A batch is its rows, whatever the number and the order of its axes.
#[test]
fn batches_are_rows() {
    let number = |i: usize| ((i * 37 % 19) as f64 - 9.0) / 5.0;
    let logits = Array3::from_shape_fn((2, 3, 4), |(i, j, k)| number(12 * i + 4 * j + k));
    let g = Array3::from_shape_fn((2, 3, 4), |(i, j, k)| number(5 + 12 * i + 4 * j + k));
    let samples = array![[0, 1, 2], [3, 2, 1]];
    let grad = reinmax(logits.view(), samples.view(), g.view(), Some(g.view()), 1.5).unwrap();
    for i in 0..2 {
        for j in 0..3 {
            let (logits, g) = (logits.slice(s![i, j, ..]), g.slice(s![i, j, ..]));
            let row = reinmax(logits, aview0(&samples[[i, j]]), g, Some(g), 1.5).unwrap();
            assert_eq!(grad.slice(s![i, j, ..]), row);
        }
    }
    // another order in memory, and a dynamic number of axes
    let transposed = logits.view().reversed_axes().as_standard_layout().into_owned();
    let again =
        reinmax(transposed.view().reversed_axes(), samples.view(), g.view(), Some(g.view()), 1.5);
    assert_eq!(again.unwrap(), grad);
    let dynamic = reinmax(
        logits.view().into_dyn(),
        samples.view().into_dyn(),
        g.view().into_dyn(),
        Some(g.view().into_dyn()),
        1.5,
    );
    assert_eq!(dynamic.unwrap(), grad.into_dyn());
}

#[test]
fn few_categories() {
    // one category: no gradient, whatever comes from above
    let (one, g) = (array![[3.0f32], [-1.0]], array![[f32::INFINITY], [7.0]]);
    let zero = array![[0.0f32], [0.0]];
    assert_eq!(softmax(one.view(), 1.0).unwrap(), array![[1.0f32], [1.0]]);
    assert_eq!(straight_through(one.view(), g.view(), 1.0).unwrap(), zero);
    assert_eq!(reinmax(one.view(), array![0, 0].view(), g.view(), None, 1.0).unwrap(), zero);
    assert_eq!(exact_gradient(one.view(), g.view()).unwrap(), zero);
    // no category, and no row
    let none = Array2::<f64>::zeros((2, 0));
    assert_eq!(straight_through(none.view(), none.view(), 1.0).unwrap().shape(), [2, 0]);
    assert!(sample(none.view(), array![0.5, 0.5].view()).is_err());
    assert!(gumbel_softmax(none.view(), none.view(), 1.0).is_err());
    let empty = Array2::<f64>::zeros((0, 3));
    assert_eq!(sample(empty.view(), Array1::zeros(0).view()).unwrap().len(), 0);
    assert_eq!(gumbel_softmax(empty.view(), empty.view(), 1.0).unwrap().sample.len(), 0);
    let scalar = ArrayD::<f64>::zeros(IxDyn(&[]));
    assert!(softmax(scalar.view(), 1.0).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let (logits, samples) = (array![[0.0f64, 1.0], [2.0, 3.0]], array![0, 1]);
    let (x, s) = (|| logits.view(), || samples.view());
    let field = |error: Error, expected: &str| match &error {
        Error::InvalidHyperparameter { field, .. } => assert_eq!(*field, expected, "{error}"),
        Error::ShapeMismatch { name, .. } => assert_eq!(name, expected, "{error}"),
        _ => panic!("{error}"),
    };
    for tau in [0.999, 0.0, f64::NAN, f64::INFINITY] {
        field(reinmax(x(), s(), x(), None, tau).unwrap_err(), "tau");
    }
    for tau in [0.0, -1.0, f64::NAN] {
        field(straight_through(x(), x(), tau).unwrap_err(), "tau");
        field(softmax(x(), tau).unwrap_err(), "tau");
        field(gumbel_softmax(x(), x(), tau).unwrap_err(), "tau");
    }
    let narrow = array![[0.0f64], [0.0]];
    field(straight_through(x(), narrow.view(), 1.0).unwrap_err(), "upstream");
    field(exact_gradient(x(), narrow.view()).unwrap_err(), "values");
    field(gumbel_softmax(x(), narrow.view(), 1.0).unwrap_err(), "noise");
    field(reinmax(x(), s(), narrow.view(), None, 1.0).unwrap_err(), "upstream");
    field(reinmax(x(), s(), x(), Some(narrow.view()), 1.0).unwrap_err(), "upstream_soft");
    field(reinmax(x(), array![0].view(), x(), None, 1.0).unwrap_err(), "sample");
    field(reinmax(x(), array![0, 2].view(), x(), None, 1.0).unwrap_err(), "sample");
    field(score(x(), array![0, 2].view()).unwrap_err(), "sample");
    field(sample(x(), array![0.5].view()).unwrap_err(), "uniforms");
    let drawn = gumbel_softmax(x(), x(), 0.5).unwrap();
    field(drawn.gradient(narrow.view()).unwrap_err(), "upstream");
    let nan = array![f64::NAN, 0.0];
    assert!(matches!(sample(nan.view(), aview0(&0.5)), Err(Error::NonFinite { .. })));
    assert!(softmax(nan.view(), 1.0).unwrap().iter().all(|p| p.is_nan()));
}
