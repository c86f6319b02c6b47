//! Parameters that are categories, or whole numbers.
//!
//! | you have | take |
//! |---|---|
//! | logits, and a gradient at a sample of a categorical variable | [`categorical`] |
//! | a loss without a gradient, of a handful to some thousands of whole numbers | [`GeneticSearch`] |

// Floor 6: random numbers are those of `zeroth_order`.

pub mod categorical;
pub mod genetic;

pub use genetic::GeneticSearch;
