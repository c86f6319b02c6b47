//! Methods of whole vectors, and what makes a method of them.

mod erased;
mod vector;
mod vectored;
mod vectors;

pub use erased::{AnyMemory, AnyVector, ErasedMemory, ErasedVector};
pub use vector::{ReadVector, Scope, VectorMemory, VectorMethod, VectorStep, Vectored};
pub use vectored::{AbsorbUnit, VectorUnit, VectoredState};
pub use vectors::SharedVectors;
