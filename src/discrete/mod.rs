//! Parameters that are categories or integers.
//!
//! ```
//! use eigenstep::discrete::{GeneticSearch, genetic::Gene};
//!
//! // bits per layer, with a loss that has no gradient
//! let bits = vec![Gene::Integer { low: 2, high: 8 }; 3];
//! let mut search = GeneticSearch::default().build(bits)?;
//! for _ in 0..30 {
//!     search.step(|bits| bits.iter().zip([4.0, 8.0, 3.0]).map(|(a, b)| (a - b).abs()).sum::<f64>())?;
//! }
//! assert_eq!(search.best(), Some((&[4.0, 8.0, 3.0][..], 0.0)));
//! # Ok::<(), eigenstep::Error>(())
//! ```
//!
//! | you have | take |
//! |---|---|
//! | logits of a categorical variable, and a gradient at a sample of it | [`categorical`] |
//! | a loss without a gradient, and a handful to some thousands of discrete parameters | [`GeneticSearch`] |

// Floor 6: uses the random numbers of `zeroth_order`.

pub mod categorical;
pub mod genetic;

pub use genetic::GeneticSearch;
