//! Numbers that a parameter group remembers from step to step.

use crate::hyper::OptionValue;
use std::fmt::Debug;

/// Numbers of a whole group that belong to the state dict: Prodigy's `d`, Schedule-Free's `k`.
///
/// Implement it with [`group_state!`](crate::group_state). A rule sets them up in
/// [`Rule::begin`](crate::optim::Rule::begin) of the first step.
pub trait GroupState: Clone + Debug + Default + Send + Sync + 'static {
    /// Calls `visitor` for every number that must survive saving and loading.
    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue));
}

impl GroupState for () {
    fn visit(&mut self, _: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {}
}

/// Implements [`GroupState`](crate::optim::GroupState) for a struct; fields not named are not saved.
///
/// # Examples
/// ```
/// #[derive(Clone, Debug, Default)]
/// struct Counter { k: u64, scratch: f64 }
/// eigenstep::group_state!(Counter { k });
/// ```
#[macro_export]
macro_rules! group_state {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::optim::GroupState for $type {
            fn visit(
                &mut self,
                visitor: &mut dyn FnMut(&'static str, &mut dyn $crate::hyper::OptionValue),
            ) {
                // a struct that saves nothing does not use it
                let _ = &visitor;
                $(visitor(stringify!($field), &mut self.$field);)*
            }
        }
    };
}
