//! One state slot of one tensor, in whatever precision.

use super::bytes::StateBytes;
use super::chunk::{Rank1Chunk, SlotChunk, SlotCursor};
use super::dict::{Dtype, Scalar, StateTensor};
use super::factors::FactorBuffer;
use super::kind::{Factors, SlotInit, SlotKind};
use super::record::{Lookup, Record, check_tensor};
use super::storage::Storage;
use crate::error::Result;
use crate::kernel::Isa;
use crate::kernel::huge_pages::Buffer;
use crate::kernel::scratch::with_scratch;
use crate::numeric::{Element, Real};
use crate::quant::{Codec, Rank1Codec, Rank1Maxima, Rank1Scales, SlotFormat, encode_bf16};

/// Elements that a whole slot is decoded by at a time: every block of codes divides it.
const PART: usize = 4096;

/// A slot of a tensor, before it has memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotShape<'s> {
    pub name: &'static str,
    pub kind: SlotKind,
    pub shape: &'s [usize],
    /// Every `stride`-th element of the flattened tensor has a number.
    pub stride: usize,
    pub init: SlotInit,
    /// Matrices hold it as means over rows and columns of these names.
    pub factors: Option<Factors>,
}

impl SlotShape<'_> {
    fn numel(&self) -> usize {
        self.shape.iter().product::<usize>().div_ceil(self.stride.max(1))
    }

    /// Slots with gaps stay in full precision: the gaps save more than codes would.
    fn format(&self, storage: &Storage) -> SlotFormat {
        if self.stride > 1 {
            SlotFormat::Full
        } else {
            storage.format(self.name, self.kind, self.shape)
        }
    }
}

/// The memory of one slot.
#[derive(Clone, Debug)]
pub(crate) enum SlotBuffer<R> {
    Full(Buffer<R>),
    /// One number for every `stride`-th element of the flattened tensor.
    Strided {
        stride: usize,
        values: Buffer<R>,
    },
    Bf16(Vec<u16>),
    Coded {
        codec: Codec,
        codes: Vec<u8>,
        scales: Vec<R>,
    },
    Rank1(Box<Rank1Buffer<R>>),
    Factored(Box<FactorBuffer<R>>),
}

/// Codes under rank-1 scales. An update decodes with the old scales and encodes with the new ones.
#[derive(Clone, Debug)]
pub(crate) struct Rank1Buffer<R> {
    codec: Rank1Codec,
    codes: Vec<u8>,
    /// The scales of the codes, and those of the step before.
    scales: [Rank1Scales<R>; 2],
    /// Maxima that a preview collects.
    maxima: Rank1Maxima,
}

impl<R: Real> SlotBuffer<R> {
    /// The slot before the first step.
    pub fn new<T: Element<Compute = R>>(
        slot: &SlotShape<'_>,
        param: &[T],
        storage: &Storage,
    ) -> Self {
        if let Some(factors) = slot.factors.and_then(|names| FactorBuffer::new(names, slot.shape)) {
            return Self::Factored(Box::new(factors));
        }
        let numel = slot.numel();
        let values = || match slot.init {
            SlotInit::Value(value) => Buffer::filled(R::of(value), numel),
            SlotInit::Parameter => {
                let points = param.iter().step_by(slot.stride.max(1));
                Buffer::collected(numel, R::zero(), points.map(|p| p.load()))
            }
        };
        let zero = slot.init == SlotInit::Value(0.0);
        match slot.format(storage) {
            SlotFormat::Full if slot.stride > 1 => {
                Self::Strided { stride: slot.stride, values: values() }
            }
            SlotFormat::Full => Self::Full(values()),
            SlotFormat::Bf16 if zero => Self::Bf16(vec![0; numel]),
            SlotFormat::Blockwise(codec) if zero => {
                let (codes, scales) = codec.zeros(numel);
                Self::Coded { codec, codes, scales }
            }
            SlotFormat::Rank1(codec) if zero => Self::rank1(codec, slot.shape),
            format => Self::encode(format, slot.shape, &values()),
        }
    }

    fn rank1(codec: Rank1Codec, shape: &[usize]) -> Self {
        let scales = || Rank1Scales::blank(shape);
        Self::Rank1(Box::new(Rank1Buffer {
            codec,
            codes: vec![0; codec.codes_len(shape.iter().product())],
            scales: [scales(), scales()],
            maxima: Rank1Maxima::blank(shape),
        }))
    }

    /// `values` in a format; `Full` here has no gaps.
    fn encode(format: SlotFormat, shape: &[usize], values: &[R]) -> Self {
        let isa = Isa::detect();
        match format {
            SlotFormat::Full => Self::Full(values.into()),
            SlotFormat::Bf16 => {
                let mut codes = vec![0; values.len()];
                encode_bf16(isa, values, &mut codes);
                Self::Bf16(codes)
            }
            SlotFormat::Blockwise(codec) => {
                let (mut codes, mut scales) = codec.zeros(values.len());
                codec.encode_fitting(isa, values, &mut codes, &mut scales);
                Self::Coded { codec, codes, scales }
            }
            SlotFormat::Rank1(codec) => {
                let mut buffer = Self::rank1(codec, shape);
                if let Self::Rank1(rank1) = &mut buffer {
                    rank1.maxima.accumulate_fitting(isa, 0, values);
                    let [scales, _] = &mut rank1.scales;
                    rank1.maxima.move_into(scales);
                    codec.encode_fitting(isa, scales, 0, values, &mut rank1.codes);
                }
                buffer
            }
        }
    }

    /// Adds the bytes held to the slot `name`; means over rows and columns have names of their own.
    pub fn count(&self, name: &'static str, bytes: &mut StateBytes) {
        match self {
            Self::Factored(factors) => factors.count(bytes),
            _ => bytes.add(name, self.bytes()),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Full(values) | Self::Strided { values, .. } => values.bytes(),
            Self::Bf16(codes) => size_of_val(codes.as_slice()),
            Self::Coded { codes, scales, .. } => codes.len() + size_of_val(scales.as_slice()),
            Self::Rank1(rank1) => {
                let [scales, _] = &rank1.scales;
                // the scales twice, and the maxima as 64-bit integers
                rank1.codes.len() + scales.maxima().len() * (2 * size_of::<R>() + 8)
            }
            Self::Factored(factors) => factors.bytes(),
        }
    }

    /// Whether an update needs [`SlotChunk::preview`] first.
    pub fn collects_scales(&self) -> bool {
        matches!(self, Self::Rank1(_))
    }

    /// A cursor that hands out chunk after chunk; `update` if they will be written.
    pub fn cursor(&mut self, update: bool) -> SlotCursor<'_, R> {
        let rest = match self {
            Self::Full(values) => SlotChunk::Full(values),
            Self::Strided { stride, values } => {
                SlotChunk::Strided { stride: *stride, first: 0, values }
            }
            Self::Bf16(codes) => SlotChunk::Bf16(codes),
            Self::Coded { codec, codes, scales } => {
                SlotChunk::Coded { codec: *codec, codes, scales }
            }
            Self::Rank1(rank1) => {
                let Rank1Buffer { codec, codes, scales, maxima } = &mut **rank1;
                if update {
                    let [current, old] = scales;
                    std::mem::swap(current, old);
                    maxima.move_into(current);
                }
                let [current, old] = &*scales;
                let (scales, new) = if update { (old, current) } else { (current, current) };
                SlotChunk::Rank1(Rank1Chunk {
                    codec: *codec,
                    offset: 0,
                    codes,
                    scales,
                    new,
                    maxima,
                })
            }
            Self::Factored(factors) => SlotChunk::Factored(factors.view()),
        };
        SlotCursor { rest }
    }

    /// Means over rows and columns, if that is what the slot holds.
    pub fn factors(&mut self) -> Option<&mut FactorBuffer<R>> {
        match self {
            Self::Factored(factors) => Some(factors),
            _ => None,
        }
    }

    /// Changes a slot of `numel` elements that one thread holds as a whole: decodes part after part,
    /// calls `f(start, values)`, encodes. `f` may be called twice for a part, and must then do the
    /// same.
    pub fn rewrite(&mut self, isa: Isa, numel: usize, f: impl Fn(usize, &mut [R])) {
        let passes = if self.collects_scales() { &[false, true][..] } else { &[true] };
        for &update in passes {
            let mut chunk = self.cursor(update).take(numel);
            with_scratch::<R, _>(PART, |scratch| {
                for start in (0..numel).step_by(PART) {
                    let values = scratch.get_mut(..PART.min(numel - start)).unwrap_or_default();
                    chunk.load(isa, start, values);
                    f(start, values);
                    if update {
                        chunk.store(isa, start, values);
                    } else {
                        chunk.preview(isa, start, values);
                    }
                }
            });
        }
    }

    /// Decodes a slot that one thread holds as a whole, and calls `f(start, values)` part by part.
    pub fn read(&mut self, isa: Isa, numel: usize, mut f: impl FnMut(usize, &[R])) {
        let chunk = self.cursor(false).take(numel);
        with_scratch::<R, _>(PART, |scratch| {
            for start in (0..numel).step_by(PART) {
                let values = scratch.get_mut(..PART.min(numel - start)).unwrap_or_default();
                chunk.load(isa, start, values);
                f(start, values);
            }
        });
    }

    /// Calls `f` with all numbers of a slot of `numel` elements, and keeps what it changes. A slot with gaps, or
    /// of means over rows and columns, is not shown.
    pub fn visit(&mut self, numel: usize, f: &mut dyn FnMut(&mut [R])) {
        match self {
            Self::Full(values) => f(values),
            Self::Strided { .. } | Self::Factored(_) => {}
            Self::Bf16(_) | Self::Coded { .. } | Self::Rank1(_) => {
                let (isa, mut values) = (Isa::detect(), Vec::with_capacity(numel));
                self.read(isa, numel, |_, part| values.extend_from_slice(part));
                let before = values.clone();
                f(&mut values);
                // coding it again could change what nobody has touched
                if values != before {
                    self.rewrite(isa, numel, |start, part| {
                        let changed = values.get(start..).unwrap_or_default();
                        part.iter_mut().zip(changed).for_each(|(to, from)| *to = *from);
                    });
                }
            }
        }
    }

    /// Writes the slot into a state dict.
    pub fn save(&self, name: &str, shape: &[usize], record: &mut Record<'_>) {
        let mut coded = |codec: String, codes: &[u8], scales: &[R]| {
            record.scalar(&format!("{name}.codec"), Scalar::Text(codec));
            record.tensor(&format!("{name}.codes"), StateTensor::codes(codes));
            record.tensor(&format!("{name}.scales"), StateTensor::new(&[scales.len()], scales));
        };
        match self {
            Self::Full(values) => record.tensor(name, StateTensor::new(shape, values)),
            Self::Strided { values, .. } => {
                record.tensor(name, StateTensor::new(&[values.len()], values));
            }
            Self::Bf16(codes) => {
                let bytes = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
                let shape = shape.to_vec();
                record.tensor(name, StateTensor { dtype: Dtype::Bf16, shape, bytes });
            }
            Self::Coded { codec, codes, scales } => coded(codec.to_string(), codes, scales),
            Self::Rank1(rank1) => {
                let [scales, _] = &rank1.scales;
                coded(rank1.codec.to_string(), &rank1.codes, scales.maxima());
            }
            Self::Factored(factors) => factors.save(shape, record),
        }
    }

    /// Reads the slot from a state dict: codes as they are, or full precision into any format.
    pub fn load(
        slot: &SlotShape<'_>,
        storage: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<Option<Self>> {
        if let Some(names) = slot.factors.filter(|_| FactorBuffer::<R>::fits(slot.shape)) {
            let factors = FactorBuffer::load(names, slot.shape, lookup)?;
            return Ok(factors.map(|factors| Self::Factored(Box::new(factors))));
        }
        let format = slot.format(storage);
        if lookup.tensor(&format!("{}.codes", slot.name)).is_some() {
            return Self::load_coded(format, slot, lookup).map(Some);
        }
        let Some(tensor) = lookup.tensor(slot.name) else { return Ok(None) };
        let flat = [slot.numel()];
        let shape = if slot.stride > 1 { &flat[..] } else { slot.shape };
        if let (SlotFormat::Bf16, Dtype::Bf16) = (format, tensor.dtype) {
            check_tensor(tensor, shape, slot.name, lookup)?;
            let (words, _) = tensor.bytes.as_chunks();
            return Ok(Some(Self::Bf16(words.iter().map(|&w| u16::from_le_bytes(w)).collect())));
        }
        let values: Vec<R> = lookup.floats(tensor, shape, slot.name)?;
        Ok(Some(match format {
            SlotFormat::Full if slot.stride > 1 => {
                Self::Strided { stride: slot.stride, values: values.as_slice().into() }
            }
            format => Self::encode(format, slot.shape, &values),
        }))
    }

    fn load_coded(format: SlotFormat, slot: &SlotShape<'_>, lookup: &Lookup<'_>) -> Result<Self> {
        let (codes_key, scales_key, codec_key) = (
            format!("{}.codes", slot.name),
            format!("{}.scales", slot.name),
            format!("{}.codec", slot.name),
        );
        let expected = match format {
            SlotFormat::Blockwise(codec) => codec.to_string(),
            SlotFormat::Rank1(codec) => codec.to_string(),
            SlotFormat::Full => "full precision".into(),
            SlotFormat::Bf16 => "bf16".into(),
        };
        let found = lookup.scalar(&codec_key).and_then(Scalar::as_text).unwrap_or("nothing");
        if found != expected {
            return Err(lookup.problem(&codec_key, format!("expected {expected}, found {found}")));
        }
        let tensor =
            |key: &str| lookup.tensor(key).ok_or_else(|| lookup.problem(key, "is missing"));
        let (codes, scales) = (tensor(&codes_key)?, tensor(&scales_key)?);
        if codes.dtype != Dtype::U8 {
            return Err(lookup.problem(&codes_key, format!("expected U8, found {:?}", codes.dtype)));
        }
        let numel = slot.numel();
        let (codes_len, scales_len) = match format {
            SlotFormat::Blockwise(codec) => (codec.codes_len(numel), codec.scales_len(numel)),
            SlotFormat::Rank1(codec) => (codec.codes_len(numel), codec.scales_len(slot.shape)),
            SlotFormat::Full | SlotFormat::Bf16 => (0, 0),
        };
        check_tensor(codes, &[codes_len], &codes_key, lookup)?;
        let scales: Vec<R> = lookup.floats(scales, &[scales_len], &scales_key)?;
        if scales.iter().any(|scale| *scale < R::zero()) {
            return Err(lookup.problem(&scales_key, "a scale is negative"));
        }
        let codes = codes.bytes.clone();
        Ok(match format {
            SlotFormat::Blockwise(codec) => Self::Coded { codec, codes, scales },
            SlotFormat::Rank1(codec) => Self::Rank1(Box::new(Rank1Buffer {
                codec,
                codes,
                scales: [
                    Rank1Scales::from_maxima(slot.shape, scales)?,
                    Rank1Scales::blank(slot.shape),
                ],
                maxima: Rank1Maxima::blank(slot.shape),
            })),
            SlotFormat::Full | SlotFormat::Bf16 => Self::encode(format, slot.shape, &scales),
        })
    }
}
