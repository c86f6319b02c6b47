//! One run: the training loop.

use crate::Images;
use crate::common::network::Network;
use crate::common::random::Random;
use crate::methods::Method;
use eigenstep::prelude::*;
use eigenstep::schedule::WarmupCosine;
use std::time::Instant;

/// What all runs have in common.
pub struct Plan<'a> {
    /// Passes over the training set.
    pub epochs: usize,
    /// Images of a batch.
    pub batch: usize,
    /// The images, and the network for them.
    pub images: &'a Images,
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// Loss over the whole training set before the first epoch and after each.
    pub losses: Vec<f64>,
    /// Loss over the validation set, and share of it that is classified correctly, at the end.
    pub validation: (f64, f64),
    /// Share of the test set that is classified correctly, at the end.
    pub test_accuracy: f64,
    /// Seconds spent on gradients and steps, by epoch; evaluation is not counted.
    pub seconds: Vec<f64>,
    /// Number of parameters of the network.
    pub params: usize,
    /// Bytes that the optimizer holds.
    pub state_bytes: usize,
}

/// Trains a network with `method`; the same seed gives the same weights and batches to all. The rate
/// rises over a tenth of the steps, then falls along half a cosine.
pub fn train(method: &Method, lr: f64, plan: &Plan<'_>, seed: u32) -> eigenstep::Result<Run> {
    let Images { train, validation, test, widths } = plan.images;
    let mut network = Network::new(widths, &mut Random::new(seed, 1));
    let mut order: Vec<usize> = (0..train.len()).collect();
    let mut random = Random::new(seed, 2);
    let steps = (plan.epochs * order.len().div_ceil(plan.batch)) as u64;
    let mut opt = (method.build)(lr)?;
    let schedule = WarmupCosine {
        warmup: steps / 10,
        total: steps,
        warmup_from_one: true,
        ..WarmupCosine::default()
    };
    let mut scheduler = LrScheduler::new(schedule, opt.as_mut())?;
    let (mut losses, mut seconds) = (vec![network.evaluate(train).0], Vec::new());
    for _ in 0..plan.epochs {
        random.shuffle(&mut order);
        let start = Instant::now();
        for indices in order.chunks(plan.batch) {
            let gradient = network.gradient(&train.select(indices));
            opt.step(&mut network, &gradient)?;
            scheduler.step(opt.as_mut())?;
        }
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(network.evaluate(train).0);
    }
    Ok(Run {
        losses,
        validation: network.evaluate(validation),
        test_accuracy: network.evaluate(test).1,
        seconds,
        params: network.len(),
        state_bytes: opt.state_bytes().total(),
    })
}
