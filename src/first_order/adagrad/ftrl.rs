use crate::first_order::arithmetic::{power, ratio};
use crate::numeric::range::capped;
use crate::numeric::{Real, sign};
use crate::optim::{Apply, Rule, Slot, WeightDecay};

/// FTRL-Proximal: Adagrad's steps with exact zeros: parameters whose gradients do not outweigh an L1 penalty are 0.
///
/// *Use it when* you train a linear model on very many sparse features (click-through rates) and want a small model.
/// *Not when* you train a network: without penalties it is Adagrad.
///
/// ```text
/// σ = ((n + g²)^−q − n^−q)/γ               q: lr_power
/// n ← n + g²
/// z ← z + g − σ·p
/// p ← (sign(z)·λ₁ − z)/((β + √n)/γ + λ₂)   0 where |z| ≤ λ₁
/// ```
/// An element that has seen no gradient stands still, and so does everything while γ = 0.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-3 | pytorch_optimizer |
/// | `lr_power` q | −0.5 | paper |
/// | `beta` β | 0 | pytorch_optimizer; paper: 1 |
/// | `lambda_1` λ₁ | 0 | pytorch_optimizer |
/// | `lambda_2` λ₂ | 0 | pytorch_optimizer |
/// | `maximize` | false | PyTorch |
///
/// State: `z` and `n`, 8 bytes per `f32` parameter. They say where the parameter is, and stay in full precision unless a
/// precision is set for them by name.
///
/// # Errors
/// `build` refuses `lr`, `beta`, `lambda_1` or `lambda_2` below 0 and `lr_power` above 0.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64, 0.0];
/// let mut opt = Ftrl { lr: 1.0, lambda_1: 0.5, ..Ftrl::default() }.build()?;
/// opt.step(&mut w, &array![2.0, 0.25])?;
/// assert_eq!(w, array![-0.75, 0.0]); // −(2 − 0.5)/√4; the penalty outweighs 0.25
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `pytorch_optimizer.FTRL`, which makes an element that has seen no gradient 0. In TensorFlow, n begins at 0.1. `z` begins at 0, so that with λ₁ = λ₂ = β = 0 and q = −0.5 the first step is that
/// of [`Adagrad`](crate::first_order::Adagrad). The learning rate should stay the same: σ assumes that it did.
///
/// # Source
/// H. B. McMahan and others, "Ad Click Prediction: a View from the Trenches", KDD 2013.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Ftrl {
    /// Learning rate `γ >= 0`.
    pub lr: f64,
    /// Minus the power `q <= 0` of the sum of squares by which the learning rate decreases.
    pub lr_power: f64,
    /// Added to the root of the sum of squares, `β >= 0`: how slowly the first steps begin.
    pub beta: f64,
    /// L1 penalty `λ₁ >= 0`.
    pub lambda_1: f64,
    /// L2 penalty `λ₂ >= 0`.
    pub lambda_2: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Ftrl);

impl Default for Ftrl {
    fn default() -> Self {
        Self { lr: 1e-3, lr_power: -0.5, beta: 0.0, lambda_1: 0.0, lambda_2: 0.0, maximize: false }
    }
}

crate::hyperparameters!(Ftrl, "Ftrl", {
    "lr": NonNegative = lr;
    "lr_power": NonPositive = lr_power;
    "beta": NonNegative = beta;
    "lambda_1": NonNegative = lambda_1;
    "lambda_2": NonNegative = lambda_2;
    "maximize": Flag = maximize;
});

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct FtrlCoefficients<R> {
    /// `γ`.
    lr: R,
    /// `−q`.
    power: R,
    beta: R,
    lambda_1: R,
    lambda_2: R,
}

impl Ftrl {
    /// The new parameter and state of one element.
    #[inline(always)]
    fn step_of<R: Real>(c: &FtrlCoefficients<R>, p: R, g: R, [z, n]: [R; 2]) -> (R, [R; 2]) {
        // a square that overflows counts as the largest number
        let new = capped(n + g * g, R::max_value());
        if c.lr == R::zero() || new == R::zero() {
            return (p, [z, n]);
        }
        let sigma = (power(new, c.power) - power(n, c.power)) / c.lr;
        let z = z + g - sigma * p;
        let pull = sign(z) * c.lambda_1 - z;
        let moved = pull / ((c.beta + new.sqrt()) / c.lr + c.lambda_2);
        (if z.abs() <= c.lambda_1 { R::zero() } else { moved }, [z, new])
    }
}

impl Rule for Ftrl {
    type Coefficients<R: Real> = FtrlCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::iterate("z"), Slot::iterate("n")];

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> FtrlCoefficients<R> {
        // the state is that of the parameter over the rate: rates that would take it beyond the range are none
        let least = R::min_positive_value() * R::of(1e9);
        FtrlCoefficients {
            lr: if R::of(self.lr) < least { R::zero() } else { R::of(self.lr) },
            power: R::of(-self.lr_power),
            beta: R::of(self.beta),
            lambda_1: R::of(self.lambda_1),
            lambda_2: R::of(self.lambda_2),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(c: &FtrlCoefficients<R>, p: R, g: R, s: [R; 2]) -> (R, [R; 2]) {
        let (moved, s) = Self::step_of(c, p, g, s);
        (ratio(p - moved, c.lr), s)
    }

    /// The parameter follows from the state.
    fn has_own_update(&self) -> bool {
        true
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &FtrlCoefficients<R>,
        _: &Apply<R>,
        p: R,
        g: R,
        s: [R; 2],
    ) -> (R, [R; 2]) {
        Self::step_of(c, p, g, s)
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
