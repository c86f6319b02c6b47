//! The state dict of an inner optimizer inside that of the one around it.

use crate::error::{Error, Result};
use crate::hyper::Hyperparameters;
use crate::numeric::Element;
use crate::optim::Optimizer;
use crate::state::{Lookup, Record, Scalar, StateDict, problem};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The keys of the inner optimizer begin with this word.
const INNER: &str = "inner";
/// The name of its method.
const METHOD: &str = "inner.optimizer";

/// A new dict of `owner`, with all that `inner` has to save.
pub(super) fn save<T: Element, O: Optimizer<T> + ?Sized>(owner: &str, inner: &O) -> StateDict {
    let mut dict = StateDict::new(owner);
    let StateDict { optimizer, scalars, tensors, .. } = inner.state_dict();
    let key = |name: String| format!("{INNER}.{name}");
    dict.scalars.extend(scalars.into_iter().map(|(name, x)| (key(name), x)));
    dict.tensors.extend(tensors.into_iter().map(|(name, x)| (key(name), x)));
    dict.scalars.insert(METHOD.into(), Scalar::Text(optimizer));
    dict
}

/// A dict that is being read, and the keys that have been used.
pub(super) struct Reader<'d> {
    pub dict: &'d StateDict,
    used: RefCell<BTreeSet<String>>,
}

impl<'d> Reader<'d> {
    /// Opens a dict that `owner` has written.
    pub fn new(owner: &str, dict: &'d StateDict) -> Result<Self> {
        dict.check_header(owner)?;
        Ok(Self { dict, used: RefCell::default() })
    }

    /// The keys `{prefix}.…`.
    pub fn lookup(&self, prefix: impl Into<String>) -> Lookup<'_> {
        Lookup::new(prefix, self.dict, &self.used)
    }

    /// Names of the parameters that have a tensor `state.{name}.{slot}`.
    pub fn parameters(&self, slot: &str) -> impl Iterator<Item = &'d str> {
        let end = format!(".{slot}");
        let name = move |key: &'d String| key.strip_prefix("state.")?.strip_suffix(&end);
        self.dict.tensors.keys().filter_map(name)
    }

    /// The dict of the inner optimizer, under its own keys.
    pub fn inner(&self, method: &'static str) -> Result<StateDict> {
        let found = self.dict.scalars.get(METHOD).and_then(Scalar::as_text);
        if found != Some(method) {
            let found = found.unwrap_or("nothing");
            return Err(problem(METHOD, format!("expected `{method}`, found `{found}`")));
        }
        let mut own = StateDict { version: self.dict.version, ..StateDict::new(method) };
        let mut used = self.used.borrow_mut();
        used.insert(METHOD.into());
        let name = |key: &str| Some(key.strip_prefix(INNER)?.strip_prefix('.')?.to_owned());
        for (key, scalar) in self.dict.scalars.iter().filter(|(key, _)| *key != METHOD) {
            if let Some(name) = name(key) {
                used.insert(key.clone());
                own.scalars.insert(name, scalar.clone());
            }
        }
        for (key, tensor) in &self.dict.tensors {
            if let Some(name) = name(key) {
                used.insert(key.clone());
                own.tensors.insert(name, tensor.clone());
            }
        }
        Ok(own)
    }

    /// Counts a key as used.
    pub fn mark(&self, key: &str) {
        self.used.borrow_mut().insert(key.to_owned());
    }

    /// Refuses keys that nobody has asked for.
    pub fn finish(self) -> Result<()> {
        let used = self.used.into_inner();
        let mut keys = self.dict.scalars.keys().chain(self.dict.tensors.keys());
        match keys.find(|key| !used.contains(*key)) {
            Some(key) => Err(problem(key, format!("is unknown to {}", self.dict.optimizer))),
            None => Ok(()),
        }
    }
}

/// Gives the inner optimizer its dict; an error names the key as it is in the dict around it.
pub(super) fn load<T: Element, O: Optimizer<T> + ?Sized>(
    inner: &mut O,
    own: &StateDict,
) -> Result<()> {
    inner.load_state_dict(own).map_err(|error| match error {
        Error::StateDict { key, problem } => {
            Error::StateDict { key: format!("{INNER}.{key}"), problem }
        }
        other => other,
    })
}

/// Writes every option.
pub(super) fn save_options<C: Hyperparameters>(options: &C, record: &mut Record<'_>) {
    crate::state::save_options(&mut options.clone(), record);
}

/// Options as [`save_options`] has written them; also as plain numbers, which older
/// versions wrote.
pub(super) fn load_options<C: Hyperparameters>(options: &C, lookup: &Lookup<'_>) -> Result<C> {
    let mut loaded = options.clone();
    crate::state::load_options(&mut loaded, lookup)?;
    Ok(loaded)
}
