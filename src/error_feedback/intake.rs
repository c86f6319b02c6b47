//! The way of a gradient into a window: what is left out of it, and fed back.

use super::compression::{Compression, LowRankness, Sparsity};
use super::compressor::{power_iteration, redraw_zero_columns};
use super::residual::Residual;
use super::window::{GradWindow, LowRankRow, MatrixPart};
use crate::error::Result;
use crate::kernel::parallel;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::{Layout, VectorStep};
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use ndarray::{Array2, ArrayView2};

/// Elements that one unit of work adds; selections per block take at least so many at a time.
const CHUNK: usize = 16_384;

/// A window, and what its compression remembers.
#[derive(Clone, Debug)]
pub(super) struct Intake<R> {
    pub window: GradWindow<R>,
    compressor: Compressor<R>,
}

#[derive(Clone, Debug)]
enum Compressor<R> {
    None,
    Sparse(Sparse<R>),
    /// One for each parameter.
    LowRank(LowRankness, Vec<Thin<R>>),
}

#[derive(Clone, Debug)]
struct Sparse<R> {
    options: Sparsity,
    residual: Residual<R>,
    /// The selected elements; kept for its memory.
    indices: Vec<u32>,
}

/// One parameter as a matrix.
#[derive(Clone, Debug)]
struct Thin<R> {
    part: MatrixPart,
    residual: Residual<R>,
    /// `Q`, `columns × rank`: where the power iteration goes on.
    basis: Array2<R>,
}

impl<R: Real> Intake<R> {
    pub fn new(compression: &Compression, capacity: usize, layout: &Layout) -> Self {
        let compressor = match *compression {
            Compression::None => Compressor::None,
            Compression::Sparse(options) => {
                let residual = Residual::new(options.residual, layout.numel());
                Compressor::Sparse(Sparse { options, residual, indices: Vec::new() })
            }
            Compression::LowRank(options) => {
                let thin = |(index, part): (u64, MatrixPart)| Thin {
                    residual: Residual::new(options.residual, part.residual_numel()),
                    basis: part.first_basis(options.seed, index),
                    part,
                };
                let parts = (0..).zip(MatrixPart::of(layout, options.rank)).map(thin);
                Compressor::LowRank(options, parts.collect())
            }
        };
        let window = GradWindow::new(compression.rows(layout.numel()), capacity, layout);
        Self { window, compressor }
    }

    pub fn load(
        compression: &Compression,
        capacity: usize,
        layout: &Layout,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        // what the dict holds is read before memory is asked for
        let window = GradWindow::load(compression.rows(layout.numel()), capacity, layout, lookup)?;
        let compressor = match *compression {
            Compression::None => Compressor::None,
            Compression::Sparse(options) => {
                let residual = Residual::load_state(options.residual, layout.numel(), lookup)?;
                Compressor::Sparse(Sparse { options, residual, indices: Vec::new() })
            }
            Compression::LowRank(options) => {
                let thin = |(index, part): (usize, MatrixPart)| {
                    let lookup = lookup.nested(&format!("matrices.{index}"));
                    let numel = part.residual_numel();
                    let (rows, columns) = part.basis_shape();
                    let values = lookup.values("basis", &[rows, columns])?;
                    let basis = Array2::from_shape_vec((rows, columns), values);
                    Ok(Thin {
                        residual: Residual::load_state(options.residual, numel, &lookup)?,
                        basis: basis.map_err(|_| lookup.problem("basis", "has another shape"))?,
                        part,
                    })
                };
                let parts = MatrixPart::of(layout, options.rank).into_iter().enumerate();
                Compressor::LowRank(options, parts.map(thin).collect::<Result<_>>()?)
            }
        };
        Ok(Self { window, compressor })
    }

    /// Stores a gradient in the window.
    pub fn absorb(&mut self, step: &VectorStep<'_, R>) {
        let Self { window, compressor } = self;
        match compressor {
            Compressor::None => window.push(step.gradient),
            Compressor::Sparse(sparse) => sparse.absorb(step, window),
            Compressor::LowRank(options, parts) => {
                let factors = parts.iter_mut().zip(0..);
                let factors = factors.map(|(thin, index)| thin.absorb(step, options, index));
                window.push_low_rank(&factors.collect::<Vec<_>>());
            }
        }
    }

    /// Adds a multiple of what sparse gradients have left out.
    pub fn add_residual(&self, offset: usize, weight: R, out: &mut [R]) {
        if let Compressor::Sparse(sparse) = &self.compressor {
            sparse.residual.add(offset, weight, out);
        }
    }

    /// Multiplies what sparse gradients have left out.
    pub fn scale_residual(&mut self, factor: f64) {
        if let Compressor::Sparse(sparse) = &mut self.compressor {
            sparse.residual.scale(factor);
        }
    }

    pub fn count(&self, bytes: &mut StateBytes) {
        self.window.count_bytes(bytes);
        match &self.compressor {
            Compressor::None => {}
            Compressor::Sparse(sparse) => sparse.residual.count_bytes(bytes),
            Compressor::LowRank(_, parts) => {
                for thin in parts {
                    thin.residual.count_bytes(bytes);
                    bytes.add("basis", thin.basis.len() * size_of::<R>());
                }
            }
        }
    }

    pub fn save(&self, record: &mut Record<'_>) {
        self.window.save(record);
        match &self.compressor {
            Compressor::None => {}
            Compressor::Sparse(sparse) => sparse.residual.save(record),
            Compressor::LowRank(_, parts) => {
                for (index, thin) in parts.iter().enumerate() {
                    let mut record = record.nested(&format!("matrices.{index}"));
                    thin.residual.save(&mut record);
                    let values: Vec<R> = thin.basis.iter().copied().collect();
                    record.tensor("basis", StateTensor::new(thin.basis.shape(), &values));
                }
            }
        }
    }
}

impl<R: Real> Sparse<R> {
    /// `a = ξ + g; c = C(a); ξ = a − c`, as many blocks at a time as make a piece worth the while.
    fn absorb(&mut self, step: &VectorStep<'_, R>, window: &mut GradWindow<R>) {
        let Self { options, residual, indices } = self;
        let numel = step.layout.numel();
        let piece = piece_length(numel, options);
        let mut filled = 0;
        for base in (0..numel).step_by(piece) {
            residual.update(base, piece.min(numel - base), [step.t as u32, 0], |a| {
                add_gradient(step, base, options.feedback, a);
                options.selection.select(a, indices);
                window.push_piece((filled, base), indices, a);
                filled += indices.len();
            });
        }
        window.finish_row();
    }
}

impl<R: Real> Thin<R> {
    /// The factors of this parameter's gradient; what they leave out is kept.
    fn absorb(
        &mut self,
        step: &VectorStep<'_, R>,
        options: &LowRankness,
        index: u32,
    ) -> LowRankRow<R> {
        let Self { part, residual, basis } = self;
        if part.is_exact() {
            let mut row = LowRankRow { p: vec![R::zero(); part.rows], r: vec![R::one()] };
            step.gradient.load(part.offset, &mut row.p);
            return row;
        }
        residual.update(0, part.numel(), [step.t as u32, index], |a| {
            add_gradient(step, part.offset, options.feedback, a);
            // the residual has the elements of the matrix
            let Ok(matrix) = ArrayView2::from_shape((part.rows, part.columns), &*a) else {
                return part.zero_row();
            };
            let (p, mut r) = power_iteration(&matrix, basis);
            let kept = p.dot(&r.t());
            a.iter_mut().zip(&kept).for_each(|(a, &c)| *a -= c);
            let row = LowRankRow { p: p.into_iter().collect(), r: r.t().iter().copied().collect() };
            redraw_zero_columns(&mut r, options.seed ^ u64::from(index), step.t);
            *basis = r;
            row
        })
    }
}

/// `a ← a + g`, or `a ← g` without feedback.
pub(super) fn add_gradient<R: Real>(
    step: &VectorStep<'_, R>,
    base: usize,
    feedback: bool,
    a: &mut [R],
) {
    let numel = a.len();
    let mut units: Vec<_> = a.chunks_mut(CHUNK).enumerate().collect();
    parallel::for_each(&mut units, numel, |(chunk, a)| {
        let offset = base + *chunk * CHUNK;
        if !feedback {
            return step.gradient.load(offset, a);
        }
        with_scratch::<R, _>(a.len(), |g| {
            step.gradient.load(offset, g);
            a.iter_mut().zip(&*g).for_each(|(a, &g)| *a += g);
        });
    });
}

/// Elements that are selected from at a time: all of them, or whole blocks of the selection and of
/// the residual.
fn piece_length(numel: usize, options: &Sparsity) -> usize {
    let Some(block) = options.selection.block() else { return numel.max(1) };
    let (mut a, mut b) = (block, options.residual.block());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let common = (block / a.max(1)).saturating_mul(options.residual.block());
    common.saturating_mul(CHUNK.div_ceil(common.max(1))).clamp(1, numel.max(1))
}
