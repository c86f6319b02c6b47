//! Element-wise rules, and what makes a method of them.

mod adaptor;
mod around;
mod decay;
mod erased;
mod inner;
mod inputs;
mod kernel;
mod own_update;
mod pair;
mod prepared;
mod rule;
mod skip_first;
mod state;
mod step_only;
mod unit;

pub(in crate::optim) use adaptor::split;
pub use around::{RuleAround, first_slots};
pub use decay::DecaySchedule;
pub use erased::{AnyRule, ErasedRule};
pub(crate) use inner::check_inner;
pub use kernel::ElementKernel;
pub use own_update::check_inner_update;
pub(crate) use own_update::updates_itself;
pub use pair::Pair;
pub use prepared::Prepared;
pub use rule::{Apply, Elementwise, Factoring, Rule, Slot, WeightDecay};
pub use skip_first::SkipFirst;
pub use state::ElementState;
pub use step_only::StepOnly;
pub use unit::{ElementUnit, kahan_add};
