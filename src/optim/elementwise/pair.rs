//! The state of a rule and of a wrapper around it, as one.

use crate::kernel::Isa;
use crate::kernel::sweep::{Chunk, ElementUpdate, MAX_SLOTS, Slots};
use crate::numeric::Real;
use std::marker::PhantomData;

/// Two states of one element: the slots of `A`, then those of `B`.
///
/// A rule around another one has its own numbers in one of them. The first should be those that every
/// configuration uses: slots that a configuration may switch off come last.
#[derive(Clone, Copy, Debug)]
pub struct Pair<A, B>(pub A, pub B);

impl<R: Real, A: Slots<R>, B: Slots<R>> Slots<R> for Pair<A, B> {
    const N: usize = A::N + B::N;

    #[inline(always)]
    fn from_fn(mut f: impl FnMut(usize) -> R) -> Self {
        Self(A::from_fn(&mut f), B::from_fn(|k| f(A::N + k)))
    }

    #[inline(always)]
    fn get(&self, k: usize) -> R {
        if k < A::N { self.0.get(k) } else { self.1.get(k - A::N) }
    }

    fn sweep<F: ElementUpdate<R, Self>>(isa: Isa, update: F, chunk: Chunk<'_, R>) {
        // the loops know arrays
        let update = Flat { update, state: PhantomData::<Self> };
        <[R; MAX_SLOTS]>::sweep(isa, update, chunk);
    }
}

/// The update of a pair as one of an array.
struct Flat<F, S> {
    update: F,
    state: PhantomData<S>,
}

impl<F: Copy, S> Copy for Flat<F, S> {}
impl<F: Copy, S> Clone for Flat<F, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Real, S: Slots<R>, F: ElementUpdate<R, S>> ElementUpdate<R, [R; MAX_SLOTS]> for Flat<F, S> {
    const LEAST: usize = F::LEAST;

    #[inline(always)]
    fn update(&self, p: R, g: R, s: [R; MAX_SLOTS]) -> (R, [R; MAX_SLOTS]) {
        let (p, s) = self.update.update(p, g, S::from_fn(|k| s.get(k)));
        (p, Slots::from_fn(|k| if k < S::N { s.get(k) } else { R::zero() }))
    }
}
