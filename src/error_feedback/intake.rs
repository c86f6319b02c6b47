//! The way of a gradient into a window: what is left out of it, and fed back.

use super::compressor::{Selection, power_iteration};
use super::residual::{Residual, ResidualFormat};
use super::window::{GradWindow, LowRankRow, MatrixPart, RowFormat};
use crate::error::{Error, Result};
use crate::kernel::parallel;
use crate::kernel::scratch::with_scratch;
use crate::numeric::Real;
use crate::optim::{Layout, VectorStep};
use crate::state::slot::read_exact;
use crate::state::{Lookup, Record, StateBytes, StateTensor};
use ndarray::{Array2, ArrayView2};

/// Elements that one unit of work adds; selections per block take at least so many at a time.
const CHUNK: usize = 16_384;

/// What a window keeps of every gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Compression {
    /// Everything.
    #[default]
    None,
    /// The largest elements.
    Sparse(Sparsity),
    /// Two thin factors of every matrix.
    LowRank(LowRankness),
}

/// How a gradient is made sparse.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Sparsity {
    /// Which elements are kept.
    pub selection: Selection,
    /// Whether what is left out is added to the next gradient.
    pub feedback: bool,
    /// How what is left out is held.
    pub residual: ResidualFormat,
    /// Whether the window rounds values to bfloat16: 4 bytes per entry in place of 6 for `f32`. What
    /// rounding loses is fed back.
    pub bf16_values: bool,
}

impl Default for Sparsity {
    /// The largest hundredth, with feedback in full precision.
    fn default() -> Self {
        Self {
            selection: Selection::TopK { density: 0.01 },
            feedback: true,
            residual: ResidualFormat::Full,
            bf16_values: false,
        }
    }
}

/// How the matrices of a gradient are made thin: one step of the power iteration from the factor of
/// the step before. Vectors are kept whole.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LowRankness {
    /// Columns of the factors, at least 1.
    pub rank: usize,
    /// Whether what is left out is added to the next gradient.
    pub feedback: bool,
    /// How what is left out is held.
    pub residual: ResidualFormat,
    /// Seed of the first factors.
    pub seed: u64,
}

impl Default for LowRankness {
    /// Rank 4, with feedback in full precision.
    fn default() -> Self {
        Self { rank: 4, feedback: true, residual: ResidualFormat::Full, seed: 0 }
    }
}

impl Compression {
    /// The format of the window's rows.
    fn rows(&self, numel: usize) -> RowFormat {
        match self {
            Self::None => RowFormat::Dense,
            Self::Sparse(sparsity) => RowFormat::Sparse {
                kept: sparsity.selection.count(numel),
                bf16: sparsity.bf16_values,
            },
            Self::LowRank(low_rank) => RowFormat::LowRank { rank: low_rank.rank },
        }
    }

    /// Checks every option.
    pub(super) fn validate(&self, optimizer: &'static str) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Sparse(sparsity) => {
                sparsity.selection.validate(optimizer)?;
                sparsity.residual.validate(optimizer)
            }
            Self::LowRank(low_rank) if low_rank.rank == 0 => Err(Error::InvalidHyperparameter {
                optimizer,
                field: "compression.rank",
                expected: "at least 1".into(),
                found: "0".into(),
            }),
            Self::LowRank(low_rank) => low_rank.residual.validate(optimizer),
        }
    }

    /// Checks that a vector has as many elements as are to be kept.
    pub(super) fn check_layout(&self, optimizer: &'static str, layout: &Layout) -> Result<()> {
        match self {
            Self::Sparse(sparsity) => sparsity.selection.check_numel(optimizer, layout.numel()),
            _ => Ok(()),
        }
    }

    /// Whether what one has stored fits the other.
    pub(super) fn keeps_layout(&self, other: &Self) -> bool {
        self == other
    }
}

/// A window, and what its compression remembers.
#[derive(Debug)]
pub(super) struct Intake<R> {
    pub window: GradWindow<R>,
    compression: Compression,
    residuals: Vec<Residual<R>>,
    /// The selected elements, and the factors of the last row; kept for their memory.
    indices: Vec<u32>,
    factors: Vec<LowRankRow<R>>,
    parts: Vec<MatrixPart>,
    /// `Q` of every matrix, `columns × rank`: where the power iteration goes on.
    bases: Vec<Array2<R>>,
}

impl<R: Real> Intake<R> {
    pub fn new(compression: &Compression, capacity: usize, layout: &Layout) -> Self {
        let window = GradWindow::new(compression.rows(layout.numel()), capacity, layout);
        let (mut residuals, mut parts, mut bases) = (Vec::new(), Vec::new(), Vec::new());
        match compression {
            Compression::None => {}
            Compression::Sparse(sparsity) => {
                residuals.push(Residual::new(sparsity.residual, layout.numel()));
            }
            Compression::LowRank(low_rank) => {
                parts = MatrixPart::of(layout, low_rank.rank);
                for (index, part) in parts.iter().enumerate() {
                    let numel = if part.is_exact() { 0 } else { part.numel() };
                    residuals.push(Residual::new(low_rank.residual, numel));
                    bases.push(part.first_basis([low_rank.seed, index as u64]));
                }
            }
        }
        let factors = parts.iter().map(MatrixPart::zero_row).collect();
        let compression = *compression;
        Self { window, compression, residuals, indices: Vec::new(), factors, parts, bases }
    }

    /// Stores a gradient in the window.
    pub fn absorb(&mut self, step: &VectorStep<'_, R>) {
        match self.compression {
            Compression::None => self.window.push(step.gradient),
            Compression::Sparse(sparsity) => self.absorb_sparse(step, &sparsity),
            Compression::LowRank(low_rank) => self.absorb_low_rank(step, &low_rank),
        }
    }

    /// `a = ξ + g; c = C(a); ξ = a − c`, as many blocks at a time as make a piece worth the while.
    fn absorb_sparse(&mut self, step: &VectorStep<'_, R>, sparsity: &Sparsity) {
        let numel = step.layout.numel();
        let piece = piece_length(numel, sparsity);
        let Self { window, residuals, indices, .. } = self;
        let Some(residual) = residuals.first_mut() else { return };
        let mut filled = 0;
        for base in (0..numel).step_by(piece) {
            let len = piece.min(numel - base);
            let mut take = |a: &mut [R]| {
                add_gradient(step, base, sparsity.feedback, a);
                sparsity.selection.select(a, indices);
                window.push_piece((filled, base), indices, a);
                filled += indices.len();
            };
            if let Some(all) = residual.in_place() {
                take(all.get_mut(base..base + len).unwrap_or_default());
                continue;
            }
            with_scratch::<R, _>(len, |a| {
                residual.load(base, a);
                take(a);
                residual.store(base, [step.t as u32, 0], a);
            });
        }
        window.finish_row();
    }

    fn absorb_low_rank(&mut self, step: &VectorStep<'_, R>, low_rank: &LowRankness) {
        let parts = self.parts.iter().zip(&mut self.residuals).zip(&mut self.bases);
        for (index, (((part, residual), basis), row)) in parts.zip(&mut self.factors).enumerate() {
            if part.is_exact() {
                step.gradient.load(part.offset, &mut row.p);
                row.r.fill(R::one());
                continue;
            }
            with_scratch::<R, _>(part.numel(), |a| {
                residual.load(0, a);
                add_gradient(step, part.offset, low_rank.feedback, a);
                // the scratch has the elements of the matrix
                let Ok(matrix) = ArrayView2::from_shape((part.rows, part.columns), &*a) else {
                    return;
                };
                let (p, r) = power_iteration(&matrix, basis);
                let kept = p.dot(&r.t());
                row.p.iter_mut().zip(&p).for_each(|(to, &x)| *to = x);
                row.r.iter_mut().zip(r.t()).for_each(|(to, &x)| *to = x);
                a.iter_mut().zip(&kept).for_each(|(a, &c)| *a -= c);
                residual.store(0, [step.t as u32, index as u32], a);
                *basis = match r.iter().all(|x| *x == R::zero()) {
                    // from a zero factor the iteration would not come back
                    true => part.first_basis([low_rank.seed ^ step.t, index as u64]),
                    false => r,
                };
            });
        }
        self.window.push_low_rank(&self.factors);
    }

    /// Adds a multiple of what sparse gradients have left out.
    pub fn add_residual(&self, offset: usize, weight: R, out: &mut [R]) {
        if let (Compression::Sparse(_), Some(residual)) =
            (&self.compression, self.residuals.first())
        {
            residual.add(offset, weight, out);
        }
    }

    /// Multiplies everything that was left out.
    pub fn scale_residuals(&mut self, factor: f64) {
        self.residuals.iter_mut().for_each(|residual| residual.scale(factor));
    }

    pub fn count(&self, bytes: &mut StateBytes) {
        self.window.count_bytes(bytes);
        self.residuals.iter().for_each(|residual| residual.count_bytes(bytes));
        let size = |values: usize| values * size_of::<R>();
        bytes.add("basis", self.bases.iter().map(|basis| size(basis.len())).sum());
        let row = |row: &LowRankRow<R>| size(row.p.len() + row.r.len());
        bytes.add("row", self.factors.iter().map(row).sum());
    }

    pub fn save(&self, record: &mut Record<'_>) {
        self.window.save(record);
        match self.compression {
            Compression::None => {}
            Compression::Sparse(_) => {
                self.residuals.iter().for_each(|residual| residual.save(record));
            }
            Compression::LowRank(_) => {
                for (index, (residual, basis)) in self.residuals.iter().zip(&self.bases).enumerate()
                {
                    let mut record = record.nested(&format!("matrices.{index}"));
                    residual.save(&mut record);
                    let values: Vec<R> = basis.iter().copied().collect();
                    record.tensor("basis", StateTensor::new(basis.shape(), &values));
                }
            }
        }
    }

    pub fn load(
        compression: &Compression,
        capacity: usize,
        layout: &Layout,
        lookup: &Lookup<'_>,
    ) -> Result<Self> {
        // what the dict holds is read before memory is asked for
        let window = GradWindow::load(compression.rows(layout.numel()), capacity, layout, lookup)?;
        let (mut residuals, mut parts, mut bases) = (Vec::new(), Vec::new(), Vec::new());
        match compression {
            Compression::None => {}
            Compression::Sparse(sparsity) => {
                residuals.push(Residual::load_state(sparsity.residual, layout.numel(), lookup)?);
            }
            Compression::LowRank(low_rank) => {
                parts = MatrixPart::of(layout, low_rank.rank);
                for (index, part) in parts.iter().enumerate() {
                    let lookup = lookup.nested(&format!("matrices.{index}"));
                    let numel = if part.is_exact() { 0 } else { part.numel() };
                    residuals.push(Residual::load_state(low_rank.residual, numel, &lookup)?);
                    let shape = part.basis_shape();
                    let values = read_exact("basis", &[shape.0, shape.1], &lookup)?;
                    let basis = Array2::from_shape_vec(shape, values);
                    bases.push(basis.map_err(|_| lookup.problem("basis", "has another shape"))?);
                }
            }
        }
        let factors = parts.iter().map(MatrixPart::zero_row).collect();
        let compression = *compression;
        Ok(Self { window, compression, residuals, indices: Vec::new(), factors, parts, bases })
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
pub(super) fn piece_length(numel: usize, sparsity: &Sparsity) -> usize {
    let Some(block) = sparsity.selection.block() else { return numel.max(1) };
    let (mut a, mut b) = (block, sparsity.residual.block());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let common = (block / a.max(1)).saturating_mul(sparsity.residual.block());
    common.saturating_mul(CHUNK.div_ceil(common.max(1))).clamp(1, numel.max(1))
}
