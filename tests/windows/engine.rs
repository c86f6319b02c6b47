//! What the engine owes methods over several tensors: scopes, groups, saving, errors.

use crate::threads::on_threads;
use crate::{distance, vector};
use eigenstep::Error;
use eigenstep::error_feedback::{
    Compression, Fisher, Ggt, GgtForm, GradWindow, LowRankConfig, MFac, Momentum, ResidualFormat,
    RowFormat, Selection, SparseConfig,
};
use eigenstep::optim::{Layout, Optim, Optimizer, Scope, Vectored};
use eigenstep::prelude::*;
use ndarray::{Array1, Array2, array};

type Model = (Array2<f64>, Array1<f64>);

fn model(seed: u64) -> Model {
    let weight = Array2::from_shape_vec((4, 3), vector(seed, 12)).unwrap();
    (weight, Array1::from(vector(seed + 1000, 4)))
}

fn compressions() -> [Compression; 6] {
    let sparse = |selection, residual, bf16_values| {
        Compression::Sparse(SparseConfig { selection, feedback: true, residual, bf16_values })
    };
    let (top, block) =
        (Selection::TopK { density: 0.3 }, Selection::BlockTopK { density: 0.3, block: 6 });
    let low = |residual| {
        Compression::LowRank(LowRankConfig { rank: 2, residual, ..LowRankConfig::default() })
    };
    [
        Compression::None,
        sparse(top, ResidualFormat::Full, false),
        sparse(block, ResidualFormat::Nibble { block: 4 }, true),
        sparse(top, ResidualFormat::Bf16, false),
        low(ResidualFormat::Full),
        low(ResidualFormat::Nibble { block: 4 }),
    ]
}

fn method(compression: Compression, scope: Scope) -> MFac {
    let base = Momentum { lr: 0.1, momentum: 0.5, ..Momentum::default() };
    MFac { base, window: 4, damping: 0.1, compression, scope, ..MFac::default() }
}

/// Saved in the middle and loaded into a new optimizer, everything goes on bit for bit.
#[test]
fn every_memory_resumes() {
    for compression in compressions() {
        for scope in [Scope::Model, Scope::Group, Scope::Tensor] {
            let build =
                || -> Optim<Vectored<MFac>, f64> { method(compression, scope).build().unwrap() };
            let (mut opt, mut w) = (build(), model(0));
            (0..6).for_each(|step| opt.step(&mut w, &model(step + 1)).unwrap());
            let saved = opt.state_dict();
            let (mut again, mut copy) = (build(), w.clone());
            again.load_state_dict(&saved).unwrap();
            assert_eq!(again.state_dict(), saved);
            assert_eq!(again.state_bytes(), opt.state_bytes());
            for step in 6..12 {
                opt.step(&mut w, &model(step + 1)).unwrap();
                again.step(&mut copy, &model(step + 1)).unwrap();
            }
            assert_eq!(w, copy, "{compression:?}, {scope:?}");
            assert_eq!(again.state_dict(), opt.state_dict());
        }
    }
}

/// Every entry of a state dict is needed, and none is taken on trust.
#[test]
fn broken_dicts_are_refused() {
    for compression in compressions() {
        let mut opt = method(compression, Scope::Model).build::<f64>().unwrap();
        let mut w = model(0);
        (0..3).for_each(|step| opt.step(&mut w, &model(step + 1)).unwrap());
        let saved = opt.state_dict();
        let keys = saved.tensors.keys().chain(saved.scalars.keys());
        let kept = |key: &&String| key.starts_with("vectors.0");
        // a list of parameters that ends early is a shorter vector: refused for its tensors
        for key in keys.filter(kept).filter(|key| !key.contains(".group")) {
            let mut broken = saved.clone();
            broken.tensors.remove(key);
            broken.scalars.remove(key);
            let error = opt.load_state_dict(&broken).unwrap_err();
            assert!(matches!(error, Error::StateDict { .. }), "{key}: {error}");
            assert_eq!(opt.state_dict(), saved);
        }
        for key in saved.tensors.keys().filter(|key| key.starts_with("vectors.0")) {
            let mut broken = saved.clone();
            let tensor = broken.tensors.get_mut(key).unwrap();
            // the factors of a vector are empty
            let emptied = tensor.bytes.pop().is_none();
            assert!(emptied || opt.load_state_dict(&broken).is_err(), "{key}");
        }
    }
}

/// Indices that would reach beyond the vector are refused.
#[test]
fn indices_beyond_the_vector_are_refused() {
    let mut opt = method(compressions()[1], Scope::Model).build::<f64>().unwrap();
    let mut w = model(0);
    opt.step(&mut w, &model(1)).unwrap();
    let saved = opt.state_dict();
    let mut broken = saved.clone();
    broken.tensors.get_mut("vectors.0.indices").unwrap().bytes[..2].copy_from_slice(&[255, 255]);
    let error = opt.load_state_dict(&broken).unwrap_err();
    assert!(error.to_string().contains("vectors.0.indices"), "{error}");
}

/// Two tensors in one vector are one tensor of both; each on its own is an optimizer of its own.
#[test]
fn scopes() {
    let flat =
        |(weight, bias): &Model| -> Vec<f64> { weight.iter().chain(bias).copied().collect() };
    let run_flat = |method: MFac| {
        let mut opt = method.build::<f64>().unwrap();
        let mut w = Array1::from(flat(&model(0)));
        (0..7).for_each(|step| opt.step(&mut w, &Array1::from(flat(&model(step + 1)))).unwrap());
        w.to_vec()
    };
    let run = |method: MFac| {
        let mut opt = method.build::<f64>().unwrap();
        let mut w = model(0);
        (0..7).for_each(|step| opt.step(&mut w, &model(step + 1)).unwrap());
        w
    };
    for compression in &compressions()[..4] {
        let joint = run(method(*compression, Scope::Model));
        assert_eq!(flat(&joint), run_flat(method(*compression, Scope::Model)));
        assert_eq!(joint, run(method(*compression, Scope::Group)));
        let apart = run(method(*compression, Scope::Tensor));
        let mut opt = method(*compression, Scope::Tensor).build::<f64>().unwrap();
        let mut bias = model(0).1;
        (0..7).for_each(|step| opt.step(&mut bias, &model(step + 1).1).unwrap());
        assert_eq!(apart.1, bias);
        assert_ne!(apart, joint);
    }
}

/// One curvature for all groups, or one for each; rates are each group's own.
#[test]
fn groups_share_or_do_not_share() {
    let grouped = |scope| {
        let opt = method(Compression::None, scope).build::<f64>().unwrap();
        let mut opt = opt.with_group(Select::name("1"), |config| config.base.lr = 0.0).unwrap();
        let mut w = model(0);
        (0..5).for_each(|step| opt.step(&mut w, &model(step + 1)).unwrap());
        w
    };
    let mut one = method(Compression::None, Scope::Model).build::<f64>().unwrap();
    let mut w = model(0);
    (0..5).for_each(|step| one.step(&mut w, &model(step + 1)).unwrap());
    let shared = grouped(Scope::Model);
    assert_eq!((&shared.0, &shared.1), (&w.0, &model(0).1));
    let mut alone = method(Compression::None, Scope::Group).build::<f64>().unwrap();
    let mut weight = model(0).0;
    (0..5).for_each(|step| alone.step(&mut weight, &model(step + 1).0).unwrap());
    assert_eq!(grouped(Scope::Group).0, weight);
}

/// L2 decay is part of the gradient, in every scope, also in an ascent.
#[test]
fn gradient_decay_comes_first() {
    let scopes = [Scope::Model, Scope::Group, Scope::Tensor];
    for (maximize, scope) in [false, true].into_iter().flat_map(|m| scopes.map(|s| (m, s))) {
        let base = Momentum { lr: 0.1, maximize, ..Momentum::default() };
        let plain = MFac { base, window: 3, damping: 0.1, scope, ..MFac::default() };
        let mut decayed = MFac { l2: 0.3, ..plain.clone() }.build::<f64>().unwrap();
        let mut by_hand = plain.build::<f64>().unwrap();
        let (mut a, mut b) = (Array1::from(vector::<f64>(1, 9)), Array1::from(vector::<f64>(1, 9)));
        for step in 0..5 {
            let g = Array1::from(vector::<f64>(step + 2, 9));
            decayed.step(&mut a, &g).unwrap();
            let sign = if maximize { -1.0 } else { 1.0 };
            let g = &g + &(&b * (0.3 * sign));
            by_hand.step(&mut b, &g).unwrap();
        }
        assert!(distance(a.as_slice().unwrap(), b.as_slice().unwrap()) < 1e-12);
    }
}

/// A parameter that is gone counts as a gradient of zero, one that is new forms a vector of its own, and one of
/// another shape is refused.
#[test]
fn vectors_outlive_changes_of_the_tree() {
    let build = || method(Compression::None, Scope::Group).build::<f64>().unwrap();
    let leaf = |seed| Array1::from(vector::<f64>(seed, 5));
    let (mut opt, mut twin) = (build(), build());
    let (mut both, mut copy) = (vec![leaf(1), leaf(2)], vec![leaf(1), leaf(2)]);
    for step in 0..2 {
        let grads = vec![leaf(10 + step), leaf(20 + step)];
        opt.step(&mut both, &grads).unwrap();
        twin.step(&mut copy, &grads).unwrap();
    }
    // left out of the tree, or without a gradient: the same
    let second = both.pop().unwrap();
    opt.step(&mut both, &vec![leaf(30)]).unwrap();
    twin.step(&mut copy, &vec![Some(leaf(30)), None]).unwrap();
    both.push(second);
    assert_eq!(both, copy);
    // it joins again, with a third one, which is a method of its own
    let mut alone = build();
    let (mut third, mut three) = (vec![leaf(3)], both.clone());
    three.push(leaf(3));
    for step in 0..3 {
        let grads = vec![leaf(40 + step), leaf(50 + step), leaf(60 + step)];
        opt.step(&mut three, &grads).unwrap();
        twin.step(&mut copy, &grads[..2].to_vec()).unwrap();
        alone.step(&mut third, &grads[2..].to_vec()).unwrap();
    }
    assert_eq!(three[..2], copy[..]);
    assert_eq!(three[2..], third[..]);
    // all of it in a checkpoint
    let mut resumed = build();
    resumed.load_state_dict(&opt.state_dict()).unwrap();
    let mut again = three.clone();
    let grads = vec![leaf(70), leaf(71), leaf(72)];
    opt.step(&mut three, &grads).unwrap();
    resumed.step(&mut again, &grads).unwrap();
    assert_eq!(three, again);
    // another shape
    let saved = opt.state_dict();
    three[1] = Array1::from(vector::<f64>(1, 4));
    let grads = three.clone();
    let error = opt.step(&mut three, &grads).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    assert_eq!(opt.state_dict(), saved);
}

fn refused<V: VectorMethod>(method: V) -> String
where
    V::Inner: eigenstep::optim::MethodFor<f64>,
{
    method.build::<f64>().unwrap_err().to_string()
}

#[test]
fn options_that_are_refused() {
    let sparse =
        |selection| Compression::Sparse(SparseConfig { selection, ..SparseConfig::default() });
    for (message, expected) in [
        (refused(MFac::sparse(0.0)), "MFac: `density` must be in (0, 1], got 0"),
        (refused(MFac::sparse(1.5)), "MFac: `density` must be in (0, 1], got 1.5"),
        (refused(MFac::sparse(f64::NAN)), "MFac: `density` must be in (0, 1], got NaN"),
        (
            refused(MFac { window: 0, ..MFac::default() }),
            "MFac: `window` must be an integer >= 1 and <= 8192, got 0",
        ),
        (
            refused(MFac { damping: 0.0, ..MFac::default() }),
            "MFac: `damping` must be finite and > 0, got 0",
        ),
        (refused(MFac::low_rank(0)), "MFac: `compression.rank` must be at least 1, got 0"),
        (
            refused(Ggt { compression: sparse(Selection::Count { k: 0 }), ..Ggt::default() }),
            "Ggt: `k` must be at least 1, got 0",
        ),
        (
            refused(Ggt { beta1: 0.9, ..Ggt::default() }),
            "Ggt: `beta1` must be 0 with the form `Newest`, got 0.9",
        ),
        (
            refused(MicroAdam {
                residual: ResidualFormat::Nibble { block: 3 },
                ..MicroAdam::default()
            }),
            "MicroAdam: `residual.block` must be an even number >= 2 and <= 2^20, got 3",
        ),
        (
            refused(MicroAdam {
                selection: Selection::BlockTopK { density: 0.1, block: 0 },
                ..MicroAdam::default()
            }),
            "MicroAdam: `block` must be at least 1, got 0",
        ),
    ] {
        assert_eq!(message, expected);
    }
    let compression = sparse(Selection::Count { k: 6 });
    for scope in [Scope::Group, Scope::Tensor] {
        let mut opt = method(compression, scope).build::<f64>().unwrap();
        let mut w = Array1::<f64>::ones(5);
        let error = opt.step(&mut w, &Array1::ones(5)).unwrap_err();
        assert_eq!(error.to_string(), "MFac: `k` must be at most the vector's 5 elements, got 6");
        assert_eq!(w, Array1::<f64>::ones(5));
    }
}

/// Numbers at the ends of their range: no panic, and no NaN; what is too large for the arithmetic is refused.
#[test]
fn extreme_gradients() {
    // at 1e33 and the eps of 1e-5 the general form of GGT overflows
    let values = [0.0f32, 1e30, -1e30, 1e-40, f32::MIN_POSITIVE, 1e32];
    for compression in compressions() {
        for value in values {
            let mfac = MFac { window: 3, compression, ..MFac::default() };
            let ggt = Ggt { window: 3, compression, ..Ggt::default() };
            let general = Ggt { beta1: 0.9, form: GgtForm::General, ..ggt.clone() };
            let optimizers: [Box<dyn Optimizer<f32>>; 3] = [
                Box::new(mfac.build::<f32>().unwrap()),
                Box::new(ggt.build::<f32>().unwrap()),
                Box::new(general.build::<f32>().unwrap()),
            ];
            for mut opt in optimizers {
                let mut w = Array2::<f32>::ones((4, 6));
                for step in 0..5 {
                    let mut g = Array2::from_elem((4, 6), value);
                    g[[step % 4, step]] = 1.0;
                    match opt.step(&mut w, &g) {
                        Ok(()) => {}
                        Err(Error::GradientTooLarge { .. }) if value.abs() >= 1e30 => {}
                        Err(error) => panic!("{value:e}: {error}"),
                    }
                }
                let name = opt.name();
                assert!(w.iter().all(|x| !x.is_nan()), "{name}, {value:e}, {compression:?}");
            }
        }
    }
}

/// Empty and scalar parameters have their place in a vector.
#[test]
fn odd_shapes() {
    for compression in compressions() {
        let mut opt = method(compression, Scope::Model).build::<f64>().unwrap();
        let shapes: [&[usize]; 6] = [&[], &[0], &[3], &[2, 0, 3], &[2, 3, 2], &[1, 4]];
        let arrays = |seed: u64| -> Vec<ndarray::ArrayD<f64>> {
            let one = |(i, shape): (usize, &&[usize])| {
                let numel = shape.iter().product();
                ndarray::ArrayD::from_shape_vec(*shape, vector(seed + i as u64, numel)).unwrap()
            };
            shapes.iter().enumerate().map(one).collect()
        };
        let mut w = arrays(1);
        (0..6).for_each(|step| opt.step(&mut w, &arrays(100 + step)).unwrap());
        assert!(w.iter().flatten().all(|x| x.is_finite()));
        assert_ne!(w[0], arrays(1)[0]);
    }
}

/// The same bits for one thread and for many.
#[test]
fn threads_do_not_change_bits() {
    let d = 150_000;
    let sparse = |selection, residual| {
        Compression::Sparse(SparseConfig { selection, residual, ..SparseConfig::default() })
    };
    let compressions = [
        Compression::None,
        sparse(Selection::TopK { density: 0.01 }, ResidualFormat::Full),
        sparse(
            Selection::BlockTopK { density: 0.01, block: 4096 },
            ResidualFormat::Nibble { block: 64 },
        ),
    ];
    for compression in compressions {
        let run = |threads| {
            on_threads(threads, || {
                let mut opt =
                    MFac { window: 4, compression, ..MFac::default() }.build::<f32>().unwrap();
                let mut w = Array1::from(vector::<f32>(1, d));
                (0..5)
                    .for_each(|step| opt.step(&mut w, &Array1::from(vector(step + 2, d))).unwrap());
                w
            })
        };
        let one = run(1);
        assert!(run(2) == one && run(7) == one, "{compression:?}");
    }
}

/// A window in public use: what it holds is what it was given.
#[test]
fn windows_hold_what_they_were_given() {
    let layout = Layout::single(&[40_000]);
    let mut window = GradWindow::<f64>::new(RowFormat::Sparse { kept: 3, bf16: false }, 2, &layout);
    let mut g = vec![0.0; 40_000];
    let indices = [5u32, 32_768, 39_999];
    indices.iter().for_each(|&i| g[i as usize] = f64::from(i));
    window.push_sparse(&indices, &mut g);
    assert!(g.iter().all(|x| *x == 0.0));
    let mut sum = vec![0.0; 30_000];
    window.combine(&[2.0], 10_000, &mut sum);
    let found: Vec<(usize, f64)> =
        sum.iter().copied().enumerate().filter(|(_, x)| *x != 0.0).collect();
    assert_eq!(found, [(22_768, 2.0 * 32_768.0), (29_999, 2.0 * 39_999.0)]);
    let empty = GradWindow::<f64>::new(RowFormat::Dense, 3, &layout);
    assert_eq!(Fisher::default().newest(&empty).unwrap(), Vec::<f64>::new());
}

/// Which tensors share a vector is one question for all groups.
#[test]
fn groups_of_different_scopes_are_refused() {
    for (scope, other) in
        [(Scope::Tensor, Scope::Group), (Scope::Model, Scope::Tensor), (Scope::Group, Scope::Model)]
    {
        let mfac = MFac { scope, ..MFac::default() }.build::<f64>().unwrap();
        let mut opt = mfac.with_group(Select::name("1"), |group| group.scope = other).unwrap();
        let mut w = (array![1.0, 2.0], array![3.0]);
        let (grads, before) = (w.clone(), w.clone());
        let error = opt.step(&mut w, &grads).unwrap_err();
        assert!(
            matches!(error, Error::InvalidHyperparameter { field: "scope", .. }),
            "{scope:?}, {other:?}: {error}"
        );
        assert_eq!(w, before);
    }
}
