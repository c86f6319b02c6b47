use crate::error::Result;
use crate::hyper::Hyperparameters;
use crate::numeric::{Real, sign};
use crate::optim::{Rule, Slot, WeightDecay};
use crate::state::SlotInit;

/// Rprop: each element has a step size of its own, which grows while the sign of its gradient stays and shrinks
/// when it changes.
///
/// *Use it when* gradients are exact (full batches) and badly scaled: nothing depends on their size. *Not when*
/// gradients are noisy: their signs change by chance, and steps shrink for no reason.
///
/// ```text
/// q = sign(g)·sign(g₋)                     g₋: prev, 0 at first
/// Δ ← clamp(Δ·η₊, Δmin, Δmax)              if q > 0; Δ = γ at first
/// Δ ← clamp(Δ·η₋, Δmin, Δmax), g ← 0       if q < 0
/// Δ ← clamp(Δ, Δmin, Δmax)                 if q = 0
/// p ← p − sign(g)·Δ                        sign(0) = 0
/// g₋ ← g
/// ```
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `lr` γ | 1e-2: the first step size, and nothing else | PyTorch |
/// | `etas` η₋, η₊ | (0.5, 1.2) | paper |
/// | `step_sizes` Δmin, Δmax | (1e-6, 50) | paper |
/// | `maximize` | false | PyTorch |
///
/// After the first step of a parameter, `lr` has no effect on it any more, except that nothing moves while it is 0.
///
/// State: `prev` (g₋) and `step_size` (Δ), 8 bytes per `f32` parameter. Of `prev` only the sign is used; in 4 bits
/// small elements lose it, and their step size then stays as it is.
///
/// # Errors
/// `build` refuses `lr` or `step_sizes` below 0, Δmin above Δmax, η₋ outside `(0, 1)`, and η₊ that is not a number
/// above 1.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let mut opt = Rprop { lr: 1.0, etas: (0.5, 2.0), ..Rprop::default() }.build()?;
/// for g in [-3.0, -0.1, 7.0, 7.0] {
///     opt.step(&mut w, &array![g])?; // +1, then +2, nothing as the sign changes, then −1
/// }
/// assert_eq!(w[0], 2.0);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// As `torch.optim.Rprop`, which takes the sign of the product `g·g₋`, 0 where that underflows, and takes no notice of a
/// learning rate that becomes 0. The first
/// paper also takes the last step back where the sign changes; without that it is the iRprop⁻ of Igel and Hüsken.
///
/// # Source
/// M. Riedmiller, H. Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm", ICNN
/// 1993; C. Igel, M. Hüsken, "Improving the Rprop Learning Algorithm", NC 2000.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Rprop {
    /// Step size `γ >= 0` of every element at its first step.
    pub lr: f64,
    /// Factors on the step size: `η₋` in `(0, 1)` where the sign changes, `η₊ > 1` where it stays.
    pub etas: (f64, f64),
    /// Least and largest step size, `0 <= Δmin <= Δmax`.
    pub step_sizes: (f64, f64),
    /// Ascend instead of descend.
    pub maximize: bool,
}
crate::config_file::named_fields!(Rprop);

impl Default for Rprop {
    fn default() -> Self {
        Self { lr: 1e-2, etas: (0.5, 1.2), step_sizes: (1e-6, 50.0), maximize: false }
    }
}

crate::hyperparameters!(Rprop, "Rprop", {
    "lr": NonNegative = lr;
    "etas.0": UnitOpen = etas.0;
    "etas.1": AboveOne = etas.1;
    "step_sizes.0": NonNegative = step_sizes.0;
    "step_sizes.1": NonNegative = step_sizes.1;
    "maximize": Flag = maximize;
}, |config| { config.check() });

impl Rprop {
    fn check(&self) -> Result<()> {
        let (least, largest) = self.step_sizes;
        if self.etas.1.is_infinite() {
            return Err(Self::invalid("etas.1", "finite", self.etas.1.to_string()));
        }
        if least > largest {
            let expected = format!("at most `step_sizes.1`, {largest}");
            return Err(Self::invalid("step_sizes.0", expected, least.to_string()));
        }
        Ok(())
    }
}

/// Scalars of one step.
#[derive(Clone, Copy, Debug)]
pub struct RpropCoefficients<R> {
    shrink: R,
    grow: R,
    least: R,
    largest: R,
}

impl Rule for Rprop {
    type Coefficients<R: Real> = RpropCoefficients<R>;
    type State<R: Real> = [R; 2];
    type GroupState = ();
    const SLOTS: &'static [Slot] = &[Slot::signed("prev"), Slot::unsigned("step_size")];
    const GRADIENT_POWER: u32 = 1;

    fn coefficients<R: Real>(&self, _: u64, _: &()) -> RpropCoefficients<R> {
        RpropCoefficients {
            shrink: R::of(self.etas.0),
            grow: R::of(self.etas.1),
            least: R::of(self.step_sizes.0),
            largest: R::of(self.step_sizes.1),
        }
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &RpropCoefficients<R>,
        _p: R,
        g: R,
        [prev, size]: [R; 2],
    ) -> (R, [R; 2]) {
        let agreement = sign(g) * sign(prev);
        let (turned, stays) = (agreement < R::zero(), agreement > R::zero());
        let factor = if turned { c.shrink } else { R::one() };
        let factor = if stays { c.grow } else { factor };
        let size = size * factor;
        let size = if size < c.least { c.least } else { size };
        let size = if size > c.largest { c.largest } else { size };
        let g = if turned { R::zero() } else { g };
        (sign(g) * size, [g, size])
    }

    /// The step sizes are the elements' own; a rate of 0 stops them.
    fn step_size(&self, _: u64, _: &()) -> f64 {
        if self.lr == 0.0 { 0.0 } else { 1.0 }
    }

    fn decay(&self) -> WeightDecay {
        WeightDecay::None
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        SlotInit::Value(if slot == 1 { self.lr } else { 0.0 })
    }
}
