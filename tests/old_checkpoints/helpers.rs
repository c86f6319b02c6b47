//! What stands around an optimizer: schedulers, loss scaling, a guard, the factors of a layer.

use crate::fixture::{Match::Bits, Match::Close, cases};
use crate::run::{
    Run, SMALL, Tensors, Training, Tree, array, gradients, load_tree, save_tree, single,
};
use eigenstep::Result;
use eigenstep::curvature::LayerPreconditioner;
use eigenstep::gradient::{GradScaler, LossScaling, NormGuard, NormLimit};
use eigenstep::prelude::*;
use eigenstep::schedule::{PlateauScheduler, ReduceOnPlateau};
use ndarray::{Array2, Ix2};

/// Takes the optimizer's steps, or changes it after them.
trait Helper {
    fn step(&mut self, training: &mut Training<f32>, step: u64);
    fn dict(&self) -> StateDict;
    fn load(&mut self, dict: &StateDict) -> Result<()>;
}

macro_rules! helper {
    ($type:ty, |$helper:ident, $training:ident, $step:ident| $body:block) => {
        impl Helper for $type {
            fn step(&mut self, $training: &mut Training<f32>, $step: u64) {
                let $helper = self;
                $body
            }
            fn dict(&self) -> StateDict {
                self.state_dict()
            }
            fn load(&mut self, dict: &StateDict) -> Result<()> {
                self.load_state_dict(dict)
            }
        }
    };
}

helper!(LrScheduler, |scheduler, training, step| {
    training.advance(step);
    scheduler.step(&mut training.optimizer).unwrap();
});

helper!(PlateauScheduler, |scheduler, training, step| {
    training.advance(step);
    // the second and the third are not better, nor are the fifth and the sixth
    let loss = [1.0, 1.5, 1.2, 0.5, 0.6, 0.7, 0.4, 0.3][step as usize];
    scheduler.step(loss, &mut training.optimizer).unwrap();
});

helper!(GradScaler, |scaler, training, step| {
    let scale = scaler.current_scale() as f32;
    let mut scaled = gradients::<f32>(step, SMALL);
    scaled.values_mut().flatten().for_each(|g| *g *= scale);
    if step == 2 {
        scaled.get_mut("fc.bias").unwrap()[0] = f32::INFINITY;
    }
    scaler.step(&mut training.optimizer, &mut training.parameters, &scaled).unwrap();
    scaler.update().unwrap();
});

helper!(NormGuard, |guard, training, step| {
    let mut grads = gradients::<f32>(step, SMALL);
    if step % 5 == 3 {
        grads.values_mut().flatten().for_each(|g| *g *= 100.0);
    }
    guard.step(&mut training.optimizer, &mut training.parameters, &grads).unwrap();
});

struct Helped<H> {
    helper: H,
    training: Training<f32>,
}

impl<H: Helper> Run for Helped<H> {
    fn advance(&mut self, step: u64) {
        self.helper.step(&mut self.training, step);
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        let mut parts = self.training.save();
        parts.push(("helper", self.helper.dict()));
        parts
    }
    fn load(&mut self, part: &str, dict: &StateDict) -> Result<()> {
        match part {
            "helper" => self.helper.load(dict),
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

/// With a helper that is made for the optimizer.
fn helped<H>(make: impl FnOnce(&mut Box<dyn Optimizer<f32>>) -> Result<H>) -> Helped<H> {
    let sgd = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let mut training = single(SMALL, sgd.build().unwrap());
    Helped { helper: make(&mut training.optimizer).unwrap(), training }
}

/// K-FAC of one layer, and gradient descent along what it gives.
struct Layer {
    factors: LayerPreconditioner<f32>,
    weight: Array2<f32>,
}

fn layer() -> Layer {
    let kfac =
        LayerFactors { update_factors_every: 1, update_roots_every: 2, ..LayerFactors::kfac() };
    Layer { factors: kfac.build((12, 10)).unwrap(), weight: matrix(1, [12, 10]) }
}

fn matrix(seed: u64, shape: [usize; 2]) -> Array2<f32> {
    array(seed, &shape).into_dimensionality::<Ix2>().unwrap()
}

impl Run for Layer {
    fn advance(&mut self, step: u64) {
        let (inputs, outputs) = (matrix(2000 + step, [32, 10]), matrix(3000 + step, [32, 12]));
        self.factors.observe(&inputs, &outputs).unwrap();
        let mut direction = matrix(4000 + step, [12, 10]);
        self.factors.precondition(&mut direction).unwrap();
        self.weight.scaled_add(-0.05, &direction);
    }
    fn save(&mut self) -> Vec<(&'static str, StateDict)> {
        vec![("factors", self.factors.state_dict())]
    }
    fn load(&mut self, _: &str, dict: &StateDict) -> Result<()> {
        self.factors.load_state_dict(dict)
    }
    fn parameters(&self) -> Tensors {
        save_tree(&Tree::from([("weight".to_owned(), self.weight.clone().into_dyn())]))
    }
    fn set_parameters(&mut self, tensors: &Tensors) {
        let weight = load_tree::<f32>(tensors).remove("weight").unwrap();
        self.weight = weight.into_dimensionality().unwrap();
    }
}

cases! {
    lr_scheduler, Bits => {
        helped(|opt| LrScheduler::new(CosineAnnealing { t_max: 20, eta_min: 1e-3 }, opt))
    };
    plateau_scheduler, Bits => {
        let plateau = ReduceOnPlateau { factor: 0.5, patience: 1, ..ReduceOnPlateau::default() };
        helped(|opt| PlateauScheduler::new(plateau, opt))
    };
    grad_scaler, Bits => {
        let config = LossScaling { init_scale: 1024.0, growth_interval: 3, ..LossScaling::default() };
        helped(|_| GradScaler::new(config))
    };
    norm_guard, Bits => {
        helped(|_| NormGuard::new(NormLimit { warmup: 1, ..NormLimit::default() }))
    };
    layer_factors, Close(1e-5) => layer();
}
