//! Compressors: what is kept of a vector, and how it is written down.

mod low_rank;
mod top_k;

pub use low_rank::power_iteration;
pub use top_k::Selection;
