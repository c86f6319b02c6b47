//! The optimizers that wrappers are tried around.

use crate::model::{Leaf, leaves, noise};
use eigenstep::optim::Optimizer;
use eigenstep::prelude::*;

pub type Boxed = Box<dyn Optimizer<f64>>;
pub type Build = fn() -> Boxed;
pub type Model = Vec<Leaf<f64>>;

/// A matrix, a vector long enough for few bits, another tensor, and a scalar.
pub const SHAPES: [&[usize]; 4] = [&[66, 65], &[4200], &[2, 3, 4], &[]];

pub fn model() -> Model {
    leaves(1, &SHAPES)
}

/// Every kind of optimizer, made anew by each call.
pub fn inners() -> Vec<(&'static str, Build)> {
    vec![
        ("Sgd", || Box::new(Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() }.build().unwrap())),
        ("AdamW", || Box::new(adamw().build().unwrap())),
        ("AdamW in 8 bits", || {
            let opt = adamw().build().unwrap();
            Box::new(opt.with_state_precision(Precision::INT8_DYNAMIC).unwrap())
        }),
        ("AdamW in 4 bits, rank-1 scales", || {
            let opt = adamw().build().unwrap();
            Box::new(opt.with_state_precision(Precision::INT4_LPMM).unwrap())
        }),
        ("AdamW with Kahan sums", || {
            Box::new(adamw().build().unwrap().with_rounding(Rounding::Kahan).unwrap())
        }),
        ("Muon", || Box::new(Muon { lr: 0.02, ..Muon::default() }.build().unwrap())),
        ("Shampoo", || {
            let (update_factors_every, update_roots_every) = (1, 2);
            let inner = Sgd { lr: 0.01, momentum: 0.9, ..Sgd::default() };
            let shampoo =
                Shampoo { inner, update_factors_every, update_roots_every, ..Shampoo::default() };
            Box::new(shampoo.build().unwrap())
        }),
        ("Schedule-Free", || {
            Box::new(
                ScheduleFreeAdamW { lr: 0.05, ..ScheduleFreeAdamW::default() }.build().unwrap(),
            )
        }),
        ("ErrorFeedback", || Box::new(ErrorFeedback::sparse(adamw(), 0.1).build().unwrap())),
        ("Partitioned", || {
            let muon = Muon { lr: 0.02, ..Muon::default() }.build().unwrap();
            let parts = Partitioned::new(adamw().build().unwrap()).with(Select::ndim(2..=2), muon);
            Box::new(parts.frozen(Select::ndim(3..)))
        }),
        ("Lookahead", || {
            let options = LookaheadOptions { k: 2, alpha: 0.25, ..LookaheadOptions::default() };
            Box::new(Lookahead::with_options(adamw().build().unwrap(), options).unwrap())
        }),
    ]
}

pub fn adamw() -> AdamW {
    AdamW { lr: 0.02, ..AdamW::default() }
}

/// Loss and gradients of `Σ a·p²/2` with `a` between 0.5 and 1.5.
pub fn evaluate(model: &mut Model) -> (f64, Model) {
    let mut grads = model.clone();
    let mut loss = 0.0;
    for (seed, leaf) in grads.iter_mut().enumerate() {
        for (i, x) in leaf.values.iter_mut().enumerate() {
            let a = 1.0 + noise(50 + seed as u64, i as u64) / 2.0;
            loss += a * *x * *x / 2.0;
            *x *= a;
        }
    }
    (loss, grads)
}

/// Parameters and whole state of an optimizer, as bits.
pub fn same_state(what: &str, one: (&Model, &StateDict), other: (&Model, &StateDict)) {
    assert!(crate::model::all_bits(one.0) == crate::model::all_bits(other.0), "{what}: parameters");
    assert!(one.1 == other.1, "{what}: state");
}
