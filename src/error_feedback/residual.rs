//! The residual of error feedback: what a compressor drops, kept for the next step.

use crate::error::{Error, Result};
use crate::kernel::Isa;
use crate::kernel::huge_pages::Buffer;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::numeric::random::philox4x32;
use crate::numeric::range::flushed;
use crate::quant::decode_bf16;
use crate::state::{Lookup, Record, StateBytes, StateTensor};

/// The format of a residual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum ResidualFormat {
    /// Full precision: 4 bytes per `f32` element. Nothing is lost.
    #[default]
    Full,
    /// bfloat16 with stochastic rounding: 2 bytes per element. The rounding error is zero on average.
    /// Rounding to the nearest would lose every gradient below 1/512 of the residual.
    Bf16,
    /// 4 bits from the smallest to the largest element of each block: half a byte per element, and two
    /// numbers per block. The error of an element is at most `(hi − lo)/30`.
    Nibble {
        /// Elements of a block, at least 2 and even.
        block: usize,
    },
}

impl ResidualFormat {
    /// Number of elements that are coded together. Pieces of a vector start at multiples of it.
    pub(crate) fn block(self) -> usize {
        match self {
            Self::Full | Self::Bf16 => 4,
            Self::Nibble { block } => block,
        }
    }

    /// Checks the block size.
    ///
    /// # Errors
    /// [`Error::InvalidHyperparameter`] for the field `residual.block`.
    pub fn validate(self, optimizer: &'static str) -> Result<()> {
        match self {
            // a block is decoded as a whole
            Self::Nibble { block } if block % 2 == 1 || !(2..=1 << 20).contains(&block) => {
                Err(Error::InvalidHyperparameter {
                    optimizer,
                    field: "residual.block",
                    expected: "an even number >= 2 and <= 2^20".into(),
                    found: block.to_string(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The residual `ξ` of error feedback. It starts at zero.
#[derive(Clone, Debug)]
pub struct Residual<R> {
    numel: usize,
    held: Held<R>,
}

#[derive(Clone, Debug)]
enum Held<R> {
    Full(Buffer<R>),
    Bf16(Vec<u16>),
    Nibble {
        block: usize,
        codes: Vec<u8>,
        /// Smallest and largest element of every block.
        ranges: Vec<R>,
    },
}

impl<R: Real> Residual<R> {
    /// A residual of `numel` zeros.
    pub fn new(format: ResidualFormat, numel: usize) -> Self {
        let held = match format {
            ResidualFormat::Full => Held::Full(Buffer::filled(R::zero(), numel)),
            ResidualFormat::Bf16 => Held::Bf16(vec![0; numel]),
            ResidualFormat::Nibble { block } => Held::Nibble {
                block,
                codes: vec![0; numel.div_ceil(2)],
                ranges: vec![R::zero(); 2 * numel.div_ceil(block)],
            },
        };
        Self { numel, held }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.numel
    }

    /// Writes the elements from `offset` on into `out`. `offset` must be the start of a block.
    pub fn load(&self, offset: usize, out: &mut [R]) {
        match &self.held {
            Held::Full(values) => {
                let values = values.get(offset..offset + out.len()).unwrap_or_default();
                out.iter_mut().zip(values).for_each(|(x, &value)| *x = value);
            }
            Held::Bf16(codes) => {
                let codes = codes.get(offset..offset + out.len()).unwrap_or_default();
                decode_bf16(Isa::detect(), codes, out);
            }
            Held::Nibble { block, codes, ranges } => {
                let ranges = ranges.get(2 * (offset / block)..).unwrap_or_default();
                let codes = codes.get(offset / 2..).unwrap_or_default();
                let blocks = out.chunks_mut(*block).zip(codes.chunks(block / 2));
                for ((out, codes), range) in blocks.zip(ranges.as_chunks().0) {
                    decode_block(*range, codes, out);
                }
            }
        }
    }

    /// Stores elements from `offset` on, which must be the start of a block. `key` identifies the
    /// step and the vector for stochastic rounding.
    pub fn store(&mut self, offset: usize, key: (u64, u32), values: &[R]) {
        match &mut self.held {
            Held::Full(own) => {
                let own = own.get_mut(offset..).unwrap_or_default();
                own.iter_mut().zip(values).for_each(|(own, &value)| *own = value);
            }
            Held::Bf16(codes) => {
                let codes = codes.get_mut(offset..).unwrap_or_default();
                let quads = codes.chunks_mut(4).zip(values.chunks(4)).enumerate();
                for (quad, (codes, values)) in quads {
                    let counter = (offset / 4 + quad) as u64;
                    let (t, place) = key;
                    let words = [counter as u32, (counter >> 32) as u32, (t >> 32) as u32, 0];
                    let random = philox4x32(words, [t as u32, place]);
                    for ((code, &value), bits) in codes.iter_mut().zip(values).zip(random) {
                        *code = bf16_at_random(value, bits);
                    }
                }
            }
            Held::Nibble { block, codes, ranges } => {
                let ranges = ranges.get_mut(2 * (offset / *block)..).unwrap_or_default();
                let codes = codes.get_mut(offset / 2..).unwrap_or_default();
                let blocks = values.chunks(*block).zip(codes.chunks_mut(*block / 2));
                for ((values, codes), range) in blocks.zip(ranges.as_chunks_mut().0) {
                    *range = encode_block(values, codes);
                }
            }
        }
    }

    /// Lets `f` change the decoded elements `offset .. offset + len`. `offset` must be the start of a
    /// block; `key` is that of [`Residual::store`].
    pub(crate) fn update<O>(
        &mut self,
        offset: usize,
        len: usize,
        key: (u64, u32),
        f: impl FnOnce(&mut [R]) -> O,
    ) -> O {
        if let Held::Full(values) = &mut self.held {
            return f(values.get_mut(offset..offset + len).unwrap_or_default());
        }
        with_scratch::<R, _>(len, |values| {
            self.load(offset, values);
            let output = f(values);
            self.store(offset, key, values);
            output
        })
    }

    /// Adds `weight` times the elements from `offset` on to `out`. `offset` may lie within a block.
    pub(crate) fn add(&self, offset: usize, weight: R, out: &mut [R]) {
        let before = offset % self.block();
        let end = (offset + out.len()).min(self.numel);
        with_scratch::<R, _>(before + end - offset, |values| {
            self.load(offset - before, values);
            let values = values.get(before..).unwrap_or_default();
            out.iter_mut().zip(values).for_each(|(x, &value)| *x += weight * value);
        });
    }

    fn block(&self) -> usize {
        match self.held {
            Held::Nibble { block, .. } => block,
            _ => 1,
        }
    }

    /// Multiplies every element by `factor`. The 4-bit codes stay as they are.
    pub(crate) fn scale(&mut self, factor: f64) {
        let factor = R::of(factor);
        let scale = |values: &mut [R]| values.iter_mut().for_each(|x| *x *= factor);
        match &mut self.held {
            Held::Full(values) => scale(values),
            Held::Nibble { ranges, .. } => scale(ranges),
            Held::Bf16(codes) => {
                for code in codes {
                    let mut value = [R::zero()];
                    decode_bf16(Isa::detect(), &[*code], &mut value);
                    *code = bf16_at_random(value[0] * factor, 0x8000);
                }
            }
        }
    }

    /// Counts the bytes of the residual.
    pub fn count_bytes(&self, bytes: &mut StateBytes) {
        let own = match &self.held {
            Held::Full(values) => values.bytes(),
            Held::Bf16(codes) => size_of_val(codes.as_slice()),
            Held::Nibble { codes, ranges, .. } => codes.len() + size_of_val(ranges.as_slice()),
        };
        bytes.add("residual", own);
    }

    /// Saves the residual under the record's keys.
    pub fn save(&self, record: &mut Record<'_>) {
        match &self.held {
            Held::Full(values) => {
                record.tensor("residual", StateTensor::new(&[values.len()], values));
            }
            Held::Bf16(codes) => {
                let bytes: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
                record.tensor("residual.codes", StateTensor::codes(&bytes));
            }
            Held::Nibble { codes, ranges, .. } => {
                record.tensor("residual.codes", StateTensor::codes(codes));
                record.tensor("residual.ranges", StateTensor::new(&[ranges.len()], ranges));
            }
        }
    }

    /// Loads a residual of `numel` elements.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the key.
    pub fn load_state(format: ResidualFormat, numel: usize, lookup: &Lookup<'_>) -> Result<Self> {
        let codes = |len: usize| {
            let codes = lookup.codes("residual.codes")?;
            if codes.len() == len {
                return Ok(codes);
            }
            let text = format!("expected {len} bytes, found {}", codes.len());
            Err(lookup.problem("residual.codes", text))
        };
        let held = match format {
            ResidualFormat::Full => {
                let values: Vec<R> = lookup.values("residual", &[numel])?;
                Held::Full(values.as_slice().into())
            }
            ResidualFormat::Bf16 => {
                let bytes = codes(numel.saturating_mul(2))?;
                Held::Bf16(bytes.as_chunks().0.iter().map(|&w| u16::from_le_bytes(w)).collect())
            }
            ResidualFormat::Nibble { block } => Held::Nibble {
                block,
                codes: codes(numel.div_ceil(2))?,
                ranges: lookup.values("residual.ranges", &[2 * numel.div_ceil(block)])?,
            },
        };
        Ok(Self { numel, held })
    }
}

/// Stochastic rounding to bfloat16: the mean of the result is `x`. `bits` are random.
fn bf16_at_random<R: Real>(x: R, bits: u32) -> u16 {
    let exact = (x.widen() as f32).to_bits();
    let rounded = exact.wrapping_add(bits & 0xffff) >> 16;
    let infinite = |code: u32| code & 0x7fff >= 0x7f80;
    // the largest number is not rounded to infinity
    (if infinite(rounded) && !infinite(exact >> 16) { exact >> 16 } else { rounded }) as u16
}

/// Encodes one block and returns its range. The first of two codes is in the high half of a byte.
///
/// ```text
/// u = (hi − lo)/15,  code = ⌊(x − lo)/u + ½⌋ in 0..=15
/// ```
fn encode_block<R: Real>(values: &[R], codes: &mut [u8]) -> [R; 2] {
    let mut range = [R::zero(); 2];
    for (i, &x) in values.iter().enumerate() {
        let [lo, hi] = range;
        range = match i {
            0 => [x, x],
            _ => [if x < lo { x } else { lo }, if x > hi { x } else { hi }],
        };
    }
    let [lo, hi] = range.map(flushed);
    let unit = (hi - lo) / R::of(15.0);
    let code = |&x: &R| {
        // the unit is 0 if all elements are equal, or if their range underflows
        if unit > R::zero() {
            ((x - lo) / unit + R::of(0.5)).widen().floor().clamp(0.0, 15.0) as u8
        } else {
            0
        }
    };
    for (byte, pair) in codes.iter_mut().zip(values.chunks(2)) {
        let mut codes = pair.iter().map(code);
        *byte = codes.next().unwrap_or(0) << 4 | codes.next().unwrap_or(0);
    }
    [lo, hi]
}

/// `x = code·u + lo`.
fn decode_block<R: Real>([lo, hi]: [R; 2], codes: &[u8], out: &mut [R]) {
    let unit = (hi - lo) / R::of(15.0);
    for (pair, &byte) in out.chunks_mut(2).zip(codes) {
        for (x, code) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *x = R::of(f64::from(code)) * unit + lo;
        }
    }
}
