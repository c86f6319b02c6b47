//! Messages to bytes and back.

use super::bits::{packed_len, unpack};
use super::decompress::multiply;
use super::{HalfPrecision, Message, Natural, Qsgd};
use crate::error::{Error, Result};
use crate::numeric::Real;

/// The first byte of a message: its kind.
mod kind {
    pub const DENSE: u8 = 0;
    pub const SPARSE: u8 = 1;
    pub const BLOCK_SPARSE: u8 = 2;
    pub const SEEDED: u8 = 3;
    pub const SIGNS: u8 = 4;
    pub const LEVELS: u8 = 5;
    pub const EXPONENTS: u8 = 6;
    pub const FACTORS: u8 = 7;
    pub const BF16: u8 = 8;
    pub const F16: u8 = 9;
}

impl<R: Real> Message<R> {
    /// Writes the message to bytes, little-endian: the kind, the size of a number, sizes and options
    /// with 8 bytes each, the payload.
    ///
    /// # Examples
    /// ```
    /// use eigenstep::error_feedback::compressor::{Compressor, Message, Selection, TopK};
    ///
    /// let mut compressor = TopK(Selection::Count { k: 1 });
    /// let message = compressor.compress(1, &[1.0f32, -3.0, 2.0]);
    /// let bytes = message.to_bytes();
    /// assert_eq!(Message::from_bytes(&bytes)?, message);
    /// assert!(Message::<f32>::from_bytes(&bytes[1..]).is_err());
    /// # Ok::<(), eigenstep::Error>(())
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + 42);
        let mut head = |kind: u8, fields: &[u64]| {
            out.extend([kind, size_of::<R>() as u8]);
            out.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        };
        let len = |len: usize| len as u64;
        match self {
            Self::Dense(values) => {
                head(kind::DENSE, &[len(values.len())]);
                R::write_le(values, &mut out);
            }
            Self::Sparse { numel, indices, values } => {
                head(kind::SPARSE, &[len(*numel), len(values.len())]);
                out.extend(indices.iter().flat_map(|index| index.to_le_bytes()));
                R::write_le(values, &mut out);
            }
            Self::BlockSparse { numel, block, per_block, indices, values } => {
                let fields = [len(*numel), len(*block), len(*per_block), len(values.len())];
                head(kind::BLOCK_SPARSE, &fields);
                out.extend(indices.iter().flat_map(|index| index.to_le_bytes()));
                R::write_le(values, &mut out);
            }
            Self::Seeded { numel, seed, t, values } => {
                head(kind::SEEDED, &[len(*numel), *seed, *t, len(values.len())]);
                R::write_le(values, &mut out);
            }
            Self::Signs { numel, scale, signs } => {
                head(kind::SIGNS, &[len(*numel)]);
                R::write_le(&[*scale], &mut out);
                out.extend(signs);
            }
            Self::Levels { numel, levels, norm, codes } => {
                head(kind::LEVELS, &[len(*numel), u64::from(*levels)]);
                R::write_le(&[*norm], &mut out);
                out.extend(codes);
            }
            Self::Exponents { numel, codes } => {
                head(kind::EXPONENTS, &[len(*numel)]);
                out.extend(codes);
            }
            Self::Factors { rows, columns, rank, p, r } => {
                head(kind::FACTORS, &[len(*rows), len(*columns), len(*rank)]);
                R::write_le(p, &mut out);
                R::write_le(r, &mut out);
            }
            Self::Half { format, codes } => {
                let kind = match format {
                    HalfPrecision::Bf16 => kind::BF16,
                    HalfPrecision::F16 => kind::F16,
                };
                head(kind, &[len(codes.len())]);
                out.extend(codes.iter().flat_map(|code| code.to_le_bytes()));
            }
        }
        out
    }

    /// Reads a message from bytes. It checks everything that decompression relies on. It never uses
    /// more memory than a few times the length of `bytes`, even if they claim larger sizes.
    ///
    /// # Errors
    /// [`Error::Message`] if there are too few or too many bytes, if sizes contradict each other, if
    /// indices are not ascending or lie outside the vector, or if a number is not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes };
        let [kind, size] = reader.array()?;
        if usize::from(size) != size_of::<R>() {
            let problem = format!("numbers of {size} bytes, expected {}", size_of::<R>());
            return Err(wrong(problem));
        }
        let message = match kind {
            kind::DENSE => {
                let numel = reader.size()?;
                Self::Dense(reader.reals(numel)?)
            }
            kind::SPARSE => sparse(&mut reader)?,
            kind::BLOCK_SPARSE => block_sparse(&mut reader)?,
            kind::SEEDED => {
                let (numel, seed, t) = (reader.size()?, reader.word()?, reader.word()?);
                let count = reader.size()?;
                check(count <= numel, "more elements than the vector has")?;
                Self::Seeded { numel, seed, t, values: reader.reals(count)? }
            }
            kind::SIGNS => {
                let (numel, scale): (_, R) = (reader.size()?, reader.real()?);
                check(!scale.is_sign_negative(), "a negative magnitude")?;
                Self::Signs { numel, scale, signs: reader.packed(numel, 1, |_| true)? }
            }
            kind::LEVELS => levels(&mut reader)?,
            kind::EXPONENTS => {
                let (numel, width) = (reader.size()?, Natural::width::<R>());
                let codes = reader.packed(numel, width, Natural::is_code::<R>)?;
                Self::Exponents { numel, codes }
            }
            kind::FACTORS => factors(&mut reader)?,
            kind::BF16 => half(HalfPrecision::Bf16, &mut reader)?,
            kind::F16 => half(HalfPrecision::F16, &mut reader)?,
            kind => return Err(wrong(format!("there is no kind {kind}"))),
        };
        check(reader.bytes.is_empty(), "bytes after its end")?;
        Ok(message)
    }
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::Message { problem: problem.into() }
}

fn check(holds: bool, problem: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(wrong(problem)) }
}

fn sparse<R: Real>(reader: &mut Reader<'_>) -> Result<Message<R>> {
    let (numel, count) = (reader.size()?, reader.size()?);
    let indices: Vec<u32> = reader.words(count)?.map(u32::from_le_bytes).collect();
    check(indices.is_sorted_by(|a, b| a < b), "indices are not ascending")?;
    let inside = indices.last().is_none_or(|&last| (last as usize) < numel);
    check(inside, "an index outside the vector")?;
    Ok(Message::Sparse { numel, indices, values: reader.reals(count)? })
}

fn block_sparse<R: Real>(reader: &mut Reader<'_>) -> Result<Message<R>> {
    let (numel, block) = (reader.size()?, reader.size()?);
    let (per_block, count) = (reader.size()?, reader.size()?);
    check((1..=1 << 16).contains(&block), "blocks of 0 or more than 65536 elements")?;
    check((1..=block).contains(&per_block), "more elements than a block has, or none")?;
    let (full, rest) = (numel / block, numel % block);
    let of_last = full.checked_mul(per_block).and_then(|of_full| count.checked_sub(of_full));
    let of_last = of_last.ok_or_else(|| wrong("fewer elements than blocks have"))?;
    check(of_last <= per_block.min(rest), "more elements than blocks have")?;
    check((of_last > 0) == (rest > 0), "no element of the last block")?;
    let indices: Vec<u16> = reader.words(count)?.map(u16::from_le_bytes).collect();
    for (number, indices) in indices.chunks(per_block).enumerate() {
        check(indices.is_sorted_by(|a, b| a < b), "indices are not ascending")?;
        let len = if number < full { block } else { rest };
        let inside = indices.last().is_none_or(|&last| usize::from(last) < len);
        check(inside, "an index outside its block")?;
    }
    let values = reader.reals(count)?;
    Ok(Message::BlockSparse { numel, block, per_block, indices, values })
}

fn levels<R: Real>(reader: &mut Reader<'_>) -> Result<Message<R>> {
    let numel = reader.size()?;
    let levels = u32::try_from(reader.word()?).unwrap_or(0);
    check((1..=Qsgd::MOST_LEVELS).contains(&levels), "no level, or too many")?;
    let norm: R = reader.real()?;
    check(!norm.is_sign_negative(), "a negative length")?;
    let largest = norm.widen() / f64::from(levels) * f64::from(levels);
    check(R::of(largest).is_finite(), "a length whose multiples are not finite")?;
    let codes = reader.packed(numel, Qsgd::width(levels), |code| code <= 2 * levels)?;
    Ok(Message::Levels { numel, levels, norm, codes })
}

fn factors<R: Real>(reader: &mut Reader<'_>) -> Result<Message<R>> {
    let (rows, columns, rank) = (reader.size()?, reader.size()?, reader.size()?);
    let sizes = [rows.checked_mul(columns), rows.checked_mul(rank), columns.checked_mul(rank)];
    let [Some(_), Some(left), Some(right)] = sizes else {
        return Err(wrong("a matrix of more elements than can be counted"));
    };
    check(rank >= 1 && rank <= rows.min(columns), "factors of no column, or of too many")?;
    let (p, r) = (reader.reals(left)?, reader.reals(right)?);
    check(product_is_finite(&p, &r, (columns, rank)), "factors whose product is not finite")?;
    Ok(Message::Factors { rows, columns, rank, p, r })
}

/// Whether all elements of `P Rᵀ` are finite, without memory for all of them.
fn product_is_finite<R: Real>(p: &[R], r: &[R], (columns, rank): (usize, usize)) -> bool {
    let largest = |xs: &[R]| xs.iter().fold(R::zero(), |most, x| most.max(x.abs()));
    // no partial sum is larger; half of it makes up for rounding
    if (R::of(2.0 * rank as f64) * largest(p) * largest(r)).is_finite() {
        return true;
    }
    let mut row = vec![R::zero(); columns];
    p.chunks(rank.max(1)).all(|weights| {
        multiply(&mut row, (columns, rank), weights, r);
        row.iter().all(|x| x.is_finite())
    })
}

fn half<R: Real>(format: HalfPrecision, reader: &mut Reader<'_>) -> Result<Message<R>> {
    let numel = reader.size()?;
    let codes: Vec<u16> = reader.words(numel)?.map(u16::from_le_bytes).collect();
    let finite = codes.iter().all(|code| code & 0x7fff < format.infinity());
    check(finite, "a number that is not finite")?;
    Ok(Message::Half { format, codes })
}

/// The bytes that are still to be read.
struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    /// The next `len` bytes. No memory is allocated before they are known to exist.
    fn take(&mut self, len: Option<usize>) -> Result<&'b [u8]> {
        let halves = len.and_then(|len| self.bytes.split_at_checked(len));
        let (taken, rest) = halves.ok_or_else(|| wrong("bytes end too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn words<const N: usize>(
        &mut self,
        count: usize,
    ) -> Result<impl Iterator<Item = [u8; N]> + use<'b, N>> {
        Ok(self.take(count.checked_mul(N))?.as_chunks().0.iter().copied())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.words(1)?.next().ok_or_else(|| wrong("bytes end too early"))
    }

    fn word(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize> {
        usize::try_from(self.word()?).map_err(|_| wrong("a size that cannot be counted"))
    }

    fn reals<R: Real>(&mut self, count: usize) -> Result<Vec<R>> {
        let values = R::read_le(self.take(count.checked_mul(size_of::<R>()))?);
        check(values.iter().all(|x: &R| x.is_finite()), "a number that is not finite")?;
        Ok(values)
    }

    fn real<R: Real>(&mut self) -> Result<R> {
        let values = self.reals(1)?;
        values.first().copied().ok_or_else(|| wrong("bytes end too early"))
    }

    /// Packed codes. All must be valid, and the padding must be zero.
    fn packed(&mut self, numel: usize, width: u32, right: impl Fn(u32) -> bool) -> Result<Vec<u8>> {
        let bytes = self.take(packed_len(numel, width))?;
        check(unpack(bytes, width).take(numel).all(right), "a code that means nothing")?;
        let used = numel.wrapping_mul(width as usize) % 8;
        let rest = bytes.last().filter(|_| used > 0).map_or(0, |last| last >> used);
        check(rest == 0, "bits after the last code")?;
        Ok(bytes.to_vec())
    }
}
