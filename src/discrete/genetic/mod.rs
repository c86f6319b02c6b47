//! Genetic search over vectors of integers and of real numbers in intervals.

mod gene;
mod operators;
mod population;
mod search;

pub use gene::Gene;
pub use operators::{child, survivors};
pub use population::{Generation, Population};
pub use search::GeneticSearch;
