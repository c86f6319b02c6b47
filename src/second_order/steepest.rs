use super::polar::PolarBlock;
use super::reshape::{entry_of, of_entries};
use super::{Descent, LrAdjustment, Orthogonalization};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::linalg::matrix_shape;
use crate::numeric::Real;
use crate::numeric::limits::MOST_ITERATIONS;
use crate::optim::{BlockStep, GradEma, MatrixMethod, Partition, Rule};
use crate::state::{Lookup, Storage};
use ndarray::{ArrayViewMutD, Ix2};

/// Steepest descent under a norm of your choice; any element-wise rule takes the direction.
///
/// *Use it when* you want Muon's step, or a step by signs, with a momentum, decay or average of your own.
/// *Not when* you want the usual split, matrices by Muon and all else by AdamW: that is
/// [`Muon`](super::Muon).
///
/// ```text
/// Ḡ = average of gradients                      filter_beta β₁; see optim::GradEma
/// D = U Vᵀ for Ḡ = U S Vᵀ                       norm Spectral: the matrix of norm 1 most like Ḡ
/// D = scale·sign(Ḡ)                             norm Max
/// p, s ← inner(p, D, s)
/// ```
/// Of all D with ‖D‖ = 1 these are the ones along which the loss falls fastest. For `Spectral`, a tensor of
/// more than two dimensions is reshaped to (first, all others); what is no matrix is the inner
/// optimizer's alone, without the average. With `batch_dims` the first dimensions number the matrices of a
/// stack, each of which is a tensor of its own.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | `Descent::default()` | Distributed Shampoo |
/// | `norm` | `Spectral`, five steps of Muon's polynomial | Distributed Shampoo |
/// | `filter_beta` β₁ | 0.9 | Distributed Shampoo |
/// | `filter_weight` β₃ | β₁ | Distributed Shampoo |
/// | `bias_correction` | true | Distributed Shampoo |
/// | `l2` | 0 | L2 regularisation |
/// | `batch_dims` | 0 | –; 1 for the matrices of experts or heads in one tensor |
///
/// State: `filtered_grad` with a filter, 4 bytes per `f32` parameter; the inner rule's slots.
///
/// # Errors
/// `build` refuses options out of range. A step fails if a matrix could not be made orthogonal four
/// times in a row.
///
/// # Examples
/// ```
/// use eigenstep::{prelude::*, second_order::{Descent, Norm, SteepestDescent}};
/// use ndarray::array;
///
/// let mut w = array![[1.0f64, -2.0], [0.5, 0.0]];
/// let inner = Descent { lr: 0.5, ..Descent::default() };
/// let method = SteepestDescent { inner, norm: Norm::Max { scale: 1.0 }, ..SteepestDescent::default() };
/// let grad = w.clone();
/// method.build()?.step(&mut w, &grad)?;
/// assert_eq!(w, array![[0.5, -1.5], [0.0, 0.0]]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Source
/// J. Bernstein, L. Newhouse, "Old Optimizer, New Norm: An Anthology", 2024; D. Carlson, V. Cevher,
/// L. Carin, "Stochastic Spectral Descent for Restricted Boltzmann Machines", AISTATS 2015.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SteepestDescent<U = Descent> {
    /// The inner rule, which takes the direction.
    pub inner: U,
    /// The norm.
    pub norm: Norm,
    /// Decay rate `β₁` in `[0, 1)` of the average; 0: the gradient itself.
    pub filter_beta: f64,
    /// Weight `β₃` in `[0, 1)` of the old average in what is used.
    pub filter_weight: Option<f64>,
    /// Correct the average for its start at zero.
    pub bias_correction: bool,
    /// Weight `>= 0` of the parameter in the gradient.
    pub l2: f64,
    /// Number of leading dimensions that number the matrices of a stack; `Max` does not ask.
    #[cfg_attr(feature = "serde", serde(default))]
    pub batch_dims: usize,
}
crate::config_file::named_fields!(SteepestDescent<U>, U);

/// The norm that measures steps.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub enum Norm {
    /// The largest singular value, of matrices.
    Spectral {
        /// How the orthogonal factor is found.
        orthogonalization: Orthogonalization,
        /// Number of iterations, at least 1.
        steps: usize,
        /// Norm below which a matrix is not scaled up any more.
        eps: f64,
        /// Factor on the learning rate.
        adjust_lr: LrAdjustment,
    },
    /// The largest entry: descent by signs.
    Max {
        /// Length of every entry of the step.
        scale: f64,
    },
}

impl Default for Norm {
    /// Five steps of Muon's polynomial, norms below 1e-8 left alone, no factor.
    fn default() -> Self {
        Self::Spectral {
            orthogonalization: Orthogonalization::Quintic,
            steps: 5,
            eps: 1e-8,
            adjust_lr: LrAdjustment::None,
        }
    }
}

impl<U: Default> Default for SteepestDescent<U> {
    fn default() -> Self {
        Self::with_inner(U::default())
    }
}

impl<U> SteepestDescent<U> {
    /// The defaults around this rule.
    pub fn with_inner(inner: U) -> Self {
        Self {
            inner,
            norm: Norm::default(),
            filter_beta: 0.9,
            filter_weight: None,
            bias_correction: true,
            l2: 0.0,
            batch_dims: 0,
        }
    }
}

impl<U: Rule> Hyperparameters for SteepestDescent<U> {
    const NAME: &'static str = "SteepestDescent";

    /// The inner rule's options under their own names, then the direction's.
    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let mut option = |name, range, value| visitor(Hyper { name, range, value });
        option("filter_beta", Range::UnitHalfOpen, &mut self.filter_beta);
        option("filter_weight", Range::OptionalUnitHalfOpen, &mut self.filter_weight);
        option("bias_correction", Range::Flag, &mut self.bias_correction);
        option("l2", Range::NonNegative, &mut self.l2);
        match &mut self.norm {
            Norm::Spectral { steps, eps, .. } => {
                option("norm.steps", Range::Count(1, MOST_ITERATIONS), steps);
                option("norm.eps", Range::NonNegative, eps);
            }
            Norm::Max { scale } => option("norm.scale", Range::Positive, scale),
        }
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        match self.filter_weight {
            Some(weight) if weight != 0.0 && self.filter_beta == 0.0 => {
                let expected = "unset without filter_beta";
                Err(Self::invalid("filter_weight", expected, weight.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl<U: Rule> MatrixMethod for SteepestDescent<U> {
    type Rule = U;
    type Fallback = U;
    type Block<R: Real> = PolarBlock;

    fn rule(&self) -> U {
        self.inner.clone()
    }

    fn fallback(&self) -> U {
        self.inner.clone()
    }

    fn partition(&self, shape: &[usize]) -> Option<Partition> {
        match self.norm {
            _ if shape.contains(&0) => None,
            Norm::Spectral { .. } => of_entries(shape, self.batch_dims, |entry| {
                let (rows, columns) = matrix_shape(entry)?;
                Some(Partition::new(vec![rows, columns], usize::MAX))
            }),
            Norm::Max { .. } => Some(Partition::new(vec![shape.iter().product()], usize::MAX)),
        }
    }

    fn grad_ema(&self) -> Option<GradEma> {
        let beta = self.filter_beta;
        (beta > 0.0).then(|| GradEma {
            slot: "filtered_grad",
            beta,
            weight: self.filter_weight.unwrap_or(beta),
            bias_correction: self.bias_correction,
        })
    }

    fn l2(&self) -> f64 {
        self.l2
    }

    fn lr_factor(&self, shape: &[usize]) -> f64 {
        match self.norm {
            Norm::Spectral { adjust_lr, .. } => {
                let entry = entry_of(shape, self.batch_dims);
                adjust_lr.factor(entry, matrix_shape(entry).unwrap_or((1, 1)))
            }
            Norm::Max { .. } => 1.0,
        }
    }

    fn keeps_layout(&self, changed: &Self) -> bool {
        let layout = |method: &Self| {
            let spectral = matches!(method.norm, Norm::Spectral { .. });
            (spectral.then_some(method.batch_dims), method.filter_beta > 0.0)
        };
        layout(self) == layout(changed)
    }

    fn init<R: Real>(&self, _: &[usize], _: &Storage) -> PolarBlock {
        PolarBlock::default()
    }

    fn load<R: Real>(&self, _: &[usize], _: &Storage, _: &Lookup<'_>) -> Result<PolarBlock> {
        Ok(PolarBlock::default())
    }

    fn precondition<R: Real>(
        &self,
        _: &BlockStep<'_, R>,
        block: &mut PolarBlock,
        mut direction: ArrayViewMutD<'_, R>,
    ) -> f64 {
        match &self.norm {
            Norm::Spectral { orthogonalization, steps, eps, .. } => {
                // the partition makes matrices only
                if let Ok(mut matrix) = direction.into_dimensionality::<Ix2>() {
                    block.replace(&mut matrix, orthogonalization, (*steps, *eps));
                }
            }
            Norm::Max { scale } => {
                let scale = R::of(*scale);
                let sign = |x: R| if x == R::zero() { x } else { scale * x.signum() };
                direction.mapv_inplace(sign);
            }
        }
        0.0
    }
}
