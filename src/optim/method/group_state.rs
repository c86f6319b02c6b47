//! Numbers that a parameter group remembers from step to step.

use crate::hyper::OptionValue;
use std::fmt::Debug;

/// Numbers of a whole group that belong to the state dict: Prodigy's `d`, Schedule-Free's `k`.
///
/// Implement it with [`group_state!`](crate::group_state). A rule sets them up in
/// [`Rule::begin`](crate::optim::Rule::begin) of the first step.
pub trait GroupState: Clone + Debug + Default + Send + Sync + 'static {
    /// Whether all groups know the same, because it comes from sums over all tensors: then a group that is added
    /// in mid-run knows it, too. Otherwise a group of new parameters begins anew.
    const COMMON: bool = false;

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
/// Numbers that come from sums over all tensors are the same in every group, and marked as
/// [`COMMON`](crate::optim::GroupState::COMMON): `group_state!(common Estimate { d })`.
#[macro_export]
macro_rules! group_state {
    (common $type:ty { $($field:ident),* $(,)? }) => {
        $crate::group_state!(@impl true, $type { $($field),* });
    };
    ($type:ty { $($field:ident),* $(,)? }) => {
        $crate::group_state!(@impl false, $type { $($field),* });
    };
    (@impl $common:expr, $type:ty { $($field:ident),* }) => {
        impl $crate::optim::GroupState for $type {
            const COMMON: bool = $common;

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
