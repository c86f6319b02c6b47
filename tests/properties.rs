//! Laws that hold for all numbers, tried on random ones; one file per field.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "properties/curvature_scaled.rs"]
mod curvature_scaled;
#[path = "properties/extremes.rs"]
mod extremes;
#[path = "properties/factored.rs"]
mod factored;
#[path = "properties/first_order.rs"]
mod first_order;
#[path = "support/inputs.rs"]
mod inputs;
#[path = "properties/langevin.rs"]
mod langevin;
#[path = "properties/layerwise.rs"]
mod layerwise;
#[path = "properties/norms.rs"]
mod norms;
#[path = "properties/parameter_free.rs"]
mod parameter_free;
#[path = "properties/polyak.rs"]
mod polyak;
#[path = "properties/projected.rs"]
mod projected;
#[path = "properties/references.rs"]
mod references;
#[path = "properties/relatives.rs"]
mod relatives;
#[path = "properties/rows.rs"]
mod rows;
#[path = "support/threads.rs"]
mod threads;
#[path = "properties/torch_optim.rs"]
mod torch_optim;
