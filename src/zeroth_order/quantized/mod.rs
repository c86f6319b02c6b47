//! Numbers of few bits: grids, weights and directions on grids, and gradients through rounding.

mod codes;
mod fogzo;
mod format;
mod fp8;
mod guided;
mod int_tensor;
mod integer;
mod integer_format;
mod normal;
mod quzo;
mod straight_through;

pub use codes::{Codes, pack_int4, unpack_int4};
pub use fogzo::{Fogzo, FogzoEstimator};
pub use format::Format;
pub use fp8::Fp8;
pub use guided::{Guided, GuidedDirections, UnitNoise};
pub use int_tensor::IntTensor;
pub use integer::{IntegerQuzo, IntegerQuzoOptimizer};
pub use integer_format::{IntegerFormat, nearest_int, stochastic_round_int};
pub use normal::{QuantizedDirections, QuantizedNormal};
pub use quzo::{Quzo, QuzoOptimizer, QuzoReport};
pub use straight_through::{Grid, StraightThrough};
