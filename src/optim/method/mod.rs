//! What the engine asks of a method.

mod gradient;
mod joint;
mod scalars;
mod stage;
mod tensor_method;

pub use gradient::{Decayed, Direction, GradSlice, GradSource};
pub use joint::{Joint, Leaf, Methods, Part, SavedJoint};
pub use scalars::Scalars;
pub use stage::{Measured, Mode, Stage};
pub use tensor_method::{Configured, Job, MethodFor, Needs, TensorMethod, TensorState, TensorStep};
