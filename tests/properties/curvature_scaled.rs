//! Laws of the rules that read a curvature: AdaHessian and Sophia.

use crate::first_order::{Opt, close, few, minus, number, path, run, slot};
use eigenstep::Error;
use eigenstep::gradient::with_curvature;
use eigenstep::numeric::Element;
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;
use ndarray::{Array4, array};
use proptest::prelude::*;

/// A step with a curvature, or without.
fn step<U: Rule>(opt: &mut Opt<U>, w: &mut [f64], g: &[f64], h: Option<&[f64]>) -> Result<()> {
    let shape = [w.len()];
    let grads = Flat::new(g, &shape);
    let mut w = FlatMut::new(w, &shape);
    match h {
        Some(h) => opt.step(&mut w, &with_curvature(&grads, &Flat::new(h, &shape))),
        None => opt.step(&mut w, &grads),
    }
}

/// The error of a step without the curvature that it needs.
#[track_caller]
fn refused<U: Rule>(opt: &mut Opt<U>, w: &mut [f64], g: &[f64]) {
    let (before, state) = (w.to_vec(), opt.state_dict());
    let error = step(opt, w, g, None).unwrap_err();
    assert!(matches!(error, Error::MissingInput { input: "a curvature", .. }), "{error}");
    let expected = format!(
        "{} needs a curvature in this step for `param`; see `with_curvature`",
        opt.state_dict().optimizer
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!((w.to_vec(), opt.state_dict()), (before, state));
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn adahessian_of_the_gradient_is_adamw(
        (w, grads) in run(), weight_decay in 0.0f64..0.3, eps in 0.0f64..0.1,
    ) {
        let config = AdaHessian { lr: 0.1, eps, weight_decay, ..AdaHessian::default() };
        let adamw = AdamW { lr: 0.1, eps, weight_decay, ..AdamW::default() };
        let (mut opt, mut found): (Opt<_>, _) = (config.build().unwrap(), w.clone());
        for (g, expected) in grads.iter().zip(path(&adamw, &w, &grads)) {
            let h: Vec<f64> = g.iter().map(|g| -g).collect(); // only magnitudes count
            step(&mut opt, &mut found, g, Some(&h)).unwrap();
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn adahessian(
        (w, grads) in run(), power in 0.0f64..=1.0, l in 0.0f64..0.3, every in 1u64..4,
    ) {
        let config = AdaHessian {
            lr: 0.1, betas: (0.8, 0.95), weight_decay: l, hessian_power: power, update_every: every,
            ..AdaHessian::default()
        };
        let mut opt: Opt<AdaHessian> = config.build().unwrap();
        let (mut found, mut p) = (w.clone(), w.clone());
        let (mut m, mut v, mut n) = (vec![0.0; w.len()], vec![0.0; w.len()], 0);
        for (t, g) in (1..).zip(&grads) {
            let h: Vec<f64> = g.iter().rev().map(|g| g * 1.5 - 0.1).collect();
            let due = (t - 1) % every as i32 == 0;
            n += i32::from(due);
            step(&mut opt, &mut found, g, due.then_some(&h[..])).unwrap();
            for i in 0..w.len() {
                m[i] = 0.8 * m[i] + 0.2 * g[i];
                v[i] = if due { 0.95 * v[i] + 0.05 * h[i] * h[i] } else { v[i] };
                let root = (f64::sqrt(v[i]) / (1.0 - 0.95f64.powi(n)).sqrt()).powf(power) + 1e-4;
                p[i] -= 0.1 * (m[i] / (1.0 - 0.8f64.powi(t)) / root + l * p[i]);
            }
            close(&found, &p, 1e-11);
        }
        prop_assert_eq!(opt.state_dict().scalars["state.param.hessian_steps"].as_f64(), Some(f64::from(n)));
    }

    #[test]
    fn sophia(
        (w, grads) in run(), hutchinson: bool, maximize: bool, rho in 0.01f64..2.0, l in 0.0f64..0.3,
    ) {
        let kind = if hutchinson { Sophia::hutchinson() } else { Sophia::default() };
        let config = Sophia { lr: 0.1, rho, bs: 2.0, weight_decay: l, maximize, update_every: 2, ..kind };
        let mut opt: Opt<Sophia> = config.build().unwrap();
        let (mut found, mut p) = (w.clone(), w.clone());
        let (mut m, mut h) = (vec![0.0; w.len()], vec![0.0; w.len()]);
        for (t, g) in grads.iter().enumerate() {
            let curvature: Vec<f64> = g.iter().rev().map(|g| g * 3.0 + 1.0).collect();
            let before = found.clone();
            step(&mut opt, &mut found, g, (t % 2 == 0).then_some(&curvature[..])).unwrap();
            let sign = if maximize { -1.0 } else { 1.0 };
            for i in 0..w.len() {
                let q = if hutchinson { sign * curvature[i] } else { curvature[i] * curvature[i] };
                h[i] = if t % 2 == 0 { 0.99 * h[i] + 0.01 * q } else { h[i] };
                m[i] = 0.965 * m[i] + 0.035 * sign * g[i];
                let ratio = f64::abs(m[i]) / (rho * 2.0 * f64::max(h[i], 0.0) + 1e-15);
                let u = f64::signum(m[i]) * ratio.min(1.0);
                p[i] = p[i] * (1.0 - 0.1 * l) - 0.1 * u;
                // no element moves by more than the rate and its decay
                let way = (found[i] - before[i]).abs();
                prop_assert!(way <= 0.1 * (1.0 + l * before[i].abs()) * (1.0 + 1e-12), "{}", way);
            }
            close(&found, &p, 1e-11);
            close(&slot(&opt, "hessian"), &h, 1e-12);
        }
    }

    /// A curvature of zero, or below, leaves nothing but signs.
    #[test]
    fn sophia_without_curvature_takes_sign_steps(
        (w, grads) in run(), below in 0.0f64..2.0, eps in prop::sample::select(vec![0.0, 1e-15]),
    ) {
        let flat = vec![-below; w.len()];
        let sophia = Sophia { lr: 0.25, betas: (0.9, 0.5), weight_decay: 0.0, eps, ..Sophia::hutchinson() };
        let mut opt: Opt<Sophia> = sophia.build().unwrap();
        let mut found = w.clone();
        for g in &grads {
            let before = found.clone();
            step(&mut opt, &mut found, g, Some(&flat)).unwrap();
            let m = slot(&opt, "exp_avg");
            let signs: Vec<f64> = m.iter().map(|m| 0.25 * m.signum()).collect();
            close(&minus(&before, &found), &signs, 1e-14);
        }
    }

    #[test]
    fn sophia_g_sees_no_sign_of_the_curvature((w, grads) in run(), g in number()) {
        let run = |factor: f64| {
            let mut opt: Opt<Sophia> = Sophia { lr: 0.1, ..Sophia::default() }.build().unwrap();
            let mut w = w.clone();
            for grad in &grads {
                let h: Vec<f64> = grad.iter().map(|x| factor * (x + g)).collect();
                step(&mut opt, &mut w, grad, Some(&h)).unwrap();
            }
            w
        };
        prop_assert_eq!(run(1.0), run(-1.0));
    }
}

/// At `hessian_power` 0 the curvature does not matter.
#[test]
fn adahessian_of_power_zero_is_momentum() {
    let run = |h: f64| {
        let config = AdaHessian { hessian_power: 0.0, eps: 0.0, ..AdaHessian::default() };
        let (mut opt, mut w): (Opt<_>, _) = (config.build().unwrap(), [1.0, 1.0]);
        step(&mut opt, &mut w, &[2.0, -4.0], Some(&[h, 3.0 * h])).unwrap();
        w
    };
    close(&run(0.5), &[1.0 - 0.15 * 2.0, 1.0 + 0.15 * 4.0], 1e-14);
    assert_eq!(run(0.5), run(1e-9));
}

/// One number for each kernel of a convolution: the mean of magnitudes.
#[test]
fn adahessian_averages_over_kernels() {
    let h = Array4::from_shape_fn((2, 3, 2, 2), |(o, i, y, x)| {
        let sign = if (y + x) % 2 == 0 { 1.0 } else { -1.0 };
        sign * (1 + 12 * o + 4 * i + 2 * y + x) as f64
    });
    let grads = Array4::from_elem(h.dim(), 1.0);
    let mut w = Array4::zeros(h.dim());
    let mut opt: Opt<AdaHessian> =
        AdaHessian { betas: (0.9, 0.5), ..AdaHessian::default() }.build().unwrap();
    opt.step(&mut w, &with_curvature(&grads, &h)).unwrap();
    for (kernel, v) in slot(&opt, "exp_hessian_diag_sq").chunks(4).enumerate() {
        let mean = 4.0 * kernel as f64 + 2.5;
        close(v, &[0.5 * mean * mean; 4], 1e-14);
    }
}

#[test]
fn a_curvature_that_is_due_must_come() {
    let (mut w, g, h) = ([1.0, 2.0], [0.5, -0.5], [1.0, 3.0]);
    let mut opt: Opt<Sophia> = Sophia { update_every: 3, ..Sophia::default() }.build().unwrap();
    for t in 1..=7 {
        if t % 3 == 1 {
            refused(&mut opt, &mut w, &g);
            step(&mut opt, &mut w, &g, Some(&h)).unwrap();
        } else {
            // not due: the curvature stays as it is
            let before = slot(&opt, "hessian");
            step(&mut opt, &mut w, &g, None).unwrap();
            assert_eq!(slot(&opt, "hessian"), before);
        }
    }
    // not due, but there
    let before = slot(&opt, "hessian");
    step(&mut opt, &mut w, &g, Some(&h)).unwrap();
    assert_ne!(slot(&opt, "hessian"), before);
    let mut opt: Opt<AdaHessian> = AdaHessian::default().build().unwrap();
    for _ in 0..3 {
        refused(&mut opt, &mut w, &g);
        step(&mut opt, &mut w, &g, Some(&h)).unwrap();
    }
}

/// A tensor's curvature may be missing alone, and the one that lacks it is named.
#[test]
fn the_tensor_without_a_curvature_is_named() {
    let mut w = (array![1.0f64], array![2.0]);
    let grads = w.clone();
    let mut opt = Sophia::default().build::<f64>().unwrap();
    let half = (Some(array![1.0]), None::<ndarray::Array1<f64>>);
    let error = opt.step(&mut w, &with_curvature(&grads, &half)).unwrap_err().to_string();
    assert_eq!(error, "Sophia needs a curvature in this step for `1`; see `with_curvature`");
    opt.step(&mut w, &with_curvature(&grads, &grads)).unwrap();
    // from here on each has its own
    opt.step(&mut w, &with_curvature(&grads, &half)).unwrap();
    let dict = opt.state_dict();
    let hessian = |name: &str| f64::read_le(&dict.tensors[&format!("state.{name}.hessian")].bytes);
    close(&hessian("0"), &[0.99 * 0.01 + 0.01], 1e-14);
    close(&hessian("1"), &[0.01 * 4.0], 1e-14);
}

#[test]
fn a_curvature_that_is_not_finite_is_refused() {
    let (mut w, g) = ([1.0, 2.0], [0.5, -0.5]);
    let mut opt: Opt<Sophia> = Sophia::default().build().unwrap();
    let error = step(&mut opt, &mut w, &g, Some(&[1.0, f64::NAN])).unwrap_err();
    assert!(matches!(error, Error::NonFiniteGradient { index: 1, .. }), "{error}");
    assert_eq!(error.to_string(), "gradient `curvature of param` is NaN at flat index 1");
    assert_eq!((w, opt.steps("param")), ([1.0, 2.0], None));
    let mut opt: Opt<Sophia> =
        Sophia::default().build().unwrap().with_non_finite(NonFinite::Propagate);
    step(&mut opt, &mut w, &g, Some(&[1.0, f64::NAN])).unwrap();
    assert!(w[0].is_finite() && w[1].is_nan());
}
