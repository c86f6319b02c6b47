//! Floor 2: what an optimizer remembers: slots in any precision, their size in bytes, and the state
//! dict that saves and restores them.

mod bytes;
pub(crate) mod chunk;
mod dict;
mod reader;
mod record;
#[cfg(feature = "safetensors")]
mod safetensors;
pub(crate) mod slot;
mod storage;

pub use bytes::StateBytes;
pub use chunk::Input;
pub(crate) use dict::problem;
pub use dict::{Dtype, Scalar, StateDict, StateTensor};
pub(crate) use reader::StateReader;
pub use record::{Lookup, Record};
pub(crate) use record::{numel_fits, parse_shape};
pub use slot::{SlotInit, SlotKind};
pub use storage::{Rounding, Storage};
