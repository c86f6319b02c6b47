//! Numbers that a parameter group remembers from step to step.

use crate::hyper::OptionValue;
use std::fmt::Debug;

/// Numbers of a whole group that belong to the state dict: Prodigy's `d`, Schedule-Free's `k`.
///
/// Implement it with [`scalars!`](crate::scalars). A rule sets them up in
/// [`Rule::begin`](super::Rule::begin) of the first step.
pub trait Scalars: Clone + Debug + Default + Send + Sync + 'static {
    /// Calls `visitor` for every number that must survive saving and loading.
    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut dyn OptionValue));
}

impl Scalars for () {
    fn visit(&mut self, _: &mut dyn FnMut(&'static str, &mut dyn OptionValue)) {}
}

/// Implements [`Scalars`](crate::optim::Scalars) for a struct; fields not named are not saved.
///
/// # Examples
/// ```
/// #[derive(Clone, Debug, Default)]
/// struct Counter { k: u64, scratch: f64 }
/// eigenstep::scalars!(Counter { k });
/// ```
#[macro_export]
macro_rules! scalars {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::optim::Scalars for $type {
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
