//! Reading the state dict of an estimator.

use super::snapshot::ParamSnapshot;
use crate::error::{Error, Result};
use crate::hyper::Options;
use crate::numeric::Element;
use crate::optim::Layout;
use crate::state::{Lookup, Scalar, StateDict, load_options};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The prefix of all keys that belong to no tensor.
pub(in crate::zeroth_order) const ESTIMATOR: &str = "estimator";

/// The prefix of the options.
pub(in crate::zeroth_order) const OPTIONS: &str = "options";

/// A state dict that is being read, and the keys that have been used.
pub(in crate::zeroth_order) struct Saved<'d> {
    dict: &'d StateDict,
    used: RefCell<BTreeSet<String>>,
}

impl<'d> Saved<'d> {
    /// Opens a state dict that `method` wrote.
    pub fn open(method: &'static str, dict: &'d StateDict) -> Result<Self> {
        dict.check_header(method)?;
        Ok(Self { dict, used: RefCell::default() })
    }

    /// The keys under a prefix.
    pub fn lookup(&self, prefix: &str) -> Lookup<'_> {
        Lookup::new(prefix, self.dict, &self.used)
    }

    /// An integer of 64 bits.
    pub fn integer(&self, name: &str) -> Result<u64> {
        let lookup = self.lookup(ESTIMATOR);
        match lookup.scalar(name) {
            Some(&Scalar::Int(value)) => Ok(value as u64),
            _ => Err(lookup.problem(name, "is missing, or not an integer")),
        }
    }

    /// A count, which can go on.
    pub fn count(&self, name: &str) -> Result<u64> {
        self.lookup(ESTIMATOR).count(name)
    }

    /// Takes the saved options over, if there are any; what is no option has to agree. After an error
    /// `options` may have changed.
    pub fn options(&self, options: &mut dyn Options) -> Result<()> {
        load_options(options, &self.lookup(OPTIONS))
    }

    /// The tensors. If `snapshot` has tensors already, they must be the same.
    pub fn layout<T: Element>(&self, snapshot: &ParamSnapshot<T>) -> Result<Layout> {
        snapshot.load(&self.lookup("tensors"))
    }

    /// Refuses keys that have not been read.
    pub fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        let mut keys = self.dict.scalars.keys().chain(self.dict.tensors.keys());
        match keys.find(|key| !used.contains(*key)) {
            Some(key) => Err(Error::StateDict { key: key.clone(), problem: "is not known".into() }),
            None => Ok(()),
        }
    }
}
