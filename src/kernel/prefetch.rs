//! Asking for memory before it is needed.
//!
//! Processors fetch ahead by themselves, but not across pages, and some of them not far enough to keep
//! their memory busy when one core works alone.

#![allow(unsafe_code)]

/// How far ahead: longer than the memory takes to answer, short enough to be in the cache still.
const BYTES_AHEAD: usize = 4096;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for what lies [`BYTES_AHEAD`] behind each of `values`; a hint, whatever lies there.
#[inline(always)]
pub(super) fn ahead_of<X>(values: &[X]) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of_val(values)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = values.as_ptr().cast::<i8>().wrapping_add(BYTES_AHEAD + offset);
        // SAFETY: a prefetch may name any address: it never faults, and changes no memory. SSE is part
        // of the target.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, BYTES_AHEAD, LINE);
}

#[cfg(test)]
mod tests {
    use super::ahead_of;

    #[test]
    fn any_address_will_do() {
        ahead_of::<f32>(&[]);
        ahead_of(&[1.0f64; 1000]);
        ahead_of(&[0u8; 3]);
    }
}
