//! The text of every error, produced as a program would meet it.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/says.rs"]
mod says;

use eigenstep_instances as _;

use eigenstep::Error;
use eigenstep::linalg;
use eigenstep::params::{Flat, FlatMut, RowGradient};
use eigenstep::prelude::*;
use ndarray::{Array1, Array2, array};
use says::says;
use std::collections::BTreeMap;

type Tree = BTreeMap<String, Array1<f32>>;

fn tree(names: &[&str]) -> Tree {
    names.iter().map(|name| (name.to_string(), array![1.0, 2.0])).collect()
}

#[test]
fn options() {
    let build = Adam { betas: (0.9, 1.0), ..Adam::default() }.build::<f32>();
    says(build, "Adam: `betas.1` must be in [0, 1), got 1");
    let build = AdamW { lr: f64::NAN, ..AdamW::default() }.build::<f32>();
    says(build, "AdamW: `lr` must be finite and >= 0, got NaN");
    let build = Prodigy { d0: 0.0, ..Prodigy::default() }.build::<f32>();
    says(build, "Prodigy: `d0` must be finite and > 0, got 0");
    let build = Prodigy { growth_rate: 0.5, ..Prodigy::default() }.build::<f32>();
    says(build, "Prodigy: `growth_rate` must be >= 1, got 0.5");
    let build = Prodigy { slice_p: 0, ..Prodigy::default() }.build::<f32>();
    says(build, "Prodigy: `slice_p` must be an integer >= 1, got 0");
    let build = Prodigy { beta3: Some(1.0), ..Prodigy::default() }.build::<f32>();
    says(build, "Prodigy: `beta3` must be unset (NaN) or in [0, 1), got 1");
    let default = ScheduleFreeAdamW::default();
    let build = ScheduleFreeAdamW { betas: (0.0, 0.9), ..default }.build::<f32>();
    says(build, "ScheduleFreeAdamW: `betas.0` must be in (0, 1), got 0");
    let build = Sgd { nesterov: true, ..Sgd::default() }.build::<f32>();
    says(
        build,
        "Sgd: `nesterov` must be false unless momentum > 0 and dampening = 0, \
         got true with momentum 0 and dampening 0",
    );
    let mut opt = Classp::default().build::<f32>().unwrap();
    let set = opt.set_option(0, "variant", 2.0);
    says(set, "Classp: `variant` must be 0 (Paper) or 1 (AsPublished), got 2");
    let set = opt.set_option(0, "scaling", 0.5);
    says(set, "Classp: `scaling` must be 0 (false) or 1 (true), got 0.5");
    let set = opt.set_option(0, "weight_decay", 0.5);
    says(
        set,
        "Classp has no option `weight_decay`; it has \
         lr, threshold, eps, power, scaling, variant, maximize",
    );
    says(opt.set_option(3, "lr", 0.5), "parameter group 3 does not exist; there are 1");
}

#[test]
fn groups() {
    let opt = Sgd::default().build::<f32>().unwrap();
    let mut opt = opt.with_group(Select::name("*.bais"), |_| {}).unwrap();
    let step = opt.step(&mut tree(&["fc.bias"]), &tree(&["fc.bias"]));
    let text = "parameter group 1 (`*.bais`) matches no parameter (did you mean `*.bias`?); if all of its parameters are \
                frozen and left out of the tree, mark the selector with `may_be_empty`";
    says(step, text);
    let opt = Prodigy::default().build::<f32>().unwrap();
    let mut opt = opt.with_group(Select::name("a"), |group| group.lr = 0.5).unwrap();
    let step = opt.step(&mut tree(&["a"]), &tree(&["a"]));
    says(step, "Prodigy: `lr` must be 0 or 1 as in group 0, got 0.5");
}

#[test]
fn trees() {
    let mut opt = Sgd::default().build::<f32>().unwrap();
    let step = opt.step(&mut tree(&["w"]), &BTreeMap::from([("w".to_string(), array![1.0])]));
    says(step, "parameter `w`: expected shape [2], found [1]");
    let step = opt.step(&mut tree(&["w"]), &tree(&["v"]));
    says(step, "gradient `v` belongs to no parameter (the parameters are `w`)");
    let flat = FlatMut::new(&mut [0.0; 5], &[2, 3]).to_tree(&mut opt);
    says(flat, "`param`: shape [2, 3] needs 6 elements, the buffer has 5");
    let step = opt.step(&mut Array2::zeros((2, 3)), &Flat::new(&[0.0; 7], &[2, 3]));
    says(step, "`param`: shape [2, 3] needs 6 elements, the buffer has 7");
    // a tuple and a map of the same paths are the same tree; a dot in a name makes no difference
    let mut twice = (tree(&["w"]),);
    let mut both = BTreeMap::from([("0".to_string(), tree(&["w"]))]);
    opt.step(&mut both, &twice).unwrap();
    opt.step(&mut twice, &both).unwrap();
    let twins =
        BTreeMap::from([("a".to_string(), tree(&["b.c"])), ("a.b".to_string(), tree(&["c"]))]);
    let step = opt.step(&mut twins.clone(), &twins);
    says(step, "the name `a.b.c` is used twice");
    let rows = RowGradient::new(&[4, 2], vec![1, 4], Array2::<f32>::zeros((2, 2)));
    says(rows, "gradient `rows`: row 4 does not exist, the parameter has 4 rows");
    let rows = RowGradient::new(&[4, 2], vec![1], Array2::<f32>::zeros((2, 2)));
    says(rows, "parameter `values of a row gradient`: expected shape [1, 2], found [2, 2]");
}

/// One step with a flat leaf alone.
trait ToTree {
    fn to_tree(self, opt: &mut dyn Optimizer<f32>) -> Result<()>;
}
impl ToTree for FlatMut<'_, f32> {
    fn to_tree(mut self, opt: &mut dyn Optimizer<f32>) -> Result<()> {
        opt.step(&mut self, &())
    }
}

#[test]
fn numbers() {
    let mut opt = Sgd::default().build::<f32>().unwrap();
    let mut w = Array2::<f32>::zeros((2, 2));
    let step = opt.step(&mut w, &array![[0.0, 1.0], [f32::NAN, 1.0]]);
    says(step, "gradient `param` is NaN at flat index 2");
    let step = opt.step(&mut w, &array![[0.0, f32::NEG_INFINITY], [f32::NAN, 1.0]]);
    says(step, "gradient `param` is -inf at flat index 1");
}

#[test]
fn moments() {
    let mut opt = ScheduleFreeAdamW::default().build::<f32>().unwrap();
    let (mut w, g) = (tree(&["w"]), tree(&["w"]));
    opt.step(&mut w, &g).unwrap();
    opt.eval(&mut w).unwrap();
    let text = "ScheduleFreeAdamW: the parameters are at the evaluation point; \
                call `train` before `step`";
    says(opt.step(&mut w, &g), text);
    says(opt.train(&mut tree(&["v"])), "parameter `w` is missing from the tree");
    let mut short = BTreeMap::from([("w".to_string(), array![0.0f32])]);
    says(opt.train(&mut short), "parameter `w`: expected shape [2], found [1]");
    let text = "the precision of the state can only be changed before the first step";
    says(opt.with_state_precision(Precision::Bf16), text);
    let mut opt = Sgd::default().build::<f32>().unwrap();
    opt.step(&mut w, &g).unwrap();
    let text = "the rounding can only be changed before the first step";
    says(opt.with_rounding(Rounding::Kahan), text);
}

#[test]
fn saved_states() {
    let mut opt = Sgd::default().build::<f32>().unwrap();
    let saved = opt.state_dict();
    let adam = Adam::default().build::<f32>().unwrap().state_dict();
    let text = "state dict: `optimizer`: expected `Sgd`, found `Adam`";
    says(opt.load_state_dict(&adam), text);
    let newer = StateDict { version: 9, ..saved.clone() };
    says(opt.load_state_dict(&newer), "state dict: `version`: expected 1 to 2, found 9");
    let mut short = saved.clone();
    short.scalars.remove("groups.0.lr");
    says(opt.load_state_dict(&short), "state dict: `groups.0.lr`: is missing");
    let mut long = saved;
    long.scalars.insert("lr".into(), eigenstep::state::Scalar::Int(1));
    says(opt.load_state_dict(&long), "state dict: `lr`: is unknown to Sgd");
}

#[test]
fn decompositions() {
    let nan = array![[1.0f64, f64::NAN], [f64::NAN, 1.0]];
    let error = linalg::eigh(&nan).unwrap_err();
    assert!(matches!(&error, Error::Decomposition { rows: 2, cols: 2, .. }), "{error:?}");
    let Error::Decomposition { what, problem, .. } = &error else { unreachable!() };
    assert_eq!(error.to_string(), format!("{what} of a 2 x 2 matrix: {problem}"));
}

/// The variants that other parts of the crate return, and closures of the user.
#[test]
fn the_rest() {
    let message = eigenstep::error_feedback::compressor::Message::<f32>::from_bytes(&[0, 4]);
    says(message, "not a message: bytes end too early");
    let cases = [
        (
            Error::NonFinite { what: "the gradient norm", value: f64::INFINITY },
            "the gradient norm is not finite: inf",
        ),
        (Error::NonFiniteLoss(f64::NAN), "the loss is not finite: NaN"),
        (Error::Closure("the disk is full".into()), "the closure failed: the disk is full"),
        (
            Error::OutOfOrder { what: "GradScaler::step", problem: "call `unscale` first" },
            "GradScaler::step: call `unscale` first",
        ),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
    let closure = Error::Closure("the disk is full".into());
    let source = std::error::Error::source(&closure).map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("the disk is full"));
}
