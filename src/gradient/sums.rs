//! Sums over gradients, on all threads, in an order that depends on shapes alone.

use super::source::Source;
use crate::kernel::{Isa, Kernel, parallel};
use crate::numeric::reduce::LaneSum;
use crate::numeric::{Element, Real};

/// Elements per piece. A constant, so that sums depend on shapes alone.
const PIECE: usize = 1 << 16;

/// What is added up of a part of a leaf.
pub(super) struct Piece {
    pub leaf: usize,
    pub start: usize,
    pub len: usize,
    sums: Vec<f64>,
}

/// Cuts leaves of these lengths into pieces, and measures every piece.
fn pieces(numels: &[usize], sums: impl Fn(&Piece) -> Vec<f64> + Sync + Send) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (leaf, &numel) in numels.iter().enumerate() {
        let piece = |start| Piece { leaf, start, len: PIECE.min(numel - start), sums: Vec::new() };
        pieces.extend((0..numel).step_by(PIECE).map(piece));
    }
    parallel::for_each(&mut pieces, numels.iter().sum(), |piece| piece.sums = sums(piece));
    pieces
}

/// `count` sums of every leaf.
pub(super) fn by_leaf(
    numels: &[usize],
    count: usize,
    sums: impl Fn(&Piece) -> Vec<f64> + Sync + Send,
) -> Vec<Vec<f64>> {
    let mut totals = vec![vec![0.0; count]; numels.len()];
    for piece in pieces(numels, sums) {
        if let Some(totals) = totals.get_mut(piece.leaf) {
            totals.iter_mut().zip(piece.sums).for_each(|(total, sum)| *total += sum);
        }
    }
    totals
}

/// A power of two near `1/size`; of the smallest numbers, as near as there is one.
pub(super) fn reciprocal_power(size: f64) -> f64 {
    2f64.powi(-(size.log2().round() as i32).max(-1020))
}

/// `Σ |x|` of every leaf: no element is larger, and it is NaN if one is.
pub(super) fn magnitudes<T: Element>(sources: &[Source<'_, T>]) -> Vec<f64> {
    let isa = Isa::detect();
    let numels: Vec<usize> = sources.iter().map(Source::numel).collect();
    let sums = by_leaf(&numels, 1, |piece| {
        let mut lanes = [LaneSum::default(); 2];
        if let Some(source) = sources.get(piece.leaf) {
            source
                .visit(piece.start, piece.len, |_, xs| isa.run(AddTerms(&mut lanes, xs, f64::abs)));
        }
        let [sum, _] = lanes;
        vec![sum.total()]
    });
    sums.into_iter().map(|sums| sums.into_iter().sum()).collect()
}

/// `[Σ term(x), Σ |term(x)|]` of every row of every leaf; `width(leaf)` is the length of its rows.
pub(super) fn by_row<T: Element>(
    sources: &[Source<'_, T>],
    width: impl Fn(&Source<'_, T>) -> usize + Sync + Send,
    term: impl Fn(f64) -> f64 + Copy + Sync + Send,
) -> Vec<Vec<[f64; 2]>> {
    let isa = Isa::detect();
    let rows = |source: &Source<'_, T>| source.numel().checked_div(width(source)).unwrap_or(0);
    let mut totals: Vec<_> = sources.iter().map(|source| vec![[0.0; 2]; rows(source)]).collect();
    // what has no rows is not read
    let numel = |source: &Source<'_, T>| if width(source) == 0 { 0 } else { source.numel() };
    let numels: Vec<usize> = sources.iter().map(numel).collect();
    let measured = pieces(&numels, |piece| {
        let mut sums = Vec::new();
        if let Some(source) = sources.get(piece.leaf) {
            let add = |lanes: &mut _, xs: &_| isa.run(AddTerms(lanes, xs, term));
            add_rows(source, piece, width(source), add, &mut sums);
        }
        sums
    });
    for piece in measured {
        let width = sources.get(piece.leaf).map_or(0, &width);
        let first = piece.start.checked_div(width).unwrap_or(0);
        let rows = totals.get_mut(piece.leaf).and_then(|rows| rows.get_mut(first..));
        let (sums, _) = piece.sums.as_chunks::<2>();
        for (total, sum) in rows.unwrap_or_default().iter_mut().zip(sums) {
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
    }
    totals
}

/// Adds up the rows of a piece, and what it has of its first and last one; appends two sums per row.
fn add_rows<T: Element>(
    source: &Source<'_, T>,
    piece: &Piece,
    width: usize,
    add: impl Fn(&mut [LaneSum; 2], &[T::Compute]),
    sums: &mut Vec<f64>,
) {
    let (mut lanes, end) = ([LaneSum::default(); 2], piece.start + piece.len);
    source.visit(piece.start, piece.len, |offset, block| {
        let (mut offset, mut rest) = (offset, block);
        while !rest.is_empty() {
            let (own, others) = rest.split_at((width - offset % width).min(rest.len()));
            add(&mut lanes, own);
            (offset, rest) = (offset + own.len(), others);
            if offset % width == 0 || offset == end {
                sums.extend(std::mem::take(&mut lanes).map(LaneSum::total));
            }
        }
    });
}

/// Adds `term(x)` and `|term(x)|` of a run of elements.
struct AddTerms<'a, R, F>(&'a mut [LaneSum; 2], &'a [R], F);

impl<R: Real, F: Fn(f64) -> f64> Kernel for AddTerms<'_, R, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self([sum, magnitudes], xs, term) = self;
        sum.extend(xs, |x| term(x.widen()));
        magnitudes.extend(xs, |x| term(x.widen()).abs());
    }
}
