//! What a window keeps, and what is fed back: invariants I1 to I6, S1, S3, S4, L1 to L5.

use crate::cases::cases;
use crate::{distance, dot, norm, vector};
use eigenstep::error_feedback::{
    Compression, LowRankConfig, MFac, Momentum, ResidualFormat, Selection, SparseConfig,
    power_iteration,
};
use eigenstep::optim::Optimizer;
use eigenstep::prelude::*;
use eigenstep::state::StateTensor;
use ndarray::{Array1, Array2};
use proptest::prelude::*;

/// The elements that are kept, by sorting.
fn sorted_out(a: &[f64], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..a.len() as u32).collect();
    order.sort_by(|&i, &j| a[j as usize].abs().total_cmp(&a[i as usize].abs()).then(i.cmp(&j)));
    order.truncate(k);
    order.sort_unstable();
    order
}

proptest! {
    #![proptest_config(cases(256))]

    /// Selection is sorting: with ties, zeros, and numbers of one size.
    #[test]
    fn selection_is_sorting(seed in 0u64..1000, len in 1usize..3000, density in 0.001f64..1.0, levels in 1u32..40) {
        let coarse = f64::from(levels);
        let a: Vec<f64> = vector::<f64>(seed, len).iter().map(|x| (x * coarse).round() / coarse).collect();
        let mut kept = Vec::new();
        let selection = Selection::TopK { density };
        selection.select(&a, &mut kept);
        prop_assert_eq!(&kept, &sorted_out(&a, selection.count(len)));
        let block = 1 + (seed as usize * 37) % 900;
        let selection = Selection::BlockTopK { density, block };
        selection.select(&a, &mut kept);
        let expected: Vec<u32> = a.chunks(block).enumerate().flat_map(|(number, piece)| {
            let k = Selection::BlockTopK { density, block: piece.len() }.count(piece.len());
            sorted_out(piece, k).into_iter().map(move |index| index + (number * block) as u32)
        }).collect();
        prop_assert_eq!(&kept, &expected);
        prop_assert_eq!(kept.len(), selection.count(len));
    }

    /// I1, I3: what was sent and what is left is what came; sent and left are apart.
    #[test]
    fn nothing_is_lost(seed in 0u64..500, density in 0.05f64..0.9, block in 2usize..40) {
        for selection in [Selection::TopK { density }, Selection::BlockTopK { density, block }] {
            let mut run = Sent::new(selection, 60, 20);
            for step in 0..20 {
                run.step(&vector(seed + step, 60));
            }
            let left = run.residual();
            for i in 0..60 {
                let total: f64 = run.sent.iter().map(|c| c[i]).sum::<f64>() + left[i];
                prop_assert!((total - run.received[i]).abs() < 1e-12);
            }
            let last = run.sent.last().unwrap();
            prop_assert!(last.iter().zip(&left).all(|(c, x)| *c == 0.0 || *x == 0.0));
        }
    }

    /// I4: the residual stays below the bound of a contraction.
    #[test]
    fn residuals_are_bounded(seed in 0u64..100, k in 1usize..30) {
        let mut run = Sent::new(Selection::Count { k }, 60, 4);
        let mut longest = 0.0f64;
        for step in 0..80 {
            let g = vector(seed + step, 60);
            longest = longest.max(norm(&g));
            run.step(&g);
            let keeps = (1.0 - k as f64 / 60.0).sqrt();
            prop_assert!(norm(&run.residual()) <= longest * keeps / (1.0 - keeps) * (1.0 + 1e-12));
        }
    }

    /// L1, L2: orthonormal columns, and a remainder orthogonal to them.
    #[test]
    fn power_iteration_projects(seed in 0u64..500, rows in 2usize..20, columns in 2usize..20, rank in 1usize..8) {
        let rank = rank.min(rows).min(columns);
        let m = Array2::from_shape_vec((rows, columns), vector::<f64>(seed, rows * columns)).unwrap();
        let q = Array2::from_shape_vec((columns, rank), vector::<f64>(seed + 1, columns * rank)).unwrap();
        let (p, r) = power_iteration(&m, &q);
        let unit = p.t().dot(&p) - Array2::<f64>::eye(rank);
        prop_assert!(unit.iter().all(|x| x.abs() < 1e-5), "{unit}");
        let rest = &m - &p.dot(&r.t());
        let scale = m.iter().map(|x| x * x).sum::<f64>();
        let (kept, left) = (r.iter().map(|x| x * x).sum::<f64>(), rest.iter().map(|x| x * x).sum::<f64>());
        prop_assert!((kept + left - scale).abs() < 1e-4 * scale);
    }
}

/// What M-FAC's window was given, read from its state.
struct Sent {
    opt: Box<dyn Optimizer<f64>>,
    w: Array1<f64>,
    received: Vec<f64>,
    sent: Vec<Vec<f64>>,
    window: usize,
}

impl Sent {
    fn new(selection: Selection, d: usize, window: usize) -> Self {
        let compression =
            Compression::Sparse(SparseConfig { selection, ..SparseConfig::default() });
        let opt = MFac { window, damping: 1.0, compression, ..MFac::default() }.build().unwrap();
        let (w, received) = (Array1::zeros(d), vec![0.0; d]);
        Self { opt: Box::new(opt), w, received, sent: Vec::new(), window }
    }

    fn step(&mut self, g: &[f64]) {
        let slot = self.sent.len() % self.window;
        self.received.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        self.opt.step(&mut self.w, &Array1::from(g.to_vec())).unwrap();
        let dict = self.opt.state_dict();
        let values = f64s(&dict.tensors["vectors.0.values"]);
        let places = &dict.tensors["vectors.0.indices"].bytes;
        let kept = values.len() / self.window;
        let mut c = vec![0.0; g.len()];
        for entry in slot * kept..(slot + 1) * kept {
            let place = u16::from_le_bytes([places[2 * entry], places[2 * entry + 1]]);
            c[usize::from(place)] = values[entry];
        }
        self.sent.push(c);
    }

    fn residual(&self) -> Vec<f64> {
        f64s(&self.opt.state_dict().tensors["vectors.0.residual"])
    }
}

fn f64s(tensor: &StateTensor) -> Vec<f64> {
    tensor.bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()
}

/// I6: without gradients the residual drains, `d/k` steps and no more.
#[test]
fn zero_gradients_drain_the_residual() {
    let mut run = Sent::new(Selection::Count { k: 7 }, 60, 4);
    run.step(&vector(3, 60));
    for _ in 0..8 {
        run.step(&[0.0; 60]);
    }
    assert!(run.residual().iter().all(|x| *x == 0.0));
}

fn train(method: MFac, steps: u64, gradient: impl Fn(u64) -> Vec<f64>) -> Vec<f64> {
    let mut opt = method.build::<f64>().unwrap();
    let mut w = Array2::from_shape_vec((6, 5), vector::<f64>(1, 30)).unwrap();
    for step in 0..steps {
        let g = Array2::from_shape_vec((6, 5), gradient(step)).unwrap();
        opt.step(&mut w, &g).unwrap();
    }
    w.into_iter().collect()
}

fn method() -> MFac {
    let base = Momentum { lr: 0.01, momentum: 0.5, weight_decay: 0.1, ..Momentum::default() };
    MFac { base, window: 4, damping: 0.01, ..MFac::default() }
}

/// I2, S1, L4: what keeps everything is dense M-FAC.
#[test]
fn keeping_everything_is_dense() {
    let gradient = |step| vector(50 + step, 30);
    let dense = train(method(), 12, gradient);
    let selection = Selection::TopK { density: 1.0 };
    let sparse = Compression::Sparse(SparseConfig { selection, ..SparseConfig::default() });
    let low_rank = Compression::LowRank(LowRankConfig { rank: 5, ..LowRankConfig::default() });
    for (compression, bound) in [(sparse, 1e-13), (low_rank, 1e-6)] {
        let found = train(MFac { compression, ..method() }, 12, gradient);
        assert!(distance(&found, &dense) < bound, "{compression:?}: {}", distance(&found, &dense));
    }
}

/// S4: after the ring has gone round, only the last messages matter.
#[test]
fn old_messages_are_forgotten() {
    // gradients that every selection takes as they are: nothing is fed back
    let sparse = |step: u64| {
        let mut g = vec![0.0; 30];
        (0..3).for_each(|i| g[(step as usize * 7 + i * 11) % 30] = vector::<f64>(step, 3)[i] + 2.0);
        g
    };
    let base = Momentum { lr: 1.0, ..Momentum::default() };
    let method = MFac { base, ..MFac { window: 4, damping: 0.01, ..MFac::sparse(0.1) } };
    let long = train(method.clone(), 11, sparse);
    let shorter = train(method.clone(), 10, sparse);
    // the last four messages alone, and the step that the fourth makes
    let replay = |steps| train(method.clone(), steps, |step| sparse(step + 7));
    let (four, three) = (replay(4), replay(3));
    let step: Vec<f64> = long.iter().zip(&shorter).map(|(a, b)| a - b).collect();
    let again: Vec<f64> = four.iter().zip(&three).map(|(a, b)| a - b).collect();
    assert!(distance(&again, &step) < 1e-9);
}

/// L3, L5: a matrix of low rank is held exactly; any other comes nearer with every step.
#[test]
fn power_iteration_converges() {
    let (left, right) = (vector::<f64>(1, 12), vector::<f64>(2, 10));
    let outer =
        |s: f64, a: &[f64], b: &[f64]| Array2::from_shape_fn((6, 5), |(i, j)| s * a[i] * b[j]);
    let m = outer(1.0, &left[..6], &right[..5]) + outer(1.0, &left[6..], &right[5..]);
    let q = Array2::from_shape_vec((5, 2), vector::<f64>(3, 10)).unwrap();
    let (p, r) = power_iteration(&m, &q);
    assert!((&m - &p.dot(&r.t())).iter().all(|x| x.abs() < 1e-6));
    let m = &m + &(Array2::from_shape_vec((6, 5), vector::<f64>(4, 30)).unwrap() * 0.05);
    let best = {
        let (_, values, _) = eigenstep::linalg::svd(&m).unwrap();
        values.iter().skip(2).map(|x| x * x).sum::<f64>()
    };
    let mut q = q;
    for _ in 0..20 {
        q = power_iteration(&m, &q).1;
    }
    let (p, r) = power_iteration(&m, &q);
    let rest = &m - &p.dot(&r.t());
    let rest: Vec<f64> = rest.into_iter().collect();
    assert!((dot(&rest, &rest) / best - 1.0).abs() < 1e-5);
}

/// More columns than a matrix has ranks, and matrices of any size: held exactly all the same.
#[test]
fn power_iteration_of_small_rank_and_size() {
    let (left, right) = (vector::<f64>(1, 6), vector::<f64>(2, 5));
    for scale in [1.0, 1e-5, 1e-9, 1e-30, 1e30, 1e200] {
        let m = Array2::from_shape_fn((6, 5), |(i, j)| scale * left[i] * right[j]);
        let mut q = Array2::from_shape_vec((5, 3), vector::<f64>(3, 15)).unwrap();
        for _ in 0..5 {
            let (p, r) = power_iteration(&m, &q);
            let rest = &m - &p.dot(&r.t());
            let off = rest.iter().fold(0.0f64, |a, x| a.max(x.abs())) / scale;
            assert!(off < 1e-5, "{scale:e}: {off:e}");
            q = r;
        }
    }
}

/// A zero gradient does not leave a low-rank window with factors of zero for ever.
#[test]
fn low_rank_survives_zero_gradients() {
    let method = MFac { window: 3, damping: 0.1, ..MFac::low_rank(2) };
    let start = vector::<f64>(1, 30);
    let w = train(method, 4, |step| if step < 2 { vec![0.0; 30] } else { vector(step, 30) });
    assert!(distance(&w, &start) > 1e-6);
}

/// Coarse residuals and values stay near the exact ones.
#[test]
fn coarse_storage_stays_near() {
    let run = |residual, bf16_values| {
        let selection = Selection::BlockTopK { density: 0.2, block: 10 };
        let compression =
            Compression::Sparse(SparseConfig { selection, feedback: true, residual, bf16_values });
        train(MFac { damping: 1.0, compression, ..method() }, 30, |step| vector(step, 30))
    };
    let start = vector::<f64>(1, 30);
    let exact = run(ResidualFormat::Full, false);
    let gone = distance(&exact, &start);
    for (residual, bf16) in [
        (ResidualFormat::Full, true),
        (ResidualFormat::Bf16, true),
        (ResidualFormat::Nibble { block: 10 }, false),
    ] {
        let off = distance(&run(residual, bf16), &exact);
        assert!(off < 0.3 * gone, "{residual:?}: off by {off:.1e} of {gone:.1e}");
    }
}
