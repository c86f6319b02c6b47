use crate::linalg_checks::{in_other_memory, norm, orthogonal, random, wide};
use crate::{cases, close, message, with_singular_values};
use eigenstep::linalg::{NewtonSchulz, NewtonSchulzScratch, bjorck, orthogonality_error, svd};
use eigenstep::numeric::Real;
use ndarray::{Array2, array, s};
use proptest::prelude::*;

/// U Vᵀ
fn polar(a: &Array2<f64>) -> Array2<f64> {
    let (u, _, vt) = svd(a).unwrap();
    u.dot(&vt)
}

fn defect(v: &Array2<f64>) -> Array2<f64> {
    v.t().dot(v) - Array2::<f64>::eye(v.ncols())
}

fn singular_values(a: &Array2<f64>) -> Vec<f64> {
    svd(a).unwrap().1.to_vec()
}

proptest! {
    #![proptest_config(cases::cases(48))]

    #[test]
    fn an_iteration_of_bjorck_maps_the_defect_by_its_cubic(
        m in 1usize..20, extra in 0usize..6, noise in 0.0f64..0.6, seed: u64,
    ) {
        let n = m;
        let m = m + extra;
        let v = &orthogonal(m, seed).slice(s![.., ..n]) + &(noise / (m as f64).sqrt() * random::<f64>(m, n, !seed));
        let e = defect(&v);
        let expected = e.dot(&e) * -0.75 + e.dot(&e).dot(&e) * 0.25;
        let found = bjorck(&v, 1).unwrap();
        let bound = 1e-14 * (m as f64) * (1.0 + norm(&e)).powi(3);
        prop_assert!(norm(&(defect(&found) - expected)) <= bound);
        // singular values move by themselves, and none is above one any more
        let mut expected: Vec<f64> =
            singular_values(&v).iter().map(|s| 1.5 * s - 0.5 * s.powi(3)).collect();
        expected.sort_by(|x, y| y.total_cmp(x));
        for (found, expected) in singular_values(&found).iter().zip(expected) {
            prop_assert!((found - expected).abs() <= 1e-13 && *found <= 1.0 + 1e-14);
        }
        // in single precision the same to rounding, and transposed as well
        close(&bjorck(&v.mapv(|x| x as f32), 1).unwrap(), &wide(&found), 1e-5);
        close(&bjorck(&v.t(), 1).unwrap(), &found.t().to_owned(), 1e-13);
    }

    #[test]
    fn bjorck_converges_to_the_polar_factor(
        s in prop::collection::vec(0.05f64..1.7, 1..12), extra in 0usize..4, seed: u64,
    ) {
        let v = with_singular_values::<f64>((s.len() + extra, s.len()), &s, seed);
        let limit = bjorck(&v, 30).unwrap();
        close(&limit, &polar(&v), 1e-10);
        prop_assert!(orthogonality_error(&limit).unwrap() <= 1e-13);
    }

    #[test]
    fn newton_schulz_moves_singular_values_alone(
        m in 1usize..9, n in 1usize..9, seed: u64, power in -20i32..20, scale in 0.01f64..100.0,
    ) {
        let g = random::<f64>(m, n, seed);
        for schedule in [NewtonSchulz::default(), NewtonSchulz::polar_express(7)] {
            let found = schedule.orthogonalize(&g).unwrap();
            // scale-free: exactly for powers of two
            let scaled = schedule.orthogonalize(&(&g * 2.0_f64.powi(power))).unwrap();
            prop_assert_eq!(&found, &scaled);
            close(&schedule.orthogonalize(&(&g * scale)).unwrap(), &found, 1e-11);
            // orthogonal equivariance and transposition
            let (left, right) = (orthogonal(m, seed ^ 1), orthogonal(n, seed ^ 2));
            let rotated = schedule.orthogonalize(&left.dot(&g).dot(&right)).unwrap();
            close(&rotated, &left.dot(&found).dot(&right), 1e-11);
            let transposed = schedule.orthogonalize(&g.t()).unwrap();
            if m == n {
                close(&transposed, &found.t().to_owned(), 1e-11);
            } else {
                prop_assert_eq!(&transposed, &found.t());
            }
            // the polynomial of every singular value
            let size = norm(&g);
            let image = |s: f64| schedule.coefficients.iter().fold(s / size, |s, [a, b, c]| {
                a * s + b * s.powi(3) + c * s.powi(5)
            });
            let mut expected: Vec<f64> =
                singular_values(&g).into_iter().map(|s| image(s).abs()).collect();
            expected.sort_by(|x, y| y.total_cmp(x));
            for (found, expected) in singular_values(&found).iter().zip(expected) {
                prop_assert!((found - expected).abs() <= 1e-11, "{} {}", found, expected);
            }
            let single = schedule.orthogonalize(&g.mapv(|x| x as f32)).unwrap();
            close(&single, &found, 1e-3);
        }
    }

    #[test]
    fn schedules_that_converge_give_the_polar_factor(
        s in prop::collection::vec(0.02f64..1.0, 1..10), extra in 0usize..5, seed: u64,
    ) {
        let g = with_singular_values::<f64>((s.len(), s.len() + extra), &s, seed);
        let expected = polar(&g);
        for schedule in [
            NewtonSchulz::polar_express(12),
            NewtonSchulz::cubic(35),
            NewtonSchulz::repeated([1.875, -1.25, 0.375], 20),
        ] {
            close(&schedule.orthogonalize(&g).unwrap(), &expected, 1e-10);
        }
    }
}

/// Where the schedules send singular values in [0.01, 1]; matrices with a row hold any of them.
#[test]
fn ranges_of_singular_values() {
    let third = |steps| NewtonSchulz::repeated([3.0, -16.0 / 5.0, 6.0 / 5.0], steps);
    for (schedule, low, high) in [
        (NewtonSchulz::muon(5), 0.682, 1.134),
        (NewtonSchulz::polar_express(5), 0.870, 1.124),
        (NewtonSchulz::polar_express(6), 0.9974, 1.0012),
        (NewtonSchulz::polar_express(8), 1.0 - 5e-5, 1.0 + 5e-5),
        (third(8), 0.990, 1.012),
        (NewtonSchulz::cubic(20), 1.0 - 1e-6, 1.0 + 1e-12),
    ] {
        let half_a_digit = if high - low > 0.01 { 5e-4 } else { 5e-5 };
        for i in 0..=400 {
            let s = 0.01_f64.powf(f64::from(i) / 400.0);
            // unit norm, one singular value of size s
            let g = Array2::from_diag(&array![s, (1.0 - s * s).sqrt()]);
            let found = schedule.orthogonalize(&g).unwrap()[(0, 0)];
            let inside = low - half_a_digit..=high + half_a_digit;
            assert!(inside.contains(&found), "{s} -> {found}, not in [{low}, {high}]");
        }
    }
}

#[test]
fn special_matrices() {
    fn check<R: Real>() {
        let zero = Array2::<R>::zeros((3, 4));
        for eps in [1e-7, 0.0] {
            let schedule = NewtonSchulz { eps, ..NewtonSchulz::default() };
            assert_eq!(schedule.orthogonalize(&zero).unwrap(), zero);
        }
        assert_eq!(bjorck(&zero, 5).unwrap(), zero);
        for dim in [(0, 0), (0, 3), (3, 0)] {
            let empty = Array2::<R>::zeros(dim);
            assert_eq!(NewtonSchulz::default().orthogonalize(&empty).unwrap(), empty);
            assert_eq!(bjorck(&empty, 2).unwrap(), empty);
        }
        assert_eq!(orthogonality_error(&Array2::<R>::zeros((0, 0))).unwrap(), 0.0);
        let one = Array2::from_elem((1, 1), -R::one());
        assert_eq!(bjorck(&one, 3).unwrap(), one);
        let minus = NewtonSchulz::cubic(3).orthogonalize(&one).unwrap();
        assert_eq!(minus, one);
        // a step without effect but the scale
        let none = NewtonSchulz::muon(0).orthogonalize(&(&one + &one)).unwrap();
        assert_eq!(none, one);
        // singular values of huge and tiny matrices are as good as others
        for size in [R::max_value() / R::of(8.0), R::min_positive_value() * R::of(4.0)] {
            let schedule = NewtonSchulz { eps: 0.0, ..NewtonSchulz::polar_express(8) };
            let polar = schedule.orthogonalize(&Array2::from_diag(&array![size, -size])).unwrap();
            assert!((polar[(0, 0)] - R::one()).abs() < R::of(1e-4));
        }
        for x in [R::nan(), R::infinity()] {
            let bad = Array2::from_elem((2, 3), x);
            let text = "of a 2 x 3 matrix: it holds a NaN or an infinity";
            let found = message(NewtonSchulz::default().orthogonalize(&bad));
            assert_eq!(found, format!("Newton-Schulz iteration {text}"));
            assert_eq!(message(bjorck(&bad, 1)), format!("Björck iteration {text}"));
            let found = message(orthogonality_error(&bad));
            assert_eq!(found, format!("orthogonality error {text}"));
        }
        let huge = Array2::from_elem((2, 2), R::of(1e3));
        assert!(message(bjorck(&huge, 40)).ends_with("too large for the number type"));
        let wild = NewtonSchulz::repeated([10.0, 10.0, 10.0], 20);
        assert!(message(wild.orthogonalize(&huge)).ends_with("too large for the number type"));
    }
    check::<f32>();
    check::<f64>();
    // beyond √3 the sign flips, as documented
    assert_eq!(bjorck(&array![[2.0]], 9).unwrap(), array![[-1.0]]);
    let largest = Array2::from_elem((2, 2), f64::MAX);
    let found = message(NewtonSchulz::default().orthogonalize(&largest));
    assert!(found.ends_with("its norm is too large"), "{found}");
    // below eps a matrix is not scaled up
    let tiny = NewtonSchulz::muon(0).orthogonalize(&array![[1e-9]]).unwrap();
    assert!((tiny[(0, 0)] - 1e-2_f64).abs() < 1e-15);
}

#[test]
fn scratch_memory_fits_itself_and_changes_no_bit() {
    let schedule = NewtonSchulz::default();
    let mut scratch = NewtonSchulzScratch::default();
    for dim in [(3, 5), (5, 3), (3, 5), (2, 2), (0, 4), (7, 1)] {
        let g = random::<f32>(dim.0, dim.1, 5);
        let mut polar = Array2::from_elem(dim, f32::NAN);
        schedule.orthogonalize_into(&g, &mut scratch, &mut polar).unwrap();
        assert_eq!(polar, schedule.orthogonalize(&g).unwrap());
    }
    let mut other = array![[7.0]];
    let g = Array2::ones((2, 2));
    let result = schedule.orthogonalize_into(&g, &mut NewtonSchulzScratch::default(), &mut other);
    assert!(message(result).ends_with("the destination does not have the shape of the matrix"));
    assert_eq!(other, array![[7.0]]);
}

#[test]
fn the_same_bits_in_any_memory() {
    for (m, n) in [(4, 4), (9, 5), (5, 17)] {
        let v = random::<f64>(m, n, 3);
        let expected = (
            bjorck(&v, 2).unwrap(),
            NewtonSchulz::default().orthogonalize(&v).unwrap(),
            orthogonality_error(&v).unwrap(),
        );
        in_other_memory(&v, |name, view| {
            let polar = NewtonSchulz::default().orthogonalize(view).unwrap();
            let found = (bjorck(view, 2).unwrap(), polar, orthogonality_error(view).unwrap());
            assert!(found == expected, "{m}x{n} {name}");
        });
    }
}
