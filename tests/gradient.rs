//! Promises of the views and sums of gradients, besides the golden numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use eigenstep_instances as _;

#[path = "gradient/edges.rs"]
mod edges;
#[path = "gradient/history.rs"]
mod history;
mod support;

#[path = "support/threads.rs"]
mod threads;

#[path = "support/cases.rs"]
mod cases;

use eigenstep::Error;
use eigenstep::first_order::Sgd;
use eigenstep::gradient::*;
use eigenstep::optim::{Optimizer, Rule};
use eigenstep::params::{Generate, GradVisitor, Gradients, RowGradient, Scaled};
use ndarray::{Array1, Array2, ArrayD, Axis, array, s};
use proptest::prelude::*;
use std::collections::BTreeMap;
use support::Mock;
use threads::on_threads;

/// A gradient with the values of an array, handed out in chunks.
struct Made(Array2<f32>);

impl Generate<f32> for Made {
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn fill(&self, offset: usize, out: &mut [f32]) {
        out.iter_mut().zip(self.0.iter().skip(offset)).for_each(|(out, &x)| *out = x);
    }
}
impl Gradients<f32> for Made {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

fn waves(rows: usize, cols: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, cols), |(i, j)| ((i * cols + j) as f32 * 0.37).sin())
}

fn values<G: Gradients<f32>>(grads: &G) -> Vec<f32> {
    let copies: BTreeMap<String, ArrayD<f32>> = materialize(grads).unwrap();
    copies.values().flat_map(|copy| copy.iter().copied().collect::<Vec<_>>()).collect()
}

const NORMS: [f64; 8] = [2.0, 1.0, 3.0, 0.5, 0.0, f64::INFINITY, f64::NEG_INFINITY, 1.5];

#[test]
fn every_form_of_a_gradient_has_the_same_norm_bit_for_bit() {
    // several chunks, and a rest that fills neither a chunk nor the lanes
    let dense = waves(211, 977);
    let fortran = {
        let mut copy = Array2::zeros(ndarray::ShapeBuilder::f((211, 977)));
        copy.assign(&dense);
        copy
    };
    let wide = {
        let mut wide = Array2::<f32>::zeros((211, 2 * 977));
        wide.slice_mut(s![.., ..;2]).assign(&dense);
        wide
    };
    for norm_type in NORMS {
        let expected = total_norm(&dense, norm_type).unwrap().to_bits();
        let found = [
            total_norm(&fortran, norm_type),
            total_norm(&wide.slice(s![.., ..;2]), norm_type),
            total_norm(&Made(dense.clone()), norm_type),
            total_norm(&Scaled::new(1.0, &dense), norm_type),
        ];
        for norm in found {
            assert_eq!(norm.unwrap().to_bits(), expected, "p = {norm_type}");
        }
    }
}

#[test]
fn norms_do_not_depend_on_the_number_of_threads() {
    let grads = (waves(700, 977), Made(waves(300, 500)), array![0.5f32]);
    let norm = || NORMS.map(|p| total_norm(&grads, p).unwrap().to_bits());
    let expected = norm();
    for threads in [1, 2, 7] {
        assert_eq!(on_threads(threads, norm), expected, "{threads} threads");
    }
}

#[test]
fn rows_given_twice_are_added_before_they_are_measured() {
    let rows = |rows: Vec<usize>, values| RowGradient::new(&[4, 2], rows, values).unwrap();
    let twice = rows(vec![2, 0, 2], array![[1.0f32, 2.0], [3.0, 0.0], [-1.0, 2.0]]);
    let dense = array![[3.0f32, 0.0], [0.0, 0.0], [0.0, 4.0], [0.0, 0.0]];
    assert_eq!(values(&twice), values(&dense));
    for norm_type in NORMS {
        let expected = total_norm(&dense, norm_type).unwrap();
        assert!((total_norm(&twice, norm_type).unwrap() - expected).abs() < 1e-12, "{norm_type}");
    }
    // a row that is missing is a row of zeros
    let full = rows(vec![0, 1, 2, 3], Array2::ones((4, 2)));
    assert_eq!(total_norm(&full, f64::NEG_INFINITY).unwrap(), 1.0);
    assert_eq!(total_norm(&rows(vec![0], array![[1.0f32, 1.0]]), f64::NEG_INFINITY).unwrap(), 0.0);
    assert_eq!(total_norm(&rows(vec![], Array2::zeros((0, 2))), 2.0).unwrap(), 0.0);
}

#[test]
fn norms_without_elements_and_with_what_is_not_finite() {
    let nothing: Vec<Array1<f64>> = Vec::new();
    let empty = Array1::<f64>::zeros(0);
    for norm_type in NORMS {
        assert_eq!(total_norm(&nothing, norm_type).unwrap(), 0.0, "{norm_type}");
        assert_eq!(total_norm(&empty, norm_type).unwrap(), 0.0, "{norm_type}");
        let nan = total_norm(&array![1.0, f64::NAN, 2.0], norm_type).unwrap();
        assert!(nan.is_nan() || norm_type == 0.0, "{norm_type}: {nan}");
    }
    assert_eq!(total_norm(&array![1.0, f64::NEG_INFINITY], 2.0).unwrap(), f64::INFINITY);
    // 1e30² overflows in f32, not in the sum
    assert!(
        (total_norm(&array![1e30f32, 1e30], 2.0).unwrap() / 2f64.sqrt() / 1e30 - 1.0).abs() < 1e-6
    );
    // counts tensors, not elements
    assert_eq!(total_norm(&(array![1.0, 2.0], array![0.0], array![3.0]), 0.0).unwrap(), 2.0);
}

#[test]
fn views_nest() {
    let grads = array![[3.0f32, -8.0], [0.5, 2.0]];
    let half = Scaled::new(0.5, &grads);
    let clamped = clip_grad_value(&half, 1.0);
    assert_eq!(values(&clamped), [1.0, -1.0, 0.25, 1.0]);
    let norm = (3.0f64 + 0.0625).sqrt();
    let clipped = clip_grad_norm(&clamped, 0.5);
    assert!((clipped.norm() - norm).abs() < 1e-12);
    assert!((total_norm(&clipped, 2.0).unwrap() - 0.5).abs() < 1e-6);
    let outside = Scaled::new(-2.0, &clamped);
    assert_eq!(values(&outside), [-2.0, 2.0, -0.5, -2.0]);
    let nan = array![f32::NAN, 3.0];
    let clamped = values(&clip_grad_value(&nan, 1.0));
    assert!(clamped[0].is_nan() && clamped[1] == 1.0);
}

proptest! {
    #![proptest_config(cases::cases(64))]

    #[test]
    fn clipping(xs in prop::collection::vec(-1e3f64..1e3, 1..200), max_norm in 0.01f64..100.0) {
        let grads = Array1::from(xs);
        for norm_type in [2.0, 1.0, 3.0, 0.5, f64::INFINITY] {
            let clip = ClipNorm { max_norm, norm_type, ..ClipNorm::default() };
            let clipped = clip.clip(&grads).unwrap();
            let after = total_norm(&clipped, norm_type).unwrap();
            prop_assert!(after <= max_norm * (1.0 + 1e-12));
            prop_assert!((after - clipped.norm() * clipped.factor()).abs() <= 1e-9 * after);
            prop_assert!(clipped.norm() > max_norm - 1e-6 || clipped.factor() == 1.0);
            // linear: twice the gradient, twice the limit, twice the result
            let (twice, limit) = (Scaled::new(2.0, &grads), 2.0 * max_norm);
            let double = ClipNorm { max_norm: limit, ..clip }.clip(&twice).unwrap();
            prop_assert!((2.0 * after - total_norm(&double, norm_type).unwrap()).abs() <= 1e-6 + 1e-5 * after);
        }
    }

    #[test]
    fn k_equal_micro_batches_are_one_batch(xs in prop::collection::vec(-1e3f64..1e3, 1..50), k in 1usize..9) {
        let grads = Array1::from(xs);
        let mut accumulator = Accumulator::new();
        (0..k).for_each(|_| accumulator.add(&grads).unwrap());
        let mean: BTreeMap<String, ArrayD<f64>> = materialize(&accumulator.mean()).unwrap();
        for (x, y) in mean["param"].iter().zip(&grads) {
            prop_assert!((x - y).abs() <= 1e-14 * y.abs());
        }
    }
}

#[test]
fn accumulation() {
    let mut accumulator = Accumulator::new();
    type Pair = (Option<Array1<f32>>, Option<Array1<f32>>);
    let first: Pair = (Some(array![1.0, 2.0]), None);
    accumulator.add_weighted(&first, 3.0).unwrap();
    let names = |accumulator: &Accumulator<f32>| -> Vec<String> {
        materialize(&accumulator.mean()).unwrap().into_keys().collect()
    };
    assert_eq!(names(&accumulator), ["0"]); // absent stays absent
    accumulator.add(&(Some(array![5.0, 6.0]), Some(array![4.0]))).unwrap();
    assert_eq!((accumulator.count(), accumulator.weight()), (2, 4.0));
    assert_eq!(values(&accumulator), [8.0, 12.0, 4.0]);
    assert_eq!(values(&accumulator.mean()), [2.0, 3.0, 1.0]);
    assert!(
        (total_norm(&clip_grad_norm(&accumulator.mean(), 1.0), 2.0).unwrap() - 1.0).abs() < 1e-6
    );

    let wrong: Pair = (Some(array![1.0, 1.0]), Some(array![1.0, 1.0]));
    let error = accumulator.add(&wrong).unwrap_err();
    assert_eq!(error.to_string(), "parameter `1`: expected shape [1], found [2]");
    assert_eq!(values(&accumulator), [8.0, 12.0, 4.0]);
    let error = accumulator.add_weighted(&first, f64::NAN).unwrap_err();
    assert_eq!(error.to_string(), "the weight of a micro-batch is not finite: NaN");

    accumulator.reset();
    assert!(names(&accumulator).is_empty());
    accumulator.add(&first).unwrap();
    assert_eq!((names(&accumulator), values(&accumulator)), (vec!["0".into()], vec![1.0, 2.0]));
}

#[test]
fn rows_and_generated_gradients_accumulate() {
    let mut accumulator = Accumulator::new();
    let rows = RowGradient::new(&[3, 2], vec![2, 2], array![[1.0f32, 2.0], [3.0, 4.0]]).unwrap();
    accumulator.add(&rows).unwrap();
    accumulator.add(&Made(Array2::ones((3, 2)))).unwrap();
    accumulator
        .add_weighted(&Array2::<f32>::ones((3, 2)).t().as_standard_layout().t(), -1.0)
        .unwrap();
    assert_eq!(values(&accumulator), [0.0, 0.0, 0.0, 0.0, 4.0, 6.0]);
}

#[cfg(feature = "half")]
#[test]
fn half_precision_is_summed_in_single_precision() {
    use eigenstep::numeric::bf16;
    let small = array![bf16::from_f32(1.0), bf16::from_f32(1.0 / 512.0)];
    let mut accumulator = Accumulator::new();
    accumulator.add(&array![bf16::from_f32(0.0), bf16::from_f32(1.0)]).unwrap();
    (0..256).for_each(|_| accumulator.add(&small).unwrap());
    let sum: BTreeMap<String, ArrayD<bf16>> = materialize(&accumulator).unwrap();
    // 1 + 256/512; in bf16 every single addition would be lost
    assert_eq!(sum["param"], array![bf16::from_f32(256.0), bf16::from_f32(1.5)].into_dyn());
    assert_eq!(total_norm(&accumulator, f64::INFINITY).unwrap(), 256.0);
}

#[test]
fn adaptive_clipping() {
    let mut w = array![[3.0f32, 4.0], [0.0, 0.0]];
    let before = w.clone();
    let clip = AdaptiveClip { clipping: 0.1, ..AdaptiveClip::default() };
    // a transposed gradient: units are rows of the parameter
    let mut g = array![[6.0f32, 0.3], [8.0, 0.4]].reversed_axes();
    clip.apply(&mut w, &mut g).unwrap();
    for (unit, limit) in g.axis_iter(Axis(0)).zip([0.5, 1e-4]) {
        assert!((total_norm(&unit, 2.0).unwrap() - limit).abs() < 1e-7);
    }
    assert_eq!(w, before);

    let mut model = (array![1.0f32], array![1.0f32]);
    let mut grads = (array![100.0f32], array![100.0f32, 1.0]);
    let error = clip.apply(&mut model, &mut grads).unwrap_err();
    assert_eq!(error.to_string(), "parameter `1`: expected shape [1], found [2]");
    assert_eq!(grads.0[0], 100.0);
    let error = clip.apply(&mut model.0, &mut grads).unwrap_err();
    assert_eq!(
        error.to_string(),
        "gradient `0` belongs to no parameter (the parameters are `param`)"
    );
    let error = AdaptiveClip { eps: -1.0, ..clip }.apply(&mut model, &mut grads).unwrap_err();
    assert_eq!(error.to_string(), "AdaptiveClip: `eps` must be finite and >= 0, got -1");
}

#[test]
fn clip_errors() {
    let wrong = ClipNorm { max_norm: f64::NAN, ..ClipNorm::default() };
    let error = wrong.clip(&array![1.0f32]).unwrap_err().to_string();
    assert_eq!(error, "ClipNorm: `max_norm` must be a number >= 0, got NaN");
    let error = total_norm(&array![1.0f32], f64::NAN).unwrap_err().to_string();
    assert_eq!(error, "total_norm: `norm_type` must be a number, got NaN");
    let strict = ClipNorm { error_if_nonfinite: true, ..ClipNorm::default() };
    let error = strict.clip(&array![f32::INFINITY]).unwrap_err().to_string();
    assert_eq!(error, "the total norm of the gradients is not finite: inf");
    let measured =
        ClipNorm { max_norm: f64::INFINITY, ..strict }.clip(&array![3e9f32]).unwrap().factor();
    assert_eq!(measured, 1.0);
}

#[test]
fn grad_scaler_order() {
    let (mut opt, mut w, g) = (Mock::sgd(&[0.1]), array![0.0f32], array![4.0f32]);
    let mut scaler =
        GradScaler::new(LossScaling { init_scale: 8.0, ..Default::default() }).unwrap();
    let order = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(scaler.scale(0.5f32), 4.0);
    let text = "GradScaler::update: no gradients were looked at; call `unscale` or `step` first";
    assert_eq!(order(scaler.update()), text);
    {
        let unscaled = scaler.unscale(&g).unwrap();
        assert_eq!((values(&unscaled), unscaled.found_inf()), (vec![0.5], false));
        let text = "GradScaler::unscale: already called since the last `update`";
        assert_eq!(order(scaler.unscale(&g).map(drop)), text);
        assert!(scaler.step(&mut opt, &mut w, &clip_grad_norm(&unscaled, 0.1)).unwrap());
    }
    let text = "GradScaler::unscale: called after `step`; call `update` first";
    assert_eq!(order(scaler.unscale(&g).map(drop)), text);
    let text = "GradScaler::step: already called since the last `update`";
    assert_eq!(order(scaler.step(&mut opt, &mut w, &g).map(drop)), text);
    scaler.update().unwrap();
    assert!(!scaler.step(&mut opt, &mut w, &array![f32::NAN]).unwrap());
    scaler.update().unwrap();
    assert_eq!((scaler.current_scale(), opt.steps), (4.0, 1));

    let mut second = GradScaler::default();
    second.load_state_dict(&scaler.state_dict()).unwrap();
    assert_eq!(second.state_dict(), scaler.state_dict());
    let mut broken = scaler.state_dict();
    broken.scalars.remove("growth_tracker");
    let error = second.load_state_dict(&broken).unwrap_err().to_string();
    assert_eq!(error, "state dict: `growth_tracker`: missing");
    for (config, message) in [
        (
            LossScaling { growth_factor: 1.0, ..Default::default() },
            "LossScaling: `growth_factor` must be > 1, got 1",
        ),
        (
            LossScaling { backoff_factor: 1.0, ..Default::default() },
            "LossScaling: `backoff_factor` must be in [0, 1), got 1",
        ),
        (
            LossScaling { init_scale: 1e300, ..Default::default() },
            "LossScaling: `init_scale` must be a positive f32, got 1e300",
        ),
    ] {
        let error = GradScaler::new(config).unwrap_err().to_string();
        assert!(error.starts_with(message.split("1e300").next().unwrap()), "{error}");
    }
}

#[test]
fn norm_guard() {
    let (mut opt, mut w) = (Mock::sgd(&[0.1]), array![0.0f32]);
    let mut guard =
        NormGuard::new(NormLimit { warmup: 3, factor: 5.0, decay: 0.5, ..NormLimit::default() })
            .unwrap();
    for (g, accepted) in
        [(1.0, true), (100.0, true), (f32::NAN, false), (1.0, true), (1e3, false), (100.0, true)]
    {
        assert_eq!(guard.step(&mut opt, &mut w, &array![g]).unwrap(), accepted, "{g}");
    }
    assert_eq!((opt.steps, guard.skipped()), (4, 2));
    // options come with the state, and are not needed to read it
    let mut second = NormGuard::new(NormLimit::default()).unwrap();
    second.load_state_dict(&guard.state_dict()).unwrap();
    assert_eq!(second, guard);
}

#[test]
fn a_factor_outside_a_clip_is_checked_again() {
    use eigenstep::prelude::*;
    let mut w = array![1.0f32];
    let mut opt = Sgd { lr: 0.1, ..Sgd::default() }.build().unwrap();
    let grads = array![1e30f32];
    let clipped = clip_grad_norm(&grads, 1.0);
    let huge = Scaled::new(1e39, &clipped);
    assert!(opt.step(&mut w, &huge).is_err());
    assert!(opt.step(&mut w, &clip_grad_norm(&array![f32::NAN], 1.0)).is_err());
    assert!(opt.step(&mut w, &clip_grad_norm(&grads, f64::NAN)).is_err());
    assert_eq!(w, array![1.0]);
    opt.step(&mut w, &clipped).unwrap();
    assert!((w[0] - 0.9).abs() < 1e-6);
}

#[test]
fn a_guard_does_not_count_a_step_that_fails() {
    use eigenstep::optim::Rule;
    let mut guard = NormGuard::new(NormLimit { warmup: 1, ..NormLimit::default() }).unwrap();
    let mut opt =
        eigenstep::first_order::Sgd { lr: 0.5, ..Default::default() }.build::<f64>().unwrap();
    let mut w = array![1.0];
    assert!(guard.step(&mut opt, &mut w, &array![1.0]).unwrap());
    let before = (guard.clone(), w.clone());
    // a name, a shape and a length that do not fit; all of a norm that the guard accepts
    let named = std::collections::BTreeMap::from([("other".to_owned(), array![1.0])]);
    assert!(guard.step(&mut opt, &mut w, &named).is_err());
    assert!(guard.step(&mut opt, &mut w, &array![1.0, 1.0]).is_err());
    assert!(
        guard.step(&mut opt, &mut w, &eigenstep::params::Flat::new(&[1.0, 1.0], &[3])).is_err()
    );
    assert_eq!((guard.clone(), w.clone()), before);
    // a step that is too large is counted as before
    assert!(!guard.step(&mut opt, &mut w, &array![1e3]).unwrap());
    assert_eq!((guard.skipped(), guard.mean(), w), (1, before.0.mean(), before.1));
}

/// A gradient that panics when it is asked for its numbers the `n`-th time.
struct Panics {
    after: std::sync::atomic::AtomicUsize,
}

impl Generate<f32> for Panics {
    fn shape(&self) -> &[usize] {
        &[2]
    }
    fn fill(&self, _: usize, out: &mut [f32]) {
        use std::sync::atomic::Ordering::Relaxed;
        let left = self.after.load(Relaxed);
        assert!(left > 0, "asked once too often");
        self.after.store(left - 1, Relaxed);
        out.fill(1.0);
    }
}

impl Gradients<f32> for Panics {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

/// A gradient that is asked for its elements, and panics or writes none of them.
struct Rude {
    panics: bool,
}

impl eigenstep::params::Generate<f64> for Rude {
    fn shape(&self) -> &[usize] {
        &[3000]
    }
    fn fill(&self, offset: usize, _: &mut [f64]) {
        assert!(!self.panics || offset == 0, "as it should");
    }
}

impl Gradients<f64> for Rude {
    fn visit<'a>(&'a self, visitor: &mut eigenstep::params::GradVisitor<'a, f64>) {
        visitor.generated(self);
    }
}

/// A panic of the user's code before anything is written changes nothing; one in the middle is noticed by every
/// later call, until a saved state is loaded.
#[test]
fn panics_in_the_middle_of_a_step_are_remembered() {
    use eigenstep::prelude::Adam;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let build = || Adam { lr: 0.1, ..Adam::default() }.build::<f32>().unwrap();
    let mut opt = build();
    let mut w = (array![1.0f32, 2.0], array![3.0f32, 4.0]);
    let good = (array![0.5f32, 0.5], array![0.5f32, 0.5]);
    opt.step(&mut w, &good).unwrap();
    let (saved, before) = (opt.state_dict(), w.clone());
    let mut outcomes = (0, 0);
    for after in 0..8 {
        let bad = (array![1.0f32, 1.0], Panics { after: after.into() });
        if catch_unwind(AssertUnwindSafe(|| opt.step(&mut w, &bad))).is_ok() {
            break;
        }
        match opt.check_step(&mut w, &good) {
            Ok(_) => {
                outcomes.0 += 1;
                assert_eq!((&w, opt.state_dict()), (&before, saved.clone()));
            }
            Err(error) => {
                outcomes.1 += 1;
                assert!(matches!(error, Error::Interrupted { .. }), "{error}");
                assert!(matches!(opt.step(&mut w, &good), Err(Error::Interrupted { .. })));
                let half = opt.state_dict();
                assert!(build().load_state_dict(&half).is_err());
                opt.load_state_dict(&saved).unwrap();
                w = before.clone();
            }
        }
    }
    assert!(outcomes.0 > 0 && outcomes.1 > 0, "{outcomes:?}");
    let (mut twin, mut copy) = (build(), before.clone());
    twin.load_state_dict(&saved).unwrap();
    opt.load_state_dict(&saved).unwrap();
    w = before;
    opt.step(&mut w, &good).unwrap();
    twin.step(&mut copy, &good).unwrap();
    assert_eq!(w, copy);
}

/// Half a gradient is neither added to nor stepped with.
#[test]
fn a_sum_that_a_panic_has_torn_says_so() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let mut sum = Accumulator::<f64>::new();
    let dense = ndarray::Array1::from_elem(3000, 1.0);
    sum.add(&dense).unwrap();
    let before = eigenstep::gradient::materialize(&sum).unwrap();
    // what is not written is 0
    sum.add(&Rude { panics: false }).unwrap();
    assert_eq!(eigenstep::gradient::materialize(&sum).unwrap(), before);
    let torn = catch_unwind(AssertUnwindSafe(|| sum.add(&Rude { panics: true })));
    assert!(torn.is_err());
    let torn = |error| matches!(error, Error::OutOfOrder { what: "Accumulator", .. });
    assert!(torn(sum.add(&dense).unwrap_err()));
    let mut w = ndarray::Array1::zeros(3000);
    let mut sgd = Sgd { lr: 1.0, ..Sgd::default() }.build::<f64>().unwrap();
    assert!(torn(sgd.step(&mut w, &sum.mean()).unwrap_err()));
    assert!(torn(eigenstep::gradient::materialize(&sum).unwrap_err()));
    sum.reset();
    sum.add(&dense).unwrap();
    sgd.step(&mut w, &sum.mean()).unwrap();
    assert!(w.iter().all(|&x| x == -1.0));
}

/// An optimizer that refuses leaves the guard as it was, too.
#[test]
fn a_guard_forgets_a_step_that_failed() {
    let mut guard = NormGuard::new(NormLimit::default()).unwrap();
    let mut sgd = Sgd::default().build::<f64>().unwrap();
    let mut w = array![1.0];
    guard.step(&mut sgd, &mut w, &array![2.0]).unwrap();
    let before = guard.clone();
    assert!(guard.step(&mut sgd, &mut w, &array![3.0, 4.0]).is_err());
    assert_eq!(guard, before);
}
