//! The units of a matrix method: chunks that filter the gradient, blocks that are preconditioned,
//! chunks that apply a rule.

use super::element_unit::ElementUnit;
use super::matrix::{Filter, MatrixMethod};
use super::method::GradSlice;
use super::partition::{Partition, Tile};
use crate::kernel::Isa;
use crate::kernel::scratch::with_scratch;
use crate::kernel::sweep::Sums;
use crate::numeric::reduce::sum_of_squares;
use crate::numeric::{Element, Real};
use crate::state::chunk::SlotChunk;
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, IxDyn};

/// Elements that are filtered at a time: at least the length of a block of codes.
const BLOCK: usize = 4096;

/// One unit of a matrix method.
#[derive(Debug)]
pub enum MatrixUnit<'u, C: MatrixMethod, T: Element> {
    /// Filters one chunk.
    Filter(FilterUnit<'u, T>),
    /// Preconditions one block.
    Block(BlockUnit<'u, C, T>),
    /// Updates one chunk of a tensor that is cut into blocks.
    Rule(ElementUnit<'u, C::Rule, T>),
    /// Updates one chunk of another tensor.
    Plain(ElementUnit<'u, C::Plain, T>),
}

impl<C: MatrixMethod, T: Element> MatrixUnit<'_, C, T> {
    pub(super) fn run(&mut self) {
        match self {
            Self::Filter(unit) => unit.run(),
            Self::Block(unit) => unit.run(),
            Self::Rule(unit) => unit.run(),
            Self::Plain(unit) => unit.run(),
        }
    }

    pub(super) fn sums(&self) -> Sums {
        match self {
            Self::Filter(_) => Sums::default(),
            Self::Block(unit) => unit.sums,
            Self::Rule(unit) => unit.sums,
            Self::Plain(unit) => unit.sums,
        }
    }
}

/// One chunk of the gradient on its way into the direction.
#[derive(Debug)]
pub struct FilterUnit<'u, T: Element> {
    pub(super) isa: Isa,
    /// Where the chunk begins in the flattened tensor.
    pub(super) offset: usize,
    pub(super) grad: GradSlice<'u, T>,
    /// Where the filtered gradient goes.
    pub(super) out: &'u mut [T::Compute],
    /// The average, and its weights at this step.
    pub(super) average: Option<Average<'u, T::Compute>>,
}

/// A chunk of the average, and its weights.
type Average<'u, R> = (SlotChunk<'u, R>, FilterWeights<R>);

/// Weights of a [`Filter`] at one step.
#[derive(Clone, Copy, Debug)]
pub struct FilterWeights<R> {
    beta: R,
    one_minus_beta: R,
    old: R,
    new: R,
}

impl<R: Real> FilterWeights<R> {
    /// Those of step `t`, computed in `f64`.
    pub(super) fn new(filter: &Filter, t: u64) -> Self {
        let Filter { beta, weight, bias_correction, .. } = *filter;
        let bias = if bias_correction { 1.0 - weight * beta.powf(t as f64 - 1.0) } else { 1.0 };
        Self {
            beta: R::of(beta),
            one_minus_beta: R::of(1.0 - beta),
            old: R::of(weight / bias),
            new: R::of((1.0 - weight) / bias),
        }
    }
}

impl<T: Element> FilterUnit<'_, T> {
    fn run(&mut self) {
        self.grad.load(self.offset, self.out);
        let Some((slot, weights)) = &mut self.average else { return };
        let FilterWeights { beta, one_minus_beta, old, new } = *weights;
        with_scratch::<T::Compute, _>(BLOCK, |scratch| {
            for (block, out) in self.out.chunks_mut(BLOCK).enumerate() {
                let m = scratch.get_mut(..out.len()).unwrap_or_default();
                slot.load(self.isa, block * BLOCK, m);
                for (u, m) in out.iter_mut().zip(m.iter_mut()) {
                    let g = *u;
                    *u = old * *m + new * g;
                    *m = beta * *m + one_minus_beta * g;
                }
                slot.store(self.isa, block * BLOCK, m);
            }
        });
    }
}

/// One block of one tensor.
#[derive(Debug)]
pub struct BlockUnit<'u, C: MatrixMethod, T: Element> {
    pub(super) method: &'u C,
    pub(super) t: u64,
    pub(super) grad: GradSlice<'u, T>,
    /// Shape of the tensor that the block is cut from.
    pub(super) shape: &'u [usize],
    pub(super) tile: &'u Tile,
    pub(super) block: &'u mut C::Block<T::Compute>,
    /// The block of the filtered gradient, which becomes the direction.
    pub(super) direction: ArrayViewMutD<'u, T::Compute>,
    /// `‖G‖²` and `‖D‖²` of the block.
    pub(super) sums: Sums,
}

impl<C: MatrixMethod, T: Element> BlockUnit<'_, C, T> {
    fn run(&mut self) {
        let numel = self.tile.numel();
        with_scratch::<T::Compute, _>(numel, |gradient| {
            load_tile(&self.grad, self.shape, self.tile, gradient);
            let squares = sum_of_squares(gradient);
            // the scratch has exactly the elements of the block
            if let Ok(gradient) = ArrayViewD::from_shape(IxDyn(self.tile.shape()), &*gradient) {
                let direction = self.direction.view_mut();
                self.method.precondition(self.t, gradient, self.block, direction);
            }
            self.sums = [squares, norm_squared(&self.direction), 0.0, 0.0];
        });
    }
}

/// Row by row, so that the order depends on the shape alone.
fn norm_squared<R: Real>(array: &ArrayViewMutD<'_, R>) -> f64 {
    match array.as_slice() {
        Some(slice) => sum_of_squares(slice),
        None => array
            .rows()
            .into_iter()
            .map(|row| match row.as_slice() {
                Some(row) => sum_of_squares(row),
                None => row.iter().map(|x| x.widen() * x.widen()).sum(),
            })
            .sum(),
    }
}

/// Copies a block of the gradient, scaled and clamped, row by row.
fn load_tile<T: Element>(
    grad: &GradSlice<'_, T>,
    shape: &[usize],
    tile: &Tile,
    out: &mut [T::Compute],
) {
    if tile.shape() == shape {
        return grad.load(0, out);
    }
    let width = tile.shape().last().copied().unwrap_or(1).max(1);
    for (row, out) in out.chunks_mut(width).enumerate() {
        grad.load(tile.row_offset(shape, row), out);
    }
}

/// Disjoint views of the tiles of an array, in row-major order of the tiles.
pub(super) fn split_tiles<'a, R>(
    array: ArrayViewMutD<'a, R>,
    partition: &Partition,
    mut each: &mut dyn FnMut(ArrayViewMutD<'a, R>),
) {
    fn recurse<'a, R>(
        array: ArrayViewMutD<'a, R>,
        axis: usize,
        partition: &Partition,
        each: &mut dyn FnMut(ArrayViewMutD<'a, R>),
    ) {
        if axis == array.ndim() {
            return each(array);
        }
        let mut remaining = array;
        for length in partition.lengths(axis) {
            let (head, tail) = remaining.split_at(Axis(axis), length);
            recurse(head, axis + 1, partition, each);
            remaining = tail;
        }
    }
    recurse(array, 0, partition, &mut each);
}
