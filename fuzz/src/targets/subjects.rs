//! What state is loaded into: every optimizer in several precisions, wrappers, estimators.

// the configurations and data of the tests
#[path = "../../../tests/common/model.rs"]
#[allow(dead_code, unused_imports, clippy::unwrap_used)]
pub mod model;

use eigenstep::optim::Optimizer;
use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    Coordinate, DirectionSampler, Estimator, Hizoo, LayerScaled, Lozo, Mask, QuantizedNormal,
    Random as Law, ReplayedMomentum, Sparse, Split, Spsa, SubZero,
};
use model::{Leaf, Subject, all_bits, leaves, train_as};

/// Something that has a state.
pub trait Running {
    fn save(&self) -> StateDict;
    fn load(&mut self, state: &StateDict) -> Result<()>;
    /// One step; the error, if it is refused.
    fn advance(&mut self) -> Result<()>;
    /// The bits of the parameters.
    fn bits(&self) -> Vec<Vec<u8>>;
}

/// A name, and what makes a copy of one that has made two steps.
pub struct Prototype {
    pub name: String,
    pub saved: StateDict,
    pub fresh: Box<dyn Fn() -> Box<dyn Running>>,
}

type Model = Vec<Leaf<f32>>;

struct Trained<O> {
    opt: O,
    params: Model,
    curvature: bool,
}

impl<O: Optimizer<f32>> Running for Trained<O> {
    fn save(&self) -> StateDict {
        self.opt.state_dict()
    }
    fn load(&mut self, state: &StateDict) -> Result<()> {
        self.opt.load_state_dict(state)
    }
    fn advance(&mut self) -> Result<()> {
        let grads = model::gradients(7, &self.params);
        let inputs = model::Inputs::new(&grads, 1.5, self.curvature);
        self.opt.step(&mut self.params.as_mut_slice(), &inputs)
    }
    fn bits(&self) -> Vec<Vec<u8>> {
        all_bits(&self.params)
    }
}

/// Parameters of few elements, so that an execution takes microseconds; in low bits one that is large
/// enough for codes.
const SMALL: [&[usize]; 4] = [&[6, 5], &[4], &[2, 3, 4], &[]];
const CODED: [&[usize]; 3] = [&[64, 65], &[3], &[4097]];

fn optimizer(subject: Subject, found: &mut Vec<Prototype>) {
    for (busy, precision) in [
        (true, Precision::Full),
        (false, Precision::Full),
        (true, Precision::INT8_LINEAR),
        (true, Precision::INT4_LPMM),
    ] {
        let config = if busy { model::busy(&subject) } else { subject.config() };
        let shapes: &[&[usize]] = if precision == Precision::Full { &SMALL } else { &CODED };
        let opt: model::Opt<f32> = config.optimizer().expect("the tests' own");
        let mut opt = opt.with_state_precision(precision).expect("before the first step");
        let mut params = leaves(1, shapes);
        train_as(&subject, &mut opt, &mut params, 0..2);
        let saved = opt.state_dict();
        let fresh = move || -> Box<dyn Running> {
            let (opt, params) = (opt.clone(), params.clone());
            Box::new(Trained { opt, params, curvature: subject.reads_curvature() })
        };
        let name = format!("{} busy {busy} {precision:?}", subject.name);
        found.push(Prototype { name, saved, fresh: Box::new(fresh) });
    }
}

fn wrapped<O: Optimizer<f32> + 'static>(
    name: &str,
    found: &mut Vec<Prototype>,
    make: impl Fn() -> O + 'static,
) {
    let fresh = move || -> Trained<O> {
        let mut trained = Trained { opt: make(), params: leaves(1, &SMALL), curvature: false };
        (0..2).for_each(|_| trained.advance().expect("a step"));
        trained
    };
    let saved = fresh().save();
    found.push(Prototype { name: name.into(), saved, fresh: Box::new(move || Box::new(fresh())) });
}

struct Estimating<E> {
    estimator: E,
    params: Vec<Leaf<f64>>,
}

impl<E: Estimator<f64>> Running for Estimating<E> {
    fn save(&self) -> StateDict {
        self.estimator.state_dict()
    }
    fn load(&mut self, state: &StateDict) -> Result<()> {
        self.estimator.load_state_dict(state)
    }
    fn advance(&mut self) -> Result<()> {
        let loss = |params: &mut Vec<Leaf<f64>>| -> f64 {
            params.iter().flat_map(|leaf| &leaf.values).map(|x| x * x).sum()
        };
        self.estimator.estimate(&mut self.params, loss).map(drop)
    }
    fn bits(&self) -> Vec<Vec<u8>> {
        all_bits(&self.params)
    }
}

fn estimator<E: Estimator<f64> + 'static>(
    name: &str,
    found: &mut Vec<Prototype>,
    make: impl Fn() -> E + 'static,
) {
    let fresh = move || {
        let mut running = Estimating { estimator: make(), params: leaves(1, &SMALL) };
        (0..2).for_each(|_| running.advance().expect("a step"));
        running
    };
    let saved = fresh().save();
    found.push(Prototype { name: name.into(), saved, fresh: Box::new(move || Box::new(fresh())) });
}

fn sampler<S: DirectionSampler + Clone + 'static>(found: &mut Vec<Prototype>, sampler: S) {
    estimator(S::NAME, found, move || {
        let config = Spsa { num_samples: 2, ..Spsa::with_sampler(sampler.clone()) };
        config.build::<f64>().expect("a valid configuration")
    });
}

fn estimators(found: &mut Vec<Prototype>) {
    sampler(found, Law::Rademacher);
    sampler(found, Law::Sphere);
    sampler(found, Sparse { sampler: Law::Gaussian, mask: Mask::SmallWeights { density: 0.4 } });
    sampler(found, LayerScaled::<Law>::default());
    let lozo = Lozo { interval: 5, momentum: 0.7, ..Lozo::default() };
    sampler(found, lozo);
    sampler(found, SubZero { rank: 2, interval: 5, rescale: true });
    let hizoo = Hizoo { alpha: 0.2, centered: true };
    sampler(found, hizoo);
    sampler(found, QuantizedNormal::default());
    sampler(found, ReplayedMomentum::default());
    sampler(found, Split::new(Select::ndim(2..), lozo, hizoo));
    estimator("Coordinate", found, || {
        Coordinate::default().build::<f64>().expect("a valid configuration")
    });
}

pub fn all() -> Vec<Prototype> {
    let mut found = Vec::new();
    macro_rules! add {
        ($rule:ident) => {
            optimizer(model::named::$rule, &mut found);
        };
    }
    eigenstep::for_each_first_order!(add);
    eigenstep::for_each_second_order!(add);
    eigenstep::for_each_low_rank!(add);
    eigenstep::for_each_windowed!(add);
    eigenstep::for_each_error_feedback!(add);
    eigenstep_instances::for_each_composition!(add);
    wrapped("Lookahead", &mut found, || {
        Lookahead::new(AdamW::default().build::<f32>().expect("defaults"))
    });
    estimators(&mut found);
    found
}
