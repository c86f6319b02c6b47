//! K-FAC, AdaBK and EKFAC for a network: what the factors of its layers do to its gradients.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/factors.rs"]
mod factors;
#[path = "support/noise.rs"]
mod noise;
#[path = "support/says.rs"]
mod says;
#[path = "support/threads.rs"]
mod threads;

#[path = "network_factors/inverses.rs"]
mod inverses;
#[path = "network_factors/layers.rs"]
mod layers;
#[path = "network_factors/state.rs"]
mod state;
#[path = "network_factors/steps.rs"]
mod steps;

use eigenstep::curvature::{
    KroneckerInverse, LayerSpec, LayerStats, LossReduction, NetworkFactors, NetworkPreconditioner,
};
use eigenstep::gradient::materialize;
use eigenstep::linalg::Damping;
use eigenstep::params::Gradients;
use eigenstep::prelude::*;
use eigenstep_instances as _;
use factors::{NAIVE4, close, eager, norm};
use ndarray::{Array1, Array2, ArrayD};
use std::collections::BTreeMap;

type Tree = BTreeMap<String, ArrayD<f64>>;

const STORAGES: [FactorStorage; 7] = [
    FactorStorage::Dense,
    FactorStorage::Double,
    NAIVE4,
    FactorStorage::Eigen,
    FactorStorage::EIGEN4,
    FactorStorage::EIGEN4_UNRECTIFIED,
    FactorStorage::CHOLESKY4,
];
const INVERSES: [KroneckerInverse; 4] = [
    KroneckerInverse::PerFactor,
    KroneckerInverse::Balanced,
    KroneckerInverse::Joint,
    KroneckerInverse::Ekfac,
];

fn kfac(damping: f64, inverse: KroneckerInverse) -> LayerFactors {
    let damping = Damping::absolute(damping);
    LayerFactors { damping, inverse, ..eager(LayerFactors::kfac()) }
}

/// A network of one linear layer without bias, `w`.
fn single(layer: LayerFactors, (m, n): (usize, usize)) -> NetworkPreconditioner<f64> {
    let network = NetworkFactors::new(layer).build().unwrap();
    network.with_layer(LayerSpec::linear("w", m, n)).unwrap()
}

/// A step of [`single`] with statistics of a summed loss.
fn advance(
    network: &mut NetworkPreconditioner<f64>,
    x: &Array2<f64>,
    y: &Array2<f64>,
    g: &Array2<f64>,
) -> Array2<f64> {
    network.observe(&LayerStats::new("w", x, y, LossReduction::Sum)).unwrap();
    direction(network, g)
}

fn direction(network: &mut NetworkPreconditioner<f64>, g: &Array2<f64>) -> Array2<f64> {
    let grads = Tree::from([("w".to_owned(), g.clone().into_dyn())]);
    matrix(&view(network, &grads)["w"])
}

/// The preconditioned gradients, copied.
fn view<G: Gradients<f64>>(network: &mut NetworkPreconditioner<f64>, grads: &G) -> Tree {
    materialize(&network.precondition(grads).unwrap()).unwrap()
}

fn matrix(x: &ArrayD<f64>) -> Array2<f64> {
    x.clone().into_dimensionality().unwrap()
}

/// The direction of one step.
fn once(layer: LayerFactors, x: &Array2<f64>, y: &Array2<f64>, g: &Array2<f64>) -> Array2<f64> {
    advance(&mut single(layer, g.dim()), x, y, g)
}

/// XᵀX/samples.
fn mean_gram(x: &Array2<f64>) -> Array2<f64> {
    x.t().dot(x) / x.nrows() as f64
}

/// Two layers with biases: its parameters, its loss and what statistics need.
struct Mlp {
    params: Tree,
    x: Array2<f64>,
    targets: Array2<f64>,
}

/// Inputs and output gradients of both layers, for a summed loss.
struct Backward {
    loss: f64,
    inputs: [Array2<f64>; 2],
    outputs: [Array2<f64>; 2],
    grads: Tree,
}

impl Mlp {
    fn new(samples: usize) -> Self {
        let tensor = |rows, columns, seed| noise::noise(rows, columns, seed) * 0.4;
        let bias = |n: usize| Array1::<f64>::zeros(n).into_dyn();
        let params = Tree::from([
            ("0.weight".into(), tensor(7, 5, 1).into_dyn()),
            ("0.bias".into(), bias(7)),
            ("1.weight".into(), tensor(3, 7, 2).into_dyn()),
            ("1.bias".into(), bias(3)),
        ]);
        Self { params, x: tensor(samples, 5, 3), targets: tensor(samples, 3, 4) }
    }

    fn specs() -> [LayerSpec; 2] {
        [
            LayerSpec::linear("0.weight", 7, 5).with_bias("0.bias"),
            LayerSpec::linear("1.weight", 3, 7).with_bias("1.bias"),
        ]
    }

    fn network(config: NetworkFactors) -> NetworkPreconditioner<f64> {
        let [first, second] = Self::specs();
        let network = config.build().unwrap();
        network.with_layer(first).unwrap().with_layer(second).unwrap()
    }

    /// The activations of both layers.
    fn forward(&self) -> [Array2<f64>; 2] {
        let parameter = |name: &str| self.params[name].view();
        let weight = |name| parameter(name).into_dimensionality::<ndarray::Ix2>().unwrap();
        let bias = |name| parameter(name).into_dimensionality::<ndarray::Ix1>().unwrap();
        let hidden = (self.x.dot(&weight("0.weight").t()) + bias("0.bias")).mapv(f64::tanh);
        let output = hidden.dot(&weight("1.weight").t()) + bias("1.bias");
        [hidden, output]
    }

    fn predictions(&self) -> Array2<f64> {
        let [_, output] = self.forward();
        output
    }

    /// The mean loss and its gradients; output gradients are those of the sum.
    fn backward(&self) -> Backward {
        let [hidden, output] = self.forward();
        let y = output - &self.targets;
        let dh = y.dot(&matrix(&self.params["1.weight"])) * hidden.mapv(|h| 1.0 - h * h);
        let samples = self.x.nrows() as f64;
        let sum = |d: &Array2<f64>| (d.sum_axis(ndarray::Axis(0)) / samples).into_dyn();
        let grads = Tree::from([
            ("0.weight".into(), (dh.t().dot(&self.x) / samples).into_dyn()),
            ("0.bias".into(), sum(&dh)),
            ("1.weight".into(), (y.t().dot(&hidden) / samples).into_dyn()),
            ("1.bias".into(), sum(&y)),
        ]);
        let loss = 0.5 * y.mapv(|y| y * y).sum() / samples;
        Backward { loss, inputs: [self.x.clone(), hidden], outputs: [dh, y], grads }
    }

    /// Shows a step's statistics.
    fn observe(network: &mut NetworkPreconditioner<f64>, backward: &Backward) {
        for (i, name) in ["0.weight", "1.weight"].into_iter().enumerate() {
            let (x, y) = (&backward.inputs[i], &backward.outputs[i]);
            network.observe(&LayerStats::new(name, x, y, LossReduction::Sum)).unwrap();
        }
    }

    /// Steps of gradient descent behind the network; the losses.
    fn train(
        &mut self,
        network: &mut NetworkPreconditioner<f64>,
        opt: &mut dyn Optimizer<f64>,
        steps: usize,
    ) -> Vec<f64> {
        let step = |_| {
            let backward = self.backward();
            if network.needs_stats() {
                Self::observe(network, &backward);
            }
            opt.step(&mut self.params, &network.precondition(&backward.grads).unwrap()).unwrap();
            backward.loss
        };
        (0..steps).map(step).collect()
    }
}
