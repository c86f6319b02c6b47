//! Copies that bypass the cache: memory that is written once and not read soon need not be loaded first.

#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::LINE;
use super::scratch::with_scratch;
use crate::numeric::Element;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use std::ops::Range;

// Miri checks everything but what is left out here: it knows no copies past the cache

/// Bytes of all parameters from which on copies of them do not stay in the cache anyway.
pub(crate) const BEYOND_CACHE: usize = 32 << 20;

/// `to ← from`, past the cache where the processor can.
pub(crate) fn copy<T: Element>(from: &[T], to: &mut [T]) {
    let _fence = Fence;
    copy_unfenced(from, to);
}

/// Fills `out` with what `f(offset, piece)` computes for every `piece` of elements, past the cache where
/// the processor can.
pub(crate) fn fill<T: Element>(out: &mut [T], piece: usize, mut f: impl FnMut(usize, &mut [T])) {
    // also if `f` panics after some pieces
    let _fence = Fence;
    with_scratch(piece, |values| {
        for (i, out) in out.chunks_mut(piece).enumerate() {
            let values = values.get_mut(..out.len()).unwrap_or_default();
            f(i * piece, values);
            copy_unfenced(values, out);
        }
    });
}

/// As [`copy`]; a [`Fence`] has to be dropped on the same thread before anything reads or writes `to`.
fn copy_unfenced<T: Element>(from: &[T], to: &mut [T]) {
    let len = from.len().min(to.len());
    let (from, to) = (from.get(..len).unwrap_or_default(), to.get_mut(..len).unwrap_or_default());
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if LINE.is_multiple_of(size_of::<T>()) {
        return copy_lines(from, to);
    }
    to.copy_from_slice(from);
}

/// When dropped, completes the writes of this thread before anything that it does later.
struct Fence;

impl Drop for Fence {
    fn drop(&mut self) {
        // SAFETY: SSE is part of the target.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
}

/// Equally long slices of elements whose size divides a line.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn copy_lines<T: Element>(from: &[T], to: &mut [T]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    let per_line = LINE / size_of::<T>();
    // at most `len`: what is shorter than that is copied as usual
    let head = to.as_ptr().align_offset(LINE).min(to.len());
    let lines = (to.len() - head) / per_line;
    let tail = head + lines * per_line;
    let part = |range: Range<usize>| from.get(range).unwrap_or_default();
    if let Some(to) = to.get_mut(..head) {
        to.copy_from_slice(part(0..head));
    }
    if let (Some(to), from) = (to.get_mut(head..tail), part(head..tail)) {
        let (mut source, mut target) =
            (from.as_ptr().cast::<__m128i>(), to.as_mut_ptr().cast::<__m128i>());
        for _ in 0..lines {
            // SAFETY: both slices have `lines` lines from here on, and `to` begins at a line: every
            // access lies within, and those to `to` are aligned. SSE2 is part of the target.
            unsafe {
                let parts: [__m128i; 4] = std::array::from_fn(|k| _mm_loadu_si128(source.add(k)));
                for (k, part) in parts.into_iter().enumerate() {
                    _mm_stream_si128(target.add(k), part);
                }
                (source, target) = (source.add(4), target.add(4));
            }
        }
    }
    if let Some(to) = to.get_mut(tail..) {
        to.copy_from_slice(part(tail..from.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::{copy, fill};
    use crate::numeric::Element;

    #[test]
    fn copies_are_copies_wherever_they_begin_and_end() {
        fn check<T: Element>(value: impl Fn(usize) -> T) {
            let from: Vec<T> = (0..200).map(&value).collect();
            for (start, end) in [(0, 0), (0, 200), (1, 200), (3, 19), (5, 6), (17, 199)] {
                let mut to = [value(999); 200];
                for skew in 0..3 {
                    let Some(from) = from.get(start..end - skew.min(end - start)) else { continue };
                    let Some(part) = to.get_mut(start + skew..) else { continue };
                    let Some(part) = part.get_mut(..from.len()) else { continue };
                    copy(from, part);
                    assert_eq!(from, part);
                }
                assert!(to.iter().take(start).all(|&x| x == value(999)));
            }
        }
        check(|i| i as f32);
        check(|i| i as f64);
        #[cfg(feature = "half")]
        check(|i| crate::numeric::bf16::from_f32(i as f32));
    }

    /// What was written before a panic is there for whoever catches it, on any thread.
    #[test]
    fn a_panic_leaves_whole_pieces() {
        let mut out = vec![0.0f32; 1024];
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fill(&mut out, 128, |offset, values| {
                assert!(offset < 512, "the closure of the user fails");
                values.fill(1.0);
            });
        }));
        assert!(outcome.is_err());
        let seen = std::thread::scope(|scope| scope.spawn(|| out.clone()).join());
        let (written, rest) = out.split_at(512);
        assert!(written.iter().all(|&x| x == 1.0) && rest.iter().all(|&x| x == 0.0));
        assert_eq!(seen.ok(), Some(out));
    }

    #[test]
    fn pieces_are_computed_where_they_belong() {
        for (start, len, piece) in [(0, 0, 8), (1, 100, 16), (5, 99, 7), (0, 64, 64)] {
            let mut all = vec![-1.0f32; 128];
            let Some(out) = all.get_mut(start..start + len) else { continue };
            fill(out, piece, |offset, values| {
                values.iter_mut().zip(offset..).for_each(|(x, i)| *x = i as f32);
            });
            assert!(out.iter().enumerate().all(|(i, &x)| x == i as f32));
            assert_eq!(all.iter().filter(|&&x| x == -1.0).count(), 128 - len);
        }
    }
}
