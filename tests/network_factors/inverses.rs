//! What directions are, against equations written out.

use super::*;
use eigenstep::linalg::{eigh, qr};
use ndarray::{Axis, concatenate};
use noise::noise;
use proptest::prelude::*;

/// Orders and samples, and a seed.
fn layers() -> impl Strategy<Value = (usize, usize, usize, u64)> {
    (1..9_usize, 1..9_usize, 1..20_usize, any::<u64>())
}

/// Inputs, output gradients, and a gradient.
fn problem(
    (m, n, samples, seed): (usize, usize, usize, u64),
) -> (Array2<f64>, Array2<f64>, Array2<f64>) {
    (noise(samples, n, seed), noise(samples, m, seed ^ 1), noise(m, n, seed ^ 2))
}

/// An orthogonal matrix.
fn orthogonal(n: usize, seed: u64) -> Array2<f64> {
    qr(&noise(n, n, seed)).unwrap().0
}

/// Rows `y ⊗ x`: the gradient of each sample, made flat.
fn flat_gradients(x: &Array2<f64>, y: &Array2<f64>) -> Array2<f64> {
    let (m, n) = (y.ncols(), x.ncols());
    Array2::from_shape_fn((x.nrows(), m * n), |(s, i)| y[(s, i / n)] * x[(s, i % n)])
}

fn flat(a: &Array2<f64>) -> Array2<f64> {
    Array2::from_shape_vec((a.len(), 1), a.iter().copied().collect()).unwrap()
}

proptest! {
    #![proptest_config(cases::cases(40))]

    /// `(L + √ε/π I) ⊗ (R + √ε·π I) vec D = vec G`.
    #[test]
    fn balanced_damping_is_that_of_the_paper(
        sizes in layers(), epsilon in 1e-3..10.0, relative in any::<bool>(),
    ) {
        let (x, y, g) = problem(sizes);
        let (l, r) = (mean_gram(&y), mean_gram(&x));
        let damping =
            if relative { Damping::relative(epsilon) } else { Damping::absolute(epsilon) };
        let layer = LayerFactors { damping, ..kfac(0.0, KroneckerInverse::Balanced) };
        let d = once(layer, &x, &y, &g);
        let largest = |a: &Array2<f64>| eigh(a).unwrap().0.iter().fold(0.0, |m: f64, x| m.max(*x));
        let root = damping.ridge(largest(&l) * largest(&r)).sqrt();
        let mean = |a: &Array2<f64>| a.diag().sum() / a.nrows() as f64;
        let pi = (mean(&r) / mean(&l)).sqrt();
        let damped = |a: &Array2<f64>, ridge: f64| a + &(ridge * Array2::eye(a.nrows()));
        close(&damped(&l, root / pi).dot(&d).dot(&damped(&r, root * pi)), &g, 1e-6);
    }

    /// `L D R + ε D = G`.
    #[test]
    fn joint_damping_is_that_of_the_product(sizes in layers(), epsilon in 1e-3..10.0) {
        let (x, y, g) = problem(sizes);
        let d = once(kfac(epsilon, KroneckerInverse::Joint), &x, &y, &g);
        close(&(mean_gram(&y).dot(&d).dot(&mean_gram(&x)) + epsilon * &d), &g, 1e-9);
        // half the exponent, twice
        let half = LayerFactors { exponent: 0.5, ..kfac(epsilon, KroneckerInverse::Joint) };
        let mut network = single(half, g.dim());
        let first = advance(&mut network, &x, &y, &g);
        network.observe(&LayerStats::new("w", &x, &y, LossReduction::Sum)).unwrap();
        close(&direction(&mut network, &first), &d, 1e-9);
    }

    /// With so much damping nothing of the curvature is left.
    #[test]
    fn large_damping_gives_the_gradient(sizes in layers()) {
        let (x, y, g) = problem(sizes);
        for inverse in [KroneckerInverse::Joint, KroneckerInverse::Balanced, KroneckerInverse::Ekfac]
        {
            let d = once(kfac(1e12, inverse), &x, &y, &g);
            close(&(1e12 * d), &g, 1e-4);
        }
    }

    /// Of one sample the product is of rank one.
    #[test]
    fn one_sample_has_a_closed_form(sizes in layers(), epsilon in 0.01..1.0) {
        let (m, n, _, seed) = sizes;
        let (x, y, g) = problem((m, n, 1, seed));
        let d = once(kfac(epsilon, KroneckerInverse::Joint), &x, &y, &g);
        let (xx, yy) = (x.mapv(|x| x * x).sum(), y.mapv(|y| y * y).sum());
        let along = y.dot(&g).dot(&x.t())[(0, 0)] / (xx * yy);
        let rank_one = along * y.t().dot(&x);
        let expected = (&g - &rank_one) / epsilon + rank_one / (xx * yy + epsilon);
        close(&d, &expected, 1e-9);
    }

    /// Directions are never uphill, and ν bounds the change that `kl_clip` is about.
    #[test]
    fn directions_descend_within_the_bound(sizes in layers(), clip in 1e-6..1e-1_f64) {
        let (x, y, g) = problem(sizes);
        for inverse in INVERSES {
            let lr = 0.3;
            let config = NetworkFactors {
                kl_clip: Some(clip), lr, ..NetworkFactors::new(kfac(0.1, inverse))
            };
            let network = config.build().unwrap();
            let mut network =
                network.with_layer(LayerSpec::linear("w", g.nrows(), g.ncols())).unwrap();
            let d = advance(&mut network, &x, &y, &g);
            prop_assert!((&d * &g).sum() > 0.0);
            let grads = Tree::from([("w".to_owned(), g.clone().into_dyn())]);
            network.observe(&LayerStats::new("w", &x, &y, LossReduction::Sum)).unwrap();
            let view = network.precondition(&grads).unwrap();
            let nu = view.kl_scale();
            let scaled = matrix(&materialize(&view).unwrap()["w"]);
            // the view holds ν·D
            let change = nu * lr * lr * (&scaled * &g).sum();
            prop_assert!(change <= clip * (1.0 + 1e-9));
            prop_assert!(nu == 1.0 || change >= clip * (1.0 - 1e-9));
        }
    }

    /// Rotated inputs give a rotated direction.
    #[test]
    fn an_orthogonal_change_of_inputs_commutes(sizes in layers()) {
        let (x, y, g) = problem(sizes);
        let o = orthogonal(x.ncols(), 9);
        for inverse in [KroneckerInverse::PerFactor, KroneckerInverse::Balanced, KroneckerInverse::Joint]
        {
            let layer = kfac(0.1, inverse);
            let rotated = once(layer.clone(), &x.dot(&o), &y, &g.dot(&o));
            close(&rotated, &once(layer, &x, &y, &g).dot(&o), 1e-8);
        }
    }

    /// The order of samples matters to rounding alone; samples shown twice are no more than once.
    #[test]
    fn samples_have_no_order(sizes in layers()) {
        let (x, y, g) = problem(sizes);
        let order: Vec<usize> = (0..x.nrows()).rev().collect();
        let reversed = |a: &Array2<f64>| a.select(Axis(0), &order);
        let twice = |a: &Array2<f64>| concatenate(Axis(0), &[a.view(), a.view()]).unwrap();
        for inverse in INVERSES {
            let layer = kfac(0.1, inverse);
            let d = once(layer.clone(), &x, &y, &g);
            close(&once(layer.clone(), &reversed(&x), &reversed(&y), &g), &d, 1e-9);
            close(&once(layer, &twice(&x), &twice(&y), &g), &d, 1e-9);
        }
    }

    /// With damping in units of the curvature, scales of inputs and losses are scales of the direction, and
    /// of none where the gradient's norm is kept.
    #[test]
    fn scales(sizes in layers(), a in 0.01..100.0_f64, b in 0.01..100.0_f64) {
        let (x, y, g) = problem(sizes);
        for inverse in INVERSES {
            let damping = Damping::relative(0.1);
            let layer = LayerFactors { damping, inverse, ..eager(LayerFactors::kfac()) };
            let d = once(layer.clone(), &x, &y, &g);
            let (x, y) = (a * &x, b * &y);
            close(&once(layer.clone(), &x, &y, &g), &((a * b).powi(-2) * &d), 1e-6);
            let kept = LayerFactors { keep_norm: true, ..layer };
            close(&once(kept, &x, &y, &g), &(norm(&g) / norm(&d) * &d), 1e-6);
        }
    }

    /// Of all diagonals in the eigenbasis, EKFAC's is closest to the Fisher matrix of the samples.
    #[test]
    fn ekfac_is_closer_to_the_fisher_matrix((m, n, samples, seed) in layers()) {
        let (x, y, g) = problem((m, n, samples, seed));
        let mut network = single(
            LayerFactors {
                factor_beta: 0.0,
                update_roots_every: 2,
                from_first_step: true,
                ..kfac(1e-3, KroneckerInverse::Ekfac)
            },
            (m, n),
        );
        advance(&mut network, &x, &y, &g);
        let d = advance(&mut network, &x, &y, &g);
        let ((_, ql), (_, qr)) = (eigh(&mean_gram(&y)).unwrap(), eigh(&mean_gram(&x)).unwrap());
        // the basis is unique up to signs only where eigenvalues differ: compare through the direction
        prop_assume!(samples > m.max(n));
        let along = flat_gradients(&x.dot(&qr), &y.dot(&ql));
        let moments = along.mapv(|x| x * x).sum_axis(Axis(0)) / samples as f64;
        let rotated = flat(&ql.t().dot(&g).dot(&qr)).remove_axis(Axis(1));
        let divided = &rotated / &(&moments + 1e-3);
        let divided = Array2::from_shape_vec((m, n), divided.to_vec()).unwrap();
        close(&d, &ql.dot(&divided).dot(&qr.t()), 1e-6);
        let fisher = mean_gram(&along);
        let (l, r) = (eigh(&mean_gram(&y)).unwrap().0, eigh(&mean_gram(&x)).unwrap().0);
        let products = Array1::from_shape_fn(m * n, |i| l[i / n] * r[i % n]);
        let off = |diagonal: &Array1<f64>| norm(&(&fisher - &Array2::from_diag(diagonal)));
        prop_assert!(off(&moments) <= off(&products) * (1.0 + 1e-12));
    }
}

/// Samples of which every input meets every output gradient: then L ⊗ R is the Fisher matrix itself, and
/// the direction the natural gradient.
#[test]
fn the_natural_gradient_where_the_fisher_matrix_is_a_kronecker_product() {
    let (m, n) = (3, 4);
    let (xs, ys) = (noise(6, n, 1), noise(5, m, 2));
    let pair = |a: &Array2<f64>, index: &dyn Fn(usize) -> usize| {
        a.select(Axis(0), &(0..30).map(index).collect::<Vec<_>>())
    };
    let (x, y) = (pair(&xs, &|s| s / 5), pair(&ys, &|s| s % 5));
    let fisher = mean_gram(&flat_gradients(&x, &y));
    let g = noise(m, n, 3);
    for inverse in INVERSES {
        let d = once(kfac(1e-14, inverse), &x, &y, &g);
        close(&fisher.dot(&flat(&d)), &flat(&g), 1e-5);
    }
}

/// Least squares: with output gradients of unit covariance R is the Fisher matrix, and one step of length
/// one ends at the solution.
#[test]
fn one_step_solves_least_squares() {
    let (m, n, samples) = (3, 4, 40);
    let (x, goal) = (noise(samples, n, 1), noise(m, n, 2));
    let targets = x.dot(&goal.t());
    let mut w = noise(m, n, 3);
    // as drawn from the model's own predictions
    let y = qr(&noise(samples, m, 4)).unwrap().0 * (samples as f64).sqrt();
    let grad = (x.dot(&w.t()) - &targets).t().dot(&x) / samples as f64;
    let d = once(kfac(1e-12, KroneckerInverse::Joint), &x, &y, &grad);
    w -= &d;
    close(&w, &goal, 1e-8);
}

/// An undamped curvature of which a direction has none: zero gradients stay zero, others are refused by the
/// optimizer.
#[test]
fn nothing_over_nothing_is_nothing() {
    let (m, n) = (3, 4);
    let zero = Array2::zeros((m, n));
    for inverse in INVERSES {
        for (x, y) in [
            (Array2::zeros((5, n)), noise(5, m, 1)),
            (noise(5, n, 1), Array2::zeros((5, m))),
            (Array2::zeros((5, n)), Array2::zeros((5, m))),
        ] {
            let mut network = single(kfac(0.0, inverse), (m, n));
            for _ in 0..3 {
                assert_eq!(advance(&mut network, &x, &y, &zero), zero);
            }
            assert_eq!(network.rejected_updates(), 0);
        }
    }
    // second moments of an eigenbasis that later samples do not touch
    let layer = LayerFactors {
        factor_beta: 0.0,
        update_roots_every: 10,
        from_first_step: true,
        ..kfac(0.0, KroneckerInverse::Ekfac)
    };
    let mut network = single(layer, (m, n));
    advance(&mut network, &noise(9, n, 1), &noise(9, m, 2), &zero);
    let none = Array2::zeros((9, m));
    assert_eq!(advance(&mut network, &noise(9, n, 1), &none, &zero), zero);
    assert!(!advance(&mut network, &noise(9, n, 1), &none, &noise(m, n, 3))[(0, 0)].is_finite());
}

/// Four bits move directions by as much as is usual, also where eigenpairs are kept.
#[test]
fn four_bits_stay_close_to_full_precision() {
    let (m, n, samples) = (64, 48, 150);
    let spread = |n: usize| Array1::from_shape_fn(n, |i| 10_f64.powf(-(i as f64) / n as f64));
    let (qx, qy) = (orthogonal(n, 1), orthogonal(m, 2));
    let mix = |q: &Array2<f64>, t: u64| (noise(samples, q.nrows(), t) * &spread(q.nrows())).dot(q);
    let g = noise(m, n, 3);
    for inverse in INVERSES {
        let direction = |storage| {
            let damping = Damping::relative(0.1);
            let layer = LayerFactors { damping, inverse, storage, ..eager(LayerFactors::kfac()) };
            let mut network = single(LayerFactors { keep_norm: true, ..layer }, (m, n));
            (0..10).map(|t| advance(&mut network, &mix(&qx, t + 10), &mix(&qy, t + 90), &g)).last()
        };
        let exact = direction(FactorStorage::Dense).unwrap();
        let error = |storage| norm(&(direction(storage).unwrap() - &exact)) / norm(&exact);
        let found = STORAGES.map(|storage| (storage, error(storage)));
        println!("{inverse:?}: {:?}", found.map(|(_, error)| (1e3 * error).round() / 1e3));
        for (storage, error) in found {
            let limit = match storage {
                FactorStorage::Dense => 0.0,
                FactorStorage::Double => 1e-9,
                FactorStorage::Eigen => 0.15,
                FactorStorage::Naive(_) => 0.9,
                _ => 0.5,
            };
            assert!(error <= limit, "{inverse:?}, {storage:?}: {error}");
        }
    }
}
