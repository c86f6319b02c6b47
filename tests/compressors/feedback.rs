//! Error feedback: invariants I1 to I6, errors, saving.

use crate::cases::cases;
use crate::{Named, all, decompressed, squares, vector};
use eigenstep::Error;
use eigenstep::error_feedback::compressor::{
    Accumulator, Compressor, Identity, Message, RandK, ScaledSign, Selection, TopK,
};
use eigenstep::state::{Lookup, Record, StateDict};
use proptest::prelude::*;
use std::cell::RefCell;

const NUMEL: usize = 60;

/// All that are contractions.
fn accumulators(seed: u64) -> Vec<(&'static str, Accumulator<f64>)> {
    let build = |(name, compressor): Named<f64>| {
        let contracts = compressor.contraction(NUMEL) >= 0.0;
        let accumulator = Accumulator::new(compressor, NUMEL);
        assert_eq!(accumulator.is_ok(), contracts, "{name}");
        Some((name, accumulator.ok()?))
    };
    all(NUMEL, 10, seed).into_iter().filter_map(build).collect()
}

proptest! {
    #![proptest_config(cases(32))]

    /// I1: what was sent and what is left is what came.
    #[test]
    fn nothing_is_lost(seed in 0u64..500) {
        for (name, mut feedback) in accumulators(seed) {
            let mut balance = vec![0.0; NUMEL];
            for t in 0..20 {
                let g = vector::<f64>(seed + t, NUMEL);
                let c = decompressed(&feedback.step(&g).unwrap());
                balance.iter_mut().zip(&g).zip(&c).for_each(|((sum, g), c)| *sum += g - c);
            }
            let off = balance.iter().zip(feedback.residual()).map(|(a, b)| (a - b).abs());
            prop_assert!(off.fold(0.0, f64::max) < 1e-11, "{}", name);
        }
    }

    /// I3: what is sent and what is left are apart.
    #[test]
    fn selections_divide_the_vector(seed in 0u64..500, k in 1usize..NUMEL) {
        let mut feedback = Accumulator::new(Box::new(TopK(Selection::Count { k })), NUMEL).unwrap();
        for t in 0..10 {
            let c = decompressed(&feedback.step(&vector::<f64>(seed + t, NUMEL)).unwrap());
            prop_assert!(c.iter().zip(feedback.residual()).all(|(c, x)| *c == 0.0 || *x == 0.0));
        }
    }

    /// I4: the residual stays below the bound of its contraction, in every step of those that are one
    /// in every step.
    #[test]
    fn residuals_are_bounded(seed in 0u64..100, k in 1usize..NUMEL) {
        let compressors: [Box<dyn Compressor<f64>>; 2] =
            [Box::new(TopK(Selection::Count { k })), Box::new(ScaledSign)];
        for compressor in compressors {
            let keeps = (1.0 - compressor.contraction(NUMEL)).sqrt();
            let mut feedback = Accumulator::new(compressor, NUMEL).unwrap();
            let mut longest = 0.0f64;
            for t in 0..80 {
                let g = vector::<f64>(seed + t, NUMEL);
                longest = longest.max(squares(&g).sqrt());
                feedback.step(&g).unwrap();
                let bound = longest * keeps / (1.0 - keeps) * (1.0 + 1e-12);
                prop_assert!(squares(feedback.residual()).sqrt() <= bound);
            }
        }
    }
}

/// I2: what loses nothing leaves nothing.
#[test]
fn identity_has_no_residual() {
    let mut feedback = Accumulator::<f32>::new(Box::new(Identity), NUMEL).unwrap();
    for t in 0..5 {
        let g = vector::<f32>(t, NUMEL);
        assert_eq!(feedback.step(&g).unwrap(), Message::Dense(g));
        assert!(feedback.residual().iter().all(|x| x.to_bits() == 0));
    }
}

/// I6: without gradients the residual drains, `⌈d/k⌉` steps and no more.
#[test]
fn zero_gradients_drain_the_residual() {
    let compressor = TopK(Selection::Count { k: 7 });
    let mut feedback = Accumulator::<f64>::new(Box::new(compressor), NUMEL).unwrap();
    feedback.step(&vector(3, NUMEL)).unwrap();
    for _ in 0..8 {
        feedback.step(&[0.0; NUMEL]).unwrap();
    }
    assert!(feedback.residual().iter().all(|x| *x == 0.0));
}

/// I5: what is not finite never reaches the residual.
#[test]
fn poison_is_refused() {
    for (name, mut feedback) in accumulators(1) {
        feedback.step(&vector(1, NUMEL)).unwrap();
        let before = feedback.residual().to_vec();
        for poison in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
            let mut g = vector(2, NUMEL);
            g[17] = poison;
            let error = feedback.step(&g).unwrap_err();
            let expected = matches!(error, Error::NonFiniteGradient { index: 17, .. });
            assert!(expected, "{name}: {error}");
        }
        let error = feedback.step(&[1.0; NUMEL - 1]).unwrap_err();
        assert!(matches!(error, Error::LengthMismatch { expected: NUMEL, .. }), "{error}");
        assert_eq!((feedback.residual(), feedback.steps()), (&before[..], 1), "{name}");
    }
    // finite numbers whose sum is not
    let compressor = TopK(Selection::Count { k: 1 });
    let mut feedback = Accumulator::<f32>::new(Box::new(compressor), 2).unwrap();
    feedback.step(&[f32::MAX, f32::MAX]).unwrap();
    let error = feedback.step(&[0.0, f32::MAX]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert_eq!(feedback.residual(), [0.0, f32::MAX]);
    // and numbers that become infinite when they are decompressed
    let compressor = RandK { density: 0.67, unbiased: true, seed: 0 };
    let mut feedback = Accumulator::<f32>::new(Box::new(compressor), 3).unwrap();
    let error = feedback.step(&[f32::MAX; 3]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert_eq!(feedback.residual(), [0.0; 3]);
}

#[test]
fn what_does_not_contract_is_refused() {
    let compressor = RandK { density: 0.1, unbiased: true, seed: 0 };
    let error = Accumulator::<f32>::new(Box::new(compressor), NUMEL).unwrap_err();
    assert!(error.to_string().starts_with("Accumulator: `compressor` must be a contraction"));
    let compressor = TopK(Selection::TopK { density: 0.0 });
    let error = Accumulator::<f32>::new(Box::new(compressor), NUMEL).unwrap_err();
    assert!(error.to_string().starts_with("TopK: `density`"), "{error}");
}

fn saved(feedback: &Accumulator<f64>) -> StateDict {
    let mut dict = StateDict::new("feedback");
    feedback.save(&mut Record::new("f", &mut dict));
    dict
}

fn load(feedback: &mut Accumulator<f64>, dict: &StateDict) -> eigenstep::Result<usize> {
    let used = RefCell::default();
    feedback.load(&Lookup::new("f", dict, &used))?;
    Ok(used.into_inner().len())
}

/// What is loaded goes on with the same bits, and all that is saved is read.
#[test]
fn saving_changes_nothing() {
    let pairs = accumulators(4).into_iter().zip(accumulators(4));
    for ((name, mut one), (_, mut other)) in pairs {
        for t in 0..5 {
            one.step(&vector(t, NUMEL)).unwrap();
        }
        let dict = saved(&one);
        let read = load(&mut other, &dict).unwrap();
        assert_eq!(read, dict.tensors.len() + dict.scalars.len(), "{name}");
        for t in 5..9 {
            let g = vector(t, NUMEL);
            assert_eq!(one.step(&g).unwrap(), other.step(&g).unwrap(), "{name}");
        }
        assert_eq!(saved(&one), saved(&other), "{name}");
        // a damaged dict is refused, and nothing has changed
        for key in dict.tensors.keys() {
            for damage in 0..3 {
                let mut broken = dict.clone();
                let tensor = broken.tensors.get_mut(key).unwrap();
                match damage {
                    0 => drop(broken.tensors.remove(key)),
                    1 => tensor.bytes.truncate(8),
                    _ => tensor.bytes.fill(0xff),
                }
                // a basis of no elements cannot be damaged
                if dict.tensors[key].bytes.is_empty() {
                    continue;
                }
                let before = saved(&one);
                let error = load(&mut one, &broken).unwrap_err();
                assert!(matches!(error, Error::StateDict { .. }), "{name}: {error}");
                assert_eq!(saved(&one), before, "{name}");
            }
        }
        let mut broken = dict.clone();
        broken.scalars.clear();
        assert!(load(&mut one, &broken).is_err(), "{name}");
    }
}
