use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, Range};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Apply, Pair, Rule, RuleAround, Slot, WeightDecay};

/// GrokFast: any rule on gradients whose slow part is amplified.
///
/// *Use it when* a model fits its data long before it generalises: what gradients have in common over
/// many steps then counts more. *Not when* training is short compared with `1/(1 − α)` steps.
///
/// ```text
/// μ ← g                              at the first step
/// μ ← α·μ + (1 − α)·g                afterwards
/// g ← g + λ·μ                        which the inner rule sees
/// ```
/// `g` is the gradient of the step, negated with `maximize`, before coupled decay is added.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | the inner rule's | – |
/// | `ema_decay` α | 0.98 | authors' code |
/// | `amplification` λ | 2 | authors' code (`lamb`) |
///
/// State: `grad_ema` (μ), 4 bytes per `f32` parameter, and that of the inner rule.
///
/// # Errors
/// `build` refuses `ema_decay` outside `[0, 1)` and a negative `amplification`.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64];
/// let sgd = Sgd { lr: 1.0, ..Sgd::default() };
/// let mut opt = GrokFast { ema_decay: 0.5, ..GrokFast::with_inner(sgd) }.build()?;
/// opt.step(&mut w, &array![1.0])?; // μ = 1
/// opt.step(&mut w, &array![0.0])?; // μ = 1/2
/// assert_eq!(w, array![-3.0 - 1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// The authors' code changes the gradients in place before the optimizer sees them; coupled weight decay
/// comes after that, here as there.
///
/// # Source
/// J. Lee, B. G. Kang, K. Kim, K. M. Lee, "Grokfast: Accelerated Grokking by Amplifying Slow Gradients",
/// 2024.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct GrokFast<U> {
    /// The inner rule.
    pub inner: U,
    /// Decay rate `α` of the average, in `[0, 1)`.
    pub ema_decay: f64,
    /// Weight `λ >= 0` of the average in the gradient.
    pub amplification: f64,
}
crate::config_file::named_fields!(GrokFast<U>, U);

impl<U> GrokFast<U> {
    /// The defaults around a rule.
    pub fn with_inner(inner: U) -> Self {
        Self { inner, ema_decay: 0.98, amplification: 2.0 }
    }
}

impl<U: Default> Default for GrokFast<U> {
    fn default() -> Self {
        Self::with_inner(U::default())
    }
}

impl<U: Rule> Hyperparameters for GrokFast<U> {
    const NAME: &'static str = "GrokFast";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        visitor(Hyper {
            name: "ema_decay",
            range: Range::UnitHalfOpen,
            value: &mut self.ema_decay,
        });
        let value = &mut self.amplification;
        visitor(Hyper { name: "amplification", range: Range::NonNegative, value });
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()
    }
}

/// Coefficients of the inner rule and of the average.
#[derive(Clone, Copy, Debug)]
pub struct GrokFastCoefficients<C, R> {
    inner: C,
    old: R,
    new: R,
    amplification: R,
    /// Coupled decay of the inner rule, which the average does not see.
    coupled: R,
}

impl<C, R: Real> GrokFastCoefficients<C, R> {
    /// What the inner rule sees, and the new average.
    #[inline(always)]
    fn amplified(&self, p: R, g: R, average: R) -> (R, R) {
        let average = self.old * average + self.new * g;
        let g = g + self.amplification * average;
        // without decay the parameter is not read: zero times infinity is NaN
        (if self.coupled == R::zero() { g } else { g + self.coupled * p }, average)
    }
}

impl<U: Rule> GrokFast<U> {
    fn coupled(&self) -> f64 {
        match self.inner.decay() {
            WeightDecay::Coupled(decay) => decay,
            _ => 0.0,
        }
    }
}

impl<U: Rule> RuleAround for GrokFast<U> {
    type Inner = U;
    type Coefficients<R: Real> = GrokFastCoefficients<U::Coefficients<R>, R>;
    type State<R: Real> = Pair<[R; 1], U::State<R>>;
    const OWN_SLOTS: &'static [Slot] = &[Slot::signed("grad_ema")];

    fn inner(&self) -> &U {
        &self.inner
    }

    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> Self::Coefficients<R> {
        let old = if t <= 1 { 0.0 } else { self.ema_decay };
        GrokFastCoefficients {
            inner: self.inner.coefficients(t, group),
            old: R::of(old),
            new: R::of(1.0 - old),
            amplification: R::of(self.amplification),
            coupled: R::of(self.coupled()),
        }
    }

    fn inner_coefficients<R: Real>(c: &Self::Coefficients<R>) -> &U::Coefficients<R> {
        &c.inner
    }

    fn inner_coefficients_mut<R: Real>(c: &mut Self::Coefficients<R>) -> &mut U::Coefficients<R> {
        &mut c.inner
    }

    fn inner_state<R: Real>(s: Self::State<R>) -> U::State<R> {
        s.1
    }

    fn with_inner_state<R: Real>(s: Self::State<R>, inner: U::State<R>) -> Self::State<R> {
        Pair(s.0, inner)
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        Pair([average], s): Self::State<R>,
    ) -> (R, Self::State<R>) {
        let (g, average) = c.amplified(p, g, average);
        let (u, s) = U::direction(&c.inner, p, g, s);
        (u, Pair([average], s))
    }

    #[inline(always)]
    fn update<R: Real>(
        c: &Self::Coefficients<R>,
        a: &Apply<R>,
        p: R,
        g: R,
        Pair([average], s): Self::State<R>,
    ) -> (R, Self::State<R>) {
        let (g, average) = c.amplified(p, g, average);
        let (p, s) = U::update(&c.inner, a, p, g, s);
        (p, Pair([average], s))
    }

    fn has_own_update(&self) -> bool {
        // decay inside of a direction is no direction alone
        self.inner.has_own_update() || self.coupled() != 0.0
    }

    fn decay(&self) -> WeightDecay {
        match self.inner.decay() {
            WeightDecay::Coupled(_) => WeightDecay::None,
            decay => decay,
        }
    }

    #[inline(always)]
    fn measure<R: Real>(
        pass: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        Pair([average], s): Self::State<R>,
    ) -> Sums {
        U::measure(pass, &c.inner, p, c.amplified(p, g, average).0, s)
    }

    #[inline(always)]
    fn factor_term<R: Real>(
        slot: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        Pair([average], s): Self::State<R>,
    ) -> R {
        let slot = slot.saturating_sub(Self::OWN_SLOTS.len());
        U::factor_term(slot, &c.inner, p, c.amplified(p, g, average).0, s)
    }
}
crate::rule_around!(GrokFast);
