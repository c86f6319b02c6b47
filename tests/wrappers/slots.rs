//! A look into slots: nothing changes but what is changed.

use crate::inner::{Boxed, Model, SHAPES, adamw, inners, model};
use crate::model::{PRECISIONS, train};
use eigenstep::optim::Optimizer;
use eigenstep::prelude::*;

fn trained(precision: Precision) -> (Model, impl Optimizer<f64>) {
    let opt = adamw().build::<f64>().unwrap().with_state_precision(precision).unwrap();
    let (mut model, mut opt) = (model(), opt);
    train(&mut opt, &mut model, 0..3);
    (model, opt)
}

#[test]
fn looking_changes_nothing() {
    for precision in PRECISIONS {
        let (_, mut opt) = trained(precision);
        let before = opt.state_dict();
        let (mut elements, mut sum) = (0, 0.0);
        opt.visit_slot("exp_avg_sq", &mut |_, values| {
            elements += values.len();
            sum += values.iter().sum::<f64>();
        });
        assert!(opt.state_dict() == before, "{precision:?}");
        let expected: usize = SHAPES.iter().map(|shape| shape.iter().product::<usize>()).sum();
        assert!(elements == expected && sum > 0.0, "{precision:?}");
    }
}

#[test]
fn what_is_changed_is_kept() {
    for precision in PRECISIONS {
        let (_, mut opt) = trained(precision);
        opt.visit_slot("exp_avg", &mut |name, values| {
            if name != "2" {
                values.fill(0.25);
            }
        });
        opt.visit_slot("exp_avg", &mut |name, values| {
            let off = |x: &f64| (x - 0.25).abs();
            // 4 bits have no code for the largest number of rank-1 scales but itself
            let near = values.iter().all(|x| off(x) < 1e-3);
            assert!(near == (name != "2"), "{precision:?}: {name}, {:?}", &values[..1]);
        });
    }
}

#[test]
fn slots_that_are_not_there_are_not_shown() {
    for (name, build) in inners() {
        let (mut model, mut opt) = (model(), build());
        train(&mut *opt, &mut model, 0..2);
        opt.visit_slot("no such slot", &mut |_, _| panic!("{name}"));
        opt.visit_slot("master", &mut |_, _| panic!("{name}: f64 has no other master"));
    }
    let mut kahan = Vec::new();
    let opt = adamw().build::<f64>().unwrap().with_rounding(Rounding::Kahan).unwrap();
    let (mut model, mut opt) = (model(), opt);
    train(&mut opt, &mut model, 0..2);
    opt.visit_slot("kahan", &mut |name, values| kahan.push((name.to_owned(), values.len())));
    assert_eq!(kahan.len(), SHAPES.len());
}

#[test]
fn skipped_steps_and_groups_are_known_through_a_box() {
    let opt = Sgd::default().build::<f64>().unwrap().with_non_finite(NonFinite::Skip);
    let opt = opt.with_group(Select::ndim(..=1), |group| group.lr = 1.0).unwrap();
    let mut opt: Boxed = Box::new(Lookahead::new(opt));
    assert_eq!((opt.group_of("a", &[2, 2]), opt.group_of("a", &[2])), (Some(0), Some(1)));
    let mut model = model();
    let mut grads = model.clone();
    grads[0].values[7] = f64::NAN;
    opt.step(&mut model, &grads).unwrap();
    assert_eq!(opt.skipped_steps(), 1);
}
