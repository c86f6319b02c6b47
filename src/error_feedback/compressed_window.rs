//! A window of gradients that are compressed, with error feedback, before they are stored.

use super::compression::{Compression, LowRankConfig, SparseConfig};
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

/// Elements of one unit of work. A selection by blocks takes at least so many elements at a time.
const CHUNK: usize = 16_384;

/// A window and the state of its compression.
#[derive(Clone, Debug)]
pub(super) struct CompressedWindow<R> {
    pub window: GradWindow<R>,
    state: State<R>,
}

#[derive(Clone, Debug)]
enum State<R> {
    None,
    Sparse(SparseState<R>),
    /// One for each parameter.
    LowRank(LowRankConfig, Vec<LowRankState<R>>),
}

#[derive(Clone, Debug)]
struct SparseState<R> {
    options: SparseConfig,
    residual: Residual<R>,
    /// The selected elements: a buffer for all steps.
    indices: Vec<u32>,
}

/// The state of one parameter.
#[derive(Clone, Debug)]
struct LowRankState<R> {
    part: MatrixPart,
    residual: Residual<R>,
    /// `Q`, `columns × rank`: the next step of the power iteration starts from it.
    basis: Array2<R>,
}

impl<R: Real> CompressedWindow<R> {
    pub fn new(compression: &Compression, capacity: usize, layout: &Layout) -> Self {
        let state = match *compression {
            Compression::None => State::None,
            Compression::Sparse(options) => {
                let residual = Residual::new(options.residual, layout.numel());
                State::Sparse(SparseState { options, residual, indices: Vec::new() })
            }
            Compression::LowRank(options) => {
                let state = |(index, part): (u64, MatrixPart)| LowRankState {
                    residual: Residual::new(options.residual, part.residual_numel()),
                    basis: part.first_basis(options.seed, index),
                    part,
                };
                let parts = (0..).zip(MatrixPart::of(layout, options.rank)).map(state);
                State::LowRank(options, parts.collect())
            }
        };
        let window = GradWindow::new(compression.rows(layout.numel()), capacity, layout);
        Self { window, state }
    }

    pub fn load(
        compression: &Compression,
        capacity: usize,
        layout: &Layout,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        // reads what the dict holds before it allocates memory
        let window = GradWindow::load(compression.rows(layout.numel()), capacity, layout, lookup)?;
        let state = match *compression {
            Compression::None => State::None,
            Compression::Sparse(options) => {
                let residual = Residual::load_state(options.residual, layout.numel(), lookup)?;
                State::Sparse(SparseState { options, residual, indices: Vec::new() })
            }
            Compression::LowRank(options) => {
                let state = |(index, part): (usize, MatrixPart)| {
                    let lookup = lookup.nested(&format!("matrices.{index}"));
                    let numel = part.residual_numel();
                    let (rows, columns) = part.basis_shape();
                    let values = lookup.values("basis", &[rows, columns])?;
                    let basis = Array2::from_shape_vec((rows, columns), values);
                    Ok(LowRankState {
                        residual: Residual::load_state(options.residual, numel, &lookup)?,
                        basis: basis.map_err(|_| lookup.problem("basis", "has another shape"))?,
                        part,
                    })
                };
                let parts = MatrixPart::of(layout, options.rank).into_iter().enumerate();
                State::LowRank(options, parts.map(state).collect::<Result<_>>()?)
            }
        };
        Ok(Self { window, state })
    }

    /// Compresses a gradient and stores it in the window.
    pub fn update(&mut self, step: &VectorStep<'_, R>) {
        let Self { window, state } = self;
        match state {
            State::None => window.push(step.gradient),
            State::Sparse(sparse) => sparse.update(step, window),
            State::LowRank(options, parts) => {
                let factors = parts.iter_mut().zip(0..);
                let factors = factors.map(|(part, index)| part.update(step, options, index));
                window.push_low_rank(&factors.collect::<Vec<_>>());
            }
        }
    }

    /// Adds a multiple of the residual, if the window is sparse.
    pub fn add_residual(&self, offset: usize, weight: R, out: &mut [R]) {
        if let State::Sparse(sparse) = &self.state {
            sparse.residual.add(offset, weight, out);
        }
    }

    /// Scales the residual, if the window is sparse.
    pub fn scale_residual(&mut self, factor: f64) {
        if let State::Sparse(sparse) = &mut self.state {
            sparse.residual.scale(factor);
        }
    }

    pub fn count(&self, bytes: &mut StateBytes) {
        self.window.count_bytes(bytes);
        match &self.state {
            State::None => {}
            State::Sparse(sparse) => sparse.residual.count_bytes(bytes),
            State::LowRank(_, parts) => {
                for part in parts {
                    part.residual.count_bytes(bytes);
                    bytes.add("basis", part.basis.len() * size_of::<R>());
                }
            }
        }
    }

    pub fn save(&self, record: &mut Record<'_>) {
        self.window.save(record);
        match &self.state {
            State::None => {}
            State::Sparse(sparse) => sparse.residual.save(record),
            State::LowRank(_, parts) => {
                for (index, part) in parts.iter().enumerate() {
                    let mut record = record.nested(&format!("matrices.{index}"));
                    part.residual.save(&mut record);
                    let values: Vec<R> = part.basis.iter().copied().collect();
                    record.tensor("basis", StateTensor::new(part.basis.shape(), &values));
                }
            }
        }
    }
}

impl<R: Real> SparseState<R> {
    /// `a = ξ + g; c = C(a); ξ = a − c`, piece by piece.
    fn update(&mut self, step: &VectorStep<'_, R>, window: &mut GradWindow<R>) {
        let Self { options, residual, indices } = self;
        let numel = step.layout.numel();
        let piece = piece_length(numel, options);
        let mut filled = 0;
        for base in (0..numel).step_by(piece) {
            residual.update(base, piece.min(numel - base), (step.t, 0), |a| {
                add_gradient(step, base, options.feedback, a);
                options.selection.select(a, indices);
                window.push_piece((filled, base), indices, a);
                filled += indices.len();
            });
        }
        window.finish_row();
    }
}

impl<R: Real> LowRankState<R> {
    /// Factors this parameter's gradient, and keeps the residual.
    fn update(
        &mut self,
        step: &VectorStep<'_, R>,
        options: &LowRankConfig,
        index: u32,
    ) -> LowRankRow<R> {
        let Self { part, residual, basis } = self;
        if part.is_exact() {
            let mut row = LowRankRow { p: vec![R::zero(); part.rows], r: vec![R::one()] };
            step.gradient.load(part.offset, &mut row.p);
            return row;
        }
        residual.update(0, part.numel(), (step.t, index), |a| {
            add_gradient(step, part.offset, options.feedback, a);
            // the residual has as many elements as the matrix
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

/// `a ← a + g`; without feedback `a ← g`.
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

/// Length of the pieces that are selected from: the whole vector, or a multiple of the blocks of the
/// selection and of the residual.
fn piece_length(numel: usize, options: &SparseConfig) -> usize {
    let Some(block) = options.selection.block() else { return numel.max(1) };
    let (mut a, mut b) = (block, options.residual.block());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let common = (block / a.max(1)).saturating_mul(options.residual.block());
    common.saturating_mul(CHUNK.div_ceil(common.max(1))).clamp(1, numel.max(1))
}
