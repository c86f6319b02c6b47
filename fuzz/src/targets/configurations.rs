//! Configurations from JSON files.

use super::subjects::model::{self, Subject};
use crate::harness::Target;
use crate::memory::bounded;
use crate::mutate;
use crate::random::Random;
use eigenstep_instances::Tested;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

struct Config {
    name: &'static str,
    json: Value,
    /// Reads a configuration, builds it and steps with it; whether it was accepted.
    run: fn(&str, &[u8]) -> bool,
}

pub struct Configurations(Vec<Config>);

fn run<U: Tested + DeserializeOwned>(name: &str, bytes: &[u8]) -> bool {
    let read = bounded(bytes.len(), || serde_json::from_slice::<U>(bytes));
    let Ok(config) = read else { return false };
    let window = config.option("window").unwrap_or(0.0);
    let built = bounded(bytes.len(), || config.optimizer::<f32>());
    let Ok(mut opt) = built else { return false };
    if window > 256.0 {
        // valid, and of as much memory as it says
        return true;
    }
    let shapes: [&[usize]; 3] = [&[6, 5], &[4], &[]];
    let mut params = model::leaves::<f32>(1, &shapes);
    for step in 0..2 {
        let grads = model::gradients(step, &params);
        let inputs = model::inputs(&Subject::of::<U>(), step, &grads);
        let (state, bits) = (opt.state_dict(), model::all_bits(&params));
        if let Err(error) = opt.step(&mut params.as_mut_slice(), &inputs) {
            assert!(format!("{:?}", opt.state_dict()) == format!("{state:?}"), "{name}: {error}");
            assert!(model::all_bits(&params) == bits, "{name}: {error}");
        }
    }
    true
}

fn add<U: Tested + Serialize + DeserializeOwned>(found: &mut Vec<Config>) {
    let busy = model::busy(&Subject::of::<U>());
    for config in busy.get::<U>().cloned().into_iter().chain([U::for_tests()]) {
        // infinities are not in JSON: the field keeps its default then
        let Ok(json) = serde_json::to_value(&config) else { continue };
        found.push(Config { name: U::NAME, json, run: run::<U> });
    }
}

impl Configurations {
    pub fn new() -> Self {
        let mut found = Vec::new();
        macro_rules! add {
            ($rule:ident) => {
                add::<eigenstep::prelude::$rule>(&mut found);
            };
        }
        eigenstep::for_each_first_order!(add);
        eigenstep::for_each_second_order!(add);
        eigenstep::for_each_low_rank!(add);
        eigenstep::for_each_windowed!(add);
        // error feedback names a compressor that is code; it has no files
        Self(found)
    }
}

impl Target for Configurations {
    fn execute(&mut self, random: &mut Random) -> bool {
        let config = random.pick(&self.0);
        let mut json = config.json.clone();
        for _ in 0..1 + random.below(3) {
            mutate::json(&mut json, random);
        }
        let mut bytes = serde_json::to_vec(&json).expect("a value");
        if random.once_in(4) {
            mutate::bytes(&mut bytes, random);
        }
        (config.run)(config.name, &bytes)
    }
}
