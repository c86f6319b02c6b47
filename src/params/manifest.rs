//! Names and shapes of the leaves of one visit, in flat buffers that are kept from step to step: a
//! steady training loop compares two buffers and allocates nothing.

use std::fmt::{Display, Write};

/// Names and shapes of leaves, in the order of the visit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    names: String,
    dims: Vec<usize>,
    /// Where each leaf's name and shape end.
    ends: Vec<(usize, usize)>,
}

impl Manifest {
    pub fn clear(&mut self) {
        self.names.clear();
        self.dims.clear();
        self.ends.clear();
    }

    pub fn push(&mut self, name: &str, shape: &[usize]) {
        self.names.push_str(name);
        self.dims.extend_from_slice(shape);
        self.ends.push((self.names.len(), self.dims.len()));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn name(&self, leaf: usize) -> &str {
        let (start, end) = self.span(leaf, |ends| ends.0);
        self.names.get(start..end).unwrap_or_default()
    }

    pub fn shape(&self, leaf: usize) -> &[usize] {
        let (start, end) = self.span(leaf, |ends| ends.1);
        self.dims.get(start..end).unwrap_or_default()
    }

    fn span(&self, leaf: usize, part: impl Fn(&(usize, usize)) -> usize) -> (usize, usize) {
        let end = |leaf: usize| self.ends.get(leaf).map_or(0, &part);
        (leaf.checked_sub(1).map_or(0, end), end(leaf))
    }
}

/// The path of the node being visited.
#[derive(Debug, Default)]
pub(super) struct Path(String);

impl Path {
    /// The name of a leaf at this place.
    pub fn leaf(&self) -> &str {
        // the root leaf of a single array has no path
        if self.0.is_empty() { "param" } else { &self.0 }
    }

    /// Whether nothing has been entered.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Descends into `name`; undo it with [`Path::leave`].
    pub fn enter(&mut self, name: impl Display) -> usize {
        let parent = self.0.len();
        let dot = if parent == 0 { "" } else { "." };
        // writing to a String does not fail
        let _ = write!(self.0, "{dot}{name}");
        parent
    }

    pub fn leave(&mut self, parent: usize) {
        self.0.truncate(parent);
    }
}

/// An empty vector in the allocation of `old`, for elements that differ in lifetimes only.
pub(crate) fn recycle<A, B>(mut old: Vec<A>) -> Vec<B> {
    old.clear();
    // collecting in place keeps the allocation when the layouts agree
    old.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycling_keeps_the_allocation() {
        let mut list: Vec<&'static str> = Vec::with_capacity(7);
        list.push("a");
        let address = list.as_ptr() as usize;
        let mut list: Vec<&str> = recycle(list);
        assert!(list.is_empty() && list.capacity() == 7);
        assert_eq!(list.as_ptr() as usize, address);
        list.push("b");
    }
}
