//! Algebra over whole trees of parameters and gradients: in place, on all threads, with the same bits for any
//! number of threads and any memory order.
//!
//! *Use it to* write whatever moves a model as one vector: sharpness-aware minimisation, averages of weights,
//! line searches, quasi-Newton methods, exchange between workers. Each is a few lines.
//!
//! | what | how |
//! |---|---|
//! | `Σ x·y` · `‖x − y‖` | [`dot`] · [`distance`] |
//! | `‖x‖₂` · `‖x‖₁` · `max abs(x)` | [`norm`] · [`norm1`] · [`norm_max`] |
//! | `y ← value` · `y ← αy` · `y ← f(y)` | [`fill`] · [`scale`] · [`map`] |
//! | `y ← x` · `y ← y + αx` · `y ← y + w(x − y)` | [`copy`] · [`axpy`] · [`lerp`] |
//! | `y ← a − b` | [`difference`] |
//! | `y ← f(x, y)` · `y ← f(a, b, y)` | [`zip_map`] · [`zip_map3`] |
//! | a tree that owns its values, flat | [`TreeVec`] |
//! | a copy to restore from, to the bit | [`Snapshot`] |
//! | names, shapes and places of leaves | [`Layout`] |
//!
//! Arguments that are read are [`Source`]s: `&grads` for gradients of any form and for everything that owns its values,
//! `&mut params` for parameters. What is written comes last, and is a tree of
//! [`Parameters`](crate::params::Parameters). Trees of different element types go together if their arithmetic
//! type is the same.
//!
//! Leaves are matched by name. A leaf that one tree has and the other lacks is an error, unless the tree that
//! lacks it is read through [`or_zero`]. All that can be wrong is found before anything is written.
//!
//! # Examples
//! An exponential moving average of weights, and Lookahead:
//! ```
//! use eigenstep::tree::{TreeVec, copy, lerp};
//! use ndarray::array;
//!
//! let mut model = array![1.0f32, 2.0];
//! let mut average = TreeVec::<f32>::of(&model)?;
//! model.fill(5.0); // training
//! lerp(0.01, &model, &mut average)?;
//!
//! // every few steps: the slow weights go half of the way, and the fast ones go on from there
//! let mut slow = TreeVec::<f32>::of(&array![1.0f32, 1.0])?;
//! lerp(0.5, &model, &mut slow)?;
//! copy(&slow, &mut model)?;
//! assert_eq!(model, array![3.0, 3.0]);
//! # Ok::<(), eigenstep::Error>(())
//! ```
// Floor 2: uses the visitors of `params`. Files use each other in this order: strided, read, source, layout; walk,
// matching, units; reduce, algebra, transfer; owned; snapshot.

mod algebra;
mod layout;
mod matching;
mod owned;
mod read;
mod reduce;
mod snapshot;
mod source;
mod strided;
pub(crate) mod transfer;
mod units;
mod walk;

pub(crate) use algebra::between;
pub use algebra::{axpy, copy, difference, fill, lerp, map, scale, zip_map, zip_map3};
pub use layout::{Layout, Segment};
pub use owned::{Rounded, TreeVec};
pub(crate) use read::{ReadLeaf, load_generated, load_rows, load_slice};
pub use reduce::{distance, dot, norm, norm_max, norm1};
pub use snapshot::Snapshot;
#[doc(hidden)]
pub use source::Leaves;
pub(crate) use source::visit;
pub use source::{OrZero, Source, or_zero};
