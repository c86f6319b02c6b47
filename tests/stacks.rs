//! Stacks of matrices in one tensor, and tables that are far longer than wide.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

use eigenstep::Error;
use eigenstep::linalg::Damping;
use eigenstep::numeric::{Element, Real};
use eigenstep::optim::Blocked;
use eigenstep::prelude::*;
use eigenstep::second_order::soap::{BasisStorage, SoapOrder};
use eigenstep::second_order::{
    Descent, Graft, GraftScope, LrAdjustment, Norm, Orthogonalization, Pipeline, Reshape, Scion,
    ScionNorm, SteepestDescent,
};
use eigenstep::state::StateDict;
use ndarray::{ArrayD, Axis, IxDyn};

/// Numbers without pattern in [-1, 1), that depend on `seed` and shape alone.
fn waves(seed: usize, shape: &[usize]) -> ArrayD<f32> {
    let numel: usize = shape.iter().product();
    let number = |i: usize| ((i * 7919 + seed * 104_729 + 17) as f64).sin() * 43_758.545_312_3;
    let values = (0..numel).map(|i| (2.0 * number(i).rem_euclid(1.0) - 1.0) as f32).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
}

fn train<M: MatrixMethod, T: Element>(
    method: M,
    w: &mut ArrayD<T>,
    gradient: impl Fn(usize) -> ArrayD<T>,
    steps: usize,
) -> Optim<Blocked<M>, T> {
    let mut opt = method.build::<T>().unwrap();
    (0..steps).for_each(|step| opt.step(w, &gradient(step)).unwrap());
    opt
}

/// Trains a stack with `stacked`, and every entry alone with `single`: they end in the same bits.
fn same_as_alone<M: MatrixMethod + Clone, T: Element>(
    stacked: M,
    single: &M,
    (stack, entry): (&[usize], &[usize]),
    what: &str,
) {
    let shape = [stack, entry].concat();
    let narrow = |x: &ArrayD<f32>| x.mapv(|x| T::store(T::Compute::of(f64::from(x))));
    let gradient = |step: usize| narrow(&waves(step + 1, &shape));
    let mut whole = narrow(&waves(0, &shape));
    let entries: usize = stack.iter().product();
    let flat = |a: &ArrayD<T>| {
        let rows = [&[entries], entry].concat();
        a.to_shape(IxDyn(&rows)).unwrap().into_owned()
    };
    let start = flat(&whole);
    train(stacked, &mut whole, gradient, 5);
    let whole = flat(&whole);
    for i in 0..entries {
        let part = |a: &ArrayD<T>| a.index_axis(Axis(0), i).as_standard_layout().into_owned();
        let mut alone = part(&start);
        train(single.clone(), &mut alone, |step| part(&flat(&gradient(step))), 5);
        assert_eq!(part(&whole), alone, "{what}, {shape:?}, entry {i}");
    }
}

const STACKS: [(&[usize], &[usize]); 6] = [
    (&[3], &[6, 5]),
    (&[2, 3], &[4, 7]),
    (&[4], &[5, 3, 2, 2]),
    (&[1], &[8, 4]),
    (&[2], &[1, 6]),
    // no matrices, but vectors
    (&[3], &[5]),
];

fn muons() -> Vec<Muon> {
    use LrAdjustment::{LastTwoDims, MatchRmsAdamW, None, Original, Spectral};
    use Orthogonalization::{Exact, PolarExpress, Quintic};
    let mut muons = Vec::new();
    for adjust_lr in [Original, LastTwoDims, MatchRmsAdamW, Spectral, None] {
        for orthogonalization in [Quintic, PolarExpress, Exact] {
            for nesterov in [true, false] {
                muons.push(Muon { adjust_lr, orthogonalization, nesterov, ..Muon::default() });
            }
        }
    }
    muons
}

fn scion_norms() -> [ScionNorm; 5] {
    [
        ScionNorm::default(),
        ScionNorm::Sign { normalized: true },
        ScionNorm::ColNorm { normalized: true, transpose: true },
        ScionNorm::RowNorm { normalized: true, transpose: false },
        ScionNorm::BiasRms,
    ]
}

#[test]
fn every_matrix_of_a_stack_is_treated_as_it_would_be_alone() {
    for (stack, entry) in STACKS {
        let batch_dims = stack.len();
        for single in muons() {
            let stacked = Muon { batch_dims, ..single.clone() };
            let what = format!("{single:?}");
            same_as_alone::<_, f32>(stacked.clone(), &single, (stack, entry), &what);
            same_as_alone::<_, f64>(stacked.clone(), &single, (stack, entry), &what);
            #[cfg(feature = "half")]
            same_as_alone::<_, eigenstep::numeric::bf16>(stacked, &single, (stack, entry), &what);
        }
        for norm in [Norm::default(), Norm::Max { scale: 0.5 }] {
            let single = SteepestDescent { norm, ..SteepestDescent::<Descent>::default() };
            let stacked = SteepestDescent { batch_dims, ..single.clone() };
            same_as_alone::<_, f32>(stacked, &single, (stack, entry), "SteepestDescent");
        }
        for norm in scion_norms() {
            let single = Scion { norm, momentum: 0.3, ..Scion::default() };
            let stacked = Scion { batch_dims, ..single.clone() };
            same_as_alone::<_, f32>(stacked, &single, (stack, entry), "Scion");
        }
        for reshape in [Reshape::AsIs, Reshape::Matrix, Reshape::Leading] {
            for storage in [BasisStorage::Full, BasisStorage::FOUR_BIT] {
                let single = Soap {
                    reshape,
                    storage,
                    update_basis_every: 2,
                    min_numel: 0,
                    ..Soap::default()
                };
                let stacked = Soap { batch_dims, ..single.clone() };
                same_as_alone::<_, f32>(stacked, &single, (stack, entry), "Soap");
            }
        }
        // of a stack every block is given its length, and so is every tensor of one block
        let pipeline = Pipeline { graft_scope: GraftScope::Block, ..Pipeline::LOW_BIT };
        for (pipeline, graft) in [
            (pipeline, Graft::Gradient),
            (pipeline, Graft::ADAM),
            (Pipeline::SCALABLE, Graft::None),
            (Pipeline::DISTRIBUTED, Graft::RMSPROP),
        ] {
            let single = Shampoo {
                pipeline,
                graft,
                update_factors_every: 1,
                update_roots_every: 2,
                ..Shampoo::<AdamW>::default()
            };
            let stacked = Shampoo { batch_dims, ..single.clone() };
            same_as_alone::<_, f32>(stacked, &single, (stack, entry), "Shampoo");
        }
    }
}

/// Cut into blocks as well, and saved and loaded in between.
#[test]
fn stacks_can_be_cut_and_resumed() {
    let method = || Shampoo {
        batch_dims: 1,
        max_dim: 3,
        update_factors_every: 1,
        update_roots_every: 2,
        ..Shampoo::<AdamW>::default()
    };
    let (shape, gradient) = ([2, 5, 4], |step: usize| waves(step + 1, &[2, 5, 4]));
    let mut expected = waves(0, &shape);
    train(method(), &mut expected, gradient, 6);
    let mut w = waves(0, &shape);
    let dict: StateDict = train(method(), &mut w, gradient, 3).state_dict();
    let mut opt = method().build::<f32>().unwrap();
    opt.load_state_dict(&dict).unwrap();
    (3..6).for_each(|step| opt.step(&mut w, &gradient(step)).unwrap());
    assert_eq!(w, expected);
    // the entries' blocks are those of one entry alone
    assert_eq!(dict.tensors.keys().filter(|key| key.contains("factor0.root")).count(), 2 * 4);
}

/// A group can have another stack than the rest; a running one keeps the layout that it has.
#[test]
fn groups_choose_what_is_a_stack() {
    let mut w = (waves(0, &[3, 4, 5]), waves(1, &[4, 5]));
    let grad = (waves(2, &[3, 4, 5]), waves(3, &[4, 5]));
    let mut opt = Muon::default()
        .build::<f32>()
        .unwrap()
        .with_group(Select::ndim(3..=3), |group| group.batch_dims = 1)
        .unwrap();
    let before = w.clone();
    opt.step(&mut w, &grad).unwrap();
    let moved = |i: usize| (&w.0 - &before.0).index_axis(Axis(0), i).to_owned();
    // every entry has moved by a matrix of singular values near one
    for i in 0..3 {
        let length = moved(i).iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((0.7..1.2).contains(&(length / (1e-3 * 2.0))), "{length}");
    }
}

/// The factor of the author's code: what `Original` is for matrices, 1 for square kernels.
#[test]
fn kernels_can_have_the_factor_of_the_authors_code() {
    let step = |adjust_lr, shape: &[usize]| {
        let method = Muon { lr: 1.0, weight_decay: 0.0, adjust_lr, ..Muon::default() };
        let mut w = ArrayD::<f64>::zeros(IxDyn(shape));
        train(method, &mut w, |_| waves(1, shape).mapv(f64::from), 1);
        w
    };
    let expected: [(&[usize], f64); 4] =
        [(&[64, 3, 3, 3], 1.0), (&[8, 2, 4, 2], 2f64.sqrt()), (&[8, 2], 2.0), (&[2, 8], 1.0)];
    for (shape, factor) in expected {
        let (plain, found) =
            (step(LrAdjustment::None, shape), step(LrAdjustment::LastTwoDims, shape));
        let off = (&found - &(&plain * factor)).mapv(f64::abs).into_iter().fold(0.0, f64::max);
        assert!(off < 1e-12, "{shape:?}: {off:e}");
    }
    let (plain, found) =
        (step(LrAdjustment::None, &[64, 3, 3, 3]), step(LrAdjustment::Original, &[64, 3, 3, 3]));
    let ratio = found[[0, 0, 0, 0]] / plain[[0, 0, 0, 0]];
    assert!((ratio - (64.0f64 / 27.0).sqrt()).abs() < 1e-12);
}

/// A matrix of one row is one, as in PyTorch: its direction has length 1.
#[test]
fn a_matrix_of_one_row_is_orthogonalized() {
    for shape in [[1, 6], [6, 1]] {
        let orthogonalization = Orthogonalization::Exact;
        let method = Muon {
            lr: 1.0,
            weight_decay: 0.0,
            adjust_lr: LrAdjustment::None,
            orthogonalization,
            ..Muon::default()
        };
        let mut w = ArrayD::<f64>::zeros(IxDyn(&shape));
        train(method, &mut w, |_| waves(1, &shape).mapv(f64::from), 1);
        assert!((w.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12, "{shape:?}");
    }
}

/// What is merged into one dimension is treated as a vector that has a basis; vectors have none.
#[test]
fn what_merges_to_one_dimension_has_a_basis() {
    let shapes: [&[usize]; 5] = [&[7, 5], &[4, 3, 2], &[2, 2, 3, 3], &[1, 12], &[12, 1]];
    let distributed = SoapOrder::Distributed { start: 2, epsilon: 1e-12, bias_correction: true };
    for reshape in [Reshape::Leading, Reshape::Merged { dims: 1 }] {
        for order in [SoapOrder::default(), distributed] {
            for storage in [BasisStorage::Full, BasisStorage::FOUR_BIT] {
                let merging = Soap {
                    reshape,
                    order,
                    storage,
                    min_numel: 0,
                    update_basis_every: 2,
                    ..Soap::default()
                };
                let flat =
                    Soap { reshape: Reshape::AsIs, precondition_1d: true, ..merging.clone() };
                for shape in shapes {
                    let numel = shape.iter().product::<usize>();
                    let mut merged = waves(0, shape);
                    let opt = train(merging.clone(), &mut merged, |step| waves(step + 1, shape), 7);
                    let mut vector = waves(0, &[numel]);
                    train(flat.clone(), &mut vector, |step| waves(step + 1, &[numel]), 7);
                    let same = merged.iter().eq(vector.iter());
                    assert!(same, "{reshape:?}, {order:?}, {storage:?}, {shape:?}");
                    assert!(opt.state_dict().tensors.keys().any(|key| key.contains("side0")));
                }
                let opt = train(merging, &mut waves(0, &[6]), |step| waves(step + 1, &[6]), 3);
                assert!(opt.state_dict().tensors.keys().all(|key| !key.contains("side")));
            }
        }
    }
}

/// State of a table of this shape, as a multiple of the table's own bytes; the last digit counts.
fn state<M: MatrixMethod>(method: M, shape: &[usize]) -> f64 {
    let opt = train(method, &mut waves(0, shape), |step| waves(step + 1, shape), 1);
    let numel: usize = shape.iter().product();
    (opt.state_bytes().total() as f64 / (4 * numel) as f64 * 10.0).round() / 10.0
}

/// The numbers of the guide.
#[test]
fn long_sides_can_be_left_out() {
    let table = [2400, 16];
    // nothing is decomposed in the one step that is made
    let order = SoapOrder::Distributed { start: 1000, epsilon: 0.0, bias_correction: true };
    let soap = |max_aspect| Soap { max_aspect, order, ..Soap::default() };
    let shampoo = |max_aspect| Shampoo { max_aspect, ..Shampoo::<AdamW>::default() };
    let distributed = |max_aspect| Shampoo { max_aspect, start: 1000, ..Shampoo::distributed() };
    assert_eq!((state(soap(None), &table), state(soap(Some(10.0)), &table)), (303.0, 3.0));
    assert_eq!((state(shampoo(None), &table), state(shampoo(Some(10.0)), &table)), (153.0, 3.0));
    let defaults = (
        state(Soap { order, ..Soap::default() }, &table),
        state(Shampoo::<AdamW>::default(), &table),
    );
    assert_eq!(defaults, (3.0, 3.0));
    let limited = state(distributed(Some(10.0)), &table);
    assert_eq!((state(distributed(None), &table), limited), (117.7, 2.0));
    // what is not long stays as it is
    assert_eq!(state(soap(Some(10.0)), &[30, 10]), state(soap(None), &[30, 10]));
    for limit in [0.5, f64::NAN, -1.0] {
        for error in
            [soap(Some(limit)).build::<f32>().err(), shampoo(Some(limit)).build::<f32>().err()]
        {
            let refused =
                matches!(error, Some(Error::InvalidHyperparameter { field: "max_aspect", .. }));
            assert!(refused, "{error:?}");
        }
    }
}

/// One factor has the exponent 1/2: the direction of the first step is the polar factor of the gradient.
#[test]
fn the_standard_exponent_counts_the_factors_there_are() {
    let method = Shampoo {
        inner: Descent { lr: 1.0, ..Descent::default() },
        max_aspect: Some(2.0),
        sum_of_grams: true,
        initial: 0.0,
        damping: Damping::absolute(1e-14),
        graft: Graft::None,
        update_factors_every: 1,
        update_roots_every: 1,
        ..Shampoo::with_inner(Descent::default())
    };
    let shape = [9, 3];
    let mut w = ArrayD::<f64>::zeros(IxDyn(&shape));
    train(method, &mut w, |_| waves(1, &shape).mapv(f64::from), 1);
    let w = w.into_dimensionality::<ndarray::Ix2>().unwrap();
    let off = w.t().dot(&w) - ndarray::Array2::<f64>::eye(3);
    assert!(off.iter().all(|x| x.abs() < 1e-6), "{off}");
}
