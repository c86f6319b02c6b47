//! The element-wise loop: one pass over parameters, gradient and state slots.

use super::isa::{Isa, Kernel};
use super::prefetch::ahead_of;
use crate::numeric::Real;
use crate::numeric::range::flushed;
use crate::numeric::reduce::LaneSum;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

/// How many sums a measuring pass can take at once.
pub const SUMS: usize = 4;

/// Sums over the elements of a tensor, or of all tensors.
pub type Sums = [f64; SUMS];

/// The state of one element: `[R; N]`, one number per slot.
pub trait Slots<R: Real>: Copy + Send + Sync + Debug + 'static {
    /// Number of slots.
    const N: usize;

    /// A state whose slot `k` holds `f(k)`.
    fn from_fn(f: impl FnMut(usize) -> R) -> Self;

    /// The number in slot `k`.
    fn get(&self, k: usize) -> R;

    /// Runs `update` over every element of a chunk, as compiled for `isa`.
    fn sweep<F: ElementUpdate<R, Self>>(isa: Isa, update: F, chunk: Chunk<'_, R>);
}

impl<R: Real, const N: usize> Slots<R> for [R; N] {
    const N: usize = N;

    #[inline(always)]
    fn from_fn(f: impl FnMut(usize) -> R) -> Self {
        std::array::from_fn(f)
    }

    #[inline(always)]
    fn get(&self, k: usize) -> R {
        self[k]
    }

    fn sweep<F: ElementUpdate<R, Self>>(isa: Isa, update: F, chunk: Chunk<'_, R>) {
        // one instantiation per number of slots in use: a slot that is off costs no memory traffic
        match chunk.slots.len() {
            0 => sweep_prefix::<R, F, N, 0>(isa, update, chunk),
            1 => sweep_prefix::<R, F, N, 1>(isa, update, chunk),
            2 => sweep_prefix::<R, F, N, 2>(isa, update, chunk),
            3 => sweep_prefix::<R, F, N, 3>(isa, update, chunk),
            4 => sweep_prefix::<R, F, N, 4>(isa, update, chunk),
            5 => sweep_prefix::<R, F, N, 5>(isa, update, chunk),
            _ => sweep_prefix::<R, F, N, 6>(isa, update, chunk),
        }
    }
}

/// Largest number of slots of a rule.
pub const MAX_SLOTS: usize = 6;

/// The slices of one chunk: equally long; the slots are the first ones of the rule's list.
#[derive(Debug)]
pub struct Chunk<'c, R> {
    /// Parameters.
    pub p: &'c mut [R],
    /// Gradients.
    pub g: &'c [R],
    /// Factor on the gradients.
    pub scale: R,
    /// State, slot by slot; slots beyond these read as zero and are not written.
    pub slots: SlotSlices<'c, R>,
}

/// At most [`MAX_SLOTS`] slices.
#[derive(Debug)]
pub struct SlotSlices<'c, R> {
    slices: [&'c mut [R]; MAX_SLOTS],
    len: usize,
}

impl<R> Default for SlotSlices<'_, R> {
    fn default() -> Self {
        Self { slices: std::array::from_fn(|_| Default::default()), len: 0 }
    }
}

impl<'c, R> SlotSlices<'c, R> {
    /// Appends a slice; beyond [`MAX_SLOTS`] nothing happens.
    #[inline]
    pub fn push(&mut self, slice: &'c mut [R]) {
        if let Some(place) = self.slices.get_mut(self.len) {
            *place = slice;
            self.len += 1;
        }
    }

    /// The same slices, for a shorter time.
    pub fn reborrow(&mut self) -> SlotSlices<'_, R> {
        let mut slices = SlotSlices::default();
        self.iter_mut().for_each(|slice| slices.push(slice));
        slices
    }

    /// The elements `range` of every slice.
    pub fn part(&mut self, range: Range<usize>) -> SlotSlices<'_, R> {
        let mut slices = SlotSlices::default();
        let part = |slice| <[R]>::get_mut(slice, range.clone()).unwrap_or_default();
        self.iter_mut().map(part).for_each(|slice| slices.push(slice));
        slices
    }

    /// The slices, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [R]> {
        self.slices.iter_mut().take(self.len).map(|slice| &mut **slice)
    }

    /// Number of slices.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A function of one element: parameter, gradient, state to parameter, state.
///
/// Mark the implementation `#[inline(always)]`, so that it is compiled with the features of the loop.
pub trait ElementUpdate<R: Real, S>: Copy {
    /// How many slots are given at least: no loops are compiled for fewer.
    const LEAST: usize = 0;

    /// New parameter and new state of one element; of zeros, too, which fill the last block of a slice.
    /// What has decayed to nothing in the state is kept as 0.
    fn update(&self, p: R, g: R, s: S) -> (R, S);
}

/// A function of one element: parameter, gradient, state to the terms of up to [`SUMS`] sums.
pub trait ElementMeasure<R: Real, S>: Copy {
    /// The terms of one element.
    fn measure(&self, p: R, g: R, s: S) -> Sums;
}

/// A function of one element: parameter, gradient, state to one number.
pub trait ElementTerm<R: Real, S>: Copy {
    /// The number of one element.
    fn term(&self, p: R, g: R, s: S) -> R;
}

#[inline(always)]
fn sweep_prefix<R: Real, F: ElementUpdate<R, [R; N]>, const N: usize, const K: usize>(
    isa: Isa,
    update: F,
    chunk: Chunk<'_, R>,
) {
    // decided by the compiler: no loop is generated for more slots than the rule has, or fewer than it needs
    if const { F::LEAST <= K && K <= N } {
        let Chunk { p, g, scale, slots: SlotSlices { mut slices, .. } } = chunk;
        if let Some(slots) = slices.first_chunk_mut::<K>() {
            let slots = slots.each_mut().map(|slot| Blocks::new(slot, p.len()));
            isa.run(Sweep { update, p, g, scale, slots });
        }
    }
}

/// Elements that are updated together: a few cache lines, so that the requests for what comes later are
/// spread evenly, and a constant, so that the compiler makes straight vector code of them.
const BLOCK: usize = 64;

/// A slice, block by block; the last block, if it is shorter, is worked on in a copy.
struct Blocks<'c, R> {
    slice: &'c mut [R],
    last: [R; BLOCK],
}

impl<'c, R: Real> Blocks<'c, R> {
    #[inline(always)]
    fn new(slice: &'c mut [R], len: usize) -> Self {
        let slice = &mut slice[..len];
        let last = last_block(slice);
        Self { slice, last }
    }

    /// The block that begins at `start`.
    #[inline(always)]
    fn at(&mut self, start: usize) -> &mut [R; BLOCK] {
        self.slice[start..].first_chunk_mut().unwrap_or(&mut self.last)
    }

    /// Writes the copy back.
    #[inline(always)]
    fn finish(self) {
        let rest = self.slice.as_chunks_mut::<BLOCK>().1;
        rest.copy_from_slice(&self.last[..rest.len()]);
    }
}

/// What is left behind the last whole block, and zeros.
#[inline(always)]
fn last_block<R: Real>(slice: &[R]) -> [R; BLOCK] {
    let rest = slice.as_chunks::<BLOCK>().1;
    let mut last = [R::zero(); BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last
}

struct Sweep<'c, R, F, const N: usize, const K: usize> {
    update: F,
    p: &'c mut [R],
    g: &'c [R],
    scale: R,
    slots: [Blocks<'c, R>; K],
}

impl<R: Real, F: ElementUpdate<R, [R; N]>, const N: usize, const K: usize> Kernel
    for Sweep<'_, R, F, N, K>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { update, p, g, scale, mut slots } = self;
        let n = p.len();
        let (g, last_g) = (&g[..n], last_block(&g[..n]));
        let mut params = Blocks::new(p, n);
        for start in (0..n).step_by(BLOCK) {
            let p = params.at(start);
            let g = g[start..].first_chunk().unwrap_or(&last_g);
            let slots = slots.each_mut().map(|slot| slot.at(start));
            ahead_of(p);
            ahead_of(g);
            slots.iter().for_each(|slot| ahead_of(slot.as_slice()));
            for i in 0..BLOCK {
                let mut state = [R::zero(); N];
                for k in 0..K {
                    state[k] = slots[k][i];
                }
                let (new_p, state) = update.update(p[i], g[i] * scale, state);
                p[i] = new_p;
                for k in 0..K {
                    slots[k][i] = flushed(state[k]);
                }
            }
        }
        params.finish();
        slots.into_iter().for_each(Blocks::finish);
    }
}

/// Sums `measure` over equally long slices; slots beyond `slots` read as zero.
pub fn measure_chunk<R: Real, S: Slots<R>, F: ElementMeasure<R, S>>(
    isa: Isa,
    measure: F,
    (p, g): (&[R], &[R]),
    slots: &[&[R]],
) -> Sums {
    let mut sums = [LaneSum::default(); SUMS];
    isa.run(Measure { measure, p, g, slots, sums: &mut sums, state: PhantomData::<S> });
    sums.map(LaneSum::total)
}

/// Writes `term` of every element of equally long slices; arguments as of [`measure_chunk`].
pub fn each_term<R: Real, S: Slots<R>, F: ElementTerm<R, S>>(
    isa: Isa,
    term: F,
    (p, g): (&[R], &[R]),
    slots: &[&[R]],
    out: &mut [f64],
) {
    isa.run(Terms { term, p, g, slots, out, state: PhantomData::<S> });
}

struct Terms<'c, R, S, F> {
    term: F,
    p: &'c [R],
    g: &'c [R],
    slots: &'c [&'c [R]],
    out: &'c mut [f64],
    state: PhantomData<S>,
}

impl<R: Real, S: Slots<R>, F: ElementTerm<R, S>> Kernel for Terms<'_, R, S, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { term, p, g, slots, out, state: _ } = self;
        let n = out.len();
        let (p, g) = (&p[..n], &g[..n]);
        let empty: &[R] = &[];
        let slots: [&[R]; MAX_SLOTS] =
            std::array::from_fn(|k| slots.get(k).map_or(empty, |slot| &slot[..n]));
        for i in 0..n {
            let state = S::from_fn(|k| slots[k].get(i).copied().unwrap_or(R::zero()));
            out[i] = term.term(p[i], g[i], state).widen();
        }
    }
}

struct Measure<'c, R, S, F> {
    measure: F,
    p: &'c [R],
    g: &'c [R],
    slots: &'c [&'c [R]],
    sums: &'c mut [LaneSum; SUMS],
    state: PhantomData<S>,
}

impl<R: Real, S: Slots<R>, F: ElementMeasure<R, S>> Kernel for Measure<'_, R, S, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { measure, p, g, slots, sums, state: _ } = self;
        let n = p.len();
        let g = &g[..n];
        let empty: &[R] = &[];
        let slots: [&[R]; MAX_SLOTS] =
            std::array::from_fn(|k| slots.get(k).map_or(empty, |slot| &slot[..n]));
        for i in 0..n {
            let state = S::from_fn(|k| slots[k].get(i).copied().unwrap_or(R::zero()));
            let terms = measure.measure(p[i], g[i], state);
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum.add(i, term);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Axpy;
    impl ElementUpdate<f32, [f32; 2]> for Axpy {
        #[inline(always)]
        fn update(&self, p: f32, g: f32, [a, b]: [f32; 2]) -> (f32, [f32; 2]) {
            (p - 0.1 * g + b, [a + g, b + 1.0])
        }
    }
    impl ElementMeasure<f32, [f32; 2]> for Axpy {
        #[inline(always)]
        fn measure(&self, p: f32, g: f32, [a, b]: [f32; 2]) -> Sums {
            [p.into(), g.into(), a.into(), b.into()]
        }
    }

    #[test]
    fn slots_beyond_those_given_read_as_zero_and_every_isa_gives_the_same_bits() {
        // up to the end of a block, and beyond
        [0, 1, BLOCK - 1, BLOCK, BLOCK + 13, 3 * BLOCK].into_iter().for_each(sweeps);
    }

    fn sweeps(len: usize) {
        let g: Vec<f32> = (0..len).map(|i| (i as f32).cos()).collect();
        let run = |isa: Isa, with: usize| {
            let (mut p, mut a, mut b) = (vec![1.0f32; len], vec![0.5; len], vec![0.25; len]);
            let mut slots = SlotSlices::default();
            for slot in [&mut a, &mut b].into_iter().take(with) {
                slots.push(slot);
            }
            let chunk = Chunk { p: &mut p, g: &g, scale: 2.0, slots };
            <[f32; 2]>::sweep(isa, Axpy, chunk);
            let sums = measure_chunk(isa, Axpy, (&p, &g), &[&a[..], &b[..]]);
            (p, a, b, sums)
        };
        for with in 0..=2 {
            let plain = run(Isa::portable(), with);
            for (i, g) in g.iter().enumerate() {
                let b = if with == 2 { 0.25 } else { 0.0 };
                assert_eq!(plain.0[i], 1.0 - 0.1 * (g * 2.0) + b);
                assert_eq!(plain.1[i], if with >= 1 { 0.5 + g * 2.0 } else { 0.5 });
                assert_eq!(plain.2[i], if with == 2 { 1.25 } else { 0.25 });
            }
            for isa in Isa::available() {
                assert_eq!(run(isa, with), plain, "{}", isa.name());
            }
        }
    }
}
