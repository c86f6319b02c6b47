//! State dicts as they are, as safetensors and as JSON.

use super::subjects::{self, Prototype};
use crate::harness::Target;
use crate::memory::bounded;
use crate::mutate;
use crate::random::Random;
use eigenstep::prelude::StateDict;

pub struct StateDicts(Vec<Prototype>);

impl StateDicts {
    pub fn new() -> Self {
        Self(subjects::all())
    }
}

/// The dict as a reader of bytes finds it, and the number of bytes; `None` if they were refused.
fn read(saved: &StateDict, random: &mut Random) -> Option<(StateDict, usize)> {
    let mut dict = saved.clone();
    if !random.once_in(4) {
        mutate::dict(&mut dict, random);
    }
    let small = size(&dict) < 20_000;
    match random.below(4) {
        0 => {
            let mut bytes = dict.to_safetensors().ok()?;
            if random.once_in(2) {
                // the header decides everything
                let len = bytes.len().min(8 + 2000);
                let mut head: Vec<u8> = bytes.drain(..len).collect();
                mutate::bytes(&mut head, random);
                bytes.splice(..0, head);
            }
            let read = bounded(bytes.len(), || StateDict::from_safetensors(&bytes));
            Some((read.ok()?, bytes.len()))
        }
        1 if small => {
            let mut bytes = serde_json::to_vec(&dict).ok()?;
            if random.once_in(2) {
                mutate::bytes(&mut bytes, random);
            }
            let read = bounded(bytes.len(), || serde_json::from_slice::<StateDict>(&bytes));
            Some((read.ok()?, bytes.len()))
        }
        _ => {
            let size = size(&dict);
            Some((dict, size))
        }
    }
}

fn size(dict: &StateDict) -> usize {
    let keys = dict.scalars.keys().chain(dict.tensors.keys()).map(|key| key.len() + 16);
    let tensors = dict.tensors.values().map(|tensor| tensor.bytes.len());
    keys.sum::<usize>() + tensors.sum::<usize>()
}

impl Target for StateDicts {
    fn execute(&mut self, random: &mut Random) -> bool {
        let prototype = random.pick(&self.0);
        let Some((dict, size)) = read(&prototype.saved, random) else { return false };
        let mut running = (prototype.fresh)();
        match bounded(size, || running.load(&dict)) {
            Err(error) => {
                assert!(running.save() == prototype.saved, "{}: {error}", prototype.name);
                // as one that has never seen any of it
                if random.once_in(16) {
                    let mut twin = (prototype.fresh)();
                    let outcomes = (running.advance().is_ok(), twin.advance().is_ok());
                    assert_eq!(outcomes, (true, true), "{}: {error}", prototype.name);
                    assert!(running.save() == twin.save(), "{}: {error}", prototype.name);
                    assert!(running.bits() == twin.bits(), "{}: {error}", prototype.name);
                }
                false
            }
            Ok(()) => {
                let (state, bits) = (running.save(), running.bits());
                if let Err(error) = running.advance() {
                    let name = &prototype.name;
                    assert!(
                        format!("{:?}", running.save()) == format!("{state:?}"),
                        "{name}: {error}"
                    );
                    assert!(running.bits() == bits, "{name}: {error}");
                }
                true
            }
        }
    }
}
