//! candle-nn's AdamW, for `run.py`. Variant: `adamw`.

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use protocol::{Args, Numbers, serve};

fn main() -> Result<()> {
    let args = Args::read();
    assert_eq!(args.variant, "adamw");
    let mut numbers = Numbers::new(1);
    let mut fill = |size| -> Result<Vec<Tensor>> {
        let tensor = |shape: Vec<usize>| {
            let count = shape.iter().product();
            Tensor::from_vec(numbers.take(count, size), shape, &Device::Cpu)
        };
        args.shapes().into_iter().map(tensor).collect()
    };
    let params = fill(0.1)?.iter().map(Var::from_tensor).collect::<Result<Vec<Var>>>()?;
    // A gradient store comes from a backward pass only. This one holds the gradient of nothing yet.
    let mut grads = Tensor::zeros((), params[0].dtype(), &Device::Cpu)?.backward()?;
    for (param, grad) in params.iter().zip(fill(0.01)?) {
        grads.insert(param, grad);
    }
    let config = ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 };
    let mut opt = AdamW::new(params, config)?;

    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(args.threads).build().expect("a thread pool");
    pool.install(|| {
        serve(|steps| {
            let start = Instant::now();
            for _ in 0..steps {
                opt.step(&grads).expect("a step");
            }
            start.elapsed()
        })
    });
    Ok(())
}
