//! Samplers around samplers, and names that mean nothing.

use eigenstep::gradient::materialize;
use eigenstep::prelude::{Rule, Sgd};
use eigenstep::zeroth_order::{
    ActiveSet, Coordinate, DirectionSampler, Estimator, LayerScaled, LayerScales, Lozo, Mask,
    Random, Sparse, Spsa, ZerothOrder,
};
use eigenstep::{Error, numeric::Element};
use ndarray::{Array1, Array2, array};
use std::collections::BTreeMap;

fn bounds(h: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("param".to_owned(), h)])
}

/// The mean over a mask that stays is the mask of the mean.
#[test]
fn a_mask_hides_an_average_too() {
    let momentum = Lozo { rank: 1, interval: 3, momentum: 0.9, ..Lozo::default() };
    let small = |i: usize, j: usize| (i + j).is_multiple_of(2);
    let start = Array2::from_shape_fn((5, 4), |(i, j)| if small(i, j) { 0.1f64 } else { 3.0 });
    let sampler = Sparse { sampler: momentum, mask: Mask::Below(bounds(1.0)) };
    let mut masked = Spsa::with_sampler(sampler).build::<f64>().unwrap();
    let mut plain = Spsa::with_sampler(momentum).build::<f64>().unwrap();
    let mut w = start.clone();
    for step in 0..5 {
        // the same losses for both: the averages are the same
        let losses = [1.0 + f64::from(step), 0.5];
        masked.ask(&mut w).unwrap();
        plain.ask(&mut w).unwrap();
        let found = materialize(&masked.tell(&losses).unwrap()).unwrap();
        let whole = materialize(&plain.tell(&losses).unwrap()).unwrap();
        let whole: Array2<f64> = whole["param"].clone().into_dimensionality().unwrap();
        for ((i, j), &x) in whole.indexed_iter() {
            let expected = if small(i, j) { x } else { 0.0 };
            assert_eq!(found["param"][[i, j]], expected, "step {step}, ({i}, {j})");
        }
    }
}

/// A misspelt name would silently probe something else.
#[test]
fn names_of_no_tensor_are_refused() {
    fn refused<T: Element, S: DirectionSampler>(sampler: S, model: &mut ndarray::Array1<T>) {
        let mut estimator = Spsa::with_sampler(sampler).build::<T>().unwrap();
        match estimator.ask(model) {
            Err(Error::MissingParameter { name }) => assert_eq!(name, "weigth"),
            other => panic!("{other:?}"),
        }
    }
    let misspelt = BTreeMap::from([("weigth".to_owned(), 1.0)]);
    let mut w = array![1.0f64, 2.0];
    let mask = Mask::Below(misspelt.clone());
    refused(Sparse { sampler: Random::default(), mask }, &mut w);
    let scales = LayerScales::Given(misspelt);
    refused(LayerScaled { sampler: Random::default(), scales, unbiased: true }, &mut w);
}

/// A conservative step of no possible length.
#[test]
fn learning_rates_of_conservative_steps_are_checked() {
    let mut estimator = Spsa::default().build::<f64>().unwrap();
    let mut w = array![1.0f64];
    for lr in [-1.0, f64::NAN, f64::INFINITY] {
        let outcome = estimator.step_conservatively(lr, &mut w, |w| w[0]);
        assert!(matches!(outcome, Err(Error::InvalidHyperparameter { field: "lr", .. })));
    }
    assert_eq!((w[0], estimator.steps()), (1.0, 0));
}

/// What is not active stays, bit for bit; what is moves as in a plain step.
#[test]
fn frozen_coordinates_stay_and_the_others_move_as_usual() {
    let pair = || {
        let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.3, ..Sgd::default() };
        let mut estimator = Coordinate { epsilon: 1e-4, ..Coordinate::default() }.build().unwrap();
        let active = ActiveSet::Indices([("0".to_owned(), vec![0, 5, 7])].into());
        estimator.set_active(active).unwrap();
        ZerothOrder::new(estimator, sgd.build::<f64>().unwrap())
    };
    let start = || {
        let weight = Array2::from_shape_fn((4, 3), |(i, j)| 1.0 + (3 * i + j) as f64);
        // Fortran order: indices are row-major all the same
        (weight.reversed_axes(), array![1.0, -1.0])
    };
    let loss = |m: &mut (Array2<f64>, Array1<f64>)| m.0.mapv(|x| x * x).sum() + m.1.sum();
    let (mut frozen, mut plain, mut a, mut b) = (pair(), pair(), start(), start());
    frozen.step_frozen(&mut a, loss).unwrap();
    plain.step(&mut b, loss).unwrap();
    for (i, ((x, y), before)) in a.0.iter().zip(&b.0).zip(&start().0).enumerate() {
        let moves = [0, 5, 7].contains(&i);
        assert_eq!(x.to_bits(), if moves { y } else { before }.to_bits(), "{i}");
        assert!(x != before || !moves, "{i}");
    }
    assert_eq!(a.1, b.1);
}
