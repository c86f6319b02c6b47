//! The part of a state slot that one unit of work reads and writes.

use super::factors::FactorView;
use super::kind::Input;
use crate::kernel::Isa;
use crate::numeric::Real;
use crate::quant::{Codec, Rank1Codec, Rank1Maxima, Rank1Scales, decode_bf16, encode_bf16};

/// Hands out the chunks of a slot, from the front.
#[derive(Debug)]
pub(crate) struct SlotCursor<'u, R> {
    pub(super) rest: SlotChunk<'u, R>,
}

impl<'u, R: Real> SlotCursor<'u, R> {
    /// The slot of the next `len` elements. A chunk that is not the last has a length that every
    /// block size divides.
    pub fn take(&mut self, len: usize) -> SlotChunk<'u, R> {
        match &mut self.rest {
            SlotChunk::Off => SlotChunk::Off,
            SlotChunk::Input(input) => SlotChunk::Input(*input),
            SlotChunk::Full(values) => SlotChunk::Full(split(values, len)),
            SlotChunk::Bf16(codes) => SlotChunk::Bf16(split(codes, len)),
            SlotChunk::Strided { stride, first, values } => {
                let count = len.saturating_sub(*first).div_ceil(*stride);
                let chunk = SlotChunk::Strided {
                    stride: *stride,
                    first: *first,
                    values: split(values, count),
                };
                *first = *first + count * *stride - len;
                chunk
            }
            SlotChunk::Coded { codec, codes, scales } => SlotChunk::Coded {
                codec: *codec,
                codes: split(codes, codec.codes_len(len)),
                scales: split(scales, codec.scales_len(len)),
            },
            SlotChunk::Rank1(rest) => {
                let codes = split(&mut rest.codes, rest.codec.codes_len(len));
                let Rank1Chunk { codec, offset, scales, new, maxima, .. } = *rest;
                rest.offset += len;
                SlotChunk::Rank1(Rank1Chunk { codec, offset, codes, scales, new, maxima })
            }
            SlotChunk::Factored(rest) => {
                let chunk = *rest;
                rest.offset += len;
                SlotChunk::Factored(chunk)
            }
        }
    }
}

fn split<'u, X>(rest: &mut &'u mut [X], len: usize) -> &'u mut [X] {
    rest.split_off_mut(..len.min(rest.len())).unwrap_or_default()
}

/// A slot of one unit of work.
#[derive(Debug)]
pub(crate) enum SlotChunk<'u, R> {
    /// Reads as zero, forgets what is written.
    Off,
    /// An input of the step, which the unit of work reads itself; forgets what is written.
    Input(Input),
    Full(&'u mut [R]),
    /// `first` is the index within the chunk of the first element that has a number.
    Strided {
        stride: usize,
        first: usize,
        values: &'u mut [R],
    },
    Bf16(&'u mut [u16]),
    Coded {
        codec: Codec,
        codes: &'u mut [u8],
        scales: &'u mut [R],
    },
    Rank1(Rank1Chunk<'u, R>),
    /// Reads as the root of the product of means over rows and columns; forgets what is written.
    Factored(FactorView<'u, R>),
}

#[derive(Debug)]
pub(crate) struct Rank1Chunk<'u, R> {
    pub(super) codec: Rank1Codec,
    /// Where the chunk begins in the flattened tensor.
    pub(super) offset: usize,
    pub(super) codes: &'u mut [u8],
    pub(super) scales: &'u Rank1Scales<R>,
    pub(super) new: &'u Rank1Scales<R>,
    pub(super) maxima: &'u Rank1Maxima,
}

impl<R: Real> SlotChunk<'_, R> {
    /// The numbers themselves, if they can be worked on in place.
    #[inline]
    pub fn in_place(&mut self) -> Option<&mut [R]> {
        match self {
            Self::Full(values) => Some(values),
            _ => None,
        }
    }

    /// Whether the numbers can be worked on in place.
    pub fn is_in_place(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Whether elements far apart share scales, which each step sets anew.
    pub fn shares_scales(&self) -> bool {
        matches!(self, Self::Rank1(_))
    }

    /// Elements that must be stored together.
    pub fn block(&self) -> usize {
        match self {
            Self::Coded { codec, .. } => codec.block_size(),
            _ => 1,
        }
    }

    /// Decodes the elements `start .. start + out.len()` of the chunk; whole blocks.
    pub fn load(&self, isa: Isa, start: usize, out: &mut [R]) {
        match self {
            Self::Off | Self::Input(_) => out.fill(R::zero()),
            Self::Full(values) => {
                if let Some(values) = values.get(start..start + out.len()) {
                    out.copy_from_slice(values);
                }
            }
            Self::Strided { stride, first, values } => {
                out.fill(R::zero());
                each_strided(*stride, *first, start, out.len(), |i, index| {
                    if let (Some(out), Some(&x)) = (out.get_mut(i), values.get(index)) {
                        *out = x;
                    }
                });
            }
            Self::Bf16(codes) => {
                decode_bf16(isa, codes.get(start..start + out.len()).unwrap_or_default(), out);
            }
            Self::Coded { codec, codes, scales } => {
                let codes = part(codes, codec.codes_len(start), codec.codes_len(out.len()));
                let scales = part(scales, codec.scales_len(start), codec.scales_len(out.len()));
                codec.decode_fitting(isa, codes, scales, out);
            }
            Self::Rank1(chunk) => {
                let codec = chunk.codec;
                let codes = part(chunk.codes, codec.codes_len(start), codec.codes_len(out.len()));
                codec.decode_fitting(isa, chunk.scales, chunk.offset + start, codes, out);
            }
            Self::Factored(factors) => factors.load(isa, start, out),
        }
    }

    /// Encodes `new` as the elements `start .. start + new.len()` of the chunk; whole blocks.
    pub fn store(&mut self, isa: Isa, start: usize, new: &[R]) {
        match self {
            Self::Off | Self::Input(_) | Self::Factored(_) => {}
            Self::Full(values) => {
                if let Some(values) = values.get_mut(start..start + new.len()) {
                    values.copy_from_slice(new);
                }
            }
            Self::Strided { stride, first, values } => {
                each_strided(*stride, *first, start, new.len(), |i, index| {
                    if let (Some(&new), Some(x)) = (new.get(i), values.get_mut(index)) {
                        *x = new;
                    }
                });
            }
            Self::Bf16(codes) => {
                let codes = codes.get_mut(start..start + new.len()).unwrap_or_default();
                encode_bf16(isa, new, codes);
            }
            Self::Coded { codec, codes, scales } => {
                let codes = part_mut(codes, codec.codes_len(start), codec.codes_len(new.len()));
                let scales = part_mut(scales, codec.scales_len(start), codec.scales_len(new.len()));
                codec.encode_fitting(isa, new, codes, scales);
            }
            Self::Rank1(chunk) => {
                let codec = chunk.codec;
                let len = codec.codes_len(new.len());
                let codes = part_mut(chunk.codes, codec.codes_len(start), len);
                codec.encode_fitting(isa, chunk.new, chunk.offset + start, new, codes);
            }
        }
    }

    /// Looks at the values that a later [`SlotChunk::store`] will be given.
    pub fn preview(&self, isa: Isa, start: usize, new: &[R]) {
        if let Self::Rank1(chunk) = self {
            chunk.maxima.accumulate_fitting(isa, chunk.offset + start, new);
        }
    }
}

fn part<X>(all: &[X], start: usize, len: usize) -> &[X] {
    all.get(start..start + len).unwrap_or_default()
}

fn part_mut<X>(all: &mut [X], start: usize, len: usize) -> &mut [X] {
    all.get_mut(start..start + len).unwrap_or_default()
}

/// Calls `f(i, index)` for the elements `start + i` of a chunk that have a number, the `index`-th.
fn each_strided(
    stride: usize,
    first: usize,
    start: usize,
    len: usize,
    mut f: impl FnMut(usize, usize),
) {
    let mut index = start.saturating_sub(first).div_ceil(stride);
    let mut place = first + index * stride;
    while place < start + len {
        f(place - start, index);
        index += 1;
        place += stride;
    }
}
