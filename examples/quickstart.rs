//! The shortest program: a model, an optimizer with two groups, a loop.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use eigenstep::{parameters, prelude::*};
use ndarray::{Array1, Array2, Axis, array};

struct Line {
    weight: Array2<f64>,
    bias: Array1<f64>,
}
parameters!(Line { weight, bias }: f64);

fn main() -> Result<()> {
    // y = 3·x₀ − 2·x₁ + 1
    let x = array![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 2.0]];
    let y = array![[1.0], [4.0], [-1.0], [0.0]];

    let mut model = Line { weight: Array2::zeros((2, 1)), bias: Array1::zeros(1) };
    let mut opt = AdamW { lr: 0.1, weight_decay: 1e-3, ..AdamW::default() }
        .build()?
        .with_group(Select::name("bias"), |group| group.weight_decay = 0.0)?;

    for step in 0..=500 {
        let error = x.dot(&model.weight) + &model.bias - &y;
        // of the sum of squares, halved
        let grads = Line { weight: x.t().dot(&error), bias: error.sum_axis(Axis(0)) };
        opt.step(&mut model, &grads)?;
        if step % 100 == 0 {
            println!("step {step:3}   loss {:.2e}", 0.5 * error.mapv(|e| e * e).sum());
        }
    }
    let (w, b) = (&model.weight, &model.bias);
    println!("y = {:.2}·x₀ {:+.2}·x₁ {:+.2}", w[[0, 0]], w[[1, 0]], b[0]);
    Ok(())
}
