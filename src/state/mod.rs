//! What an optimizer remembers: state slots in any precision, their size in bytes, and the state dict that
//! saves and restores them.
//!
//! [`StateDict`] is what checkpoints hold, [`StateBytes`] says how much memory the state takes, and
//! [`Rounding`] how `bf16` and `f16` parameters keep small steps.

// Floor 2.

mod bytes;
pub(crate) mod chunk;
mod dict;
pub(crate) mod factors;
mod floats;
mod kind;
mod options;
mod reader;
mod record;
#[cfg(feature = "safetensors")]
mod safetensors;
pub(crate) mod slot;
mod storage;

pub use bytes::StateBytes;

pub(crate) use dict::problem;
pub use dict::{Dtype, Scalar, StateDict, StateTensor};
pub use kind::{Factors, Input, SlotInit, SlotKind};
pub(crate) use options::{load_options, saved_option};
pub(crate) use reader::StateReader;
pub use record::{Lookup, Record};
pub(crate) use record::{numel_fits, parse_shape};
pub use storage::{Rounding, Storage};
