//! State that moves to parameters of another type, or to another rounding.

use super::{ROUNDINGS, build, model::*};
use eigenstep::numeric::{Element, Real, bf16, f16};
use eigenstep::optim::Optimizer;
use eigenstep::prelude::Rounding;
use eigenstep::state::{StateDict, StateTensor};

/// Some that are cut into blocks, and some that are not.
const SHAPES: [&[usize]; 4] = [&[6, 5], &[70], &[2, 3, 4], &[]];

/// What rounding remembers, whatever the method.
fn is_of_rounding(key: &str) -> bool {
    key.ends_with(".kahan") || key.ends_with(".master")
}

fn without_rounding(mut dict: StateDict) -> StateDict {
    dict.tensors.retain(|key, _| !is_of_rounding(key));
    dict
}

/// The numbers of a tensor; codes as they are.
fn numbers(tensor: &StateTensor) -> Vec<f64> {
    use eigenstep::state::Dtype;
    let bytes = &tensor.bytes;
    match tensor.dtype {
        Dtype::F64 => f64::read_le(bytes),
        Dtype::F32 => f32::read_le(bytes).into_iter().map(f64::from).collect(),
        Dtype::Bf16 => bf16::read_le(bytes).into_iter().map(|x| x.load().into()).collect(),
        Dtype::F16 => f16::read_le(bytes).into_iter().map(|x| x.load().into()).collect(),
        _ => bytes.iter().map(|&byte| f64::from(byte)).collect(),
    }
}

/// The same numbers, up to rounding to the arithmetic type of `B`.
fn same<B: Element>(what: &str, a: &StateDict, b: &StateDict) {
    assert_eq!(a.scalars, b.scalars, "{what}");
    assert!(a.tensors.keys().eq(b.tensors.keys()), "{what}");
    for (key, tensor) in &a.tensors {
        let moved = &b.tensors[key];
        assert_eq!(tensor.shape, moved.shape, "{what}: {key}");
        for (x, y) in numbers(tensor).into_iter().zip(numbers(moved)) {
            // statistics may be in f64 whatever the type
            let near = B::Compute::of(x).widen();
            assert!(x == y || near == y || x.is_nan() && y.is_nan(), "{what}: {key}: {x}, {y}");
        }
    }
}

fn cast<A: Element, B: Element>(params: &[Leaf<A>]) -> Vec<Leaf<B>> {
    let cast = |x: &A| B::store(B::Compute::of(x.load().widen()));
    let leaf = |leaf: &Leaf<A>| Leaf {
        shape: leaf.shape.clone(),
        values: leaf.values.iter().map(cast).collect(),
    };
    params.iter().map(leaf).collect()
}

/// What a step keeps of every parameter under this rounding.
fn kept<T: Element>(rounding: Rounding) -> Option<&'static str> {
    let half = size_of::<T>() == 2;
    match rounding {
        Rounding::Kahan => Some("kahan"),
        Rounding::Master if half => Some("master"),
        _ => None,
    }
}

/// Three steps with `A`, then with `B`.
fn moves<A: Element, B: Element>(subject: &Subject, from: Rounding, to: Rounding) {
    let what = format!("{} from {} {from:?} to {} {to:?}", subject.name, A::NAME, B::NAME);
    let mut a: Opt<A> = build(&subject.config(), from);
    let mut params = leaves::<A>(1, &SHAPES);
    train_as(subject, &mut a, &mut params, 0..3);
    let saved = a.state_dict();
    let mut b: Opt<B> = build(&subject.config(), to);
    b.load_state_dict(&saved).unwrap_or_else(|error| panic!("{what}: {error}"));
    same::<B>(&what, &without_rounding(saved.clone()), &without_rounding(b.state_dict()));
    // and back, before a step: what went through the wider type is what it was
    let mut back: Opt<A> = build(&subject.config(), from);
    back.load_state_dict(&b.state_dict()).unwrap_or_else(|error| panic!("{what}, back: {error}"));
    if size_of::<A::Compute>() <= size_of::<B::Compute>() {
        assert_eq!(without_rounding(back.state_dict()), without_rounding(saved), "{what}, back");
    }
    // a state that waits for the next step is saved like any other
    let mut again: Opt<B> = build(&subject.config(), to);
    again.load_state_dict(&b.state_dict()).unwrap();
    let mut moved = cast::<A, B>(&params);
    let mut copy = moved.clone();
    train_as(subject, &mut b, &mut moved, 3..5);
    train_as(subject, &mut again, &mut copy, 3..5);
    assert_eq!(all_bits(&moved), all_bits(&copy), "{what}");
    assert!(all_values(&moved).iter().all(|x| x.is_finite()), "{what}");
    let after = b.state_dict();
    let keys: Vec<&String> = after.tensors.keys().filter(|key| is_of_rounding(key)).collect();
    let expected = kept::<B>(to).map_or(0, |_| SHAPES.len());
    assert_eq!(keys.len(), expected, "{what}: {keys:?}");
    for key in keys {
        assert!(key.ends_with(kept::<B>(to).unwrap()), "{what}: {key}");
    }
    // the master weights are those of the parameters that training sees
    if kept::<B>(to) == Some("master") {
        for (i, leaf) in moved.iter().enumerate() {
            let master = numbers(&after.tensors[&format!("state.{i}.master")]);
            let seen: Vec<f64> = leaf.values.iter().map(|x| x.load().widen()).collect();
            let rounded: Vec<f64> =
                master.iter().map(|&x| B::store(B::Compute::of(x)).load().widen()).collect();
            assert_eq!(rounded, seen, "{what}");
        }
    }
}

fn every_move(subject: &Subject) {
    for to in ROUNDINGS {
        moves::<f32, bf16>(subject, Rounding::Master, to);
        moves::<bf16, f32>(subject, to, Rounding::Master);
        for from in ROUNDINGS {
            moves::<bf16, bf16>(subject, from, to);
        }
    }
    moves::<bf16, f16>(subject, Rounding::Kahan, Rounding::Kahan);
    moves::<f16, bf16>(subject, Rounding::Master, Rounding::Master);
    moves::<f32, f64>(subject, Rounding::Kahan, Rounding::Kahan);
    moves::<f64, f32>(subject, Rounding::Master, Rounding::Kahan);
    moves::<f64, bf16>(subject, Rounding::Master, Rounding::Master);
    moves::<bf16, f64>(subject, Rounding::Master, Rounding::Master);
}

macro_rules! tests {
    ($method:ident) => {
        #[allow(non_snake_case)]
        #[test]
        fn $method() {
            every_move(&named::$method);
        }
    };
}
eigenstep::for_each_first_order!(tests);
eigenstep_instances::for_each_composition!(tests);
eigenstep::for_each_second_order!(tests);
eigenstep::for_each_error_feedback!(tests);
eigenstep::for_each_windowed!(tests);
eigenstep::for_each_low_rank!(tests);

/// Master weights that were not saved are those of the parameters at the next step.
#[test]
fn master_weights_are_made_from_the_parameters() {
    use eigenstep::prelude::Sgd;
    let sgd = Config::from(Sgd { lr: 1e-3, ..Sgd::default() });
    let mut wide = build::<f32>(&sgd, Rounding::Master);
    let mut params = vec![Leaf { shape: vec![1], values: vec![1.0f32] }];
    let one = |_| vec![Leaf { shape: vec![1], values: vec![1.0f32] }];
    wide.step(&mut params, &one(0)).unwrap();
    let mut narrow = build::<bf16>(&sgd, Rounding::Master);
    narrow.load_state_dict(&wide.state_dict()).unwrap();
    let mut moved = cast::<f32, bf16>(&params);
    let gradient = cast::<f32, bf16>(&one(0));
    // each of these steps is lost without them
    for _ in 0..100 {
        narrow.step(&mut moved, &gradient).unwrap();
    }
    let found = moved[0].values[0].load();
    assert!((found - 0.9).abs() < 5e-3, "{found}");
    // numbers that the other type does not have are refused, by name
    let mut dict = StateDict::clone(&wide.state_dict());
    dict.tensors.insert("state.0.momentum_buffer".into(), StateTensor::new(&[1], &[1e300f64]));
    let config = Sgd { lr: 1e-3, momentum: 0.9, ..Sgd::default() };
    let mut momentum = build::<f32>(&config.into(), Rounding::Master);
    dict.scalars.insert("groups.0.momentum".into(), eigenstep::state::Scalar::Float(0.9));
    let error = momentum.load_state_dict(&dict).unwrap_err().to_string();
    assert!(error.contains("state.0.momentum_buffer") && error.contains("range"), "{error}");
}
