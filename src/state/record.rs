//! The part of a state dict that belongs to one key prefix, for writing and for reading.

use super::dict::{Dtype, Scalar, StateDict, StateTensor, problem};
use super::floats::floats;
use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::numeric::limits::{MOST_COUNT, numel};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Bound::{self, Unbounded};

/// Entries that version 1 of state dicts has under another name: the name now, and then. Parts of an
/// entry, such as `betas.0` or `codes`, follow its name.
const RENAMED: [(&str, &str); 8] = [
    ("fallback_lr_ratio", "rest_lr_ratio"),
    ("fallback_betas", "rest_betas"),
    ("fallback_eps", "rest_eps"),
    ("fallback_weight_decay", "rest_weight_decay"),
    ("l2", "gradient_decay"),
    ("damping", "damp"),
    ("damping_relative", "damp_relative"),
    ("momentum_buffer", "momentum"),
];

/// The name of an entry in version 1, if it was another one.
fn former(name: &str) -> Option<String> {
    RENAMED.iter().find_map(|(now, then)| match name.strip_prefix(now)? {
        "" => Some((*then).to_owned()),
        part => part.starts_with('.').then(|| format!("{then}{part}")),
    })
}

/// Writes entries under a prefix.
#[derive(Debug)]
pub struct Record<'d> {
    prefix: String,
    dict: &'d mut StateDict,
}

impl<'d> Record<'d> {
    /// A record for the keys `{prefix}.…`.
    pub fn new(prefix: impl Into<String>, dict: &'d mut StateDict) -> Self {
        Self { prefix: prefix.into(), dict }
    }

    /// A record for the keys `{prefix}.{name}.…`.
    pub fn nested(&mut self, name: &str) -> Record<'_> {
        Record { prefix: format!("{}.{name}", self.prefix), dict: self.dict }
    }

    /// Writes `{prefix}.{name}`.
    pub fn tensor(&mut self, name: &str, tensor: StateTensor) {
        self.dict.tensors.insert(format!("{}.{name}", self.prefix), tensor);
    }

    /// Writes `{prefix}.{name}`.
    pub fn scalar(&mut self, name: &str, scalar: Scalar) {
        self.dict.scalars.insert(format!("{}.{name}", self.prefix), scalar);
    }

    /// Writes a count.
    pub fn count(&mut self, name: &str, count: u64) {
        self.scalar(name, Scalar::Int(i64::try_from(count).unwrap_or(i64::MAX)));
    }
}

/// Reads entries under a prefix, and remembers which keys were asked for.
#[derive(Debug)]
pub struct Lookup<'d> {
    prefix: String,
    dict: &'d StateDict,
    used: &'d RefCell<BTreeSet<String>>,
}

impl<'d> Lookup<'d> {
    /// A lookup of the keys `{prefix}.…`; `used` collects the keys that were found.
    pub fn new(
        prefix: impl Into<String>,
        dict: &'d StateDict,
        used: &'d RefCell<BTreeSet<String>>,
    ) -> Self {
        Self { prefix: prefix.into(), dict, used }
    }

    /// A lookup of the keys `{prefix}.{name}.…`.
    pub fn nested(&self, name: &str) -> Self {
        Self { prefix: self.key(name), dict: self.dict, used: self.used }
    }

    /// The full key of `name`.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// The tensor `{prefix}.{name}`, if there is one; in older dicts under the name that it had then.
    pub fn tensor(&self, name: &str) -> Option<&'d StateTensor> {
        self.find(name, |key| self.dict.tensors.get(key))
    }

    /// The scalar `{prefix}.{name}`, if there is one; in older dicts under the name that it had then.
    pub fn scalar(&self, name: &str) -> Option<&'d Scalar> {
        self.find(name, |key| self.dict.scalars.get(key))
    }

    /// The count `{prefix}.{name}`, at most 2⁵³: one more can always be counted.
    ///
    /// # Errors
    /// [`Error::StateDict`] if it is missing or no count.
    pub fn count(&self, name: &str) -> Result<u64> {
        let count = self.scalar(name).and_then(Scalar::as_u64);
        let count = count.filter(|&count| count <= MOST_COUNT);
        count.ok_or_else(|| self.problem(name, "is not a count"))
    }

    fn find<E>(&self, name: &str, entry: impl Fn(&str) -> Option<&'d E>) -> Option<&'d E> {
        let get = |name: &str| {
            let key = self.key(name);
            let found = entry(&key);
            self.mark(key, found.is_some());
            found
        };
        get(name).or_else(|| {
            let former = (self.dict.version == 1).then(|| former(name));
            get(&former.flatten()?)
        })
    }

    /// Shape of any tensor `{prefix}.{slot}`.
    pub(crate) fn slot_shape(&self) -> Option<Vec<usize>> {
        let start = format!("{}.", self.prefix);
        let tensors = self.dict.tensors.range::<str, _>((Bound::Included(&*start), Unbounded));
        let mut slots =
            tensors.map_while(|(key, tensor)| Some((key.strip_prefix(&start)?, tensor)));
        slots.find(|(slot, _)| !slot.contains('.')).map(|(_, tensor)| tensor.shape.clone())
    }

    /// An error about `{prefix}.{name}`.
    pub fn problem(&self, name: &str, text: impl Into<String>) -> Error {
        problem(self.key(name), text)
    }

    /// The number `{prefix}.{name}`, or `default` if there is none.
    ///
    /// # Errors
    /// [`Error::StateDict`] if the entry is not a number.
    pub fn number(&self, name: &str, default: f64) -> Result<f64> {
        match self.scalar(name) {
            None => Ok(default),
            Some(scalar) => scalar.as_f64().ok_or_else(|| self.problem(name, "is not a number")),
        }
    }

    /// The elements of the tensor `{prefix}.{name}`, which must be of this shape. Another floating-point type than
    /// `T` is converted: each number to the nearest one that `T` has.
    ///
    /// # Errors
    /// [`Error::StateDict`] if it is missing or something else, or if a number is beyond the range of `T`.
    pub fn values<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Vec<T>> {
        let tensor = self.tensor(name).ok_or_else(|| self.problem(name, "is missing"))?;
        self.floats(tensor, shape, name)
    }

    /// The elements of `tensor`, which is called `name`; see [`Lookup::values`].
    pub(super) fn floats<T: Element>(
        &self,
        tensor: &StateTensor,
        shape: &[usize],
        name: &str,
    ) -> Result<Vec<T>> {
        check_tensor(tensor, shape, name, self)?;
        floats(tensor).map_err(|text| self.problem(name, text))
    }

    /// The elements of the tensor `{prefix}.{name}` if there is one and it is of type `T`; `None` otherwise.
    ///
    /// # Errors
    /// [`Error::StateDict`] if it has another shape.
    pub(crate) fn values_of_type<T: Element>(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<Vec<T>>> {
        match self.tensor(name) {
            Some(tensor) if tensor.dtype == Dtype::of::<T>() => self.values(name, shape).map(Some),
            _ => Ok(None),
        }
    }

    /// A list of numbers, however long.
    pub(crate) fn list<T: Element>(&self, name: &str) -> Result<Vec<T>> {
        let len = self.tensor(name).and_then(StateTensor::numel).unwrap_or(0);
        self.values(name, &[len])
    }

    /// Codes, of whatever number.
    pub(crate) fn codes(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.typed(name, Dtype::U8)?;
        check_tensor(tensor, &[tensor.bytes.len()], name, self)?;
        Ok(tensor.bytes.clone())
    }

    fn typed(&self, name: &str, expected: Dtype) -> Result<&'d StateTensor> {
        let tensor = self.tensor(name).ok_or_else(|| self.problem(name, "is missing"))?;
        let found = tensor.dtype;
        if found == expected {
            return Ok(tensor);
        }
        Err(self.problem(name, format!("expected {expected:?}, found {found:?}")))
    }

    fn mark(&self, key: String, found: bool) {
        if found {
            self.used.borrow_mut().insert(key);
        }
    }
}

/// A tensor must have the shape asked for, and as many bytes as its shape says.
pub(super) fn check_tensor(
    tensor: &StateTensor,
    shape: &[usize],
    name: &str,
    lookup: &Lookup<'_>,
) -> Result<()> {
    if tensor.shape != shape {
        let found = &tensor.shape;
        return Err(lookup.problem(name, format!("expected shape {shape:?}, found {found:?}")));
    }
    if !tensor.fits() {
        let found = tensor.bytes.len();
        return Err(lookup.problem(name, format!("shape {shape:?} does not fit {found} bytes")));
    }
    Ok(())
}

/// A comma-separated list of sizes whose product is a possible number of elements.
pub(crate) fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let dims = text.split(',').filter(|dim| !dim.is_empty());
    let shape: Vec<usize> = dims.map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
    Some(shape).filter(|shape| numel(shape).is_some())
}
