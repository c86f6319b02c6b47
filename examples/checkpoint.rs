//! Training that is interrupted goes on as if nothing had happened, to the last bit.
//!
//! ```text
//! cargo run --example checkpoint
//! ```

use eigenstep::prelude::*;
use eigenstep::{Error, parameters};
use ndarray::{Array1, Array2};

const STEPS: usize = 200;
const STOP: usize = 83;

#[derive(Clone)]
struct Model {
    weight: Array2<f32>,
    bias: Array1<f32>,
}
parameters!(Model { weight, bias }: f32);

impl Model {
    fn new() -> Self {
        let start = |(i, j)| ((i * 5 + j * 3) % 13) as f32 / 13.0 - 0.5;
        Self { weight: Array2::from_shape_fn((64, 128), start), bias: Array1::zeros(64) }
    }

    /// Gradient of a loss that is another one in every step, as with mini-batches.
    fn gradient(&self, step: usize) -> Self {
        let target = (step as f32 * 0.37).sin();
        Self { weight: self.weight.mapv(|w| w - target), bias: self.bias.mapv(|b| b + target) }
    }

    fn bits(&self) -> impl Iterator<Item = u32> {
        self.weight.iter().chain(&self.bias).map(|x| x.to_bits())
    }
}

/// The optimizer, as the program makes it at every start.
fn optimizer() -> Result<Box<dyn Optimizer<f32>>> {
    let adamw = AdamW { lr: 1e-2, weight_decay: 0.1, ..AdamW::default() };
    let opt = adamw
        .build()?
        .with_group(Select::name("bias"), |group| group.weight_decay = 0.0)?
        .with_state_precision(Precision::INT8_LINEAR)?; // codes are saved as they are
    Ok(Box::new(opt))
}

fn train(
    model: &mut Model,
    opt: &mut dyn Optimizer<f32>,
    steps: std::ops::Range<usize>,
) -> Result<()> {
    for step in steps {
        let lr = 1e-2 * (1.0 - step as f64 / STEPS as f64);
        for group in 0..opt.num_groups() {
            opt.set_lr(group, lr)?;
        }
        let grads = model.gradient(step);
        opt.step(model, &grads)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut uninterrupted = Model::new();
    train(&mut uninterrupted, optimizer()?.as_mut(), 0..STEPS)?;

    // The first process: trains, saves, ends. The state stays in memory here. A file is the same with
    // the feature `safetensors`: this is the place for `StateDict::save_safetensors(&self, path)`,
    // and before `load_state_dict` below for `StateDict::load_safetensors(path)`.
    let saved: (Model, StateDict) = {
        let (mut model, mut opt) = (Model::new(), optimizer()?);
        train(&mut model, opt.as_mut(), 0..STOP)?;
        (model, opt.state_dict())
    };
    let (mut model, state) = saved;
    let bytes: usize = state.tensors.values().map(|tensor| tensor.bytes.len()).sum();
    println!("saved after {STOP} steps: {} tensors, {bytes} bytes", state.tensors.len());

    // the second process: makes the same optimizer and goes on
    let mut opt = optimizer()?;
    opt.load_state_dict(&state)?;
    train(&mut model, opt.as_mut(), STOP..STEPS)?;
    let same = model.bits().eq(uninterrupted.bits());
    println!("resumed and trained to step {STEPS}: same bits as without the stop: {same}");

    // what does not fit is refused by name, and the optimizer stays as it was
    let mut other = Lion::default().build::<f32>()?;
    if let Err(refused @ Error::StateDict { .. }) = other.load_state_dict(&state) {
        println!("refused: {refused}");
    }
    Ok(())
}
