//! Optimizers whose parameters stay within a set.
//!
//! | method | state | good for |
//! |---|---|---|
//! | [`Projected`] | the rule's | any rule, with every parameter between a lower and an upper bound |

// Floor 5.

mod projected;

pub use projected::{Projected, ProjectedCoefficients};
