//! Rules around rules, and methods around methods: nothing of the inner one is lost, or it is refused.
// a test that fails says so by panicking; the helpers serve other tests too
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;

use eigenstep::error_feedback::{CompressorConfig, ErrorFeedback};
use eigenstep::gradient::with_loss;
use eigenstep::hyper::Hyperparameters;
use eigenstep::optim::{
    Blocked, Elementwise, MethodFor, Optim, Optimizer, Scope, SkipFirst, VectorMethod, Vectored,
};
use eigenstep::prelude::*;
use eigenstep::state::Scalar;
use eigenstep_instances::Tested;
use model::*;

type Boxed = Box<dyn Optimizer<f64>>;

/// An optimizer of this method.
fn boxed(method: impl MethodFor<f64>) -> Boxed {
    Box::new(Optim::new(method).unwrap())
}

/// Parameters after some steps of an optimizer.
fn trained_leaves(opt: &mut dyn Optimizer<f64>, curvature: bool) -> Vec<Leaf<f64>> {
    let mut params = leaves(1, &SHAPES);
    train_with(opt, &mut params, 0..4, curvature);
    params
}

fn trajectory(opt: &mut dyn Optimizer<f64>) -> Vec<Vec<u8>> {
    all_bits(&trained_leaves(opt, false))
}

/// Wrappers that change nothing leave no method of the inner rule out: passes, sums, slots, group and
/// tensor numbers, decay, direction and update.
mod transparent {
    use super::*;

    /// Everything around a rule that changes nothing, with its name.
    fn around<R: Rule>(rule: &R) -> Vec<(&'static str, Boxed)> {
        let inner = || rule.clone();
        let grokfast = GrokFast { amplification: 0.0, ..GrokFast::with_inner(inner()) };
        let delayed = SkipFirst { inner: inner(), skip_first: false, decay_after: false };
        let mut around = vec![
            ("WithDecay", boxed(Elementwise(WithDecay::with_inner(inner())))),
            ("GrokFast", boxed(Elementwise(grokfast))),
            ("SkipFirst", boxed(Elementwise(delayed))),
        ];
        if !R::HAS_EVAL_MODE {
            around.push(("Projected", boxed(Elementwise(Projected::with_inner(inner())))));
        }
        around
    }

    fn check(subject: &Subject, around: fn(&Config) -> Vec<(&'static str, Boxed)>) {
        let trained = |opt: &mut dyn Optimizer<f64>| {
            all_bits(&trained_leaves(opt, subject.reads_curvature()))
        };
        for config in variants(subject) {
            let inner = trained(&mut config.optimizer::<f64>().unwrap());
            for (wrapper, mut around) in around(&config) {
                assert!(trained(&mut around) == inner, "{wrapper} around {config:?}");
            }
        }
    }

    macro_rules! rule {
        ($rule:ident) => {
            #[test]
            #[allow(non_snake_case)]
            fn $rule() {
                check(&named::$rule, |config| around(config.get::<$rule>().unwrap()));
            }
        };
    }
    eigenstep::for_each_first_order!(rule);
}

/// A rule that begins one step late does what the rule does, one step later.
#[test]
fn a_delayed_rule_is_the_rule_one_step_later() {
    let rule = Lion { cautious: true, lr: 0.1, ..Lion::default() };
    let delayed = SkipFirst { inner: rule.clone(), skip_first: true, decay_after: false };
    let mut delayed: Optim<_, f64> = Optim::new(Elementwise(delayed)).unwrap();
    let mut plain: Optim<_, f64> = rule.build().unwrap();
    let (mut late, mut params) = (leaves(1, &SHAPES), leaves(1, &SHAPES));
    train(&mut delayed, &mut late, 0..1);
    assert!(all_bits(&late) == all_bits(&params), "the first step moved something");
    train(&mut delayed, &mut late, 1..5);
    train(&mut plain, &mut params, 1..5);
    assert!(all_bits(&late) == all_bits(&params));
}

/// Compression that leaves nothing out changes nothing, whatever is compressed for.
mod identity_feedback {
    use super::*;

    fn around<M: MethodFor<f64>>(method: M, scope: Scope) -> Boxed
    where
        ErrorFeedback<M>: VectorMethod<Inner = M>,
    {
        let around = ErrorFeedback::around(method);
        let compressor = CompressorConfig::Identity;
        boxed(Vectored(ErrorFeedback { compressor, scope, ..around }))
    }

    fn check(subject: &Subject, config: &Config, around: &dyn Fn(Scope) -> Boxed) {
        let trained = |opt: &mut dyn Optimizer<f64>| {
            all_values(&trained_leaves(opt, subject.reads_curvature()))
        };
        let inner = trained(&mut config.optimizer::<f64>().unwrap());
        for scope in [Scope::Group, Scope::Tensor] {
            let around = trained(&mut around(scope));
            // sums over a tensor are taken in longer pieces
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-13 * a.abs().max(1.0);
            assert!(inner.iter().zip(&around).all(near), "{}, {scope:?}", subject.name);
        }
    }

    macro_rules! test {
        ($name:ident, $config:expr, $as_method:expr) => {
            #[test]
            #[allow(non_snake_case)]
            fn $name() {
                let config: Config = $config;
                let method: $name = config.get::<$name>().unwrap().clone();
                let around = |scope| around($as_method(method.clone()), scope);
                check(&named::$name, &config, &around);
            }
        };
    }
    macro_rules! rule {
        ($rule:ident) => {
            test!($rule, busy(&named::$rule), Elementwise);
        };
    }
    macro_rules! matrix_method {
        ($method:ident) => {
            test!($method, named::$method.config(), Blocked);
        };
    }
    macro_rules! windowed {
        ($method:ident) => {
            test!($method, named::$method.config(), Vectored);
        };
    }
    eigenstep::for_each_first_order!(rule);
    eigenstep::for_each_second_order!(matrix_method);
    eigenstep::for_each_low_rank!(matrix_method);
    eigenstep::for_each_windowed!(windowed);
}

/// Error feedback around a method with a window: both remember, and both survive a checkpoint.
#[test]
fn feedback_around_a_window_keeps_both_memories() {
    let method = || {
        let window = Vectored(MFac::for_tests());
        let compressor =
            CompressorConfig::TopK(eigenstep::error_feedback::Selection::TopK { density: 0.2 });
        Vectored(ErrorFeedback { compressor, ..ErrorFeedback::around(window) })
    };
    let mut opt: Optim<_, f64> = Optim::new(method()).unwrap();
    let momentum = eigenstep::error_feedback::Momentum::default();
    let mut plain: Optim<_, f64> = Optim::new(Elementwise(momentum)).unwrap();
    assert!(trajectory(&mut opt) != trajectory(&mut plain), "the window does nothing");

    let dict = opt.state_dict();
    assert!(dict.scalars.keys().any(|key| key.starts_with("inner.vectors.0.")));
    let mut again: Optim<_, f64> = Optim::new(method()).unwrap();
    again.load_state_dict(&dict).unwrap();
    assert_eq!(again.state_dict(), dict);
    let (mut a, mut b) = (leaves(7, &SHAPES), leaves(7, &SHAPES));
    train(&mut opt, &mut a, 4..8);
    train(&mut again, &mut b, 4..8);
    assert!(all_bits(&a) == all_bits(&b));
}

/// What a wrapper would lose in silence is refused by name.
mod refused {
    use super::*;

    pub(super) fn refused<C: Hyperparameters>(config: &C, field: &str) {
        is_refused(C::NAME, config.validate(), field);
    }

    fn is_refused(name: &str, outcome: Result<()>, field: &str) {
        match outcome {
            Err(Error::InvalidHyperparameter { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{name}: {other:?}"),
        }
    }

    /// What takes the direction of a rule refuses the rules that do more, and is built around all others.
    fn check<R: Rule + Default>() {
        let mut rule = R::default();
        // decay inside of a rule has no other form
        let _ = rule.set_option("weight_decay", 0.0);
        let own = rule.has_own_update();
        let cautious = Cautious::with_inner(rule.clone());
        let grams = Grams::with_inner(rule.clone());
        let decay = WithDecay::with_inner(rule);
        let decay = WithDecay { decay_form: DecayForm::Cautious, ..decay };
        if own {
            refused(&cautious, "inner");
            refused(&grams, "inner");
            refused(&decay, "inner");
        } else {
            cautious.build::<f32>().unwrap();
            grams.build::<f32>().unwrap();
            decay.build::<f32>().unwrap();
        }
    }

    macro_rules! rule {
        ($rule:ident) => {
            #[test]
            #[allow(non_snake_case)]
            fn $rule() {
                check::<$rule>();
            }
        };
    }
    eigenstep::for_each_first_order!(rule);

    #[test]
    fn a_step_along_a_direction_does_not_ascend() {
        let sgd = Sgd { maximize: true, ..Sgd::default() };
        refused(&eigenstep::optim::StepOnly(sgd), "maximize");
    }

    #[test]
    fn rules_that_do_more_than_a_direction_do_not_go_into_other_coordinates() {
        let bounded = Projected { lower: 0.0, ..Projected::with_inner(AdamW::default()) };
        refused(&Soap::with_inner(bounded.clone()), "inner");
        refused(&GaLore::with_inner(bounded), "inner");
        let cautious =
            WithDecay { decay_form: DecayForm::Cautious, ..WithDecay::<AdamW>::default() };
        refused(&Soap::with_inner(cautious), "inner");
        refused(
            &Soap::with_inner(GrokFast::with_inner(Adam { weight_decay: 0.1, ..Adam::default() })),
            "inner",
        );
        // the mask counts over a whole tensor
        refused(&Soap::with_inner(Cautious::with_inner(AdamW::default())), "inner");
    }
}

/// Every form of decay is its equation.
#[test]
fn forms_of_decay() {
    let (lr, decay, peak) = (0.1, 0.5, 0.4);
    let after = |form: DecayForm, w: f64, g: f64| {
        let sgd = Sgd { lr, weight_decay: decay, ..Sgd::default() };
        let mut opt = WithDecay { inner: sgd, decay_form: form, peak_lr: peak }.build().unwrap();
        let mut w = ndarray::array![w];
        opt.step(&mut w, &ndarray::array![g]).unwrap();
        w[0]
    };
    for (w, g) in [(2.0, 1.0), (2.0, -1.0), (-3.0, 0.5)] {
        let near = |form, expected: f64| {
            let found = after(form, w, g);
            assert!((found - expected).abs() < 1e-14, "{form:?}: {found}, not {expected}");
        };
        near(DecayForm::Inner, w - lr * (g + decay * w));
        near(DecayForm::None, w - lr * g);
        near(DecayForm::Coupled, w - lr * (g + decay * w));
        near(DecayForm::Decoupled, w * (1.0 - lr * decay) - lr * g);
        near(DecayForm::DecoupledAfter, (w - lr * g) * (1.0 - lr * decay));
        near(DecayForm::Independent, w * (1.0 - decay) - lr * g);
        near(DecayForm::Corrected, w * (1.0 - lr * decay * lr / peak) - lr * g);
        let shrink = if g * w > 0.0 { 1.0 - lr * decay } else { 1.0 };
        near(DecayForm::Cautious, w * shrink - lr * g);
    }
}

/// Options and slots are told apart by their names: two of one name are refused.
#[test]
fn names_of_nested_rules_are_told_apart() {
    let sgd = || Sgd { lr: 0.1, ..Sgd::default() };
    refused::refused(&GrokFast::with_inner(GrokFast::with_inner(sgd())), "amplification");
    refused::refused(&Cautious::with_inner(Cautious::with_inner(sgd())), "scale");
    refused::refused(&WithDecay::with_inner(WithDecay::with_inner(sgd())), "peak_lr");
    // RMSprop has an `alpha` of its own
    let grokfast = || GrokFast { ema_decay: 0.5, ..GrokFast::with_inner(RmsProp::default()) };
    let (mut opt, mut resumed) = (grokfast().build().unwrap(), grokfast().build().unwrap());
    let mut params = trained_leaves(&mut opt, false);
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    let mut others = params.clone();
    train(&mut opt, &mut params, 4..6);
    train(&mut resumed, &mut others, 4..6);
    assert!(all_bits(&params) == all_bits(&others));
    assert_eq!(opt.config(0).unwrap().inner.alpha, RmsProp::default().alpha);
}

/// Signs are compared, not products: the product of two small numbers is zero.
#[test]
fn masks_know_the_signs_of_tiny_gradients() {
    let sgd = || Sgd { lr: 1.0, ..Sgd::default() };
    let g = 1e-23f32;
    let mut w = ndarray::array![0.0f32];
    let cautious = Cautious { scale: MaskScale::None, inner: sgd() };
    cautious.build().unwrap().step(&mut w, &ndarray::array![g]).unwrap();
    assert_eq!(w[0], -g);
    let inner = Sgd { weight_decay: 0.5, ..sgd() };
    let decay = WithDecay { decay_form: DecayForm::Cautious, ..WithDecay::with_inner(inner) };
    let mut w = ndarray::array![g];
    decay.build().unwrap().step(&mut w, &ndarray::array![g]).unwrap();
    assert!((f64::from(w[0]) + 0.5 * f64::from(g)).abs() < 1e-28, "{}", w[0]);
}

/// The mask's count is a pass of its own, and the inner rule's sums stay what they are.
#[test]
fn masks_leave_the_sums_of_the_inner_rule_alone() {
    /// Numbers of groups and of tensors.
    fn numbers(opt: &impl Optimizer<f64>) -> Vec<(String, Scalar)> {
        let scalars = opt.state_dict().scalars.into_iter();
        let kept = |key: &str| {
            let every = [".step", ".group", ".shape"].iter().any(|end| key.ends_with(end));
            key.contains(".scalars.") || key.starts_with("state.") && !every
        };
        scalars.filter(|(key, _)| kept(key)).collect()
    }
    // without momentum every step goes along its gradient, and the mask changes nothing
    fn check<U: Rule>(inner: U) {
        let mut plain = inner.clone().build::<f64>().unwrap();
        let cautious = Cautious { scale: MaskScale::MeanClamped, inner };
        let mut cautious = cautious.build::<f64>().unwrap();
        let mut w = ndarray::Array1::from_iter((0..50).map(|i| 1.0 + f64::from(i) * 0.1));
        let mut v = w.clone();
        let start = w.clone();
        for _ in 0..30 {
            for (opt, w) in [
                (&mut plain as &mut dyn Optimizer<f64>, &mut w),
                (&mut cautious as &mut dyn Optimizer<f64>, &mut v),
            ] {
                let (grads, loss) = (w.clone(), 0.5 * w.dot(w));
                opt.step(w, &with_loss(&grads, loss)).unwrap();
            }
        }
        assert!(w != start, "{}", U::NAME);
        assert!(w.iter().zip(&v).all(|(a, b)| (a - b).abs() < 1e-9), "{}: {w} {v}", U::NAME);
        assert_eq!(numbers(&plain), numbers(&cautious), "{}", U::NAME);
        assert!(!numbers(&plain).is_empty(), "{}", U::NAME);
    }
    check(Prodigy { betas: (0.0, 0.999), ..Prodigy::default() });
    check(NovoGrad { lr: 0.01, betas: (0.0, 0.98), ..NovoGrad::default() });
    check(Momo { lr: 0.01, beta: 0.0, ..Momo::default() });
    check(SpsMax { lr: 0.01, ..SpsMax::default() });
}

/// Decay that a rule applies itself, in a form of its own, has no other form.
#[test]
fn decay_inside_of_a_rule_keeps_its_form() {
    for form in [DecayForm::None, DecayForm::Decoupled, DecayForm::Corrected] {
        macro_rules! check {
            ($rule:ident) => {
                let inner = $rule { weight_decay: 0.1, ..$rule::default() };
                refused::refused(
                    &WithDecay { decay_form: form, ..WithDecay::with_inner(inner) },
                    "decay_form",
                );
            };
        }
        check!(NovoGrad);
        check!(Momo);
        check!(MomoAdam);
        check!(Lamb);
        check!(Lars);
        check!(Adan);
        check!(Mars);
        check!(StableAdamW);
        check!(ScheduleFreeAdamW);
        check!(ScheduleFreeSgd);
        check!(ScheduleFreeRAdam);
        check!(DAdaptSgd);
    }
}

/// A direction that is not a number is not hidden by a gradient of zero.
#[test]
fn masks_and_signs_show_what_is_not_a_number() {
    let sgd = || Sgd { lr: 1.0, momentum: 0.9, ..Sgd::default() };
    fn after(mut opt: impl Optimizer<f64>) -> f64 {
        let mut w = ndarray::array![1.0];
        opt.step(&mut w, &ndarray::array![1.0]).unwrap();
        opt.visit_slot("momentum_buffer", &mut |_, values| values.fill(f64::NAN));
        opt.step(&mut w, &ndarray::array![0.0]).unwrap();
        w[0]
    }
    assert!(after(Grams::with_inner(sgd()).build().unwrap()).is_nan());
    let cautious = Cautious { scale: MaskScale::None, inner: sgd() };
    assert!(after(cautious.build().unwrap()).is_nan());
}
