//! A steady loop allocates nothing.
// the allocator is counted here
#![allow(unsafe_code)]

use eigenstep::prelude::*;
use eigenstep::zeroth_order::{
    Coordinate, DirectionSampler, Estimator, FitnessShaping, Hizoo, LayerScaled, Lozo,
    QuantizedNormal, Random, ReplayedMomentum, Sparse, Split, Spsa, SubZero, ZerothOrder,
};
use ndarray::{Array1, Array2};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Counted per thread, because other tests run at the same time.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; only numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Model = (Array2<f32>, Vec<Array1<f32>>);

fn steady<E: Estimator<f32>>(what: &str, estimator: E) {
    let opt = Sgd { lr: 1e-6, ..Sgd::default() }.build::<f32>().unwrap();
    let mut pair = ZerothOrder::new(estimator, opt);
    let mut model = (Array2::ones((30, 20)), vec![Array1::ones(7), Array1::ones(3)]);
    let loss = |m: &mut Model| m.0.iter().chain(m.1.iter().flatten()).map(|x| x * x).sum::<f32>();
    for step in 0..6 {
        let before = ALLOCATIONS.get();
        pair.step(&mut model, loss).unwrap();
        let made = ALLOCATIONS.get() - before;
        // the first steps make buffers
        assert!(step < 3 || made == 0, "{what}: {made} allocations in step {step}");
    }
}

fn steady_sampler<S: DirectionSampler>(sampler: S) {
    steady(S::NAME, Spsa { num_samples: 2, ..Spsa::with_sampler(sampler) }.build().unwrap());
}

#[test]
fn steady_steps_allocate_nothing() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(ALLOCATIONS.get(), before + 1);
    for random in [
        Random::Rademacher,
        Random::Gaussian,
        Random::Sphere,
        Random::ScaledSphere,
        Random::BlockSphere,
    ] {
        steady_sampler(random);
    }
    steady_sampler(Sparse::default());
    steady_sampler(ReplayedMomentum { momentum: 0.5, floor: 0.5, ..ReplayedMomentum::default() });
    steady_sampler(Split::new(Select::ndim(2..), Random::Sphere, Random::Rademacher));
    steady_sampler(LayerScaled::default());
    steady_sampler(QuantizedNormal::default());
    steady("Coordinate", Coordinate::default().build().unwrap());
}

/// Those that need scratch memory; nothing grows.
#[test]
fn other_samplers_allocate_a_constant_number() {
    fn constant<S: DirectionSampler>(sampler: S, most: usize) {
        let config = Spsa { num_samples: 2, ..Spsa::with_sampler(sampler) };
        let mut estimator = config.build::<f32>().unwrap();
        let mut w = Array2::<f32>::ones((30, 20));
        for step in 0..6 {
            let before = ALLOCATIONS.get();
            estimator.estimate(&mut w, |w| w.sum()).unwrap();
            let made = ALLOCATIONS.get() - before;
            assert!(step < 3 || made <= most, "{}: {made} in step {step}", S::NAME);
        }
    }
    constant(Lozo::default(), 8);
    constant(Lozo { momentum: 0.5, ..Lozo::default() }, 16);
    constant(SubZero::default(), 16);
    constant(Hizoo { alpha: 0.1, centered: false }, 16);
    let config = Spsa { shaping: FitnessShaping::CenteredRank, ..Spsa::default() };
    assert!(config.build::<f32>().is_ok());
}
