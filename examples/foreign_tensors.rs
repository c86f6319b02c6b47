//! Tensors of another library: nothing but slices and shapes, in a store of its own.
//!
//! ```text
//! cargo run --example foreign_tensors
//! ```

use eigenstep::params::{Generate, GradVisitor, Gradients, ParamVisitor, Parameters};
use eigenstep::prelude::*;
use std::collections::HashMap;

/// What the other library calls a tensor.
struct Tensor {
    data: Vec<f32>,
    shape: Vec<usize>,
}

impl Tensor {
    fn filled(value: f32, shape: &[usize]) -> Self {
        Self { data: vec![value; shape.iter().product()], shape: shape.to_vec() }
    }
}

/// What it calls a model. A `HashMap` has another order in every process: that does no harm, since
/// parameters are known by name.
struct Store(HashMap<String, Tensor>);

impl Parameters<f32> for Tensor {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        visitor.slice(&mut self.data, &self.shape);
    }
}

impl Parameters<f32> for Store {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, f32>) {
        for (name, tensor) in &mut self.0 {
            visitor.child(name, tensor);
        }
    }
}

/// A gradient that is computed where it is used: noise that a seed decides, as zeroth-order methods
/// use it. It takes no memory, however large the tensor is.
struct Noise {
    seed: u32,
    shape: Vec<usize>,
}

impl Generate<f32> for Noise {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn fill(&self, offset: usize, out: &mut [f32]) {
        for (i, x) in (offset..).zip(out) {
            // the same place gives the same number, whichever chunk asks for it
            let hash = (i as u32 ^ self.seed).wrapping_mul(0x9e37_79b9);
            *x = if hash >> 31 == 0 { 1.0 } else { -1.0 };
        }
    }
}

/// The gradients of a backward pass: one given as numbers, one generated, none for `frozen`.
struct Grads {
    head: Tensor,
    body: Noise,
}

impl Gradients<f32> for Tensor {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.slice(&self.data, &self.shape);
    }
}

impl Gradients<f32> for Noise {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

impl Gradients<f32> for Grads {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.child("body", &self.body);
        visitor.child("head", &self.head);
    }
}

fn main() -> Result<()> {
    let mut model = Store(HashMap::from([
        ("head".to_owned(), Tensor::filled(1.0, &[2, 3])),
        ("body".to_owned(), Tensor::filled(1.0, &[4])),
        ("frozen".to_owned(), Tensor::filled(1.0, &[2])),
    ]));
    let grads =
        Grads { head: Tensor::filled(0.5, &[2, 3]), body: Noise { seed: 7, shape: vec![4] } };

    let mut opt = AdamW { lr: 0.1, weight_decay: 0.0, ..AdamW::default() }.build()?;
    for _ in 0..3 {
        opt.step(&mut model, &grads)?;
    }
    for name in ["head", "body", "frozen"] {
        if let Some(tensor) = model.0.get(name) {
            let steps = opt.steps(name).unwrap_or(0);
            println!("{name:<7} {:?}  after {steps} steps  {:.2?}", tensor.shape, tensor.data);
        }
    }

    // a tensor whose buffer does not fit its shape is refused, and nothing changes
    let short = Grads { head: Tensor { data: vec![0.5; 5], shape: vec![2, 3] }, ..grads };
    if let Err(refused) = opt.step(&mut model, &short) {
        println!("refused: {refused}");
    }
    Ok(())
}
