use crate::first_order::arithmetic::lerp;
use crate::numeric::Real;
use crate::optim::{Apply, Rule, Slot, WeightDecay};

/// ASGD: gradient descent with a decreasing learning rate, and the average of its iterates.
///
/// *Use it when* the loss is convex (linear models, conditional random fields): the average converges as fast as any
/// method can. *Not when* you train a network: [`Swa`](crate::wrappers::Swa) averages the iterates of any method
/// from where you say.
///
/// ```text
/// g ← g + λp
/// η = γ/(1 + lambd·γ·(t − 1))^α
/// p ← p·(1 − lambd·η) − η·g
/// a ← a + μ·(p − a)                        μ = 1/max(1, t − 1 − t0); a = p where μ = 1
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2 | PyTorch |
/// | `lambd` | 1e-4 | PyTorch |
/// | `alpha` α | 0.75 | Xu |
/// | `t0` | 1e6 | PyTorch |
/// | `weight_decay` λ | 0 | PyTorch |
/// | `maximize` | false | PyTorch |
///
/// The parameters stay the iterates: `visit_slot` and the state dict give the average.
///
/// State: `ax` (a), 4 bytes per `f32` parameter; it is an iterate, and stays in full precision when other slots are
/// coded.
///
/// # Errors
/// `build` refuses negative options.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![1.0f64];
/// let mut opt = Asgd { lr: 0.5, lambd: 0.0, t0: 0.0, ..Asgd::default() }.build()?;
/// for g in [0.0, 0.0, 2.0] {
///     opt.step(&mut w, &array![g])?; // 1, 1, 0
/// }
/// let mut average = Vec::new();
/// opt.visit_slot("ax", &mut |_, values| average = values.to_vec());
/// assert_eq!((w[0], average[0]), (0.0, 0.5)); // of the last two
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.ASGD` with a constant learning rate. There `eta` and `mu` are kept from the step before, in `f32`, so
/// that a new learning rate acts one step late; here it acts at once, and nothing is kept. `f64` numbers differ by about
/// 1e-8 for that reason.
///
/// # Source
/// B. T. Polyak, A. B. Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on Control and
/// Optimization 1992; the learning rate: W. Xu, "Towards Optimal One Pass Large Scale Learning with Averaged Stochastic
/// Gradient Descent", 2011.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Asgd {
    /// Learning rate `γ >= 0` of the first step.
    pub lr: f64,
    /// Decay `lambd >= 0`, of the weights and of the learning rate.
    pub lambd: f64,
    /// Power `α >= 0` with which the learning rate decreases.
    pub alpha: f64,
    /// Step `t0 >= 0` after which the average begins; until then it is the last iterate.
    pub t0: f64,
    /// Coupled weight decay `λ >= 0`, besides `lambd`.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Asgd);

impl Default for Asgd {
    fn default() -> Self {
        Self { lr: 1e-2, lambd: 1e-4, alpha: 0.75, t0: 1e6, weight_decay: 0.0, maximize: false }
    }
}

crate::hyperparameters!(Asgd, "Asgd", {
    "lr": NonNegative = lr;
    "lambd": NonNegative = lambd;
    "alpha": NonNegative = alpha;
    "t0": NonNegative = t0;
    "weight_decay": NonNegative = weight_decay;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct AsgdCoefficients<R> {
    lambd: R,
    /// Weight of the new iterate in the average.
    mu: R,
}

impl Rule for Asgd {
    type Coefficients<R: Real> = AsgdCoefficients<R>;
    type State<R: Real> = [R; 1];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::iterate("ax")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, t: u64, _: &()) -> AsgdCoefficients<R> {
        let averaged = t.saturating_sub(1) as f64 - self.t0;
        AsgdCoefficients { lambd: R::of(self.lambd), mu: R::of(1.0 / averaged.max(1.0)) }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &AsgdCoefficients<R>, p: R, g: R, s: [R; 1]) -> (R, [R; 1]) {
        (g + c.lambd * p, s)
    }

    /// The average needs the new parameter.
    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &AsgdCoefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        s: [R; 1],
    ) -> (R, [R; 1]) {
        let (u, [average]) = Self::direction(c, p, g, s);
        let p = p * a.shrink - a.lr * u;
        (p, [if c.mu == R::one() { p } else { lerp(average, p, c.mu) }])
    }

    fn step_size(&self, t: u64, _: &()) -> f64 {
        let past = t.saturating_sub(1) as f64;
        self.lr / (1.0 + self.lambd * self.lr * past).powf(self.alpha)
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }
}
