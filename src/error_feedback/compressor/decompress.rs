//! Decompression of messages.

use super::bits::unpack;
use super::message::block_places;
use super::{Message, Natural, Qsgd, RandK};
use crate::numeric::Real;

impl<R: Real> Message<R> {
    /// Writes the vector into `out`. If lengths differ, only the elements of the shorter one are
    /// written.
    pub fn decompress_into(&self, out: &mut [R]) {
        match self {
            Self::Dense(values) => write(out, values.iter().copied()),
            Self::Sparse { indices, values, .. } => {
                place(out, indices.iter().map(|&index| index as usize), values);
            }
            Self::BlockSparse { block, per_block, indices, values, .. } => {
                place(out, block_places(indices, *block, *per_block), values);
            }
            Self::Seeded { numel, seed, t, values } => {
                place(out, RandK::places(*seed, *t, *numel, values.len()).into_iter(), values);
            }
            Self::Signs { scale, signs, .. } => {
                write(out, unpack(signs, 1).map(|bit| if bit == 1 { -*scale } else { *scale }));
            }
            Self::Levels { levels, norm, codes, .. } => {
                let unit = norm.widen() / f64::from(*levels);
                let value = |code| R::of((f64::from(code) - f64::from(*levels)) * unit);
                write(out, unpack(codes, Qsgd::width(*levels)).map(value));
            }
            Self::Exponents { codes, .. } => {
                write(out, unpack(codes, Natural::width::<R>()).map(Natural::value));
            }
            Self::Factors { columns, rank, p, r, .. } => multiply(out, (*columns, *rank), p, r),
            Self::Half { format, codes } => format.decode(codes, out),
        }
    }
}

fn write<R>(out: &mut [R], values: impl Iterator<Item = R>) {
    out.iter_mut().zip(values).for_each(|(x, value)| *x = value);
}

/// Writes zeros, and `values` at some positions.
fn place<R: Real>(out: &mut [R], places: impl Iterator<Item = usize>, values: &[R]) {
    out.fill(R::zero());
    for (place, &value) in places.zip(values) {
        if let Some(x) = out.get_mut(place) {
            *x = value;
        }
    }
}

/// `P Rᵀ`, row by row.
pub(super) fn multiply<R: Real>(out: &mut [R], (columns, rank): (usize, usize), p: &[R], r: &[R]) {
    let rows = out.chunks_mut(columns.max(1)).zip(p.chunks(rank.max(1)));
    for (row, weights) in rows {
        row.fill(R::zero());
        for (&weight, factor) in weights.iter().zip(r.chunks(columns.max(1))) {
            row.iter_mut().zip(factor).for_each(|(x, &r)| *x += weight * r);
        }
    }
}
