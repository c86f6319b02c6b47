//! A genetic search over vectors whose entries are whole numbers, or numbers of intervals.

mod gene;
mod operators;
mod population;
mod search;

pub use gene::Gene;
pub use operators::{child, survivors};
pub use population::{Generation, Population};
pub use search::GeneticSearch;
