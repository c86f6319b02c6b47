//! Whatever is wrong is said, and nothing has changed.

use crate::model::*;
use eigenstep::Error;
use eigenstep::hyper::Range;
use eigenstep::optim::{NonFinite, Optimizer};
use eigenstep::params::{
    FlatMut, GradVisitor, Gradients, ParamVisitor, Parameters, RowGradient, Select,
};
use eigenstep::prelude::{Precision, Rounding};

/// The same subtree under the same name, twice.
struct Twice<X>(X, X);
impl Parameters<f32> for Twice<Vec<Leaf<f32>>> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        self.0.visit_mut(visitor);
        self.1.visit_mut(visitor);
    }
}
impl Gradients<f32> for Twice<Vec<Leaf<f32>>> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        self.0.visit(visitor);
        self.1.visit(visitor);
    }
}

type Attempt<'s> = dyn Fn(&mut Opt<f32>, &mut Vec<Leaf<f32>>) -> Result<(), Error> + 's;

/// What is refused, and what the error says.
struct Wrong<'s> {
    subject: &'s Subject,
    attempts: Vec<(String, Box<Attempt<'s>>)>,
}

impl<'s> Wrong<'s> {
    fn push(
        &mut self,
        expected: &str,
        attempt: impl Fn(&mut Opt<f32>, &mut Vec<Leaf<f32>>) -> Result<(), Error> + 's,
    ) {
        self.attempts.push((expected.to_owned(), Box::new(attempt)));
    }

    /// Tries everything in mid-run; afterwards all goes on as if it had never happened.
    fn is_refused(&self) {
        let subject = self.subject;
        for config in [subject.config(), busy(subject)] {
            for precision in [Precision::Full, Precision::INT4_LPMM] {
                let build = || -> Opt<f32> {
                    let opt: Opt<f32> = config.optimizer().unwrap();
                    opt.with_state_precision(precision).unwrap()
                };
                let (mut opt, mut twin) = (build(), build());
                let mut params = leaves::<f32>(1, &SHAPES);
                let mut copy = params.clone();
                // also before the first step
                for steps in [0..0, 0..2, 2..4, 4..5] {
                    train_as(subject, &mut opt, &mut params, steps.clone());
                    train_as(subject, &mut twin, &mut copy, steps);
                    assert_eq!(all_bits(&params), all_bits(&copy));
                    let state = twin.state_dict();
                    for (expected, attempt) in &self.attempts {
                        let error = attempt(&mut opt, &mut params).unwrap_err().to_string();
                        assert!(error.contains(expected), "{error}");
                        assert_eq!(all_bits(&params), all_bits(&copy), "after: {error}");
                        assert_eq!(opt.state_dict(), state, "after: {error}");
                        assert_eq!(opt.steps("1"), twin.steps("1"));
                    }
                }
                train_as(subject, &mut opt, &mut params, 5..7);
                train_as(subject, &mut twin, &mut copy, 5..7);
                assert_eq!(all_bits(&params), all_bits(&copy));
            }
        }
    }
}

fn with_value(at: usize, value: f32, params: &[Leaf<f32>]) -> Vec<Leaf<f32>> {
    let mut grads = gradients(9, params);
    grads[1].values[at] = value;
    grads
}

pub fn errors_change_nothing(subject: &Subject) {
    let mut wrong = Wrong { subject, attempts: Vec::new() };
    wrong.push("parameter `1`: expected shape [4100], found [4099]", move |opt, params| {
        let mut grads = gradients(9, params);
        grads[1] = Leaf { shape: vec![4099], values: vec![0.0; 4099] };
        opt.step(params, &inputs(subject, 9, &grads))
    });
    wrong.push("parameter `0`: expected shape [61, 70], found [70, 61]", move |opt, params| {
        let mut grads = gradients(9, params);
        grads[0].shape = vec![70, 61];
        opt.step(params, &inputs(subject, 9, &grads))
    });
    wrong.push("gradient `4` belongs to no parameter", move |opt, params| {
        let mut grads = gradients(9, params);
        grads.push(Leaf { shape: vec![], values: vec![1.0] });
        opt.step(params, &inputs(subject, 9, &grads))
    });
    wrong.push("the name `0` is used twice", move |opt, params| {
        let grads = gradients(9, params);
        opt.step(params, &inputs(subject, 9, &Twice(grads.clone(), grads)))
    });
    wrong.push("the name `0` is used twice", move |opt, params| {
        let mut twice = Twice(params.clone(), params.clone());
        opt.step(&mut twice, &inputs(subject, 9, &gradients(9, params)))
    });
    wrong.push("`1`: shape [4100] needs 4100 elements, the buffer has 3", move |opt, params| {
        let mut grads = gradients(9, params);
        grads[1].values.truncate(3);
        opt.step(params, &inputs(subject, 9, &grads))
    });
    wrong.push("`param`: shape [2] needs 2 elements, the buffer has 3", |opt, _| {
        opt.step(&mut FlatMut::new(&mut [0.0; 3], &[2]), &())
    });
    for (value, at) in [(f32::NAN, 0), (f32::INFINITY, 4099), (f32::NEG_INFINITY, 77)] {
        wrong.push(&format!("gradient `1` is {value} at flat index {at}"), move |opt, params| {
            let grads = with_value(at, value, params);
            opt.step(params, &inputs(subject, 9, &grads))
        });
    }
    // finite, but not under its factor
    wrong.push("gradient `1` is inf at flat index 5", move |opt, params| {
        let grads = with_value(5, 1e30, params);
        opt.step(params, &inputs(subject, 9, &eigenstep::params::Scaled::new(1e30, &grads)))
    });
    // finite rows, but one is given twice
    wrong.push("gradient `1` is inf at flat index 7", move |opt, params| {
        let value = ndarray::Array2::from_elem((3, 1), f32::MAX);
        let rows = RowGradient::new(&[4100], vec![7, 9, 7], value)?;
        let grads = std::collections::BTreeMap::from([("1".to_owned(), rows)]);
        opt.step(params, &inputs(subject, 9, &grads))
    });
    wrong.push("parameter group 1 (`nothing`) matches no parameter", move |opt, params| {
        // a group cannot be taken back: the step is tried on a copy of everything
        let mut copy = subject.optimizer::<f32>()?;
        copy.add_group(Select::name("nothing"), |_| {})?;
        let _ = opt;
        let grads = gradients(9, params);
        copy.step(params, &inputs(subject, 9, &grads))
    });
    if subject.has_eval_mode {
        wrong.push("call `train` before `step`", move |opt, params| {
            let before = params.clone();
            opt.eval(params)?;
            let grads = gradients(9, params);
            let outcome = opt.step(params, &inputs(subject, 9, &grads));
            opt.train(params)?;
            params.clone_from(&before); // back at the same point up to rounding
            outcome
        });
    }
    wrong.is_refused();

    let (mut opt, mut params) = trained::<f32>(&subject.config(), 2);
    let (state, before) = (opt.state_dict(), all_bits(&params));
    params[1] = Leaf { shape: vec![2], values: vec![0.0; 2] };
    let grads = gradients(9, &params);
    let error = opt.step(&mut params, &inputs(subject, 9, &grads)).unwrap_err().to_string();
    assert_eq!(error, "parameter `1`: expected shape [4100], found [2]");
    assert_eq!(opt.state_dict(), state);
    assert_eq!(all_bits(&params)[0], before[0]);
}

pub fn skipped_steps_change_nothing(subject: &Subject) {
    for config in variants(subject) {
        let (opt, mut params) = trained::<f32>(&config, 2);
        let mut opt = opt.with_non_finite(NonFinite::Skip);
        let (state, before) = (opt.state_dict(), all_bits(&params));
        for (i, value) in [f32::NAN, f32::INFINITY].into_iter().enumerate() {
            let grads = with_value(3, value, &params);
            opt.step(&mut params, &inputs(subject, 9, &grads)).unwrap();
            assert_eq!(opt.skipped_steps(), i as u64 + 1);
            assert_eq!(all_bits(&params), before, "{config:?}");
            assert_eq!(opt.state_dict(), state, "{config:?}");
        }
        train_as(subject, &mut opt, &mut params, 2..3);
        assert_eq!(all_bits(&params), all_bits(&trained::<f32>(&config, 3).1), "{config:?}");
        assert_eq!(opt.skipped_steps(), 2);
    }
}

/// Without the check a NaN must arrive in the parameter, and not be taken for a step of zero.
pub fn propagated_nan_stays_visible(subject: &Subject) {
    for config in variants(subject) {
        for precision in [Precision::Full, Precision::INT8_LINEAR, Precision::INT4_LPMM] {
            let opt: Opt<f32> = config.optimizer().unwrap();
            let opt = opt.with_state_precision(precision).unwrap();
            let mut opt = opt.with_non_finite(NonFinite::Propagate);
            let mut params = leaves::<f32>(1, &SHAPES);
            train_as(subject, &mut opt, &mut params, 0..2);
            let grads = with_value(3, f32::NAN, &params);
            opt.step(&mut params, &inputs(subject, 9, &grads)).unwrap();
            assert!(params[1].values[3].is_nan(), "{precision:?}: {config:?}");
            assert_eq!(opt.steps("1"), Some(3));
        }
    }
}

/// Numbers outside a range.
fn outside(range: Range) -> Vec<f64> {
    let candidates = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, f64::NAN, f64::INFINITY, -f64::INFINITY];
    candidates.into_iter().filter(|x| !range.contains(*x)).collect()
}

pub fn options_out_of_range_are_named(subject: &Subject) {
    let (mut opt, _) = trained::<f32>(&subject.config(), 1);
    for (name, range, value) in options(&subject.config()) {
        assert!(range.contains(value), "the default of `{name}`");
        assert!(!outside(range).is_empty(), "`{name}` admits everything");
        for bad in outside(range) {
            let (expected, found) = (range.describe(), bad.to_string());
            let text = format!("{}: `{name}` must be {expected}, got {found}", subject.name);
            let mut config = subject.config();
            assert_eq!(config.set_option(name, bad).unwrap_err().to_string(), text);
            assert_eq!(opt.set_option(0, name, bad).unwrap_err().to_string(), text);
            assert_eq!(opt.option(0, name).map(f64::to_bits), Some(value.to_bits()), "{text}");
            // the field itself, where its type can hold the number
            config.visit_options(&mut |option| {
                if option.name == name {
                    option.value.set(bad);
                }
            });
            let held = config.option(name).unwrap();
            if held == bad || held.is_nan() && bad.is_nan() {
                let error = config.optimizer::<f32>().unwrap_err().to_string();
                assert_eq!(error, text);
                let group = subject.optimizer::<f32>().unwrap();
                let error = group.with_group(Select::all(), |c| *c = config).unwrap_err();
                assert_eq!(error.to_string(), text);
            }
        }
    }
    let known: Vec<_> = options(&subject.config()).iter().map(|option| option.0).collect();
    let error = opt.set_option(0, "no_such", 1.0).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("{} has no option `no_such`; it has {}", subject.name, known.join(", "))
    );
    let error = opt.set_option(1, "lr", 1.0).unwrap_err().to_string();
    assert_eq!(error, "parameter group 1 does not exist; there are 1");
    assert!(opt.option(1, "lr").is_none() && opt.option(0, "no_such").is_none());
}

pub fn storage_is_chosen_before_the_first_step(subject: &Subject) {
    let opt = || trained::<f32>(&subject.config(), 1).0;
    let error = opt().with_state_precision(Precision::Bf16).unwrap_err();
    let text = "the precision of the state can only be changed before the first step";
    assert_eq!(error.to_string(), text);
    let error = opt().with_rounding(Rounding::Kahan).unwrap_err();
    assert_eq!(error.to_string(), "the rounding can only be changed before the first step");
    let fresh: Opt<f32> = subject.optimizer().unwrap();
    let error = fresh.with_slot_precision("no_such", Precision::Bf16).unwrap_err().to_string();
    let slots: Vec<_> = subject.slots().iter().map(|slot| slot.name).collect();
    let expected =
        format!("{}: `slot` must be one of {}, got `no_such`", subject.name, slots.join(", "));
    assert_eq!(error, expected);
}
