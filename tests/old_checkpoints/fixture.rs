//! The files of a case: writing them, and checking that they continue.

use crate::run::{Run, Tensors};
use eigenstep::state::{Dtype, StateDict, StateTensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Steps before the state is saved, and after it is loaded.
const SAVED_AFTER: u64 = 5;
const CONTINUED_FOR: u64 = 3;

/// How close the parameters have to be that training continues to.
#[derive(Clone, Copy)]
pub enum Match {
    /// The same bits: what does no more than element-wise arithmetic, and sums in a fixed order.
    Bits,
    /// Within this multiple of the tensor's largest element: decompositions and logarithms round
    /// differently on other processors.
    Close(f64),
}

/// One configuration whose checkpoints are kept.
pub struct Case {
    pub name: &'static str,
    pub continues: Match,
    pub start: fn() -> Box<dyn Run>,
}

/// A list of cases, and a test for each.
macro_rules! cases {
    ($($(#[$attribute:meta])* $name:ident, $continues:expr => $run:expr;)*) => {
        pub fn cases() -> Vec<$crate::fixture::Case> {
            let mut cases = Vec::new();
            $($(#[$attribute])* cases.push($crate::fixture::Case {
                name: stringify!($name),
                continues: $continues,
                start: || Box::new($run),
            });)*
            cases
        }
        $($(#[$attribute])* #[test]
        fn $name() {
            let case = cases().into_iter().find(|case| case.name == stringify!($name));
            $crate::fixture::check(&case.unwrap());
        })*
    };
}
pub(crate) use cases;

/// The content of a dict in today's terms: where a later version renames keys or adds scalars, this
/// function translates what an older version has saved.
fn canonical(mut dict: StateDict) -> StateDict {
    if dict.version == 1 {
        let now = |key: &String| renamed(&dict.optimizer, key);
        dict.scalars = dict.scalars.iter().map(|(key, x)| (now(key), x.clone())).collect();
        dict.tensors = dict.tensors.iter().map(|(key, x)| (now(key), x.clone())).collect();
        dict.version = StateDict::VERSION;
    }
    dict
}

/// The key in version 2 of a key in version 1.
fn renamed(optimizer: &str, key: &str) -> String {
    let of_direction = !["Shampoo", "SteepestDescent", "Soap"].contains(&optimizer);
    let key = match key.strip_prefix("state.").filter(|_| of_direction) {
        // the momentum of these was called by the name of the option
        Some(slot) if slot.ends_with(".momentum") || slot.contains(".momentum.") => {
            key.replace(".momentum", ".momentum_buffer")
        }
        _ => key.to_owned(),
    };
    let windowed = ["MFac", "Ggt"].contains(&optimizer);
    let key = match key.strip_suffix(".damp").filter(|_| windowed) {
        Some(group) => format!("{group}.damping"),
        None => key.replace(".damp_relative", ".damping_relative"),
    };
    key.replace(".rest_", ".fallback_").replace(".gradient_decay", ".l2")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/v1")
}

/// The file of one part's state dict; `parameters` is the part of the parameters.
fn file(case: &Case, part: &str) -> String {
    format!("{}.{part}.safetensors", case.name)
}

/// Names of all files of a case.
#[cfg(feature = "half")]
pub fn files(case: &Case) -> Vec<String> {
    let parts = (case.start)().save();
    let parts = parts.iter().map(|(part, _)| *part).chain(["parameters"]);
    parts.map(|part| file(case, part)).collect()
}

/// Names of all files there are.
#[cfg(feature = "half")]
pub fn folder_content() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Trains, saves, trains on, and writes what was there in between and in the end.
pub fn write(case: &Case) {
    if folder().join(file(case, "parameters")).exists() {
        return;
    }
    let mut run = trained(case);
    for (part, dict) in run.save() {
        dict.save_safetensors(folder().join(file(case, part))).unwrap();
    }
    let mut parameters = StateDict::new("parameters");
    let named = |when: &'static str, tensors: Tensors| {
        tensors.into_iter().map(move |(name, tensor)| (format!("{when}.{name}"), tensor))
    };
    parameters.tensors.extend(named("before", run.parameters()));
    continue_training(&mut *run);
    parameters.tensors.extend(named("after", run.parameters()));
    parameters.save_safetensors(folder().join(file(case, "parameters"))).unwrap();
}

/// Loads, compares with what was loaded, and continues.
pub fn check(case: &Case) {
    let load = |part: &str| StateDict::load_safetensors(folder().join(file(case, part))).unwrap();
    let parameters = load("parameters").tensors;
    let (before, after) = (under("before.", &parameters), under("after.", &parameters));

    let mut run = (case.start)();
    let parts: Vec<&str> = run.save().into_iter().map(|(part, _)| part).collect();
    let saved: Vec<StateDict> = parts.iter().map(|part| load(part)).collect();
    for (part, dict) in parts.iter().zip(&saved) {
        run.load(part, dict).unwrap_or_else(|error| panic!("{}, {part}: {error}", case.name));
    }
    same_dicts(case, &saved, &mut *run);
    run.set_parameters(&before);
    continue_training(&mut *run);
    same_parameters(case, &run.parameters(), &after);

    // and training from the start leads to what was saved
    if let Match::Bits = case.continues {
        let mut run = trained(case);
        same_dicts(case, &saved, &mut *run);
        same_parameters(case, &run.parameters(), &before);
    }
}

fn trained(case: &Case) -> Box<dyn Run> {
    let mut run = (case.start)();
    (0..SAVED_AFTER).for_each(|step| run.advance(step));
    run
}

fn continue_training(run: &mut dyn Run) {
    (SAVED_AFTER..SAVED_AFTER + CONTINUED_FOR).for_each(|step| run.advance(step));
}

fn under(prefix: &str, tensors: &Tensors) -> Tensors {
    let stripped = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone())));
    stripped.collect()
}

/// Everything in a dict as text; the text of a float is its bits, and one NaN is like another.
fn content(dict: StateDict) -> BTreeMap<String, String> {
    let StateDict { optimizer, scalars, tensors, .. } = canonical(dict);
    let scalars = scalars.into_iter().map(|(key, scalar)| (key, format!("{scalar:?}")));
    let tensors = tensors.into_iter().map(|(key, StateTensor { dtype, shape, bytes })| {
        (key, format!("{dtype:?} {shape:?} {bytes:x?}"))
    });
    scalars.chain(tensors).chain([("optimizer".to_owned(), optimizer)]).collect()
}

/// Options that methods have been given since: those of LAMB.
const NEW_OPTIONS: [&str; 6] = [
    "decoupled_weight_decay",
    "grad_averaging",
    "adam",
    "max_weight_norm",
    "max_trust_ratio",
    "form",
];

/// Options that a guard has saved since.
const NORM_LIMIT: [&str; 4] = ["factor", "decay", "warmup", "max_skips"];

fn same_dicts(case: &Case, saved: &[StateDict], run: &mut dyn Run) {
    for (saved, (part, found)) in saved.iter().zip(run.save()) {
        let (saved, found) = (content(saved.clone()), content(found));
        // later versions write more of the configuration
        let added = |key: &str| {
            let new = key.rsplit('.').next().is_some_and(|name| NEW_OPTIONS.contains(&name));
            let config = key.split('.').any(|part| part == "config" || part == "options");
            let new = new && key.starts_with("groups.")
                || case.name == "norm_guard" && NORM_LIMIT.contains(&key);
            key == "shared" || config || new
        };
        let found_keys = found.keys().filter(|key| !added(key));
        for key in saved.keys().chain(found_keys) {
            let (saved, found) = (saved.get(key), found.get(key));
            // the elements of a tensor would fill the screen
            let start =
                |text: Option<&String>| text.map(|t| t.chars().take(80).collect::<String>());
            let (name, is, was) = (case.name, start(found), start(saved));
            assert!(found == saved, "{name}, {part}, `{key}`: {is:?} but in the file {was:?}");
        }
    }
}

fn same_parameters(case: &Case, found: &Tensors, expected: &Tensors) {
    assert!(found.keys().eq(expected.keys()), "{}", case.name);
    for (name, expected) in expected {
        let found = &found[name];
        let equal = found == expected
            || match case.continues {
                Match::Bits => false,
                Match::Close(tolerance) => close(&numbers(found), &numbers(expected), tolerance),
            };
        assert!(equal, "{}, {name}: continued differently", case.name);
    }
}

fn numbers(tensor: &StateTensor) -> Vec<f64> {
    let bytes = tensor.bytes.as_slice();
    match tensor.dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&word| f64::from_le_bytes(word)).collect(),
        Dtype::F32 => {
            bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word).into()).collect()
        }
        dtype => panic!("no case compares {dtype:?} within a tolerance"),
    }
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(x, y)| (x - y).abs() <= tolerance * largest)
}
