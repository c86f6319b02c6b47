//! Memory that each thread keeps: buffers for blocks that are decoded, updated and encoded again, and lists
//! that are filled anew in every call.

use crate::numeric::Element;
use std::any::Any;
use std::cell::RefCell;

thread_local! {
    /// One box per type in use; more after nested calls.
    static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers of arbitrary content.
///
/// A nested call gets a buffer of its own.
pub fn with_scratch<T: Element, O>(len: usize, f: impl FnOnce(&mut [T]) -> O) -> O {
    let mut buffer = buffer::<T>(len);
    let output = f(buffer.get_mut(..len).unwrap_or_default());
    give_back(buffer);
    output
}

/// Calls `f` with what an earlier call on this thread left behind, or a new value.
///
/// A nested call gets a value of its own.
pub fn with_kept<K: Default + 'static, O>(f: impl FnOnce(&mut K) -> O) -> O {
    let mut kept = take::<K>();
    let output = f(&mut kept);
    give_back(kept);
    output
}

// apart from the functions above, so that the compiler makes them once and not for every closure

#[allow(
    clippy::box_collection,
    reason = "what is kept is in boxes: a new one would be an allocation"
)]
fn buffer<T: Element>(len: usize) -> Box<Vec<T>> {
    let mut buffer = take::<Vec<T>>();
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    buffer
}

fn take<K: Default + 'static>() -> Box<K> {
    KEPT.with_borrow_mut(|kept| {
        let index = kept.iter().position(|value| value.is::<K>())?;
        kept.swap_remove(index).downcast().ok()
    })
    .unwrap_or_default()
}

fn give_back(value: Box<dyn Any>) {
    KEPT.with_borrow_mut(|kept| kept.push(value));
}

#[cfg(test)]
mod tests {
    use super::{with_kept, with_scratch};

    #[test]
    fn nested_calls_do_not_share() {
        with_scratch::<f32, _>(4, |outer| {
            outer.fill(1.0);
            with_scratch::<f32, _>(8, |inner| inner.fill(2.0));
            with_scratch::<f64, _>(8, |inner| inner.fill(3.0));
            assert_eq!(outer, [1.0; 4]);
        });
    }

    #[test]
    fn what_a_call_leaves_behind_is_there_in_the_next() {
        with_kept(|list: &mut Vec<u16>| {
            list.push(7);
            with_kept(|nested: &mut Vec<u16>| assert!(nested.is_empty()));
        });
        let kept = (0..2).map(|_| with_kept(|list: &mut Vec<u16>| std::mem::take(list)));
        assert!(kept.into_iter().any(|list| list == [7]));
    }
}
