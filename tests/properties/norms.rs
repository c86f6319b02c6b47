//! Laws of norms of matrices, and of Scion, which steps to the edge of their balls.

use super::cases::cases;
use eigenstep::linalg::{MatrixNorm, svd};
use eigenstep::prelude::*;
use eigenstep::second_order::{LrAdjustment, Muon, Orthogonalization, ScionNorm};
use ndarray::{Array1, Array2, array};
use proptest::prelude::{any, proptest};

const NORMS: [MatrixNorm; 6] = [
    MatrixNorm::MaxEntry,
    MatrixNorm::Spectral,
    MatrixNorm::RmsToRms,
    MatrixNorm::ColumnRms,
    MatrixNorm::RowLength,
    MatrixNorm::Frobenius,
];

/// Numbers without pattern in [-1, 1), that depend on `seed` and shape alone.
fn matrix(seed: u64, rows: usize, columns: usize) -> Array2<f64> {
    let number = |i: u64| ((i * 7919 + (seed % 100_003) * 104_729 + 17) as f64).sin() * 43_758.545;
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        2.0 * number((i * columns + j) as u64).rem_euclid(1.0) - 1.0
    })
}

fn exact(normalized: bool, max: bool) -> ScionNorm {
    let orthogonalization = Orthogonalization::Exact;
    ScionNorm::Spectral { normalized, max, orthogonalization, steps: 1, eps: 0.0 }
}

fn close(found: &Array2<f64>, expected: &Array2<f64>, tolerance: f64) {
    let off = (found - expected).iter().fold(0.0f64, |off, x| off.max(x.abs()));
    assert!(off <= tolerance, "off by {off:e}");
}

/// What one step of Scion takes from `w`.
fn step(scion: Scion, w: &Array2<f64>, g: &Array2<f64>) -> Array2<f64> {
    let mut moved = w.clone();
    scion.build().unwrap().step(&mut moved, g).unwrap();
    w - moved
}

proptest! {
    #![proptest_config(cases(32))]

    /// ‖T‖ = 1, ⟨G, T⟩ = ‖G‖† ≥ ⟨G, X⟩/‖X‖ for any X; T does not depend on the size of G.
    #[test]
    fn directions_attain_the_dual_norm(seed in any::<u64>(), a in 1usize..7, b in 1usize..7) {
        let (g, x) = (matrix(seed, a, b), matrix(seed ^ 1, a, b));
        for norm in NORMS {
            let (t, dual) = (norm.direction(&g).unwrap(), norm.dual(&g).unwrap());
            assert!((norm.norm(&t).unwrap() - 1.0).abs() < 1e-10, "{norm:?}");
            assert!(((&g * &t).sum() - dual).abs() < 1e-10 * (1.0 + dual), "{norm:?}");
            assert!((&g * &x).sum() <= dual * norm.norm(&x).unwrap() * (1.0 + 1e-10), "{norm:?}");
            close(&norm.direction(&(&g * 8.0)).unwrap(), &t, 1e-10);
        }
    }

    /// Rotations of either side rotate the spectral direction; reordering entries reorders signs.
    #[test]
    fn directions_move_with_the_gradient(seed in any::<u64>(), a in 2usize..6, b in 2usize..6) {
        let g = matrix(seed, a, b);
        let (q, _, _) = svd(&matrix(seed ^ 2, a, a)).unwrap();
        let (r, _, _) = svd(&matrix(seed ^ 3, b, b)).unwrap();
        for norm in [MatrixNorm::Spectral, MatrixNorm::RmsToRms, MatrixNorm::Frobenius] {
            let turned = norm.direction(&q.dot(&g).dot(&r)).unwrap();
            close(&turned, &q.dot(&norm.direction(&g).unwrap()).dot(&r), 1e-8);
        }
    }

    /// Scion's steps are directions of these norms.
    #[test]
    fn scion_steps_along_directions_of_norms(seed in any::<u64>(), a in 2usize..7, b in 2usize..7) {
        let (w, g) = (matrix(seed ^ 9, a, b), matrix(seed, a, b));
        let inputs = b as f64;
        for (norm, direction, factor) in [
            (exact(true, false), MatrixNorm::RmsToRms, 1.0),
            (exact(false, false), MatrixNorm::Spectral, (a as f64).sqrt()),
            (exact(true, true), MatrixNorm::Spectral, (a as f64 / inputs).sqrt().max(1.0)),
            (ScionNorm::Sign { normalized: true }, MatrixNorm::MaxEntry, 1.0 / inputs),
            (ScionNorm::Sign { normalized: false }, MatrixNorm::MaxEntry, 1.0),
            (ScionNorm::ColNorm { normalized: false, transpose: false }, MatrixNorm::ColumnRms, 1.0),
            (ScionNorm::ColNorm { normalized: true, transpose: false }, MatrixNorm::ColumnRms, 1.0 / inputs),
            (ScionNorm::RowNorm { normalized: false, transpose: false }, MatrixNorm::RowLength, 1.0),
            (ScionNorm::RowNorm { normalized: true, transpose: false }, MatrixNorm::RowLength, 1.0 / inputs.sqrt()),
            (ScionNorm::BiasRms, MatrixNorm::Frobenius, (a as f64 * inputs).sqrt()),
        ] {
            let free = Scion { lr: 0.5, scale: 3.0, norm, unconstrained: true, ..Scion::default() };
            let expected = direction.direction(&g).unwrap() * (1.5 * factor);
            close(&step(free.clone(), &w, &g), &expected, 1e-5);
            // decay with λ = 1 is all that the constraint adds
            let bound = Scion { unconstrained: false, ..free };
            close(&step(bound, &w, &g), &(expected + &w * 0.5), 1e-5);
        }
    }

    /// Transposed norms of a transposed problem are those of the problem.
    #[test]
    fn scion_takes_rows_for_columns(seed in any::<u64>(), a in 2usize..7, b in 2usize..7) {
        let (w, g) = (matrix(seed ^ 9, a, b), matrix(seed, a, b));
        for normalized in [false, true] {
            let column = |transpose| ScionNorm::ColNorm { normalized, transpose };
            let row = |transpose| ScionNorm::RowNorm { normalized, transpose };
            for (norm, turned) in [(column(false), column(true)), (row(false), row(true))] {
                let of = |norm| Scion { lr: 0.5, norm, ..Scion::default() };
                let expected = step(of(norm), &w, &g);
                let found = step(of(turned), &w.t().to_owned(), &g.t().to_owned());
                close(&found.t().to_owned(), &expected, 1e-14);
            }
        }
    }

    /// Constrained, the sign variant never leaves the ball, and gets into it from anywhere.
    #[test]
    fn scion_stays_in_its_ball(seed in any::<u64>(), scale in 0.1f64..4.0) {
        let norm = ScionNorm::Sign { normalized: false };
        let mut opt = Scion { lr: 0.1, momentum: 0.3, scale, norm, ..Scion::default() }.build().unwrap();
        let mut w = matrix(seed, 4, 3) * scale;
        for t in 0..60 {
            opt.step(&mut w, &matrix(seed ^ t, 4, 3)).unwrap();
            assert!(w.iter().all(|w: &f64| w.abs() <= scale * (1.0 + 1e-12)));
        }
    }

    /// With the average, Muon without Nesterov, decay 1 and this factor is Scion.
    #[test]
    fn scion_of_matrices_is_muon_with_another_factor(seed in any::<u64>(), a in 2usize..7, b in 2usize..7) {
        let muon = Muon {
            lr: 0.01,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1.0,
            adjust_lr: LrAdjustment::Spectral,
            ..Muon::default()
        };
        let scion = Scion { lr: 0.01, momentum: 1.0 - 0.9, ..Scion::default() };
        let (mut muon, mut scion) = (muon.build().unwrap(), scion.build().unwrap());
        let (mut p, mut q) = (matrix(seed, a, b), matrix(seed, a, b));
        for t in 1..6 {
            let g = matrix(seed ^ t, a, b);
            muon.step(&mut p, &g).unwrap();
            scion.step(&mut q, &g).unwrap();
        }
        close(&q, &p, 1e-12);
    }
}

#[test]
fn zeros_have_no_direction() {
    let g = array![[0.0, 2.0], [0.0, 0.0], [0.0, 0.0]];
    for norm in NORMS {
        let zeros = Array2::<f64>::zeros((3, 2));
        assert_eq!(norm.direction(&zeros).unwrap(), zeros);
        let t = norm.direction(&g).unwrap();
        assert!(t.indexed_iter().all(|(at, x)| (at == (0, 1)) == (*x != 0.0)), "{norm:?}: {t}");
    }
    for norm in [
        ScionNorm::default(),
        exact(true, false),
        ScionNorm::Sign { normalized: true },
        ScionNorm::ColNorm { normalized: true, transpose: false },
        ScionNorm::RowNorm { normalized: true, transpose: false },
        ScionNorm::BiasRms,
    ] {
        let free = Scion { norm, unconstrained: true, ..Scion::default() };
        let zeros = Array2::zeros((3, 2));
        assert_eq!(step(free, &array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &zeros), zeros);
    }
}

/// Whatever the norm of matrices, vectors and scalars move by their root mean square; kernels of convolutions are
/// matrices, whose factor knows the number of places.
#[test]
fn scion_knows_shapes() {
    for norm in [ScionNorm::default(), ScionNorm::Sign { normalized: true }] {
        let free = Scion { lr: 1.0, norm, unconstrained: true, ..Scion::default() };
        let mut b = Array1::zeros(2);
        free.clone().build().unwrap().step(&mut b, &array![3.0f64, -3.0]).unwrap();
        assert!((b + array![1.0, -1.0]).iter().all(|x| x.abs() < 1e-8));
        let mut s = ndarray::arr0(0.0f64);
        free.build().unwrap().step(&mut s, &ndarray::arr0(-2.0)).unwrap();
        assert!((s.into_scalar() - 1.0).abs() < 1e-8);
    }
    let flat = matrix(4, 2, 27);
    let kernel = flat.clone().into_shape_with_order((2, 3, 3, 3)).unwrap();
    let free = Scion { lr: 1.0, norm: exact(true, false), unconstrained: true, ..Scion::default() };
    let mut w = ndarray::Array4::<f64>::zeros((2, 3, 3, 3));
    free.build().unwrap().step(&mut w, &kernel).unwrap();
    let polar = MatrixNorm::Spectral.direction(&flat).unwrap() * ((2.0f64 / 3.0).sqrt() / 9.0);
    close(&w.into_shape_with_order((2, 27)).unwrap(), &-polar, 1e-10);
}
