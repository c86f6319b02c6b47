//! eigenstep, for `run.py`.
//! Variants: `f32` (AdamW, finite check on, the default), `f32-nocheck`, `int8`, `int4`, `sgd`, `lion`.

use std::error::Error;
use std::time::Instant;

use eigenstep::prelude::*;
use ndarray::{ArrayD, IxDyn};
use protocol::{Args, Numbers, serve};

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
    let grads = fill(0.01)?;
    let mut opt = optimizer(&args.variant)?;

    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build()?;
    pool.install(|| {
        serve(|steps| {
            let start = Instant::now();
            for _ in 0..steps {
                opt.step(&mut params, &grads).expect("a step");
            }
            start.elapsed()
        })
    });
    Ok(())
}

fn optimizer(variant: &str) -> Result<Box<dyn Optimizer<f32>>, Box<dyn Error>> {
    let adamw = AdamW { lr: 1e-3, ..AdamW::default() }.build::<f32>()?;
    Ok(match variant {
        "f32" => Box::new(adamw),
        "f32-nocheck" => Box::new(adamw.with_non_finite(NonFinite::Propagate)),
        "int8" => Box::new(adamw.with_state_precision(Precision::INT8_LINEAR)?),
        "int4" => Box::new(adamw.with_state_precision(Precision::INT4)?),
        "sgd" => Box::new(Sgd { lr: 1e-3, momentum: 0.9, ..Sgd::default() }.build::<f32>()?),
        "lion" => Box::new(Lion { lr: 1e-4, ..Lion::default() }.build::<f32>()?),
        _ => return Err(format!("no variant {variant}").into()),
    })
}
