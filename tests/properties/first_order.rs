//! Laws of the first-order rules: reductions, scale laws, equivariance, descent, sizes.

use crate::cases::cases;
use crate::inputs::{Inputs, reads_curvature};
use eigenstep::hyper::Hyperparameters;
use eigenstep::numeric::Element;
use eigenstep::optim::{Elementwise, Optim};
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;
use eigenstep::state::StateTensor;
use proptest::prelude::*;

pub type Opt<U> = Optim<Elementwise<U>, f64>;

/// The values of a slot of the parameter `param`.
pub fn slot<U: Rule>(opt: &Opt<U>, name: &str) -> Vec<f64> {
    let dict = opt.state_dict();
    let tensor: &StateTensor = &dict.tensors[&format!("state.param.{name}")];
    f64::read_le(&tensor.bytes)
}

/// The default, without noise.
pub fn plain<U: Rule + Default>() -> U {
    let mut rule = U::default();
    let _ = rule.set_option("temperature", 0.0);
    rule
}

pub fn step<U: Rule>(opt: &mut Opt<U>, w: &mut [f64], g: &[f64]) {
    step_at(opt, w, g, 1.5);
}

/// A step at this loss, with a curvature for rules that read one.
pub fn step_at<U: Rule>(opt: &mut Opt<U>, w: &mut [f64], g: &[f64], loss: f64) {
    let (shape, curvature) = ([w.len()], reads_curvature::<U>());
    let grads = Flat::new(g, &shape);
    opt.step(&mut FlatMut::new(w, &shape), &Inputs::new(&grads, loss, curvature)).unwrap();
}

/// The parameters after every step.
pub fn path<U: Rule>(config: &U, start: &[f64], grads: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut opt: Opt<U> = config.clone().build().unwrap();
    let mut w = start.to_vec();
    let mut path = Vec::new();
    for g in grads {
        step(&mut opt, &mut w, g);
        path.push(w.clone());
    }
    path
}

fn scaled(grads: &[Vec<f64>], factor: f64) -> Vec<Vec<f64>> {
    grads.iter().map(|g| g.iter().map(|g| g * factor).collect()).collect()
}

pub fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

pub fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[track_caller]
pub fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off <= tolerance * expected.abs().max(1.0), "{found}, not {expected}");
    }
}

/// A gradient away from zero, of either sign.
pub fn number() -> impl Strategy<Value = f64> {
    (any::<bool>(), 1e-3f64..2.0).prop_map(|(minus, x)| if minus { -x } else { x })
}

/// Parameters, and gradients of a few steps.
pub fn run() -> impl Strategy<Value = (Vec<f64>, Vec<Vec<f64>>)> {
    (1usize..12, 1usize..7).prop_flat_map(|(len, steps)| {
        let vector = || prop::collection::vec(number(), len);
        (vector(), prop::collection::vec(vector(), steps))
    })
}

pub fn few() -> ProptestConfig {
    cases(48)
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn adam_and_adamw_meet((w, grads) in run(), amsgrad: bool, weight_decay in 0.0f64..0.5) {
        let adam = Adam { lr: 0.1, amsgrad, ..Adam::default() };
        let adamw = AdamW { lr: 0.1, amsgrad, weight_decay: 0.0, ..AdamW::default() };
        prop_assert_eq!(path(&adam, &w, &grads), path(&adamw, &w, &grads));
        let adam = Adam { weight_decay, decoupled_weight_decay: true, ..adam };
        let adamw = AdamW { weight_decay, ..adamw };
        prop_assert_eq!(path(&adam, &w, &grads), path(&adamw, &w, &grads));
    }

    /// Powers of two scale without rounding, so the laws are exact.
    #[test]
    fn adaptive_steps_do_not_depend_on_the_scale((w, grads) in run(), k in -20i32..20) {
        let large = scaled(&grads, 2f64.powi(k));
        let adam = Adam { eps: 0.0, ..Adam::default() };
        prop_assert_eq!(path(&adam, &w, &grads), path(&adam, &w, &large));
        let adamw = AdamW { eps: 0.0, ..AdamW::default() };
        prop_assert_eq!(path(&adamw, &w, &grads), path(&adamw, &w, &large));
        let lion = Lion { lr: 0.1, weight_decay: 0.1, ..Lion::default() };
        prop_assert_eq!(path(&lion, &w, &grads), path(&lion, &w, &large));
        let adagrad = Adagrad { eps: 0.0, ..Adagrad::default() };
        prop_assert_eq!(path(&adagrad, &w, &grads), path(&adagrad, &w, &large));
        let rms = RmsProp { eps: 0.0, momentum: 0.9, ..RmsProp::default() };
        prop_assert_eq!(path(&rms, &w, &grads), path(&rms, &w, &large));
        let lamb = Lamb { eps: 0.0, ..Lamb::default() };
        prop_assert_eq!(path(&lamb, &w, &grads), path(&lamb, &w, &large));
        let free = ScheduleFreeAdamW { eps: 0.0, ..ScheduleFreeAdamW::default() };
        prop_assert_eq!(path(&free, &w, &grads), path(&free, &w, &large));
    }

    /// Lion sees signs only: without momentum any odd, increasing map of the gradient will do.
    #[test]
    fn lion_without_momentum_sees_signs((w, grads) in run()) {
        let lion = Lion { betas: (0.0, 0.0), ..Lion::default() };
        let cubes: Vec<Vec<f64>> =
            grads.iter().map(|g| g.iter().map(|g| g * g * g).collect()).collect();
        prop_assert_eq!(path(&lion, &w, &grads), path(&lion, &w, &cubes));
    }

    #[test]
    fn sgd_is_linear((w, grads) in run(), factor in -3.0f64..3.0, dampening in 0.0f64..1.0) {
        let sgd = Sgd { lr: 0.1, momentum: 0.9, dampening, ..Sgd::default() };
        let way = |grads: &[Vec<f64>]| minus(path(&sgd, &w, grads).last().unwrap(), &w);
        let expected: Vec<f64> = way(&grads).iter().map(|d| d * factor).collect();
        close(&way(&scaled(&grads, factor)), &expected, 1e-12);
        let other: Vec<Vec<f64>> = grads.iter().rev().cloned().collect();
        let sum: Vec<Vec<f64>> = grads.iter().zip(&other)
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect();
        let expected: Vec<f64> = way(&grads).iter().zip(way(&other)).map(|(a, b)| a + b).collect();
        close(&way(&sum), &expected, 1e-12);
    }

    /// A constant gradient: the buffer is a geometric sum.
    #[test]
    fn momentum_has_a_closed_form(g in number(), momentum in 0.05f64..0.99, n in 1usize..60) {
        let mut opt: Opt<Sgd> = Sgd { momentum, ..Sgd::default() }.build().unwrap();
        let mut w = [1.0];
        (0..n).for_each(|_| step(&mut opt, &mut w, &[g]));
        let expected = g * (1.0 - momentum.powi(n as i32)) / (1.0 - momentum);
        close(&slot(&opt, "momentum_buffer"), &[expected], 1e-11);
    }

    #[test]
    fn sgd_descends_below_two_over_l(start in prop::collection::vec(number(), 5), lr in 0.01f64..1.99) {
        let curvature = [1.0, 0.5, 0.1, 0.02, 0.0];
        let loss = |w: &[f64]| -> f64 { w.iter().zip(curvature).map(|(w, c)| c * w * w).sum() };
        let mut opt: Opt<Sgd> = Sgd { lr, ..Sgd::default() }.build().unwrap();
        let (mut w, mut last) = (start.clone(), loss(&start));
        for _ in 0..30 {
            let g: Vec<f64> = w.iter().zip(curvature).map(|(w, c)| c * w).collect();
            step(&mut opt, &mut w, &g);
            prop_assert!(loss(&w) <= last);
            last = loss(&w);
        }
    }

    #[test]
    fn classp_with_power_two_is_adagrad((w, grads) in run(), eps in 0.0f64..0.1) {
        let classp = Classp { lr: 0.1, threshold: 0.0, eps: 0.0, power: 2.0, ..Classp::default() };
        let adagrad = Adagrad { lr: 0.1, eps: 0.0, ..Adagrad::default() };
        prop_assert_eq!(path(&classp, &w, &grads), path(&adagrad, &w, &grads));
        // ε inside the root is a sum that starts there
        let classp = Classp { eps, ..classp };
        let adagrad = Adagrad { initial_accumulator_value: eps, ..adagrad };
        let (found, expected) = (path(&classp, &w, &grads), path(&adagrad, &w, &grads));
        close(&found.concat(), &expected.concat(), 1e-12);
    }

    #[test]
    fn classp_is_bounded_and_monotone(
        (w, grads) in run(), power in prop::sample::select(vec![0.5, 1.0, 1.5, 2.0, 3.0]),
    ) {
        let mut touched_before = usize::MAX;
        for threshold in [0.0, 0.1, 1.0, 10.0] {
            let config = Classp { lr: 0.1, threshold, power, ..Classp::default() };
            let mut opt: Opt<Classp> = config.build().unwrap();
            let (mut w, mut sum, mut touched) = (w.clone(), vec![0.0; w.len()], 0);
            for g in &grads {
                let before = w.clone();
                step(&mut opt, &mut w, g);
                let way = minus(&w, &before);
                prop_assert!(way.iter().all(|d| d.abs() <= 0.1 * (1.0 + 1e-12)));
                let new = slot(&opt, "grad_sum");
                prop_assert!(new.iter().zip(&sum).all(|(new, old)| new >= old));
                for (d, g) in way.iter().zip(g) {
                    prop_assert!(g * g > threshold || *d == 0.0);
                }
                touched += way.iter().filter(|d| **d != 0.0).count();
                sum = new;
            }
            prop_assert!(touched <= touched_before);
            touched_before = touched;
        }
    }

    /// LAMB goes Adam's way, as far as a share `lr` of the weight norm.
    #[test]
    fn lamb_is_adam_of_another_length((w, grads) in run()) {
        let lr = 0.05;
        let lamb = path(&Lamb { lr, ..Lamb::default() }, &w, &grads);
        let adam = path(&Adam { lr: 1.0, eps: 1e-6, ..Adam::default() }, &w, &grads);
        let (mut before, mut adam_before) = (&w, &w);
        for (after, adam_after) in lamb.iter().zip(&adam) {
            let (way, direction) = (minus(after, before), minus(adam_after, adam_before));
            let length = lr * norm(before);
            prop_assert!((norm(&way) - length).abs() <= 1e-9 * length.max(1.0));
            let expected: Vec<f64> = direction.iter().map(|d| d * length / norm(&direction)).collect();
            close(&way, &expected, 1e-9);
            (before, adam_before) = (after, adam_after);
        }
        // without weights there is no trust ratio: the first step is Adam's
        let zeros = vec![0.0; w.len()];
        let lamb = path(&Lamb { lr, ..Lamb::default() }, &zeros, &grads[..1]);
        let adam = path(&Adam { lr, eps: 1e-6, ..Adam::default() }, &zeros, &grads[..1]);
        prop_assert_eq!(lamb, adam);
    }

    #[test]
    fn schedule_free_averages_its_iterates((w, grads) in run(), weight_decay in 0.0f64..0.2) {
        let config = ScheduleFreeAdamW {
            lr: 0.1, r: 0.0, weight_lr_power: 0.0, weight_decay, ..ScheduleFreeAdamW::default()
        };
        let mut opt: Opt<ScheduleFreeAdamW> = config.build().unwrap();
        let (mut w, mut sum) = (w.clone(), vec![0.0; w.len()]);
        for (n, g) in (1..).zip(&grads) {
            step(&mut opt, &mut w, g);
            slot(&opt, "z").iter().zip(&mut sum).for_each(|(z, sum)| *sum += z);
            let (mut x, shape, y) = (w.clone(), [w.len()], w.clone());
            opt.eval(&mut FlatMut::new(&mut x, &shape)).unwrap();
            let average: Vec<f64> = sum.iter().map(|sum| sum / f64::from(n)).collect();
            close(&x, &average, 1e-11);
            opt.train(&mut FlatMut::new(&mut x, &shape)).unwrap();
            close(&x, &y, 1e-13);
        }
    }

    /// Constant gradients leave a variance of nothing but rounding errors.
    #[test]
    fn a_centered_variance_is_never_negative(g in number(), alpha in 0.01f64..0.999) {
        let config = RmsProp { alpha, centered: true, eps: 1e-8, ..RmsProp::default() };
        let (mut w, mut narrow) = ([1.0f64], [1.0f32]);
        let mut opt: Opt<RmsProp> = config.clone().build().unwrap();
        let mut single = config.build::<f32>().unwrap();
        for _ in 0..300 {
            step(&mut opt, &mut w, &[g]);
            let grad = [g as f32];
            single.step(&mut FlatMut::new(&mut narrow, &[1]), &Flat::new(&grad, &[1])).unwrap();
            prop_assert!(w[0].is_finite() && narrow[0].is_finite());
        }
    }

    #[test]
    fn element_wise_rules_commute_with_permutations_and_cuts((w, grads) in run(), shift in 0usize..12) {
        macro_rules! check {
            ($rule:ident) => {
                let together = [
                    "Adafactor", "Came", "Lamb", "NovoGrad", "Fromage", "Prodigy", "SpsMax", "Momo", "MomoAdam", "Adai",
                    "Amos", "Adan", "StableAdamW", "DAdaptAdam", "DAdaptSgd", "DAdaptAdagrad", "DAdaptLion",
                ];
                if !together.contains(&$rule::NAME) {
                    let rotate = |x: &[f64]| {
                        let mut x = x.to_vec();
                        x.rotate_left(shift % w.len());
                        x
                    };
                    let config: $rule = plain();
                    let expected = path(&config, &w, &grads).pop().unwrap();
                    let rotated: Vec<_> = grads.iter().map(|g| rotate(g)).collect();
                    let found = path(&config, &rotate(&w), &rotated).pop().unwrap();
                    prop_assert_eq!(&found, &rotate(&expected), "{}", $rule::NAME);
                    let at = shift % w.len();
                    let part = |from: usize, to: usize| {
                        let grads: Vec<_> = grads.iter().map(|g| g[from..to].to_vec()).collect();
                        path(&config, &w[from..to], &grads).pop().unwrap()
                    };
                    let found = [part(0, at), part(at, w.len())].concat();
                    prop_assert_eq!(&found, &expected, "{}", $rule::NAME);
                }
            };
        }
        eigenstep::for_each_first_order!(check);
    }

    /// Every rule, also those that measure whole tensors, sees the flattened tensor only, but for two that treat
    /// vectors in another way than matrices.
    #[test]
    fn rules_commute_with_reshapes((w, grads) in run()) {
        macro_rules! check {
            ($rule:ident) => {
                let after = |shape: &[usize]| {
                    let mut opt: Opt<$rule> = $rule::default().build().unwrap();
                    let mut w = w.clone();
                    for g in &grads {
                        let grads = Flat::new(g, shape);
                        let inputs = Inputs::new(&grads, 1.5, reads_curvature::<$rule>());
                        opt.step(&mut FlatMut::new(&mut w, shape), &inputs).unwrap();
                    }
                    w
                };
                // these treat vectors in another way
                if !["Lars", "Came", "Amos", "Mars"].contains(&$rule::NAME) {
                    let expected = after(&[w.len()]);
                    prop_assert_eq!(after(&[1, w.len()]), expected.clone(), "{}", $rule::NAME);
                    prop_assert_eq!(after(&[w.len(), 1, 1]), expected, "{}", $rule::NAME);
                }
            };
        }
        eigenstep::for_each_first_order!(check);
    }
}

/// At the best learning rate of a coarse list, 2000 steps leave less than a thousandth of the loss
/// of a quadratic in ten dimensions with condition number 100.
#[test]
fn every_rule_converges_on_a_quadratic() {
    let curvature: Vec<f64> = (0..10).map(|i| 100f64.powf(-f64::from(i) / 9.0)).collect();
    let loss = |w: &[f64]| -> f64 { w.iter().zip(&curvature).map(|(w, c)| c * w * w).sum() };
    macro_rules! check {
        ($rule:ident) => {
            let attempt = |lr: f64| {
                let mut config: $rule = plain();
                config.set_option("lr", lr).unwrap();
                if $rule::NAME == "Classp" {
                    // a threshold on the gradient leaves everything below it alone
                    config.set_option("threshold", 0.0).unwrap();
                }
                let mut opt: Opt<$rule> = config.build().unwrap();
                let (mut w, shape) = (vec![1.0; 10], [10]);
                let before = loss(&w);
                for _ in 0..2000 {
                    let g: Vec<f64> = w.iter().zip(&curvature).map(|(w, c)| c * w).collect();
                    if g.iter().any(|g| g.is_nan() || g.abs() > 1e100) {
                        return f64::INFINITY;
                    }
                    let now = loss(&w) / 2.0;
                    step_at(&mut opt, &mut w, &g, now);
                }
                opt.eval(&mut FlatMut::new(&mut w, &shape)).unwrap();
                loss(&w) / before
            };
            let rates = [1.0, 0.5, 0.1, 0.05, 0.01, 1e-3];
            let best = rates.map(attempt).into_iter().fold(f64::NAN, f64::min);
            assert!(best < 1e-3, "{}: {best:.1e} of the loss is left", $rule::NAME);
        };
    }
    eigenstep::for_each_first_order!(check);
}

/// Bytes per `f32` parameter, as the documentation of every rule states them.
#[test]
fn state_sizes_are_the_documented_ones() {
    fn bytes<U: Rule>(config: U) -> f64 {
        let mut opt = config.build::<f32>().unwrap();
        let (mut w, g) = (vec![1.0f32; 1200], vec![0.5f32; 1200]);
        let grads = Flat::new(&g, &[1200]);
        let inputs = Inputs::new(&grads, 1.5, reads_curvature::<U>());
        opt.step(&mut FlatMut::new(&mut w, &[1200]), &inputs).unwrap();
        opt.state_bytes().per_parameter()
    }
    assert_eq!(bytes(Sgd::default()), 0.0);
    assert_eq!(bytes(Sgd { momentum: 0.9, ..Sgd::default() }), 4.0);
    assert_eq!(bytes(Adam::default()), 8.0);
    assert_eq!(bytes(Adam { amsgrad: true, ..Adam::default() }), 12.0);
    assert_eq!(bytes(AdamW::default()), 8.0);
    assert_eq!(bytes(AdamW { amsgrad: true, ..AdamW::default() }), 12.0);
    let number = 8.0 / 1200.0; // of the tensor
    assert_eq!(bytes(NAdam::default()), 8.0 + number);
    assert_eq!(bytes(RAdam::default()), 8.0);
    assert_eq!(bytes(Adamax::default()), 8.0);
    assert_eq!(bytes(SparseAdam::default()), 8.0);
    assert_eq!(bytes(NovoGrad::default()), 4.0 + number);
    assert_eq!(bytes(AdaHessian::default()), 8.0 + number);
    assert_eq!(bytes(Sophia::default()), 8.0);
    assert_eq!(bytes(SpsMax::default()), 0.0);
    assert_eq!(bytes(Momo::default()), 4.0 + number);
    assert_eq!(bytes(MomoAdam::default()), 8.0 + number);
    assert_eq!(bytes(Sgld::default()), 0.0);
    assert_eq!(bytes(Sgld { preconditioned: true, ..Sgld::default() }), 4.0);
    assert_eq!(bytes(Adagrad::default()), 4.0);
    assert_eq!(bytes(Adadelta::default()), 8.0);
    assert_eq!(bytes(Rprop::default()), 8.0);
    assert_eq!(bytes(Asgd::default()), 4.0);
    assert_eq!(bytes(RmsProp::default()), 4.0);
    assert_eq!(bytes(RmsProp { momentum: 0.9, ..RmsProp::default() }), 8.0);
    assert_eq!(bytes(RmsProp { centered: true, ..RmsProp::default() }), 8.0);
    assert_eq!(bytes(RmsProp { momentum: 0.9, centered: true, ..RmsProp::default() }), 12.0);
    assert_eq!(bytes(Lion::default()), 4.0);
    assert_eq!(bytes(RmsPropTf::default()), 4.0);
    assert_eq!(bytes(RmsPropTf { momentum: 0.9, centered: true, ..RmsPropTf::default() }), 12.0);
    assert_eq!(bytes(Ftrl::default()), 8.0);
    assert_eq!(bytes(Lars::default()), 4.0);
    assert_eq!(bytes(Lars { momentum: 0.0, ..Lars::default() }), 0.0);
    assert_eq!(bytes(Fromage::default()), number);
    assert_eq!(bytes(Came::default()), 12.0);
    assert_eq!(bytes(Lamb::default()), 8.0);
    assert_eq!(bytes(Prodigy::default()), 16.0);
    assert_eq!(bytes(Prodigy { slice_p: 4, ..Prodigy::default() }), 10.0);
    assert_eq!(bytes(Prodigy { betas: (0.0, 0.999), ..Prodigy::default() }), 12.0);
    assert_eq!(bytes(ScheduleFreeAdamW::default()), 8.0);
    assert_eq!(bytes(ScheduleFreeSgd::default()), 4.0);
    assert_eq!(bytes(ScheduleFreeRAdam::default()), 8.0);
    assert_eq!(bytes(DAdaptAdam::default()), 12.0);
    assert_eq!(bytes(DAdaptSgd::default()), 8.0);
    assert_eq!(bytes(DAdaptAdagrad::default()), 12.0);
    assert_eq!(bytes(DAdaptLion::default()), 8.0);
    assert_eq!(bytes(Classp::default()), 4.0);
    assert_eq!(bytes(AdaBelief::default()), 8.0);
    assert_eq!(bytes(AdaBelief { amsgrad: true, ..AdaBelief::default() }), 12.0);
    assert_eq!(bytes(Yogi::default()), 8.0);
    assert_eq!(bytes(Adopt::default()), 8.0);
    assert_eq!(bytes(LaProp::default()), 8.0 + number);
    assert_eq!(bytes(AdaBound::default()), 8.0);
    assert_eq!(bytes(AdaMod::default()), 12.0);
    assert_eq!(bytes(StableAdamW::default()), 8.0);
    assert_eq!(bytes(Adai::default()), 12.0);
    assert_eq!(bytes(AdEmaMix::default()), 12.0);
    assert_eq!(bytes(AggMo::default()), 12.0);
    assert_eq!(bytes(AggMo { betas: vec![0.9], ..AggMo::default() }), 4.0);
    assert_eq!(bytes(Pid::default()), 12.0);
    assert_eq!(bytes(Pid { derivative: 0.0, ..Pid::default() }), 4.0);
    assert_eq!(bytes(Pid { momentum: 0.0, ..Pid::default() }), 0.0);
    assert_eq!(bytes(QhAdam::default()), 8.0 + 2.0 * number);
    assert_eq!(bytes(Qhm::default()), 4.0);
    assert_eq!(bytes(Adan::default()), 16.0);
    assert_eq!(bytes(DiffGrad::default()), 12.0);
    assert_eq!(bytes(Mars::default()), 12.0);
    let lion = Mars { mars_type: MarsType::Lion, optimize_1d: true, ..Mars::default() };
    assert_eq!(bytes(lion), 8.0);
    assert_eq!(bytes(MadGrad::default()), 12.0);
    assert_eq!(bytes(MadGrad { momentum: 0.0, ..MadGrad::default() }), 8.0);
    assert_eq!(bytes(Tiger::default()), 4.0);
    assert_eq!(bytes(Amos::default()), 3.0 * number);
    assert_eq!(bytes(Amos { momentum: 0.9, ..Amos::default() }), 4.0 + 3.0 * number);
}

/// A slot that some option switches off is marked as optional: others are kept whatever `uses_slot` says.
#[test]
fn slots_that_can_be_off_are_optional() {
    let mut optional = 0;
    macro_rules! check {
        ($rule:ident) => {
            let mut names = Vec::new();
            $rule::default().visit_options(&mut |option| names.push(option.name));
            for (name, value) in names.into_iter().flat_map(|n| [0.0, 0.5, 1.0].map(|x| (n, x))) {
                let mut rule = $rule::default();
                let _ = rule.set_option(name, value);
                for (k, slot) in <$rule as Rule>::SLOTS.iter().enumerate() {
                    assert!(slot.optional || rule.uses_slot(k), "{}: {}", $rule::NAME, slot.name);
                    optional += usize::from(slot.optional);
                }
            }
        };
    }
    eigenstep::for_each_first_order!(check);
    assert!(optional > 0);
}
