//! MicroAdam: invariants A1 to A4.

use crate::cases::cases;
use crate::{distance, vector};
use eigenstep::error_feedback::{Horizon, Residual, ResidualFormat, Selection};
use eigenstep::prelude::*;
use ndarray::Array1;
use proptest::prelude::*;

/// A1: everything kept, and a window longer than the run: AdamW.
#[test]
fn full_density_is_adamw() {
    for horizon in [Horizon::Step, Horizon::Window] {
        let micro = MicroAdam {
            lr: 0.01,
            weight_decay: 0.1,
            window: 12,
            selection: Selection::BlockTopK { density: 1.0, block: 7 },
            bf16_values: false,
            horizon,
            ..MicroAdam::default()
        };
        let adamw = AdamW { lr: 0.01, weight_decay: 0.1, ..AdamW::default() };
        let (mut a, mut b) = (micro.build::<f64>().unwrap(), adamw.build::<f64>().unwrap());
        let (mut x, mut y) = (Array1::<f64>::ones(40), Array1::<f64>::ones(40));
        for step in 0..12 {
            let g = Array1::from(vector::<f64>(step, 40));
            a.step(&mut x, &g).unwrap();
            b.step(&mut y, &g).unwrap();
        }
        assert!(distance(x.as_slice().unwrap(), y.as_slice().unwrap()) < 1e-13, "{horizon:?}");
    }
}

/// A4: a step moves at most what the window holds.
#[test]
fn steps_are_sparse() {
    let selection = Selection::BlockTopK { density: 0.05, block: 20 };
    let mut opt =
        MicroAdam { window: 3, selection, ..MicroAdam::default() }.build::<f32>().unwrap();
    let mut w = Array1::<f32>::ones(400);
    for step in 0..10 {
        let before = w.clone();
        opt.step(&mut w, &Array1::from(vector::<f32>(step, 400))).unwrap();
        let moved = before.iter().zip(&w).filter(|(a, b)| a != b).count();
        assert!(moved <= 3 * 20, "step {step} moved {moved}");
    }
}

proptest! {
    #![proptest_config(cases(128))]

    /// A2: 4 bits are off by half a step; bfloat16 by a neighbour.
    #[test]
    fn residuals_are_near(seed in 0u64..1000, len in 1usize..300, half in 1usize..40, scale in 1e-20f64..1e20) {
        let x: Vec<f64> = vector::<f64>(seed, len).iter().map(|x| x * scale).collect();
        let block = 2 * half;
        let mut residual = Residual::new(ResidualFormat::Nibble { block }, len);
        residual.store(0, (1, 2), &x);
        let mut back = vec![0.0; len];
        residual.load(0, &mut back);
        for (x, back) in x.chunks(block).zip(back.chunks(block)) {
            let (lo, hi) = x.iter().fold((x[0], x[0]), |(l, h), &x| (l.min(x), h.max(x)));
            for (x, back) in x.iter().zip(back) {
                prop_assert!((x - back).abs() <= (hi - lo) / 30.0 * (1.0 + 1e-9));
            }
        }
        let mut residual = Residual::new(ResidualFormat::Bf16, len);
        residual.store(0, (1, 2), &x);
        residual.load(0, &mut back);
        for (x, back) in x.iter().zip(&back) {
            prop_assert!((x - back).abs() <= x.abs() / 128.0);
        }
    }
}

/// Rounding at random is right on average: five standard deviations of 4096 draws.
#[test]
fn bf16_residuals_have_no_bias() {
    let x = vec![1.0 + 1.0 / 512.0; 4096];
    let mut residual = Residual::<f64>::new(ResidualFormat::Bf16, x.len());
    residual.store(0, (7, 0), &x);
    let mut back = vec![0.0; x.len()];
    residual.load(0, &mut back);
    let mean = back.iter().sum::<f64>() / back.len() as f64;
    // neighbours 1 and 1 + 2⁻⁷, the larger with probability 1/4
    let deviation = (3.0f64 / 16.0).sqrt() / 128.0 / 64.0;
    assert!((mean - x[0]).abs() < 5.0 * deviation, "{mean}");
}

/// A share of what is left out reaches parameters that no window holds.
#[test]
fn alpha_moves_the_rest() {
    let selection = Selection::Count { k: 1 };
    let method = MicroAdam {
        window: 1,
        selection,
        residual: ResidualFormat::Full,
        alpha: 0.5,
        ..MicroAdam::default()
    };
    let mut opt = method.build::<f64>().unwrap();
    let mut w = Array1::<f64>::zeros(3);
    opt.step(&mut w, &ndarray::array![3.0, 1.0, -2.0]).unwrap();
    // the window's own element moves by lr, the others by lr·α·ξ
    assert!((w[1] + 1e-3 * 0.5).abs() < 1e-15 && (w[2] - 1e-3).abs() < 1e-15, "{w}");
    opt.step(&mut w, &ndarray::array![0.0, 0.0, 0.0]).unwrap();
    // what was applied is forgotten: −2 has become −1, and is sent; 1 has become 0.5, and is halved
    assert!((w[1] + 1e-3 * 0.75).abs() < 1e-15, "{w}");
}
