//! Everything that estimates from losses, in all forms of a step, and the ways in which a step can fail.

use eigenstep::optim::Optimizer;
use eigenstep::params::{Gradients, Parameters};
use eigenstep::prelude::*;
use eigenstep::state::{StateBytes, StateDict};
use eigenstep::zeroth_order::{
    Coordinate, DirectionSampler, Estimator, FiniteDifference, FitnessShaping, Fogzo,
    FogzoEstimator, Guided, Hizoo, IntTensor, IntegerQuzo, IntegerQuzoOptimizer, LayerScaled, Lozo,
    Mask, QuantizedNormal, Quzo, QuzoOptimizer, Random, ReplayedMomentum, Report, Slope, Sparse,
    Split, Spsa, SpsaEstimator, SubZero, ZerothOrder,
};
use eigenstep::{Error, Result};
use ndarray::{Array1, Array2};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A matrix and a vector.
#[derive(Clone, Debug)]
pub struct Model {
    weight: Array2<f32>,
    bias: Array1<f32>,
}

eigenstep::parameters!(Model { weight, bias }: f32);

impl Model {
    pub fn bits(&self) -> Vec<u32> {
        self.weight.iter().chain(&self.bias).map(|x| x.to_bits()).collect()
    }

    pub fn bits_are_finite(&self) -> bool {
        self.weight.iter().chain(&self.bias).all(|x| x.is_finite())
    }
}

pub fn model() -> Model {
    let x = |i: usize| crate::noise(3, i) as f32;
    Model {
        weight: Array2::from_shape_fn((5, 4), |(i, j)| x(4 * i + j)),
        bias: Array1::from_shape_fn(3, |i| x(i + 50)),
    }
}

pub fn loss(m: &Model) -> f64 {
    m.weight
        .iter()
        .chain(&m.bias)
        .enumerate()
        .map(|(i, &x)| f64::from(x).powi(2) * (1.0 + i as f64))
        .sum()
}

/// What a closure returns.
type Evaluated = Result<f64, String>;
type Loss<'l> = &'l mut dyn FnMut(&Model) -> Evaluated;

/// All that can be seen of the state.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    dicts: Vec<StateDict>,
    report: Option<Report>,
    tensors: usize,
}

/// One run.
pub trait Subject {
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()>;
    fn state(&mut self) -> State;
    /// Loads its own dict.
    fn reload(&mut self, what: &str);
    /// Makes the optimizer refuse the next step; `false` if there is none.
    fn refuse(&mut self, _panics: bool) -> bool {
        false
    }
    fn accept(&mut self) {}
}

/// The same run as often as one likes.
pub struct Twins {
    pub name: String,
    pub build: Box<dyn Fn() -> Box<dyn Subject>>,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Loss(f64),
    Error,
    Panic,
}

impl Fault {
    fn evaluate(self) -> Evaluated {
        match self {
            Self::Loss(loss) => Ok(loss),
            Self::Error => Err("as it should".into()),
            Self::Panic => panic!("as it should"),
        }
    }
}

/// Where a fault occurs.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Evaluation { at: usize, fault: Fault },
    All { fault: Fault },
    Optimizer { panics: bool },
}

impl Place {
    /// One step with the fault. An error stands for a panic, too.
    pub fn step(self, subject: &mut dyn Subject, model: &mut Model) -> Result<(), ()> {
        let mut calls = 0;
        let mut loss = |m: &Model| {
            calls += 1;
            match self {
                Self::Evaluation { at, fault } if at + 1 == calls => fault.evaluate(),
                Self::All { fault } => fault.evaluate(),
                _ => Ok(loss(m)),
            }
        };
        if let Self::Optimizer { panics } = self
            && !subject.refuse(panics)
        {
            return Err(());
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| subject.step(model, &mut loss)));
        subject.accept();
        if matches!(outcome, Ok(Ok(()))) { Ok(()) } else { Err(()) }
    }
}

/// An optimizer that refuses steps when told to.
pub struct Refusing {
    inner: Box<dyn Optimizer<f32>>,
    /// Steps until then, and whether it panics.
    refuses: Option<(usize, bool)>,
}

impl Refusing {
    pub fn new(inner: impl Optimizer<f32> + 'static) -> Self {
        Self { inner: Box::new(inner), refuses: None }
    }

    pub fn refuse_after(&mut self, steps: usize, panics: bool) {
        self.refuses = Some((steps, panics));
    }

    pub fn accept(&mut self) {
        self.refuses = None;
    }
}

impl Optimizer<f32> for Refusing {
    fn step(&mut self, params: &mut dyn Parameters<f32>, grads: &dyn Gradients<f32>) -> Result<()> {
        match &mut self.refuses {
            Some((0, true)) => panic!("as it should"),
            Some((0, false)) => return Err(Error::NonFiniteLoss(f64::NAN)),
            Some((steps, _)) => *steps -= 1,
            None => {}
        }
        self.inner.step(params, grads)
    }
    fn check_step(
        &mut self,
        params: &mut dyn Parameters<f32>,
        grads: &dyn Gradients<f32>,
    ) -> Result<bool> {
        self.inner.check_step(params, grads)
    }
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn num_groups(&self) -> usize {
        self.inner.num_groups()
    }
    fn option(&self, group: usize, name: &str) -> Option<f64> {
        self.inner.option(group, name)
    }
    fn set_option(&mut self, group: usize, name: &str, value: f64) -> Result<()> {
        self.inner.set_option(group, name, value)
    }
    fn state_bytes(&self) -> StateBytes {
        self.inner.state_bytes()
    }
    fn state_dict(&self) -> StateDict {
        self.inner.state_dict()
    }
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()> {
        self.inner.load_state_dict(state)
    }
}

fn adam() -> Refusing {
    Refusing::new(AdamW { lr: 1e-3, ..AdamW::default() }.build::<f32>().unwrap())
}

fn reload_own<E: Estimator<f32>>(estimator: &mut E, what: &str) {
    let dict = estimator.state_dict();
    estimator.load_state_dict(&dict).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(estimator.state_dict(), dict, "{what}");
}

fn state_of<E: Estimator<f32>>(estimator: &E, optimizer: Option<StateDict>) -> State {
    State {
        dicts: [estimator.state_dict()].into_iter().chain(optimizer).collect(),
        report: Some(estimator.report().clone()),
        tensors: estimator.segments().len(),
    }
}

impl<E: Estimator<f32>> Subject for ZerothOrder<f32, E, Refusing> {
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()> {
        ZerothOrder::step(self, model, |m: &mut Model| loss(m)).map(drop)
    }
    fn state(&mut self) -> State {
        state_of(&self.estimator, Some(self.optimizer.state_dict()))
    }
    fn reload(&mut self, what: &str) {
        reload_own(&mut self.estimator, what);
    }
    fn refuse(&mut self, panics: bool) -> bool {
        self.optimizer.refuse_after(0, panics);
        true
    }
    fn accept(&mut self) {
        self.optimizer.accept();
    }
}

/// Another form of a step of the same pair.
struct Other<E, F>(ZerothOrder<f32, E, Refusing>, F);

impl<E: Estimator<f32>, F> Subject for Other<E, F>
where
    F: FnMut(&mut ZerothOrder<f32, E, Refusing>, &mut Model, Loss<'_>) -> Result<()>,
{
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()> {
        (self.1)(&mut self.0, model, loss)
    }
    fn state(&mut self) -> State {
        self.0.state()
    }
    fn reload(&mut self, what: &str) {
        self.0.reload(what);
    }
    fn refuse(&mut self, panics: bool) -> bool {
        self.0.refuse(panics)
    }
    fn accept(&mut self) {
        self.0.accept();
    }
}

/// The caller evaluates. What was asked is told in a second try if the first is refused, or cancelled.
fn ask_and_tell<E: Estimator<f32>>(
    pair: &mut ZerothOrder<f32, E, Refusing>,
    model: &mut Model,
    loss: Loss<'_>,
) -> Result<()> {
    let probes = pair.estimator.ask(model)?;
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let evaluate = |probe| {
            let mut copy = model.clone();
            pair.estimator.perturb(probe, &mut copy)?;
            loss(&copy).map_err(|text| Error::Closure(text.into()))
        };
        (0..probes).map(evaluate).collect::<Result<Vec<f64>>>()
    }));
    let losses = match evaluated {
        Ok(Ok(losses)) => losses,
        failed => {
            pair.estimator.cancel();
            failed.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
        }
    };
    // neither a wrong number of losses nor a second question ends the step
    assert!(pair.estimator.tell(&losses[1..]).is_err());
    if pair.estimator.tell(&losses).is_err() {
        pair.estimator.ask(model)?;
        let error = pair.estimator.tell(&losses).map(drop);
        pair.estimator.cancel();
        return error;
    }
    pair.estimator.undo();
    pair.estimator.ask(model)?;
    let estimate = pair.estimator.tell(&losses)?;
    let optimizer = &mut pair.optimizer;
    let stepped = catch_unwind(AssertUnwindSafe(|| optimizer.step(model, &estimate)));
    drop(estimate);
    if !matches!(stepped, Ok(Ok(()))) {
        pair.estimator.undo();
    }
    stepped.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Three workers; all losses come from a list, so that their order does not matter.
fn parallel<E: Estimator<f32>>(
    pair: &mut ZerothOrder<f32, E, Refusing>,
    model: &mut Model,
    loss: Loss<'_>,
) -> Result<()> {
    let mut workers = vec![model.clone(), model.clone(), model.clone()];
    // the closure of the caller is not for threads: what it says of every point is found out before
    let probes = pair.estimator.ask(model)?;
    let mut points = Vec::new();
    for probe in 0..probes {
        let mut copy = model.clone();
        pair.estimator.perturb(probe, &mut copy)?;
        let said = catch_unwind(AssertUnwindSafe(|| loss(&copy)));
        points.push((copy.bits(), said.map_err(|_| ())));
    }
    pair.estimator.cancel();
    let points = &points;
    let evaluate = move |m: &Model| -> Evaluated {
        let bits = m.bits();
        let said = points.iter().find(|(known, _)| *known == bits).unwrap();
        said.1.clone().unwrap_or_else(|()| panic!("as it should"))
    };
    pair.step_parallel(model, &mut workers, evaluate).map(drop)
}

struct FogzoRun(FogzoEstimator<f32>, Refusing);

impl Subject for FogzoRun {
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()> {
        let given = Model { weight: model.weight.mapv(|x| 2.0 * x), bias: model.bias.clone() };
        let estimate = self.0.estimate(model, &given, |m: &mut Model| loss(m))?;
        let stepped = catch_unwind(AssertUnwindSafe(|| self.1.step(model, &estimate)));
        drop(estimate);
        if !matches!(stepped, Ok(Ok(()))) {
            self.0.inner().undo();
        }
        stepped.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
    fn state(&mut self) -> State {
        state_of(self.0.inner(), Some(self.1.state_dict()))
    }
    fn reload(&mut self, what: &str) {
        reload_own(self.0.inner(), what);
    }
    fn refuse(&mut self, panics: bool) -> bool {
        self.1.refuse_after(0, panics);
        true
    }
    fn accept(&mut self) {
        self.1.accept();
    }
}

struct Conservative<S: DirectionSampler>(SpsaEstimator<f32, S>);

impl<S: DirectionSampler> Subject for Conservative<S> {
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()> {
        self.0.step_conservatively(1e-3, model, |m: &mut Model| loss(m)).map(drop)
    }
    fn state(&mut self) -> State {
        state_of(&self.0, None)
    }
    fn reload(&mut self, what: &str) {
        reload_own(&mut self.0, what);
    }
}

struct QuzoRun(QuzoOptimizer<f32>);

impl Subject for QuzoRun {
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()> {
        if self.0.scales().is_empty() {
            let scales = ["weight", "bias"].map(|name| (name.to_owned(), 0.01));
            let fresh = Quzo { lr: 1e-3, epsilon: 0.1, ..Quzo::default() };
            self.0 = fresh.build().unwrap().with_scales(scales.into()).unwrap();
        }
        self.0.step(model, |m: &mut Model| loss(m)).map(drop)
    }
    fn state(&mut self) -> State {
        state_of(self.0.estimator(), None)
    }
    fn reload(&mut self, what: &str) {
        reload_own(self.0.estimator(), what);
    }
}

struct IntegerRun(IntegerQuzoOptimizer);

impl Subject for IntegerRun {
    /// The model is the codes.
    fn step(&mut self, model: &mut Model, loss: Loss<'_>) -> Result<()> {
        let code = |x: &f32| (x * 10.0).round() as i8;
        let codes = model.weight.iter().chain(&model.bias).map(code).collect();
        let mut tensors = [IntTensor::new(&[23], 0.1, codes)?];
        let before = tensors.clone();
        let read = |tensors: &[IntTensor]| {
            let mut values = tensors[0].codes().iter().map(|&code| f32::from(code) / 10.0);
            let mut next = || values.next().unwrap();
            Model {
                weight: Array2::from_shape_simple_fn((5, 4), &mut next),
                bias: Array1::from_shape_simple_fn(3, next),
            }
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.0.step(&mut tensors, |t| loss(&read(t))).map(drop)
        }));
        match &outcome {
            Ok(Ok(())) => *model = read(&tensors),
            // the model is not on the grid
            _ => assert!(tensors == before),
        }
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
    fn state(&mut self) -> State {
        State { dicts: vec![self.0.state_dict()], report: None, tensors: 1 }
    }
    fn reload(&mut self, what: &str) {
        let dict = self.0.state_dict();
        self.0.load_state_dict(&dict).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

fn forms<E: Estimator<f32> + 'static>(
    name: &str,
    f: &mut dyn FnMut(Twins),
    build: impl Fn() -> E + Clone + 'static,
) {
    let pair = move || ZerothOrder::new(build(), adam());
    let (one, two, three) = (pair.clone(), pair.clone(), pair);
    f(Twins { name: name.to_owned(), build: Box::new(move || Box::new(one())) });
    let name_of = |form: &str| format!("{name}, {form}");
    let told = move || -> Box<dyn Subject> { Box::new(Other(two(), ask_and_tell::<E>)) };
    f(Twins { name: name_of("ask and tell"), build: Box::new(told) });
    let threads = move || -> Box<dyn Subject> { Box::new(Other(three(), parallel::<E>)) };
    f(Twins { name: name_of("parallel"), build: Box::new(threads) });
}

/// With an average, and factors that change after two steps.
fn lozo() -> Lozo {
    Lozo { momentum: 0.9, interval: 2, ..Lozo::default() }
}

/// Every estimator with every law of directions.
pub fn each_subject(f: &mut dyn FnMut(Twins)) {
    macro_rules! samplers {
        ($($sampler:expr),* $(,)?) => {
            $({
                let spsa = || Spsa { num_samples: 2, ..Spsa::with_sampler($sampler) };
                forms(stringify!($sampler), f, move || spsa().build::<f32>().unwrap());
                let conservative = move || -> Box<dyn Subject> {
                    Box::new(Conservative(spsa().build().unwrap()))
                };
                let name = format!("{}, conservative", stringify!($sampler));
                f(Twins { name, build: Box::new(conservative) });
            })*
        };
    }
    samplers!(
        Random::Rademacher,
        Random::Gaussian,
        Random::Sphere,
        Random::ScaledSphere,
        Random::BlockSphere,
        Sparse::default(),
        Sparse { sampler: Random::Gaussian, mask: Mask::Random { sparsity: 0.5 } },
        LayerScaled::default(),
        Lozo { interval: 2, ..Lozo::default() },
        lozo(),
        SubZero { rank: 2, interval: 2, ..SubZero::default() },
        Hizoo { alpha: 0.1, centered: false },
        Hizoo { alpha: 0.1, centered: true },
        QuantizedNormal::default(),
        ReplayedMomentum { momentum: 0.5, floor: 0.3, ..ReplayedMomentum::default() },
        Guided::default(),
        Split::new(Select::ndim(2..), lozo(), Hizoo { alpha: 0.1, centered: true }),
        Sparse { sampler: ReplayedMomentum::default(), mask: Mask::SmallWeights { density: 0.5 } },
    );
    type Change = fn(&mut Spsa<Lozo>);
    let changes: [(&str, Change); 4] = [
        ("forward", |spsa| spsa.difference = FiniteDifference::Forward),
        ("signs", |spsa| spsa.slope = Slope::Sign),
        ("clipped", |spsa| spsa.clip = 1e3),
        ("ranks", |spsa| spsa.shaping = FitnessShaping::CenteredRank),
    ];
    for (name, change) in changes {
        forms(name, f, move || {
            let mut spsa = Spsa { num_samples: 2, ..Spsa::with_sampler(lozo()) };
            change(&mut spsa);
            spsa.build::<f32>().unwrap()
        });
    }
    for non_finite in [NonFinite::Skip, NonFinite::Propagate] {
        forms(&format!("{non_finite:?}"), f, move || {
            Spsa { non_finite, ..Spsa::with_sampler(lozo()) }.build::<f32>().unwrap()
        });
    }
    for difference in [FiniteDifference::Forward, FiniteDifference::Central] {
        let coordinate =
            move || Coordinate { difference, ..Coordinate::default() }.build::<f32>().unwrap();
        forms(&format!("coordinates, {difference:?}"), f, coordinate);
        let frozen = move || -> Box<dyn Subject> {
            Box::new(Other(
                ZerothOrder::new(coordinate(), adam()),
                |pair: &mut ZerothOrder<_, _, _>, model: &mut Model, loss: Loss<'_>| {
                    pair.step_frozen(model, |m: &mut Model| loss(m)).map(drop)
                },
            ))
        };
        f(Twins { name: format!("frozen, {difference:?}"), build: Box::new(frozen) });
    }
    let one_block = move || -> Box<dyn Subject> {
        let spsa = Spsa::with_sampler(lozo()).build::<f32>().unwrap();
        Box::new(Other(
            ZerothOrder::new(spsa, adam()),
            |pair: &mut ZerothOrder<_, _, _>, model: &mut Model, loss: Loss<'_>| {
                let blocks = [Select::name("weight")];
                pair.step_blockwise(model, &blocks, |m: &mut Model| loss(m)).map(drop)
            },
        ))
    };
    f(Twins { name: "one block".into(), build: Box::new(one_block) });
    let fogzo = || -> Box<dyn Subject> {
        Box::new(FogzoRun(Fogzo { beta_min: 0.5, ..Fogzo::default() }.build().unwrap(), adam()))
    };
    f(Twins { name: "Fogzo".into(), build: Box::new(fogzo) });
    let quzo = || -> Box<dyn Subject> {
        {
            // the grid comes with the first step; the options are the same
            let config = Quzo { lr: 1e-3, epsilon: 0.1, ..Quzo::default() };
            Box::new(QuzoRun(config.build().unwrap()))
        }
    };
    f(Twins { name: "Quzo".into(), build: Box::new(quzo) });
    let integers = || -> Box<dyn Subject> {
        Box::new(IntegerRun(
            IntegerQuzo { lr: 1e-4, num_samples: 2, ..IntegerQuzo::default() }.build().unwrap(),
        ))
    };
    f(Twins { name: "IntegerQuzo".into(), build: Box::new(integers) });
}
