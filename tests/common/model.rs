//! Configurations, data and runs that the promises share.

use eigenstep::hyper::Range;
use eigenstep::numeric::{Element, Real};
use eigenstep::optim::Optimizer;
use eigenstep::params::{GradVisitor, Gradients, ParamVisitor, Parameters};
use eigenstep::quant::Precision;
#[allow(unused_imports)] // not all of it in every program
pub use eigenstep_instances::{AnyOptim, Config, Inputs, Opt, Subject, named};

/// Every format that a state dict can hold.
pub const PRECISIONS: [Precision; 7] = [
    Precision::Full,
    Precision::Bf16,
    Precision::INT8_LINEAR,
    Precision::INT8_DYNAMIC,
    Precision::INT8_TORCHAO,
    Precision::INT4,
    Precision::INT4_LPMM,
];

/// Name, range and value of every option.
pub fn options(config: &Config) -> Vec<(&'static str, Range, f64)> {
    let mut options = Vec::new();
    config.clone().visit_options(&mut |o| options.push((o.name, o.range, o.value.get())));
    options
}

/// A value that switches on what the default leaves off.
fn switched_on(range: Range, value: f64) -> Option<f64> {
    match range {
        Range::Flag => Some(1.0 - value),
        Range::NonNegative if value == 0.0 => Some(0.1),
        Range::Choice(_) => Some(1.0),
        Range::CountFrom(_) | Range::Count(..) => Some(value + 2.0),
        Range::OptionalUnitHalfOpen if value.is_nan() => Some(0.5),
        Range::FromOne if value.is_infinite() => Some(2.0),
        Range::OptionalNonNegative if value.is_nan() => Some(1e-6),
        _ => None,
    }
}

/// The default, the default with each option switched on, and with all of them switched on.
pub fn variants(subject: &Subject) -> Vec<Config> {
    let default = subject.config();
    let mut variants = vec![default.clone()];
    for (name, range, value) in options(&default) {
        let mut variant = default.clone();
        // Nesterov needs momentum: such options are covered by the last variant
        if switched_on(range, value).is_some_and(|on| variant.set_option(name, on).is_ok()) {
            variants.push(variant);
        }
    }
    variants.push(busy(subject));
    variants
}

/// Everything switched on that can be at the same time.
pub fn busy(subject: &Subject) -> Config {
    let mut config = subject.config();
    for _ in 0..2 {
        for (name, range, value) in options(&subject.config()) {
            if let Some(on) = switched_on(range, value) {
                let _ = config.set_option(name, on);
            }
        }
    }
    config
}

/// A number in [-1, 1) that depends on nothing but its arguments.
pub fn noise(seed: u64, i: u64) -> f64 {
    let mut z = (seed << 32).wrapping_add(i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

pub fn random<T: Element>(seed: u64, len: usize) -> Vec<T> {
    (0..len as u64).map(|i| T::store(T::Compute::of(noise(seed, i)))).collect()
}

/// The bytes of numbers: NaN equals NaN, and -0 does not equal 0.
pub fn bits<T: Element>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    T::write_le(values, &mut bytes);
    bytes
}

/// A flat leaf and its shape: a parameter or a gradient.
#[derive(Clone, Debug)]
pub struct Leaf<T> {
    pub shape: Vec<usize>,
    pub values: Vec<T>,
}

impl<T: Element> Parameters<T> for Leaf<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        visitor.slice(&mut self.values, &self.shape);
    }
}

impl<T: Element> Gradients<T> for Leaf<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.slice(&self.values, &self.shape);
    }
}

/// Random leaves, named `0`, `1` and so on as a tree.
pub fn leaves<T: Element>(seed: u64, shapes: &[&[usize]]) -> Vec<Leaf<T>> {
    let leaf = |(i, shape): (usize, &&[usize])| Leaf {
        shape: shape.to_vec(),
        values: random(seed + ((i as u64) << 16), shape.iter().product()),
    };
    shapes.iter().enumerate().map(leaf).collect()
}

/// Gradients of step number `step` for these parameters.
pub fn gradients<T: Element>(step: u64, params: &[Leaf<T>]) -> Vec<Leaf<T>> {
    let shapes: Vec<&[usize]> = params.iter().map(|leaf| leaf.shape.as_slice()).collect();
    leaves(1000 + step, &shapes)
}

/// Gradients of step number `step`, and what else the method needs: a loss, and for some methods a
/// curvature.
pub fn inputs<'g, G: ?Sized>(subject: &Subject, step: u64, grads: &'g G) -> Inputs<'g, G> {
    Inputs::new(grads, loss(step), subject.reads_curvature())
}

/// A loss that depends on the step's number alone.
fn loss(step: u64) -> f64 {
    1.5 + noise(77, step) / 2.0
}

pub fn all_bits<T: Element>(leaves: &[Leaf<T>]) -> Vec<Vec<u8>> {
    leaves.iter().map(|leaf| bits(&leaf.values)).collect()
}

pub fn all_values<T: Element>(leaves: &[Leaf<T>]) -> Vec<f64> {
    leaves.iter().flat_map(|leaf| leaf.values.iter().map(|x| x.load().widen())).collect()
}

/// Small shapes, some large enough for low-bit state, one with blocks cut short.
pub const SHAPES: [&[usize]; 4] = [&[61, 70], &[4100], &[2, 3, 4], &[]];

/// Steps with gradients that depend on the step's number alone.
#[allow(dead_code)] // not in every program
pub fn train<T: Element>(
    opt: &mut dyn Optimizer<T>,
    mut params: &mut [Leaf<T>],
    steps: std::ops::Range<u64>,
) {
    for step in steps {
        let grads = gradients(step, params);
        opt.step(&mut params, &grads).unwrap();
    }
}

/// The same with all that the method needs.
pub fn train_as<T: Element>(
    subject: &Subject,
    opt: &mut dyn Optimizer<T>,
    params: &mut [Leaf<T>],
    steps: std::ops::Range<u64>,
) {
    train_with(opt, params, steps, subject.reads_curvature());
}

/// The same with losses, and with curvatures where they are asked for.
pub fn train_with<T: Element>(
    opt: &mut dyn Optimizer<T>,
    mut params: &mut [Leaf<T>],
    steps: std::ops::Range<u64>,
    curvature: bool,
) {
    for step in steps {
        let grads = gradients(step, params);
        opt.step(&mut params, &Inputs::new(&grads, loss(step), curvature)).unwrap();
    }
}

/// A fresh optimizer and its parameters after `n` steps.
pub fn trained<T: Element>(config: &Config, n: u64) -> (Opt<T>, Vec<Leaf<T>>) {
    let mut opt = config.optimizer().unwrap();
    let mut params = leaves(1, &SHAPES);
    train_as(&config.subject(), &mut opt, &mut params, 0..n);
    (opt, params)
}
