//! Methods of matrices and blocks, and what makes a method of them.

mod blocked;
mod erased;
mod matrix;
mod partition;
mod unit;

pub use blocked::{BlockedPrepared, BlockedState};
pub use erased::{AnyBlock, AnyMatrix, ErasedBlock, ErasedMatrix};
pub use matrix::{BlockState, BlockStep, Blocked, GradEma, MatrixMethod};
pub use partition::{Partition, Tile};
pub(crate) use unit::norm_squared;
pub use unit::{BlockUnit, EmaUnit, EmaWeights, MatrixUnit};
