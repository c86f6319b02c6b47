//! Gradients that are absent, zero, generated, sparse or seen through a factor; other ways to call a step.

use crate::model::*;
use eigenstep::optim::{Mode, Optimizer};
use eigenstep::params::{Generate, GradVisitor, Gradients, RowGradient, Scaled, Select};
use ndarray::Array2;

/// Entries of the state dict that belong to parameter `name`.
fn entries(opt: &dyn Optimizer<f32>, name: &str) -> Vec<String> {
    let (dict, prefix) = (opt.state_dict(), format!("state.{name}."));
    let scalars = dict.scalars.iter().map(|(key, x)| (key, format!("{x:?}")));
    let tensors = dict.tensors.iter().map(|(key, x)| (key, format!("{:?}", x.bytes)));
    let entries = scalars.chain(tensors).filter(|(key, _)| key.starts_with(&prefix));
    entries.map(|(key, value)| format!("{key} {value}")).collect()
}

pub fn absent_gradients_change_nothing(subject: &Subject) {
    for config in variants(subject) {
        let mut opt: Opt<f32> = config.optimizer().unwrap();
        let mut params = leaves::<f32>(1, &[&[40], &[5, 6]]);
        let some = |step: u64, params: &[Leaf<f32>]| {
            let mut grads: Vec<_> = gradients(step, params).into_iter().map(Some).collect();
            grads[1] = None;
            grads
        };
        // never a gradient: no state, no step count
        let before = bits(&params[1].values);
        let grads = some(0, &params);
        opt.step(&mut params, &inputs(subject, 0, &grads)).unwrap();
        assert_eq!(bits(&params[1].values), before, "{config:?}");
        assert_eq!((opt.steps("0"), opt.steps("1")), (Some(1), None));
        assert!(entries(&opt, "1").is_empty());
        // in mid-run: the state stays as it is
        train_as(subject, &mut opt, &mut params, 1..3);
        let (before, state) = (bits(&params[1].values), entries(&opt, "1"));
        let grads = some(3, &params);
        opt.step(&mut params, &inputs(subject, 3, &grads)).unwrap();
        assert_eq!(bits(&params[1].values), before, "{config:?}");
        assert_eq!(entries(&opt, "1"), state, "{config:?}");
        assert_eq!((opt.steps("0"), opt.steps("1")), (Some(4), Some(2)));
        // no gradient at all: nothing whatever happens
        let (before, state) = (all_bits(&params), opt.state_dict());
        opt.step(&mut params, &()).unwrap();
        opt.step(&mut params, &vec![None::<Leaf<f32>>; 2]).unwrap();
        assert_eq!(all_bits(&params), before, "{config:?}");
        assert_eq!(opt.state_dict(), state, "{config:?}");
    }
}

pub fn zero_gradients_are_steps(subject: &Subject) {
    for config in variants(subject) {
        let (mut opt, mut params) = trained::<f32>(&config, 2);
        let mut grads = gradients(2, &params);
        grads.iter_mut().for_each(|leaf| leaf.values.fill(0.0));
        let state = opt.state_dict();
        opt.step(&mut params, &inputs(subject, 2, &grads)).unwrap();
        assert_eq!(opt.steps("0"), Some(3), "{config:?}");
        assert_ne!(opt.state_dict(), state, "{config:?}");
        assert!(all_values(&params).iter().all(|x| x.is_finite()), "{config:?}");
        // from the start: finite, and the state exists
        let mut opt: Opt<f32> = config.optimizer().unwrap();
        opt.step(&mut params, &inputs(subject, 2, &grads)).unwrap();
        assert_eq!(opt.steps("0"), Some(1));
        assert!(all_values(&params).iter().all(|x| x.is_finite()), "{config:?}");
    }
}

/// A gradient that exists only chunk by chunk.
struct Chunked(Leaf<f32>);
impl Generate<f32> for Chunked {
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn fill(&self, offset: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.0.values[offset..offset + out.len()]);
    }
}
impl Gradients<f32> for Chunked {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

/// Checks that `with` leads where `plain` leads.
fn same<P: Gradients<f32>, G: Gradients<f32>>(
    subject: &Subject,
    shapes: &[&[usize]],
    plain: impl Fn(u64, &[Leaf<f32>]) -> P,
    with: impl Fn(u64, &[Leaf<f32>]) -> G,
) {
    for config in [subject.config(), busy(subject)] {
        let mut params = leaves::<f32>(1, shapes);
        let mut copy = params.clone();
        let (mut opt, mut other): (Opt<f32>, Opt<f32>) =
            (config.optimizer().unwrap(), config.optimizer().unwrap());
        for step in 0..3 {
            let (plain, with) = (plain(step, &params), with(step, &params));
            opt.step(&mut params, &inputs(subject, step, &plain)).unwrap();
            other.step(&mut copy, &inputs(subject, step, &with)).unwrap();
        }
        assert_eq!(all_bits(&copy), all_bits(&params), "{config:?}");
        assert_eq!(other.state_dict(), opt.state_dict(), "{config:?}");
    }
}

pub fn generated_is_dense(subject: &Subject) {
    same(subject, &[&[17_001], &[3, 5], &[]], gradients, |step, params| {
        gradients(step, params).into_iter().map(Chunked).collect::<Vec<_>>()
    });
}

/// A gradient that is asked for its elements and writes none.
struct Silent(Vec<usize>);

impl Generate<f32> for Silent {
    fn shape(&self) -> &[usize] {
        &self.0
    }
    fn fill(&self, _: usize, _: &mut [f32]) {}
}
impl Gradients<f32> for Silent {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.generated(self);
    }
}

/// What a generator does not write is 0, not what the step before has left in lent memory.
pub fn what_is_not_generated_is_zero(subject: &Subject) {
    let zeros = |leaf: &Leaf<f32>| Leaf { values: vec![0.0; leaf.values.len()], ..leaf.clone() };
    same(
        subject,
        &[&[5_001], &[30, 5], &[]],
        |step, params| match step {
            1 => params.iter().map(zeros).collect(),
            _ => gradients(step, params),
        },
        |step, params| {
            let chunked = |leaf| Err(Chunked(leaf));
            match step {
                1 => params.iter().map(|leaf| Ok(Silent(leaf.shape.clone()))).collect::<Vec<_>>(),
                _ => gradients(step, params).into_iter().map(chunked).collect(),
            }
            .into_iter()
            .map(Either)
            .collect::<Vec<_>>()
        },
    );
}

struct Either(Result<Silent, Chunked>);

impl Gradients<f32> for Either {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        match &self.0 {
            Ok(silent) => silent.visit(visitor),
            Err(chunked) => chunked.visit(visitor),
        }
    }
}

/// Some rows, given out of order and one of them twice.
fn rows(step: u64, leaf: &Leaf<f32>) -> RowGradient<f32> {
    let width: usize = leaf.shape[1..].iter().product();
    let rows = vec![leaf.shape[0] - 1, 1, (step as usize) % leaf.shape[0], 1];
    let values = Array2::from_shape_vec((4, width), random(50 + step, 4 * width)).unwrap();
    RowGradient::new(&leaf.shape, rows, values).unwrap()
}

/// But for the rule that is meant to leave the other rows alone.
pub fn rows_are_dense(subject: &Subject) {
    if subject.name == "SparseAdam" {
        return;
    }
    let dense = |step, params: &[Leaf<f32>]| {
        let dense = |leaf: &Leaf<f32>| {
            let width: usize = leaf.shape[1..].iter().product();
            let mut values = vec![0.0f32; leaf.values.len()];
            let given = random::<f32>(50 + step, 4 * width);
            let indices = [leaf.shape[0] - 1, 1, (step as usize) % leaf.shape[0], 1];
            for (row, given) in indices.iter().zip(given.chunks(width)) {
                let row = &mut values[row * width..(row + 1) * width];
                row.iter_mut().zip(given).for_each(|(x, g)| *x += g);
            }
            Leaf { shape: leaf.shape.clone(), values }
        };
        params.iter().map(dense).collect::<Vec<_>>()
    };
    // rows that straddle units of work, rows of several dimensions, rows of one number
    same(subject, &[&[5, 7001], &[4, 3, 2], &[9]], dense, |step, params| {
        params.iter().map(|leaf| rows(step, leaf)).collect::<Vec<_>>()
    });
}

/// Gradients times a factor.
struct Times<G>(f64, G);
impl<G: Gradients<f32>> Gradients<f32> for Times<G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.scaled(self.0, &self.1);
    }
}

/// Gradients clamped to a bound.
struct Bounded<G>(f64, G);
impl<G: Gradients<f32>> Gradients<f32> for Bounded<G> {
    fn visit<'a>(&'a self, visitor: &mut GradVisitor<'a, f32>) {
        visitor.clamped(self.0, &self.1);
    }
}

pub fn scaled_and_clamped_are_explicit(subject: &Subject) {
    fn map(f: impl Fn(f32) -> f32 + Copy) -> impl Fn(u64, &[Leaf<f32>]) -> Vec<Leaf<f32>> {
        move |step, params| {
            let mut grads = gradients(step, params);
            grads.iter_mut().flat_map(|leaf| &mut leaf.values).for_each(|g| *g = f(*g));
            grads
        }
    }
    let shapes: &[&[usize]] = &[&[17_001], &[3, 5], &[]];
    same(subject, shapes, map(|g| g * 0.3), |step, params| Times(0.3, gradients(step, params)));
    same(subject, shapes, map(|g| g.clamp(-0.4, 0.4)), |step, params| {
        Bounded(0.4, gradients(step, params))
    });
    same(subject, shapes, map(|g| (g * 0.5).clamp(-0.25, 0.25)), |step, params| {
        Bounded(0.25, Times(0.5, gradients(step, params)))
    });
    same(subject, shapes, map(|g| g.clamp(-0.25, 0.25) * -0.5), |step, params| {
        Times(-0.5, Bounded(0.25, gradients(step, params)))
    });
    same(subject, shapes, map(|g| g * 0.125), |step, params| {
        // a factor inside a factor, over a gradient that exists only chunk by chunk
        let chunked: Vec<_> = gradients(step, params).into_iter().map(Chunked).collect();
        Times(0.25, Times(0.5, chunked))
    });
    // the ready-made view
    let (mut opt, mut params) = trained::<f32>(&subject.config(), 0);
    let (mut other, mut copy) = trained::<f32>(&subject.config(), 0);
    for step in 0..3 {
        let grads = gradients(step, &params);
        let times = Times(0.7, grads.clone());
        opt.step(&mut params, &inputs(subject, step, &times)).unwrap();
        let scaled = Scaled::new(0.7, &grads);
        other.step(&mut copy, &inputs(subject, step, &scaled)).unwrap();
    }
    assert_eq!(all_bits(&copy), all_bits(&params));
}

pub fn a_boxed_optimizer_is_the_optimizer(subject: &Subject) {
    for config in variants(subject) {
        let (opt, expected) = trained::<f32>(&config, 4);
        let mut boxed: Box<dyn Optimizer<f32>> = Box::new(config.optimizer::<f32>().unwrap());
        let mut params = leaves::<f32>(1, &SHAPES);
        for step in 0..4 {
            let grads = gradients(step, &params);
            boxed.step(&mut params, &inputs(subject, step, &grads)).unwrap();
        }
        assert_eq!(all_bits(&params), all_bits(&expected), "{config:?}");
        assert_eq!(boxed.state_dict(), opt.state_dict());
        assert_eq!((boxed.name(), boxed.num_groups()), (subject.name, 1));
        assert_eq!(boxed.state_bytes(), opt.state_bytes());
        assert_eq!(boxed.lr(0), config.option("lr").unwrap());
    }
}

/// Two groups are two optimizers, unless the method measures all tensors together.
pub fn groups_are_optimizers(subject: &Subject) {
    for config in variants(subject) {
        let together = [
            "Adai",
            "Prodigy",
            "DAdaptAdam",
            "DAdaptSgd",
            "DAdaptAdagrad",
            "DAdaptLion",
            "MFac",
            "Ggt",
            "SpsMax",
            "Momo",
            "MomoAdam",
        ]
        .contains(&subject.name)
            || config.option("max_grad_norm").is_some_and(|c| c > 0.0);
        if together {
            continue;
        }
        let halve = |config: &mut Config| {
            let lr = config.option("lr").unwrap();
            config.set_option("lr", lr / 2.0).unwrap();
        };
        let opt: Opt<f32> = config.optimizer().unwrap();
        let mut opt = opt.with_group(Select::name("1"), halve).unwrap();
        let mut params = leaves::<f32>(1, &SHAPES);
        train_as(subject, &mut opt, &mut params, 0..4);
        let mut second = config.clone();
        halve(&mut second);
        let (_, mut expected) = trained::<f32>(&config, 4);
        expected[1] = trained::<f32>(&second, 4).1.remove(1);
        assert_eq!(all_bits(&params), all_bits(&expected), "{config:?}");
        assert_eq!((opt.num_groups(), opt.lr(1)), (2, config.option("lr").unwrap() / 2.0));
    }
}

/// A rate of zero moves nothing, and what was set is what is read.
pub fn options_change_from_the_next_step(subject: &Subject) {
    let (mut opt, mut params) = trained::<f64>(&subject.config(), 3);
    let before = all_bits(&params);
    opt.set_lr(0, 0.0).unwrap();
    assert_eq!(opt.lr(0), 0.0);
    let mut frozen = params.clone();
    train_as(subject, &mut opt, &mut frozen, 3..4);
    if subject.has_eval_mode || subject.name == "MadGrad" {
        // the average still follows the other point
        assert!(all_values(&frozen).iter().all(|x| x.is_finite()));
    } else {
        assert_eq!(all_bits(&frozen), before);
    }
    opt.set_lr(0, 0.01).unwrap();
    train_as(subject, &mut opt, &mut params, 4..6);
    assert_ne!(all_bits(&params), before);
}

/// Going to the point of evaluation and back changes no state, however coarse its codes are.
pub fn evaluation_leaves_the_state_alone(subject: &Subject) {
    for precision in PRECISIONS {
        let mut opt: Opt<f32> = subject.optimizer().unwrap();
        for slot in subject.slots() {
            opt = opt.with_slot_precision(slot.name, precision).unwrap();
        }
        let mut params = leaves(1, &SHAPES);
        train_as(subject, &mut opt, &mut params, 0..3);
        let (state, before) = (opt.state_dict(), all_values(&params));
        opt.eval(&mut params).unwrap();
        assert_eq!(opt.mode() == Mode::Eval, subject.has_eval_mode);
        assert_eq!(opt.state_dict().tensors, state.tensors, "{precision:?}");
        opt.train(&mut params).unwrap();
        assert_eq!(opt.state_dict(), state, "{precision:?}");
        for (before, after) in before.into_iter().zip(all_values(&params)) {
            assert!((before - after).abs() <= 1e-6, "{precision:?}: {before}, then {after}");
        }
    }
}
