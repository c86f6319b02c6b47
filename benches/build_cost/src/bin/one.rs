//! A program with one optimizer.

use eigenstep::prelude::*;
use ndarray::{Array1, Array2};

fn main() -> eigenstep::Result<()> {
    let mut model = (Array2::<f32>::ones((8, 8)), Array1::<f32>::ones(8));
    let grads = model.clone();
    let optimizers: Vec<Box<dyn Optimizer<f32>>> = vec![Box::new(AdamW::default().build()?)];
    for mut opt in optimizers {
        opt.step(&mut model, &grads)?;
        println!("{}: {}", opt.name(), model.0.sum());
    }
    Ok(())
}
