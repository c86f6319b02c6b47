//! Trees that own their values.

use crate::every_type;
use crate::held::{ORDERS, Order, Tree, any_bits, bits};
use eigenstep::Error;
use eigenstep::numeric::{Element, Real};
use eigenstep::prelude::*;
use eigenstep::state::{Lookup, Record, Scalar};
use eigenstep::tree::{TreeVec, axpy, copy, fill};
use ndarray::{ArrayD, array};
use std::cell::RefCell;

const SHAPES: [&[usize]; 4] = [&[41, 31], &[], &[0], &[7]];

#[test]
fn an_optimizer_steps_an_owned_tree_as_it_does_arrays() {
    let mut params = Tree::<f32>::random(&SHAPES, Order::Fortran, 1);
    let grads = Tree::<f32>::random(&SHAPES, Order::RowMajor, 2);
    let mut owned = TreeVec::<f32>::of(&params).unwrap();
    let owned_grads = TreeVec::<f32>::of(&grads).unwrap();
    let (mut one, mut other) =
        (AdamW::default().build().unwrap(), AdamW::default().build().unwrap());
    for _ in 0..3 {
        one.step(&mut params, &grads).unwrap();
        other.step(&mut owned, &owned_grads).unwrap();
    }
    assert_eq!(bits(owned.values()), params.bits());
    assert_eq!(one.state_dict(), other.state_dict());
}

fn is_given_to_parameters_of_any_type<T: Element>() {
    let mut params = Tree::<T>::random(&SHAPES, Order::Spread, 1);
    let mut copied = params.clone();
    let grads = Tree::<T>::random(&SHAPES, Order::RowMajor, 2);
    let owned = TreeVec::<T::Compute>::of(&grads).unwrap();
    for (params, rounded) in [(&mut params, true), (&mut copied, false)] {
        let mut opt = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build::<T>().unwrap();
        for _ in 0..3 {
            match rounded {
                true => opt.step(params, &owned.rounded::<T>()).unwrap(),
                false => opt.step(params, &grads).unwrap(),
            }
        }
    }
    assert_eq!(params.bits(), copied.bits());
}

#[test]
fn owned_values_are_gradients_of_parameters_of_any_type() {
    every_type!(is_given_to_parameters_of_any_type());
}

#[test]
fn leaves_are_found_by_name() {
    let params = Tree::<f64>::random(&SHAPES, Order::Fortran, 1);
    let mut owned = TreeVec::<f64>::of(&params).unwrap();
    for (name, held) in &params.0 {
        assert_eq!(owned.get(name).unwrap(), held.view());
    }
    assert!(owned.get("e").is_none() && owned.get_mut("").is_none());
    owned.get_mut("d").unwrap()[3] = 9.0;
    assert_eq!(owned.values()[41 * 31 + 1 + 3], 9.0);
    owned.values_mut().fill(2.0);
    assert!(owned.get("a").unwrap().iter().all(|&x| x == 2.0));
    assert_eq!(owned.bytes(), 8 * (41 * 31 + 1 + 7));
    assert_eq!(format!("{:?}", TreeVec::<f32>::new()).matches("Layout").count(), 1);
}

#[test]
fn an_owned_tree_becomes_another() {
    let mut owned = TreeVec::<f32>::new();
    assert_eq!(owned.layout().numel(), 0);
    for (seed, shapes) in [&SHAPES[..], &SHAPES[..1], &SHAPES[..]].into_iter().enumerate() {
        let params = Tree::<f32>::random(shapes, ORDERS[seed], seed as u64);
        owned.assign(&params).unwrap();
        assert_eq!(bits(owned.values()), params.bits());
        assert_eq!(owned.layout().segments().len(), shapes.len());
    }
    let before = owned.values().to_vec();
    let mut twice = Tree::<f32>::random(&SHAPES, Order::RowMajor, 1);
    twice.0[1].0 = "a".into();
    assert!(matches!(owned.assign(&twice), Err(Error::DuplicateName { name }) if name == "a"));
    assert_eq!(owned.values(), before);
    let mut copied = owned.clone();
    fill(0.0, &mut copied).unwrap();
    assert_eq!(owned.values(), before);
}

fn is_saved_and_loaded<T: Element>() {
    let owned = TreeVec::<T>::of(&Tree::<T>::random(&SHAPES, Order::RowMajor, 1)).unwrap();
    let mut dict = StateDict::new("Average");
    owned.save(&mut Record::new("average", &mut dict));
    let used = RefCell::default();
    let loaded = TreeVec::<T>::load(&Lookup::new("average", &dict, &used)).unwrap();
    assert_eq!(loaded.layout(), owned.layout());
    assert_eq!(bits(loaded.values()), bits(owned.values()));
    // every key was asked for
    let keys = dict.scalars.keys().chain(dict.tensors.keys());
    assert!(keys.clone().all(|key| used.borrow().contains(key)), "{:?}", keys.collect::<Vec<_>>());
    // whatever is wrong is named
    let named = |change: &dyn Fn(&mut StateDict), expected: &str| {
        let mut bad = dict.clone();
        change(&mut bad);
        let used = RefCell::default();
        let error = TreeVec::<T>::load(&Lookup::new("average", &bad, &used)).unwrap_err();
        assert!(matches!(&error, Error::StateDict { key, .. } if key == expected), "{error}");
    };
    named(&|dict| drop(dict.tensors.remove("average.d")), "average.d");
    named(&|dict| dict.tensors.get_mut("average.d").unwrap().shape = vec![7, 1], "average.d");
    let text = |text: &str| Scalar::Text(text.into());
    let put = |dict: &mut StateDict, key: &str, value| {
        dict.scalars.insert(key.into(), value);
    };
    let shape = "average.layout.3.shape";
    named(&|dict| put(dict, shape, text("1,x")), shape);
    named(&|dict| put(dict, shape, text("9000000000000000000")), shape);
    named(&|dict| put(dict, "average.layout.0.name", Scalar::Int(1)), "average.layout.0.name");
}

#[test]
fn owned_trees_are_saved_and_loaded() {
    every_type!(is_saved_and_loaded());
}

#[test]
fn all_bits_of_owned_trees_of_the_same_type_survive() {
    // values that are their own arithmetic type are copied, not computed
    let params = Tree::<f32>::new(&[&[1000]], Order::RowMajor, |_, i| any_bits(3, i));
    let owned = TreeVec::<f32>::of(&params).unwrap();
    assert_eq!(bits(owned.values()), params.bits());
}

#[test]
fn owned_trees_hold_narrow_values() {
    fn check<T: Element<Compute = f32>>() {
        let mut history = TreeVec::<T>::of(&array![0.1f32, 0.2]).unwrap();
        axpy(1.0, &array![0.3f32, 0.4], &mut history).unwrap();
        let narrow = |x: f32| T::store(x).load();
        let expected = [narrow(narrow(0.1) + 0.3), narrow(narrow(0.2) + 0.4)];
        let mut back = ArrayD::<f32>::zeros(ndarray::IxDyn(&[2]));
        copy(&history, &mut back).unwrap();
        assert_eq!(back.as_slice().unwrap(), expected);
        assert_eq!(history.bytes(), 2 * size_of::<T>());
        assert_eq!(f32::of(0.0), 0.0);
    }
    check::<f32>();
    #[cfg(feature = "half")]
    {
        check::<eigenstep::numeric::bf16>();
        check::<eigenstep::numeric::f16>();
    }
}
