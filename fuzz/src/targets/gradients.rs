//! Trees that do not fit, with gradients in every form that they can have.

use super::subjects::model::{Leaf, all_bits, leaves};
use crate::harness::Target;
use crate::random::{FLOATS, INTEGERS, Random};
use eigenstep::gradient::{clip_grad_norm, clip_grad_value};
use eigenstep::optim::Optimizer;
use eigenstep::params::{Generate, GradVisitor, Gradients, RowGradient, Scaled};
use eigenstep::prelude::*;
use ndarray::Array2;

type Model = Vec<Leaf<f32>>;
type Make = fn() -> Result<Box<dyn Optimizer<f32>>>;

/// Every kind of engine.
const OPTIMIZERS: [Make; 7] = [
    || Ok(Box::new(AdamW::default().build()?)),
    || Ok(Box::new(Sgd { momentum: 0.9, ..Sgd::default() }.build()?)),
    || Ok(Box::new(Adafactor::default().build()?)),
    || Ok(Box::new(Prodigy::default().build()?)),
    || Ok(Box::new(Shampoo::<Sgd> { update_roots_every: 1, ..Shampoo::default() }.build()?)),
    || Ok(Box::new(Muon::default().build()?)),
    || Ok(Box::new(MFac { window: 3, ..MFac::default() }.build()?)),
];

pub struct Trees;

impl Trees {
    pub fn new() -> Self {
        Self
    }
}

struct Constant {
    shape: Vec<usize>,
    value: f32,
}

impl Generate<f32> for Constant {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn fill(&self, _: usize, out: &mut [f32]) {
        out.fill(self.value);
    }
}

/// One gradient.
enum Form {
    Flat(Leaf<f32>),
    Rows(RowGradient<f32>),
    Generated(Constant),
}

impl Gradients<f32> for Form {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        match self {
            Self::Flat(leaf) => visitor.slice(&leaf.values, &leaf.shape),
            Self::Rows(rows) => visitor.rows(rows),
            Self::Generated(constant) => visitor.generated(constant),
        }
    }
}

struct Tree(Vec<(String, Form)>);

impl Gradients<f32> for Tree {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        for (name, form) in &self.0 {
            visitor.child(name, form);
        }
    }
}

/// The shape, or mostly another one.
fn shape(of: &[usize], random: &mut Random) -> Vec<usize> {
    let mut shape = of.to_vec();
    if random.once_in(3) {
        let size = INTEGERS[random.below(INTEGERS.len())] as usize;
        match random.choose(&shape) {
            Some(dim) if random.once_in(2) => shape[dim] = size,
            _ => shape.push(size),
        }
    }
    shape
}

fn value(random: &mut Random) -> f32 {
    if random.once_in(4) {
        *random.pick(&FLOATS) as f32
    } else {
        random.below(100) as f32 / 50.0 - 1.0
    }
}

fn is_short_or_uncountable(shape: &[usize]) -> bool {
    let numel = shape.iter().try_fold(1usize, |numel, &dim| numel.checked_mul(dim.max(1)));
    numel.is_none_or(|numel| numel <= 1 << 16)
}

fn form(of: &[usize], random: &mut Random) -> Option<Form> {
    let shape = shape(of, random);
    let numel = of.iter().product::<usize>();
    Some(match random.below(4) {
        // a gradient that claims to have 2^40 elements has them, and its norm takes that long
        0 if is_short_or_uncountable(&shape) => {
            Form::Generated(Constant { shape, value: value(random) })
        }
        1 => {
            let rows = (0..random.below(4)).map(|_| *random.pick(&INTEGERS) as usize % 8);
            let rows: Vec<usize> = rows.collect();
            let width = if random.once_in(8) { 3 } else { of.iter().skip(1).product() };
            let values = Array2::from_elem((rows.len(), width), value(random));
            Form::Rows(RowGradient::new(&shape, rows, values).ok()?)
        }
        _ => {
            let numel = if random.once_in(8) { random.below(40) } else { numel };
            let mut values = vec![0.25; numel];
            if let Some(at) = random.choose(&values) {
                values[at] = value(random);
            }
            Form::Flat(Leaf { shape, values })
        }
    })
}

fn tree(params: &Model, random: &mut Random) -> Tree {
    let mut forms = Vec::new();
    for (i, leaf) in params.iter().enumerate() {
        let name = if random.once_in(20) { random.below(5) } else { i };
        if !random.once_in(8) {
            forms.extend(form(&leaf.shape, random).map(|form| (name.to_string(), form)));
        }
    }
    Tree(forms)
}

fn step(
    opt: &mut dyn Optimizer<f32>,
    params: &mut Model,
    tree: &Tree,
    random: &mut Random,
) -> Result<()> {
    let factor = *random.pick(&FLOATS);
    match random.below(6) {
        0 => opt.step(&mut params.as_mut_slice(), &Scaled::new(factor, tree)),
        1 => opt.step(&mut params.as_mut_slice(), &clip_grad_norm(tree, factor)),
        2 if factor >= 0.0 => opt.step(&mut params.as_mut_slice(), &clip_grad_value(tree, factor)),
        _ => opt.step(&mut params.as_mut_slice(), tree),
    }
}

impl Target for Trees {
    fn execute(&mut self, random: &mut Random) -> bool {
        let mut opt = random.pick(&OPTIMIZERS)().expect("defaults");
        let mut params: Model = leaves(1, &[&[6, 5], &[4], &[2, 3, 4], &[]]);
        let mut accepted = false;
        for _ in 0..3 {
            let tree = tree(&params, random);
            let (state, bits) = (opt.state_dict(), all_bits(&params));
            // a parameter that is not what it says
            let shape = params[1].shape.clone();
            if random.once_in(16) {
                params[1].shape = vec![INTEGERS[random.below(INTEGERS.len())] as usize, 4];
            }
            let outcome = step(&mut *opt, &mut params, &tree, random);
            params[1].shape = shape;
            match outcome {
                Ok(()) => accepted = true,
                Err(error) => {
                    assert!(
                        format!("{:?}", opt.state_dict()) == format!("{state:?}"),
                        "{}: {error}",
                        opt.name()
                    );
                    assert!(all_bits(&params) == bits, "{}: {error}", opt.name());
                }
            }
        }
        accepted
    }
}
