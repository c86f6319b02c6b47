//! Optimizers that keep parameters within a set.
//!
//! | method | state | good for |
//! |---|---|---|
//! | [`Projected`] | the inner rule's | any rule, with every parameter between two bounds |
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::array;
//!
//! let mut w = array![0.5f32];
//! let mut opt = Projected { lower: 0.0, ..Projected::with_inner(Sgd::default()) }.build()?;
//! opt.step(&mut w, &array![1e6])?;
//! assert_eq!(w, array![0.0]);
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 5.

mod projected;

pub use projected::Projected;
