//! The training loop of one run.

use crate::common::data::{CLASSES, Digits, Set};
use crate::common::network::{Activation, Network};
use crate::common::random::Random as Shuffle;
use crate::methods::{Kind, Method};
use eigenstep::Result;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    ActiveSet, Coordinate, CoordinateEstimator, FiniteDifference, Fogzo, FogzoEstimator, Grasp,
    Grid, Quzo, QuzoOptimizer, Random, Spsa, SpsaEstimator, StraightThrough, ZerothOrder,
};

/// Number of images in a batch.
const BATCH: usize = 64;

/// Widths of the network.
pub const WIDTHS: [usize; 3] = [16, 12, CLASSES];

/// Number of checkpoints at which a run is evaluated.
pub const CHECKPOINTS: usize = 20;

/// The cost of a forward and a backward pass, in evaluations.
const BACKWARD: usize = 3;

/// Number of epochs with the same active set.
const REDRAW: usize = 5;

/// The result of a run.
pub struct Run {
    /// The loss over the training set, before the first step and at every checkpoint.
    pub losses: Vec<f64>,
    /// The share of the test set that is classified correctly.
    pub accuracy: f64,
    /// The number of evaluations per step.
    pub cost: usize,
}

type Pair<E> = ZerothOrder<f32, E, Box<dyn Optimizer<f32>>>;

/// An optimizer, with an estimator if it needs one.
enum Trainer {
    Backward(Box<dyn Optimizer<f32>>),
    Coordinate(Pair<CoordinateEstimator<f32>>),
    Random(Pair<SpsaEstimator<f32, Random>>),
    Quzo(QuzoOptimizer<f32>),
    Rounded { grid: Grid, fogzo: Option<FogzoEstimator<f32>>, opt: Box<dyn Optimizer<f32>> },
}

fn sgd(lr: f64, momentum: f64) -> Result<Box<dyn Optimizer<f32>>> {
    Ok(Box::new(Sgd { lr, momentum, ..Sgd::default() }.build()?))
}

fn adamw(lr: f64) -> Result<Box<dyn Optimizer<f32>>> {
    Ok(Box::new(AdamW { lr, weight_decay: 0.0, ..AdamW::default() }.build()?))
}

impl Trainer {
    fn new(
        method: &Method,
        lr: f64,
        (start, digits): (&mut Network, &Digits),
        seed: u64,
        budget: usize,
    ) -> Result<Self> {
        Ok(match method.kind {
            Kind::Backward => Self::Backward(sgd(lr, 0.9)?),
            Kind::Coordinate { sparsity } => {
                let mut estimator = Coordinate { seed, ..Coordinate::default() }.build()?;
                if sparsity > 0.0 {
                    estimator
                        .set_active(ActiveSet::Pruned(ratios(start, digits, sparsity, seed)?))?;
                }
                Self::Coordinate(ZerothOrder::new(estimator, sgd(lr, 0.9)?))
            }
            Kind::MezoAdamW { num_samples } => {
                let spsa = Spsa { num_samples, seed, epsilon: 5e-3, ..Spsa::default() };
                Self::Random(ZerothOrder::new(spsa.build()?, adamw(lr)?))
            }
            Kind::MezoSgd { num_samples } => {
                let spsa = Spsa {
                    num_samples,
                    seed,
                    epsilon: 5e-3,
                    ..Spsa::with_sampler(Random::Gaussian)
                };
                Self::Random(ZerothOrder::new(spsa.build()?, sgd(lr, 0.0)?))
            }
            Kind::Quzo { num_samples, weights } => {
                let quzo =
                    Quzo { lr, num_samples, weights, seed, epsilon: 5e-3, ..Quzo::default() };
                // scales for twice the largest initial weight, so that weights can grow
                let mut opt = quzo.build()?;
                opt.quantize(&mut start.map_weights(|w| 2.0 * w))?;
                let scales = opt
                    .scales()
                    .clone()
                    .into_iter()
                    .map(|(name, scale)| (name, if scale > 0.0 { scale } else { 2.0 / 127.0 }));
                let mut opt = opt.with_scales(scales.collect())?;
                opt.quantize(start)?;
                Self::Quzo(opt)
            }
            Kind::Rounded { grid, num_samples } => {
                let steps = budget / (BACKWARD + 2 * num_samples);
                let fogzo = Fogzo {
                    alpha: grid.alpha,
                    straight_through: StraightThrough::Clipped,
                    num_samples: num_samples.max(1),
                    beta_min: 0.999,
                    total_steps: steps as u64,
                    seed,
                    ..Fogzo::default()
                };
                let fogzo = if num_samples > 0 { Some(fogzo.build()?) } else { None };
                Self::Rounded { grid, fogzo, opt: adamw(lr)? }
            }
        })
    }

    /// One step. Returns its cost in evaluations.
    fn step(&mut self, network: &mut Network, batch: &Set) -> Result<usize> {
        let loss = |network: &mut Network| network.loss(batch);
        match self {
            Self::Backward(opt) => {
                let gradient = network.gradient(batch);
                opt.step(network, &gradient)?;
                Ok(BACKWARD)
            }
            Self::Coordinate(pair) => Ok(pair.step(network, loss)?.evaluations()),
            Self::Random(pair) => Ok(pair.step(network, loss)?.evaluations()),
            Self::Quzo(opt) => Ok(opt.step(network, loss)?.report.evaluations()),
            Self::Rounded { grid, fogzo, opt } => {
                let grid = *grid;
                let gradient = straight_through(network, batch, grid);
                let Some(fogzo) = fogzo else {
                    opt.step(network, &gradient)?;
                    return Ok(BACKWARD);
                };
                let rounded = |network: &mut Network| {
                    network.map_weights(|w| StraightThrough::Clipped.forward(w, grid)).loss(batch)
                };
                let estimate = fogzo.estimate(network, &gradient, rounded)?;
                let evaluations = estimate.report().evaluations();
                opt.step(network, &estimate)?;
                Ok(BACKWARD + evaluations)
            }
        }
    }

    /// The network as it is used for inference: rounded, if the method rounds weights.
    fn used(&self, network: &Network) -> Network {
        match self {
            Self::Rounded { grid, .. } => {
                network.map_weights(|w| StraightThrough::Clipped.forward(w, *grid))
            }
            _ => network.clone(),
        }
    }
}

/// The straight-through gradient: that at the rounded weights, or 0 for a weight outside the grid.
fn straight_through(network: &Network, batch: &Set, grid: Grid) -> Network {
    let rounded = network.map_weights(|w| StraightThrough::Clipped.forward(w, grid));
    let mask = network.map_weights(|w| StraightThrough::Clipped.backward_factor(w, grid));
    rounded.gradient(batch).zip_weights(&mask, |gradient, factor| gradient * factor)
}

/// The share of every weight matrix that is to be pruned.
fn ratios(
    network: &mut Network,
    digits: &Digits,
    sparsity: f64,
    seed: u64,
) -> Result<std::collections::BTreeMap<String, f64>> {
    let (num_samples, difference, epsilon) = (192, FiniteDifference::Forward, 5e-3);
    let spsa =
        Spsa { num_samples, difference, epsilon, seed, ..Spsa::with_sampler(Random::Gaussian) };
    let loss = |network: &mut Network| network.loss(&digits.train);
    let weights = Select::name("*weight");
    Grasp::default().scores(&mut spsa.build()?, network, weights, loss)?.ratios(sparsity)
}

/// Trains a network. The same seed gives all methods the same initial weights and batches.
pub fn train(
    method: &Method,
    lr: f64,
    (digits, budget): (&Digits, usize),
    seed: u32,
) -> Result<Run> {
    let network = Network::new(&WIDTHS, &mut Shuffle::new(seed, 1));
    let mut network = network.with_activation(Activation::Tanh);
    let start = (&mut network, digits);
    let mut trainer = Trainer::new(method, lr, start, u64::from(seed), budget)?;
    let mut order: Vec<usize> = (0..digits.train.len()).collect();
    let mut random = Shuffle::new(seed, 2);
    let mut losses = vec![trainer.used(&network).loss(&digits.train)];
    let (mut spent, mut cost, mut epoch) = (0, 0, 0);
    while spent < budget {
        random.shuffle(&mut order);
        epoch += 1;
        if let (Trainer::Coordinate(pair), 1) = (&mut trainer, epoch % REDRAW) {
            pair.estimator.redraw();
        }
        for indices in order.chunks(BATCH) {
            if spent >= budget {
                break;
            }
            cost = trainer.step(&mut network, &digits.train.select(indices))?;
            spent += cost;
            while spent * CHECKPOINTS >= budget * losses.len() && losses.len() <= CHECKPOINTS {
                losses.push(trainer.used(&network).loss(&digits.train));
            }
        }
    }
    let accuracy = trainer.used(&network).evaluate(&digits.test).1;
    Ok(Run { losses, accuracy, cost })
}
