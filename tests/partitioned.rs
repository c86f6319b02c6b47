//! Different methods for different parameters: what each of them would do alone, or nothing at all.
// a test that fails says so by panicking; the helpers serve other tests too
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

use eigenstep_instances as _;

use eigenstep::gradient::{clip_grad_norm, with_curvature};
use eigenstep::optim::{Mode, Optimizer};
use eigenstep::params::{Gradients, Parameters, RowGradient};
use eigenstep::prelude::*;
use eigenstep::schedule::Step;
use eigenstep::state::Scalar;
use ndarray::{Array1, Array2, ShapeBuilder};

struct Net {
    embedding: Array2<f64>,
    hidden: Array2<f64>,
    bias: Array1<f64>,
}
eigenstep::parameters!(Net { embedding, hidden, bias }: f64);

fn net(seed: f64) -> Net {
    let wave = |i: usize, j: usize| ((i * 7 + j * 3) as f64 * 0.1 + seed).sin();
    Net {
        embedding: Array2::from_shape_fn((6, 4), |(i, j)| wave(i, j)),
        hidden: Array2::from_shape_fn((4, 5).f(), |(i, j)| wave(j, i)),
        bias: Array1::from_shape_fn(5, |i| wave(i, 1)),
    }
}

fn bits(net: &Net) -> Vec<u64> {
    let leaves = [net.embedding.iter(), net.hidden.iter()];
    leaves.into_iter().flatten().chain(&net.bias).map(|x| x.to_bits()).collect()
}

fn muon() -> impl Optimizer<f64> + 'static {
    Muon { lr: 0.02, ..Muon::default() }.build().unwrap()
}

fn adamw() -> impl Optimizer<f64> + 'static {
    AdamW { lr: 0.01, ..AdamW::default() }.build().unwrap()
}

fn parts() -> Partitioned<f64> {
    Partitioned::new(adamw()).with(Select::name("hidden"), muon()).frozen(Select::name("embedding"))
}

fn train(opt: &mut dyn Optimizer<f64>, model: &mut Net, steps: std::ops::Range<u64>) {
    for step in steps {
        opt.step(model, &net(1.0 + step as f64)).unwrap();
    }
}

#[test]
fn every_part_is_its_optimizer() {
    let (mut opt, mut model) = (parts(), net(0.0));
    train(&mut opt, &mut model, 0..5);
    let (mut muon, mut adamw) = (muon(), adamw());
    let Net { embedding, mut hidden, mut bias } = net(0.0);
    for step in 0..5 {
        let grads = net(1.0 + step as f64);
        muon.step(&mut hidden, &grads.hidden).unwrap();
        adamw.step(&mut bias, &grads.bias).unwrap();
    }
    assert!(bits(&model) == bits(&Net { embedding, hidden, bias }));
}

#[test]
fn views_of_gradients_reach_every_part() {
    let (mut opt, mut model) = (parts(), net(0.0));
    let (mut twin, mut copy) = (parts(), net(0.0));
    for step in 0..3 {
        let grads = net(step as f64);
        let clipped = clip_grad_norm(&grads, 0.5);
        opt.step(&mut model, &clipped).unwrap();
        let scale = clipped.factor();
        let Net { embedding, hidden, bias } = grads;
        let grads = Net { embedding, hidden: hidden * scale, bias: bias * scale };
        twin.step(&mut copy, &grads).unwrap();
    }
    let near = |(a, b): (&u64, &u64)| (f64::from_bits(*a) - f64::from_bits(*b)).abs() < 1e-12;
    assert!(bits(&model).iter().zip(&bits(&copy)).all(near));
}

#[test]
fn rows_and_absent_gradients() {
    let mut opt = Partitioned::new(adamw())
        .with(Select::name("0"), Sgd { lr: 1.0, ..Sgd::default() }.build().unwrap());
    let mut model = (Array2::<f64>::zeros((4, 2)), Array1::<f64>::ones(3));
    let rows = RowGradient::new(&[4, 2], vec![2], ndarray::array![[1.0, 2.0]]).unwrap();
    opt.step(&mut model, &(rows, None::<Array1<f64>>)).unwrap();
    assert_eq!(model.0.row(2).to_vec(), [-1.0, -2.0]);
    assert_eq!(model.0.sum(), -3.0);
    assert_eq!(model.1, Array1::<f64>::ones(3));
    assert!(opt.part(0).unwrap().state_bytes().total() == 0);
}

/// Whatever is wrong in one part, no other part has moved.
#[test]
fn a_part_that_fails_changes_nothing_anywhere() {
    let refused = |opt: &mut Partitioned<f64>, grads: &dyn Gradients<f64>| {
        let mut model = net(3.0);
        let (before, state) = (bits(&model), opt.state_dict());
        let error = opt.step(&mut model, grads).unwrap_err();
        assert!(bits(&model) == before, "{error}");
        assert!(opt.state_dict() == state, "{error}");
        error.to_string()
    };
    let mut opt = parts();
    train(&mut opt, &mut net(3.0), 0..2);
    for broken in ["hidden", "bias"] {
        let mut grads = net(4.0);
        match broken {
            "hidden" => grads.hidden[[3, 4]] = f64::NAN,
            _ => grads.bias[4] = f64::INFINITY,
        }
        assert!(refused(&mut opt, &grads).contains(broken));
        let Net { embedding, hidden, bias } = net(4.0);
        let grads = match broken {
            "hidden" => Net { embedding, hidden: Array2::zeros((5, 4)), bias },
            _ => Net { embedding, hidden, bias: Array1::zeros(4) },
        };
        assert!(refused(&mut opt, &grads).contains(broken));
    }
    let good = net(4.0);
    assert!(refused(&mut opt, &with_curvature(&good, &good)).contains("curvature"));
    assert!(refused(&mut opt, &(net(1.0), net(2.0))).contains("0.embedding"));

    // and goes on as if nothing had been tried
    let (mut model, mut twin, mut copy) = (net(5.0), parts(), net(5.0));
    train(&mut twin, &mut net(3.0), 0..2);
    train(&mut opt, &mut model, 2..5);
    train(&mut twin, &mut copy, 2..5);
    assert!(bits(&model) == bits(&copy));
}

#[test]
fn what_one_part_leaves_out_all_leave_out() {
    let skipping = Sgd::default().build().unwrap().with_non_finite(NonFinite::Skip);
    let mut opt = Partitioned::new(adamw()).with(Select::name("bias"), skipping);
    let (mut model, mut grads) = (net(0.0), net(1.0));
    grads.bias[0] = f64::NAN;
    assert!(!opt.check_step(&mut model, &grads).unwrap());
    opt.step(&mut model, &grads).unwrap();
    assert!(bits(&model) == bits(&net(0.0)));
    assert_eq!(opt.skipped_steps(), 1);
}

#[test]
fn groups_are_counted_through() {
    let adamw = AdamW::default().build().unwrap();
    let adamw = adamw.with_group(Select::name("bias"), |group| group.lr = 0.5).unwrap();
    let mut opt = Partitioned::new(adamw)
        .frozen(Select::name("embedding"))
        .with(Select::name("hidden"), muon());
    assert_eq!((opt.num_groups(), opt.num_parts()), (3, 3));
    assert_eq!((opt.lr(1), opt.lr(2)), (0.5, 0.02));
    assert!(opt.lr(3).is_nan());
    opt.set_lr(2, 0.25).unwrap();
    assert_eq!(opt.part(2).unwrap().lr(0), 0.25);
    assert!(matches!(opt.set_lr(3, 1.0), Err(Error::UnknownGroup { group: 3, groups: 3 })));
    let mut scheduler = LrScheduler::new(Step { step_size: 1, gamma: 0.5 }, &mut opt).unwrap();
    scheduler.step(&mut opt).unwrap();
    assert_eq!((opt.lr(1), opt.lr(2)), (0.25, 0.125));
}

#[test]
fn checkpoints_are_all_or_nothing() {
    let (mut opt, mut model) = (parts(), net(0.0));
    train(&mut opt, &mut model, 0..3);
    let saved = opt.state_dict();
    let mut again = parts();
    again.load_state_dict(&saved).unwrap();
    assert_eq!(again.state_dict(), saved);
    let mut copy = net(0.0);
    copy.embedding.assign(&model.embedding);
    copy.hidden.assign(&model.hidden);
    copy.bias.assign(&model.bias);
    train(&mut opt, &mut model, 3..6);
    train(&mut again, &mut copy, 3..6);
    assert!(bits(&model) == bits(&copy));

    let refused = |key: &str, damage: &dyn Fn(&mut StateDict)| {
        let mut damaged = saved.clone();
        damage(&mut damaged);
        assert_ne!(damaged, saved);
        let (mut victim, mut other) = (parts(), net(9.0));
        train(&mut victim, &mut other, 0..1);
        let before = victim.state_dict();
        match victim.load_state_dict(&damaged) {
            Err(Error::StateDict { key: found, .. }) => assert!(found.contains(key), "{found}"),
            other => panic!("{key}: {other:?}"),
        }
        assert_eq!(victim.state_dict(), before, "{key}");
    };
    let first = saved.tensors.keys().next().unwrap().clone();
    refused("parts.0.", &|dict| drop(dict.tensors.remove(&first)));
    let last = saved.tensors.keys().next_back().unwrap().clone();
    assert!(last.starts_with("parts.1."), "{last}");
    refused("parts.1.", &|dict| drop(dict.tensors.remove(&last)));
    let text = |text: &str| Scalar::Text(text.into());
    refused("parts.1.method", &|dict| {
        drop(dict.scalars.insert("parts.1.method".into(), text("Sgd")))
    });
    refused("parts.2.select", &|dict| {
        drop(dict.scalars.insert("parts.2.select".into(), text("x")))
    });
    refused("parts.3.x", &|dict| drop(dict.scalars.insert("parts.3.x".into(), Scalar::Int(1))));
    refused("parts.2", &|dict| drop(dict.scalars.insert("parts.2.x".into(), Scalar::Int(1))));
    refused("other", &|dict| drop(dict.scalars.insert("other".into(), Scalar::Int(1))));
    refused("optimizer", &|dict| dict.optimizer = "Muon".into());
}

#[test]
fn parts_with_two_points_move_together() {
    let free = ScheduleFreeAdamW { lr: 0.1, ..ScheduleFreeAdamW::default() }.build().unwrap();
    let mut opt = Partitioned::new(free).with(Select::name("hidden"), muon());
    let mut model = net(0.0);
    train(&mut opt, &mut model, 0..3);
    let trained = bits(&model);
    opt.eval(&mut model).unwrap();
    assert!(bits(&model) != trained);
    assert!(matches!(opt.step(&mut model, &net(1.0)), Err(Error::EvaluationMode { .. })));
    // a tree that lacks a parameter of the second part leaves the first where it is
    opt.train(&mut model).unwrap();
    let mut lacking = (model.embedding.clone(), model.bias.clone());
    assert!(opt.eval(&mut lacking).is_err());
    assert_eq!(lacking, (model.embedding.clone(), model.bias.clone()));
    opt.step(&mut model, &net(2.0)).unwrap();
}

#[test]
fn a_part_without_parameters_is_an_error() {
    let mut opt = parts().frozen(Select::name("no.such"));
    let error = opt.step(&mut net(0.0), &net(1.0)).unwrap_err();
    assert!(error.to_string().contains("no.such"), "{error}");
    let twice: (Array1<f64>, Array1<f64>) = (Array1::zeros(1), Array1::zeros(1));
    struct Twice((Array1<f64>, Array1<f64>));
    impl Parameters<f64> for Twice {
        fn visit_mut<'a>(&'a mut self, visitor: &mut eigenstep::params::ParamVisitor<'a, f64>) {
            visitor.child("a", &mut self.0.0);
            visitor.child("a", &mut self.0.1);
        }
    }
    let mut opt = Partitioned::new(adamw());
    let error = opt.step(&mut Twice(twice), &()).unwrap_err();
    assert!(matches!(error, Error::DuplicateName { .. }), "{error}");
}

#[test]
fn parts_nest() {
    let inner = Partitioned::new(adamw()).with(Select::name("bias"), muon());
    let mut opt = Partitioned::new(inner).with(Select::name("hidden"), muon());
    let (mut model, mut boxed) = (net(0.0), net(0.0));
    train(&mut opt, &mut model, 0..2);
    let inner: Box<dyn Optimizer<f64>> =
        Box::new(Partitioned::new(adamw()).with(Select::name("bias"), muon()));
    let mut opt = Partitioned::new(inner).with(Select::name("hidden"), muon());
    train(&mut opt, &mut boxed, 0..2);
    assert!(bits(&model) == bits(&boxed));
    let dict = opt.state_dict();
    opt.load_state_dict(&dict).unwrap();
    assert_eq!(opt.state_dict(), dict);
}

#[test]
fn groups_of_parameters_are_those_of_their_parts() {
    let adamw = AdamW::default().build().unwrap();
    let adamw = adamw.with_group(Select::name("bias"), |group| group.lr = 0.5).unwrap();
    let opt: Partitioned<f64> = Partitioned::new(adamw)
        .frozen(Select::name("embedding"))
        .with(Select::name("hidden"), muon());
    let group = |name| opt.group_of(name, &[1]);
    assert_eq!(["other", "bias", "hidden"].map(group), [Some(0), Some(1), Some(2)]);
    assert_eq!(group("embedding"), None);
    let boxed: Box<dyn Optimizer<f64>> = Box::new(opt);
    assert_eq!(boxed.group_of("hidden", &[1]), Some(2));
}

#[test]
fn slots_of_all_parts_are_shown() {
    let (mut opt, mut model) = (parts(), net(0.0));
    train(&mut opt, &mut model, 0..2);
    let mut seen = Vec::new();
    for slot in ["exp_avg", "momentum_buffer", "no such slot"] {
        opt.visit_slot(slot, &mut |name, values| seen.push((slot, name.to_owned(), values.len())));
    }
    let seen: Vec<_> = seen.iter().map(|(slot, name, len)| (*slot, name.as_str(), *len)).collect();
    assert_eq!(seen, [("exp_avg", "bias", 5), ("momentum_buffer", "hidden", 20)]);
}

#[test]
fn a_curvature_of_no_parameter_is_named() {
    let sophia = || Sophia::default().build::<f64>().unwrap();
    let mut opt = Partitioned::new(sophia()).with(Select::name("1"), sophia());
    let mut w = (Array1::from_elem(1, 1.0), Array1::from_elem(1, 2.0));
    let (grads, before) = (w.clone(), w.clone());
    let curvature = (w.0.clone(), w.1.clone(), Array1::from_elem(1, 3.0));
    let error = opt.step(&mut w, &with_curvature(&grads, &curvature)).unwrap_err();
    assert!(matches!(&error, Error::CurvatureWithoutGradient { name } if name == "2"), "{error}");
    assert_eq!(w, before);
}

/// A part whose last option has switched a slot on goes back to what it was, too.
#[test]
fn a_load_that_fails_undoes_options_of_this_moment() {
    let new = || {
        let sgd = Sgd { lr: 0.1, ..Sgd::default() }.build::<f64>().unwrap();
        Partitioned::new(sgd).with(Select::name("1"), AdamW::default().build().unwrap())
    };
    let mut opt = new();
    let mut w = (Array1::from_elem(1, 1.0), Array1::from_elem(1, 2.0));
    let grads = w.clone();
    opt.step(&mut w, &grads).unwrap();
    let mut damaged = opt.state_dict();
    damaged.tensors.remove("parts.1.state.1.exp_avg").unwrap();
    damaged.scalars.insert("parts.0.groups.0.lr".into(), Scalar::Float(7.0));
    opt.set_option(0, "momentum", 0.9).unwrap();
    let before = opt.state_dict();
    let error = opt.load_state_dict(&damaged).unwrap_err();
    assert!(error.to_string().contains("parts.1.state.1.exp_avg"), "{error}");
    assert!(opt.state_dict() == before);
}

/// A failed move leaves every part at the point where it stood, and says so.
#[test]
fn parts_at_different_points_stay_there_when_a_move_fails() {
    let new = |lr| ScheduleFreeAdamW { lr, ..ScheduleFreeAdamW::default() }.build::<f64>().unwrap();
    let mut model: Vec<Array1<f64>> = (1..4).map(|n| Array1::from_elem(n, n as f64)).collect();
    let grads = model.clone();
    let (mut first, mut second) = (new(0.1), new(0.2));
    first.step(&mut model, &vec![Some(grads[0].clone()), None, None]).unwrap();
    first.eval(&mut model).unwrap();
    second.step(&mut model, &vec![None, Some(grads[1].clone()), Some(grads[2].clone())]).unwrap();
    let mut opt = Partitioned::new(first).with(Select::name("1").or(Select::name("2")), second);
    let before = opt.state_dict();
    let mut other = model.clone();
    other[2] = Array1::zeros(2);
    let kept = other.clone();
    let error = opt.eval(&mut other).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    assert_eq!(other, kept);
    assert!(opt.state_dict() == before);
    assert_eq!(opt.mode(), Mode::Eval);
    opt.train(&mut model).unwrap();
    assert_eq!(opt.mode(), Mode::Train);
}

#[test]
fn a_part_without_a_parameter_is_named() {
    let says = |mut opt: Partitioned<f64>, text: &str| {
        let mut model = net(0.0);
        let error = opt.step(&mut model, &net(1.0)).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(bits(&model), bits(&net(0.0)));
    };
    let why =
        "of `Partitioned` is left with no parameter: none matches, or later parts take them all";
    says(
        Partitioned::new(adamw()).with(Select::name("hiden*"), muon()),
        &format!("part 1 (`hiden*`) {why}"),
    );
    says(
        Partitioned::new(adamw()).frozen(Select::name("embeding*")),
        &format!("part 1 (`embeding*`) {why}"),
    );
    // all that it selects is another's, too
    let shadowed = Partitioned::new(adamw()).with(Select::name("hidden"), muon());
    says(shadowed.with(Select::ndim(2..), muon()), &format!("part 1 (`hidden`) {why}"));
    says(
        Partitioned::new(adamw()).with(Select::all(), muon()),
        &format!("part 0 (`what no other part selects`) {why}"),
    );
    // a group of a part has its number among the groups of all parts
    let sgd = Sgd::default().build().unwrap();
    let grouped = AdamW::default().build().unwrap().with_group(Select::ndim(3..), |_| {}).unwrap();
    let parts = Partitioned::new(sgd).with(Select::ndim(2..), grouped);
    assert_eq!(parts.num_groups(), 3);
    says(
        parts,
        "parameter group 2 (`ndim 3..`) matches no parameter (the parameters are `embedding`, `hidden`); if all of its \
         parameters are frozen and left out of the tree, mark the selector with `may_be_empty`",
    );
}

#[test]
fn curvatures_go_to_the_parts_that_read_them() {
    let hessian = || AdaHessian { lr: 0.05, ..AdaHessian::default() }.build().unwrap();
    let parts = || Partitioned::new(adamw()).with(Select::name("hidden"), hessian());
    let (mut some, mut all, mut frozen) =
        (parts(), parts(), parts().frozen(Select::name("embedding")));
    let around = Partitioned::new(adamw()).with(Select::name("hidden"), Lookahead::new(hessian()));
    let mut nested = Lookahead::new(around);
    let (mut one, mut two, mut three, mut four) = (net(0.0), net(0.0), net(0.0), net(0.0));
    for step in 0..4 {
        let (grads, curvature) = (net(1.0 + f64::from(step)), net(2.0));
        let hidden: std::collections::BTreeMap<_, _> =
            [("hidden".to_owned(), curvature.hidden.clone())].into();
        some.step(&mut one, &with_curvature(&grads, &hidden)).unwrap();
        all.step(&mut two, &with_curvature(&grads, &curvature)).unwrap();
        frozen.step(&mut three, &with_curvature(&grads, &curvature)).unwrap();
        nested.step(&mut four, &with_curvature(&grads, &curvature)).unwrap();
    }
    assert_eq!(bits(&one), bits(&two));
    assert!(three.hidden == one.hidden && three.embedding == net(0.0).embedding);
    // a curvature that nothing reads is a mistake, as for a single method
    let mut none = Partitioned::new(adamw()).with(Select::name("hidden"), muon());
    let error = none.step(&mut one, &with_curvature(&net(1.0), &net(1.0))).unwrap_err();
    assert!(matches!(error, eigenstep::Error::UnusedCurvature { .. }), "{error}");
}

#[test]
fn a_loss_is_compared_with_the_sums_of_a_part() {
    let sps = || SpsMax { lr: 100.0, eps: 0.0, ..SpsMax::default() }.build::<f64>().unwrap();
    let start = || (ndarray::array![3.0], ndarray::array![[-4.0]]);
    let (mut one, mut two) = (start(), start());
    let grads = start();
    sps().step(&mut one, &with_loss(&grads, 12.5)).unwrap();
    assert_eq!(one, (ndarray::array![0.0], ndarray::array![[0.0]]));
    // each of two parts closes the whole gap
    let mut parts = Partitioned::new(sps()).with(Select::ndim(2..), sps());
    parts.step(&mut two, &with_loss(&grads, 12.5)).unwrap();
    assert!((two.0[0] - (3.0 - 3.0 * 12.5 / 4.5)).abs() < 1e-12);
    assert!((two.1[[0, 0]] + 4.0 - 4.0 * 12.5 / 8.0).abs() < 1e-12);
}

/// A report of all parts; names that have state, wherever it is; parts that are left out of the tree.
#[test]
fn parts_are_one_optimizer_to_the_outside() {
    let mut opt = Partitioned::new(adamw())
        .with(Select::name("0"), muon())
        .frozen(Select::name("3").may_be_empty());
    let mut model: Vec<Array1<f64>> = (1..4).map(|n| Array1::from_elem(n, n as f64)).collect();
    let grads = vec![Some(model[0].clone()), None, Some(model[2].clone())];
    opt.step(&mut model, &grads).unwrap();
    let report = opt.last_step();
    assert_eq!((&report.outcome, report.updated), (&StepOutcome::Stepped, 2));
    assert_eq!(report.without_gradient, ["1"]);
    let mut names = opt.parameters_with_state();
    names.sort();
    assert_eq!(names, ["0", "2"]);
    // the part with the first tensor is frozen by leaving it out
    let mut rest = std::collections::BTreeMap::from([("2".to_owned(), model[2].clone())]);
    let grads = rest.clone();
    opt.step(&mut rest, &grads).unwrap();
    assert_eq!(opt.last_step().updated, 1);
    assert!(matches!(opt.rename("2", "0"), Err(Error::DuplicateName { .. })));
    assert!(matches!(opt.rename("1", "x"), Err(Error::UnknownParameter { .. })));
    opt.rename("2", "two").unwrap();
    assert!(opt.state_dict().scalars.keys().any(|key| key.ends_with("state.two.step")));
    opt.forget("0").unwrap();
    assert_eq!(opt.parameters_with_state(), ["two"]);
    assert!(matches!(opt.forget("0"), Err(Error::UnknownParameter { .. })));
}
