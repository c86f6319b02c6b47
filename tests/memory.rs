//! State takes the bytes that it says, and a steady training loop allocates nothing.
//!
//! One test in one process: a counter of allocations sees all threads.
// the allocator is counted here; a test that fails says so by panicking
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "common/model.rs"]
mod model;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::error_feedback::{
    Compression, MFac, MicroAdam, ResidualFormat, Selection, SparseConfig,
};
use eigenstep::optim::Optimizer;
use eigenstep::params::{Gradients, Parameters, Scaled};
use eigenstep::prelude::{
    Adafactor, FactorStorage, MatrixMethod, Precision, Rounding, Rule, Sgd, Shampoo, VectorMethod,
};
use eigenstep::quant::MatrixCodec;
use model::*;
use ndarray::{Array1, Array2};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};
use threads::on_threads;

struct Counting;
static LIVE: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(size as isize - layout.size() as isize, Relaxed);
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that an optimizer frees when it is dropped, against those that it said it held.
///
/// What `state_bytes` leaves out, as it says: the work list (less than a KiB per unit of 16 384
/// elements), names, shapes, and the empty lists around them (less than 10 KiB).
fn state_takes_what_it_says(subject: &Subject) {
    let shapes: [&[usize]; 2] = [&[128, 1024], &[70_000]];
    let units = 8 + 5;
    let mut params: Vec<Leaf<f32>> = leaves(1, &shapes);
    let grads = gradients(0, &params);
    for config in [subject.config(), busy(subject)] {
        for precision in PRECISIONS {
            for rounding in [Rounding::Master, Rounding::Kahan] {
                let opt: Opt<f32> = config.optimizer().unwrap();
                let opt = opt.with_state_precision(precision).unwrap();
                let mut opt = opt.with_rounding(rounding).unwrap();
                (0..2).for_each(|_| opt.step(&mut params, &inputs(subject, 0, &grads)).unwrap());
                let said = opt.state_bytes().total() as isize;
                assert_eq!(opt.state_bytes().parameters(), 128 * 1024 + 70_000);
                // the box around it is no state
                let before = LIVE.load(Relaxed) - size_of_val(&*opt) as isize;
                drop(opt);
                let freed = before - LIVE.load(Relaxed);
                let slack = 1024 * units + 10_240;
                assert!(
                    (said..=said + slack).contains(&freed),
                    "{}, {precision:?}, {rounding:?}: said {said}, freed {freed}",
                    subject.name
                );
            }
        }
    }
}

/// The same for matrix methods: factors, in every storage.
fn factors_take_what_they_say() {
    let codec = MatrixCodec::default();
    let (m, n) = (300, 257);
    let triangle =
        |n: usize| (0..n).map(|i| i.div_ceil(2) + 4 * i.div_ceil(64)).sum::<usize>() + 4 * n;
    let columns = |n: usize| n * n.div_ceil(2) + 4 * n * n.div_ceil(64);
    let expected: [(FactorStorage, &dyn Fn(usize) -> usize); 7] = [
        (FactorStorage::Dense, &|n| 8 * n * n),
        (FactorStorage::Double, &|n| 12 * n * n),
        (FactorStorage::Eigen, &|n| 8 * n * n + 4 * n),
        (FactorStorage::Naive(codec), &|n| 2 * columns(n) + 8 * n),
        (FactorStorage::EIGEN4, &|n| 2 * columns(n) + 8 * n),
        (FactorStorage::CHOLESKY4, &|n| 2 * triangle(n) + columns(n) + 4 * n),
        (FactorStorage::Cholesky { codec, error_beta: None }, &|n| {
            triangle(n) + columns(n) + 4 * n
        }),
    ];
    for (storage, factor) in expected {
        let method = Shampoo {
            inner: Sgd::default(),
            storage,
            update_factors_every: 1,
            update_roots_every: 1,
            ..Shampoo::default()
        };
        let mut opt = method.build::<f32>().unwrap();
        let mut w = Array2::<f32>::zeros((m, n));
        let g = Array2::from_shape_fn((m, n), |(i, j)| ((i * n + j) as f32).sin());
        (0..2).for_each(|_| opt.step(&mut w, &g).unwrap());
        let said = opt.state_bytes().total();
        assert_eq!(said, factor(m) + factor(n) + 4 * m * n, "{storage:?}");
        let before = LIVE.load(Relaxed);
        drop(opt);
        let freed = before - LIVE.load(Relaxed);
        let said = said as isize;
        assert!((said..=said + 16_384).contains(&freed), "{storage:?}: said {said}, freed {freed}");
    }
}

/// Means over rows and columns: nothing of the size of the parameters is held, not even for one step.
fn factored_state_is_rows_and_columns() {
    let (m, n) = (1024, 3072);
    let (mut w, g) = (Array2::<f32>::ones((m, n)), Array2::from_elem((m, n), 0.1));
    let before = LIVE.load(Relaxed);
    let mut opt = Adafactor::default().build::<f32>().unwrap();
    (0..2).for_each(|_| opt.step(&mut w, &g).unwrap());
    let held = LIVE.load(Relaxed) - before;
    let said = opt.state_bytes();
    assert_eq!((said.slot("row_var"), said.slot("col_var")), (4 * m, 4 * n));
    // sums of 16 units at most
    assert!(said.total() <= 4 * (m + n) + 16 * 8 * (m + n) + 200, "{said}");
    // with the work list, names, and scratch of a thread
    let numel = (m * n) as isize;
    assert!(held <= said.total() as isize + 300_000 && held < numel / 2, "{held}, said {said}");
}

/// Windows of gradients: S-MFAC at 1 % with 1024 of them takes 62 bytes per parameter beside the
/// residual, 41 with values in bfloat16; MicroAdam takes one.
fn windows_take_what_they_say() {
    // so many that the Gram matrix, 8 MiB, is of little account; most of the window is never touched
    let numel = 25_000_000;
    let (mut w, g) = (Array1::<f32>::zeros(numel), Array1::from_elem(numel, 0.1));
    let mut measure = |mut opt: Box<dyn Optimizer<f32>>| {
        opt.step(&mut w, &g).unwrap();
        let said = opt.state_bytes();
        let before = LIVE.load(Relaxed);
        drop(opt);
        let freed = before - LIVE.load(Relaxed);
        // beside the state: the selected indices, 4 bytes per kept element, and lists of units
        let slack = (numel / 100 * 8 + 400_000) as isize;
        let total = said.total() as isize;
        assert!((total..=total + slack).contains(&freed), "said {total}, freed {freed}");
        let slots = said.slots().map(|(name, bytes)| (name.to_owned(), bytes)).collect::<Vec<_>>();
        let of = |slot: &str| slots.iter().find(|(name, _)| name == slot).map_or(0, |(_, n)| *n);
        let residual = of("residual");
        ((said.total() - residual) as f64 / numel as f64, residual as f64 / numel as f64)
    };
    let sparse = |residual, bf16_values| {
        let selection = Selection::BlockTopK { density: 0.01, block: 4000 };
        let config = SparseConfig { selection, residual, bf16_values, feedback: true };
        let compression = Compression::Sparse(config);
        Box::new(MFac { window: 1024, compression, ..MFac::default() }.build::<f32>().unwrap())
    };
    let (window, residual) = measure(sparse(ResidualFormat::Full, false));
    assert!(window <= 62.0 && residual == 4.0, "{window} and {residual}");
    let (window, residual) = measure(sparse(ResidualFormat::Nibble { block: 64 }, true));
    assert!(window <= 41.6 && residual <= 0.63, "{window} and {residual}");
    let (window, residual) = measure(Box::new(MicroAdam::default().build::<f32>().unwrap()));
    assert!(window + residual <= 1.05, "{window} and {residual}");
}

/// Runs steps until five in a row allocate nothing; panics if that never happens.
///
/// On several threads it may take a while until every one of them has had work, and so its scratch.
fn settles<P: Parameters<f32>, G: Gradients<f32>>(
    subject: &Subject,
    what: &str,
    (precision, patience): (Precision, usize),
    params: &mut P,
    grads: &G,
) {
    for config in [subject.config(), busy(subject)] {
        let opt: Opt<f32> = config.optimizer().unwrap();
        let mut opt = opt.with_state_precision(precision).unwrap();
        let (mut quiet, mut steps, mut last) = (0, 0, 0);
        while quiet < 5 {
            let before = ALLOCATIONS.load(Relaxed);
            opt.step(params, &inputs(subject, steps as u64, grads)).unwrap();
            last = match ALLOCATIONS.load(Relaxed) - before {
                0 => last,
                some => some,
            };
            quiet = if ALLOCATIONS.load(Relaxed) == before { quiet + 1 } else { 0 };
            steps += 1;
            assert!(
                steps < patience || quiet > 0 && steps < patience + 5,
                "{} with {precision:?}, {what}: {last} allocations in step {steps}",
                subject.name
            );
        }
    }
}

struct Layer {
    weight: Array2<f32>,
    bias: Option<Array1<f32>>,
}
eigenstep::parameters!(Layer { weight, bias }: f32);

fn steady_steps_allocate_nothing(subject: &Subject) {
    let matrix = |x: f32| Array2::from_shape_fn((70, 61), |(i, j)| x * ((i * 61 + j) as f32).sin());
    let vector = |x: f32| Array1::from_shape_fn(4100, |i| x * (i as f32).cos());
    let layer = |x: f32| Layer { weight: matrix(x), bias: Some(vector(x)) };
    for precision in PRECISIONS {
        // the first step makes the state, the third one has seen every buffer full
        let serial = (precision, 4);
        settles(subject, "one array", serial, &mut matrix(1.0), &matrix(0.1));
        let (mut tuple, grads) = ((matrix(1.0), vector(1.0)), (matrix(0.1), vector(0.1)));
        settles(subject, "a tuple", serial, &mut tuple, &grads);
        let mut list = vec![layer(1.0), layer(0.5), layer(0.25)];
        let grads = vec![layer(0.1), layer(0.2), Layer { bias: None, ..layer(0.3) }];
        settles(subject, "structs in a list", serial, &mut list, &grads);
        settles(subject, "a scaled view", serial, &mut list, &Scaled::new(0.5, &grads));
    }
    on_threads(2, || {
        for precision in [Precision::Full, Precision::INT8_LINEAR, Precision::INT4_LPMM] {
            let (mut large, grads) = (Array2::<f32>::ones((512, 300)), Array2::ones((512, 300)));
            settles(subject, "two threads", (precision, 200), &mut large, &grads);
        }
    });
}

#[test]
fn memory() {
    let (allocations, live) = (ALLOCATIONS.load(Relaxed), LIVE.load(Relaxed));
    let block = std::hint::black_box(vec![1u8; 1000]);
    assert!(ALLOCATIONS.load(Relaxed) > allocations, "the counter does not count");
    assert!(LIVE.load(Relaxed) >= live + block.len() as isize);
    factors_take_what_they_say();
    windows_take_what_they_say();
    factored_state_is_rows_and_columns();
    macro_rules! every_rule {
        ($rule:ident) => {
            state_takes_what_it_says(&named::$rule);
            steady_steps_allocate_nothing(&named::$rule);
        };
    }
    eigenstep::for_each_first_order!(every_rule);
}
