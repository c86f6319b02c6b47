//! One run: the training loop.

use crate::common::data::{CLASSES, Digits, PIXELS};
use crate::common::network::Network;
use crate::common::random::Random;
use crate::methods::{Method, Schedule};
use crate::report::Progress;
use eigenstep::quant::Precision;
use eigenstep::zeroth_order::{Estimator, Spsa};
use std::time::{Duration, Instant};

const BATCH: usize = 64;
/// Widths of the layers. Both hidden matrices have more than 4096 elements, below which state keeps
/// full precision.
const WIDTHS: [usize; 4] = [PIXELS, 256, 128, CLASSES];
/// Share of the steps over which a cosine schedule rises from 0 first.
const WARM_UP: f64 = 0.1;

/// What came of a run.
pub struct Run {
    /// Name of the method.
    pub method: &'static str,
    /// What its slots were stored in.
    pub precision: Precision,
    /// What its state was stored in, in words.
    pub stored: &'static str,
    /// Loss over the whole training set before the first epoch and after each.
    pub losses: Vec<f64>,
    /// Share of the test set that is classified correctly, after every epoch.
    pub accuracies: Vec<f64>,
    /// Time spent on gradients and steps; evaluation is not counted.
    pub time: Duration,
    /// Number of parameters of the network.
    pub params: usize,
    /// Bytes that the optimizer holds.
    pub state_bytes: usize,
}

/// Trains a network with `method`; the same seed gives the same weights and batches to all.
pub fn train(
    method: &Method,
    precision: Precision,
    digits: &Digits,
    epochs: usize,
    seed: u32,
) -> eigenstep::Result<Run> {
    let mut network = Network::new(&WIDTHS, &mut Random::new(seed, 1));
    let mut opt = (method.build)(precision)?;
    let mut estimator = match method.directions {
        Some(num_samples) => {
            Some(Spsa { num_samples, seed: u64::from(seed), ..Spsa::default() }.build::<f32>()?)
        }
        None => None,
    };
    let lr = opt.lr(0);
    let mut run = Run {
        method: method.name,
        precision,
        stored: method.stored(precision),
        losses: vec![network.evaluate(&digits.train).0],
        accuracies: Vec::new(),
        time: Duration::ZERO,
        params: network.len(),
        state_bytes: 0,
    };
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let mut random = Random::new(seed, 2);
    let steps = epochs * order.len().div_ceil(BATCH);
    let mut step = 0;
    let progress = Progress::new(method.name, epochs);

    for epoch in 1..=epochs {
        random.shuffle(&mut order);
        let start = Instant::now();
        for indices in order.chunks(BATCH) {
            let batch = digits.train.select(indices);
            opt.set_lr(0, lr * factor(method.schedule, step, steps))?;
            match &mut estimator {
                Some(estimator) => {
                    let estimate =
                        estimator.estimate(&mut network, |network| network.loss(&batch))?;
                    opt.step(&mut network, &estimate)?;
                }
                None => {
                    let gradient = network.gradient(&batch);
                    opt.step(&mut network, &gradient)?;
                }
            }
            step += 1;
        }
        run.time += start.elapsed();

        opt.eval(&mut network)?; // Schedule-Free is judged at its average; others do nothing here
        let (loss, _) = network.evaluate(&digits.train);
        let (_, accuracy) = network.evaluate(&digits.test);
        opt.train(&mut network)?;
        run.losses.push(loss);
        run.accuracies.push(accuracy);
        progress.show(epoch, loss, accuracy);
    }
    run.state_bytes = opt.state_bytes().total();
    Ok(run)
}

/// Factor on the learning rate in step number `step` of `steps`.
fn factor(schedule: Schedule, step: usize, steps: usize) -> f64 {
    let done = (step as f64 + 0.5) / steps as f64;
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine if done < WARM_UP => done / WARM_UP,
        Schedule::Cosine => {
            let rest = (done - WARM_UP) / (1.0 - WARM_UP);
            0.5 * (1.0 + (std::f64::consts::PI * rest).cos())
        }
    }
}
