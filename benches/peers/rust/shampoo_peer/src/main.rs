//! eigenstep's Shampoo, for `second_order.py`, with the options of Meta's.
//! Variants: `shampoo`; `shampoo-qr` (eigenvectors are kept, and improved by one QR iteration per root);
//! `shampoo4` (4-bit eigenvectors; factors with the roots, every ten steps); `soap`.

use std::error::Error;
use std::time::{Duration, Instant};

use eigenstep::linalg::Damping;
use eigenstep::prelude::*;
use eigenstep::second_order::factor::RootSolver;
use eigenstep::second_order::soap::{BasisSolver, SoapOrder};
use eigenstep::second_order::{Descent, Exponent, Exponents, Graft};
use ndarray::{ArrayD, IxDyn};
use protocol::{Args, Numbers, serve};

/// Sets of gradients, used in turn: statistics are not those of one matrix.
const GRADIENTS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read();
    let mut numbers = Numbers::new(1);
    let mut fill = |size| -> Result<Vec<ArrayD<f32>>, Box<dyn Error>> {
        let array = |shape: Vec<usize>| {
            let count = shape.iter().product();
            Ok(ArrayD::from_shape_vec(IxDyn(&shape), numbers.take(count, size))?)
        };
        args.shapes().into_iter().map(array).collect()
    };
    let mut params = fill(0.1)?;
    let gradients = (0..GRADIENTS).map(|_| fill(0.01)).collect::<Result<Vec<_>, _>>()?;
    let mut opt: Box<dyn Optimizer<f32>> = match args.variant.as_str() {
        "soap" => Box::new(soap().build()?),
        variant => Box::new(shampoo(variant)?.build()?),
    };
    let mut gradients = gradients.iter().cycle();

    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build()?;
    pool.install(|| {
        serve(|steps| {
            let mut elapsed = Duration::ZERO;
            for gradients in gradients.by_ref().take(steps) {
                let start = Instant::now();
                opt.step(&mut params, &gradients).expect("a step");
                elapsed += start.elapsed();
            }
            elapsed
        })
    });
    Ok(())
}

/// SOAP as `shampoo_peer.py` has it: bases by one QR iteration every ten steps.
fn soap() -> Soap {
    let (lr, weight_decay) = (1e-3, 1e-2);
    Soap {
        order: SoapOrder::Distributed { start: 10, epsilon: 1e-8, bias_correction: true },
        solver: BasisSolver::Qr { max_iterations: 1, tolerance: 0.0 },
        shampoo_beta: 0.999,
        update_basis_every: 10,
        block_dim: Some(1024),
        ..Soap::with_inner(AdamW { lr, weight_decay, ..AdamW::default() })
    }
}

/// The options of `shampoo_peer.py`.
fn shampoo(variant: &str) -> Result<Shampoo<Descent>, Box<dyn Error>> {
    // vectors have no factors
    let exponents = Exponents::Table(vec![Exponent { order: 1, dim: None, exponent: 0.0 }]);
    let shampoo = Shampoo {
        inner: Descent { lr: 1e-3, weight_decay: 1e-2, ..Descent::default() },
        graft: Graft::ADAM,
        exponents,
        factor_beta: 0.999,
        damping: Damping::absolute(1e-8),
        update_roots_every: 10,
        start: 10,
        ..Shampoo::distributed()
    };
    Ok(match variant {
        "shampoo" => shampoo,
        "shampoo-qr" => {
            Shampoo { root: RootSolver::Qr { tolerance: 0.0, max_iterations: 1 }, ..shampoo }
        }
        "shampoo4" => {
            Shampoo { storage: FactorStorage::EIGEN4, update_factors_every: 10, ..shampoo }
        }
        _ => return Err(format!("no variant {variant}").into()),
    })
}
