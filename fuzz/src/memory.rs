//! An allocator that counts, and readers that may use no more than a multiple of their input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that a reader may hold for each byte of its input, and those that it may hold anyway.
///
/// The factor has to allow a name and a list for a parameter of one code, and a step that decodes
/// 4-bit codes to `f64`.
pub const FACTOR: usize = 64;
pub const SLACK: usize = 1 << 20;

/// More than this at once is an error wherever it happens: the machine would run out of memory.
const MOST: usize = 4 << 30;

pub struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(size: usize) {
    let live = LIVE.fetch_add(size, Relaxed).wrapping_add(size);
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; only numbers are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            return std::ptr::null_mut();
        }
        grow(layout.size());
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            return std::ptr::null_mut();
        }
        grow(layout.size());
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > MOST {
            return std::ptr::null_mut();
        }
        grow(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs a reader of `size` bytes; panics if it held more memory than these bytes justify.
pub fn bounded<X>(size: usize, read: impl FnOnce() -> X) -> X {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let outcome = read();
    let held = PEAK.load(Relaxed).saturating_sub(before);
    let allowed = FACTOR * size + SLACK;
    assert!(held <= allowed, "{held} bytes held for {size} bytes of input, {allowed} allowed");
    outcome
}
