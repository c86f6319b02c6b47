//! Methods that evaluate again within a step: sharpness-aware minimisation, written outside the
//! crate on nothing but its public seam, and the crate's own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use eigenstep_instances as _;

use eigenstep::optim::Problem;
use eigenstep::params::Scaled;
use eigenstep::prelude::*;
use ndarray::{Array1, array};

/// P. Foret and others, "Sharpness-Aware Minimization", 2021: a plain ascent of length `rho` to the
/// sharper point, and the gradient from there. Two optimizers of the crate do both steps.
struct OwnSam<O> {
    rho: f64,
    ascent: Box<dyn Optimizer<f64>>,
    base: O,
}

impl<O: Optimizer<f64>> ClosureOptimizer<f64> for OwnSam<O> {
    fn step_problem(&mut self, problem: &mut dyn Problem<f64>) -> Result<f64> {
        let (loss, grads) = problem.evaluate()?;
        let norm = eigenstep::gradient::total_norm(&*grads, 2.0)?;
        self.ascent.set_lr(0, self.rho / norm)?;
        self.ascent.step(problem.parameters(), &Scaled::new(-1.0, &*grads))?;
        let (_, sharper) = problem.evaluate()?;
        self.ascent.step(problem.parameters(), &*grads)?;
        self.base.step(problem.parameters(), &*sharper)?;
        Ok(loss)
    }
}

#[test]
fn sam_needs_nothing_but_the_public_seam() {
    let plain = || Sgd { lr: 0.1, ..Sgd::default() }.build::<f64>().unwrap();
    let mut sam = OwnSam { rho: 0.5, ascent: Box::new(plain()), base: plain() };
    let mut w = array![3.0, -4.0];
    // f = |w|²/2: the gradient at w + rho·w/|w| is w + rho·w/|w|
    let loss = sam.step_with(&mut w, |w| (w.dot(w) / 2.0, w.clone())).unwrap();
    assert_eq!(loss, 12.5);
    let expected = array![3.0, -4.0] * (1.0 - 0.1 * 1.1);
    assert!((&w - &expected).iter().all(|x| x.abs() < 1e-12), "{w}");

    // and the crate's
    let options = SamOptions { rho: 0.5, ..SamOptions::default() };
    let mut own = Sam::with_options(plain(), options).unwrap();
    let mut twin = w.clone();
    for _ in 0..20 {
        let loss = sam.step_with(&mut w, |w| (w.dot(w) / 2.0, w.clone())).unwrap();
        let own = own.step_with(&mut twin, |w| (w.dot(w) / 2.0, w.clone())).unwrap();
        assert!((loss - own).abs() < 1e-9 && (&w - &twin).iter().all(|x| x.abs() < 1e-9));
    }
}

#[test]
fn closures_may_fail_and_nothing_has_changed() {
    let mut opt = AdamW::default().build::<f64>().unwrap();
    let mut w = array![1.0];
    let fail = |_: &mut Array1<f64>| -> std::result::Result<(f64, Array1<f64>), &str> {
        Err("no data left")
    };
    let error = opt.step_with(&mut w, fail).unwrap_err();
    assert_eq!(error.to_string(), "the closure failed: no data left");
    let error = opt.step_with(&mut w, |w| (f64::NAN, w.clone())).unwrap_err();
    assert_eq!(error.to_string(), "the loss is not finite: NaN");
    assert!(opt.step_with(&mut w, |_| (1.0f32, array![f64::INFINITY])).is_err());
    assert_eq!(w, array![1.0]);
    assert_eq!(opt.steps("param"), None);
    // infallible, fallible in the loss, and fallible as a whole all work
    opt.step_with(&mut w, |w| (1.0f32, w.clone())).unwrap();
    opt.step_with(&mut w, |w| Ok::<_, Error>((1.0f64, w.clone()))).unwrap();
    opt.step_with(&mut w, |w| (Ok::<f64, Error>(1.0), w.clone())).unwrap();
    assert_eq!(opt.steps("param"), Some(3));
}
