//! Shapes and memory orders.

use crate::model::*;
use eigenstep::optim::Optimizer;
use eigenstep::params::{Gradients, Parameters};
use eigenstep::quant::StatePolicy;
use ndarray::{Array, Array4, ArrayD, Axis, IxDyn, ShapeBuilder, s};

const SHAPE: (usize, usize, usize, usize) = (3, 5, 7, 2);

fn row_major(seed: u64) -> Array4<f32> {
    let (a, b, c, d) = SHAPE;
    Array4::from_shape_vec(SHAPE, random(seed, a * b * c * d)).unwrap()
}

/// Parameters after three steps, each with a gradient of `grad`.
fn run<P: Parameters<f32>, G: Gradients<f32>>(
    config: &Config,
    params: &mut P,
    grad: impl Fn(u64) -> G,
) -> Opt<f32> {
    let mut opt: Opt<f32> = config.optimizer().unwrap();
    let subject = &config.subject();
    for step in 0..3 {
        opt.step(params, &inputs(subject, step, &grad(100 + step))).unwrap();
    }
    opt
}

fn array_bits<D: ndarray::Dimension>(array: &Array<f32, D>) -> Vec<u8> {
    bits(&array.iter().copied().collect::<Vec<_>>())
}

pub fn memory_order_does_not_change_bits(subject: &Subject) {
    for config in variants(subject) {
        let mut expected = row_major(1);
        let state = run(&config, &mut expected, row_major).state_dict();
        let expected = array_bits(&expected);

        let fortran = |seed| {
            let mut array = Array4::zeros(SHAPE.f());
            array.assign(&row_major(seed));
            array
        };
        let mut w = fortran(1);
        let opt = run(&config, &mut w, fortran);
        assert_eq!(array_bits(&w), expected, "Fortran order: {config:?}");
        assert_eq!(opt.state_dict(), state, "Fortran order: {config:?}");

        let transposed = |seed| row_major(seed).permuted_axes([2, 0, 3, 1]);
        let (mut w, back) = (transposed(1), [1, 3, 0, 2]);
        // the view has the original shape, over memory in another order
        let mut memory = w.as_standard_layout().into_owned();
        run(&config, &mut memory.view_mut().permuted_axes(back), |seed| {
            transposed(seed).as_standard_layout().into_owned().permuted_axes(back)
        });
        w.assign(&memory);
        assert_eq!(array_bits(&w.permuted_axes(back)), expected, "transposed: {config:?}");

        let mut wide = Array4::from_elem((6, 5, 14, 2), 9.0f32);
        wide.slice_mut(s![..;2, ..;-1, 1..;2, ..]).assign(&row_major(1));
        run(&config, &mut wide.slice_mut(s![..;2, ..;-1, 1..;2, ..]), row_major);
        let found = wide.slice(s![..;2, ..;-1, 1..;2, ..]).to_owned();
        assert_eq!(array_bits(&found), expected, "strided: {config:?}");
        let between = wide.slice(s![1..;2, .., .., ..]);
        assert!(between.iter().all(|&x| x == 9.0), "strided: {config:?}");

        let mut w = row_major(1);
        run(&config, &mut w, |seed| {
            let mut array = row_major(seed);
            array.invert_axis(Axis(2));
            let mut reversed = array.as_standard_layout().into_owned();
            reversed.invert_axis(Axis(2));
            reversed
        });
        assert_eq!(array_bits(&w), expected, "reversed gradients: {config:?}");
    }
}

/// The same numbers as 0-D and 1-D arrays of one element, and as one row, but for rules that treat vectors in
/// another way than matrices.
pub fn scalars_and_vectors(subject: &Subject) {
    for config in variants(subject) {
        let array = |shape: &[usize], seed| {
            ArrayD::from_shape_vec(IxDyn(shape), random::<f32>(seed, 1)).unwrap()
        };
        let after = |shape: &[usize]| {
            let mut w = array(shape, 1);
            run(&config, &mut w, |seed| array(shape, seed));
            array_bits(&w)
        };
        let expected = after(&[1]);
        assert_eq!(after(&[]), expected, "{config:?}");
        // these treat vectors in another way
        if !["Lars", "Came", "Amos", "Mars", "Scion"].contains(&subject.name) {
            assert_eq!(after(&[1, 1, 1, 1]), expected, "{config:?}");
        }
    }
}

/// Arrays without elements are parameters like any other, and disturb no one.
pub fn empty_arrays(subject: &Subject) {
    for config in variants(subject) {
        let w = || Array::from_vec(random::<f32>(1, 50));
        let grad = |seed| Array::from_vec(random::<f32>(seed, 50));
        // the only tensor, of the same name
        let mut alone = vec![w()];
        run(&config, &mut alone, |seed| vec![grad(seed)]);
        let empty = || (Array::zeros(0), Array::zeros((3, 0, 2)));
        let mut with_empty = (w(), empty());
        let opt = run(&config, &mut with_empty, |seed| (grad(seed), empty()));
        assert_eq!(array_bits(&with_empty.0), array_bits(&alone[0]), "{config:?}");
        assert_eq!(opt.steps("1.1"), Some(3));
        let mut again: Opt<f32> = config.optimizer().unwrap();
        again.load_state_dict(&opt.state_dict()).unwrap();
        assert_eq!(again.state_dict(), opt.state_dict(), "{config:?}");
    }
}

/// Low-bit state of shapes that are smaller than a block, empty, or have many dimensions.
pub fn low_bits_of_any_shape(subject: &Subject) {
    let shapes: [&[usize]; 8] =
        [&[], &[1], &[0], &[2, 0], &[17], &[3, 129], &[1, 1, 5, 1], &[2, 3, 4, 5, 6]];
    for precision in PRECISIONS {
        let build = || -> Opt<f32> {
            let policy = StatePolicy { precision, min_numel: 0, whole_blocks: false };
            let opt: Opt<f32> = busy(subject).optimizer().unwrap();
            opt.with_state_policy(policy).unwrap()
        };
        let (mut opt, mut again) = (build(), build());
        let mut params = leaves(1, &shapes);
        train_as(subject, &mut opt, &mut params, 0..2);
        again.load_state_dict(&opt.state_dict()).unwrap();
        let mut copy = params.clone();
        train_as(subject, &mut opt, &mut params, 2..4);
        train_as(subject, &mut again, &mut copy, 2..4);
        assert_eq!(all_bits(&copy), all_bits(&params), "{precision:?}");
        assert!(all_values(&params).iter().all(|x| x.is_finite()), "{precision:?}");
    }
}
