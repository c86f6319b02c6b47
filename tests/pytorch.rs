//! State written by the real PyTorch goes on with PyTorch's next numbers; see
//! `tests/fixtures/pytorch/README.md` for how the files were made and how the way back is checked.
#![cfg(feature = "safetensors")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use eigenstep_instances as _;

use eigenstep::prelude::*;
use ndarray::ArrayD;
use serde_json::Value;
use std::collections::BTreeMap;

type Tree = BTreeMap<String, ArrayD<f32>>;

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/pytorch/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn tree(shapes: &Value, values: &Value) -> Tree {
    let array = |name: &String| {
        let shape = &shapes[name]["shape"].as_array().unwrap();
        let shape: Vec<usize> = shape.iter().map(|d| d.as_u64().unwrap() as usize).collect();
        let values = values[name].get("values").unwrap_or(&values[name]).as_array().unwrap();
        let values = values.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        ArrayD::from_shape_vec(shape, values).unwrap()
    };
    shapes.as_object().unwrap().keys().map(|name| (name.clone(), array(name))).collect()
}

fn assert_close(found: &Tree, expected: &Tree) {
    for (name, expected) in expected {
        for (x, y) in found[name].iter().zip(expected) {
            // the f32 bound for PyTorch's vectors: its kernels round with fused multiply-adds
            assert!((x - y).abs() <= 4e-6 * y.abs() + 1e-7, "{name}: {x} is not {y}");
        }
    }
}

fn check(case: &str, mut wrong: Box<dyn Optimizer<f32>>, mut fresh: Box<dyn Optimizer<f32>>) {
    let numbers = std::fs::read_to_string(fixture(&format!("{case}.json"))).unwrap();
    let numbers: Value = serde_json::from_str(&numbers).unwrap();
    let shapes = &numbers["initial"];

    // the file replaces every option
    let file = StateDict::load_safetensors(fixture(&format!("{case}.safetensors"))).unwrap();
    wrong.load_state_dict(&file).unwrap();
    let mut params = tree(shapes, &numbers["parameters"]);
    for step in numbers["later_steps"].as_array().unwrap() {
        wrong.step(&mut params, &tree(shapes, &step["gradients"])).unwrap();
        assert_close(&params, &tree(shapes, &step["expected"]));
    }

    // the first five steps taken here end where PyTorch's did
    let mut params = tree(shapes, &numbers["initial"]);
    for gradients in numbers["first_steps"].as_array().unwrap() {
        fresh.step(&mut params, &tree(shapes, gradients)).unwrap();
    }
    assert_close(&params, &tree(shapes, &numbers["parameters"]));

    // for the way back: files that PyTorch is given by hand
    if let Some(folder) = std::env::var_os("EIGENSTEP_WRITE_FOR_PYTORCH") {
        let path = std::path::Path::new(&folder).join(format!("{case}.safetensors"));
        fresh.state_dict().save_safetensors(path).unwrap();
    }
}

/// The test `case`: an optimizer with other options, and one with those of the file.
macro_rules! case {
    ($case:ident, $wrong:expr, $fresh:expr) => {
        #[test]
        fn $case() {
            let wrong = Box::new($wrong.build().unwrap());
            check(stringify!($case), wrong, Box::new($fresh.build().unwrap()));
        }
    };
}

case!(
    adadelta,
    Adadelta { lr: 9.0, rho: 0.1, eps: 1.0, maximize: true, ..Adadelta::default() },
    Adadelta { lr: 0.5, rho: 0.8, eps: 1e-4, weight_decay: 0.1, ..Adadelta::default() }
);
case!(
    adagrad,
    Adagrad { lr: 9.0, lr_decay: 9.0, eps: 1.0, ..Adagrad::default() },
    Adagrad { lr: 0.05, lr_decay: 0.1, initial_accumulator_value: 0.1, ..Adagrad::default() }
);
case!(
    adamax,
    Adamax { lr: 9.0, betas: (0.1, 0.2), eps: 1.0, maximize: true, ..Adamax::default() },
    Adamax { lr: 1e-2, weight_decay: 0.1, ..Adamax::default() }
);
case!(
    asgd,
    Asgd { lr: 9.0, lambd: 9.0, alpha: 9.0, t0: 9.0, maximize: true, ..Asgd::default() },
    Asgd { lr: 0.05, lambd: 0.01, alpha: 0.6, t0: 2.0, weight_decay: 0.1, ..Asgd::default() }
);
case!(
    radam,
    RAdam { lr: 9.0, betas: (0.1, 0.2), eps: 1.0, maximize: true, ..RAdam::default() },
    RAdam { lr: 1e-2, weight_decay: 0.1, decoupled_weight_decay: true, ..RAdam::default() }
);
case!(
    rmsprop,
    RmsProp { lr: 9.0, alpha: 0.1, eps: 1.0, weight_decay: 9.0, ..RmsProp::default() },
    RmsProp { lr: 1e-2, momentum: 0.9, centered: true, ..RmsProp::default() }
);
case!(
    rprop,
    Rprop { lr: 9.0, etas: (0.1, 9.0), step_sizes: (1.0, 9.0), maximize: true },
    Rprop { lr: 1e-2, etas: (0.4, 1.5), step_sizes: (1e-3, 0.02), ..Rprop::default() }
);

#[test]
fn adafactor() {
    let wrong = Adafactor { lr: 9.0, beta1: 0.5, maximize: true, ..Adafactor::original() };
    let fresh = Adafactor { lr: 0.05, weight_decay: 0.1, ..Adafactor::default() };
    check("adafactor", Box::new(wrong.build().unwrap()), Box::new(fresh.build().unwrap()));
}

#[test]
fn adamw() {
    let wrong = AdamW { lr: 9.0, betas: (0.1, 0.2), eps: 1.0, maximize: true, ..AdamW::default() };
    let fresh = AdamW { lr: 1e-2, weight_decay: 0.1, ..AdamW::default() };
    check("adamw", Box::new(wrong.build().unwrap()), Box::new(fresh.build().unwrap()));
}

#[test]
fn adamw_amsgrad() {
    let wrong = AdamW { lr: 9.0, ..AdamW::default() };
    let fresh = AdamW { lr: 1e-2, weight_decay: 0.1, amsgrad: true, ..AdamW::default() };
    check("adamw_amsgrad", Box::new(wrong.build().unwrap()), Box::new(fresh.build().unwrap()));
}

#[test]
fn nadam() {
    let wrong = NAdam { lr: 9.0, betas: (0.1, 0.2), momentum_decay: 1.0, ..NAdam::default() };
    let fresh =
        NAdam { lr: 1e-2, weight_decay: 0.1, decoupled_weight_decay: true, ..NAdam::default() };
    check("nadam", Box::new(wrong.build().unwrap()), Box::new(fresh.build().unwrap()));
}

#[test]
fn sgd() {
    let fresh =
        Sgd { lr: 1e-2, momentum: 0.9, nesterov: true, weight_decay: 1e-3, ..Sgd::default() };
    let wrong = Sgd { lr: 9.0, ..Sgd::default() };
    check("sgd", Box::new(wrong.build().unwrap()), Box::new(fresh.build().unwrap()));
}

#[test]
fn state_of_another_method_is_refused() {
    let file = StateDict::load_safetensors(fixture("sgd.safetensors")).unwrap();
    let mut opt = AdamW::default().build::<f32>().unwrap();
    let error = opt.load_state_dict(&file).unwrap_err().to_string();
    assert_eq!(error, "state dict: `optimizer`: expected `AdamW`, found `Sgd`");
}

#[test]
fn full_precision_loads_into_eight_bits() {
    let file = StateDict::load_safetensors(fixture("adamw.safetensors")).unwrap();
    let policy = eigenstep::quant::StatePolicy { min_numel: 1, ..Precision::INT8_DYNAMIC.into() };
    let mut opt = AdamW::default().build::<f32>().unwrap().with_state_policy(policy).unwrap();
    opt.load_state_dict(&file).unwrap();
    assert!(opt.state_bytes().per_parameter() < 3.0);
    assert_eq!(opt.steps("fc1.weight"), Some(5));
}
