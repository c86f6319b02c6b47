//! Clips that remember norms, and gradients of single examples.

use eigenstep::Error;
use eigenstep::gradient::{
    AutoClip, DpSgd, HistoryClip, NormBound, PrivateGradients, ZClip, materialize, total_norm,
};
use eigenstep::params::Flat;
use eigenstep::prelude::*;
use ndarray::{Array1, array};

/// Norms that wander.
fn norm(i: usize) -> f64 {
    1.0 + (i as f64 * 0.7).sin().abs() + if i % 9 == 8 { 30.0 } else { 0.0 }
}

fn factors<C: NormBound>(clip: &mut HistoryClip<C>, steps: std::ops::Range<usize>) -> Vec<f64> {
    steps.map(|i| clip.clip(&array![norm(i)]).unwrap().factor()).collect()
}

/// A saved clip goes on with the same factors, whatever options it is loaded into.
#[test]
fn memories_are_saved() {
    fn check<C: NormBound + Default + PartialEq>(rule: C) {
        for at in [0, 3, 30] {
            let mut clip = rule.clone().build().unwrap();
            factors(&mut clip, 0..at);
            let mut again = C::default().build().unwrap();
            again.load_state_dict(&clip.state_dict()).unwrap();
            assert_eq!(again, clip);
            assert_eq!(factors(&mut again, at..at + 40), factors(&mut clip, at..at + 40));
        }
    }
    check(AutoClip { quantile: 0.3, window: 7 });
    check(AutoClip { quantile: 0.9, window: 0 });
    check(ZClip { warmup: 5, max_norm: None, ..ZClip::default() });
    check(ZClip { warmup: 5, max_norm: Some(2.5), skip_spikes: true, ..ZClip::default() });
}

/// A training that begins without gradients is not clipped to nothing for ever, and norms beyond the range leave a
/// state that loads.
#[test]
fn outliers_are_found_among_norms_of_any_size() {
    let mut clip = ZClip { warmup: 3, max_norm: None, ..ZClip::default() }.build().unwrap();
    for norm in [0.0; 10].into_iter().chain([0.5, 0.6, 0.4, 0.5, 0.45]) {
        assert_eq!(clip.clip(&array![norm]).unwrap().factor(), 1.0, "{norm}");
    }
    assert!(clip.clip(&array![50.0]).unwrap().factor() < 0.02);
    let mut clip = ZClip { warmup: 2, max_norm: None, ..ZClip::default() }.build().unwrap();
    for norm in [1e200, 3e200, 1e307, 1.5e308] {
        clip.clip(&array![norm]).unwrap();
    }
    let mut again = ZClip::default().build().unwrap();
    again.load_state_dict(&clip.state_dict()).unwrap();
    assert_eq!(again, clip);
}

#[test]
fn a_window_is_the_last_norms() {
    for window in [1, 3, 10] {
        let mut clip = AutoClip { quantile: 1.0, window }.build().unwrap();
        for i in 0..40 {
            let found = clip.clip(&array![norm(i)]).unwrap().factor() * norm(i);
            let first = (i + 1).saturating_sub(window as usize);
            let highest = (first..=i).map(norm).fold(0.0, f64::max);
            assert!((found - norm(i).min(highest)).abs() < 1e-5);
            assert!(clip.memory().norms.len() as u64 <= window);
        }
    }
}

/// What is not finite, and a step that fails, leave the memory alone.
#[test]
fn a_failed_step_is_not_remembered() {
    let mut clip = ZClip { warmup: 3, ..ZClip::default() }.build().unwrap();
    let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    let mut w = array![0.0];
    for g in [1.0, 2.0, 3.0, 4.0] {
        clip.step(&mut opt, &mut w, &array![g]).unwrap();
    }
    let (before, place) = (clip.clone(), w.clone());
    for g in [f64::NAN, f64::INFINITY] {
        assert!(clip.step(&mut opt, &mut w, &array![g]).is_err());
        let _ = clip.clip(&array![g]).unwrap();
    }
    assert!(clip.step(&mut opt, &mut w, &array![1.0, 2.0]).is_err());
    assert!(clip.clip(&Flat::new(&[0.0; 3], &[2])).is_err());
    assert_eq!((&clip, &w), (&before, &place));
    let wrong = before.state_dict();
    let mut broken = wrong.clone();
    broken.scalars.remove("memory.mean");
    assert!(matches!(clip.load_state_dict(&broken), Err(Error::StateDict { .. })));
    assert_eq!(clip, before);
    assert!(AutoClip { quantile: 1.5, window: 0 }.build().is_err());
    assert!(ZClip { alpha: 1.0, ..ZClip::default() }.build().is_err());
    assert!(ZClip { max_norm: Some(-1.0), ..ZClip::default() }.build().is_err());
}

/// No example moves the sum by more than `max_norm`, and what is within it is left alone.
#[test]
fn examples_are_clipped_one_by_one() {
    let mut private =
        PrivateGradients::new(DpSgd { max_norm: 2.0, noise_multiplier: 0.0, seed: 1 }).unwrap();
    let mut sum: Array1<f64> = Array1::zeros(2);
    for i in 0..20 {
        let example = array![norm(i), -0.3 * norm(i + 3)];
        private.add(&example).unwrap();
        let length = example.dot(&example).sqrt();
        sum = sum + &example * (2.0 / (length + 1e-6)).min(1.0);
    }
    let mean = private.mean(16.0).unwrap();
    let found = &materialize(&mean.noisy().unwrap()).unwrap()["param"];
    assert!(found.iter().zip(&sum).all(|(a, b)| (a - b / 16.0).abs() < 1e-13));
    assert_eq!(private.count(), 20);
    for g in [f64::NAN, f64::INFINITY] {
        assert!(matches!(private.add(&array![g, 0.0]), Err(Error::NonFinite { .. })));
    }
    assert_eq!(private.count(), 20);
    assert!(private.mean(0.0).is_err() && private.mean(f64::NAN).is_err());
}

/// However small the noise, it is there.
#[test]
fn tiny_noise_is_noise() {
    let config = DpSgd { max_norm: 1e-170, noise_multiplier: 1.0, seed: 1 };
    let mut private = PrivateGradients::new(config).unwrap();
    private.add(&array![0.0f64, 0.0]).unwrap();
    let mean = private.mean(1.0).unwrap();
    let found = &materialize(&mean.noisy().unwrap()).unwrap()["param"];
    assert!(found.iter().all(|x| *x != 0.0), "{found}");
}

/// The noise has the stated deviation, is the same for the same step, and another one at the next.
#[test]
fn noise_is_calibrated() {
    let config = DpSgd { max_norm: 3.0, noise_multiplier: 2.0, seed: 5 };
    let mut private = PrivateGradients::new(config.clone()).unwrap();
    let (n, batch) = (20_000, 12.0);
    let example = Array1::<f64>::zeros(n);
    let shown = |private: &PrivateGradients<f64>| -> Vec<f64> {
        let mean = private.mean(batch).unwrap();
        materialize(&mean.noisy().unwrap()).unwrap()["param"].iter().copied().collect()
    };
    private.add(&example).unwrap();
    let first = shown(&private);
    assert_eq!(first, shown(&private));
    let deviation = total_norm(&Array1::from(first.clone()), 2.0).unwrap() / (n as f64).sqrt();
    assert!((deviation - 2.0 * 3.0 / batch).abs() < 0.01, "{deviation}");
    private.next_step();
    private.add(&example).unwrap();
    let second = shown(&private);
    assert_ne!(first, second);
    // a run that goes on has the noise that it would have had
    let mut resumed = PrivateGradients::resume(config, private.steps()).unwrap();
    resumed.add(&example).unwrap();
    assert_eq!(shown(&resumed), second);
}
