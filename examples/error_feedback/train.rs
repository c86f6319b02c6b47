//! One run: the training loop.

use crate::common::data::{CLASSES, Digits, PIXELS};
use crate::common::network::{Activation, Network};
use crate::common::random::Random;
use crate::methods::Method;
use eigenstep::Result;

/// Images of a batch.
const BATCH: usize = 64;

/// Widths of the network.
pub const WIDTHS: [usize; 3] = [PIXELS, 32, CLASSES];

/// The result of a run.
pub struct Run {
    /// Loss over the training set, before the first epoch and after each.
    pub losses: Vec<f64>,
    /// Share of the test set that is classified correctly.
    pub accuracy: f64,
    /// Number of parameters.
    pub params: usize,
    /// Bytes that the optimizer holds.
    pub state_bytes: usize,
}

/// Trains a network. With the same seed all methods get the same initial weights and batches.
pub fn train(
    method: &Method,
    lr: f64,
    (digits, epochs): (&Digits, usize),
    seed: u32,
) -> Result<Run> {
    let network = Network::new(&WIDTHS, &mut Random::new(seed, 1));
    let mut network = network.with_activation(Activation::Tanh);
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let mut random = Random::new(seed, 2);
    let mut opt = (method.build)(lr)?;
    let mut losses = vec![network.evaluate(&digits.train).0];
    for _ in 0..epochs {
        random.shuffle(&mut order);
        for indices in order.chunks(BATCH) {
            let gradient = network.gradient(&digits.train.select(indices));
            opt.step(&mut network, &gradient)?;
        }
        losses.push(network.evaluate(&digits.train).0);
    }
    let (accuracy, params) = (network.evaluate(&digits.test).1, network.len());
    Ok(Run { losses, accuracy, params, state_bytes: opt.state_bytes().total() })
}
