//! Training with losses alone.

use crate::fixture::{Match::Bits, Match::Close, cases};
use crate::run::{Run, SMALL, Tensors, Training, Tree, load_tree, noise, save_tree, single, tree};
use eigenstep::Result;
use eigenstep::discrete::GeneticSearch;
use eigenstep::discrete::genetic::{Gene, Population};
use eigenstep::prelude::*;
use eigenstep::state::StateTensor;
use eigenstep::zeroth_order::{
    Coordinate, Estimator, Hizoo, IntTensor, IntegerQuzo, IntegerQuzoOptimizer, Lozo, Mask, Quzo,
    QuzoOptimizer, Random, Sparse, Spsa,
};
use std::collections::BTreeMap;

/// `+`, `·` and conversions in a fixed order: the same bits everywhere.
fn loss(model: &Tree<f32>) -> f64 {
    let numbers = model.values().flatten().map(|&x| f64::from(x));
    let term = |(i, x): (u64, f64)| (1 + i % 3) as f64 * x * x + noise(7, i) * x;
    (0..).zip(numbers).map(term).sum()
}

/// An estimator before an optimizer.
struct Pair<E> {
    estimator: E,
    training: Training<f32>,
}

fn pair<E: Estimator<f32>>(estimator: E, optimizer: impl Optimizer<f32> + 'static) -> Pair<E> {
    Pair { estimator, training: single(SMALL, optimizer) }
}

impl<E: Estimator<f32>> Run for Pair<E> {
    fn advance(&mut self, _: u64) {
        let Training { optimizer, parameters, .. } = &mut self.training;
        let estimate = self.estimator.estimate(parameters, |model| loss(model)).unwrap();
        optimizer.step(parameters, &estimate).unwrap();
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        let mut parts = self.training.save();
        parts.push(("estimator", self.estimator.state_dict()));
        parts
    }
    fn load(&mut self, part: &str, dict: &StateDict) -> Result<()> {
        match part {
            "estimator" => self.estimator.load_state_dict(dict),
            part => self.training.load(part, dict),
        }
    }
    fn parameters(&self) -> Tensors {
        self.training.parameters()
    }
    fn set_parameters(&mut self, tensors: &Tensors) {
        self.training.set_parameters(tensors);
    }
}

/// QuZO is estimator and optimizer in one.
struct Quantized {
    quzo: QuzoOptimizer<f32>,
    parameters: Tree<f32>,
}

fn quantized() -> Quantized {
    let scales: BTreeMap<_, _> =
        SMALL.iter().map(|(name, _)| ((*name).to_owned(), 0.0078125)).collect();
    let quzo = Quzo { lr: 1e-3, epsilon: 0.01, seed: 3, ..Quzo::default() }.build().unwrap();
    let (mut quzo, mut parameters) = (quzo.with_scales(scales).unwrap(), tree(1, SMALL));
    quzo.quantize(&mut parameters).unwrap();
    Quantized { quzo, parameters }
}

impl Run for Quantized {
    fn advance(&mut self, _: u64) {
        self.quzo.step(&mut self.parameters, |model| loss(model)).unwrap();
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        vec![("estimator", self.quzo.estimator().state_dict())]
    }
    fn load(&mut self, _: &str, dict: &StateDict) -> Result<()> {
        self.quzo.estimator().load_state_dict(dict)
    }
    fn parameters(&self) -> Tensors {
        save_tree(&self.parameters)
    }
    fn set_parameters(&mut self, tensors: &Tensors) {
        self.parameters = load_tree(tensors);
    }
}

/// Parameters that are integers.
struct Integers {
    optimizer: IntegerQuzoOptimizer,
    parameters: Vec<IntTensor>,
}

fn integers() -> Integers {
    let config = IntegerQuzo { lr: 0.01, seed: 3, ..IntegerQuzo::default() };
    let quantize = |leaf: ndarray::ArrayD<f64>| config.quantize(leaf.view()).unwrap();
    let parameters = tree(1, SMALL).into_values().map(quantize).collect();
    Integers { optimizer: config.build().unwrap(), parameters }
}

impl Run for Integers {
    fn advance(&mut self, _: u64) {
        let loss = |model: &[IntTensor]| -> f64 {
            let numbers = model.iter().flat_map(IntTensor::dequantize::<f64>);
            (0..).zip(numbers).map(|(i, x)| x * x + noise(7, i) * x).sum()
        };
        self.optimizer.step(&mut self.parameters, loss).unwrap();
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        vec![("optimizer", self.optimizer.state_dict())]
    }
    fn load(&mut self, _: &str, dict: &StateDict) -> Result<()> {
        self.optimizer.load_state_dict(dict)
    }
    fn parameters(&self) -> Tensors {
        let bytes = |codes: &[i8]| codes.iter().map(|&code| code as u8).collect::<Vec<u8>>();
        let tensor = |tensor: &IntTensor| StateTensor::codes(&bytes(tensor.codes()));
        let tensors = self.parameters.iter().enumerate();
        tensors.map(|(i, leaf)| (i.to_string(), tensor(leaf))).collect()
    }
    fn set_parameters(&mut self, tensors: &Tensors) {
        for (leaf, tensor) in self.parameters.iter_mut().zip(tensors.values()) {
            let codes = tensor.bytes.iter().map(|&code| code as i8).collect();
            *leaf = IntTensor::new(leaf.shape(), leaf.scale(), codes).unwrap();
        }
    }
}

/// Has no parameters but its state.
struct Genes(Population);

fn genes() -> Genes {
    let integer = Gene::Integer { low: -8, high: 7 };
    let real = Gene::Real { low: -1.0, high: 1.0, sigma: 0.25 };
    let search = GeneticSearch { elite: 3, offspring: 10, seed: 3, ..GeneticSearch::default() };
    Genes(search.build(vec![integer, integer, real, real]).unwrap())
}

impl Run for Genes {
    fn advance(&mut self, _: u64) {
        let term = |(i, x): (u64, &f64)| (x - noise(7, i)) * (x - noise(7, i));
        self.0.step(|candidate| (0..).zip(candidate).map(term).sum::<f64>()).unwrap();
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        vec![("population", self.0.state_dict())]
    }
    fn load(&mut self, _: &str, dict: &StateDict) -> Result<()> {
        self.0.load_state_dict(dict)
    }
    fn parameters(&self) -> Tensors {
        let parents = self.0.parents().enumerate();
        parents.map(|(i, (x, _))| (i.to_string(), StateTensor::new(&[x.len()], x))).collect()
    }
    fn set_parameters(&mut self, _: &Tensors) {}
}

fn sgd() -> Sgd {
    Sgd { lr: 1e-3, momentum: 0.9, ..Sgd::default() }
}

cases! {
    spsa, Bits => {
        let estimator = Spsa { seed: 3, ..Spsa::default() }.build().unwrap();
        pair(estimator, Sgd { lr: 1e-3, ..Sgd::default() }.build().unwrap())
    };
    coordinate, Bits => {
        let estimator = Coordinate { seed: 3, ..Coordinate::default() }.build().unwrap();
        pair(estimator, AdamW { lr: 0.02, ..AdamW::default() }.build().unwrap())
    };
    lozo, Close(1e-5) => {
        let sampler = Lozo { interval: 2, momentum: 0.7, ..Lozo::default() };
        pair(Spsa { seed: 3, ..Spsa::with_sampler(sampler) }.build().unwrap(), sgd().build().unwrap())
    };
    hizoo, Close(1e-5) => {
        let sampler = Hizoo { alpha: 0.2, centered: false };
        pair(Spsa { seed: 3, ..Spsa::with_sampler(sampler) }.build().unwrap(), sgd().build().unwrap())
    };
    sparse, Bits => {
        let sampler = Sparse { sampler: Random::Rademacher, mask: Mask::SmallWeights { density: 0.4 } };
        pair(Spsa { seed: 3, ..Spsa::with_sampler(sampler) }.build().unwrap(), sgd().build().unwrap())
    };
    quzo, Bits => quantized();
    quzo_lattice, Bits => integers();
    genetic, Close(1e-9) => genes();
}
