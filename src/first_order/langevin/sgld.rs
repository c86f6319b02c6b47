use crate::first_order::arithmetic::ratio;
use crate::numeric::Real;
use crate::optim::{Rule, Slot, WeightDecay};
use crate::state::Input;

/// SGLD: gradient descent with noise, whose iterates are samples of `exp(−f/T)`.
///
/// *Use it when* you want samples of a posterior, for uncertainty or for averages over models. *Not when* you
/// want one good model: noise costs accuracy; [`Sgd`](crate::first_order::Sgd).
///
/// ```text
/// g ← g + λp
/// G = 1                                       with preconditioned:
///                                             v ← α·v + (1 − α)·g²,  G = 1/(√v + ε), 0 where √v + ε = 0
/// p ← p − γ·G·g + √(2·γ·T·G)·ξ                ξ normal, of mean 0 and variance 1
/// ```
/// The scale of the loss decides which temperature `T` belongs to the posterior. If `f` is the negative logarithm of the
/// posterior, it is 1; if `f` is its mean over `n` examples, it is `1/n`. A normal prior of precision `λ`, in
/// the units of `f`, is `weight_decay`. The first iterates, and those of a large `lr`, are not yet samples;
/// let `lr` decrease, or keep it small and skip what comes first.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | – |
/// | `temperature` T | 1 | paper |
/// | `weight_decay` λ | 0 | – |
/// | `preconditioned` | false | Welling and Teh; true: Li and others |
/// | `alpha` α | 0.99 | Li and others |
/// | `eps` ε | 1e-5 | Li and others (λ) |
/// | `seed` | 0 | – |
/// | `maximize` | false | PyTorch |
///
/// `ξ` depends on `seed`, the parameter's name, its step and the element's index alone: the samples are the
/// same for any number of threads, and after saving and loading. Two chains need two seeds.
///
/// State: none; with `preconditioned` `square_avg` (v), 4 bytes per `f32` parameter.
///
/// # Errors
/// `build` refuses `lr`, `temperature`, `weight_decay` or `eps` below 0 and `alpha` outside `[0, 1)`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::Array1;
///
/// // ten thousand chains of one parameter, whose density is normal with variance 1/4
/// let mut w = Array1::<f32>::zeros(10_000);
/// let mut opt = Sgld { lr: 0.02, ..Sgld::default() }.build()?;
/// for _ in 0..100 {
///     let grad = &w * 4.0; // of w²/(2/4)
///     opt.step(&mut w, &grad)?;
/// }
/// assert!((w.dot(&w) / 10_000.0 - 0.25).abs() < 0.02);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// Welling and Teh write `ε/2` for `γ`: half their step size, and the same noise. Li and others add
/// `γ·T·∂G/∂p`, and leave it out in their experiments, as here.
///
/// # Source
/// M. Welling, Y. W. Teh, "Bayesian Learning via Stochastic Gradient Langevin Dynamics", ICML 2011; C. Li, C. Chen,
/// D. Carlson, L. Carin, "Preconditioned Stochastic Gradient Langevin Dynamics for Deep Neural Networks",
/// AAAI 2016.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Sgld {
    /// Learning rate `γ >= 0`; the variance of the noise is `2·γ·T`.
    pub lr: f64,
    /// Temperature `T >= 0`; 0 is gradient descent.
    pub temperature: f64,
    /// Weight decay `λ >= 0`, added to the gradient: a normal prior.
    pub weight_decay: f64,
    /// Scale gradient and noise by the root of the averaged squared gradient, as RMSprop does.
    pub preconditioned: bool,
    /// Decay rate `α` of that average, in `[0, 1)`.
    pub alpha: f64,
    /// Stabiliser `ε >= 0`, added to the root.
    pub eps: f64,
    /// Key of the random numbers.
    pub seed: u64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Sgld);

impl Default for Sgld {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            temperature: 1.0,
            weight_decay: 0.0,
            preconditioned: false,
            alpha: 0.99,
            eps: 1e-5,
            seed: 0,
            maximize: false,
        }
    }
}

crate::hyperparameters!(Sgld, "Sgld", {
    "lr": NonNegative = lr;
    "temperature": NonNegative = temperature;
    "weight_decay": NonNegative = weight_decay;
    "preconditioned": Flag = preconditioned;
    "alpha": UnitHalfOpen = alpha;
    "eps": NonNegative = eps;
    "seed": CountFrom(0) = seed;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct SgldCoefficients<R> {
    /// `√(2T/γ)`; 0 for `γ = 0`.
    noise: R,
    preconditioned: bool,
    alpha: R,
    one_minus_alpha: R,
    eps: R,
}

impl Rule for Sgld {
    type Coefficients<R: Real> = SgldCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] =
        &[Slot::input("noise", Input::Noise), Slot::unsigned("square_avg").optional()];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> SgldCoefficients<R> {
        // a rate that the arithmetic rounds to 0 moves nothing
        let moves = R::of(self.lr) > R::zero();
        let noise = if moves { (2.0 * self.temperature / self.lr).sqrt() } else { 0.0 };
        SgldCoefficients {
            noise: R::of(noise),
            preconditioned: self.preconditioned,
            alpha: R::of(self.alpha),
            one_minus_alpha: R::of(1.0 - self.alpha),
            eps: R::of(self.eps),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &SgldCoefficients<R>, _p: R, g: R, [xi, v]: [R; 2]) -> (R, [R; 2]) {
        if !c.preconditioned {
            return (g - c.noise * xi, [xi, v]);
        }
        let v = c.alpha * v + c.one_minus_alpha * g * g;
        let scale = ratio(R::one(), v.sqrt() + c.eps);
        (scale * g - c.noise * scale.sqrt() * xi, [xi, v])
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::Coupled(self.weight_decay)
    }

    fn uses_slot(&self, slot: usize) -> bool {
        if slot == 0 { self.temperature > 0.0 } else { self.preconditioned }
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}
