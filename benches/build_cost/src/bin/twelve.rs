//! The same program with twelve optimizers.
//!
//! They are named here and not read from `for_each_first_order!`, so that versions of the crate with more
//! methods can be compared.

use eigenstep::prelude::*;
use ndarray::{Array1, Array2};

fn main() -> eigenstep::Result<()> {
    let mut model = (Array2::<f32>::ones((8, 8)), Array1::<f32>::ones(8));
    let grads = model.clone();
    let optimizers: Vec<Box<dyn Optimizer<f32>>> = vec![
        Box::new(Sgd::default().build()?),
        Box::new(Adam::default().build()?),
        Box::new(AdamW::default().build()?),
        Box::new(Adagrad::default().build()?),
        Box::new(RmsProp::default().build()?),
        Box::new(Lion::default().build()?),
        Box::new(SignSgd::default().build()?),
        Box::new(Lamb::default().build()?),
        Box::new(Prodigy::default().build()?),
        Box::new(ScheduleFreeAdamW::default().build()?),
        Box::new(PrimalAveraging::default().build()?),
        Box::new(Classp::default().build()?),
    ];
    for mut opt in optimizers {
        opt.step(&mut model, &grads)?;
        println!("{}: {}", opt.name(), model.0.sum());
    }
    Ok(())
}
