//! The state dict: typed tensors and scalars under PyTorch's key names.

use crate::error::{Error, Result};
use crate::numeric::Element;
use crate::numeric::limits::numel;
use std::collections::BTreeMap;

/// A number, a flag or a word of a state dict.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Scalar {
    /// An integer: step counts.
    Int(i64),
    /// A floating-point number: options, Prodigy's `d`.
    Float(#[cfg_attr(feature = "serde", serde(with = "crate::config_file::number"))] f64),
    /// A word: the name of a codec.
    Text(String),
    /// A flag: `amsgrad`.
    Bool(bool),
}

impl Scalar {
    /// The number as an `f64`; flags are 0 or 1.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Scalar::Int(i) => Some(*i as f64),
            Scalar::Float(x) => Some(*x),
            Scalar::Bool(b) => Some(f64::from(u8::from(*b))),
            Scalar::Text(_) => None,
        }
    }

    /// The integer, also when it is stored as a number without a fraction.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Scalar::Int(i) => u64::try_from(*i).ok(),
            Scalar::Float(x) if *x >= 0.0 && x.fract() == 0.0 && *x < 9.0e15 => Some(*x as u64),
            _ => None,
        }
    }

    /// The flag.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Scalar::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The word.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Element type of a saved tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Dtype {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// The upper half of an `f32`.
    Bf16,
    /// IEEE half precision.
    F16,
    /// Codes.
    U8,
    /// Integers.
    I64,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
            Dtype::U8 => 1,
        }
    }

    /// The type of `T`'s storage.
    pub fn of<T: Element>() -> Self {
        match T::NAME {
            "f64" => Dtype::F64,
            "f32" => Dtype::F32,
            "f16" => Dtype::F16,
            _ => Dtype::Bf16,
        }
    }
}

/// A saved tensor: row-major, little endian.
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StateTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Shape; its product times the element size is the number of bytes.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for StateTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the elements would fill the screen
        write!(f, "{:?}{:?} in {} bytes", self.dtype, self.shape, self.bytes.len())
    }
}

impl StateTensor {
    /// Saves `values` under the shape `shape`.
    pub fn new<T: Element>(shape: &[usize], values: &[T]) -> Self {
        let mut bytes = Vec::with_capacity(std::mem::size_of_val(values));
        T::write_le(values, &mut bytes);
        Self { dtype: Dtype::of::<T>(), shape: shape.to_vec(), bytes }
    }

    /// Saves codes.
    pub fn codes(codes: &[u8]) -> Self {
        Self { dtype: Dtype::U8, shape: vec![codes.len()], bytes: codes.to_vec() }
    }

    /// Whether there are as many bytes as the shape says.
    pub(crate) fn fits(&self) -> bool {
        let bytes = self.numel().and_then(|numel| numel.checked_mul(self.dtype.size()));
        bytes == Some(self.bytes.len())
    }

    /// Number of elements; `None` if so many cannot be counted.
    pub fn numel(&self) -> Option<usize> {
        numel(&self.shape)
    }
}

/// Everything an optimizer needs to go on exactly where it was: see `docs/checkpoints.md`.
///
/// | key | what |
/// |---|---|
/// | `state.{param}.step` | number of steps of this parameter |
/// | `state.{param}.group`, `.shape` | its group; its shape, comma-separated |
/// | `state.{param}.{slot}` | a slot in full precision, or in bf16: a tensor |
/// | `state.{param}.{slot}.codes`, `.scales`, `.codec` | a coded slot |
/// | `groups.{i}.{option}` | every option, by its name in `set_option` |
/// | `groups.{i}.config`, `.config.{field}` | what is in the configuration and no option, as text |
/// | `groups.{i}.select` | label of the selector |
/// | `groups.{i}.scalars.{name}` | numbers of the whole group: Prodigy's `d`, Schedule-Free's `k` |
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StateDict {
    /// Version of the layout: [`StateDict::VERSION`], or an older one, which loads all the same.
    pub version: u32,
    /// Name of the method, as in its error messages.
    pub optimizer: String,
    /// Numbers, flags and words.
    pub scalars: BTreeMap<String, Scalar>,
    /// Tensors.
    pub tensors: BTreeMap<String, StateTensor>,
}

impl StateDict {
    /// The layout this version of the crate writes and reads.
    pub const VERSION: u32 = 2;

    /// An empty state dict of the method `optimizer`.
    pub fn new(optimizer: &str) -> Self {
        Self {
            version: Self::VERSION,
            optimizer: optimizer.to_owned(),
            scalars: BTreeMap::new(),
            tensors: BTreeMap::new(),
        }
    }

    /// Refuses a dict of another version or method.
    ///
    /// # Errors
    /// [`Error::StateDict`] with the key `version` or `optimizer`.
    pub fn check_header(&self, optimizer: &str) -> Result<()> {
        if !(1..=Self::VERSION).contains(&self.version) {
            let (found, known) = (self.version, Self::VERSION);
            return Err(problem("version", format!("expected 1 to {known}, found {found}")));
        }
        if self.optimizer != optimizer {
            let found = &self.optimizer;
            return Err(problem("optimizer", format!("expected `{optimizer}`, found `{found}`")));
        }
        Ok(())
    }
}

/// The error for a key that does not fit.
pub(crate) fn problem(key: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::StateDict { key: key.into(), problem: problem.into() }
}
