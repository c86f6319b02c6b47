//! Steps: what is due, what is missing, what passes through.

use super::*;
use eigenstep::Error;
use eigenstep::gradient::{GradScaler, clip_grad_norm, with_curvature, with_loss};
use eigenstep::params::{GradVisitor, RowGradient, Scaled};
use ndarray::{Axis, array, s};
use noise::noise;
use says::says;

fn stats<'a>(x: &'a Array2<f64>, y: &'a Array2<f64>) -> LayerStats<'a, f64> {
    LayerStats::new("w", x, y, LossReduction::Sum)
}

/// The one-layer form is one use: the same directions, whatever is stored and however it is inverted.
#[test]
fn one_layer_is_a_network_of_one() {
    let (m, n) = (9, 70);
    for storage in STORAGES {
        for inverse in INVERSES {
            for (keep_norm, from_first_step) in [(true, false), (false, true)] {
                let method = LayerFactors {
                    storage,
                    inverse,
                    keep_norm,
                    from_first_step,
                    update_factors_every: 2,
                    update_roots_every: 3,
                    min_numel: 0,
                    ..LayerFactors::kfac()
                };
                let mut layer = method.clone().build((m, n)).unwrap();
                let mut network = single(method, (m, n));
                for t in 0..9 {
                    let (x, y) = (noise(20, n, t), noise(20, m, t + 50));
                    let mut expected = noise(m, n, t + 90);
                    let g = expected.clone();
                    layer.observe(&x, &y).unwrap();
                    layer.precondition(&mut expected).unwrap();
                    // sums are made in another order; codes enlarge what rounding does
                    let tolerance = if storage.codec().is_some() { 1e-4 } else { 1e-6 };
                    close(&advance(&mut network, &x, &y, &g), &expected, tolerance);
                }
            }
        }
    }
}

/// Statistics of two halves are those of the whole, in every reduction.
#[test]
fn micro_batches_add_up() {
    let (m, n) = (4, 6);
    let (x, y, g) = (noise(24, n, 1), noise(24, m, 2), noise(m, n, 3));
    let half =
        |a: &Array2<f64>, first| a.slice(s![if first { 0..8 } else { 8..24 }, ..]).to_owned();
    let (x1, x2, y1, y2) = (half(&x, true), half(&x, false), half(&y, true), half(&y, false));
    for inverse in INVERSES {
        let layer = LayerFactors {
            factor_beta: 0.5,
            update_roots_every: 2,
            from_first_step: true,
            ..kfac(0.1, inverse)
        };
        let mut whole = single(layer.clone(), (m, n));
        let expected: Vec<_> = (0..3).map(|_| advance(&mut whole, &x, &y, &g)).collect();
        let check = |parts: &[LayerStats<'_, f64>]| {
            let mut network = single(layer.clone(), (m, n));
            for expected in &expected {
                parts.iter().for_each(|part| network.observe(part).unwrap());
                close(&direction(&mut network, &g), expected, 1e-9);
            }
        };
        check(&[stats(&x1, &y1), stats(&x2, &y2)]);
        // mean losses of each micro-batch: gradients are 1/8 and 1/16 of those of the samples
        let (by_8, by_16, by_24) = (&y1 / 8.0, &y2 / 16.0, &y / 24.0);
        for mean in [LossReduction::MeanOverExamples, LossReduction::MeanOverRows] {
            check(&[LayerStats::new("w", &x, &by_24, mean)]);
            check(&[
                LayerStats::new("w", &x1, &by_8, mean),
                LayerStats::new("w", &x2, &by_16, mean),
            ]);
            // of each the half, as a mean over micro-batches, in a scaled loss
            let share = |a: &Array2<f64>| 1024.0 * 0.5 * a;
            let (by_8, by_16) = (share(&by_8), share(&by_16));
            let of = |x, y| LayerStats::new("w", x, y, mean).loss_scale(512.0);
            check(&[of(&x1, &by_8), of(&x2, &by_16)]);
        }
    }
}

/// Second moments in place of rows, alone and together with them.
#[test]
fn moments_are_statistics() {
    let (m, n) = (4, 6);
    let (x, y, g) = (noise(24, n, 1), noise(24, m, 2), noise(m, n, 3));
    let part =
        |a: &Array2<f64>, first| a.slice(s![if first { 0..8 } else { 8..24 }, ..]).to_owned();
    let (x1, x2, y1, y2) = (part(&x, true), part(&x, false), part(&y, true), part(&y, false));
    for storage in [FactorStorage::Dense, FactorStorage::Double, FactorStorage::Eigen] {
        let layer = LayerFactors { storage, ..kfac(0.1, KroneckerInverse::Joint) };
        let expected = once(layer.clone(), &x, &y, &g);
        let mut network = single(layer, (m, n));
        network.observe_moments("w", &mean_gram(&x1), &mean_gram(&y1), 8).unwrap();
        network.observe(&stats(&x2, &y2)).unwrap();
        close(&direction(&mut network, &g), &expected, 1e-9);
    }
    let mut network = single(kfac(0.1, KroneckerInverse::Ekfac), (m, n));
    let (xx, yy) = (mean_gram(&x), mean_gram(&y));
    says(
        network.observe_moments("w", &xx, &yy, 24),
        "LayerFactors: `inverse` must be another than Ekfac, which needs rows, not moments, got Ekfac",
    );
    let mut network = single(kfac(0.1, KroneckerInverse::Joint), (m, n));
    says(
        network.observe_moments("w", &yy, &xx, 24),
        "parameter `w, inputs`: expected shape [6, 6], found [4, 4]",
    );
    says(
        network.observe_moments("w", &xx, &yy, 0),
        "LayerStats: `samples` must be at least 1, got 0",
    );
    says(
        network.observe_moments("v", &xx, &yy, 24),
        "no layer of this name is registered: `v`; registered are w",
    );
}

/// Statistics and roots are renewed at their multiples; otherwise nothing is needed, and nothing read.
#[test]
fn what_is_due_is_needed() {
    let layer = LayerFactors {
        update_factors_every: 2,
        update_roots_every: 3,
        ..kfac(0.1, KroneckerInverse::PerFactor)
    };
    for (from_first_step, factors, roots) in
        [(false, [2, 4, 6, 8], &[3, 6][..]), (true, [1, 3, 5, 7], &[1, 4, 7])]
    {
        let layer = LayerFactors { from_first_step, ..layer.clone() };
        let mut network = single(layer.clone(), (4, 3));
        let mut by_hand = layer.build((4, 3)).unwrap();
        for t in 1..=8 {
            let (x, mut y) = (noise(6, 3, t), noise(6, 4, t + 100));
            let needed = factors.contains(&t);
            assert_eq!(network.needs_stats(), needed, "at {t}");
            assert_eq!(network.needs_stats_of("w"), needed);
            if needed {
                by_hand.update(&x, &y).unwrap();
            } else {
                y[(0, 0)] = f64::NAN;
            }
            if roots.contains(&t) {
                by_hand.refresh().unwrap();
            }
            let mut expected = noise(4, 3, 99);
            let found = advance(&mut network, &x, &y, &expected);
            by_hand.precondition(&mut expected).unwrap();
            close(&found, &expected, 1e-12);
        }
        assert_eq!((network.steps(), network.rejected_updates()), (8, 0));
    }
    assert!(!single(layer, (4, 3)).needs_stats_of("v"));
    // second moments want statistics at every step, as soon as there is a basis
    let layer = LayerFactors {
        update_factors_every: 3,
        update_roots_every: 3,
        ..kfac(0.1, KroneckerInverse::Ekfac)
    };
    let mut network = single(layer, (4, 3));
    for needed in [false, false, true, true, true, true] {
        assert_eq!(network.needs_stats(), needed);
        advance(&mut network, &noise(6, 3, 1), &noise(6, 4, 2), &noise(4, 3, 3));
    }
    // nobody registered, nothing needed
    assert!(!NetworkFactors::kfac().build::<f32>().unwrap().needs_stats());
}

/// A network as a whole, whose inputs are badly scaled: K-FAC gets further than gradient descent.
#[test]
fn networks_train() {
    let slow = |layer| LayerFactors { update_roots_every: 3, keep_norm: true, ..eager(layer) };
    let teacher: Tree = Mlp::new(60)
        .params
        .into_iter()
        .map(|(name, w)| (name, w.mapv(|w| (9.0 * w).sin())))
        .collect();
    let problem = || {
        let mut mlp = Mlp::new(60);
        mlp.x *= &array![10.0, 3.0, 1.0, 0.3, 0.1];
        mlp.targets =
            Mlp { params: teacher.clone(), x: mlp.x.clone(), ..Mlp::new(60) }.predictions();
        mlp
    };
    let mut plain = NetworkFactors::kfac().build().unwrap(); // without layers: the gradients themselves
    let mut run = |lr| {
        let mut sgd = Sgd { lr, momentum: 0.9, ..Sgd::default() }.build().unwrap();
        problem().train(&mut plain, &mut sgd, 51)[50]
    };
    // the best of several learning rates
    let baseline = [0.03, 0.1, 0.3].into_iter().map(&mut run).fold(f64::INFINITY, f64::min);
    for layer in [
        slow(LayerFactors::kfac()),
        slow(LayerFactors::adabk()),
        slow(LayerFactors { inverse: KroneckerInverse::Ekfac, ..LayerFactors::kfac() }),
        slow(LayerFactors { storage: FactorStorage::EIGEN4, ..LayerFactors::kfac() }),
    ] {
        let mut network = Mlp::network(NetworkFactors::new(layer.clone()));
        let mut opt = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build().unwrap();
        let losses = problem().train(&mut network, &mut opt, 51);
        assert!(losses[50] < 0.6 * baseline, "{layer:?}: {} {baseline}", losses[50]);
    }
}

/// ν is one for all layers, and scales every direction.
#[test]
fn the_clip_is_one_number_for_all_layers() {
    let layer = kfac(0.1, KroneckerInverse::Joint);
    let backward = Mlp::new(20).backward();
    let run = |kl_clip, lr| {
        let config = NetworkFactors { kl_clip, lr, ..NetworkFactors::new(layer.clone()) };
        let mut network = Mlp::network(config);
        Mlp::observe(&mut network, &backward);
        let view = network.precondition(&backward.grads).unwrap();
        (materialize(&view).unwrap(), view.kl_scale())
    };
    let (free, one) = run(None, 0.1);
    assert_eq!(one, 1.0);
    let sum: f64 = free.iter().map(|(name, d)| (d * &backward.grads[name]).sum()).sum();
    let (clipped, nu) = run(Some(1e-4), 0.1);
    assert!((nu - (1e-4 / (sum * 0.01)).sqrt()).abs() < 1e-12 && nu < 0.5);
    for (name, d) in &free {
        assert!((d * nu - &clipped[name]).iter().all(|x| x.abs() < 1e-15));
    }
    assert_eq!(run(Some(1e9), 0.1).1, 1.0);
    assert_eq!(run(Some(1e-9), 0.0).1, 1.0);
    let mut network = Mlp::network(NetworkFactors::new(layer));
    network.set_kl_clip(Some(1e-4)).unwrap();
    network.set_lr(0.1).unwrap();
    Mlp::observe(&mut network, &backward);
    assert_eq!(view(&mut network, &backward.grads), clipped);
    says(
        network.set_kl_clip(Some(0.0)),
        "NetworkFactors: `kl_clip` must be unset (NaN) or finite and > 0, got 0",
    );
    says(network.set_lr(-1.0), "NetworkFactors: `lr` must be finite and >= 0, got -1");
}

/// What a step brings besides.
struct Rest {
    tree: Tree,
    rows: RowGradient<f64>,
}

impl Gradients<f64> for Rest {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f64>) {
        visitor.child("table", &self.rows);
        self.tree.visit(visitor);
    }
}

/// All other gradients pass as they are, in every form and through every view.
#[test]
fn other_gradients_pass() {
    let (x, y, g) = (noise(9, 3, 1), noise(9, 2, 2), noise(2, 3, 3));
    let layer = kfac(0.1, KroneckerInverse::PerFactor);
    let expected = once(layer.clone(), &x, &y, &g);
    let rows = RowGradient::new(&[4, 2], vec![2, 2], array![[1.0, 2.0], [3.0, 4.0]]).unwrap();
    let other = noise(3, 2, 4).reversed_axes().into_dyn();
    let tree =
        Tree::from([("w".to_owned(), g.clone().into_dyn()), ("v".to_owned(), other.clone())]);
    let rest = Rest { tree, rows };
    let mut network = single(layer.clone(), (2, 3));
    network.observe(&stats(&x, &y)).unwrap();
    let halved = Scaled::new(0.5, &rest);
    let clipped = clip_grad_norm(&halved, 1e9);
    let found = view(&mut network, &clipped);
    assert_eq!(found["v"], &other * 0.5);
    assert_eq!(found["table"], array![[0.0, 0.0], [0.0, 0.0], [2.0, 3.0], [0.0, 0.0]].into_dyn());
    close(&matrix(&found["w"]), &(0.5 * &expected), 1e-12);

    // inside other views and trees, at a place further down
    network.observe(&stats(&x, &y)).unwrap();
    let grads = with_loss(&rest, 2.0);
    let inner = network.precondition(&grads).unwrap();
    let outer = (Scaled::new(2.0, &inner), &other);
    let found = materialize(&outer).unwrap();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["0.table", "0.v", "0.w", "1"]);
    close(&matrix(&found["0.w"]), &(2.0 * &expected), 1e-12);

    // an array by itself
    let mut network = NetworkFactors::new(layer).build().unwrap();
    network.add_layer(LayerSpec::linear("param", 2, 3)).unwrap();
    network.observe(&LayerStats::new("param", &x, &y, LossReduction::Sum)).unwrap();
    let inner = network.precondition(&g).unwrap();
    let (alone, deeper) = (materialize(&inner).unwrap(), materialize(&(&inner, &other)).unwrap());
    close(&matrix(&alone["param"]), &expected, 1e-12);
    assert_eq!((&deeper["0"], &deeper["1"]), (&alone["param"], &other));
}

/// A curvature and a loss come along: the optimizer that reads none refuses the curvature.
#[test]
fn curvature_and_loss_come_along() {
    let (x, y, g) = (noise(9, 3, 1), noise(9, 2, 2), noise(2, 3, 3));
    let mut network = single(kfac(0.1, KroneckerInverse::PerFactor), (2, 3));
    network.observe(&stats(&x, &y)).unwrap();
    let grads = Tree::from([("w".to_owned(), g.into_dyn())]);
    let both = with_curvature(&grads, &grads);
    let view = network.precondition(&both).unwrap();
    let mut params = grads.clone();
    let mut opt = Sgd::default().build().unwrap();
    says(
        opt.step(&mut params, &view),
        "Sgd does not read a curvature, but one came with the gradients",
    );
}

/// Groups by name, each with options of its own.
#[test]
fn groups_have_their_own_options() {
    let first = kfac(0.1, KroneckerInverse::PerFactor);
    let second = LayerFactors {
        update_factors_every: 2,
        exponent: 0.5,
        storage: FactorStorage::Eigen,
        ..kfac(0.3, KroneckerInverse::Joint)
    };
    let backward = Mlp::new(20).backward();
    let both = |config: NetworkFactors| Mlp::network(config);
    let mut network = both(NetworkFactors::new(first.clone()))
        .with_group(Select::name("1.*"), |options| *options = second.clone())
        .unwrap();
    let mut alone = [both(NetworkFactors::new(first)), both(NetworkFactors::new(second))];
    for t in 1..5 {
        assert_eq!(network.needs_stats_of("1.weight"), t % 2 == 0);
        let expected = alone.each_mut().map(|network| {
            Mlp::observe(network, &backward);
            view(network, &backward.grads)
        });
        Mlp::observe(&mut network, &backward);
        let found = view(&mut network, &backward.grads);
        for (name, d) in &found {
            assert_eq!(d, &expected[usize::from(name.starts_with('1'))][name]);
        }
    }
    assert_eq!(network.num_groups(), 2);
    assert_eq!(network.option(1, "exponent"), Some(0.5));
    assert_eq!((network.option(2, "exponent"), network.option(0, "lr")), (None, None));
    network.set_option(1, "exponent", 1.0).unwrap();
    assert_eq!(network.config(1).unwrap().exponent, 1.0);
    says(network.set_option(2, "exponent", 1.0), "parameter group 2 does not exist; there are 2");
    says(
        network.set_option(0, "exponent", 0.0),
        "LayerFactors: `exponent` must be finite and > 0, got 0",
    );
    // how factors are stored that have seen statistics stays as it is
    let layout =
        "an option that decides how factors are stored can only be changed before the first step";
    let change = |options: &mut LayerFactors| options.storage = FactorStorage::EIGEN4;
    says(network.add_group(Select::all(), change), layout);
    let change = |options: &mut LayerFactors| options.inverse = KroneckerInverse::Ekfac;
    says(network.add_group(Select::all(), change), layout);
    assert_eq!(network.num_groups(), 2);
    // others may change, and state stays
    let before = network.factors("1.weight").unwrap()[0].statistic();
    network
        .add_group(Select::name("1.*"), |options| {
            *options = LayerFactors { damping: Damping::absolute(7.0), ..options.clone() };
            options.storage = FactorStorage::Eigen;
            options.inverse = KroneckerInverse::Joint;
        })
        .unwrap();
    assert_eq!(network.factors("1.weight").unwrap()[0].statistic(), before);
    // a selector of nothing
    network.add_group(Select::name("2.*"), |_| {}).unwrap();
    Mlp::observe(&mut network, &backward);
    says(
        network.precondition(&backward.grads).map(drop),
        "parameter group 3 (`2.*`) matches no parameter (the parameters are `0.weight`, `1.weight`); if all of its \
         parameters are frozen and left out of the tree, mark the selector with `may_be_empty`",
    );
}

/// A root is renewed with the options of the moment.
#[test]
fn options_change_in_mid_run() {
    let (x, y, g) = (noise(9, 3, 1), noise(9, 2, 2), noise(2, 3, 3));
    let mut network = single(kfac(0.1, KroneckerInverse::PerFactor), (2, 3));
    advance(&mut network, &x, &y, &g);
    network.set_option(0, "damping.absolute", 0.7).unwrap();
    network.set_option(0, "factor_beta", 0.0).unwrap();
    network.set_option(0, "bias_correction", 0.0).unwrap();
    let d = advance(&mut network, &x, &y, &g);
    close(&d, &once(kfac(0.7, KroneckerInverse::PerFactor), &x, &y, &g), 1e-12);
}

/// Whatever is wrong with a step is said, and nothing has changed.
#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let backward = Mlp::new(20).backward();
    let mut network = Mlp::network(NetworkFactors::new(kfac(0.1, KroneckerInverse::Ekfac)));
    Mlp::observe(&mut network, &backward);
    view(&mut network, &backward.grads);
    let before = network.state_dict();
    let (x, y) = (&backward.inputs[0], &backward.outputs[0]);
    let sum = LossReduction::Sum;
    let one = noise(1, 5, 1).remove_axis(Axis(0));
    for (stats, text) in [
        (
            LayerStats::new("0.wieght", x, y, sum),
            "no layer of this name is registered: `0.wieght` (did you mean `0.weight`?); registered are \
             0.weight, 1.weight",
        ),
        (
            LayerStats::new("0.bias", x, y, sum),
            "no layer of this name is registered: `0.bias`; registered are 0.weight, 1.weight",
        ),
        (
            LayerStats::new("0.weight", y, y, sum),
            "parameter `0.weight, inputs`: expected shape [20, 5], found [20, 7]",
        ),
        (
            LayerStats::new("0.weight", x, x, sum),
            "parameter `0.weight, output gradients`: expected shape [20, 7], found [20, 5]",
        ),
        (
            LayerStats::new("0.weight", &one, &one, sum),
            "parameter `0.weight, inputs`: expected shape [1, 5], found [5]",
        ),
        (
            LayerStats::new("0.weight", &noise(0, 5, 1), &noise(0, 7, 1), sum),
            "LayerStats: `inputs` must be a row per sample, at least one, got none",
        ),
        (
            LayerStats::new("0.weight", x, y, sum).examples(3),
            "LayerStats: `examples` must be a divisor of the number of rows or images, 20, got 3",
        ),
        (
            LayerStats::new("0.weight", x, y, sum).examples(0),
            "LayerStats: `examples` must be a divisor of the number of rows or images, 20, got 0",
        ),
        (
            LayerStats::new("0.weight", x, y, sum).loss_scale(0.0),
            "LayerStats: `loss_scale` must be finite and not 0, got 0",
        ),
        (
            LayerStats::new("0.weight", x, y, sum).loss_scale(f64::NAN),
            "LayerStats: `loss_scale` must be finite and not 0, got NaN",
        ),
    ] {
        says(network.observe(&stats), text);
    }
    network.observe(&LayerStats::new("0.weight", x, y, sum)).unwrap();
    says(
        network.observe(&LayerStats::new("0.weight", x, y, LossReduction::MeanOverRows)),
        "LayerStats: `reduction` must be Sum, as earlier in this step, got MeanOverRows",
    );
    let missing = network.precondition(&backward.grads).map(drop);
    assert!(matches!(&missing, Err(Error::MissingLayerStats { layer }) if layer == "1.weight"));
    says(
        missing,
        "layer `1.weight`: its statistics are due in this step and were not observed; when \
         `needs_stats` is true, call `observe` before `precondition`",
    );
    network
        .observe(&LayerStats::new("1.weight", &backward.inputs[1], &backward.outputs[1], sum))
        .unwrap();
    let without = |name: &str| {
        let mut grads = backward.grads.clone();
        grads.remove(name);
        grads
    };
    let lacking = |layer: &str, name: &str, though: &str| {
        format!(
            "layer `{layer}`: `{name}` has no gradient in this step, though {though}; bring all of them \
             or none"
        )
    };
    says(
        network.precondition(&without("0.weight")).map(drop),
        &lacking("0.weight", "0.weight", "its bias has one"),
    );
    says(
        network.precondition(&without("1.bias")).map(drop),
        &lacking("1.weight", "1.bias", "its weight has one"),
    );
    says(
        network.precondition(&()).map(drop),
        &lacking("0.weight", "0.weight", "statistics of the layer were observed"),
    );
    let mut transposed = backward.grads.clone();
    let weight = transposed["0.weight"].clone().reversed_axes();
    transposed.insert("0.weight".into(), weight);
    says(
        network.precondition(&transposed).map(drop),
        "parameter `0.weight`: expected shape [7, 5], found [5, 7]",
    );
    struct Twice<'a>(&'a Tree);
    impl Gradients<f64> for Twice<'_> {
        fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f64>) {
            self.0.visit(visitor);
            self.0.visit(visitor);
        }
    }
    says(
        network.precondition(&Twice(&backward.grads)).map(drop),
        "the name `0.bias` is used twice",
    );
    assert_eq!(network.state_dict(), before);
    // the statistics are still there, and the step is that of a network where nothing went wrong
    let found = view(&mut network, &backward.grads);
    let mut straight = Mlp::network(NetworkFactors::new(kfac(0.1, KroneckerInverse::Ekfac)));
    for _ in 0..2 {
        Mlp::observe(&mut straight, &backward);
        let expected = view(&mut straight, &backward.grads);
        assert!(straight.steps() < 2 || expected == found);
    }
    assert_eq!(network.state_dict(), straight.state_dict());
    // names belong to one layer
    for spec in [
        LayerSpec::linear("1.weight", 1, 1),
        LayerSpec::linear("2.weight", 1, 1).with_bias("1.weight"),
        LayerSpec::linear("1.bias", 1, 1),
    ] {
        let name = spec.bias().unwrap_or(spec.weight()).to_owned();
        says(network.add_layer(spec), &format!("the name `{name}` is used twice"));
    }
    says(
        network.add_layer(LayerSpec::linear("a", 1, 1).with_bias("a")),
        "the name `a` is used twice",
    );
    assert_eq!(network.layers().count(), 2);
}

/// Layers of which a step has nothing are left out of it, and go on later.
#[test]
fn absent_layers_are_left_out() {
    let backward = Mlp::new(20).backward();
    let mut network = Mlp::network(NetworkFactors::new(kfac(0.1, KroneckerInverse::Joint)));
    let grads: Tree = backward
        .grads
        .iter()
        .filter(|(k, _)| k.starts_with('0'))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let (x, y) = (&backward.inputs[0], &backward.outputs[0]);
    network.observe(&LayerStats::new("0.weight", x, y, LossReduction::Sum)).unwrap();
    assert_eq!(view(&mut network, &grads).len(), 2);
    assert_eq!(network.factors("1.weight").unwrap()[0].statistic(), Array2::<f64>::zeros((3, 3)));
    // a layer registered while training begins with factors that have seen nothing
    network.add_layer(LayerSpec::linear("late", 2, 2)).unwrap();
    assert_eq!(view(&mut network, &()).len(), 0);
    let late = Tree::from([("late".to_owned(), noise(2, 2, 1).into_dyn())]);
    let (x, y) = (noise(5, 2, 2), noise(5, 2, 3));
    network.observe(&LayerStats::new("late", &x, &y, LossReduction::Sum)).unwrap();
    let d = matrix(&view(&mut network, &late)["late"]);
    close(&d, &once(kfac(0.1, KroneckerInverse::Joint), &x, &y, &matrix(&late["late"])), 1e-12);
}

/// Statistics that are not finite are dropped for all layers, and counted; the factors stay.
#[test]
fn statistics_that_are_not_finite_are_rejected() {
    let backward = Mlp::new(20).backward();
    for bad in [f64::NAN, f64::INFINITY, 1e300] {
        for inverse in INVERSES {
            let layer = LayerFactors { tolerated_failures: 1, ..kfac(0.1, inverse) };
            let mut network = Mlp::network(NetworkFactors::new(layer));
            Mlp::observe(&mut network, &backward);
            let good = view(&mut network, &backward.grads);
            let factors = network.state_dict().tensors;
            for failures in 1..3 {
                Mlp::observe(&mut network, &backward);
                let mut x = backward.inputs[1].clone();
                x[(3, 2)] = bad;
                let y = &backward.outputs[1];
                network.observe(&LayerStats::new("1.weight", &x, y, LossReduction::Sum)).unwrap();
                assert_eq!(view(&mut network, &backward.grads), good);
                assert_eq!(network.state_dict().tensors, factors);
                assert_eq!(network.rejected_updates(), failures);
                assert_eq!(network.failures("1.weight"), Some(failures));
                assert_eq!(network.failures("0.weight"), Some(0));
            }
            Mlp::observe(&mut network, &backward);
            says(
                network.precondition(&backward.grads).map(drop),
                "parameter `1.weight`, block 0: 2 failures in a row, the last: its statistics were not \
                 finite",
            );
            assert_eq!(network.steps(), 3);
            network.reset_failures();
            view(&mut network, &backward.grads);
            assert_eq!((network.failures("1.weight"), network.failures("2")), (Some(0), None));
        }
    }
}

/// A singular factor without damping has no root: the last good one stays, and other layers go on.
#[test]
fn failed_roots_are_counted_by_layer() {
    let backward = Mlp::new(20).backward();
    let problem = "it is not positive definite, damping included";
    for inverse in INVERSES {
        let layer = LayerFactors { tolerated_failures: 1, ..kfac(0.1, inverse) };
        let mut network = Mlp::network(NetworkFactors::new(layer))
            .with_group(Select::name("1.*"), |options| options.damping = Damping::default())
            .unwrap();
        // of one sample
        let first = |a: &Array2<f64>| a.slice(s![..1, ..]).to_owned();
        let one = Backward {
            loss: 0.0,
            inputs: backward.inputs.each_ref().map(first),
            outputs: backward.outputs.each_ref().map(first),
            grads: backward.grads.clone(),
        };
        for failures in 1..3 {
            Mlp::observe(&mut network, &one);
            let found = view(&mut network, &backward.grads);
            assert_eq!(network.failures("1.weight"), Some(failures), "{inverse:?}");
            assert_eq!(network.failures("0.weight"), Some(0));
            assert_eq!(found["1.weight"], backward.grads["1.weight"]);
            assert_ne!(found["0.weight"], backward.grads["0.weight"]);
        }
        Mlp::observe(&mut network, &one);
        says(
            network.precondition(&backward.grads).map(drop),
            &format!("parameter `1.weight`, block 0: 2 failures in a row, the last: {problem}"),
        );
    }
}

/// Gradients that are not finite pass, whatever the optimizer makes of them, and the step does not count.
#[test]
fn gradients_that_are_not_finite_pass() {
    let mut mlp = Mlp::new(20);
    let backward = mlp.backward();
    let config = NetworkFactors { kl_clip: Some(1e-3), ..NetworkFactors::kfac_pytorch() };
    let mut network = Mlp::network(config);
    Mlp::observe(&mut network, &backward);
    view(&mut network, &backward.grads);
    let before = network.state_dict();
    let mut bad = backward.grads.clone();
    bad.get_mut("0.weight").unwrap()[[1, 1]] = f64::INFINITY;
    Mlp::observe(&mut network, &backward);
    let passed = network.precondition(&bad).unwrap();
    assert_eq!(passed.kl_scale(), 1.0);
    let params = mlp.params.clone();
    let mut opt = Sgd::default().build().unwrap();
    says(opt.step(&mut mlp.params, &passed), "gradient `0.weight` is inf at flat index 6");
    assert_eq!(materialize(&passed).unwrap(), bad);
    assert_eq!((network.steps(), network.rejected_updates()), (1, 1));
    assert!(network.needs_stats());
    assert_eq!(network.state_dict().tensors, before.tensors);

    // a loss scaler sees them, and skips
    let mut scaler = GradScaler::default();
    let scaled = bad.iter().map(|(name, g)| (name.clone(), 65536.0 * g)).collect::<Tree>();
    let unscaled = scaler.unscale(&scaled).unwrap();
    Mlp::observe(&mut network, &backward);
    let view = network.precondition(&unscaled).unwrap();
    assert!(!scaler.step(&mut opt, &mut mlp.params, &view).unwrap());
    scaler.update().unwrap();
    assert_eq!(mlp.params, params);
    // or the program does, before it asks for a direction
    Mlp::observe(&mut network, &backward);
    network.discard_stats();
    assert!(network.precondition(&backward.grads).is_err());
}

/// A direction out of range is handed on, and found.
#[test]
fn a_direction_that_overflows_is_found_by_the_optimizer() {
    for kl_clip in [None, Some(1e-3)] {
        let config = NetworkFactors {
            kl_clip,
            ..NetworkFactors::new(kfac(1e-200, KroneckerInverse::PerFactor))
        };
        let mut network = config.build().unwrap().with_layer(LayerSpec::linear("w", 2, 3)).unwrap();
        network.observe(&stats(&array![[1.0, 0.0, 0.0]], &array![[1.0, 0.0]])).unwrap();
        let grads = Tree::from([("w".to_owned(), ArrayD::ones(vec![2, 3]))]);
        let mut params = grads.clone();
        let mut opt = Sgd::default().build().unwrap();
        let error = opt.step(&mut params, &network.precondition(&grads).unwrap()).unwrap_err();
        assert!(matches!(&error, Error::NonFiniteGradient { name, .. } if name == "w"), "{error}");
        assert_eq!(params, grads);
    }
}

#[test]
fn options_out_of_range() {
    let build = |config: NetworkFactors| config.build::<f64>().map(drop);
    let kfac = NetworkFactors::kfac;
    says(
        build(NetworkFactors { lr: f64::NAN, ..kfac() }),
        "NetworkFactors: `lr` must be finite and >= 0, got NaN",
    );
    says(
        build(NetworkFactors { kl_clip: Some(-1.0), ..kfac() }),
        "NetworkFactors: `kl_clip` must be unset (NaN) or finite and > 0, got -1",
    );
    let layer = |layer| NetworkFactors { layer, ..kfac() };
    says(
        build(layer(LayerFactors { exponent: 0.0, ..LayerFactors::kfac() })),
        "LayerFactors: `exponent` must be finite and > 0, got 0",
    );
    let inverse = KroneckerInverse::Ekfac;
    says(
        build(layer(LayerFactors { inverse, factor_beta: 1.0, ..LayerFactors::kfac() })),
        "LayerFactors: `factor_beta` must be below 1 where `inverse` is Ekfac, got 1",
    );
    let root = eigenstep::second_order::factor::RootSolver::DampedEigen;
    says(
        build(layer(LayerFactors { inverse, root, ..LayerFactors::kfac() })),
        "LayerFactors: `root` must be Eigen where `inverse` is Joint or Ekfac, got DampedEigen",
    );
    let network = kfac().build::<f64>().unwrap();
    says(
        network.with_group(Select::all(), |options| options.iterations = 0).map(drop),
        "LayerFactors: `iterations` must be an integer >= 1 and <= 10000, got 0",
    );
}
