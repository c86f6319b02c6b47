//! Norms, bounds, guards and loss scales where numbers end.

use eigenstep::gradient::{
    AdaptiveClip, ClipNorm, GradScaler, LossScaling, NormGuard, NormLimit, clip_grad_norm,
    clip_grad_rms, clip_grad_value, clip_with_norm, materialize, total_norm,
};
use eigenstep::optim::NonFinite;
use eigenstep::params::Gradients;
use eigenstep::prelude::{Optimizer, Rule, Sgd};
use eigenstep::{Error, Result};
use ndarray::{Array1, array};

/// A step of length 1 along what the gradients are.
fn step(grads: &dyn Gradients<f64>) -> Result<Array1<f64>> {
    let mut w = Array1::zeros(2);
    Sgd { lr: 1.0, ..Sgd::default() }.build()?.step(&mut w, grads)?;
    Ok(-w)
}

/// Where squares leave the range of `f64` norms are those of the numbers over the largest; elsewhere
/// they have the bits of the plain sum.
#[test]
fn norms_reach_to_the_ends_of_the_range() {
    for size in [1e300, 1e155, 1e-155, 1e-300, 1e-320] {
        let g = array![3.0 * size, 4.0 * size];
        for (p, expected) in [(2.0, 5.0), (3.0, 91f64.cbrt()), (10.0, 4.0f64.powf(1.0) * 1.0055)] {
            let norm = total_norm(&g, p).unwrap() / size;
            let tolerance = if size < 1e-310 { 1e-3 } else { 1e-12 };
            let tolerance = if p == 10.0 { 1e-3 } else { tolerance };
            assert!((norm / expected - 1.0).abs() < tolerance, "{size:e}, {p}: {norm}");
        }
        if size > 1e-310 {
            let clipped = step(&clip_grad_norm(&g, 1.0)).unwrap();
            let expected = if size > 1.0 { [0.6, 0.8] } else { [3.0 * size, 4.0 * size] };
            for (x, y) in clipped.iter().zip(expected) {
                assert!((x / y - 1.0).abs() < 1e-12, "{size:e}: {clipped}");
            }
        }
    }
    for g in [array![3.0, -4.5, 1e-3], array![1e150, 1e140, 0.0], array![0.0, 0.0, 0.0]] {
        let plain = g.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert_eq!(total_norm(&g, 2.0).unwrap(), plain);
    }
    assert_eq!(total_norm(&array![1e300, f64::INFINITY], 2.0).unwrap(), f64::INFINITY);
    assert!(total_norm(&array![1e300, f64::NAN], 2.0).unwrap().is_nan());
}

/// Rows whose squares overflow are clipped to their limit, and not to nothing.
#[test]
fn rows_are_clipped_up_to_the_end_of_the_range() {
    let weights = ndarray::array![[3.0, 4.0], [6.0, 8.0]];
    let grads = ndarray::array![[3e200, 4e200], [0.03, 0.04]];
    let clip = AdaptiveClip::default();
    let found = materialize(&clip.clip(&mut weights.clone(), &grads).unwrap()).unwrap();
    let row = clip.clipping * 5.0;
    let expected = [0.6 * row, 0.8 * row, 0.03, 0.04];
    for (x, y) in found["param"].iter().zip(expected) {
        assert!((x / y - 1.0).abs() < 1e-12, "{found:?}");
    }
}

/// Bounds that are none are refused by name, and nothing moves.
#[test]
fn bounds_are_numbers_from_zero() {
    let g = array![3.0, 4.0];
    for bad in [-1.0, f64::NAN, f64::NEG_INFINITY] {
        for (error, field) in [
            (step(&clip_grad_norm(&g, bad)).unwrap_err(), "max_norm"),
            (step(&clip_with_norm(&g, bad, 5.0)).unwrap_err(), "max_norm"),
            (step(&clip_grad_value(&g, bad)).unwrap_err(), "clip_value"),
            (step(&clip_grad_rms(&g, bad)).unwrap_err(), "max_rms"),
            (
                ClipNorm { max_norm: bad, ..ClipNorm::default() }.clip(&g).map(drop).unwrap_err(),
                "max_norm",
            ),
        ] {
            assert!(
                matches!(&error, Error::InvalidHyperparameter { field: f, .. } if *f == field),
                "{error}"
            );
        }
    }
    assert_eq!(step(&clip_grad_value(&g, f64::INFINITY)).unwrap(), g);
    assert_eq!(step(&clip_grad_norm(&g, f64::INFINITY)).unwrap(), g);
    assert_eq!(step(&clip_grad_norm(&g, 0.0)).unwrap(), array![0.0, 0.0]);
}

/// A clip makes the factor of an infinity 0, and the product NaN: the error says what was there.
#[test]
fn an_infinity_is_called_one() {
    for value in [f64::INFINITY, f64::NEG_INFINITY] {
        let g = array![1.0, value];
        let error = step(&clip_grad_norm(&g, 1.0)).unwrap_err().to_string();
        assert_eq!(error, format!("gradient `param` is {value} at flat index 1"));
    }
    let error = step(&clip_grad_norm(&array![1.0, f64::NAN], 1.0)).unwrap_err().to_string();
    assert!(error.starts_with("gradient `param` is NaN"), "{error}");
}

/// However often norms are too large, the guard opens again; what is not finite never passes, and is an
/// error in the end.
#[test]
fn a_guard_opens_again() {
    let limit = NormLimit { warmup: 3, max_skips: 4, ..NormLimit::default() };
    // after zeros, after a lasting jump, after a fall and a return
    for before in [&[0.0; 50][..], &[1.0; 10], &[1.0, 1e-3, 1e-3, 1e-3, 1e-3]] {
        let mut guard = NormGuard::new(limit).unwrap();
        before.iter().for_each(|&norm| assert!(guard.accepts(norm)));
        let refused = (0..20).filter(|_| !guard.accepts(1e4)).count() as u64;
        assert!(refused <= limit.max_skips, "{before:?}: {refused}");
        assert_eq!(guard.skipped(), refused);
        assert!(guard.accepts(1e4) && guard.mean() > 1e3);
    }
    let mut guard = NormGuard::new(limit).unwrap();
    (0..5).for_each(|_| assert!(guard.accepts(1.0)));
    let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    let mut w = array![0.0];
    for _ in 0..limit.max_skips {
        assert!(!guard.step(&mut opt, &mut w, &array![f64::NAN]).unwrap());
    }
    let error = guard.step(&mut opt, &mut w, &array![f64::NAN]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    let mut copy = NormGuard::new(limit).unwrap();
    copy.load_state_dict(&guard.state_dict()).unwrap();
    assert_eq!(copy, guard);
    assert!(guard.step(&mut opt, &mut w, &array![1.0]).unwrap());
    assert_eq!(w, array![-1.0]);
}

#[test]
fn a_loss_scale_has_an_end() {
    let config = LossScaling { init_scale: 4.0, min_scale: 0.5, ..LossScaling::default() };
    let mut scaler = GradScaler::new(config).unwrap();
    let mut opt = Sgd { lr: 1.0, ..Sgd::default() }.build::<f32>().unwrap();
    let mut w = array![0.0f32];
    for expected in [2.0, 1.0, 0.5] {
        assert!(!scaler.step(&mut opt, &mut w, &array![f32::INFINITY]).unwrap());
        scaler.update().unwrap();
        assert_eq!(scaler.current_scale(), expected);
    }
    assert!(!scaler.step(&mut opt, &mut w, &array![f32::INFINITY]).unwrap());
    for _ in 0..2 {
        let error = scaler.update().unwrap_err();
        assert!(error.to_string().contains("`min_scale` = 0.5"), "{error}");
        assert_eq!(scaler.current_scale(), 0.5);
    }
    assert!(scaler.set_scale(0.0).is_err() && scaler.set_scale(f64::NAN).is_err());
    scaler.set_scale(8.0).unwrap();
    assert!(scaler.step(&mut opt, &mut w, &array![8.0f32]).unwrap());
    scaler.update().unwrap();
    assert_eq!(w, array![-1.0]);
}

/// An iteration ends, whatever became of its step.
#[test]
fn scales_are_updated_after_any_step() {
    let scaler =
        || GradScaler::new(LossScaling { init_scale: 0.5, ..LossScaling::default() }).unwrap();
    let opt = || Sgd { lr: 1.0, momentum: 0.9, ..Sgd::default() }.build::<f32>().unwrap();
    let mut w = array![0.0f32];
    // overflows only once it is divided by the scale
    let (mut scaled, mut opt_a) = (scaler(), opt());
    assert!(!scaled.step(&mut opt_a, &mut w, &array![3e38f32]).unwrap());
    scaled.update().unwrap();
    assert_eq!(scaled.current_scale(), 0.25);
    let unscaled = scaled.unscale(&array![3e38f32]).unwrap().found_inf();
    assert!(unscaled);
    // a step that the optimizer refuses leaves the scale, and the next iteration can begin
    let (mut scaled, mut opt_b) = (scaler(), opt());
    for wrong in [array![1e35f32], array![1.0, 2.0]] {
        assert!(scaled.step(&mut opt_b, &mut w, &wrong).is_err());
        scaled.update().unwrap();
        assert_eq!(scaled.current_scale(), 0.5);
    }
    // a step that the optimizer leaves out is none
    let mut skipping = opt().with_non_finite(NonFinite::Skip);
    assert!(!scaled.step(&mut skipping, &mut w, &array![1e35f32]).unwrap());
    scaled.update().unwrap();
    assert_eq!((scaled.current_scale(), skipping.skipped_steps()), (0.25, 1));
    assert_eq!(w, array![0.0]);
}
