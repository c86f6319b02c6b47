//! What `mup_scales` promises: at every width one step moves the output of every layer alike.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/noise.rs"]
mod noise;

use eigenstep_instances as _;

use eigenstep::linalg::{Damping, Triangle, cholesky, gram_left, solve_triangular, svd};
use eigenstep::prelude::*;
use eigenstep::second_order::{Exponents, Graft};
use eigenstep::second_order::{LayerRole, LrAdjustment, UpdateKind, WidthScales, mup_scales};
use ndarray::Array2;
use noise::noise;

const ROLES: [LayerRole; 3] = [LayerRole::Input, LayerRole::Hidden, LayerRole::Output];
/// Width at which everything is tuned.
const BASE: usize = 64;
const BATCH: usize = 4;

fn rms(x: &Array2<f64>) -> f64 {
    x.mapv(|x| x * x).mean().unwrap().sqrt()
}

/// A linear network of three layers: of each its weights, the inputs, and the gradients of the outputs
/// with respect to `‖y − t‖²/2`.
struct Network {
    weights: [Array2<f64>; 3],
    inputs: [Array2<f64>; 3],
    deltas: [Array2<f64>; 3],
}

impl Network {
    fn new(width: usize) -> Self {
        let (d, c) = (8, 3);
        let std = |role, at_base: f64| {
            let ratio = width as f64 / BASE as f64;
            at_base * mup_scales(UpdateKind::Sgd, role, ratio).unwrap().init_std
        };
        let base = BASE as f64;
        let weights = [
            noise(width, d, 1) * std(LayerRole::Input, (d as f64).powf(-0.5)),
            noise(width, width, 2) * std(LayerRole::Hidden, base.powf(-0.5)),
            noise(c, width, 3) * std(LayerRole::Output, 1.0 / base),
        ];
        let x = noise(d, BATCH, 4);
        let h = weights[0].dot(&x);
        let z = weights[1].dot(&h);
        let last = weights[2].dot(&z) - noise(c, BATCH, 5);
        let middle = weights[2].t().dot(&last);
        let first = weights[1].t().dot(&middle);
        Self { weights, inputs: [x, h, z], deltas: [first, middle, last] }
    }

    fn gradient(&self, layer: usize) -> Array2<f64> {
        self.deltas[layer].dot(&self.inputs[layer].t())
    }
}

/// What one step takes from a weight. Damping is a tenth of the factors' traces at the width of the
/// tuning, scaled.
fn update(
    kind: UpdateKind,
    layer: usize,
    (network, tuned): (&Network, &Network),
    scales: WidthScales,
) -> Array2<f64> {
    let (gradient, weight) = (network.gradient(layer), &network.weights[layer]);
    let trace = tuned.gradient(layer).mapv(|x| x * x).sum();
    let mut w = weight.clone();
    match kind {
        UpdateKind::Sgd => {
            let base = Sgd { lr: scales.lr, ..Sgd::default() };
            base.build().unwrap().step(&mut w, &gradient).unwrap();
        }
        UpdateKind::Adam => {
            let (lr, betas) = (scales.lr, (0.0, 0.0));
            let method = AdamW { lr, betas, weight_decay: 0.0, ..AdamW::default() };
            method.build().unwrap().step(&mut w, &gradient).unwrap();
        }
        UpdateKind::Shampoo { exponent } => {
            assert_eq!(scales.left_damping, scales.right_damping);
            let method = Shampoo {
                inner: Sgd { lr: scales.lr, ..Sgd::default() },
                factor_beta: 1.0,
                initial: 0.0,
                damping: Damping::absolute(0.1 * trace * scales.left_damping),
                exponents: Exponents::Same(exponent),
                graft: Graft::None,
                // input weights of wide networks are long
                max_aspect: None,
                update_factors_every: 1,
                update_roots_every: 1,
                ..Shampoo::default()
            };
            method.build().unwrap().step(&mut w, &gradient).unwrap();
        }
        UpdateKind::Muon(adjust_lr) => {
            let lr = scales.lr;
            let method = Muon { lr, adjust_lr, weight_decay: 0.0, ..Muon::default() };
            method.build().unwrap().step(&mut w, &gradient).unwrap();
        }
        // what Muon does without an adjustment
        UpdateKind::Spectral => {
            let (u, _, vt) = svd(&gradient).unwrap();
            w = w - u.dot(&vt) * scales.lr;
        }
        UpdateKind::Kfac => {
            let damped = |of: fn(&Network, usize) -> Array2<f64>, scale: f64| {
                let mut factor = of(network, layer);
                let ridge = 0.1 * of(tuned, layer).diag().sum() * scale;
                factor.diag_mut().mapv_inplace(|x| x + ridge);
                cholesky(&factor).unwrap()
            };
            let solve = |c: &Array2<f64>, x: &Array2<f64>| {
                let half = solve_triangular(c, Triangle::Lower, false, x).unwrap();
                solve_triangular(c, Triangle::Lower, true, &half).unwrap()
            };
            let b = damped(|n, layer| gram_left(&n.deltas[layer]), scales.left_damping);
            let a = damped(|n, layer| gram_left(&n.inputs[layer]), scales.right_damping);
            let half = solve(&b, &gradient).t().to_owned();
            w = w - solve(&a, &half).t().to_owned() * scales.lr;
        }
    }
    weight - w
}

/// How far one step moves the output of a layer.
fn moves(kind: UpdateKind, layer: usize, widths: &[usize], scaled: bool) -> Vec<f64> {
    let tuned = Network::new(BASE);
    let at = |&width: &usize| {
        let network = Network::new(width);
        let ratio = if scaled { width as f64 / BASE as f64 } else { 1.0 };
        let scales = mup_scales(kind, ROLES[layer], ratio).unwrap();
        let update = update(kind, layer, (&network, &tuned), scales);
        rms(&update.dot(&network.inputs[layer]))
    };
    widths.iter().map(at).collect()
}

fn spread(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| f64::max(m, *x)) / x.iter().fold(f64::INFINITY, |m, x| m.min(*x))
}

fn one_step_moves_every_layer_alike(kind: UpdateKind, widths: &[usize]) {
    one_step_moves_alike(kind, &[0, 1, 2], widths);
}

fn one_step_moves_alike(kind: UpdateKind, layers: &[usize], widths: &[usize]) {
    for &layer in layers {
        let moved = moves(kind, layer, widths, true);
        println!("{kind:?}, {:?}: {moved:?}", ROLES[layer]);
        assert!(spread(&moved) < 1.7, "{kind:?}, {:?}: {moved:?}", ROLES[layer]);
    }
}

const WIDTHS: [usize; 5] = [64, 128, 256, 512, 1024];

#[test]
fn sgd() {
    one_step_moves_every_layer_alike(UpdateKind::Sgd, &WIDTHS);
    // the test would notice
    assert!(spread(&moves(UpdateKind::Sgd, 0, &WIDTHS, false)) > 8.0);
    assert!(spread(&moves(UpdateKind::Sgd, 2, &WIDTHS, false)) > 8.0);
}

#[test]
fn shampoo() {
    for exponent in [0.25, 0.5] {
        let kind = UpdateKind::Shampoo { exponent };
        one_step_moves_alike(kind, &[0, 2], &[64, 1024]);
        // both of its factors are of that order
        one_step_moves_alike(kind, &[1], &[64, 512]);
    }
    assert!(spread(&moves(UpdateKind::Shampoo { exponent: 0.25 }, 2, &[64, 256], false)) > 1.7);
}

#[test]
fn muon() {
    for adjustment in [LrAdjustment::Original, LrAdjustment::MatchRmsAdamW, LrAdjustment::Spectral]
    {
        one_step_moves_every_layer_alike(UpdateKind::Muon(adjustment), &[64, 1024]);
    }
}

#[test]
fn adam() {
    one_step_moves_every_layer_alike(UpdateKind::Adam, &WIDTHS);
    assert!(spread(&moves(UpdateKind::Adam, 1, &WIDTHS, false)) > 8.0);
}

#[test]
fn spectral() {
    one_step_moves_every_layer_alike(UpdateKind::Spectral, &[64, 256]);
}

#[test]
fn kfac() {
    one_step_moves_every_layer_alike(UpdateKind::Kfac, &WIDTHS);
}

#[test]
fn the_table_is_the_paper_s() {
    let of = |kind, role| mup_scales(kind, role, 4.0).unwrap();
    let lr = |kind| ROLES.map(|role| of(kind, role).lr);
    assert_eq!(lr(UpdateKind::Sgd), [4.0, 1.0, 0.25]);
    assert_eq!(lr(UpdateKind::Shampoo { exponent: 0.25 }), [2.0, 1.0, 0.5]);
    assert_eq!(lr(UpdateKind::Shampoo { exponent: 0.5 }), [1.0; 3]);
    assert_eq!(lr(UpdateKind::Kfac), [1.0; 3]);
    assert_eq!(lr(UpdateKind::Spectral), [2.0, 1.0, 0.5]);
    assert_eq!(lr(UpdateKind::Muon(LrAdjustment::Original)), [1.0, 1.0, 0.5]);
    assert_eq!(lr(UpdateKind::Muon(LrAdjustment::MatchRmsAdamW)), [1.0, 0.5, 0.25]);
    assert_eq!(lr(UpdateKind::Muon(LrAdjustment::Spectral)), [1.0; 3]);
    let damping =
        |kind| ROLES.map(|role| (of(kind, role).left_damping, of(kind, role).right_damping));
    let shampoo = UpdateKind::Shampoo { exponent: 0.25 };
    assert_eq!(damping(shampoo), [(0.25, 0.25), (1.0, 1.0), (4.0, 4.0)]);
    assert_eq!(damping(UpdateKind::Kfac), [(0.25, 1.0), (0.25, 4.0), (1.0, 4.0)]);
    let init = ROLES.map(|role| of(UpdateKind::Sgd, role).init_std);
    assert_eq!(init, [1.0, 0.5, 0.25]);
    for ratio in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = mup_scales(UpdateKind::Sgd, LayerRole::Input, ratio).unwrap_err();
        assert!(error.to_string().starts_with("mup_scales: `width_ratio` must be"), "{error}");
    }
    let nothing = UpdateKind::Shampoo { exponent: 0.0 };
    assert!(mup_scales(nothing, LayerRole::Input, 2.0).is_err());
}
