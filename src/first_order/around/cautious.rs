use super::checks::{check_direction, same_sign};
use crate::error::Result;
use crate::hyper::{Hyper, Hyperparameters, OptionValue, Range as Admissible};
use crate::kernel::Sums;
use crate::numeric::Real;
use crate::optim::{Rule, RuleAround, TensorStep, TensorSums};
use std::ops::Range;

/// Cautious steps: any rule, without the elements of its step that go against the current gradient.
///
/// *Use it when* a rule with momentum overshoots: an element moves only if its direction and its gradient
/// agree, so that a small enough step never raises the loss. *Not when* the rule has no memory: then
/// nothing is left out, and with `scale: Paper` every step is only shorter, by `n/(n + 1)`.
///
/// ```text
/// u ← direction of the inner rule
/// n ← number of elements of the tensor with u·g > 0
/// u ← u·s       where u·g > 0, else 0
/// s = numel/(n + 1)                  scale = Paper
/// s = 1/max(n/numel, 1e-3)           scale = MeanClamped
/// s = 1                              scale = None
/// ```
/// `g` is the gradient as the inner rule sees it: negated with `maximize`, with coupled decay added. Learning
/// rate and decay are the inner rule's. Decay apart from the direction acts on all elements. Decay that a rule
/// keeps in its direction (`Lamb`, `NovoGrad`) is a part of `u`, and left out with it. The step size that
/// `Momo`, `MomoAdam` and `SpsMax` find is that of the whole direction: what the mask leaves out, and its
/// factor `s`, their model of the loss does not know.
///
/// | field | default | source of the default |
/// |---|---|---|
/// | `inner` | the inner rule's | – |
/// | `scale` | `Paper` | paper |
///
/// State: that of the inner rule. One more pass over memory per step, unless `scale` is `None`.
///
/// # Errors
/// `build` refuses an inner rule whose step is not its direction times the learning rate
/// ([`Rule::has_own_update`]): there is no direction to mask.
///
/// # Examples
/// ```
/// use eigenstep::prelude::*;
/// use ndarray::array;
///
/// let mut w = array![0.0f64, 0.0];
/// let sgd = Sgd { lr: 1.0, momentum: 0.9, ..Sgd::default() };
/// let mut opt = Cautious { scale: MaskScale::None, ..Cautious::with_inner(sgd) }.build()?;
/// opt.step(&mut w, &array![1.0, 1.0])?;
/// opt.step(&mut w, &array![1.0, -0.5])?; // the momentum of the second element still says +0.4
/// assert_eq!(w, array![-1.0 - 1.9, -1.0]);
/// # Ok::<(), eigenstep::Error>(())
/// ```
///
/// # Differences
/// From the authors' repository: it clamps the mean of the mask (`MeanClamped`); the paper divides by
/// n + 1. `Lion` has the paper's form as its option `cautious`, too.
///
/// # Source
/// K. Liang, L. Chen, B. Liu, Q. Liu, "Cautious Optimizers: Improving Training with One Line of Code",
/// 2024.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, remote = "Self"))]
pub struct Cautious<U> {
    /// The inner rule.
    pub inner: U,
    /// What makes up for the elements that are left out.
    pub scale: MaskScale,
}
crate::config_file::named_fields!(Cautious<U>, U);

/// Factor on the elements that a mask keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MaskScale {
    /// `numel/(n + 1)`, for n elements that are kept.
    #[default]
    Paper,
    /// `1/max(n/numel, 1e-3)`.
    MeanClamped,
    /// 1.
    None,
}

impl OptionValue for MaskScale {
    fn get(&self) -> f64 {
        f64::from(*self as u8)
    }
    fn set(&mut self, value: f64) {
        *self = match value as u8 {
            0 => Self::Paper,
            1 => Self::MeanClamped,
            _ => Self::None,
        };
    }
}

impl<U> Cautious<U> {
    /// The default around a rule.
    pub fn with_inner(inner: U) -> Self {
        Self { inner, scale: MaskScale::default() }
    }
}

impl<U: Rule> Hyperparameters for Cautious<U> {
    const NAME: &'static str = "Cautious";

    fn visit_options(&mut self, visitor: &mut dyn FnMut(Hyper<'_>)) {
        self.inner.visit_options(visitor);
        let range = Admissible::Choice(&["Paper", "MeanClamped", "None"]);
        visitor(Hyper { name: "scale", range, value: &mut self.scale });
    }

    fn validate_together(&self) -> Result<()> {
        self.inner.validate_together()?;
        check_direction::<Self, U>(&self.inner)?;
        if self.scale != MaskScale::None && self.inner.measure_stride() > 1 {
            let expected = "`None` around a rule that measures a part of the elements";
            return Err(Self::invalid("scale", expected, format!("{:?}", self.scale)));
        }
        Ok(())
    }
}

/// Coefficients of the inner rule, and the factor on elements that are kept.
#[derive(Clone, Copy, Debug)]
pub struct CautiousCoefficients<C, R> {
    inner: C,
    kept: R,
    /// The pass that counts.
    pass: usize,
}

impl<U: Rule> Cautious<U> {
    /// The pass that counts: behind those of the inner rule, whose direction has to be complete.
    fn pass(&self) -> usize {
        self.inner.passes().end
    }
}

impl<U: Rule> RuleAround for Cautious<U> {
    type Inner = U;
    type Coefficients<R: Real> = CautiousCoefficients<U::Coefficients<R>, R>;
    type State<R: Real> = U::State<R>;

    fn inner(&self) -> &U {
        &self.inner
    }

    fn coefficients<R: Real>(&self, t: u64, group: &U::GroupState) -> Self::Coefficients<R> {
        let inner = self.inner.coefficients(t, group);
        CautiousCoefficients { inner, kept: R::one(), pass: self.pass() }
    }

    fn inner_coefficients<R: Real>(c: &Self::Coefficients<R>) -> &U::Coefficients<R> {
        &c.inner
    }

    fn inner_coefficients_mut<R: Real>(c: &mut Self::Coefficients<R>) -> &mut U::Coefficients<R> {
        &mut c.inner
    }

    fn inner_state<R: Real>(s: U::State<R>) -> U::State<R> {
        s
    }

    fn with_inner_state<R: Real>(_: U::State<R>, inner: U::State<R>) -> U::State<R> {
        inner
    }

    #[inline(always)]
    fn direction<R: Real>(
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: U::State<R>,
    ) -> (R, U::State<R>) {
        let (u, s) = U::direction(&c.inner, p, g, s);
        let agrees = same_sign(u, g);
        // a NaN stays visible
        let hidden = if u.is_nan() { u } else { R::zero() };
        (if agrees { u * c.kept } else { hidden }, s)
    }

    fn passes(&self) -> Range<usize> {
        let inner = self.inner.passes();
        if self.scale == MaskScale::None {
            return inner;
        }
        let start = if inner.is_empty() { self.pass() } else { inner.start };
        start..self.pass() + 1
    }

    #[inline(always)]
    fn measure<R: Real>(
        pass: usize,
        c: &Self::Coefficients<R>,
        p: R,
        g: R,
        s: U::State<R>,
    ) -> Sums {
        if pass != c.pass {
            return U::measure(pass, &c.inner, p, g, s);
        }
        let (u, _) = U::direction(&c.inner, p, g, s);
        [if same_sign(u, g) { 1.0 } else { 0.0 }, 0.0, 0.0, 0.0]
    }

    fn absorb(
        &self,
        pass: usize,
        measured: &TensorSums,
        step: &TensorStep<'_>,
        numbers: &mut [f64],
    ) {
        if pass != self.pass() {
            self.inner.absorb(pass, measured, step, numbers);
        }
    }

    fn combine(&self, pass: usize, total: &Sums, group: &mut U::GroupState) {
        if pass != self.pass() {
            self.inner.combine(pass, total, group);
        }
    }

    fn refine<R: Real>(&self, pass: usize, measured: &TensorSums, c: &mut Self::Coefficients<R>) {
        if pass != self.pass() {
            return self.inner.refine(pass, measured, &mut c.inner);
        }
        let ([agreeing, ..], numel) = (measured.sums, measured.numel as f64);
        c.kept = R::of(match self.scale {
            MaskScale::Paper => numel / (agreeing + 1.0),
            MaskScale::MeanClamped => 1.0 / (agreeing / numel).max(1e-3),
            MaskScale::None => 1.0,
        });
    }
}
crate::rule_around!(Cautious);
