//! burn's AdamW on its ndarray backend, for `run.py`. Variant: `adamw`.

use std::time::{Duration, Instant};

use burn::backend::{Autodiff, NdArray};
use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use protocol::{Args, Numbers, serve};

type Plain = NdArray<f32>;

#[derive(Module, Debug)]
struct Model<B: Backend> {
    matrices: Vec<Param<Tensor<B, 2>>>,
    vectors: Vec<Param<Tensor<B, 1>>>,
}

fn main() {
    let args = Args::read();
    assert_eq!(args.variant, "adamw");
    let device = Default::default();
    let mut numbers = Numbers::new(1);
    let mut data = |shape: &[usize], size| {
        TensorData::new(numbers.take(shape.iter().product(), size), shape.to_vec())
    };
    let mut model = Model::<Autodiff<Plain>> { matrices: Vec::new(), vectors: Vec::new() };
    for shape in args.shapes() {
        let data = data(&shape, 0.1);
        match shape.len() {
            1 => model.vectors.push(Param::from_data(data, &device)),
            _ => model.matrices.push(Param::from_data(data, &device)),
        }
    }
    // A step consumes the gradients, so that burn may work in their memory: every step gets its own copy, made
    // before the clock starts. The product makes it, because a clone would share memory.
    let matrices: Vec<_> = model.matrices.iter().map(|p| (p.id, data(&p.dims(), 0.01))).collect();
    let vectors: Vec<_> = model.vectors.iter().map(|p| (p.id, data(&p.dims(), 0.01))).collect();
    let gradients = || {
        let mut grads = GradientsParams::new();
        for (id, data) in &matrices {
            grads.register(*id, Tensor::<Plain, 2>::from_data(data.clone(), &device) * 1.0);
        }
        for (id, data) in &vectors {
            grads.register(*id, Tensor::<Plain, 1>::from_data(data.clone(), &device) * 1.0);
        }
        grads
    };
    let mut opt = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(1e-2).init();

    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(args.threads).build().expect("a thread pool");
    let mut model = Some(model);
    pool.install(|| {
        serve(|steps| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..steps {
                let grads = gradients();
                let start = Instant::now();
                model = model.take().map(|model| opt.step(1e-3, model, grads));
                elapsed += start.elapsed();
            }
            elapsed
        })
    });
}
