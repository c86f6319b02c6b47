use crate::linalg_checks::{in_other_memory, log_spaced, norm, random, symmetric, wide};
use crate::{cases, close, message};
use eigenstep::Error;
use eigenstep::linalg::{
    CoupledNewton, Damping, InverseRoot, RidgeRetry, eigen_inverse_root, eigh, gram_left,
    spectral_norm,
};
use eigenstep::numeric::Real;
use ndarray::{Array1, Array2, array};
use proptest::prelude::*;

/// Exponents q/p with their q and p.
const EXPONENTS: [(i32, i32); 9] =
    [(1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (1, 8), (2, 3), (3, 4), (3, 2)];

fn methods(damping: Damping, tolerance: f64) -> Vec<InverseRoot> {
    let (accept, max_iterations) = (Some(0.1), 100);
    vec![
        InverseRoot::eigh(damping),
        InverseRoot::Eigh { damping, perturb_before: false },
        InverseRoot::CoupledNewton {
            damping,
            limits: CoupledNewton { tolerance, ..CoupledNewton::DISTRIBUTED },
        },
        InverseRoot::CoupledHigherOrder { damping, order: 2, tolerance, max_iterations, accept },
        InverseRoot::CoupledHigherOrder { damping, order: 3, tolerance, max_iterations, accept },
        InverseRoot::CoupledHigherOrder { damping, order: 5, tolerance, max_iterations, accept },
    ]
}

fn power(a: &Array2<f64>, n: i32) -> Array2<f64> {
    (0..n).fold(Array2::eye(a.nrows()), |product, _| product.dot(a))
}

/// All laws of one matrix, to `tolerance`.
fn check<R: Real>(a: &Array2<R>, (q, p): (i32, i32), tolerance: f64) {
    let exponent = f64::from(q) / f64::from(p);
    let exact = exactly().root(a, exponent).unwrap();
    let full = wide(a);
    for method in methods(Damping::default(), tolerance * 1e-3) {
        let x = method.root(a, exponent).unwrap_or_else(|e| panic!("{method:?}: {e}"));
        assert_eq!(x, x.t(), "not symmetric: {method:?}");
        close(&x, &wide(&exact), tolerance);
        let x = wide(&x);
        // powers of A lose more digits than the root
        if q == 1 {
            close(&power(&x, p).dot(&full), &Array2::eye(a.nrows()), tolerance);
        }
        let commutator = norm(&(x.dot(&full) - full.dot(&x)));
        assert!(commutator <= tolerance * norm(&x) * norm(&full));
    }
    // with relative damping, the root of cA is c^(−e) times that of A
    let c = 5.0;
    for method in methods(Damping::relative(1e-3), tolerance * 1e-3) {
        let x = wide(&method.root(a, exponent).unwrap());
        let scaled = method.root(&a.mapv(|x| x * R::of(c)), exponent).unwrap();
        close(&scaled, &(x * c.powf(-exponent)), tolerance);
    }
}

/// By eigenvalues, as they are.
fn exactly() -> InverseRoot {
    InverseRoot::eigh(Damping::default())
}

proptest! {
    #![proptest_config(cases::cases(40))]

    #[test]
    fn laws(
        n in 1usize..14, log_condition in 0.0f64..6.0, scale in -4i32..4,
        which in 0..EXPONENTS.len(), seed: u64,
    ) {
        let sized = |condition: f64| -> Vec<f64> {
            log_spaced(n, condition).iter().map(|x| x * 10.0_f64.powi(scale)).collect()
        };
        let condition = 10.0_f64.powf(log_condition);
        check(&symmetric::<f64>(&sized(condition), seed), EXPONENTS[which], 1e-6);
        check(&symmetric::<f32>(&sized(condition.sqrt().sqrt()), seed), EXPONENTS[which], 2e-3);
    }

    #[test]
    fn any_exponent_by_eigenvalues(n in 1usize..10, exponent in 0.01f64..2.0, seed: u64) {
        let a = symmetric::<f64>(&log_spaced(n, 1e3), seed);
        let (values, vectors) = eigh(&a).unwrap();
        let powers = values.mapv(|x| x.powf(-exponent));
        let expected = (&vectors * &powers).dot(&vectors.t());
        close(&exactly().root(&a, exponent).unwrap(), &expected, 1e-12);
        let pseudo = InverseRoot::PseudoInverse { rtol: None, atol: 0.0 };
        close(&pseudo.root(&a, exponent).unwrap(), &expected, 1e-12);
        let found = eigen_inverse_root(&values, &vectors, exponent, Damping::default()).unwrap();
        close(&found, &expected, 1e-12);
    }

    #[test]
    fn rank_deficient(n in 2usize..12, seed: u64) {
        let rank = 1 + n / 3;
        let g = random::<f64>(n, rank.min(n - 1), seed);
        let a = gram_left(&g);
        // damped, all agree and all are finite
        // (each estimates λmax in its own way, so the ridge is given)
        let damping = Damping::absolute(1e-4 * spectral_norm(&a, 100, 0.0).unwrap());
        let exact = InverseRoot::Eigh { damping, perturb_before: false }.root(&a, 0.25).unwrap();
        for method in methods(damping, 1e-10) {
            close(&method.root(&a, 0.25).unwrap(), &exact, 1e-5);
        }
        // the pseudo-inverse inverts on the range: X² A is the projector onto it
        let pseudo = InverseRoot::PseudoInverse { rtol: None, atol: 0.0 };
        let x = pseudo.root(&a, 0.5).unwrap();
        let projector = x.dot(&x).dot(&a);
        close(&projector.dot(&g), &g, 1e-6);
        close(&projector.dot(&projector), &projector, 1e-6);
    }

    #[test]
    fn spectral_norms(
        n in 1usize..12, values in prop::collection::vec(-3.0f64..3.0, 12), seed: u64,
    ) {
        let largest = values[..n].iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let found = spectral_norm(&symmetric::<f64>(&values[..n], seed), 2000, 0.0).unwrap();
        prop_assert!(found <= largest * (1.0 + 1e-12) && found >= 0.99 * largest);
    }
}

#[test]
fn a_number_is_inverted_directly() {
    for method in methods(Damping::absolute(1.0), 1e-6) {
        let x = method.root(&array![[15.0_f64]], 0.25).unwrap();
        assert!((x[(0, 0)] - 0.5).abs() < 1e-15);
        let x = method.root(&array![[15.0_f32]], 0.25).unwrap();
        assert!((x[(0, 0)] - 0.5).abs() < 1e-7);
        assert_eq!(method.root(&Array2::<f64>::zeros((0, 0)), 0.5).unwrap().len(), 0);
    }
}

#[test]
fn damping_goes_where_it_is_told() {
    let a = Array2::from_diag(&array![-0.5, 3.0]);
    let diag = |damping, perturb_before| {
        InverseRoot::Eigh { damping, perturb_before }.root(&a, 1.0).unwrap().diag().to_owned()
    };
    let near = |found: Array1<f64>, expected: [f64; 2]| {
        found.iter().zip(expected).for_each(|(x, y)| assert!((x - y).abs() < 1e-14, "{x} {y}"));
    };
    // before: −0.5 + 0.25 < 0.25, so λ ← λ − min λ + ε
    near(diag(Damping::absolute(0.25), true), [4.0, 1.0 / 3.75]);
    near(diag(Damping::absolute(0.25), false), [4.0, 1.0 / 3.75]);
    near(diag(Damping::absolute(2.0), true), [0.5, 1.0 / 5.5]);
    near(diag(Damping::absolute(2.0), false), [0.5, 1.0 / 5.5]);
    near(diag(Damping::relative(1.0), false), [1.0 / 3.0, 1.0 / 6.5]);
    let zero = Array2::<f64>::zeros((2, 2));
    for method in methods(Damping::absolute(0.0625), 1e-9) {
        close(&method.root(&zero, 0.25).unwrap(), &(Array2::eye(2) * 2.0), 1e-8);
    }
}

#[test]
fn coupled_iterations_stop_as_told() {
    let a = symmetric::<f64>(&log_spaced(6, 1e4), 2);
    let newton = |max_iterations, max_growth, accept| InverseRoot::CoupledNewton {
        damping: Damping::default(),
        limits: CoupledNewton { tolerance: 1e-9, max_iterations, max_growth, accept, retry: None },
    };
    // every step counts as growth: the start is kept
    let start = newton(100, Some(0.0), None).root(&a, 0.5).unwrap();
    let z = 3.0 / (2.0 * norm(&a));
    close(&start, &(Array2::eye(6) * z.sqrt()), 1e-14);
    // too few iterations: refused, or taken as they are
    assert!(message(newton(3, None, Some(0.1)).root(&a, 0.5)).ends_with("did not converge"));
    let early = newton(3, None, None).root(&a, 0.5).unwrap();
    assert!(early.iter().all(|x| x.is_finite()));
    // the rule of growth gives the root or an error: the error may rise though all goes well
    let mut roots = 0;
    for seed in 0..40 {
        let a = symmetric::<f64>(&log_spaced(5, 1e3), seed);
        match InverseRoot::scalable(Damping::default()).root(&a, 0.25) {
            Ok(x) => {
                roots += 1;
                let exact = exactly().root(&a, 0.25).unwrap();
                close(&x, &exact, 1e-5);
            }
            stopped => assert!(message(stopped).ends_with("did not converge")),
        }
    }
    assert!(roots >= 30, "{roots} of 40");
    // a tolerance out of reach ends at the rounding errors
    let exact = InverseRoot::eigh(Damping::default()).root(&a, 0.25).unwrap();
    for method in methods(Damping::default(), 1e-30) {
        close(&method.root(&a, 0.25).unwrap(), &exact, 1e-9);
    }
}

/// The first ridge of ε, 10ε, 100ε … whose root is within 0.05 counts, the last one within 0.1.
#[test]
fn a_root_that_is_not_good_enough_is_tried_with_larger_ridges() {
    let a = symmetric::<f32>(&log_spaced(12, 1e9), 3);
    let newton = |ridge: f64, accept, retry| {
        let limits = CoupledNewton { accept, retry, ..CoupledNewton::SCALABLE };
        let damping = Damping::absolute(ridge);
        InverseRoot::CoupledNewton { damping, limits }.root(&a, 0.25)
    };
    let retry = |tries| Some(RidgeRetry { tries, ..RidgeRetry::SCALABLE });
    let ridge = |larger: usize| (0..larger).fold(1e-9, |ridge, _| 10.0 * ridge);
    let good = (0..6).find(|&i| newton(ridge(i), Some(0.05), None).is_ok()).unwrap();
    assert!(good >= 2, "{good}");
    let expected = newton(ridge(good), None, None).unwrap();
    assert_eq!(newton(ridge(0), Some(0.1), retry(6)).unwrap(), expected);
    // as many tries as it takes, and one less
    assert_eq!(newton(ridge(0), Some(0.1), retry(good as u32 + 1)).unwrap(), expected);
    message(newton(ridge(0), Some(0.05), retry(good as u32)));
    let scalable = InverseRoot::scalable(Damping::absolute(ridge(0)));
    assert_eq!(scalable.root(&a, 0.25).unwrap(), expected);
    // what is accepted in the end does not count before
    assert_eq!(newton(ridge(0), None, retry(6)).unwrap(), expected);
    // the last one is judged by what is accepted in the end: here by nothing
    assert!(newton(ridge(0), None, retry(1)).unwrap().iter().all(|x| x.is_finite()));
    // nothing to enlarge
    message(newton(0.0, Some(0.1), retry(6)));
    for (wrong, field) in [
        (RidgeRetry { above: -1.0, ..RidgeRetry::SCALABLE }, "`retry.above` must be >= 0"),
        (
            RidgeRetry { growth: 0.5, ..RidgeRetry::SCALABLE },
            "`retry.growth` must be finite and >= 1",
        ),
    ] {
        assert!(newton(1.0, None, Some(wrong)).unwrap_err().to_string().contains(field));
    }
}

#[test]
fn what_cannot_be_inverted_is_an_error() {
    let singular = Array2::from_diag(&array![1.0, 0.0, 2.0]);
    let indefinite = Array2::from_diag(&array![1.0, -1.0]);
    // a null space that no single entry shows
    let n = 100;
    let spread = Array2::<f64>::eye(n) - Array2::<f64>::ones((n, n)) / n as f64;
    for method in &methods(Damping::default(), 1e-6)[2..] {
        for a in [&singular, &indefinite, &spread, &Array2::zeros((3, 3))] {
            message(method.root(a, 0.5));
            message(method.root(&a.mapv(|x| x as f32), 0.5));
        }
    }
    for method in &methods(Damping::default(), 1e-6)[..2] {
        let text = "inverse root of a 3 x 3 matrix: it is not positive definite, damping included";
        assert_eq!(message(method.root(&singular, 0.5)), text);
        assert_eq!(message(method.root(&Array2::<f32>::zeros((3, 3)), 0.5)), text);
        message(method.root(&indefinite, 0.5));
    }
    let pseudo = InverseRoot::PseudoInverse { rtol: Some(0.0), atol: 0.0 };
    let found = pseudo.root(&singular, 1.0).unwrap();
    close(&found, &Array2::from_diag(&array![1.0, 0.0, 0.5]), 1e-15);
    let zero = Array2::<f64>::zeros((3, 3));
    assert_eq!(pseudo.root(&zero, 0.5).unwrap(), zero);
    let cut = InverseRoot::PseudoInverse { rtol: Some(0.0), atol: 1.0 };
    let found = cut.root(&singular, 1.0).unwrap();
    close(&found, &Array2::from_diag(&array![0.0, 0.0, 0.5]), 1e-15);

    let mut all = methods(Damping::absolute(1e-3), 1e-6);
    all.push(pseudo);
    for method in all {
        let oblong = message(method.root(&Array2::<f64>::ones((2, 3)), 0.5));
        assert_eq!(oblong, "inverse root of a 2 x 3 matrix: it must be square");
        for x in [f64::NAN, f64::INFINITY] {
            let found = message(method.root(&array![[1.0, x], [x, 1.0]], 0.5));
            assert_eq!(found, "inverse root of a 2 x 2 matrix: it holds a NaN or an infinity");
        }
        for huge in [f64::MAX, f64::MIN_POSITIVE] {
            // whatever happens, it is no NaN
            if let Ok(x) = method.root(&Array2::from_elem((3, 3), huge), 0.5) {
                assert!(x.iter().all(|x| x.is_finite()));
            }
        }
    }
    let tiny = array![[1e-300, 0.0], [0.0, 1e-300]];
    let found = message(exactly().root(&tiny, 1.5));
    assert!(found.ends_with("too large for the number type"), "{found}");
}

#[test]
fn options_are_checked() {
    let eye = Array2::<f64>::eye(2);
    let text = |method: InverseRoot, exponent| match method.root(&eye, exponent) {
        Err(error @ Error::InvalidHyperparameter { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for exponent in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let expected = format!("InverseRoot: `exponent` must be finite and > 0, got {exponent}");
        assert_eq!(text(InverseRoot::default(), exponent), expected);
    }
    let newton = InverseRoot::coupled_newton(Damping::default());
    assert!(text(newton, 0.123_456_789).contains("a fraction q/p"));
    let negative = InverseRoot::eigh(Damping::absolute(-1.0));
    let expected = "InverseRoot: `damping.absolute` must be >= 0, got -1";
    assert_eq!(text(negative, 0.5), expected);
    let first = InverseRoot::CoupledHigherOrder {
        damping: Damping::default(),
        order: 1,
        tolerance: 0.0,
        max_iterations: 1,
        accept: None,
    };
    assert_eq!(text(first, 0.5), "InverseRoot: `order` must be at least 2, got 1");
}

#[test]
fn roots_of_estimated_eigenvalues() {
    let eye = Array2::<f64>::eye(2);
    let root = |values: Array1<f64>, damping| eigen_inverse_root(&values, &eye, 0.25, damping);
    // nothing known yet: the identity
    assert_eq!(root(array![0.0, -1e-9], Damping::relative(1e-6)).unwrap(), eye);
    let found = root(array![16.0, -1.0], Damping::relative(1.0 / 16.0)).unwrap();
    close(&found, &Array2::from_diag(&array![17.0_f64.powf(-0.25), 1.0]), 1e-15);
    assert!(message(root(array![1.0, 0.0], Damping::default())).contains("positive definite"));
    assert!(message(root(array![1.0], Damping::default())).contains("one eigenvalue per column"));
    let nan = root(array![1.0, f64::NAN], Damping::default());
    assert!(message(nan).ends_with("an eigenvalue is not finite"));
    assert!(root(array![1.0, 1.0], Damping::absolute(f64::NAN)).is_err());
}

#[test]
fn the_same_bits_in_any_memory() {
    let a = symmetric::<f32>(&log_spaced(9, 100.0), 4);
    for method in methods(Damping::relative(1e-4), 1e-6) {
        let expected = method.root(&a, 0.25).unwrap();
        in_other_memory(&a, |name, view| {
            assert!(method.root(view, 0.25).unwrap() == expected, "{method:?} {name}");
        });
    }
}
