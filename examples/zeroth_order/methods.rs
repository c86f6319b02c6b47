//! The methods that are compared: one line each.

use eigenstep::zeroth_order::{Format, Grid};

/// How a step gets its gradient, or its update.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A backward pass, and SGD with momentum.
    Backward,
    /// One evaluation per weight, or per weight of a share drawn every so often; SGD with momentum.
    Coordinate { sparsity: f64 },
    /// Random signs, and AdamW.
    MezoAdamW { num_samples: usize },
    /// Normal directions, and plain SGD.
    MezoSgd { num_samples: usize },
    /// Directions, weights and updates on grids.
    Quzo { num_samples: usize, weights: Format },
    /// Weights rounded in the forward pass: the straight-through gradient with `num_samples` random
    /// corrections, none of them for the plain one; AdamW.
    Rounded { grid: Grid, num_samples: usize },
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Method {
    /// Name as in `--methods`.
    pub name: &'static str,
    /// How a step gets its gradient.
    pub kind: Kind,
    /// Learning rates to choose from.
    pub grid: Vec<f64>,
}

/// Signs of three values.
const TWO_BITS: Grid = Grid { alpha: 0.6, qmin: -1, qmax: 1 };
/// Fifteen values.
const FOUR_BITS: Grid = Grid { alpha: 0.2, qmin: -7, qmax: 7 };

/// Every method, in the order of the report. A new one is a new line.
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
