//! Laws of the algebra over trees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "support/threads.rs"]
mod threads;

#[path = "tree/held.rs"]
mod held;
#[path = "tree/layouts.rs"]
mod layouts;
#[path = "tree/maps.rs"]
mod maps;
#[path = "tree/methods.rs"]
mod methods;
#[path = "tree/owned.rs"]
mod owned;
#[path = "tree/snapshots.rs"]
mod snapshots;
#[path = "tree/sums.rs"]
mod sums;
