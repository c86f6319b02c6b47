//! Large state on large pages: fewer address translations per step.

#![allow(unsafe_code)]

/// A buffer of `len` copies of `value`, on huge pages where the system grants them.
pub(crate) fn filled<R: Clone>(value: R, len: usize) -> Vec<R> {
    let mut buffer = Vec::with_capacity(len);
    // before the first touch: pages are handed out then
    advise(buffer.spare_capacity_mut());
    buffer.resize(len, value);
    buffer
}

/// Asks for huge pages behind a buffer. A hint: it changes no content, and may do nothing.
#[cfg(target_os = "linux")]
fn advise<R>(buffer: &mut [std::mem::MaybeUninit<R>]) {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }
    const HUGE_PAGE: usize = 2 << 20;
    const MADV_HUGEPAGE: c_int = 14;

    let start = buffer.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(HUGE_PAGE);
    let length = size_of_val(buffer).saturating_sub(skip) / HUGE_PAGE * HUGE_PAGE;
    if length == 0 {
        return;
    }
    // SAFETY: `skip + length` bytes lie within the buffer, which is borrowed for this call; this
    // advice leaves the contents of the range as they are. A failure needs no answer.
    unsafe {
        let _ = madvise(start.add(skip).cast(), length, MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<R>(_: &mut [std::mem::MaybeUninit<R>]) {}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn buffers_hold_what_they_were_filled_with() {
        for len in [0, 1, 1000, (4 << 20) + 3] {
            let buffer = filled(1.5f32, len);
            assert_eq!((buffer.len(), buffer.capacity()), (len, len));
            assert!(buffer.iter().all(|&x| x == 1.5));
        }
    }
}
