//! One state dict for all parts.

use super::part::Part;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::state::{Scalar, StateDict, problem};

/// Name of the optimizer in state dicts.
pub(super) const NAME: &str = "Partitioned";

/// What is saved in place of a method's name for a part that is frozen.
const FROZEN: &str = "frozen";

fn name_of<T: Element>(part: &Part<T>) -> &'static str {
    part.optimizer.as_ref().map_or(FROZEN, |optimizer| optimizer.name())
}

/// The dicts of all parts, each under `parts.{i}.`, with the names of methods and selectors.
pub(super) fn save<T: Element>(parts: &[Part<T>]) -> StateDict {
    let mut dict = StateDict::new(NAME);
    for (index, part) in parts.iter().enumerate() {
        let key = |key: &str| format!("parts.{index}.{key}");
        dict.scalars.insert(key("method"), Scalar::Text(name_of(part).into()));
        dict.scalars.insert(key("select"), Scalar::Text(part.select.label().into()));
        let Some(optimizer) = &part.optimizer else { continue };
        let own = optimizer.state_dict();
        dict.scalars.extend(own.scalars.into_iter().map(|(name, x)| (key(&name), x)));
        dict.tensors.extend(own.tensors.into_iter().map(|(name, x)| (key(&name), x)));
    }
    dict
}

/// Takes a dict over for all parts, or for none.
pub(super) fn load<T: Element>(parts: &mut [Part<T>], dict: &StateDict) -> Result<()> {
    dict.check_header(NAME)?;
    let own: Vec<StateDict> = split(parts, dict)?;
    let before: Vec<Option<StateDict>> =
        parts.iter().map(|part| part.optimizer.as_ref().map(|part| part.state_dict())).collect();
    let loaded = parts.iter_mut().zip(&own).enumerate().try_for_each(|(index, (part, own))| {
        let Some(optimizer) = &mut part.optimizer else { return Ok(()) };
        optimizer.load_state_dict(own).map_err(|error| match error {
            Error::StateDict { key, problem } => {
                Error::StateDict { key: format!("parts.{index}.{key}"), problem }
            }
            other => other,
        })
    });
    if loaded.is_err() {
        for (part, before) in parts.iter_mut().zip(before) {
            if let (Some(optimizer), Some(before)) = (&mut part.optimizer, before) {
                // a part reads what it has written itself; the first error is the one that tells
                let _ = optimizer.load_state_dict(&before);
            }
        }
    }
    loaded
}

/// The dict of every part, under the keys that the part has written.
fn split<T: Element>(parts: &[Part<T>], dict: &StateDict) -> Result<Vec<StateDict>> {
    let new = |part: &Part<T>| StateDict { version: dict.version, ..StateDict::new(name_of(part)) };
    let mut own: Vec<StateDict> = parts.iter().map(new).collect();
    for (index, part) in parts.iter().enumerate() {
        for (key, expected) in [("method", name_of(part)), ("select", part.select.label())] {
            let key = format!("parts.{index}.{key}");
            match dict.scalars.get(&key).map(Scalar::as_text) {
                Some(Some(found)) if found == expected => {}
                None => return Err(problem(key, "is missing")),
                Some(found) => {
                    let found = found.unwrap_or("no text");
                    return Err(problem(key, format!("expected `{expected}`, found `{found}`")));
                }
            }
        }
    }
    for (key, scalar) in &dict.scalars {
        let (own, name) = place(&mut own, key)?;
        if name != "method" && name != "select" {
            own.scalars.insert(name.to_owned(), scalar.clone());
        }
    }
    for (key, tensor) in &dict.tensors {
        let (own, name) = place(&mut own, key)?;
        own.tensors.insert(name.to_owned(), tensor.clone());
    }
    let frozen = parts.iter().zip(&own).position(|(part, own)| {
        part.optimizer.is_none() && !(own.scalars.is_empty() && own.tensors.is_empty())
    });
    match frozen {
        Some(part) => Err(problem(format!("parts.{part}"), "is frozen, but has a state")),
        None => Ok(own),
    }
}

/// The part that a key belongs to, and the rest of the key.
fn place<'o, 'k>(own: &'o mut [StateDict], key: &'k str) -> Result<(&'o mut StateDict, &'k str)> {
    let parts = own.len();
    let found = key.strip_prefix("parts.").and_then(|key| key.split_once('.'));
    let found = found.and_then(|(part, name)| {
        let index = part.parse::<usize>().ok().filter(|index| index.to_string() == part)?;
        Some((own.get_mut(index)?, name))
    });
    found.ok_or_else(|| problem(key, format!("belongs to none of the {parts} parts")))
}
