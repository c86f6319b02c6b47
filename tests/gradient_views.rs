//! Promises of the views that transform gradients, besides the golden numbers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use eigenstep_instances as _;

#[path = "support/cases.rs"]
mod cases;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::gradient::*;
use eigenstep::numeric::{Element, Real};
use eigenstep::optim::{Optim, Slot};
use eigenstep::params::{Generate, GradVisitor, Gradients, RowGradient, Scaled};
use eigenstep::prelude::*;
use eigenstep::state::Input;
use ndarray::{Array1, Array2, Array4, ArrayD, Axis, IxDyn, ShapeBuilder, array, s};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use threads::on_threads;

type Tree<T> = BTreeMap<String, ArrayD<T>>;

/// A gradient with the values of an array, handed out in chunks.
struct Made<T: Element>(ArrayD<T>);

impl<T: Element> Generate<T> for Made<T> {
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn fill(&self, offset: usize, out: &mut [T]) {
        out.iter_mut().zip(self.0.iter().skip(offset)).for_each(|(out, &x)| *out = x);
    }
}
impl<T: Element> Gradients<T> for Made<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        visitor.generated(self);
    }
}

fn wave<T: Element>(shape: &[usize], phase: f64) -> ArrayD<T> {
    let mut i = phase;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        i += 0.37;
        T::store(T::Compute::of((3.0 * i).sin() + 0.3 * (7.1 * i).cos()))
    })
}

/// Shapes of all kinds.
const SMALL: &[&[usize]] = &[&[5, 7], &[4, 3, 2, 2], &[9], &[], &[0, 3], &[3, 0], &[13, 301]];

/// Several pieces of work, of short rows and of long ones.
const LARGE: &[&[usize]] = &[&[70, 1001], &[2, 70_001]];

fn dense<T: Element>(shapes: &[&[usize]], phase: f64) -> Tree<T> {
    let leaf = |(i, shape): (usize, &&[usize])| (format!("l{i}"), wave(shape, phase + i as f64));
    shapes.iter().enumerate().map(leaf).collect()
}

/// Other gradients, or weights, of the same shapes.
fn like<T: Element>(grads: &dyn Gradients<T>, phase: f64) -> Tree<T> {
    let leaf = |(i, (name, values)): (usize, (String, ArrayD<T>))| {
        (name, wave(values.shape(), phase + i as f64))
    };
    materialize(grads).unwrap().into_iter().enumerate().map(leaf).collect()
}

/// Shows view number `number` to `then`.
fn with_view<T: Element, O>(
    number: usize,
    grads: &dyn Gradients<T>,
    then: impl FnOnce(&dyn Gradients<T>) -> O,
) -> O {
    let mut weights = like(grads, 40.0);
    let (other, third) = (like(grads, 50.0), like(grads, 60.0));
    let others: [&dyn Gradients<T>; 3] = [grads, &other, &third];
    let per_tensor = PcGrad { scope: TreeScope::Tensor, seed: 3, ..PcGrad::default() };
    let tensors = ProjectOut { scope: TreeScope::Tensor, ..ProjectOut::default() };
    let whole = Normalize { scope: TreeScope::Tree, size: GradSize::Rms, eps: 1e-3 };
    match number {
        0 => then(&centralize(grads)),
        1 => then(&Centralize { min_ndim: 3 }.apply(grads).unwrap()),
        2 => then(&normalize(grads)),
        3 => then(&whole.apply(grads).unwrap()),
        4 => then(&clip_grad_rms(grads, 0.5)),
        5 => then(&sign(grads)),
        6 => then(&SignMask::default().apply(grads, &other).unwrap()),
        7 => then(&SignMask { force: true }.apply(grads, &other).unwrap()),
        8 => then(&GradientNoise::default().apply(grads, 3).unwrap()),
        9 => then(&ortho_grad(&mut weights, grads).unwrap()),
        10 => then(&project_out(grads, &others[1..]).unwrap()),
        11 => then(&tensors.apply(grads, &others[1..]).unwrap()),
        12 => then(&project_conflicting(&others, 5).unwrap()),
        13 => then(&per_tensor.apply(&others, 7).unwrap()),
        14 => then(&AdaptiveClip::default().clip(&mut weights, grads).unwrap()),
        15 => then(&clip_grad_value(grads, 0.4)),
        _ => then(&clip_grad_norm(grads, 0.25)),
    }
}

/// A copy of what it shows.
fn view<T: Element>(number: usize, grads: &dyn Gradients<T>) -> Tree<T> {
    with_view(number, grads, |view| materialize(view).unwrap())
}

const VIEWS: usize = 17;

fn bits<T: Element>(tree: &Tree<T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for values in tree.values() {
        let values: Vec<T> = values.iter().copied().collect();
        T::write_le(&values, &mut bytes);
    }
    bytes
}

fn assert_near<T: Element>(found: &Tree<T>, expected: &Tree<T>, tolerance: f64, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, expected) in expected {
        assert_eq!(found[name].shape(), expected.shape(), "{what}, {name}");
        for (i, (x, y)) in found[name].iter().zip(expected).enumerate() {
            let (x, y) = (x.load().widen(), y.load().widen());
            let good = x == y || (x - y).abs() <= tolerance * (1.0 + y.abs());
            assert!(good, "{what}, {name}, element {i}: {x} for {y}");
        }
    }
}

/// The same numbers in other forms: strided, generated, some rows, half of them doubled, and clamped.
fn forms<T: Element>(tree: &Tree<T>) -> Vec<(&'static str, Box<dyn Gradients<T>>)> {
    let fortran = tree.iter().map(|(name, values)| {
        let mut copy = ArrayD::default(IxDyn(values.shape()).f());
        copy.assign(values);
        (name.clone(), copy)
    });
    let fortran: BTreeMap<String, ArrayD<T>> = fortran.collect();
    let made = tree.iter().map(|(name, values)| (name.clone(), Made(values.clone())));
    let made: BTreeMap<String, Made<T>> = made.collect();
    let rows = tree.iter().map(|(name, values)| {
        let mixed: Box<dyn Gradients<T>> = if values.ndim() < 2 {
            Box::new(values.clone())
        } else {
            let height = values.shape()[0];
            let width = values.len().checked_div(height).unwrap_or(0);
            let order: Vec<usize> = (0..height).rev().collect();
            let flat: Vec<T> = order
                .iter()
                .flat_map(|&row| {
                    values.index_axis(Axis(0), row).iter().copied().collect::<Vec<_>>()
                })
                .collect();
            let width = if height == 0 { values.shape()[1..].iter().product() } else { width };
            let flat = Array2::from_shape_vec((height, width), flat).unwrap();
            Box::new(RowGradient::new(values.shape(), order, flat).unwrap())
        };
        (name.clone(), mixed)
    });
    let rows: BTreeMap<String, Box<dyn Gradients<T>>> = rows.collect();
    vec![("strided", Box::new(fortran)), ("generated", Box::new(made)), ("rows", Box::new(rows))]
}

fn forms_agree<T: Element>(shapes: &[&[usize]]) {
    let tree = dense::<T>(shapes, 0.0);
    let forms = forms(&tree);
    // all but clipping by norm, which adds rows up in another order
    for number in 0..VIEWS - 1 {
        let expected = bits(&view(number, &tree));
        for (form, grads) in &forms {
            assert!(bits(&view(number, &**grads)) == expected, "view {number} of {form} gradients");
        }
    }
}

#[test]
fn every_form_of_a_gradient_is_seen_alike_bit_for_bit() {
    forms_agree::<f32>(SMALL);
    forms_agree::<f32>(LARGE);
    forms_agree::<f64>(SMALL);
    #[cfg(feature = "half")]
    forms_agree::<eigenstep::numeric::bf16>(SMALL);
}

#[test]
fn scaled_and_clamped_gradients_are_transformed_as_they_are_seen() {
    let tree = dense::<f64>(SMALL, 0.0);
    for number in 0..VIEWS {
        let half = Scaled::new(-0.3, &tree);
        let clamped = clip_grad_value(&half, 0.2);
        for (what, grads) in [("scaled", &half as &dyn Gradients<f64>), ("clamped", &clamped)] {
            let expected = view(number, &materialize(grads).unwrap());
            let what = format!("view {number} of {what} gradients");
            assert_near(&view(number, grads), &expected, 1e-12, &what);
        }
    }
}

/// One view inside another, and a factor and a bound between and around them, are one after the other.
#[test]
fn views_chain_in_any_order() {
    let tree = dense::<f64>(SMALL, 0.0);
    for first in 0..VIEWS {
        for second in 0..VIEWS {
            // signs of what rounding left of zero are anybody's guess
            if [5, 6, 7].contains(&second) && [0, 9, 10, 11].contains(&first) {
                continue;
            }
            let inner = view(first, &tree);
            let step = |grads: &dyn Gradients<f64>| view(second, &Scaled::new(0.5, grads));
            let expected = step(&inner);
            let nested = with_view(first, &tree, step);
            assert_near(&nested, &expected, 1e-10, &format!("view {second} of view {first}"));
        }
    }
}

#[test]
fn views_do_not_depend_on_the_number_of_threads() {
    let tree = dense::<f32>(LARGE, 0.0);
    let all = || (0..VIEWS).map(|number| bits(&view(number, &tree))).collect::<Vec<_>>();
    let expected = all();
    for threads in [1, 3] {
        assert!(on_threads(threads, all) == expected, "{threads} threads");
    }
}

/// A step through a view is the step with a copy of what the view shows, wherever the view stands.
#[test]
fn a_step_takes_what_the_view_shows() {
    let build = || AdamW { lr: 0.1, ..AdamW::default() }.build::<f32>().unwrap();
    let g = wave::<f32>(&[6, 5], 0.0);
    let (mut w, mut copy) = (wave::<f32>(&[6, 5], 9.0), wave::<f32>(&[6, 5], 9.0));
    let (mut opt, mut other) = (build(), build());
    opt.step(&mut w, &centralize(&g)).unwrap();
    other.step(&mut copy, &materialize(&centralize(&g)).unwrap()["param"]).unwrap();
    assert_eq!(w, copy);
    assert_eq!(opt.steps("param"), Some(1));
    // a part of a tree, below a name
    let mut model = (vec![w.clone(), w.clone()], w.clone());
    let part = vec![g.clone(), g.clone()];
    let mut opt = build();
    let centred = centralize(&part);
    opt.step(&mut model, &(&centred, &g)).unwrap();
    assert_eq!((opt.steps("0.1"), opt.steps("1")), (Some(1), Some(1)));
    let mut expected = (vec![copy.clone(), copy.clone()], copy);
    let parts = materialize(&centred).unwrap();
    let grads = (vec![parts["0"].clone(), parts["1"].clone()], g);
    build().step(&mut expected, &grads).unwrap();
    assert_eq!(model, expected);
}

#[test]
fn absent_gradients_stay_absent() {
    type Pair = (Option<Array1<f64>>, Option<Array1<f64>>);
    let some: Pair = (Some(array![1.0, -2.0]), None);
    let names = |tree: Tree<f64>| tree.into_keys().collect::<Vec<_>>();
    let both: Pair = (Some(array![3.0, 1.0]), Some(array![1.0]));
    let mut weights = (array![1.0f64, 2.0], array![3.0f64]);
    let shown = [
        materialize(&centralize(&some)),
        materialize(&normalize(&some)),
        materialize(&sign(&some)),
        materialize(&SignMask::default().apply(&some, &both).unwrap()),
        materialize(&GradientNoise::default().apply(&some, 0).unwrap()),
        materialize(&ortho_grad(&mut weights, &some).unwrap()),
        materialize(&project_out(&some, &[&both]).unwrap()),
        materialize(&project_conflicting(&[&some, &some], 0).unwrap()),
        materialize(&AdaptiveClip::default().clip(&mut weights, &some).unwrap()),
    ];
    shown.into_iter().for_each(|tree| assert_eq!(names(tree.unwrap()), ["0"]));
    // what one task has is there, under its name
    let tree = materialize(&project_conflicting(&[&some, &both], 0).unwrap()).unwrap();
    assert_eq!(tree["0"], array![4.0, -1.0].into_dyn());
    assert_eq!(tree["1"], array![1.0].into_dyn());
    // what the others have where the gradient is absent does not count
    let at_right_angles: Pair = (Some(array![2.0, 1.0]), Some(array![1e9]));
    let tree = materialize(&project_out(&some, &[&at_right_angles]).unwrap()).unwrap();
    assert_eq!(tree["0"], array![1.0, -2.0].into_dyn());
    // no gradient at all
    let none: [&(); 2] = [&(), &()];
    assert!(
        materialize::<f64, _>(&project_conflicting::<f64, ()>(&none, 0).unwrap())
            .unwrap()
            .is_empty()
    );
    assert!(
        materialize::<f64, _>(&project_conflicting::<f64, ()>(&[], 0).unwrap()).unwrap().is_empty()
    );
    assert!(materialize::<f64, _>(&centralize::<f64, _>(&())).unwrap().is_empty());
}

/// `p ← p − loss·g·h`: shows gradient, curvature and loss of a step.
#[derive(Clone, Debug)]
struct Probe {
    lr: f64,
}
eigenstep::hyperparameters!(Probe, "Probe", { "lr": NonNegative = lr; });

#[derive(Clone, Debug, Default)]
struct Loss {
    loss: f64,
}
eigenstep::group_state!(Loss { loss });

impl Rule for Probe {
    type Coefficients<R: Real> = ();
    type State<R: Real> = [R; 1];
    type GroupState = Loss;
    const SLOTS: &'static [Slot] = &[Slot::input("curvature", Input::Curvature)];
    fn coefficients<R: Real>(&self, _: u64, _: &Loss) {}
    #[inline(always)]
    fn direction<R: Real>(_: &(), _p: R, g: R, [h]: [R; 1]) -> (R, [R; 1]) {
        (g * h, [h])
    }
    fn begin(&self, loss: Option<f64>, state: &mut Loss) {
        state.loss = loss.unwrap();
    }
    fn step_size(&self, _: u64, state: &Loss) -> f64 {
        self.lr * state.loss
    }
    fn needs_loss(&self) -> bool {
        true
    }
    fn needs_curvature(&self, _: u64) -> bool {
        true
    }
}

#[test]
fn loss_and_curvature_come_along() {
    let (g, h) = (array![[1.0f64, 5.0]], array![[10.0, 100.0]]);
    let given = with_loss(&g, 2.0);
    let given = with_curvature(&given, &h);
    let stepped = |grads: &dyn Gradients<f64>| {
        let mut w = array![[0.0f64, 0.0]];
        Probe { lr: 1.0 }.build().unwrap().step(&mut w, grads).unwrap();
        w
    };
    let expected = array![[-2.0 * -2.0 * 10.0, -2.0 * 2.0 * 100.0]];
    assert_eq!(stepped(&centralize(&given)), expected);
    // a view of a view, with factors and bounds: they act on gradients alone
    let centred = centralize(&given);
    let clamped = clip_grad_value(&centred, 1.0);
    let unit = 0.5f64.sqrt();
    let rounded = stepped(&normalize(&clamped)).mapv(|x| (x * 1e9).round());
    assert_eq!(rounded, array![[20.0 * unit, -200.0 * unit]].mapv(|x| (x * 1e9).round()));
    assert_eq!(stepped(&sign(&Scaled::new(-3.0, &clamped))), array![[-20.0, 200.0]]);
    // around the view they stand, too
    let view = centralize(&g);
    let around = with_loss(&view, 2.0);
    assert_eq!(stepped(&with_curvature(&around, &h)), expected);
    // a view of a curvature
    let (loss, means) = (with_loss(&g, 1.0), array![[1.0, 3.0]]);
    assert_eq!(stepped(&with_curvature(&loss, &centralize(&means))), array![[1.0, -5.0]]);
    // one task brings the curvature; the losses are added up, or averaged
    let plain = with_loss(&g, 4.0);
    let tasks: [&dyn Gradients<f64>; 2] = [&given, &plain];
    let twice = array![[-2.0 * 6.0 * 10.0, -10.0 * 6.0 * 100.0]];
    assert_eq!(stepped(&project_conflicting(&tasks, 0).unwrap()), twice);
    let mean = PcGrad { reduction: Reduction::Mean, ..PcGrad::default() };
    assert_eq!(stepped(&mean.apply(&tasks, 0).unwrap()), twice / 4.0);
    // two tasks with a curvature of one tensor: whose?
    let tasks: [&dyn Gradients<f64>; 2] = [&given, &given];
    let (mut w, mut opt) = (array![[0.0f64, 0.0]], Probe { lr: 1.0 }.build().unwrap());
    let error = opt.step(&mut w, &project_conflicting(&tasks, 0).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the name `param` is used twice");
    // without the loss of one task there is none
    let tasks: [&dyn Gradients<f64>; 2] = [&given, &g];
    let error = opt.step(&mut w, &project_conflicting(&tasks, 0).unwrap()).unwrap_err();
    assert!(error.to_string().contains("needs the loss"), "{error}");
}

#[test]
fn centralised_rows_have_mean_zero() {
    let tree = dense::<f64>(SMALL, 0.0);
    let centred = materialize(&centralize(&tree)).unwrap();
    for (name, values) in &centred {
        if values.ndim() < 2 {
            assert_eq!(values, &tree[name], "{name}");
            continue;
        }
        for row in values.axis_iter(Axis(0)).filter(|row| !row.is_empty()) {
            assert!(row.sum().abs() <= 1e-14 * row.len() as f64, "{name}");
        }
    }
    assert_near(&materialize(&centralize(&centred)).unwrap(), &centred, 1e-14, "twice");
    // convolutions only
    let grads = (Array2::<f64>::ones((2, 3)), Array4::<f64>::ones((2, 1, 2, 2)));
    for (min_ndim, linear, convolution) in
        [(2, 0.0, 0.0), (3, 6.0, 0.0), (4, 6.0, 0.0), (5, 6.0, 8.0)]
    {
        let shown = materialize(&Centralize { min_ndim }.apply(&grads).unwrap()).unwrap();
        assert_eq!((shown["0"].sum(), shown["1"].sum()), (linear, convolution), "{min_ndim}");
    }
    // means that f32 cannot hold next to the deviations
    let close = array![[1.0f32, 1.0 + f32::EPSILON, 1.0, 1.0]];
    let shown = materialize(&centralize(&close)).unwrap();
    assert_eq!(shown["param"][[0, 1]], 0.75 * f32::EPSILON);
    // sums that f64 cannot hold
    let huge = array![[1e308f64, 1.5e308, 0.5e308]];
    let shown = materialize(&centralize(&huge)).unwrap();
    assert_near(&shown, &materialize(&array![[0.0f64, 0.5e308, -0.5e308]]).unwrap(), 1e-14, "huge");
}

#[test]
fn normalised_gradients_have_unit_size() {
    let tree = dense::<f64>(SMALL, 0.0);
    let unit = materialize(&normalize(&tree)).unwrap();
    for (name, values) in unit.iter().filter(|(_, values)| !values.is_empty()) {
        assert!((total_norm(values, 2.0).unwrap() - 1.0).abs() < 1e-11, "{name}");
    }
    let whole = Normalize { scope: TreeScope::Tree, size: GradSize::Norm, eps: 0.0 };
    assert!((total_norm(&whole.apply(&tree).unwrap(), 2.0).unwrap() - 1.0).abs() < 1e-13);
    let rms = Normalize { size: GradSize::Rms, eps: 0.0, ..Normalize::default() };
    let shown = materialize(&rms.apply(&array![[3.0f64, -4.0], [0.0, 0.0]]).unwrap()).unwrap();
    let expected = array![[1.2, -1.6], [0.0, 0.0]].into_dyn();
    assert!((&shown["param"] - &expected).iter().all(|x: &f64| x.abs() < 1e-15));
    // zeros stay zero without eps, and so do huge and subnormal gradients get size 1
    let exact = Normalize { eps: 0.0, ..Normalize::default() };
    let extremes = (array![0.0f64, 0.0], array![3e300f64, 4e300], array![3e-310f64, 4e-310]);
    let shown = materialize(&exact.apply(&extremes).unwrap()).unwrap();
    assert_eq!(shown["0"], array![0.0, 0.0].into_dyn());
    for name in ["1", "2"] {
        // the factor of the last is the largest number: 1e310 is none
        let expected = if name == "1" { 0.6 } else { 3e-310 * f64::MAX };
        assert!((shown[name][0] - expected).abs() < 1e-9, "{name}: {}", shown[name]);
    }
    let tiny = materialize(&exact.apply(&array![f32::from_bits(1)]).unwrap()).unwrap();
    assert!(tiny["param"][0] > 0.0 && tiny["param"][0].is_finite());
    let together = Normalize { scope: TreeScope::Tree, ..exact };
    let shown = materialize(&together.apply(&(array![3e300f64], array![4e300])).unwrap()).unwrap();
    assert!((shown["0"][0] - 0.6).abs() < 1e-12 && (shown["1"][0] - 0.8).abs() < 1e-12);

    let clipped =
        materialize(&clip_grad_rms(&(array![3.0f64, 4.0], array![0.1], array![0.0]), 1.0)).unwrap();
    assert!((total_norm(&clipped["0"], 2.0).unwrap() - 2f64.sqrt()).abs() < 1e-12);
    assert_eq!((clipped["1"][0], clipped["2"][0]), (0.1, 0.0));
    let none = materialize(&clip_grad_rms(&(array![3.0f64], array![0.0]), 0.0)).unwrap();
    assert_eq!((none["0"][0], none["1"][0]), (0.0, 0.0));
}

#[test]
fn noise_fades_and_depends_on_seed_step_name_and_index_alone() {
    let zeros: Tree<f64> = [("a", 1001), ("b", 1001)]
        .into_iter()
        .map(|(name, numel)| (name.to_owned(), ArrayD::zeros(IxDyn(&[numel]))))
        .collect();
    let noise = GradientNoise { eta: 1.0, gamma: 0.5, seed: 1 };
    let at = |noise: GradientNoise, step| materialize(&noise.apply(&zeros, step).unwrap()).unwrap();
    let first = at(noise, 0);
    for (step, deviation) in [(0, 1.0), (15, 0.5), (255, 0.25)] {
        assert_eq!(noise.deviation(step), deviation);
        let shown = at(noise, step);
        let rms = (shown["a"].mapv(|x| x * x).sum() / 1001.0).sqrt();
        assert!((rms / deviation - 1.0).abs() < 0.1, "{step}: {rms}");
        assert!(shown["a"].sum().abs() / 1001.0 < 0.15 * deviation);
    }
    assert_eq!(at(noise, 0), first);
    for other in [at(noise, 1), at(GradientNoise { seed: 2, ..noise }, 0)] {
        assert!(other["a"].iter().zip(&first["a"]).all(|(x, y)| x != y));
    }
    assert!(first["a"].iter().zip(&first["b"]).all(|(x, y)| x != y));
    // any piece of it is the same
    let view = noise.apply(&zeros, 0).unwrap();
    let mut w = zeros.clone();
    Sgd { lr: 1.0, ..Sgd::default() }.build().unwrap().step(&mut w, &view).unwrap();
    assert_eq!(w["a"], -&first["a"]);
    assert_eq!(at(GradientNoise { eta: 0.0, ..noise }, 0), zeros);
}

#[test]
fn orthogonal_gradients_keep_their_norm() {
    let (tree, mut weights) = (dense::<f64>(SMALL, 0.0), dense::<f64>(SMALL, 40.0));
    let before = weights.clone();
    let across = materialize(&ortho_grad(&mut weights, &tree).unwrap()).unwrap();
    assert_eq!(weights, before);
    for (name, values) in across.iter().filter(|(_, values)| values.len() > 1) {
        let norm = total_norm(&tree[name], 2.0).unwrap();
        let product: f64 = values.iter().zip(&weights[name]).map(|(g, w)| g * w).sum();
        assert!((total_norm(values, 2.0).unwrap() / norm - 1.0).abs() < 1e-12, "{name}");
        assert!(product.abs() < 1e-11 * norm * total_norm(&weights[name], 2.0).unwrap(), "{name}");
    }
    assert_eq!(across["l3"].sum(), 0.0); // a scalar
    // weights or gradients of zeros, and huge ones
    let shown = |w: Array1<f64>, g: &Array1<f64>| {
        let mut w = w;
        materialize(&ortho_grad(&mut w, g).unwrap()).unwrap()["param"].clone()
    };
    assert_eq!(shown(array![0.0, 0.0], &array![3.0, 4.0]), array![3.0, 4.0].into_dyn());
    assert_eq!(shown(array![1.0, 2.0], &array![0.0, 0.0]), array![0.0, 0.0].into_dyn());
    let huge = shown(array![1e200, 0.0], &array![3e200, 4e200]);
    assert!(huge[0].abs() < 1e185 && (huge[1] / 5e200 - 1.0).abs() < 1e-12, "{huge}");
}

fn dot(a: &Array1<f64>, b: &Array1<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn shown(view: &dyn Gradients<f64>) -> Array1<f64> {
    let copies = materialize(view).unwrap();
    copies.values().flat_map(|copy| copy.iter().copied().collect::<Vec<_>>()).collect()
}

/// All orders of the other tasks, for every task.
fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, &first) in items.iter().enumerate() {
        let rest: Vec<usize> =
            items.iter().copied().enumerate().filter(|(j, _)| *j != i).map(|(_, x)| x).collect();
        for mut tail in permutations(&rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}

/// PCGrad as the paper writes it.
fn surgery(tasks: &[Array1<f64>], orders: &[Vec<usize>]) -> Array1<f64> {
    let mut sum = Array1::zeros(tasks[0].len());
    for (task, order) in tasks.iter().zip(orders) {
        let mut u = task.clone();
        for &other in order {
            let product = dot(&u, &tasks[other]);
            if product < 0.0 {
                u.scaled_add(-product / dot(&tasks[other], &tasks[other]), &tasks[other]);
            }
        }
        sum += &u;
    }
    sum
}

proptest! {
    #![proptest_config(cases::cases(64))]

    #[test]
    fn two_tasks_do_not_conflict_after_surgery(xs in prop::collection::vec((-1e3f64..1e3, -1e3f64..1e3), 1..100)) {
        let (a, b): (Vec<f64>, Vec<f64>) = xs.into_iter().unzip();
        let tasks = [Array1::from(a), Array1::from(b)];
        let both = shown(&project_conflicting(&[&tasks[0], &tasks[1]], 0).unwrap());
        let size = total_norm(&tasks, 2.0).unwrap();
        for task in &tasks {
            prop_assert!(dot(&both, task) >= -1e-12 * size * size);
        }
        let expected = surgery(&tasks, &[vec![1], vec![0]]);
        prop_assert!((&both - &expected).iter().all(|x| x.abs() <= 1e-12 * size));
    }

    #[test]
    fn many_tasks_are_projected_in_one_of_the_orders(seed in 0u64..1000, n in 2usize..20) {
        let task = |i: usize| wave::<f64>(&[n], seed as f64 + 11.0 * i as f64).into_dimensionality().unwrap();
        let tasks: Vec<Array1<f64>> = (0..3).map(task).collect();
        let refs: Vec<&Array1<f64>> = tasks.iter().collect();
        let found = shown(&project_conflicting(&refs, seed).unwrap());
        let orders = |i: usize| permutations(&(0..3).filter(|&j| j != i).collect::<Vec<_>>());
        let mut all = Vec::new();
        for a in orders(0) { for b in orders(1) { for c in orders(2) {
            all.push(surgery(&tasks, &[a.clone(), b.clone(), c]));
        }}}
        prop_assert!(all.iter().any(|sum| (sum - &found).iter().all(|x| x.abs() < 1e-11)));
        prop_assert_eq!(shown(&project_conflicting(&refs, seed).unwrap()), found);
    }

    #[test]
    fn projections_are_at_right_angles_and_idempotent(n in 4usize..200, k in 1usize..4, phase in 0.0f64..100.0) {
        let vector = |i: f64| wave::<f64>(&[n], phase + 31.0 * i).into_dimensionality::<ndarray::Ix1>().unwrap();
        let forget = vector(0.0);
        let retain: Vec<Array1<f64>> = (1..=k).map(|i| vector(i as f64)).collect();
        let refs: Vec<&Array1<f64>> = retain.iter().collect();
        let kept = shown(&project_out(&forget, &refs).unwrap());
        let norm = dot(&forget, &forget).sqrt();
        for r in &retain {
            prop_assert!(dot(r, &kept).abs() <= 1e-12 * norm * dot(r, r).sqrt());
        }
        prop_assert!(dot(&kept, &kept).sqrt() <= norm * (1.0 + 1e-12));
        let twice = shown(&project_out(&kept, &refs).unwrap());
        prop_assert!((&twice - &kept).iter().all(|x| x.abs() <= 1e-12 * norm));
        // the part taken out is in the span: the gradient projected onto its complement is nothing
        let part = &forget - &kept;
        let rest = shown(&project_out(&part, &refs).unwrap());
        prop_assert!(rest.iter().all(|x| x.abs() <= 1e-11 * norm));
        // dependent ones and zeros add nothing
        let (double, zero) = (2.0 * &retain[0], Array1::zeros(n));
        let mut more = refs.clone();
        more.extend([&double, &zero, &retain[0]]);
        let same = shown(&project_out(&forget, &more).unwrap());
        prop_assert!((&same - &kept).iter().all(|x| x.abs() <= 1e-10 * norm));
    }
}

#[test]
fn orders_differ_from_seed_to_seed_and_from_step_to_step() {
    // in the plane, 120 degrees apart, none is what it was after either order
    let tasks = [array![1.0f64, 0.1], array![-0.5, 0.9], array![-0.6, -0.8]];
    let refs: Vec<&Array1<f64>> = tasks.iter().collect();
    let distinct = |results: Vec<Array1<f64>>| {
        let texts = results.iter().map(|result| format!("{result:?}"));
        texts.collect::<std::collections::BTreeSet<_>>().len()
    };
    let seeds = (0..64).map(|seed| shown(&project_conflicting(&refs, seed).unwrap())).collect();
    let config = PcGrad::default();
    let steps = (0..64).map(|step| shown(&config.apply(&refs, step).unwrap())).collect();
    // two orders for each of three tasks
    assert_eq!((distinct(seeds), distinct(steps)), (8, 8));
}

#[test]
fn tensors_are_projected_on_their_own() {
    // together at right angles, each for itself in conflict
    let (a, b) = ((array![1.0f64], array![2.0f64]), (array![-2.0f64], array![1.0f64]));
    let tree = PcGrad::default().apply(&[&a, &b], 0).unwrap();
    assert_eq!(shown(&tree), array![-1.0, 3.0]);
    let tensor = PcGrad { scope: TreeScope::Tensor, ..PcGrad::default() };
    assert_eq!(shown(&tensor.apply(&[&a, &b], 0).unwrap()), array![0.0, 3.0]);
    assert_eq!(shown(&project_out(&a, &[&b]).unwrap()), array![1.0, 2.0]);
    let tensor = ProjectOut { scope: TreeScope::Tensor, ..ProjectOut::default() };
    assert_eq!(shown(&tensor.apply(&a, &[&b]).unwrap()), array![0.0, 0.0]);
    // no others: everything stays
    let none: [&(Array1<f64>, Array1<f64>); 0] = [];
    assert_eq!(shown(&project_out(&a, &none).unwrap()), array![1.0, 2.0]);
}

#[test]
fn projections_of_huge_and_tiny_gradients() {
    for scale in [1e-200, 1e-160, 1.0, 1e160, 1e200] {
        let (g, r) = (array![3.0 * scale, 4.0 * scale], array![scale / 1e3, 0.0]);
        let kept = shown(&project_out(&g, &[&r]).unwrap());
        assert!(kept[0].abs() <= 1e-15 * scale && kept[1] == 4.0 * scale, "{kept}");
        let tasks = [array![scale, 0.0], array![-scale, scale]];
        let both = shown(&project_conflicting(&[&tasks[0], &tasks[1]], 0).unwrap()) / scale;
        assert!((&both - &array![0.5, 1.5]).iter().all(|x| x.abs() < 1e-12), "{both}");
    }
    // one task is a million times larger: its plane is the same
    let tasks = [array![1e200, 0.0], array![-1.0, 1.0]];
    let both = shown(&project_conflicting(&[&tasks[0], &tasks[1]], 0).unwrap());
    assert!((both[0] / 1e200 - 0.5).abs() < 1e-12, "{both}");
}

#[test]
fn the_metric_is_that_of_the_direction() {
    let (g, r) = (array![1.0f64, -2.0, 0.5, 3.0], array![0.3, 1.0, -1.0, 2.0]);
    let h = array![1.0, 0.25, 4.0, 2.0];
    let config = ProjectOut::default();
    let d = shown(&config.apply_in_metric(&g, &[&r], &h).unwrap());
    let c = dot(&r, &(&g / &h)) / dot(&r, &(&r / &h));
    let expected = (&g - &(c * &r)) / &h;
    assert!((&d - &expected).iter().all(|x| x.abs() < 1e-14) && dot(&r, &d).abs() < 1e-14);
    // it descends as far as any feasible direction of its length
    let other = shown(&project_out(&g, &[&r]).unwrap());
    let length = |d: &Array1<f64>| dot(d, &(d * &h)).sqrt();
    assert!(dot(&g, &d) / length(&d) >= dot(&g, &other) / length(&other));
    let missing: (Option<Array1<f64>>,) = (None,);
    let error = config.apply_in_metric(&(g,), &[&(r,)], &missing).unwrap_err().to_string();
    let text = "ProjectOut needs a metric in this step for `0`; see `ProjectOut::apply_in_metric`";
    assert_eq!(error, text);
}

#[test]
fn adaptive_clipping_by_view_is_adaptive_clipping() {
    let clip = AdaptiveClip { clipping: 0.3, ..AdaptiveClip::default() };
    let (mut weights, tree) = (dense::<f64>(SMALL, 40.0), dense::<f64>(SMALL, 0.0));
    let view = materialize(&clip.clip(&mut weights, &tree).unwrap()).unwrap();
    let mut written = tree.clone();
    clip.apply(&mut weights, &mut written).unwrap();
    assert_near(&view, &written, 1e-13, "clipped");
    assert_ne!(view, tree);
}

#[test]
fn signs() {
    let g = array![-2.0f64, -0.0, 0.0, 1e-320, f64::INFINITY, f64::NAN];
    let signs = shown(&sign(&g));
    assert_eq!(signs.slice(s![..5]), array![-1.0, 0.0, 0.0, 1.0, 1.0]);
    assert!(signs[5].is_nan());
    let (u, r) = (array![1.0f64, -1.0, 2.0, 0.0, 3.0], array![1.0f64, 1.0, 0.0, 0.0, f64::NAN]);
    let kept = shown(&SignMask::default().apply(&u, &r).unwrap());
    assert_eq!(kept.slice(s![..4]), array![1.0, 0.0, 0.0, 0.0]);
    let forced = shown(&SignMask { force: true }.apply(&u, &r).unwrap());
    assert_eq!(forced.slice(s![..4]), array![1.0, 1.0, 0.0, 0.0]);
    assert!(kept[4].is_nan() && forced[4].is_nan());
}

/// What is not finite, or becomes so by a factor outside, the step refuses: it is not taken for granted.
#[test]
fn what_is_not_finite_is_refused() {
    let build = || Sgd { lr: 0.1, ..Sgd::default() }.build::<f32>().unwrap();
    let w = array![[1.0f32, 1.0]];
    let refused = |grads: &dyn Gradients<f32>| {
        let mut copy = w.clone();
        let outcome = build().step(&mut copy, grads);
        assert_eq!(copy, w);
        outcome.unwrap_err().to_string()
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let (g, good) = (array![[1.0f32, bad]], array![[1.0f32, 2.0]]);
        let mut weights = w.clone();
        refused(&centralize(&g));
        refused(&normalize(&g));
        refused(&clip_grad_rms(&g, 1.0));
        refused(&GradientNoise::default().apply(&g, 0).unwrap());
        refused(&ortho_grad(&mut weights, &g).unwrap());
        refused(&project_out(&g, &[&good]).unwrap());
        refused(&project_conflicting(&[&g, &good], 0).unwrap());
        refused(&AdaptiveClip::default().clip(&mut weights, &g).unwrap());
        let error = project_out(&good, &[&g]).unwrap_err().to_string();
        assert!(
            error.starts_with("the squared norm of a gradient that is projected out"),
            "{error}"
        );
    }
    assert_eq!(refused(&sign(&array![[0.0, f32::NAN]])), "gradient `param` is NaN at flat index 1");
    let large = array![[-3e38f32, 3e38]];
    // 3e38 apart from their mean 0 is a number, if a large one; a factor of 2 outside makes it none
    let centred = centralize(&large);
    let error = build().step(&mut w.clone(), &centred).unwrap_err();
    assert!(matches!(error, Error::GradientTooLarge { .. }), "{error}");
    refused(&Scaled::new(2.0, &centred));
    let mut far = [3.4e38f32; 101];
    far[0] = -3.4e38;
    let far = Array2::from_shape_vec((1, 101), far.to_vec()).unwrap();
    let mut many = Array2::<f32>::zeros((1, 101));
    assert!(build().step(&mut many, &centralize(&far)).is_err());
    refused(&project_conflicting(&[&large, &large], 0).unwrap());
}

#[test]
fn errors_name_the_field_or_the_tensor() {
    let g = array![1.0f64, 2.0];
    let text = |error: Result<()>| error.unwrap_err().to_string();
    let config = Centralize { min_ndim: 1 };
    assert_eq!(
        text(config.apply(&g).map(drop)),
        "Centralize: `min_ndim` must be an integer >= 2, got 1"
    );
    let config = Normalize { eps: -1.0, ..Normalize::default() };
    assert_eq!(
        text(config.apply(&g).map(drop)),
        "Normalize: `eps` must be finite and >= 0, got -1"
    );
    let config = GradientNoise { gamma: f64::NAN, ..GradientNoise::default() };
    assert_eq!(
        text(config.apply(&g, 0).map(drop)),
        "GradientNoise: `gamma` must be finite and >= 0, got NaN"
    );
    let config = ProjectOut { tolerance: 1.0, ..ProjectOut::default() };
    assert_eq!(
        text(config.apply(&g, &[&g]).map(drop)),
        "ProjectOut: `tolerance` must be in [0, 1), got 1"
    );
    let other = array![1.0f64];
    let shape = "parameter `param`: expected shape [2], found [1]";
    assert_eq!(text(project_out(&g, &[&other]).map(drop)), shape);
    assert_eq!(text(project_conflicting(&[&g, &other], 0).map(drop)), shape);
    assert_eq!(text(SignMask::default().apply(&g, &other).map(drop)), shape);
    let mut w = array![1.0f64];
    assert_eq!(
        text(ortho_grad(&mut w, &g).map(drop)),
        "parameter `param`: expected shape [1], found [2]"
    );
    let mut nothing = ();
    assert_eq!(
        text(ortho_grad(&mut nothing, &g).map(drop)),
        "gradient `param` belongs to no parameter"
    );
    let missing = SignMask::default().apply(&(&g, &g), &(&g,)).map(drop);
    assert_eq!(
        text(missing),
        "SignMask needs a reference in this step for `1`; see `SignMask::apply`"
    );
    let short = eigenstep::params::Flat::new(&[1.0f64], &[2]);
    assert!(text(Normalize::default().apply(&short).map(drop)).contains("needs 2 elements"));
    // views that cannot fail leave it to the step
    let mut w = array![0.0f64, 0.0];
    let mut opt = Sgd::default().build().unwrap();
    assert!(text(opt.step(&mut w, &centralize(&short))).contains("needs 2 elements"));
}

/// A tree that does not keep its word.
struct Fickle(Cell<usize>, Vec<Array1<f64>>);

impl Gradients<f64> for Fickle {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f64>) {
        self.1.iter().take(self.0.get()).enumerate().for_each(|(i, leaf)| visitor.child(i, leaf));
    }
}

#[test]
fn a_tree_that_changes_under_its_view_is_an_error() {
    let grads = Fickle(Cell::new(1), vec![array![1.0], array![2.0]]);
    let mut w = (array![0.0f64], array![0.0f64]);
    let mut opt: Optim<_, f64> = Sgd::default().build().unwrap();
    let view = sign(&grads);
    opt.step(&mut w, &view).unwrap();
    grads.0.set(2);
    let error = opt.step(&mut w, &view).unwrap_err().to_string();
    assert!(error.starts_with("`1`: the tree hands out other gradients"), "{error}");
    assert_eq!(w.1, array![0.0]);
}
