//! What the engine keeps of one parameter.

use crate::numeric::random::name_key;
use crate::optim::method::Mode;

/// A parameter that the optimizer has seen a gradient of.
#[derive(Clone, Debug)]
pub(in crate::optim) struct Tracked<S> {
    pub name: String,
    pub shape: Vec<usize>,
    pub group: usize,
    /// Number of steps so far.
    pub t: u64,
    /// Keys streams of random numbers.
    pub key: u64,
    /// The point at which the parameter stands: that of the optimizer, unless it was left out of the tree that
    /// was moved.
    pub at: Mode,
    pub state: S,
}

impl<S> Tracked<S> {
    pub fn new(name: &str, shape: &[usize], group: usize, state: S) -> Self {
        let (name, shape, key) = (name.to_owned(), shape.to_vec(), name_key(name));
        Self { name, shape, group, t: 0, key, at: Mode::Train, state }
    }

    /// Goes on under another name, as if it had always been this one.
    pub fn rename(&mut self, name: &str) {
        self.name = name.to_owned();
        self.key = name_key(name);
    }
}
