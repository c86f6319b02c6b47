//! Different methods for different parameters.

mod checkpoint;
mod optimizer;
mod part;

pub use optimizer::Partitioned;
