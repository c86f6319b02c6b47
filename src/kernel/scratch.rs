//! A buffer per thread for blocks that are decoded, updated and encoded again: allocated once.

use crate::numeric::Real;
use std::any::Any;
use std::cell::RefCell;

thread_local! {
    /// One buffer per arithmetic type in use.
    static BUFFERS: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers of arbitrary content.
///
/// A nested call gets a buffer of its own.
pub fn with_scratch<R: Real, O>(len: usize, f: impl FnOnce(&mut [R]) -> O) -> O {
    let mut buffer = take::<R>(len);
    let output = f(buffer.get_mut(..len).unwrap_or_default());
    give_back(buffer);
    output
}

// apart from `with_scratch`, so that the compiler makes them once and not for every closure

#[allow(
    clippy::box_collection,
    reason = "the list of buffers holds boxes: a new one would be an allocation"
)]
fn take<R: Real>(len: usize) -> Box<Vec<R>> {
    let mut buffer: Box<Vec<R>> = BUFFERS
        .with_borrow_mut(|buffers| {
            let index = buffers.iter().position(|buffer| buffer.is::<Vec<R>>())?;
            buffers.swap_remove(index).downcast().ok()
        })
        .unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, R::zero());
    }
    buffer
}

fn give_back(buffer: Box<dyn Any>) {
    BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
}

#[cfg(test)]
mod tests {
    use super::with_scratch;

    #[test]
    fn nested_calls_do_not_share() {
        with_scratch::<f32, _>(4, |outer| {
            outer.fill(1.0);
            with_scratch::<f32, _>(8, |inner| inner.fill(2.0));
            with_scratch::<f64, _>(8, |inner| inner.fill(3.0));
            assert_eq!(outer, [1.0; 4]);
        });
    }
}
