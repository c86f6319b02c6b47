//! The network: fully connected layers with a nonlinearity between them, and its gradient by hand.

use super::data::Set;
use super::random::Random;
use eigenstep::parameters;
use ndarray::{Array1, Array2, Axis};

/// `y = x·Wᵀ + b`, for rows `x`.
#[derive(Clone)]
pub struct Linear {
    weight: Array2<f32>,
    bias: Array1<f32>,
}
parameters!(Linear { weight, bias }: f32);

impl Linear {
    fn new(inputs: usize, outputs: usize, random: &mut Random) -> Self {
        // keeps the variance of the signal through a ReLU (He and others, 2015)
        let bound = (6.0 / inputs as f32).sqrt();
        let weight = Array2::from_shape_simple_fn((outputs, inputs), || bound * random.symmetric());
        Self { weight, bias: Array1::zeros(outputs) }
    }

    fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        x.dot(&self.weight.t()) + &self.bias
    }
}

/// What stands between the layers.
#[derive(Clone, Copy, PartialEq)]
pub enum Activation {
    /// `max(0, x)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

/// A classifier of images; its gradients have the same type.
#[derive(Clone)]
pub struct Network {
    layers: Vec<Linear>,
    activation: Activation,
}
parameters!(Network { layers }: f32);

impl Network {
    /// Random weights; `widths` are those of the input, of what lies between, and of the output.
    pub fn new(widths: &[usize], random: &mut Random) -> Self {
        let layers = widths.iter().zip(widths.iter().skip(1));
        let layers = layers.map(|(&from, &to)| Linear::new(from, to, random)).collect();
        Self { layers, activation: Activation::Relu }
    }

    /// The same network with another nonlinearity.
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight.len() + layer.bias.len()).sum()
    }

    /// The same network with `f` of every weight; biases stay.
    pub fn map_weights(&self, f: impl Fn(f32) -> f32) -> Self {
        let mut mapped = self.clone();
        mapped.layers.iter_mut().for_each(|layer| layer.weight.mapv_inplace(&f));
        mapped
    }

    /// The same network with `f` of its weights and another's; biases stay.
    pub fn zip_weights(mut self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (layer, other) in self.layers.iter_mut().zip(&other.layers) {
            layer.weight.zip_mut_with(&other.weight, |a, &b| *a = f(*a, b));
        }
        self
    }

    /// Mean cross-entropy.
    pub fn loss(&self, set: &Set) -> f64 {
        cross_entropy(self.forward(&set.images).1, &set.labels).0
    }

    /// What goes into every layer, and after it what comes out of the last.
    fn forward(&self, images: &Array2<f32>) -> (Vec<Array2<f32>>, Array2<f32>) {
        let (mut inputs, mut x) = (Vec::new(), images.clone());
        for layer in &self.layers {
            if !inputs.is_empty() {
                match self.activation {
                    Activation::Relu => x.mapv_inplace(|x| x.max(0.0)),
                    Activation::Tanh => x.mapv_inplace(f32::tanh),
                }
            }
            let y = layer.forward(&x);
            inputs.push(std::mem::replace(&mut x, y));
        }
        (inputs, x)
    }

    /// Mean cross-entropy, and the share of images that are classified correctly.
    pub fn evaluate(&self, set: &Set) -> (f64, f64) {
        let (_, logits) = self.forward(&set.images);
        let correct = logits.outer_iter().zip(&set.labels).filter(|(row, label)| {
            let best = row.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
            best.is_some_and(|(digit, _)| digit == usize::from(**label))
        });
        let accuracy = correct.count() as f64 / set.len() as f64;
        (cross_entropy(logits, &set.labels).0, accuracy)
    }

    /// Gradient of the mean cross-entropy.
    pub fn gradient(&self, batch: &Set) -> Network {
        let (inputs, logits) = self.forward(&batch.images);
        let (_, mut delta) = cross_entropy(logits, &batch.labels);
        let mut layers = Vec::new();
        for (layer, x) in self.layers.iter().zip(&inputs).rev() {
            let (weight, bias) = (delta.t().dot(x), delta.sum_axis(Axis(0)));
            layers.push(Linear { weight, bias });
            if layers.len() < self.layers.len() {
                delta = delta.dot(&layer.weight);
                match self.activation {
                    Activation::Relu => {
                        delta.zip_mut_with(x, |d, &x| *d = if x > 0.0 { *d } else { 0.0 });
                    }
                    Activation::Tanh => delta.zip_mut_with(x, |d, &x| *d *= 1.0 - x * x),
                }
            }
        }
        layers.reverse();
        Network { layers, activation: self.activation }
    }
}

/// Mean cross-entropy of the softmax of `logits`, and its gradient by them.
fn cross_entropy(mut logits: Array2<f32>, labels: &[u8]) -> (f64, Array2<f32>) {
    let (mut loss, images) = (0.0, labels.len() as f32);
    for (mut row, &label) in logits.outer_iter_mut().zip(labels) {
        let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|x| x - largest);
        let log_sum = row.fold(0.0, |sum, x| sum + x.exp()).ln();
        for (digit, x) in row.iter_mut().enumerate() {
            let target = if digit == usize::from(label) { 1.0 } else { 0.0 };
            loss -= f64::from(target * (*x - log_sum));
            *x = ((*x - log_sum).exp() - target) / images;
        }
    }
    (loss / f64::from(images), logits)
}
