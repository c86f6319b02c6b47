//! Methods that the algebra makes short.

use eigenstep::params::Parameters;
use eigenstep::prelude::*;
use eigenstep::tree::*;
use ndarray::{Array1, Array2, array};

type Model = (Array2<f64>, Array1<f64>);

fn start() -> Model {
    (Array2::from_shape_fn((3, 4), |(i, j)| (i as f64 - j as f64) / 2.0), array![1.0, -2.0])
}

/// A symmetric positive definite operator on the model: neighbours are coupled.
fn apply(x: &TreeVec<f64>) -> TreeVec<f64> {
    let (v, mut out) = (x.values(), x.clone());
    for (i, out) in out.values_mut().iter_mut().enumerate() {
        let at = |j: usize| v.get(j).copied().unwrap_or(0.0);
        *out = (3.0 + i as f64) * v[i] - at(i.wrapping_sub(1)) - at(i + 1);
    }
    out
}

#[test]
fn conjugate_gradients_end_after_as_many_steps_as_there_are_elements() -> eigenstep::Result<()> {
    let b = TreeVec::<f64>::of(&start())?;
    let mut x = TreeVec::<f64>::zeros_like(&b)?;
    let (mut r, mut d) = (b.clone(), b.clone());
    let mut square = dot(&r, &r)?;
    for _ in 0..14 {
        let q = apply(&d);
        let alpha = square / dot(&d, &q)?;
        axpy(alpha, &d, &mut x)?;
        axpy(-alpha, &q, &mut r)?;
        let next = dot(&r, &r)?;
        let beta = next / square;
        zip_map(&r, &mut d, |r, d| r + beta * d)?;
        square = next;
    }
    assert!(distance(&apply(&x), &b)? < 1e-10 * norm(&b)?);
    Ok(())
}

/// The two loops of L-BFGS: `−H·g` from pairs of steps and differences of gradients.
fn two_loops(
    pairs: &[(TreeVec<f64>, TreeVec<f64>)],
    g: &TreeVec<f64>,
) -> eigenstep::Result<TreeVec<f64>> {
    let mut d = g.clone();
    scale(-1.0, &mut d)?;
    let mut alphas = Vec::new();
    for (s, y) in pairs.iter().rev() {
        let alpha = dot(s, &d)? / dot(s, y)?;
        axpy(-alpha, y, &mut d)?;
        alphas.push(alpha);
    }
    if let Some((s, y)) = pairs.last() {
        scale(dot(s, y)? / dot(y, y)?, &mut d)?;
    }
    for ((s, y), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(y, &d)? / dot(s, y)?;
        axpy(alpha - beta, s, &mut d)?;
    }
    Ok(d)
}

#[test]
fn lbfgs_keeps_the_secant_equation_and_finds_the_minimum() -> eigenstep::Result<()> {
    let target = TreeVec::<f64>::of(&start())?;
    let gradient = |model: &mut dyn Parameters<f64>| -> eigenstep::Result<TreeVec<f64>> {
        let mut g = apply(&TreeVec::of(model)?);
        axpy(-1.0, &target, &mut g)?;
        Ok(g)
    };
    let mut model: Model = (Array2::zeros((3, 4)), Array1::zeros(2));
    let mut pairs = Vec::new();
    let mut g = gradient(&mut model)?;
    for _ in 0..40 {
        let mut s = two_loops(&pairs, &g)?;
        // exact along the direction
        let q = apply(&s);
        scale(-dot(&g, &s)? / dot(&s, &q)?, &mut s)?;
        axpy(1.0, &s, &mut model)?;
        let next = gradient(&mut model)?;
        let mut y = TreeVec::zeros_like(&next)?;
        difference(&next, &g, &mut y)?;
        g = next;
        if norm(&g)? < 1e-9 {
            break;
        }
        pairs.push((s, y));
        let (s, y) = pairs.last().expect("a pair was pushed");
        let mut back = two_loops(&pairs, y)?;
        axpy(1.0, s, &mut back)?;
        assert!(norm(&back)? < 1e-9 * norm(s)?);
    }
    assert!(norm(&g)? < 1e-8, "{}", norm(&g)?);
    Ok(())
}

/// SAM around any optimizer, and around anything that has parameters.
fn sam_step<T: eigenstep::numeric::Element>(
    (opt, snapshot): (&mut dyn Optimizer<T>, &mut Snapshot<T>),
    params: &mut dyn Parameters<T>,
    mut gradient: impl FnMut(&mut dyn Parameters<T>) -> eigenstep::Result<TreeVec<T>>,
) -> eigenstep::Result<()> {
    let grads = gradient(params)?;
    snapshot.retake(params)?;
    axpy(0.05 / norm(&grads)?, &grads, &mut *params)?;
    let sharp = gradient(params);
    snapshot.restore(params)?;
    opt.step(params, &sharp?)
}

#[test]
fn sam_steps_along_the_gradient_nearby() -> eigenstep::Result<()> {
    let mut w = array![3.0f64, 4.0];
    let mut opt = Sgd { lr: 0.5, ..Sgd::default() }.build()?;
    let mut snapshot = Snapshot::new();
    sam_step((&mut opt, &mut snapshot), &mut w, |params| TreeVec::of(params))?;
    // the gradient of ‖w‖²/2 at w·(1 + 0.05/‖w‖)
    assert!((w[0] - 3.0 * (1.0 - 0.5 * 1.01)).abs() < 1e-15);
    assert!((w[1] - 4.0 * (1.0 - 0.5 * 1.01)).abs() < 1e-15);
    // a gradient that cannot be computed leaves the parameters where they were
    let before = w.clone();
    let mut calls = 0;
    let outcome = sam_step((&mut opt, &mut snapshot), &mut w, |params| {
        calls += 1;
        match calls {
            1 => TreeVec::of(params),
            _ => Err(Error::NonFiniteLoss(f64::NAN)),
        }
    });
    assert!(outcome.is_err() && w == before);
    Ok(())
}
