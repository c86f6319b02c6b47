//! Loops over slices, compiled once for every instruction set; the processor's is chosen at run time.
//!
//! Ordinary programs need none of it. [`Isa`] says which vector instructions this machine has.

// Floor 1. Besides the pointer adaptor of `linalg`, this folder is the only home of `unsafe`.

// Kernels index blocks whose length the line before has fixed; a check per element would stop the
// compiler from vectorising.
#![allow(clippy::indexing_slicing)]

pub(crate) mod axis_sums;
#[cfg(target_arch = "x86_64")]
mod cast;
pub(crate) mod finite;
pub(crate) mod huge_pages;
#[doc(hidden)]
pub mod isa;
pub(crate) mod nibbles;
pub(crate) mod parallel;
mod prefetch;
pub(crate) mod scratch;
pub(crate) mod signs;
pub(crate) mod squares;
pub(crate) mod stream;
#[doc(hidden)]
pub mod sweep;
pub(crate) mod threshold;
pub(crate) mod zip;

pub use isa::{Isa, Kernel};
pub use sweep::{SUMS, Slots, Sums};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements per unit of work: a multiple of every block size, so that no block of codes straddles
/// two units. 64 KiB of `f32` per stream; the slices of one unit stay in the second-level cache.
#[doc(hidden)]
pub const CHUNK: usize = 16_384;
