//! Straight-through estimators: the noise that belongs to them, values, and what is refused.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

use eigenstep::Error;
use eigenstep::zeroth_order::{Grid, StraightThrough};
use proptest::prelude::*;

const GRID: Grid = Grid { alpha: 1.0, qmin: -127, qmax: 127 };
const N: usize = 20_000;

/// The middles of `N` equal parts of `[0, 1]`: the mean of a step function over them is exact up to
/// `1/N` of every step.
fn points() -> impl Iterator<Item = f64> {
    (0..N).map(|i| (i as f64 + 0.5) / N as f64)
}

#[test]
fn noise_has_mean_zero_and_variance_one() {
    for ste in StraightThrough::ALL {
        let mean = points().map(|p| ste.noise(p)).sum::<f64>() / N as f64;
        let variance = points().map(|p| ste.noise(p).powi(2)).sum::<f64>() / N as f64;
        assert!(mean.abs() < 1e-9, "{ste:?}: mean {mean:e}");
        // the tails of the one that has some lie between the points
        assert!((variance - 1.0).abs() < 2e-3, "{ste:?}: variance {variance}");
        let sorted = points().map(|p| ste.noise(p)).is_sorted();
        assert!(sorted, "{ste:?} is no inverse of a distribution function");
    }
}

#[test]
fn the_density_of_the_noise_is_the_slope_of_the_surrogate() {
    // P(u < t) = (1 + surrogate(ε̄t))/2 for the signs
    for ste in [StraightThrough::HardTanh, StraightThrough::Tanh, StraightThrough::ApproxSign] {
        for p in points().step_by(997) {
            let found = 0.5 * (1.0 + ste.surrogate(ste.epsilon_bar() * ste.noise(p)));
            assert!((found - p).abs() < 1e-12, "{ste:?} at {p}: {found}");
        }
    }
}

proptest! {
    #[test]
    fn the_mean_under_noise_is_the_surrogate(y in -3.0..3.0f64) {
        for ste in StraightThrough::ALL {
            let perturbed = |p| ste.forward(y + ste.epsilon_bar() * ste.noise(p), GRID);
            let mean = points().map(perturbed).sum::<f64>() / N as f64;
            let expected = ste.surrogate(y);
            prop_assert!((mean - expected).abs() <= 2.0 / N as f64, "{ste:?} at {y}: {mean}, {expected}");
        }
    }

    #[test]
    fn the_factor_is_the_derivative_of_the_surrogate(y in -3.0..3.0f64) {
        const H: f64 = 1e-6;
        // away from the corners
        prop_assume!((y.abs() - 1.0).abs() > 1e-3 && y.abs() > 1e-3);
        for ste in StraightThrough::ALL {
            let slope = (ste.surrogate(y + H) - ste.surrogate(y - H)) / (2.0 * H);
            prop_assert!((ste.backward_factor(y, GRID) - slope).abs() < 1e-8, "{ste:?} at {y}");
        }
    }

    #[test]
    fn nothing_panics(x in any::<f64>(), alpha in any::<f64>(), qmin in any::<i32>(),
                      qmax in any::<i32>(), p in any::<f64>()) {
        for ste in StraightThrough::ALL {
            let grid = Grid { alpha, qmin, qmax };
            ste.forward(x, grid);
            ste.backward_factor(x, grid);
            ste.surrogate(x);
            prop_assert_eq!(ste.noise(p).is_finite(), !p.is_nan());
        }
    }

    #[test]
    fn values_lie_on_the_grid(x in -9.0f32..9.0, alpha in 0.01..2.0f64) {
        let grid = Grid { alpha, qmin: -2, qmax: 1 };
        let codes = [-2.0, -1.0, 0.0, 1.0].map(|code| (alpha * code) as f32);
        prop_assert!(codes.contains(&StraightThrough::Identity.forward(x, grid)));
        prop_assert!([codes[1], codes[3]].contains(&StraightThrough::Tanh.forward(x, grid)));
    }
}

#[test]
fn ties_signs_and_corners() {
    let grid = Grid { alpha: 1.0, qmin: -2, qmax: 1 };
    let rounded =
        [0.5, 1.5, -0.5, -1.5, -2.5].map(|x: f64| StraightThrough::Identity.forward(x, GRID));
    assert_eq!(rounded, [0.0, 2.0, 0.0, -2.0, -2.0]);
    assert_eq!(
        [0.0, -0.0, -1e-300].map(|x: f64| StraightThrough::HardTanh.forward(x, grid)),
        [1.0, 1.0, -1.0]
    );
    // the ends belong to the range
    assert_eq!(
        [-2.0, 1.0, 1.01].map(|x: f64| StraightThrough::Clipped.backward_factor(x, grid)),
        [1.0, 1.0, 0.0]
    );
    assert_eq!(
        [-1.0, 1.01].map(|x: f64| StraightThrough::HardTanh.backward_factor(x, grid)),
        [1.0, 0.0]
    );
    assert_eq!(
        [0.0, 0.25, 1.0].map(|x: f64| StraightThrough::ApproxSign.backward_factor(x, grid)),
        [2.0, 1.5, 0.0]
    );
    for ste in StraightThrough::ALL {
        assert!(ste.forward(f64::NAN, grid).is_nan(), "{ste:?}");
        assert_eq!(
            ste.backward_factor(f64::NAN, grid).is_nan(),
            ste != StraightThrough::Identity,
            "{ste:?}"
        );
        assert!(ste.forward(f64::INFINITY, grid).is_finite(), "{ste:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut out = [7.0f64; 2];
    for (grid, expected) in [
        (Grid { alpha: 0.0, ..GRID }, "alpha"),
        (Grid { alpha: f64::NAN, ..GRID }, "alpha"),
        (Grid { alpha: f64::INFINITY, ..GRID }, "alpha"),
        (Grid { qmin: 128, ..GRID }, "qmin"),
    ] {
        let error = StraightThrough::Identity.forward_slice(&[0.0; 2], grid, &mut out).unwrap_err();
        assert!(
            matches!(error, Error::InvalidHyperparameter { field, .. } if field == expected),
            "{error}"
        );
        assert!(
            StraightThrough::Identity.backward_slice(&[0.0; 2], &[0.0; 2], grid, &mut out).is_err()
        );
    }
    let error =
        StraightThrough::Tanh.backward_slice(&[0.0; 2], &[0.0; 3], GRID, &mut out).unwrap_err();
    assert!(matches!(&error, Error::LengthMismatch { name, .. } if name == "upstream"), "{error}");
    let error = StraightThrough::Tanh.forward_slice(&[0.0; 3], GRID, &mut out).unwrap_err();
    assert!(matches!(&error, Error::LengthMismatch { name, .. } if name == "out"), "{error}");
    assert_eq!(out, [7.0; 2]);
}
