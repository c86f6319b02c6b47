use super::factor::{Factor, FactorOptions, FactorStorage, RootSolver};
use crate::error::{Error, Result};
use crate::first_order::AdamW;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::kernel::scratch::with_scratch;
use crate::linalg::{Damping, QrSigns, gram_left, gram_right, matrix_shape};
use crate::numeric::Real;
use crate::optim::{BlockState, Graft, MatrixMethod, Partition, Rule};
use crate::state::{Lookup, Record, Scalar, StateBytes, Storage};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewD, ArrayViewMut2, ArrayViewMutD, Ix2};

/// Shampoo: the gradient of a matrix, whitened from both sides, into any element-wise rule.
///
/// *Use it when* steps are dear and matrices not huge: it needs fewer of them than AdamW. *Not when*
/// most parameters are vectors or very long tables; those get the base rule alone.
///
/// ```text
/// every update_factors_every steps     L ← β·L + (1 − β)·G Gᵀ,   R ← β·R + (1 − β)·Gᵀ G
/// every update_roots_every steps       L̂ ← (L + εI)^(−1/4),  R̂ alike
/// from step start on                   D = L̂ G R̂,  D ← D·‖G‖/(‖D‖ + 1e-12)   else D = G
/// base                                 p, s ← base(p, D, s)
/// ```
/// A tensor of more than two dimensions is seen as (first, all others), dimensions of size 1
/// dropped; matrices larger than `max_dim` are cut into blocks with factors of their own, the length
/// of D is that of the whole tensor. Until the first root L̂ = R̂ = I.
///
/// | field | default | whose |
/// |---|---|---|
/// | `base` | `AdamW::default()` | paper: also SGD with momentum |
/// | `storage` | `Dense` | – ; [`FactorStorage::EIGEN4`] or [`FactorStorage::CHOLESKY4`] for 4 bits |
/// | `factor_beta` β | 0.95 | paper; with 1, a plain sum |
/// | `initial` ε₀ | 1e-6 | paper: L = R = ε₀I before the first step |
/// | `damping` ε | 1e-6·λmax | paper; 1e-4 is safer late in long runs |
/// | `root` | `Eigen` | – ; see [`RootSolver`] |
/// | `exponent` | 1/4 | paper; 1/2 is Shampoo² |
/// | `combination` | `Product` | Shampoo; or CASPR |
/// | `qr_signs` | `Positive` | – ; `Lapack` for the numbers of the authors' code |
/// | `graft` | `Gradient` | paper's code |
/// | `start` | 1 | paper |
/// | `update_factors_every` | 100 | paper |
/// | `update_roots_every` | 500 | paper |
/// | `max_dim` | 1200 | paper |
/// | `min_numel` | 4096 | paper's code: factors with n² below it keep full precision |
/// | `tolerated_failures` | 3 | Distributed Shampoo |
///
/// State of an m × n block in `f32`: `Dense` and `Eigen` 8(m² + n²) bytes, `EIGEN4` and `CHOLESKY4`
/// about 1.13(m² + n²); the base's slots; and room for the direction, 4 bytes per parameter.
///
/// # Errors
/// `build` refuses options out of range and an impossible codec. A factor whose decomposition fails
/// keeps its last good root; a step fails if that has happened more than `tolerated_failures` times
/// in a row.
///
/// # Examples
/// ```
/// use eigenstep::{linalg::Damping, prelude::*};
/// use ndarray::Array2;
///
/// let mut w = Array2::from_shape_fn((96, 64), |(i, j)| (i * j) as f32).sin();
/// let mut opt = Shampoo {
///     base: Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() },
///     storage: FactorStorage::EIGEN4,
///     damping: Damping::relative(1e-4),
///     update_factors_every: 2,
///     update_roots_every: 4,
///     ..Shampoo::default()
/// }
/// .build()?;
/// for _ in 0..100 {
///     let grad = w.clone(); // of ‖w‖²/2
///     opt.step(&mut w, &grad)?;
/// }
/// assert!(w.iter().all(|w| w.abs() < 0.1));
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As the published code of 4-bit Shampoo. Where that leaves the signs of eigenvectors to LAPACK,
/// here R of every QR decomposition has a diagonal ≥ 0, so that eigenvectors turn continuously;
/// with [`QrSigns::Lapack`] the numbers are those of the published code. Its 1-D tensors are grafted on themselves, a factor ‖g‖/(‖g‖ + 1e-12) that is left out here.
///
/// # Source
/// V. Gupta, T. Koren, Y. Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML
/// 2018; S. Wang, P. Zhou, J. Li, H. Huang, "4-bit Shampoo for Memory-Efficient Network Training",
/// NeurIPS 2024; CASPR: S. S. Duvvuri, F. Devvrit, R. Anil, C.-J. Hsieh, I. S. Dhillon, "Combining
/// Axes Preconditioners through Kronecker Approximation for Deep Learning", ICLR 2024.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Shampoo<U = AdamW> {
    /// What is done with the direction, and with all that is no matrix.
    pub base: U,
    /// How factors are stored.
    pub storage: FactorStorage,
    /// Weight `β` of the old statistic, in `[0, 1]`; 1 sums up.
    pub factor_beta: f64,
    /// First statistic `ε₀I`, `ε₀ >= 0`.
    pub initial: f64,
    /// Ridge `ε` of the roots, absolute or relative to the largest eigenvalue.
    pub damping: Damping,
    /// How roots are computed.
    pub root: RootSolver,
    /// A factor is taken to the power of minus this, `> 0`.
    pub exponent: f64,
    /// How both sides are combined.
    pub combination: Combination,
    /// Signs of the eigenvectors of `Eigen` and `QuantizedEigen`.
    pub qr_signs: QrSigns,
    /// Length of the direction.
    pub graft: Graft,
    /// First step that preconditions, at least 1.
    pub start: u64,
    /// Steps between updates of the statistics, at least 1.
    pub update_factors_every: u64,
    /// Steps between updates of the roots, at least 1.
    pub update_roots_every: u64,
    /// Largest order of a factor, at least 1.
    pub max_dim: usize,
    /// Smallest n² of a factor that is coded.
    pub min_numel: usize,
    /// Failures in a row that are borne.
    pub tolerated_failures: u64,
}

/// How the roots of both sides act on a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Combination {
    /// `L̂ G R̂`: the Kronecker product of both.
    #[default]
    Product,
    /// CASPR: `L̂ J + J R̂` with `J = L̂ G + G R̂`, the square of their Kronecker sum.
    Caspr,
}

impl<U: Default> Default for Shampoo<U> {
    fn default() -> Self {
        Self {
            base: U::default(),
            storage: FactorStorage::default(),
            factor_beta: 0.95,
            initial: 1e-6,
            damping: Damping::relative(1e-6),
            root: RootSolver::default(),
            exponent: 0.25,
            combination: Combination::default(),
            qr_signs: QrSigns::default(),
            graft: Graft::default(),
            start: 1,
            update_factors_every: 100,
            update_roots_every: 500,
            max_dim: 1200,
            min_numel: 4096,
            tolerated_failures: 3,
        }
    }
}

impl<U: Rule> Hyperparameters for Shampoo<U> {
    const NAME: &'static str = "Shampoo";

    /// The base's options under their own names, then the preconditioner's.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.base.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("factor_beta", Range::Unit, &mut self.factor_beta);
        option("initial", Range::NonNegative, &mut self.initial);
        option("damping.relative", Range::NonNegative, &mut self.damping.relative);
        option("damping.absolute", Range::NonNegative, &mut self.damping.absolute);
        option("exponent", Range::Positive, &mut self.exponent);
        option("start", Range::CountFrom(1), &mut self.start);
        option("update_factors_every", Range::CountFrom(1), &mut self.update_factors_every);
        option("update_roots_every", Range::CountFrom(1), &mut self.update_roots_every);
        option("max_dim", Range::CountFrom(1), &mut self.max_dim);
        option("min_numel", Range::CountFrom(0), &mut self.min_numel);
        option("tolerated_failures", Range::CountFrom(0), &mut self.tolerated_failures);
    }

    fn validate_together(&self) -> Result<()> {
        self.base.validate_together()?;
        self.storage.validate()
    }
}

/// Why a decomposition failed, in words that need no memory.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Decomposition { problem, .. } => problem,
        _ => "a factor is not finite",
    }
}

impl<U> Shampoo<U> {
    /// Whether statistics and roots are due at step `t`.
    fn due(&self, t: u64) -> (bool, bool) {
        let due = |interval: u64| t.is_multiple_of(interval);
        (due(self.update_factors_every), due(self.update_roots_every))
    }

    fn factor_options(&self) -> FactorOptions {
        FactorOptions {
            storage: self.storage,
            min_numel: self.min_numel,
            beta: self.factor_beta,
            initial: self.initial,
            damping: self.damping,
            root: self.root,
            exponent: self.exponent,
            qr_signs: self.qr_signs,
        }
    }
}

/// The factors of one block.
#[derive(Clone, Debug)]
pub struct ShampooBlock<R> {
    left: Factor<R>,
    right: Factor<R>,
    failures: u64,
    problem: &'static str,
}

impl<R: Real> ShampooBlock<R> {
    /// The factors L and R.
    pub fn factors(&self) -> (&Factor<R>, &Factor<R>) {
        (&self.left, &self.right)
    }

    /// Statistics and roots as far as they are due at step `t`.
    fn refresh<U>(&mut self, t: u64, g: &ArrayView2<'_, R>, method: &Shampoo<U>) {
        let (factors_due, roots_due) = method.due(t);
        let options = method.factor_options();
        let mut work = || -> Result<()> {
            if factors_due {
                self.left.accumulate(&gram_left(g), &options)?;
                self.right.accumulate(&gram_right(g), &options)?;
            }
            if roots_due {
                self.left.refresh_root(&options)?;
                self.right.refresh_root(&options)?;
            }
            Ok(())
        };
        match work() {
            Ok(()) if factors_due || roots_due => self.failures = 0,
            Ok(()) => {}
            Err(error) => {
                self.failures += 1;
                self.problem = reason(&error);
            }
        }
    }

    /// `out ← L̂ G R̂`, or CASPR's sum, for the gradient in `out`.
    fn apply(&self, combination: Combination, mut out: ArrayViewMut2<'_, R>) {
        let (left, right) = (self.left.root(), self.right.root());
        let (zero, one) = (R::zero(), R::one());
        with_scratch::<R, _>(out.len(), |scratch| {
            let Ok(mut half) = ArrayViewMut2::from_shape(out.dim(), scratch) else { return };
            match combination {
                Combination::Product => {
                    general_mat_mul(one, &left, &out, zero, &mut half);
                    general_mat_mul(one, &half, &right, zero, &mut out);
                }
                Combination::Caspr => {
                    general_mat_mul(one, &left, &out, zero, &mut half);
                    general_mat_mul(one, &out, &right, one, &mut half);
                    general_mat_mul(one, &left, &half, zero, &mut out);
                    general_mat_mul(one, &half, &right, one, &mut out);
                }
            }
        });
    }
}

impl<R: Real> BlockState for ShampooBlock<R> {
    fn count(&self, bytes: &mut StateBytes) {
        self.left.count(bytes);
        self.right.count(bytes);
    }

    fn save(&self, record: &mut Record<'_>) {
        self.left.save(&mut record.nested("left"));
        self.right.save(&mut record.nested("right"));
        record.scalar("failures", Scalar::Int(i64::try_from(self.failures).unwrap_or(i64::MAX)));
    }

    fn failures(&self) -> Option<(u64, &'static str)> {
        (self.failures > 0).then_some((self.failures, self.problem))
    }
}

impl<U: Rule> MatrixMethod for Shampoo<U> {
    type Rule = U;
    type Plain = U;
    type Block<R: Real> = ShampooBlock<R>;

    fn rule(&self) -> U {
        self.base.clone()
    }

    fn plain(&self) -> U {
        self.base.clone()
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        let (rows, columns) = matrix_shape(shape)?;
        Some(Partition::new(vec![rows, columns], self.max_dim))
    }

    fn graft(&self, t: u64) -> Graft {
        if t >= self.start { self.graft } else { Graft::None }
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| (method.storage, method.max_dim, method.min_numel);
        layout(self) == layout(changed)
    }

    fn init<R: Real>(&self, shape: &[usize], _: &Storage) -> ShampooBlock<R> {
        let (options, [rows, columns]) = (self.factor_options(), orders(shape));
        ShampooBlock {
            left: Factor::new(rows, &options),
            right: Factor::new(columns, &options),
            failures: 0,
            problem: "",
        }
    }

    fn load<R: Real>(
        &self,
        shape: &[usize],
        _: &Storage,
        lookup: &Lookup<'_>,
    ) -> Result<ShampooBlock<R>> {
        let (options, [rows, columns]) = (self.factor_options(), orders(shape));
        let failures = lookup.scalar("failures").and_then(Scalar::as_u64);
        Ok(ShampooBlock {
            left: Factor::load(rows, &options, &lookup.nested("left"))?,
            right: Factor::load(columns, &options, &lookup.nested("right"))?,
            failures: failures.ok_or_else(|| lookup.problem("failures", "is not a count"))?,
            problem: "a decomposition failed before the state was saved",
        })
    }

    fn precondition<R: Real>(
        &self,
        t: u64,
        gradient: ArrayViewD<'_, R>,
        block: &mut ShampooBlock<R>,
        direction: ArrayViewMutD<'_, R>,
    ) {
        // the partition makes matrices only
        let gradient = gradient.into_dimensionality::<Ix2>();
        let direction = direction.into_dimensionality::<Ix2>();
        let (Ok(gradient), Ok(direction)) = (gradient, direction) else { return };
        block.refresh(t, &gradient, self);
        if t >= self.start {
            block.apply(self.combination, direction);
        }
    }

    fn tolerated_failures(&self) -> u64 {
        self.tolerated_failures
    }
}

fn orders(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [rows, columns] => [rows, columns],
        _ => [0, 0],
    }
}
