use super::coefficients::{AdamCoefficients, Correction};
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};

/// Adam for gradients of few rows: rows without a gradient stand still, and so do their moments (lazy Adam).
///
/// *Use it when* you train large embeddings, of whose rows a batch reads few: a step costs what these rows cost.
/// *Not when* gradients are dense: it is [`Adam`](crate::first_order::Adam) then.
///
/// For the rows that a [`RowGradient`](crate::params::RowGradient) has, those given twice added up:
/// ```text
/// m ← m + (1 − β₁)·(g − m)
/// v ← β₂·v + (1 − β₂)·g²
/// p ← p − γ·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m/(√v + ε)      no step where √v + ε = 0
/// ```
/// `t` counts the steps of the parameter, not those of a row. Gradients in any other form have all rows.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | PyTorch |
/// | `betas` β₁, β₂ | (0.9, 0.999) | PyTorch |
/// | `eps` ε | 1e-8 | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// State: `exp_avg` (m) and `exp_avg_sq` (v), 8 bytes per `f32` parameter. In 8 and 4 bits, a block of codes that has a
/// given row is coded again as a whole; with rank-1 scales all of them are.
///
/// # Errors
/// `build` refuses `lr` or `eps` below 0 and `betas` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::{Array2, array};
///
/// let mut table = (Array2::<f64>::zeros((1000, 2)),);
/// let mut opt = SparseAdam { lr: 0.1, eps: 0.0, ..SparseAdam::default() }.build()?;
/// opt.step(&mut table, &(RowGradient::new(&[1000, 2], vec![7], array![[3.0, -0.5]])?,))?;
/// opt.step(&mut table, &(RowGradient::new(&[1000, 2], vec![8], array![[1.0, 1.0]])?,))?;
/// // row 7 has not moved on, as Adam would have moved it
/// assert!((table.0[[7, 0]] + 0.1).abs() < 1e-12 && (table.0[[7, 1]] - 0.1).abs() < 1e-12);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.SparseAdam`, which refuses dense gradients, and `lr` and `eps` of 0. `ε` is added before the bias
/// correction (the paper's ε̂), other than in `Adam`. A rule around it sees gradients with all rows.
///
/// # Source
/// D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; the lazy form: PyTorch, and TensorFlow
/// Addons' `LazyAdam`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct SparseAdam {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Decay rates of the first and second moment, each in `[0, 1)`.
    pub betas: (f64, f64),
    /// Stabiliser `ε >= 0`, added to the root of the uncorrected second moment.
    pub eps: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(SparseAdam);

impl Default for SparseAdam {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, maximize: false }
    }
}

crate::hyperparameters!(SparseAdam, "SparseAdam", {
    "lr": NonNegative = lr;
    "betas.0": UnitHalfOpen = betas.0;
    "betas.1": UnitHalfOpen = betas.1;
    "eps": NonNegative = eps;
    "maximize": Flag = maximize;
});

impl Rule for SparseAdam {
    type Coefficients<R: Real> = AdamCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("exp_avg"), Slot::unsigned("exp_avg_sq")];

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AdamCoefficients<R> {
        let correction = Correction { bias_correction: true, eps_hat: true };
        AdamCoefficients::new(self.betas, self.eps, correction, t)
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AdamCoefficients<R>, _p: R, g: R, [m, v]: [R; 2]) -> (R, [R; 2]) {
        let (u, [m, v, _]) = c.direction(g, [m, v, R::zero()]);
        (u, [m, v])
    }

    fn lazy(&self) -> bool {
        true
    }

    fn step_size(&self, _: u64, _: &()) -> f64 {
        self.lr
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn maximize(&self) -> bool {
        self.maximize
    }
}
