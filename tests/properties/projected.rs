//! Rules within bounds.

use crate::cases::cases;
use crate::first_order::{path, step};
use eigenstep::hyper::Hyperparameters;
use eigenstep::prelude::*;
use ndarray::array;
use proptest::prelude::*;

fn grads() -> impl Strategy<Value = Vec<Vec<f64>>> {
    prop::collection::vec(prop::collection::vec(-2.0..2.0f64, 3), 1..12)
}

fn unbounded_is_the_rule<R: Rule>(rule: &R, grads: &[Vec<f64>]) {
    let start = [0.7, -0.2, 0.0];
    assert_eq!(
        path(&Projected::with_inner(rule.clone()), &start, grads),
        path(rule, &start, grads)
    );
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn without_bounds_it_is_the_rule_bit_for_bit(grads in grads()) {
        unbounded_is_the_rule(&Sgd { lr: 0.1, momentum: 0.9, maximize: true, ..Sgd::default() }, &grads);
        unbounded_is_the_rule(&Adam { lr: 0.1, amsgrad: true, ..Adam::default() }, &grads);
        unbounded_is_the_rule(&AdamW { lr: 0.1, weight_decay: 0.3, ..AdamW::default() }, &grads);
        unbounded_is_the_rule(&Lamb { lr: 0.1, ..Lamb::default() }, &grads);
        unbounded_is_the_rule(&Prodigy::default(), &grads);
        // numbers of the tensor, the curvature, the loss, random numbers
        unbounded_is_the_rule(&NAdam::default(), &grads);
        unbounded_is_the_rule(&NovoGrad::default(), &grads);
        unbounded_is_the_rule(&AdaHessian::default(), &grads);
        unbounded_is_the_rule(&Momo::default(), &grads);
        unbounded_is_the_rule(&Sgld { seed: 3, ..Sgld::default() }, &grads);
    }

    /// The state is that of the rule at the clamped points: momentum knows nothing of bounds.
    #[test]
    fn every_step_is_a_step_and_a_clamp(grads in grads(), lower in -1.0..0.0f64, upper in 0.0..1.0f64) {
        let rule = Adam { lr: 0.3, amsgrad: true, bias_correction: false, ..Adam::default() };
        let config = Projected { lower, upper, ..Projected::with_inner(rule.clone()) };
        let (mut plain, mut bounded) = (rule.build().unwrap(), config.build().unwrap());
        let (mut a, mut b) = ([0.7, -0.2, 0.0], [0.7, -0.2, 0.0]);
        for g in &grads {
            step(&mut plain, &mut a, g);
            a = a.map(|x| x.clamp(lower, upper));
            step(&mut bounded, &mut b, g);
            prop_assert_eq!(a, b);
        }
    }
}

#[test]
fn bounds_that_contradict_each_other_and_two_points_are_refused() {
    let text = |outcome: Result<()>| outcome.unwrap_err().to_string();
    let config = Projected { lower: 1.0, upper: 0.0, ..Projected::with_inner(Sgd::default()) };
    assert_eq!(text(config.validate()), "Projected: `upper` must be at least `lower`, 1, got 0");
    let config = Projected { lower: f64::NAN, ..Projected::with_inner(Sgd::default()) };
    assert_eq!(text(config.validate()), "Projected: `lower` must be a number, got NaN");
    let config = Projected::with_inner(ScheduleFreeAdamW::default());
    assert!(
        text(config.validate()).starts_with("Projected: `inner` must be a rule with one point")
    );
    let config = Projected::with_inner(Sgd { lr: -1.0, ..Sgd::default() });
    assert!(text(config.validate()).starts_with("Projected: `lr`"));
}

/// Bounds belong to groups, change by name, and survive saving, infinite ones too.
#[test]
fn bounds_are_options_like_others() {
    let rule =
        || Projected { lower: 0.0, ..Projected::with_inner(AdamW { lr: 0.5, ..AdamW::default() }) };
    let build = || {
        let opt = rule().build::<f64>().unwrap();
        opt.with_group(Select::name("1"), |free| free.lower = f64::NEG_INFINITY).unwrap()
    };
    let grad = (array![1.0, -1.0], array![1.0]);
    let (mut opt, mut w) = (build(), (array![0.1, 0.1], array![0.1]));
    opt.step(&mut w, &grad).unwrap();
    assert_eq!(w.0[0], 0.0);
    assert!(w.0[1] > 0.5 && w.1[0] < -0.3);
    opt.set_option(0, "upper", 0.25).unwrap();
    let mut copy = build();
    copy.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!(copy.option(1, "lower"), Some(f64::NEG_INFINITY));
    let mut again = w.clone();
    opt.step(&mut w, &grad).unwrap();
    copy.step(&mut again, &grad).unwrap();
    assert_eq!(w, again);
    assert_eq!(w.0[1], 0.25);
}

#[test]
fn nan_is_not_hidden() {
    let config = Projected { lower: 0.0, upper: 1.0, ..Projected::with_inner(Sgd::default()) };
    let mut opt = config.build::<f32>().unwrap().with_non_finite(NonFinite::Propagate);
    let mut w = array![0.5f32, 0.5];
    opt.step(&mut w, &array![f32::NAN, -1e9]).unwrap();
    assert!(w[0].is_nan() && w[1] == 1.0);
}
