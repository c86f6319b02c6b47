//! The methods that are compared: one line each.

use eigenstep::linalg::Damping;
use eigenstep::prelude::*;
use eigenstep::quant::{MatrixCodec, MatrixMap};
use eigenstep::second_order::LrAdjustment;
use eigenstep::second_order::soap::BasisStorage;

/// An optimizer of any method.
pub type Boxed = Box<dyn Optimizer<f32>>;

/// The learning rates that every method may choose from.
pub const GRID: [f64; 5] = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2];

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Name as in `--methods`.
    pub name: &'static str,
    /// Makes the optimizer for a learning rate.
    pub build: fn(f64) -> Result<Boxed>,
}

/// Every method, in the order of the report. A new one is a new line.
#[rustfmt::skip] // one line, one method
pub fn table() -> Vec<Method> {
    vec![
        Method { name: "adamw", build: |lr| Ok(Box::new(adamw(lr).build()?)) },
        Method { name: "shampoo", build: |lr| shampoo(lr, FactorStorage::Dense) },
        Method { name: "shampoo-4bit", build: |lr| shampoo(lr, FactorStorage::EIGEN4) },
        Method { name: "shampoo-4bit-unrectified", build: |lr| shampoo(lr, UNRECTIFIED) },
        Method { name: "shampoo-4bit-naive", build: |lr| shampoo(lr, NAIVE) },
        Method { name: "soap", build: |lr| soap(lr, BasisStorage::Full) },
        Method { name: "soap-4bit", build: |lr| soap(lr, BasisStorage::FOUR_BIT) },
        Method { name: "muon", build: |lr| matrix(muon(lr)) },
    ]
}

const CODEC: MatrixCodec = MatrixCodec { bits: 4, block_size: 64, map: MatrixMap::Linear2 };
const NAIVE: FactorStorage = FactorStorage::Naive(CODEC);
/// `EIGEN4` without Björck iterations.
const UNRECTIFIED: FactorStorage =
    FactorStorage::QuantizedEigen { codec: CODEC, rectify_update: 0, rectify_root: 0 };

fn adamw(lr: f64) -> AdamW {
    AdamW { lr, weight_decay: 0.01, ..AdamW::default() }
}

/// The same intervals for all storages; those of the paper are meant for far longer runs. The 784
/// pixels of an image of MNIST are cut into two blocks, whose roots take a third of the time of one.
fn shampoo(lr: f64, storage: FactorStorage) -> Result<Boxed> {
    matrix(Shampoo {
        inner: adamw(lr),
        storage,
        damping: Damping::relative(1e-4),
        update_factors_every: 10,
        update_roots_every: 20,
        max_dim: 400,
        ..Shampoo::default()
    })
}

/// Blocks as Shampoo's; otherwise the paper's, bases renewed every ten steps.
fn soap(lr: f64, storage: BasisStorage) -> Result<Boxed> {
    let soap = Soap::default();
    let inner = AdamW { lr, ..soap.inner };
    matrix(Soap { inner, storage, block_dim: Some(400), ..soap })
}

/// Steps as large as AdamW's, so that the grid fits.
fn muon(lr: f64) -> Muon {
    let adjust_lr = LrAdjustment::MatchRmsAdamW;
    Muon { lr, adjust_lr, weight_decay: 0.01, ..Muon::default() }
}

fn matrix<M: MatrixMethod>(method: M) -> Result<Boxed> {
    Ok(Box::new(method.build()?))
}
