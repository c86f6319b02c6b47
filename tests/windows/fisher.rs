//! `F⁻¹v` without `F`: invariants M1 to M11.

use crate::cases::cases;
use crate::{distance, dot, gradients, norm, vector, window};
use eigenstep::error_feedback::{Fisher, GradWindow, MFac, Momentum, Normalization};
use eigenstep::linalg::eigh;
use eigenstep::prelude::*;
use ndarray::{Array1, Array2};
use proptest::prelude::*;

/// `F = λI + (1/n) Σ ggᵀ`, written out.
fn matrix(gradients: &[Vec<f64>], n: f64, damping: f64) -> Array2<f64> {
    let d = gradients[0].len();
    let mut f = Array2::eye(d) * damping;
    for g in gradients {
        for i in 0..d {
            for j in 0..d {
                f[[i, j]] += g[i] * g[j] / n;
            }
        }
    }
    f
}

/// `F⁻¹v` by eigenvalues of the matrix itself.
fn solve(f: &Array2<f64>, v: &[f64]) -> Vec<f64> {
    let (values, vectors) = eigh(f).unwrap();
    let coordinates = vectors.t().dot(&Array1::from(v.to_vec())) / values;
    vectors.dot(&coordinates).to_vec()
}

fn newest<R: Real>(fisher: &Fisher, window: &GradWindow<R>, d: usize) -> Vec<R> {
    let mut u = vec![R::zero(); d];
    window.combine(&fisher.newest(window).unwrap(), 0, &mut u);
    u
}

proptest! {
    #![proptest_config(cases(64))]

    /// M1, M3: the product is the dense solution; windows may be partial, full or wrapped.
    #[test]
    fn product_is_the_dense_solution(
        seed in 0u64..1000, d in 1usize..40, m in 1usize..12, filled in 1usize..20, log in -3.0..1.0,
    ) {
        let all = gradients::<f64>(seed, filled, d);
        let held = &all[filled.saturating_sub(m)..];
        let scale = held.iter().map(|g| dot(g, g)).sum::<f64>() / m as f64;
        let damping = scale.max(1e-3) * 10f64.powf(log);
        let w = window(m, &all);
        let v = vector(seed + 99, d);
        for (normalization, n) in
            [(Normalization::Window, m as f64), (Normalization::Count, held.len() as f64)]
        {
            let f = matrix(held, n, damping);
            let fisher = Fisher { damping, normalization };
            let u = fisher.apply(&w, &v).unwrap();
            prop_assert!(distance(&u, &solve(&f, &v)) < 1e-9);
            let back = f.dot(&Array1::from(u)).to_vec();
            prop_assert!(distance(&back, &v) < 1e-9);
            // M9: the form for the newest gradient is the general one
            let g = all.last().unwrap();
            prop_assert!(distance(&newest(&fisher, &w, d), &fisher.apply(&w, g).unwrap()) < 1e-8);
        }
    }

    /// M2: the order of the slots does not matter.
    #[test]
    fn slots_have_no_order(seed in 0u64..1000, turn in 1usize..6) {
        let all = gradients::<f64>(seed, 6, 20);
        let mut turned = all.clone();
        turned.rotate_left(turn);
        let v = vector(seed + 50, 20);
        let fisher = Fisher { damping: 0.1, ..Fisher::default() };
        let u = fisher.apply(&window(6, &all), &v).unwrap();
        prop_assert!(distance(&fisher.apply(&window(6, &turned), &v).unwrap(), &u) < 1e-12);
    }

    /// M4, M5: between the steps of the largest and of the smallest curvature; what the window has not
    /// seen is divided by λ.
    #[test]
    fn bounds(seed in 0u64..1000, m in 1usize..10, damping in 0.01f64..10.0) {
        let all = gradients::<f64>(seed, m, 24);
        let w = window(m, &all);
        let fisher = Fisher { damping, ..Fisher::default() };
        let v = vector::<f64>(seed + 77, 24);
        let u = fisher.apply(&w, &v).unwrap();
        let largest = all.iter().map(|g| dot(g, g)).sum::<f64>() / m as f64;
        prop_assert!(dot(&u, &v) > 0.0);
        prop_assert!(norm(&u) <= norm(&v) / damping * (1.0 + 1e-12));
        prop_assert!(norm(&u) >= norm(&v) / (damping + largest) * (1.0 - 1e-12));
        let mut unseen = v;
        for _ in 0..2 {
            let mut basis: Vec<Vec<f64>> = Vec::new();
            for g in &all {
                let mut b = g.clone();
                for earlier in &basis {
                    let c = dot(&b, earlier);
                    b.iter_mut().zip(earlier).for_each(|(x, y)| *x -= c * y);
                }
                let length = norm(&b);
                basis.push(b.iter().map(|x| x / length).collect());
            }
            for b in &basis {
                let c = dot(&unseen, b);
                unseen.iter_mut().zip(b).for_each(|(x, y)| *x -= c * y);
            }
        }
        let expected: Vec<f64> = unseen.iter().map(|x| x / damping).collect();
        prop_assert!(distance(&fisher.apply(&w, &unseen).unwrap(), &expected) < 1e-9);
    }

    /// M7, M11: gradients α times as long, and a window α times as large.
    #[test]
    fn scales(seed in 0u64..1000, alpha in 1u32..6) {
        let all = gradients::<f64>(seed, 4, 15);
        let fisher = Fisher { damping: 0.3, ..Fisher::default() };
        let u = newest(&fisher, &window(4, &all), 15);
        let a = f64::from(alpha);
        let long: Vec<Vec<f64>> =
            all.iter().map(|g| g.iter().map(|x| x * a).collect()).collect();
        let of_long = newest(&Fisher { damping: 0.3 * a * a, ..fisher }, &window(4, &long), 15);
        let expected: Vec<f64> = u.iter().map(|x| x / a).collect();
        prop_assert!(distance(&of_long, &expected) < 1e-11);
        let wide = window(4 * alpha as usize, &all);
        let of_wide = newest(&Fisher { damping: 0.3 / a, ..fisher }, &wide, 15);
        let expected: Vec<f64> = u.iter().map(|x| x * a).collect();
        prop_assert!(distance(&of_wide, &expected) < 1e-11);
    }
}

/// M6, M8: much damping is plain descent, and equal gradients are no trouble.
#[test]
fn limits() {
    let all = gradients::<f64>(3, 5, 12);
    let fisher = Fisher { damping: 1e9, ..Fisher::default() };
    let u: Vec<f64> = newest(&fisher, &window(5, &all), 12).iter().map(|x| x * 1e9).collect();
    assert!(distance(&u, &all[4]) < 1e-7);
    let same = vec![all[0].clone(); 9];
    let fisher = Fisher { damping: 1e-12, ..Fisher::default() };
    let u = newest(&fisher, &window(9, &same), 12);
    // (1/9)·9·ggᵀ: as one gradient
    let expected: Vec<f64> = all[0].iter().map(|x| x / dot(&all[0], &all[0])).collect();
    assert!(distance(&u, &expected) < 1e-9);
    // m = 1
    let fisher = Fisher { damping: 0.5, ..Fisher::default() };
    let u = newest(&fisher, &window(1, &all), 12);
    let expected: Vec<f64> = all[4].iter().map(|x| x / (0.5 + dot(&all[4], &all[4]))).collect();
    assert!(distance(&u, &expected) < 1e-14);
}

/// The error of an `f32` product at λ = 1e-8, against the dense solution in `f64`: of the form for
/// the newest gradient, and of the published recursion, all in `f32`.
#[test]
fn small_damping_in_single_precision() {
    let (m, d, damping) = (128, 500, 1e-8);
    let exact = gradients::<f64>(5, m, d);
    let single: Vec<Vec<f32>> =
        exact.iter().map(|g| g.iter().map(|&x| x as f32).collect()).collect();
    let exact: Vec<Vec<f64>> =
        single.iter().map(|g| g.iter().map(|&x| f64::from(x)).collect()).collect();
    // m equations in place of d: the solution lies in the span
    let truth = newest(&Fisher { damping, ..Fisher::default() }, &window(m, &exact), d);
    let back = matrix(&exact, m as f64, damping).dot(&Array1::from(truth.clone())).to_vec();
    assert!(distance(&back, &exact[m - 1]) < 1e-9, "the reference is no solution");
    let u = newest(&Fisher { damping, ..Fisher::default() }, &window(m, &single), d);
    let wide: Vec<f64> = u.iter().map(|&x| f64::from(x)).collect();
    let ours = distance(&wide, &truth);
    let published = distance(&recursion(&single, damping as f32), &truth);
    println!(
        "m = {m}, d = {d}, damping = {damping:e}: relative error {ours:.1e}, recursion {published:.1e}"
    );
    assert!(ours < 1e-4, "{ours:e}");
    assert!(published > 1.0, "the recursion is no longer wrong: {published:e}");
}

/// More gradients than dimensions depend on each other: of the coefficients only a few are taken.
#[test]
fn dependent_gradients_in_single_precision() {
    let (m, d) = (120, 40);
    let single = gradients::<f32>(6, m, d);
    let exact: Vec<Vec<f64>> =
        single.iter().map(|g| g.iter().map(|&x| f64::from(x)).collect()).collect();
    for damping in [1e-5, 1e-8] {
        let fisher = Fisher { damping, ..Fisher::default() };
        let truth = solve(&matrix(&exact, m as f64, damping), &exact[m - 1]);
        let found = newest(&fisher, &window(m, &single), d);
        let found: Vec<f64> = found.iter().map(|&x| f64::from(x)).collect();
        let off = distance(&found, &truth);
        assert!(off < 1e-5, "damping {damping:e}: {off:e}");
    }
}

/// `pᵢ = F⁻¹ᵢ₋₁gᵢ`, then `F⁻¹g`, as published.
fn recursion(gradients: &[Vec<f32>], damping: f32) -> Vec<f64> {
    let m = gradients.len() as f32;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut known: Vec<(Vec<f32>, f32)> = Vec::new();
    let product = |known: &[(Vec<f32>, f32)], g: &[f32]| {
        let mut u: Vec<f32> = g.iter().map(|x| x / damping).collect();
        for (p, s) in known {
            let c = dot(p, g) / s;
            u.iter_mut().zip(p).for_each(|(u, p)| *u -= c * p);
        }
        u
    };
    for g in gradients {
        let p = product(&known, g);
        let s = m + dot(g, &p);
        known.push((p, s));
    }
    product(&known, gradients.last().unwrap()).into_iter().map(f64::from).collect()
}

/// M10, S2: a step moves nothing that no gradient of the window has moved.
#[test]
fn steps_stay_in_the_support() {
    let base = Momentum { lr: 0.1, ..Momentum::default() };
    let mut opt =
        MFac { base, window: 3, damping: 0.1, ..MFac::sparse(0.1) }.build::<f64>().unwrap();
    let mut w = Array1::from(vector::<f64>(1, 50));
    for step in 0..8 {
        let before = w.clone();
        opt.step(&mut w, &Array1::from(vector::<f64>(10 + step, 50))).unwrap();
        let moved = before.iter().zip(&w).filter(|(a, b)| a != b).count();
        assert!(moved <= 3 * 5, "step {step} moved {moved}");
    }
}
