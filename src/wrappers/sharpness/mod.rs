//! Steps along gradients from a sharper point nearby.

mod ascent;
mod ignite;
mod options;
mod sam;

pub use ignite::Ignite;
pub use options::{IgniteOptions, SamOptions};
pub use sam::Sam;
