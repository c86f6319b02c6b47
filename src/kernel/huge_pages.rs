//! Memory of large state: on huge pages, for fewer address translations per step, and with every buffer
//! at another offset within its page.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A slice that was allocated at once, on huge pages where the system grants them.
///
/// Allocators put every large buffer at the same offset within a page. An update reads and writes four of
/// them side by side; if all their addresses end in the same bits, the first-level cache takes them for the
/// same at first, and waits. So buffers that are allocated one after the other begin at different offsets.
#[derive(Debug)]
pub(crate) struct Buffer<R> {
    held: Vec<R>,
    /// Elements of `held` before the first one.
    skip: usize,
    len: usize,
}

/// Bytes from which on buffers are staggered: what that takes is less than a thousandth then.
const STAGGERED: usize = 4 << 20;

/// Bytes between the beginnings of two staggered buffers, and how many different ones there are.
const DISTANCE: usize = 256;
const PLACES: usize = 8;

/// Buffers that were staggered so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl<R: Clone> Buffer<R> {
    /// `len` copies of `value`.
    pub fn filled(value: R, len: usize) -> Self {
        Self::collected(len, value.clone(), std::iter::repeat_n(value, len))
    }

    /// `values`, of which there are `len`; `pad` fills what is left out.
    pub fn collected(len: usize, pad: R, values: impl Iterator<Item = R>) -> Self {
        let step = DISTANCE / size_of::<R>();
        // as many elements wherever it begins
        let (skip, room) = match len.saturating_mul(size_of::<R>()) {
            0..STAGGERED => (0, 0),
            _ => ((COUNT.fetch_add(1, Ordering::Relaxed) % PLACES + 1) * step, PLACES * step),
        };
        let mut held = Vec::with_capacity(len + room);
        // before the first touch: pages are handed out then
        advise(held.spare_capacity_mut());
        held.extend(std::iter::repeat_n(pad.clone(), skip));
        held.extend(values.take(len));
        held.resize(len + room, pad);
        Self { held, skip, len }
    }

    /// Bytes of the elements; where they are staggered, `PLACES * DISTANCE` more are held.
    pub fn bytes(&self) -> usize {
        size_of_val(&**self)
    }
}

impl<R: Clone> Clone for Buffer<R> {
    fn clone(&self) -> Self {
        match self.first() {
            Some(pad) => Self::collected(self.len, pad.clone(), self.iter().cloned()),
            None => Self { held: Vec::new(), skip: 0, len: 0 },
        }
    }
}

impl<R: Copy + Default> From<&[R]> for Buffer<R> {
    fn from(values: &[R]) -> Self {
        Self::collected(values.len(), R::default(), values.iter().copied())
    }
}

impl<R> Deref for Buffer<R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        self.held.get(self.skip..self.skip + self.len).unwrap_or_default()
    }
}

impl<R> DerefMut for Buffer<R> {
    fn deref_mut(&mut self) -> &mut [R] {
        self.held.get_mut(self.skip..self.skip + self.len).unwrap_or_default()
    }
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
    use super::{Buffer, DISTANCE, PLACES, STAGGERED};

    #[test]
    fn buffers_hold_what_they_were_filled_with() {
        for len in [0, 1, 1000, (4 << 20) + 3] {
            let mut buffer = Buffer::filled(1.5f32, len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&x| x == 1.5));
            assert_eq!(buffer.bytes(), 4 * len);
            let room = if 4 * len < STAGGERED { 0 } else { PLACES * DISTANCE };
            assert_eq!(size_of_val(buffer.held.as_slice()), 4 * len + room);
            buffer.iter_mut().for_each(|x| *x = 2.5);
            assert!(buffer.iter().all(|&x| x == 2.5));
            let counted = Buffer::collected(len, 0.0, (0..len).map(|i| i as f64));
            assert!(counted.iter().enumerate().all(|(i, &x)| x == i as f64));
            assert_eq!(counted.len(), len);
        }
    }

    #[test]
    fn neighbours_begin_at_different_places() {
        let buffers: Vec<_> = (0..4).map(|_| Buffer::filled(0u8, STAGGERED)).collect();
        for (one, other) in buffers.iter().zip(buffers.iter().skip(1)) {
            assert_ne!(one.skip, other.skip);
        }
    }
}
