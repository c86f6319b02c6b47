//! Saved and loaded, a run goes on bit for bit; so does one that is replayed from its losses.

use crate::noise;
use eigenstep::prelude::*;
use eigenstep::state::{Scalar, StateTensor};
use eigenstep::zeroth_order::{
    ActiveSet, Coordinate, DirectionSampler, Estimator, FiniteDifference, Hizoo, LayerScaled,
    LayerScales, LossLog, Lozo, Mask, QuantizedNormal, Random, ReplayedMomentum, Sparse, Split,
    Spsa, SpsaEstimator, SubZero, ZerothOrder,
};
use ndarray::{Array1, Array2};

type Model = (Array2<f64>, Array1<f64>);

fn model() -> Model {
    let matrix = Array2::from_shape_fn((6, 5), |(i, j)| noise(1, 5 * i + j));
    (matrix, Array1::from_shape_fn(7, |i| noise(2, i)))
}

fn loss(m: &Model) -> f64 {
    let all = m.0.iter().chain(&m.1).enumerate();
    all.map(|(i, x)| (1.0 + (i % 3) as f64) * x * x + 0.3 * x).sum()
}

fn bits(m: &Model) -> Vec<u64> {
    m.0.iter().chain(&m.1).map(|x| x.to_bits()).collect()
}

/// Plain descent: whatever is remembered is the estimator's.
fn descend<E: Estimator<f64>>(estimator: &mut E, w: &mut Model, steps: u64) {
    let mut opt = Sgd { lr: 1e-3, ..Sgd::default() }.build().unwrap();
    for _ in 0..steps {
        let estimate = estimator.estimate(w, |m: &mut Model| loss(m)).unwrap();
        opt.step(w, &estimate).unwrap();
    }
}

fn goes_on<E: Estimator<f64>>(what: &str, make: impl Fn() -> E, other: impl Fn() -> E) {
    for stop in [0, 1, 4, 5, 7] {
        let (mut whole, mut w) = (make(), model());
        descend(&mut whole, &mut w, stop);
        let dict = whole.state_dict();
        let mut copy = w.clone();
        descend(&mut whole, &mut w, 9);
        // into a fresh one, into one with another seed, and into one that has run
        let mut used = make();
        descend(&mut used, &mut model(), 3);
        for (which, mut resumed) in [("fresh", make()), ("other", other()), ("used", used)] {
            resumed.load_state_dict(&dict).unwrap();
            assert_eq!(resumed.steps(), stop);
            assert_eq!(resumed.state_dict(), dict, "{what}, {which}, {stop}");
            let mut again = copy.clone();
            descend(&mut resumed, &mut again, 9);
            assert_eq!(bits(&again), bits(&w), "{what}, {which}, after {stop}");
            assert_eq!(resumed.state_dict(), whole.state_dict());
        }
        copy = model();
        assert_ne!(bits(&copy), bits(&w));
    }
}

fn sampler_goes_on<S: DirectionSampler + Clone>(sampler: S) {
    let make = |seed| {
        let sampler = sampler.clone();
        move || -> SpsaEstimator<f64, S> {
            let config = Spsa { num_samples: 2, seed, ..Spsa::with_sampler(sampler.clone()) };
            config.build().unwrap()
        }
    };
    goes_on(S::NAME, make(u64::MAX - 5), make(1));
}

#[test]
fn every_sampler_goes_on_bit_for_bit() {
    sampler_goes_on(Random::Rademacher);
    sampler_goes_on(Random::Gaussian);
    sampler_goes_on(Random::Sphere);
    sampler_goes_on(Random::ScaledSphere);
    sampler_goes_on(Random::BlockSphere);
    sampler_goes_on(Sparse {
        sampler: Random::Gaussian,
        mask: Mask::SmallWeights { density: 0.4 },
    });
    sampler_goes_on(Sparse { sampler: Random::Gaussian, mask: Mask::Random { sparsity: 0.4 } });
    sampler_goes_on(LayerScaled::<Random>::default());
    sampler_goes_on(Lozo { interval: 5, ..Lozo::default() });
    sampler_goes_on(Lozo { interval: 5, momentum: 0.7, ..Lozo::default() });
    sampler_goes_on(Lozo { interval: 1, momentum: 0.7, ..Lozo::default() });
    sampler_goes_on(SubZero { rank: 2, interval: 5, rescale: true });
    sampler_goes_on(Hizoo { alpha: 0.2, centered: false });
    sampler_goes_on(Hizoo { alpha: 0.2, centered: true });
    sampler_goes_on(QuantizedNormal::default());
    for sampler in [Random::Rademacher, Random::Sphere] {
        sampler_goes_on(ReplayedMomentum { sampler, momentum: 0.5, floor: 0.1 });
    }
    let momentum = Lozo { interval: 5, momentum: 0.7, ..Lozo::default() };
    let curvature = Hizoo { alpha: 0.2, centered: false };
    sampler_goes_on(Split::new(Select::ndim(2..), momentum, curvature));
    sampler_goes_on(Split::new(Select::ndim(2..), Random::Sphere, ReplayedMomentum::default()));
    let sampler = Lozo { interval: 5, momentum: 0.7, ..Lozo::default() };
    let LayerScaled { scales, unbiased, .. } = scaled();
    sampler_goes_on(LayerScaled { sampler, scales, unbiased });
    sampler_goes_on(LayerScaled { sampler: Hizoo { alpha: 0.2, centered: false }, ..scaled() });
}

fn scaled() -> LayerScaled<Hizoo> {
    let plain = LayerScaled::<Random>::default();
    LayerScaled { sampler: Hizoo::default(), scales: plain.scales, unbiased: plain.unbiased }
}

/// Scales of one change nothing, momentum included.
#[test]
fn scaled_laws_keep_their_averages() {
    let sampler = Lozo { momentum: 0.7, ..Lozo::default() };
    let scales = LayerScales::Given([].into());
    let mut plain = Spsa::with_sampler(sampler).build::<f64>().unwrap();
    let mut scaled =
        Spsa::with_sampler(LayerScaled { sampler, scales, unbiased: true }).build().unwrap();
    let (mut a, mut b) = (model(), model());
    descend(&mut plain, &mut a, 5);
    descend(&mut scaled, &mut b, 5);
    assert_eq!(bits(&a), bits(&b));
}

#[test]
fn drawn_coordinates_go_on_bit_for_bit() {
    let make = |seed| {
        let config =
            Coordinate { seed, difference: FiniteDifference::Central, ..Coordinate::default() };
        let mut estimator = config.build::<f64>().unwrap();
        estimator.set_active(ActiveSet::Pruned([("0".to_owned(), 0.7)].into())).unwrap();
        estimator
    };
    let (mut whole, mut w) = (make(3), model());
    let mut sets = Vec::new();
    for _ in 0..3 {
        whole.redraw();
        descend(&mut whole, &mut w, 2);
        sets.push(whole.active().to_vec());
    }
    assert!(sets[0] != sets[1] && sets[1] != sets[2]);
    let (dict, mut copy) = (whole.state_dict(), w.clone());
    let mut resumed = make(4);
    resumed.load_state_dict(&dict).unwrap();
    for _ in 0..2 {
        descend(&mut whole, &mut w, 2);
        descend(&mut resumed, &mut copy, 2);
        assert_eq!(whole.active(), resumed.active());
        assert_eq!(bits(&w), bits(&copy));
        whole.redraw();
        resumed.redraw();
    }
}

/// The dict is refused, and nothing has changed.
fn refused<E: Estimator<f64>>(estimator: &mut E, key: &str, dict: &StateDict) {
    let before = estimator.state_dict();
    match estimator.load_state_dict(dict) {
        Err(Error::StateDict { key: found, .. }) => assert!(found.contains(key), "{found}"),
        other => panic!("{key}: {other:?}"),
    }
    assert_eq!(estimator.state_dict(), before, "{key}");
}

fn changed(dict: &StateDict, change: impl FnOnce(&mut StateDict)) -> StateDict {
    let mut dict = dict.clone();
    change(&mut dict);
    dict
}

/// What is wrong for every estimator.
fn refuses_common_faults<E: Estimator<f64>>(estimator: &mut E) {
    let dict = estimator.state_dict();
    refused(estimator, "version", &changed(&dict, |d| d.version += 1));
    refused(estimator, "optimizer", &changed(&dict, |d| d.optimizer = "Adam".into()));
    for key in ["estimator.seed", "estimator.step"] {
        refused(estimator, key, &changed(&dict, |d| drop(d.scalars.remove(key))));
        let text = Scalar::Text("x".into());
        refused(estimator, key, &changed(&dict, |d| drop(d.scalars.insert(key.into(), text))));
    }
    let mut set = |key: &str, text: &str| {
        let text = Scalar::Text(text.into());
        let key_or_first = if key == "tensors.2.name" { "tensors" } else { key };
        refused(
            estimator,
            key_or_first,
            &changed(&dict, |d| drop(d.scalars.insert(key.into(), text))),
        );
    };
    set("tensors.0.name", "other");
    set("tensors.1.shape", "8");
    set("tensors.0.shape", "6,5,x");
    set("tensors.0.shape", "99999999999,99999999999");
    set("tensors.2.name", "more");
    for key in ["tensors.0.name", "tensors.1.name", "tensors.1.shape"] {
        refused(estimator, key, &changed(&dict, |d| drop(d.scalars.remove(key))));
    }
    let extra = changed(&dict, |d| drop(d.scalars.insert("law.more".into(), Scalar::Int(1))));
    refused(estimator, "law.more", &extra);
}

fn run<S: DirectionSampler>(sampler: S) -> SpsaEstimator<f64, S> {
    let mut estimator = Spsa::with_sampler(sampler).build().unwrap();
    descend(&mut estimator, &mut model(), 3);
    estimator
}

#[test]
fn dicts_that_do_not_fit_change_nothing() {
    let mut random = run(Random::Rademacher);
    refuses_common_faults(&mut random);
    // one that knows no tensors does not overlook what is missing either
    let short = changed(&random.state_dict(), |d| drop(d.scalars.remove("tensors.1.name")));
    refused(&mut Spsa::default().build().unwrap(), "tensors.1.name", &short);
    // nor does it take tensors that no memory can hold
    let long = changed(&random.state_dict(), |d| {
        for key in ["tensors.0.shape", "tensors.1.shape"] {
            d.scalars.insert(key.into(), Scalar::Text((1u64 << 59).to_string()));
        }
    });
    refused(&mut Spsa::default().build().unwrap(), "tensors.1.shape", &long);
    let mut coordinate = Coordinate::default().build().unwrap();
    descend(&mut coordinate, &mut model(), 1);
    refuses_common_faults(&mut coordinate);
    let dict = coordinate.state_dict();
    let key = "estimator.draw";
    refused(&mut coordinate, key, &changed(&dict, |d| drop(d.scalars.remove(key))));
    let foreign = run(Random::Rademacher).state_dict();
    refused(&mut coordinate, "optimizer", &foreign);

    let mut hizoo = run(Hizoo { alpha: 0.3, centered: false });
    refuses_common_faults(&mut hizoo);
    refused(&mut hizoo, "estimator.law", &foreign);
    let dict = hizoo.state_dict();
    let key = "law.hessian.1";
    for bad in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
        let mut h = [1.0; 7];
        h[3] = bad;
        let tensor = StateTensor::new(&[7], &h);
        refused(&mut hizoo, key, &changed(&dict, |d| drop(d.tensors.insert(key.into(), tensor))));
    }
    for tensor in [
        StateTensor::new(&[6], &[1.0f64; 6]),
        StateTensor::codes(&[1; 7]),
        StateTensor { bytes: vec![0; 3], ..StateTensor::new(&[7], &[1.0f64; 7]) },
    ] {
        refused(&mut hizoo, key, &changed(&dict, |d| drop(d.tensors.insert(key.into(), tensor))));
    }
    refused(&mut hizoo, key, &changed(&dict, |d| drop(d.tensors.remove(key))));

    let mut lozo = run(Lozo { momentum: 0.5, ..Lozo::default() });
    refuses_common_faults(&mut lozo);
    let dict = lozo.state_dict();
    let key = "law.momentum.0";
    refused(&mut lozo, key, &changed(&dict, |d| drop(d.tensors.remove(key))));
    let tensor = StateTensor::new(&[2], &[1.0f64; 2]);
    refused(&mut lozo, key, &changed(&dict, |d| drop(d.tensors.insert(key.into(), tensor))));
    let key = "law.epoch";
    for bad in [Scalar::Text("x".into()), Scalar::Int(-1)] {
        refused(&mut lozo, key, &changed(&dict, |d| drop(d.scalars.insert(key.into(), bad))));
    }

    let mut sparse = run(Sparse::default());
    let dict = sparse.state_dict();
    let key = "law.thresholds";
    refused(&mut sparse, key, &changed(&dict, |d| drop(d.tensors.remove(key))));
}

fn replayed(optimizer: impl Fn() -> Box<dyn Optimizer<f64>>) {
    let pair = || {
        let config = Spsa { num_samples: 2, ..Spsa::with_sampler(Random::Gaussian) };
        ZerothOrder::new(config.build::<f64>().unwrap(), optimizer())
    };
    let (mut live, mut w, mut log) = (pair(), model(), LossLog::default());
    assert!(log.is_empty());
    for step in 0..30 {
        live.optimizer.set_lr(0, 1e-3 * (1.0 - f64::from(step) / 40.0)).unwrap();
        let report = live.step(&mut w, |m: &mut Model| loss(m)).unwrap().clone();
        log.record(&report, &live.optimizer);
    }
    assert_eq!(log.len(), 30);
    let bytes = log.to_bytes();
    // a step, two counts, four losses, one rate
    assert_eq!(bytes.len(), 30 * (8 + 8 + 8 * 5));
    assert_eq!(LossLog::from_bytes(&bytes).unwrap(), log);
    let (mut again, mut fresh) = (model(), pair());
    log.replay(&mut fresh.estimator, &mut fresh.optimizer, &mut again).unwrap();
    assert_eq!(bits(&again), bits(&w));
    assert_eq!(fresh.estimator.state_dict(), live.estimator.state_dict());
    assert_eq!(fresh.optimizer.state_dict(), live.optimizer.state_dict());
    // both go on together
    live.step(&mut w, |m: &mut Model| loss(m)).unwrap();
    fresh.step(&mut again, |m: &mut Model| loss(m)).unwrap();
    assert_eq!(bits(&again), bits(&w));
    // every end but that of a step
    for len in 0..bytes.len() {
        let outcome = LossLog::from_bytes(&bytes[..len]);
        match len.is_multiple_of(8 + 8 + 8 * 5) {
            true => assert_eq!(outcome.unwrap().len(), len / 56),
            false => assert!(matches!(outcome, Err(Error::LossLog { .. })), "{len}"),
        }
    }
}

#[test]
fn a_loss_log_is_the_run() {
    replayed(|| Box::new(Sgd { momentum: 0.9, ..Sgd::default() }.build().unwrap()));
    replayed(|| Box::new(AdamW::default().build().unwrap()));
    // counts that no memory could hold
    let mut bytes = vec![0; 8];
    bytes.extend([0xff; 8]);
    bytes.extend([0; 64]);
    assert!(matches!(LossLog::from_bytes(&bytes), Err(Error::LossLog { .. })));
}

#[test]
fn a_loss_log_of_another_run_is_refused() {
    let build = |num_samples| Spsa { num_samples, ..Spsa::default() }.build::<f64>().unwrap();
    let sgd = || Sgd { lr: 1e-3, ..Sgd::default() }.build::<f64>().unwrap();
    let (mut live, mut log) = (ZerothOrder::new(build(1), sgd()), LossLog::default());
    let report = live.step(&mut model(), |m: &mut Model| loss(m)).unwrap().clone();
    log.record(&report, &live.optimizer);
    let mut w = model();
    let error = log.replay(&mut live.estimator, &mut sgd(), &mut w).unwrap_err();
    assert!(matches!(error, Error::LossLog { .. }), "{error}");
    // other probes
    let error = log.replay(&mut build(2), &mut sgd(), &mut w).unwrap_err();
    assert!(matches!(error, Error::LossCount { expected: 4, found: 2, .. }), "{error}");
    let mut groups = sgd();
    groups.add_group(Select::name("1"), |sgd| sgd.lr = 1.0).unwrap();
    let error = log.replay(&mut build(1), &mut groups, &mut w).unwrap_err();
    assert!(matches!(error, Error::LossLog { .. }), "{error}");
    assert_eq!(w, model());
}
