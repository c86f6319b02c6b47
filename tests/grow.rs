//! Parameters that get more rows while training: the state of the old rows stays, and the new rows are, to the
//! bit, a parameter of their own.
// a test that fails says so by panicking; the helpers serve other tests too
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;

use eigenstep::numeric::Element;
use eigenstep::optim::Optimizer;
use eigenstep::params::{
    Generate, GradVisitor, Gradients, ParamVisitor, Parameters, RowGradient, Scaled,
};
use eigenstep::prelude::{AdamW, Precision, Rule, ScheduleFreeAdamW, Sgd, StateDict};
use eigenstep::quant::StatePolicy;
use eigenstep::{Error, Result};
use model::*;

/// Elements per row: some blocks of codes end within a row.
const WIDTH: usize = 70;
const FORMATS: [Precision; 4] =
    [Precision::Full, Precision::Bf16, Precision::INT8_DYNAMIC, Precision::INT4_LPMM];

/// Leaves under names of the test's choice.
#[derive(Clone, Debug)]
struct Tree<T>(Vec<(String, Leaf<T>)>);

impl<T: Element> Parameters<T> for Tree<T> {
    fn visit_mut<'a>(&'a mut self, visitor: &mut ParamVisitor<'a, T>) {
        for (name, leaf) in &mut self.0 {
            visitor.child(name, leaf);
        }
    }
}

impl<T: Element> Gradients<T> for Tree<T> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, T>) {
        for (name, leaf) in &self.0 {
            visitor.child(name, leaf);
        }
    }
}

fn leaf<T: Element>(shape: &[usize], values: &[T]) -> Leaf<T> {
    Leaf { shape: shape.to_vec(), values: values.to_vec() }
}

/// An embedding of `rows` rows, and a bias. The rows begin at these numbers as leaves of their own.
fn tree<T: Element>(seed: u64, rows: usize, starts: &[usize]) -> Tree<T> {
    let values = random::<T>(seed, rows * WIDTH);
    let mut leaves = Vec::new();
    let ends = starts.iter().skip(1).copied().chain([rows]);
    for (&start, end) in starts.iter().zip(ends) {
        let name = if start == 0 { "emb".into() } else { format!("emb[{start}..]") };
        let own = &values[start * WIDTH..end * WIDTH];
        leaves.push((name, leaf(&[end - start, WIDTH], own)));
    }
    leaves.push(("bias".into(), leaf(&[5], &random::<T>(seed + 1, 5))));
    Tree(leaves)
}

fn values<T: Element>(tree: &Tree<T>) -> Vec<u8> {
    tree.0.iter().flat_map(|(_, leaf)| bits(&leaf.values)).collect()
}

/// One step with gradients that depend on the step's number alone.
fn step<T: Element>(
    subject: &Subject,
    opt: &mut dyn Optimizer<T>,
    params: &mut Tree<T>,
    number: u64,
    (rows, starts): (usize, &[usize]),
) -> Result<()> {
    let grads = tree::<T>(900 + 10 * number, rows, starts);
    opt.step(params, &inputs(subject, number, &grads))
}

fn build<T: Element>(subject: &Subject, precision: Precision) -> Opt<T> {
    let opt: Opt<T> = subject.optimizer().unwrap();
    let policy = StatePolicy { precision, min_numel: 0, whole_blocks: false };
    opt.with_state_policy(policy).unwrap()
}

/// The old values, and new rows below them.
fn grown<T: Element>(params: &Tree<T>, rows: usize, starts: &[usize]) -> Tree<T> {
    let mut larger = tree::<T>(5, rows, starts);
    let old: Vec<T> = params.0[..params.0.len() - 1]
        .iter()
        .flat_map(|(_, leaf)| leaf.values.iter().copied())
        .collect();
    let mut at = 0;
    for (_, leaf) in &mut larger.0 {
        for x in &mut leaf.values {
            *x = old.get(at).copied().unwrap_or(*x);
            at += 1;
        }
    }
    larger.0.pop();
    larger.0.push(params.0[params.0.len() - 1].clone());
    larger
}

fn new_rows_are_a_parameter_of_their_own<T: Element>(subject: &Subject, precision: Precision) {
    let what = format!("{} {} {precision:?}", subject.name, T::NAME);
    let (mut opt, mut twin) = (build::<T>(subject, precision), build::<T>(subject, precision));
    let (mut params, mut apart) = (tree::<T>(1, 6, &[0]), tree::<T>(1, 6, &[0]));
    let (mut number, mut starts) = (0, vec![0]);
    for rows in [6, 9, 10] {
        if rows > 6 {
            let before = opt.state_dict();
            let mut larger = grown(&params, rows, &[0]);
            // not a word was said: refused, with the way out
            let error = step(subject, &mut opt, &mut larger, number, (rows, &[0])).unwrap_err();
            assert!(matches!(error, Error::AddedRows { .. }), "{what}: {error}");
            assert!(error.to_string().contains(&format!("grow_rows(\"emb\", {rows})")), "{error}");
            opt.grow_rows("emb", rows).unwrap();
            assert_eq!(opt.state_dict(), before, "{what}");
            starts.push(match rows {
                9 => 6,
                _ => 9,
            });
            apart = grown(&apart, rows, &starts);
            params = larger;
        }
        for _ in 0..3 {
            step(subject, &mut opt, &mut params, number, (rows, &[0])).unwrap();
            step(subject, &mut twin, &mut apart, number, (rows, &starts)).unwrap();
            number += 1;
            assert_eq!(values(&params), values(&apart), "{what}: {rows} rows, step {number}");
            assert_eq!(opt.state_dict(), twin.state_dict(), "{what}: {rows} rows");
        }
        // saved and loaded, it goes on
        let mut again = build::<T>(subject, precision);
        again.load_state_dict(&opt.state_dict()).unwrap();
        assert_eq!(again.state_dict(), opt.state_dict(), "{what}");
        if subject.has_eval_mode {
            let mut other = params.clone();
            again.eval(&mut other).unwrap();
            opt.eval(&mut params).unwrap();
            assert_eq!(values(&other), values(&params), "{what}");
            again.train(&mut other).unwrap();
            opt.train(&mut params).unwrap();
            twin.eval(&mut apart).unwrap();
            twin.train(&mut apart).unwrap();
        }
        opt = again;
    }
    assert_eq!(opt.steps("emb"), Some(9));
}

fn refused(subject: &Subject) {
    let (mut opt, mut params) = (build::<f32>(subject, Precision::Full), tree::<f32>(1, 6, &[0]));
    step(subject, &mut opt, &mut params, 0, (6, &[0])).unwrap();
    let before = opt.state_dict();
    let error = opt.grow_rows("emb", 9).unwrap_err();
    assert!(matches!(error, Error::CannotGrow { .. }), "{}: {error}", subject.name);
    assert_eq!(opt.state_dict(), before);
    step(subject, &mut opt, &mut params, 1, (6, &[0])).unwrap();
}

macro_rules! rows {
    ($method:ident) => {
        #[allow(non_snake_case)]
        #[test]
        fn $method() {
            for precision in FORMATS {
                new_rows_are_a_parameter_of_their_own::<f32>(&named::$method, precision);
            }
            #[cfg(feature = "half")]
            new_rows_are_a_parameter_of_their_own::<eigenstep::numeric::bf16>(
                &named::$method,
                Precision::Full,
            );
        }
    };
}
eigenstep::for_each_first_order!(rows);
eigenstep_instances::for_each_composition!(rows);
eigenstep::for_each_second_order!(rows);
eigenstep::for_each_low_rank!(rows);

macro_rules! vectors {
    ($method:ident) => {
        #[allow(non_snake_case)]
        #[test]
        fn $method() {
            refused(&named::$method);
        }
    };
}
eigenstep::for_each_error_feedback!(vectors);
eigenstep::for_each_windowed!(vectors);

#[test]
fn what_cannot_grow_is_said() {
    let (mut opt, mut params) =
        (build::<f32>(&named::AdamW, Precision::Full), tree::<f32>(1, 6, &[0]));
    assert!(matches!(opt.grow_rows("emb", 9), Err(Error::MissingParameter { .. })));
    step(&named::AdamW, &mut opt, &mut params, 0, (6, &[0])).unwrap();
    assert!(matches!(opt.grow_rows("embed", 9), Err(Error::MissingParameter { .. })));
    assert!(matches!(opt.grow_rows("emb", 5), Err(Error::ShapeMismatch { .. })));
    // another number of rows than was announced
    opt.grow_rows("emb", 8).unwrap();
    let mut larger = grown(&params, 9, &[0]);
    let error = step(&named::AdamW, &mut opt, &mut larger, 1, (9, &[0])).unwrap_err();
    assert!(matches!(error, Error::AddedRows { .. }), "{error}");
    let error = step(&named::AdamW, &mut opt, &mut params, 1, (6, &[0])).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    // taken back
    opt.grow_rows("emb", 6).unwrap();
    step(&named::AdamW, &mut opt, &mut params, 1, (6, &[0])).unwrap();
    // what is around an optimizer hands it on, or says that it does not
    let mut boxed: Box<dyn Optimizer<f32>> = Box::new(opt);
    boxed.grow_rows("emb", 9).unwrap();
    let mut larger = grown(&params, 9, &[0]);
    step(&named::AdamW, &mut boxed, &mut larger, 2, (9, &[0])).unwrap();
}

/// Bias corrections of the new rows are those of a first step.
#[test]
fn new_rows_count_their_own_steps() {
    let config = AdamW { lr: 1e-2, weight_decay: 0.0, ..AdamW::default() };
    let mut opt = config.build::<f64>().unwrap();
    let mut params = tree::<f64>(1, 6, &[0]);
    for number in 0..100 {
        step(&named::AdamW, &mut opt, &mut params, number, (6, &[0])).unwrap();
    }
    opt.grow_rows("emb", 9).unwrap();
    let mut params = grown(&params, 9, &[0]);
    let before = params.0[0].1.values[6 * WIDTH..].to_vec();
    step(&named::AdamW, &mut opt, &mut params, 100, (9, &[0])).unwrap();
    for (x, y) in before.iter().zip(&params.0[0].1.values[6 * WIDTH..]) {
        assert!(((x - y).abs() - 1e-2).abs() < 1e-6, "{}", x - y);
    }
    let dict = opt.state_dict();
    assert_eq!(dict.scalars["state.emb.step"].as_f64(), Some(101.0));
    assert_eq!(dict.scalars["state.emb[6..].step"].as_f64(), Some(1.0));
}

/// A gradient that says its elements one by one.
struct Spoken<'g>(&'g [f32], [usize; 2]);

impl Generate<f32> for Spoken<'_> {
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn fill(&self, offset: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.0[offset..offset + out.len()]);
    }
}

impl Gradients<f32> for Spoken<'_> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

/// Every kind of gradient reaches the new rows.
#[test]
fn gradients_of_all_kinds_have_new_rows() {
    let gradient = random::<f32>(8, 9 * WIDTH);
    let dense = ndarray::Array2::from_shape_vec((9, WIDTH), gradient.clone()).unwrap();
    let fortran = {
        let mut array = ndarray::Array2::zeros(ndarray::ShapeBuilder::f((9, WIDTH)));
        array.assign(&dense);
        array
    };
    let rows = RowGradient::new(&[9, WIDTH], (0..9).collect(), dense.clone()).unwrap();
    let run = |grads: &dyn Gradients<f32>| {
        let mut opt = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build::<f32>().unwrap();
        let mut w = ndarray::Array2::from_elem((6, WIDTH), 1.0f32);
        let first = w.clone();
        opt.step(&mut w, &first).unwrap();
        opt.grow_rows("param", 9).unwrap();
        let below = ndarray::Array2::from_elem((3, WIDTH), 1.0f32);
        let mut w = ndarray::concatenate![ndarray::Axis(0), w, below];
        opt.step(&mut w, &Scaled::new(0.5, grads)).unwrap();
        (w, opt.state_dict())
    };
    let expected: (_, StateDict) = run(&dense);
    assert_eq!(run(&fortran), expected);
    assert_eq!(run(&rows), expected);
    assert_eq!(run(&Spoken(&gradient, [9, WIDTH])), expected);
    let mut opt = ScheduleFreeAdamW::default().build::<f32>().unwrap();
    let mut w = ndarray::Array2::from_elem((2, 2), 1.0f32);
    let g = w.clone();
    opt.step(&mut w, &g).unwrap();
    opt.grow_rows("param", 3).unwrap();
    // the new rows have no point of evaluation before their first step
    let mut larger = ndarray::Array2::from_elem((3, 2), 1.0f32);
    assert!(opt.eval(&mut larger).is_err());
}
