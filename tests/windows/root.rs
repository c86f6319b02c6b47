//! `[(ĜĜᵀ)^½ + εI]⁻¹v` without the matrix: invariants G1 to G6.

use crate::cases::cases;
use crate::{distance, dot, gradients, norm, vector, window};
use eigenstep::error_feedback::{
    Compression, Ggt, GgtForm, GradWindow, Momentum, Selection, SparseConfig, WindowRoot,
};
use eigenstep::linalg::eigh;
use eigenstep::prelude::*;
use ndarray::{Array1, Array2};
use proptest::prelude::*;

fn newest<R: Real>(root: &WindowRoot, window: &GradWindow<R>, d: usize) -> Vec<R> {
    let mut u = vec![R::zero(); d];
    window.combine(&root.newest(window).unwrap(), 0, &mut u);
    u
}

/// By the matrix itself; eigenvalues that are rounding are zero.
fn dense(columns: &[Vec<f64>], v: &[f64], eps: f64) -> Vec<f64> {
    let d = v.len();
    let mut a = Array2::<f64>::zeros((d, d));
    for g in columns {
        for i in 0..d {
            for j in 0..d {
                a[[i, j]] += g[i] * g[j];
            }
        }
    }
    let (values, vectors) = eigh(&a).unwrap();
    let largest = values.iter().fold(0.0_f64, |a, &b| a.max(b));
    let weight = |x: f64| 1.0 / (if x > 1e-12 * largest { x.sqrt() } else { 0.0 } + eps);
    let coordinates = vectors.t().dot(&Array1::from(v.to_vec())) * values.mapv(weight);
    vectors.dot(&coordinates).to_vec()
}

proptest! {
    #![proptest_config(cases(64))]

    /// G1, G4: the dense matrix, gradients decayed with age; shorter than v/ε and never against it.
    #[test]
    fn is_the_dense_root(
        seed in 0u64..1000, d in 1usize..30, r in 1usize..8, filled in 1usize..14, beta in 0.5f64..1.0,
    ) {
        let all = gradients::<f64>(seed, filled, d);
        let held = &all[filled.saturating_sub(r)..];
        let aged = |(i, g): (usize, &Vec<f64>)| {
            let age = (held.len() - 1 - i) as i32;
            g.iter().map(|x| x * beta.powi(age)).collect()
        };
        let columns: Vec<Vec<f64>> = held.iter().enumerate().map(aged).collect();
        let w = window(r, &all);
        let root = WindowRoot { beta, eps: 0.01, jitter: 0.0, relative_jitter: false };
        let v = vector(seed + 9, d);
        let u = root.apply(&w, &v).unwrap();
        prop_assert!(distance(&u, &dense(&columns, &v, 0.01)) < 1e-5);
        prop_assert!(norm(&u) <= norm(&v) / 0.01 * (1.0 + 1e-9) && dot(&u, &v) > 0.0);
        let g = all.last().unwrap();
        prop_assert!(distance(&newest(&root, &w, d), &dense(&columns, g, 0.01)) < 1e-5);
    }
}

/// G2, G3: one gradient, and orthonormal ones.
#[test]
fn closed_forms() {
    let g = vector::<f64>(1, 9);
    let root = WindowRoot { eps: 0.3, jitter: 0.0, ..WindowRoot::default() };
    let u = newest(&root, &window(4, std::slice::from_ref(&g)), 9);
    let expected: Vec<f64> = g.iter().map(|x| x / (norm(&g) + 0.3)).collect();
    assert!(distance(&u, &expected) < 1e-13);
    let axes: Vec<Vec<f64>> =
        (0..3).map(|k| (0..9).map(|i| if i == k { 2.0 } else { 0.0 }).collect()).collect();
    let v = [1.0, -1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let u = root.apply(&window(3, &axes), &v).unwrap();
    assert!(distance(&u, &v.map(|x| x / 2.3)) < 1e-13);
}

/// G5: gradients along the axes make it diagonal Adagrad.
#[test]
fn along_the_axes_it_is_adagrad() {
    let base = Momentum { lr: 0.1, ..Momentum::default() };
    let method = Ggt { base, window: 30, eps: 1e-3, jitter: 0.0, ..Ggt::default() };
    let mut ggt = method.build::<f64>().unwrap();
    let mut adagrad = Adagrad { lr: 0.1, eps: 1e-3, ..Adagrad::default() }.build::<f64>().unwrap();
    let (mut a, mut b) = (Array1::<f64>::ones(5), Array1::<f64>::ones(5));
    for step in 0..20 {
        let mut g = Array1::zeros(5);
        g[step % 5] = vector::<f64>(7, 20)[step];
        ggt.step(&mut a, &g).unwrap();
        adagrad.step(&mut b, &g).unwrap();
    }
    assert!(distance(a.as_slice().unwrap(), b.as_slice().unwrap()) < 1e-12);
}

/// G6: a sparse window of density 1 is a dense one.
#[test]
fn full_density_is_dense() {
    let selection = Selection::TopK { density: 1.0 };
    let compression = Compression::Sparse(SparseConfig { selection, ..SparseConfig::default() });
    for (form, beta1) in [(GgtForm::Newest, 0.0), (GgtForm::General, 0.0), (GgtForm::General, 0.9)]
    {
        let method = Ggt { window: 4, eps: 0.1, beta1, beta2: 0.9, form, ..Ggt::default() };
        let run = |method: Ggt| {
            let mut opt = method.build::<f64>().unwrap();
            let mut w = Array1::from(vector::<f64>(2, 30));
            for step in 0..10 {
                opt.step(&mut w, &Array1::from(vector::<f64>(20 + step, 30))).unwrap();
            }
            w.to_vec()
        };
        let dense = run(method.clone());
        assert!(distance(&run(Ggt { compression, ..method }), &dense) < 1e-12, "{form:?}");
    }
}

/// The form for the newest gradient keeps its digits in `f32`, whatever ε.
#[test]
fn small_eps_in_single_precision() {
    let exact = gradients::<f32>(4, 20, 200);
    let wide: Vec<Vec<f64>> =
        exact.iter().map(|g| g.iter().map(|&x| f64::from(x)).collect()).collect();
    for eps in [1e-3, 1e-5, 1e-7] {
        let root = WindowRoot { eps, ..WindowRoot::default() };
        let truth = newest(&root, &window(20, &wide), 200);
        let found = newest(&root, &window(20, &exact), 200);
        let found: Vec<f64> = found.iter().map(|&x| f64::from(x)).collect();
        assert!(distance(&found, &truth) < 5e-6, "eps {eps}");
    }
}
