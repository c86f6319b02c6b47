//! Different methods for different parameters.

mod checkpoint;
mod leaves;
mod optimizer;
mod part;

pub use optimizer::Partitioned;
