//! State dicts that do not fit: every one is refused by key, and nothing has changed.
// a test that fails says so by panicking; the helpers serve other tests too
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;

use eigenstep::Error;
use eigenstep::hyper::Hyperparameters;
use eigenstep::optim::Optimizer;
use eigenstep::params::Select;
use eigenstep::prelude::{Precision, Rule, Sgd, StateDict};
use eigenstep::state::{Dtype, Scalar};
use model::*;
use std::cell::RefCell;

struct Case {
    subject: Subject,
    precision: Precision,
    saved: StateDict,
    config: Config,
    victim: RefCell<Victim>,
}

/// The optimizer that refuses every dict, and what it trains.
type Victim = (Opt<f32>, Vec<Leaf<f32>>);

impl Case {
    fn new(subject: &Subject, precision: Precision) -> Self {
        let config = busy(subject);
        let build = || build(&config, precision);
        let (mut opt, mut params) = (build(), leaves(1, &SHAPES));
        train_as(subject, &mut opt, &mut params, 0..2);
        let (mut victim, mut trained) = (build(), leaves(5, &SHAPES));
        train_as(subject, &mut victim, &mut trained, 0..1);
        let victim = RefCell::new((victim, trained));
        Self { subject: *subject, precision, saved: opt.state_dict(), config, victim }
    }

    /// Loads what `damage` has made of the dict; the error must name a key with `key` in it.
    fn refused(&self, key: &str, damage: impl FnOnce(&mut StateDict)) {
        let mut damaged = self.saved.clone();
        damage(&mut damaged);
        assert_ne!(damaged, self.saved, "{key}: the damage did nothing");
        let (opt, _) = &mut *self.victim.borrow_mut();
        let state = opt.state_dict();
        match opt.load_state_dict(&damaged) {
            Err(Error::StateDict { key: found, problem }) => {
                assert!(found.contains(key), "`{found}` ({problem}) instead of `{key}`");
                assert!(!problem.is_empty());
            }
            // the one shape that is known already
            Err(Error::ShapeMismatch { name, .. }) => assert!(key.contains(&name), "{key}"),
            other => panic!("{}: `{key}`: {other:?}", self.subject.name),
        }
        assert_eq!(opt.state_dict(), state, "{key}");
    }

    /// After all that it refused, the optimizer goes on as one that has never seen any of it.
    fn goes_on(self) {
        let subject = &self.subject;
        let (mut opt, mut params) = self.victim.into_inner();
        let (mut twin, mut copy) = (build(&self.config, self.precision), leaves(5, &SHAPES));
        train_as(subject, &mut twin, &mut copy, 0..1);
        assert_eq!(opt.state_dict(), twin.state_dict());
        train_as(subject, &mut opt, &mut params, 1..3);
        train_as(subject, &mut twin, &mut copy, 1..3);
        assert_eq!(all_bits(&params), all_bits(&copy), "{}", subject.name);
    }
}

fn build(config: &Config, precision: Precision) -> Opt<f32> {
    let opt: Opt<f32> = config.optimizer().unwrap();
    opt.with_state_precision(precision).unwrap()
}

/// Keys without which a dict is complete all the same: other programs write no label of a selector,
/// and no shape where a slot in full precision has one.
fn is_optional(key: &str, dict: &StateDict) -> bool {
    let has_plain_slot = |param: &str| {
        let mut slots = dict.tensors.keys().filter_map(|key| key.strip_prefix(param));
        slots.any(|slot| !slot.trim_start_matches('.').contains('.'))
    };
    // older versions did not write what is no option
    let added = key.ends_with(".config") || key.contains(".config.");
    added || key.ends_with(".select") || key.strip_suffix(".shape").is_some_and(has_plain_slot)
}

fn scalars(case: &Case) {
    for (key, scalar) in &case.saved.scalars {
        if !is_optional(key, &case.saved) {
            case.refused(key, |dict| drop(dict.scalars.remove(key)));
        }
        // the old name that is missing, or the new one that is unknown
        case.refused(key, |dict| {
            let scalar = dict.scalars.remove(key).unwrap();
            dict.scalars.insert(format!("{key}x"), scalar);
        });
        let is_text = matches!(scalar, Scalar::Text(_));
        case.refused(key, |dict| {
            let wrong = if is_text { Scalar::Int(-1) } else { Scalar::Text("wrong".into()) };
            dict.scalars.insert(key.clone(), wrong);
        });
        if is_text {
            let wrong = Scalar::Text("wrong,text".into());
            case.refused(key, |dict| drop(dict.scalars.insert(key.clone(), wrong)));
        }
    }
    for (name, range, _) in options(&case.config) {
        let key = format!("groups.0.{name}");
        for bad in [f64::NAN, -1.0, f64::NEG_INFINITY].into_iter().filter(|x| !range.contains(*x)) {
            case.refused(&key, |dict| drop(dict.scalars.insert(key.clone(), Scalar::Float(bad))));
        }
    }
}

fn counts(case: &Case) {
    let set = |key: &'static str, scalar: Scalar| {
        move |dict: &mut StateDict| drop(dict.scalars.insert(key.into(), scalar))
    };
    for bad in [Scalar::Int(-1), Scalar::Int(i64::MIN), Scalar::Float(1.5), Scalar::Float(f64::NAN)]
    {
        case.refused("state.0.step", set("state.0.step", bad.clone()));
        case.refused("state.2.group", set("state.2.group", bad));
    }
    case.refused("state.1.group", set("state.1.group", Scalar::Int(1)));
    case.refused("state.1.group", set("state.1.group", Scalar::Int(i64::MAX)));
    for shape in ["18446744073709551615,2", "4294967296,4294967296", "-1", "4100.0", "x"] {
        case.refused("state.1.shape", set("state.1.shape", Scalar::Text(shape.into())));
    }
    case.refused("groups", set("groups.1.lr", Scalar::Float(0.1)));
    case.refused("groups", set("groups.18446744073709551615.lr", Scalar::Float(0.1)));
    case.refused("groups", |dict| dict.scalars.retain(|key, _| !key.starts_with("groups.")));
    case.refused("groups.0.extra", set("groups.0.extra", Scalar::Bool(true)));
    case.refused("extra", set("extra", Scalar::Bool(true)));
    case.refused("groups.00.lr", set("groups.00.lr", Scalar::Float(0.1)));
    case.refused("groups.0.select", set("groups.0.select", Scalar::Text("*.bias".into())));
    case.refused("optimizer", |dict| dict.optimizer = "Adam ".into());
    case.refused("version", |dict| dict.version += 1);
    case.refused("version", |dict| dict.version = 0);
}

fn tensors(case: &Case) {
    for (key, tensor) in &case.saved.tensors {
        // the slot that is missing is named, or one of its other parts
        let slot = key.trim_end_matches(".codes").trim_end_matches(".scales");
        case.refused(slot, |dict| drop(dict.tensors.remove(key)));
        case.refused(slot, |dict| {
            let tensor = dict.tensors.remove(key).unwrap();
            dict.tensors.insert(format!("{key}x"), tensor);
        });
        let change = |change: fn(&mut eigenstep::state::StateTensor)| {
            move |dict: &mut StateDict| change(dict.tensors.get_mut(key).unwrap())
        };
        let codes = tensor.dtype == Dtype::U8;
        case.refused(
            key,
            change(if codes { |t| t.dtype = Dtype::F32 } else { |t| t.dtype = Dtype::U8 }),
        );
        case.refused(key, change(|t| t.dtype = Dtype::I64));
        case.refused(key, change(|t| t.shape.push(2)));
        case.refused(key, change(|t| t.shape = vec![usize::MAX, 2]));
        case.refused(key, change(|t| t.shape = vec![1 << 40]));
        if !tensor.bytes.is_empty() {
            case.refused(key, change(|t| t.bytes.truncate(t.bytes.len() - 1)));
            case.refused(key, change(|t| t.bytes.clear()));
        }
        case.refused(key, change(|t| t.bytes.extend([0; 8])));
        if key.ends_with(".scales") && !tensor.bytes.is_empty() {
            case.refused(key, change(|t| t.bytes[..4].copy_from_slice(&(-1f32).to_le_bytes())));
        }
        case.refused("state.9.exp_avg", |dict| {
            dict.tensors.insert("state.9.exp_avg".into(), dict.tensors[key].clone());
        });
    }
}

fn hostile(subject: &Subject) {
    for precision in
        [Precision::Full, Precision::Bf16, Precision::INT8_LINEAR, Precision::INT4_LPMM]
    {
        let case = Case::new(subject, precision);
        tensors(&case);
        scalars(&case);
        counts(&case);
        case.goes_on();
    }
}

macro_rules! every_rule {
    ($rule:ident) => {
        #[allow(non_snake_case)]
        mod $rule {
            #[test]
            fn hostile() {
                crate::hostile(&crate::named::$rule);
            }
        }
    };
}
mod each {
    eigenstep::for_each_first_order!(every_rule);
    eigenstep::for_each_second_order!(every_rule);
    eigenstep::for_each_error_feedback!(every_rule);
    eigenstep::for_each_low_rank!(every_rule);
}

#[test]
fn contradicting_options_are_named() {
    let case = Case::new(&named::Sgd, Precision::Full);
    case.refused("groups.0.nesterov", |dict| {
        dict.scalars.insert("groups.0.nesterov".into(), Scalar::Bool(true));
        dict.scalars.insert("groups.0.momentum".into(), Scalar::Float(0.0));
    });
    case.goes_on();
}

#[test]
fn counters_of_a_group_hold_counts() {
    let refused = |bad: f64| {
        let key = "groups.0.scalars.k";
        let set = |dict: &mut StateDict| drop(dict.scalars.insert(key.into(), Scalar::Float(bad)));
        let prodigy = Case::new(&named::Prodigy, Precision::Full);
        prodigy.refused(key, set);
        prodigy.goes_on();
        let schedule_free = Case::new(&named::ScheduleFreeAdamW, Precision::Full);
        schedule_free.refused(key, set);
        schedule_free.goes_on();
    };
    [-1.0, 1.5, f64::NAN, f64::INFINITY].into_iter().for_each(refused);
}

/// A dict of another precision: full precision can be coded, codes cannot be guessed.
#[test]
fn precisions_meet() {
    let momentum = Config::from(Sgd { momentum: 0.9, ..Sgd::default() });
    let (full, mut params) = trained::<f32>(&momentum, 2);
    let build = || momentum.optimizer::<f32>().unwrap();
    let mut coded = build().with_state_precision(Precision::INT8_LINEAR).unwrap();
    coded.load_state_dict(&full.state_dict()).unwrap();
    assert!(coded.state_bytes().total() < full.state_bytes().total() / 3);
    train(&mut coded, &mut params, 2..3);
    let error = build().load_state_dict(&coded.state_dict()).unwrap_err().to_string();
    assert_eq!(
        error,
        "state dict: `state.0.momentum_buffer.codec`: expected full precision, \
         found Linear signed, 8 bits, blocks of 256, ties Even"
    );
    // another element type
    let mut double = momentum.optimizer::<f64>().unwrap();
    double.load_state_dict(&full.state_dict()).unwrap();
    assert_eq!(double.state_bytes().total(), 2 * full.state_bytes().total());
}

/// Names that look like keys.
#[test]
fn parameters_may_have_any_name() {
    let names = ["step", "a", "a.step", "a.group", "a.exp_avg", "state.a", "groups.0.lr", "é ×"];
    let tree = || -> std::collections::BTreeMap<String, Leaf<f32>> {
        names.iter().map(|name| (name.to_string(), leaves(1, &[&[3]]).remove(0))).collect()
    };
    let opt = Sgd { momentum: 0.9, ..Sgd::default() }.build().unwrap();
    let mut opt = opt.with_group(Select::name("a.*"), |group| group.lr = 0.5).unwrap();
    let again = Sgd::default().build().unwrap();
    let mut again = again.with_group(Select::name("a.*"), |_| {}).unwrap();
    let mut params = tree();
    opt.step(&mut params, &tree()).unwrap();
    again.load_state_dict(&opt.state_dict()).unwrap();
    assert_eq!(again.state_dict(), opt.state_dict());
    let mut copy = params.clone();
    opt.step(&mut params, &tree()).unwrap();
    again.step(&mut copy, &tree()).unwrap();
    assert!(params.values().zip(copy.values()).all(|(a, b)| a.values == b.values));
    assert!(again.option(1, "lr") == Some(0.5) && Sgd::default().option("lr") == Some(1e-3));
}

/// An option that switches a slot on between two steps: the next step makes the slot, also after a resume.
#[test]
fn slots_that_the_next_step_makes() {
    fn check<M: eigenstep::optim::MethodFor<f64>>(new: impl Fn() -> M) {
        let build = || eigenstep::optim::Optim::new(new()).unwrap();
        let mut opt = build();
        let mut params: Vec<Leaf<f64>> = leaves(1, &SHAPES);
        train(&mut opt, &mut params, 0..2);
        opt.set_option(0, "momentum", 0.9).unwrap();
        let saved = opt.state_dict();
        let mut resumed = build();
        resumed.load_state_dict(&saved).unwrap();
        assert!(resumed.state_dict() == saved);
        let mut others = params.clone();
        train(&mut opt, &mut params, 2..4);
        train(&mut resumed, &mut others, 2..4);
        assert!(all_bits(&params) == all_bits(&others));
        assert!(opt.state_dict() == resumed.state_dict());
        // a slot that had been made before is not missed in silence
        let mut damaged = opt.state_dict();
        let mut buffers = damaged.tensors.keys().filter(|key| key.contains("momentum_buffer"));
        let first = buffers.next().cloned().unwrap();
        damaged.tensors.remove(&first);
        assert!(matches!(build().load_state_dict(&damaged), Err(Error::StateDict { .. })));
    }
    let sgd = || Sgd { lr: 0.1, ..Sgd::default() };
    check(|| eigenstep::optim::Elementwise(sgd()));
    check(|| eigenstep::optim::Blocked(eigenstep::prelude::Shampoo::with_inner(sgd())));
    check(|| {
        let method = eigenstep::optim::Elementwise(sgd());
        eigenstep::optim::Vectored(eigenstep::prelude::ErrorFeedback::around(method))
    });
}
