//! The methods to compare: one line each.

use eigenstep::error_feedback::{Compression, Momentum, ResidualFormat, Selection, SparseConfig};
use eigenstep::prelude::*;

/// An optimizer of any method.
pub type Boxed = Box<dyn Optimizer<f32>>;

/// A line of the table.
#[derive(Clone, Copy)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// The learning rates to try.
    pub grid: [f64; 4],
    /// Builds the optimizer for a learning rate.
    pub build: fn(f64) -> Result<Boxed>,
}

/// Every method, in the order of the report.
#[rustfmt::skip] // one line, one method
pub fn table() -> Vec<Method> {
    let method = |name, grid, build| Method { name, grid, build };
    vec![
        method("sgd", [0.1, 0.3, 1.0, 3.0], |lr| Ok(Box::new(Sgd { lr, ..Sgd::default() }.build()?))),
        method("adamw", [0.001, 0.003, 0.01, 0.03], |lr| Ok(Box::new(AdamW { lr, ..AdamW::default() }.build()?))),
        method("m-fac", WINDOW, |lr| mfac(lr, Compression::None)),
        method("s-mfac 10 %", WINDOW, |lr| mfac(lr, sparse(0.1, true))),
        method("s-mfac 1 %", WINDOW, |lr| mfac(lr, sparse(0.01, true))),
        method("s-mfac 1 %, 4-bit ξ", WINDOW, |lr| mfac(lr, coarse(0.01))),
        method("s-mfac 1 %, no feedback", WINDOW, |lr| mfac(lr, sparse(0.01, false))),
        method("lr-mfac rank 4", WINDOW, |lr| mfac(lr, MFac::low_rank(4).compression)),
        method("ggt", ADAGRAD, |lr| ggt(lr, Compression::None)),
        method("s-ggt 5 %", ADAGRAD, |lr| ggt(lr, sparse(0.05, true))),
        method("s-ggt 1 %", ADAGRAD, |lr| ggt(lr, sparse(0.01, true))),
        method("microadam 5 %", [0.001, 0.003, 0.01, 0.03], microadam),
    ]
}

const WINDOW: [f64; 4] = [0.001, 0.003, 0.01, 0.03];
const ADAGRAD: [f64; 4] = [0.1, 0.3, 1.0, 3.0];

fn sparse(density: f64, feedback: bool) -> Compression {
    let selection = Selection::TopK { density };
    Compression::Sparse(SparseConfig { selection, feedback, ..SparseConfig::default() })
}

/// With the residual in 4 bits.
fn coarse(density: f64) -> Compression {
    let (selection, residual) = (Selection::TopK { density }, ResidualFormat::Nibble { block: 64 });
    Compression::Sparse(SparseConfig { selection, residual, ..SparseConfig::default() })
}

fn mfac(lr: f64, compression: Compression) -> Result<Boxed> {
    let base = Momentum { lr, ..Momentum::default() };
    let method = MFac { base, window: 64, damping: 1e-3, compression, ..MFac::default() };
    Ok(Box::new(method.build()?))
}

fn ggt(lr: f64, compression: Compression) -> Result<Boxed> {
    let base = Momentum { lr, ..Momentum::default() };
    let method = Ggt { base, window: 50, eps: 1e-3, compression, ..Ggt::default() };
    Ok(Box::new(method.build()?))
}

fn microadam(lr: f64) -> Result<Boxed> {
    let selection = Selection::BlockTopK { density: 0.05, block: 4096 };
    Ok(Box::new(MicroAdam { lr, selection, ..MicroAdam::default() }.build()?))
}
