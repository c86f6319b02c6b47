//! What the optimizer keeps of a parameter.

use crate::numeric::random::name_key;
use crate::optim::method::Mode;

/// A parameter that the optimizer has seen a gradient of, or the rows by which one has grown since: those have
/// a state, and a count of steps, of their own.
#[derive(Clone, Debug)]
pub(in crate::optim) struct Tracked<S> {
    /// Path of the parameter.
    pub name: String,
    /// The first row: 0 but for rows that were added.
    pub row: usize,
    /// Shape of the parameter, or of these rows of it.
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
    /// Before the first step.
    pub fn new((name, row): (&str, usize), shape: &[usize], group: usize, state: S) -> Self {
        let key = name_key(&rows_label(name, row));
        let (name, shape) = (name.to_owned(), shape.to_vec());
        Self { name, row, shape, group, t: 0, key, at: Mode::Train, state }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The name in state dicts.
    pub fn label(&self) -> String {
        rows_label(&self.name, self.row)
    }

    /// Goes on under another name, as if it had always been this one.
    pub fn rename(&mut self, name: &str) {
        self.name = name.to_owned();
        self.key = name_key(&self.label());
    }
}

/// The name in state dicts of the rows of a parameter from `row` on.
pub(in crate::optim) fn rows_label(name: &str, row: usize) -> String {
    if row == 0 { name.to_owned() } else { format!("{name}[{row}..]") }
}

/// The parameter and the first row of a name in a state dict.
pub(in crate::optim) fn parse_label(label: &str) -> (&str, usize) {
    let rows = label.strip_suffix("..]").and_then(|label| label.rsplit_once('['));
    match rows.and_then(|(name, row)| Some((name, row.parse().ok()?))) {
        Some((name, row)) if row > 0 => (name, row),
        _ => (label, 0),
    }
}
