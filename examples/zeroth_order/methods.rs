//! The methods that are compared: one line each.

use eigenstep::zeroth_order::{Format, Grid};

/// How a step gets its gradient, or its update.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A backward pass and SGD with momentum.
    Backward,
    /// One evaluation per weight, or per weight of a random share that is redrawn after some epochs; SGD with
    /// momentum.
    Coordinate { sparsity: f64 },
    /// Directions of random signs, and AdamW.
    MezoAdamW { num_samples: usize },
    /// Normal directions, and SGD without momentum.
    MezoSgd { num_samples: usize },
    /// QuZO: directions, weights and updates on grids.
    Quzo { num_samples: usize, weights: Format },
    /// Weights that are rounded in the forward pass, and AdamW. The straight-through gradient is corrected along
    /// `num_samples` directions; with 0 it is used as it is.
    Rounded { grid: Grid, num_samples: usize },
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Method {
    /// The name for `--methods`.
    pub name: &'static str,
    /// How a step gets its gradient.
    pub kind: Kind,
    /// The learning rates to choose from.
    pub grid: Vec<f64>,
}

/// A grid of three values.
const TWO_BITS: Grid = Grid { alpha: 0.6, qmin: -1, qmax: 1 };
/// A grid of fifteen values.
const FOUR_BITS: Grid = Grid { alpha: 0.2, qmin: -7, qmax: 7 };

/// All methods, in the order of the report. A new method is a new line.
#[rustfmt::skip] // one line, one method
pub fn table() -> Vec<Method> {
    vec![
        method("sgd, backward passes", Kind::Backward, &[0.03, 0.1, 0.3]),
        method("cge", Kind::Coordinate { sparsity: 0.0 }, &[0.1, 0.3, 1.0]),
        method("cge, 10 % active", Kind::Coordinate { sparsity: 0.9 }, &[0.1, 0.3, 1.0]),
        method("mezo, adamw", Kind::MezoAdamW { num_samples: 16 }, &[3e-3, 1e-2, 3e-2]),
        method("mezo, sgd", Kind::MezoSgd { num_samples: 16 }, &[0.03, 0.1, 0.3]),
        method("quzo, int8", Kind::Quzo { num_samples: 16, weights: Format::INT8 }, &[0.03, 0.1, 0.3]),
        method("ste, 4 bits", Kind::Rounded { grid: FOUR_BITS, num_samples: 0 }, &[3e-4, 1e-3, 3e-3]),
        method("fogzo, 4 bits", Kind::Rounded { grid: FOUR_BITS, num_samples: 1 }, &[3e-3, 1e-2, 3e-2]),
        method("ste, 2 bits", Kind::Rounded { grid: TWO_BITS, num_samples: 0 }, &[3e-4, 1e-3, 3e-3]),
        method("fogzo, 2 bits", Kind::Rounded { grid: TWO_BITS, num_samples: 1 }, &[3e-3, 1e-2, 3e-2]),
    ]
}

fn method(name: &'static str, kind: Kind, grid: &[f64]) -> Method {
    Method { name, kind, grid: grid.to_vec() }
}
