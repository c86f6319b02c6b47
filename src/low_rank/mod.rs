//! Optimizers whose state for a matrix is that of a matrix of low rank.
//!
//! | method | what it keeps of a gradient | state, bytes per `f32` parameter | the rest |
//! |---|---|---|---|
//! | [`GaLore`] | its part in a subspace that changes every 200 steps | 12r/n of an n × n matrix | is lost |
//! | [`LdAdam`] | its part in a subspace that changes every step | 4, and 12r/n of an n × n matrix | is added to the next gradient |

mod galore;
mod ldadam;
mod subspace;

pub use galore::{GaLore, GaLoreBlock};
pub use ldadam::{LdAdam, LdAdamBlock};

/// Calls `$macro!(Type)` for every low-rank method: the list that the common tests read.
#[macro_export]
macro_rules! for_each_low_rank {
    ($macro:ident) => {
        $macro!(GaLore);
        $macro!(LdAdam);
    };
}
