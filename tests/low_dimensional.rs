//! Laws of APOLLO, GaLore and LDAdam.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;

use cases::cases;
use eigenstep::Error;
use eigenstep::low_rank::ApolloScaling;
use eigenstep::optim::{Blocked, Optim};
use eigenstep::prelude::*;
use eigenstep::state::StateTensor;
use ndarray::{Array2, ArrayD, IxDyn};
use proptest::prelude::{any, proptest};

/// Numbers without pattern in [-1, 1), that depend on `seed` and shape alone.
fn matrix(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let number = |i: u64| ((i * 7919 + (seed % 100_003) * 104_729 + 17) as f64).sin() * 43_758.545;
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        2.0 * number((i * columns + j) as u64).rem_euclid(1.0) - 1.0
    })
}

fn norm(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) {
    let off = norm(&(a - b)) / norm(b).max(1e-300);
    assert!(off <= tolerance, "off by {off:e}");
}

/// A slot of the only matrix of an optimizer.
fn slot<M: MatrixMethod>(opt: &Optim<Blocked<M>, f64>, name: &str) -> Array2<f64> {
    let dict = opt.state_dict();
    let (_, tensor) =
        dict.tensors.iter().find(|(key, _)| key.ends_with(&format!(".{name}"))).unwrap();
    let (words, _) = tensor.bytes.as_chunks();
    let values = words.iter().map(|&word| f64::from_le_bytes(word)).collect();
    Array2::from_shape_vec((tensor.shape[0], tensor.shape[1]), values).unwrap()
}

/// `state` with a slot multiplied by signs, one for each row or column.
fn flip(state: &mut StateDict, name: &str, sign: impl Fn(usize, usize) -> f64) {
    let key = state.tensors.keys().find(|key| key.ends_with(&format!(".{name}"))).unwrap().clone();
    let tensor = &state.tensors[&key];
    let columns = tensor.shape[1];
    let (words, _) = tensor.bytes.as_chunks();
    let values = words.iter().enumerate();
    let values: Vec<f64> = values
        .map(|(i, &word)| f64::from_le_bytes(word) * sign(i / columns, i % columns))
        .collect();
    let flipped = StateTensor::new(&tensor.shape.clone(), &values);
    state.tensors.insert(key, flipped);
}

fn path<M: MatrixMethod>(
    method: &M,
    steps: u64,
    start: &Array2<f64>,
    gradient: impl Fn(u64) -> Array2<f64>,
) -> Array2<f64> {
    let (mut opt, mut w) = (method.clone().build().unwrap(), start.clone());
    for step in 0..steps {
        opt.step(&mut w, &gradient(step)).unwrap();
    }
    w
}

fn galore(rank: usize) -> GaLore {
    let default = GaLore::default();
    let inner = AdamW { lr: 0.05, weight_decay: 0.02, ..default.inner };
    GaLore { inner, rank, update_proj_gap: 3, ..GaLore::default() }
}

fn apollo(rank: usize) -> Apollo {
    let inner = AdamW { lr: 0.05, weight_decay: 0.02, ..Apollo::default().inner };
    Apollo { rank, update_proj_gap: 3, ..Apollo::with_inner(inner) }
}

fn ldadam(rank: usize) -> LdAdam {
    LdAdam { lr: 0.05, weight_decay: 0.02, rank, ..LdAdam::default() }
}

proptest! {
    #![proptest_config(cases(12))]

    /// The transposed problem has the transposed path. Square matrices have one side of their own.
    #[test]
    fn sides_do_not_matter(seed in any::<u64>(), a in 2usize..7, b in 7usize..10, rank in 1usize..5) {
        fn check<M: MatrixMethod>(method: &M, (a, b): (usize, usize), seed: u64) {
            let gradient = |step: u64| matrix(seed ^ (step + 1), a, b);
            let start = matrix(seed, a, b);
            let wide = path(method, 6, &start, gradient);
            let tall = path(method, 6, &start.t().to_owned(), |step| gradient(step).t().to_owned());
            close(&tall.t().to_owned(), &wide, 1e-9);
        }
        check(&galore(rank), (a, b), seed);
        check(&apollo(rank), (a, b), seed);
        check(&Apollo { scaling: ApolloScaling::Tensor, ..apollo(rank) }, (a, b), seed);
        check(&ldadam(rank), (a, b), seed);
    }

    /// No sign of a basis vector reaches the parameters of LDAdam.
    #[test]
    fn signs_of_the_basis_do_not_matter(seed in any::<u64>(), a in 2usize..8, b in 2usize..8) {
        let start = matrix(seed, a, b);
        let gradient = |step: u64| matrix(seed ^ (step + 1), a, b);
        let (mut opt, mut w) = (ldadam(3).build().unwrap(), start);
        (0..3).for_each(|step| opt.step(&mut w, &gradient(step)).unwrap());
        let mut state = opt.state_dict();
        let sign = |i: usize| if (seed >> i) & 1 == 0 { 1.0 } else { -1.0 };
        flip(&mut state, "basis", |_, column| sign(column));
        flip(&mut state, "exp_avg", |row, _| sign(row));
        let (mut other, mut copy) = (ldadam(3).build().unwrap(), w.clone());
        other.load_state_dict(&state).unwrap();
        for step in 3..8 {
            opt.step(&mut w, &gradient(step)).unwrap();
            other.step(&mut copy, &gradient(step)).unwrap();
        }
        close(&copy, &w, 1e-10);
    }

    /// With M = U m the projected moment: `M ← β₁·M + (1 − β₁)·(G + E − E⁺)`. Nothing of a gradient is
    /// lost, nor of the moments when the basis turns; and the basis stays orthonormal.
    #[test]
    fn what_is_left_over_is_kept(seed in any::<u64>(), a in 2usize..8, b in 2usize..8, rank in 1usize..5) {
        let (mut opt, mut w) = (ldadam(rank).build().unwrap(), matrix(seed, a, b));
        let beta = ldadam(rank).betas.0;
        let (mut moment, mut error) = (Array2::zeros((a, b)), Array2::zeros((a, b)));
        for step in 0..8 {
            let g = matrix(seed ^ (step + 1), a, b);
            opt.step(&mut w, &g).unwrap();
            let (basis, m) = (slot(&opt, "basis"), slot(&opt, "exp_avg"));
            close(&basis.t().dot(&basis), &Array2::eye(basis.ncols()), 1e-12);
            let full = basis.dot(&m);
            let full = if a > b { full.t().to_owned() } else { full };
            let left = slot(&opt, "error");
            close(&full, &(&moment * beta + (&g + &error - &left) * (1.0 - beta)), 1e-10);
            (moment, error) = (full, left);
        }
    }

    /// APOLLO's direction is the gradient with channels scaled: by one number each, or by one for all, and its norm grows
    /// by at most 1 %.
    #[test]
    fn apollo_scales_channels(seed in any::<u64>(), a in 2usize..6, b in 6usize..9, rank in 1usize..4) {
        for scaling in [ApolloScaling::Channel, ApolloScaling::Tensor] {
            let inner = AdamW { lr: 1.0, ..Apollo::default().inner };
            let method = Apollo { rank, scaling, update_proj_gap: 2, ..Apollo::with_inner(inner) };
            let (mut opt, mut w) = (method.build().unwrap(), matrix(seed, a, b));
            let mut last = f64::INFINITY;
            for step in 0..6 {
                let (g, before) = (matrix(seed ^ (step + 1), a, b), w.clone());
                opt.step(&mut w, &g).unwrap();
                let scales = (before - &w) / &g;
                for column in scales.columns() {
                    let first = if scaling == ApolloScaling::Tensor { scales[[0, 0]] } else { column[0] };
                    assert!(first > 0.0);
                    assert!(column.iter().all(|s| (s / first - 1.0).abs() < 1e-6));
                }
                let size = norm(&(&scales * &g));
                assert!(size <= last * 1.01 * (1.0 + 1e-9));
                last = size;
            }
        }
    }

    /// With eps 0 inside, steps do not depend on the size of gradients, but for what is added to lengths.
    #[test]
    fn apollo_does_not_know_the_size_of_gradients(seed in any::<u64>(), a in 2usize..6, b in 2usize..9) {
        let method = Apollo { rank: 2, ..Apollo::with_inner(AdamW { eps: 0.0, weight_decay: 0.0, ..AdamW::default() }) };
        let start = matrix(seed, a, b);
        let small = path(&method, 5, &start, |step| matrix(seed ^ (step + 1), a, b) * 64.0);
        let large = path(&method, 5, &start, |step| matrix(seed ^ (step + 1), a, b) * 4096.0);
        close(&(large - &start), &(small - &start), 1e-6);
    }

    /// GaLore of full rank is its inner rule in the coordinates of the basis.
    #[test]
    fn full_rank_is_the_inner_rule_in_other_coordinates(seed in any::<u64>(), a in 2usize..8, b in 2usize..8) {
        let method = GaLore { update_proj_gap: 1000, ..galore(1000) };
        let (mut opt, mut w) = (method.clone().build().unwrap(), matrix(seed, a, b));
        let mut inner = AdamW { weight_decay: 0.0, ..method.inner.clone() }.build().unwrap();
        let mut turned: Option<Array2<f64>> = None;
        for step in 0..6 {
            let g = matrix(seed ^ (step + 1), a, b);
            let before = w.clone();
            opt.step(&mut w, &g).unwrap();
            let basis = slot(&opt, "basis");
            let right = a >= b;
            let into = |x: &Array2<f64>| if right { x.dot(&basis) } else { basis.t().dot(x) };
            let back = |x: &Array2<f64>| if right { x.dot(&basis.t()) } else { basis.dot(x) };
            let p = turned.get_or_insert_with(|| into(&before) * 0.0);
            let old = p.clone();
            inner.step(p, &into(&g)).unwrap();
            let moved = &before + &back(&(&*p - &old)) * method.scale;
            close(&w, &(moved * (1.0 - method.inner.lr * method.inner.weight_decay)), 1e-9);
        }
    }

    /// With gradients whose singular vectors are axes, the basis stays, and LDAdam is AdamW.
    #[test]
    fn on_axes_it_is_adamw(seed in any::<u64>(), a in 2usize..6, b in 2usize..6) {
        let method = LdAdam { rank: 1000, ..ldadam(1) };
        let LdAdam { lr, betas, eps, weight_decay, .. } = method;
        let adamw = AdamW { lr, betas, eps, weight_decay, ..AdamW::default() };
        let gradient = |step: u64| {
            let noise = matrix(seed ^ (step + 1), a, b);
            Array2::from_shape_fn((a, b), |(i, j)| {
                if i == j { 10.0 / (1.0 + i as f64) + 0.1 * noise[(i, j)] } else { 0.0 }
            })
        };
        let start = matrix(seed, a, b);
        let mut expected = start.clone();
        let mut opt = adamw.build().unwrap();
        (0..8).for_each(|step| opt.step(&mut expected, &gradient(step)).unwrap());
        close(&path(&method, 8, &start, gradient), &expected, 1e-8);
    }
}

/// Vectors, and matrices with one row or column, get the rule as it is; so do groups that ask for it.
#[test]
fn what_is_no_matrix_is_not_projected() {
    let LdAdam { lr, betas, eps, weight_decay, .. } = ldadam(1);
    let adamw = AdamW { lr, betas, eps, weight_decay, ..AdamW::default() };
    let (mut plain, mut other) = (adamw.clone().build().unwrap(), adamw.build().unwrap());
    let mut rest = LdAdam { project: false, ..ldadam(1) }.build().unwrap();
    let mut opt = ldadam(1).build().unwrap();
    let start = || (matrix(1, 1, 9), matrix(2, 9, 1));
    let (mut expected, mut found) = (start(), start());
    let (mut square, mut plain_square) = (matrix(3, 4, 4), matrix(3, 4, 4));
    for step in 0..4 {
        let g = (matrix(10 + step, 1, 9), matrix(20 + step, 9, 1));
        plain.step(&mut expected, &g).unwrap();
        opt.step(&mut found, &g).unwrap();
        rest.step(&mut square, &matrix(30 + step, 4, 4)).unwrap();
        other.step(&mut plain_square, &matrix(30 + step, 4, 4)).unwrap();
    }
    assert_eq!(found, expected);
    assert_eq!(square, plain_square);
}

/// What is projected away is lost to GaLore and reaches the parameters of LDAdam.
#[test]
fn only_error_feedback_learns_what_a_subspace_leaves_over() {
    // of rank three, the third direction weak
    let target = Array2::from_shape_fn((9, 6), |(i, j)| match (i == j, i) {
        (true, 0) => 3.0,
        (true, 1) => 2.0,
        (true, 2) => 0.5,
        _ => 0.0,
    });
    let learnt = |error_feedback: bool| {
        let method = LdAdam { error_feedback, weight_decay: 0.0, lr: 1e-3, ..ldadam(1) };
        // the strongest direction stays the strongest, but for a little noise
        let gradient = |step: u64| 1e-3 * matrix(step, 9, 6) - &target;
        path(&method, 200, &Array2::zeros((9, 6)), gradient)[(2, 2)].abs()
    };
    let (with, without) = (learnt(true), learnt(false));
    assert!(with > 10.0 * without, "{with} with, {without} without");
}

/// Values of state: (b + 2a)·r for GaLore, nr + 2rk + nk for LDAdam.
#[test]
fn state_has_the_size_that_is_said() {
    for (rows, columns, rank) in [(12, 5, 3), (5, 12, 3), (7, 7, 2), (6, 4, 100), (2, 2, 1)] {
        let (a, b) = (rows.max(columns), rows.min(columns));
        let r = rank.min(b);
        let g = matrix(5, rows, columns);
        let bytes = |opt: &dyn Optimizer<f64>| {
            let bytes = opt.state_bytes();
            assert_eq!(bytes.slot("direction"), 8 * a * b);
            (bytes.total() - bytes.slot("direction")) / 8
        };
        let mut opt = galore(rank).build().unwrap();
        opt.step(&mut g.clone(), &g).unwrap();
        assert_eq!(bytes(&opt), (b + 2 * a) * r);
        let mut opt = ldadam(rank).build().unwrap();
        opt.step(&mut g.clone(), &g).unwrap();
        assert_eq!(bytes(&opt), b * r + 2 * r * a + a * b);
        let mut opt = LdAdam { error_feedback: false, ..ldadam(rank) }.build().unwrap();
        opt.step(&mut g.clone(), &g).unwrap();
        assert_eq!(bytes(&opt), b * r + 2 * r * a);
    }
}

/// The error is coded if it is named, and only then; moments are coded with all slots.
#[test]
fn precision_by_name() {
    let g = matrix(5, 80, 90);
    let bytes = |precision: Option<Precision>, error: Option<Precision>| {
        let mut opt = LdAdam { rank: 70, ..LdAdam::default() }.build::<f64>().unwrap();
        if let Some(precision) = precision {
            opt = opt.with_state_precision(precision).unwrap();
        }
        if let Some(precision) = error {
            opt = opt.with_slot_precision("error", precision).unwrap();
        }
        let mut w = g.clone();
        for step in 0..3 {
            opt.step(&mut w, &matrix(step, 80, 90)).unwrap();
        }
        assert!(w.iter().all(|x| x.is_finite()));
        let bytes = opt.state_bytes();
        (bytes.slot("exp_avg"), bytes.slot("error"))
    };
    assert_eq!(bytes(None, None), (8 * 70 * 90, 8 * 80 * 90));
    let (moment, error) = bytes(Some(Precision::INT8_DYNAMIC), None);
    assert!(moment < 2 * 70 * 90 && error == 8 * 80 * 90);
    assert_eq!(bytes(None, Some(Precision::Bf16)), (8 * 70 * 90, 2 * 80 * 90));
    let (_, error) = bytes(Some(Precision::Bf16), Some(Precision::INT4));
    assert!(error < 80 * 90);
}

/// A run that is saved and loaded goes on bit for bit, also with an error that is switched on later.
#[test]
fn a_saved_run_goes_on() {
    fn check<M: MatrixMethod>(method: &M) {
        for precision in [Precision::Full, Precision::INT8_DYNAMIC, Precision::INT4_LPMM] {
            let build =
                || method.clone().build::<f32>().unwrap().with_state_precision(precision).unwrap();
            let gradient = |step: u64| matrix(step, 70, 61).mapv(|x| x as f32);
            let (mut opt, mut w) = (build(), gradient(99));
            let _ = opt.set_option(0, "error_feedback", 0.0);
            for step in 0..4 {
                opt.step(&mut w, &gradient(step)).unwrap();
                if step == 1 {
                    let _ = opt.set_option(0, "error_feedback", 1.0);
                }
            }
            let (mut again, mut copy) = (build(), w.clone());
            again.load_state_dict(&opt.state_dict()).unwrap();
            for step in 4..9 {
                opt.step(&mut w, &gradient(step)).unwrap();
                again.step(&mut copy, &gradient(step)).unwrap();
            }
            assert_eq!(w, copy, "{precision:?}");
            assert_eq!(opt.state_dict(), again.state_dict());
        }
    }
    check(&galore(61));
    check(&ldadam(61));
    check(&Apollo { rank: 61, update_proj_gap: 4, ..Apollo::with_inner(Lion::default()) });
    check(&GaLore { rank: 61, update_proj_gap: 4, ..GaLore::with_inner(Lion::default()) });
}

/// No shape and no gradient makes a NaN, or a step fail, but those too large for the arithmetic: they are
/// refused before anything changes.
#[test]
fn no_gradient_makes_a_nan() {
    let kinds: [fn(u64) -> f64; 6] = [
        |_| 0.0,
        |_| 1.0,
        |_| 1e30,
        |i| if i == 3 { -1e30 } else { 0.0 },
        |i| (i as f64).sin() * 1e-30,
        |i| (i as f64 * 1.7).cos() * 1e30,
    ];
    let shapes: [&[usize]; 9] =
        [&[1, 7], &[7, 1], &[0, 5], &[5, 0], &[2, 2], &[3, 8], &[65, 64], &[4, 3, 2], &[]];
    fn check<M: MatrixMethod>(method: &M, shapes: &[&[usize]], kinds: &[fn(u64) -> f64]) {
        for (i, precision) in (0..36).zip([Precision::Full, Precision::INT8_DYNAMIC].iter().cycle())
        {
            // every kind first, and every kind after each of them
            let (first, second) = (i / 6, i % 6);
            for shape in shapes {
                let opt = method.clone().build::<f32>().unwrap();
                let mut opt = opt.with_state_precision(*precision).unwrap();
                let mut w = ArrayD::<f32>::ones(IxDyn(shape));
                for kind in [first, first, second, second, 0, first, 1] {
                    let mut count = 0;
                    let g = ArrayD::from_shape_simple_fn(IxDyn(shape), || {
                        count += 1;
                        kinds[kind](count) as f32
                    });
                    match opt.step(&mut w, &g) {
                        Ok(()) => {}
                        Err(Error::GradientTooLarge { value, .. }) if value.abs() > 1e25 => {}
                        Err(error) => panic!("{method:?} {shape:?}: {error}"),
                    }
                    let finite = w.iter().all(|x| x.is_finite());
                    assert!(finite, "{method:?} {precision:?} {shape:?}: {first} then {second}");
                }
            }
        }
    }
    for rank in [1, 2, 64] {
        check(&apollo(rank), &shapes, &kinds);
        check(&galore(rank), &shapes, &kinds);
        check(&ldadam(rank), &shapes, &kinds);
    }
    let free = LdAdam { eps: 0.0, betas: (0.0, 0.0), rho: 1.0, ..ldadam(2) };
    // without a stabiliser AdamW has nothing to divide by where there was no gradient
    check(&free, &shapes[4..8], &kinds);
}

/// A decomposition that fails leaves the basis where it was, and is counted.
#[test]
fn failures_are_counted() {
    let method = GaLore { update_proj_gap: 1, tolerated_failures: 1, ..galore(2) };
    let opt = method.build::<f64>().unwrap();
    let mut opt = opt.with_non_finite(NonFinite::Propagate);
    let mut w = matrix(0, 6, 5);
    opt.step(&mut w, &matrix(1, 6, 5)).unwrap();
    let basis = slot(&opt, "basis");
    let mut wrong = matrix(2, 6, 5);
    wrong[(1, 1)] = f64::NAN;
    opt.step(&mut w, &wrong).unwrap();
    assert_eq!(slot(&opt, "basis"), basis);
    assert!(w.iter().any(|x| x.is_nan()));
    let error = opt.step(&mut w, &wrong).and_then(|()| opt.step(&mut w, &wrong)).unwrap_err();
    assert!(matches!(error, Error::RepeatedFailure { failures: 2, .. }), "{error}");
}

/// A subspace that gradients have left altogether is found anew.
#[test]
fn a_subspace_without_gradients_is_left() {
    let only = |row: usize| {
        Array2::from_shape_fn((6, 8), |(i, j)| if i == row { (j + 1) as f64 } else { 0.0 })
    };
    let method = LdAdam { betas: (0.0, 0.0), rho: 0.0, weight_decay: 0.0, ..ldadam(1) };
    let w = path(&method, 4, &Array2::zeros((6, 8)), |step| only(if step < 2 { 0 } else { 4 }));
    assert!(w.row(4).iter().all(|x| x.abs() > 0.01), "{w}");
}

#[test]
fn impossible_options_are_named() {
    let message = |error: Error| error.to_string();
    let inner = Classp { variant: ClasspVariant::AsPublished, ..Classp::default() };
    let error = GaLore::with_inner(inner).build::<f32>().unwrap_err();
    assert_eq!(
        message(error),
        "GaLore: `inner` must be a rule that takes no sums over tensors, got Classp"
    );
    let error = GaLore { rank: 0, ..GaLore::default() }.build::<f32>().unwrap_err();
    assert_eq!(message(error), "GaLore: `rank` must be an integer >= 1, got 0");
    let error = LdAdam { rho: 1.5, ..LdAdam::default() }.build::<f32>().unwrap_err();
    assert_eq!(message(error), "LdAdam: `rho` must be in [0, 1], got 1.5");
}
