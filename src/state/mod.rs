//! What an optimizer remembers: state slots in any precision, their size in bytes, and the state dict that
//! saves and restores them.
//!
//! [`StateDict`] is what checkpoints hold, [`StateBytes`] says how much memory the state takes, and
//! [`Rounding`] how `bf16` and `f16` parameters keep small steps.
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::Array1;
//!
//! let mut w = Array1::<f32>::ones(4096);
//! let mut opt = AdamW::default().build()?.with_state_precision(Precision::INT8_LINEAR)?;
//! let grad = w.clone();
//! opt.step(&mut w, &grad)?;
//! assert_eq!(opt.state_bytes().total(), 2 * (4096 + 4 * 16)); // codes, and a scale per 256
//!
//! let saved = opt.state_dict(); // to a file: see `docs/checkpoints.md`
//! let mut again = AdamW::default().build::<f32>()?.with_state_precision(Precision::INT8_LINEAR)?;
//! again.load_state_dict(&saved)?;
//! assert_eq!(again.state_dict(), saved);
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 2.

mod bytes;
pub(crate) mod chunk;
mod described;
mod dict;
pub(crate) mod factors;
#[cfg(feature = "safetensors")]
mod file;
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
pub(crate) use options::{load_options, save_options};
pub(crate) use reader::StateReader;
pub(crate) use record::parse_shape;
pub use record::{Lookup, Record};
pub use storage::{Rounding, Storage};
