//! Training that can be stopped, saved and continued, and the model that it trains.

use eigenstep::Result;
use eigenstep::numeric::{Element, Real};
use eigenstep::optim::Optimizer;
use eigenstep::state::{StateDict, StateTensor};
use ndarray::ArrayD;
use std::collections::BTreeMap;

/// Training with something that has a state dict.
pub trait Run {
    /// Step number `step`, whose data depends on nothing but this number.
    fn advance(&mut self, step: u64);
    /// The state dict of every part, with the part's name.
    fn save(&mut self) -> Vec<(&'static str, StateDict)>;
    /// Loads the state dict of one part.
    fn load(&mut self, part: &str, dict: &StateDict) -> Result<()>;
    fn parameters(&self) -> Tensors;
    fn set_parameters(&mut self, tensors: &Tensors);
}

pub type Tensors = BTreeMap<String, StateTensor>;
pub type Tree<T> = BTreeMap<String, ArrayD<T>>;
pub type Shapes = &'static [(&'static str, &'static [usize])];

/// A matrix, a convolution, a vector and a scalar.
pub const SMALL: Shapes =
    &[("fc.weight", &[12, 10]), ("conv.weight", &[4, 3, 3, 3]), ("fc.bias", &[10]), ("scale", &[])];
/// The same with a matrix whose state is large enough to be coded.
pub const LARGE: Shapes = &[("fc.weight", &[80, 64]), ("fc.bias", &[10]), ("scale", &[])];

/// A number in [-1, 1) that depends on nothing but its arguments: integers alone decide its bits, so
/// that they are the same on every machine.
pub fn noise(seed: u64, i: u64) -> f64 {
    let mut z = (seed << 32).wrapping_add(i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

pub fn array<T: Element>(seed: u64, shape: &[usize]) -> ArrayD<T> {
    let mut numbers = (0..).map(|i| T::store(T::Compute::of(noise(seed, i))));
    ArrayD::from_shape_simple_fn(shape, || numbers.next().unwrap())
}

pub fn tree<T: Element>(seed: u64, shapes: Shapes) -> Tree<T> {
    let leaf =
        |(seed, &(name, shape)): (u64, &(&str, &[usize]))| (name.to_owned(), array(seed, shape));
    (seed << 8..).zip(shapes).map(leaf).collect()
}

/// The gradients of a step. The scalar has none in every third step: steps are counted per parameter.
pub fn gradients<T: Element>(step: u64, shapes: Shapes) -> Tree<T> {
    let mut gradients = tree(1000 + step, shapes);
    if step % 3 == 1 {
        gradients.remove("scale");
    }
    gradients
}

pub fn save_tree<T: Element>(tree: &Tree<T>) -> Tensors {
    let tensor = |leaf: &ArrayD<T>| StateTensor::new(leaf.shape(), leaf.as_slice().unwrap());
    tree.iter().map(|(name, leaf)| (name.clone(), tensor(leaf))).collect()
}

pub fn load_tree<T: Element>(tensors: &Tensors) -> Tree<T> {
    let leaf = |tensor: &StateTensor| {
        ArrayD::from_shape_vec(&*tensor.shape, T::read_le(&tensor.bytes)).unwrap()
    };
    tensors.iter().map(|(name, tensor)| (name.clone(), leaf(tensor))).collect()
}

/// An optimizer and its model.
pub struct Training<T> {
    pub optimizer: Box<dyn Optimizer<T>>,
    pub parameters: Tree<T>,
    pub shapes: Shapes,
}

pub fn training<T: Element>(shapes: Shapes, optimizer: impl Optimizer<T> + 'static) -> Training<T> {
    Training { optimizer: Box::new(optimizer), parameters: tree(1, shapes), shapes }
}

/// Training in `f32`.
pub fn single(shapes: Shapes, optimizer: impl Optimizer<f32> + 'static) -> Training<f32> {
    training(shapes, optimizer)
}

impl<T: Element> Run for Training<T> {
    fn advance(&mut self, step: u64) {
        self.optimizer.step(&mut self.parameters, &gradients(step, self.shapes)).unwrap();
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        vec![("optimizer", self.optimizer.state_dict())]
    }
    fn load(&mut self, _: &str, dict: &StateDict) -> Result<()> {
        self.optimizer.load_state_dict(dict)
    }
    fn parameters(&self) -> Tensors {
        save_tree(&self.parameters)
    }
    fn set_parameters(&mut self, tensors: &Tensors) {
        self.parameters = load_tree(tensors);
    }
}
