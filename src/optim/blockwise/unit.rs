//! The units of a matrix method: chunks that filter the gradient, blocks that are preconditioned,
//! chunks that apply a rule.

use super::erased::{AnyBlock, ErasedMatrix};
use super::matrix::{BlockStep, GradEma};
use super::partition::{Partition, Tile};
use crate::kernel::scratch::with_scratch;
use crate::kernel::squares::sum_of_squares;
use crate::kernel::sweep::Sums;
use crate::kernel::{Isa, Kernel};
use crate::numeric::{Element, Real};
use crate::optim::elementwise::ElementUnit;
use crate::optim::method::RegularizedGrad;
use crate::state::chunk::SlotChunk;
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, IxDyn};

/// Elements that are filtered at a time: at least the length of a block of codes.
const BLOCK: usize = 4096;

/// One unit of a matrix method.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a list of them is kept from step to step")]
pub enum MatrixUnit<'u, T: Element> {
    /// Filters one chunk.
    Ema(EmaUnit<'u, T>),
    /// Preconditions one block.
    Block(BlockUnit<'u, T>),
    /// Updates one chunk.
    Rule(ElementUnit<'u, T>),
}

impl<T: Element> MatrixUnit<'_, T> {
    pub(in crate::optim) fn run(&mut self) {
        match self {
            Self::Ema(unit) => unit.run(),
            Self::Block(unit) => unit.run(),
            Self::Rule(unit) => unit.run(),
        }
    }

    pub(in crate::optim) fn sums(&self) -> Sums {
        match self {
            Self::Ema(unit) => unit.sums,
            Self::Block(unit) => unit.sums,
            Self::Rule(unit) => unit.sums,
        }
    }

    /// Operations, roughly.
    pub(in crate::optim) fn cost(&self) -> f64 {
        match self {
            Self::Ema(unit) => unit.out.len() as f64,
            Self::Block(unit) => unit.method.cost(unit.t, unit.tile.shape()),
            Self::Rule(unit) => unit.p.len() as f64,
        }
    }
}

/// Copies a block of a tensor of shape `shape`, row by row.
fn load_tile<T: Element>(
    grad: &RegularizedGrad<'_, T>,
    shape: &[usize],
    tile: &Tile,
    out: &mut [T::Compute],
) {
    // a whole tensor, or a whole entry of a stack
    if shape.ends_with(tile.shape()) && tile.stack_dims() + tile.shape().len() == shape.len() {
        return grad.load(tile.row_offset(shape, 0), out);
    }
    let width = tile.shape().last().copied().unwrap_or(1).max(1);
    for (row, out) in out.chunks_mut(width).enumerate() {
        grad.load(tile.row_offset(shape, row), out);
    }
}

/// Copies a block of a parameter, row by row.
fn load_param_tile<T: Element>(param: &[T], shape: &[usize], tile: &Tile, out: &mut [T::Compute]) {
    let width = tile.shape().last().copied().unwrap_or(1).max(1);
    for (row, out) in out.chunks_mut(width).enumerate() {
        let row = param.get(tile.row_offset(shape, row)..).unwrap_or_default();
        out.iter_mut().zip(row).for_each(|(x, p)| *x = p.load());
    }
}

/// One chunk of the gradient on its way into the direction.
#[derive(Debug)]
pub struct EmaUnit<'u, T: Element> {
    pub(in crate::optim) isa: Isa,
    /// Where the chunk begins in the flattened tensor.
    pub(in crate::optim) offset: usize,
    pub(in crate::optim) grad: RegularizedGrad<'u, T>,
    /// Where the filtered gradient goes.
    pub(in crate::optim) out: &'u mut [T::Compute],
    /// The average, and its weights at this step.
    pub(in crate::optim) average: Option<Average<'u, T::Compute>>,
    /// `‖G‖²` of the chunk.
    pub(in crate::optim) sums: Sums,
}

/// A chunk of the average, and its weights.
type Average<'u, R> = (SlotChunk<'u, R>, EmaWeights<R>);

/// Weights of a [`GradEma`] at one step.
#[derive(Clone, Copy, Debug)]
pub struct EmaWeights<R> {
    beta: R,
    one_minus_beta: R,
    old: R,
    new: R,
}

impl<R: Real> EmaWeights<R> {
    /// Those of step `t`, computed in `f64`.
    pub(in crate::optim) fn new(filter: &GradEma, t: u64) -> Self {
        let GradEma { beta, weight, bias_correction, .. } = *filter;
        let bias = if bias_correction { 1.0 - weight * beta.powf(t as f64 - 1.0) } else { 1.0 };
        Self {
            beta: R::of(beta),
            one_minus_beta: R::of(1.0 - beta),
            old: R::of(weight / bias),
            new: R::of((1.0 - weight) / bias),
        }
    }
}

impl<T: Element> EmaUnit<'_, T> {
    fn run(&mut self) {
        self.grad.load(self.offset, self.out);
        self.sums = [sum_of_squares(self.out), 0.0, 0.0, 0.0];
        let Some((slot, weights)) = &mut self.average else { return };
        let weights = *weights;
        with_scratch::<T::Compute, _>(BLOCK, |scratch| {
            for (block, out) in self.out.chunks_mut(BLOCK).enumerate() {
                let m = scratch.get_mut(..out.len()).unwrap_or_default();
                slot.load(self.isa, block * BLOCK, m);
                self.isa.run(Averaging { out, m, weights });
                slot.store(self.isa, block * BLOCK, m);
            }
        });
    }
}

/// The gradient in `out` becomes what is preconditioned, and `m` absorbs it.
struct Averaging<'a, R> {
    out: &'a mut [R],
    m: &'a mut [R],
    weights: EmaWeights<R>,
}

impl<R: Real> Kernel for Averaging<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let EmaWeights { beta, one_minus_beta, old, new } = self.weights;
        for (u, m) in self.out.iter_mut().zip(self.m) {
            let g = *u;
            *u = old * *m + new * g;
            *m = beta * *m + one_minus_beta * g;
        }
    }
}

/// One block of one tensor.
#[derive(Debug)]
pub struct BlockUnit<'u, T: Element> {
    pub(in crate::optim) method: &'u dyn ErasedMatrix<T::Compute>,
    pub(in crate::optim) t: u64,
    /// `‖G‖` of the whole tensor.
    pub(in crate::optim) gradient_norm: f64,
    pub(in crate::optim) grad: RegularizedGrad<'u, T>,
    /// Shape of the tensor that the block is cut from.
    pub(in crate::optim) shape: &'u [usize],
    pub(in crate::optim) tile: &'u Tile,
    pub(in crate::optim) block: &'u mut AnyBlock,
    /// The block of the filtered gradient, which becomes the direction.
    pub(in crate::optim) direction: ArrayViewMutD<'u, T::Compute>,
    /// The squared length that is asked for, and the one that is there.
    pub(in crate::optim) sums: Sums,
}

impl<T: Element> BlockUnit<'_, T> {
    fn run(&mut self) {
        let numel = self.tile.numel();
        let reads_param = self.method.reads_param();
        let room = if reads_param { 2 * numel } else { numel };
        with_scratch::<T::Compute, _>(room, |scratch| {
            let (gradient, param) = scratch.split_at_mut(numel);
            load_tile(&self.grad, self.shape, self.tile, gradient);
            let shape = IxDyn(self.tile.shape());
            let param = reads_param.then(|| {
                load_param_tile(self.grad.param, self.shape, self.tile, param);
                ArrayViewD::from_shape(shape.clone(), &*param).ok()
            });
            // the scratch has exactly the elements of the block
            let Ok(gradient) = ArrayViewD::from_shape(shape.clone(), &*gradient) else { return };
            let (t, gradient_norm) = (self.t, self.gradient_norm);
            let step = BlockStep { t, gradient, gradient_norm, param: param.flatten() };
            let direction = self.direction.view_mut();
            let wanted = self.method.precondition(&step, self.block, direction);
            self.sums = [wanted, norm_squared(&self.direction.view()), 0.0, 0.0];
        });
    }
}

/// `Σ x²`, row by row, so that the order depends on the shape alone.
pub(crate) fn norm_squared<R: Real>(array: &ArrayViewD<'_, R>) -> f64 {
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

/// Disjoint views of the tiles of an array, in row-major order of the tiles; without a stack's dimensions.
pub(in crate::optim) fn split_tiles<'a, R>(
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
            let entry = |array: ArrayViewMutD<'a, R>, _| array.index_axis_move(Axis(0), 0);
            return each((0..partition.stack_dims()).fold(array, entry));
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
