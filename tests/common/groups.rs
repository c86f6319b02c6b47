//! Groups, names and parameters that change in mid-run.

use crate::model::*;
use eigenstep::Error;
use eigenstep::optim::Optimizer;
use eigenstep::params::Select;
use eigenstep::prelude::{Precision, StepOutcome};
use std::collections::BTreeMap;

type Tree = BTreeMap<String, Leaf<f32>>;

fn tree() -> Tree {
    leaves(1, &SHAPES).into_iter().enumerate().map(|(i, leaf)| (format!("l{i}"), leaf)).collect()
}

/// One step in which the parameters `trained` have a gradient, those that do not depend on the others.
fn step_with(
    subject: &Subject,
    opt: &mut Opt<f32>,
    params: &mut Tree,
    step: u64,
    trained: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let grads: Tree = params
        .iter()
        .filter(|(name, _)| trained(name))
        .map(|(name, leaf)| {
            let seed = 100 * step + u64::from(name.as_bytes()[name.len() - 1]);
            let values = random(seed, leaf.values.len());
            (name.clone(), Leaf { shape: leaf.shape.clone(), values })
        })
        .collect();
    opt.step(params, &inputs(subject, step, &grads))
}

fn run(subject: &Subject, opt: &mut Opt<f32>, params: &mut Tree, steps: std::ops::Range<u64>) {
    for step in steps {
        step_with(subject, opt, params, step, |_| true).unwrap();
    }
}

fn tree_bits(tree: &Tree) -> BTreeMap<&str, Vec<u8>> {
    tree.iter().map(|(name, leaf)| (name.as_str(), bits(&leaf.values))).collect()
}

fn build(config: &Config, precision: Precision) -> Opt<f32> {
    let opt: Opt<f32> = config.optimizer().unwrap();
    opt.with_state_precision(precision).unwrap()
}

/// A group that is added and changes nothing: one of a part, one of a part of that, one of everything.
pub fn added_groups_change_nothing(subject: &Subject) {
    for config in [subject.config(), busy(subject)] {
        for precision in [Precision::Full, Precision::INT4_LPMM] {
            added_groups_of(&config, precision);
        }
    }
}

/// The same for one configuration.
pub fn added_groups_of(config: &Config, precision: Precision) {
    let subject = &config.subject();
    let selectors = [Select::name("l[1]").or(Select::name("l1")), Select::ndim(1..), Select::all()];
    let (mut opt, mut twin) = (build(config, precision), build(config, precision));
    let (mut params, mut copy) = (tree(), tree());
    run(subject, &mut opt, &mut params, 0..3);
    run(subject, &mut twin, &mut copy, 0..3);
    let mut groups = Vec::new();
    for (at, select) in (3..).step_by(2).zip(selectors) {
        opt.add_group(select.clone(), |_| {}).unwrap();
        groups.push(select);
        // a checkpoint between the new group and its first step
        let mut resumed = groups.iter().fold(build(config, precision), |opt, select| {
            opt.with_group(select.clone(), |_| {}).unwrap()
        });
        resumed.load_state_dict(&opt.state_dict()).unwrap();
        opt = resumed;
        run(subject, &mut opt, &mut params, at..at + 2);
        run(subject, &mut twin, &mut copy, at..at + 2);
        let same = tree_bits(&params) == tree_bits(&copy);
        assert!(same, "from step {at} on, {precision:?}: {config:?}");
    }
}

/// Every option of a group that is added in mid-run is obeyed and saved, or refused; then nothing has changed.
pub fn added_options_are_obeyed_or_refused(subject: &Subject) {
    for other in variants(subject) {
        let mut opt: Opt<f32> = subject.optimizer().unwrap();
        let mut params = tree();
        run(subject, &mut opt, &mut params, 0..2);
        let (before, state) = (params.clone(), opt.state_dict());
        if let Err(error) = opt.add_group(Select::name("l1"), |config| *config = other.clone()) {
            assert!(matches!(error, Error::StateLayout { .. }), "{error}: {other:?}");
            assert_eq!(opt.state_dict(), state);
            run(subject, &mut opt, &mut params, 2..4);
            let mut twin: Opt<f32> = subject.optimizer().unwrap();
            let mut copy = tree();
            run(subject, &mut twin, &mut copy, 0..4);
            assert_eq!(tree_bits(&params), tree_bits(&copy), "{other:?}");
            continue;
        }
        match step_with(subject, &mut opt, &mut params, 2, |_| true) {
            Ok(()) => {}
            // groups that must agree: named, and nothing has happened
            Err(error) => {
                assert!(matches!(error, Error::InvalidHyperparameter { .. }), "{error}");
                assert_eq!(tree_bits(&params), tree_bits(&before));
                continue;
            }
        }
        let rebuilt: Opt<f32> = subject.optimizer().unwrap();
        let mut rebuilt =
            rebuilt.with_group(Select::name("l1"), |config| *config = other.clone()).unwrap();
        rebuilt
            .load_state_dict(&opt.state_dict())
            .unwrap_or_else(|error| panic!("{error}: {other:?}"));
        let mut copy = params.clone();
        run(subject, &mut opt, &mut params, 3..5);
        run(subject, &mut rebuilt, &mut copy, 3..5);
        assert_eq!(tree_bits(&params), tree_bits(&copy), "{other:?}");
    }
}

/// Names that differ after loading are reported, and accepted if that is asked for.
pub fn names_are_those_of_the_saved_state(subject: &Subject) {
    let mut opt: Opt<f32> = subject.optimizer().unwrap();
    let mut params = tree();
    // one parameter has no gradient before the state is saved: it is no stranger
    for step in 0..2 {
        step_with(subject, &mut opt, &mut params, step, |name| name != "l3").unwrap();
    }
    let saved = opt.state_dict();
    let load = || {
        let mut loaded: Opt<f32> = subject.optimizer().unwrap();
        loaded.load_state_dict(&saved).unwrap();
        loaded
    };
    run(subject, &mut load(), &mut params.clone(), 2..4);

    let mut renamed = params.clone();
    let leaf = renamed.remove("l1").unwrap();
    renamed.insert("k1".into(), leaf);
    let before = renamed.clone();
    let mut loaded = load();
    let error = step_with(subject, &mut loaded, &mut renamed, 2, |_| true).unwrap_err();
    match &error {
        Error::UnmatchedState { missing, new, .. } => {
            assert_eq!(
                (missing.as_slice(), new.as_slice()),
                (&["l1".into()][..], &["k1".into()][..])
            );
        }
        _ => panic!("{error}"),
    }
    assert!(
        error.to_string().contains("`l1`") && error.to_string().contains("`rename`"),
        "{error}"
    );
    assert_eq!(tree_bits(&renamed), tree_bits(&before));
    assert_eq!(loaded.state_dict(), saved);

    // under its new name the state goes on, but for random numbers, whose streams belong to names
    loaded.rename("l1", "k1").unwrap();
    assert_eq!(loaded.steps("k1"), Some(2));
    step_with(subject, &mut loaded, &mut renamed, 2, |_| true).unwrap();
    assert_eq!(loaded.steps("k1"), Some(3));
    assert!(loaded.parameters_with_state().contains(&"k1".to_owned()));
    assert!(matches!(loaded.rename("k1", "l0"), Err(Error::DuplicateName { .. })));
    assert!(matches!(loaded.rename("x", "y"), Err(Error::UnknownParameter { .. })));
    let mut again: Opt<f32> = subject.optimizer().unwrap();
    again.load_state_dict(&loaded.state_dict()).unwrap();
    let mut copy = renamed.clone();
    run(subject, &mut loaded, &mut renamed, 3..5);
    run(subject, &mut again, &mut copy, 3..5);
    assert_eq!(tree_bits(&renamed), tree_bits(&copy));

    // accepted: the old state is kept until it is forgotten
    let mut lenient = load().with_strict_names(false);
    let mut others = before.clone();
    step_with(subject, &mut lenient, &mut others, 2, |_| true).unwrap();
    assert_eq!((lenient.steps("l1"), lenient.steps("k1")), (Some(2), Some(1)));
    lenient.forget("l1").unwrap();
    assert_eq!(lenient.steps("l1"), None);
    assert!(matches!(lenient.forget("l1"), Err(Error::UnknownParameter { .. })));
    let kept = lenient.state_dict();
    assert!(!kept.scalars.keys().chain(kept.tensors.keys()).any(|key| key.starts_with("state.l1")));
    let mut again: Opt<f32> = subject.optimizer().unwrap();
    again.load_state_dict(&kept).unwrap();
    let mut copy = others.clone();
    run(subject, &mut lenient, &mut others, 3..5);
    run(subject, &mut again, &mut copy, 3..5);
    assert_eq!(tree_bits(&others), tree_bits(&copy));

    // what is forgotten after loading begins anew, with a checkpoint in between and without
    for gone in [vec!["l1".to_owned()], load().parameters_with_state()] {
        let mut loaded = load();
        gone.iter().for_each(|name| loaded.forget(name).unwrap());
        let mut again: Opt<f32> = subject.optimizer().unwrap();
        again.load_state_dict(&loaded.state_dict()).unwrap();
        assert_eq!(again.state_dict(), loaded.state_dict());
        let (mut tree, mut copy) = (params.clone(), params.clone());
        run(subject, &mut loaded, &mut tree, 2..4);
        run(subject, &mut again, &mut copy, 2..4);
        assert_eq!(tree_bits(&tree), tree_bits(&copy), "{gone:?}");
        assert_eq!(loaded.steps("l1"), Some(2));
    }
}

/// A frozen parameter may be left out of the tree, from the start or in mid-run, and come back.
pub fn frozen_parameters_are_left_out(subject: &Subject) {
    for from_the_start in [true, false] {
        let opt: Opt<f32> = subject.optimizer().unwrap();
        let select = Select::name("l1");
        let select = if from_the_start { select.may_be_empty() } else { select };
        let mut opt = opt.with_group(select, |_| {}).unwrap();
        let mut params = tree();
        // Schedule-Free RAdam stands still at first
        let mut steps = 0..8;
        if !from_the_start {
            run(subject, &mut opt, &mut params, steps.clone());
            steps = 8..10;
        }
        let frozen = params.remove("l1").unwrap();
        run(subject, &mut opt, &mut params, steps.clone());
        if subject.has_eval_mode {
            let before = params.clone();
            opt.eval(&mut params).unwrap();
            assert_ne!(tree_bits(&params), tree_bits(&before));
            opt.train(&mut params).unwrap();
            params = before; // back at the same point up to rounding
        }
        params.insert("l1".into(), frozen);
        let taken = opt.steps("l1").unwrap_or(0);
        run(subject, &mut opt, &mut params, steps.end..steps.end + 2);
        assert_eq!(opt.steps("l1"), Some(taken + 2));
        // and all of it survives a checkpoint
        let again: Opt<f32> = subject.optimizer().unwrap();
        let mut again = again.with_group(Select::name("l1"), |_| {}).unwrap();
        again.load_state_dict(&opt.state_dict()).unwrap();
        let mut copy = params.clone();
        run(subject, &mut opt, &mut params, 12..14);
        run(subject, &mut again, &mut copy, 12..14);
        assert_eq!(tree_bits(&params), tree_bits(&copy));
    }
}

/// A parameter that was not in the tree when the others moved between their two points is not mixed up.
pub fn points_are_kept_for_each_parameter(subject: &Subject) {
    if !subject.has_eval_mode {
        return;
    }
    let mut opt: Opt<f32> = subject.optimizer().unwrap();
    let mut params = tree();
    run(subject, &mut opt, &mut params, 0..8);
    opt.eval(&mut params).unwrap();
    let left_out = params.remove("l1").unwrap();
    opt.train(&mut params).unwrap();
    run(subject, &mut opt, &mut params, 8..9);
    params.insert("l1".into(), left_out);
    let before = params.clone();
    let check = |opt: &mut Opt<f32>, params: &mut Tree| {
        let error = step_with(subject, opt, params, 9, |_| true).unwrap_err();
        assert!(matches!(&error, Error::LeftAtEvaluation { name, .. } if name == "l1"), "{error}");
        assert_eq!(tree_bits(params), tree_bits(&before));
    };
    check(&mut opt, &mut params);
    // also after loading
    let mut loaded: Opt<f32> = subject.optimizer().unwrap();
    loaded.load_state_dict(&opt.state_dict()).unwrap();
    check(&mut loaded, &mut params);
    loaded.train(&mut params).unwrap();
    for name in ["l0", "l2", "l3"] {
        assert_eq!(bits(&params[name].values), bits(&before[name].values), "moved twice");
    }
    assert_ne!(bits(&params["l1"].values), bits(&before["l1"].values));
    run(subject, &mut loaded, &mut params, 9..11);
}

/// The caller learns what a step did, also through a pointer.
pub fn steps_are_reported(subject: &Subject) {
    let opt: Opt<f32> = subject.optimizer().unwrap();
    let opt = opt.with_group(Select::name("l0"), |_| {}).unwrap();
    let opt = opt.with_group(Select::ndim(2..=2), |_| {}).unwrap();
    let mut opt = opt.with_non_finite(eigenstep::optim::NonFinite::Skip);
    let mut params = tree();
    assert_eq!(opt.last_step().outcome, StepOutcome::Unknown);
    step_with(subject, &mut opt, &mut params, 0, |name| name != "l1").unwrap();
    let dynamic: &dyn Optimizer<f32> = &opt;
    let report = dynamic.last_step();
    assert_eq!((&report.outcome, report.updated), (&StepOutcome::Stepped, 3));
    assert_eq!(report.without_gradient, ["l1"]);
    assert_eq!(report.idle_groups, [1], "the last group has taken its only parameter");
    step_with(subject, &mut opt, &mut params, 1, |_| false).unwrap();
    assert_eq!(opt.last_step().outcome, StepOutcome::NoGradients);
    let grads = Tree::from([("l3".to_owned(), Leaf { shape: vec![], values: vec![f32::NAN] })]);
    opt.step(&mut params, &inputs(subject, 2, &grads)).unwrap();
    let outcome = opt.last_step().outcome;
    assert!(
        matches!(&outcome, StepOutcome::Skipped { reason } if reason.contains("`l3`")),
        "{outcome:?}"
    );

    let opt: Opt<f32> = subject.optimizer().unwrap();
    let mut strict = opt.require_all_gradients(true);
    let (mut params, before) = (tree(), tree());
    let error = step_with(subject, &mut strict, &mut params, 0, |name| name != "l1").unwrap_err();
    assert!(matches!(&error, Error::MissingGradients { names } if names == &["l1"]), "{error}");
    assert_eq!(tree_bits(&params), tree_bits(&before));
    run(subject, &mut strict, &mut params, 0..1);
}
