use crate::linalg_checks::{norm, random};
use crate::{cases, close, message};
use eigenstep::linalg::{KroneckerFit, svd};
use ndarray::{Array2, ArrayView2, array};
use proptest::prelude::*;

fn views<R>(grads: &[Array2<R>]) -> Vec<ArrayView2<'_, R>> {
    grads.iter().map(|g| g.view()).collect()
}

/// H = mean vec(G) vec(G)ᵀ
fn second_moment(grads: &[Array2<f64>]) -> Array2<f64> {
    let numel = grads[0].len();
    let outer = |g: &Array2<f64>| {
        let v = Array2::from_shape_vec((numel, 1), g.iter().copied().collect()).unwrap();
        v.dot(&v.t())
    };
    let sum = grads.iter().map(outer).fold(Array2::zeros((numel, numel)), |sum, h| sum + h);
    sum / grads.len() as f64
}

/// R(H): entry ((i, j), (k, l)) of H in row (i, k), column (j, l).
fn rearranged(h: &Array2<f64>, (m, n): (usize, usize)) -> Array2<f64> {
    Array2::from_shape_fn((m * m, n * n), |(row, col)| {
        let (i, k, j, l) = (row / m, row % m, col / n, col % n);
        h[(i * n + j, k * n + l)]
    })
}

fn cosine(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    (a * b).sum() / (norm(a) * norm(b))
}

proptest! {
    #![proptest_config(cases::cases(40))]

    #[test]
    fn against_the_second_moment_itself(m in 1usize..5, n in 1usize..5, count in 1usize..6, seed: u64) {
        let grads: Vec<_> = (0..count).map(|i| random::<f64>(m, n, seed ^ i as u64)).collect();
        let h = second_moment(&grads);
        let r = rearranged(&h, (m, n));
        let grads = views(&grads);
        let shampoo = KroneckerFit::shampoo_squared(&grads).unwrap();
        // one step of power iteration from the identity, on either side
        let flat = |a: Array2<f64>| {
            Array2::from_shape_vec((a.len(), 1), a.iter().copied().collect()).unwrap()
        };
        let left = r.dot(&flat(Array2::eye(n)));
        let trace = shampoo.right.diag().sum();
        close(&flat(&shampoo.left * trace), &left, 1e-13);
        close(&flat(shampoo.right.clone()), &r.t().dot(&flat(Array2::eye(m))), 1e-13);
        // the best one is the leading pair of singular vectors
        let (u, s, vt) = svd(&r).unwrap();
        let gap = s.get(1).map_or(0.0, |x| x / s[0]);
        let best = KroneckerFit::best(&grads, 20_000, 1e-11).unwrap();
        if gap < 0.99 {
            let leading = &u.column(0).insert_axis(ndarray::Axis(1))
                * &vt.row(0).insert_axis(ndarray::Axis(0)) * s[0];
            close(&rearranged(&best.to_dense(), (m, n)), &leading, 1e-7);
        }
        for product in [&shampoo, &best] {
            let found = product.cosine(&grads).unwrap();
            prop_assert!((found - cosine(&product.to_dense(), &h)).abs() <= 1e-12);
        }
        let (lower, upper) = (shampoo.cosine(&grads).unwrap(), best.cosine(&grads).unwrap());
        prop_assert!(0.0 < lower && lower <= upper + 1e-12 && upper <= 1.0 + 1e-12);
    }

    #[test]
    fn a_single_gradient_of_rank_one_is_a_kronecker_product(
        m in 1usize..6, n in 1usize..6, seed: u64,
    ) {
        let g = random::<f64>(m, 1, seed).dot(&random::<f64>(1, n, !seed));
        let grads = [g.view()];
        let h = second_moment(std::slice::from_ref(&g));
        for product in [
            KroneckerFit::shampoo_squared(&grads).unwrap(),
            KroneckerFit::best(&grads, 100, 1e-12).unwrap(),
        ] {
            close(&product.to_dense(), &h, 1e-12);
            prop_assert!((product.cosine(&grads).unwrap() - 1.0).abs() <= 1e-12);
        }
        let single = g.mapv(|x| x as f32);
        let product = KroneckerFit::best(&[single.view()], 100, 1e-5).unwrap();
        close(&product.to_dense(), &h, 1e-4);
    }
}

#[test]
fn wrong_input() {
    let none: [ArrayView2<'_, f64>; 0] = [];
    let found = message(KroneckerFit::shampoo_squared(&none));
    assert_eq!(found, "Kronecker product of a 0 x 0 matrix: there are no gradients");
    let (a, b, zero) = (array![[1.0, 2.0]], array![[1.0], [2.0]], Array2::<f64>::zeros((1, 2)));
    let found = message(KroneckerFit::best(&[a.view(), b.view()], 10, 0.0));
    assert!(found.ends_with("all gradients must have the same shape"), "{found}");
    let found = message(KroneckerFit::shampoo_squared(&[zero.view(), zero.view()]));
    assert!(found.ends_with("all gradients are zero"), "{found}");
    let nan = array![[f64::NAN, 0.0]];
    let found = message(KroneckerFit::best(&[nan.view()], 10, 0.0));
    assert!(found.ends_with("it holds a NaN or an infinity"), "{found}");
    let grads = [random::<f64>(3, 3, 1), random(3, 3, 2)];
    let found = message(KroneckerFit::best(&views(&grads), 1, 0.0));
    assert!(found.ends_with("the iteration did not converge"), "{found}");
    let product = KroneckerFit { left: Array2::eye(2), right: Array2::eye(2) };
    let found = message(product.cosine(&[a.view()]));
    assert!(found.ends_with("must have the order of the rows"), "{found}");
    let flat = KroneckerFit { left: Array2::zeros((1, 1)), right: Array2::eye(2) };
    assert!(message(flat.cosine(&[a.view()])).ends_with("a norm is 0 or too large"));
}
