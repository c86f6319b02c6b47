//! Low-rank optimizers: they project the gradient of a matrix onto a subspace, and keep their state
//! there.
//!
//! | method | its subspace changes | state for an n × n matrix, bytes per `f32` parameter | what the projection drops |
//! |---|---|---|---|
//! | [`GaLore`] | every 200 steps | 12r/n at rank r | is lost |
//! | [`Apollo`] | every 200 steps, at random | 12r/n at rank r; next to none in `Apollo::mini` | is scaled like the rest |
//! | [`LdAdam`] | every step | 4 + 12r/n at rank r | is added to the next gradient |
//!
//! Tensors that are not matrices get the inner rule, AdamW by default.
//!
//! # Examples
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::Array2;
//!
//! let mut w = Array2::<f64>::ones((12, 8));
//! let inner = AdamW { lr: 0.1, ..AdamW::default() };
//! let mut opt = GaLore { rank: 2, ..GaLore::with_inner(inner) }.build()?;
//! let grad = w.clone(); // of ‖w‖²/2
//! opt.step(&mut w, &grad)?;
//! assert!(w[[0, 0]] < 1.0);
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 5.

mod apollo;
mod galore;
mod ldadam;
mod subspace;

pub use apollo::{Apollo, ApolloBlock, ApolloScaling};
pub use galore::{GaLore, GaLoreBlock};
pub use ldadam::{LdAdam, LdAdamBlock};

/// Calls `$macro!(Type)` for every low-rank optimizer: the list that the common tests read.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_low_rank {
    ($macro:ident) => {
        $macro!(Apollo);
        $macro!(GaLore);
        $macro!(LdAdam);
    };
}
