//! State: files, clones, bytes, threads, types of numbers.

use super::*;
use eigenstep::numeric::{Element, Real};
use eigenstep::state::Scalar;
use ndarray::Axis;
use noise::noise;
use says::says;
use threads::on_threads;

/// Everything that has state of its own, at intervals of its own.
fn configs() -> impl Iterator<Item = NetworkFactors> {
    STORAGES.into_iter().flat_map(|storage| {
        INVERSES.map(|inverse| {
            let layer = LayerFactors {
                storage,
                inverse,
                update_factors_every: 2,
                update_roots_every: 3,
                min_numel: 0,
                ..LayerFactors::kfac()
            };
            NetworkFactors { kl_clip: Some(1e-4), ..NetworkFactors::new(layer) }
        })
    })
}

#[test]
fn reload_and_clones_continue_bit_for_bit() {
    for config in configs() {
        let with_group = |config: &NetworkFactors| {
            Mlp::network(config.clone())
                .with_group(Select::name("1.*"), |options| options.exponent = 0.5)
                .unwrap()
        };
        let opt = || Sgd { lr: 0.1, ..Sgd::default() }.build::<f64>().unwrap();
        for stop in 0..6 {
            let (mut network, mut mlp) = (with_group(&config), Mlp::new(20));
            mlp.train(&mut network, &mut opt(), stop);
            network.set_option(1, "damping.relative", 0.2).unwrap();
            let mut again = with_group(&config);
            again.load_state_dict(&network.state_dict()).unwrap();
            let mut clone = network.clone();
            let run = |network: &mut NetworkPreconditioner<f64>| {
                let mut mlp = Mlp { params: mlp.params.clone(), ..Mlp::new(20) };
                mlp.train(network, &mut opt(), 4);
                mlp.params
            };
            let expected = run(&mut network);
            assert_eq!(run(&mut again), expected, "{config:?}, stopped after {stop}");
            assert_eq!(run(&mut clone), expected);
            assert_eq!(again.state_dict(), network.state_dict());
        }
    }
}

#[test]
fn dicts_that_do_not_fit_are_refused() {
    let config = NetworkFactors::new(kfac(0.1, KroneckerInverse::Ekfac));
    let mut network = Mlp::network(config.clone()).with_group(Select::name("1.*"), |_| {}).unwrap();
    Mlp::new(9).train(&mut network, &mut Sgd::default().build().unwrap(), 2);
    let before = network.state_dict();
    let mut refuses = |change: &dyn Fn(&mut StateDict), text: &str| {
        let mut dict = before.clone();
        change(&mut dict);
        says(network.load_state_dict(&dict), text);
        assert_eq!(network.state_dict(), before);
    };
    let remove = |key: &'static str| {
        move |dict: &mut StateDict| {
            assert!(dict.scalars.remove(key).is_some() || dict.tensors.remove(key).is_some());
        }
    };
    refuses(
        &|dict| dict.optimizer = "LayerFactors".into(),
        "state dict: `optimizer`: expected `NetworkFactors`, found `LayerFactors`",
    );
    refuses(&remove("network.steps"), "state dict: `network.steps`: is not a count");
    refuses(&remove("network.lr"), "state dict: `network.lr`: is missing");
    refuses(&remove("groups.1.exponent"), "state dict: `groups.1.exponent`: is missing");
    refuses(
        &|dict| drop(dict.scalars.insert("groups.0.exponent".into(), Scalar::Float(-1.0))),
        "state dict: `groups.0.exponent`: must be finite and > 0",
    );
    refuses(
        &|dict| drop(dict.scalars.insert("groups.1.select".into(), Scalar::Text("0.*".into()))),
        "state dict: `groups.1.select`: expected the selector `1.*`, found `0.*`",
    );
    refuses(
        &|dict| drop(dict.scalars.insert("groups.2.select".into(), Scalar::Text("0.*".into()))),
        "state dict: `groups.2.select`: unknown key: there is no such layer, group or option here",
    );
    let updates = "layers.1.weight.updates";
    refuses(&remove(updates), &format!("state dict: `{updates}`: is not a count"));
    let flag = "layers.0.weight.refreshed";
    refuses(&remove(flag), &format!("state dict: `{flag}`: is missing or no flag"));
    let moments = "layers.0.weight.moments";
    refuses(&remove(moments), &format!("state dict: `{moments}`: is missing"));
    let vectors = "layers.0.weight.factor1.inverse.eigenvectors";
    refuses(&remove(vectors), &format!("state dict: `{vectors}`: is missing"));
    // another network
    let [first, _] = Mlp::specs();
    let mut other = config.build::<f64>().unwrap().with_layer(first).unwrap();
    let error = other.load_state_dict(&before).unwrap_err().to_string();
    assert!(
        error.ends_with("unknown key: there is no such layer, group or option here"),
        "{error}"
    );
}

/// Layers and their products go over threads; numbers do not.
#[test]
fn threads_change_nothing() {
    let (m, n, samples) = (72, 90, 300);
    let names: Vec<String> = (0..5).map(|i| format!("layers.{i}")).collect();
    let run = |threads| {
        on_threads(threads, || {
            let layer = LayerFactors {
                storage: FactorStorage::EIGEN4,
                ..eager(LayerFactors { inverse: KroneckerInverse::Ekfac, ..LayerFactors::kfac() })
            };
            let config = NetworkFactors { kl_clip: Some(1e-9), ..NetworkFactors::new(layer) };
            let mut network = config.build::<f32>().unwrap();
            for (i, name) in names.iter().enumerate() {
                network.add_layer(LayerSpec::linear(name, m + i, n)).unwrap();
            }
            let tensor = |rows, columns, seed| noise(rows, columns, seed).mapv(|x| x as f32);
            let mut copies = Vec::new();
            for t in 0..3 {
                for (i, name) in names.iter().enumerate() {
                    let (x, y) = (tensor(samples, n, t), tensor(samples, m + i, t + 9));
                    network.observe(&LayerStats::new(name, &x, &y, LossReduction::Sum)).unwrap();
                }
                let gradient = |(i, name): (usize, &String)| {
                    (name.clone(), tensor(m + i, n, t + 50).into_dyn())
                };
                let grads: BTreeMap<String, ArrayD<f32>> =
                    names.iter().enumerate().map(gradient).collect();
                copies.push(materialize(&network.precondition(&grads).unwrap()).unwrap());
            }
            (copies, network.state_dict())
        })
    };
    assert_eq!(run(1), run(4));
}

/// What a layer holds: its factors, its direction, and S.
#[test]
fn bytes_are_what_the_formula_says() {
    let (m, n) = (320, 257);
    let bytes = |storage, inverse, steps| {
        let layer = LayerFactors { storage, inverse, ..eager(LayerFactors::kfac()) };
        let network = NetworkFactors::new(LayerFactors { min_numel: 4096, ..layer }).build::<f32>();
        let spec = LayerSpec::linear("w", m, n - 1).with_bias("b");
        let mut network = network.unwrap().with_layer(spec).unwrap();
        let tensor = |rows, columns, seed| noise(rows, columns, seed).mapv(|x| x as f32);
        let grads = BTreeMap::from([
            ("w".to_owned(), tensor(m, n - 1, 1).into_dyn()),
            ("b".to_owned(), tensor(m, 1, 2).remove_axis(Axis(1)).into_dyn()),
        ]);
        for t in 0..steps {
            let (x, y) = (tensor(8, n - 1, t), tensor(8, m, t));
            network.observe(&LayerStats::new("w", &x, &y, LossReduction::Sum)).unwrap();
            network.precondition(&grads).unwrap();
        }
        network.state_bytes()
    };
    let codes = |n: usize| n * n.div_ceil(2) + 4 * n * n.div_ceil(64);
    let both = m * m + n * n;
    let (root, joint) = (KroneckerInverse::Balanced, KroneckerInverse::Joint);
    assert_eq!(bytes(FactorStorage::Dense, root, 0).total(), 8 * both);
    assert_eq!(bytes(FactorStorage::Dense, joint, 0).total(), 8 * both + 4 * (m + n));
    assert_eq!(bytes(FactorStorage::Double, joint, 0).total(), 12 * both + 4 * (m + n));
    assert_eq!(bytes(FactorStorage::Eigen, joint, 0).total(), 8 * both + 8 * (m + n));
    let coded = bytes(FactorStorage::EIGEN4, joint, 0);
    assert_eq!(coded.total(), 2 * (codes(m) + codes(n)) + 8 * (m + n));
    assert_eq!(coded.parameters(), m * n);
    let ekfac = bytes(FactorStorage::Dense, KroneckerInverse::Ekfac, 1);
    assert_eq!((ekfac.slot("moments"), ekfac.slot("direction")), (4 * m * n, 4 * m * n));
    assert_eq!(ekfac.total(), 8 * both + 4 * (m + n) + 8 * m * n);
}

/// Layers of every size, empty ones among them.
#[test]
fn every_size_has_a_direction() {
    for config in configs() {
        let layer = LayerFactors { update_factors_every: 1, update_roots_every: 1, ..config.layer };
        for (m, n) in [(0, 0), (0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (33, 17)] {
            let mut network = single(layer.clone(), (m, n));
            for t in 0..3 {
                let d =
                    advance(&mut network, &noise(4, n, t), &noise(4, m, t + 9), &noise(m, n, 5));
                assert!(d.dim() == (m, n) && d.iter().all(|x| x.is_finite()));
            }
            assert_eq!(network.rejected_updates(), 0);
            let mut again = single(layer.clone(), (m, n));
            again.load_state_dict(&network.state_dict()).unwrap();
        }
    }
}

/// Other types of numbers: parameters, gradients and statistics of one type, factors in its arithmetic.
fn follows_f64<T: Element>(tolerance: f64) {
    let (x, y, g) = (noise(30, 6, 1), noise(30, 4, 2), noise(4, 6, 3));
    let narrow = |a: &Array2<f64>| a.mapv(|x| T::store(T::Compute::of(x)));
    let wide = |a: &Array2<T>| a.mapv(|x| x.load().widen());
    for inverse in INVERSES {
        let network = NetworkFactors::new(kfac(0.1, inverse)).build::<T>().unwrap();
        let mut network = network.with_layer(LayerSpec::linear("param", 4, 6)).unwrap();
        let (x, y, g) = (narrow(&x), narrow(&y), narrow(&g));
        network.observe(&LayerStats::new("param", &x, &y, LossReduction::Sum)).unwrap();
        let found = materialize(&network.precondition(&g).unwrap()).unwrap();
        let found = found["param"].clone().into_dimensionality().unwrap();
        let expected = once(kfac(0.1, inverse), &wide(&x), &wide(&y), &wide(&g));
        close(&wide(&found), &expected, tolerance);
    }
}

#[test]
fn element_types() {
    follows_f64::<f32>(1e-5);
    #[cfg(feature = "half")]
    {
        follows_f64::<eigenstep::numeric::bf16>(5e-3);
        follows_f64::<eigenstep::numeric::f16>(1e-3);
    }
}

/// Statistics in `f64` for gradients in `f32` that are larger than the root of the largest number.
#[test]
fn double_statistics_do_not_overflow() {
    let (x, y, g) = (noise(30, 6, 1), noise(30, 4, 2), noise(4, 6, 3));
    let run = |storage, size: f64, inverse| {
        let damping = Damping::relative(0.1);
        let layer = LayerFactors { storage, inverse, damping, ..eager(LayerFactors::kfac()) };
        let layer = LayerFactors { keep_norm: true, ..layer };
        let network = NetworkFactors::new(layer).build::<f32>().unwrap();
        let mut network = network.with_layer(LayerSpec::linear("param", 4, 6)).unwrap();
        let narrow = |a: &Array2<f64>, size: f64| a.mapv(|x| (size * x) as f32);
        let (x, y, g) = (narrow(&x, 1.0), narrow(&y, size), narrow(&g, 1.0));
        network.observe(&LayerStats::new("param", &x, &y, LossReduction::Sum)).unwrap();
        let found = materialize(&network.precondition(&g).unwrap()).unwrap();
        let found = found["param"].clone().into_dimensionality().unwrap();
        (found.mapv(f64::from), network.rejected_updates())
    };
    let inverse = KroneckerInverse::PerFactor;
    let (expected, _) = run(FactorStorage::Double, 1.0, inverse);
    let (found, rejected) = run(FactorStorage::Double, 1e15, inverse);
    close(&found, &expected, 1e-5);
    let (found, also) = run(FactorStorage::Double, 1e25, inverse);
    assert_eq!((rejected, also), (0, 0));
    assert!(found.iter().all(|x| x.is_finite()));
    assert_eq!(run(FactorStorage::Dense, 1e25, inverse).1, 1);
}
