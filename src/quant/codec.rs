//! Coding of flat slices block by block, with the map that the format names.

// Blocks are cut to the length that the line before has fixed; a check per element would stop the
// compiler from vectorising.
#![allow(clippy::indexing_slicing)]

use super::blockwise::Blockwise;
use super::code_table::code_table;
use super::dynamic::Dynamic;
use super::linear::{LinearSigned, LinearUnsigned};
use super::nibble::{LinearNibble, Nibble, NibbleTable, SignedNibble};
use super::quant_map::{QuantMap, Ties};
use super::tile::{Map, TILE, max_magnitude, narrow, widen};
use crate::error::{Result, check_length};
use crate::kernel::isa::{Isa, Kernel};
use crate::numeric::Real;
use std::fmt;

/// What an infinite element is stored as: a number whose reciprocal is still a normal one.
#[inline(always)]
fn bounded<R: Real>(x: R) -> R {
    let most = R::max_value() * R::of(0.25);
    x.max(-most).min(most)
}

struct Encode<'a, R, M> {
    map: M,
    block_size: usize,
    x: &'a [R],
    codes: &'a mut [u8],
    scales: &'a mut [R],
}

impl<R: Real, M: Map> Kernel for Encode<'_, R, M> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let blocks = self.x.chunks(self.block_size).zip(self.scales);
        let codes = self.codes.chunks_mut(self.block_size / M::PER_BYTE);
        for ((x, scale), codes) in blocks.zip(codes) {
            let absmax = max_magnitude(x);
            if absmax.is_finite() {
                let (stored, factors) = M::scale(absmax);
                *scale = stored;
                encode_block(self.map, factors, x, codes);
            } else if absmax.is_nan() {
                *scale = R::nan();
                codes.fill(0);
            } else {
                // the square of a finite gradient overflows: as the largest numbers, it spoils nothing
                let bounded: Vec<R> = x.iter().map(|&x| bounded(x)).collect();
                let (stored, factors) = M::scale(max_magnitude(&bounded));
                *scale = stored;
                encode_block(self.map, factors, &bounded, codes);
            }
        }
    }
}

#[inline(always)]
fn encode_block<R: Real, M: Map>(map: M, factors: [R; 2], x: &[R], codes: &mut [u8]) {
    let mut y = [0_f32; TILE];
    let (tiles, rest) = x.as_chunks::<TILE>();
    let (whole, last) = codes.split_at_mut(tiles.len() * TILE / M::PER_BYTE);
    for (x, codes) in tiles.iter().zip(whole.chunks_exact_mut(TILE / M::PER_BYTE)) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = narrow(M::normalize(*x, factors));
        }
        map.encode(&y, codes);
    }
    if !rest.is_empty() {
        y.fill(0.0);
        for (y, x) in y.iter_mut().zip(rest) {
            *y = narrow(M::normalize(*x, factors));
        }
        let mut padded = [0_u8; TILE];
        map.encode(&y, &mut padded[..TILE / M::PER_BYTE]);
        let bytes = rest.len().div_ceil(M::PER_BYTE);
        last[..bytes].copy_from_slice(&padded[..bytes]);
        if M::PER_BYTE == 2 && rest.len() % 2 == 1 {
            last[bytes - 1] &= 0xf0;
        }
    }
}

struct Decode<'a, R, M> {
    map: M,
    block_size: usize,
    codes: &'a [u8],
    scales: &'a [R],
    out: &'a mut [R],
}

impl<R: Real, M: Map> Kernel for Decode<'_, R, M> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let blocks = self.out.chunks_mut(self.block_size).zip(self.scales);
        let codes = self.codes.chunks(self.block_size / M::PER_BYTE);
        for ((out, &scale), codes) in blocks.zip(codes) {
            decode_block(self.map, scale, codes, out);
        }
    }
}

#[inline(always)]
fn decode_block<R: Real, M: Map>(map: M, scale: R, codes: &[u8], out: &mut [R]) {
    let mut values = [0_f32; TILE];
    let (tiles, rest) = out.as_chunks_mut::<TILE>();
    let (whole, last) = codes.split_at(tiles.len() * TILE / M::PER_BYTE);
    for (out, codes) in tiles.iter_mut().zip(whole.chunks_exact(TILE / M::PER_BYTE)) {
        map.decode(codes, &mut values);
        for (out, value) in out.iter_mut().zip(&values) {
            *out = widen::<R>(*value) * scale;
        }
    }
    if !rest.is_empty() {
        let mut padded = [0_u8; TILE];
        let bytes = rest.len().div_ceil(M::PER_BYTE);
        padded[..bytes].copy_from_slice(&last[..bytes]);
        map.decode(&padded[..TILE / M::PER_BYTE], &mut values);
        for (out, value) in rest.iter_mut().zip(&values) {
            *out = widen::<R>(*value) * scale;
        }
    }
}

#[derive(Clone, Copy)]
enum Tables {
    LinearSigned,
    LinearUnsigned,
    DynamicLower(Dynamic<false>),
    DynamicUpper(Dynamic<true>),
    NibbleLower(Nibble<false>),
    NibbleUpper(Nibble<true>),
    SignedNibbleLower(SignedNibble<false>),
    SignedNibbleUpper(SignedNibble<true>),
    LinearNibbleLower(LinearNibble<false>),
    LinearNibbleUpper(LinearNibble<true>),
}

/// A [`Blockwise`] format resolved for a signed or an unsigned slot: what the optimizer engine
/// holds per slot and uses chunk by chunk. Copying it is cheap, using it allocates nothing.
///
/// Unsigned slots must hold no negative number; one that does is coded as 0 would be.
#[derive(Clone, Copy)]
pub struct Codec {
    spec: Blockwise,
    signed: bool,
    tables: Tables,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, signed, .. } = self;
        f.debug_struct("Codec").field("spec", spec).field("signed", signed).finish()
    }
}

/// The name under which a state dict records the format.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blockwise { bits, block_size, map, ties } = self.spec;
        let sign = if self.signed { "signed" } else { "unsigned" };
        write!(f, "{map:?} {sign}, {bits} bits, blocks of {block_size}, ties {ties:?}")
    }
}

/// Calls `$method` with the map that the codec resolved to.
macro_rules! with_map {
    ($codec:expr, $map:ident => $body:expr) => {
        match $codec.tables {
            Tables::LinearSigned => {
                let $map = LinearSigned;
                $body
            }
            Tables::LinearUnsigned => {
                let $map = LinearUnsigned;
                $body
            }
            Tables::DynamicLower($map) => $body,
            Tables::DynamicUpper($map) => $body,
            Tables::NibbleLower($map) => $body,
            Tables::NibbleUpper($map) => $body,
            Tables::SignedNibbleLower($map) => $body,
            Tables::SignedNibbleUpper($map) => $body,
            Tables::LinearNibbleLower($map) => $body,
            Tables::LinearNibbleUpper($map) => $body,
        }
    };
}

/// The instruction set that suits a map best, at most `isa`.
fn best<M: Map>(_: M, isa: Isa) -> Isa {
    if M::WIDEST { isa } else { isa.narrower() }
}

impl Blockwise {
    /// The codec of a slot; `signed` is false for slots that are never negative.
    ///
    /// # Errors
    /// Those of [`Blockwise::validate`].
    pub fn codec(&self, signed: bool) -> Result<Codec> {
        Codec::new(*self, signed)
    }
}

impl Codec {
    /// Looks up the tables of `spec`.
    ///
    /// # Errors
    /// Those of [`Blockwise::validate`].
    pub fn new(spec: Blockwise, signed: bool) -> Result<Self> {
        spec.validate()?;
        let linear = spec.map == QuantMap::DynamicLinear && !signed;
        let tables = match (spec.bits, spec.ties) {
            (_, Ties::Even) if signed => Tables::LinearSigned,
            (_, Ties::Even) => Tables::LinearUnsigned,
            (4, Ties::Lower) if linear => Tables::LinearNibbleLower(LinearNibble),
            (4, Ties::Upper) if linear => Tables::LinearNibbleUpper(LinearNibble),
            (4, ties) => {
                let table = NibbleTable::of(signed, ties);
                match (signed, ties) {
                    (true, Ties::Upper) => Tables::SignedNibbleUpper(SignedNibble::new(table)),
                    (true, _) => Tables::SignedNibbleLower(SignedNibble::new(table)),
                    (false, Ties::Upper) => Tables::NibbleUpper(Nibble::new(table)),
                    (false, _) => Tables::NibbleLower(Nibble::new(table)),
                }
            }
            (_, Ties::Lower) => Tables::DynamicLower(Dynamic::new(signed)),
            (_, Ties::Upper) => Tables::DynamicUpper(Dynamic::new(signed)),
        };
        Ok(Self { spec, signed, tables })
    }

    /// The format.
    pub fn spec(&self) -> Blockwise {
        self.spec
    }

    /// Whether the slot may hold negative numbers.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// Elements that share a scale.
    pub fn block_size(&self) -> usize {
        self.spec.block_size
    }

    /// Bytes of the codes of `numel` elements.
    pub fn codes_len(&self, numel: usize) -> usize {
        numel.div_ceil(8 / usize::from(self.spec.bits))
    }

    /// Number of scales of `numel` elements.
    pub fn scales_len(&self, numel: usize) -> usize {
        numel.div_ceil(self.spec.block_size)
    }

    /// The values of the codes as fractions of the scale, ascending.
    ///
    /// # Errors
    /// None in practice: the format was checked when the codec was made.
    pub fn code_table(&self) -> Result<&'static [f32]> {
        code_table(self.spec.map, self.spec.bits, self.signed)
    }

    /// Codes `numel` zeros: what a new slot holds.
    ///
    /// The scales are 0 and so decode to 0 whatever the codes.
    pub fn zeros<R: Real>(&self, numel: usize) -> (Vec<u8>, Vec<R>) {
        (vec![0; self.codes_len(numel)], vec![R::zero(); self.scales_len(numel)])
    }

    /// `out[i] = code_table[codes[i]] · scales[i / block_size]`.
    ///
    /// `out` begins at a block boundary and ends at one or at the end of the slot; `codes` and
    /// `scales` are the parts that belong to it, [`codes_len`](Self::codes_len) and
    /// [`scales_len`](Self::scales_len) of `out.len()` long.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`](crate::Error::LengthMismatch) names `codes` or `scales`; nothing was
    /// written then.
    pub fn decode<R: Real>(
        &self,
        isa: Isa,
        codes: &[u8],
        scales: &[R],
        out: &mut [R],
    ) -> Result<()> {
        self.check(out.len(), codes.len(), scales.len())?;
        self.decode_fitting(isa, codes, scales, out);
        Ok(())
    }

    /// Codes and scales of `x`, the inverse of [`decode`](Self::decode) but for the rounding; the
    /// slices fit together as there.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn encode<R: Real>(
        &self,
        isa: Isa,
        x: &[R],
        codes: &mut [u8],
        scales: &mut [R],
    ) -> Result<()> {
        self.check(x.len(), codes.len(), scales.len())?;
        self.encode_fitting(isa, x, codes, scales);
        Ok(())
    }

    fn check(&self, numel: usize, codes: usize, scales: usize) -> Result<()> {
        check_length("codes", &[numel], self.codes_len(numel), codes)?;
        check_length("scales", &[numel], self.scales_len(numel), scales)
    }

    /// [`decode`](Self::decode) of slices that fit together.
    pub(crate) fn decode_fitting<R: Real>(
        &self,
        isa: Isa,
        codes: &[u8],
        scales: &[R],
        out: &mut [R],
    ) {
        debug_assert!(self.check(out.len(), codes.len(), scales.len()).is_ok());
        let block_size = self.spec.block_size;
        with_map!(self, map => best(map, isa).run(Decode { map, block_size, codes, scales, out }));
    }

    /// [`encode`](Self::encode) of slices that fit together.
    pub(crate) fn encode_fitting<R: Real>(
        &self,
        isa: Isa,
        x: &[R],
        codes: &mut [u8],
        scales: &mut [R],
    ) {
        debug_assert!(self.check(x.len(), codes.len(), scales.len()).is_ok());
        let block_size = self.spec.block_size;
        with_map!(self, map => best(map, isa).run(Encode { map, block_size, x, codes, scales }));
    }
}
