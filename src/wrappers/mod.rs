//! Optimizers around optimizers.
//!
//! | type | what it does | state of its own |
//! |---|---|---|
//! | [`Partitioned`] | different methods for different parameters, behind one optimizer | none |
//!
//! ```
//! use eigenstep::prelude::*;
//! use ndarray::{Array2, array};
//!
//! let mut model = (Array2::<f32>::ones((4, 4)), array![1.0f32, 2.0]);
//! let grads = (Array2::<f32>::eye(4), array![0.5f32, 0.5]);
//! let mut opt = Partitioned::new(AdamW::default().build()?)
//!     .with(Select::ndim(2..), Muon::default().build()?);
//! opt.step(&mut model, &grads)?;
//! # Ok::<(), eigenstep::Error>(())
//! ```

// Floor 7.

mod partitioned;

pub use partitioned::Partitioned;
