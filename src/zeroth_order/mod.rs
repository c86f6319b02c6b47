//! Floor 4: training with loss values alone, and parameters that live on a grid.

pub mod categorical;
mod format;
pub mod genetic;
mod straight_through;
mod work_split;

pub use format::{
    Codes, Format, Fp8, IntegerFormat, nearest_int, pack_int4, stochastic_round_int, unpack_int4,
};
pub use genetic::GeneticSearch;
pub use straight_through::{Grid, Ste};
pub use work_split::work_split;
