//! Gradients of few rows under rules that leave the other rows alone.

use crate::cases::cases;
use crate::first_order::{close, path, run};
use crate::threads::on_threads;
use eigenstep::params::{Flat, FlatMut};
use eigenstep::prelude::*;
use eigenstep::quant::StatePolicy;
use ndarray::Array2;
use proptest::prelude::*;

/// Enough rows for several units of work.
const SHAPE: [usize; 2] = [6000, 7];

/// A gradient of these rows.
fn rows(rows: &[usize], shape: &[usize], value: impl Fn(usize, usize) -> f32) -> RowGradient<f32> {
    let values = Array2::from_shape_fn((rows.len(), shape[1]), |(i, j)| value(i, j));
    RowGradient::new(shape, rows.to_vec(), values).unwrap()
}

/// Rows of step `t`: some far apart, some next to each other, one twice, and at one step none.
fn given(t: usize) -> Vec<usize> {
    if t == 3 {
        return Vec::new();
    }
    vec![5999, 17 * t, 17 * t + 1, 2340, 2341, 2340, 0, 4 + t]
}

fn tree(name: &str, slot: &str) -> String {
    format!("state.{name}.{slot}")
}

fn leave_the_others_alone<U: Rule>(config: &U, precision: Precision) {
    let after = |threads: usize| {
        on_threads(threads, || {
            let policy = StatePolicy { min_numel: 1, ..precision.into() };
            let opt = config.clone().build::<f32>().unwrap();
            let mut opt = opt.with_state_policy(policy).unwrap();
            let mut w: Vec<f32> =
                (0..SHAPE[0] * SHAPE[1]).map(|i| (i as f32 * 0.37).sin()).collect();
            for t in 0..6 {
                let (before, given) = (w.clone(), given(t));
                let grad = rows(&given, &SHAPE, |i, j| 1.0 + i as f32 - 0.3 * j as f32 + t as f32);
                opt.step(&mut FlatMut::new(&mut w, &SHAPE), &grad).unwrap();
                for (row, (new, old)) in w.chunks(7).zip(before.chunks(7)).enumerate() {
                    let touched =
                        new.iter().zip(old).any(|(new, old)| new.to_bits() != old.to_bits());
                    assert_eq!(touched, given.contains(&row), "row {row} at step {t}: {config:?}");
                }
                assert_eq!(opt.steps("param"), Some(t as u64 + 1));
            }
            (w, opt.state_dict())
        })
    };
    let expected = after(1);
    assert!(after(3) == expected, "{config:?} with three threads");
    if precision == Precision::Full {
        let given: Vec<usize> = (0..6).flat_map(given).collect();
        for tensor in expected.1.tensors.values() {
            for (row, values) in tensor.bytes.chunks(4 * 7).enumerate() {
                assert_eq!(values.iter().any(|byte| *byte != 0), given.contains(&row), "row {row}");
            }
        }
    }
}

#[test]
fn rows_without_a_gradient_are_left_alone() {
    let precisions = [
        Precision::Full,
        Precision::Bf16,
        Precision::INT8_LINEAR,
        Precision::INT8_DYNAMIC,
        Precision::INT4,
        Precision::INT4_LPMM,
    ];
    for precision in precisions {
        leave_the_others_alone(&SparseAdam { lr: 0.1, ..SparseAdam::default() }, precision);
        leave_the_others_alone(&Adagrad { lr: 0.1, ..Adagrad::default() }, precision);
    }
    leave_the_others_alone(&Sgd { lr: 0.1, ..Sgd::default() }, Precision::Full);
}

/// Blocks of codes without a given row are not coded again.
#[test]
fn codes_of_other_rows_stay() {
    let policy = StatePolicy { min_numel: 1, ..Precision::INT4.into() };
    let opt = SparseAdam::default().build::<f32>().unwrap();
    let mut opt = opt.with_state_policy(policy).unwrap();
    let mut w = vec![0.5f32; SHAPE[0] * SHAPE[1]];
    let all: Vec<usize> = (0..SHAPE[0]).collect();
    let mut step = |given: &[usize]| {
        let grad = rows(given, &SHAPE, |i, j| ((i * 7 + j) as f32).cos());
        opt.step(&mut FlatMut::new(&mut w, &SHAPE), &grad).unwrap();
        opt.state_dict()
    };
    let before = step(&all);
    let after = step(&[3000]);
    for slot in ["exp_avg.codes", "exp_avg.scales", "exp_avg_sq.codes", "exp_avg_sq.scales"] {
        let key = tree("param", slot);
        let (old, new) = (&before.tensors[&key].bytes, &after.tensors[&key].bytes);
        let changed = old.iter().zip(new).filter(|(old, new)| old != new).count();
        assert!(changed <= 1024, "{key}: {changed} of {} bytes", old.len());
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn sparse_adam_with_all_rows_is_adam((w, grads) in run(), beta2 in 0.0f64..0.999) {
        let sparse = SparseAdam { lr: 0.1, betas: (0.8, beta2), ..SparseAdam::default() };
        let adam = Adam { lr: 0.1, betas: (0.8, beta2), eps_hat: true, ..Adam::default() };
        prop_assert_eq!(path(&sparse, &w, &grads), path(&adam, &w, &grads));
    }

    /// Against the equations, row by row; the step number is that of the parameter.
    #[test]
    fn sparse_adam_is_lazy(picks in prop::collection::vec(prop::collection::vec(0usize..5, 0..4), 1..8)) {
        let (shape, lr) = ([5, 3], 0.1);
        let mut opt = SparseAdam { lr, betas: (0.8, 0.9), ..SparseAdam::default() }.build().unwrap();
        let mut w = vec![0.5f64; 15];
        let mut expected = w.clone();
        let (mut m, mut v) = ([0.0f64; 15], [0.0f64; 15]);
        for (t, picks) in (1i32..).zip(&picks) {
            let value = |i: usize, j: usize| f64::from(t) - 1.7 * i as f64 + 0.3 * j as f64;
            let values = Array2::from_shape_fn((picks.len(), 3), |(i, j)| value(i, j));
            let grad = RowGradient::new(&shape, picks.clone(), values).unwrap();
            opt.step(&mut FlatMut::new(&mut w, &shape), &grad).unwrap();
            for row in (0..5).filter(|row| picks.contains(row)) {
                for j in 0..3 {
                    let k = row * 3 + j;
                    let given = picks.iter().enumerate().filter(|(_, pick)| **pick == row);
                    let g: f64 = given.map(|(i, _)| value(i, j)).sum();
                    m[k] += 0.2 * (g - m[k]);
                    v[k] += 0.1 * (g * g - v[k]);
                    let step = lr * (1.0 - 0.9f64.powi(t)).sqrt() / (1.0 - 0.8f64.powi(t));
                    expected[k] -= step * m[k] / (v[k].sqrt() + 1e-8);
                }
            }
            close(&w, &expected, 1e-12);
        }
    }

    /// Decay acts on all rows, and so does a rule around.
    #[test]
    fn decay_and_wrappers_take_all_rows(row in 0usize..4, weight_decay in 0.1f64..0.5) {
        fn ends_alike<U: Rule>(config: &U, row: usize) {
            let (shape, mut dense) = ([4, 2], vec![0.0; 8]);
            dense[2 * row..2 * row + 2].copy_from_slice(&[1.0, -2.0]);
            let values = Array2::from_shape_vec((1, 2), vec![1.0, -2.0]).unwrap();
            let sparse = RowGradient::new(&shape, vec![row], values).unwrap();
            let (mut a, mut b) = (vec![0.7; 8], vec![0.7; 8]);
            let (mut first, mut second) = (config.clone().build().unwrap(), config.clone().build().unwrap());
            for _ in 0..3 {
                first.step(&mut FlatMut::new(&mut a, &shape), &sparse).unwrap();
                second.step(&mut FlatMut::new(&mut b, &shape), &Flat::new(&dense, &shape)).unwrap();
            }
            assert_eq!(a, b, "{config:?}");
        }
        ends_alike(&Adagrad { weight_decay, ..Adagrad::default() }, row);
        ends_alike(&Sgd { weight_decay, ..Sgd::default() }, row);
        ends_alike(&Sgd { momentum: 0.9, ..Sgd::default() }, row);
        ends_alike(&Projected { upper: 0.5, ..Projected::with_inner(Sgd::default()) }, row);
        ends_alike(&Cautious::with_inner(SparseAdam::default()), row);
    }
}
