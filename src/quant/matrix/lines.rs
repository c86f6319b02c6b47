//! Coded lines: what all formats of matrices share. A line is a column or a row, or a part of it.

use super::MatrixCodec;
use super::kernels::{Decode, Encode};
use super::table::table;
use crate::error::{self, Result, check_finite, check_length};
use crate::kernel::finite::max_magnitude;
use crate::kernel::isa::Isa;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use ndarray::{ArrayRef2, ArrayView2, ArrayViewMut2, s};
use std::ops::Range;

/// Lines that are gathered at a time: whole cache lines of every row, where the lines are columns.
const PANEL: usize = 32;

/// How long the lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// All of them so long.
    Same(usize),
    /// As long as the index of the line: the rows of a strictly lower triangle.
    Index,
}

impl Length {
    fn of(self, line: usize) -> usize {
        match self {
            Self::Same(length) => length,
            Self::Index => line,
        }
    }

    fn longest(self, lines: usize) -> usize {
        self.of(lines.saturating_sub(1))
    }
}

/// Codes and scales, line by line; every line begins with a byte and a block of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lines<R> {
    codec: MatrixCodec,
    count: usize,
    length: Length,
    codes: Vec<u8>,
    scales: Vec<R>,
}

impl<R: Real> Lines<R> {
    /// Lines of zeros.
    pub(super) fn zeros(codec: MatrixCodec, count: usize, length: Length) -> Result<Self> {
        codec.validate()?;
        let [codes, scales] = sizes(codec, count, length);
        let (codes, scales) = (vec![0; codes], vec![R::zero(); scales]);
        let mut lines = Self { codec, count, length, codes, scales };
        lines.encode(|_, mut panel| panel.fill(R::zero()));
        Ok(lines)
    }

    /// From codes and scales as [`Lines::codes`] and [`Lines::scales`] give them; errors name the
    /// `shape` of the matrix.
    pub(super) fn from_parts(
        codec: MatrixCodec,
        shape: [usize; 2],
        (count, length): (usize, Length),
        codes: Vec<u8>,
        scales: Vec<R>,
    ) -> Result<Self> {
        codec.validate()?;
        let [expected_codes, expected_scales] = sizes(codec, count, length);
        check_length("codes", &shape, expected_codes, codes.len())?;
        check_length("scales", &shape, expected_scales, scales.len())?;
        check_finite("a scale", &scales)?;
        Ok(Self { codec, count, length, codes, scales })
    }

    pub(super) fn codec(&self) -> MatrixCodec {
        self.codec
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    pub(super) fn scales(&self) -> &[R] {
        &self.scales
    }

    pub(super) fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.scales.as_slice())
    }

    /// Codes all lines anew: `load(lines, panel)` writes the lines `lines` into the rows of `panel`.
    /// They must be finite.
    pub(super) fn encode(&mut self, load: impl Fn(Range<usize>, ArrayViewMut2<'_, R>)) {
        self.encode_as(Isa::detect(), load);
    }

    /// [`Lines::encode`] as compiled for `isa`.
    pub(super) fn encode_as(
        &mut self,
        isa: Isa,
        load: impl Fn(Range<usize>, ArrayViewMut2<'_, R>),
    ) {
        let Self { codec, count, length, .. } = *self;
        let (mut codes, mut scales) = (self.codes.as_mut_slice(), self.scales.as_mut_slice());
        panels(count, length.longest(count), |lines, mut panel| {
            load(lines.clone(), panel.view_mut());
            for (line, mut y) in lines.zip(panel.rows_mut()) {
                let length = length.of(line);
                let y = y.as_slice_mut().and_then(|y| y.get_mut(..length)).unwrap_or_default();
                isa.run(Encode {
                    table: table(codec),
                    bits: codec.bits,
                    block_size: codec.block_size,
                    y,
                    codes: codes.split_off_mut(..codec.bytes_of(length)).unwrap_or_default(),
                    scales: scales.split_off_mut(..codec.blocks_of(length)).unwrap_or_default(),
                });
            }
        });
    }

    /// Decodes all lines: `store(lines, panel)` takes the lines `lines` out of the rows of `panel`.
    /// Behind the end of a line that is shorter than the longest stands anything.
    pub(super) fn decode(&self, store: impl FnMut(Range<usize>, ArrayView2<'_, R>)) {
        self.decode_as(Isa::detect(), store);
    }

    /// [`Lines::decode`] as compiled for `isa`.
    pub(super) fn decode_as(
        &self,
        isa: Isa,
        mut store: impl FnMut(Range<usize>, ArrayView2<'_, R>),
    ) {
        let mut decode_next = self.decoder(isa);
        panels(self.count, self.length.longest(self.count), |lines, mut panel| {
            for mut out in panel.rows_mut() {
                decode_next(out.as_slice_mut().unwrap_or_default());
            }
            store(lines, panel.view());
        });
    }

    /// Decodes all lines, which are as long as `out` is wide, into its rows.
    pub(super) fn decode_rows(&self, out: &mut ArrayRef2<R>) {
        let width = out.ncols().max(1);
        match out.as_slice_mut() {
            Some(out) => out.chunks_exact_mut(width).for_each(self.decoder(Isa::detect())),
            None => self.decode(|lines, panel| out.slice_mut(s![lines, ..]).assign(&panel)),
        }
    }

    /// Writes one line after the other to the beginning of what it is given.
    fn decoder(&self, isa: Isa) -> impl FnMut(&mut [R]) {
        let Self { codec, length, .. } = *self;
        let (mut codes, mut scales) = (self.codes.as_slice(), self.scales.as_slice());
        let mut lines = 0..self.count;
        move |out| {
            let length = lines.next().map_or(0, |line| length.of(line));
            isa.run(Decode {
                isa,
                table: table(codec),
                bits: codec.bits,
                block_size: codec.block_size,
                codes: codes.split_off(..codec.bytes_of(length)).unwrap_or_default(),
                scales: scales.split_off(..codec.blocks_of(length)).unwrap_or_default(),
                out: out.get_mut(..length).unwrap_or_default(),
            });
        }
    }
}

/// Bytes of codes, and number of scales; `usize::MAX` where there are more. A state dict may claim any
/// `count` and length, so nothing is counted one by one.
fn sizes(codec: MatrixCodec, count: usize, length: Length) -> [usize; 2] {
    match length {
        Length::Same(length) => [codec.bytes_of(length), codec.blocks_of(length)]
            .map(|of_line| count.saturating_mul(of_line)),
        Length::Index => {
            let (bits, block) = (u128::from(codec.bits), codec.block_size as u128);
            // ⌈bi/8⌉ grows by b with every eight lines, ⌈i/B⌉ by 1 with every B
            let first_eight =
                |lines: u128| (0..lines).map(|i| (bits * i).div_ceil(8)).sum::<u128>();
            let (whole, rest) = (count as u128 / 8, count as u128 % 8);
            let codes = 8 * bits * (whole * whole.saturating_sub(1) / 2)
                + whole * first_eight(8)
                + rest * bits * whole
                + first_eight(rest);
            let (whole, rest) =
                (count.saturating_sub(1) as u128 / block, count.saturating_sub(1) as u128 % block);
            let scales = block * (whole * (whole + 1) / 2) + rest * (whole + 1);
            [codes, scales].map(|size| usize::try_from(size).unwrap_or(usize::MAX))
        }
    }
}

/// Calls `f(lines, panel)` for every [`PANEL`] lines; the rows of `panel` are a scratch buffer for them.
fn panels<R: Real>(
    count: usize,
    length: usize,
    mut f: impl FnMut(Range<usize>, ArrayViewMut2<'_, R>),
) {
    // lines that begin a power of two apart would share few places of the cache
    let stride = length + PANEL;
    with_scratch(PANEL * stride, |buffer: &mut [R]| {
        for first in (0..count).step_by(PANEL) {
            let lines = PANEL.min(count - first);
            let buffer = buffer.get_mut(..lines * stride).unwrap_or_default();
            if let Ok(mut panel) = ArrayViewMut2::from_shape((lines, stride), buffer) {
                f(first..first + lines, panel.slice_mut(s![.., ..length]));
            }
        }
    });
}

/// Refuses a matrix of another shape.
pub(super) fn check_shape<R>(matrix: &ArrayRef2<R>, (rows, cols): (usize, usize)) -> Result<()> {
    error::check_shape("matrix", &[rows, cols], matrix.shape())
}

/// Refuses a matrix that holds a NaN or an infinity.
pub(super) fn check_matrix<R: Real>(matrix: &ArrayRef2<R>) -> Result<()> {
    match matrix.as_slice_memory_order() {
        Some(entries) if max_magnitude(Isa::detect(), entries).is_finite() => Ok(()),
        _ => check_finite("an entry of the matrix", matrix.iter()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::MatrixMap;
    use super::*;

    fn same_bits<R: Real>(x: impl Fn(usize, usize) -> f64) {
        let (count, length) = (19, 300);
        let x = ndarray::Array2::from_shape_fn((count, length), |(i, j)| R::of(x(i, j)));
        for map in [MatrixMap::Linear2, MatrixMap::DynamicTree] {
            for (bits, block_size) in [(3, 64), (4, 7), (4, 64), (8, 300)] {
                let codec = MatrixCodec { bits, block_size, map };
                let run = |isa| {
                    let mut lines = Lines::zeros(codec, count, Length::Same(length)).unwrap();
                    lines.encode_as(isa, |rows, mut panel| panel.assign(&x.slice(s![rows, ..])));
                    let mut decoded = Vec::new();
                    lines.decode_as(isa, |_, panel| {
                        decoded.extend(panel.iter().map(|x| x.widen().to_bits()));
                    });
                    (lines, decoded)
                };
                let expected = run(Isa::portable());
                for isa in Isa::available() {
                    assert!(run(isa) == expected, "{codec}, {}", isa.name());
                }
            }
        }
    }

    #[test]
    fn sizes_of_triangles_are_sums_over_lines() {
        for (bits, block_size) in [(3, 1), (3, 7), (4, 64), (8, 5), (4, 2)] {
            let codec = MatrixCodec { bits, block_size, map: MatrixMap::Linear2 };
            for count in 0..150 {
                let sum = |of: &dyn Fn(usize) -> usize| (0..count).map(of).sum::<usize>();
                let expected = [sum(&|i| codec.bytes_of(i)), sum(&|i| codec.blocks_of(i))];
                assert_eq!(sizes(codec, count, Length::Index), expected, "{codec}, {count}");
            }
            assert_eq!(sizes(codec, usize::MAX, Length::Index)[0], usize::MAX);
            assert_eq!(sizes(codec, usize::MAX, Length::Same(usize::MAX))[0], usize::MAX);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x = |i: usize, j: usize| ((i * 300 + j) as f64).sin().powi(3);
        same_bits::<f32>(x);
        same_bits::<f64>(x);
    }
}
