//! Asking for memory before it is needed.
//!
//! Processors fetch ahead by themselves, but not across pages, and some of them not far enough to keep
//! their memory busy when one core works alone.

#![allow(unsafe_code)]

use super::LINE;

/// How far ahead: longer than the memory takes to answer, short enough to be in the cache still.
const BYTES_AHEAD: usize = 4096;

/// Asks for what lies [`BYTES_AHEAD`] behind each of `values`; a hint, whatever lies there.
#[inline(always)]
pub(super) fn ahead_of<X>(values: &[X]) {
    #[cfg(target_arch = "x86_64")]
    lines_ahead(values).for_each(|address| {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may name any address: it never faults, and changes no memory. SSE is part
        // of the target.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    });
    #[cfg(not(target_arch = "x86_64"))]
    let _ = lines_ahead(values);
}

/// One address in every line; they need not belong to anything.
#[inline(always)]
fn lines_ahead<X>(values: &[X]) -> impl Iterator<Item = *const i8> {
    let first = values.as_ptr().cast::<i8>().wrapping_add(BYTES_AHEAD);
    (0..size_of_val(values)).step_by(LINE).map(move |offset| first.wrapping_add(offset))
}

#[cfg(test)]
mod tests {
    use super::{BYTES_AHEAD, LINE, ahead_of, lines_ahead};

    #[test]
    fn every_line_is_asked_for_once_and_may_lie_anywhere() {
        let values = [1.0f64; 1000];
        for len in [0, 1, 8, 9, 64, 1000] {
            let values = values.get(..len).unwrap_or_default();
            let start = values.as_ptr().addr() + BYTES_AHEAD;
            let expected = (0..(8 * len).div_ceil(LINE)).map(|line| start + line * LINE);
            assert!(lines_ahead(values).map(|address| address.addr()).eq(expected));
            ahead_of(values);
        }
    }
}
