//! What the engine asks of a method.

mod gradient;
mod group_state;
mod shared_state;
mod stage;
mod tensor_method;

pub use gradient::{Direction, GradSlice, GradSource, RegularizedGrad};
pub use group_state::GroupState;
pub use shared_state::{GradEntry, Methods, ParamInfo, SavedShared, SharedState};
pub use stage::{Mode, Stage, TensorSums};
pub use tensor_method::{
    Method, MethodFor, Needs, PassInfo, TensorMethod, TensorPass, TensorState, TensorStep,
};
