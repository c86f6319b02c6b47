//! In a steady loop the algebra over trees allocates nothing.
//!
//! One test in one process: a counter of allocations sees all threads.
// the allocator is counted here; a test that fails says so by panicking
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use eigenstep_instances as _;

#[path = "tree/held.rs"]
#[allow(dead_code, reason = "shared with the tests of laws")]
mod held;
#[path = "support/threads.rs"]
mod threads;

use eigenstep::params::{Parameters, Scaled, Select};
use eigenstep::tree::*;
use held::{ORDERS, Tree};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use threads::on_threads;

struct Counting;
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only its number is counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(block) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, block: Block) {
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, block) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, block: Block, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(pointer, block, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f` until five calls in a row allocate nothing; panics if that never happens.
///
/// On several threads it may take a while until every one of them has had work.
fn settles(what: &str, patience: usize, mut f: impl FnMut()) {
    let mut quiet = 0;
    for _ in 0..patience {
        let before = ALLOCATIONS.load(Relaxed);
        f();
        quiet = if ALLOCATIONS.load(Relaxed) == before { quiet + 1 } else { 0 };
        if quiet == 5 {
            return;
        }
    }
    panic!("{what} allocates again and again");
}

fn steady(patience: usize, shapes: &[&[usize]]) {
    for order in ORDERS {
        let mut params = Tree::<f32>::random(shapes, order, 1);
        let grads = Tree::<f32>::random(shapes, order, 2);
        let frozen = Tree(grads.0[1..].to_vec());
        let (mut all, mut some) = (Snapshot::new(), Snapshot::only(Select::ndim(2..)));
        let mut average = TreeVec::<f32>::new();
        let what = |name: &str| format!("{name}, {order:?}");
        settles(&what("retake"), patience, || all.retake(&mut params).unwrap());
        settles(&what("retake of some leaves"), patience, || some.retake(&mut params).unwrap());
        settles(&what("assign"), patience, || average.assign(&params).unwrap());
        settles(&what("restore"), patience, || all.restore(&mut params).unwrap());
        settles(&what("restore of some leaves"), patience, || some.restore(&mut params).unwrap());
        settles(&what("restore_with"), patience, || {
            all.restore_with(&mut params, |_, _, from, to| to.copy_from_slice(from)).unwrap();
        });
        settles(&what("axpy"), patience, || axpy(0.1, &grads, &mut params).unwrap());
        settles(&what("axpy of a view"), patience, || {
            axpy(0.1, &Scaled::new(0.5, &grads), &mut params).unwrap();
        });
        settles(&what("axpy of frozen leaves"), patience, || {
            axpy(0.1, or_zero(&frozen), &mut params).unwrap();
        });
        settles(&what("lerp"), patience, || {
            let params: &mut dyn Parameters<f32> = &mut params;
            lerp(0.1, params, &mut average).unwrap();
        });
        settles(&what("difference"), patience, || {
            difference(&params, &all, &mut average).unwrap();
        });
        settles(&what("dot"), patience, || {
            dot(&params, &average).unwrap();
        });
        settles(&what("norms"), patience, || {
            norm(&params).unwrap();
            norm_max(&grads).unwrap();
        });
    }
}

#[test]
fn a_steady_loop_allocates_nothing() {
    let allocations = ALLOCATIONS.load(Relaxed);
    std::hint::black_box(vec![1u8; 1000]);
    assert!(ALLOCATIONS.load(Relaxed) > allocations, "the counter does not count");
    steady(8, &[&[40, 30], &[7], &[], &[3, 2, 70]]);
    on_threads(2, || steady(200, &[&[300, 700], &[70_000], &[5, 5]]));
}
