//! Random numbers in streams: a stream and an index name one number. It is the same on any thread, in any
//! order and at any time, so nothing has to be stored.

use crate::error::{Error, Result};
use crate::kernel::{Isa, Kernel, signs};
use crate::numeric::Real;
use crate::numeric::random::{box_muller, normal_pair, philox4x32, uniform, unit};
use std::fmt::Debug;

/// What a random number is for. Two purposes never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// A direction.
    Direction = 0,
    /// Rounding of a direction, for the probes.
    FirstRounding = 1,
    /// Rounding of the same direction, for the update.
    SecondRounding = 2,
    /// Rounding of the update.
    UpdateRounding = 3,
    /// Which coordinates take part.
    Coordinates = 4,
    /// The sign in front of a given direction.
    Sign = 5,
    /// Left factor of a low-rank direction.
    LeftFactor = 6,
    /// Right factor of a low-rank direction.
    RightFactor = 7,
    /// Crossover and mutation of a genetic search.
    Genetic = 8,
}

/// The name of a stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngStream {
    /// Step, below `2^32`.
    pub step: u64,
    /// Query within the step, below `2^24`.
    pub query: u32,
    /// Tensor, in the order of the tree.
    pub tensor: u32,
    /// What the numbers are for.
    pub purpose: Purpose,
}

/// A source of random numbers, with one row of numbers for every [`RngStream`].
///
/// Estimators use [`Philox`]. Tests that supply the numbers use another source. Numbers that it does not write
/// are 0.
pub trait Noise<R>: Debug + Send + Sync {
    /// The standard normal numbers `offset .. offset + out.len()` of the stream.
    fn normal(&self, stream: &RngStream, offset: usize, out: &mut [R]);
    /// Signs, `-1` or `1`, each with probability 1/2.
    fn rademacher(&self, stream: &RngStream, offset: usize, out: &mut [R]);
    /// Uniform numbers in `[0, 1)`.
    fn uniform(&self, stream: &RngStream, offset: usize, out: &mut [f64]);
}

/// A source from outside, which finds zeros in the memory that it is lent.
#[derive(Debug)]
pub(in crate::zeroth_order) struct Cleared<N>(pub N);

impl<R: Real, N: Noise<R>> Noise<R> for Cleared<N> {
    fn normal(&self, stream: &RngStream, offset: usize, out: &mut [R]) {
        out.fill(R::zero());
        self.0.normal(stream, offset, out);
    }
    fn rademacher(&self, stream: &RngStream, offset: usize, out: &mut [R]) {
        out.fill(R::zero());
        self.0.rademacher(stream, offset, out);
    }
    fn uniform(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        out.fill(0.0);
        self.0.uniform(stream, offset, out);
    }
}

/// The generator Philox4x32-10, keyed by a seed.
///
/// ```text
/// key = (seed mod 2³², seed / 2³²),  counter = (block, tensor, step, 2²⁴·purpose + query)
/// word i of a stream: word i mod 4 of block i/4
/// uniform i   = word i · 2⁻³²
/// sign i      = bit i mod 32 of word (i/32) mod 4 of block i/128;  1 is +1, 0 is −1
/// normal i    = √(−2 ln a)·(cos, sin)(2πb) of block i/2, cos for even i
///   a, b = (2²⁶·(w ≫ 5) + (w′ ≫ 6) + ½)·2⁻⁵³ from the first and the last two words
/// ```
/// The numbers are the same bits on every machine.
///
/// # Examples
/// ```
/// use eigenstep::zeroth_order::{Noise, Philox, RngStream, Purpose};
///
/// let stream = RngStream { step: 7, query: 0, tensor: 1, purpose: Purpose::Direction };
/// let (mut all, mut part) = ([0.0f32; 100], [0.0f32; 10]);
/// Philox::new(42).normal(&stream, 0, &mut all);
/// Philox::new(42).normal(&stream, 90, &mut part);
/// assert_eq!(all[90..], part);
/// ```
///
/// # Source
/// J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3",
/// 2011; normal numbers: G. E. P. Box, M. E. Muller, "A Note on the Generation of Random Normal
/// Deviates", 1958.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

/// Elements for which one counter suffices: one block gives two normal numbers.
const MOST_ELEMENTS: usize = 1 << 33;

impl RngStream {
    /// Refuses numbers of steps, queries or elements for which random numbers would repeat.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub(in crate::zeroth_order) fn check(step: u64, queries: usize, numel: usize) -> Result<()> {
        let too_many = |what, most: u64| Err(Error::TooMany { what, most });
        match () {
            () if step >> 32 != 0 => too_many("steps", 1 << 32),
            () if queries >> 24 != 0 => too_many("queries of one step", (1 << 24) - 1),
            () if numel > MOST_ELEMENTS => too_many("elements of one tensor", 1 << 33),
            () => Ok(()),
        }
    }

    fn counter(&self, block: u32) -> [u32; 4] {
        let purpose = (self.purpose as u32) << 24 | self.query;
        [block, self.tensor, self.step as u32, purpose]
    }
}

impl Philox {
    /// The numbers of one seed.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// One block of a stream: 128 bits.
    #[inline(always)]
    pub(crate) fn block(&self, stream: &RngStream, block: u32) -> [u32; 4] {
        philox4x32(stream.counter(block), self.key)
    }

    /// The words `offset .. offset + out.len()` of a stream.
    pub fn words(&self, stream: &RngStream, offset: usize, out: &mut [u32]) {
        let isa = Isa::detect();
        by_blocks(
            (offset, out),
            |block| self.block(stream, block),
            |block, out| isa.run(Blocks { noise: self, stream, block, out }),
        );
    }
}

/// Fills `out` with the numbers from `offset` on of a stream that comes in blocks of `N`. Blocks at the
/// two ends that are not needed as a whole come from `one(block)`; `whole(block, out)` writes all others.
fn by_blocks<X: Copy, const N: usize>(
    (offset, out): (usize, &mut [X]),
    one: impl Fn(u32) -> [X; N],
    whole: impl FnOnce(u32, &mut [[X; N]]),
) {
    let (start, block) = (offset % N, (offset / N) as u32);
    let (head, body) = out.split_at_mut(((N - start) % N).min(out.len()));
    if !head.is_empty() {
        head.iter_mut().zip(one(block).iter().skip(start)).for_each(|(x, &value)| *x = value);
    }
    let block = block.wrapping_add((start > 0).into());
    let (blocks, tail) = body.as_chunks_mut();
    let after = block.wrapping_add(blocks.len() as u32);
    whole(block, blocks);
    if !tail.is_empty() {
        tail.iter_mut().zip(one(after)).for_each(|(x, value)| *x = value);
    }
}

impl<R: Real> Noise<R> for Philox {
    fn normal(&self, stream: &RngStream, offset: usize, out: &mut [R]) {
        let isa = Isa::detect();
        by_blocks(
            (offset, out),
            |block| normal_pair(self.block(stream, block)).map(R::of),
            |first, out| {
                for (i, out) in (0..).step_by(PAIRS).zip(out.chunks_mut(PAIRS)) {
                    let block = first.wrapping_add(i);
                    isa.run(NormalPairs { noise: self, stream, block, out });
                }
            },
        );
    }

    fn rademacher(&self, stream: &RngStream, offset: usize, out: &mut [R]) {
        let isa = Isa::detect();
        by_blocks::<R, BLOCK>(
            (offset, out),
            |block| {
                let mut signs = [R::zero(); BLOCK];
                signs::expand(isa, &self.block(stream, block), &mut signs);
                signs
            },
            |first, out| {
                let mut words = [[0; 4]; AT_ONCE];
                for (i, out) in (0..).step_by(AT_ONCE).zip(out.chunks_mut(AT_ONCE)) {
                    let block = first.wrapping_add(i);
                    let words = words.get_mut(..out.len()).unwrap_or_default();
                    isa.run(Blocks { noise: self, stream, block, out: words });
                    signs::expand(isa, words.as_flattened(), out.as_flattened_mut());
                }
            },
        );
    }

    fn uniform(&self, stream: &RngStream, offset: usize, out: &mut [f64]) {
        let mut words = [0; 64];
        for (piece, out) in out.chunks_mut(words.len()).enumerate() {
            let words = words.get_mut(..out.len()).unwrap_or_default();
            self.words(stream, offset + 64 * piece, words);
            for (x, &mut word) in out.iter_mut().zip(words) {
                *x = uniform(word);
            }
        }
    }
}

/// The words of one block after the other.
struct Blocks<'a> {
    noise: &'a Philox,
    stream: &'a RngStream,
    block: u32,
    out: &'a mut [[u32; 4]],
}

impl Kernel for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { noise: &Philox { key }, stream, block, out } = self;
        let [_, tensor, step, purpose] = stream.counter(block);
        for (i, out) in out.iter_mut().enumerate() {
            let block = block.wrapping_add(i as u32);
            *out = philox4x32([block, tensor, step, purpose], key);
        }
    }
}

/// The largest number of pairs of normal numbers that are computed at once.
const PAIRS: usize = 256;

/// The pairs of one block after the other. First all bits are drawn, then all numbers computed, so that the
/// compiler can vectorise both loops.
struct NormalPairs<'a, R> {
    noise: &'a Philox,
    stream: &'a RngStream,
    block: u32,
    out: &'a mut [[R; 2]],
}

impl<R: Real> Kernel for NormalPairs<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { noise: &Philox { key }, stream, block, out } = self;
        let (mut a, mut b) = ([0.0; PAIRS], [0.0; PAIRS]);
        let (a, b) = (a.get_mut(..out.len()), b.get_mut(..out.len()));
        let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
        let [_, tensor, step, purpose] = stream.counter(block);
        for (i, (a, b)) in a.iter_mut().zip(&mut *b).enumerate() {
            let block = block.wrapping_add(i as u32);
            let [w, x, y, z] = philox4x32([block, tensor, step, purpose], key);
            (*a, *b) = (unit(w, x), unit(y, z));
        }
        for (pair, (&a, &b)) in out.iter_mut().zip(a.iter().zip(&*b)) {
            *pair = box_muller(a, b).map(R::of);
        }
    }
}

/// Blocks that are drawn before their bits are expanded to signs.
const AT_ONCE: usize = 16;

/// Number of signs in one block.
const BLOCK: usize = 128;
